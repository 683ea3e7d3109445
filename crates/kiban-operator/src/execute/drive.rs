//! The driver: gives the step machine time and observations, does what it says, and writes what must survive.

use super::{act::Hand, act::failure, is_final, is_told, machines::Machines, record};
use crate::{
    context::Context,
    lease::Tenure,
    metrics::Activity,
    observe::{
        read::{self, Seen},
        status::{self as device_status, Change},
    },
    writer::WriteError,
};
use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use kiban_api::{
    Device, Operation, OperationStatus,
    device::{Hold, LastOperation},
    labels::EXECUTOR_MANAGER,
};
use kiban_core::operation::{
    Effect, EffectKind, FailureClass, Observation, OperationPlan, Outcome, Reason, State, advance,
};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::{panic::AssertUnwindSafe, time::Duration};

/// Runs one operation until it is over and told, or the tenure is. A panic costs this operation only.
pub(super) async fn drive(context: &Context, machines: &Machines, tenure: &Tenure, name: &str) {
    let begun = context.clock.elapsed();
    let run = AssertUnwindSafe(run(context, machines, tenure, name))
        .catch_unwind()
        .await;
    let failed = match run {
        Ok(result) => result.err(),
        Err(_) => {
            context.metrics.panics.inc();
            tracing::error!(
                device = name,
                "an operation made the operator panic, its device is held"
            );
            let quarantined = AssertUnwindSafe(quarantine(context, machines, tenure, name))
                .catch_unwind()
                .await;
            quarantined
                .unwrap_or(Err(Stop::Lost("it panicked again".into())))
                .err()
                .or(Some(Stop::Panicked))
        }
    };
    if let Some(stop) = &failed {
        tracing::warn!(device = name, %stop, "an operation was put down");
    }
    let took = context.clock.elapsed().saturating_sub(begun);
    context
        .metrics
        .round(Activity::Execute, took, failed.as_ref().map(Stop::category));
}

/// Why an operation was put down before its end.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("the shard is another's now")]
    Tenure,
    #[error("the operation is another's now: {0}")]
    Lost(String),
    #[error("the API server could not be read: {0}")]
    Api(String),
    #[error("the operator panicked over it")]
    Panicked,
}

impl Stop {
    fn category(&self) -> &'static str {
        match self {
            Self::Tenure => "ShardLost",
            Self::Lost(_) => "OperationLost",
            Self::Api(_) => "ApiUnreachable",
            Self::Panicked => "Panicked",
        }
    }
}

async fn run(context: &Context, machines: &Machines, tenure: &Tenure, name: &str) -> Result<(), Stop> {
    let operation = live(context, name).await?;
    let mut desk = Desk::new(context, tenure, operation);
    if !is_final(&desk.operation) {
        steps(context, machines, tenure, &mut desk).await?;
    }
    tell(context, machines, tenure, &desk.operation).await
}

/// The loop: what the machine says, done; what was seen of it, given back.
async fn steps(
    context: &Context,
    machines: &Machines,
    tenure: &Tenure,
    desk: &mut Desk<'_>,
) -> Result<(), Stop> {
    let operation = desk.operation.clone();
    let plan = record::plan(&operation.spec, &context.config);
    let status = operation.status.clone().unwrap_or_default();
    let mut state = State::recover(record::recall(&status), desk.now());
    let mut hand = Hand::new(context, machines, &operation);
    let mut observation = Observation::Begin;
    let result = loop {
        let (next, effect) = advance(&plan, state, observation, desk.now());
        state = next;
        tracing::debug!(device = %operation.spec.device, step = state.step(), effect = effect.kind.as_str(), "next");
        if let EffectKind::Finish(outcome) = &effect.kind {
            break desk.finish(&state, outcome).await;
        }
        match one(tenure, desk, &mut hand, &plan, &state, &effect).await {
            Ok(seen) => observation = seen,
            Err(stop) => break Err(stop),
        }
    };
    hand.let_go().await;
    result
}

async fn one(
    tenure: &Tenure,
    desk: &mut Desk<'_>,
    hand: &mut Hand<'_>,
    plan: &OperationPlan,
    state: &State,
    effect: &Effect,
) -> Result<Observation, Stop> {
    let left = desk.until(effect.deadline);
    if tenure.is_over() {
        return Err(Stop::Tenure);
    }
    match &effect.kind {
        EffectKind::Wait => {
            if left > plan.timing.poll * 4 {
                // BMCs have few sessions; a long wait holds none.
                hand.let_go().await;
            }
            tokio::select! {
                () = tenure.ends.cancelled() => Err(Stop::Tenure),
                () = tokio::time::sleep(left) => Ok(Observation::Elapsed),
            }
        }
        EffectKind::WriteIntent | EffectKind::WriteProgress => desk.write(state).await,
        EffectKind::Send { .. } | EffectKind::Reset { .. } => {
            if left.is_zero() {
                return Ok(failure(
                    FailureClass::Local,
                    false,
                    "the deadline had passed before the call".into(),
                ));
            }
            // Once begun, a change is seen to its end, for as long as the shutdown allows: cutting it makes a doubt.
            let grace = async {
                tenure.ends.cancelled().await;
                tokio::time::sleep(desk.context.config.shutdown_deadline / 2).await;
            };
            tokio::select! {
                () = grace => Err(Stop::Tenure),
                seen = hand.perform(effect, left) => Ok(seen),
            }
        }
        _ => tokio::select! {
            () = tenure.ends.cancelled() => Err(Stop::Tenure),
            seen = hand.perform(effect, left) => Ok(seen),
        },
    }
}

