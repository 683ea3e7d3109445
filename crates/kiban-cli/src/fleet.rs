//! The fleet as the planner sees it, read once: the ground of `status` and `explain`.

use crate::{connect::Connection, failure::Failure};
use kiban_api::{
    Device, FirmwareBaseline, FleetPolicy, HardwareModel, HardwarePool, Operation, Rollout, convert,
};
use kiban_core::world::World;
use kube::ResourceExt as _;

/// Everything that a plan is made of.
pub struct Fleet {
    /// Devices.
    pub devices: Vec<Device>,
    /// Pools.
    pub pools: Vec<HardwarePool>,
    /// Policies: at most one, `fleet`.
    pub policies: Vec<FleetPolicy>,
    /// Rollouts.
    pub rollouts: Vec<Rollout>,
    /// Operations.
    pub operations: Vec<Operation>,
    /// The same as facts.
    pub world: World,
    /// Objects that do not convert: left out, as the operator does, and said.
    pub ignored: Vec<String>,
}

/// Reads everything.
pub async fn read(connection: &Connection) -> Result<Fleet, Failure> {
    let (devices, models, pools, baselines, policies, rollouts, operations) = futures::try_join!(
        connection.list::<Device>(),
        connection.list::<HardwareModel>(),
        connection.list::<HardwarePool>(),
        connection.list::<FirmwareBaseline>(),
        connection.list::<FleetPolicy>(),
        connection.list::<Rollout>(),
        connection.list::<Operation>(),
    )?;
    let mut world = World::new();
    let mut ignored = Vec::new();
    for device in &devices {
        world.upsert_device(&convert::device(device));
    }
    for model in &models {
        world.upsert_model(convert::model(model));
    }
    for pool in &pools {
        match convert::pool(pool) {
            Ok(facts) => drop(world.upsert_pool(facts)),
            Err(error) => ignored.push(format!("HardwarePool {}: {error}", pool.name_any())),
        }
    }
    for baseline in &baselines {
        match convert::baseline(baseline) {
            Ok(facts) => drop(world.upsert_baseline(facts)),
            Err(error) => ignored.push(format!("FirmwareBaseline {}: {error}", baseline.name_any())),
        }
    }
    for policy in &policies {
        match convert::policy(policy) {
            Ok(facts) => drop(world.upsert_policy(facts)),
            Err(error) => ignored.push(format!("FleetPolicy {}: {error}", policy.name_any())),
        }
    }
    for rollout in &rollouts {
        world.upsert_rollout(convert::rollout(rollout));
    }
    world.believe_gates(jiff::Timestamp::now());
    for operation in &operations {
        world.upsert_operation(convert::operation(operation));
    }
    Ok(Fleet {
        devices,
        pools,
        policies,
        rollouts,
        operations,
        world,
        ignored,
    })
}
