//! What the statuses of rollouts, pools, baselines and the policy say: pure functions from a plan to values.

use crate::condition::{self, Standing, Truth};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kiban_api::{
    FirmwareBaseline, FirmwareBaselineStatus, FleetPolicy, FleetPolicyStatus, HardwarePool,
    HardwarePoolStatus, Rollout, RolloutStatus,
    rollout::{Canary, GateStatus, GivenApproval, Halt, Resumed},
};
use kiban_core::plan::{BaselineSummary, Plan, PoolSummary, RolloutState};

/// What a rollout's status says.
#[must_use]
pub fn rollout(object: &Rollout, state: &RolloutState, now: Timestamp) -> RolloutStatus {
    let wanted = &state.status;
    let mut status = RolloutStatus {
        observed_generation: object.metadata.generation.unwrap_or_default(),
        revision: wanted.revision.clone(),
        commit: wanted.commit.clone(),
        started_at: wanted.started_at.map(Time),
        total: wanted.total,
        done: wanted.done,
        failed: wanted.failed,
        running: wanted.running,
        wave: wanted.wave,
        waves: wanted.waves,
        wave_summary: format!("{}/{}", wanted.wave, wanted.waves),
        progress: format!("{}/{}", wanted.done, wanted.total),
        wave_done_at: wanted.wave_done_at.map(Time),
        gates: wanted
            .gates
            .iter()
            .map(|gate| GateStatus {
                name: gate.name.clone(),
                state: gate.state.as_str().to_owned(),
                since: Time(gate.since),
                message: gate.message.clone(),
            })
            .collect(),
        approvals: wanted
            .approvals
            .iter()
            .map(|given| GivenApproval {
                approval: given.approval.clone(),
                what: given.what.clone(),
                by: given.by.clone(),
                at: Time(given.at),
            })
            .collect(),
        resumed: wanted.resumed.as_ref().map(|resumed| Resumed {
            halt: Time(resumed.halt),
            at: Time(resumed.at),
            failed: resumed.failed,
            lost: resumed.lost,
        }),
        canaries: wanted
            .canaries
            .iter()
            .map(|canary| Canary {
                class: canary.class.clone(),
                device: canary.device.clone(),
            })
            .collect(),
        halt: wanted.halt.as_ref().map(|halt| Halt {
            at: Time(halt.at),
            message: halt.message.clone(),
            devices: halt.devices.clone(),
        }),
        completed_at: wanted.completed_at.map(Time),
        conditions: object
            .status
            .as_ref()
            .map(|s| s.conditions.clone())
            .unwrap_or_default(),
    };
    let message = progress(state);
    let standing = match (&wanted.halt, wanted.completed_at, state.soak_until) {
        (Some(halt), _, _) => Standing::Stalled {
            reason: "Halted",
            message: &halt.message,
        },
        (None, Some(_), _) => Standing::Ready {
            reason: "Completed",
            message: &message,
        },
        (None, None, Some(_)) => Standing::Reconciling {
            reason: "Soaking",
            message: &message,
        },
        (None, None, None) => Standing::Reconciling {
            reason: "RollingOut",
            message: &message,
        },
    };
    let generation = status.observed_generation;
    condition::stand(&mut status.conditions, &standing, generation, now);
    let (truth, reason, text) = match &wanted.halt {
        Some(halt) => (Truth::True, "TooManyFailures", halt.message.as_str()),
        None => (Truth::False, "NotHalted", ""),
    };
    condition::set(
        &mut status.conditions,
        "Halted",
        truth,
        reason,
        text,
        generation,
        now,
    );
    status
}

fn progress(state: &RolloutState) -> String {
    let status = &state.status;
    let mut text = format!(
        "wave {} of {}: {} of {} done",
        status.wave, status.waves, status.done, status.total
    );
    if status.failed > 0 {
        text += &format!(", {} failed", status.failed);
    }
    if status.running > 0 {
        text += &format!(", {} under way", status.running);
    }
    if let Some(waiting) = &state.waiting {
        text += &format!("; {waiting}");
    }
    if let Some(until) = state.soak_until {
        text += &format!("; the wave soaks until {}", until.strftime("%Y-%m-%dT%H:%M:%SZ"));
    }
    text
}

