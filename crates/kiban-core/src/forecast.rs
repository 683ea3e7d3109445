//! Forecast: when each wave, and the whole, would end: the plan played on a virtual clock.
//!
//! ```text
//!   Survey::take ──▶ lanes (one per rollout) ──grant──▶ operations end after their duration ──▶ waves, soaks ──grant──▶ …
//! ```
//!
//! The gate is the planner's own ([`crate::grant`]), asked again whenever something ends; only what happens between is
//! played. Nothing is drawn by lot: one run takes the usual durations, another the long ones, so that the two ends say
//! how far to trust the first.

use crate::{
    budget::Budgets,
    canary::Canaries,
    explain::{self, After},
    facts::RolloutStatus,
    grant::{self, Entrant, RolloutGate},
    plan::{Plan, plan},
    rollout,
    survey::{Candidate, Survey},
    waiting::WaitingOn,
    wave::{self, Progress},
    world::{DeviceId, World},
};
use hashbrown::{HashMap, HashSet};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
};

/// How long the parts of an operation take, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Durations {
    /// Identity, drain, probe and the ledger: once per operation.
    pub operation: u32,
    /// Each update of a component: transfer, flash, read back.
    pub update: u32,
    /// Each reset of the host, until it serves again.
    pub host_reset: u32,
    /// Each restart of the BMC alone.
    pub bmc_reset: u32,
    /// Each removal of AC power, beside the host's own start.
    pub ac_cycle: u32,
}

impl Durations {
    /// What is assumed as long as nothing was learned: the usual, half of all operations are quicker.
    pub const USUAL: Self = Self {
        operation: 120,
        update: 480,
        host_reset: 360,
        bmc_reset: 180,
        ac_cycle: 300,
    };

    /// What nine of ten operations stay within.
    pub const LONG: Self = Self {
        operation: 240,
        update: 900,
        host_reset: 600,
        bmc_reset: 360,
        ac_cycle: 600,
    };

    /// How long one operation takes.
    fn of(self, after: &After) -> i64 {
        let updates = i64::try_from(after.updates.len()).unwrap_or(i64::MAX);
        i64::from(self.operation)
            .saturating_add(updates.saturating_mul(self.update.into()))
            .saturating_add(i64::from(after.host_resets) * i64::from(self.host_reset))
            .saturating_add(i64::from(after.bmc_resets) * i64::from(self.bmc_reset))
            .saturating_add(i64::from(after.ac_cycles) * i64::from(self.ac_cycle))
    }
}

/// When it would all be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// The time that it begins at.
    pub from: Timestamp,
    /// The time that nothing is played beyond.
    pub until: Timestamp,
    /// Devices that are granted at once.
    pub first: Vec<String>,
    /// Rollouts, by pool and baseline.
    pub rollouts: Vec<RolloutForecast>,
    /// Pools that something happens in, by name.
    pub pools: Vec<PoolForecast>,
    /// When the last operation that can be done is done; None: not before `until`, or there is none.
    pub ends: Option<Timestamp>,
    /// The same if every operation takes as long as nine of ten stay within.
    pub ends_late: Option<Timestamp>,
    /// Operations that are played.
    pub operations: u32,
    /// Devices that need the change and never get it as things stand.
    pub left: u32,
    /// What was assumed.
    pub assumptions: Vec<String>,
}

/// One rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutForecast {
    /// Name.
    pub name: String,
    /// Pool.
    pub pool: String,
    /// Baseline.
    pub baseline: String,
    /// Devices that the change concerns.
    pub total: u32,
    /// Of them, done or failed already.
    pub through: u32,
    /// Of them, never done as things stand: they are blocked, or their wave never opens.
    pub left: u32,
    /// The waves that are not over yet.
    pub waves: Vec<WaveForecast>,
    /// When the last of its devices is done; None: not before the end, or some are left.
    pub ends: Option<Timestamp>,
    /// The same, late.
    pub ends_late: Option<Timestamp>,
}

