//! Impact: what a plan means for the fleet, added up for people: who is touched, by what, and how alike it all is afterwards.
//!
//! ```text
//!   plan(&world, now) ──impact──▶ devices by pool and model, resets, images, waves, what waits, shares, problems
//! ```
//!
//! Nothing is decided here: every figure is counted from the plan's own assessments and verdicts.

use crate::{
    check,
    compliance::{Compliance, DifferenceKind},
    component::ComponentClass,
    explain,
    finding::Finding,
    plan::{Plan, Verdict},
    waiting::WaitingOn,
    wave,
    world::{Device, Sym, World},
};
use hashbrown::HashMap;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Devices that are named as examples.
const EXAMPLES: usize = 3;

/// What a plan means for the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Impact {
    /// All devices.
    pub devices: Work,
    /// The same by pool, model and baseline.
    pub groups: Vec<GroupWork>,
    /// Images that are to be installed.
    pub images: Vec<ImageUse>,
    /// How the change spreads, by rollout.
    pub rollouts: Vec<Spread>,
    /// What devices wait on, the most frequent first.
    pub waiting: Vec<Waiting>,
    /// How alike each pool is once everything is done.
    pub shares: Vec<Share>,
    /// Rules that this would break, and what can never be done as it is written.
    pub problems: Vec<Problem>,
}

/// Devices by how they stand, and what is to be done on them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// Devices.
    pub total: u32,
    /// To be updated, or being updated.
    pub to_update: u32,
    /// Of those to be updated, with an operation now or to be granted at once.
    pub now: u32,
    /// Not as wanted, and no update can be made of it as it is written.
    pub cannot: u32,
    /// At their baseline already.
    pub compliant: u32,
    /// Not known.
    pub unknown: u32,
    /// Without a baseline.
    pub no_baseline: u32,
    /// Component updates.
    pub updates: u32,
    /// Times that a host goes down, AC cycles included.
    pub host_resets: u32,
    /// Times that only a BMC restarts.
    pub bmc_resets: u32,
    /// Removals of AC power.
    pub ac_cycles: u32,
}

/// The same for the devices of one model in one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupWork {
    /// Pool.
    pub pool: String,
    /// Model.
    pub model: String,
    /// Baseline; empty: none.
    pub baseline: String,
    /// Its devices.
    #[serde(flatten)]
    pub work: Work,
}

/// An image and how many devices get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageUse {
    /// Class.
    pub class: ComponentClass,
    /// Version.
    pub version: String,
    /// Address.
    pub url: String,
    /// SHA-256, hex.
    pub sha256: String,
    /// Size in bytes, where the baseline gives it.
    pub size: Option<u64>,
    /// Devices.
    pub devices: u32,
}

/// How a rollout spreads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// The rollout.
    pub rollout: String,
    /// Pool.
    pub pool: String,
    /// Baseline.
    pub baseline: String,
    /// Devices that the change concerns.
    pub total: u32,
    /// Of them, done.
    pub done: u32,
    /// Present wave, from 1.
    pub wave: u32,
    /// Devices that each wave adds, and the seconds that it soaks.
    pub waves: Vec<WaveSize>,
    /// Why it is halted, if it is.
    pub halt: Option<String>,
}

/// One wave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WaveSize {
    /// Devices that it adds to those of the waves before.
    pub devices: u32,
    /// Its soak in seconds.
    pub soak_seconds: i64,
}

/// Devices that wait on one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// The rule, in CamelCase.
    pub reason: String,
    /// How many wait on it.
    pub devices: u32,
    /// Whether it passes as things go on; else somebody must do something.
    pub passes_by_itself: bool,
    /// The first of them, by name.
    pub examples: Vec<String>,
    /// What the first waits on, in a sentence.
    pub message: String,
}

/// The largest share that one version, or one maker, has of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// Pool.
    pub pool: String,
    /// Class.
    pub class: ComponentClass,
    /// `version` or `manufacturer`.
    pub by: &'static str,
    /// Which one.
    pub value: String,
    /// Devices that have it.
    pub devices: u32,
    /// Devices of the pool that have a component of the class.
    pub of: u32,
}

