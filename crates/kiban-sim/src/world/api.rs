//! A model of the API server: objects with a uid and a resource version, refused creates, preconditions, finalizers, and a
//! watch per kind. And the ledger, as a list.

use jiff::Timestamp;
use kiban_core::{
    facts::{
        BaselineFacts, DeviceFacts, ModelFacts, OperationFacts, Outcome, PolicyFacts, PoolFacts, RolloutFacts,
    },
    operation::{Reason, Record},
    plan::NewOperation,
};
use std::{collections::BTreeMap, rc::Rc};

/// The kinds that are watched, each with a stream of its own.
pub(super) const KINDS: usize = 6;
pub(super) const OPERATIONS: usize = 0;
pub(super) const DEVICES: usize = 1;
pub(super) const ROLLOUTS: usize = 2;
pub(super) const POLICIES: usize = 3;
pub(super) const BASELINES: usize = 4;
pub(super) const POOLS: usize = 5;

/// An `Operation` as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Operation {
    pub(super) uid: u64,
    pub(super) spec: Rc<NewOperation>,
    pub(super) epoch: i64,
    pub(super) finalizer: bool,
    pub(super) deleting: bool,
    pub(super) status: Status,
}

/// Its status.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Status {
    pub(super) outcome: Outcome,
    pub(super) record: Record,
    pub(super) reason: Option<Reason>,
    pub(super) finished_at: Option<Timestamp>,
}

impl Operation {
    /// Whether an executor has begun with it: what a planner must not take back.
    pub(super) fn has_begun(&self) -> bool {
        self.status.record.intent.is_some()
            || !self.status.record.results.is_empty()
            || self.status.outcome != Outcome::Pending
    }

    pub(super) fn facts(&self) -> OperationFacts {
        let spec = &self.spec;
        OperationFacts {
            device: spec.device.clone(),
            id: spec.id.clone(),
            campaign: spec.campaign.clone(),
            pool: spec.pool.clone(),
            revision: spec.revision.clone(),
            wave: spec.wave,
            epoch: self.epoch,
            outcome: self.status.outcome,
        }
    }
}

/// A `Device` as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Device {
    pub(super) facts: DeviceFacts,
    /// What a person wrote to release a hold.
    pub(super) release: Option<String>,
}

/// Whatever is watched.
// It is always behind an Rc or a Box.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Object {
    Operation(Operation),
    Device(Device),
    Rollout(RolloutFacts),
    Policy(PolicyFacts),
    Baseline(BaselineFacts),
    Pool(PoolFacts),
}

/// A Lease. It is not watched but read.
#[derive(Clone, Debug, Default)]
pub(super) struct Lease {
    pub(super) holder: Option<u64>,
    pub(super) epoch: i64,
    pub(super) rv: u64,
}

/// One event of a watch. None: it was deleted.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) name: String,
    pub(super) rv: u64,
    pub(super) object: Option<Rc<Object>>,
}

/// An object with its version.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) rv: u64,
    pub(super) object: Rc<Object>,
}

/// Why a write was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Conflict,
    NotFound,
}

/// The API server.
#[derive(Debug, Default)]
pub(super) struct Api {
    rv: u64,
    uid: u64,
    pub(super) objects: [BTreeMap<String, Stored>; KINDS],
    pub(super) watches: [Vec<Change>; KINDS],
    pub(super) leases: BTreeMap<String, Lease>,
    pub(super) models: Vec<ModelFacts>,
    /// Writes so far, Leases aside.
    pub(super) writes: u64,
    /// What was pushed: by operation id, its outcome.
    pub(super) ledger: Vec<(String, Outcome)>,
}

impl Api {
    fn next(&mut self) -> u64 {
        self.rv += 1;
        self.rv
    }

    pub(super) fn uid(&mut self) -> u64 {
        self.uid += 1;
        self.uid
    }

    pub(super) fn get(&self, kind: usize, name: &str) -> Option<&Stored> {
        self.objects.get(kind)?.get(name)
    }

    pub(super) fn operation(&self, name: &str) -> Option<&Operation> {
        match &*self.get(OPERATIONS, name)?.object {
            Object::Operation(operation) => Some(operation),
            _ => None,
        }
    }

