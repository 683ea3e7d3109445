//! The main job, end to end: a commit brings a fleet's firmware to its baseline, and the history is back in Git.
//!
//! The judge is never Kiban itself: the emulator's record says what was flashed and how much was disrupted at once, `git` says what the
//! ledger holds.

use anyhow::{Context, Result, ensure};
use kiban_lab::{
    estate::{Estate, Pool, Wanted, baseline_name},
    lab::{Lab, compliance, versions},
    operator::Operator,
};
use kiban_sim::{Class, Fault, Options, Persona, Rule, What};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::Path, time::Duration};

const NEW_BIOS: &str = "1.15.2";
const NEW_NIC: &str = "26.39.20.48";
/// Fast enough for a test, slow enough that a BMC's reboot is seen by a poll.
const SPEED: f64 = 150.0;
const LONG: Duration = Duration::from_secs(300);

/// Two pools of four vendors, in racks of six.
fn estate(dir: &Path) -> Estate {
    let mut estate = Estate::new(dir.join("firmware"));
    let waves = json!([{"devices": 1}, {"percent": 50}, {"percent": 100}]);
    estate.pools = ["hosting", "component"]
        .map(|name| {
            Pool::new(
                name,
                json!({"maxUnavailable": 2, "maxPerDomain": 1}),
                json!({"waves": waves, "haltAfter": {"failed": 1}}),
            )
        })
        .into();
    for _ in 0..4 {
        estate.add("hosting", Persona::Dell, 2);
        estate.add("component", Persona::Hpe, 1);
        estate.add("hosting", Persona::Supermicro, 1);
        estate.add("component", Persona::Lenovo, 1);
    }
    estate
}

async fn lab(dir: &Path) -> Result<Lab> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let namespace = kiban_devcluster::shared().await?.namespace("main-job").await?;
    Lab::build(namespace, dir, estate(dir), Options::fast(SPEED)).await
}

/// Runs a story, and shows the operator's last words when it fails.
async fn with_operator<T>(operator: &Operator, story: impl Future<Output = Result<T>>) -> Result<T> {
    story
        .await
        .with_context(|| format!("the operator's last words:\n{}", operator.last_words(25)))
}

fn dells(lab: &Lab) -> Vec<String> {
    lab.estate
        .machines
        .iter()
        .filter(|m| m.persona == Persona::Dell)
        .map(|m| m.name.clone())
        .collect()
}

async fn rollout(lab: &Lab, persona: Persona) -> Result<Value> {
    lab.get("rollouts", &format!("hosting-{}", baseline_name(persona)))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_brings_the_fleet_to_its_baseline() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let lab = lab(dir.path()).await?;
    let operator = lab.start_operator("a", &[]).await?;
    with_operator(&operator, async {
        lab.wait_compliant(LONG).await?;
        ensure!(
            lab.fleet.record().all_flashes().is_empty(),
            "enrolling flashed something"
        );

        let wanted = Wanted::from([
            (Class::Bios, NEW_BIOS.to_owned()),
            (Class::Nic, NEW_NIC.to_owned()),
        ]);
        lab.estate
            .write_baseline(&lab.repository, Persona::Dell, &wanted)?;
        let commit = lab.repository.commit("Raise BIOS and NIC firmware on r650")?;
        lab.wait_applied(&commit, LONG).await?;
        lab.wait_for("the rollout complete", "rollouts", LONG, |rollouts| {
            rollouts
                .iter()
                .any(|rollout| !rollout["status"]["completedAt"].is_null())
        })
        .await?;
        lab.wait_compliant(LONG).await?;
        lab.wait_quiet(LONG).await?;

        judge_flashes(&lab)?;
        judge_canary(&lab)?;
        judge_ledger(&lab, &commit)?;
        for device in lab.list("devices").await? {
            let dell = device["spec"]["model"] == "r650";
            ensure!(
                !dell || versions(&device, "BIOS") == [NEW_BIOS],
                "status: {}",
                device["status"]["firmware"]
            );
        }
        Ok(())
    })
    .await
}

