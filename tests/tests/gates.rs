//! Gates: a wave opens only while what it depends on is seen to be well, and what is not seen opens nothing.
//!
//! Against a real Prometheus that scrapes a target of the test's own, a real API server, and emulated machines whose record says what
//! was flashed.

// A lock is poisoned only when the test has failed already.
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result, ensure};
use kiban_lab::{
    estate::{Estate, Pool},
    lab::Lab,
    operator::free_address,
};
use kiban_sim::{Options, Persona};
use kiban_tests::{LONG, NEW_BIOS, SPEED, commit_bios, ended, judge_flashes, lab, names, with_operators};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// A small HTTP server whose answer the test chooses: status and body.
#[derive(Clone)]
struct Page {
    address: SocketAddr,
    answer: Arc<Mutex<(u16, String)>>,
    /// The heads of the requests that came.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Page {
    async fn open(status: u16, body: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let page = Self {
            address: listener.local_addr()?,
            answer: Arc::new(Mutex::new((status, body.to_owned()))),
            heads: Arc::default(),
        };
        let served = page.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let page = served.clone();
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    let mut chunk = [0_u8; 1024];
                    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                        match stream.read(&mut chunk).await {
                            Ok(count) if count > 0 => head.extend_from_slice(&chunk[..count]),
                            _ => return,
                        }
                    }
                    let (status, body) = page.answer.lock().unwrap().clone();
                    page.heads
                        .lock()
                        .unwrap()
                        .push(String::from_utf8_lossy(&head).into_owned());
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                        body.len()
                    );
                    // A client that went away has no use for it.
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        Ok(page)
    }

    fn say(&self, status: u16, body: &str) {
        *self.answer.lock().unwrap() = (status, body.to_owned());
    }
}

/// A real Prometheus that scrapes one target. Dropping it kills it.
struct Prometheus(Child);

