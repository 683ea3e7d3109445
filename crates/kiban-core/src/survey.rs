//! Assess, for all devices: one pass over the world that says how each stands, and adds up what the gate must know.
//!
//! Firmware is compared once per distinct pair of firmware vector and baseline, since thousands of devices share one.

use crate::{
    assess::{Reading, assess_readings},
    budget::Budgets,
    compliance::{Assessment, Compliance, DifferenceKind},
    facts::{FailureDomain, Outcome, Reach},
    finding::Finding,
    gate::Ailing,
    grant::{Subject, Through},
    plan::{BaselineSummary, PoolSummary, Verdict},
    waiting::WaitingOn,
    world::{
        BaselineRow, DeviceId, DeviceRow, DomainId, FirmwareSet, OperationRow, PoolRow, Sym, World,
        is_failure,
    },
};
use hashbrown::HashMap;
use std::collections::BTreeMap;

/// How long after an operation a reading that differs again is taken for its undoing (a backup image that came back)
/// and not for a new fact (a part that was replaced). The first is never tried again by itself.
const REVERT_WINDOW_S: i64 = 24 * 60 * 60;

/// Names of devices in one finding.
const FINDING_NAMES: usize = 20;

/// "None" in a table of indices.
pub(crate) const NONE: u32 = u32::MAX;

/// One assessment, with what the gate asks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) needs_change: bool,
    pub(crate) compliance: Compliance,
    pub(crate) block: Option<WaitingOn>,
    pub(crate) downgrade: Option<WaitingOn>,
    /// Devices of one class ran the same before: a canary stands for its class.
    pub(crate) class: u32,
}

/// A device that could be updated now, were it not for its rollout and the budgets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) device: DeviceId,
    pub(crate) class: u32,
}

/// An operation that has not started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unstarted {
    pub(crate) device: DeviceId,
    /// Why it should not start, as far as the device alone tells.
    pub(crate) refusal: Option<WaitingOn>,
    pub(crate) superseded: bool,
    pub(crate) needed: bool,
}

/// One baseline on one pool: what becomes a rollout.
#[derive(Clone, Debug)]
pub(crate) struct GroupSurvey<'a> {
    pub(crate) pool: u32,
    pub(crate) pool_row: &'a PoolRow,
    pub(crate) baseline_row: &'a BaselineRow,
    pub(crate) revision: String,
    pub(crate) revision_sym: Option<Sym>,
    pub(crate) done: u32,
    pub(crate) failed: u32,
    pub(crate) running: u32,
    pub(crate) remaining: u32,
    /// A dark room or site in which it has a device, of the first by name.
    pub(crate) dark: Option<DomainId>,
    pub(crate) failed_names: Vec<&'a str>,
    /// Of those done, the ones that are out of order now.
    pub(crate) ailing: Ailing,
    /// Of those done, the ones whose health is critical now.
    pub(crate) lost_names: Vec<&'a str>,
    pub(crate) candidates: Vec<Candidate>,
    /// The classes of its devices that still need the change.
    pub(crate) classes: Vec<ClassSurvey>,
    pub(crate) unstarted: Vec<Unstarted>,
}

/// Devices of one class that still need the change and have no operation for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClassSurvey {
    pub(crate) class: u32,
    pub(crate) devices: u32,
    /// Whether one of them waits on what passes by itself: it may be its canary yet.
    pub(crate) soon: bool,
    /// The first by name.
    pub(crate) first: DeviceId,
}

/// What devices of one class have in common: baseline, model, and the versions that are to change.
type Class = (Sym, Sym, Vec<(usize, Sym)>);

/// Which baseline of a pool speaks of a model.
#[derive(Clone, Copy, Debug)]
enum Choice {
    None,
    Group(u32),
    Conflict(Sym, Sym),
}

