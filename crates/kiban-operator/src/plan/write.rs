//! Writes a plan: what later plans build on first (a halt before anything else), what only people read last.

use super::{
    Planner,
    notes::{Company, Note},
    summary,
};
use crate::{context::Context, writer::WriteError};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kiban_api::{
    Device, FirmwareBaseline, FleetPolicy, HardwarePool, Operation, OperationSpec, Rollout, RolloutSpec,
    baseline, labels, operation::PlannedUpdate, shared,
};
use kiban_core::{
    Plan, facts,
    plan::{Adoption, NewOperation, RolloutState, Withdrawal},
    waiting::WaitingOn,
    world::DeviceId,
};
use kube::ResourceExt;
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

/// Writes at once, at most.
const CONCURRENT: usize = 16;
/// Device statuses written in one tick, at most: the rest is due in the next, so that a tick never takes long.
const NOTES_PER_TICK: usize = 500;

/// What was written, as far as later ticks must know.
#[derive(Default)]
pub struct Written {
    /// What was last noted of each device.
    pub verdicts: HashMap<DeviceId, (Option<WaitingOn>, bool)>,
    /// Operations whose create was not answered, and when they were sent.
    pub uncertain: BTreeMap<String, Duration>,
    /// When each object's figures were last written.
    figures: BTreeMap<(&'static str, String), Duration>,
}

/// Whether a device's BMC was read.
#[must_use]
pub fn is_read(device: &Device) -> bool {
    device
        .status
        .as_ref()
        .is_some_and(|s| crate::condition::find(&s.conditions, "Reachable").is_some())
}

/// Writes a plan. Returns when something that was put off is due.
pub(super) async fn write(
    planner: &mut Planner,
    plan: &Plan,
    now: Timestamp,
) -> Result<Option<Duration>, &'static str> {
    let mut failure = None;
    let mut put_off = false;
    let stuck = rollouts(planner, plan, now, &mut failure, &mut put_off).await;
    finish_withdrawals(planner).await;
    withdraw(planner, &plan.withdraw, &mut failure).await;
    adopt(planner, &plan.adopt, &mut failure).await;
    create(planner, &plan.operations, &stuck, &mut failure).await;
    put_off |= summaries(planner, plan, now, &mut failure).await;
    let noted = notes(planner, plan, &mut failure).await;
    let figures = put_off.then_some(planner.context.config.summary_interval);
    match failure {
        Some(reason) => Err(reason),
        None => Ok([figures, noted].into_iter().flatten().min()),
    }
}

fn note_failure(failure: &mut Option<&'static str>, what: &str, name: &str, error: &WriteError) {
    tracing::warn!(name, %error, "could not write {what}, the next tick tries again");
    failure.get_or_insert(error.category());
}

/// Writes the rollouts. Returns those whose status could not be written: nothing is started for them.
async fn rollouts(
    planner: &mut Planner,
    plan: &Plan,
    now: Timestamp,
    failure: &mut Option<&'static str>,
    put_off: &mut bool,
) -> BTreeSet<String> {
    let mut stuck = BTreeSet::new();
    for state in plan.rollouts.iter().filter(|state| state.create || state.changed) {
        match rollout(planner, state, now).await {
            Ok(written) => *put_off |= !written,
            Err(error) => {
                note_failure(failure, "a rollout", &state.name, &error);
                stuck.insert(state.name.clone());
            }
        }
    }
    stuck
}

