//! The main job as a story: `cargo xtask demo`.
//!
//! A baseline is committed, the canary goes, waves follow, one machine fails and the rollout halts, a commit mends it, all converges, and the
//! history shows it. Nothing is staged but the fault: what is printed is what `kubectl` and `kubectl kiban` print.

use anstream::{eprintln, println};
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kiban_devcluster::{Cluster, DevCluster, Namespace, Tool};
use kiban_lab::{
    estate::{Estate, Pool, Wanted, baseline_name},
    lab::{self, Lab},
    operator::Operator,
};
use kiban_sim::{Class, Fault, Options, Persona, Rule};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead as _, IsTerminal as _},
    process::ExitCode,
    time::{Duration, Instant},
};

const TITLE: Style = AnsiColor::Cyan.on_default().bold();
const TYPED: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// How much faster than real machines the emulated ones are: an update takes seconds, and a person can still watch it.
const SPEED: f64 = 60.0;

/// The version that the story raises the R650s' NICs to.
const NEW_NIC: &str = "26.39.20.48";

/// Plays the main job of Kiban on this machine.
#[derive(Debug, Parser)]
struct Args {
    /// Do not wait for Enter between the chapters.
    #[arg(long)]
    auto: bool,
    /// Use this context of your kubeconfig instead of an embedded control plane.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Stay up at the end, until Ctrl-C, with a kubeconfig on offer.
    #[arg(long)]
    stay: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    // An error means that a provider is set already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = Args::parse();
    let told = tokio::select! {
        told = tell(&args) => told,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted; everything was stopped")),
    };
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{BAD}The story did not end as it should:{BAD:#} {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The story, chapter by chapter.
async fn tell(args: &Args) -> Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("kiban-demo-")
        .tempdir()
        .context("make a folder for the demo")?;
    let story = Story {
        auto: args.auto,
        chapter: std::cell::Cell::new(0),
    };
    // Declared before the lab, so that it ends after it.
    let own: Option<DevCluster>;
    let namespace = match &args.context {
        Some(context) => {
            own = None;
            existing(context, dir.path()).await?
        }
        None => {
            story.chapter(
                "A control plane",
                "kube-apiserver and etcd, the real ones, on loopback",
            );
            let cluster = DevCluster::start().await.context("start the control plane")?;
            let namespace = cluster.namespace("tokyo").await?;
            own = Some(cluster);
            namespace
        }
    };
    let estate = estate(&dir.path().join("firmware"));
    story.chapter(
        "A fleet and its repository",
        &format!(
            "{} emulated machines of four vendors, each a BMC that speaks Redfish over HTTPS, {SPEED} times as fast as a real one",
            estate.machines.len()
        ),
    );
    let options = Options::fast(SPEED);
    let lab = Lab::build(namespace, dir.path(), estate, options).await?;
    let _environment = story.say_how_to_look(&lab, own.as_ref());
    let mut operator = lab.start_operator("demo", &[]).await?;
    let result = chapters(&story, &lab, &mut operator).await;
    if result.is_err() {
        let kept = dir.keep();
        eprintln!(
            "\n{FAINT}The operator's last words (its log and the repositories are kept in {}):\n{}{FAINT:#}",
            kept.display(),
            operator.last_words(12)
        );
        return result;
    }
    if args.stay {
        println!("\nEverything stays up until Ctrl-C.");
        tokio::signal::ctrl_c().await?;
    }
    operator.stop(Duration::from_secs(20))?;
    Ok(())
}

async fn chapters(story: &Story, lab: &Lab, operator: &mut Operator) -> Result<()> {
    lab.fleet_is_enrolled().await?;
    story.show_kubectl(lab, &["get", "pools"]).await?;
    story.show_kiban(lab, &["status"]).await?;

    let sick = sick_machine(lab)?;
    story.chapter(
        "A commit raises the NIC firmware of twenty R650s",
        &format!("unknown to the engineer, the NIC of {sick} is broken and will refuse the new image"),
    );
    lab.fleet
        .faults()
        .add(Rule::new(&sick, Fault::TaskFails).class(Class::Nic));
    let wanted = Wanted::from([(Class::Nic, NEW_NIC.to_owned())]);
    lab.estate
        .write_baseline(&lab.repository, Persona::Dell, &wanted)?;
    println!(
        "{FAINT}{}{FAINT:#}",
        lab.repository
            .git(&["diff", "--unified=0", "--no-color"])?
            .trim_end()
    );
    let commit = story.commit(lab, "Raise NIC firmware on r650")?;
    operator.call_webhook()?;
    let rollout = format!("hosting-package-{}", baseline_name(Persona::Dell));
    let halted = follow(lab, &rollout, Duration::from_secs(300)).await?;
    ensure!(
        !halted["status"]["halt"].is_null(),
        "the rollout should have halted at {sick}"
    );
    let failed = &halted["status"]["halt"]["devices"];
    if *failed != json!([sick]) {
        for device in failed.as_array().into_iter().flatten().filter_map(Value::as_str) {
            story
                .show_kiban(lab, &["explain", &format!("device/{device}")])
                .await?;
        }
        bail!("{failed} failed, and only {sick} was broken");
    }
    println!("\n{BAD}Halted.{BAD:#} Nothing new is started until a commit says so.");
    lab.wait_settled().await?;
    story.show_kiban(lab, &["status"]).await?;
    story
        .show_kiban(lab, &["explain", &format!("device/{sick}")])
        .await?;

    story.chapter(
        "A commit mends it",
        "someone reseated the NIC; raising the pool's `rollout.retry` tries the failed machine again and goes on",
    );
    lab.fleet.faults().clear();
    let mut pool = lab
        .estate
        .pools
        .iter()
        .find(|pool| pool.name == "hosting-package")
        .context("the pool")?
        .clone();
    pool.rollout["retry"] = json!(1);
    lab.estate.write_pool(&lab.repository, &pool)?;
    println!(
        "{FAINT}{}{FAINT:#}",
        lab.repository
            .git(&["diff", "--unified=0", "--no-color"])?
            .trim_end()
    );
    story.commit(lab, &format!("Retry r650's NIC firmware: NIC of {sick} reseated"))?;
    operator.call_webhook()?;
    let done = follow(lab, &rollout, Duration::from_secs(600)).await?;
    ensure!(
        !done["status"]["completedAt"].is_null(),
        "the rollout should have completed"
    );
    lab.wait_compliant(Duration::from_secs(120)).await?;
    lab.wait_quiet(Duration::from_secs(120)).await?;
    story.show_kiban(lab, &["status"]).await?;

    story.chapter(
        "How did it come to this?",
        "the ledger is a Git branch; `git log` tells every machine's story",
    );
    story
        .show_kiban(lab, &["history", &format!("device/{sick}")])
        .await?;
    let log = ["log", "--oneline", "--no-color", "-8", "ledger"];
    println!("{TYPED}$ git {}{TYPED:#}", log.join(" "));
    println!("{}", lab.repository.git_in_remote(&log)?.trim_end());
    check_the_end(lab, &commit, &sick).await
}

/// What must be true for the demo to have worked, taken from the emulator's own record and not from what Kiban says of itself.
async fn check_the_end(lab: &Lab, commit: &str, sick: &str) -> Result<()> {
    let record = lab.fleet.record();
    let mut flashes: BTreeMap<String, usize> = BTreeMap::new();
    for machine in lab
        .estate
        .machines
        .iter()
        .filter(|machine| machine.persona == Persona::Dell)
    {
        // The machine that failed refused the image before it wrote anything, so it too was flashed once.
        let count = record.flashes(&machine.name).len();
        ensure!(
            count == 1,
            "{} was flashed {count} times instead of once",
            machine.name
        );
        flashes.insert(machine.name.clone(), count);
    }
    let others = lab
        .estate
        .machines
        .iter()
        .filter(|machine| machine.persona != Persona::Dell);
    for machine in others {
        ensure!(
            record.flashes(&machine.name).is_empty(),
            "{} was flashed, and nobody asked for it",
            machine.name
        );
    }
    ensure!(record.double_flashes().is_empty(), "a machine was flashed twice");
    let failed =
        lab.repository
            .git_in_remote(&["grep", "-l", "outcome: Failed", "ledger", "--", "operations"])?;
    ensure!(
        failed.contains(sick),
        "the ledger does not tell that {sick} failed"
    );
    let peak = record.peak_disrupted();
    ensure!(
        peak <= 4,
        "{peak} machines were disrupted at once, and the budget is 4"
    );
    let log = lab.repository.git_in_remote(&["log", "--format=%B", "ledger"])?;
    ensure!(
        log.contains(&format!("Desired: {commit}")),
        "the ledger does not name the commit that caused it"
    );
    println!(
        "\n{GOOD}It ended as it should.{GOOD:#} {} machines updated, each flashed exactly once; {sick} failed first and succeeded after the commit; at most {peak} of 4 allowed were disrupted at once.",
        flashes.len()
    );
    Ok(())
}

/// The fleet of the story.
fn estate(images: &std::path::Path) -> Estate {
    let mut estate = Estate::new(images.to_owned());
    let waves = json!([{"devices": 1, "soak": "3s"}, {"percent": 25, "soak": "3s"}, {"percent": 100}]);
    let mut hosting = Pool::new(
        "hosting-package",
        json!({"maxUnavailable": "10%", "maxPerDomain": 1}),
        json!({"waves": waves, "haltAfter": {"failed": 1}}),
    );
    hosting.class = "Public".into();
    let mut component = Pool::new(
        "component-service",
        json!({"maxUnavailable": 2, "maxPerDomain": 1}),
        json!({"waves": waves, "haltAfter": {"failed": 1}}),
    );
    component.class = "Private".into();
    estate.pools = vec![hosting, component];
    // Mixed over the racks as they were bought.
    for _ in 0..10 {
        estate.add("hosting-package", Persona::Dell, 2);
        estate.add("component-service", Persona::Hpe, 1);
        estate.add("hosting-package", Persona::Supermicro, 2);
        estate.add("component-service", Persona::Lenovo, 1);
    }
    estate
}

/// A machine that comes late enough for the reader to have seen a wave, and early enough for the halt to matter.
fn sick_machine(lab: &Lab) -> Result<String> {
    let dells = lab
        .estate
        .machines
        .iter()
        .filter(|machine| machine.persona == Persona::Dell);
    dells
        .map(|machine| machine.name.clone())
        .nth(7)
        .context("a fleet with R650s")
}

async fn existing(context: &str, dir: &std::path::Path) -> Result<Namespace> {
    let kubectl = tokio::task::spawn_blocking(|| Tool::Kubectl.find()).await??;
    let helm = tokio::task::spawn_blocking(|| Tool::Helm.find()).await??;
    let output = tokio::process::Command::new(&kubectl)
        .args([
            "--context",
            context,
            "config",
            "view",
            "--raw",
            "--minify",
            "--flatten",
        ])
        .output()
        .await
        .context("run kubectl")?;
    ensure!(
        output.status.success(),
        "read the context {context}: {}; `kubectl config get-contexts` lists those there are",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let kubeconfig = dir.join("kubeconfig");
    std::fs::write(&kubeconfig, output.stdout).context("write a kubeconfig")?;
    let cluster = Cluster::new(kubeconfig, kubectl).with_helm(Some(helm));
    Ok(cluster.namespace("kiban-demo").await?)
}

/// Draws a rollout until it halts or completes.
async fn follow(lab: &Lab, name: &str, limit: Duration) -> Result<Value> {
    let end = Instant::now() + limit;
    let quiet = !std::io::stderr().is_terminal();
    let bar = ProgressBar::with_draw_target(
        Some(1),
        if quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        },
    );
    bar.set_style(ProgressStyle::with_template(
        "{prefix} {bar:30.cyan} {pos}/{len} {msg}  {elapsed}",
    )?);
    bar.set_prefix(name.to_owned());
    let mut last = String::new();
    // A rollout that ended before the commit arrived is not the one to follow.
    let before = lab.get("rollouts", name).await?["status"]["revision"].clone();
    loop {
        let rollout = lab.get("rollouts", name).await?;
        let status = &rollout["status"];
        if !status["revision"].is_null() && status["revision"] != before {
            let count = |field: &str| status[field].as_u64().unwrap_or(0);
            let line = format!(
                "wave {}/{}  {} running  {} failed",
                count("wave"),
                count("waves"),
                count("running"),
                count("failed")
            );
            bar.set_length(count("total"));
            bar.set_position(count("done"));
            bar.set_message(line.clone());
            let text = format!("{name}  {}/{} done  {line}", count("done"), count("total"));
            if quiet && text != last {
                println!("  {text}");
                last = text;
            }
            if !status["halt"].is_null() || !status["completedAt"].is_null() {
                bar.abandon();
                return Ok(rollout);
            }
        }
        ensure!(
            Instant::now() < end,
            "rollout {name} neither halted nor completed within {limit:?}: {status}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Waiting for what the story needs.
trait Waits {
    async fn fleet_is_enrolled(&self) -> Result<()>;
    async fn wait_settled(&self) -> Result<()>;
}

impl Waits for Lab {
    async fn fleet_is_enrolled(&self) -> Result<()> {
        let total = self.estate.machines.len();
        let bar = ProgressBar::new(total as u64);
        bar.set_style(ProgressStyle::with_template(
            "enrolled {bar:30.cyan} {pos}/{len}  {elapsed}",
        )?);
        self.wait_for(
            "every machine read and at its baseline",
            "devices",
            Duration::from_secs(180),
            |devices| {
                bar.set_position(
                    devices
                        .iter()
                        .filter(|device| lab::compliance(device) == "Compliant")
                        .count() as u64,
                );
                devices.len() == total
                    && devices
                        .iter()
                        .all(|device| lab::compliance(device) == "Compliant")
            },
        )
        .await?;
        bar.finish_and_clear();
        Ok(())
    }

    async fn wait_settled(&self) -> Result<()> {
        self.wait_for(
            "what was under way finished",
            "operations",
            Duration::from_secs(120),
            |operations| operations.is_empty(),
        )
        .await
        .map(drop)
    }
}

/// The teller.
struct Story {
    auto: bool,
    chapter: std::cell::Cell<u32>,
}

impl Story {
    fn chapter(&self, title: &str, text: &str) {
        let number = self.chapter.get() + 1;
        self.chapter.set(number);
        if number > 1 && !self.auto && std::io::stdin().is_terminal() {
            println!("\n{FAINT}Enter goes on.{FAINT:#}");
            let mut line = String::new();
            let _ = std::io::stdin().lock().read_line(&mut line);
        }
        println!("\n{TITLE}{number}. {title}{TITLE:#}\n{FAINT}{text}{FAINT:#}\n");
    }

    fn say_how_to_look(&self, lab: &Lab, own: Option<&DevCluster>) -> Result<()> {
        let folder = lab::binary("kubectl-kiban")?;
        let folder = folder.parent().context("a folder of binaries")?;
        let kubectl = lab.namespace.cluster().kubectl_path().to_owned();
        println!("To look for yourself, in another terminal:");
        if own.is_some() {
            println!(
                "  {TYPED}export KUBECONFIG={}{TYPED:#}",
                lab.namespace.cluster().kubeconfig().display()
            );
        }
        let tools = kubectl.parent().context("a folder of tools")?;
        println!(
            "  {TYPED}export PATH={}:{}:$PATH{TYPED:#}",
            folder.display(),
            tools.display()
        );
        println!(
            "  {TYPED}kubectl kiban status --watch -n {}{TYPED:#}",
            lab.namespace
        );
        println!(
            "  {TYPED}cd {}{TYPED:#}   {FAINT}# the engineers' clone{FAINT:#}\n",
            lab.repository.clone_dir().display()
        );
        Ok(())
    }

    fn commit(&self, lab: &Lab, message: &str) -> Result<String> {
        let commit = lab.repository.commit(message)?;
        println!(
            "{TYPED}$ git commit -am {message:?} && git push{TYPED:#}   {FAINT}{}{FAINT:#}\n",
            &commit[..7]
        );
        Ok(commit)
    }

    async fn show_kubectl(&self, lab: &Lab, args: &[&str]) -> Result<()> {
        println!("{TYPED}$ kubectl {}{TYPED:#}", args.join(" "));
        println!("{}", lab.namespace.kubectl(args).await?.trim_end());
        println!();
        Ok(())
    }

    async fn show_kiban(&self, lab: &Lab, args: &[&str]) -> Result<()> {
        println!("{TYPED}$ kubectl kiban {}{TYPED:#}", args.join(" "));
        let (good, text) = lab.kiban(args).await?;
        println!("{}\n", text.trim_end());
        ensure!(good, "kubectl kiban {} failed", args.join(" "));
        Ok(())
    }
}
