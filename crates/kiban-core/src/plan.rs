//! The plan: what to do now, what everything waits on, and how all of it stands. Data, to be read before anything moves.
//!
//! ```text
//!   World ──assess──▶ compliance ──propose──▶ candidates ──grant──▶ operations, or what they wait on
//! ```
//!
//! [`plan`] is pure: the same world and the same `now` give the same plan, byte for byte.

use crate::{
    budget::{Ask, Budgets},
    compliance::{Assessment, Compliance},
    component::ComponentClass,
    facts::{Activation, ComponentMatch, Image, OperationFacts, Outcome, RolloutStatus, WantedComponent},
    finding::Finding,
    grant::{self, Entrant, RolloutGate},
    path, revision,
    rollout::{self, Proposal},
    survey::{GroupSurvey, Judged, Survey},
    waiting::WaitingOn,
    world::{DeviceId, DomainId, Sym, World},
};
use jiff::Timestamp;
use serde::Serialize;

/// An operation to create: everything in its spec but the planner's epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewOperation {
    /// Name of the device, which is also the object's.
    pub device: String,
    /// Unique id; the same again when the same plan is made again.
    pub id: String,
    /// What wants it: `Rollout/<name>`.
    pub campaign: String,
    /// Name of the rollout.
    pub rollout: String,
    /// Name of the pool.
    pub pool: String,
    /// Digest of what is wanted.
    pub revision: String,
    /// The commit that caused it.
    pub commit: String,
    /// The wave, from 1.
    pub wave: u32,
    /// The updates, in order.
    pub updates: Vec<PlannedUpdate>,
}

impl NewOperation {
    /// What the world is told of it as long as nobody has read it: that it is there and has not started.
    #[must_use]
    pub fn pending(&self, epoch: i64) -> OperationFacts {
        OperationFacts {
            device: self.device.clone(),
            id: self.id.clone(),
            campaign: self.campaign.clone(),
            pool: self.pool.clone(),
            revision: self.revision.clone(),
            wave: self.wave,
            epoch,
            outcome: Outcome::Pending,
        }
    }
}

/// One component's update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedUpdate {
    /// Class.
    pub class: ComponentClass,
    /// Which components of the class.
    #[serde(rename = "match")]
    pub matches: ComponentMatch,
    /// The component's name, for people.
    pub name: String,
    /// Version that runs.
    pub from: String,
    /// Version wanted.
    pub to: String,
    /// The image.
    pub image: Image,
    /// What makes it run.
    pub activation: Activation,
}

/// A rollout as it is to be stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutState {
    /// Name of the `Rollout`.
    pub name: String,
    /// Name of the pool.
    pub pool: String,
    /// Name of the baseline.
    pub baseline: String,
    /// The whole wanted status.
    pub status: RolloutStatus,
    /// Devices that still need the change and have no operation for it.
    pub remaining: u32,
    /// What the whole rollout waits on beside its waves, in a sentence: a room that is dark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// While a wave soaks: when the next one opens.
    pub soak_until: Option<Timestamp>,
    /// Whether the object does not exist yet.
    pub create: bool,
    /// Whether the status differs from the stored one.
    pub changed: bool,
}

/// How a pool stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolSummary {
    /// Name.
    pub name: String,
    /// Devices bound.
    pub bound: u32,
    /// At their baseline.
    pub compliant: u32,
    /// Not at it.
    pub non_compliant: u32,
    /// Not known.
    pub unknown: u32,
    /// With an operation that has not ended.
    pub updating: u32,
    /// Unavailable now, operations included; what this plan grants is not.
    pub unavailable: u32,
    /// Allowed to be.
    pub allowed: u32,
    /// Held.
    pub held: u32,
    /// Baselines that it names and that do not exist.
    pub missing_baselines: Vec<String>,
}

/// How a baseline stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BaselineSummary {
    /// Name.
    pub name: String,
    /// Devices that it applies to.
    pub devices: u32,
    /// Of them, at it.
    pub compliant: u32,
    /// Models that it names and that do not exist.
    pub missing_models: Vec<String>,
}

