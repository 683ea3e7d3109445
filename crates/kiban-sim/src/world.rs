//! The seeded world: the real planner and the real step machine over a fleet, an API server and a ledger that are plain
//! state, with a clock and a chance of its own.
//!
//! ```text
//!   seed ──▶ story (commits, pauses, dark rooms, faults) ──▶ events by virtual time
//!   processes: leases ▸ plan(&world, now) ▸ advance(…) ──call──▶ fault? ──▶ Api │ Machine │ ledger ──▶ oracle: still true?
//! ```
//!
//! - Everything that decides is `kiban_core`'s: [`kiban_core::plan`], [`kiban_core::check`], `operation::advance`,
//!   `State::recover`, `lease::decide`, `shard::of`. What is modelled here is what the operator's shell does between
//!   them: which call follows which, with what precondition, and what is done about an answer that never came.
//! - Every call passes a place where its process may die before or after it, freeze, or hear an error though it was done.
//! - After each event the oracle judges by what is stored and by what the machines really do (`world/oracle.rs` says what
//!   exactly).
//! - After a while faults stop, a person mends what only a person may, and then: every machine runs what is wanted, the
//!   ledger tells every operation once, and nothing is written any more.
//! - The same seed gives the same trace, to the byte.

mod api;
mod call;
mod drive;
mod lead;
mod machine;
mod oracle;
mod process;
mod rng;
mod story;
#[cfg(test)]
mod tests;

use api::{Api, DEVICES, KINDS};
use call::{Fault, Reply, Request, Seen, Who};
use jiff::Timestamp;
use kiban_core::operation::{EffectKind, Observation};
use machine::{Habit, Machine};
use oracle::Oracle;
pub use oracle::Violation;
use process::Process;
use rng::Rng;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
};

/// When the world begins, in milliseconds since 1970: 1 November 2026.
const BASE: i64 = 1_793_491_200_000;
/// Lines of the trace that a failure shows.
const LAST_LINES: usize = 40;
/// Events after which a world is taken to run in circles.
const MOST_EVENTS: u64 = 40_000_000;

/// How long one call to the API server may take.
const API_DEADLINE: i64 = 8_000;

/// What to play.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What everything follows from.
    pub seed: u64,
    /// How many machines.
    pub devices: u32,
    /// Keep every line of the trace instead of the last few.
    pub trace: bool,
}

/// A rule that is broken on purpose, to see that the oracle notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sabotage {
    /// After a crash, an intent without an outcome is forgotten, and so sent again.
    SendsAgain,
    /// A planner reads every pool's budgets as if they had no bounds.
    ForgetsBudgets,
    /// The ledger's holder releases what it has not pushed.
    ReleasesUnpushed,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Events that happened.
    pub steps: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Operations begun.
    pub operations: u64,
    /// Updates that a BMC accepted.
    pub flashes: u64,
    /// Operations that ended as held.
    pub held: u64,
    /// The fullest that a pool's budget was: disrupted, and allowed.
    pub worst_budget: (u32, u32),
    /// How long it was, by its own clock, in seconds.
    pub virtual_seconds: i64,
    /// Digest of the whole trace.
    pub digest: u64,
    /// The rule that was broken, if one was.
    pub violation: Option<Violation>,
    /// The last lines of the trace, or all of them.
    pub trace: Vec<String>,
}

/// Plays one world to its end, or to the first rule that is broken.
#[must_use]
pub fn play(options: Options) -> Report {
    Sim::new(options, None).run()
}

fn at(now: i64) -> Timestamp {
    Timestamp::from_millisecond(BASE + now).unwrap_or(Timestamp::MAX)
}

