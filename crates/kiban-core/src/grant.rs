//! Grant: the one gate. Every safety rule is here, and what it refuses it refuses with a [`WaitingOn`].
//!
//! ```text
//!   candidate ──the device's own rules──▶ the rollout's (pause, halt, soak, wave) ──▶ budgets ──▶ operation
//! ```
//!
//! The rules that a person must mend come first, so that the reason shown is the one that would still be there after
//! those that pass by themselves.

use crate::{
    budget::{Ask, Budgets},
    canary::Canaries,
    facts::{Health, Reach},
    survey::{Candidate, Judged},
    waiting::WaitingOn,
    wave::WaveState,
    world::{DeviceId, DeviceRow, DomainId, FirmwareSet, IdentityMatch, OperationRow, Sym, World},
};
use hashbrown::HashMap;
use std::{cmp::Reverse, collections::BinaryHeap};

/// How a device came through the present revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Through {
    Done,
    Failed,
    /// Done, and soon after not as wanted again.
    Reverted,
}

/// A device before the gate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) row: &'a DeviceRow,
    /// None: never read.
    pub(crate) judged: Option<&'a Judged>,
    pub(crate) duplicate: Option<DeviceId>,
    /// The room or site in which it stands, where that is dark.
    pub(crate) dark: Option<DomainId>,
    pub(crate) wrong_model: bool,
    pub(crate) through: Option<Through>,
    pub(crate) operation: Option<&'a OperationRow>,
    pub(crate) revision: Option<Sym>,
}

impl<'a> Subject<'a> {
    /// The operation on it that has not ended.
    pub(crate) fn active(&self) -> Option<&'a OperationRow> {
        self.operation
            .filter(|operation| !operation.facts.outcome.is_final())
    }

    pub(crate) fn needs_change(&self) -> bool {
        self.judged.is_some_and(|judged| judged.needs_change)
    }

    /// Why nothing may be changed on it now, as far as the device alone tells; the first is what it waits on.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = WaitingOn> + use<> {
        let row = self.row;
        let ended = self
            .operation
            .is_some_and(|operation| operation.facts.outcome.is_final());
        let other = self
            .active()
            .is_some_and(|operation| Some(operation.revision) != self.revision);
        [
            self.duplicate.map(|other| WaitingOn::Duplicate { other }),
            row.hold.map(|reason| WaitingOn::Held { reason }),
            (row.identity == IdentityMatch::Other).then_some(WaitingOn::WrongMachine),
            self.wrong_model.then_some(WaitingOn::WrongModel {
                reported: row.reported,
            }),
            self.dark.map(|domain| WaitingOn::Dark { domain }),
            (row.reach == Reach::Unreachable).then_some(WaitingOn::Unreachable),
            self.is_never_read().then_some(WaitingOn::NeverRead),
            (row.health == Health::Critical).then_some(WaitingOn::Unhealthy),
            (!row.fresh).then_some(WaitingOn::Stale),
            self.judged.and_then(|judged| judged.block),
            other.then_some(WaitingOn::Operation),
            ended.then_some(WaitingOn::Ledger),
            (self.through == Some(Through::Failed)).then_some(WaitingOn::Failed),
            (self.through == Some(Through::Reverted)).then_some(WaitingOn::Reverted),
        ]
        .into_iter()
        .flatten()
    }

    fn is_never_read(&self) -> bool {
        let row = self.row;
        row.firmware == FirmwareSet::NEVER_READ
            || row.reach == Reach::NeverRead
            || row.identity == IdentityMatch::NeverRead
    }

    /// For a device that needs no change as far as is known: why that is not known better, or is not the whole truth.
    pub(crate) fn doubt(&self) -> Option<WaitingOn> {
        let doubts = |waiting: &WaitingOn| {
            matches!(
                waiting,
                WaitingOn::Duplicate { .. }
                    | WaitingOn::WrongMachine
                    | WaitingOn::WrongModel { .. }
                    | WaitingOn::Unreachable
                    | WaitingOn::NeverRead
                    | WaitingOn::Stale
            )
        };
        let judged = self.judged;
        self.refusals()
            .find(doubts)
            .or_else(|| judged.and_then(|judged| judged.block.or(judged.downgrade)))
    }
}