/// One wave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WaveForecast {
    /// Number, from 1.
    pub wave: u32,
    /// Devices that it reaches, those of the waves before included.
    pub reach: u32,
    /// When it opens; None: not before the end.
    pub opens: Option<Timestamp>,
    /// When its last device is done, before its soak.
    pub done: Option<Timestamp>,
    /// The same, late.
    pub done_late: Option<Timestamp>,
}

/// One pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolForecast {
    /// Name.
    pub pool: String,
    /// Most devices unavailable at once.
    pub peak: u32,
    /// Allowed.
    pub allowed: u32,
}

/// How far ahead is looked when nothing else is asked.
pub const HORIZON: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Plays the plan from `now` on, with the usual and with long durations.
#[must_use]
pub fn forecast(world: &World, now: Timestamp, horizon: SignedDuration) -> Forecast {
    let until = now.checked_add(horizon).unwrap_or(Timestamp::MAX);
    let made = plan(world, now);
    let usual = Player::play(world, &made, now, until, Durations::USUAL);
    let late = Player::play(world, &made, now, until, Durations::LONG);
    let rollouts: Vec<RolloutForecast> = usual
        .lanes
        .iter()
        .zip(&late.lanes)
        .filter(|(lane, _)| lane.concerned())
        .map(|(lane, late)| lane.told(late))
        .collect();
    let pools: BTreeSet<usize> = usual
        .lanes
        .iter()
        .filter(|lane| lane.concerned())
        .map(|lane| lane.pool)
        .collect();
    let pools = pools.into_iter().filter_map(|at| {
        let budget = usual.budgets.pools.get(at)?;
        Some(PoolForecast {
            pool: world.text(budget.pool).to_owned(),
            peak: usual.peaks.get(at).copied().unwrap_or(0),
            allowed: budget.total.allowed,
        })
    });
    let mut pools: Vec<PoolForecast> = pools.collect();
    pools.sort_by(|one, other| one.pool.cmp(&other.pool));
    let left = rollouts.iter().map(|it| it.left).sum();
    Forecast {
        from: now,
        until,
        first: usual
            .first
            .iter()
            .map(|&device| world.name(device).to_owned())
            .collect(),
        pools,
        ends: usual.end(),
        ends_late: late.end(),
        operations: usual.operations,
        left,
        assumptions: assumptions(left),
        rollouts,
    }
}

fn assumptions(left: u32) -> Vec<String> {
    let minutes = |seconds: u32| seconds.div_ceil(60);
    let (usual, long) = (Durations::USUAL, Durations::LONG);
    let mut list = vec![
        format!(
            "an operation takes {} min, {} for each update, {} for each host reset, {} for each BMC reset, {} for each AC cycle (declared, not learned)",
            minutes(usual.operation),
            minutes(usual.update),
            minutes(usual.host_reset),
            minutes(usual.bmc_reset),
            minutes(usual.ac_cycle)
        ),
        format!(
            "the late ends take {}, {}, {}, {} and {} min for every one of them",
            minutes(long.operation),
            minutes(long.update),
            minutes(long.host_reset),
            minutes(long.bmc_reset),
            minutes(long.ac_cycle)
        ),
        "nothing fails, nothing new is committed, and machines stay as available as they are now".to_owned(),
        "operations that are under way now begin anew".to_owned(),
        "a gate that is closed now stays closed and an approval that is missing stays missing; those of later waves hold and are given".to_owned(),
    ];
    if left > 0 {
        list.push(
            "devices that wait on a person stay where they are, and so do the waves that count on them"
                .to_owned(),
        );
    }
    list
}

/// Something that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// An operation. `of_change`: it brings the lane's change; else it is for an earlier one.
    Operation {
        lane: usize,
        device: u32,
        of_change: bool,
    },
    /// A soak.
    Soak { lane: usize },
}

/// One rollout on the clock.
struct Lane {
    name: String,
    pool_name: String,
    baseline: String,
    pool: usize,
    group: usize,
    priority: i32,
    gate: RolloutGate,
    /// Every class counts as represented: the canaries that the plan grants are under way, and all goes well.
    canaries: Canaries,
    status: RolloutStatus,
    candidates: Vec<Candidate>,
    /// What became of the waves: number, mark, opened, done.
    waves: Vec<(u32, u32, Option<Timestamp>, Option<Timestamp>)>,
    through_before: u32,
    last_end: Option<Timestamp>,
    /// Refused by a budget that other pools share: asked again whenever anything ends.
    starved: bool,
}