fn millis(at: Timestamp) -> i64 {
    at.as_millisecond() - BASE
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A call on its way.
struct Call {
    process: usize,
    life: u64,
    who: Who,
    token: u64,
    request: Request,
    /// How long after its arrival the answer comes. None: nobody hears it.
    answer: Option<i64>,
    /// An error comes back instead of the answer.
    masked: bool,
    refused: bool,
}

enum Event {
    Wake {
        process: usize,
        life: u64,
        who: Who,
        token: u64,
    },
    Answer {
        process: usize,
        life: u64,
        who: Who,
        token: u64,
        reply: Box<Reply>,
    },
    Arrive(Box<Call>),
    Deliver {
        process: usize,
        life: u64,
        kind: usize,
        upto: usize,
    },
    Revive {
        process: usize,
    },
    Story(story::Turn),
}

struct Sim {
    options: Options,
    sabotage: Option<Sabotage>,
    rng: Rng,
    now: i64,
    queue: BinaryHeap<Reverse<(i64, u64)>>,
    events: BTreeMap<u64, Event>,
    next: u64,
    steps: u64,
    api: Api,
    machines: BTreeMap<String, Machine>,
    processes: Vec<Process>,
    oracle: Oracle,
    story: story::Story,
    faults: BTreeMap<&'static str, u64>,
    /// Whether faults may still happen.
    stormy: bool,
    over: bool,
    digest: u64,
    trace: VecDeque<String>,
    told: [usize; KINDS],
}

impl Sim {
    fn new(options: Options, sabotage: Option<Sabotage>) -> Self {
        let mut sim = Self {
            options,
            sabotage,
            rng: Rng::new(options.seed),
            now: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next: 0,
            steps: 0,
            api: Api::default(),
            machines: BTreeMap::new(),
            processes: Vec::new(),
            oracle: Oracle::default(),
            story: story::Story::default(),
            faults: BTreeMap::new(),
            stormy: true,
            over: false,
            digest: 0xcbf2_9ce4_8422_2325,
            trace: VecDeque::new(),
            told: [0; KINDS],
        };
        sim.set_the_stage();
        for process in 0..3 {
            sim.processes.push(Process::default());
            sim.push(0, Event::Revive { process });
        }
        sim
    }

    fn run(mut self) -> Report {
        while let Some(Reverse((time, number))) = self.queue.pop() {
            let Some(event) = self.events.remove(&number) else {
                continue;
            };
            self.now = self.now.max(time);
            self.steps += 1;
            self.happen(event);
            self.tell_watches();
            if self.steps > MOST_EVENTS {
                self.oracle.fail("NoEnd", format!("after {} s", self.now / 1000));
            }
            if self.over || self.oracle.violation.is_some() {
                break;
            }
        }
        Report {
            seed: self.options.seed,
            steps: self.steps,
            faults: self.faults,
            operations: self.oracle.begun_count,
            flashes: self.oracle.flashes,
            held: self.oracle.held,
            worst_budget: self.oracle.worst,
            virtual_seconds: self.now / 1000,
            digest: self.digest,
            violation: self.oracle.violation,
            trace: self.trace.into(),
        }
    }

    fn push(&mut self, delay: i64, event: Event) {
        self.next += 1;
        self.queue.push(Reverse((self.now + delay.max(0), self.next)));
        self.events.insert(self.next, event);
    }

    /// Enters a line into the trace and its digest.
    fn note(&mut self, line: String) {
        let line = format!("{:>9}.{:03} {line}", self.now / 1000, self.now % 1000);
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if !self.options.trace && self.trace.len() >= LAST_LINES {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }

    fn happen(&mut self, event: Event) {
        let addressed = match &event {
            Event::Wake { process, life, .. }
            | Event::Answer { process, life, .. }
            | Event::Deliver { process, life, .. } => Some((*process, *life)),
            _ => None,
        };
        if let Some((process, life)) = addressed {
            let Some(there) = self.processes.get(process) else {
                return;
            };
            if !there.alive || there.life != life {
                return;
            }
            if there.frozen_until > self.now {
                let delay = there.frozen_until - self.now;
                return self.push(delay, event);
            }
        }
        match event {
            Event::Wake {
                process, who, token, ..
            } => self.answered(process, who, token, None),
            Event::Answer {
                process,
                who,
                token,
                reply,
                ..
            } => self.answered(process, who, token, Some(*reply)),
            Event::Arrive(call) => self.arrive(*call),
            Event::Deliver {
                process, kind, upto, ..
            } => self.deliver(process, kind, upto),
            Event::Revive { process } => self.revive(process),
            Event::Story(turn) => self.turn(turn),
        }
    }

    fn answered(&mut self, process: usize, who: Who, token: u64, reply: Option<Reply>) {
        let Some(there) = self.processes.get_mut(process) else {
            return;
        };
        if there.pending.get(&who) != Some(&token) {
            return;
        }
        there.pending.remove(&who);
        match who {
            Who::Lease(lease) => self.lease(process, lease, reply),
            Who::Planner => self.plan(process, reply),
            Who::Ledger => self.ledger(process, reply),
            Who::Start => self.start(process, reply),
            Who::Drive(device) => self.drive(process, &device, reply),
            Who::Observe(device) => self.observe(process, &device, reply),
        }
    }

    fn token(&mut self, process: usize, who: &Who) -> Option<(u64, u64)> {
        self.next += 1;
        let token = self.next;
        let there = self.processes.get_mut(process)?;
        there.pending.insert(who.clone(), token);
        Some((there.life, token))
    }

    /// Comes back to this after a while.
    fn wake(&mut self, process: usize, who: Who, delay: i64) {
        if let Some((life, token)) = self.token(process, &who) {
            self.push(
                delay,
                Event::Wake {
                    process,
                    life,
                    who,
                    token,
                },
            );
        }
    }

    /// Sends a call on its way, unless something befalls it.
    fn call(&mut self, process: usize, who: Who, request: Request, limit: i64) {
        let Some((life, token)) = self.token(process, &who) else {
            return;
        };
        let fault = if self.stormy {
            Fault::draw(&request, &mut self.rng)
        } else {
            None
        };
        let (there, back) = self.latency(&request, limit);
        if !request.is_lease() {
            let fault = fault.map_or("", Fault::as_str);
            self.note(format!("p{process} {who:?} {} {fault}", request.name()));
        }
        if let Some(fault) = fault {
            *self.faults.entry(fault.as_str()).or_default() += 1;
        }
        let mut call = Call {
            process,
            life,
            who,
            token,
            request,
            answer: Some(back),
            masked: false,
            refused: false,
        };
        match fault {
            None => self.push(there, Event::Arrive(Box::new(call))),
            Some(Fault::DieBefore) => self.kill(process),
            Some(Fault::DieAfter) => {
                call.answer = None;
                self.push(there, Event::Arrive(Box::new(call)));
                self.kill(process);
            }
            Some(Fault::ErrorDone) => {
                call.masked = true;
                call.answer = Some((limit - there).max(0));
                self.push(there, Event::Arrive(Box::new(call)));
            }
            Some(Fault::ErrorNothing) => {
                // Whoever asked cannot tell this from the one before, unless the connection was refused.
                let may_have_happened = self.rng.chance(500_000);
                let reply = Box::new(Reply::Failed { may_have_happened });
                let delay = if may_have_happened { limit } else { there };
                let Call {
                    process,
                    life,
                    who,
                    token,
                    ..
                } = call;
                self.push(
                    delay,
                    Event::Answer {
                        process,
                        life,
                        who,
                        token,
                        reply,
                    },
                );
            }
            Some(Fault::StallAfter) => {
                self.push(there, Event::Arrive(Box::new(call)));
                self.freeze(process);
            }
            Some(Fault::StallBefore) => {
                let frozen = self.freeze(process);
                self.push(frozen + there, Event::Arrive(Box::new(call)));
            }
            Some(Fault::Refused) => {
                call.refused = true;
                self.push(there, Event::Arrive(Box::new(call)));
            }
        }
    }

    fn latency(&mut self, request: &Request, limit: i64) -> (i64, i64) {
        let (there, back) = match request {
            Request::Bmc {
                effect: EffectKind::Send { .. },
                ..
            } => (self.rng.range(5_000, 60_000), 500),
            Request::Bmc { .. } => (self.rng.range(50, 1_500), 100),
            Request::Read { .. } => (self.rng.range(500, 5_000), 100),
            Request::Push(_) => (self.rng.range(200, 3_000), 100),
            _ => (self.rng.range(1, 40), self.rng.range(1, 40)),
        };
        (there.min(limit), back)
    }

    fn freeze(&mut self, process: usize) -> i64 {
        let time = self.rng.range(2_000, 150_000);
        if let Some(there) = self.processes.get_mut(process) {
            there.frozen_until = self.now + time;
        }
        time
    }

    fn kill(&mut self, process: usize) {
        if let Some(there) = self.processes.get_mut(process) {
            *there = Process {
                life: there.life,
                ..Process::default()
            };
        }
        self.note(format!("p{process} is dead"));
        let delay = self.rng.range(1_000, 90_000);
        self.push(delay, Event::Revive { process });
    }

    /// A call reaches the other side.
    fn arrive(&mut self, call: Call) {
        let Call {
            process,
            life,
            who,
            token,
            request,
            answer,
            masked,
            refused,
        } = call;
        let changes = request.changes_machine();
        let reply = self.effect(request, refused);
        let Some(delay) = answer else { return };
        let reply = match reply {
            Reply::Seen(_) if masked => Reply::Seen(machine::silent(changes)),
            _ if masked => Reply::Failed {
                may_have_happened: true,
            },
            reply => reply,
        };
        self.push(
            delay,
            Event::Answer {
                process,
                life,
                who,
                token,
                reply: Box::new(reply),
            },
        );
    }

    /// What the other side does.
    fn effect(&mut self, request: Request, refused: bool) -> Reply {
        match request {
            Request::Bmc {
                device,
                uid,
                effect: EffectKind::Send { update, attempt },
            } => Reply::Seen(self.receive(&device, uid, update, attempt, refused)),
            Request::Bmc { device, effect, .. } => Reply::Seen(self.ask(&device, &effect)),
            Request::Read { device } => {
                let now = self.now;
                let machine = self.machines.get_mut(&device);
                let seen = machine.and_then(|machine| {
                    let reading = machine.read(now)?;
                    let impostor = now < machine.impostor_until;
                    Some(Box::new(Seen {
                        reading,
                        critical: machine.critical,
                        impostor,
                    }))
                });
                Reply::Reading(seen)
            }
            Request::Push(records) => {
                let ledger = &mut self.api.ledger;
                self.oracle.pushed(ledger, records);
                Reply::Done
            }
            request => self.store(request),
        }
    }

    fn ask(&mut self, device: &str, effect: &EffectKind) -> Observation {
        let Some(machine) = self.machines.get_mut(device) else {
            return machine::silent(false);
        };
        machine.tick(self.now);
        if let EffectKind::Reset { kind } = effect
            && machine.answers(self.now)
        {
            self.note(format!("{device} is reset: {}", kind.as_str()));
            if self.machines.get(device).is_some_and(Machine::is_writing) {
                self.oracle.fail("ResetWhileWriting", device.to_owned());
            }
        }
        self.machines
            .get_mut(device)
            .map_or_else(|| machine::silent(false), |it| it.answer(effect, self.now))
    }

    /// An image reaches a BMC.
    fn receive(&mut self, device: &str, uid: u64, update: usize, attempt: u32, refused: bool) -> Observation {
        let operation = self.api.operation(device).filter(|it| it.uid == uid).cloned();
        self.oracle
            .sent(operation.as_ref(), device, uid, update, attempt, self.now);
        let Some(machine) = self
            .machines
            .get_mut(device)
            .filter(|machine| machine.answers(self.now))
        else {
            return machine::silent(false);
        };
        if self.now < machine.impostor_until {
            return Observation::WrongMachine {
                message: "another machine answers".into(),
            };
        }
        let sent = (uid, update, attempt);
        if refused {
            self.oracle.accepted(operation.as_ref(), sent, true, false);
            return machine::failure(kiban_core::operation::FailureClass::Busy, false, "busy");
        }
        let planned = operation.as_ref().and_then(|it| it.spec.updates.get(update));
        let Some((class, to)) = planned.map(|planned| (planned.class, planned.to.clone())) else {
            return machine::silent(true);
        };
        let harmful = self.stormy && self.rng.chance(120_000);
        let habits: &[Habit] = if harmful {
            &Habit::HARMFUL
        } else {
            &Habit::HARMLESS
        };
        let habit = self.rng.pick(habits).unwrap_or(Habit::Plain);
        let place = machine::CLASSES.iter().position(|it| *it == class).unwrap_or(0);
        let accepted = machine.accept(place, &to, habit, self.now, &mut self.rng);
        self.note(format!(
            "{device} takes {class} {to} in, attempt {attempt}, {habit:?}"
        ));
        if harmful {
            *self.faults.entry("BMC misbehaves").or_default() += 1;
        }
        self.oracle
            .accepted(operation.as_ref(), sent, false, accepted.over_another);
        accepted.answer
    }

    /// Sends what changed to whoever watches, each kind with a delay of its own.
    fn tell_watches(&mut self) {
        for kind in 0..KINDS {
            let upto = self.api.watches.get(kind).map_or(0, Vec::len);
            let Some(told) = self.told.get_mut(kind).filter(|told| **told < upto) else {
                continue;
            };
            let new = *told;
            *told = upto;
            if kind == DEVICES {
                self.look_at_devices(new);
            }
            for process in 0..self.processes.len() {
                let slow = self.stormy && self.rng.chance(8_000);
                let delay = if slow {
                    self.rng.range(2_000, 20_000)
                } else {
                    self.rng.range(1, 300)
                };
                let Some(life) = self
                    .processes
                    .get(process)
                    .filter(|it| it.alive)
                    .map(|it| it.life)
                else {
                    continue;
                };
                self.push(
                    delay,
                    Event::Deliver {
                        process,
                        life,
                        kind,
                        upto,
                    },
                );
            }
        }
    }

    fn look_at_devices(&mut self, from: usize) {
        for change in self.api.watches.get(DEVICES).into_iter().flatten().skip(from) {
            if let Some(api::Object::Device(device)) = change.object.as_deref() {
                self.oracle.device(&change.name, &device.facts, self.now);
            }
        }
    }
}
