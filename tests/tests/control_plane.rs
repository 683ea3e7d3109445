//! The control plane that every other test stands on: it starts, it is as strict as a real one, it survives what tests do to
//! it, and it leaves nothing behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on stops"
)]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use kiban_devcluster::{DevCluster, Error, Options, shared};

/// How long something that must happen may take on a machine that builds at the same time. Not a measure of speed.
const PATIENCE: Duration = Duration::from_secs(60);

/// True while a process runs; one that has ended and waits to be reaped does not.
fn runs(pid: u32) -> bool {
    let output = Command::new("ps")
        .args(["-o", "stat=", "-p", &pid.to_string()])
        .output();
    // Without ps nothing could be shown: then everything seems to run, and the tests fail.
    output.map_or(true, |output| {
        let state = String::from_utf8_lossy(&output.stdout);
        !state.trim().is_empty() && !state.trim().starts_with('Z')
    })
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test]
async fn each_test_has_a_namespace_for_itself() {
    let cluster = shared().await.unwrap();
    let (one, other) = (
        cluster.namespace("apart").await.unwrap(),
        cluster.namespace("apart").await.unwrap(),
    );
    assert_ne!(one.name(), other.name());

    one.kubectl(["create", "configmap", "mine", "--from-literal=key=value"])
        .await
        .unwrap();
    let seen = one
        .kubectl(["get", "configmap", "mine", "-o", "jsonpath={.data.key}"])
        .await
        .unwrap();
    assert_eq!(seen, "value");
    let error = other.kubectl(["get", "configmap", "mine"]).await.unwrap_err();
    assert!(error.stderr().unwrap().contains("NotFound"), "{error}");
}

