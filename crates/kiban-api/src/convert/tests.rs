use super::{baseline, device, interval, model, operation, policy, pool, rollout, traffic};
use kiban_core::{amount::Amount, facts};
use serde_json::{Value, json};
use std::time::Duration;

/// The object of a kind in the file of accepted ones, with a change.
fn object<K: serde::de::DeserializeOwned>(kind: &str, change: impl FnOnce(&mut Value)) -> K {
    let objects: Vec<Value> = serde_saphyr::from_multiple(include_str!("../../tests/accepted.yaml")).unwrap();
    let mut object = objects.into_iter().find(|object| object["kind"] == kind).unwrap();
    change(&mut object);
    serde_json::from_value(object).unwrap()
}

#[test]
fn a_fresh_device_is_never_read() {
    let facts = device(&object("Device", |_| {}));
    assert_eq!(facts.name, "tyo-b07-12");
    assert_eq!((facts.rack.as_str(), facts.pool.as_str()), ("b07", "hosting"));
    assert_eq!(facts.power, ["pdu-b07-a", "pdu-b07-b"]);
    assert_eq!(facts.firmware, None);
    assert_eq!(
        (facts.reach, facts.health, facts.fresh),
        (facts::Reach::NeverRead, facts::Health::Unknown, false)
    );
}

#[test]
fn a_redundancy_group_is_a_label() {
    let facts = device(&object("Device", |device| {
        device["metadata"]["labels"] = json!({"kiban.dev/redundancy-group": "pair-7"});
    }));
    assert_eq!(facts.redundancy_group, "pair-7");
}

#[test]
fn a_read_device_has_its_firmware() {
    let facts = device(&object("Device", |device| {
        device["status"] = json!({
            "health": "Warning",
            "firmware": [
                {"class": "NIC", "name": "NIC 1", "version": "20.37", "updateable": true},
                {"class": "PSU", "name": "PSU 1", "version": "1.2", "updateable": false},
                {"class": "CPLD", "name": "CPLD", "version": "3"},
            ],
            "firmwareReadAt": "2026-11-24T00:00:00Z",
            "lastOperation": {"id": "x", "campaign": "c", "revision": "r", "outcome": "Held", "finishedAt": "2026-11-24T00:00:00Z"},
            "conditions": [
                {"type": "Reachable", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-11-24T00:00:00Z"},
                {"type": "InventoryFresh", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-11-24T00:00:00Z"},
            ],
        });
    }));
    assert_eq!(
        (facts.reach, facts.health, facts.fresh),
        (facts::Reach::Reachable, facts::Health::Warning, true)
    );
    let firmware = facts.firmware.unwrap();
    assert_eq!(firmware[0].version, "20.37");
    let updateable: Vec<_> = firmware.iter().map(|entry| entry.updateable).collect();
    assert_eq!(updateable, [Some(true), Some(false), None], "not said is not no");
    assert_eq!(facts.last_operation.unwrap().outcome, facts::Outcome::Held);
}

#[test]
fn garbage_in_a_status_reads_as_not_known() {
    let facts = device(&object("Device", |device| {
        device["status"] = json!({
            "health": "<html>", "power": "\u{0}",
            "conditions": [{"type": "Reachable", "status": "maybe", "reason": "", "message": "",
                "lastTransitionTime": "1970-01-01T00:00:00Z"}],
        });
    }));
    assert_eq!(
        (facts.reach, facts.health),
        (facts::Reach::NeverRead, facts::Health::Unknown)
    );
    // An operation with an outcome that nobody knows still uses the budget.
    let facts = operation(&object("Operation", |op| {
        op["status"] = json!({"outcome": "Exploded", "step": "?"});
    }));
    assert!(!facts.outcome.is_final());
    let facts = rollout(&object("Rollout", |rollout| {
        rollout["status"] = json!({"wave": 4_000_000_000_u32});
    }));
    assert_eq!(facts.status.unwrap().wave, 4_000_000_000);
}

#[test]
fn a_pool_has_its_amounts_and_waves() {
    let facts = pool(&object("HardwarePool", |_| {})).unwrap();
    assert_eq!(facts.max_unavailable, Amount::Percent(5));
    assert_eq!((facts.at_most, facts.priority), (Some(40), 10));
    assert_eq!(facts.domains[1].over, facts::FailureDomain::Room);
    assert_eq!(facts.service, "hosting-package");
    assert_eq!(facts.waves[0].reach, Amount::Count(1));
    assert_eq!(facts.waves[2].soak, jiff::SignedDuration::from_hours(36));
    assert_eq!(facts.halt_after_failed, 2);
}

#[test]
fn every_wrong_field_of_a_pool_is_named() {
    let wrong = pool(&object("HardwarePool", |pool| {
        pool["spec"]["disruption"]["maxUnavailable"] = json!("half");
        pool["spec"]["rollout"]["waves"] =
            json!([{"devices": 1, "soak": "5"}, {"devices": 1, "percent": 1}, {"percent": 900}]);
    }))
    .unwrap_err();
    let fields: Vec<_> = wrong.0.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "spec.disruption.maxUnavailable",
            "spec.rollout.waves[0].soak",
            "spec.rollout.waves[1]",
            "spec.rollout.waves[2].percent"
        ]
    );
    assert_eq!(wrong.category(), "InvalidSpec");
    assert!(
        wrong
            .to_string()
            .contains("spec.rollout.waves[0].soak: a duration is written like 24h"),
        "{wrong}"
    );
}

