//! One operation's driver, as `kiban-operator/src/execute/drive.rs` is: gives the step machine time and observations, does
//! what it says, and writes what must survive, over what was seen and over nothing else.

use super::{
    API_DEADLINE, Sabotage, Sim,
    api::{DEVICES, OPERATIONS, Object, Operation, Status},
    at,
    call::{Ending, Reply, Request, Seen, Who},
    machine, millis,
    process::{after, shard},
};
use jiff::Timestamp;
use kiban_core::{
    component::ComponentClass,
    facts::{HoldFacts, LastOperationFacts, Outcome},
    operation::{
        self as core, EffectKind, FailureClass, Observation, OperationPlan, Reason, Record, Selector, State,
        Timing, advance,
    },
};
use std::time::Duration;

/// An operation that is run.
#[derive(Debug)]
pub(super) struct Task {
    rv: u64,
    operation: Operation,
    plan: OperationPlan,
    state: Option<State>,
    doing: Doing,
    tries: u8,
}

#[derive(Clone, Debug)]
enum Doing {
    /// Reads it live.
    Reading,
    /// Performs an effect, or waits.
    Acting(EffectKind),
    /// Writes its status.
    Writing(Box<Status>),
    /// The write was not answered as it should: what is there?
    Asking(Box<Status>),
    /// Reads the device that it was done on.
    LookingAfter(Box<Ending>),
    /// Writes the device's status.
    Telling(Box<Ending>, Option<Box<Seen>>),
}

/// What becomes of a driver.
enum Turn {
    Call(Request, i64),
    Wait(i64),
    /// Put down: it is another's, or to be taken up anew.
    Stop,
}

/// The step machine's limits: the operator's defaults (`execute/record.rs`), with fewer looks.
fn timing(updates: usize) -> Timing {
    let minutes = |n: u64| Duration::from_secs(n * 60);
    Timing {
        read: minutes(2),
        send: minutes(15),
        reset: minutes(2),
        write: Duration::from_secs(8),
        stage: minutes(30),
        poll: Duration::from_secs(20),
        retry: Duration::from_secs(30),
        start: minutes(10),
        busy: minutes(30),
        stuck: minutes(30),
        settle: minutes(15),
        self_reset: minutes(5),
        activation: minutes(30),
        bmc_return: minutes(30),
        readbacks: 2,
        readback: Duration::from_secs(10),
        probe: minutes(15),
        boot: minutes(10),
        total: minutes(180) * u32::try_from(updates.max(1)).unwrap_or(u32::MAX),
        progress: Duration::from_secs(30),
        attempts: 3,
        reset_attempts: 3,
    }
}

fn plan(operation: &Operation) -> OperationPlan {
    let updates = operation.spec.updates.iter().map(|update| core::Update {
        select: Selector {
            class: update.class,
            matches: update.matches.clone(),
        },
        name: update.name.clone(),
        from: update.from.clone(),
        to: update.to.clone(),
        sha256: update.image.sha256.clone(),
        activation: update.activation,
        unstick: update.class != ComponentClass::Bmc,
    });
    OperationPlan {
        id: operation.spec.id.clone(),
        updates: updates.collect(),
        timing: timing(operation.spec.updates.len()),
    }
}

/// Kubernetes keeps whole seconds in its times; a deadline must never seem earlier than it is.
fn stored(mut record: Record) -> Record {
    let up = |at: &mut Timestamp| {
        let whole = at.as_second() + i64::from(at.subsec_nanosecond() > 0);
        *at = Timestamp::from_second(whole).unwrap_or(*at);
    };
    if let Some(intent) = &mut record.intent {
        up(&mut intent.at);
        up(&mut intent.call_deadline);
        for reset in &mut intent.resets {
            up(&mut reset.at);
            up(&mut reset.call_deadline);
        }
    }
    record.started_at.as_mut().map(up);
    record
}

impl Task {
    fn new(rv: u64, operation: Operation) -> Self {
        let plan = plan(&operation);
        Self {
            rv,
            operation,
            plan,
            state: None,
            doing: Doing::Reading,
            tries: 0,
        }
    }

