//! One replica of the operator: what it has seen through its watches, its Leases, and how it reads devices.

use super::{
    API_DEADLINE, Sim,
    api::{DEVICES, KINDS, OPERATIONS, Object, Operation, POLICIES, Refusal, Stored},
    call::{Reply, Request, Seen, Who},
    drive::Task,
    lead::{Ledger, Planner},
};
use kiban_core::{
    facts::{DeviceFacts, FirmwareFacts, Health, HoldFacts, IdentityFacts, Outcome, PolicyFacts, Reach},
    lease::{self, Decision, Held},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

/// How many shards there are.
const SHARDS: u32 = 3;
/// How long a Lease lasts, and how often it is renewed.
const LEASE: i64 = 15_000;
const RENEW: i64 = 5_000;
/// How often a device is read, at rest and when it could not be.
const READ_EVERY: i64 = 300_000;
const READ_AGAIN: i64 = 30_000;
/// The planner's Lease; those of the shards follow it.
pub(super) const PLANNER: usize = 0;

/// What is known of an object. None: it is gone.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) rv: u64,
    pub(super) object: Option<Rc<Object>>,
}

/// The keeper of one Lease.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    seen: Option<lease::Seen>,
    rv: u64,
    held: Option<Held>,
    step: Step,
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    Rest,
    Look,
    Take {
        sent: i64,
        epoch: i64,
    },
    Renew {
        sent: i64,
    },
    LookAfter,
}

/// A device that is being read, or its reading written.
#[derive(Debug)]
pub(super) struct Observing {
    seen: Option<Option<Box<Seen>>>,
    busy: bool,
}

/// A replica.
#[derive(Default)]
pub(super) struct Process {
    pub(super) life: u64,
    pub(super) alive: bool,
    pub(super) frozen_until: i64,
    pub(super) pending: BTreeMap<Who, u64>,
    pub(super) store: [BTreeMap<String, Known>; KINDS],
    pub(super) watched: [usize; KINDS],
    /// What changed since the last tick of the planner.
    pub(super) changed: [BTreeSet<String>; KINDS],
    pub(super) leases: Vec<Keeper>,
    pub(super) planner: Planner,
    pub(super) ledger: Ledger,
    pub(super) tasks: BTreeMap<String, Task>,
    pub(super) observing: BTreeMap<String, Observing>,
}

impl Process {
    fn get(&self, kind: usize, name: &str) -> Option<(u64, &Object)> {
        let known = self.store.get(kind)?.get(name)?;
        Some((known.rv, known.object.as_deref()?))
    }

    pub(super) fn operation(&self, name: &str) -> Option<(u64, &Operation)> {
        match self.get(OPERATIONS, name)? {
            (rv, Object::Operation(operation)) => Some((rv, operation)),
            _ => None,
        }
    }

    pub(super) fn device(&self, name: &str) -> Option<(u64, &super::api::Device)> {
        match self.get(DEVICES, name)? {
            (rv, Object::Device(device)) => Some((rv, device)),
            _ => None,
        }
    }

    pub(super) fn policy(&self) -> PolicyFacts {
        match self.get(POLICIES, "fleet") {
            Some((_, Object::Policy(policy))) => policy.clone(),
            _ => PolicyFacts::default(),
        }
    }

    pub(super) fn operations(&self) -> impl Iterator<Item = (u64, &Operation)> {
        let all = self.store.get(OPERATIONS).into_iter().flat_map(BTreeMap::keys);
        all.filter_map(|name| self.operation(name))
    }

    /// Takes in an object if it is newer than what is known.
    pub(super) fn absorb(&mut self, kind: usize, name: &str, rv: u64, object: Option<Rc<Object>>) {
        let (Some(store), Some(changed)) = (self.store.get_mut(kind), self.changed.get_mut(kind)) else {
            return;
        };
        if store.get(name).is_none_or(|known| known.rv < rv) {
            store.insert(name.to_owned(), Known { rv, object });
            changed.insert(name.to_owned());
        }
    }

    pub(super) fn take_in(&mut self, kind: usize, name: &str, stored: &Stored) {
        self.absorb(kind, name, stored.rv, Some(Rc::clone(&stored.object)));
    }