/// Each R650 was flashed once per component, nothing else was, and never more machines of the pool were down than its budget allows.
fn judge_flashes(lab: &Lab) -> Result<()> {
    let record = lab.fleet.record();
    let dells = dells(lab);
    for machine in &lab.estate.machines {
        let flashes = record.flashes(&machine.name);
        let expected = if dells.contains(&machine.name) { 2 } else { 0 };
        ensure!(
            flashes.len() == expected,
            "{} was flashed {} times: {flashes:?}",
            machine.name,
            flashes.len()
        );
    }
    ensure!(
        record.double_flashes().is_empty(),
        "flashed twice: {:?}",
        record.double_flashes()
    );
    // One reset per update, ours: a BMC that also restarts the host by itself could have its flash cut by our reset.
    for dell in &dells {
        let entries = record.of(dell);
        let downs = entries
            .iter()
            .filter(|entry| matches!(entry.what, What::HostDown { .. }))
            .count();
        ensure!(
            downs == 2,
            "the host of {dell} went down {downs} times for two updates"
        );
    }
    let peak = record.peak_disrupted_of(|machine| dells.iter().any(|dell| dell == machine));
    ensure!(
        peak <= 2,
        "{peak} machines of the pool were disrupted at once, 2 are allowed"
    );
    for rack in ["b01", "b02", "b03", "b04"] {
        let peak = record.peak_disrupted_of(|machine| machine.contains(rack));
        ensure!(
            peak <= 1,
            "{peak} machines of rack {rack} were disrupted at once, 1 is allowed"
        );
    }
    Ok(())
}

/// The first machine was done before the second one began.
fn judge_canary(lab: &Lab) -> Result<()> {
    let entries = lab.fleet.record().entries();
    let starts: Vec<_> = entries
        .iter()
        .filter(|e| matches!(e.what, What::FlashStarted { .. }))
        .collect();
    let canary = &starts.first().context("a flash")?.machine;
    let second = starts
        .iter()
        .find(|e| e.machine != *canary)
        .context("a second machine")?;
    let canary_back = entries
        .iter()
        .rfind(|e| e.machine == *canary && matches!(e.what, What::HostUp))
        .context("the canary's host came back")?;
    ensure!(
        canary_back.seq < second.seq,
        "{} began before the canary {canary} was done",
        second.machine
    );
    Ok(())
}