/// An operation that has not started and is still wanted: a new planner stamps it with its epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Adoption {
    /// Name of the device and of the object.
    pub device: String,
    /// The operation's id.
    pub id: String,
    /// The epoch that it carries now.
    pub epoch: i64,
}

/// An operation that has not started and whose reason is gone: to be deleted, if it has still not started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Withdrawal {
    /// Name of the device and of the object.
    pub device: String,
    /// The operation's id.
    pub id: String,
    /// What happened, in CamelCase: a [`WaitingOn::reason`], `Superseded`, `NotNeeded` or `DeviceGone`.
    pub reason: &'static str,
}

/// What the plan says of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What it waits on. None: nothing; it is as wanted, being updated, or concerns nobody.
    pub waiting: Option<WaitingOn>,
    /// How its firmware stands to its baseline.
    pub compliance: Compliance,
    /// Whether it is bound to the pool that it asks for.
    pub bound: bool,
    /// Whether an operation is on it that has not ended, one that this plan creates included.
    pub updating: bool,
    /// Index in [`Plan::assessments`]; `u32::MAX`: none.
    pub(crate) assessment: u32,
    /// Index of its pool and baseline among the plan's groups; `u32::MAX`: none.
    pub(crate) group: u32,
}

impl Default for Verdict {
    fn default() -> Self {
        Self {
            waiting: None,
            compliance: Compliance::default(),
            bound: false,
            updating: false,
            assessment: crate::survey::NONE,
            group: crate::survey::NONE,
        }
    }
}

/// A device's compliance with its texts, as its status holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ComplianceReport {
    /// The answer.
    pub state: Compliance,
    /// Name of the baseline that applies; empty: none.
    pub baseline: String,
    /// One line per component that differs.
    pub differs: Vec<String>,
}

/// What to do now and how everything stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Operations to create, in the order in which they were granted.
    pub operations: Vec<NewOperation>,
    /// Rollouts, by name.
    pub rollouts: Vec<RolloutState>,
    /// Pools, by name.
    pub pools: Vec<PoolSummary>,
    /// Baselines, by name.
    pub baselines: Vec<BaselineSummary>,
    /// Operations that have not started and are still wanted, by device.
    pub adopt: Vec<Adoption>,
    /// Operations that have not started and are no longer wanted, by device.
    pub withdraw: Vec<Withdrawal>,
    /// When a plan would come out differently without any other change: the end of a soak, a
    /// gate's measurement that grows too old.
    pub next_due: Option<Timestamp>,
    /// The time that it was made for.
    pub at: Timestamp,
    /// What is wrong with the facts, sorted.
    pub findings: Vec<Finding>,
    /// Distinct assessments, which devices share.
    pub(crate) assessments: Vec<Assessment>,
    pub(crate) judged: Vec<Judged>,
    pub(crate) groups: Vec<Group>,
    pub(crate) gate: Gate,
    /// By device number.
    pub(crate) verdicts: Vec<Verdict>,
}

/// The gate as the plan left it, for [`crate::explain`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gate {
    pub(crate) budgets: Budgets,
    /// Rooms and sites that are dark.
    pub(crate) dark: Vec<DomainId>,
    /// By group.
    pub(crate) rollouts: Vec<RolloutGate>,
}

/// One baseline on one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) pool: String,
    /// Index of its budget.
    pub(crate) pool_at: usize,
    pub(crate) revision: Option<Sym>,
    pub(crate) baseline: String,
    /// Index in [`Plan::rollouts`], where it has one.
    pub(crate) rollout: Option<usize>,
}

impl Plan {
    /// What the plan says of a device.
    #[must_use]
    pub fn verdict(&self, world: &World, device: &str) -> Option<Verdict> {
        self.verdict_of(world.id(device)?)
    }

    /// What the plan says of a device, by number.
    #[must_use]
    pub fn verdict_of(&self, device: DeviceId) -> Option<Verdict> {
        self.verdicts.get(device.index()).copied()
    }