/// How everything stands.
pub(crate) struct Survey<'a> {
    world: &'a World,
    pools: Vec<&'a PoolRow>,
    pool_index: Vec<u32>,
    baselines: Vec<&'a BaselineRow>,
    baseline_index: Vec<u32>,
    models: Vec<Option<&'a [String]>>,
    choices: HashMap<(u32, Sym), Choice>,
    judged_index: HashMap<(FirmwareSet, Sym, Sym), u32>,
    classes: HashMap<Class, u32>,
    /// Digest of each class, by number.
    pub(crate) class_names: Vec<String>,
    known_as: HashMap<(Sym, Sym), bool>,
    pub(crate) duplicates: HashMap<DeviceId, DeviceId>,
    /// Rooms and sites that are dark.
    pub(crate) dark: Vec<DomainId>,
    pub(crate) judged: Vec<Judged>,
    pub(crate) assessments: Vec<Assessment>,
    pub(crate) groups: Vec<GroupSurvey<'a>>,
    pub(crate) budgets: Budgets,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) pool_summaries: Vec<PoolSummary>,
    pub(crate) baseline_summaries: Vec<BaselineSummary>,
    /// Operations that have not started and whose device has no baseline any more, or is gone.
    pub(crate) stranded: Vec<&'a OperationRow>,
    pub(crate) findings: Vec<Finding>,
    fleet_size: u32,
}

impl<'a> Survey<'a> {
    pub(crate) fn take(world: &'a World) -> Self {
        let mut survey = Self::empty(world);
        survey.find_duplicates();
        let mut exceptions = Exceptions::default();
        for id in world.ids() {
            if let Some(row) = world.device_row(id) {
                survey.device(id, row, &mut exceptions);
            }
        }
        survey.count_stray_operations();
        survey.close(exceptions);
        survey
    }

    fn empty(world: &'a World) -> Self {
        let pools: Vec<&PoolRow> = world.pool_rows().collect();
        let baselines: Vec<&BaselineRow> = world.baseline_rows().collect();
        let mut models = vec![None; world.texts()];
        for (sym, facts) in world.model_rows() {
            if let Some(slot) = models.get_mut(sym.index()) {
                *slot = Some(facts.reported_as.as_slice());
            }
        }
        let index = |names: &mut dyn Iterator<Item = Sym>| {
            let mut table = vec![NONE; world.texts()];
            for (at, sym) in (0_u32..).zip(names) {
                if let Some(slot) = table.get_mut(sym.index()) {
                    *slot = at;
                }
            }
            table
        };
        Self {
            world,
            pool_index: index(&mut pools.iter().map(|pool| pool.name)),
            baseline_index: index(&mut baselines.iter().map(|baseline| baseline.name)),
            models,
            choices: HashMap::new(),
            judged_index: HashMap::new(),
            classes: HashMap::new(),
            class_names: Vec::new(),
            known_as: HashMap::new(),
            duplicates: HashMap::new(),
            dark: world.dark(),
            judged: Vec::new(),
            assessments: Vec::new(),
            groups: Vec::new(),
            budgets: Budgets::new(world, &pools),
            verdicts: vec![Verdict::default(); world.slots()],
            pool_summaries: pools
                .iter()
                .map(|pool| PoolSummary::named(&pool.facts.name))
                .collect(),
            baseline_summaries: baselines
                .iter()
                .map(|it| BaselineSummary::named(&it.facts.name))
                .collect(),
            stranded: Vec::new(),
            findings: Vec::new(),
            fleet_size: 0,
            pools,
            baselines,
        }
    }

    fn find_duplicates(&mut self) {
        let mut groups = std::collections::BTreeSet::new();
        for (_, devices) in self.world.shared_identities() {
            let mut named: Vec<(&str, DeviceId)> =
                devices.iter().map(|&id| (self.world.name(id), id)).collect();
            named.sort_unstable();
            for &(_, id) in &named {
                if let Some(&(_, other)) = named.iter().find(|(_, other)| *other != id) {
                    self.duplicates.insert(id, other);
                }
            }
            let names: Vec<String> = named
                .iter()
                .take(FINDING_NAMES)
                .map(|(name, _)| (*name).to_owned())
                .collect();
            groups.insert(names);
        }
        self.findings
            .extend(groups.into_iter().map(|devices| Finding::Duplicate { devices }));
    }