    fn read(&self) -> Turn {
        Turn::Call(
            Request::Get {
                kind: OPERATIONS,
                name: self.operation.spec.device.clone(),
            },
            API_DEADLINE,
        )
    }

    fn status(&self) -> Status {
        let record = self
            .state
            .as_ref()
            .map(|state| stored(state.record.clone()))
            .unwrap_or_default();
        Status {
            outcome: Outcome::Running,
            record,
            reason: None,
            finished_at: None,
        }
    }

    /// The next effect.
    fn next(&mut self, seen: Observation, now: i64) -> Turn {
        let Some(state) = self.state.take() else {
            return Turn::Stop;
        };
        let (state, effect) = advance(&self.plan, state, seen, at(now));
        self.state = Some(state);
        let left = (millis(effect.deadline) - now).max(0);
        let request = |effect| {
            let uid = self.operation.uid;
            Request::Bmc {
                device: self.operation.spec.device.clone(),
                uid,
                effect,
            }
        };
        let turn = match &effect.kind {
            EffectKind::Wait => Turn::Wait(left),
            EffectKind::StageImage { .. } => Turn::Wait(3_000),
            EffectKind::WriteIntent | EffectKind::WriteProgress => return self.write(self.status(), 0, now),
            EffectKind::Finish(outcome) => {
                let mut status = self.status();
                status.outcome = match outcome {
                    core::Outcome::Succeeded => Outcome::Succeeded,
                    core::Outcome::Failed(..) => Outcome::Failed,
                    core::Outcome::Held(..) => Outcome::Held,
                };
                status.reason = outcome.reason();
                status.record.intent = None;
                status.finished_at = Some(at(now));
                return self.write(status, 0, now);
            }
            // What its deadline has passed for is not begun.
            kind if left == 0 => {
                let late = machine::failure(
                    FailureClass::Local,
                    false,
                    "the deadline had passed before the call",
                );
                self.doing = Doing::Acting(kind.clone());
                return self.next(late, now);
            }
            kind => Turn::Call(request(kind.clone()), left),
        };
        self.doing = Doing::Acting(effect.kind);
        turn
    }

    fn write(&mut self, status: Status, tries: u8, now: i64) -> Turn {
        if self.operation.status == status {
            return self.written(&status, now);
        }
        self.tries = tries;
        let operation = Box::new(Operation {
            status: status.clone(),
            ..self.operation.clone()
        });
        self.doing = Doing::Writing(Box::new(status));
        let name = self.operation.spec.device.clone();
        Turn::Call(
            Request::Operation {
                name,
                rv: self.rv,
                operation,
            },
            API_DEADLINE,
        )
    }

    fn written(&mut self, status: &Status, now: i64) -> Turn {
        if status.outcome.is_final() {
            self.tell(now)
        } else {
            self.next(Observation::Written, now)
        }
    }

    fn not_written(&mut self, status: Status, now: i64) -> Turn {
        if status.outcome.is_final() {
            self.doing = Doing::Asking(Box::new(status));
            return Turn::Wait(500);
        }
        self.next(
            machine::failure(FailureClass::Local, false, "could not be written"),
            now,
        )
    }

    /// Refused, raced, or answered to nobody: what is there now tells which.
    fn asked(&mut self, status: Status, reply: Reply, now: i64) -> Turn {
        let Reply::Object(there) = reply else {
            return self.not_written(status, now);
        };
        let Some(there) = there else { return Turn::Stop };
        let Object::Operation(operation) = &*there.object else {
            return Turn::Stop;
        };
        if operation.uid != self.operation.uid {
            return Turn::Stop;
        }
        if operation.status != self.operation.status && operation.status != status {
            return Turn::Stop;
        }
        let raced = there.rv != self.rv;
        self.rv = there.rv;
        self.operation = operation.clone();
        if (raced || operation.status == status) && self.tries < 2 {
            let tries = self.tries + 1;
            return self.write(status, tries, now);
        }
        self.not_written(status, now)
    }

