//! Git remotes that go away, refuse, or say something else than before: the fleet stays as it is, the rollout goes on, no history is lost,
//! and a condition says what to do.

use anyhow::{Context, Result, ensure};
use kiban_git::testserver::{SshServer, StartError};
use kiban_lab::lab::{Lab, versions};
use kiban_sim::Class;
use kiban_tests::{
    LONG, NEW_BIOS, commit_bios, condition, dells, ended, judge_budget, judge_flashes, judge_ledger, names,
    stands, with_operators,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, os::unix::fs::PermissionsExt};

/// Waits until the repository's status is as wanted.
async fn wait_repository(lab: &Lab, what: &str, done: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = lab
        .wait_for(what, "fleetrepositories", LONG, |items| items.iter().all(&done))
        .await?;
    found.into_iter().next().context("a FleetRepository")
}

fn message(repository: &Value, kind: &str) -> String {
    condition(repository, kind)
        .and_then(|condition| condition["message"].as_str())
        .unwrap_or_default()
        .to_owned()
}

/// Every operation's file came to the ledger in one commit and was never touched again.
fn judge_written_once(lab: &Lab) -> Result<()> {
    let log = lab.repository.git_in_remote(&[
        "log",
        "--format=",
        "--name-status",
        "--no-renames",
        "ledger",
        "--",
        "operations/",
    ])?;
    let mut times: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (change, file) in log.lines().filter_map(|line| line.split_once('\t')) {
        times.entry(file).or_default().push(change);
    }
    let again: Vec<_> = times.iter().filter(|(_, changes)| **changes != ["A"]).collect();
    ensure!(again.is_empty(), "written more than once: {again:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_that_is_gone_or_refuses_delays_history_and_nothing_else() -> Result<()> {
    let mut server = match SshServer::start() {
        Ok(server) => server,
        Err(StartError::Absent { program }) => {
            eprintln!("skipped: {program} is not installed");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let dir = tempfile::tempdir()?;
    let namespace = kiban_devcluster::shared().await?.namespace("git").await?;
    let lab = dells(namespace, dir.path(), 6, json!({"maxUnavailable": 2})).await?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "git"},
        "stringData": {"identity": server.client_key(), "known_hosts": server.known_hosts()},
    });
    lab.namespace.apply(&secret.to_string()).await?;
    let url = server.url(lab.repository.remote());
    lab.apply_repository(json!({"url": url, "interval": "2s", "credentials": {"name": "git"}}))
        .await?;
    let operator = lab.start_operator("a", &["--git-deadline", "10s"]).await?;
    with_operators(&[&operator], async {
        lab.wait_compliant(LONG).await?;
        lab.wait_quiet(LONG).await?;
        judge_ledger(&lab, 0)?;

        // Gone as soon as the commit is applied: all of the rollout goes on without it.
        let commit = commit_bios(&lab, NEW_BIOS)?;
        lab.wait_applied(&commit, LONG).await?;
        server.stop();
        lab.wait_for(
            "every update done without the remote",
            "devices",
            LONG,
            |devices| {
                devices
                    .iter()
                    .all(|device| ended(device, "Succeeded") && versions(device, "BIOS") == [NEW_BIOS])
            },
        )
        .await?;
        let told = wait_repository(&lab, "both directions told", |repository| {
            stands(repository, "LedgerPushed", "False", "RemoteUnreachable")
                && stands(repository, "Fetched", "False", "RemoteUnreachable")
        })
        .await?;
        ensure!(
            message(&told, "LedgerPushed").contains("nothing is lost"),
            "{}",
            message(&told, "LedgerPushed")
        );
        ensure!(
            stands(&told, "Ready", "False", "RemoteUnreachable")
                && told["status"]["applied"]["commit"] == *commit,
            "{}",
            told["status"]
        );
        judge_ledger(&lab, 0)?;
        let waiting = lab.list("operations").await?;
        ensure!(
            waiting.len() == 6,
            "{} of 6 outcomes wait for the ledger",
            waiting.len()
        );

        server.restart()?;
        lab.wait_quiet(LONG).await?;
        wait_repository(&lab, "the remote's return told", |repository| {
            stands(repository, "LedgerPushed", "True", "Pushed")
                && stands(repository, "Ready", "True", "Applied")
        })
        .await?;
        judge_ledger(&lab, 6)?;

        // There, and refusing: what the server says is in the condition.
        let hook = lab.repository.remote().join("hooks/pre-receive");
        std::fs::write(&hook, "#!/bin/sh\necho 'no space for this today' >&2\nexit 1\n")?;
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))?;
        // An engineer pushes by the file system, where the same hook runs.
        std::fs::rename(&hook, hook.with_extension("away"))?;
        commit_bios(&lab, "1.16.2")?;
        std::fs::rename(hook.with_extension("away"), &hook)?;
        let refused = wait_repository(&lab, "the refused push told", |repository| {
            condition(repository, "LedgerPushed").is_some_and(|condition| condition["status"] == "False")
        })
        .await?;
        lab.wait_for("every update done without a ledger", "devices", LONG, |devices| {
            devices
                .iter()
                .all(|device| ended(device, "Succeeded") && versions(device, "BIOS") == ["1.16.2"])
        })
        .await?;
        let text = message(&refused, "LedgerPushed");
        ensure!(
            text.contains("nothing is lost") && text.contains("refused"),
            "{text}"
        );
        judge_ledger(&lab, 6)?;
        std::fs::remove_file(&hook)?;
        lab.wait_quiet(LONG).await?;
        judge_ledger(&lab, 12)?;
        judge_written_once(&lab)?;
        judge_flashes(&lab, &names(&lab), 2)?;
        judge_budget(&lab, 2)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_is_rewritten_or_deleted_changes_nothing_until_a_person_says_so() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let namespace = kiban_devcluster::shared().await?.namespace("rewrite").await?;
    let lab = dells(namespace, dir.path(), 3, json!({"maxUnavailable": 3})).await?;
    let operator = lab.start_operator("a", &["--read-interval", "2s"]).await?;
    with_operators(&[&operator], async {
        lab.wait_compliant(LONG).await?;
        let git = |args: &[&str]| lab.repository.git(args).map(|text| text.trim().to_owned());
        let old = git(&["rev-parse", "HEAD"])?;
        let new = commit_bios(&lab, NEW_BIOS)?;
        lab.wait_applied(&new, LONG).await?;
        let updated = |devices: &[Value]| {
            devices
                .iter()
                .all(|device| ended(device, "Succeeded") && versions(device, "BIOS") == [NEW_BIOS])
        };
        lab.wait_for("the fleet at the new BIOS", "devices", LONG, updated)
            .await?;
        lab.wait_quiet(LONG).await?;

        // Pushed back to an older commit, then to a history of its own.
        git(&["checkout", "--quiet", "--orphan", "other"])?;
        git(&["commit", "--quiet", "-m", "The same files with another past"])?;
        let orphan = git(&["rev-parse", "HEAD"])?;
        for (commit, says) in [(&orphan, "does not descend"), (&old, "pushed back")] {
            git(&[
                "push",
                "--quiet",
                "--force",
                "origin",
                &format!("{commit}:refs/heads/main"),
            ])?;
            let held = wait_repository(&lab, "the rewritten branch noticed", |repository| {
                repository["status"]["refusedCommit"] == **commit
            })
            .await?;
            ensure!(
                stands(&held, "Verified", "False", "HistoryRewritten"),
                "{}",
                held["status"]
            );
            ensure!(
                stands(&held, "Ready", "False", "HistoryRewritten"),
                "{}",
                held["status"]
            );
            ensure!(
                message(&held, "Ready").contains(says),
                "{}",
                message(&held, "Ready")
            );
            ensure!(
                held["status"]["applied"]["commit"] == *new,
                "{}",
                held["status"]["applied"]
            );
        }

        // The branch deleted: nothing is taken for "nothing wanted".
        lab.repository
            .git_in_remote(&["update-ref", "-d", "refs/heads/main"])?;
        let gone = wait_repository(&lab, "the deleted branch noticed", |repository| {
            condition(repository, "Fetched").is_some_and(|condition| condition["status"] == "False")
        })
        .await?;
        ensure!(
            message(&gone, "Fetched").contains("main"),
            "{}",
            message(&gone, "Fetched")
        );
        ensure!(
            gone["status"]["applied"]["commit"] == *new,
            "{}",
            gone["status"]["applied"]
        );
        ensure!(
            updated(&lab.list("devices").await?),
            "devices changed with the branch"
        );

        // Meant after all: what the condition says to do is done, word by word.
        git(&[
            "push",
            "--quiet",
            "--force",
            "origin",
            &format!("{old}:refs/heads/main"),
        ])?;
        let held = wait_repository(&lab, "the older commit held again", |repository| {
            stands(repository, "Ready", "False", "HistoryRewritten")
                && message(repository, "Ready").contains(&old)
        })
        .await?;
        let text = message(&held, "Ready");
        let (_, advice) = text
            .split_once("kubectl ")
            .context("the condition says what to run")?;
        let words: Vec<&str> = advice.split_whitespace().collect();
        lab.namespace.kubectl(&words).await?;
        lab.wait_applied(&old, LONG).await?;
        // The older BIOS is wanted now, but a way back is not allowed unless the baseline says so.
        lab.wait_for("devices that wait on the way back", "devices", LONG, |devices| {
            devices
                .iter()
                .all(|device| device["status"]["waitingOn"]["reason"] == "Downgrade")
        })
        .await?;
        judge_flashes(&lab, &names(&lab), 1)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_somebody_deleted_is_brought_back_or_asked_for_but_never_begun_anew() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let namespace = kiban_devcluster::shared().await?.namespace("ledger").await?;
    let lab = dells(namespace, dir.path(), 3, json!({"maxUnavailable": 3})).await?;
    let mut first = lab.start_operator("a", &["--read-interval", "2s"]).await?;
    let names = names(&lab);
    let git = |args: &[&str]| {
        lab.repository
            .git_in_remote(args)
            .map(|text| text.trim().to_owned())
    };
    // Something that has to be told: somebody flashed a machine beside us.
    let flash = |name: &str, version: &str| -> Result<()> {
        let machine = lab.fleet.machine(name).context("a machine")?;
        machine.set_version(Class::Nic, version);
        Ok(())
    };
    // What the ledger tells of a machine by now.
    let told = |name: &str, version: &str| {
        git(&["grep", "-l", version, "ledger", "--", "devices/"]).is_ok_and(|files| files.contains(name))
    };
    let tip = with_operators(&[&first], async {
        lab.wait_compliant(LONG).await?;
        lab.wait_quiet(LONG).await?;
        let tip = git(&["rev-parse", "ledger"])?;
        git(&["update-ref", "-d", "refs/heads/ledger"])?;
        flash(&names[0], "26.36.10.11")?;
        // This replica has a copy: all of it comes back with what is new.
        lab.wait_for("the change in the ledger", "devices", LONG, |_| {
            told(&names[0], "26.36.10.11")
        })
        .await?;
        git(&["merge-base", "--is-ancestor", &tip, "ledger"]).context("the past is gone")?;
        lab.wait_quiet(LONG).await?;
        git(&["rev-parse", "ledger"])
    })
    .await?;
    first.stop(LONG)?;
    drop(first);

    // Another replica, with no copy: it knows from the status that there was a past, and asks for it.
    git(&["update-ref", "-d", "refs/heads/ledger"])?;
    let second = lab.start_operator("b", &["--read-interval", "2s"]).await?;
    with_operators(&[&second], async {
        flash(&names[1], "26.36.10.12")?;
        let lost = wait_repository(&lab, "the lost ledger told", |repository| {
            stands(repository, "LedgerPushed", "False", "LedgerVanished")
        })
        .await?;
        let text = message(&lost, "LedgerPushed");
        ensure!(
            text.contains("nothing is lost") && text.contains(&tip) && text.contains("push it back"),
            "{text}"
        );
        ensure!(
            git(&["rev-parse", "--verify", "--quiet", "refs/heads/ledger"]).is_err(),
            "a ledger without its past was begun"
        );
        git(&["update-ref", "refs/heads/ledger", &tip])?;
        lab.wait_quiet(LONG).await?;
        git(&["merge-base", "--is-ancestor", &tip, "ledger"]).context("the past is gone")?;
        ensure!(told(&names[1], "26.36.10.12"), "the change is not in the ledger");
        judge_ledger(&lab, 0).map(drop)
    })
    .await
}
