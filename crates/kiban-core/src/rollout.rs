//! Propose: one rollout per pool and baseline, from what was counted and what was stored.
//!
//! A rollout remembers four things that the devices cannot tell: when its revision began, how long its wave has
//! soaked, that it halted, and which commit it was. All else is counted anew each time, from what each device's last
//! operation came to.

use crate::{
    approval::{self, ApprovalGiven, Resumed},
    canary::{self, Canaries},
    facts::{CanaryFacts, HaltFacts, RolloutFacts, RolloutStatus},
    finding::Finding,
    gate::{self, Evidence, Judgement},
    grant::RolloutGate,
    plan::RolloutState,
    survey::{GroupSurvey, Survey},
    waiting::WaitingOn,
    wave::{self, Progress},
    world::World,
};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Names of failed devices that a halt lists: enough to begin with, few enough for a status.
pub const HALT_NAMES: usize = 20;

/// Approvals that a status keeps: a rollout has at most so many waves, and few halts.
const APPROVALS: usize = 64;

/// The longest name that the API server takes for an object (DNS subdomain, RFC 1123).
const NAME_BYTES: usize = 253;

/// Hex digits that tell apart two rollouts which would have one name.
const NAME_DIGITS: usize = 8;

/// A rollout before the gate.
#[derive(Clone, Debug)]
pub(crate) struct Proposal {
    pub(crate) gate: RolloutGate,
    pub(crate) canaries: Canaries,
    pub(crate) state: RolloutState,
    /// Whether there is, or is to be, an object for it.
    pub(crate) wanted: bool,
    /// When its gates would be judged otherwise without any other change.
    pub(crate) gates_due: Option<Timestamp>,
}

impl Proposal {
    /// Notes a device that begins, where it is the first of its class.
    pub(crate) fn remember(&mut self, class: &str, device: &str) {
        let known = &mut self.state.status.canaries;
        if known.len() < canary::CLASSES && known.iter().all(|it| it.class != class) {
            known.push(CanaryFacts {
                class: class.to_owned(),
                device: device.to_owned(),
            });
            self.state.changed = true;
        }
    }
}

/// The rollouts of all groups, in the order of the groups.
pub(crate) fn propose(world: &World, survey: &mut Survey<'_>, now: Timestamp) -> Vec<Proposal> {
    let mut stored: BTreeMap<(&str, &str), &RolloutFacts> = BTreeMap::new();
    for facts in world.rollouts() {
        stored.entry((&facts.pool, &facts.baseline)).or_insert(facts);
    }
    for facts in world.rollouts() {
        if !survey.ensure_group(&facts.pool, &facts.baseline) {
            survey.findings.push(Finding::RolloutOrphaned {
                rollout: facts.name.clone(),
            });
        }
    }
    let mut taken: BTreeSet<String> = world.rollouts().map(|facts| facts.name.clone()).collect();
    let mut findings = Vec::new();
    let counted = &*survey;
    let proposals = counted.groups.iter().map(|group| {
        let (pool, baseline) = (&group.pool_row.facts.name, &group.baseline_row.facts.name);
        let facts = stored.get(&(pool.as_str(), baseline.as_str())).copied();
        let name = facts.map_or_else(|| name(pool, baseline, &taken), |facts| facts.name.clone());
        let proposal = proposal(world, counted, group, facts, name, now, &mut findings);
        if proposal.wanted {
            taken.insert(proposal.state.name.clone());
        }
        proposal
    });
    let proposals = proposals.collect();
    survey.findings.extend(findings);
    proposals
}

/// `<pool>-<baseline>`; with a digest where that is too long or belongs to another pair (`a-b` and `c`, `a` and `b-c`).
fn name(pool: &str, baseline: &str, taken: &BTreeSet<String>) -> String {
    let plain = format!("{pool}-{baseline}");
    if plain.len() <= NAME_BYTES && !taken.contains(&plain) {
        return plain;
    }
    let digest = crate::revision::of_name(&format!("{pool}\0{baseline}"), NAME_DIGITS);
    let mut end = plain.len().min(NAME_BYTES - NAME_DIGITS - 1);
    while !plain.is_char_boundary(end) {
        end -= 1;
    }
    let head = plain.get(..end).unwrap_or_default().trim_end_matches(['-', '.']);
    format!("{head}-{digest}")
}

