//! Check: every safety rule once more, over a world and the plan made from it, without the planner's code.
//!
//! The planner counts as it goes; this counts from the facts, slowly and plainly, and says what the plan would break.
//! Tests run it on every plan, and the planner runs it before it writes: so it reads every device once at most, and only
//! where something is granted does it count.

mod budgets;

use crate::{
    approval::Approved,
    facts::{BaselineFacts, HaltFacts, Outcome, PoolFacts, RolloutStatus},
    gate::{Ailment, GateRule, GateState, HealthRule},
    plan::{NewOperation, Plan, RolloutState},
    revision,
    waiting::WaitingOn,
    world::World,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// A rule that a plan breaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The rule, in CamelCase.
    pub rule: &'static str,
    /// What breaks it.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Everything that a plan breaks; empty for a plan that may be carried out.
#[must_use]
pub fn check(world: &World, plan: &Plan) -> Vec<Violation> {
    let mut checker = Checker {
        world,
        plan,
        granted: plan.operations.iter().map(|it| it.device.as_str()).collect(),
        rollouts: plan
            .rollouts
            .iter()
            .map(|state| (state.name.as_str(), state))
            .collect(),
        violations: Vec::new(),
    };
    checker.one_operation_per_device();
    for operation in &plan.operations {
        checker.operation(operation);
    }
    checker.budgets();
    checker.dark();
    checker.waves();
    checker.canaries();
    checker.halts();
    checker.gates();
    checker.approvals();
    checker.nothing_waits_without_a_reason();
    checker.unstarted();
    checker.violations.sort();
    checker.violations
}

struct Checker<'a> {
    world: &'a World,
    plan: &'a Plan,
    granted: BTreeSet<&'a str>,
    rollouts: BTreeMap<&'a str, &'a RolloutState>,
    violations: Vec<Violation>,
}

impl<'a> Checker<'a> {
    fn fault(&mut self, rule: &'static str, what: impl Into<String>) {
        self.violations.push(Violation {
            rule,
            what: what.into(),
        });
    }

    fn one_operation_per_device(&mut self) {
        let mut seen = BTreeSet::new();
        for operation in &self.plan.operations {
            let device = &operation.device;
            if !seen.insert(device) || self.world.operation(device).is_some() {
                self.fault("OneOperationPerDevice", device);
            }
        }
    }

    fn operation(&mut self, operation: &NewOperation) {
        let name = &operation.device;
        let Some(device) = self.world.device(name) else {
            return self.fault("DeviceExists", name);
        };
        if self.world.policy().paused {
            self.fault("Paused", name);
        }
        if device.hold().is_some() {
            self.fault("Held", name);
        }
        if device.is_unavailable() {
            self.fault("UnavailableIsNotUpdated", name);
        }
        if !device.is_the_machine() || self.world.model(device.model()).is_none() {
            self.fault("RightMachine", name);
        }
        if device.pool() != operation.pool || operation.pool.is_empty() {
            self.fault("Bound", name);
        }
        if operation.updates.is_empty() {
            self.fault("NothingToDo", name);
        }
        if operation
            .updates
            .iter()
            .any(|update| update.image.sha256.is_empty())
        {
            self.fault("Image", name);
        }
        let Some((pool, baseline)) = self.wanted_of(operation) else {
            return self.fault("Baseline", name);
        };
        if operation.revision != revision::of(&revision::of_components(&baseline.components), pool.retry) {
            self.fault("Revision", name);
        }
        if device.last_revision().is_some_and(|(revision, outcome)| {
            revision == operation.revision && outcome != Outcome::Succeeded
        }) {
            self.fault("FailedIsNotRetried", name);
        }
        let speaking: BTreeSet<&str> = pool
            .baselines
            .iter()
            .filter_map(|name| self.world.baseline(name))
            .filter(|baseline| baseline.models.iter().any(|model| model == device.model()))
            .map(|baseline| baseline.name.as_str())
            .collect();
        if speaking.len() != 1 {
            self.fault("OneBaselinePerModel", name);
        }
        let denied = &self.world.policy().denied_versions;
        for update in &operation.updates {
            let by_policy = denied.iter().any(|it| {
                it.class == update.class && it.matches.is_any() && it.versions.contains(&update.to)
            });
            let says = |it: &&crate::facts::WantedComponent| {
                it.class == update.class
                    && it.matches == update.matches
                    && (it.version == update.to || it.via.iter().any(|stone| stone.version == update.to))
            };
            let entry = baseline.components.iter().find(says);
            let by_itself = entry.is_none_or(|wanted| wanted.deny.contains(&update.to));
            // The last step is taken only from where the baseline says that it may be.
            let from = entry
                .filter(|wanted| wanted.version == update.to)
                .and_then(|wanted| wanted.from.as_deref())
                .map(crate::version::Requirement::parse);
            let is = crate::version::FirmwareVersion::parse(&update.from);
            if from
                .is_some_and(|from| from.map_or(true, |from| from.check(&is) != crate::version::Verdict::Met))
            {
                self.fault("StoneLeftOut", format!("{name}: {} {}", update.class, update.to));
            }
            if by_policy || by_itself {
                self.fault("Denied", format!("{name}: {} {}", update.class, update.to));
            }
        }
    }