    /// Begins to write a finished operation's outcome into its device's status.
    fn tell(&mut self, now: i64) -> Turn {
        let (spec, status) = (&self.operation.spec, &self.operation.status);
        let unreachable = status
            .reason
            .is_some_and(|reason| Reason::SILENT.contains(&reason));
        let held = status.outcome == Outcome::Held;
        let ending = Box::new(Ending {
            last: LastOperationFacts {
                id: spec.id.clone(),
                revision: spec.revision.clone(),
                outcome: status.outcome,
                finished_at: status.finished_at.unwrap_or(at(now)),
            },
            hold: held.then(|| status.reason.map_or("Held", Reason::as_str).to_owned()),
            unreachable,
        });
        if unreachable {
            self.doing = Doing::Telling(ending, None);
            return Turn::Wait(1);
        }
        self.doing = Doing::LookingAfter(ending);
        Turn::Call(
            Request::Read {
                device: spec.device.clone(),
            },
            120_000,
        )
    }
}

impl Sim {
    /// Looks for operations that may start, as `kiban-operator/src/execute.rs` does it: the epoch is read live.
    pub(super) fn start(&mut self, process: usize, reply: Option<Reply>) {
        let now = self.now;
        let Some(there) = self.processes.get(process) else {
            return;
        };
        let ours: Vec<(u64, Operation)> = there
            .operations()
            .filter(|(_, it)| there.remaining(shard(&it.spec.device), now) > 0)
            .filter(|(_, it)| self.is_free(process, &it.spec.device))
            .map(|(rv, it)| (rv, it.clone()))
            .collect();
        let epoch = match &reply {
            Some(Reply::Lease(lease)) => lease.as_ref().map(|lease| lease.epoch),
            _ => None,
        };
        let paused = there.policy().paused;
        let may_start = |it: &Operation| {
            let held = there
                .device(&it.spec.device)
                .is_none_or(|(_, device)| device.facts.hold.is_some());
            it.finalizer && !it.deleting && !held && !paused && !there.is_told(it)
        };
        let (mut begin, mut asks) = (Vec::new(), false);
        for (rv, operation) in ours {
            if operation.status.outcome.is_final() {
                if !there.is_told(&operation) {
                    begin.push((rv, operation));
                }
            } else if operation.has_begun() {
                begin.push((rv, operation));
            } else if may_start(&operation) {
                let present = epoch == Some(operation.epoch);
                asks = true;
                if reply.is_some() && present {
                    begin.push((rv, operation));
                }
            }
        }
        for (rv, operation) in begin {
            let name = operation.spec.device.clone();
            let task = Task::new(rv, operation);
            let turn = task.read();
            if let Some(there) = self.processes.get_mut(process) {
                there.tasks.insert(name.clone(), task);
            }
            self.take_turn(process, &name, turn);
        }
        if asks && reply.is_none() {
            return self.call(
                process,
                Who::Start,
                Request::GetLease("planner".into()),
                API_DEADLINE,
            );
        }
        self.wake(process, Who::Start, 2_000);
    }

    fn take_turn(&mut self, process: usize, name: &str, turn: Turn) {
        let who = Who::Drive(name.to_owned());
        match turn {
            Turn::Call(request, limit) => self.call(process, who, request, limit),
            Turn::Wait(delay) => self.wake(process, who, delay),
            Turn::Stop => {
                if let Some(there) = self.processes.get_mut(process) {
                    there.tasks.remove(name);
                }
                self.note(format!("p{process} puts {name} down"));
            }
        }
    }

    /// Something came back to a driver.
    pub(super) fn drive(&mut self, process: usize, name: &str, reply: Option<Reply>) {
        let now = self.now;
        let forgets = self.sabotage == Some(Sabotage::SendsAgain);
        let Some(there) = self.processes.get_mut(process) else {
            return;
        };
        let left = there.remaining(shard(name), now);
        let Some(mut task) = there.tasks.remove(name) else {
            return;
        };
        let turn = if left == 0 {
            Turn::Stop
        } else {
            task.go_on(reply, there, left, forgets, now)
        };
        if let Some(there) = self.processes.get_mut(process) {
            there.tasks.insert(name.to_owned(), task);
        }
        self.take_turn(process, name, turn);
    }
}

