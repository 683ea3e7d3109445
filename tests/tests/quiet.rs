//! A fleet at rest costs the API server nothing but Leases, and the ledger nothing at all: also with machines that are sick, a commit that
//! is refused and an update that failed, and also when another operator takes over.

use anyhow::{Result, ensure};
use kiban_devcluster::{DevCluster, Options as ClusterOptions, Request};
use kiban_lab::{lab::Lab, operator::Operator};
use kiban_sim::{Class, Fault, Rule};
use kiban_tests::{LONG, NEW_BIOS, commit_bios, condition, dells, ended, named, names, with_operators};
use serde_json::json;
use std::time::{Duration, Instant};

/// Everything that the operator does by the clock, many times within a test.
const BUSY: [&str; 10] = [
    "--read-interval",
    "1s",
    "--relist-interval",
    "3s",
    "--watch-timeout",
    "5s",
    "--plan-interval",
    "1s",
    "--summary-interval",
    "500ms",
];

/// The activities, as the operator's metrics name them.
const ACTIVITIES: [&str; 4] = ["Plan", "Sync", "Observe", "Ledger"];

/// What the operator wrote, Leases aside.
fn writes(cluster: &DevCluster) -> Result<Vec<Request>> {
    let ours = |request: &Request| {
        request.user.starts_with("system:serviceaccount:")
            && request.is_write()
            && request.resource != "leases"
    };
    Ok(cluster.requests()?.into_iter().filter(ours).collect())
}

/// How many rounds an activity has made.
fn rounds(operator: &Operator, activity: &str) -> Result<f64> {
    let start = format!("kiban_reconciles_total{{activity=\"{activity}\"}} ");
    let text = operator.metrics()?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(&start)?.parse().ok());
    Ok(value.unwrap_or(0.0))
}

/// Waits until nothing was written for a while: what is on its way arrives late on a machine that is busy.
async fn wait_settled(cluster: &DevCluster) -> Result<usize> {
    let end = Instant::now() + LONG;
    let mut last = (writes(cluster)?.len(), Instant::now());
    while last.1.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = writes(cluster)?.len();
        if now != last.0 {
            last = (now, Instant::now());
        }
        ensure!(
            Instant::now() < end,
            "it does not come to rest: {:?}",
            writes(cluster)?.last()
        );
    }
    Ok(last.0)
}

/// Waits until each of these activities has made so many more rounds.
async fn wait_rounds(operator: &Operator, activities: &[&str], more: f64) -> Result<()> {
    let mut wanted = Vec::new();
    for activity in activities {
        wanted.push((*activity, rounds(operator, activity)? + more));
    }
    let end = Instant::now() + LONG;
    while !wanted.is_empty() {
        ensure!(Instant::now() < end, "these activities stand still: {wanted:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut left = Vec::new();
        for (activity, goal) in wanted {
            if rounds(operator, activity)? < goal {
                left.push((activity, goal));
            }
        }
        wanted = left;
    }
    Ok(())
}

/// A fleet with one of each trouble that lasts.
async fn bring_trouble(lab: &Lab) -> Result<()> {
    let names = names(lab);
    let faults = lab.fleet.faults();
    faults.add(Rule::new(&names[2], Fault::Refuse));
    faults.add(Rule::new(
        &names[3],
        Fault::WrongSerial {
            serial: "STRANGE".into(),
        },
    ));
    faults.add(Rule::new(&names[4], Fault::TaskFails).class(Class::Bios));
    faults.add(Rule::new(&names[5], Fault::ShuffleInventory));
    lab.wait_for("the sick machines named", "devices", LONG, |devices| {
        [2, 3].iter().all(|index| {
            condition(named(devices, &names[*index]), "Reachable")
                .is_some_and(|condition| condition["status"] == "False")
        })
    })
    .await?;
    commit_bios(lab, NEW_BIOS)?;
    lab.wait_for("what can be updated is", "devices", LONG, |devices| {
        [0, 1, 5]
            .iter()
            .all(|index| ended(named(devices, &names[*index]), "Succeeded"))
            && ended(named(devices, &names[4]), "Failed")
    })
    .await?;
    let pool = lab.repository.read("pools/web.yaml")?;
    lab.repository.write(
        "pools/web.yaml",
        &pool.replace("maxUnavailable", "maxUnavaliable"),
    )?;
    let bad = lab.repository.commit("Misspell a field")?;
    lab.wait_for("the refusal", "fleetrepositories", LONG, |items| {
        items.iter().any(|item| item["status"]["refusedCommit"] == *bad)
    })
    .await?;
    lab.wait_quiet(LONG).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_at_rest_writes_nothing() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let cluster = DevCluster::start_with(ClusterOptions {
        audit: true,
        ..ClusterOptions::default()
    })
    .await?;
    let namespace = cluster.namespace("quiet").await?;
    let lab = dells(
        namespace,
        dir.path(),
        6,
        json!({"maxUnavailable": 6, "maxPerDomain": 6}),
    )
    .await?;
    let mut first = lab.start_operator("a", &BUSY).await?;
    let ledger = || lab.repository.git_in_remote(&["rev-parse", "ledger"]);
    let (before, tip) = with_operators(&[&first], async {
        lab.wait_compliant(LONG).await?;
        bring_trouble(&lab).await?;
        let before = wait_settled(&cluster).await?;
        ensure!(
            before > 20,
            "only {before} writes in the audit log: it does not see the operator"
        );
        let tip = ledger()?;

        let (requests, leases) = (lab.fleet.stats().requests, cluster.requests()?.len());
        wait_rounds(&first, &["Plan", "Sync", "Observe"], 20.0).await?;
        ensure!(lab.fleet.stats().requests > requests + 100, "nothing was read");
        ensure!(cluster.requests()?.len() > leases, "not even a Lease was renewed");
        let all = writes(&cluster)?;
        ensure!(all.len() == before, "written at rest: {:?}", &all[before..]);
        ensure!(ledger()? == tip, "the ledger grew at rest");
        Ok((before, tip))
    })
    .await?;

    // Another operator finds all of it as it is to be.
    first.stop(LONG)?;
    let second = lab.start_operator("b", &BUSY).await?;
    with_operators(&[&second], async {
        wait_rounds(&second, &ACTIVITIES[..3], 10.0).await?;
        let all = writes(&cluster)?;
        ensure!(
            all.len() == before,
            "written by an operator that found nothing to do: {:?}",
            &all[before..]
        );
        ensure!(ledger()? == tip, "the ledger grew at rest");
        ensure!(
            second.metric("kiban_relist_found_total")? == 0.0,
            "the watches missed something"
        );
        Ok(())
    })
    .await
}
