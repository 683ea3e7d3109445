//! Plans, made and written.
//!
//! ```text
//!   watches ──▶ Keeper{World} ──debounce──▶ plan(world, now) ──▶ check ──▶ Writer: rollouts, withdraw, adopt, create
//!                  ▲                                              └─ a finding: nothing is written
//!                  └────────────── what was just created ─────────────────────┘
//! ```
//!
//! A tick is made when something changed, when the last plan said that something becomes due, and now and then. What a
//! tick creates goes into the world at once, so that the next tick counts it, whatever the watch has told. A create whose
//! answer was lost counts as done until a live read says otherwise.

pub mod notes;
pub mod summary;
pub mod world;
pub mod write;

use crate::{context::Context, lease::Tenure, metrics::Activity, writer::WriteError};
use kiban_api::Operation;
use kiban_core::{Plan, compliance::Compliance, facts::Outcome};
use kube::{ResourceExt, api::ListParams};
use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};
use world::Keeper;
use write::Written;

/// After a tick that failed, the next one waits at least this long.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Plans until the tenure ends.
pub async fn run(context: Context, tenure: Tenure) {
    // Before the first plan: what others granted is read live, since a watch may be behind.
    while let Err(error) = read_operations(&context).await {
        tracing::warn!(%error, "could not list the operations, no plan is made before");
        tokio::select! {
            () = tenure.ends.cancelled() => return,
            () = tokio::time::sleep(AFTER_FAILURE) => {}
        }
    }
    let mut planner = Planner {
        keeper: Keeper::new(&context.stores, &context.gates),
        written: Written::default(),
        context: context.clone(),
        tenure: tenure.clone(),
        findings: Vec::new(),
    };
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            () = tenure.ends.cancelled() => return,
            () = planner.keeper.changed() => {
                // What changes meanwhile shares the tick.
                tokio::time::sleep(context.config.plan_debounce).await;
            }
            () = tokio::time::sleep(wait) => {}
        }
        let started = context.clock.elapsed();
        let tick = futures::FutureExt::catch_unwind(AssertUnwindSafe(planner.tick())).await;
        let failure = match tick {
            Ok(Ok(next)) => {
                wait = next;
                None
            }
            Ok(Err(reason)) => {
                wait = AFTER_FAILURE;
                Some(reason)
            }
            Err(_) => {
                context.metrics.panics.inc();
                tracing::error!("planning panicked; the world is built anew");
                planner.keeper = Keeper::new(&context.stores, &context.gates);
                wait = AFTER_FAILURE.saturating_mul(10);
                Some("Panicked")
            }
        };
        context
            .metrics
            .round(Activity::Plan, context.clock.elapsed() - started, failure);
    }
}

async fn read_operations(context: &Context) -> Result<(), WriteError> {
    let api = context.api::<Operation>();
    // Counted as a write so as to share its deadline and errors? No: a read. It only borrows the deadline.
    let list = tokio::time::timeout(context.config.api_deadline, api.list(&ListParams::default())).await;
    let timeout = || WriteError::Timeout {
        verb: crate::metrics::Verb::Create,
        kind: "Operation".into(),
        name: "(list)".into(),
    };
    let list = list.map_err(|_| timeout())?.map_err(|source| WriteError::Api {
        verb: crate::metrics::Verb::Create,
        kind: "Operation".into(),
        name: "(list)".into(),
        source: Box::new(source),
    })?;
    for operation in list {
        context.stores.operations.absorb(operation);
    }
    Ok(())
}

struct Planner {
    context: Context,
    tenure: Tenure,
    keeper: Keeper,
    written: Written,
    /// The findings that were told.
    findings: Vec<String>,
}

