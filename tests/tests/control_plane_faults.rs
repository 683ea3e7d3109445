//! The control plane hurt in the middle of a rollout: the API server killed, etcd killed, the operator frozen or killed while
//! another replica stands by. The rollout finishes, nothing is flashed twice, and the budget holds at every instant.

use anyhow::{Context, Result, ensure};
use kiban_devcluster::DevCluster;
use kiban_lab::{
    estate::{Estate, Pool},
    lab::{Lab, compliance},
    operator::Operator,
};
use kiban_sim::{Options, Persona, What};
use kiban_tests::{
    LONG, NEW_BIOS, commit_bios, dells, judge_budget, judge_flashes, judge_ledger, lab, names,
    update_requests, with_operators,
};
use serde_json::{Value, json};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Longer than a Lease of the lab's lasts, so that every tenure ends meanwhile.
const OUTAGE: Duration = Duration::from_secs(9);

/// Waits for something in the emulator's record: it is there at once, and needs no API server.
async fn wait_record(lab: &Lab, what: &str, done: impl Fn(&Lab) -> bool) -> Result<()> {
    let end = Instant::now() + LONG;
    while !done(lab) {
        ensure!(Instant::now() < end, "{what} did not happen within {LONG:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// How many flashes have begun.
fn begun(lab: &Lab) -> usize {
    lab.fleet.record().all_flashes().len()
}

/// How many machines were sent an image of this version.
fn sent(lab: &Lab, version: &str) -> usize {
    let to = |request: &Value| request["summary"]["version"] == version;
    names(lab)
        .iter()
        .filter(|name| update_requests(lab, name).iter().any(to))
        .count()
}

async fn wait_done(lab: &Lab, version: &str) -> Result<()> {
    lab.wait_for("every machine at the new BIOS", "devices", LONG, |devices| {
        devices.iter().all(|device| {
            compliance(device) == "Compliant" && kiban_lab::lab::versions(device, "BIOS") == [version]
        })
    })
    .await?;
    lab.wait_quiet(LONG).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_and_an_etcd_killed_in_a_rollout_cost_time_only() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let cluster = DevCluster::start().await?;
    let namespace = cluster.namespace("outage").await?;
    let budget = json!({"maxUnavailable": 2, "maxPerDomain": 1});
    let lab = dells(namespace, dir.path(), 12, budget).await?;
    let mut operator = lab.start_operator("a", &[]).await?;
    let story = async {
        lab.wait_compliant(LONG).await?;
        commit_bios(&lab, NEW_BIOS)?;

        wait_record(&lab, "the first flash", |lab| begun(lab) >= 1).await?;
        cluster.kill_apiserver().await;
        tokio::time::sleep(OUTAGE).await;
        let before = begun(&lab);
        ensure!(before < 12, "the rollout was over before the API server died");
        cluster.start_apiserver().await?;

        wait_record(&lab, "another flash", |lab| begun(lab) > before).await?;
        cluster.kill_etcd().await;
        tokio::time::sleep(OUTAGE).await;
        cluster.start_etcd().await?;

        let before = begun(&lab);
        wait_record(&lab, "another flash", |lab| begun(lab) > before.min(11)).await?;
        cluster.kill_apiserver().await;
        cluster.kill_etcd().await;
        cluster.start_etcd().await?;
        cluster.start_apiserver().await?;

        wait_done(&lab, NEW_BIOS).await?;
        judge_flashes(&lab, &names(&lab), 1)?;
        judge_budget(&lab, 2)?;
        judge_ledger(&lab, 12).map(drop)
    };
    with_operators(&[&operator], story).await?;
    ensure!(operator.running(), "the operator gave up");
    Ok(())
}

/// One machine first, so that exactly one update is under way when somebody is hurt; then the others, two at a time.
async fn two_replicas(dir: &Path, prefix: &str) -> Result<Lab> {
    let namespace = kiban_devcluster::shared().await?.namespace(prefix).await?;
    let mut estate = Estate::new(dir.join("firmware"));
    estate.pools = vec![Pool::new(
        "web",
        json!({"maxUnavailable": 2, "maxPerDomain": 2}),
        json!({"waves": [{"devices": 1}, {"percent": 100}], "haltAfter": {"failed": 1}}),
    )];
    estate.add("web", Persona::Dell, 6);
    // Slower than elsewhere: there must be time to find out who is at it.
    lab(namespace, dir, estate, Options::fast(40.0)).await
}

fn replica(identity: &Value) -> Option<String> {
    let (replica, _) = identity.as_str()?.split_once('_')?;
    Some(replica.to_owned())
}

/// The replica that plans.
async fn planner(lab: &Lab) -> Result<String> {
    let lease = lab.get("leases.coordination.k8s.io", "kiban-planner").await?;
    replica(&lease["spec"]["holderIdentity"]).context("somebody plans")
}

/// The replica that works on the one operation that is under way.
async fn executor(lab: &Lab) -> Result<String> {
    let operations = lab.list("operations").await?;
    let mut at_it = operations
        .iter()
        .filter_map(|operation| replica(&operation["status"]["executor"]));
    at_it.next().context("somebody works on an operation")
}

fn find<'a>(operators: &'a [Operator], replica: &str) -> Result<&'a Operator> {
    let name = format!("operator-{replica}.log");
    operators
        .iter()
        .find(|operator| operator.log().ends_with(&name))
        .with_context(|| format!("{replica} runs"))
}

/// Waits until the one update under way is in other hands.
async fn wait_taken_over(lab: &Lab, from: &str) -> Result<()> {
    let other = |executor: &Value| replica(executor).is_some_and(|replica| replica != from);
    lab.wait_for("the other replica at work", "operations", LONG, |operations| {
        // It may be over by the time that we look.
        operations.is_empty() || operations.iter().any(|one| other(&one["status"]["executor"]))
    })
    .await
    .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_replica_is_replaced_and_does_no_harm_when_it_thaws() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let lab = two_replicas(dir.path(), "frozen").await?;
    let mut operators = vec![lab.start_operator("a", &[]).await?];
    operators.push(lab.start_operator("b", &[]).await?);
    with_operators(&[&operators[0], &operators[1]], async {
        lab.wait_compliant(LONG).await?;

        // Whoever has just sent the image stands still for longer than its Leases last, and thaws while the other is at it.
        commit_bios(&lab, NEW_BIOS)?;
        wait_record(&lab, "the canary's image sent", |lab| sent(lab, NEW_BIOS) >= 1).await?;
        let frozen = executor(&lab).await?;
        find(&operators, &frozen)?.freeze()?;
        wait_taken_over(&lab, &frozen).await?;
        find(&operators, &frozen)?.thaw()?;
        wait_done(&lab, NEW_BIOS).await?;
        judge_flashes(&lab, &names(&lab), 1)?;

        // Whoever plans stands still until the other has done it all.
        commit_bios(&lab, "1.16.2")?;
        wait_record(&lab, "the next canary's image sent", |lab| {
            sent(lab, "1.16.2") >= 1
        })
        .await?;
        let frozen = planner(&lab).await?;
        find(&operators, &frozen)?.freeze()?;
        wait_done(&lab, "1.16.2").await?;
        ensure!(planner(&lab).await? != frozen, "the frozen one plans");
        find(&operators, &frozen)?.thaw()?;

        // Thawed, it knows that it leads no more, and what it was about to do is not done.
        let end = Instant::now() + LONG;
        while find(&operators, &frozen)?.metric("kiban_leader")? != 0.0 {
            ensure!(Instant::now() < end, "{frozen} still takes itself for the leader");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        lab.wait_quiet(LONG).await?;
        judge_flashes(&lab, &names(&lab), 2)?;
        judge_budget(&lab, 2)?;
        judge_ledger(&lab, 12).map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_is_replaced() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let lab = two_replicas(dir.path(), "killed").await?;
    let mut operators = vec![lab.start_operator("a", &[]).await?];
    operators.push(lab.start_operator("b", &[]).await?);
    lab.wait_compliant(LONG).await?;

    commit_bios(&lab, NEW_BIOS)?;
    wait_record(&lab, "the canary's host down", |lab| {
        let entries = lab.fleet.record().entries();
        entries
            .iter()
            .any(|entry| matches!(entry.what, What::HostDown { .. }))
    })
    .await?;
    let killed = executor(&lab).await?;
    let position = operators
        .iter()
        .position(|operator| operator.log().ends_with(format!("operator-{killed}.log")))
        .context("the executor runs")?;
    operators.remove(position).kill()?;
    with_operators(&[&operators[0]], async {
        wait_done(&lab, NEW_BIOS).await?;
        judge_flashes(&lab, &names(&lab), 1)?;
        judge_budget(&lab, 2)?;
        let downs: Vec<usize> = names(&lab)
            .iter()
            .map(|name| kiban_tests::host_downs(&lab, name))
            .collect();
        ensure!(
            downs.iter().all(|downs| *downs == 1),
            "the hosts went down {downs:?} times"
        );
        judge_ledger(&lab, 6).map(drop)
    })
    .await
}
