//! The numbers of a whole Kiban: `cargo xtask bench fleet`.
//!
//! Nothing is taken from what the operator says of itself but the times in its ledger: API writes come from the API server's audit log, flashes
//! and disruption from the emulator's record, CPU and memory of the operator's process from the kernel.

use anstream::println;
use anyhow::{Context, Result, ensure};
use clap::Parser;
use kiban_devcluster::{DevCluster, Options as ClusterOptions};
use kiban_lab::{
    estate::{Estate, Pool, Wanted},
    lab::Lab,
};
use kiban_sim::{Class, Options, Persona, What};
use serde_json::json;
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Measures a whole Kiban on emulated fleets.
#[derive(Debug, Parser)]
struct Args {
    /// Fleets to enrol and to update, in machines.
    #[arg(long, value_delimiter = ',', default_value = "200,1000")]
    machines: Vec<usize>,
    /// Commits whose way to the first BMC request is timed.
    #[arg(long, default_value_t = 30)]
    commits: usize,
    /// Virtual seconds per real second.
    #[arg(long, default_value_t = 100.0)]
    speed: f64,
    /// Seconds at rest in which writes are counted.
    #[arg(long, default_value_t = 30)]
    rest: u64,
    /// Percent of the pool that may be unavailable at once.
    #[arg(long, default_value_t = 10)]
    budget: u32,
}

/// One measured figure.
struct Row {
    what: String,
    value: String,
    aim: String,
}

const LONG: Duration = Duration::from_secs(1800);

#[tokio::main]
async fn main() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = Args::parse();
    let mut rows = Vec::new();
    for machines in &args.machines {
        eprint(&format!(
            "==> {machines} machines: enrol, rest, one BIOS update each"
        ));
        fleet(*machines, &args, &mut rows).await?;
    }
    if args.commits > 0 {
        eprint(&format!(
            "==> {} commits: from push to the first BMC request",
            args.commits
        ));
        latency(&args, &mut rows).await?;
    }
    let width = rows.iter().map(|row| row.what.chars().count()).max().unwrap_or(0);
    for row in rows {
        println!("{:<width$}  {:>16}  {}", row.what, row.value, row.aim);
    }
    Ok(())
}

fn eprint(text: &str) {
    anstream::eprintln!("{text}");
}

async fn start(dir: &Path, machines: usize, args: &Args, pool: Pool) -> Result<(DevCluster, Lab)> {
    let cluster = DevCluster::start_with(ClusterOptions {
        audit: true,
        ..ClusterOptions::default()
    })
    .await?;
    let namespace = cluster.namespace("bench").await?;
    let mut estate = Estate::new(dir.join("firmware"));
    let name = pool.name.clone();
    estate.pools = vec![pool];
    estate.add(&name, Persona::Dell, machines);
    let options = Options {
        record_reads: machines <= 8,
        ..Options::fast(args.speed)
    };
    let lab = Lab::build(namespace, dir, estate, options).await?;
    Ok((cluster, lab))
}

