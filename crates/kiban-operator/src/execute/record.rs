//! Between the step machine's words and those of the `Operation` kind.

use crate::{condition, config::Config};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kiban_api::{
    OperationSpec, OperationStatus,
    operation::{Intent, IntentReset, UpdateResult},
};
use kiban_core::operation as core;
use serde_json::{Map, Value};
use std::time::Duration;

/// What the step machine is to do.
pub(super) fn plan(spec: &OperationSpec, config: &Config) -> core::OperationPlan {
    let updates: Vec<core::Update> = spec
        .updates
        .iter()
        .map(|update| core::Update {
            select: core::Selector {
                class: update.class.into(),
                matches: update.match_.as_ref().map(Into::into).unwrap_or_default(),
            },
            name: update.name.clone(),
            from: update.from.clone(),
            to: update.to.clone(),
            sha256: update.image.sha256.to_ascii_lowercase(),
            activation: update.activation.into(),
            // Only a BMC's own update is what its restart would interrupt.
            unstick: update.class != kiban_api::shared::ComponentClass::BMC,
        })
        .collect();
    let timing = timing(config, u32::try_from(updates.len()).unwrap_or(u32::MAX));
    core::OperationPlan {
        id: spec.id.clone(),
        updates,
        timing,
    }
}

/// The step machine's limits from the operator's flags.
fn timing(config: &Config, updates: u32) -> core::Timing {
    let back = config.return_deadline;
    core::Timing {
        // An inventory is dozens of requests.
        read: config.bmc_deadline * 4,
        send: config.upload_deadline,
        reset: config.bmc_deadline * 4,
        write: config.api_deadline,
        stage: config.upload_deadline * 2,
        poll: config.task_poll,
        retry: config.settle,
        start: back / 3,
        busy: back,
        stuck: back,
        settle: back / 2,
        self_reset: (back / 6).max(config.settle),
        activation: back,
        bmc_return: back,
        readbacks: config.stable_reads.max(1),
        readback: config.stable_read_interval,
        probe: back / 2,
        boot: back / 3,
        total: config.update_deadline * updates.max(1),
        progress: config.progress_interval,
        attempts: 3,
        reset_attempts: 3,
    }
}

/// What survived in a status.
pub(super) fn recall(status: &OperationStatus) -> core::Record {
    core::Record {
        started_at: status.started_at.as_ref().map(|time| time.0),
        update: usize::try_from(status.update).unwrap_or(usize::MAX),
        intent: status.intent.as_ref().map(|intent| core::Intent {
            update: usize::try_from(intent.update).unwrap_or(usize::MAX),
            component: intent.component.clone(),
            from: intent.from.clone(),
            to: intent.to.clone(),
            sha256: intent.sha256.clone(),
            attempt: intent.attempt,
            at: intent.at.0,
            call_deadline: intent.call_deadline.0,
            task: intent.task.clone(),
            resets: intent.resets.iter().filter_map(recall_reset).collect(),
        }),
        results: status
            .results
            .iter()
            .map(|result| core::UpdateResult {
                component: result.component.clone(),
                before: result.before.clone(),
                after: result.after.clone(),
                outcome: core::UpdateOutcome::parse(&result.outcome),
                attempts: result.attempts,
            })
            .collect(),
        resets: status.resets,
    }
}

fn recall_reset(reset: &IntentReset) -> Option<core::ResetRecord> {
    let kind = core::Reset::parse(&reset.kind)?;
    Some(core::ResetRecord {
        kind,
        at: reset.at.0,
        call_deadline: reset.call_deadline.0,
    })
}

/// The status that holds a record.
pub(super) fn status(
    before: &OperationStatus,
    state: &core::State,
    spec: &OperationSpec,
    generation: i64,
    executor: &str,
) -> OperationStatus {
    let record = &state.record;
    let (at, of) = (record.update + 1, spec.updates.len());
    OperationStatus {
        observed_generation: generation,
        outcome: "Running".into(),
        step: state.step().into(),
        progress: format!("{}/{of}", at.min(of)),
        executor: executor.into(),
        started_at: record.started_at.map(seconds),
        finished_at: None,
        update: u32::try_from(record.update).unwrap_or(u32::MAX),
        intent: record.intent.as_ref().map(|intent| Intent {
            update: u32::try_from(intent.update).unwrap_or(u32::MAX),
            component: intent.component.clone(),
            from: intent.from.clone(),
            to: intent.to.clone(),
            sha256: intent.sha256.clone(),
            attempt: intent.attempt,
            at: seconds(intent.at),
            call_deadline: seconds(intent.call_deadline),
            task: intent.task.clone(),
            resets: intent
                .resets
                .iter()
                .map(|reset| IntentReset {
                    kind: reset.kind.as_str().into(),
                    at: seconds(reset.at),
                    call_deadline: seconds(reset.call_deadline),
                })
                .collect(),
        }),
        results: record
            .results
            .iter()
            .map(|result| UpdateResult {
                component: result.component.clone(),
                before: result.before.clone(),
                after: result.after.clone(),
                outcome: result.outcome.as_str().into(),
                attempts: result.attempts,
            })
            .collect(),
        resets: record.resets,
        message: String::new(),
        reason: String::new(),
        conditions: before.conditions.clone(),
    }
}