    pub(super) fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.objects
            .iter()
            .take(1)
            .flat_map(BTreeMap::values)
            .filter_map(|stored| match &*stored.object {
                Object::Operation(operation) => Some(operation),
                _ => None,
            })
    }

    pub(super) fn device(&self, name: &str) -> Option<&Device> {
        match &*self.get(DEVICES, name)?.object {
            Object::Device(device) => Some(device),
            _ => None,
        }
    }

    pub(super) fn rollout(&self, name: &str) -> Option<&RolloutFacts> {
        match &*self.get(ROLLOUTS, name)?.object {
            Object::Rollout(rollout) => Some(rollout),
            _ => None,
        }
    }

    pub(super) fn policy(&self) -> PolicyFacts {
        match self.get(POLICIES, "fleet").map(|stored| &*stored.object) {
            Some(Object::Policy(policy)) => policy.clone(),
            _ => PolicyFacts::default(),
        }
    }

    pub(super) fn pools(&self) -> impl Iterator<Item = &PoolFacts> {
        self.objects
            .iter()
            .skip(POOLS)
            .flat_map(BTreeMap::values)
            .filter_map(|stored| match &*stored.object {
                Object::Pool(pool) => Some(pool),
                _ => None,
            })
    }

    /// Stores an object, as it is now.
    pub(super) fn put(&mut self, kind: usize, name: &str, object: Object) -> Stored {
        let rv = self.next();
        let stored = Stored {
            rv,
            object: Rc::new(object),
        };
        self.writes += 1;
        if let (Some(objects), Some(watch)) = (self.objects.get_mut(kind), self.watches.get_mut(kind)) {
            objects.insert(name.to_owned(), stored.clone());
            watch.push(Change {
                name: name.to_owned(),
                rv,
                object: Some(Rc::clone(&stored.object)),
            });
        }
        stored
    }

    /// Stores an object over the version that was seen, and over no other.
    pub(super) fn replace(
        &mut self,
        kind: usize,
        name: &str,
        rv: u64,
        object: Object,
    ) -> Result<Stored, Refusal> {
        match self.get(kind, name) {
            None => Err(Refusal::NotFound),
            Some(there) if there.rv != rv => Err(Refusal::Conflict),
            // A write that changes nothing makes no new version.
            Some(there) if *there.object == object => Ok(there.clone()),
            Some(_) => Ok(self.put(kind, name, object)),
        }
    }

    /// Stores a new object; refused where one has its name.
    pub(super) fn create(&mut self, kind: usize, name: &str, object: Object) -> Result<Stored, Refusal> {
        if self.get(kind, name).is_some() {
            return Err(Refusal::Conflict);
        }
        Ok(self.put(kind, name, object))
    }

    /// Takes an operation's finalizer away; one that is on its way out is gone with it.
    pub(super) fn take_finalizer(&mut self, name: &str, uid: u64) -> Result<(), Refusal> {
        let Some(operation) = self.operation(name).cloned() else {
            return Err(Refusal::NotFound);
        };
        if operation.uid != uid {
            return Err(Refusal::Conflict);
        }
        if operation.deleting {
            self.remove(OPERATIONS, name);
        } else if operation.finalizer {
            self.put(
                OPERATIONS,
                name,
                Object::Operation(Operation {
                    finalizer: false,
                    ..operation
                }),
            );
        }
        Ok(())
    }

    /// Asks for an operation's end; it stays until its finalizer is gone. `rv`: only while it is as seen.
    pub(super) fn delete(
        &mut self,
        name: &str,
        uid: u64,
        rv: Option<u64>,
    ) -> Result<Option<Stored>, Refusal> {
        let Some(there) = self.get(OPERATIONS, name).cloned() else {
            return Err(Refusal::NotFound);
        };
        let Object::Operation(operation) = &*there.object else {
            return Err(Refusal::NotFound);
        };
        if operation.uid != uid || rv.is_some_and(|rv| rv != there.rv) {
            return Err(Refusal::Conflict);
        }
        if !operation.finalizer {
            self.remove(OPERATIONS, name);
            return Ok(None);
        }
        if operation.deleting {
            return Ok(Some(there));
        }
        let deleting = Operation {
            deleting: true,
            ..operation.clone()
        };
        Ok(Some(self.put(OPERATIONS, name, Object::Operation(deleting))))
    }

    fn remove(&mut self, kind: usize, name: &str) {
        let rv = self.next();
        self.writes += 1;
        if let (Some(objects), Some(watch)) = (self.objects.get_mut(kind), self.watches.get_mut(kind)) {
            objects.remove(name);
            watch.push(Change {
                name: name.to_owned(),
                rv,
                object: None,
            });
        }
    }

    /// Writes a Lease over the version that was seen (0: there was none), and over no other.
    pub(super) fn put_lease(
        &mut self,
        name: &str,
        rv: u64,
        holder: u64,
        epoch: i64,
    ) -> Result<Lease, Refusal> {
        if self.leases.get(name).map_or(0, |lease| lease.rv) != rv {
            return Err(Refusal::Conflict);
        }
        let lease = Lease {
            holder: Some(holder),
            epoch,
            rv: self.next(),
        };
        self.leases.insert(name.to_owned(), lease.clone());
        Ok(lease)
    }
}
