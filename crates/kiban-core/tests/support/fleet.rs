//! A fleet for tests: facts that are quickly written, and outcomes that are applied as executors and ledger would.

#![allow(dead_code, missing_docs, clippy::unwrap_used, unreachable_pub)]

use jiff::{SignedDuration, Timestamp};
use kiban_core::{
    World,
    amount::Amount,
    component::ComponentClass,
    facts::*,
    plan::{NewOperation, Plan},
};

pub const OLD: &str = "1.10.2";
pub const NEW: &str = "1.15.2";

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + second).unwrap()
}

pub fn model(name: &str) -> ModelFacts {
    ModelFacts {
        name: name.into(),
        reported_as: vec![format!("{name}*")],
    }
}

/// A device that was read, is well and runs a BIOS version.
pub fn device(name: &str, pool: &str, rack: &str, bios: &str) -> DeviceFacts {
    DeviceFacts {
        name: name.into(),
        model: "r650".into(),
        serial: format!("S-{name}"),
        bmc_url: format!("https://{name}.bmc"),
        site: "tokyo-1".into(),
        room: "b".into(),
        rack: rack.into(),
        pool: pool.into(),
        identity: Some(IdentityFacts {
            model: "r650 (x)".into(),
            serial: format!("S-{name}"),
            ..IdentityFacts::default()
        }),
        health: Health::Ok,
        reach: Reach::Reachable,
        fresh: true,
        firmware: Some(firmware(bios)),
        ..DeviceFacts::default()
    }
}

pub fn firmware(bios: &str) -> Vec<FirmwareFacts> {
    vec![
        FirmwareFacts::new(ComponentClass::Bmc, "iDRAC", "7.00.00.174"),
        FirmwareFacts::new(ComponentClass::Bios, "BIOS", bios),
    ]
}

pub fn wanted(version: &str) -> WantedComponent {
    WantedComponent {
        class: ComponentClass::Bios,
        matches: ComponentMatch::default(),
        version: version.into(),
        accept: None,
        deny: Vec::new(),
        image: Some(Image {
            url: format!("https://firmware.example/{version}"),
            sha256: "ab".repeat(32),
            size: None,
        }),
        activation: None,
        allow_downgrade: true,
        from: None,
        via: Vec::new(),
    }
}

pub fn baseline(version: &str, commit: &str) -> BaselineFacts {
    BaselineFacts {
        name: "r650-q4".into(),
        models: vec!["r650".into()],
        components: vec![wanted(version)],
        commit: commit.into(),
    }
}

pub fn wave(reach: Amount, soak_s: i64) -> WaveFacts {
    WaveFacts {
        reach,
        soak: SignedDuration::from_secs(soak_s),
    }
}

pub fn pool(name: &str, max_unavailable: Amount, per_domain: u32) -> PoolFacts {
    PoolFacts {
        baselines: vec!["r650-q4".into()],
        max_unavailable,
        max_per_domain: per_domain,
        ..PoolFacts::new(name)
    }
}

/// `count` devices in racks of four, all on the old version.
pub fn fleet(count: usize, pool_facts: PoolFacts) -> World {
    let mut world = World::new();
    world.upsert_model(model("r650"));
    world.upsert_baseline(baseline(NEW, "c1"));
    for n in 0..count {
        world.upsert_device(&device(
            &format!("d{n:02}"),
            &pool_facts.name,
            &format!("r{}", n / 4),
            OLD,
        ));
    }
    world.upsert_pool(pool_facts);
    world
}

/// What the shell does with a plan: writes rollouts, creates and deletes operations.
pub fn carry_out(world: &mut World, plan: &Plan) {
    for state in &plan.rollouts {
        world.upsert_rollout(RolloutFacts {
            name: state.name.clone(),
            pool: state.pool.clone(),
            baseline: state.baseline.clone(),
            status: Some(state.status.clone()),
        });
    }
    for withdrawal in &plan.withdraw {
        world.remove_operation(&withdrawal.device);
    }
    for operation in &plan.operations {
        world.upsert_operation(facts(operation, Outcome::Pending));
    }
}

pub fn facts(operation: &NewOperation, outcome: Outcome) -> OperationFacts {
    OperationFacts {
        device: operation.device.clone(),
        id: operation.id.clone(),
        campaign: operation.campaign.clone(),
        pool: operation.pool.clone(),
        revision: operation.revision.clone(),
        wave: operation.wave,
        epoch: 1,
        outcome,
    }
}

/// An operation ends: the executor writes the device, then the ledger lets the operation go.
pub fn end(world: &mut World, device: &mut DeviceFacts, outcome: Outcome, version: &str, now: Timestamp) {
    let operation = world.operation(&device.name).unwrap().clone();
    world.upsert_operation(OperationFacts {
        outcome,
        ..operation.clone()
    });
    device.last_operation = Some(LastOperationFacts {
        id: operation.id,
        revision: operation.revision,
        outcome,
        finished_at: now,
    });
    if outcome == Outcome::Succeeded {
        device.firmware = Some(firmware(version));
        device.firmware_changed_at = Some(now);
    }
    if outcome == Outcome::Held {
        device.hold = Some(HoldFacts {
            reason: "OutcomeUnknown".into(),
            operation: String::new(),
        });
    }
    world.upsert_device(device);
    world.remove_operation(&device.name);
}