    /// What the plan says of every device, by name.
    pub fn verdicts<'a>(
        &'a self,
        world: &'a World,
    ) -> impl Iterator<Item = (crate::world::Device<'a>, Verdict)> {
        world
            .devices()
            .filter_map(|device| self.verdict_of(device.id()).map(|verdict| (device, verdict)))
    }

    /// A device's compliance with its texts.
    #[must_use]
    pub fn compliance(&self, verdict: Verdict) -> ComplianceReport {
        ComplianceReport {
            state: verdict.compliance,
            baseline: self
                .group(verdict)
                .map(|group| group.baseline.clone())
                .unwrap_or_default(),
            differs: self
                .assessment(verdict)
                .map(|assessment| assessment.differences.iter().map(|it| it.line.clone()).collect())
                .unwrap_or_default(),
        }
    }

    /// How a device's firmware stands to its baseline, component by component; None when there is nothing to compare.
    #[must_use]
    pub fn assessment(&self, verdict: Verdict) -> Option<&Assessment> {
        self.assessments.get(verdict.assessment as usize)
    }

    /// The rollout that a device belongs to, where there is one.
    #[must_use]
    pub fn rollout(&self, verdict: Verdict) -> Option<&RolloutState> {
        self.rollouts.get(self.group(verdict)?.rollout?)
    }

    pub(crate) fn group(&self, verdict: Verdict) -> Option<&Group> {
        self.groups.get(verdict.group as usize)
    }
}

/// Decides. Never fails: what is wrong with the facts is a finding, and what is in doubt waits.
#[must_use]
pub fn plan(world: &World, now: Timestamp) -> Plan {
    let mut survey = Survey::take(world);
    let mut proposals = rollout::propose(world, &mut survey, now);
    let mut order: Vec<usize> = (0..proposals.len()).collect();
    order.sort_by_key(|&at| proposals.get(at).map(|it| (&it.state.pool, &it.state.baseline)));

    let mut plan = Plan {
        at: now,
        ..Plan::default()
    };
    plan.withdraw_stranded(world, &survey);
    let mut excess = survey.budgets.clone();
    for &at in &order {
        let (Some(group), Some(proposal)) = (survey.groups.get(at), proposals.get(at)) else {
            continue;
        };
        for review in review(world, group, proposal, &mut excess) {
            plan.record(world, &mut survey.verdicts, review);
        }
    }
    let entrants: Vec<Entrant<'_>> = order
        .iter()
        .filter_map(|&at| Some(entrant(survey.groups.get(at)?, proposals.get(at)?)))
        .collect();
    let decisions = grant::grant(world, &entrants, &mut survey.budgets);
    drop(entrants);
    for (turn, device, decision) in decisions {
        let Some(verdict) = survey.verdicts.get_mut(device.index()) else {
            continue;
        };
        let Err(refusal) = decision else {
            verdict.updating = true;
            let assessment = survey.assessments.get(verdict.assessment as usize);
            let at = order.get(turn).copied().unwrap_or(usize::MAX);
            if let Some(proposal) = proposals.get_mut(at)
                && let Some(judged) = survey.judged.get(verdict.assessment as usize)
            {
                let class = survey.class_names.get(judged.class as usize);
                proposal.remember(class.map_or("", String::as_str), world.name(device));
            }
            plan.operations.extend(assessment.and_then(|assessment| {
                new_operation(
                    world,
                    device,
                    survey.groups.get(at)?,
                    proposals.get(at)?,
                    assessment,
                )
            }));
            continue;
        };
        verdict.waiting = Some(refusal);
    }
    plan.close(survey, proposals)
}

fn entrant<'a>(group: &'a GroupSurvey<'_>, proposal: &'a Proposal) -> Entrant<'a> {
    Entrant {
        gate: proposal.gate,
        pool: group.pool as usize,
        priority: group.pool_row.facts.priority,
        candidates: &group.candidates,
        canaries: &proposal.canaries,
        through: group.done + group.failed + group.running,
    }
}