#[tokio::test]
async fn a_service_account_may_do_only_what_a_role_grants() {
    let cluster = shared().await.unwrap();
    let namespace = cluster.namespace("rbac").await.unwrap();
    namespace
        .kubectl(["create", "serviceaccount", "worker"])
        .await
        .unwrap();
    let worker = namespace.as_service_account("worker").await.unwrap();

    let error = worker.kubectl(["get", "configmaps"]).await.unwrap_err();
    let stderr = error.stderr().unwrap();
    assert!(
        stderr.contains("Forbidden") && stderr.contains(&format!(":{namespace}:worker")),
        "{error}"
    );

    namespace
        .kubectl(["create", "role", "reader", "--verb=list", "--resource=configmaps"])
        .await
        .unwrap();
    let binding = format!("--serviceaccount={namespace}:worker");
    namespace
        .kubectl(["create", "rolebinding", "reader", "--role=reader", &binding])
        .await
        .unwrap();
    // The authorizer reads roles through a watch, so a grant takes a moment.
    let until = Instant::now() + PATIENCE;
    while let Err(error) = worker.kubectl(["get", "configmaps"]).await {
        assert!(
            error.stderr().is_some_and(|stderr| stderr.contains("Forbidden")),
            "{error}"
        );
        assert!(
            Instant::now() < until,
            "the granted verb stays forbidden: {error}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let error = worker.kubectl(["create", "configmap", "mine"]).await.unwrap_err();
    assert!(
        error.stderr().unwrap().to_lowercase().contains("forbidden"),
        "{error}"
    );
}

#[tokio::test]
async fn crds_are_served_once_applied() {
    let cluster = shared().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let crd = r#"{
      "apiVersion": "apiextensions.k8s.io/v1",
      "kind": "CustomResourceDefinition",
      "metadata": {"name": "teapots.test.kiban.dev"},
      "spec": {
        "group": "test.kiban.dev",
        "scope": "Namespaced",
        "names": {"kind": "Teapot", "plural": "teapots", "singular": "teapot"},
        "versions": [{
          "name": "v1", "served": true, "storage": true,
          "schema": {"openAPIV3Schema": {
            "type": "object",
            "properties": {"spec": {"type": "object", "properties": {"cups": {"type": "integer", "maximum": 8}}}}
          }}
        }]
      }
    }"#;
    std::fs::write(dir.path().join("teapots.json"), crd).unwrap();
    cluster.apply_crds(dir.path()).await.unwrap();

    let namespace = cluster.namespace("crds").await.unwrap();
    let teapot = |name: &str, cups: u32| {
        format!(
            "{{apiVersion: test.kiban.dev/v1, kind: Teapot, metadata: {{name: {name}}}, spec: {{cups: {cups}}}}}"
        )
    };
    namespace.apply(&teapot("small", 4)).await.unwrap();
    let error = namespace.apply(&teapot("huge", 9)).await.unwrap_err();
    assert!(error.stderr().unwrap().contains("spec.cups"), "{error}");
}

#[tokio::test]
async fn the_store_survives_the_api_server() {
    let options = Options {
        audit: true,
        ..Options::default()
    };
    let cluster = DevCluster::start_with(options).await.unwrap();
    let namespace = cluster.namespace("restart").await.unwrap();
    namespace
        .kubectl(["create", "serviceaccount", "worker"])
        .await
        .unwrap();
    let worker = namespace.as_service_account("worker").await.unwrap();

    cluster.stop_apiserver().await;
    let error = namespace.kubectl(["get", "serviceaccounts"]).await.unwrap_err();
    assert!(matches!(error, Error::Command { .. }), "{error}");
    cluster.start_apiserver().await.unwrap();
    namespace
        .kubectl(["get", "serviceaccount", "worker"])
        .await
        .unwrap();

    cluster.kill_apiserver().await;
    cluster.restart_apiserver().await.unwrap();
    let who = worker.kubectl(["auth", "whoami", "-o", "json"]).await.unwrap();
    assert!(
        who.contains(&format!("system:serviceaccount:{namespace}:worker")),
        "{who}"
    );

    cluster.freeze_apiserver().await.unwrap();
    let slow = namespace
        .kubectl(["get", "serviceaccounts", "--request-timeout=2s"])
        .await;
    assert!(slow.is_err(), "a frozen API server answered: {slow:?}");
    cluster.thaw_apiserver().await.unwrap();
    namespace
        .kubectl(["get", "serviceaccount", "worker"])
        .await
        .unwrap();

    let requests = cluster.requests().unwrap();
    let created = requests
        .iter()
        .filter(|it| it.is_write() && it.resource == "serviceaccounts" && it.code == 201);
    assert_eq!(
        created.filter(|it| it.namespace == namespace.name()).count(),
        1,
        "{requests:#?}"
    );
    let token = requests
        .iter()
        .find(|it| it.resource == "serviceaccounts/token")
        .unwrap();
    assert_eq!((token.verb.as_str(), token.name.as_str()), ("create", "worker"));
    let user = format!("system:serviceaccount:{namespace}:worker");
    assert!(
        requests
            .iter()
            .any(|it| it.user == user && it.resource == "selfsubjectreviews"),
        "{requests:#?}"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn nothing_is_left_after_a_cluster_is_dropped() {
    let cluster = DevCluster::start().await.unwrap();
    let (pids, dir) = (cluster.pids().await, cluster.dir().to_path_buf());
    assert_eq!(pids.len(), 3, "watchdog, etcd, kube-apiserver");
    assert!(pids.iter().all(|pid| runs(*pid)), "{pids:?}");
    // A frozen server cannot heed SIGTERM.
    cluster.freeze_apiserver().await.unwrap();
    drop(cluster);
    assert!(!pids.iter().any(|pid| runs(*pid)), "{pids:?}");
    assert!(!dir.exists(), "{}", dir.display());
}

/// Not a test of its own: the process that `nothing_is_left_after_the_owner_is_killed` kills.
#[tokio::test]
async fn owner_to_be_killed() {
    if std::env::var_os("KIBAN_TEST_OWNER").is_none() {
        return;
    }
    let cluster = DevCluster::start().await.unwrap();
    let pids: Vec<String> = cluster.pids().await.iter().map(ToString::to_string).collect();
    println!("owned {} {}", pids.join(","), cluster.dir().display());
    std::future::pending::<()>().await;
}

#[test]
fn nothing_is_left_after_the_owner_is_killed() {
    for signal in ["KILL", "INT"] {
        let mut owner = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "owner_to_be_killed", "--nocapture"])
            .env("KIBAN_TEST_OWNER", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(owner.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let line = lines
            .into_iter()
            .find(|line| line.contains("owned "))
            .expect("the owner starts its cluster");
        let (_, owned) = line.split_once("owned ").unwrap();
        let (pids, dir) = owned.split_once(' ').unwrap();
        let pids: Vec<u32> = pids.split(',').map(|pid| pid.parse().unwrap()).collect();
        let dir = PathBuf::from(dir);
        assert!(pids.iter().all(|pid| runs(*pid)) && dir.exists(), "{line}");

        let sent = Command::new("kill")
            .args(["-s", signal, &owner.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        owner.wait().unwrap();
        for pid in pids {
            eventually(&format!("process {pid} outlives its owner's SIG{signal}"), || {
                !runs(pid)
            });
        }
        eventually(
            &format!("{} outlives its owner's SIG{signal}", dir.display()),
            || !Path::exists(&dir),
        );
    }
}