/// A rule that a plan breaks, or a wish that can never come true as it is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The rule, in CamelCase.
    pub reason: String,
    /// What breaks it, in a sentence.
    pub message: String,
    /// Devices that it concerns; 0: not counted by device.
    pub devices: u32,
    /// The first of them, by name.
    pub examples: Vec<String>,
}

impl Work {
    fn add(&mut self, state: State, now: bool, after: &explain::After) {
        self.total += 1;
        match state {
            State::ToUpdate => {
                self.to_update += 1;
                self.now += u32::from(now);
                self.updates += u32::try_from(after.updates.len()).unwrap_or(u32::MAX);
                self.host_resets += after.host_resets;
                self.bmc_resets += after.bmc_resets;
                self.ac_cycles += after.ac_cycles;
            }
            State::Cannot => self.cannot += 1,
            State::Compliant => self.compliant += 1,
            State::Unknown => self.unknown += 1,
            State::NoBaseline => self.no_baseline += 1,
        }
    }
}

/// How a device stands, for the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    ToUpdate,
    Cannot,
    Compliant,
    Unknown,
    NoBaseline,
}

/// Adds a plan up.
#[must_use]
pub fn impact(world: &World, plan: &Plan) -> Impact {
    let mut sum = Sum::new(world, plan);
    for (device, verdict) in plan.verdicts(world) {
        sum.device(device, verdict);
    }
    sum.close()
}

/// The updates that a device is to get, as `BIOS 1.10.2 -> 1.15.2`; empty: none. Devices with the same answer before and
/// after a commit are not touched by it.
#[must_use]
pub fn updates(world: &World, plan: &Plan, device: &str) -> Vec<String> {
    let found = world
        .device(device)
        .and_then(|device| Some((device, plan.verdict_of(device.id())?)));
    match found {
        Some((device, verdict)) if state(plan, verdict) == State::ToUpdate => {
            explain::after(world, plan, device, verdict).updates
        }
        _ => Vec::new(),
    }
}

/// What the devices of one rollout, or of all, wait on: the most frequent first.
#[must_use]
pub fn waiting(world: &World, plan: &Plan, rollout: Option<&str>) -> Vec<Waiting> {
    let mut found: BTreeMap<&'static str, Waiting> = BTreeMap::new();
    for (device, verdict) in plan.verdicts(world) {
        let of_it = rollout.is_none_or(|name| plan.rollout(verdict).is_some_and(|state| state.name == name));
        let Some(waiting) = verdict.waiting.filter(|_| of_it) else {
            continue;
        };
        let entry = found.entry(waiting.reason()).or_insert_with(|| Waiting {
            reason: waiting.reason().to_owned(),
            devices: 0,
            passes_by_itself: waiting.passes_by_itself(),
            examples: Vec::new(),
            message: waiting.sentence(world).to_string(),
        });
        entry.devices += 1;
        if entry.examples.len() < EXAMPLES {
            entry.examples.push(device.name().to_owned());
        }
    }
    let mut list: Vec<Waiting> = found.into_values().collect();
    list.sort_by(|a, b| b.devices.cmp(&a.devices).then_with(|| a.reason.cmp(&b.reason)));
    list
}

fn state(plan: &Plan, verdict: Verdict) -> State {
    if let Some(assessment) = plan.assessment(verdict).filter(|it| it.needs_change()) {
        return if assessment.block().is_some() {
            State::Cannot
        } else {
            State::ToUpdate
        };
    }
    match verdict.compliance {
        Compliance::Compliant => State::Compliant,
        Compliance::NoBaseline => State::NoBaseline,
        Compliance::NonCompliant | Compliance::Unknown => State::Unknown,
    }
}

/// Devices that have all in common that shares and images depend on.
type Alike = (Sym, Sym, u32, u32);

