//! Explain: why a device is where it is, what it waits on, and what comes next.
//!
//! The reasons are the gate's own, asked of one device and all of them: the first is the one that the plan gives.

use crate::{
    budget::Ask,
    component::ComponentClass,
    facts::{Activation, Health, Outcome, Reach},
    grant::Subject,
    path,
    plan::{ComplianceReport, Plan, Verdict},
    survey::through,
    waiting::WaitingOn,
    world::{Device, DeviceId, DeviceRow, IdentityMatch, World},
};
use jiff::Timestamp;
use serde::Serialize;

/// Devices that are named as those that use a budget up: enough to see a pattern.
const HOLDERS: usize = 5;

/// Why a device is where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Name of the device.
    pub device: String,
    /// Its model.
    pub model: String,
    /// Its pool; empty: none.
    pub pool: String,
    /// Where it stands.
    pub place: String,
    /// How its firmware stands to its baseline.
    pub compliance: ComplianceReport,
    /// What is wanted, entry by entry of the baseline.
    pub wanted: Vec<Wanted>,
    /// What runs, component by component.
    pub is: Vec<Is>,
    /// The operation on it, if there is one.
    pub operation: Option<OperationNow>,
    /// Why it does not move: every rule that holds it, the one to look at first before the others.
    pub not_yet: Vec<NotYet>,
    /// What comes next, in order, once nothing holds it.
    pub then: Vec<String>,
    /// What the update will disturb.
    pub after: After,
    /// The rollout that it belongs to.
    pub rollout: Option<RolloutNow>,
}

/// One entry of the baseline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    /// Class.
    pub class: ComponentClass,
    /// Version.
    pub version: String,
    /// The baseline that says so.
    pub baseline: String,
    /// The commit that last changed it; empty when it did not come from Git.
    pub commit: String,
}

/// One component as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Is {
    /// Class.
    pub class: ComponentClass,
    /// Name.
    pub name: String,
    /// Version that runs.
    pub version: String,
    /// What is with it, when it is not as wanted.
    pub differs: Option<String>,
}

/// An operation on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationNow {
    /// Its id.
    pub id: String,
    /// What wants it.
    pub campaign: String,
    /// The wave.
    pub wave: u32,
    /// How it stands.
    pub outcome: Outcome,
}

/// One rule that holds a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NotYet {
    /// The rule, in CamelCase.
    pub reason: String,
    /// The sentence.
    pub message: String,
    /// Whether it passes as things go on; else somebody must do something.
    pub passes_by_itself: bool,
    /// When it passes, where that is known.
    pub until: Option<Timestamp>,
    /// For a budget: who uses it up, and why. The first five.
    pub holders: Vec<Holder>,
}

/// A device that uses a budget up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// Name of the device.
    pub device: String,
    /// Why: `Operation`, `Held`, `Unreachable`, `NeverRead`, `Unhealthy` or `Stale`.
    pub reason: String,
}

/// What an update disturbs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct After {
    /// Updates, in order: `BIOS 1.10.2 -> 1.15.2`.
    pub updates: Vec<String>,
    /// Times that the host goes down, AC cycles included.
    pub host_resets: u32,
    /// Times that only the BMC restarts.
    pub bmc_resets: u32,
    /// Removals of AC power.
    pub ac_cycles: u32,
}

/// How a device's rollout stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutNow {
    /// Name.
    pub name: String,
    /// Present wave, from 1.
    pub wave: u32,
    /// Waves in all.
    pub waves: u32,
    /// Devices that the change concerns.
    pub total: u32,
    /// Of them, done.
    pub done: u32,
    /// Of them, failed.
    pub failed: u32,
    /// When the revision began.
    pub started_at: Option<Timestamp>,
    /// Why it halted, if it did.
    pub halt: Option<String>,
}

/// Explains one device; None: there is no such device. `now` is the time that the plan was made for.
#[must_use]
pub fn explain(world: &World, plan: &Plan, device: &str, now: Timestamp) -> Option<Explanation> {
    let found = world.device(device)?;
    let row = world.device_row(found.id())?;
    let verdict = plan.verdict_of(found.id())?;
    let waiting = reasons(world, plan, found.id(), row, verdict);
    let rollout = plan.rollout(verdict).map(|state| RolloutNow {
        name: state.name.clone(),
        wave: state.status.wave,
        waves: state.status.waves,
        total: state.status.total,
        done: state.status.done,
        failed: state.status.failed,
        started_at: state.status.started_at,
        halt: state.status.halt.as_ref().map(|halt| halt.message.clone()),
    });
    let after = after(world, plan, found, verdict);
    Some(Explanation {
        device: found.name().to_owned(),
        model: found.model().to_owned(),
        pool: found.pool().to_owned(),
        place: found.place().to_string(),
        compliance: plan.compliance(verdict),
        wanted: wanted(world, plan, verdict),
        is: is(plan, found, verdict),
        operation: world.operation(device).map(|operation| OperationNow {
            id: operation.id.clone(),
            campaign: operation.campaign.clone(),
            wave: operation.wave,
            outcome: operation.outcome,
        }),
        then: then(&waiting, &after, verdict, now),
        not_yet: waiting.iter().map(|&it| not_yet(world, row, it)).collect(),
        after,
        rollout,
    })
}

