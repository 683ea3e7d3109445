//! `kubectl kiban plan`: what a commit would do, before it is one.
//!
//! ```text
//!   cluster or snapshot ──▶ before ──plan──┐
//!   the same, with the files of --repo ──▶ after ──plan──┴──▶ Report: changes, impact, problems
//! ```
//!
//! The planner is the operator's own; so what it says here is what would happen if nothing else changed.

use crate::{
    cli::{Format, Global, PlanArgs},
    desired::{self, Change},
    failure::Failure,
    fleet::Fleet,
    output::{self, BAD, FAINT, GOOD, STRONG, WARN, shown, span},
    snapshot,
};
use jiff::{Timestamp, tz::TimeZone};
use kiban_core::{
    Plan, World,
    forecast::{self, Forecast},
    impact::{self, Impact, Problem, Spread},
    plan as make,
};
use serde::Serialize;
use std::{fmt::Write as _, process::ExitCode};

/// Lines of a list that is for looking: the whole is in `-o wide`, JSON and YAML.
const LINES: usize = 8;

/// Width of the labels.
const LABEL: usize = 11;

/// What a commit would do.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The fleet: its namespace.
    pub fleet: String,
    /// The time that the plan is made for.
    pub at: Timestamp,
    /// What the files are compared with: a revision, or the objects in the cluster.
    pub compared_with: String,
    /// Objects that change.
    pub changes: Vec<Change>,
    /// Devices whose updates change: with this commit they are to get something that they were not before.
    pub touched: u32,
    /// Devices that would have been updated before and are not any more.
    pub spared: u32,
    /// The whole plan, added up.
    pub impact: Impact,
    /// When it would be done.
    pub forecast: Forecast,
    /// What nobody could read.
    pub ignored: Vec<String>,
}

/// Runs the command: exit code 2 when the commit would break a rule or asks for what can never be done.
pub async fn run(global: &Global, args: &PlanArgs) -> Result<ExitCode, Failure> {
    let present = snapshot::take(global, args.source.snapshot.as_deref()).await?;
    let owner = desired::owner(&present, args.repository.as_deref())?;
    let owner = owner.as_deref();
    let folder = desired::folder(&args.repo, &present);
    let files = desired::files(&folder)?;
    let documents = desired::validated(&files, global, &present, owner)?;
    let mut before = present.clone();
    let mut compared_with = match &args.source.snapshot {
        Some(file) => format!(
            "the snapshot {}",
            file.file_name().unwrap_or(file.as_os_str()).display()
        ),
        None => "the cluster".to_owned(),
    };
    if let Some(revision) = &args.base {
        let base = desired::files_at(&folder, revision)?;
        let base = desired::validated(&base, global, &present, owner)
            .map_err(|failure| Failure::new(format!("the base {revision}: {failure}")))?;
        desired::overlay(&mut before, &base.objects, owner)?;
        compared_with.clone_from(revision);
    }
    let mut after = before.clone();
    let changes = desired::overlay(&mut after, &documents.objects, owner)?;
    let held = desired::held(&before, &changes, owner);
    let report = report(Fleet::of(before), Fleet::of(after), compared_with, changes, held);
    let text = match output::structured(global.output, &report)? {
        Some(text) => text,
        None if global.output == Format::Markdown => markdown(&report),
        None => output::fit(&render(&report, global.output), LABEL),
    };
    output::print(&text);
    Ok(if report.impact.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    })
}

/// Makes both plans and compares them.
#[must_use]
pub fn report(
    before: Fleet,
    after: Fleet,
    compared_with: String,
    changes: Vec<Change>,
    held: Option<String>,
) -> Report {
    let at = after.objects.taken_at;
    let old = make(&before.world, at);
    let new = make(&after.world, at);
    let mut impact = impact::impact(&after.world, &new);
    impact.problems.extend(held.map(|message| Problem {
        reason: "PruneHeld".into(),
        message,
        devices: 0,
        examples: Vec::new(),
    }));
    let forecast = forecast::forecast(&after.world, at, forecast::HORIZON);
    let (touched, spared) = compare((&before.world, &old), (&after.world, &new));
    Report {
        fleet: after.objects.namespace,
        at,
        compared_with,
        changes,
        touched,
        spared,
        impact,
        forecast,
        ignored: after.ignored,
    }
}

