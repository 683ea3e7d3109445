//! What a commit may do to a fleet: a wrong one nothing, an emptied repository nothing, a mended one all.

use anyhow::{Result, ensure};
use kiban_lab::{
    estate::{Estate, Pool},
    lab::Lab,
};
use kiban_sim::{Options, Persona};
use serde_json::{Value, json};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

async fn repository(lab: &Lab, what: &str, done: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = lab
        .wait_for(what, "fleetrepositories", LONG, |items| items.iter().any(&done))
        .await?;
    Ok(found.into_iter().find(|item| done(item)).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_commit_and_an_emptied_repository_change_nothing() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir()?;
    let namespace = kiban_devcluster::shared().await?.namespace("desired").await?;
    let mut estate = Estate::new(dir.path().join("firmware"));
    estate.pools = vec![Pool::new("web", json!({"maxUnavailable": 1}), json!({}))];
    estate.add("web", Persona::Dell, 3);
    let lab = Lab::build(namespace, dir.path(), estate, Options::fast(150.0)).await?;
    let _operator = lab.start_operator("a", &[]).await?;
    lab.wait_compliant(LONG).await?;
    let good = lab.repository.git(&["rev-parse", "HEAD"])?.trim().to_owned();

    // A typo: refused whole, with file, line and field, and the last good commit stays.
    let pool = lab.repository.read("pools/web.yaml")?;
    let typo = pool.replace("maxUnavailable", "maxUnavaliable");
    ensure!(typo != pool, "the pool's file has no maxUnavailable:\n{pool}");
    let line = typo
        .lines()
        .position(|line| line.contains("maxUnavaliable"))
        .map_or(0, |at| at + 1);
    lab.repository.write("pools/web.yaml", &typo)?;
    let bad = lab.repository.commit("Misspell a field")?;
    let refused = repository(&lab, "the refusal", |item| {
        item["status"]["refusedCommit"] == *bad
    })
    .await?;
    let error = &refused["status"]["errors"][0];
    ensure!(
        error["file"] == "pools/web.yaml" && error["line"] == line,
        "{error}"
    );
    ensure!(
        error["message"]
            .as_str()
            .is_some_and(|text| text.contains("maxUnavailable")),
        "{error}"
    );
    ensure!(
        refused["status"]["applied"]["commit"] == *good,
        "{}",
        refused["status"]["applied"]
    );

    // Emptied: nothing is removed.
    lab.repository.git(&["rm", "--quiet", "-r", "."])?;
    let empty = lab.repository.commit("Remove everything")?;
    let held = repository(&lab, "the emptied repository noticed", |item| {
        item["status"]["refusedCommit"] == *empty
    })
    .await?;
    ensure!(
        held["status"]["applied"]["commit"] == *good,
        "{}",
        held["status"]["applied"]
    );
    let (devices, pools) = (lab.list("devices").await?, lab.list("hardwarepools").await?);
    ensure!(
        devices.len() == 3 && pools.len() == 1,
        "{} devices, {} pools left",
        devices.len(),
        pools.len()
    );

    // Mended: applied.
    lab.repository.git(&["checkout", "--quiet", &good, "--", "."])?;
    let mended = lab.repository.commit("Bring it all back")?;
    lab.wait_applied(&mended, LONG).await?;
    lab.wait_compliant(LONG).await
}
