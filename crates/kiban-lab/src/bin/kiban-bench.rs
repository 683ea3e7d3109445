//! The numbers of a whole Kiban: `cargo xtask bench fleet`.
//!
//! Nothing is taken from what the operator says of itself but the times in its ledger: API writes come from the API server's audit log, flashes
//! and disruption from the emulator's record, CPU and memory from the kernel. One line of JSON per figure goes to standard output, in the form
//! that `cargo xtask bench` gathers; what is going on, and where the writes went, to standard error.

use anstream::{eprintln, println};
use anyhow::{Context, Result, ensure};
use clap::Parser;
use kiban_devcluster::{DevCluster, Options as ClusterOptions};
use kiban_lab::{
    estate::{Estate, Pool, Wanted},
    lab::Lab,
    operator::Operator,
};
use kiban_sim::{Class, Options, Persona, What};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

/// Measures a whole Kiban on emulated fleets.
#[derive(Debug, Parser)]
struct Args {
    /// Fleets to enrol and to update, in machines. Default: 200, 1000.
    #[arg(long, value_delimiter = ',', num_args = 0..)]
    machines: Option<Vec<usize>>,
    /// How often each fleet is measured; the median is printed. Default: three times up to 200 machines, else once.
    #[arg(long)]
    runs: Option<usize>,
    /// Commits whose way to the first BMC request is timed. Default: 100.
    #[arg(long)]
    commits: Option<usize>,
    /// Virtual seconds of the emulated machines per real second.
    #[arg(long, default_value_t = 100.0)]
    speed: f64,
    /// Seconds at rest in which writes are counted. Default: 30.
    #[arg(long)]
    rest: Option<u64>,
    /// Seconds from compliant to rest: longer than what a device waits on is held back (60 s), so that its write is counted. Default: 65.
    #[arg(long)]
    settle: Option<u64>,
    /// Percent of the pool that may be unavailable at once.
    #[arg(long, default_value_t = 10)]
    budget: u32,
    /// A smoke run: twelve machines, three commits, short waits. Its figures say nothing.
    #[arg(long)]
    quick: bool,
}

impl Args {
    fn or<T>(&self, given: Option<T>, quick: T, full: T) -> T {
        given.unwrap_or(if self.quick { quick } else { full })
    }

    fn machines(&self) -> Vec<usize> {
        self.or(self.machines.clone(), vec![12], vec![200, 1000])
    }

    fn runs(&self, machines: usize) -> usize {
        self.or(self.runs, 1, if machines <= 200 { 3 } else { 1 })
    }

    fn commits(&self) -> usize {
        self.or(self.commits, 3, 100)
    }

    fn rest(&self) -> Duration {
        Duration::from_secs(self.or(self.rest, 5, 30))
    }

    fn settle(&self) -> Duration {
        Duration::from_secs(self.or(self.settle, 3, 65))
    }
}

/// Measured figures, in the order in which they were first measured.
#[derive(Default)]
struct Figures(Vec<Figure>);

struct Figure {
    what: String,
    values: Vec<f64>,
    unit: &'static str,
    aim: Option<f64>,
}

impl Figures {
    fn add(&mut self, what: impl Into<String>, value: f64, unit: &'static str, aim: Option<f64>) {
        let what = what.into();
        eprintln!("    {what}: {value:.2} {unit}");
        if let Some(figure) = self.0.iter_mut().find(|figure| figure.what == what) {
            figure.values.push(value);
            return;
        }
        self.0.push(Figure {
            what,
            values: vec![value],
            unit,
            aim,
        });
    }

    fn print(self) {
        for figure in self.0 {
            let n = figure.values.len();
            let mut line = json!({
                "bench": figure.what, "value": percentile(figure.values, 50.0), "unit": figure.unit, "n": n,
            });
            if let Some(aim) = figure.aim {
                line["aim"] = json!(aim);
            }
            println!("{line}");
        }
    }
}

/// What writes depend on is as it is shipped; only what waits for machines is quick, since the machines are.
const AS_SHIPPED: [&str; 12] = [
    "--read-interval",
    "10m",
    "--watch-timeout",
    "290s",
    "--plan-interval",
    "60s",
    "--status-interval",
    "60s",
    "--summary-interval",
    "3s",
    "--ledger-interval",
    "5s",
];

/// No wait of the bench is longer than this.
const LONG: Duration = Duration::from_secs(1800);