    /// Whether an operation on it ended badly and its own status does not tell of it yet. What the operation left behind is
    /// written after its outcome, by another request: until then the device is not known to serve.
    fn is_untold(&self, row: &DeviceRow, operation: Option<&OperationRow>) -> bool {
        let echo = || row.echo.then(|| self.world.echo(&row.name)).flatten();
        operation.or_else(echo).is_some_and(|operation| {
            let outcome = operation.facts.outcome;
            outcome.is_final() && is_failure(outcome) && !row.tells_of(&operation.facts.id)
        })
    }

    fn device(&mut self, id: DeviceId, row: &'a DeviceRow, exceptions: &mut Exceptions) {
        let operation = if row.operation {
            self.world.operation_row(&row.name)
        } else {
            None
        };
        let active = operation.filter(|operation| !operation.facts.outcome.is_final());
        let mut verdict = Verdict {
            updating: active.is_some(),
            ..Verdict::default()
        };
        let places = self.world.places();
        if row.pool.is_empty() {
            if active.is_some() {
                self.budgets.count_in_fleet(places, Some(row.place));
            }
            if active.is_some() || row.is_unavailable() {
                self.budgets.count_in_group(id, row);
            }
            self.finish(id, verdict, operation, active.is_some());
            return;
        }
        let unavailable = row.is_unavailable() || active.is_some() || self.is_untold(row, operation);
        self.fleet_size += 1;
        let pool = self.pool_index.get(row.pool.index()).copied().unwrap_or(NONE);
        if self.pools.get(pool as usize).is_none() {
            if unavailable {
                self.budgets.count_in_fleet(places, Some(row.place));
                self.budgets.count_in_group(id, row);
            }
            verdict.waiting = Some(WaitingOn::Pool { pool: row.pool });
            verdict.compliance = Compliance::Unknown;
            *exceptions.unknown_pools.entry(row.pool).or_default() += 1;
            self.finish(id, verdict, operation, active.is_some());
            return;
        }
        verdict.bound = true;
        if let Some(budget) = self.budgets.pools.get_mut(pool as usize) {
            budget.bound += 1;
            for kind in budget.domains.kinds() {
                let missing = |domain: &DomainId| places.is_missing(*domain);
                if places.domains_of(row.place, kind).iter().any(missing) {
                    *exceptions.no_domain.entry((pool, kind)).or_default() += 1;
                }
            }
        }
        if unavailable {
            self.budgets.count(places, pool as usize, id, row);
        }
        let stranded = self.firmware(id, row, pool, operation, &mut verdict, exceptions);
        if let Some(summary) = self.pool_summaries.get_mut(pool as usize) {
            summary.bound += 1;
            summary.updating += u32::from(active.is_some());
            summary.unavailable += u32::from(unavailable);
            summary.held += u32::from(row.hold.is_some());
            match verdict.compliance {
                Compliance::Compliant => summary.compliant += 1,
                Compliance::NonCompliant => summary.non_compliant += 1,
                Compliance::Unknown => summary.unknown += 1,
                Compliance::NoBaseline => {}
            }
        }
        self.finish(id, verdict, operation, stranded);
    }

    fn finish(
        &mut self,
        id: DeviceId,
        verdict: Verdict,
        operation: Option<&'a OperationRow>,
        stranded: bool,
    ) {
        if let Some(slot) = self.verdicts.get_mut(id.index()) {
            *slot = verdict;
        }
        if stranded && let Some(operation) = operation.filter(|it| it.facts.outcome == Outcome::Pending) {
            self.stranded.push(operation);
        }
    }