impl Plan {
    /// The plan as JSON, with every device by name: the same plan gives the same text.
    #[must_use]
    pub fn to_json(&self, world: &World) -> serde_json::Value {
        let devices: Vec<serde_json::Value> = self
            .verdicts(world)
            .map(|(device, verdict)| {
                let report = self.compliance(verdict);
                serde_json::json!({
                    "name": device.name(),
                    "bound": verdict.bound,
                    "updating": verdict.updating,
                    "compliance": report,
                    "waitingOn": verdict.waiting.map(|waiting| serde_json::json!({
                        "reason": waiting.reason(),
                        "message": waiting.sentence(world).to_string(),
                    })),
                })
            })
            .collect();
        serde_json::json!({
            "operations": self.operations,
            "rollouts": self.rollouts,
            "pools": self.pools,
            "baselines": self.baselines,
            "adopt": self.adopt,
            "withdraw": self.withdraw,
            "nextDue": self.next_due,
            "findings": self.findings,
            "devices": devices,
        })
    }

    fn withdraw_stranded(&mut self, world: &World, survey: &Survey<'_>) {
        for operation in &survey.stranded {
            let facts = &operation.facts;
            self.withdraw.push(Withdrawal {
                device: facts.device.clone(),
                id: facts.id.clone(),
                reason: if world.id(&facts.device).is_some() {
                    "Superseded"
                } else {
                    "DeviceGone"
                },
            });
        }
    }

    fn record(&mut self, world: &World, verdicts: &mut [Verdict], review: Review) {
        let Some(operation) = world.operation(world.name(review.device)) else {
            return;
        };
        let (device, id) = (operation.device.clone(), operation.id.clone());
        let Some((reason, waiting)) = review.refusal else {
            let epoch = operation.epoch;
            self.adopt.push(Adoption { device, id, epoch });
            return;
        };
        self.withdraw.push(Withdrawal { device, id, reason });
        if let Some(verdict) = verdicts.get_mut(review.device.index()) {
            verdict.waiting = waiting.or(verdict.waiting);
        }
    }

    fn close(mut self, survey: Survey<'_>, proposals: Vec<Proposal>) -> Self {
        let dues = proposals
            .iter()
            .flat_map(|it| [it.state.soak_until, it.gates_due]);
        self.next_due = dues.flatten().min();
        self.adopt.sort_by(|one, other| one.device.cmp(&other.device));
        self.withdraw.sort_by(|one, other| one.device.cmp(&other.device));
        self.findings = survey.findings;
        self.findings.sort();
        self.findings.dedup();
        self.gate = Gate {
            budgets: survey.budgets,
            dark: survey.dark,
            rollouts: proposals.iter().map(|it| it.gate).collect(),
        };
        let mut rollouts: Vec<(usize, RolloutState)> = Vec::new();
        for (at, (group, proposal)) in survey.groups.iter().zip(proposals).enumerate() {
            self.groups.push(Group {
                pool: group.pool_row.facts.name.clone(),
                pool_at: group.pool as usize,
                baseline: group.baseline_row.facts.name.clone(),
                revision: group.revision_sym,
                rollout: None,
            });
            if proposal.wanted {
                rollouts.push((at, proposal.state));
            }
        }
        rollouts.sort_by(|(_, one), (_, other)| one.name.cmp(&other.name));
        for (index, (at, state)) in rollouts.into_iter().enumerate() {
            if let Some(group) = self.groups.get_mut(at) {
                group.rollout = Some(index);
            }
            self.rollouts.push(state);
        }
        self.pools = survey.pool_summaries;
        self.baselines = survey.baseline_summaries;
        self.assessments = survey.assessments;
        self.judged = survey.judged;
        self.verdicts = survey.verdicts;
        self
    }
}

