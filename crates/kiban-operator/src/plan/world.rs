//! The world, kept from what the watches tell.
//!
//! What cannot be understood is taken the safe way: an unreadable policy pauses, an unreadable operation counts as one
//! that is under way, an unreadable pool or baseline moves nothing.

use crate::{
    gate::Measured,
    store::{Stores, Subscription},
};
use jiff::Timestamp;
use kiban_api::convert;
use kiban_core::{
    World,
    facts::{OperationFacts, Outcome, PolicyFacts},
};
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};

/// The name of the one policy of a fleet.
pub const POLICY: &str = "fleet";

/// The world and what keeps it.
pub struct Keeper {
    /// The world.
    pub world: World,
    /// Pools and baselines that could not be understood, with why: kind and name.
    pub broken: BTreeMap<(&'static str, String), String>,
    stores: Stores,
    gates: Measured,
    policies: Subscription,
    models: Subscription,
    devices: Subscription,
    pools: Subscription,
    baselines: Subscription,
    rollouts: Subscription,
    operations: Subscription,
    approvals: Subscription,
}

impl Keeper {
    /// A world of all that is known. What changes from now on is taken in by [`Keeper::refresh`].
    #[must_use]
    pub fn new(stores: &Stores, gates: &Measured) -> Self {
        let mut keeper = Self {
            world: World::new(),
            broken: BTreeMap::new(),
            stores: stores.clone(),
            gates: gates.clone(),
            policies: stores.policies.subscribe(),
            models: stores.models.subscribe(),
            devices: stores.devices.subscribe(),
            pools: stores.pools.subscribe(),
            baselines: stores.baselines.subscribe(),
            rollouts: stores.rollouts.subscribe(),
            operations: stores.operations.subscribe(),
            approvals: stores.approvals.subscribe(),
        };
        keeper.policy();
        for object in stores.models.all() {
            keeper.world.upsert_model(convert::model(&object));
        }
        for object in stores.pools.all() {
            keeper.pool(&object.name_any());
        }
        for object in stores.baselines.all() {
            keeper.baseline(&object.name_any());
        }
        for object in stores.devices.all() {
            keeper.world.upsert_device(&convert::device(&object));
        }
        for object in stores.rollouts.all() {
            keeper.world.upsert_rollout(convert::rollout(&object));
        }
        for object in stores.operations.all() {
            keeper.world.upsert_operation(convert::operation(&object));
        }
        keeper.undecodable_operations();
        for object in stores.approvals.all() {
            keeper.approval(&object.name_any());
        }
        keeper.world.set_gates(gates.all());
        keeper
    }

    /// Waits until something changed that a plan may read.
    pub async fn changed(&self) {
        // The sets are put back by taking them in `refresh`, so only the waking matters here.
        tokio::select! {
            () = self.policies.woken() => {}
            () = self.models.woken() => {}
            () = self.devices.woken() => {}
            () = self.pools.woken() => {}
            () = self.baselines.woken() => {}
            () = self.rollouts.woken() => {}
            () = self.operations.woken() => {}
            () = self.approvals.woken() => {}
            () = self.gates.woken() => {}
        }
    }

    /// Takes in what changed. Returns the devices that did.
    pub fn refresh(&mut self) -> BTreeSet<String> {
        if !self.policies.take().is_empty() {
            self.policy();
        }
        for name in self.models.take() {
            match self.stores.models.get(&name) {
                Some(object) => self.world.upsert_model(convert::model(&object)),
                None => self.world.remove_model(&name),
            };
        }
        for name in self.pools.take() {
            self.pool(&name);
        }
        for name in self.baselines.take() {
            self.baseline(&name);
        }
        let devices = self.devices.take();
        for name in &devices {
            match self.stores.devices.get(name) {
                Some(object) => self.world.upsert_device(&convert::device(&object)),
                None => self.world.remove_device(name),
            };
        }
        for name in self.rollouts.take() {
            match self.stores.rollouts.get(&name) {
                Some(object) => self.world.upsert_rollout(convert::rollout(&object)),
                None => self.world.remove_rollout(&name),
            };
        }
        for name in self.operations.take() {
            match self.stores.operations.get(&name) {
                Some(object) => self.world.upsert_operation(convert::operation(&object)),
                None => self.world.remove_operation(&name),
            };
        }
        self.undecodable_operations();
        for name in self.approvals.take() {
            self.approval(&name);
        }
        self.world.set_gates(self.gates.all());
        devices
    }

    fn policy(&mut self) {
        let unreadable = self.stores.policies.undecodable().contains_key(POLICY);
        let paused = PolicyFacts {
            paused: true,
            ..PolicyFacts::default()
        };
        match self.stores.policies.get(POLICY) {
            _ if unreadable => self.world.upsert_policy(paused),
            None => self.world.remove_policy(),
            Some(object) => match convert::policy(&object) {
                Ok(facts) => {
                    self.broken.remove(&("FleetPolicy", POLICY.into()));
                    self.world.upsert_policy(facts)
                }
                Err(error) => {
                    self.broken
                        .insert(("FleetPolicy", POLICY.into()), error.to_string());
                    self.world.upsert_policy(paused)
                }
            },
        };
    }

    /// One that says nothing is as one that is not there.
    fn approval(&mut self, name: &str) {
        let object = self.stores.approvals.get(name);
        match object.and_then(|object| convert::approval(&object)) {
            Some(facts) => self.world.upsert_approval(facts),
            None => self.world.remove_approval(name),
        };
    }

    fn pool(&mut self, name: &str) {
        self.broken.remove(&("HardwarePool", name.to_owned()));
        match self.stores.pools.get(name).map(|object| convert::pool(&object)) {
            Some(Ok(facts)) => self.world.upsert_pool(facts),
            None => self.world.remove_pool(name),
            Some(Err(error)) => {
                self.broken
                    .insert(("HardwarePool", name.to_owned()), error.to_string());
                self.world.remove_pool(name)
            }
        };
    }

    fn baseline(&mut self, name: &str) {
        self.broken.remove(&("FirmwareBaseline", name.to_owned()));
        match self
            .stores
            .baselines
            .get(name)
            .map(|object| convert::baseline(&object))
        {
            Some(Ok(facts)) => self.world.upsert_baseline(facts),
            None => self.world.remove_baseline(name),
            Some(Err(error)) => {
                self.broken
                    .insert(("FirmwareBaseline", name.to_owned()), error.to_string());
                self.world.remove_baseline(name)
            }
        };
    }

    fn undecodable_operations(&mut self) {
        for name in self.stores.operations.undecodable().into_keys() {
            let pool = self
                .stores
                .devices
                .get(&name)
                .map(|d| d.spec.pool.clone())
                .unwrap_or_default();
            let facts = OperationFacts {
                device: name,
                pool,
                outcome: Outcome::Running,
                ..OperationFacts::default()
            };
            self.world.upsert_operation(facts);
        }
    }

    /// The plan now.
    #[must_use]
    pub fn plan(&self, now: Timestamp) -> kiban_core::Plan {
        kiban_core::plan(&self.world, now)
    }
}
