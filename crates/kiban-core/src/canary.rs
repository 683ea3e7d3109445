//! Canaries: the first device of each class, which stand for all of it.
//!
//! Devices are of one class when they have the same model and run the same versions of what is to change. The first wave
//! lasts until every class has one device through well, even where the wave is smaller than the number of classes; and a
//! class that turns up later sends one ahead before its others. A class of which no device can move is left out, and
//! said ([`crate::finding::Finding::CanaryLeftOut`]): it must not stop the others for ever.
//!
//! A device that is through no longer tells of which class it was. So the rollout's status remembers who went first. It
//! is believed only as far as the devices bear it out: a status that is lost costs canaries, and no more.

use crate::{
    budget::{Ask, Budgets},
    facts::{CanaryFacts, RolloutStatus},
    finding::Finding,
    grant::Through,
    survey::{ClassSurvey, GroupSurvey, Survey, through},
    waiting::WaitingOn,
    world::{DomainId, World},
};
use hashbrown::HashMap;

/// Most classes of one rollout whose canaries are remembered; more are left out.
pub const CLASSES: usize = 100;

/// How the canaries of a rollout stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Canaries {
    /// Classes with one through well.
    pub(crate) done: u32,
    /// Classes that have, or can have, one.
    pub(crate) needed: u32,
    /// Those under way or through, as they are to be stored.
    pub(crate) known: Vec<CanaryFacts>,
    /// Classes, by the survey's number, that have one through well.
    pub(crate) represented: Vec<u32>,
    /// Classes that have none, to be tried first, in the order of their first device's name. Those that are left out are
    /// among them: the budgets refuse them, and say which.
    pub(crate) missing: Vec<u32>,
}

impl Canaries {
    /// Every class of some candidates has one through: where it is assumed that they go well.
    pub(crate) fn represented(candidates: &[crate::survey::Candidate]) -> Self {
        let mut represented: Vec<u32> = candidates.iter().map(|it| it.class).collect();
        represented.sort_unstable();
        represented.dedup();
        Self {
            represented,
            ..Self::default()
        }
    }

    /// Whether a device goes first of its class.
    pub(crate) fn includes(&self, device: &str) -> bool {
        self.known.iter().any(|it| it.device == device)
    }

    /// Whether some class has none through that could.
    pub(crate) fn are_awaited(&self) -> bool {
        self.done < self.needed
    }

    pub(crate) fn waiting(&self) -> WaitingOn {
        WaitingOn::Canary {
            done: self.done,
            // A class that is left out has none, and still sends one ahead when it can.
            needed: self.needed.max(self.done + 1),
        }
    }
}

/// How the canaries of a group stand; a class that is left out is a finding.
pub(crate) fn canaries(
    world: &World,
    survey: &Survey<'_>,
    group: &GroupSurvey<'_>,
    stored: Option<&RolloutStatus>,
    findings: &mut Vec<Finding>,
) -> Canaries {
    let mut canaries = Canaries::default();
    let mut of_class: HashMap<&str, bool> = HashMap::new();
    for entry in stored
        .map_or(&[][..], |status| &status.canaries)
        .iter()
        .take(CLASSES)
    {
        if of_class.contains_key(entry.class.as_str()) {
            continue;
        }
        if let Some(done) = standing(world, survey, group, &entry.device) {
            of_class.insert(&entry.class, done);
            canaries.known.push(entry.clone());
            canaries.needed += 1;
            canaries.done += u32::from(done);
        }
    }
    let mut place = Places {
        world,
        budgets: &survey.budgets,
        busy: HashMap::new(),
    };
    for class in &group.classes {
        match of_class.get(survey.class_name(class.class)) {
            Some(true) => canaries.represented.push(class.class),
            Some(false) => {}
            None if (canaries.needed as usize) < CLASSES && place.can_move(group, class) => {
                canaries.needed += 1;
                canaries.missing.push(class.class);
            }
            None if class.soon => canaries.needed += 1,
            None if group.candidates.is_empty() => {}
            None => {
                canaries.missing.push(class.class);
                findings.push(Finding::CanaryLeftOut {
                    pool: group.pool_row.facts.name.clone(),
                    baseline: group.baseline_row.facts.name.clone(),
                    devices: class.devices,
                    first: world.name(class.first).to_owned(),
                });
            }
        }
    }
    canaries
}

/// Whether a remembered canary is through well (true) or under way (false); None: neither.
fn standing(world: &World, survey: &Survey<'_>, group: &GroupSurvey<'_>, device: &str) -> Option<bool> {
    let id = world.id(device)?;
    let row = world.device_row(id)?;
    let operation = world.operation_row(device);
    if row.pool != group.pool_row.name {
        return None;
    }
    if operation.is_some_and(|it| !it.facts.outcome.is_final()) {
        return operation
            .filter(|it| Some(it.revision) == group.revision_sym)
            .map(|_| false);
    }
    let needs_change = survey.needs_change(id);
    (through(row, operation, world, group.revision_sym, needs_change) == Some(Through::Done)).then_some(true)
}

/// Whether classes have a device that can move, or will when an operation ends.
struct Places<'a> {
    world: &'a World,
    budgets: &'a Budgets,
    /// Whether some operation is under way in a domain.
    busy: HashMap<DomainId, bool>,
}

impl Places<'_> {
    fn can_move(&mut self, group: &GroupSurvey<'_>, class: &ClassSurvey) -> bool {
        let candidates = group.candidates.iter().filter(|it| it.class == class.class);
        for candidate in candidates {
            let Some(row) = self.world.device_row(candidate.device) else {
                continue;
            };
            let mut refusals = self.budgets.refusals(
                self.world.places(),
                group.pool as usize,
                candidate.device,
                row,
                Ask::OneMore,
            );
            let refusals: Vec<WaitingOn> = refusals.by_ref().filter(|it| it.is_of_its_place()).collect();
            if refusals.into_iter().all(|refusal| self.passes(refusal)) {
                return true;
            }
        }
        false
    }

    /// Whether what refuses the place is an operation, which ends; not a machine that a person must mend.
    fn passes(&mut self, refusal: WaitingOn) -> bool {
        let active = |device: &str| {
            let operation = self.world.operation(device);
            operation.is_some_and(|it| !it.outcome.is_final())
        };
        match refusal {
            WaitingOn::Domain { domain, .. } | WaitingOn::FleetDomain { domain, .. } => {
                let world = self.world;
                *self.busy.entry(domain).or_insert_with(|| {
                    let mut operations = world.operations().filter(|it| !it.outcome.is_final());
                    operations.any(|it| world.device(&it.device).is_some_and(|it| it.is_in(domain)))
                })
            }
            WaitingOn::RedundancyGroup { other, .. } => active(self.world.name(other)),
            _ => true,
        }
    }
}
