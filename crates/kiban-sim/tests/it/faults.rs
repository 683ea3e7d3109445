//! Every fault does what it says, to the machine it names and to no other.

use crate::bmc::{Bmc, fleet, one, picture, until, until_settled, until_version};
use kiban_sim::{Class, Fault, FlashOutcome, Persona, Rule, What};
use serde_json::{Value, json};
use std::time::Duration;

const ROOT: &str = "/redfish/v1/";

#[tokio::test]
async fn faults_of_connections() {
    let fleet = fleet(&[Persona::Dell, Persona::Dell]).await;
    let machines = fleet.machines();
    let (hurt, well) = (Bmc::new(&fleet, &machines[0]), Bmc::new(&fleet, &machines[1]));
    let name = machines[0].name().to_owned();
    let quick = |bmc: &Bmc| {
        bmc.client
            .get(bmc.url(ROOT))
            .timeout(Duration::from_secs(2))
            .send()
    };
    for (fault, timeout) in [
        (Fault::Refuse, false),
        (Fault::Hang, true),
        (Fault::TlsStall, true),
        (Fault::CertificateChanged, false),
        (Fault::CertificateExpired, false),
    ] {
        fleet.faults().clear();
        // A port that was closed takes a moment to open again.
        until("it is well", || async { quick(&hurt).await.ok() }).await;
        // Connections that are open stay open; the fault is met by new ones.
        let hurt = Bmc::new(&fleet, &machines[0]);
        fleet.faults().add(Rule::new(name.as_str(), fault.clone()));
        let error = until("it bites", || async { quick(&hurt).await.err() }).await;
        assert_eq!(error.is_timeout(), timeout, "{fault:?}: {error:?}");
        assert!(
            quick(&well).await.is_ok() || well.status(ROOT).await == 200,
            "{fault:?} hurts only its machine"
        );
    }
    fleet.faults().clear();
    until("it is over when removed", || async { quick(&hurt).await.ok() }).await;
    fleet
        .faults()
        .add(Rule::new(name.as_str(), Fault::Refuse).times(1));
    let fresh = Bmc::new(&fleet, &machines[0]);
    assert!(fresh.client.get(fresh.url(ROOT)).send().await.is_err());
    assert_eq!(fresh.status(ROOT).await, 200, "only once");
}

#[tokio::test]
async fn faults_of_answers() {
    let (fleet, machine, bmc) = one(Persona::Lenovo).await;
    let path = "/redfish/v1/Systems/1";
    let hit = |fault: Fault| {
        fleet.faults().clear();
        fleet
            .faults()
            .add(Rule::new(machine.name(), fault).on("GET", path).times(1));
        bmc.try_get(path)
    };
    let retry = Fault::Status {
        status: 503,
        retry_after: Some(7),
        message_id: Some("Base.1.12.ServiceShuttingDown".into()),
    };
    let answer = hit(retry).await.unwrap();
    assert_eq!(
        (
            answer.status().as_u16(),
            answer.headers()["retry-after"].to_str().unwrap()
        ),
        (503, "7")
    );
    assert!(answer.text().await.unwrap().contains("ServiceShuttingDown"));

    let answer = hit(Fault::Truncate { at: 10 }).await.unwrap();
    assert!(answer.content_length().unwrap() > 10);
    assert!(answer.bytes().await.is_err(), "the body ends early");
    let wrong: Value = hit(Fault::WrongType).await.unwrap().json().await.unwrap();
    assert_eq!(
        (&wrong["SerialNumber"], &wrong["Status"]),
        (&json!(7), &Value::Null)
    );
    assert_eq!(
        hit(Fault::HugeBody { bytes: 3_000_000 })
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap()
            .len(),
        3_000_000
    );
    let deep = hit(Fault::DeepNesting { depth: 10_000 })
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(deep.len(), 20_000);
    assert!(
        serde_json::from_str::<Value>(&deep).is_err(),
        "past any sane depth"
    );
    let away = hit(Fault::Redirect {
        location: "https://127.0.0.1:1/".into(),
    })
    .await
    .unwrap();
    assert_eq!(
        (
            away.status().as_u16(),
            away.headers()["location"].to_str().unwrap()
        ),
        (302, "https://127.0.0.1:1/")
    );
    let page = hit(Fault::Html).await.unwrap();
    assert_eq!(
        (
            page.status().as_u16(),
            page.headers()["content-type"].to_str().unwrap()
        ),
        (200, "text/html")
    );
    let slow = hit(Fault::SlowDrip { bytes_per_second: 50 }).await.unwrap();
    let started = tokio::time::timeout(Duration::from_millis(300), slow.bytes()).await;
    assert!(
        started.is_err(),
        "a page at 50 bytes a second is not there after 300 ms"
    );
    assert!(hit(Fault::CutBefore).await.is_err());
    assert_eq!(hit(Fault::Latency { ms: 1 }).await.unwrap().status(), 200);
    assert_eq!(bmc.status(path).await, 200, "over");
}

