//! The kinds on a real API server: their CRDs install without a warning, whole objects are taken, everything in the
//! list of rejected ones is refused with its message, and `kubectl` shows what it should.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on stops"
)]

use kiban_devcluster::{Cluster, Namespace, shared};
use serde_json::{Value, json};
use std::path::PathBuf;

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap()
}

/// The objects that must be taken.
fn accepted() -> Vec<Value> {
    serde_saphyr::from_multiple(&read("crates/kiban-api/tests/accepted.yaml")).unwrap()
}

/// RFC 7396.
fn merge(target: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let fields = target.as_object_mut().unwrap();
    for (name, value) in change {
        match value {
            Value::Null => {
                fields.remove(name);
            }
            value => merge(fields.entry(name).or_insert(Value::Null), value),
        }
    }
}

/// The shared cluster with the kinds on it, and a namespace.
async fn fleet() -> (Cluster, Namespace) {
    let cluster = shared().await.unwrap();
    cluster.apply_crds(&repository("crds")).await.unwrap();
    let namespace = cluster.namespace("kinds").await.unwrap();
    (cluster, namespace)
}

fn text(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
}

async fn refusal(namespace: &Namespace, verb: &str, object: &Value) -> Option<String> {
    let args = ["-n", namespace.name(), verb, "--dry-run=server", "-f", "-"];
    let outcome = namespace
        .cluster()
        .kubectl_with_input(args, &object.to_string())
        .await;
    outcome
        .err()
        .map(|error| error.stderr().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn the_api_server_takes_the_definitions_without_a_warning() {
    let cluster = shared().await.unwrap();
    let folder = repository("crds").display().to_string();
    // Warnings (an unknown format, an unbounded rule) go to stderr; with this flag they are errors.
    cluster
        .kubectl([
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--warnings-as-errors",
            "-f",
            &folder,
        ])
        .await
        .unwrap();
}

#[tokio::test]
async fn whole_objects_are_taken_and_shown() {
    let (_, namespace) = fleet().await;
    namespace.apply(&text(&accepted())).await.unwrap();

    let pools = namespace.kubectl(["get", "pools"]).await.unwrap();
    let header: Vec<&str> = pools.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        header,
        [
            "NAME",
            "SERVICE",
            "CLASS",
            "BOUND",
            "COMPLIANT",
            "UPDATING",
            "UNAVAILABLE",
            "READY",
            "AGE"
        ]
    );
    assert!(pools.contains("hosting-package   Public"), "{pools}");

    let devices = namespace.kubectl(["get", "devices", "-o", "wide"]).await.unwrap();
    for column in [
        "POOL",
        "MODEL",
        "RACK",
        "POWER",
        "HEALTH",
        "COMPLIANT",
        "STATE",
        "WAITING ON",
        "LAST OPERATION",
        "FRESH",
    ] {
        assert!(
            devices.lines().next().unwrap().contains(column),
            "{column}: {devices}"
        );
    }
    // One word lists the whole fleet, and every short name finds its kind.
    let all = namespace.kubectl(["get", "kiban", "-o", "name"]).await.unwrap();
    assert_eq!(all.lines().count(), accepted().len(), "{all}");
    for short in ["fp", "repo", "hwm", "dev", "pool", "fwb", "kro", "op"] {
        let found = namespace.kubectl(["get", short, "-o", "name"]).await.unwrap();
        assert_eq!(found.lines().count(), 1, "{short}: {found}");
    }
    let of_pool = namespace
        .kubectl([
            "get",
            "devices",
            "--field-selector",
            "spec.pool=hosting",
            "-o",
            "name",
        ])
        .await
        .unwrap();
    assert_eq!(of_pool.lines().count(), 1);
    let explained = namespace
        .kubectl(["explain", "device.spec.bmc.tls.firstUse"])
        .await
        .unwrap();
    assert!(explained.contains("an explicit choice"), "{explained}");
}

#[tokio::test]
async fn defaults_are_in_the_schema() {
    let (_, namespace) = fleet().await;
    let pool = json!({"apiVersion": "kiban.dev/v1alpha1", "kind": "HardwarePool", "metadata": {"name": "small"},
        "spec": {"service": "web"}});
    namespace.apply(&pool.to_string()).await.unwrap();
    let spec = namespace
        .kubectl(["get", "pool", "small", "-o", "jsonpath={.spec}"])
        .await
        .unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&spec).unwrap(),
        json!({"service": "web", "class": "Public", "role": "Production", "baselines": [],
            "disruption": {"maxUnavailable": 1, "maxPerDomain": 1, "domain": "Rack", "domains": [], "priority": 0},
            "rollout": {"waves": [{"devices": 1}, {"percent": 10}, {"percent": 100}],
                "haltAfter": {"failed": 1}, "retry": 0}})
    );
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_its_message() {
    let (_, namespace) = fleet().await;
    namespace.apply(&text(&accepted())).await.unwrap();
    let rejected: Vec<Value> = serde_saphyr::from_str(&read("crates/kiban-api/tests/rejected.yaml")).unwrap();
    let mut wrong = Vec::new();
    for case in &rejected {
        let mut object = accepted()
            .into_iter()
            .find(|object| object["kind"] == case["kind"])
            .unwrap();
        // There is one policy, so that only a change of it, or another name, can be tried.
        let named = case["change"].pointer("/metadata/name").is_some();
        let update = case["update"] == true || case["kind"] == "FleetPolicy" && !named;
        if !update && !named {
            object["metadata"]["name"] = json!("fresh");
        }
        merge(&mut object, &case["change"]);
        let verb = if update { "replace" } else { "create" };
        let says = case["says"].as_str().unwrap();
        match refusal(&namespace, verb, &object).await {
            None => wrong.push(format!("taken: {}", case["change"])),
            Some(message) if !message.contains(says) => {
                wrong.push(format!(
                    "{says:?} is not in the refusal of {}: {message}",
                    case["change"]
                ));
            }
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn only_an_operations_epoch_changes() {
    let (_, namespace) = fleet().await;
    namespace.apply(&text(&accepted())).await.unwrap();
    let patch =
        |patch: &'static str| namespace.kubectl(["patch", "op", "tyo-b07-12", "--type=merge", "-p", patch]);
    patch(r#"{"spec": {"epoch": 4}}"#).await.unwrap();
    let error = patch(r#"{"spec": {"wave": 2}}"#).await.unwrap_err();
    assert!(error.stderr().unwrap().contains("spec never changes"), "{error}");
    // A second operation for the same device is refused by its name alone.
    let second = accepted()
        .into_iter()
        .find(|object| object["kind"] == "Operation")
        .unwrap();
    let refused = refusal(&namespace, "create", &second).await.unwrap();
    assert!(refused.contains("already exists"), "{refused}");
}