/// The status that holds an outcome.
pub(super) fn finished(
    mut status: OperationStatus,
    outcome: &core::Outcome,
    generation: i64,
    now: Timestamp,
) -> OperationStatus {
    status.outcome = outcome.as_str().into();
    status.step = "done".into();
    status.finished_at = Some(seconds(now));
    status.intent = None;
    status.message = outcome.message().into();
    status.reason = outcome
        .reason()
        .map(|reason| reason.as_str().into())
        .unwrap_or_default();
    let standing = match outcome {
        core::Outcome::Succeeded => condition::Standing::Ready {
            reason: "Succeeded",
            message: "",
        },
        _ => condition::Standing::Stalled {
            reason: &status.reason,
            message: &status.message,
        },
    };
    condition::stand(&mut status.conditions, &standing, generation, now);
    status
}

/// Kubernetes keeps whole seconds in its times. Rounded up: a deadline must never seem earlier than it is.
pub(super) fn seconds(at: Timestamp) -> Time {
    let whole = at.as_second() + i64::from(at.subsec_nanosecond() > 0);
    Time(Timestamp::from_second(whole).unwrap_or(at))
}

/// The merge patch (RFC 7386) that makes one value into another; None where they are the same.
pub(crate) fn difference(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = Map::new();
            for (key, _) in old
                .iter()
                .filter(|(key, value)| !value.is_null() && !new.contains_key(*key))
            {
                patch.insert(key.clone(), Value::Null);
            }
            for (key, value) in new {
                match old.get(key) {
                    None => drop(patch.insert(key.clone(), value.clone())),
                    Some(before) => {
                        if let Some(change) = difference(before, value) {
                            patch.insert(key.clone(), change);
                        }
                    }
                }
            }
            (!patch.is_empty()).then_some(Value::Object(patch))
        }
        (old, new) => (old != new).then(|| new.clone()),
    }
}

/// How long a pause after a failed write is: short, for nothing waits on it but a write.
pub(super) const WRITE_PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_takes_away_what_is_gone_at_any_depth() {
        let old = json!({"a": 1, "intent": {"task": "t", "at": 1}, "list": [1, 2]});
        let new = json!({"a": 1, "intent": {"at": 2}, "list": [2]});
        assert_eq!(
            difference(&old, &new),
            Some(json!({"intent": {"task": null, "at": 2}, "list": [2]}))
        );
        assert_eq!(difference(&new, &new), None);
        assert_eq!(
            difference(&old, &json!({"a": 1, "list": [1, 2]})),
            Some(json!({"intent": null}))
        );
    }

    #[test]
    fn a_record_survives_its_status() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let record = core::Record {
            started_at: Some(at(5)),
            update: 0,
            intent: Some(core::Intent {
                update: 0,
                component: "BIOS".into(),
                from: "1".into(),
                to: "2".into(),
                sha256: "ab".into(),
                attempt: 2,
                at: at(5),
                call_deadline: at(905),
                task: Some("Task /redfish/v1/TaskService/Tasks/1".into()),
                resets: vec![core::ResetRecord {
                    kind: core::Reset::Ac,
                    at: at(6),
                    call_deadline: at(7),
                }],
            }),
            results: vec![core::UpdateResult {
                component: "BMC".into(),
                before: "1".into(),
                after: "2".into(),
                outcome: core::UpdateOutcome::AlreadyThere,
                attempts: 0,
            }],
            resets: 3,
        };
        let mut state = core::State::begin(at(5));
        state.record = record.clone();
        let spec: OperationSpec = serde_json::from_value(json!({
            "id": "x", "device": "d", "campaign": "c", "pool": "p", "revision": "r", "wave": 1, "epoch": 1, "updates": [],
        }))
        .unwrap();
        let status = status(&OperationStatus::default(), &state, &spec, 1, "me");
        let status: OperationStatus = serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap();
        assert_eq!(recall(&status), record);
    }

    #[test]
    fn a_deadline_is_rounded_up() {
        let at = Timestamp::from_millisecond(1_001).unwrap();
        assert_eq!(seconds(at).0, Timestamp::from_second(2).unwrap());
    }
}
