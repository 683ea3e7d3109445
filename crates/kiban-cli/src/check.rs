//! `kubectl kiban check`: every safety rule once more, over the fleet as it is and the plan made from it, without the planner's code.

use crate::{
    cli::{CheckArgs, Global},
    failure::Failure,
    fleet::Fleet,
    output::{self, BAD, GOOD, WARN, shown},
    snapshot,
};
use jiff::Timestamp;
use kiban_core::{check::check, plan};
use serde::Serialize;
use std::{fmt::Write as _, process::ExitCode};

/// What was found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The fleet: its namespace.
    pub fleet: String,
    /// The time that the plan was made for.
    pub at: Timestamp,
    /// Devices looked at.
    pub devices: usize,
    /// Operations that the plan grants.
    pub operations: usize,
    /// What is wrong: rules that the plan would break, facts that contradict each other, objects that cannot be read.
    pub findings: Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// `Rule`: the plan breaks it. `Facts`: what is written or read contradicts itself. `Object`: it cannot be read.
    pub kind: &'static str,
    /// The rule or reason, in CamelCase.
    pub reason: String,
    /// What it is.
    pub message: String,
}

/// Runs the command: exit code 2 if anything is wrong.
pub async fn run(global: &Global, args: &CheckArgs) -> Result<ExitCode, Failure> {
    let report = report(&Fleet::of(
        snapshot::take(global, args.source.snapshot.as_deref()).await?,
    ));
    let text = match output::structured(global.output, &report)? {
        Some(text) => text,
        None => output::fit(&render(&report), 2),
    };
    output::print(&text);
    Ok(if report.findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(2)
    })
}

/// Plans and checks.
#[must_use]
pub fn report(fleet: &Fleet) -> Report {
    let at = fleet.objects.taken_at;
    let plan = plan(&fleet.world, at);
    let mut findings: Vec<Finding> = check(&fleet.world, &plan)
        .into_iter()
        .map(|violation| Finding {
            kind: "Rule",
            reason: violation.rule.to_owned(),
            message: violation.what,
        })
        .collect();
    findings.extend(plan.findings.iter().map(|finding| Finding {
        kind: "Facts",
        reason: finding.reason().to_owned(),
        message: finding.to_string(),
    }));
    findings.extend(fleet.ignored.iter().map(|ignored| Finding {
        kind: "Object",
        reason: "InvalidSpec".to_owned(),
        message: ignored.clone(),
    }));
    Report {
        fleet: fleet.objects.namespace.clone(),
        at,
        devices: fleet.world.device_count(),
        operations: plan.operations.len(),
        findings,
    }
}

/// The screen.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        let style = if finding.kind == "Facts" { WARN } else { BAD };
        let _ = writeln!(
            text,
            "{style}{}{style:#} {}: {}",
            finding.kind,
            shown(&finding.reason),
            shown(&finding.message)
        );
    }
    let looked = format!(
        "{} devices and {} operations to grant checked",
        report.devices, report.operations
    );
    let _ = match report.findings.len() {
        0 => writeln!(text, "{looked}: {GOOD}every rule holds{GOOD:#}"),
        1 => writeln!(text, "{looked}: {BAD}1 finding{BAD:#}"),
        n => writeln!(text, "{looked}: {BAD}{n} findings{BAD:#}"),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Snapshot;

    #[test]
    fn what_contradicts_itself_is_found() {
        let snapshot: Snapshot = serde_saphyr::from_str(
            "{kind: FleetSnapshot, version: 1, takenAt: '2026-11-27T10:00:00Z', namespace: tokyo, pools: [
                {apiVersion: kiban.dev/v1alpha1, kind: HardwarePool, metadata: {name: web}, spec: {service: web, baselines: [gone]}},
                {apiVersion: kiban.dev/v1alpha1, kind: HardwarePool, metadata: {name: odd},
                 spec: {service: web, disruption: {maxUnavailable: many}}}]}",
        )
        .unwrap();
        let report = report(&Fleet::of(snapshot));
        let reasons: Vec<&str> = report.findings.iter().map(|it| it.reason.as_str()).collect();
        assert_eq!(reasons, ["BaselineNotFound", "InvalidSpec"]);
        assert!(render(&report).contains("2 findings"));
    }
}