#[tokio::main]
async fn main() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = Args::parse();
    let mut figures = Figures::default();
    for machines in args.machines() {
        let runs = args.runs(machines);
        for run in 1..=runs {
            eprintln!("==> {machines} machines, run {run} of {runs}: enrol, rest, one BIOS update each");
            fleet(machines, &args, &mut figures).await?;
        }
    }
    if args.commits() > 0 {
        eprintln!(
            "==> {} commits: from push to the first BMC request",
            args.commits()
        );
        latency(&args, &mut figures).await?;
    }
    figures.print();
    Ok(())
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

/// What was spent until now.
#[derive(Clone)]
struct Spent {
    writes: usize,
    operator: f64,
    peak: f64,
    emulator: f64,
    control_plane: f64,
}

fn spent(cluster: &DevCluster, operator: &Operator) -> Result<Spent> {
    let (seconds, peak) = process(operator.pid())?;
    let own = std::process::id();
    Ok(Spent {
        writes: writes(cluster)?.values().sum(),
        operator: seconds,
        peak,
        emulator: process(own)?.0,
        control_plane: control_plane(own)?,
    })
}

/// Enrolment, rest, and one update of every machine.
async fn fleet(machines: usize, args: &Args, figures: &mut Figures) -> Result<()> {
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
    let name = |what: &str| format!("{machines} machines: {what}");
    let begun = Instant::now();
    let operator = lab.start_operator("bench", &AS_SHIPPED).await?;
    let before = spent(&cluster, &operator)?;
    lab.wait_compliant(LONG).await?;
    figures.add(
        name("enrolled and compliant in"),
        begun.elapsed().as_secs_f64(),
        "s",
        None,
    );
    lab.wait_quiet(LONG).await?;
    tokio::time::sleep(args.settle()).await;
    let enrolled = spent(&cluster, &operator)?;
    report("enrolment", &cluster, machines, &BTreeMap::new())?;
    // Their creation from Git is among them: the operator applied them.
    let each = enrolled.writes as f64 / n;
    figures.add(
        name("enrolment, API writes per machine"),
        each,
        "writes",
        Some(3.0),
    );
    figures.add(name("enrolment, operator CPU"), enrolled.operator, "s", None);
    figures.add(
        name("enrolment, emulator CPU"),
        enrolled.emulator - before.emulator,
        "s",
        None,
    );
    figures.add(
        name("enrolment, API server and etcd CPU"),
        enrolled.control_plane - before.control_plane,
        "s",
        None,
    );
    figures.add(
        name("enrolment, operator peak memory"),
        enrolled.peak,
        "MiB",
        None,
    );
    tokio::time::sleep(args.rest()).await;
    let rested = spent(&cluster, &operator)?;
    let seconds = args.rest().as_secs();
    let written = (rested.writes - enrolled.writes) as f64;
    figures.add(
        name(&format!("at rest, API writes in {seconds} s")),
        written,
        "writes",
        Some(0.0),
    );
    let percent = (rested.operator - enrolled.operator) / args.rest().as_secs_f64() * 100.0;
    figures.add(name("at rest, operator CPU"), percent, "% of a core", None);

    let sums = writes(&cluster)?;
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
    let makespan = begun.elapsed().as_secs_f64();
    lab.wait_quiet(LONG).await?;
    tokio::time::sleep(args.settle()).await;
    let updated = spent(&cluster, &operator)?;
    report("update", &cluster, machines, &sums)?;
    let lost = lab.fleet.record().dropped();
    ensure!(lost == 0, "the emulator's record is full: {lost} lines lost");
    let flashes = lab.fleet.record().all_flashes().len();
    ensure!(flashes == machines, "{flashes} flashes of {machines} machines");
    let durations = durations(&lab)?;
    let mean = durations.iter().sum::<f64>() / durations.len() as f64;
    let allowed = (n * f64::from(args.budget) / 100.0).ceil();
    // As much work as there was, always as much of it at once as the budget allows.
    let bound = n / allowed * mean;
    figures.add(name("update, makespan"), makespan, "s", None);
    figures.add(name("update, mean of one operation"), mean, "s", None);
    figures.add(
        name("update, bound of the makespan (work ÷ budget)"),
        bound,
        "s",
        None,
    );
    figures.add(name("update, makespan ÷ bound"), makespan / bound, "×", None);
    let each = (updated.writes - rested.writes) as f64 / n;
    figures.add(name("update, API writes per machine"), each, "writes", Some(8.0));
    figures.add(
        name("update, operator CPU"),
        updated.operator - rested.operator,
        "s",
        None,
    );
    let each = (updated.operator - rested.operator) / n * 1e3;
    figures.add(name("update, operator CPU per machine"), each, "ms", None);
    figures.add(
        name("update, emulator CPU"),
        updated.emulator - rested.emulator,
        "s",
        None,
    );
    figures.add(
        name("update, API server and etcd CPU"),
        updated.control_plane - rested.control_plane,
        "s",
        None,
    );
    figures.add(name("operator peak memory"), updated.peak, "MiB", None);
    let disrupted = lab.fleet.record().peak_disrupted() as f64;
    figures.add(
        name("update, most machines disrupted at once"),
        disrupted,
        "machines",
        Some(allowed),
    );
    let twice = lab.fleet.record().double_flashes().len() as f64;
    figures.add(
        name("update, machines flashed twice"),
        twice,
        "machines",
        Some(0.0),
    );
    keep(&operator, machines)?;
    drop(operator);
    lab.fleet.shutdown().await;
    cluster.stop().await;
    Ok(())
}