/// What a rollout lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RolloutGate {
    pub(crate) paused: bool,
    /// Failed, and the limit, when it halted.
    pub(crate) halted: Option<(u32, u32)>,
    /// A dark room or site in which it has devices: it goes on when that answers again.
    pub(crate) dark: Option<DomainId>,
    pub(crate) wave: WaveState,
    /// Set while the present wave is not approved.
    pub(crate) unapproved: Option<WaitingOn>,
    /// The first gate of the present wave that is closed.
    pub(crate) closed: Option<WaitingOn>,
    /// Devices that the change concerns.
    pub(crate) total: u32,
    /// How many more the present wave lets begin.
    pub(crate) room: u32,
    /// Classes that have a canary through, and that can have one.
    pub(crate) canaries: (u32, u32),
    /// Classes whose canary has not begun: in the first wave it may, beyond what the wave reaches.
    pub(crate) firsts: u32,
}

impl RolloutGate {
    /// Why the rollout lets nothing more begin, every reason.
    pub(crate) fn refusals(&self) -> impl Iterator<Item = WaitingOn> + use<> {
        let soak = self.wave.soak_until.map(|until| WaitingOn::Soak {
            wave: self.wave.wave,
            until_s: until.as_second(),
        });
        [
            self.paused.then_some(WaitingOn::Paused),
            self.halted
                .map(|(failed, limit)| WaitingOn::Halted { failed, limit }),
            self.dark.map(|domain| WaitingOn::Dark { domain }),
            // While the wave soaks there is nothing to open, and the soak is what is waited on.
            self.unapproved.filter(|_| soak.is_none()),
            self.closed.filter(|_| soak.is_none()),
            (self.room == 0 && !self.lets_canaries_begin()).then_some(soak.unwrap_or(self.wave_refusal())),
        ]
        .into_iter()
        .flatten()
    }

    /// Whether the canaries that are missing may begin whatever the wave reaches.
    fn lets_canaries_begin(&self) -> bool {
        self.wave.wave == 1 && self.firsts > 0
    }

    pub(crate) fn wave_refusal(&self) -> WaitingOn {
        let (done, needed) = self.canaries;
        if self.wave.wave == 1 && done < needed && needed > self.wave.reach {
            return WaitingOn::Canary { done, needed };
        }
        // Nobody writes 65,535 waves; the schema takes far fewer.
        let short = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
        WaitingOn::Wave {
            wave: short(self.wave.wave),
            waves: short(self.wave.waves),
            reach: self.wave.reach,
            total: self.total,
        }
    }
}

/// A rollout before the gate, with its candidates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entrant<'a> {
    pub(crate) gate: RolloutGate,
    /// Index of its pool.
    pub(crate) pool: usize,
    /// Who is served first: the larger.
    pub(crate) priority: i32,
    pub(crate) candidates: &'a [Candidate],
    pub(crate) canaries: &'a Canaries,
    /// Devices that had or have their operation.
    pub(crate) through: u32,
}

/// What came of one candidate of the rollout of that index.
pub(crate) type Decision = (usize, DeviceId, Result<(), WaitingOn>);