/// Enrolment, rest, and one update of every machine.
async fn fleet(machines: usize, args: &Args, rows: &mut Vec<Row>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let budget = format!("{}%", args.budget);
    // No waves: the bound of the makespan is then the budget's alone.
    let pool = Pool::new(
        "bench",
        json!({"maxUnavailable": budget, "maxPerDomain": 6}),
        json!({"waves": [{"percent": 100}], "haltAfter": {"failed": 1}}),
    );
    let (cluster, lab) = start(dir.path(), machines, args, pool).await?;
    let n = machines as f64;
    let begun = Instant::now();
    let operator = lab
        .start_operator("bench", &["--read-interval", "10m", "--watch-timeout", "290s"])
        .await?;
    lab.wait_compliant(LONG).await?;
    let enrolled = begun.elapsed();
    settle(&lab).await?;
    let after_enrol = writes(&cluster)?;
    // The devices' own creation from Git is among them: the operator applied them too.
    push(
        rows,
        machines,
        "enrolled and compliant in",
        format!("{:.1} s", enrolled.as_secs_f64()),
        "",
    );
    push(
        rows,
        machines,
        "enrolment: API writes per device",
        format!("{:.2}", after_enrol as f64 / n),
        "aim ≤ 3",
    );
    tokio::time::sleep(Duration::from_secs(args.rest)).await;
    let after_rest = writes(&cluster)?;
    let what = format!("at rest: API writes in {} s", args.rest);
    push(
        rows,
        machines,
        &what,
        (after_rest - after_enrol).to_string(),
        "aim 0, Leases aside",
    );
    let (cpu, peak) = process(operator.pid())?;
    push(
        rows,
        machines,
        "enrolment: operator CPU",
        format!("{cpu:.1} s"),
        "",
    );
    push(
        rows,
        machines,
        "enrolment: operator peak memory",
        format!("{peak:.0} MiB"),
        "",
    );

    let wanted = Wanted::from([(Class::Bios, "1.15.2".to_owned())]);
    lab.estate
        .write_baseline(&lab.repository, Persona::Dell, &wanted)?;
    let commit = lab.repository.commit("Raise BIOS on r650")?;
    let begun = Instant::now();
    operator.call_webhook()?;
    lab.wait_applied(&commit, LONG).await?;
    lab.wait_for("the rollout complete", "rollouts", LONG, |rollouts| {
        rollouts
            .iter()
            .any(|rollout| !rollout["status"]["completedAt"].is_null())
    })
    .await?;
    let makespan = begun.elapsed();
    settle(&lab).await?;
    let after_update = writes(&cluster)?;
    let (cpu_after, peak) = process(operator.pid())?;
    judge(&lab, machines)?;
    let each = median(durations(&lab)?);
    let allowed = (n * f64::from(args.budget) / 100.0).ceil();
    let bound = (n / allowed).ceil() * each;
    push(
        rows,
        machines,
        "update: makespan",
        format!("{:.1} s", makespan.as_secs_f64()),
        "",
    );
    push(
        rows,
        machines,
        "update: median of one operation",
        format!("{each:.1} s"),
        "",
    );
    push(
        rows,
        machines,
        "update: makespan over the budget's bound",
        format!("{:.2}", makespan.as_secs_f64() / bound),
        &format!("bound {bound:.1} s = ⌈{n}/{allowed}⌉ × median"),
    );
    push(
        rows,
        machines,
        "update: API writes per device",
        format!("{:.2}", (after_update - after_rest) as f64 / n),
        "aim ≤ 8",
    );
    push(
        rows,
        machines,
        "update: operator CPU",
        format!("{:.1} s", cpu_after - cpu),
        "",
    );
    push(
        rows,
        machines,
        "operator peak memory",
        format!("{peak:.0} MiB"),
        "",
    );
    let peak = lab.fleet.record().peak_disrupted();
    push(
        rows,
        machines,
        "update: most machines disrupted at once",
        peak.to_string(),
        &format!("allowed {allowed}"),
    );
    push(
        rows,
        machines,
        "update: flashed twice",
        lab.fleet.record().double_flashes().len().to_string(),
        "aim 0",
    );
    drop(operator);
    lab.fleet.shutdown().await;
    cluster.stop().await;
    Ok(())
}

