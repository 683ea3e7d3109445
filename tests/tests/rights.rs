//! The operator has the rights that it needs and no more: nothing was denied to it.

use anyhow::{Result, ensure};
use kiban_devcluster::{DevCluster, Options as ClusterOptions};
use kiban_lab::{
    estate::{Estate, Pool, Wanted},
    lab::Lab,
};
use kiban_sim::{Class, Options, Persona};
use serde_json::json;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_denied_and_secrets_are_read_by_name() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir()?;
    let cluster = DevCluster::start_with(ClusterOptions {
        audit: true,
        ..ClusterOptions::default()
    })
    .await?;
    let namespace = cluster.namespace("rights").await?;
    let mut estate = Estate::new(dir.path().join("firmware"));
    estate.pools = vec![Pool::new("web", json!({"maxUnavailable": 1}), json!({}))];
    estate.add("web", Persona::Dell, 3);
    let lab = Lab::build(namespace, dir.path(), estate, Options::fast(150.0)).await?;
    let mut operator = lab.start_operator("a", &[]).await?;
    lab.wait_compliant(LONG).await?;
    let wanted = Wanted::from([(Class::Bios, "1.15.2".to_owned())]);
    lab.estate
        .write_baseline(&lab.repository, Persona::Dell, &wanted)?;
    let commit = lab.repository.commit("Raise BIOS on r650")?;
    lab.wait_applied(&commit, LONG).await?;
    lab.wait_for("three updates done", "devices", LONG, |devices| {
        devices
            .iter()
            .all(|device| device["status"]["lastOperation"]["outcome"] == "Succeeded")
    })
    .await?;
    lab.wait_quiet(LONG).await?;
    operator.stop(Duration::from_secs(30))?;

    let requests = cluster.requests()?;
    let ours: Vec<_> = requests
        .iter()
        .filter(|request| request.user.starts_with("system:serviceaccount:"))
        .collect();
    ensure!(
        ours.len() > 50,
        "only {} requests of the operator in the audit log",
        ours.len()
    );
    let denied: Vec<_> = ours.iter().filter(|request| request.code == 403).collect();
    ensure!(denied.is_empty(), "denied: {denied:?}");
    let listed: Vec<_> = ours
        .iter()
        .filter(|request| request.resource == "secrets" && request.verb != "get")
        .collect();
    ensure!(
        listed.is_empty(),
        "Secrets were not only read by name: {listed:?}"
    );
    Ok(())
}