/// Lets candidates through, as far as their rollouts' waves and the budgets allow; the budgets are used up on the way.
///
/// Where rollouts share a budget, one device at a time is let through: of the pool of the highest priority, then of the
/// one that has the least share of its devices unavailable, then in the order of the entrants.
pub(crate) fn grant(world: &World, entrants: &[Entrant<'_>], budgets: &mut Budgets) -> Vec<Decision> {
    let mut decisions = Vec::new();
    let mut turns = BinaryHeap::new();
    let mut open: Vec<Turn<'_>> = Vec::new();
    for (at, entrant) in entrants.iter().enumerate() {
        if let Some(refusal) = entrant.gate.refusals().next() {
            let refused = entrant.candidates.iter().map(|it| (at, it.device, Err(refusal)));
            decisions.extend(refused);
            continue;
        }
        let rack = |device| {
            world
                .device_row(device)
                .map_or(DomainId::default(), |row| world.places().rack_of(row.place))
        };
        turns.push(Reverse((
            Reverse(entrant.priority),
            budgets.share_used(entrant.pool),
            open.len(),
        )));
        open.push(Turn {
            at,
            entrant: *entrant,
            room: entrant.gate.room,
            missing: entrant.canaries.missing.iter().rev().copied().collect(),
            queue: Queue::of(entrant.candidates, entrant.through, rack),
        });
    }
    while let Some(Reverse((priority, _, number))) = turns.pop() {
        let Some(turn) = open.get_mut(number) else {
            continue;
        };
        if turn.next(world, budgets, &mut decisions) {
            turns.push(Reverse((priority, budgets.share_used(turn.entrant.pool), number)));
        }
    }
    for turn in &open {
        let refused = turn
            .queue
            .rest()
            .map(|it| (turn.at, it.device, Err(turn.refusal(it.class))));
        decisions.extend(refused);
    }
    decisions
}

/// A rollout that may let devices begin.
struct Turn<'a> {
    at: usize,
    entrant: Entrant<'a>,
    /// How many more its wave lets begin.
    room: u32,
    /// Classes whose canary is to begin, the first one last.
    missing: Vec<u32>,
    queue: Queue<'a>,
}

impl Turn<'_> {
    /// Lets the next device through that can be: canaries first. False: there is none.
    fn next(&mut self, world: &World, budgets: &mut Budgets, decisions: &mut Vec<Decision>) -> bool {
        while let Some(&class) = self.missing.last() {
            if self.room == 0 && !self.is_first_wave() {
                break;
            }
            match self.queue.next_of(class) {
                Some(device) => match self.decide(world, budgets, device, decisions) {
                    Some(refusal) if refusal.is_of_its_place() => {}
                    Some(_) => {
                        self.missing.pop();
                    }
                    None => {
                        self.missing.pop();
                        return true;
                    }
                },
                None => {
                    self.missing.pop();
                }
            }
        }
        while self.room > 0
            && let Some(device) = self.next_in_wave()
        {
            if self.decide(world, budgets, device, decisions).is_none() {
                return true;
            }
        }
        false
    }

    /// Lets a device through, or says why not; its place in the wave goes to another one where only its own place is full.
    fn decide(
        &mut self,
        world: &World,
        budgets: &mut Budgets,
        device: DeviceId,
        decisions: &mut Vec<Decision>,
    ) -> Option<WaitingOn> {
        let row = world.device_row(device)?;
        let pool = self.entrant.pool;
        let refusal = budgets
            .refusals(world.places(), pool, device, row, Ask::OneMore)
            .next();
        if !refusal.is_some_and(WaitingOn::is_of_its_place) {
            self.room = self.room.saturating_sub(1);
        }
        if refusal.is_none() {
            budgets.count(world.places(), pool, device, row);
        }
        decisions.push((self.at, device, refusal.map_or(Ok(()), Err)));
        refusal
    }

    fn is_first_wave(&self) -> bool {
        self.entrant.gate.wave.wave == 1
    }

    /// The next in turn. After the first wave a class without a canary through sends nobody but that one.
    fn next_in_wave(&mut self) -> Option<DeviceId> {
        let (first_wave, canaries) = (self.is_first_wave(), self.entrant.canaries);
        self.queue
            .next_where(|class| first_wave || canaries.represented.contains(&class))
    }

    /// Why a device of a class that was not reached waits.
    fn refusal(&self, class: u32) -> WaitingOn {
        let in_turn = self.is_first_wave() || self.missing.contains(&class);
        if in_turn || self.entrant.canaries.represented.contains(&class) {
            self.entrant.gate.wave_refusal()
        } else {
            self.entrant.canaries.waiting()
        }
    }
}

/// A candidate in its class: the round of its rack, then its index; the smallest first.
type Place = Reverse<(u32, u32)>;