fn managed(extra: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = [(labels::MANAGED_BY_LABEL, labels::MANAGED_BY)];
    own.iter()
        .chain(extra)
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// Writes one rollout, at once at a milestone, else now and then. Returns whether it was written.
async fn rollout(planner: &mut Planner, state: &RolloutState, now: Timestamp) -> Result<bool, WriteError> {
    let context = planner.context.clone();
    let object = match context.stores.rollouts.get(&state.name) {
        Some(object) => (*object).clone(),
        None => {
            let spec = RolloutSpec {
                pool: state.pool.clone(),
                baseline: state.baseline.clone(),
            };
            let mut object = Rollout::new(&state.name, spec);
            object.metadata.labels = Some(managed(&[(labels::POOL_LABEL, &state.pool)]));
            match context.writer.create(labels::PLANNER_MANAGER, &object).await {
                Err(error) if error.is_conflict() => {
                    live::<Rollout>(&context, &state.name).await.ok_or(error)?
                }
                result => result?,
            }
        }
    };
    let before = object.status.clone();
    let after = summary::rollout(&object, state, now);
    if before.as_ref() == Some(&after) {
        return Ok(true);
    }
    if !summary::is_milestone(before.as_ref(), &after) && !may_write(planner, "Rollout", &state.name) {
        return Ok(false);
    }
    // Decided from what was seen: if someone else wrote it meanwhile, the next tick decides anew.
    let patch = status_patch(before.as_ref(), &after, object.resource_version());
    let written: Rollout = context
        .writer
        .merge_status(labels::PLANNER_MANAGER, &state.name, &patch)
        .await?;
    wrote(planner, "Rollout", &state.name);
    for (reason, text, warning) in summary::news(before.as_ref(), &after) {
        tracing::info!(rollout = %state.name, reason, %text, "rollout");
        if warning {
            context.events.warning(&written, reason, text);
        } else {
            context.events.normal(&written, reason, text);
        }
    }
    planner
        .keeper
        .world
        .upsert_rollout(kiban_api::convert::rollout(&written));
    Ok(true)
}

async fn live<K: crate::store::Watched>(context: &Context, name: &str) -> Option<K> {
    let api = context.api::<K>();
    let read = tokio::time::timeout(context.config.api_deadline, api.get_opt(name)).await;
    let object = read.ok()?.ok()??;
    K::store(&context.stores).absorb(object.clone());
    Some(object)
}

fn may_write(planner: &Planner, kind: &'static str, name: &str) -> bool {
    let now = planner.context.clock.elapsed();
    let last = planner.written.figures.get(&(kind, name.to_owned()));
    last.is_none_or(|last| now.saturating_sub(*last) >= planner.context.config.summary_interval)
}

fn wrote(planner: &mut Planner, kind: &'static str, name: &str) {
    planner
        .written
        .figures
        .insert((kind, name.to_owned()), planner.context.clock.elapsed());
}

/// A merge patch from one status to another: fields that are no longer there are taken away.
fn status_patch<S: Serialize>(before: Option<&S>, after: &S, version: Option<String>) -> Value {
    let (before, mut status) = (json!(before), json!(after));
    if let (Value::Object(before), Value::Object(status)) = (before, &mut status) {
        for key in before.into_iter().map(|(key, _)| key) {
            status.entry(key).or_insert(Value::Null);
        }
    }
    match version {
        Some(version) => json!({ "metadata": { "resourceVersion": version }, "status": status }),
        // A null would remove it, and an update without one is refused.
        None => json!({ "status": status }),
    }
}

/// Operations that were withdrawn and still carry their finalizer: the planner died between the two.
async fn finish_withdrawals(planner: &Planner) {
    let left =
        planner.context.stores.operations.filter(|operation| {
            operation.metadata.deletion_timestamp.is_some() && super::is_pending(operation)
        });
    for operation in left {
        if let Err(error) = take_finalizer(&planner.context, &operation).await {
            tracing::warn!(operation = %operation.name_any(), %error, "could not finish a withdrawal");
        }
    }
}

/// An operation that nobody began has nothing for the ledger.
async fn take_finalizer(context: &Context, operation: &Operation) -> Result<(), WriteError> {
    let kept: Vec<_> = operation
        .finalizers()
        .iter()
        .filter(|f| *f != labels::LEDGER_FINALIZER)
        .cloned()
        .collect();
    let metadata = json!({ "resourceVersion": operation.resource_version(), "uid": operation.uid(), "finalizers": kept });
    let patch = json!({ "metadata": metadata });
    match context
        .writer
        .merge::<Operation>(labels::PLANNER_MANAGER, &operation.name_any(), &patch)
        .await
    {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

async fn withdraw(planner: &Planner, withdrawals: &[Withdrawal], failure: &mut Option<&'static str>) {
    let context = &planner.context;
    for withdrawal in withdrawals {
        let Some(operation) = pending(context, &withdrawal.device, &withdrawal.id) else {
            continue;
        };
        tracing::info!(
            device = withdrawal.device,
            reason = withdrawal.reason,
            "an operation is withdrawn"
        );
        // Only while it is as seen: an executor that began it meanwhile has changed it.
        let result = match context.writer.delete(&*operation, true).await {
            Ok(()) => match context.stores.operations.get(&withdrawal.device) {
                Some(deleting) if deleting.uid() == operation.uid() => {
                    take_finalizer(context, &deleting).await
                }
                _ => Ok(()),
            },
            Err(error) => Err(error),
        };
        match result {
            Err(error) if error.is_conflict() => {}
            Err(error) => note_failure(failure, "a withdrawal", &withdrawal.device, &error),
            Ok(()) => {}
        }
    }
}

/// The operation as it is stored, if it is the one that the plan speaks of and nobody has begun it.
fn pending(context: &Context, device: &str, id: &str) -> Option<std::sync::Arc<Operation>> {
    let operation = context.stores.operations.get(device)?;
    (operation.spec.id == id && super::is_pending(&operation)).then_some(operation)
}

async fn adopt(planner: &mut Planner, adoptions: &[Adoption], failure: &mut Option<&'static str>) {
    let context = planner.context.clone();
    for adoption in adoptions
        .iter()
        .filter(|adoption| adoption.epoch != planner.tenure.epoch)
    {
        let Some(operation) = pending(&context, &adoption.device, &adoption.id) else {
            continue;
        };
        if operation.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let metadata = json!({ "resourceVersion": operation.resource_version(), "uid": operation.uid() });
        let patch = json!({ "metadata": metadata, "spec": { "epoch": planner.tenure.epoch } });
        match context
            .writer
            .merge::<Operation>(labels::PLANNER_MANAGER, &adoption.device, &patch)
            .await
        {
            Ok(operation) => {
                planner
                    .keeper
                    .world
                    .upsert_operation(kiban_api::convert::operation(&operation));
            }
            Err(error) if error.is_conflict() || error.is_not_found() => {}
            Err(error) => note_failure(failure, "an adoption", &adoption.device, &error),
        }
    }
}

async fn create(
    planner: &mut Planner,
    wanted: &[NewOperation],
    stuck: &BTreeSet<String>,
    failure: &mut Option<&'static str>,
) {
    let (context, tenure) = (planner.context.clone(), planner.tenure.clone());
    let granted: Vec<&NewOperation> = wanted
        .iter()
        .filter(|wanted| !stuck.contains(&wanted.rollout))
        .collect();
    let calls: Vec<_> = granted
        .into_iter()
        .map(|wanted| {
            let (context, tenure) = (&context, &tenure);
            async move {
                // The tenure may come to its end while a long list is being created.
                if tenure.remaining() <= context.config.api_deadline {
                    return (wanted, context.clock.elapsed(), None);
                }
                let sent = context.clock.elapsed();
                let object = operation(wanted, tenure.epoch);
                (
                    wanted,
                    sent,
                    Some(context.writer.create(labels::PLANNER_MANAGER, &object).await),
                )
            }
        })
        .collect();
    let mut results = stream::iter(calls).buffer_unordered(CONCURRENT);
    while let Some((wanted, sent, result)) = results.next().await {
        match result {
            None => {
                failure.get_or_insert("LeaseTooShort");
            }
            Some(Ok(object)) => {
                tracing::info!(
                    device = wanted.device,
                    id = wanted.id,
                    wave = wanted.wave,
                    "an operation is granted"
                );
                planner
                    .keeper
                    .world
                    .upsert_operation(kiban_api::convert::operation(&object));
            }
            Some(Err(error)) if error.is_conflict() => {
                // There is one already. What it is, a live read tells; until then it counts.
                planner
                    .keeper
                    .world
                    .upsert_operation(wanted.pending(planner.tenure.epoch));
                live::<Operation>(&context, &wanted.device).await;
            }
            Some(Err(error)) => {
                note_failure(failure, "an operation", &wanted.device, &error);
                if may_have_happened(&error) {
                    planner
                        .keeper
                        .world
                        .upsert_operation(wanted.pending(planner.tenure.epoch));
                    planner.written.uncertain.insert(wanted.device.clone(), sent);
                }
            }
        }
    }
}

/// A write that was not plainly refused may have happened.
fn may_have_happened(error: &WriteError) -> bool {
    match error {
        WriteError::Timeout { .. } => true,
        WriteError::Api { source, .. } => match &**source {
            kube::Error::Api(status) => status.code >= 500,
            _ => true,
        },
    }
}

/// An operation as an object.
#[must_use]
pub fn operation(wanted: &NewOperation, epoch: i64) -> Operation {
    let spec = OperationSpec {
        id: wanted.id.clone(),
        device: wanted.device.clone(),
        campaign: wanted.campaign.clone(),
        pool: wanted.pool.clone(),
        revision: wanted.revision.clone(),
        commit: wanted.commit.clone(),
        wave: wanted.wave,
        epoch,
        updates: wanted.updates.iter().map(update).collect(),
    };
    let metadata = ObjectMeta {
        name: Some(wanted.device.clone()),
        labels: Some(managed(&[
            (labels::POOL_LABEL, &wanted.pool),
            (labels::ROLLOUT_LABEL, &wanted.rollout),
        ])),
        finalizers: Some(vec![labels::LEDGER_FINALIZER.to_owned()]),
        ..ObjectMeta::default()
    };
    Operation {
        metadata,
        spec,
        status: None,
    }
}

fn update(wanted: &kiban_core::plan::PlannedUpdate) -> PlannedUpdate {
    let matches = &wanted.matches;
    PlannedUpdate {
        class: wanted.class.into(),
        match_: (!matches.is_any()).then(|| shared::ComponentMatch {
            manufacturer: matches.manufacturer.clone(),
            model: matches.model.clone(),
            name: matches.name.clone(),
        }),
        name: wanted.name.clone(),
        from: wanted.from.clone(),
        to: wanted.to.clone(),
        image: baseline::Image {
            url: wanted.image.url.clone(),
            sha256: wanted.image.sha256.clone(),
            size: wanted.image.size.and_then(|size| i64::try_from(size).ok()),
        },
        activation: match wanted.activation {
            facts::Activation::None => baseline::Activation::None,
            facts::Activation::BmcReset => baseline::Activation::BMCReset,
            facts::Activation::HostReset => baseline::Activation::HostReset,
            facts::Activation::ColdBoot => baseline::Activation::ColdBoot,
            facts::Activation::AcCycle => baseline::Activation::ACCycle,
        },
    }
}

/// Writes the figures of pools, baselines and the policy, each at most once in a while. Returns whether one was put off.
async fn summaries(
    planner: &mut Planner,
    plan: &Plan,
    now: Timestamp,
    failure: &mut Option<&'static str>,
) -> bool {
    let mut put_off = false;
    let stores = planner.context.stores.clone();
    for object in stores.pools.all() {
        let name = object.name_any();
        let summary = plan.pools.iter().find(|pool| pool.name == name);
        let after = match (
            planner.keeper.broken.get(&("HardwarePool", name.clone())),
            summary,
        ) {
            (Some(why), _) => summary::broken_pool(&object, why, now),
            (None, Some(found)) => summary::pool(&object, found, plan, now),
            (None, None) => continue,
        };
        put_off |= !figures::<HardwarePool, _>(
            planner,
            "HardwarePool",
            &name,
            object.status.as_ref(),
            &after,
            failure,
        )
        .await;
    }
    for object in stores.baselines.all() {
        let name = object.name_any();
        let summary = plan.baselines.iter().find(|baseline| baseline.name == name);
        let after = match (
            planner.keeper.broken.get(&("FirmwareBaseline", name.clone())),
            summary,
        ) {
            (Some(why), _) => summary::broken_baseline(&object, why, now),
            (None, Some(found)) => summary::baseline(&object, found, now),
            (None, None) => continue,
        };
        let before = object.status.as_ref();
        put_off |=
            !figures::<FirmwareBaseline, _>(planner, "FirmwareBaseline", &name, before, &after, failure)
                .await;
    }
    for object in stores.policies.all() {
        let name = object.name_any();
        let broken = planner.keeper.broken.get(&("FleetPolicy", name.clone())).cloned();
        let after = summary::policy(&object, broken.as_deref(), now);
        let before = object.status.as_ref();
        put_off |= !figures::<FleetPolicy, _>(planner, "FleetPolicy", &name, before, &after, failure).await;
    }
    put_off
}

/// Writes one status if it differs and it is time. Returns false when it was put off.
async fn figures<K, S>(
    planner: &mut Planner,
    kind: &'static str,
    name: &str,
    before: Option<&S>,
    after: &S,
    failure: &mut Option<&'static str>,
) -> bool
where
    K: crate::store::Watched,
    S: Serialize + PartialEq,
{
    if before == Some(after) {
        return true;
    }
    if !may_write(planner, kind, name) {
        return false;
    }
    wrote(planner, kind, name);
    let patch = status_patch(before, after, None);
    match planner
        .context
        .writer
        .merge_status::<K>(labels::PLANNER_MANAGER, name, &patch)
        .await
    {
        Ok(_) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => note_failure(failure, "a status", name, &error),
    }
    true
}

/// Writes what is due of the devices' notes by itself. Returns in how long the next are.
async fn notes(planner: &mut Planner, plan: &Plan, failure: &mut Option<&'static str>) -> Option<Duration> {
    let context = planner.context.clone();
    let now = context.clock.elapsed();
    let world = &planner.keeper.world;
    let company = |name: &str| {
        let Some(device) = context.stores.devices.get(name) else {
            return Company::None;
        };
        let status = device.status.as_ref().filter(|_| is_read(&device));
        let Some(status) = status else {
            return Company::Certain;
        };
        // How it compares is written by the observer, an outcome by the executor, what is in Git by the ledger.
        let compared = status.compliance.as_ref().map_or("", |c| c.state.as_str());
        let verdict = plan
            .verdict(world, name)
            .map(|verdict| verdict.compliance.as_str());
        let expected = verdict.is_some_and(|verdict| verdict != compared)
            || !status.unledgered.is_empty()
            || context.stores.operations.get(name).is_some();
        if expected { Company::Soon } else { Company::None }
    };
    let (due, next) = context.notes.due(now, context.config.status_interval, company);
    let more = due.len() > NOTES_PER_TICK;
    let mut results = stream::iter(due.into_iter().take(NOTES_PER_TICK))
        .map(|(name, note)| {
            let context = &context;
            async move {
                let result = write_note(context, &name, &note).await;
                (name, note, result)
            }
        })
        .buffer_unordered(CONCURRENT);
    while let Some((name, note, result)) = results.next().await {
        match result {
            Ok(()) => context.notes.written(&name, &note, now),
            Err(error) if error.is_not_found() => context.notes.forget(&name),
            Err(error) => note_failure(failure, "what a device waits on", &name, &error),
        }
    }
    if more { Some(Duration::ZERO) } else { next }
}

async fn write_note(context: &Context, name: &str, note: &Note) -> Result<(), WriteError> {
    tracing::debug!(device = name, waiting = ?note.waiting_on, "what a device waits on is written by itself");
    let patch = json!({ "status": note.patch() });
    context
        .writer
        .merge_status::<Device>(labels::PLANNER_MANAGER, name, &patch)
        .await
        .map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiban_api::RolloutStatus;

    #[test]
    fn an_operation_is_named_after_its_device_and_kept_by_the_ledger() {
        let wanted = NewOperation {
            device: "s1".into(),
            id: "s1-ab".into(),
            campaign: "Rollout/web-r650".into(),
            rollout: "web-r650".into(),
            pool: "web".into(),
            revision: "r".into(),
            commit: "c0ffee".into(),
            wave: 1,
            updates: Vec::new(),
        };
        let object = operation(&wanted, 7);
        assert_eq!((object.name_any().as_str(), object.spec.epoch), ("s1", 7));
        assert_eq!(object.finalizers(), [labels::LEDGER_FINALIZER]);
        assert_eq!(
            object.labels().get(labels::ROLLOUT_LABEL).map(String::as_str),
            Some("web-r650")
        );
        assert_eq!(kiban_api::convert::operation(&object), wanted.pending(7));
    }

    #[test]
    fn a_status_patch_takes_away_what_is_gone() {
        let before = RolloutStatus {
            commit: "c".into(),
            ..RolloutStatus::default()
        };
        let patch = status_patch(Some(&before), &RolloutStatus::default(), Some("9".into()));
        assert!(patch["status"].as_object().unwrap()["commit"].is_null());
    }
}
