//! The fleet as the planner sees it: the ground of every answer.

use crate::snapshot::Snapshot;
use kiban_api::convert;
use kiban_core::{facts::PolicyFacts, world::World};
use kube::ResourceExt as _;

/// Everything that a plan is made of.
pub struct Fleet {
    /// The objects.
    pub objects: Snapshot,
    /// The same as facts.
    pub world: World,
    /// Objects that do not convert: left out, as the operator does, and said.
    pub ignored: Vec<String>,
}

impl Fleet {
    /// The facts of a snapshot's objects, taken as the operator takes them: what makes no sense moves nothing.
    #[must_use]
    pub fn of(objects: Snapshot) -> Self {
        let mut world = World::new();
        let mut ignored = Vec::new();
        for device in &objects.devices {
            world.upsert_device(&convert::device(device));
        }
        for model in &objects.models {
            world.upsert_model(convert::model(model));
        }
        for pool in &objects.pools {
            match convert::pool(pool) {
                Ok(facts) => drop(world.upsert_pool(facts)),
                Err(error) => ignored.push(format!("HardwarePool {}: {error}", pool.name_any())),
            }
        }
        for baseline in &objects.baselines {
            match convert::baseline(baseline) {
                Ok(facts) => drop(world.upsert_baseline(facts)),
                Err(error) => ignored.push(format!("FirmwareBaseline {}: {error}", baseline.name_any())),
            }
        }
        for policy in &objects.policies {
            match convert::policy(policy) {
                Ok(facts) => drop(world.upsert_policy(facts)),
                Err(error) => {
                    ignored.push(format!(
                        "FleetPolicy {}: {error}; until it is mended the fleet is paused",
                        policy.name_any()
                    ));
                    world.upsert_policy(PolicyFacts {
                        paused: true,
                        ..PolicyFacts::default()
                    });
                }
            }
        }
        for rollout in &objects.rollouts {
            world.upsert_rollout(convert::rollout(rollout));
        }
        for approval in &objects.approvals {
            if let Some(facts) = convert::approval(approval) {
                world.upsert_approval(facts);
            }
        }
        world.believe_gates(objects.taken_at);
        for operation in &objects.operations {
            world.upsert_operation(convert::operation(operation));
        }
        Self {
            objects,
            world,
            ignored,
        }
    }
}