    fn wanted_of(&self, operation: &NewOperation) -> Option<(&'a PoolFacts, &'a BaselineFacts)> {
        let world = self.world;
        let state = self.rollouts.get(operation.rollout.as_str())?;
        let pool = world.pool(&state.pool)?;
        let baseline = world.baseline(&state.baseline)?;
        (pool.name == operation.pool && operation.campaign == format!("Rollout/{}", state.name))
            .then_some((pool, baseline))
    }

    /// No wave lets more begin than it reaches, and none is beyond what was earned.
    fn waves(&mut self) {
        let mut grants: BTreeMap<&str, usize> = BTreeMap::new();
        for operation in &self.plan.operations {
            *grants.entry(&operation.rollout).or_default() += 1;
        }
        for state in &self.plan.rollouts {
            let status = &state.status;
            let granted = grants.get(state.name.as_str()).copied().unwrap_or(0);
            if granted == 0 {
                continue;
            }
            let begun = (status.done + status.failed + status.running) as usize + granted;
            if begun > status.total as usize {
                self.fault("Total", format!("{}: {begun} of {}", state.name, status.total));
            }
            let reach = self.world.pool(&state.pool).and_then(|pool| {
                let at = (status.wave as usize).checked_sub(1)?;
                // The default waves, and the last one that is implied, are everything at most.
                pool.waves.get(at).map(|wave| wave.reach.of(status.total))
            });
            let before = self.world.pool(&state.pool).map_or(0, |pool| {
                let earlier = pool.waves.iter().take(status.wave.saturating_sub(1) as usize);
                earlier
                    .map(|wave| wave.reach.of(status.total).min(status.total))
                    .max()
                    .unwrap_or(0)
            });
            // Canaries begin beyond what the first wave reaches.
            let counted = if status.wave == 1 {
                granted - self.canaries_granted(state)
            } else {
                granted
            };
            let begun = (status.done + status.failed + status.running) as usize + counted;
            if counted > 0 && reach.is_some_and(|reach| begun > reach.max(before) as usize) {
                self.fault("Wave", format!("{}: {begun} in wave {}", state.name, status.wave));
            }
            if before > status.done + status.failed {
                self.fault("WaveNotEarned", format!("{}: wave {}", state.name, status.wave));
            }
            if state.soak_until.is_some() {
                self.fault("Soak", &state.name);
            }
        }
    }

    /// How many of those that the plan grants go first of their class.
    fn canaries_granted(&self, state: &RolloutState) -> usize {
        let canaries = state.status.canaries.iter();
        canaries
            .filter(|it| self.granted.contains(it.device.as_str()))
            .count()
    }

    fn is_through_well(&self, device: &str, state: &RolloutState) -> bool {
        let revision = state.status.revision.as_str();
        let echo = self.world.echo(device).map(|it| &it.facts);
        let ended = self.world.operation(device).or(echo);
        let ended = ended.is_some_and(|it| it.revision == revision && it.outcome == Outcome::Succeeded);
        let told = self
            .world
            .device(device)
            .and_then(crate::world::Device::last_revision);
        ended || told == Some((revision, Outcome::Succeeded))
    }