fn compare(before: (&World, &Plan), after: (&World, &Plan)) -> (u32, u32) {
    let (mut touched, mut spared) = (0, 0);
    for device in after.0.devices() {
        let old = impact::updates(before.0, before.1, device.name());
        let new = impact::updates(after.0, after.1, device.name());
        if new != old {
            touched += u32::from(!new.is_empty());
            spared += u32::from(new.is_empty());
        }
    }
    (touched, spared)
}

/// `1 device`, `2 devices`.
fn count(n: u32, one: &str) -> String {
    match n {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    }
}

/// The first line: what changes.
fn headline(report: &Report) -> String {
    if report.changes.is_empty() {
        return format!("This commit changes nothing against {}.", report.compared_with);
    }
    let mut parts = Vec::new();
    for (what, verb) in [("Changed", "changes"), ("Added", "adds"), ("Removed", "removes")] {
        let mut kinds: Vec<(&str, u32)> = Vec::new();
        for change in report.changes.iter().filter(|change| change.what == what) {
            match kinds.iter_mut().find(|(kind, _)| *kind == change.kind) {
                Some((_, n)) => *n += 1,
                None => kinds.push((&change.kind, 1)),
            }
        }
        if !kinds.is_empty() {
            let list: Vec<String> = kinds
                .into_iter()
                .map(|(kind, n)| match n {
                    1 => format!("1 {kind}"),
                    n if kind.ends_with('y') => format!("{n} {}ies", kind.trim_end_matches('y')),
                    n => format!("{n} {kind}s"),
                })
                .collect();
            parts.push(format!("{verb} {}", list.join(", ")));
        }
    }
    format!(
        "This commit {} (against {}).",
        parts.join("; "),
        report.compared_with
    )
}

/// Every changed field as a line: `FirmwareBaseline r650-2026q4  components[NIC].version: 20.37.1014 → 20.39.2048`.
fn change_lines(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for change in &report.changes {
        let object = format!("{} {}", change.kind, change.name);
        if change.fields.is_empty() {
            lines.push(format!("{object}: {}", change.what.to_lowercase()));
        }
        for field in &change.fields {
            let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".into());
            lines.push(format!(
                "{object}  {}: {} → {}",
                field.field,
                value(&field.from),
                value(&field.to)
            ));
        }
    }
    lines
}

fn waves(spread: &Spread) -> String {
    let mut text = String::new();
    for (index, wave) in spread.waves.iter().enumerate() {
        if index > 0 {
            text.push_str(" → ");
        }
        let _ = write!(text, "{}", wave.devices);
        if wave.soak_seconds > 0 {
            let _ = write!(text, " (soak {})", span(wave.soak_seconds));
        }
    }
    text
}

fn images(report: &Report) -> String {
    let images = &report.impact.images;
    let known: u64 = images.iter().filter_map(|image| image.size).sum();
    let unknown = images.iter().filter(|image| image.size.is_none()).count();
    let n = u32::try_from(images.len()).unwrap_or(u32::MAX);
    let size = match (images.len(), unknown) {
        (0, _) => String::new(),
        (_, 0) => format!(" ({} MB)", known.div_ceil(1_000_000)),
        (all, unknown) if all == unknown => " (size not given)".into(),
        (_, unknown) => format!(
            " ({} MB, and {unknown} of unknown size)",
            known.div_ceil(1_000_000)
        ),
    };
    format!("{}{size}", count(n, "image"))
}

fn percent(part: u32, whole: u32) -> u64 {
    u64::from(part) * 100 / u64::from(whole.max(1))
}

/// By pool, what is to be updated: `hosting 88, staging 9`.
fn by_pool(report: &Report) -> String {
    let mut pools: Vec<(&str, u32)> = Vec::new();
    for group in report.impact.groups.iter().filter(|it| it.work.to_update > 0) {
        match pools.iter_mut().find(|(pool, _)| *pool == group.pool) {
            Some((_, n)) => *n += group.work.to_update,
            None => pools.push((&group.pool, group.work.to_update)),
        }
    }
    let list: Vec<String> = pools.iter().map(|(pool, n)| format!("{pool} {n}")).collect();
    list.join(", ")
}

fn verdict(report: &Report) -> String {
    match report.impact.problems.len() {
        0 => "No rule is broken. exit 0".into(),
        1 => "1 problem. exit 2".into(),
        n => format!("{n} problems. exit 2"),
    }
}

