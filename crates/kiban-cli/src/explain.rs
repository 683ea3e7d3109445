//! `kubectl kiban explain`: why one device is where it is, by the planner's own function on the cluster's own objects.

use crate::{
    cli::{ExplainArgs, Format, Global},
    failure::Failure,
    fleet::Fleet,
    output::{self, BAD, FAINT, GOOD, STRONG, WARN, shown, span},
    snapshot::{self, Snapshot},
};
use jiff::Timestamp;
use kiban_api::convert;
use kiban_core::{
    explain::{Explanation, explain},
    plan::plan,
};
use kube::ResourceExt as _;
use serde::Serialize;
use std::{fmt::Write as _, process::ExitCode};

/// The explanation, and what only the device's own objects tell.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    #[serde(flatten)]
    explanation: Explanation,
    serial: String,
    unit: Option<u16>,
    firmware_read_at: Option<Timestamp>,
    fresh: Option<String>,
    step: Option<String>,
    last_operation: Option<String>,
    hold: Option<String>,
    ignored: Vec<String>,
}

/// Runs the command.
pub async fn run(global: &Global, args: &ExplainArgs) -> Result<ExitCode, Failure> {
    let name = args
        .device
        .strip_prefix("device/")
        .or_else(|| args.device.strip_prefix("devices/"))
        .unwrap_or(&args.device);
    if let Some((kind, _)) = name.split_once('/') {
        return Err(Failure::new(format!("explain knows devices, not {kind}")).hint(
            "for a pool or a rollout: `kubectl describe`; for the whole fleet: `kubectl kiban status`",
        ));
    }
    let Fleet {
        objects,
        world,
        ignored,
    } = Fleet::of(snapshot::take(global, args.source.snapshot.as_deref()).await?);
    let Some(device) = objects.devices.iter().find(|device| device.name_any() == name) else {
        return Err(no_such_device(&objects, name));
    };
    let now = objects.taken_at;
    let plan = plan(&world, now);
    let explanation = explain(&world, &plan, name, now)
        .ok_or_else(|| Failure::new(format!("device {name} could not be taken into the plan")))?;
    let status = device.status.clone().unwrap_or_default();
    let operation = objects
        .operations
        .iter()
        .find(|operation| operation.spec.device == name);
    let report = Report {
        explanation,
        serial: device.spec.serial.clone(),
        unit: device.spec.location.unit,
        firmware_read_at: status.firmware_read_at.as_ref().map(|at| at.0),
        fresh: convert::condition(&status.conditions, "InventoryFresh").map(str::to_owned),
        step: operation
            .and_then(|operation| operation.status.as_ref())
            .map(|status| format!("{} {}", status.progress, status.step).trim().to_owned()),
        last_operation: status.last_operation.as_ref().map(|last| {
            let mut text = format!(
                "{} {} ago, for {}",
                last.outcome,
                span(now.as_second() - last.finished_at.0.as_second()),
                last.campaign
            );
            if !last.message.is_empty() {
                let _ = write!(text, ": {}", last.message);
            }
            text
        }),
        hold: status.hold.as_ref().map(|hold| {
            let mut text = format!("{}: {}", hold.reason, hold.message);
            if !hold.operation.is_empty() {
                let _ = write!(
                    text,
                    "; once you have looked: kubectl annotate device {name} {}={}",
                    kiban_api::labels::RELEASE_HOLD_ANNOTATION,
                    hold.operation
                );
            }
            text
        }),
        ignored,
    };
    let text = match output::structured(global.output, &report)? {
        Some(text) => text,
        None => output::fit(&render(&report, now, global.output), 9),
    };
    output::print(&text);
    Ok(ExitCode::SUCCESS)
}

fn no_such_device(objects: &Snapshot, name: &str) -> Failure {
    let devices = &objects.devices;
    let failure = Failure::new(format!("namespace {} has no device {name}", objects.namespace));
    let close = devices
        .iter()
        .map(|device| device.name_any())
        .filter(|other| similar(other, name))
        .take(5);
    let close: Vec<String> = close.collect();
    if devices.is_empty() {
        failure.hint("there are no devices at all: is this the fleet's namespace? Choose it with -n")
    } else if close.is_empty() {
        failure.hint("`kubectl get devices` lists them")
    } else {
        failure.hint(format!("did you mean {}?", close.join(", ")))
    }
}

/// Names that a slip of the finger apart: one is part of the other, or they differ in at most two places.
fn similar(a: &str, b: &str) -> bool {
    a.contains(b)
        || b.contains(a)
        || (a.len() == b.len() && a.bytes().zip(b.bytes()).filter(|(x, y)| x != y).count() <= 2)
}