/// The operation's object: what it was when it was last read or written, which is the precondition of the next write.
struct Desk<'a> {
    context: &'a Context,
    tenure: &'a Tenure,
    operation: Operation,
    /// Wall time and monotonic time at the start: a wall clock that jumps moves no limit.
    start: (Timestamp, Duration),
}

impl<'a> Desk<'a> {
    fn new(context: &'a Context, tenure: &'a Tenure, operation: Operation) -> Self {
        Self {
            context,
            tenure,
            operation,
            start: (context.clock.now(), context.clock.elapsed()),
        }
    }

    fn now(&self) -> Timestamp {
        let passed = self.context.clock.elapsed().saturating_sub(self.start.1);
        SignedDuration::try_from(passed)
            .ok()
            .and_then(|passed| self.start.0.checked_add(passed).ok())
            .unwrap_or(self.start.0)
    }

    fn until(&self, deadline: Timestamp) -> Duration {
        Duration::try_from(deadline.duration_since(self.now())).unwrap_or(Duration::ZERO)
    }

    fn status_of(&self, state: &State) -> OperationStatus {
        let before = self.operation.status.clone().unwrap_or_default();
        let generation = self.operation.metadata.generation.unwrap_or(0);
        record::status(
            &before,
            state,
            &self.operation.spec,
            generation,
            &self.context.identity,
        )
    }

    /// Makes the state's record durable.
    async fn write(&mut self, state: &State) -> Result<Observation, Stop> {
        let wanted = self.status_of(state);
        Ok(match self.put(&wanted).await? {
            None => Observation::Written,
            Some(why) => failure(FailureClass::Local, false, why),
        })
    }

    /// Writes the outcome, for as long as it takes.
    async fn finish(&mut self, state: &State, outcome: &Outcome) -> Result<(), Stop> {
        let generation = self.operation.metadata.generation.unwrap_or(0);
        let wanted = record::finished(self.status_of(state), outcome, generation, self.now());
        while let Some(why) = self.put(&wanted).await? {
            tracing::warn!(device = %self.operation.spec.device, why, "could not write an outcome, it is tried again");
            pause(self.tenure).await?;
        }
        Ok(())
    }

    /// Writes a status over the one that was read last, and over no other. Some: it is not written, and may be tried again.
    async fn put(&mut self, wanted: &OperationStatus) -> Result<Option<String>, Stop> {
        let mut new = to_value(wanted)?;
        if let Some(schema) =
            kiban_api::generate::schema("Operation").and_then(|schema| schema.pointer("/properties/status"))
        {
            kiban_api::bounds::fit(&mut new, schema);
        }
        for _ in 0..3 {
            if self.tenure.remaining() < self.context.config.api_deadline {
                return Err(Stop::Tenure);
            }
            let old = to_value(&self.operation.status)?;
            let old = if old.is_null() { json!({}) } else { old };
            let Some(change) = record::difference(&old, &new) else {
                return Ok(None);
            };
            let name = self.operation.name_any();
            let metadata = json!({
                "uid": self.operation.uid(), "resourceVersion": self.operation.resource_version(),
            });
            let patch = json!({"metadata": metadata, "status": change});
            let written = self
                .context
                .writer
                .merge_status::<Operation>(EXECUTOR_MANAGER, &name, &patch)
                .await;
            let error = match written {
                Ok(operation) => {
                    self.operation = operation;
                    return Ok(None);
                }
                Err(error) => error,
            };
            // Refused, raced, or answered to nobody: what is there now tells which.
            let there = match live(self.context, &name).await {
                Ok(there) => there,
                Err(Stop::Api(why)) => return Ok(Some(why)),
                Err(stop) => return Err(stop),
            };
            if there.uid() != self.operation.uid() {
                return Err(Stop::Lost("it was deleted and made anew".into()));
            }
            let held = to_value(&there.status)?;
            let raced = there.resource_version() != self.operation.resource_version();
            if held == to_value(&self.operation.status)? || held == new {
                // Someone wrote beside the status, or our own write landed without its answer.
                self.operation = there;
                if raced || held == new {
                    continue;
                }
                return Ok(Some(error.to_string()));
            }
            return Err(Stop::Lost(format!(
                "its status was written by {:?}",
                there.status.map(|s| s.executor)
            )));
        }
        Ok(Some("it changed again and again while it was written".into()))
    }
}

