//! Every maker's BMC through the whole operator: a BIOS and a BMC update each, by the way that the BMC wants it.
//!
//! What ran before and after, and how often a host was down, is read from the emulator itself.

use anyhow::{Context, Result, ensure};
use kiban_lab::{
    estate::{Estate, Pool, Wanted},
    lab::{Lab, compliance},
};
use kiban_sim::{Class, Options, Persona, What};
use kiban_tests::{LONG, SPEED, ended, host_downs, judge_flashes, lab, with_operators};
use serde_json::json;

const MAKERS: [(Persona, &str, &str); 5] = [
    (Persona::Dell, "1.15.2", "7.00.00.174"),
    (Persona::Hpe, "U46 v2.10 (02/29/2024)", "3.04 Jul 16 2024"),
    (Persona::Lenovo, "AFE130A-1.50", "AFBT40A-3.10"),
    (Persona::Supermicro, "BIOS Date: 02/02/2024 Ver 2.0", "01.03.16"),
    (Persona::Openbmc, "TP2-3.10", "2.16.0-31-g4f1c9a2b77"),
];

/// Commits new firmware for every maker's model, and waits until the emulator says that all of the fleet runs it.
async fn bring(lab: &Lab, class: Class, wanted: impl Fn(usize) -> Wanted, what: &str) -> Result<()> {
    for (index, (persona, ..)) in MAKERS.iter().enumerate() {
        lab.estate
            .write_baseline(&lab.repository, *persona, &wanted(index))?;
    }
    let commit = lab.repository.commit(what)?;
    lab.wait_applied(&commit, LONG).await?;
    let runs = |name: &str| lab.fleet.machine(name).and_then(|machine| machine.version(class));
    lab.wait_for("every machine updated", "devices", LONG, |devices| {
        let at_it = lab.estate.machines.iter().all(|machine| {
            let index = MAKERS
                .iter()
                .position(|(persona, ..)| *persona == machine.persona);
            let version = index.and_then(|index| wanted(index).remove(&class));
            version.is_some() && runs(&machine.name) == version
        });
        at_it
            || devices
                .iter()
                .any(|device| ended(device, "Failed") || ended(device, "Held"))
    })
    .await?;
    lab.wait_quiet(LONG).await?;
    lab.wait_for("every update succeeded", "devices", LONG, |devices| {
        devices
            .iter()
            .all(|device| compliance(device) == "Compliant" && ended(device, "Succeeded"))
    })
    .await
    .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_makers_bmc_is_updated_once_and_its_host_is_down_once_at_most() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let namespace = kiban_devcluster::shared().await?.namespace("vendors").await?;
    let mut estate = Estate::new(dir.path().join("firmware"));
    estate.pools = vec![Pool::new(
        "web",
        json!({"maxUnavailable": 10, "maxPerDomain": 6}),
        json!({"waves": [{"percent": 100}], "haltAfter": {"failed": 1}}),
    )];
    for (persona, ..) in MAKERS {
        estate.add("web", persona, 2);
    }
    let lab = lab(namespace, dir.path(), estate, Options::fast(SPEED)).await?;
    let operator = lab.start_operator("a", &[]).await?;
    with_operators(&[&operator], async {
        lab.wait_compliant(LONG).await?;
        let all = kiban_tests::names(&lab);

        let bios = |index: usize| Wanted::from([(Class::Bios, MAKERS[index].1.to_owned())]);
        bring(&lab, Class::Bios, bios, "Raise every maker's BIOS").await?;
        judge_flashes(&lab, &all, 1)?;
        for name in &all {
            let downs = host_downs(&lab, name);
            ensure!(
                downs == 1,
                "the host of {name} went down {downs} times for one BIOS"
            );
        }

        let both = |index: usize| {
            Wanted::from([
                (Class::Bios, MAKERS[index].1.to_owned()),
                (Class::Bmc, MAKERS[index].2.to_owned()),
            ])
        };
        bring(&lab, Class::Bmc, both, "Raise every maker's BMC").await?;
        judge_flashes(&lab, &all, 2)?;
        for name in &all {
            let downs = host_downs(&lab, name);
            ensure!(downs == 1, "the host of {name} went down for a BMC's update");
            let entries = lab.fleet.record().of(name);
            let resets = entries
                .iter()
                .filter(|entry| matches!(entry.what, What::BmcDown { .. }))
                .count();
            // Most restart by themselves; one that is slow to do so is asked to.
            ensure!(
                (1..=2).contains(&resets),
                "the BMC of {name} went down {resets} times for one update of its own"
            );
        }

        for machine in &lab.estate.machines {
            let (_, bios, bmc) = MAKERS
                .iter()
                .find(|(persona, ..)| *persona == machine.persona)
                .context("a known maker")?;
            let emulated = lab.fleet.machine(&machine.name).context("a machine")?;
            let runs = |class| emulated.version(class).unwrap_or_default();
            ensure!(
                runs(Class::Bios) == *bios && runs(Class::Bmc) == *bmc,
                "{} runs BIOS {:?} and BMC {:?}",
                machine.name,
                runs(Class::Bios),
                runs(Class::Bmc)
            );
        }
        kiban_tests::judge_ledger(&lab, all.len() * 2).map(drop)
    })
    .await
}