/// From `git push` to the first request at the BMC of the machine concerned, one commit after another.
async fn latency(args: &Args, rows: &mut Vec<Row>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let pool = Pool::new(
        "bench",
        json!({"maxUnavailable": 1}),
        json!({"waves": [{"percent": 100}]}),
    );
    let (cluster, lab) = start(dir.path(), 1, args, pool).await?;
    // Nothing else may ask the BMC in between.
    let operator = lab.start_operator("bench", &["--read-interval", "6h"]).await?;
    lab.wait_compliant(LONG).await?;
    settle(&lab).await?;
    let mut waits = Vec::new();
    for round in 0..args.commits {
        // Always up: the way back would need consent.
        let wanted = Wanted::from([(Class::Bios, format!("1.16.{round}"))]);
        lab.estate
            .write_baseline(&lab.repository, Persona::Dell, &wanted)?;
        let seen = lab.fleet.record().len();
        let commit = lab.repository.commit("Raise BIOS on r650")?;
        let pushed = jiff::Timestamp::now();
        operator.call_webhook()?;
        let first = first_request(&lab, seen).await?;
        waits.push((first.as_millisecond() - pushed.as_millisecond()) as f64);
        lab.wait_applied(&commit, LONG).await?;
        lab.wait_compliant(LONG).await?;
        settle(&lab).await?;
    }
    waits.sort_by(f64::total_cmp);
    let at = |percent: f64| waits[((waits.len() - 1) as f64 * percent / 100.0).round() as usize];
    rows.push(Row {
        what: "commit to first BMC request, p50".into(),
        value: format!("{:.0} ms", at(50.0)),
        aim: String::new(),
    });
    rows.push(Row {
        what: "commit to first BMC request, p99".into(),
        value: format!("{:.0} ms", at(99.0)),
        aim: "aim ≤ 3 s".into(),
    });
    drop(operator);
    lab.fleet.shutdown().await;
    cluster.stop().await;
    Ok(())
}

async fn first_request(lab: &Lab, seen: usize) -> Result<jiff::Timestamp> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let new = lab.fleet.record().since(seen as u64, 16);
        if let Some(entry) = new
            .iter()
            .find(|entry| matches!(entry.what, What::Request { .. }))
        {
            return entry
                .real
                .parse()
                .with_context(|| format!("read the time {}", entry.real));
        }
        ensure!(
            Instant::now() < end,
            "no BMC request within a minute of the commit"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the ledger holds everything and statuses have come to rest.
async fn settle(lab: &Lab) -> Result<()> {
    lab.wait_quiet(LONG).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    Ok(())
}

fn judge(lab: &Lab, machines: usize) -> Result<()> {
    let flashes = lab.fleet.record().all_flashes();
    ensure!(
        flashes.len() == machines,
        "{} flashes of {machines} machines",
        flashes.len()
    );
    Ok(())
}

/// Writes of the operator's account, Leases aside, as the API server counted them.
fn writes(cluster: &DevCluster) -> Result<usize> {
    let requests = cluster.requests()?;
    Ok(requests
        .iter()
        .filter(|request| request.is_write() && request.user.starts_with("system:serviceaccount:"))
        .filter(|request| request.resource != "leases")
        .count())
}

/// Seconds from start to end of every operation in the ledger.
fn durations(lab: &Lab) -> Result<Vec<f64>> {
    let text = lab.repository.git_in_remote(&[
        "grep",
        "-h",
        "-E",
        "^(startedAt|finishedAt):",
        "ledger",
        "--",
        "operations",
    ])?;
    let mut started = None;
    let mut durations = Vec::new();
    for line in text.lines() {
        let (key, value) = line.split_once(": ").context("a line of a record")?;
        let at: jiff::Timestamp = value.trim().trim_matches(['"', '\'']).parse()?;
        match key {
            "startedAt" => started = Some(at),
            _ => {
                let begun = started.take().context("an operation starts before it ends")?;
                durations.push((at.as_millisecond() - begun.as_millisecond()) as f64 / 1000.0);
            }
        }
    }
    Ok(durations)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// CPU seconds and peak resident MiB of a process, from the kernel.
fn process(pid: u32) -> Result<(f64, f64)> {
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).context("read the operator's CPU time")?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    // Fields 14 and 15 of proc(5), in ticks of which Linux has had a hundred a second for decades.
    let cpu = (ticks(11) + ticks(12)) / 100.0;
    let status =
        std::fs::read_to_string(format!("/proc/{pid}/status")).context("read the operator's memory")?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().trim_end_matches(" kB").parse::<f64>().ok())
        .unwrap_or(0.0);
    Ok((cpu, peak / 1024.0))
}

fn push(rows: &mut Vec<Row>, machines: usize, what: &str, value: String, aim: &str) {
    rows.push(Row {
        what: format!("{machines} machines: {what}"),
        value,
        aim: aim.to_owned(),
    });
}