async fn pause(tenure: &Tenure) -> Result<(), Stop> {
    tokio::select! {
        () = tenure.ends.cancelled() => Err(Stop::Tenure),
        () = tokio::time::sleep(record::WRITE_PAUSE) => Ok(()),
    }
}

async fn live(context: &Context, name: &str) -> Result<Operation, Stop> {
    let api = context.api::<Operation>();
    match tokio::time::timeout(context.config.api_deadline, api.get_opt(name)).await {
        Ok(Ok(Some(operation))) => Ok(operation),
        Ok(Ok(None)) => Err(Stop::Lost("it is gone".into())),
        Ok(Err(error)) => Err(Stop::Api(error.to_string())),
        Err(_) => Err(Stop::Api("no answer in time".into())),
    }
}

fn to_value<T: serde::Serialize>(value: &T) -> Result<Value, Stop> {
    serde_json::to_value(value)
        .map_err(|error| Stop::Lost(format!("its status cannot be written down: {error}")))
}

/// Writes a finished operation's outcome into its device's status. Safe to repeat: a crash between the two writes is mended by
/// whoever takes the operation up next.
async fn tell(
    context: &Context,
    machines: &Machines,
    tenure: &Tenure,
    operation: &Operation,
) -> Result<(), Stop> {
    let Some(status) = operation.status.as_ref() else {
        return Ok(());
    };
    let name = operation.spec.device.as_str();
    let seen = look_after(context, machines, name, status).await;
    let last = LastOperation {
        id: operation.spec.id.clone(),
        campaign: operation.spec.campaign.clone(),
        revision: operation.spec.revision.clone(),
        outcome: status.outcome.clone(),
        message: status.message.clone(),
        finished_at: status
            .finished_at
            .clone()
            .unwrap_or_else(|| record::seconds(context.clock.now())),
    };
    let hold = (status.outcome == "Held").then(|| Hold {
        reason: status.reason.clone(),
        message: status.message.clone(),
        operation: operation.spec.id.clone(),
    });
    let classes = match status.outcome.as_str() {
        "Succeeded" => operation.spec.updates.iter().map(|update| update.class).collect(),
        // What a failed update left behind is news.
        _ => Vec::new(),
    };
    let change = Change::Finished {
        last,
        hold,
        seen,
        classes,
    };
    loop {
        match device_status::write(context, name, &change).await {
            Ok(None) => break,
            Ok(Some(device)) => {
                announce(context, &device, operation, status);
                break;
            }
            Err(error) if error.is_not_found() => return Err(Stop::Lost("its device is gone".into())),
            Err(error) => {
                report(name, &error);
                pause(tenure).await?;
            }
        }
    }
    Ok(())
}

fn report(device: &str, error: &WriteError) {
    tracing::warn!(device, %error, "could not write a device's status, it is tried again");
}

fn announce(context: &Context, device: &Device, operation: &Operation, status: &OperationStatus) {
    let why = format!(
        "{} of {}: {}",
        status.reason, operation.spec.campaign, status.message
    );
    match status.outcome.as_str() {
        "Failed" => context.events.warning(device, "UpdateFailed", why),
        "Held" => context.events.warning(device, "Held", why),
        // A success of one machine is no news.
        _ => {}
    }
}

/// What the device is after the operation, unless the operation ended because it cannot be asked.
async fn look_after(
    context: &Context,
    machines: &Machines,
    name: &str,
    status: &OperationStatus,
) -> Option<Box<Seen>> {
    if Reason::SILENT
        .iter()
        .any(|reason| reason.as_str() == status.reason)
    {
        return None;
    }
    let device = context.stores.devices.get(name)?;
    match read::read(context, machines, &device, false).await {
        Ok(seen) => Some(Box::new(seen)),
        Err(error) => {
            tracing::debug!(device = name, error = %error.message(), "could not read a device after its operation");
            None
        }
    }
}

/// Ends an operation that makes the operator panic. What is known is in its status: an intent without an outcome is unknown.
async fn quarantine(context: &Context, machines: &Machines, tenure: &Tenure, name: &str) -> Result<(), Stop> {
    let operation = live(context, name).await?;
    if is_final(&operation) {
        let device = context.stores.devices.get(name);
        return match device {
            Some(device) if !is_told(&operation, &device) => {
                tell(context, machines, tenure, &operation).await
            }
            _ => Ok(()),
        };
    }
    let mut desk = Desk::new(context, tenure, operation);
    let status = desk.operation.status.clone().unwrap_or_default();
    let state = State::recover(record::recall(&status), desk.now());
    let message = "the operator failed over this operation, a defect of its own: report it with the operator's log, look \
                   at the device, then release the hold";
    desk.finish(&state, &Outcome::Held(Reason::Panicked, message.into()))
        .await?;
    tell(context, machines, tenure, &desk.operation).await
}