/// The screen.
#[must_use]
pub fn render(report: &Report, format: Format) -> String {
    let most = if format == Format::Wide { usize::MAX } else { LINES };
    let mut text = format!("{STRONG}{}{STRONG:#}\n", shown(&headline(report)));
    lines(&mut text, "changes", &change_lines(report), most, |line| {
        shown(line).into_owned()
    });
    let work = &report.impact.devices;
    let mut devices = format!("{STRONG}{} to update{STRONG:#}", work.to_update);
    if work.to_update > 0 {
        let _ = write!(devices, " ({})", shown(&by_pool(report)));
    }
    let _ = write!(devices, " · {} already there", work.compliant);
    for (n, what) in [
        (work.cannot, "cannot"),
        (work.unknown, "not known"),
        (work.no_baseline, "without a baseline"),
    ] {
        if n > 0 {
            let style = if what == "cannot" { BAD } else { WARN };
            let _ = write!(devices, " · {style}{n} {what}{style:#}");
        }
    }
    line(&mut text, "devices", &devices);
    let mut touched = format!("{} by this commit", report.touched);
    if report.spared > 0 {
        let _ = write!(touched, " · {} no longer", report.spared);
    }
    line(&mut text, "touched", &touched);
    let resets = format!(
        "{} · {} · {} · {} · {}",
        count(work.updates, "update"),
        count(work.host_resets, "reboot"),
        count(work.bmc_resets, "BMC reset"),
        count(work.ac_cycles, "AC cycle"),
        images(report)
    );
    line(&mut text, "disturbs", &resets);
    let spreads: Vec<String> = report
        .impact
        .rollouts
        .iter()
        .map(|spread| {
            let halt = spread
                .halt
                .as_ref()
                .map(|why| format!(" {BAD}halted{BAD:#}: {}", shown(why)));
            format!(
                "{}  {}{}",
                shown(&spread.rollout),
                waves(spread),
                halt.unwrap_or_default()
            )
        })
        .collect();
    lines(&mut text, "waves", &spreads, most, Clone::clone);
    let told = crate::forecast::summary(&report.forecast, &TimeZone::system());
    line(&mut text, "forecast", &shown(&told));
    let waiting: Vec<String> = report
        .impact
        .waiting
        .iter()
        .map(|waiting| {
            let style = if waiting.passes_by_itself { FAINT } else { BAD };
            format!(
                "{} {style}{}{style:#}  {}: {}",
                waiting.devices,
                shown(&waiting.reason),
                shown(&waiting.examples.join(", ")),
                shown(&waiting.message)
            )
        })
        .collect();
    lines(&mut text, "waiting", &waiting, most, Clone::clone);
    let shares: Vec<String> = report
        .impact
        .shares
        .iter()
        .filter(|share| format == Format::Wide || share.by == "manufacturer" || share.of > 1)
        .map(|share| {
            format!(
                "{}  {} {}: {} {}% ({} of {})",
                shown(&share.pool),
                share.class,
                share.by,
                shown(&share.value),
                percent(share.devices, share.of),
                share.devices,
                share.of
            )
        })
        .collect();
    lines(&mut text, "diversity", &shares, most, Clone::clone);
    if report.impact.groups.iter().any(|group| group.work.to_update > 0) {
        let _ = write!(text, "\n{}\n", groups(report));
    }
    lines(&mut text, "ignored", &report.ignored, most, |line| {
        shown(line).into_owned()
    });
    for problem in &report.impact.problems {
        let _ = writeln!(text, "{BAD}problem{BAD:#}    {}", problem_line(problem));
    }
    let style = if report.impact.problems.is_empty() {
        GOOD
    } else {
        BAD
    };
    let _ = writeln!(text, "{style}{}{style:#}", verdict(report));
    text
}

fn problem_line(problem: &Problem) -> String {
    let mut text = format!("{}: {}", shown(&problem.reason), shown(&problem.message));
    if problem.devices > 0 {
        let _ = write!(
            text,
            " ({}: {}{})",
            count(problem.devices, "device"),
            shown(&problem.examples.join(", ")),
            if problem.devices as usize > problem.examples.len() {
                ", …"
            } else {
                ""
            }
        );
    }
    text
}

fn line(text: &mut String, label: &str, value: &str) {
    let _ = writeln!(text, "{label:<LABEL$}{value}");
}

fn lines<T>(text: &mut String, label: &str, list: &[T], most: usize, show: impl Fn(&T) -> String) {
    for (index, entry) in list.iter().take(most).enumerate() {
        line(text, if index == 0 { label } else { "" }, &show(entry));
    }
    if list.len() > most {
        let more = format!("{FAINT}and {} more: -o wide{FAINT:#}", list.len() - most);
        line(text, "", &more);
    }
}