fn wanted(world: &World, plan: &Plan, verdict: Verdict) -> Vec<Wanted> {
    let baseline = plan
        .group(verdict)
        .and_then(|group| world.baseline(&group.baseline));
    let entries = baseline.into_iter().flat_map(|baseline| {
        baseline.components.iter().map(|wanted| Wanted {
            class: wanted.class,
            version: wanted.version.clone(),
            baseline: baseline.name.clone(),
            commit: baseline.commit.clone(),
        })
    });
    entries.collect()
}

fn is(plan: &Plan, device: Device<'_>, verdict: Verdict) -> Vec<Is> {
    let assessment = plan.assessment(verdict);
    let firmware = device.firmware().unwrap_or_default();
    let entries = firmware.into_iter().enumerate().map(|(at, facts)| Is {
        differs: assessment
            .and_then(|it| {
                it.differences
                    .iter()
                    .find(|difference| difference.component == Some(at))
            })
            .map(|difference| difference.line.clone()),
        class: facts.class,
        name: facts.name,
        version: facts.version,
    });
    entries.collect()
}

/// Every rule that holds the device: the plan's own first, then what would hold it after that.
fn reasons(world: &World, plan: &Plan, id: DeviceId, row: &DeviceRow, verdict: Verdict) -> Vec<WaitingOn> {
    let mut reasons: Vec<WaitingOn> = verdict.waiting.into_iter().collect();
    let Some(group) = plan.group(verdict).filter(|_| verdict.waiting.is_some()) else {
        return reasons;
    };
    let judged = plan.judged.get(verdict.assessment as usize);
    let needs_change = judged.is_some_and(|judged| judged.needs_change);
    if !needs_change {
        return reasons;
    }
    let operation = world.operation_row(&row.name);
    let patterns = world
        .model(world.text(row.model))
        .map_or(&[][..], |model| &model.reported_as);
    let reported = world.text(row.reported);
    let duplicate = world
        .shared_identities()
        .filter(|(_, devices)| devices.contains(&id))
        .find_map(|(_, devices)| devices.into_iter().find(|other| *other != id));
    let subject = Subject {
        row,
        judged,
        duplicate,
        dark: world.places().first_of(&plan.gate.dark, row.place),
        wrong_model: row.identity != IdentityMatch::NeverRead
            && !patterns
                .iter()
                .any(|pattern| crate::pattern::matches(pattern, reported)),
        through: through(row, operation, world, group.revision, needs_change),
        operation: operation.or_else(|| world.echo(&row.name)),
        revision: group.revision,
    };
    let rollout = plan.gate.rollouts.get(verdict.group as usize);
    let further = subject
        .refusals()
        .chain(rollout.into_iter().flat_map(|gate| gate.refusals()))
        .chain(
            plan.gate
                .budgets
                .refusals(world.places(), group.pool_at, id, row, Ask::OneMore),
        );
    for reason in further {
        if reasons.iter().all(|known| known.reason() != reason.reason()) {
            reasons.push(reason);
        }
    }
    reasons
}

fn not_yet(world: &World, row: &DeviceRow, waiting: WaitingOn) -> NotYet {
    let until = match waiting {
        WaitingOn::Soak { until_s, .. } => Timestamp::from_second(until_s).ok(),
        _ => None,
    };
    NotYet {
        reason: waiting.reason().to_owned(),
        message: waiting.sentence(world).to_string(),
        passes_by_itself: waiting.passes_by_itself(),
        until,
        holders: holders(world, row, waiting),
    }
}

