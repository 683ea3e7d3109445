//! Stepping stones: a BIOS passes through every version that lies on its way, each once and in order; where no path is
//! known, nothing is sent and the device says what would mend it.

use anyhow::{Context, Result, ensure};
use kiban_lab::{
    estate::{baseline_name, model_name, object, yaml},
    lab::{Lab, versions},
};
use kiban_sim::{Class, Persona};
use kiban_tests::{LONG, dells, ended, judge_budget, judge_flashes, judge_ledger, names, with_operators};
use serde_json::{Value, json};

/// The R650s' baseline with nothing but a BIOS, from some versions and via others.
fn commit_path(lab: &Lab, version: &str, from: &str, via: &[&str]) -> Result<String> {
    let image = |version: &str| -> Result<Value> {
        let (url, sha256) = lab.estate.image(Persona::Dell, Class::Bios, version)?;
        Ok(json!({"url": url, "sha256": sha256}))
    };
    let stones = via
        .iter()
        .map(|stone| Ok(json!({"version": stone, "image": image(stone)?})))
        .collect::<Result<Vec<Value>>>()?;
    let name = baseline_name(Persona::Dell);
    let spec = json!({
        "models": [model_name(Persona::Dell)],
        "components": [{
            "class": "BIOS", "version": version, "from": from, "via": stones, "image": image(version)?,
        }],
    });
    let text = yaml(&[object("FirmwareBaseline", &name, spec)])?;
    lab.repository.write(&format!("baselines/{name}.yaml"), &text)?;
    lab.repository
        .commit(&format!("Bring the BIOS of r650 to {version} via {via:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn stepping_stones_are_installed_in_order_and_a_missing_one_is_asked_for() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let namespace = kiban_devcluster::shared().await?.namespace("paths").await?;
    let lab = dells(
        namespace,
        dir.path(),
        3,
        json!({"maxUnavailable": 2, "maxPerDomain": 2}),
    )
    .await?;
    let operator = lab.start_operator("a", &[]).await?;
    with_operators(&[&operator], async {
        lab.wait_compliant(LONG).await?;
        let names = names(&lab);

        // Delivered with 1.13.2: nothing leads from there to a version that is installed from 1.15 on.
        let commit = commit_path(&lab, "1.16.2", ">=1.15.0", &[])?;
        lab.wait_applied(&commit, LONG).await?;
        let waiting = lab
            .wait_for("devices that wait for a path", "devices", LONG, |devices| {
                devices
                    .iter()
                    .all(|device| device["status"]["waitingOn"]["reason"] == "Path")
            })
            .await?;
        let message = waiting
            .first()
            .and_then(|device| device["status"]["waitingOn"]["message"].as_str())
            .context("what it waits on")?;
        ensure!(
            message.contains("1.13.2") && message.contains("stepping stone"),
            "{message}"
        );
        ensure!(
            lab.fleet.record().all_flashes().is_empty(),
            "something was flashed without a path"
        );

        // The stones that were asked for.
        let commit = commit_path(&lab, "1.16.2", ">=1.15.0", &["1.14.1", "1.15.2"])?;
        lab.wait_applied(&commit, LONG).await?;
        lab.wait_for("every machine over the stones", "devices", LONG, |devices| {
            devices
                .iter()
                .all(|device| ended(device, "Succeeded") && versions(device, "BIOS") == ["1.16.2"])
        })
        .await?;
        lab.wait_quiet(LONG).await?;
        let way = ["1.14.1", "1.15.2", "1.16.2"];
        let digests = way
            .iter()
            .map(|version| Ok(lab.estate.image(Persona::Dell, Class::Bios, version)?.1))
            .collect::<Result<Vec<String>>>()?;
        for name in &names {
            let flashed: Vec<String> = lab
                .fleet
                .record()
                .flashes(name)
                .into_iter()
                .map(|flash| flash.digest)
                .collect();
            ensure!(flashed == digests, "{name} went another way: {flashed:?}");
        }
        let operations = judge_ledger(&lab, 3)?;
        for operation in &operations {
            let at = |version: &str| {
                operation
                    .find(&format!("after: \"{version}\""))
                    .unwrap_or(usize::MAX)
            };
            ensure!(
                at(way[0]) < at(way[1]) && at(way[1]) < at(way[2]) && at(way[2]) < usize::MAX,
                "the ledger does not tell the way:\n{operation}"
            );
        }
        judge_flashes(&lab, &names, 3)?;
        judge_budget(&lab, 2)
    })
    .await
}