/// Whether two statuses of a rollout differ in more than figures: then the difference is written at once, since later
/// plans build on it.
#[must_use]
pub fn is_milestone(before: Option<&RolloutStatus>, after: &RolloutStatus) -> bool {
    before.is_none_or(|before| {
        (
            &before.revision,
            &before.commit,
            before.wave,
            before.waves,
            before.total,
        ) != (
            &after.revision,
            &after.commit,
            after.wave,
            after.waves,
            after.total,
        ) || before.wave_done_at != after.wave_done_at
            || before.canaries != after.canaries
            || before.completed_at != after.completed_at
            || before.started_at != after.started_at
            || before.gates != after.gates
            || before.approvals != after.approvals
            || before.halt.is_some() != after.halt.is_some()
    })
}

/// What is to be told of a rollout's change: reason, sentence, and whether it is a warning.
#[must_use]
pub fn news(before: Option<&RolloutStatus>, after: &RolloutStatus) -> Vec<(&'static str, String, bool)> {
    let mut news = Vec::new();
    let same = before.filter(|before| before.revision == after.revision);
    if same.is_none() {
        let text = format!(
            "revision {}: {} devices in {} waves",
            after.revision, after.total, after.waves
        );
        news.push(("RolloutStarted", text, false));
    } else if same.is_some_and(|before| before.wave < after.wave) {
        news.push((
            "WaveOpened",
            format!("wave {} of {}", after.wave, after.waves),
            false,
        ));
    }
    if after.wave_done_at.is_some() && same.is_none_or(|before| before.wave_done_at != after.wave_done_at) {
        let text = format!(
            "wave {} of {}: {} of {} devices done",
            after.wave, after.waves, after.done, after.total
        );
        news.push(("WaveCompleted", text, false));
    }
    let known = same.map_or(0, |before| before.approvals.len());
    for given in after.approvals.iter().skip(known) {
        let text = format!("{}, by {} ({})", given.what, given.by, given.approval);
        news.push(("Approved", text, false));
    }
    if let Some(halt) = &after.halt
        && same.is_none_or(|before| before.halt.is_none())
    {
        news.push(("RolloutHalted", halt.message.clone(), true));
    }
    if after.completed_at.is_some() && same.is_none_or(|before| before.completed_at.is_none()) {
        news.push((
            "RolloutCompleted",
            format!("{} of {} devices done", after.done, after.total),
            false,
        ));
    }
    news
}

/// What a pool's status says.
#[must_use]
pub fn pool(object: &HardwarePool, summary: &PoolSummary, plan: &Plan, now: Timestamp) -> HardwarePoolStatus {
    let generation = object.metadata.generation.unwrap_or_default();
    let percent = u64::from(summary.compliant) * 100 / u64::from(summary.bound.max(1));
    let mut conditions = object
        .status
        .as_ref()
        .map(|s| s.conditions.clone())
        .unwrap_or_default();
    let missing = summary.missing_baselines.join(", ");
    let conflict = plan.findings.iter().find(|finding| {
        matches!(finding, kiban_core::finding::Finding::BaselineConflict { pool, .. } if *pool == summary.name)
    });
    let (truth, reason, message) = match (missing.is_empty(), conflict) {
        (false, _) => (
            Truth::False,
            "BaselineNotFound",
            format!("there is no FirmwareBaseline {missing}"),
        ),
        (true, Some(finding)) => (Truth::False, "BaselineConflict", finding.to_string()),
        (true, None) => (Truth::True, "Resolved", String::new()),
    };
    condition::set(
        &mut conditions,
        "BaselinesResolved",
        truth,
        reason,
        &message,
        generation,
        now,
    );
    let halted = plan
        .rollouts
        .iter()
        .find(|r| r.pool == summary.name && r.status.halt.is_some());
    let figures = format!(
        "{} of {} compliant, {} updating, {} held, {} not known",
        summary.compliant, summary.bound, summary.updating, summary.held, summary.unknown
    );
    let halt_message = halted
        .map(|r| format!("rollout {} halted; {figures}", r.name))
        .unwrap_or_default();
    let standing = if truth == Truth::False {
        Standing::Stalled {
            reason,
            message: &message,
        }
    } else if halted.is_some() {
        Standing::Stalled {
            reason: "RolloutHalted",
            message: &halt_message,
        }
    } else if summary.compliant + summary.no_baseline() >= summary.bound && summary.updating == 0 {
        Standing::Ready {
            reason: "Compliant",
            message: &figures,
        }
    } else if summary.held > 0 && summary.updating == 0 {
        Standing::Stalled {
            reason: "DevicesHeld",
            message: &figures,
        }
    } else {
        Standing::Reconciling {
            reason: "NotCompliant",
            message: &figures,
        }
    };
    condition::stand(&mut conditions, &standing, generation, now);
    HardwarePoolStatus {
        observed_generation: generation,
        bound: summary.bound,
        compliant: summary.compliant,
        compliant_summary: format!("{} ({percent}%)", summary.compliant),
        updating: summary.updating,
        unavailable_summary: format!("{}/{}", summary.unavailable, summary.allowed),
        conditions,
    }
}

