//! Sick BMCs: each ends in a condition that says what happened and what to do, and no other machine suffers.

use anyhow::{Result, ensure};
use kiban_lab::lab::compliance;
use kiban_sim::{Class, Fault, Rule};
use kiban_tests::{
    LONG, NEW_BIOS, commit_bios, commit_firmware, condition, dells, ended, judge_flashes, judge_ledger,
    named, names, update_requests, with_operators,
};
use serde_json::{Value, json};
use std::net::TcpListener;

#[tokio::test(flavor = "multi_thread")]
async fn a_sick_bmc_is_named_and_the_healthy_go_on() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let namespace = kiban_devcluster::shared().await?.namespace("faults").await?;
    // The sick are less than half of their room, which would be taken for dark.
    let budget = json!({"maxUnavailable": 12, "maxPerDomain": 12});
    let lab = dells(namespace, dir.path(), 14, budget).await?;
    let operator = lab.start_operator("a", &["--read-interval", "2s"]).await?;
    with_operators(&[&operator], async {
        lab.wait_compliant(LONG).await?;
        let names = names(&lab);
        // Nobody may ever come to see what a BMC sends clients away to.
        let elsewhere = TcpListener::bind("127.0.0.1:0")?;
        elsewhere.set_nonblocking(true)?;
        let sick = [
            Fault::Refuse,
            Fault::Hang,
            Fault::CertificateChanged,
            Fault::WrongSerial {
                serial: "STRANGE".into(),
            },
            Fault::Html,
            Fault::Redirect {
                location: format!("https://{}/redfish/v1", elsewhere.local_addr()?),
            },
        ];
        for (name, fault) in names.iter().zip(sick.clone()) {
            lab.fleet.faults().add(Rule::new(name, fault));
        }
        let (ill, well) = names.split_at(sick.len());
        lab.wait_for("every sick machine named", "devices", LONG, |devices| {
            ill.iter().all(|name| {
                let device = named(devices, name);
                condition(device, "Reachable").is_some_and(|condition| condition["status"] == "False")
                    || !device["status"]["hold"].is_null()
            })
        })
        .await?;

        commit_bios(&lab, NEW_BIOS)?;
        let devices = lab
            .wait_for("the healthy at the new baseline", "devices", LONG, |devices| {
                well.iter().all(|name| {
                    let device = named(devices, name);
                    compliance(device) == "Compliant" && ended(device, "Succeeded")
                })
            })
            .await?;
        for name in ill {
            ensure!(lab.fleet.record().flashes(name).is_empty(), "{name} was flashed");
            let ready = condition(named(&devices, name), "Ready")
                .cloned()
                .unwrap_or_default();
            ensure!(
                ready["status"] == "False" && ready["message"].as_str().is_some_and(|text| text.len() > 20),
                "{name} does not say what happened: {ready}"
            );
        }
        let hold = |index: usize| named(&devices, &names[index])["status"]["hold"]["reason"].clone();
        ensure!(hold(2) == "CertificateChanged", "{}", hold(2));
        ensure!(hold(3) == "WrongMachine", "{}", hold(3));
        let redirected = condition(named(&devices, &names[5]), "Reachable")
            .cloned()
            .unwrap_or_default();
        ensure!(
            redirected["message"]
                .as_str()
                .is_some_and(|text| text.contains("a redirect is not followed")),
            "{redirected}"
        );
        ensure!(elsewhere.accept().is_err(), "a redirect was followed");
        judge_flashes(&lab, well, 1)
    })
    .await
}

/// What goes wrong with one machine's update, and how the operation is to end.
struct Case {
    rule: fn(&str) -> Rule,
    /// The operation's outcome, and what its message must say.
    outcome: &'static str,
    says: &'static str,
    /// The reason of the device's `Ready` once all is told.
    ready: &'static str,
    /// How many requests with an image reached the BMC.
    sent: usize,
}

fn bios(name: &str, fault: Fault) -> Rule {
    Rule::new(name, fault).class(Class::Bios)
}

fn request(name: &str, fault: Fault) -> Rule {
    Rule::new(name, fault)
        .on("POST", "/redfish/v1/UpdateService/*")
        .times(1)
}

/// Of a BIOS, which waits for the host's reset.
const BIOS: [Case; 8] = [
    // The task is lost while the update goes on: what the BMC runs afterwards decides.
    Case {
        rule: |name| bios(name, Fault::TaskVanishes),
        outcome: "Succeeded",
        says: "",
        ready: "AsWanted",
        sent: 1,
    },
    // Completed, it says, and nothing changed.
    Case {
        rule: |name| bios(name, Fault::CompletedUnchanged),
        outcome: "Failed",
        says: "BIOS runs 1.13.2, not 1.15.2",
        ready: "UpdateFailed",
        sent: 1,
    },
    // Accepted, and nothing happens.
    Case {
        rule: |name| Rule::new(name, Fault::AcceptNothing),
        outcome: "Failed",
        says: "stands still",
        ready: "UpdateFailed",
        sent: 1,
    },
    // The BMC never comes back.
    Case {
        rule: |name| bios(name, Fault::Brick),
        outcome: "Failed",
        says: "Connection refused",
        ready: "Unreachable",
        sent: 1,
    },
    // Accepted, and the connection cut before the answer: it is looked for, and never sent again.
    Case {
        rule: |name| request(name, Fault::CutAfter),
        outcome: "Succeeded",
        says: "",
        ready: "AsWanted",
        sent: 1,
    },
    // Cut before it had any effect: nobody can tell, so a person must look, and it is not sent again either. The emulator's
    // record has no request that it did not read.
    Case {
        rule: |name| request(name, Fault::CutBefore),
        outcome: "Held",
        says: "release the hold",
        ready: "OutcomeUnknown",
        sent: 0,
    },
    // The image does not verify.
    Case {
        rule: |name| bios(name, Fault::TaskFails),
        outcome: "Failed",
        says: "the image failed verification",
        ready: "UpdateFailed",
        sent: 1,
    },
    // The second reset brings the backup image back, and nobody resets twice.
    Case {
        rule: |name| bios(name, Fault::FlipBack),
        outcome: "Succeeded",
        says: "",
        ready: "AsWanted",
        sent: 1,
    },
];