impl Lane {
    fn through(&self) -> u32 {
        self.status.done + self.status.failed
    }

    /// Whether there was anything to do.
    fn concerned(&self) -> bool {
        self.through_before < self.status.total
    }

    fn left(&self) -> u32 {
        self.status.total.saturating_sub(self.through())
    }

    fn told(&self, late: &Self) -> RolloutForecast {
        let waves = self.waves.iter().map(|&(wave, reach, opens, done)| WaveForecast {
            wave,
            reach,
            opens,
            done,
            done_late: late.waves.iter().find(|it| it.0 == wave).and_then(|it| it.3),
        });
        let end = |lane: &Self| lane.last_end.filter(|_| lane.left() == 0);
        RolloutForecast {
            name: self.name.clone(),
            pool: self.pool_name.clone(),
            baseline: self.baseline.clone(),
            total: self.status.total,
            through: self.through_before,
            left: self.left(),
            waves: waves.collect(),
            ends: end(self),
            ends_late: end(late),
        }
    }
}

/// What is on the clock.
struct Player<'a> {
    world: &'a World,
    plan: &'a Plan,
    pool_waves: Vec<&'a [crate::facts::WaveFacts]>,
    durations: Durations,
    lanes: Vec<Lane>,
    budgets: Budgets,
    ends: BinaryHeap<Reverse<(i64, End)>>,
    lengths: HashMap<(u32, u32), i64>,
    /// By pool.
    peaks: Vec<u32>,
    first: Vec<DeviceId>,
    operations: u32,
    last_end: Option<Timestamp>,
    cut: bool,
}

impl<'a> Player<'a> {
    fn play(
        world: &'a World,
        plan: &'a Plan,
        now: Timestamp,
        until: Timestamp,
        durations: Durations,
    ) -> Self {
        let mut player = Self::new(world, plan, now, durations);
        player.under_way(now);
        let all: BTreeSet<usize> = (0..player.lanes.len()).collect();
        player.settle(&all, now);
        player.first = player.grant(&all, now);
        while let Some(Reverse((second, _))) = player.ends.peek() {
            let second = *second;
            let Some(now) = Timestamp::from_second(second).ok().filter(|&at| at <= until) else {
                player.cut = true;
                break;
            };
            let mut touched = BTreeSet::new();
            while let Some(&Reverse((at, end))) = player.ends.peek()
                && at == second
            {
                player.ends.pop();
                touched.insert(player.end_of(end, now));
            }
            player.settle(&touched, now);
            let starved = player.lanes.iter().enumerate().filter(|(_, lane)| lane.starved);
            touched.extend(starved.map(|(at, _)| at));
            player.grant(&touched, now);
        }
        player
    }

    fn new(world: &'a World, plan: &'a Plan, now: Timestamp, durations: Durations) -> Self {
        let mut survey = Survey::take(world);
        let proposals = rollout::propose(world, &mut survey, now);
        let mut lanes = Vec::with_capacity(proposals.len());
        let mut pool_waves = Vec::with_capacity(proposals.len());
        let mut order: Vec<usize> = (0..proposals.len()).collect();
        order.sort_by_key(|&at| proposals.get(at).map(|it| (&it.state.pool, &it.state.baseline)));
        for at in order {
            let (Some(group), Some(proposal)) = (survey.groups.get_mut(at), proposals.get(at)) else {
                continue;
            };
            let status = proposal.state.status.clone();
            pool_waves.push(group.pool_row.facts.waves.as_slice());
            lanes.push(Lane {
                name: proposal.state.name.clone(),
                pool_name: proposal.state.pool.clone(),
                baseline: proposal.state.baseline.clone(),
                pool: group.pool as usize,
                group: at,
                priority: group.pool_row.facts.priority,
                gate: RolloutGate {
                    canaries: (0, 0),
                    firsts: 0,
                    ..proposal.gate
                },
                canaries: Canaries::represented(&group.candidates),
                candidates: std::mem::take(&mut group.candidates),
                waves: Vec::new(),
                through_before: status.done + status.failed,
                status,
                last_end: None,
                starved: false,
            });
        }
        let peaks = survey.budgets.pools.iter().map(|it| it.total.used).collect();
        Self {
            world,
            plan,
            pool_waves,
            durations,
            lanes,
            budgets: survey.budgets,
            ends: BinaryHeap::new(),
            lengths: HashMap::new(),
            peaks,
            first: Vec::new(),
            operations: 0,
            last_end: None,
            cut: false,
        }
    }