    /// The part of a device's survey that needs its model and baseline. Returns whether an operation on it is stranded.
    fn firmware(
        &mut self,
        id: DeviceId,
        row: &'a DeviceRow,
        pool: u32,
        operation: Option<&'a OperationRow>,
        verdict: &mut Verdict,
        exceptions: &mut Exceptions,
    ) -> bool {
        let Some(patterns) = self.models.get(row.model.index()).copied().flatten() else {
            verdict.compliance = Compliance::Unknown;
            verdict.waiting = Some(WaitingOn::Model { model: row.model });
            *exceptions.unknown_models.entry(row.model).or_default() += 1;
            return true;
        };
        let group = match self.choose(pool, row.model) {
            Choice::None => return true,
            Choice::Conflict(first, second) => {
                verdict.compliance = Compliance::Unknown;
                verdict.waiting = Some(WaitingOn::BaselineConflict { first, second });
                return true;
            }
            Choice::Group(group) => group,
        };
        verdict.group = group;
        let Some(baseline_row) = self.groups.get(group as usize).map(|group| group.baseline_row) else {
            return true;
        };
        let baseline = self
            .baseline_index
            .get(baseline_row.name.index())
            .copied()
            .unwrap_or(NONE);
        let judged_at = self.judge(row, baseline_row);
        verdict.assessment = judged_at;
        let world = self.world;
        let wrong_model =
            row.identity != crate::world::IdentityMatch::NeverRead && !self.is_known_as(row, patterns);
        let Some(group) = self.groups.get_mut(group as usize) else {
            return true;
        };
        let judged = self.judged.get(judged_at as usize);
        let through = through(
            row,
            operation,
            world,
            group.revision_sym,
            judged.is_some_and(|it| it.needs_change),
        );
        let subject = Subject {
            row,
            judged,
            duplicate: self.duplicates.get(&id).copied(),
            dark: world.places().first_of(&self.dark, row.place),
            wrong_model,
            through,
            operation: operation.or_else(|| row.echo.then(|| world.echo(&row.name)).flatten()),
            revision: group.revision_sym,
        };
        verdict.compliance = subject.compliance();
        group.dark = group.dark.or(subject.dark);
        if let Some(summary) = self.baseline_summaries.get_mut(baseline as usize) {
            summary.devices += 1;
            summary.compliant += u32::from(verdict.compliance == Compliance::Compliant);
        }
        group.count(id, &row.name, &subject, verdict);
        false
    }

    /// Which baseline of a pool speaks of a model; asked once per pair.
    fn choose(&mut self, pool: u32, model: Sym) -> Choice {
        if let Some(&choice) = self.choices.get(&(pool, model)) {
            return choice;
        }
        let mut found: Vec<&'a BaselineRow> = Vec::new();
        let pool_row = self.pools.get(pool as usize).copied();
        for name in pool_row.map_or(&[][..], |row| &row.baselines) {
            let at = self.baseline_index.get(name.index()).copied().unwrap_or(NONE);
            if let Some(&row) = self.baselines.get(at as usize)
                && row.models.contains(&model)
                && found.iter().all(|other| other.name != row.name)
            {
                found.push(row);
            }
        }
        found.sort_by_key(|row| &row.facts.name);
        let choice = match (found.as_slice(), pool_row) {
            ([one], Some(pool_row)) => Choice::Group(self.group(pool, pool_row, one)),
            ([first, second, ..], Some(pool_row)) => {
                self.findings.push(Finding::BaselineConflict {
                    pool: pool_row.facts.name.clone(),
                    model: self.world.text(model).to_owned(),
                    baselines: found.iter().map(|row| row.facts.name.clone()).collect(),
                });
                Choice::Conflict(first.name, second.name)
            }
            _ => Choice::None,
        };
        self.choices.insert((pool, model), choice);
        choice
    }

    /// Makes sure that a pool and a baseline that are together have a group, though no device may need it. False: they
    /// are not together.
    pub(crate) fn ensure_group(&mut self, pool: &str, baseline: &str) -> bool {
        let at = self.pools.iter().position(|row| row.facts.name == pool);
        let Some((at, pool_row)) = at.and_then(|at| Some((at, *self.pools.get(at)?))) else {
            return false;
        };
        let Some(&baseline_row) = self.baselines.iter().find(|row| row.facts.name == baseline) else {
            return false;
        };
        if !pool_row.baselines.contains(&baseline_row.name) {
            return false;
        }
        self.group(u32::try_from(at).unwrap_or(NONE), pool_row, baseline_row);
        true
    }

