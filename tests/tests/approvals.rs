//! Approvals: who let a wave open is proven by the API server, counts only for whom the pool names, and is in the ledger.

use anyhow::{Context, Result, bail, ensure};
use kiban_lab::{
    estate::{Estate, Pool, object},
    lab::{Lab, root},
};
use kiban_sim::{Class, Fault, Options, Persona, Rule};
use kiban_tests::{
    LONG, NEW_BIOS, SPEED, commit_bios, ended, judge_flashes, lab, named, names, with_operators,
};
use serde_json::{Value, json};
use std::{path::Path, time::Duration, time::Instant};

/// A fleet whose second wave needs the consent of alice or of someone of the leads, who may also end a halt.
async fn approved(dir: &Path, count: usize) -> Result<Lab> {
    let namespace = kiban_devcluster::shared().await?.namespace("approvals").await?;
    let mut estate = Estate::new(dir.join("firmware"));
    let by = json!({"users": ["alice"], "groups": ["leads"]});
    estate.pools = vec![Pool::new(
        "web",
        json!({"maxUnavailable": 1}),
        json!({
            "waves": [{"name": "canary", "devices": 1}, {"name": "rest", "percent": 100}],
            "approvals": [{"beforeWave": "rest", "by": by}],
            "resumableBy": by,
        }),
    )];
    estate.add("web", Persona::Dell, count);
    let lab = lab(namespace, dir, estate, Options::fast(SPEED)).await?;
    let chart = root().join("charts/kiban").display().to_string();
    let policy = lab
        .namespace
        .helm([
            "template",
            "kiban",
            &chart,
            "--show-only=templates/approvalpolicy.yaml",
        ])
        .await?;
    lab.namespace.cluster().apply(&policy).await?;
    let subjects = ["alice", "bob", "mallory"]
        .map(|name| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}));
    let role = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "people"},
            "rules": [{"apiGroups": ["kiban.dev"], "resources": ["approvals"], "verbs": ["create", "patch", "update", "get"]}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "people"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "people"},
            "subjects": subjects},
    ]});
    lab.namespace.apply(&role.to_string()).await?;
    Ok(lab)
}

/// Creates an approval as somebody. Gives what the API server says when it refuses.
async fn create(lab: &Lab, who: &str, groups: &[&str], name: &str, spec: Value) -> Result<(), String> {
    let text = object("Approval", name, spec).to_string();
    let mut args = vec!["-n", lab.namespace.name(), "create", "-f", "-", "--as", who];
    for group in groups {
        args.extend(["--as-group", group]);
    }
    let made = lab.namespace.cluster().kubectl_with_input(args, &text).await;
    made.map(drop)
        .map_err(|error| error.stderr().unwrap_or_default().to_owned())
}

/// Waits until the API server has taken the policy up, which it does in its own time.
async fn wait_policy(lab: &Lab, forged: &Value) -> Result<String> {
    let end = Instant::now() + LONG;
    for n in 0.. {
        match create(lab, "mallory", &[], &format!("forged-{n}"), forged.clone()).await {
            Err(refusal) => return Ok(refusal),
            // It counts for nobody's wave but a wrong revision's.
            Ok(()) if Instant::now() < end => tokio::time::sleep(Duration::from_millis(250)).await,
            Ok(()) => bail!("the policy never refused a forged name"),
        }
    }
    bail!("unreachable: the loop has no end")
}

async fn rollout(lab: &Lab) -> Result<Value> {
    lab.list("rollouts")
        .await?
        .into_iter()
        .next()
        .context("a rollout")
}