impl Planner {
    /// One tick. Returns when the next one is due without any change.
    async fn tick(&mut self) -> Result<Duration, &'static str> {
        let changed = self.keeper.refresh();
        self.settle_uncertain().await;
        let now = self.context.clock.now();
        let begun = Instant::now();
        let plan = self.keeper.plan(now);
        self.context
            .metrics
            .plan_duration
            .observe(begun.elapsed().as_secs_f64());
        let violations = kiban_core::check::check(&self.keeper.world, &plan);
        if !violations.is_empty() {
            return Err(self.refuse(&violations));
        }
        self.tell_findings(&plan);
        self.figures(&plan);
        // A write that is sent now must arrive while the tenure lasts.
        if self.tenure.remaining() <= self.context.config.api_deadline {
            return Err("LeaseTooShort");
        }
        self.take_notes(&plan, &changed);
        let put_off = write::write(self, &plan, now).await?;
        let soak = plan.next_due.map(|at| {
            let left = at.duration_since(self.context.clock.now());
            Duration::try_from(left).unwrap_or_default() + Duration::from_millis(1)
        });
        let waits = [soak, put_off, Some(self.context.config.plan_interval)];
        Ok(waits.into_iter().flatten().min().unwrap_or_default())
    }

    /// The checker found a plan to break a rule: a defect of ours. Nothing of the plan is written.
    fn refuse(&self, violations: &[kiban_core::check::Violation]) -> &'static str {
        self.context.metrics.plan_findings.inc_by(violations.len() as u64);
        let text: Vec<_> = violations.iter().take(5).map(ToString::to_string).collect();
        let text = text.join("; ");
        tracing::error!(violations = %text, "a plan breaks a rule and is not carried out; please report it");
        if let Some(policy) = self.context.stores.policies.get(world::POLICY) {
            self.context.events.warning(&*policy, "PlanRefused", text);
        }
        "PlanRefused"
    }

    fn tell_findings(&mut self, plan: &Plan) {
        let findings: Vec<_> = plan.findings.iter().map(ToString::to_string).collect();
        if findings != self.findings {
            for finding in findings.iter().filter(|finding| !self.findings.contains(finding)) {
                tracing::warn!(%finding, "something should be mended");
            }
            self.findings = findings;
        }
    }

    fn figures(&self, plan: &Plan) {
        let states = [
            Compliance::Compliant,
            Compliance::NonCompliant,
            Compliance::Unknown,
            Compliance::NoBaseline,
        ];
        let mut counts = [0_i64; 4];
        for (_, verdict) in plan.verdicts(&self.keeper.world) {
            if let Some(at) = states.iter().position(|state| *state == verdict.compliance) {
                counts[at] += 1;
            }
        }
        for (state, count) in states.iter().zip(counts) {
            self.context.metrics.devices(state.as_str(), count);
        }
        let outcomes = [
            Outcome::Pending,
            Outcome::Running,
            Outcome::Succeeded,
            Outcome::Failed,
            Outcome::Held,
        ];
        for outcome in outcomes {
            let count = self
                .keeper
                .world
                .operations()
                .filter(|o| o.outcome == outcome)
                .count();
            self.context
                .metrics
                .operations(outcome.as_str(), i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Notes what the plan says of each device, as far as it is not what the device's status says.
    fn take_notes(&mut self, plan: &Plan, changed: &std::collections::BTreeSet<String>) {
        let now = self.context.clock.elapsed();
        for name in changed {
            if self.keeper.world.id(name).is_none() {
                self.context.notes.forget(name);
            }
        }
        let fresh = self.written.verdicts.is_empty();
        for (device, verdict) in plan.verdicts(&self.keeper.world) {
            let said = (verdict.waiting, verdict.bound);
            let name = device.name();
            let known = self.written.verdicts.insert(device.id(), said);
            if !fresh && known == Some(said) && !changed.contains(name) {
                continue;
            }
            let Some(object) = self.context.stores.devices.get(name) else {
                continue;
            };
            // Before the first reading only the pool is known, and the reading's own write takes that along.
            let read = write::is_read(&object);
            let present = notes::Note::of(&object);
            let note = notes::Note {
                binding: verdict.bound.then(|| kiban_api::device::Binding {
                    pool: device.pool().to_owned(),
                }),
                waiting_on: verdict
                    .waiting
                    .filter(|_| read)
                    .map(|waiting| kiban_api::device::Waiting {
                        reason: waiting.reason().to_owned(),
                        message: waiting.sentence(&self.keeper.world).to_string(),
                    }),
            };
            self.context.notes.set(name, note, &present, now);
        }
    }

    /// Operations whose create was never answered: what is there now decides whether they count.
    async fn settle_uncertain(&mut self) {
        let now = self.context.clock.elapsed();
        // The API server has ended a request by then, one way or the other.
        let settled_after = self.context.config.api_deadline * 2;
        let due: Vec<String> = self
            .written
            .uncertain
            .iter()
            .filter(|(_, since)| now.saturating_sub(**since) >= settled_after)
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            let operations = self.context.api::<Operation>();
            let read = tokio::time::timeout(self.context.config.api_deadline, operations.get_opt(&name));
            match read.await {
                Ok(Ok(Some(operation))) => {
                    self.context.stores.operations.absorb(operation);
                    self.written.uncertain.remove(&name);
                }
                Ok(Ok(None)) => {
                    if self.context.stores.operations.get(&name).is_none() {
                        self.keeper.world.remove_operation(&name);
                    }
                    self.written.uncertain.remove(&name);
                }
                // It goes on counting.
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }
}

/// Whether an operation may still be started by nobody: it has not begun and is not on its way out.
pub(crate) fn is_pending(operation: &Operation) -> bool {
    let outcome = operation
        .status
        .as_ref()
        .map_or("", |status| status.outcome.as_str());
    matches!(outcome, "" | "Pending") && !operation.name_any().is_empty()
}
