//! No secret leaves: not in logs, status, events, metrics, ledger or what the command line prints, on good days and bad ones.

use anyhow::{Context, Result, ensure};
use kiban_git::testserver::{HttpsServer, SshServer, StartError};
use kiban_lab::{lab::BMC_PASSWORD, operator::Operator};
use kiban_sim::{Class, Fault, Rule};
use kiban_tests::{LONG, NEW_BIOS, commit_bios, condition, dells, ended, named, names, with_operators};
use serde_json::json;
use std::path::Path;

/// Everything under a folder that is not Git's or the emulator's own.
fn texts(dir: &Path, into: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            texts(&path, into)?;
        } else {
            into.push((path.display().to_string(), std::fs::read(&path)?));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_anything_that_the_operator_writes() -> Result<()> {
    let dir = tempfile::tempdir()?;
    // Its client key is a private key like any other: here it signs the ledger.
    let (key, mut server) = match (SshServer::start(), HttpsServer::start(&dir.path().join("git"))) {
        (Ok(ssh), Ok(https)) => (ssh.client_key(), https),
        (Err(StartError::Absent { program }), _) | (_, Err(StartError::Absent { program })) => {
            eprintln!("skipped: {program} is not installed");
            return Ok(());
        }
        (Err(error), _) | (_, Err(error)) => return Err(error.into()),
    };
    let namespace = kiban_devcluster::shared().await?.namespace("secrets").await?;
    let lab = dells(
        namespace,
        dir.path(),
        4,
        json!({"maxUnavailable": 4, "maxPerDomain": 4}),
    )
    .await?;
    lab.repository
        .git_in_remote(&["config", "http.receivepack", "true"])?;
    let secrets = [
        json!({"username": HttpsServer::USER, "password": HttpsServer::PASSWORD, "ca.crt": server.ca()}),
        json!({"identity": key}),
    ];
    for (name, data) in ["git", "signer"].into_iter().zip(secrets) {
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        lab.namespace.apply(&secret.to_string()).await?;
    }
    let remote = lab.repository.remote();
    let remote = remote.file_name().and_then(|name| name.to_str());
    lab.apply_repository(json!({
        "url": server.url(remote.context("the remote's name")?),
        "interval": "2s",
        "credentials": {"name": "git"},
        "ledger": {"signingKey": {"name": "signer"}},
    }))
    .await?;
    let mut options = lab.operator_options("a", &["--git-deadline", "10s", "--read-interval", "2s"])?;
    // As much as an engineer would switch on to look into a fault.
    options.log =
        Some("debug,kiban_operator=trace,kiban_bmc=trace,kiban_git=trace,kiban_core=trace".to_owned());
    let operator = tokio::task::spawn_blocking(move || -> Result<Operator> {
        let mut operator = Operator::start(&options)?;
        operator.wait_ready(LONG)?;
        Ok(operator)
    })
    .await??;
    let operator = &operator;
    let metrics = with_operators(&[operator], async {
        lab.wait_compliant(LONG).await?;
        let names = names(&lab);
        // An account that is refused, an update that fails, a remote that is away: errors are what carries secrets out.
        let denied = Fault::Status {
            status: 401,
            retry_after: None,
            message_id: None,
        };
        lab.fleet.faults().add(Rule::new(&names[0], denied));
        lab.fleet
            .faults()
            .add(Rule::new(&names[1], Fault::TaskFails).class(Class::Bios));
        lab.wait_for("the refused account told", "devices", LONG, |devices| {
            condition(named(devices, &names[0]), "Reachable").is_some_and(|it| it["status"] == "False")
        })
        .await?;
        let commit = commit_bios(&lab, NEW_BIOS)?;
        lab.wait_applied(&commit, LONG).await?;
        lab.wait_for("one failure, two successes", "devices", LONG, |devices| {
            ended(named(devices, &names[1]), "Failed")
                && names[2..]
                    .iter()
                    .all(|name| ended(named(devices, name), "Succeeded"))
        })
        .await?;
        lab.wait_for("the ledger pushed", "operations", LONG, |operations| {
            operations.is_empty()
        })
        .await?;
        server.stop();
        lab.wait_for("the remote's absence told", "fleetrepositories", LONG, |items| {
            items
                .iter()
                .all(|item| condition(item, "Fetched").is_some_and(|it| it["status"] == "False"))
        })
        .await?;
        operator.metrics()
    })
    .await?;

    let mut written = vec![("the metrics".to_owned(), metrics.into_bytes())];
    for kind in [
        "devices",
        "operations",
        "rollouts",
        "fleetrepositories",
        "hardwarepools",
        "events",
        "leases",
    ] {
        let text = lab.namespace.kubectl(["get", kind, "-o", "yaml"]).await?;
        written.push((kind.to_owned(), text.into_bytes()));
    }
    let ledger = lab.repository.git_in_remote(&["log", "-p", "ledger"])?;
    ensure!(
        ledger.contains("outcome: Failed"),
        "the ledger tells of no failure"
    );
    written.push(("the ledger".to_owned(), ledger.into_bytes()));
    let device = &names(&lab)[1];
    for command in [
        vec!["status", "-o", "yaml"],
        vec!["explain", device.as_str(), "-o", "yaml"],
    ] {
        let (_, text) = lab.kiban(&command).await?;
        written.push((command.join(" "), text.into_bytes()));
    }
    let log = std::fs::read(operator.log())?;
    ensure!(
        String::from_utf8_lossy(&log).contains(" DEBUG "),
        "the log is not as full as it was asked to be"
    );
    written.push(("the log".to_owned(), log));
    texts(&dir.path().join("cache-a"), &mut written)?;

    let key_line = key.lines().nth(1).context("a line of the key")?.to_owned();
    let basic = "a2liYW46Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5";
    for (what, secret) in [
        ("the BMCs' password", BMC_PASSWORD),
        ("the Git account's password", HttpsServer::PASSWORD),
        ("the Git account, as a header has it", basic),
        ("the signing key", &key_line),
    ] {
        let found: Vec<_> = written
            .iter()
            .filter(|(_, text)| text.windows(secret.len()).any(|part| part == secret.as_bytes()))
            .map(|(name, _)| name.as_str())
            .collect();
        ensure!(found.is_empty(), "{what} is in {found:?}");
    }
    Ok(())
}