async fn wait_reason(lab: &Lab, reason: &str) -> Result<()> {
    let waits = |device: &Value| device["status"]["waitingOn"]["reason"] == reason;
    lab.wait_for(
        &format!("a machine that waits on {reason}"),
        "devices",
        LONG,
        |devices| devices.iter().any(waits),
    )
    .await
    .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wave_opens_by_the_own_name_of_someone_whom_the_pool_names() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let lab = approved(dir.path(), 3).await?;
    let operator = lab.start_operator("one", &[]).await?;
    with_operators(&[&operator], async {
        lab.wait_compliant(LONG).await?;
        commit_bios(&lab, NEW_BIOS)?;
        wait_reason(&lab, "Approval").await?;
        let stands = rollout(&lab).await?;
        let (name, revision) = (&stands["metadata"]["name"], &stands["status"]["revision"]);
        let spec = |revision: &Value, approver: &str, groups: &[&str]| {
            json!({"rollout": name, "revision": revision, "wave": "rest", "approver": approver, "groups": groups})
        };

        let refusal = wait_policy(&lab, &spec(&json!("old"), "alice", &[])).await?;
        ensure!(refusal.contains("must be your own name, mallory"), "{refusal}");
        let refusal = create(&lab, "mallory", &[], "grouped", spec(revision, "mallory", &["leads"])).await;
        ensure!(refusal.is_err_and(|text| text.contains("only groups that you are in")));

        // Their own names, yet nobody whom the pool names; and the right name for another revision.
        create(&lab, "mallory", &[], "mallorys", spec(revision, "mallory", &[])).await.map_err(anyhow::Error::msg)?;
        create(&lab, "alice", &[], "older", spec(&json!("0ld"), "alice", &[])).await.map_err(anyhow::Error::msg)?;
        let forged = r#"{"spec": {"approver": "alice"}}"#;
        let patch = ["-n", lab.namespace.name(), "patch", "approvals", "mallorys", "--type=merge", "-p", forged, "--as", "mallory"];
        let changed = lab.namespace.cluster().kubectl(patch).await;
        ensure!(changed.is_err_and(|error| error.stderr().unwrap_or_default().contains("never changes")));
        tokio::time::sleep(Duration::from_secs(3)).await;
        let devices = lab.list("devices").await?;
        let done = devices.iter().filter(|device| ended(device, "Succeeded")).count();
        ensure!(done == 1, "only the canary: {done}");
        let waiting = devices.iter().find(|device| !ended(device, "Succeeded")).context("one waits")?;
        let says = waiting["status"]["waitingOn"]["message"].as_str().unwrap_or_default();
        ensure!(says.contains("alice, a member of leads"), "{says}");

        // bob is not named, but is one of the leads.
        create(&lab, "bob", &["leads"], "bobs", spec(revision, "bob", &["leads"])).await.map_err(anyhow::Error::msg)?;
        lab.wait_for("every machine updated", "devices", LONG, |devices| {
            devices.iter().all(|device| ended(device, "Succeeded"))
        })
        .await?;
        judge_flashes(&lab, &names(&lab), 1)?;
        let given = rollout(&lab).await?["status"]["approvals"].clone();
        ensure!(given[0]["by"] == "bob" && given[0]["approval"] == "bobs" && given[1].is_null(), "{given}");
        lab.wait_for("the ledger whole", "rollouts", LONG, |_| {
            let file = lab.repository.git_in_remote(&["show", "ledger:campaigns/rollout/web-r650-2026q4.yaml"]);
            file.is_ok_and(|file| file.contains("by: bob") && file.contains("wave rest") && file.contains("completedAt"))
        })
        .await
        .map(drop)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halt_ends_by_an_approval_that_names_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let lab = approved(dir.path(), 2).await?;
    // Whichever is the canary fails; the other never does.
    let first = names(&lab)[0].clone();
    lab.fleet
        .faults()
        .add(Rule::new(&first, Fault::TaskFails).class(Class::Bios));
    let operator = lab.start_operator("one", &[]).await?;
    with_operators(&[&operator], async {
        lab.wait_compliant(LONG).await?;
        commit_bios(&lab, NEW_BIOS)?;
        lab.wait_for("the rollout halted", "rollouts", LONG, |rollouts| {
            rollouts
                .first()
                .is_some_and(|rollout| !rollout["status"]["halt"].is_null())
        })
        .await?;
        let stands = rollout(&lab).await?;
        let (name, status) = (&stands["metadata"]["name"], &stands["status"]);
        for (who, what) in [
            ("mallory", json!({"resumes": status["halt"]["at"]})),
            ("alice", json!({"resumes": "2026-01-01T00:00:00Z"})),
            ("alice", json!({"wave": "rest"})),
            ("alice", json!({"resumes": status["halt"]["at"]})),
        ] {
            ensure!(
                !rollout(&lab).await?["status"]["halt"].is_null(),
                "resumed before {who} {what}"
            );
            let mut spec = json!({"rollout": name, "revision": status["revision"], "approver": who});
            spec.as_object_mut()
                .context("a map")?
                .extend(what.as_object().context("a map")?.clone());
            let made = create(&lab, who, &[], &format!("{who}-{}", rand(&what)), spec).await;
            made.map_err(anyhow::Error::msg)?;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        lab.wait_for("the other updated", "devices", LONG, |devices| {
            devices.iter().any(|device| ended(device, "Succeeded"))
        })
        .await?;
        let devices = lab.list("devices").await?;
        ensure!(
            ended(named(&devices, &first), "Failed"),
            "what failed is not tried again"
        );
        let after = rollout(&lab).await?;
        ensure!(
            after["status"]["halt"].is_null() && after["status"]["resumed"]["failed"] == 1,
            "{after}"
        );
        Ok(())
    })
    .await
}

/// A name's end that tells two approvals apart.
fn rand(what: &Value) -> u32 {
    what.to_string()
        .bytes()
        .fold(7, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()))
}