    /// After the first wave, nobody begins of a class that has no canary through well, but that canary.
    fn canaries(&mut self) {
        let mut faults = Vec::new();
        for operation in &self.plan.operations {
            let Some(state) = self.rollouts.get(operation.rollout.as_str()) else {
                continue;
            };
            let class = self.class_of(&operation.device);
            let canary = state
                .status
                .canaries
                .iter()
                .find(|it| Some(&it.class) == class.as_ref());
            match canary {
                Some(canary) if canary.device == operation.device => {}
                Some(canary) if self.is_through_well(&canary.device, state) => {}
                _ if state.status.wave > 1 => faults.push(operation.device.clone()),
                None if state.status.canaries.len() < crate::canary::CLASSES => {
                    faults.push(operation.device.clone());
                }
                _ => {}
            }
        }
        for device in faults {
            self.fault("Canary", device);
        }
    }

    /// Model, and present versions of what is to change.
    fn class_of(&self, device: &str) -> Option<String> {
        let found = self.world.device(device)?;
        let assessment = self.plan.assessment(self.plan.verdict_of(found.id())?)?;
        let firmware = found.firmware()?;
        let versions: Vec<(usize, &str)> = assessment
            .differences
            .iter()
            .filter_map(|it| Some((it.wanted, firmware.get(it.component?)?.version.as_str())))
            .collect();
        Some(revision::of_class(found.model(), &versions))
    }

    fn halts(&mut self) {
        let mut stored: BTreeMap<(&str, &str), Option<&RolloutStatus>> = BTreeMap::new();
        for facts in self.world.rollouts() {
            stored
                .entry((&facts.pool, &facts.baseline))
                .or_insert(facts.status.as_ref());
        }
        for state in &self.plan.rollouts {
            let limit = self
                .world
                .pool(&state.pool)
                .map_or(1, |pool| pool.halt_after_failed.max(1));
            let before = stored
                .get(&(state.pool.as_str(), state.baseline.as_str()))
                .copied()
                .flatten();
            let halted = before
                .filter(|status| status.revision == state.status.revision)
                .and_then(|status| status.halt.as_ref());
            let resumed = state.status.resumed.as_ref();
            let latched = halted.is_some_and(|halt| !self.is_ended(state, halt));
            let failed = state
                .status
                .failed
                .saturating_sub(resumed.map_or(0, |resumed| resumed.failed));
            if (latched || failed >= limit) && state.status.halt.is_none() {
                self.fault("HaltLatches", &state.name);
            }
            if state.status.halt.is_some() && self.plan.operations.iter().any(|it| it.rollout == state.name) {
                self.fault("Halted", &state.name);
            }
        }
    }

    /// Whether somebody whom the pool names has approved of the end of a halt.
    fn is_ended(&self, state: &RolloutState, halt: &HaltFacts) -> bool {
        let by = self.world.pool(&state.pool).map(|pool| &pool.resumable_by);
        self.world.approvals().any(|it| {
            it.rollout == state.name
                && it.revision == state.status.revision
                && matches!(it.what, Approved::Resume(at) if at.as_second() == halt.at.as_second())
                && by.is_some_and(|by| by.include(it))
        })
    }

