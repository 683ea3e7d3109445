//! Sick BMCs: each ends in a condition that says what happened and what to do, and no other machine suffers.

use anyhow::{Result, ensure};
use kiban_lab::{
    estate::{Estate, Pool, Wanted},
    lab::{Lab, compliance},
};
use kiban_sim::{Class, Fault, Options, Persona, Rule};
use serde_json::{Value, json};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

fn condition<'a>(device: &'a Value, kind: &str) -> Option<&'a Value> {
    device["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sick_bmc_is_named_and_the_healthy_go_on() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir()?;
    let namespace = kiban_devcluster::shared().await?.namespace("faults").await?;
    let mut estate = Estate::new(dir.path().join("firmware"));
    estate.pools = vec![Pool::new(
        "web",
        json!({"maxUnavailable": 8, "maxPerDomain": 6}),
        json!({"waves": [{"percent": 100}], "haltAfter": {"failed": 20}}),
    )];
    estate.add("web", Persona::Dell, 8);
    let lab = Lab::build(namespace, dir.path(), estate, Options::fast(150.0)).await?;
    let _operator = lab.start_operator("a", &["--read-interval", "2s"]).await?;
    lab.wait_compliant(LONG).await?;

    let names: Vec<String> = lab
        .estate
        .machines
        .iter()
        .map(|machine| machine.name.clone())
        .collect();
    let stranger = Fault::WrongSerial {
        serial: "STRANGE".into(),
    };
    let sick = [
        (&names[0], Fault::Refuse),
        (&names[1], Fault::Hang),
        (&names[2], Fault::CertificateChanged),
        (&names[3], stranger),
        (&names[4], Fault::Html),
    ];
    for (name, fault) in sick.clone() {
        lab.fleet.faults().add(Rule::new(name, fault));
    }
    lab.wait_for("every sick machine named", "devices", LONG, |devices| {
        devices.iter().take(5).all(|device| {
            condition(device, "Reachable").is_some_and(|condition| condition["status"] == "False")
                || !device["status"]["hold"].is_null()
        })
    })
    .await?;

    lab.estate.write_baseline(
        &lab.repository,
        Persona::Dell,
        &Wanted::from([(Class::Bios, "1.15.2".to_owned())]),
    )?;
    lab.repository.commit("Raise BIOS on r650")?;
    let healthy = |device: &Value| {
        names[5..]
            .iter()
            .any(|name| device["metadata"]["name"] == name.as_str())
    };
    let devices = lab
        .wait_for("the healthy at the new baseline", "devices", LONG, |devices| {
            let well: Vec<&Value> = devices.iter().filter(|device| healthy(device)).collect();
            well.len() == 3
                && well.iter().all(|device| {
                    compliance(device) == "Compliant"
                        && device["status"]["lastOperation"]["outcome"] == "Succeeded"
                })
        })
        .await?;
    for (name, _) in &sick {
        ensure!(lab.fleet.record().flashes(name).is_empty(), "{name} was flashed");
        let Some(device) = devices
            .iter()
            .find(|device| device["metadata"]["name"] == name.as_str())
        else {
            continue;
        };
        let ready = condition(device, "Ready").cloned().unwrap_or_default();
        ensure!(
            ready["status"] == "False" && ready["message"].as_str().is_some_and(|text| text.len() > 20),
            "{name} does not say what happened: {ready}"
        );
    }
    let hold = |index: usize| {
        let device = devices
            .iter()
            .find(|device| device["metadata"]["name"] == names[index].as_str());
        device
            .map(|device| device["status"]["hold"]["reason"].clone())
            .unwrap_or_default()
    };
    ensure!(hold(2) == "CertificateChanged", "{}", hold(2));
    ensure!(hold(3) == "WrongMachine", "{}", hold(3));
    Ok(())
}
