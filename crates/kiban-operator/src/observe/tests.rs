//! What a status says, case by case; nothing here touches a network.

use super::{
    read::{Seen, Unread},
    status::{Change, Measure, next},
};
use crate::condition;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kiban_api::{
    Device, DeviceStatus,
    device::{DeviceSpec, Hold, LastOperation},
    labels::RELEASE_HOLD_ANNOTATION,
};
use kiban_bmc::{Fingerprint, Health, HealthReport, Identity, Inventory, PowerState};
use kiban_core::{
    component::{Component, ComponentClass},
    facts::{BaselineFacts, ComponentMatch, Image, WantedComponent},
};
use serde_json::json;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn device() -> Device {
    let spec: DeviceSpec = serde_json::from_value(json!({
        "model": "r650", "serial": "7XK2M13",
        "bmc": {"url": "https://10.0.0.1", "credentials": "bmc", "tls": {"firstUse": true}},
    }))
    .unwrap();
    Device::new("a1", spec)
}

fn seen(bios: &str, power: PowerState) -> Box<Seen> {
    let component = |class, name: &str, version: &str| {
        let mut component = Component::new(name, class, name);
        component.version = Some(version.into());
        component
    };
    let mut components = vec![component(ComponentClass::Bios, "BIOS", bios)];
    if power == PowerState::On {
        components.push(component(ComponentClass::Nic, "NIC.1", "20.37"));
    }
    let health = HealthReport {
        system: Health::Ok,
        bmc: Health::Ok,
        power,
        steady: true,
        booting: false,
        messages: Vec::new(),
    };
    Box::new(Seen {
        identity: Identity {
            serial: Some("7XK2M13".into()),
            ..Identity::default()
        },
        health: Some(health),
        inventory: Inventory {
            components,
            read_at: at(1),
            power,
            findings: Vec::new(),
        },
        certificate: Some(Fingerprint([7; 32])),
    })
}

fn after(device: &Device, change: &Change, second: i64) -> (Device, DeviceStatus) {
    let status = next(device, change, &Measure::default(), at(second));
    (
        Device {
            status: Some(status.clone()),
            ..device.clone()
        },
        status,
    )
}

fn reasons(status: &DeviceStatus) -> Vec<&str> {
    status
        .unledgered
        .iter()
        .map(|transition| transition.reason.as_str())
        .collect()
}

fn failed() -> Change {
    let message = "no route".into();
    Change::Unread {
        why: Unread::Failed {
            category: "Unreachable",
            message,
            slow: true,
        },
        stale: false,
    }
}

#[test]
fn the_same_reading_gives_the_same_status_whatever_the_time() {
    let (device, first) = after(&device(), &Change::Read(seen("1.0", PowerState::On)), 100);
    assert!(reasons(&first).is_empty(), "the ledger tells of the enrolment");
    assert_eq!(first.pinned_sha256.as_deref(), Some("07".repeat(32).as_str()));
    let (_, second) = after(&device, &Change::Read(seen("1.0", PowerState::On)), 9_000);
    assert_eq!(first, second);
}

#[test]
fn firmware_that_changed_by_itself_is_a_transition() {
    let (device, _) = after(&device(), &Change::Read(seen("1.0", PowerState::On)), 100);
    let (_, status) = after(&device, &Change::Read(seen("1.1", PowerState::On)), 200);
    assert_eq!(reasons(&status), ["FirmwareChanged"]);
    assert!(status.unledgered[0].message.contains("1.0") && status.unledgered[0].message.contains("1.1"));
    assert_eq!(status.firmware_read_at.map(|time| time.0), Some(at(200)));
}

#[test]
fn what_a_host_that_is_off_hides_is_not_gone() {
    let (device, on) = after(&device(), &Change::Read(seen("1.0", PowerState::On)), 100);
    let (_, off) = after(&device, &Change::Read(seen("1.0", PowerState::Off)), 200);
    assert_eq!(off.firmware, on.firmware);
    assert_eq!(off.power.as_deref(), Some("Off"));
    assert!(reasons(&off).is_empty());
}

#[test]
fn a_silent_bmc_is_told_once_with_what_to_do_and_its_return_too() {
    let (device, _) = after(&device(), &Change::Read(seen("1.0", PowerState::On)), 100);
    let (device, gone) = after(&device, &failed(), 200);
    let (device, still) = after(&device, &failed(), 300);
    assert_eq!(gone, still, "nothing changes while nothing changes");
    assert_eq!(
        (reasons(&gone).len(), gone.health.as_deref()),
        (1, Some("Unknown"))
    );
    let reach = gone
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Reachable")
        .unwrap();
    assert_eq!(
        (reach.status.as_str(), reach.reason.as_str()),
        ("False", "Unreachable")
    );
    assert!(
        reach.message.contains("check power and network"),
        "{}",
        reach.message
    );
    assert!(!gone.firmware.is_empty(), "what was known stays known");
    let (_, back) = after(&device, &Change::Read(seen("1.0", PowerState::On)), 400);
    assert_eq!(reasons(&back), ["Unreachable", "Reachable"]);
}

