//! What the end-to-end tests share: a lab with a fleet of one pool, conditions, and what the emulator's record proves.

use anyhow::{Context, Result, ensure};
use kiban_devcluster::Namespace;
use kiban_lab::{
    estate::{Estate, Pool, Wanted},
    lab::Lab,
    operator::Operator,
};
use kiban_sim::{Class, Options, Persona, What};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

/// As long as anything may take on a machine that builds at the same time. Tests wait for states; this only ends a wait that would
/// never end.
pub const LONG: Duration = Duration::from_secs(300);

/// Virtual seconds per second: fast enough for a test, slow enough that a BMC's reboot is seen by a poll.
pub const SPEED: f64 = 150.0;

/// The BIOS that the tests bring to the R650s, which are delivered with an older one.
pub const NEW_BIOS: &str = "1.15.2";

/// A lab whose fleet is one pool, `web`, of so many R650s.
pub async fn dells(namespace: Namespace, dir: &Path, count: usize, disruption: Value) -> Result<Lab> {
    dells_with(namespace, dir, count, disruption, Options::fast(SPEED)).await
}

/// The same with options of the emulator's.
pub async fn dells_with(
    namespace: Namespace,
    dir: &Path,
    count: usize,
    disruption: Value,
    options: Options,
) -> Result<Lab> {
    let mut estate = Estate::new(dir.join("firmware"));
    estate.pools = vec![Pool::new(
        "web",
        disruption,
        // Faults are what many tests are about: none of them may stop the others.
        json!({"waves": [{"percent": 100}], "haltAfter": {"failed": 1000}}),
    )];
    estate.add("web", Persona::Dell, count);
    lab(namespace, dir, estate, options).await
}

/// A lab with a fleet of one's own.
pub async fn lab(namespace: Namespace, dir: &Path, estate: Estate, options: Options) -> Result<Lab> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Lab::build(namespace, dir, estate, options).await
}

/// Commits another BIOS for the R650s, and gives the commit.
pub fn commit_bios(lab: &Lab, version: &str) -> Result<String> {
    commit_firmware(lab, Class::Bios, version)
}

/// Commits other firmware of a class for the R650s, everything else as delivered, and gives the commit.
pub fn commit_firmware(lab: &Lab, class: Class, version: &str) -> Result<String> {
    let wanted = Wanted::from([(class, version.to_owned())]);
    lab.estate
        .write_baseline(&lab.repository, Persona::Dell, &wanted)?;
    lab.repository.commit(&format!("Bring {class} {version} to r650"))
}

/// Runs a story, and shows the operators' last words when it fails.
pub async fn with_operators<T>(operators: &[&Operator], story: impl Future<Output = Result<T>>) -> Result<T> {
    story.await.with_context(|| {
        let words = operators
            .iter()
            .map(|operator| format!("{}:\n{}", operator.log().display(), operator.last_words(25)));
        format!(
            "the operators' last words:\n{}",
            words.collect::<Vec<_>>().join("\n")
        )
    })
}

/// A condition of an object.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

/// Whether a condition is there, with this truth and this reason.
pub fn stands(object: &Value, kind: &str, status: &str, reason: &str) -> bool {
    condition(object, kind)
        .is_some_and(|condition| condition["status"] == status && condition["reason"] == reason)
}

/// The object of a list by its name; Null where there is none.
pub fn named<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    objects
        .iter()
        .find(|object| object["metadata"]["name"] == name)
        .unwrap_or(&Value::Null)
}

/// The names of the lab's machines, in their order.
pub fn names(lab: &Lab) -> Vec<String> {
    lab.estate
        .machines
        .iter()
        .map(|machine| machine.name.clone())
        .collect()
}

/// Waits until a device's last operation has ended for a commit's revision: `done` says which end is meant.
pub async fn wait_ended(lab: &Lab, what: &str, done: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
    lab.wait_for(what, "devices", LONG, |devices| devices.iter().all(&done))
        .await
}

/// Whether a device's last operation ended like this.
pub fn ended(device: &Value, outcome: &str) -> bool {
    device["status"]["lastOperation"]["outcome"] == outcome
}

/// How often a machine's host went down.
pub fn host_downs(lab: &Lab, machine: &str) -> usize {
    let entries = lab.fleet.record().of(machine);
    let down = |what: &What| matches!(what, What::HostDown { .. });
    entries.iter().filter(|entry| down(&entry.what)).count()
}

/// How many requests that bring an image a machine was sent: uploads, and orders to fetch one. The emulator's record has them
/// whether or not an answer went out.
pub fn update_requests(lab: &Lab, machine: &str) -> Vec<Value> {
    let entries = lab.fleet.record().of(machine);
    let brings = |what: &What| match what {
        What::Request { summary, .. } => summary.digest.is_some() || summary.image_uri.is_some(),
        _ => false,
    };
    entries
        .iter()
        .filter(|entry| brings(&entry.what))
        .map(|entry| serde_json::to_value(entry).unwrap_or_default())
        .collect()
}

/// Every machine was flashed at most once with the same image, and these were flashed exactly so often in all.
pub fn judge_flashes(lab: &Lab, machines: &[String], times: usize) -> Result<()> {
    let record = lab.fleet.record();
    ensure!(record.dropped() == 0, "the emulator's record is not whole");
    let doubles = record.double_flashes();
    ensure!(doubles.is_empty(), "flashed twice: {doubles:?}");
    for machine in machines {
        let flashes = record.flashes(machine);
        ensure!(
            flashes.len() == times,
            "{machine} was flashed {} times, not {times}: {flashes:?}",
            flashes.len()
        );
    }
    Ok(())
}

/// Never more machines were disrupted at one instant than the budget allows.
pub fn judge_budget(lab: &Lab, allowed: usize) -> Result<()> {
    let peak = lab.fleet.record().peak_disrupted();
    ensure!(
        peak <= allowed,
        "{peak} machines were disrupted at once, {allowed} are allowed"
    );
    Ok(())
}

/// The ledger is a sound repository that holds so many operations, each once. Gives their texts.
pub fn judge_ledger(lab: &Lab, operations: usize) -> Result<Vec<String>> {
    let git = |args: &[&str]| lab.repository.git_in_remote(args);
    git(&["fsck", "--strict", "--no-dangling"])?;
    let files = git(&["ls-tree", "-r", "--name-only", "ledger", "operations/"])?;
    ensure!(
        files.lines().count() == operations,
        "{operations} operations ended, but the ledger holds:\n{files}"
    );
    files
        .lines()
        .map(|file| git(&["show", &format!("ledger:{file}")]))
        .collect()
}