    fn group(&mut self, pool: u32, pool_row: &'a PoolRow, baseline_row: &'a BaselineRow) -> u32 {
        let same =
            |group: &GroupSurvey<'_>| group.pool == pool && group.baseline_row.name == baseline_row.name;
        // Newest first: a pool's devices come mixed, yet a pool has few baselines.
        if let Some(at) = self.groups.iter().rposition(same) {
            return u32::try_from(at).unwrap_or(NONE);
        }
        let revision = crate::revision::of(&baseline_row.digest, pool_row.facts.retry);
        self.groups.push(GroupSurvey {
            pool,
            pool_row,
            baseline_row,
            revision_sym: self.world.sym(&revision),
            revision,
            done: 0,
            failed: 0,
            running: 0,
            remaining: 0,
            dark: None,
            failed_names: Vec::new(),
            ailing: Ailing::default(),
            lost_names: Vec::new(),
            candidates: Vec::new(),
            classes: Vec::new(),
            unstarted: Vec::new(),
        });
        u32::try_from(self.groups.len() - 1).unwrap_or(NONE)
    }

    /// Whether the model's patterns take what the BMC reports; asked once per pair.
    fn is_known_as(&mut self, row: &DeviceRow, patterns: &[String]) -> bool {
        let reported = self.world.text(row.reported);
        *self.known_as.entry((row.model, row.reported)).or_insert_with(|| {
            patterns
                .iter()
                .any(|pattern| crate::pattern::matches(pattern, reported))
        })
    }

    /// Compares a firmware vector with a baseline, once.
    fn judge(&mut self, row: &DeviceRow, baseline: &BaselineRow) -> u32 {
        if let Some(&at) = self.judged_index.get(&(row.firmware, baseline.name, row.model)) {
            return at;
        }
        let Some(rows) = self.world.firmware_rows(row.firmware) else {
            return NONE;
        };
        let text = |sym: Sym| self.world.text(sym);
        let readings: Vec<Reading<'_>> = rows
            .iter()
            .map(|row| Reading {
                class: row.class,
                name: text(row.name),
                manufacturer: text(row.manufacturer),
                model: text(row.model),
                version: text(row.version),
                staged: row.staged.map(text),
                updateable: row.updateable,
                lowest_supported: row.lowest_supported.map(text),
            })
            .collect();
        let assessment = assess_readings(&readings, &baseline.facts.components, self.world.policy());
        let mut signature: Vec<(usize, Sym)> = assessment
            .differences
            .iter()
            .filter_map(|it| Some((it.wanted, rows.get(it.component?)?.version)))
            .collect();
        signature.sort_unstable();
        signature.dedup();
        let next = u32::try_from(self.classes.len()).unwrap_or(NONE);
        let versions: Vec<(usize, &str)> = signature
            .iter()
            .map(|&(at, version)| (at, text(version)))
            .collect();
        let name = crate::revision::of_class(text(row.model), &versions);
        let class = *self
            .classes
            .entry((baseline.name, row.model, signature))
            .or_insert(next);
        if class == next {
            self.class_names.push(name);
        }
        let waiting = |it: &crate::compliance::Difference| waiting_on(it, rows, baseline);
        self.judged.push(Judged {
            needs_change: assessment.needs_change(),
            compliance: assessment.compliance,
            block: assessment.block().and_then(waiting),
            downgrade: assessment
                .differences
                .iter()
                .find(|it| it.kind == DifferenceKind::Downgrade)
                .and_then(waiting),
            class,
        });
        self.assessments.push(assessment);
        let at = u32::try_from(self.judged.len() - 1).unwrap_or(NONE);
        self.judged_index
            .insert((row.firmware, baseline.name, row.model), at);
        at
    }

    /// Digest of a class.
    pub(crate) fn class_name(&self, class: u32) -> &str {
        self.class_names.get(class as usize).map_or("", String::as_str)
    }

    /// What the judgement of a device's firmware is; None: there is none.
    pub(crate) fn judged_of(&self, device: DeviceId) -> Option<&Judged> {
        let verdict = self.verdicts.get(device.index())?;
        self.judged.get(verdict.assessment as usize)
    }

    pub(crate) fn needs_change(&self, device: DeviceId) -> bool {
        self.judged_of(device).is_some_and(|judged| judged.needs_change)
    }