    /// How long a Lease of ours surely lasts; not at all when it is not ours.
    pub(super) fn remaining(&self, lease: usize, now: i64) -> i64 {
        let held = self.leases.get(lease).and_then(|keeper| keeper.held);
        held.map_or(0, |held| (millis(held.renewed_at) + LEASE - now).max(0))
    }

    pub(super) fn epoch(&self) -> Option<i64> {
        self.leases.get(PLANNER)?.held.map(|held| held.epoch)
    }

    /// Whether the outcome of the operation is in its device's status.
    pub(super) fn is_told(&self, operation: &Operation) -> bool {
        let device = self.device(&operation.spec.device);
        device.is_none_or(|(_, it)| {
            it.facts
                .last_operation
                .as_ref()
                .is_some_and(|last| last.id == operation.spec.id)
        })
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn span(time: i64) -> Duration {
    Duration::from_millis(u64::try_from(time).unwrap_or(0))
}

/// The Lease of a device's shard.
pub(super) fn shard(device: &str) -> usize {
    usize::try_from(kiban_core::shard::of(device, SHARDS)).unwrap_or(0) + 1
}

fn lease_name(lease: usize) -> String {
    if lease == PLANNER {
        "planner".into()
    } else {
        format!("shard-{lease}")
    }
}

impl Sim {
    /// A process starts: it lists everything, and seeks Leases.
    pub(super) fn revive(&mut self, process: usize) {
        let life = self.api.uid();
        let mut fresh = Process {
            life,
            alive: true,
            ..Process::default()
        };
        for (kind, objects) in self.api.objects.iter().enumerate() {
            for (name, stored) in objects {
                fresh.take_in(kind, name, stored);
            }
        }
        for (watched, watch) in fresh.watched.iter_mut().zip(&self.api.watches) {
            *watched = watch.len();
        }
        fresh.leases = (0..=SHARDS).map(|_| Keeper::default()).collect();
        let Some(there) = self.processes.get_mut(process) else {
            return;
        };
        *there = fresh;
        self.note(format!("p{process} starts as {life}"));
        for lease in 0..=usize::try_from(SHARDS).unwrap_or(0) {
            let delay = self.rng.range(0, RENEW);
            self.wake(process, Who::Lease(lease), delay);
        }
        self.wake(process, Who::Start, 2_000);
    }

    pub(super) fn deliver(&mut self, process: usize, kind: usize, upto: usize) {
        let Some(there) = self.processes.get_mut(process) else {
            return;
        };
        let from = there.watched.get(kind).copied().unwrap_or(0);
        for change in self
            .api
            .watches
            .get(kind)
            .into_iter()
            .flatten()
            .take(upto)
            .skip(from)
        {
            there.absorb(kind, &change.name, change.rv, change.object.clone());
        }
        if let Some(watched) = there.watched.get_mut(kind) {
            *watched = (*watched).max(upto);
        }
        if there.planner.poke() {
            self.wake(process, Who::Planner, 100);
        }
    }

    /// What the API server does with a request.
    pub(super) fn store(&mut self, request: Request) -> Reply {
        let refused = |refusal| match refusal {
            Refusal::Conflict => Reply::Conflict,
            Refusal::NotFound => Reply::NotFound,
        };
        let object =
            |result: Result<Stored, Refusal>| result.map_or_else(refused, |it| Reply::Object(Some(it)));
        match request {
            Request::GetLease(name) => Reply::Lease(self.api.leases.get(&name).cloned()),
            Request::PutLease {
                name,
                rv,
                holder,
                epoch,
            } => self
                .api
                .put_lease(&name, rv, holder, epoch)
                .map_or_else(refused, |lease| Reply::Lease(Some(lease))),
            Request::ListOperations => {
                let all = self.api.objects.get(OPERATIONS).into_iter().flatten();
                Reply::List(all.map(|(name, stored)| (name.clone(), stored.clone())).collect())
            }
            Request::Get { kind, name } => Reply::Object(self.api.get(kind, &name).cloned()),
            Request::Create {
                name,
                mut operation,
                decided,
            } => {
                operation.uid = self.api.uid();
                let epoch = self.api.leases.get(&lease_name(PLANNER)).map(|lease| lease.epoch);
                let created = self
                    .api
                    .create(OPERATIONS, &name, Object::Operation((*operation).clone()));
                if created.is_ok() && epoch == Some(operation.epoch) {
                    self.oracle.granted(&self.api, &operation, decided);
                }
                object(created)
            }
            Request::Operation { name, rv, operation } => self.write_operation(&name, rv, *operation),
            Request::Put {
                kind,
                name,
                rv,
                object: new,
            } => {
                let written = self.api.replace(kind, &name, rv, *new);
                if let Ok(stored) = &written {
                    self.look_at_rollout(&name, stored);
                }
                object(written)
            }
            Request::New {
                kind,
                name,
                object: new,
            } => object(self.api.create(kind, &name, *new)),
            Request::Delete { name, uid, rv } => self
                .api
                .delete(&name, uid, rv)
                .map_or_else(refused, Reply::Object),
            Request::TakeFinalizer { name, uid } => {
                let before = self.api.operation(&name).cloned();
                let taken = self.api.take_finalizer(&name, uid);
                if let (Some(before), None) = (before, self.api.operation(&name)) {
                    self.oracle.removed(&self.api.ledger, &before);
                }
                taken.map_or_else(refused, |()| Reply::Done)
            }
            Request::Push(_) | Request::Bmc { .. } | Request::Read { .. } => Reply::NotFound,
        }
    }

    fn look_at_rollout(&mut self, name: &str, stored: &Stored) {
        if let Object::Rollout(rollout) = &*stored.object {
            match rollout.status.as_ref().filter(|status| status.halt.is_some()) {
                Some(status) => {
                    let entry = (status.revision.clone(), self.now);
                    let before = self
                        .oracle
                        .halted
                        .entry(name.to_owned())
                        .or_insert_with(|| entry.clone());
                    if before.0 != entry.0 {
                        *before = entry;
                    }
                }
                None => drop(self.oracle.halted.remove(name)),
            }
        }
    }

    fn write_operation(&mut self, name: &str, rv: u64, operation: Operation) -> Reply {
        let before = self.api.operation(name).cloned();
        match self
            .api
            .replace(OPERATIONS, name, rv, Object::Operation(operation.clone()))
        {
            Err(Refusal::Conflict) => Reply::Conflict,
            Err(Refusal::NotFound) => Reply::NotFound,
            Ok(stored) => {
                let begun = before.as_ref().is_some_and(Operation::has_begun);
                let ended = before.is_some_and(|before| before.status.outcome.is_final());
                if !begun && operation.has_begun() {
                    self.note(format!("{name} begins, epoch {}", operation.epoch));
                    self.oracle.began(&self.api, &self.machines, &operation, self.now);
                }
                if !ended && operation.status.outcome.is_final() {
                    let status = &operation.status;
                    self.note(format!("{name} ends: {:?} {:?}", status.outcome, status.reason));
                    self.oracle.ended(&self.machines, &operation, self.now);
                }
                Reply::Object(Some(stored))
            }
        }
    }

    /// The keeper of a Lease, as `kiban-operator/src/lease.rs` keeps it.
    pub(super) fn lease(&mut self, process: usize, lease: usize, reply: Option<Reply>) {
        let now = self.now;
        let Some(there) = self.processes.get_mut(process) else {
            return;
        };
        let (life, me) = (there.life, there.life.to_string());
        let Some(keeper) = there.leases.get_mut(lease) else {
            return;
        };
        let mut pause = self.rng.range(RENEW * 8 / 10, RENEW * 12 / 10);
        let step = std::mem::take(&mut keeper.step);
        if let Some(Reply::Lease(found)) = &reply
            && matches!(step, Step::Look | Step::LookAfter)
        {
            keeper.take(found.as_ref(), now);
        }
        let decision = lease::decide(keeper.seen.as_ref(), &me, keeper.held, span(LEASE), span(now));
        let name = lease_name(lease);
        let request = match (step, reply) {
            (Step::Rest, _) if keeper.held.is_none() => {
                keeper.step = Step::Look;
                Some(Request::GetLease(name))
            }
            (Step::Take { sent, epoch }, Some(Reply::Lease(found))) => {
                keeper.take(found.as_ref(), now);
                keeper.held = Some(Held {
                    epoch,
                    renewed_at: span(sent),
                });
                self.note(format!("p{process} holds {name}, epoch {epoch}"));
                return self.tenure_begins(process, lease, pause);
            }
            (Step::Renew { sent }, Some(Reply::Lease(found))) => {
                keeper.take(found.as_ref(), now);
                if let Some(held) = &mut keeper.held {
                    held.renewed_at = span(sent);
                }
                None
            }
            (Step::Renew { .. }, _) => {
                keeper.step = Step::LookAfter;
                Some(Request::GetLease(name))
            }
            (Step::Look, Some(Reply::Lease(_))) => match decision {
                Decision::Acquire { epoch } => {
                    keeper.step = Step::Take { sent: now, epoch };
                    Some(Request::PutLease {
                        name,
                        rv: keeper.rv,
                        holder: life,
                        epoch,
                    })
                }
                _ => None,
            },
            _ if keeper.held.is_some() && decision == Decision::Lost => {
                keeper.held = None;
                self.note(format!("p{process} loses {name}"));
                return self.tenure_ends(process, lease);
            }
            (Step::Rest, _) => {
                keeper.step = Step::Renew { sent: now };
                let epoch = keeper.held.map_or(0, |held| held.epoch);
                Some(Request::PutLease {
                    name,
                    rv: keeper.rv,
                    holder: life,
                    epoch,
                })
            }
            _ => {
                pause = 1_000;
                None
            }
        };
        match request {
            Some(request) => self.call(process, Who::Lease(lease), request, API_DEADLINE),
            None => self.wake(process, Who::Lease(lease), pause),
        }
    }

    fn tenure_begins(&mut self, process: usize, lease: usize, pause: i64) {
        self.wake(process, Who::Lease(lease), pause);
        if lease == PLANNER {
            return self.begin_to_plan(process);
        }
        let names: Vec<String> = self
            .machines
            .keys()
            .filter(|name| shard(name) == lease)
            .cloned()
            .collect();
        for name in names {
            if let Some(there) = self.processes.get_mut(process) {
                there.observing.insert(
                    name.clone(),
                    Observing {
                        seen: None,
                        busy: false,
                    },
                );
            }
            let delay = self.rng.range(0, READ_EVERY);
            self.wake(process, Who::Observe(name), delay);
        }
    }

    fn tenure_ends(&mut self, process: usize, lease: usize) {
        let pause = self.rng.range(1_000, RENEW);
        if let Some(there) = self.processes.get_mut(process) {
            if lease == PLANNER {
                there.planner = Planner::default();
                there.ledger = Ledger::default();
                there.pending.remove(&Who::Planner);
                there.pending.remove(&Who::Ledger);
            } else {
                there.tasks.retain(|name, _| shard(name) != lease);
                there.observing.retain(|name, _| shard(name) != lease);
                there.pending.retain(|who, _| match who {
                    Who::Drive(name) | Who::Observe(name) => shard(name) != lease,
                    _ => true,
                });
            }
        }
        self.wake(process, Who::Lease(lease), pause);
    }

    /// The observer of one device, as `kiban-operator/src/observe.rs` does it.
    pub(super) fn observe(&mut self, process: usize, name: &str, reply: Option<Reply>) {
        let who = || Who::Observe(name.to_owned());
        let now = self.now;
        let Some(there) = self.processes.get_mut(process) else {
            return;
        };
        let over = there.remaining(shard(name), now) < API_DEADLINE;
        let begun = there
            .operation(name)
            .is_some_and(|(_, it)| it.has_begun() && !there.is_told(it));
        let taken = there.tasks.contains_key(name);
        let known = there.device(name).map(|(rv, device)| (rv, device.clone()));
        let Some(observing) = there.observing.get_mut(name) else {
            return;
        };
        let again = match reply {
            None if begun || taken || over => Some(READ_AGAIN),
            None => {
                observing.busy = true;
                return self.call(
                    process,
                    who(),
                    Request::Read {
                        device: name.to_owned(),
                    },
                    60_000,
                );
            }
            Some(Reply::Reading(seen)) => {
                observing.seen = Some(seen);
                None
            }
            Some(Reply::Object(Some(stored))) => {
                there.take_in(DEVICES, name, &stored);
                let Object::Device(device) = &*stored.object else {
                    return;
                };
                let wanted = there
                    .observing
                    .get(name)
                    .and_then(|it| it.seen.as_ref())
                    .map(|seen| after(device, seen.as_deref(), now));
                (wanted.as_ref() == Some(device)).then_some(READ_EVERY)
            }
            // Somebody wrote beside us: decide again on what is there now.
            Some(Reply::Conflict) => {
                let request = Request::Get {
                    kind: DEVICES,
                    name: name.to_owned(),
                };
                return self.call(process, who(), request, API_DEADLINE);
            }
            Some(_) => Some(READ_AGAIN),
        };
        let Some(there) = self.processes.get_mut(process) else {
            return;
        };
        let known = there
            .device(name)
            .map(|(rv, device)| (rv, device.clone()))
            .or(known);
        let Some(observing) = there.observing.get_mut(name) else {
            return;
        };
        let seen = observing.seen.take().filter(|_| again.is_none() && !over);
        if let (Some(seen), Some((rv, device))) = (seen, known) {
            let wanted = after(&device, seen.as_deref(), now);
            if wanted != device {
                observing.seen = Some(seen);
                let object = Box::new(Object::Device(wanted));
                let request = Request::Put {
                    kind: DEVICES,
                    name: name.to_owned(),
                    rv,
                    object,
                };
                return self.call(process, who(), request, API_DEADLINE);
            }
        }
        observing.busy = false;
        let pause = again.unwrap_or(READ_EVERY);
        let pause = self.rng.range(pause * 9 / 10, pause * 11 / 10);
        self.wake(process, who(), pause);
    }

    /// Whether a device is free for its operation.
    pub(super) fn is_free(&self, process: usize, name: &str) -> bool {
        self.processes.get(process).is_some_and(|there| {
            !there.tasks.contains_key(name) && there.observing.get(name).is_some_and(|it| !it.busy)
        })
    }
}

impl Keeper {
    fn take(&mut self, found: Option<&super::api::Lease>, now: i64) {
        let Some(found) = found else {
            self.seen = None;
            self.rv = 0;
            return;
        };
        if self.seen.is_some() && self.rv == found.rv {
            return;
        }
        self.rv = found.rv;
        self.seen = Some(lease::Seen {
            holder: found.holder.map(|holder| holder.to_string()),
            transitions: found.epoch,
            duration: span(LEASE),
            version: found.rv.to_string(),
            changed_at: span(now),
        });
    }
}

/// A device's status after a reading; `None`: its BMC did not answer.
pub(super) fn after(device: &super::api::Device, seen: Option<&Seen>, now: i64) -> super::api::Device {
    let mut device = device.clone();
    let facts = &mut device.facts;
    match seen {
        None => {
            facts.reach = Reach::Unreachable;
            facts.health = Health::Unknown;
        }
        Some(seen) if seen.impostor => {
            facts.reach = Reach::Unreachable;
            facts.health = Health::Unknown;
            let hold = HoldFacts {
                reason: "WrongMachine".into(),
                operation: String::new(),
            };
            facts.hold.get_or_insert(hold);
        }
        Some(seen) => {
            read(facts, seen, now);
            let key = facts.hold.as_ref().map(|hold| {
                if hold.operation.is_empty() {
                    &hold.reason
                } else {
                    &hold.operation
                }
            });
            if key.is_some() && key == device.release.as_ref() {
                facts.hold = None;
            }
        }
    }
    device
}

fn read(facts: &mut DeviceFacts, seen: &Seen, now: i64) {
    let serial = facts.serial.clone();
    facts.identity = Some(IdentityFacts {
        model: facts.model.clone(),
        serial,
        ..IdentityFacts::default()
    });
    facts.reach = Reach::Reachable;
    facts.fresh = true;
    facts.health = if seen.critical {
        Health::Critical
    } else {
        Health::Ok
    };
    let firmware: Vec<FirmwareFacts> = seen.reading.components.iter().map(FirmwareFacts::from).collect();
    if facts.firmware.as_ref() != Some(&firmware) {
        facts.firmware = Some(firmware);
        facts.firmware_changed_at = Some(super::at(now));
    }
}

/// Whether it has ended and is not yet in the ledger.
pub(super) fn is_finished(operation: &Operation) -> bool {
    operation.status.outcome.is_final() && operation.finalizer && operation.status.outcome != Outcome::Pending
}