fn holders(world: &World, row: &DeviceRow, waiting: WaitingOn) -> Vec<Holder> {
    let uses_it_up = |other: &Device<'_>| match waiting {
        WaitingOn::Budget { pool, .. } => other.pool() == world.text(pool),
        WaitingOn::Domain { domain, .. } => other.pool() == world.text(row.pool) && other.is_in(domain),
        WaitingOn::FleetDomain { domain, .. } => !other.pool().is_empty() && other.is_in(domain),
        WaitingOn::RedundancyGroup { group, .. } => other.redundancy_group() == world.text(group),
        WaitingOn::ServiceBudget { service, .. } => world
            .pool(other.pool())
            .is_some_and(|pool| pool.service == world.text(service)),
        WaitingOn::FleetBudget { .. } => !other.pool().is_empty(),
        _ => false,
    };
    let named = world.devices().filter(uses_it_up).filter_map(|other| {
        let reason = unavailable_because(world, other)?;
        Some(Holder {
            device: other.name().to_owned(),
            reason: reason.to_owned(),
        })
    });
    named.take(HOLDERS).collect()
}

/// Why a device counts as unavailable.
fn unavailable_because(world: &World, device: Device<'_>) -> Option<&'static str> {
    if world
        .operation(device.name())
        .is_some_and(|operation| !operation.outcome.is_final())
    {
        return Some("Operation");
    }
    if device.hold().is_some() {
        return Some("Held");
    }
    match (device.reach(), device.health()) {
        (Reach::Unreachable, _) => Some("Unreachable"),
        (Reach::NeverRead, _) => Some("NeverRead"),
        (Reach::Reachable, Health::Critical) => Some("Unhealthy"),
        _ if device.firmware().is_none() => Some("NeverRead"),
        _ if !device.is_fresh() => Some("Stale"),
        _ => None,
    }
}

fn then(waiting: &[WaitingOn], after: &After, verdict: Verdict, now: Timestamp) -> Vec<String> {
    let mut then = Vec::new();
    if verdict.updating {
        then.push("the operation on it ends, and its outcome goes to the ledger".to_owned());
    }
    for reason in waiting {
        match *reason {
            WaitingOn::Soak { wave, until_s } => {
                let left = jiff::SignedDuration::from_secs(until_s.saturating_sub(now.as_second()));
                then.push(format!(
                    "wave {} opens in {}",
                    wave.saturating_add(1),
                    crate::duration::format(left)
                ));
            }
            WaitingOn::Wave { wave, waves, .. } if wave < waves => {
                then.push(format!(
                    "wave {wave} is done, has soaked, and wave {} opens",
                    wave + 1
                ));
            }
            WaitingOn::Canary { .. } => then.push("a canary of each class is through".to_owned()),
            WaitingOn::RedundancyGroup { .. } => {
                then.push("the other device of its redundancy group is available again".to_owned());
            }
            WaitingOn::Approval { wave, .. } => {
                then.push(format!("somebody approves, and wave {wave} opens"));
            }
            WaitingOn::Gate { wave, .. } | WaitingOn::GateHealth { wave, .. } => {
                then.push(format!("the gate holds, and wave {wave} opens"));
            }
            WaitingOn::Budget { .. }
            | WaitingOn::Domain { .. }
            | WaitingOn::ServiceBudget { .. }
            | WaitingOn::FleetDomain { .. }
            | WaitingOn::FleetBudget { .. }
                if reason.passes_by_itself() =>
            {
                then.push("a device that uses the budget up is available again".to_owned());
            }
            _ => {}
        }
    }
    then.dedup();
    if !after.updates.is_empty() && !verdict.updating {
        let noun = if after.updates.len() == 1 {
            "update"
        } else {
            "updates"
        };
        then.push(format!("one operation with {} {noun}", after.updates.len()));
    }
    then
}

pub(crate) fn after(world: &World, plan: &Plan, device: Device<'_>, verdict: Verdict) -> After {
    let mut after = After::default();
    let Some(assessment) = plan.assessment(verdict) else {
        return after;
    };
    let Some(baseline) = plan
        .group(verdict)
        .and_then(|group| world.baseline(&group.baseline))
    else {
        return after;
    };
    let firmware = device.firmware().unwrap_or_default();
    for wanted in assessment.updates() {
        let Some(entry) = baseline.components.get(wanted) else {
            continue;
        };
        let difference = assessment.differences.iter().find(|it| it.wanted == wanted);
        let mut from = difference
            .and_then(|difference| firmware.get(difference.component?))
            .map_or("", |facts| facts.version.as_str());
        let via = difference.map_or(&[][..], |difference| &difference.via);
        for hop in path::hops(entry, via) {
            after
                .updates
                .push(format!("{} {from} -> {}", entry.class, hop.version));
            from = hop.version;
            match hop.activation {
                Activation::None => {}
                Activation::BmcReset => after.bmc_resets += 1,
                Activation::HostReset | Activation::ColdBoot => after.host_resets += 1,
                Activation::AcCycle => {
                    after.host_resets += 1;
                    after.ac_cycles += 1;
                }
            }
        }
    }
    after
}
