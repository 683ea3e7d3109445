//! `kubectl kiban status`: the fleet at a glance.
//!
//! What waits on what is the planner's own answer to the objects as they are now: the operator writes it into statuses too, but seldom, to
//! spare the API server. Everything else is read from the statuses.

use crate::{
    cli::{Format, Global, StatusArgs},
    connect::{self, Connection},
    failure::Failure,
    fleet::Fleet,
    output::{self, BAD, FAINT, GOOD, STRONG, WARN, bar, shown, span},
    snapshot,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kiban_api::{Device, FleetRepository, Operation, Rollout};
use kiban_core::{
    compliance::Compliance,
    plan::{Plan, plan},
    world::World,
};
use kube::ResourceExt;
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode, time::Duration};

/// What the screen shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The fleet: its namespace.
    pub fleet: String,
    /// Whether `FleetPolicy/fleet` pauses everything.
    pub paused: bool,
    /// Where desired state comes from.
    pub repositories: Vec<Repository>,
    /// Devices by how they stand.
    pub devices: Counts,
    /// Pools.
    pub pools: Vec<Pool>,
    /// Rollouts that are not complete.
    pub rollouts: Vec<RolloutLine>,
    /// Operations under way.
    pub operations: Vec<OperationLine>,
    /// Devices by what they wait on.
    pub waiting: Vec<Waiting>,
    /// What a person should look at.
    pub attention: Vec<String>,
}

/// Where desired state comes from, and where history goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Repository {
    /// Name of the `FleetRepository`.
    pub name: String,
    /// The applied commit; None: none yet.
    pub commit: Option<String>,
    /// Its subject.
    pub subject: String,
    /// Its author.
    pub author: String,
    /// Who signed it; empty: nobody.
    pub signer: String,
    /// Since when it is applied.
    pub applied_at: Option<Timestamp>,
    /// When the ledger was last pushed.
    pub ledger_pushed_at: Option<Timestamp>,
}

/// Devices by how they stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// All.
    pub total: u32,
    /// At their baseline.
    pub compliant: u32,
    /// Not at it.
    pub non_compliant: u32,
    /// Without a baseline.
    pub no_baseline: u32,
    /// Not known: never read, or not fresh.
    pub unknown: u32,
    /// Whose BMC does not answer.
    pub unreachable: u32,
    /// That a person must look at.
    pub held: u32,
}

/// One pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// Name.
    pub name: String,
    /// Service.
    pub service: String,
    /// Devices bound.
    pub bound: u32,
    /// At their baseline.
    pub compliant: u32,
    /// With an operation under way.
    pub updating: u32,
    /// Unavailable over allowed.
    pub unavailable: String,
}

/// One rollout that is not complete.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutLine {
    /// Name.
    pub name: String,
    /// The commit that caused it.
    pub commit: String,
    /// Present wave.
    pub wave: u32,
    /// Of how many.
    pub waves: u32,
    /// Devices done.
    pub done: u32,
    /// Of how many.
    pub total: u32,
    /// Under way.
    pub running: u32,
    /// Failed.
    pub failed: u32,
    /// When the present wave was done and its soak began.
    pub soaking_since: Option<Timestamp>,
    /// Why it halted, if it did.
    pub halted: Option<String>,
}

/// One operation under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationLine {
    /// Device.
    pub device: String,
    /// What wants it.
    pub campaign: String,
    /// The step.
    pub step: String,
    /// Which update of how many.
    pub progress: String,
    /// Since when.
    pub started_at: Option<Timestamp>,
}

/// Devices that wait on the same rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// The rule.
    pub reason: String,
    /// How many wait on it.
    pub devices: u32,
    /// One of them.
    pub example: String,
    /// What it waits on, in a sentence.
    pub message: String,
}

/// Runs the command.
pub async fn run(global: &Global, args: &StatusArgs) -> Result<ExitCode, Failure> {
    if !args.watch {
        let fleet = Fleet::of(snapshot::take(global, args.source.snapshot.as_deref()).await?);
        output::print(&show(&fleet, global.output)?);
        return Ok(ExitCode::SUCCESS);
    }
    watch(&connect::connect(global).await?, global.output).await
}