fn render(report: &Report, now: Timestamp, format: Format) -> String {
    let e = &report.explanation;
    let mut text = String::new();
    let unit = report.unit.map(|unit| format!(" u{unit}")).unwrap_or_default();
    let pool = if e.pool.is_empty() { "no pool" } else { &e.pool };
    let _ = writeln!(
        text,
        "{STRONG}{}{STRONG:#}  {}, {}, {}{unit}, serial {}",
        shown(&e.device),
        shown(&e.model),
        shown(pool),
        shown(&e.place),
        shown(&report.serial)
    );
    render_firmware(report, now, format, &mut text);
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, "{label:<9}{value}");
    };
    if let Some(operation) = &e.operation {
        let step = report
            .step
            .as_deref()
            .filter(|step| !step.is_empty())
            .unwrap_or(operation.outcome.as_str());
        line(
            "Now",
            &format!(
                "{STRONG}{}{STRONG:#}   ({}, wave {})",
                shown(step),
                shown(&operation.campaign),
                operation.wave
            ),
        );
    }
    for (index, not_yet) in e.not_yet.iter().enumerate() {
        let label = if index == 0 { "Not yet" } else { "" };
        let style = if not_yet.passes_by_itself { WARN } else { BAD };
        let mut value = format!("{style}{}{style:#}: {}", not_yet.reason, shown(&not_yet.message));
        if let Some(until) = not_yet.until {
            let _ = write!(
                value,
                "; about {} left",
                span(until.as_second() - now.as_second())
            );
        }
        if !not_yet.holders.is_empty() {
            let holders: Vec<String> = not_yet
                .holders
                .iter()
                .map(|holder| format!("{} ({})", shown(&holder.device), holder.reason))
                .collect();
            let _ = write!(value, " {FAINT}used by {}{FAINT:#}", holders.join(", "));
        }
        line(label, &value);
    }
    for (index, then) in e.then.iter().enumerate() {
        line(if index == 0 { "Then" } else { "" }, &shown(then));
    }
    if !e.after.updates.is_empty() {
        let count = |n: u32, one: &str, many: &str| match n {
            0 => format!("no {one}"),
            1 => format!("1 {one}"),
            n => format!("{n} {many}"),
        };
        line(
            "After",
            &format!(
                "{}; {}, {}",
                count(e.after.host_resets, "host reset", "host resets"),
                count(e.after.bmc_resets, "BMC reset", "BMC resets"),
                count(e.after.ac_cycles, "AC cycle", "AC cycles")
            ),
        );
    }
    if let Some(hold) = &report.hold {
        line("Held", &format!("{BAD}{}{BAD:#}", shown(hold)));
    }
    if let Some(last) = &report.last_operation {
        line("Last", &format!("{FAINT}{}{FAINT:#}", shown(last)));
    }
    for ignored in &report.ignored {
        line("Ignored", &format!("{WARN}{}{WARN:#}", shown(ignored)));
    }
    text
}

fn render_firmware(report: &Report, now: Timestamp, format: Format, text: &mut String) {
    let e = &report.explanation;
    let differing: Vec<_> = e.is.iter().filter(|is| is.differs.is_some()).collect();
    if differing.is_empty() && e.operation.is_none() && e.not_yet.is_empty() {
        let (style, words) = match e.compliance.baseline.as_str() {
            "" => (WARN, "no baseline speaks of it".to_owned()),
            baseline => (GOOD, format!("as wanted by FirmwareBaseline {}", shown(baseline))),
        };
        let _ = writeln!(
            text,
            "{:<9}{style}{} {words}{style:#}",
            "State",
            e.compliance.state.as_str()
        );
    }
    let classes: Vec<_> = differing.iter().map(|is| is.class).collect();
    let mut first = true;
    for wanted in e
        .wanted
        .iter()
        .filter(|wanted| format == Format::Wide || classes.contains(&wanted.class))
    {
        let commit = match wanted.commit.get(..7) {
            Some(commit) => format!(", commit {commit}"),
            None => String::new(),
        };
        let _ = writeln!(
            text,
            "{:<9}{} {}   {FAINT}(FirmwareBaseline {}{commit}){FAINT:#}",
            if first { "Wanted" } else { "" },
            wanted.class.as_str(),
            shown(&wanted.version),
            shown(&wanted.baseline)
        );
        first = false;
    }
    first = true;
    for is in
        e.is.iter()
            .filter(|is| format == Format::Wide || is.differs.is_some())
    {
        let since = report
            .firmware_read_at
            .map(|at| format!("read {} ago", span(now.as_second() - at.as_second())));
        let fresh = match report.fresh.as_deref() {
            Some("True") => "fresh",
            Some("False") => "not fresh",
            _ => "freshness unknown",
        };
        let _ = writeln!(
            text,
            "{:<9}{} {}   {FAINT}({}; {fresh}){FAINT:#}",
            if first { "Is" } else { "" },
            shown(&is.name),
            shown(&is.version),
            since.as_deref().unwrap_or("never read")
        );
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::similar;

    #[test]
    fn a_slip_of_the_finger_is_forgiven() {
        assert!(similar("tyo-b07-12", "tyo-b07-13"));
        assert!(similar("tyo-b07-12", "b07-12"));
        assert!(!similar("tyo-b07-12", "osa-a01-01"));
    }
}