impl Task {
    fn go_on(
        &mut self,
        reply: Option<Reply>,
        there: &mut super::process::Process,
        left: i64,
        forgets: bool,
        now: i64,
    ) -> Turn {
        let turn = match (self.doing.clone(), reply) {
            (Doing::Reading, Some(Reply::Object(Some(stored)))) => self.begin(&stored, forgets, now),
            (Doing::Acting(EffectKind::StageImage { .. }), None) => self.next(Observation::Staged, now),
            (Doing::Acting(_), None) => self.next(Observation::Elapsed, now),
            (Doing::Acting(_), Some(Reply::Seen(seen))) => self.next(seen, now),
            (Doing::Acting(kind), Some(Reply::Failed { may_have_happened })) => {
                let changes = matches!(kind, EffectKind::Send { .. } | EffectKind::Reset { .. });
                self.next(machine::silent(changes && may_have_happened), now)
            }
            (Doing::Writing(status), Some(Reply::Object(Some(stored)))) => {
                there.take_in(OPERATIONS, &self.operation.spec.device, &stored);
                self.rv = stored.rv;
                self.operation.status = (*status).clone();
                self.written(&status, now)
            }
            (Doing::Writing(status), Some(_)) => {
                self.doing = Doing::Asking(status);
                self.read()
            }
            (Doing::Asking(status), None) => self.write(*status, 0, now),
            (Doing::Asking(status), Some(reply)) => self.asked(*status, reply, now),
            (Doing::LookingAfter(ending), Some(Reply::Reading(seen))) => self.told(ending, seen, there, now),
            (Doing::LookingAfter(ending), Some(_)) => self.told(ending, None, there, now),
            (Doing::Telling(ending, seen), None) => self.told(ending, seen, there, now),
            (Doing::Telling(ending, seen), Some(Reply::Object(Some(stored)))) => {
                there.take_in(DEVICES, &self.operation.spec.device, &stored);
                if there.is_told(&self.operation) {
                    Turn::Stop
                } else {
                    self.told(ending, seen, there, now)
                }
            }
            (Doing::Telling(ending, seen), Some(Reply::Conflict)) => {
                self.doing = Doing::Telling(ending, seen);
                Turn::Call(
                    Request::Get {
                        kind: DEVICES,
                        name: self.operation.spec.device.clone(),
                    },
                    API_DEADLINE,
                )
            }
            (Doing::Telling(ending, seen), Some(Reply::Failed { .. })) => {
                self.doing = Doing::Telling(ending, seen);
                Turn::Wait(500)
            }
            _ => Turn::Stop,
        };
        // A write is not begun that may outlast the tenure.
        let writes = matches!(turn, Turn::Call(Request::Operation { .. }, _));
        if writes && left < API_DEADLINE {
            Turn::Stop
        } else {
            turn
        }
    }

    fn begin(&mut self, stored: &super::api::Stored, forgets: bool, now: i64) -> Turn {
        let Object::Operation(operation) = &*stored.object else {
            return Turn::Stop;
        };
        self.rv = stored.rv;
        self.operation = operation.clone();
        self.plan = plan(operation);
        if operation.status.outcome.is_final() {
            return self.tell(now);
        }
        let mut record = operation.status.record.clone();
        if forgets {
            record.intent = None;
        }
        self.state = Some(State::recover(record, at(now)));
        self.next(Observation::Begin, now)
    }

    fn told(
        &mut self,
        ending: Box<Ending>,
        seen: Option<Box<Seen>>,
        there: &super::process::Process,
        now: i64,
    ) -> Turn {
        let name = self.operation.spec.device.clone();
        let Some((rv, device)) = there.device(&name) else {
            return Turn::Stop;
        };
        let mut device = match &seen {
            Some(seen) => after(device, Some(seen), now),
            None if ending.unreachable => after(device, None, now),
            None => device.clone(),
        };
        device.facts.last_operation = Some(ending.last.clone());
        if let Some(reason) = &ending.hold {
            let operation = ending.last.id.clone();
            device.facts.hold = Some(HoldFacts {
                reason: reason.clone(),
                operation,
            });
        }
        self.doing = Doing::Telling(ending, seen);
        Turn::Call(
            Request::Put {
                kind: DEVICES,
                name,
                rv,
                object: Box::new(Object::Device(device)),
            },
            API_DEADLINE,
        )
    }
}