#[test]
fn a_baseline_has_its_components_and_commit() {
    let facts = baseline(&object("FirmwareBaseline", |baseline| {
        baseline["metadata"]["annotations"] = json!({"kiban.dev/commit": "a1c9f3e"});
    }))
    .unwrap();
    assert_eq!(facts.commit, "a1c9f3e");
    assert_eq!(
        facts.components[0].class,
        kiban_core::component::ComponentClass::Bmc
    );
    assert_eq!(facts.components[1].activation, Some(facts::Activation::ColdBoot));
    assert!(
        facts.components[1]
            .matches
            .covers("mellanox", "ConnectX-6 Lx", "NIC 1")
    );
    assert_eq!(facts.components[0].image.as_ref().unwrap().size, Some(18_874_368));
}

#[test]
fn the_product_is_what_the_bmc_must_report_where_nothing_else_is_written() {
    let facts = model(&object("HardwareModel", |model| {
        model["spec"]["reportedAs"] = json!([]);
    }));
    assert_eq!(facts.reported_as, ["PowerEdge R650"]);
}

#[test]
fn the_policy_and_its_limits() {
    let facts = policy(&object("FleetPolicy", |_| {})).unwrap();
    assert_eq!(facts.max_unavailable, Some(Amount::Percent(2)));
    assert_eq!(facts.at_most, Some(50));
    let power = facts::DomainLimit {
        over: facts::FailureDomain::Power,
        max: 4,
    };
    assert_eq!((facts.domains.len(), facts.domains[1]), (2, power));
    assert_eq!(
        (facts.services[0].name.as_str(), facts.services[0].at_most),
        ("hosting-package", Some(20))
    );
    assert_eq!(facts.denied_versions[0].versions, ["1.15.0"]);
    assert_eq!(facts.dark, facts::DarkFacts::default());
    let limits = traffic(&object("FleetPolicy", |_| {})).unwrap();
    assert_eq!(
        (limits.max_concurrent, limits.read_interval),
        (64, Duration::from_secs(600))
    );
    let wrong = traffic(&object("FleetPolicy", |policy| {
        policy["spec"]["bmc"]["readInterval"] = json!("soon");
    }));
    assert_eq!(wrong.unwrap_err().0[0].field, "spec.bmc.readInterval");
    assert_eq!(
        interval(&object("FleetRepository", |_| {})),
        Ok(Duration::from_secs(60))
    );
}

#[test]
fn classes_are_the_same_words_on_both_sides() {
    for class in kiban_core::component::ComponentClass::ALL {
        let kind = crate::shared::ComponentClass::from(class);
        assert_eq!(serde_json::to_value(kind).unwrap(), class.as_str());
        assert_eq!(kiban_core::component::ComponentClass::from(kind), class);
    }
}