impl Prometheus {
    fn start(dir: &Path, listen: SocketAddr, target: SocketAddr) -> Result<Self> {
        let file = dir.join("prometheus.yml");
        std::fs::write(
            &file,
            format!(
                "global: {{scrape_interval: 500ms, scrape_timeout: 400ms}}\nscrape_configs:\n- job_name: hosting\n  static_configs:\n  - targets: ['{target}']\n"
            ),
        )?;
        let log = std::fs::File::create(dir.join("prometheus.log"))?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
            .arg(format!("--web.listen-address={listen}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start prometheus")?;
        Ok(Self(child))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A fleet of one pool, whose second wave the gates guard.
async fn gated(dir: &Path, count: usize, gates: Value) -> Result<Lab> {
    let namespace = kiban_devcluster::shared().await?.namespace("gates").await?;
    let mut estate = Estate::new(dir.join("firmware"));
    let waves = json!([{"name": "canary", "devices": 1}, {"name": "rest", "percent": 100}]);
    estate.pools = vec![Pool::new(
        "web",
        json!({"maxUnavailable": 1}),
        json!({"waves": waves, "gates": gates}),
    )];
    estate.add("web", Persona::Dell, count);
    lab(namespace, dir, estate, Options::fast(SPEED)).await
}

fn gate<'a>(rollouts: &'a [Value], name: &str) -> &'a Value {
    let gates = rollouts
        .first()
        .and_then(|rollout| rollout["status"]["gates"].as_array());
    gates
        .and_then(|gates| gates.iter().find(|gate| gate["name"] == name))
        .unwrap_or(&Value::Null)
}

async fn wait_gate(lab: &Lab, name: &str, state: &str) -> Result<String> {
    let what = format!("the gate {name} {state}");
    let rollouts = lab
        .wait_for(&what, "rollouts", LONG, |rollouts| {
            gate(rollouts, name)["state"] == state
        })
        .await?;
    Ok(gate(&rollouts, name)["message"]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

/// The canary is done, and every other machine waits on a gate.
async fn wait_gated(lab: &Lab) -> Result<Vec<Value>> {
    let waits = |device: &Value| {
        device["status"]["waitingOn"]["reason"]
            .as_str()
            .is_some_and(|reason| reason.starts_with("Gate"))
    };
    lab.wait_for("one done, the others at the gate", "devices", LONG, |devices| {
        let (done, others): (Vec<_>, Vec<_>) = devices.iter().partition(|device| ended(device, "Succeeded"));
        done.len() == 1 && others.iter().all(|device| waits(device))
    })
    .await
}

fn flashed(lab: &Lab) -> usize {
    let record = lab.fleet.record();
    names(lab).iter().map(|name| record.flashes(name).len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wave_waits_for_prometheus_and_takes_its_silence_for_no_good_news() -> Result<()> {
    if Command::new("prometheus").arg("--version").output().is_err() {
        println!(
            "skipped: gates that ask a real Prometheus: prometheus is not on PATH (Debian package prometheus)"
        );
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let target = Page::open(200, "hosting_ok_ratio 0.5\n").await?;
    let listen = free_address()?;
    let prometheus = Prometheus::start(dir.path(), listen, target.address)?;
    let slo = json!({
        "name": "slo", "waves": ["rest"], "maxAge": "6s", "timeout": "2s",
        "prometheus": {"url": format!("http://{listen}"), "query": "hosting_ok_ratio", "condition": "> 0.9"},
    });
    let lab = gated(
        dir.path(),
        3,
        json!([slo, {"name": "canaries", "deviceHealth": {}}]),
    )
    .await?;
    let operator = lab.start_operator("one", &[]).await?;
    with_operators(&[&operator], async {
        lab.wait_compliant(LONG).await?;
        commit_bios(&lab, NEW_BIOS)?;
        let devices = wait_gated(&lab).await?;
        let message = wait_gate(&lab, "slo", "Fails").await?;
        ensure!(
            message.contains("0.5 of {") && message.contains("is not > 0.9"),
            "{message}"
        );
        ensure!(flashed(&lab) == 1, "only the canary");

        let waiting = devices
            .iter()
            .find(|device| !ended(device, "Succeeded"))
            .context("one waits")?;
        let name = waiting["metadata"]["name"].as_str().context("a name")?;
        let (_, explained) = lab.kiban(&["explain", name]).await?;
        ensure!(explained.contains("the gate slo holds"), "{explained}");

        // All is well again, and nobody is there to say so.
        drop(prometheus);
        target.say(200, "hosting_ok_ratio 1\n");
        wait_gate(&lab, "slo", "NoData").await?;
        // A page where Prometheus was is no answer either.
        let stranger = TcpListener::bind(listen).await?;
        let page = tokio::spawn(async move {
            while let Ok((mut stream, _)) = stranger.accept().await {
                let _ = stream
                    .write_all(
                        b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\n<html>1</html>",
                    )
                    .await;
            }
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
        page.abort();
        let _ = page.await;
        ensure!(gate(&lab.list("rollouts").await?, "slo")["state"] == "NoData");
        ensure!(flashed(&lab) == 1, "no data opened the wave");

        let _prometheus = Prometheus::start(dir.path(), listen, target.address)?;
        wait_gate(&lab, "slo", "Holds").await?;
        lab.wait_for("every machine updated", "devices", LONG, |devices| {
            devices.iter().all(|device| ended(device, "Succeeded"))
        })
        .await?;
        judge_flashes(&lab, &names(&lab), 1)
    })
    .await
}

/// The rights that the chart gives where `rbac.gates.workloads` is set.
async fn grant_workloads(lab: &Lab) -> Result<()> {
    let chart = kiban_lab::lab::root().join("charts/kiban").display().to_string();
    let rendered = lab
        .namespace
        .helm([
            "template",
            "kiban",
            &chart,
            "--set=rbac.gates.workloads=true",
            "--show-only=templates/role-gates.yaml",
        ])
        .await?;
    lab.namespace.apply(&rendered).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wave_waits_for_a_port_a_page_and_a_condition() -> Result<()> {
    const TOKEN: &str = "Gate-S3cret-canary-55d0";
    let dir = tempfile::tempdir()?;
    let page = Page::open(503, "state: red").await?;
    let door = free_address()?;
    let gates = json!([
        {"name": "door", "waves": ["rest"], "maxAge": "6s", "timeout": "2s", "tcp": {"address": door.to_string()}},
        {"name": "page", "waves": ["rest"], "maxAge": "6s", "timeout": "2s", "http": {
            "url": format!("http://{}/status", page.address), "bodyContains": "green", "credentials": "page"}},
        {"name": "desired", "waves": ["rest"], "maxAge": "6s",
            "condition": {"kind": "FleetRepository", "name": "fleet", "type": "Ready"}},
        {"name": "app", "waves": ["rest"], "maxAge": "6s",
            "condition": {"kind": "Deployment", "name": "web", "type": "Available"}},
    ]);
    let lab = gated(dir.path(), 2, gates).await?;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "page"}, "stringData": {"token": TOKEN}});
    lab.namespace.apply(&secret.to_string()).await?;
    let operator = lab.start_operator("one", &[]).await?;
    with_operators(&[&operator], async {
        lab.wait_compliant(LONG).await?;
        commit_bios(&lab, NEW_BIOS)?;
        wait_gated(&lab).await?;
        wait_gate(&lab, "door", "Fails").await?;
        let message = wait_gate(&lab, "page", "Fails").await?;
        ensure!(message.contains("503") && !message.contains("red"), "{message}");
        wait_gate(&lab, "desired", "Holds").await?;
        let message = wait_gate(&lab, "app", "NoData").await?;
        ensure!(message.contains("rbac.gates.workloads"), "{message}");

        let _listener = TcpListener::bind(door).await?;
        wait_gate(&lab, "door", "Holds").await?;
        page.say(200, "state: red");
        lab.wait_for("the page red", "rollouts", LONG, |rollouts| gate(rollouts, "door")["state"] == "Holds")
            .await?;
        page.say(200, "state: green");
        wait_gate(&lab, "page", "Holds").await?;
        ensure!(flashed(&lab) == 1, "one gate of four is still closed");

        grant_workloads(&lab).await?;
        let app = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web"}]}}}});
        lab.namespace.apply(&app.to_string()).await?;
        let status = json!({"status": {"observedGeneration": 1, "conditions": [{"type": "Available", "status": "True"}]}});
        let patch = status.to_string();
        lab.namespace
            .kubectl(["patch", "deployment", "web", "--subresource=status", "--type=merge", "-p", &patch])
            .await?;
        wait_gate(&lab, "app", "Holds").await?;
        lab.wait_for("every machine updated", "devices", LONG, |devices| {
            devices.iter().all(|device| ended(device, "Succeeded"))
        })
        .await?;
        let bearer = format!("bearer {TOKEN}").to_lowercase();
        let heads = page.heads.lock().unwrap().clone();
        ensure!(heads.iter().all(|head| head.to_lowercase().contains(&bearer)), "the account is sent");
        let log = std::fs::read_to_string(operator.log())?;
        let objects = lab.namespace.kubectl(["get", "kiban", "-o", "json"]).await?;
        ensure!(!log.contains(TOKEN) && !objects.contains(TOKEN), "the account leaked");
        judge_flashes(&lab, &names(&lab), 1)
    })
    .await
}