/// The screen, or the same as data.
fn show(fleet: &Fleet, format: Format) -> Result<String, Failure> {
    let report = report(fleet);
    Ok(match output::structured(format, &report)? {
        Some(text) => text,
        None => output::fit(&render(&report, fleet.objects.taken_at, format), 13),
    })
}

/// Redraws every two seconds. The terminal is cleared only when the screen changed, so that it does not flicker.
async fn watch(connection: &Connection, format: Format) -> Result<ExitCode, Failure> {
    let mut last = String::new();
    loop {
        let text = match snapshot::read(connection).await {
            Ok(objects) => show(&Fleet::of(objects), format)?,
            // A watch outlives a restart of the API server; what went wrong is shown in place.
            Err(failure) => format!("{BAD}error:{BAD:#} {failure}\n"),
        };
        if text != last {
            output::print(&format!("\u{1b}[H\u{1b}[2J{text}"));
            last = text;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(2)) => {}
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Everything that the screen shows.
#[must_use]
pub fn report(fleet: &Fleet) -> Report {
    let objects = &fleet.objects;
    let plan = plan(&fleet.world, objects.taken_at);
    let mut report = Report {
        fleet: objects.namespace.clone(),
        paused: objects.policies.iter().any(|policy| policy.spec.paused),
        ..Report::default()
    };
    if report.paused {
        report
            .attention
            .push("FleetPolicy fleet pauses everything: nothing new is started".into());
    }
    for repository in &objects.repositories {
        report.repositories.push(repository_line(repository));
        attend_to_repository(repository, &mut report.attention);
    }
    count(&objects.devices, &fleet.world, &plan, &mut report);
    for pool in &objects.pools {
        let status = pool.status.clone().unwrap_or_default();
        attend(
            &format!("pool {}", pool.name_any()),
            &status.conditions,
            &mut report.attention,
        );
        report.pools.push(Pool {
            name: pool.name_any(),
            service: pool.spec.service.clone(),
            bound: status.bound,
            compliant: status.compliant,
            updating: status.updating,
            unavailable: status.unavailable_summary,
        });
    }
    report
        .rollouts
        .extend(objects.rollouts.iter().filter_map(rollout_line));
    report
        .operations
        .extend(objects.operations.iter().filter_map(operation_line));
    report
        .attention
        .extend(fleet.ignored.iter().map(|ignored| format!("ignored: {ignored}")));
    report
}

fn repository_line(repository: &FleetRepository) -> Repository {
    let status = repository.status.clone().unwrap_or_default();
    let mut line = Repository {
        name: repository.name_any(),
        ..Repository::default()
    };
    if let Some(applied) = status.applied {
        line.commit = Some(applied.commit);
        line.subject = applied.subject;
        line.author = applied.author;
        line.signer = applied.signer;
        line.applied_at = Some(applied.at.0);
    }
    line.ledger_pushed_at = status.ledger.map(|ledger| ledger.pushed_at.0);
    line
}

fn attend_to_repository(repository: &FleetRepository, attention: &mut Vec<String>) {
    let name = repository.name_any();
    let Some(status) = &repository.status else {
        attention.push(format!(
            "repository {name} was not looked at yet: does the operator run in this namespace?"
        ));
        return;
    };
    if let Some(commit) = &status.refused_commit {
        let what = match status.errors.first() {
            Some(error) => format!("{}:{} {}: {}", error.file, error.line, error.field, error.message),
            None => message_of(&status.conditions, "Ready").unwrap_or_default(),
        };
        let more = match status.error_count {
            0 | 1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        attention.push(format!(
            "commit {} is refused, the last good one stays: {what}{more}",
            short(commit)
        ));
    }
    for kind in ["Fetched", "Verified", "LedgerPushed"] {
        if let Some(condition) = condition(&status.conditions, kind)
            && condition.status == "False"
        {
            attention.push(format!("repository {name}: {}", condition.message));
        }
    }
}

fn count(devices: &[Device], world: &World, plan: &Plan, report: &mut Report) {
    let mut waiting: BTreeMap<&'static str, Waiting> = BTreeMap::new();
    for device in devices {
        let counts = &mut report.devices;
        counts.total += 1;
        let name = device.name_any();
        let verdict = plan.verdict(world, &name).unwrap_or_default();
        match verdict.compliance {
            Compliance::Compliant => counts.compliant += 1,
            Compliance::NonCompliant => counts.non_compliant += 1,
            Compliance::NoBaseline => counts.no_baseline += 1,
            Compliance::Unknown => counts.unknown += 1,
        }
        if let Some(wait) = verdict.waiting {
            let entry = waiting.entry(wait.reason()).or_insert_with(|| Waiting {
                reason: wait.reason().to_owned(),
                example: name.clone(),
                message: wait.sentence(world).to_string(),
                ..Waiting::default()
            });
            entry.devices += 1;
        }
        let Some(status) = &device.status else { continue };
        if condition(&status.conditions, "Reachable").is_some_and(|condition| condition.status == "False") {
            counts.unreachable += 1;
        }
        if let Some(hold) = &status.hold {
            counts.held += 1;
            report
                .attention
                .push(format!("{name} is held ({}): {}", hold.reason, hold.message));
        }
    }
    report.waiting = waiting.into_values().collect();
    report
        .waiting
        .sort_by(|a, b| b.devices.cmp(&a.devices).then_with(|| a.reason.cmp(&b.reason)));
}

fn rollout_line(rollout: &Rollout) -> Option<RolloutLine> {
    let status = rollout.status.clone()?;
    if status.completed_at.is_some() {
        return None;
    }
    Some(RolloutLine {
        name: rollout.name_any(),
        commit: status.commit,
        wave: status.wave,
        waves: status.waves,
        done: status.done,
        total: status.total,
        running: status.running,
        failed: status.failed,
        soaking_since: status.wave_done_at.map(|at| at.0),
        halted: status.halt.map(|halt| halt.message),
    })
}

fn operation_line(operation: &Operation) -> Option<OperationLine> {
    let status = operation.status.clone().unwrap_or_default();
    if matches!(status.outcome.as_str(), "Succeeded" | "Failed" | "Held") {
        return None;
    }
    Some(OperationLine {
        device: operation.spec.device.clone(),
        campaign: operation.spec.campaign.clone(),
        step: if status.step.is_empty() {
            "waiting to start".into()
        } else {
            status.step
        },
        progress: status.progress,
        started_at: status.started_at.map(|at| at.0),
    })
}

/// A stalled object is something that a person must look at.
fn attend(what: &str, conditions: &[Condition], attention: &mut Vec<String>) {
    if let Some(stalled) = condition(conditions, "Stalled")
        && stalled.status == "True"
    {
        attention.push(format!("{what}: {}", stalled.message));
    }
}

fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn message_of(conditions: &[Condition], kind: &str) -> Option<String> {
    condition(conditions, kind).map(|condition| condition.message.clone())
}

fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

/// The screen.
#[must_use]
pub fn render(report: &Report, now: Timestamp, format: Format) -> String {
    let mut text = String::new();
    let ago = |at: Option<Timestamp>| at.map(|at| format!("{} ago", span(now.as_second() - at.as_second())));
    if report.repositories.is_empty() {
        let _ = writeln!(
            text,
            "{STRONG}{}{STRONG:#} · no FleetRepository: nothing tells what is wanted (see `kubectl explain fleetrepository`)",
            shown(&report.fleet)
        );
    }
    for repository in &report.repositories {
        let _ = write!(text, "{STRONG}{}{STRONG:#} · ", shown(&report.fleet));
        match &repository.commit {
            Some(commit) => {
                let signer = if repository.signer.is_empty() {
                    format!("by {}", shown(&repository.author))
                } else {
                    format!("signed by {}", shown(&repository.signer))
                };
                let when = ago(repository.applied_at).unwrap_or_default();
                let _ = write!(
                    text,
                    "desired {} \"{}\" ({when}, {signer})",
                    short(commit),
                    shown(&repository.subject)
                );
            }
            None => {
                let _ = write!(
                    text,
                    "nothing applied yet from repository {}",
                    shown(&repository.name)
                );
            }
        }
        match ago(repository.ledger_pushed_at) {
            Some(when) => {
                let _ = writeln!(text, " · ledger pushed {when}");
            }
            None => text.push_str(" · ledger empty\n"),
        }
    }
    render_compliance(&report.devices, &mut text);
    render_pools(report, format, &mut text);
    render_moving(report, format, now, &mut text);
    render_waiting(report, format, &mut text);
    for (index, line) in report.attention.iter().enumerate() {
        let label = if index == 0 { "Attention" } else { "" };
        let _ = writeln!(text, "{WARN}{label:<12}{WARN:#} {}", shown(line));
    }
    text
}

fn render_compliance(counts: &Counts, text: &mut String) {
    let judged = counts.total - counts.no_baseline;
    let style = if counts.compliant == judged { GOOD } else { WARN };
    let _ = write!(
        text,
        "{:<12} {style}{}{style:#} {}/{judged}",
        "Compliance",
        bar(counts.compliant, judged, 20),
        counts.compliant
    );
    for (count, what) in [
        (counts.non_compliant, "to update"),
        (counts.unreachable, "unreachable"),
        (counts.held, "held"),
        (counts.unknown, "not known"),
        (counts.no_baseline, "without a baseline"),
    ] {
        if count > 0 {
            let _ = write!(text, "   {count} {what}");
        }
    }
    text.push('\n');
}

fn render_pools(report: &Report, format: Format, text: &mut String) {
    if format != Format::Wide {
        return;
    }
    for (index, pool) in report.pools.iter().enumerate() {
        let label = if index == 0 { "Pools" } else { "" };
        let _ = writeln!(
            text,
            "{label:<12} {:<24} {} {}/{}   updating {}   unavailable {}",
            shown(&pool.name),
            bar(pool.compliant, pool.bound, 14),
            pool.compliant,
            pool.bound,
            pool.updating,
            shown(&pool.unavailable)
        );
    }
}

fn render_moving(report: &Report, format: Format, now: Timestamp, text: &mut String) {
    for (index, rollout) in report.rollouts.iter().enumerate() {
        let label = if index == 0 { "Moving" } else { "" };
        let _ = write!(
            text,
            "{label:<12} Rollout {}  wave {}/{} {} {}/{} done  {} running  ",
            shown(&rollout.name),
            rollout.wave,
            rollout.waves,
            bar(rollout.done, rollout.total, 14),
            rollout.done,
            rollout.total,
            rollout.running
        );
        let style = if rollout.failed > 0 { BAD } else { FAINT };
        let _ = write!(text, "{style}{} failed{style:#}", rollout.failed);
        if let Some(why) = &rollout.halted {
            let _ = write!(text, "\n{:<12} {BAD}halted:{BAD:#} {}", "", shown(why));
        } else if let Some(since) = rollout.soaking_since {
            let _ = write!(
                text,
                "  soaking for {}",
                span(now.as_second() - since.as_second())
            );
        }
        text.push('\n');
    }
    // The list is for looking, not for scrolling: the whole is in `kubectl get operations`.
    let most = if format == Format::Wide { usize::MAX } else { 5 };
    for (index, operation) in report.operations.iter().take(most).enumerate() {
        let label = if index == 0 { "Running" } else { "" };
        let since = operation
            .started_at
            .map(|at| span(now.as_second() - at.as_second()))
            .unwrap_or_default();
        let _ = writeln!(
            text,
            "{label:<12} {}  {} {}  {since}",
            shown(&operation.device),
            shown(&operation.progress),
            shown(&operation.step)
        );
    }
    if report.operations.len() > most {
        let _ = writeln!(
            text,
            "{:<12} {FAINT}and {} more: kubectl get operations{FAINT:#}",
            "",
            report.operations.len() - most
        );
    }
}

fn render_waiting(report: &Report, format: Format, text: &mut String) {
    if report.waiting.is_empty() {
        return;
    }
    let total: u32 = report.waiting.iter().map(|waiting| waiting.devices).sum();
    let parts: Vec<String> = report
        .waiting
        .iter()
        .map(|w| format!("{} {}", w.devices, shown(&w.reason)))
        .collect();
    let _ = writeln!(text, "{:<12} {total} devices: {}", "Waiting", parts.join(", "));
    for waiting in report
        .waiting
        .iter()
        .take(if format == Format::Wide { usize::MAX } else { 3 })
    {
        let _ = writeln!(
            text,
            "{:<12} {FAINT}{}{FAINT:#} {}: {}",
            "",
            shown(&waiting.reason),
            shown(&waiting.example),
            shown(&waiting.message)
        );
    }
}