    /// Operations that the pass over devices did not count: their device is gone, or serves another pool by now.
    fn count_stray_operations(&mut self) {
        for (device, operation) in self.world.operation_rows() {
            if operation.facts.outcome.is_final() {
                continue;
            }
            let row = self.world.id(device).and_then(|id| self.world.device_row(id));
            let counted = row.is_some_and(|row| row.pool == operation.pool);
            if !counted {
                let pool = self
                    .pool_index
                    .get(operation.pool.index())
                    .copied()
                    .unwrap_or(NONE);
                let serves = row.and_then(|row| self.pool_index.get(row.pool.index()).copied());
                self.budgets.count_in_pool(
                    self.world.places(),
                    pool as usize,
                    row.map(|row| row.place),
                    serves.map(|at| at as usize),
                );
                if let Some(summary) = self.pool_summaries.get_mut(pool as usize) {
                    summary.unavailable += 1;
                    summary.updating += 1;
                }
            }
            if row.is_none() {
                self.budgets.count_in_fleet(self.world.places(), None);
                self.findings.push(Finding::OperationOrphaned {
                    device: device.to_owned(),
                });
                if operation.facts.outcome == Outcome::Pending {
                    self.stranded.push(operation);
                }
            }
        }
    }

    /// What is known only when every device was seen: how many there are, and what was out of order.
    fn close(&mut self, exceptions: Exceptions) {
        self.budgets.set_allowed(self.world, &self.pools, self.fleet_size);
        for ((budget, summary), row) in self
            .budgets
            .pools
            .iter()
            .zip(&mut self.pool_summaries)
            .zip(&self.pools)
        {
            summary.allowed = budget.total.allowed;
            for name in &row.facts.baselines {
                let known = self.world.baseline(name).is_some();
                if !known && !summary.missing_baselines.contains(name) {
                    summary.missing_baselines.push(name.clone());
                    self.findings.push(Finding::BaselineNotFound {
                        pool: row.facts.name.clone(),
                        baseline: name.clone(),
                    });
                }
            }
        }
        for (summary, row) in self.baseline_summaries.iter_mut().zip(&self.baselines) {
            let missing = row
                .facts
                .models
                .iter()
                .filter(|name| self.world.model(name).is_none());
            summary.missing_models = missing.cloned().collect();
        }
        let text = |sym: Sym| self.world.text(sym).to_owned();
        for (pool, devices) in exceptions.unknown_pools {
            self.findings.push(Finding::PoolNotFound {
                pool: text(pool),
                devices,
            });
        }
        for (model, devices) in exceptions.unknown_models {
            self.findings.push(Finding::ModelNotFound {
                model: text(model),
                devices,
            });
        }
        for ((pool, kind), devices) in exceptions.no_domain {
            if let Some(row) = self.pools.get(pool as usize) {
                self.findings.push(Finding::FailureDomainMissing {
                    pool: row.facts.name.clone(),
                    domain: kind.as_str().to_owned(),
                    devices,
                });
            }
        }
    }
}

/// What is out of order, counted.
#[derive(Default)]
struct Exceptions {
    unknown_pools: BTreeMap<Sym, u32>,
    unknown_models: BTreeMap<Sym, u32>,
    no_domain: BTreeMap<(u32, FailureDomain), u32>,
}

impl<'a> GroupSurvey<'a> {
    /// Adds a device to its rollout's figures, and says what it waits on as far as it alone tells.
    fn count(&mut self, id: DeviceId, name: &'a str, subject: &Subject<'_>, verdict: &mut Verdict) {
        let needs_change = subject.needs_change();
        let active = subject.active();
        let mine = active.is_some_and(|operation| Some(operation.revision) == self.revision_sym);
        if mine {
            self.running += 1;
        } else {
            match subject.through {
                Some(Through::Done) => {
                    self.done += 1;
                    if self.ailing.count(subject.row) {
                        self.lost_names.push(name);
                    }
                }
                Some(Through::Failed | Through::Reverted) => {
                    self.failed += 1;
                    self.failed_names.push(name);
                }
                None => self.remaining += u32::from(needs_change),
            }
        }
        let refusal = if needs_change {
            subject.refusals().next()
        } else {
            subject.doubt()
        };
        if let Some(operation) = active.filter(|operation| operation.facts.outcome == Outcome::Pending) {
            self.unstarted.push(Unstarted {
                device: id,
                refusal: subject.refusals().find(|it| *it != WaitingOn::Operation),
                superseded: Some(operation.revision) != self.revision_sym
                    || operation.pool != self.pool_row.name,
                needed: needs_change,
            });
        }
        if mine {
            return;
        }
        verdict.waiting = refusal;
        if needs_change && let Some(judged) = subject.judged {
            let soon = refusal.is_some_and(WaitingOn::passes_by_itself);
            self.count_class(id, judged.class, soon);
        }
        if needs_change
            && refusal.is_none()
            && let Some(judged) = subject.judged
        {
            self.candidates.push(Candidate {
                device: id,
                class: judged.class,
            });
        }
    }
}