    /// The rollouts of which something begins.
    fn granting(&self) -> BTreeSet<&'a str> {
        self.plan
            .operations
            .iter()
            .map(|it| it.rollout.as_str())
            .collect()
    }

    /// Nothing begins in a wave that waits for an approval nobody gave.
    fn approvals(&mut self) {
        let granting = self.granting();
        for state in self
            .plan
            .rollouts
            .iter()
            .filter(|it| granting.contains(it.name.as_str()))
        {
            let pool = self.world.pool(&state.pool);
            let rules = pool.into_iter().flat_map(|pool| &pool.approvals);
            for rule in rules.filter(|rule| rule.wave == state.status.wave) {
                let given = self.world.approvals().any(|it| {
                    (&it.rollout, &it.revision) == (&state.name, &state.status.revision)
                        && it.what == Approved::Wave(rule.wave_name.clone())
                        && rule.by.include(it)
                });
                if !given {
                    self.fault("Approval", format!("{}: wave {}", state.name, rule.wave_name));
                }
            }
        }
    }

    /// Nothing begins in a wave whose gate was not seen to hold a short while ago.
    fn gates(&mut self) {
        let granting = self.granting();
        for state in &self.plan.rollouts {
            let Some(pool) = self
                .world
                .pool(&state.pool)
                .filter(|_| granting.contains(state.name.as_str()))
            else {
                continue;
            };
            let guards = |gate: &&GateRule| gate.waves.is_empty() || gate.waves.contains(&state.status.wave);
            for gate in pool.gates.iter().filter(guards) {
                let holds = match gate.health {
                    Some(rule) => self.health_holds(state, rule),
                    None => self.world.gate(&pool.name, &gate.name).is_some_and(|facts| {
                        let age = self.plan.at.duration_since(facts.measured_at);
                        facts.state == GateState::Holds && !age.is_negative() && age <= gate.max_age
                    }),
                };
                if !holds {
                    self.fault(
                        "Gate",
                        format!("{}: {} in wave {}", state.name, gate.name, state.status.wave),
                    );
                }
            }
        }
    }

    /// Counts the devices that came through this revision and are as wanted, as far as their own facts tell.
    fn health_holds(&self, state: &RolloutState, rule: HealthRule) -> bool {
        let mut counts = [0_u32; 3];
        for (device, verdict) in self.plan.verdicts(self.world) {
            let mine = device.pool() == state.pool
                && device.last_revision() == Some((state.status.revision.as_str(), Outcome::Succeeded))
                && self.world.operation(device.name()).is_none();
            let needs = self
                .plan
                .assessment(verdict)
                .is_none_or(crate::compliance::Assessment::needs_change);
            if mine && !needs {
                match Ailment::of(device.reach(), device.health(), device.is_fresh()) {
                    Some(Ailment::Critical) => counts[0] += 1,
                    Some(Ailment::Unreachable) => counts[1] += 1,
                    Some(Ailment::Unknown) => counts[2] += 1,
                    None => {}
                }
            }
        }
        let most = [rule.max_critical, rule.max_unreachable, rule.max_unknown];
        counts.iter().zip(most).all(|(is, most)| *is <= most)
    }

    /// A device that is known to differ from its baseline moves, or waits on something.
    fn nothing_waits_without_a_reason(&mut self) {
        let mut faults = Vec::new();
        for (device, verdict) in self.plan.verdicts(self.world) {
            let needs = self
                .plan
                .assessment(verdict)
                .is_some_and(crate::compliance::Assessment::needs_change);
            if needs && !verdict.updating && verdict.waiting.is_none() {
                faults.push(("SilentWait", device.name()));
            }
            if self.granted.contains(device.name()) && verdict.waiting.is_some() {
                faults.push(("GrantedAndWaiting", device.name()));
            }
            if matches!(verdict.waiting, Some(WaitingOn::Paused)) && !self.world.policy().paused {
                faults.push(("FalseReason", device.name()));
            }
        }
        for (rule, device) in faults {
            self.fault(rule, device);
        }
    }

    /// Every operation that has not started is either kept or taken back; none that has started is.
    fn unstarted(&mut self) {
        let adopt = self.plan.adopt.iter().map(|it| it.device.as_str());
        let withdraw = self.plan.withdraw.iter().map(|it| it.device.as_str());
        let mut looked_at: Vec<&str> = adopt.chain(withdraw).collect();
        looked_at.sort_unstable();
        let all = self
            .world
            .operations()
            .filter(|it| it.outcome == Outcome::Pending);
        let all: Vec<&str> = all.map(|it| it.device.as_str()).collect();
        if looked_at != all {
            self.fault("Unstarted", format!("looked at {looked_at:?} of {all:?}"));
        }
        if self.world.policy().paused && !self.plan.adopt.is_empty() {
            self.fault("Paused", "operations that have not started are kept");
        }
    }
}