    /// When the last operation ended, if the clock was not stopped before.
    fn end(&self) -> Option<Timestamp> {
        self.last_end.filter(|_| !self.cut)
    }

    /// Puts what is under way on the clock.
    fn under_way(&mut self, now: Timestamp) {
        let lane_of: HashMap<usize, usize> = self
            .lanes
            .iter()
            .enumerate()
            .map(|(at, lane)| (lane.group, at))
            .collect();
        let world = self.world;
        for (name, operation) in world.operation_rows() {
            let verdict = world
                .id(name)
                .and_then(|device| Some((device, self.plan.verdict_of(device)?)));
            let Some((device, verdict)) = verdict.filter(|_| !operation.facts.outcome.is_final()) else {
                continue;
            };
            let Some(&lane) = lane_of.get(&(verdict.group as usize)) else {
                continue;
            };
            let of_change = self
                .plan
                .group(verdict)
                .is_some_and(|group| group.revision == Some(operation.revision));
            self.put(lane, device, of_change, now);
        }
    }

    fn put(&mut self, lane: usize, device: DeviceId, of_change: bool, now: Timestamp) {
        let seconds = self.length(device);
        let end = End::Operation {
            lane,
            device: device.0,
            of_change,
        };
        self.ends
            .push(Reverse((now.as_second().saturating_add(seconds), end)));
    }

    /// How long an operation on a device takes; the same for all devices that are assessed alike.
    fn length(&mut self, device: DeviceId) -> i64 {
        let Some(verdict) = self.plan.verdict_of(device) else {
            return i64::from(self.durations.operation);
        };
        let (world, plan, durations) = (self.world, self.plan, self.durations);
        *self
            .lengths
            .entry((verdict.assessment, verdict.group))
            .or_insert_with(|| {
                world
                    .device(world.name(device))
                    .map_or(i64::from(durations.operation), |it| {
                        durations.of(&explain::after(world, plan, it, verdict))
                    })
            })
    }

    /// Something ended. Returns its lane.
    fn end_of(&mut self, end: End, now: Timestamp) -> usize {
        let (at, device, of_change) = match end {
            End::Soak { lane } => return lane,
            End::Operation {
                lane,
                device,
                of_change,
            } => (lane, DeviceId(device), of_change),
        };
        let Some(lane) = self.lanes.get_mut(at) else {
            return at;
        };
        let row = self.world.device_row(device);
        if let Some(row) = row.filter(|row| !row.is_unavailable()) {
            self.budgets
                .give_back(self.world.places(), lane.pool, device, row);
        }
        if of_change {
            lane.status.running = lane.status.running.saturating_sub(1);
            lane.status.done += 1;
            lane.last_end = Some(now);
            self.operations += 1;
            self.last_end = Some(now);
        } else if let Some(judged) = self
            .plan
            .verdict_of(device)
            .and_then(|verdict| self.plan.judged.get(verdict.assessment as usize))
            .filter(|judged| judged.needs_change && judged.block.is_none())
        {
            lane.candidates.push(Candidate {
                device,
                class: judged.class,
            });
        }
        at
    }