#[test]
fn another_machine_holds_the_device_until_a_person_releases_it() {
    let (device, _) = after(&device(), &Change::Read(seen("1.0", PowerState::On)), 100);
    let wrong = Change::Unread {
        why: Unread::WrongMachine("serial X".into()),
        stale: false,
    };
    let (device, held) = after(&device, &wrong, 200);
    assert_eq!(
        held.hold.as_ref().map(|hold| hold.reason.as_str()),
        Some("WrongMachine")
    );
    let (mut device, still) = after(&device, &Change::Read(seen("1.0", PowerState::On)), 300);
    assert!(still.hold.is_some(), "a right answer alone releases nothing");
    device.metadata.annotations =
        Some([(RELEASE_HOLD_ANNOTATION.to_owned(), "WrongMachine".to_owned())].into());
    let (device, wrong_still) = after(&device, &wrong, 400);
    assert!(
        wrong_still.hold.is_some(),
        "nor does an annotation while the wrong one answers"
    );
    let (_, free) = after(&device, &Change::Read(seen("1.0", PowerState::On)), 500);
    assert_eq!(free.hold, None);
    assert_eq!(reasons(&free).last(), Some(&"Released"));
}

#[test]
fn an_operations_hold_is_released_by_its_id_only() {
    let (mut device, mut status) = after(&device(), &Change::Read(seen("1.0", PowerState::On)), 100);
    status.hold = Some(Hold {
        reason: "OutcomeUnknown".into(),
        message: String::new(),
        operation: "op7".into(),
    });
    device.status = Some(status);
    for (value, held) in [("OutcomeUnknown", true), ("op6", true), ("op7", false)] {
        device.metadata.annotations = Some([(RELEASE_HOLD_ANNOTATION.to_owned(), value.to_owned())].into());
        let (_, status) = after(&device, &Change::Read(seen("1.0", PowerState::On)), 200);
        assert_eq!(status.hold.is_some(), held, "{value}");
    }
}

#[test]
fn the_outbox_stays_bounded_and_its_oldest_become_one() {
    let mut device = device();
    for n in 0..60 {
        let (next, _) = after(&device, &Change::Read(seen(&format!("1.{n}"), PowerState::On)), n);
        device = next;
    }
    let list = device.status.unwrap().unledgered;
    assert_eq!(list.len(), 16);
    assert!(
        list[0].message.contains("1.0 to 1.1") && list[0].message.contains("1.40"),
        "{}",
        list[0].message
    );
}

/// A baseline that wants a BIOS.
fn wants(version: &str) -> Measure {
    let image = Some(Image {
        url: "https://f/x".into(),
        sha256: "ab".repeat(32),
        size: None,
    });
    let bios = WantedComponent {
        class: ComponentClass::Bios,
        matches: ComponentMatch::default(),
        version: version.into(),
        accept: None,
        deny: Vec::new(),
        image,
        activation: None,
        allow_downgrade: false,
        from: None,
        via: Vec::new(),
    };
    let baseline = BaselineFacts {
        name: "b".into(),
        components: vec![bios],
        ..BaselineFacts::default()
    };
    Measure {
        baseline: Some(baseline),
        revision: Some("r1".into()),
        ..Measure::default()
    }
}

#[test]
fn a_failed_update_says_what_happened_and_what_to_do_until_the_next_revision() {
    let (device, _) = after(&device(), &Change::Read(seen("1.0", PowerState::On)), 100);
    let last = LastOperation {
        id: "op1".into(),
        campaign: "Rollout/web-b".into(),
        revision: "r1".into(),
        outcome: "Failed".into(),
        message: "the image failed verification".into(),
        finished_at: Time(at(200)),
    };
    let finished = Change::Finished {
        last,
        hold: None,
        seen: None,
        classes: Vec::new(),
    };
    let mut measure = wants("2.0");
    let status = next(&device, &finished, &measure, at(200));
    let stalled = condition::find(&status.conditions, "Stalled").unwrap();
    assert_eq!(stalled.reason, "UpdateFailed");
    assert!(
        stalled.message.contains("the image failed verification")
            && stalled.message.contains("rollout.retry"),
        "{}",
        stalled.message
    );
    let device = Device {
        status: Some(status),
        ..device
    };
    let reason = |change: &Change, measure: &Measure| {
        let status = next(&device, change, measure, at(300));
        condition::find(&status.conditions, "Ready")
            .unwrap()
            .reason
            .clone()
    };
    let there = Change::Read(seen("2.0", PowerState::On));
    assert_eq!(reason(&there, &measure), "AsWanted", "it got there after all");
    measure.revision = Some("r2".into());
    assert_eq!(
        reason(&Change::Measured, &measure),
        "UpdateWanted",
        "it is tried again"
    );
}

#[test]
fn compliance_names_what_differs_and_is_unknown_when_nothing_fresh_is_known() {
    let measure = wants("2.0");
    let state = |device: &Device, change: &Change| {
        let status = next(device, change, &measure, at(100));
        let compliance = status.compliance.unwrap();
        (compliance.state, compliance.differs.len())
    };
    let device = device();
    assert_eq!(
        state(&device, &Change::Read(seen("1.0", PowerState::On))),
        ("NonCompliant".into(), 1)
    );
    assert_eq!(
        state(&device, &Change::Read(seen("2.0", PowerState::On))),
        ("Compliant".into(), 0)
    );
    assert_eq!(state(&device, &failed()), ("Unknown".into(), 0), "never read");
}