const HEADER: [&str; 9] = [
    "POOL", "MODEL", "DEVICES", "UPDATE", "THERE", "CANNOT", "REBOOTS", "BMC", "AC",
];

fn group_rows(report: &Report) -> Vec<Vec<String>> {
    let touched = report
        .impact
        .groups
        .iter()
        .filter(|group| group.work.to_update + group.work.cannot > 0);
    touched
        .map(|group| {
            let work = &group.work;
            let mut row = vec![group.pool.clone(), group.model.clone()];
            row.extend(
                [
                    work.total,
                    work.to_update,
                    work.compliant,
                    work.cannot,
                    work.host_resets,
                    work.bmc_resets,
                    work.ac_cycles,
                ]
                .map(|n| n.to_string()),
            );
            row
        })
        .collect()
}

fn groups(report: &Report) -> String {
    output::table(&HEADER, &group_rows(report))
}

/// For a pull request.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let work = &report.impact.devices;
    let mut text = format!("### {}\n\n", escaped(&headline(report)));
    let _ = writeln!(
        text,
        "**{}** · {} already there · {} cannot · {} · {} · {} · {}\n",
        count(work.to_update, "device") + " to update",
        work.compliant,
        work.cannot,
        count(work.host_resets, "reboot"),
        count(work.bmc_resets, "BMC reset"),
        count(work.ac_cycles, "AC cycle"),
        images(report)
    );
    let _ = writeln!(
        text,
        "{} touched by this commit, {} no longer to be updated.\n",
        count(report.touched, "device"),
        report.spared
    );
    for problem in &report.impact.problems {
        let _ = writeln!(text, "- ❌ {}", escaped(&problem_line(problem)));
    }
    if !report.impact.problems.is_empty() {
        text.push('\n');
    }
    let rows = group_rows(report);
    if !rows.is_empty() {
        markdown_table(&mut text, &HEADER, &rows);
    }
    if !report.impact.rollouts.is_empty() {
        let rows: Vec<Vec<String>> = report
            .impact
            .rollouts
            .iter()
            .map(|spread| vec![spread.rollout.clone(), spread.total.to_string(), waves(spread)])
            .collect();
        markdown_table(&mut text, &["ROLLOUT", "DEVICES", "WAVES"], &rows);
    }
    if !report.impact.waiting.is_empty() {
        let rows: Vec<Vec<String>> = report
            .impact
            .waiting
            .iter()
            .map(|waiting| {
                vec![
                    waiting.reason.clone(),
                    waiting.devices.to_string(),
                    format!("{}: {}", waiting.examples.join(", "), waiting.message),
                ]
            })
            .collect();
        markdown_table(&mut text, &["WAITS ON", "DEVICES", "FOR EXAMPLE"], &rows);
    }
    let told = crate::forecast::summary(&report.forecast, &TimeZone::system());
    let _ = writeln!(text, "Forecast: {}\n", escaped(&told));
    details(&mut text, "Changed fields", &change_lines(report));
    let shares: Vec<String> = report
        .impact
        .shares
        .iter()
        .map(|share| {
            format!(
                "{}: {} {} {}: {}% ({} of {})",
                share.pool,
                share.class,
                share.by,
                share.value,
                percent(share.devices, share.of),
                share.devices,
                share.of
            )
        })
        .collect();
    details(&mut text, "Diversity afterwards: the largest shares", &shares);
    let _ = writeln!(
        text,
        "{} Planned for {} at {}.",
        verdict(report),
        escaped(&report.fleet),
        report.at
    );
    text
}

fn details(text: &mut String, title: &str, list: &[String]) {
    if list.is_empty() {
        return;
    }
    let _ = write!(text, "<details><summary>{title}</summary>\n\n");
    for entry in list {
        let _ = writeln!(text, "- {}", escaped(entry));
    }
    text.push_str("\n</details>\n\n");
}

fn markdown_table(text: &mut String, header: &[&str], rows: &[Vec<String>]) {
    let _ = writeln!(text, "| {} |", header.join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(header.len()));
    for row in rows {
        let cells: Vec<String> = row.iter().map(|cell| escaped(cell)).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text.push('\n');
}

/// Text from outside made fit for Markdown: what would be markup is text.
fn escaped(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in shown(text).chars() {
        match c {
            '|' | '*' | '_' | '`' | '[' | ']' | '#' | '\\' => {
                clean.push('\\');
                clean.push(c);
            }
            '<' => clean.push_str("&lt;"),
            '>' => clean.push_str("&gt;"),
            '\n' => clean.push(' '),
            other => clean.push(other),
        }
    }
    clean
}