/// What a summary does not count by itself.
trait Rest {
    /// Devices that no baseline speaks of.
    fn no_baseline(&self) -> u32;
}

impl Rest for PoolSummary {
    fn no_baseline(&self) -> u32 {
        self.bound
            .saturating_sub(self.compliant + self.non_compliant + self.unknown)
    }
}

/// What the status of a pool says whose spec cannot be understood.
#[must_use]
pub fn broken_pool(object: &HardwarePool, why: &str, now: Timestamp) -> HardwarePoolStatus {
    let mut status = object.status.clone().unwrap_or_default();
    status.observed_generation = object.metadata.generation.unwrap_or_default();
    let standing = Standing::Stalled {
        reason: "SpecNotUnderstood",
        message: why,
    };
    condition::stand(&mut status.conditions, &standing, status.observed_generation, now);
    status
}

/// What a baseline's status says.
#[must_use]
pub fn baseline(
    object: &FirmwareBaseline,
    summary: &BaselineSummary,
    now: Timestamp,
) -> FirmwareBaselineStatus {
    let generation = object.metadata.generation.unwrap_or_default();
    let mut conditions = object
        .status
        .as_ref()
        .map(|s| s.conditions.clone())
        .unwrap_or_default();
    let missing = summary.missing_models.join(", ");
    let message = format!("there is no HardwareModel {missing}");
    let standing = if missing.is_empty() {
        condition::set(
            &mut conditions,
            "ModelsResolved",
            Truth::True,
            "Resolved",
            "",
            generation,
            now,
        );
        Standing::Ready {
            reason: "Resolved",
            message: "",
        }
    } else {
        condition::set(
            &mut conditions,
            "ModelsResolved",
            Truth::False,
            "ModelNotFound",
            &message,
            generation,
            now,
        );
        Standing::Stalled {
            reason: "ModelNotFound",
            message: &message,
        }
    };
    condition::stand(&mut conditions, &standing, generation, now);
    FirmwareBaselineStatus {
        observed_generation: generation,
        devices: summary.devices,
        compliant: summary.compliant,
        conditions,
    }
}

/// What the status of a baseline says whose spec cannot be understood.
#[must_use]
pub fn broken_baseline(object: &FirmwareBaseline, why: &str, now: Timestamp) -> FirmwareBaselineStatus {
    let mut status = object.status.clone().unwrap_or_default();
    status.observed_generation = object.metadata.generation.unwrap_or_default();
    let standing = Standing::Stalled {
        reason: "SpecNotUnderstood",
        message: why,
    };
    condition::stand(&mut status.conditions, &standing, status.observed_generation, now);
    status
}