impl GroupSurvey<'_> {
    fn count_class(&mut self, device: DeviceId, class: u32, soon: bool) {
        // Newest first: neighbours by name are mostly alike, and a pool has few classes.
        match self.classes.iter_mut().rev().find(|it| it.class == class) {
            Some(known) => {
                known.devices += 1;
                known.soon |= soon;
            }
            None => self.classes.push(ClassSurvey {
                class,
                devices: 1,
                soon,
                first: device,
            }),
        }
    }
}

/// How a device came through the present revision, if it has.
pub(crate) fn through(
    row: &DeviceRow,
    operation: Option<&OperationRow>,
    world: &World,
    revision: Option<Sym>,
    needs_change: bool,
) -> Option<Through> {
    let revision = revision?;
    // An operation that has ended knows more than the device's status, which follows it.
    let echo = if row.echo { world.echo(&row.name) } else { None };
    let ended = operation.filter(|it| it.facts.outcome.is_final()).or(echo);
    if let Some(ended) = ended.filter(|it| it.revision == revision) {
        let failed = is_failure(ended.facts.outcome);
        return Some(if failed { Through::Failed } else { Through::Done });
    }
    let last = row.last.filter(|last| last.revision == revision)?;
    if is_failure(last.outcome) {
        return Some(Through::Failed);
    }
    if !needs_change {
        return Some(Through::Done);
    }
    let later = row
        .changed_s
        .is_some_and(|changed| changed >= last.finished_s.saturating_add(REVERT_WINDOW_S));
    if later { None } else { Some(Through::Reverted) }
}

/// A difference as what a device waits on.
fn waiting_on(
    difference: &crate::compliance::Difference,
    rows: &[crate::world::FirmwareRow],
    baseline: &BaselineRow,
) -> Option<WaitingOn> {
    let class = difference.class;
    let reading = difference.component.and_then(|at| rows.get(at));
    let component = reading.map_or(Sym::EMPTY, |row| row.name);
    let version = baseline
        .versions
        .get(difference.wanted)
        .copied()
        .unwrap_or_default();
    Some(match &difference.kind {
        DifferenceKind::Update { .. } => return None,
        DifferenceKind::Denied { .. } => WaitingOn::Denied { class, version },
        DifferenceKind::NoImage => WaitingOn::Image { class, version },
        DifferenceKind::NoPath { .. } => WaitingOn::Path {
            class,
            is: reading.map_or(Sym::EMPTY, |row| row.version),
            wanted: version,
        },
        DifferenceKind::NotUpdateable => WaitingOn::NotUpdateable { class, component },
        DifferenceKind::LowestSupported => WaitingOn::LowestSupported {
            class,
            version,
            lowest: reading.and_then(|row| row.lowest_supported).unwrap_or_default(),
        },
        DifferenceKind::Ambiguous => WaitingOn::Ambiguous { class, component },
        DifferenceKind::VersionUnknown => WaitingOn::VersionUnknown { class, component },
        DifferenceKind::NotFound => WaitingOn::ComponentNotFound { class },
        DifferenceKind::Downgrade => WaitingOn::Downgrade {
            class,
            is: reading.map_or(Sym::EMPTY, |row| row.version),
            wanted: version,
        },
    })
}

impl Subject<'_> {
    /// How the firmware stands, in the light of how well it is known.
    pub(crate) fn compliance(&self) -> Compliance {
        match self.judged {
            Some(judged) if self.row.reach == Reach::Reachable && self.row.fresh => judged.compliance,
            _ => Compliance::Unknown,
        }
    }
}