/// Keeps the operator's log where `KIBAN_BENCH_LOGS` says.
fn keep(operator: &Operator, machines: usize) -> Result<()> {
    if let Some(folder) = std::env::var_os("KIBAN_BENCH_LOGS") {
        let to = Path::new(&folder).join(format!("operator-{machines}.log"));
        std::fs::copy(operator.log(), &to).with_context(|| format!("keep the log in {}", to.display()))?;
    }
    Ok(())
}

/// From `git push` to the first request at the BMC of the machine concerned, one commit after another.
async fn latency(args: &Args, figures: &mut Figures) -> Result<()> {
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
    lab.wait_quiet(LONG).await?;
    let mut waits = Vec::new();
    for round in 0..args.commits() {
        // Always up: the way back would need consent.
        let wanted = Wanted::from([(Class::Bios, format!("1.16.{round}"))]);
        lab.estate
            .write_baseline(&lab.repository, Persona::Dell, &wanted)?;
        let seen = lab.fleet.record().len() as u64;
        let commit = lab.repository.commit("Raise BIOS on r650")?;
        let pushed = jiff::Timestamp::now();
        operator.call_webhook()?;
        let first = first_request(&lab, seen).await?;
        waits.push((first.as_millisecond() - pushed.as_millisecond()) as f64);
        lab.wait_applied(&commit, LONG).await?;
        lab.wait_compliant(LONG).await?;
        lab.wait_quiet(LONG).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let n = waits.len();
    for (percent, aim) in [(50.0, None), (99.0, Some(3000.0))] {
        let what = format!("commit to first BMC request, p{percent} of {n}");
        figures.add(what, percentile(waits.clone(), percent), "ms", aim);
    }
    drop(operator);
    lab.fleet.shutdown().await;
    cluster.stop().await;
    Ok(())
}

async fn first_request(lab: &Lab, seen: u64) -> Result<jiff::Timestamp> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let new = lab.fleet.record().since(seen, 16);
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

/// Writes of the operator's account, Leases aside, as the API server counted them, by verb, resource and field manager.
fn writes(cluster: &DevCluster) -> Result<BTreeMap<String, usize>> {
    let mut sums = BTreeMap::new();
    for request in cluster.requests()? {
        let counts = request.is_write() && request.user.starts_with("system:serviceaccount:");
        if counts && request.resource != "leases" {
            let refused = if request.code < 400 {
                String::new()
            } else {
                format!(" ({})", request.code)
            };
            let key = format!(
                "{} {} by {}{refused}",
                request.verb, request.resource, request.manager
            );
            *sums.entry(key).or_default() += 1;
        }
    }
    Ok(sums)
}

/// Says where the writes went since `before`.
fn report(
    phase: &str,
    cluster: &DevCluster,
    machines: usize,
    before: &BTreeMap<String, usize>,
) -> Result<()> {
    for (key, sum) in writes(cluster)? {
        let count = sum - before.get(&key).copied().unwrap_or(0);
        if count > 0 {
            eprintln!(
                "    {phase}: {key}: {count}, {:.2} per machine",
                count as f64 / machines as f64
            );
        }
    }
    Ok(())
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

/// The value at or under which so many percent of all lie.
fn percentile(mut values: Vec<f64>, percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * percent / 100.0).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
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

/// CPU seconds of the API server and etcd that this process started.
fn control_plane(parent: u32) -> Result<f64> {
    let mut sum = 0.0;
    for entry in std::fs::read_dir("/proc").context("list the processes")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // One that has ended since the list was made is none of them.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let Some((name, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        let own = rest.split_whitespace().nth(1) == Some(parent.to_string().as_str());
        if own
            && ["kube-apiserver", "etcd"]
                .iter()
                .any(|known| name.ends_with(&format!("({known}")))
        {
            sum += process(pid)?.0;
        }
    }
    Ok(sum)
}