/// What the policy's status says.
#[must_use]
pub fn policy(object: &FleetPolicy, broken: Option<&str>, now: Timestamp) -> FleetPolicyStatus {
    let generation = object.metadata.generation.unwrap_or_default();
    let mut conditions = object
        .status
        .as_ref()
        .map(|s| s.conditions.clone())
        .unwrap_or_default();
    let standing = match (broken, object.spec.paused) {
        (Some(message), _) => Standing::Stalled {
            reason: "SpecNotUnderstood",
            message,
        },
        (None, true) => Standing::Ready {
            reason: "Paused",
            message: "nothing new is started anywhere",
        },
        (None, false) => Standing::Ready {
            reason: "InForce",
            message: "",
        },
    };
    condition::stand(&mut conditions, &standing, generation, now);
    FleetPolicyStatus {
        observed_generation: generation,
        conditions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiban_core::facts::{HaltFacts, RolloutStatus as Wanted};
    use serde_json::json;

    fn object() -> Rollout {
        serde_json::from_value(json!({
            "apiVersion": "kiban.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "web-r650", "generation": 1},
            "spec": {"pool": "web", "baseline": "r650"}
        }))
        .unwrap()
    }

    fn state(status: Wanted) -> RolloutState {
        RolloutState {
            name: "web-r650".into(),
            pool: "web".into(),
            baseline: "r650".into(),
            status,
            remaining: 0,
            waiting: None,
            soak_until: None,
            create: false,
            changed: true,
        }
    }

    fn begun() -> Wanted {
        Wanted {
            revision: "r1".into(),
            total: 24,
            waves: 3,
            wave: 1,
            ..Wanted::default()
        }
    }

    fn reasons(before: &RolloutStatus, after: &RolloutStatus) -> Vec<&'static str> {
        news(Some(before), after)
            .into_iter()
            .map(|(reason, _, _)| reason)
            .collect()
    }

    #[test]
    fn a_rollout_tells_each_turn_once() {
        let now = Timestamp::UNIX_EPOCH;
        let first = rollout(&object(), &state(begun()), now);
        assert_eq!(news(None, &first)[0].0, "RolloutStarted");
        assert!(is_milestone(None, &first));
        let figures = rollout(
            &object(),
            &state(Wanted {
                done: 1,
                running: 2,
                ..begun()
            }),
            now,
        );
        assert!(!is_milestone(Some(&first), &figures), "figures alone can wait");
        assert_eq!(reasons(&first, &figures), [""; 0]);
        assert_eq!(figures.progress, "1/24");
        let second = rollout(&object(), &state(Wanted { wave: 2, ..begun() }), now);
        assert!(is_milestone(Some(&first), &second));
        assert_eq!(reasons(&first, &second), ["WaveOpened"]);
        let halt = HaltFacts {
            at: now,
            message: "2 failed".into(),
            devices: vec!["s1".into()],
        };
        let halted = rollout(
            &object(),
            &state(Wanted {
                wave: 2,
                halt: Some(halt),
                ..begun()
            }),
            now,
        );
        assert_eq!(reasons(&second, &halted), ["RolloutHalted"]);
        assert!(
            condition::is_true(&halted.conditions, "Stalled")
                && condition::is_true(&halted.conditions, "Halted")
        );
        assert_eq!(reasons(&halted, &halted), [""; 0]);
        let done = rollout(
            &object(),
            &state(Wanted {
                completed_at: Some(now),
                wave: 3,
                ..begun()
            }),
            now,
        );
        assert!(condition::is_true(&done.conditions, "Ready"));
        assert_eq!(reasons(&second, &done), ["WaveOpened", "RolloutCompleted"]);
    }

    #[test]
    fn a_pool_is_ready_when_all_that_have_a_baseline_are_at_it() {
        let object: HardwarePool = serde_json::from_value(json!({
            "apiVersion": "kiban.dev/v1alpha1", "kind": "HardwarePool", "metadata": {"name": "web"},
            "spec": {"service": "web"}
        }))
        .unwrap();
        let ready = |summary: PoolSummary| {
            let status = pool(&object, &summary, &Plan::default(), Timestamp::UNIX_EPOCH);
            let ready = condition::find(&status.conditions, "Ready").unwrap();
            (ready.status.clone(), ready.reason.clone())
        };
        let summary = PoolSummary {
            name: "web".into(),
            bound: 10,
            compliant: 8,
            ..PoolSummary::default()
        };
        assert_eq!(
            ready(summary.clone()),
            ("True".into(), "Compliant".into()),
            "two have no baseline"
        );
        let behind = PoolSummary {
            non_compliant: 2,
            ..summary.clone()
        };
        assert_eq!(ready(behind.clone()), ("False".into(), "NotCompliant".into()));
        assert_eq!(
            ready(PoolSummary { held: 1, ..behind }),
            ("False".into(), "DevicesHeld".into())
        );
        let missing = PoolSummary {
            missing_baselines: vec!["x".into()],
            ..summary
        };
        assert_eq!(ready(missing), ("False".into(), "BaselineNotFound".into()));
    }
}