/// What is to become of an operation that has not started. None in `refusal`: it is still wanted.
struct Review {
    device: DeviceId,
    refusal: Option<(&'static str, Option<WaitingOn>)>,
}

/// Puts the operations of a rollout that have not started before the gate once more: what may not begin now must not
/// begin because it was allowed to a minute ago. `excess` is what is used of the budgets, which each operation taken
/// back relieves. What is withdrawn goes on using budget in this plan, since an executor
/// may just be starting it.
fn review(world: &World, group: &GroupSurvey<'_>, proposal: &Proposal, excess: &mut Budgets) -> Vec<Review> {
    let gate = &proposal.gate;
    let mine = group.unstarted.iter().filter(|it| !it.superseded).count();
    let started = group
        .running
        .saturating_sub(u32::try_from(mine).unwrap_or(u32::MAX));
    let mut room = gate
        .wave
        .reach
        .saturating_sub(group.done + group.failed)
        .saturating_sub(started);
    let dark = gate.dark.map(|domain| WaitingOn::Dark { domain });
    let rollout = [
        gate.paused.then_some(WaitingOn::Paused),
        halted(gate),
        dark,
        gate.unapproved,
        gate.closed,
    ]
    .into_iter()
    .flatten()
    .next();
    let mut reviews = Vec::with_capacity(group.unstarted.len());
    for unstarted in &group.unstarted {
        let Some(row) = world.device_row(unstarted.device) else {
            continue;
        };
        let pool = group.pool as usize;
        let waiting = |waiting: WaitingOn| (waiting.reason(), Some(waiting));
        let refusal = if unstarted.superseded {
            Some(("Superseded", None))
        } else if !unstarted.needed {
            Some(("NotNeeded", None))
        } else if let Some(refusal) = unstarted.refusal.or(rollout) {
            Some(waiting(refusal))
        } else if room == 0 && !(gate.wave.wave == 1 && proposal.canaries.includes(&row.name)) {
            Some(waiting(gate.wave_refusal()))
        } else {
            excess
                .refusals(world.places(), pool, unstarted.device, row, Ask::AsItIs)
                .next()
                .map(waiting)
        };
        if refusal.is_none() {
            room = room.saturating_sub(1);
        } else if !row.is_unavailable() {
            excess.give_back(world.places(), pool, unstarted.device, row);
        }
        reviews.push(Review {
            device: unstarted.device,
            refusal,
        });
    }
    reviews
}

fn halted(gate: &RolloutGate) -> Option<WaitingOn> {
    gate.halted
        .map(|(failed, limit)| WaitingOn::Halted { failed, limit })
}

/// Everything that an operation's spec needs but the epoch.
fn new_operation(
    world: &World,
    device: DeviceId,
    group: &GroupSurvey<'_>,
    proposal: &Proposal,
    assessment: &Assessment,
) -> Option<NewOperation> {
    let row = world.device_row(device)?;
    let readings = world.firmware_rows(row.firmware)?;
    let rollout = proposal.state.name.clone();
    let updates = assessment.updates().into_iter().flat_map(|wanted| {
        let entry = group.baseline_row.facts.components.get(wanted);
        let first = assessment.differences.iter().find(|it| it.wanted == wanted);
        entry
            .zip(first)
            .and_then(|(entry, first)| {
                let reading = readings.get(first.component?)?;
                updates(
                    entry,
                    &first.via,
                    world.text(reading.name),
                    world.text(reading.version),
                )
            })
            .unwrap_or_default()
    });
    Some(NewOperation {
        device: row.name.to_string(),
        id: revision::operation_id(
            &row.name,
            &rollout,
            &group.revision,
            row.last.map_or(0, |last| last.id),
        ),
        campaign: format!("Rollout/{rollout}"),
        pool: group.pool_row.facts.name.clone(),
        revision: group.revision.clone(),
        commit: proposal.state.status.commit.clone(),
        wave: proposal.state.status.wave,
        updates: updates.collect(),
        rollout,
    })
}

/// The updates of one component: its stepping stones, then the version wanted.
fn updates(entry: &WantedComponent, via: &[usize], name: &str, is: &str) -> Option<Vec<PlannedUpdate>> {
    let mut updates = Vec::with_capacity(via.len() + 1);
    let mut from = is;
    for hop in path::hops(entry, via) {
        updates.push(PlannedUpdate {
            class: entry.class,
            matches: entry.matches.clone(),
            name: name.to_owned(),
            from: from.to_owned(),
            to: hop.version.to_owned(),
            image: hop.image?.clone(),
            activation: hop.activation,
        });
        from = hop.version;
    }
    Some(updates)
}

impl PoolSummary {
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }
}

impl BaselineSummary {
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }
}