fn proposal(
    world: &World,
    survey: &Survey<'_>,
    group: &GroupSurvey<'_>,
    facts: Option<&RolloutFacts>,
    name: String,
    now: Timestamp,
    findings: &mut Vec<Finding>,
) -> Proposal {
    let pool = &group.pool_row.facts;
    let old = facts.and_then(|facts| facts.status.as_ref());
    // Another revision's memory says nothing of this one: its waves, soaks and halt were for another change.
    let stored = old.filter(|status| status.revision == group.revision);
    let total = group.done + group.failed + group.running + group.remaining;
    let through = group.done + group.failed;
    let complete = group.remaining + group.running + group.failed == 0;
    let canaries = canary::canaries(world, survey, group, stored, findings);
    let awaited = canaries.are_awaited();
    let progress = |halted| Progress {
        total,
        through,
        canaries: awaited,
        halted,
    };
    let resumes = resumes(world, group, &name, stored);
    let resumed = resumes
        .as_ref()
        .map(|(halt, _)| Resumed {
            halt: *halt,
            at: now,
            failed: group.failed,
            lost: count(&group.lost_names),
        })
        .or_else(|| stored.and_then(|status| status.resumed.clone()));
    let judged = |wave| judge(world, group, stored, resumed.as_ref(), complete, wave, now);
    let present = wave::wave(&pool.waves, progress(false), stored, now);
    // One that was done a moment ago soaks already, though no status says so yet.
    let soaks = present.done_at.is_some() || stored.is_some_and(|status| status.wave_done_at.is_some());
    let begun = through + group.running > 0 && !complete;
    let halt = halt(group, stored, resumed.as_ref(), soaks, now).or_else(|| {
        let failing = judged(present.wave).into_iter().find(|it| it.halts && begun)?;
        Some(gate_halt(group, &failing, now))
    });
    let wave = wave::wave(&pool.waves, progress(halt.is_some()), stored, now);
    let gates = judged(wave.wave);
    let approval = approval::judge(world, group.pool_row, &name, &group.revision, wave.wave);
    let mut approvals = stored.map(|status| status.approvals.clone()).unwrap_or_default();
    let resumes = resumes.map(|(_, given)| given);
    // Before its wave is reached an approval has let nothing happen yet.
    let counted = approval.given.filter(|_| wave.soak_until.is_none() && !complete);
    for given in resumes.into_iter().chain(counted) {
        if approvals.iter().all(|known| known.approval != given.approval) && approvals.len() < APPROVALS {
            approvals.push(given);
        }
    }
    let status = RolloutStatus {
        revision: group.revision.clone(),
        commit: stored.map_or_else(|| commit(group, old), |status| status.commit.clone()),
        started_at: stored.and_then(|status| status.started_at).or(Some(now)),
        total,
        done: group.done,
        failed: group.failed,
        running: group.running,
        wave: wave.wave,
        waves: wave.waves,
        wave_done_at: wave.done_at,
        completed_at: complete.then(|| stored.and_then(|status| status.completed_at).unwrap_or(now)),
        gates: if complete {
            stored.map(|status| status.gates.clone()).unwrap_or_default()
        } else {
            gates.iter().map(|it| it.standing.clone()).collect()
        },
        approvals,
        resumed,
        canaries: canaries.known.clone(),
        halt,
    };
    let gate = RolloutGate {
        paused: world.policy().paused,
        halted: status.halt.is_some().then_some((group.failed, limit(group))),
        dark: group.dark,
        room: wave.reach.saturating_sub(through).saturating_sub(group.running),
        wave,
        unapproved: approval.refusal,
        closed: gates.iter().find_map(|it| it.refusal),
        total,
        canaries: (canaries.done, canaries.needed),
        firsts: u32::try_from(canaries.missing.len()).unwrap_or(u32::MAX),
    };
    let state = RolloutState {
        name,
        pool: pool.name.clone(),
        baseline: group.baseline_row.facts.name.clone(),
        remaining: group.remaining,
        waiting: group
            .dark
            .filter(|_| !complete)
            .map(|domain| WaitingOn::Dark { domain }.sentence(world).to_string()),
        soak_until: wave.soak_until,
        create: facts.is_none(),
        changed: old != Some(&status),
        status,
    };
    Proposal {
        gate,
        canaries,
        wanted: facts.is_some() || !complete,
        gates_due: gates.iter().filter_map(|it| it.due).min(),
        state,
    }
}

fn count(names: &[&str]) -> u32 {
    u32::try_from(names.len()).unwrap_or(u32::MAX)
}

/// The stored halt, if an approval ends it: when it began, and the approval.
fn resumes(
    world: &World,
    group: &GroupSurvey<'_>,
    name: &str,
    stored: Option<&RolloutStatus>,
) -> Option<(Timestamp, ApprovalGiven)> {
    let halt = stored?.halt.as_ref()?;
    let by = &group.pool_row.facts.resumable_by;
    let approval = approval::of_halt(world, name, &group.revision, halt, by)?;
    let given = ApprovalGiven {
        approval: approval.name.clone(),
        what: "resume".to_owned(),
        by: approval.approver.clone(),
        at: approval.at,
    };
    Some((halt.at, given))
}