/// Of a BMC's own firmware, which is written at once.
const BMC: [Case; 3] = [
    // Stuck at 100 % with a critical status, and never written.
    Case {
        rule: |name| Rule::new(name, Fault::TaskStuck { critical: true }).class(Class::Bmc),
        outcome: "Failed",
        says: "stands still",
        ready: "UpdateFailed",
        sent: 1,
    },
    // The BMC restarts in the middle of the flash and runs what it ran before.
    Case {
        rule: |name| Rule::new(name, Fault::RebootMidFlash).class(Class::Bmc),
        outcome: "Failed",
        says: "",
        ready: "UpdateFailed",
        sent: 1,
    },
    // The BMC never comes back.
    Case {
        rule: |name| Rule::new(name, Fault::Brick).class(Class::Bmc),
        outcome: "Failed",
        says: "Connection refused",
        ready: "Unreachable",
        sent: 1,
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_bios_update_that_goes_wrong_says_how_and_is_never_sent_twice() -> Result<()> {
    goes_wrong(&BIOS, Class::Bios, NEW_BIOS).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_update_that_goes_wrong_says_how_and_is_never_sent_twice() -> Result<()> {
    goes_wrong(&BMC, Class::Bmc, "7.00.00.174").await
}

/// One machine per case, and three that are well.
async fn goes_wrong(cases: &[Case], class: Class, version: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let namespace = kiban_devcluster::shared().await?.namespace("updates").await?;
    let budget = json!({"maxUnavailable": 12, "maxPerDomain": 6});
    let lab = dells(namespace, dir.path(), cases.len() + 3, budget).await?;
    let operator = lab.start_operator("a", &["--read-interval", "2s"]).await?;
    with_operators(&[&operator], async {
        lab.wait_compliant(LONG).await?;
        let names = names(&lab);
        let (ill, well) = names.split_at(cases.len());
        for (name, case) in ill.iter().zip(cases) {
            lab.fleet.faults().add((case.rule)(name));
        }
        commit_firmware(&lab, class, version)?;
        lab.wait_for("every operation ended", "devices", LONG, |devices| {
            devices
                .iter()
                .all(|device| !device["status"]["lastOperation"].is_null())
        })
        .await?;
        lab.wait_quiet(LONG).await?;
        for rule in lab.fleet.faults().list() {
            ensure!(
                rule.fired > 0,
                "the fault {:?} of {} never struck",
                rule.fault,
                rule.machine
            );
        }
        let devices = lab
            .wait_for("every device says where it stands", "devices", LONG, |devices| {
                ill.iter().zip(cases).all(|(name, case)| {
                    condition(named(devices, name), "Ready")
                        .is_some_and(|condition| condition["reason"] == case.ready)
                })
            })
            .await?;
        let events = lab.list("events.events.k8s.io").await?;
        for (name, case) in ill.iter().zip(cases) {
            judge(named(&devices, name), case, &events)?;
            let sent = update_requests(&lab, name);
            ensure!(
                sent.len() == case.sent,
                "{name} was sent {} images: {sent:?}",
                sent.len()
            );
        }
        for name in well {
            ensure!(ended(named(&devices, name), "Succeeded"), "{name} suffered");
        }
        judge_flashes(&lab, well, 1)?;
        judge_ledger(&lab, names.len()).map(drop)
    })
    .await
}

fn judge(device: &Value, case: &Case, events: &[Value]) -> Result<()> {
    let name = &device["metadata"]["name"];
    let last = &device["status"]["lastOperation"];
    let message = last["message"].as_str().unwrap_or_default();
    ensure!(last["outcome"] == case.outcome, "{name}: {last}");
    ensure!(
        message.contains(case.says),
        "{name} does not say {:?}: {message}",
        case.says
    );
    if case.outcome == "Succeeded" {
        return Ok(());
    }
    // What to do: release the hold, or commit.
    let ready = condition(device, "Ready").cloned().unwrap_or_default();
    let text = ready["message"].as_str().unwrap_or_default();
    ensure!(
        ["release the hold", "rollout.retry", "check power and network"]
            .iter()
            .any(|advice| text.contains(advice)),
        "{name} does not say what to do: {ready}"
    );
    let reason = if case.outcome == "Held" {
        "Held"
    } else {
        "UpdateFailed"
    };
    ensure!(
        events.iter().any(|event| {
            event["reason"] == reason
                && event["regarding"]["name"] == *name
                && event["note"]
                    .as_str()
                    .is_some_and(|note| note.contains(case.says))
        }),
        "no event tells that {name} was {reason}"
    );
    Ok(())
}