    /// Brings the waves of some lanes to the present.
    fn settle(&mut self, touched: &BTreeSet<usize>, now: Timestamp) {
        for &at in touched {
            let (Some(lane), Some(waves)) = (self.lanes.get_mut(at), self.pool_waves.get(at)) else {
                continue;
            };
            let progress = Progress {
                total: lane.status.total,
                through: lane.through(),
                canaries: false,
                halted: lane.status.halt.is_some(),
            };
            let wave = wave::wave(waves, progress, Some(&lane.status), now);
            let marks = wave::marks(waves, lane.status.total);
            let through = progress.through;
            for (number, (mark, _)) in (1_u32..).zip(&marks).take(wave.wave as usize) {
                if *mark <= lane.through_before {
                    continue;
                }
                if !lane.waves.iter().any(|it| it.0 == number) {
                    lane.waves.push((number, *mark, Some(now), None));
                }
                if let Some(entry) = lane.waves.iter_mut().find(|it| it.0 == number)
                    && through >= *mark
                    && entry.3.is_none()
                {
                    entry.3 = Some(now);
                }
            }
            // A gate that is closed now stays closed, and so does an approval that is missing; those of later waves are taken to
            // hold, and to be given at once.
            let same = lane.gate.wave.wave == wave.wave;
            let closed = lane.gate.closed.filter(|_| same);
            let unapproved = lane.gate.unapproved.filter(|_| same);
            lane.status.wave = wave.wave;
            lane.status.wave_done_at = wave.done_at;
            if let Some(until) = wave.soak_until {
                let end = Reverse((until.as_second(), End::Soak { lane: at }));
                self.ends.push(end);
            }
            lane.gate = RolloutGate {
                wave,
                closed,
                unapproved,
                total: lane.status.total,
                room: wave
                    .reach
                    .saturating_sub(through)
                    .saturating_sub(lane.status.running),
                ..lane.gate
            };
        }
    }

    /// Asks the gate for some lanes.
    fn grant(&mut self, asking: &BTreeSet<usize>, now: Timestamp) -> Vec<DeviceId> {
        let mut numbers = Vec::new();
        let mut entrants = Vec::new();
        for &at in asking {
            let Some(lane) = self.lanes.get(at) else { continue };
            let room = self
                .budgets
                .pools
                .get(lane.pool)
                .is_some_and(|budget| budget.total.has_room());
            // The gate would say the same, after it has sorted all candidates.
            if lane.candidates.is_empty() || !room || lane.gate.refusals().next().is_some() {
                continue;
            }
            numbers.push(at);
            entrants.push(Entrant {
                gate: lane.gate,
                pool: lane.pool,
                priority: lane.priority,
                candidates: &lane.candidates,
                canaries: &lane.canaries,
                through: lane.through() + lane.status.running,
            });
        }
        if entrants.is_empty() {
            return Vec::new();
        }
        let decisions = grant::grant(self.world, &entrants, &mut self.budgets);
        for &at in &numbers {
            if let Some(lane) = self.lanes.get_mut(at) {
                lane.starved = false;
            }
        }
        let mut granted: HashMap<usize, HashSet<DeviceId>> = HashMap::new();
        let mut order = Vec::new();
        for (entrant, device, decision) in decisions {
            let Some(&at) = numbers.get(entrant) else { continue };
            match decision {
                Ok(()) => {
                    granted.entry(at).or_default().insert(device);
                    order.push((at, device));
                }
                Err(refusal) => {
                    if is_shared(refusal)
                        && let Some(lane) = self.lanes.get_mut(at)
                    {
                        lane.starved = true;
                    }
                }
            }
        }
        for (at, devices) in granted {
            let Some(lane) = self.lanes.get_mut(at) else {
                continue;
            };
            lane.candidates.retain(|it| !devices.contains(&it.device));
            let count = u32::try_from(devices.len()).unwrap_or(u32::MAX);
            lane.status.running += count;
            lane.gate.room = lane.gate.room.saturating_sub(count);
            let used = self.budgets.pools.get(lane.pool).map_or(0, |it| it.total.used);
            if let Some(peak) = self.peaks.get_mut(lane.pool) {
                *peak = used.max(*peak);
            }
        }
        for &(at, device) in &order {
            self.put(at, device, true, now);
        }
        order.into_iter().map(|(_, device)| device).collect()
    }
}

/// Whether a refusal may pass by what another pool does.
fn is_shared(refusal: WaitingOn) -> bool {
    matches!(
        refusal,
        WaitingOn::FleetBudget { .. }
            | WaitingOn::ServiceBudget { .. }
            | WaitingOn::FleetDomain { .. }
            | WaitingOn::RedundancyGroup { .. }
    )
}