/// How a halt is ended.
fn resuming(group: &GroupSurvey<'_>) -> String {
    let by = &group.pool_row.facts.resumable_by;
    let commit = "commit a change of the baseline or of the pool's rollout.retry";
    if by.users.is_empty() && by.groups.is_empty() {
        return commit.to_owned();
    }
    format!("{commit}, or approve (one of {by})")
}

/// The gates of a rollout that is under way.
fn judge(
    world: &World,
    group: &GroupSurvey<'_>,
    stored: Option<&RolloutStatus>,
    resumed: Option<&Resumed>,
    complete: bool,
    wave: u32,
    now: Timestamp,
) -> Vec<Judgement> {
    if complete {
        return Vec::new();
    }
    gate::judge(Evidence {
        world,
        pool: group.pool_row,
        ailing: group.ailing,
        stored: stored.map_or(&[], |status| &status.gates),
        resumed_at: resumed.map(|resumed| resumed.at),
        wave,
        now,
    })
}

fn gate_halt(group: &GroupSurvey<'_>, failing: &Judgement, now: Timestamp) -> HaltFacts {
    let standing = &failing.standing;
    HaltFacts {
        at: now,
        message: format!(
            "the gate {} has not held since {}: {}; look at it, then {}",
            standing.name,
            standing.since,
            standing.message,
            resuming(group)
        ),
        devices: Vec::new(),
    }
}

/// Failures that halt.
fn limit(group: &GroupSurvey<'_>) -> u32 {
    group.pool_row.facts.halt_after_failed.max(1)
}

/// A halt stays as it was written until there is another revision.
fn halt(
    group: &GroupSurvey<'_>,
    stored: Option<&RolloutStatus>,
    resumed: Option<&Resumed>,
    soaks: bool,
    now: Timestamp,
) -> Option<HaltFacts> {
    let ended = |halt: &HaltFacts| resumed.is_some_and(|resumed| resumed.halt == halt.at);
    if let Some(latched) = stored
        .and_then(|status| status.halt.clone())
        .filter(|halt| !ended(halt))
    {
        return Some(latched);
    }
    let limit = limit(group);
    // What loses its health while its wave soaks is what the soak is for.
    let lost: &[&str] = if soaks { &group.lost_names } else { &[] };
    // What a person has looked at and let pass does not halt again.
    let failures = group
        .failed
        .saturating_sub(resumed.map_or(0, |resumed| resumed.failed));
    let losses = count(lost).saturating_sub(resumed.map_or(0, |resumed| resumed.lost));
    if failures + losses < limit {
        return None;
    }
    let named = |names: &[&str]| {
        let more = if names.len() > HALT_NAMES { ", …" } else { "" };
        let first: Vec<&str> = names.iter().take(HALT_NAMES).copied().collect();
        format!("{}{more}", first.join(", "))
    };
    let mut what = Vec::new();
    if !group.failed_names.is_empty() {
        what.push(format!(
            "{} failed ({})",
            group.failed,
            named(&group.failed_names)
        ));
    }
    if !lost.is_empty() {
        what.push(format!(
            "{} in critical health since the change ({})",
            lost.len(),
            named(lost)
        ));
    }
    let devices = group.failed_names.iter().chain(lost).take(HALT_NAMES);
    Some(HaltFacts {
        at: now,
        message: format!(
            "{}, haltAfter.failed is {limit}: look at them, then {}",
            what.join(" and "),
            resuming(group)
        ),
        devices: devices.map(|name| (*name).to_owned()).collect(),
    })
}

/// The commit that brought a revision: the baseline's, unless the revision before came from the same one; then it was the
/// pool's `retry` that changed.
fn commit(group: &GroupSurvey<'_>, old: Option<&RolloutStatus>) -> String {
    let baseline = &group.baseline_row.facts.commit;
    let pool = &group.pool_row.facts.commit;
    match old {
        Some(old) if old.commit == *baseline && !pool.is_empty() => pool.clone(),
        _ => baseline.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pairs_never_share_a_name() {
        let mut taken = BTreeSet::new();
        let one = name("a-b", "c", &taken);
        assert_eq!(one, "a-b-c");
        taken.insert(one);
        let other = name("a", "b-c", &taken);
        assert!(
            other.starts_with("a-b-c-") && other.len() == "a-b-c-".len() + NAME_DIGITS,
            "{other}"
        );
    }

    #[test]
    fn a_long_name_is_cut_and_stays_its_own() {
        let long = "x".repeat(200);
        let [one, other] =
            ["y", "z"].map(|last| name(&long, &format!("{}{last}", "b".repeat(199)), &BTreeSet::new()));
        assert!(one.len() <= NAME_BYTES && one != other);
    }
}