struct Sum<'a> {
    world: &'a World,
    plan: &'a Plan,
    granted: BTreeSet<&'a str>,
    impact: Impact,
    groups: BTreeMap<(&'a str, &'a str, &'a str), Work>,
    blocked: BTreeMap<(&'static str, String), Problem>,
    after: HashMap<(u32, u32), explain::After>,
    alike: HashMap<Alike, (u32, Device<'a>, Verdict)>,
}

impl<'a> Sum<'a> {
    fn new(world: &'a World, plan: &'a Plan) -> Self {
        Self {
            world,
            plan,
            granted: plan.operations.iter().map(|it| it.device.as_str()).collect(),
            impact: Impact::default(),
            groups: BTreeMap::new(),
            blocked: BTreeMap::new(),
            after: HashMap::new(),
            alike: HashMap::new(),
        }
    }

    fn device(&mut self, device: Device<'a>, verdict: Verdict) {
        let (world, plan) = (self.world, self.plan);
        let state = state(plan, verdict);
        let after = self
            .after
            .entry((verdict.assessment, verdict.group))
            .or_insert_with(|| explain::after(world, plan, device, verdict));
        let now = verdict.updating || self.granted.contains(device.name());
        self.impact.devices.add(state, now, after);
        let baseline = plan.group(verdict).map_or("", |group| group.baseline.as_str());
        self.groups
            .entry((device.pool(), device.model(), baseline))
            .or_default()
            .add(state, now, after);
        let block = plan
            .judged
            .get(verdict.assessment as usize)
            .and_then(|judged| judged.block);
        if let Some(block) = block.filter(|&block| can_never_pass(block)) {
            self.block(device, block);
        }
        let row = world.device_row(device.id());
        if let Some(row) = row.filter(|_| verdict.bound) {
            self.alike
                .entry((row.pool, row.model, row.firmware.0, verdict.group))
                .or_insert((0, device, verdict))
                .0 += 1;
        }
    }

    fn block(&mut self, device: Device<'_>, block: WaitingOn) {
        let message = block.sentence(self.world).to_string();
        let entry = self
            .blocked
            .entry((block.reason(), message))
            .or_insert_with_key(|(reason, message)| Problem {
                reason: (*reason).to_owned(),
                message: message.clone(),
                devices: 0,
                examples: Vec::new(),
            });
        entry.devices += 1;
        if entry.examples.len() < EXAMPLES {
            entry.examples.push(device.name().to_owned());
        }
    }

    fn close(mut self) -> Impact {
        self.images();
        self.shares();
        let mut impact = self.impact;
        impact.groups = self
            .groups
            .into_iter()
            .map(|((pool, model, baseline), work)| GroupWork {
                pool: pool.to_owned(),
                model: model.to_owned(),
                baseline: baseline.to_owned(),
                work,
            })
            .collect();
        impact.waiting = waiting(self.world, self.plan, None);
        impact.rollouts = spreads(self.world, self.plan);
        impact.problems = self.blocked.into_values().collect();
        impact
            .problems
            .extend(self.plan.findings.iter().filter_map(of_finding));
        impact.problems.extend(
            check::check(self.world, self.plan)
                .into_iter()
                .map(|violation| Problem {
                    reason: violation.rule.to_owned(),
                    message: violation.what,
                    devices: 0,
                    examples: Vec::new(),
                }),
        );
        impact.problems.sort();
        impact
    }

    fn images(&mut self) {
        let mut images: BTreeMap<(&str, ComponentClass, &str), ImageUse> = BTreeMap::new();
        for &(count, _, verdict) in self.alike.values() {
            let baseline = self
                .plan
                .group(verdict)
                .and_then(|group| self.world.baseline(&group.baseline));
            let (Some(baseline), Some(assessment)) = (baseline, self.plan.assessment(verdict)) else {
                continue;
            };
            if state(self.plan, verdict) != State::ToUpdate {
                continue;
            }
            for wanted in assessment.updates() {
                let Some(entry) = baseline.components.get(wanted) else {
                    continue;
                };
                let Some(image) = &entry.image else { continue };
                images
                    .entry((&image.sha256, entry.class, &entry.version))
                    .or_insert_with(|| ImageUse {
                        class: entry.class,
                        version: entry.version.clone(),
                        url: image.url.clone(),
                        sha256: image.sha256.clone(),
                        size: image.size,
                        devices: 0,
                    })
                    .devices += count;
            }
        }
        let mut images: Vec<ImageUse> = images.into_values().collect();
        images.sort_by(|a, b| (a.class, &a.version, &a.sha256).cmp(&(b.class, &b.version, &b.sha256)));
        self.impact.images = images;
    }

    /// The largest share per pool and class, of one product's version and of one maker.
    fn shares(&mut self) {
        let mut having: BTreeMap<(&str, ComponentClass), u32> = BTreeMap::new();
        let mut counts: BTreeMap<(&str, ComponentClass, &'static str, String), u32> = BTreeMap::new();
        for &(count, device, verdict) in self.alike.values() {
            let mut seen = BTreeSet::new();
            for (at, component) in device.firmware().unwrap_or_default().iter().enumerate() {
                let class = component.class;
                let version = self.version_after(verdict, at).unwrap_or(&component.version);
                if seen.insert((class, "", String::new())) {
                    *having.entry((device.pool(), class)).or_default() += count;
                }
                let maker = component.manufacturer.trim();
                // A version number says nothing without the product that it is of.
                let product = match (maker, component.model.trim()) {
                    _ if matches!(class, ComponentClass::Bmc | ComponentClass::Bios) => {
                        device.model().to_owned()
                    }
                    ("", "") => device.model().to_owned(),
                    (maker, model) => format!("{maker} {model}").trim().to_owned(),
                };
                let mut values = vec![("version", format!("{product} {version}"))];
                if !maker.is_empty() {
                    values.push(("manufacturer", maker.to_owned()));
                }
                for (by, value) in values {
                    if seen.insert((class, by, value.clone())) {
                        *counts.entry((device.pool(), class, by, value)).or_default() += count;
                    }
                }
            }
        }
        let mut largest: BTreeMap<(&str, ComponentClass, &'static str), (u32, String)> = BTreeMap::new();
        for ((pool, class, by, value), devices) in counts {
            let entry = largest.entry((pool, class, by)).or_default();
            if devices > entry.0 {
                *entry = (devices, value);
            }
        }
        let shares = largest
            .into_iter()
            .map(|((pool, class, by), (devices, value))| Share {
                of: having.get(&(pool, class)).copied().unwrap_or(devices),
                pool: pool.to_owned(),
                class,
                by,
                value,
                devices,
            });
        self.impact.shares = shares.collect();
    }

    /// The version that a component will run, where it is to be updated.
    fn version_after(&self, verdict: Verdict, component: usize) -> Option<&'a str> {
        let group = self.plan.group(verdict)?;
        let assessment = self.plan.assessment(verdict)?;
        if assessment.block().is_some() {
            return None;
        }
        let difference = assessment
            .differences
            .iter()
            .find(|it| it.component == Some(component) && matches!(it.kind, DifferenceKind::Update { .. }))?;
        let baseline = self.world.baseline(&group.baseline)?;
        Some(baseline.components.get(difference.wanted)?.version.as_str())
    }
}

fn spreads(world: &World, plan: &Plan) -> Vec<Spread> {
    let open = plan
        .rollouts
        .iter()
        .filter(|state| state.status.completed_at.is_none());
    open.map(|state| {
        let status = &state.status;
        let mut before = 0;
        let waves = wave::marks(
            world.pool(&state.pool).map_or(&[][..], |pool| &pool.waves),
            status.total,
        );
        Spread {
            rollout: state.name.clone(),
            pool: state.pool.clone(),
            baseline: state.baseline.clone(),
            total: status.total,
            done: status.done,
            wave: status.wave,
            waves: waves
                .into_iter()
                .map(|(mark, soak)| {
                    let devices = mark.saturating_sub(before);
                    before = mark;
                    WaveSize {
                        devices,
                        soak_seconds: soak.as_secs(),
                    }
                })
                .collect(),
            halt: status.halt.as_ref().map(|halt| halt.message.clone()),
        }
    })
    .collect()
}

/// What only another commit can mend: it is written so that it cannot be done.
fn can_never_pass(block: WaitingOn) -> bool {
    matches!(
        block,
        WaitingOn::Denied { .. }
            | WaitingOn::Image { .. }
            | WaitingOn::LowestSupported { .. }
            | WaitingOn::Ambiguous { .. }
    )
}

/// Findings that speak of what is written. What machines and operations are like is no fault of a commit.
fn of_finding(finding: &Finding) -> Option<Problem> {
    let written = matches!(
        finding,
        Finding::BaselineConflict { .. }
            | Finding::BaselineNotFound { .. }
            | Finding::Duplicate { .. }
            | Finding::ModelNotFound { .. }
            | Finding::PoolNotFound { .. }
    );
    written.then(|| Problem {
        reason: finding.reason().to_owned(),
        message: finding.to_string(),
        devices: 0,
        examples: Vec::new(),
    })
}