#[tokio::test]
async fn a_cut_before_has_no_effect_and_a_cut_after_has() {
    let (fleet, _machine, bmc) = one(Persona::Dell).await;
    let path = "/redfish/v1/UpdateService/MultipartUpload";
    let image = picture(Class::Bmc, "9.9");
    let parameters = || json!({"Targets": [], "Oem": {}});
    fleet
        .faults()
        .add(Rule::new("m", Fault::CutBefore).on("POST", path).times(1));
    assert!(bmc.multipart(path, &image, parameters()).await.is_err());
    fleet
        .faults()
        .add(Rule::new("m", Fault::CutAfter).on("POST", path).times(1));
    assert!(bmc.multipart(path, &image, parameters()).await.is_err());
    until("the second one is written", || async {
        fleet.record().flashes("m").first()?.finished.map(|_| ())
    })
    .await;
    assert_eq!(fleet.record().flashes("m").len(), 1);
    let requests = fleet.record().requests("POST", "MultipartUpload");
    let faults: Vec<_> = requests
        .iter()
        .filter_map(|e| match &e.what {
            What::Request { status, summary, .. } => {
                Some((*status, summary.fault.clone().unwrap(), summary.digest.clone()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        faults,
        [
            (0, "cutBefore".into(), None),
            (0, "cutAfter".into(), Some(image.sha256.clone()))
        ]
    );
}

#[tokio::test]
async fn a_double_flash_is_proved_by_the_record() {
    let (fleet, machine, bmc) = one(Persona::Lenovo).await;
    for _ in 0..2 {
        assert_eq!(
            bmc.update(Persona::Lenovo, &picture(Class::Drive, "D2"))
                .await
                .status(),
            202
        );
        until_version(&machine, Class::Drive, "D2").await;
        until("it is idle", || async {
            (!machine.state().updating).then_some(())
        })
        .await;
    }
    assert_eq!(
        fleet.record().double_flashes().len(),
        2,
        "two drives, each written twice"
    );
}

#[tokio::test]
async fn faults_of_updates() {
    let old = "AFE128H-1.41";
    // (fault, the task's last state, the outcome of the flash)
    for (fault, state, outcome) in [
        (
            Fault::CompletedUnchanged,
            Some("Completed"),
            Some(FlashOutcome::Lied),
        ),
        (Fault::TaskFails, Some("Exception"), None),
        (Fault::AcceptNothing, Some("New"), None),
        (Fault::RebootMidFlash, None, Some(FlashOutcome::Interrupted)),
        (Fault::Brick, None, Some(FlashOutcome::Bricked)),
    ] {
        let (fleet, machine, bmc) = one(Persona::Lenovo).await;
        fleet.faults().add(Rule::new("m", fault.clone()));
        let answer: Value = bmc
            .update(Persona::Lenovo, &picture(Class::Bios, "NEW"))
            .await
            .json()
            .await
            .unwrap();
        let task = answer["@odata.id"].as_str().unwrap().to_owned();
        if let Some(state) = state {
            bmc.until_task(&task, state).await;
        }
        match outcome {
            Some(outcome) => {
                let seen = until("the flash ended", || async {
                    fleet.record().flashes("m").first()?.finished
                })
                .await;
                assert_eq!(seen.1, outcome, "{fault:?}");
            }
            None => assert!(fleet.record().flashes("m").is_empty(), "{fault:?}"),
        }
        if fault == Fault::Brick {
            assert_eq!(machine.state().bmc, "Dead");
            assert!(
                bmc.client
                    .get(bmc.url(ROOT))
                    .timeout(Duration::from_secs(2))
                    .send()
                    .await
                    .is_err()
            );
            machine.reset_bmc();
            assert_eq!(machine.state().bmc, "Dead", "nothing wakes it");
            assert!(fleet.record().of("m").iter().any(|e| e.what == What::Bricked));
            continue;
        }
        until_settled(&machine).await;
        bmc.reset(Persona::Lenovo, "ForceRestart").await;
        until_settled(&machine).await;
        assert_eq!(machine.version(Class::Bios).unwrap(), old, "{fault:?}");
    }
}

#[tokio::test]
async fn a_stuck_task_ends_with_a_bmc_reset_and_a_vanished_one_does_its_work() {
    let (fleet, machine, bmc) = one(Persona::Lenovo).await;
    fleet.faults().add(
        Rule::new("m", Fault::TaskStuck { critical: true })
            .class(Class::Bios)
            .times(1),
    );
    let answer: Value = bmc
        .update(Persona::Lenovo, &picture(Class::Bios, "S1"))
        .await
        .json()
        .await
        .unwrap();
    let path = answer["@odata.id"].as_str().unwrap().to_owned();
    let task = until("it is stuck", || async {
        let task = bmc.get(&path).await;
        (task["TaskStatus"] == "Critical" && task["PercentComplete"] == 100).then_some(task)
    })
    .await;
    assert_eq!(task["TaskState"], "Running");
    machine.reset_bmc();
    until_settled(&machine).await;
    fleet.faults().add(Rule::new("m", Fault::TaskVanishes).times(1));
    let answer: Value = bmc
        .update(Persona::Lenovo, &picture(Class::Drive, "V1"))
        .await
        .json()
        .await
        .unwrap();
    let path = answer["@odata.id"].as_str().unwrap().to_owned();
    until("it vanished", || async {
        (bmc.status(&path).await == 404).then_some(())
    })
    .await;
    until_version(&machine, Class::Drive, "V1").await;
}

#[tokio::test]
async fn a_version_flips_back_at_the_second_reset() {
    let (fleet, machine, bmc) = one(Persona::Hpe).await;
    fleet
        .faults()
        .add(Rule::new("m", Fault::FlipBack).class(Class::Bios).times(1));
    bmc.update(Persona::Hpe, &picture(Class::Bios, "FLIP")).await;
    until("it is staged", || async {
        machine
            .state()
            .firmware
            .iter()
            .any(|f| f.staged.is_some())
            .then_some(())
    })
    .await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        bmc.reset(Persona::Hpe, "ForceRestart").await;
        until_settled(&machine).await;
        seen.push(machine.version(Class::Bios).unwrap());
    }
    assert_eq!(seen, ["FLIP", "FLIP", "U46 v1.64 (08/11/2022)"]);
}

#[tokio::test]
async fn faults_of_machines() {
    let (fleet, machine, bmc) = one(Persona::Dell).await;
    let system = Bmc::system(Persona::Dell);
    let stranger: uuid::Uuid = "00000000-0000-0000-0000-00000000beef".parse().unwrap();
    fleet.faults().add(Rule::new(
        "m",
        Fault::WrongSerial {
            serial: "STRANGE".into(),
        },
    ));
    fleet
        .faults()
        .add(Rule::new("m", Fault::DuplicateUuid { uuid: stranger }));
    fleet.faults().add(Rule::new("m", Fault::Clock1970));
    let doc = bmc.get(system).await;
    assert_eq!(
        (&doc["SerialNumber"], &doc["UUID"]),
        (&json!("STRANGE"), &json!(stranger.to_string()))
    );
    let manager = bmc.get("/redfish/v1/Managers/iDRAC.Embedded.1").await;
    assert!(manager["DateTime"].as_str().unwrap().starts_with("1970-"));
    fleet.faults().add(Rule::new("m", Fault::PowerIgnored).times(1));
    assert_eq!(bmc.reset(Persona::Dell, "ForceOff").await.status(), 204);
    assert_eq!(machine.state().host, "On", "answered well, not done");
    fleet.faults().clear();
    assert_eq!(bmc.get(system).await["SerialNumber"], machine.state().serial);

    let list = "/redfish/v1/UpdateService/FirmwareInventory";
    let straight = bmc.get(list).await["Members"].clone();
    assert_eq!(bmc.get(list).await["Members"], straight);
    fleet.faults().add(Rule::new("m", Fault::ShuffleInventory));
    let mut orders = Vec::new();
    for _ in 0..4 {
        let mut members = bmc.get(list).await["Members"].as_array().unwrap().clone();
        orders.push(members.clone());
        members.sort_by_key(ToString::to_string);
        let mut sorted = straight.as_array().unwrap().clone();
        sorted.sort_by_key(ToString::to_string);
        assert_eq!(members, sorted, "another order of the same members");
    }
    orders.dedup();
    assert!(orders.len() > 1);
}