/// The order in which candidates (by name) are let through: in rounds over the classes, so that the first few stand
/// for all of them; within a class in rounds over the racks; then by name.
///
/// The class that begins a round moves on with every device that is through, so that a budget of one at a time still
/// visits every class. Classes are in the order of their first device's name, which does not depend on the numbers
/// that the world gave them. Heaps, since a wave takes a few of many thousands.
struct Queue<'a> {
    candidates: &'a [Candidate],
    /// Per class: its number, and round of the rack, then index in `candidates`.
    classes: Vec<(u32, BinaryHeap<Place>)>,
    turn: usize,
}

impl<'a> Queue<'a> {
    fn of(candidates: &'a [Candidate], through: u32, rack: impl Fn(DeviceId) -> DomainId) -> Self {
        let mut numbers: HashMap<u32, usize> = HashMap::new();
        let mut in_rack: HashMap<(u32, DomainId), u32> = HashMap::new();
        let mut classes: Vec<(u32, Vec<Place>)> = Vec::new();
        for (at, candidate) in (0_u32..).zip(candidates) {
            let number = *numbers.entry(candidate.class).or_insert(classes.len());
            if number == classes.len() {
                classes.push((candidate.class, Vec::new()));
            }
            let round = in_rack
                .entry((candidate.class, rack(candidate.device)))
                .or_default();
            if let Some((_, class)) = classes.get_mut(number) {
                class.push(Reverse((*round, at)));
            }
            *round += 1;
        }
        Self {
            candidates,
            turn: (through as usize).checked_rem(classes.len()).unwrap_or(0),
            classes: classes
                .into_iter()
                .map(|(class, list)| (class, BinaryHeap::from(list)))
                .collect(),
        }
    }

    /// Those that are left, in no order.
    fn rest(&self) -> impl Iterator<Item = &Candidate> {
        let left = self.classes.iter().flat_map(|(_, class)| class.iter());
        left.filter_map(|Reverse((_, at))| self.candidates.get(*at as usize))
    }

    /// The next of one class, out of turn.
    fn next_of(&mut self, class: u32) -> Option<DeviceId> {
        let (_, heap) = self.classes.iter_mut().find(|(number, _)| *number == class)?;
        let Reverse((_, at)) = heap.pop()?;
        self.candidates.get(at as usize).map(|candidate| candidate.device)
    }

    /// The next in turn, of the classes that may.
    fn next_where(&mut self, may: impl Fn(u32) -> bool) -> Option<DeviceId> {
        for _ in 0..self.classes.len() {
            let class = self.classes.get_mut(self.turn);
            let first = class
                .filter(|(class, _)| may(*class))
                .and_then(|(_, heap)| heap.pop());
            self.turn = (self.turn + 1) % self.classes.len();
            if let Some(Reverse((_, at))) = first {
                return self.candidates.get(at as usize).map(|candidate| candidate.device);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(candidates: &[(u32, u32)], through: u32) -> Vec<usize> {
        let list: Vec<Candidate> = (0..)
            .zip(candidates)
            .map(|(at, &(class, _))| Candidate {
                device: DeviceId(at),
                class,
            })
            .collect();
        let mut queue = Queue::of(&list, through, |device| DomainId(candidates[device.index()].1));
        std::iter::from_fn(|| queue.next_where(|_| true))
            .map(DeviceId::index)
            .collect()
    }

    #[test]
    fn the_first_few_stand_for_every_class_then_for_every_rack() {
        // Class 7 in racks 1, 1, 2; class 3 in rack 1.
        let candidates = [(7, 1), (7, 1), (7, 2), (3, 1)];
        assert_eq!(ordered(&candidates, 0), [0, 3, 2, 1]);
    }

    #[test]
    fn one_at_a_time_still_visits_every_class() {
        let candidates = [(7, 1), (7, 1), (3, 1), (3, 1)];
        assert_eq!(ordered(&candidates, 0)[0], 0);
        assert_eq!(ordered(&candidates[1..], 1)[0], 1, "the class whose turn it is");
    }

    #[test]
    fn the_numbers_of_classes_do_not_matter() {
        assert_eq!(
            ordered(&[(1, 1), (2, 1), (1, 2)], 0),
            ordered(&[(9, 5), (4, 5), (9, 1)], 0)
        );
    }
}
