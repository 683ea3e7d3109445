//! The operator has the rights that it needs and no more: nothing was denied to it, and nothing that it was granted lay idle.

use anyhow::{Result, ensure};
use kiban_devcluster::{DevCluster, Options as ClusterOptions};
use kiban_lab::{
    estate::{Estate, Pool, Wanted, object, yaml},
    lab::Lab,
};
use kiban_sim::{Class, Options, Persona};
use serde_json::{Value, json};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

/// One object more of every kind that Git may hold. A word of each is what the next commit changes.
fn everything(lab: &Lab, word: &str) -> Result<String> {
    let serial = "EXTRA01";
    let device = json!({
        "type": "Server", "model": "extra", "serial": serial,
        // Nobody answers there: the machine concerns no rollout.
        "bmc": {"url": "https://127.0.0.1:1", "credentials": "bmc", "tls": {"firstUse": true}},
        "location": {"site": "tokyo-1", "room": "a", "rack": word},
    });
    yaml(&[
        object(
            "HardwareModel",
            "extra",
            json!({"manufacturer": word, "product": "Extra", "reportedAs": ["Extra"]}),
        ),
        object(
            "FirmwareBaseline",
            "extra",
            json!({"models": ["extra"], "components": [{
                "class": "BIOS",
                "version": format!("1.0-{word}"),
                "image": {"url": "https://firmware.example/extra.bin", "sha256": "ab".repeat(32)},
            }]}),
        ),
        object(
            "HardwarePool",
            "extra",
            json!({"service": word, "class": "Public", "baselines": ["extra"]}),
        ),
        object("Device", "extra", device),
        object(
            "FleetRepository",
            "extra",
            json!({"url": lab.repository.url(), "path": word, "suspend": true}),
        ),
    ])
}

/// A commit for each thing that sync may do to each kind: made, changed, removed.
async fn make_change_and_remove_everything(lab: &Lab) -> Result<()> {
    for word in ["one", "two"] {
        lab.repository.write("extra.yaml", &everything(lab, word)?)?;
        let policy = object(
            "FleetPolicy",
            "fleet",
            json!({"maxUnavailable": if word == "one" { "10%" } else { "20%" }}),
        );
        lab.repository.write("policy.yaml", &yaml(&[policy])?)?;
        let commit = lab.repository.commit(&format!("Describe everything, {word}"))?;
        lab.wait_applied(&commit, LONG).await?;
        lab.wait_for("the pool's status", "hardwarepools", LONG, |pools| {
            pools.iter().all(|pool| !pool["status"].is_null())
        })
        .await?;
    }
    lab.repository
        .git(&["rm", "--quiet", "extra.yaml", "policy.yaml"])?;
    let commit = lab.repository.commit("Remove what was described for the test")?;
    lab.wait_applied(&commit, LONG).await?;
    lab.wait_for("the extra device gone", "devices", LONG, |devices| {
        devices.iter().all(|device| device["metadata"]["name"] != "extra")
    })
    .await?;
    let repositories = lab.list("fleetrepositories").await?;
    ensure!(
        repositories.len() == 2,
        "a repository is not removed by a commit, but {} are left",
        repositories.len()
    );
    Ok(())
}

/// Rights that are used when a write met another writer's, which a story cannot be told to bring about: the object is read
/// live before the write is made anew.
const AFTER_A_CONFLICT: [(&str, &str, &str); 2] = [
    ("kiban.dev", "devices", "get"),
    ("kiban.dev", "fleetrepositories", "get"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_right_is_used_nothing_is_denied_and_secrets_are_read_by_name() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir()?;
    let cluster = DevCluster::start_with(ClusterOptions {
        audit: true,
        ..ClusterOptions::default()
    })
    .await?;
    let namespace = cluster.namespace("rights").await?;
    let mut estate = Estate::new(dir.path().join("firmware"));
    estate.pools = vec![Pool::new(
        "web",
        json!({"maxUnavailable": 8, "maxPerDomain": 8}),
        json!({"waves": [{"percent": 100}]}),
    )];
    estate.add("web", Persona::Dell, 8);
    estate.add("web", Persona::Hpe, 1);
    let lab = Lab::build(namespace, dir.path(), estate, Options::fast(150.0)).await?;
    let mut operator = lab.start_operator("a", &[]).await?;
    lab.wait_compliant(LONG).await?;
    // Eight at once, whose operations are released together; then one alone.
    for (persona, version, machines) in [(Persona::Dell, "1.15.2", 8), (Persona::Hpe, "2.99", 9)] {
        let wanted = Wanted::from([(Class::Bios, version.to_owned())]);
        lab.estate.write_baseline(&lab.repository, persona, &wanted)?;
        let commit = lab.repository.commit("Raise the BIOS of a maker's machines")?;
        lab.wait_applied(&commit, LONG).await?;
        lab.wait_for("every update done", "devices", LONG, |devices| {
            let done = |device: &&Value| device["status"]["lastOperation"]["outcome"] == "Succeeded";
            devices.iter().filter(done).count() == machines
        })
        .await?;
        lab.wait_quiet(LONG).await?;
    }
    make_change_and_remove_everything(&lab).await?;
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
    let mut unused = kiban_api::rbac::unused(ours.iter().map(|request| {
        (
            request.group.as_str(),
            request.resource.as_str(),
            request.verb.as_str(),
            request.code,
        )
    }));
    unused.retain(|right| !AFTER_A_CONFLICT.contains(right));
    ensure!(unused.is_empty(), "granted and never used: {unused:?}");
    Ok(())
}