/// The ledger is a sound repository that names the commit, and holds one outcome per operation.
fn judge_ledger(lab: &Lab, commit: &str) -> Result<()> {
    let git = |args: &[&str]| lab.repository.git_in_remote(args);
    git(&["fsck", "--strict", "--no-dangling"])?;
    let log = git(&["log", "--format=%B", "ledger"])?;
    ensure!(
        log.contains(&format!("Desired: {commit}")),
        "no trailer names the commit:\n{log}"
    );
    let files = git(&["ls-tree", "-r", "--name-only", "ledger"])?;
    let operations: Vec<&str> = files
        .lines()
        .filter(|file| file.starts_with("operations/"))
        .collect();
    ensure!(
        operations.len() == dells(lab).len(),
        "one operation per machine, but there are:\n{files}"
    );
    for file in operations {
        let text = git(&["show", &format!("ledger:{file}")])?;
        ensure!(
            text.contains("Succeeded") && text.contains(NEW_BIOS) && text.contains(commit),
            "{file}:\n{text}"
        );
    }
    let devices = files.lines().filter(|file| file.starts_with("devices/")).count();
    ensure!(
        devices == lab.estate.machines.len(),
        "a file per device, but there are {devices}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_halts_the_rollout_and_a_commit_resumes_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let lab = lab(dir.path()).await?;
    let operator = lab.start_operator("a", &[]).await?;
    with_operator(&operator, async {
        lab.wait_compliant(LONG).await?;
        // Whichever goes first fails: the canary.
        lab.fleet
            .faults()
            .add(Rule::new("*", Fault::TaskFails).class(Class::Bios).times(1));
        let wanted = Wanted::from([(Class::Bios, NEW_BIOS.to_owned())]);
        lab.estate
            .write_baseline(&lab.repository, Persona::Dell, &wanted)?;
        lab.repository.commit("Raise BIOS on r650")?;
        let halted = lab
            .wait_for("the halt", "rollouts", LONG, |rollouts| {
                rollouts.iter().any(|r| !r["status"]["halt"].is_null())
            })
            .await?;
        let halt = &halted[0]["status"]["halt"];
        ensure!(
            halt["devices"]
                .as_array()
                .is_some_and(|devices| devices.len() == 1),
            "halt: {halt}"
        );
        lab.wait_quiet(LONG).await?;
        // A halt that did not latch would start the next machine now.
        tokio::time::sleep(Duration::from_secs(5)).await;
        ensure!(
            lab.fleet.record().all_flashes().is_empty(),
            "something was flashed after the halt"
        );
        // What a device waits on is written seldom, to spare the API server; it must come all the same.
        lab.wait_for("devices that wait on the halt", "devices", LONG, |devices| {
            let halted = |device: &&Value| device["status"]["waitingOn"]["reason"] == "Halted";
            devices.iter().filter(halted).count() >= 6
        })
        .await?;

        let mut pool = lab.estate.pools[0].clone();
        pool.rollout["retry"] = json!(1);
        lab.estate.write_pool(&lab.repository, &pool)?;
        let mend = lab.repository.commit("Try r650's BIOS again")?;
        lab.wait_applied(&mend, LONG).await?;
        lab.wait_compliant(LONG).await?;
        lab.wait_quiet(LONG).await?;
        let done = rollout(&lab, Persona::Dell).await?;
        ensure!(
            done["status"]["halt"].is_null() && !done["status"]["completedAt"].is_null(),
            "{}",
            done["status"]
        );
        ensure!(lab.fleet.record().double_flashes().is_empty());
        let log = lab.repository.git_in_remote(&["log", "--format=%B", "ledger"])?;
        ensure!(
            log.contains(&mend),
            "the ledger does not name the commit that mended it"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_of_an_update_nothing_is_flashed_twice() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let lab = lab(dir.path()).await?;
    let mut operator = lab.start_operator("k0", &[]).await?;
    lab.wait_compliant(LONG).await?;
    let wanted = Wanted::from([(Class::Bios, NEW_BIOS.to_owned())]);
    lab.estate
        .write_baseline(&lab.repository, Persona::Dell, &wanted)?;
    lab.estate.write_baseline(
        &lab.repository,
        Persona::Lenovo,
        &Wanted::from([(Class::Bios, "AFE130A-1.50".to_owned())]),
    )?;
    let commit = lab.repository.commit("Raise BIOS on r650 and sr630")?;
    // Primes, so that the kills fall on different steps of an update that takes a few seconds.
    for (round, pause) in [700_u64, 1_300, 1_900, 2_900, 3_700, 5_300]
        .into_iter()
        .enumerate()
    {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        operator.kill()?;
        operator = lab.start_operator(&format!("k{}", round + 1), &[]).await?;
    }
    with_operator(&operator, async {
        lab.wait_applied(&commit, LONG).await?;
        lab.wait_for("every device settled", "devices", LONG, |devices| {
            devices
                .iter()
                .all(|device| compliance(device) == "Compliant" || !device["status"]["hold"].is_null())
        })
        .await?;
        lab.wait_quiet(LONG).await?;
        let record = lab.fleet.record();
        ensure!(
            record.double_flashes().is_empty(),
            "flashed twice: {:?}",
            record.double_flashes()
        );
        let mut sent: BTreeMap<String, usize> = BTreeMap::new();
        for entry in record.entries() {
            if let What::FlashStarted { .. } = entry.what {
                *sent.entry(entry.machine).or_default() += 1;
            }
        }
        ensure!(
            sent.values().all(|count| *count == 1),
            "flashes per machine: {sent:?}"
        );
        let peak = record.peak_disrupted_of(|machine| dells(&lab).iter().any(|dell| dell == machine));
        ensure!(
            peak <= 2,
            "{peak} machines of the pool were disrupted at once, 2 are allowed"
        );
        // One outcome per operation, and none lost.
        let files =
            lab.repository
                .git_in_remote(&["ls-tree", "-r", "--name-only", "ledger", "operations/"])?;
        ensure!(
            files.lines().count() == sent.len(),
            "{} machines were flashed, the ledger holds:\n{files}",
            sent.len()
        );
        Ok(())
    })
    .await
}
