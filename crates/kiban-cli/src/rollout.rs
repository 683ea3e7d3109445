//! `kubectl kiban rollout`: how one rollout stands, and the change to commit that resumes it.
//!
//! Desired state lives in Git, and the operator never writes what a person owns. So `retry` changes nothing in the cluster: it shows the
//! change to make, or makes it in a work tree, for a person to commit.

use crate::{
    cli::{Format, Global, RolloutCommand, RolloutRetryArgs, RolloutStatusArgs},
    connect, desired,
    failure::Failure,
    fleet::Fleet,
    output::{self, BAD, FAINT, GOOD, STRONG, WARN, bar, shown, span},
    snapshot,
};
use jiff::{Timestamp, tz::TimeZone};
use kiban_core::{
    forecast::{HORIZON, RolloutForecast, forecast},
    impact::{self, Spread, Waiting},
    plan,
    plan::RolloutState,
};
use serde::Serialize;
use serde_json::Value;
use std::{fmt::Write as _, process::ExitCode, time::Duration};

/// Width of the labels.
const LABEL: usize = 11;

/// How a rollout stands.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The time that it is told for.
    pub at: Timestamp,
    /// The rollout as the planner sees it now.
    pub state: RolloutState,
    /// Its waves; None: it is complete.
    pub spread: Option<Spread>,
    /// What its devices wait on.
    pub waiting: Vec<Waiting>,
    /// When it would be done; None: it is complete.
    pub forecast: Option<RolloutForecast>,
}

/// Runs the command.
pub async fn run(global: &Global, command: &RolloutCommand) -> Result<ExitCode, Failure> {
    match command {
        RolloutCommand::Status(args) => status(global, args).await,
        RolloutCommand::Retry(args) => retry(global, args).await,
    }
}

async fn status(global: &Global, args: &RolloutStatusArgs) -> Result<ExitCode, Failure> {
    if !args.watch {
        let fleet = Fleet::of(snapshot::take(global, args.source.snapshot.as_deref()).await?);
        output::print(&show(&fleet, &args.name, global.output)?);
        return Ok(ExitCode::SUCCESS);
    }
    let connection = connect::connect(global).await?;
    let mut last = String::new();
    loop {
        let shown = match snapshot::read(&connection).await {
            Ok(objects) => show(&Fleet::of(objects), &args.name, global.output),
            Err(failure) => Err(failure),
        };
        // A watch outlives a restart of the API server; what went wrong is shown in place.
        let text = shown.unwrap_or_else(|failure| format!("{BAD}error:{BAD:#} {failure}\n"));
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

fn show(fleet: &Fleet, name: &str, format: Format) -> Result<String, Failure> {
    let report = report(fleet, name)?;
    Ok(match output::structured(format, &report)? {
        Some(text) => text,
        None => output::fit(&render(&report, &TimeZone::system()), LABEL),
    })
}

/// Plans, and tells of one rollout.
pub fn report(fleet: &Fleet, name: &str) -> Result<Report, Failure> {
    let name = name.strip_prefix("rollout/").unwrap_or(name);
    let at = fleet.objects.taken_at;
    let made = plan(&fleet.world, at);
    let Some(state) = made.rollouts.iter().find(|state| state.name == name) else {
        let names: Vec<&str> = made.rollouts.iter().map(|state| state.name.as_str()).collect();
        let failure = Failure::new(format!(
            "namespace {} has no rollout {name}",
            fleet.objects.namespace
        ));
        return Err(if names.is_empty() {
            failure.hint("there is none: every device is at its baseline, or no pool names one")
        } else {
            failure.hint(format!("there is {}", names.join(", ")))
        });
    };
    let told = forecast(&fleet.world, at, HORIZON);
    let spread = impact::impact(&fleet.world, &made)
        .rollouts
        .into_iter()
        .find(|spread| spread.rollout == name);
    Ok(Report {
        at,
        state: state.clone(),
        spread,
        waiting: impact::waiting(&fleet.world, &made, Some(name)),
        forecast: told.rollouts.into_iter().find(|rollout| rollout.name == name),
    })
}

/// The screen.
#[must_use]
pub fn render(report: &Report, zone: &TimeZone) -> String {
    let (state, status) = (&report.state, &report.state.status);
    let commit = status.commit.get(..7).unwrap_or("not from Git");
    let mut text = format!(
        "{STRONG}{}{STRONG:#}  pool {}, baseline {}, commit {}\n",
        shown(&state.name),
        shown(&state.pool),
        shown(&state.baseline),
        shown(commit)
    );
    let mut line = |label: &str, value: &str| {
        let _ = writeln!(text, "{label:<LABEL$}{value}");
    };
    let style = if status.failed > 0 { BAD } else { FAINT };
    line(
        "progress",
        &format!(
            "{} {}/{} done  {} running  {style}{} failed{style:#}",
            bar(status.done, status.total, 20),
            status.done,
            status.total,
            status.running,
            status.failed
        ),
    );
    if let Some(at) = status.completed_at {
        let ago = span(report.at.as_second() - at.as_second());
        line("complete", &format!("{GOOD}{ago} ago{GOOD:#}"));
    }
    if let Some(spread) = &report.spread {
        waves(spread, status.done + status.failed, status.wave, &mut line);
    }
    if let Some(halt) = &status.halt {
        line("halted", &format!("{BAD}{}{BAD:#}", shown(&halt.message)));
        line(
            "",
            &format!(
                "`kubectl kiban rollout retry {}` shows the change to commit",
                shown(&state.name)
            ),
        );
    }
    if let Some(until) = state.soak_until {
        let left = span(until.as_second() - report.at.as_second());
        let at = until.to_zoned(zone.clone()).strftime("%a %-d %b %H:%M %Z");
        line("soaks", &format!("{WARN}until {at}{WARN:#}, {left} left"));
    }
    for (index, waiting) in report.waiting.iter().enumerate() {
        let style = if waiting.passes_by_itself { FAINT } else { BAD };
        line(
            if index == 0 { "waiting" } else { "" },
            &format!(
                "{} {style}{}{style:#}  {}: {}",
                waiting.devices,
                waiting.reason,
                shown(&waiting.examples.join(", ")),
                shown(&waiting.message)
            ),
        );
    }
    if let Some(told) = &report.forecast {
        let at = |at: Timestamp| {
            at.to_zoned(zone.clone())
                .strftime("%a %-d %b %H:%M %Z")
                .to_string()
        };
        let value = match (told.ends, told.ends_late) {
            (Some(end), Some(late)) => format!("done {} (P90 {})", at(end), at(late)),
            (Some(end), None) => format!("done {}", at(end)),
            (None, _) => format!("{} of {} never get there as things stand", told.left, told.total),
        };
        line("forecast", &value);
    }
    text
}

/// One bar per wave, of the devices that it adds.
fn waves(spread: &Spread, through: u32, present: u32, line: &mut impl FnMut(&str, &str)) {
    let mut before = 0;
    for (number, wave) in (1_u32..).zip(&spread.waves) {
        let done = through.saturating_sub(before).min(wave.devices);
        before += wave.devices;
        let soak = if wave.soak_seconds > 0 {
            format!("  soak {}", span(wave.soak_seconds))
        } else {
            String::new()
        };
        let here = if number == present { "  ◀" } else { "" };
        line(
            if number == 1 { "waves" } else { "" },
            &format!(
                "{number} {} {done}/{}{soak}{here}",
                bar(done, wave.devices, 10),
                wave.devices
            ),
        );
    }
}

async fn retry(global: &Global, args: &RolloutRetryArgs) -> Result<ExitCode, Failure> {
    let objects = snapshot::take(global, args.source.snapshot.as_deref()).await?;
    let fleet = Fleet::of(objects);
    let report = report(&fleet, &args.name)?;
    let pool = report.state.pool.as_str();
    let now = fleet.world.pool(pool).map_or(0, |facts| facts.retry);
    let next = now.saturating_add(1);
    let text = match &args.repo {
        None => format!(
            "Set in the fleet repository, in HardwarePool {}, and commit:\n\n  spec:\n    rollout:\n      retry: {next}   # was {now}\n\n\
             It tries again the devices that failed, and starts the waves anew. --repo DIR makes the change in a work tree.\n",
            shown(pool)
        ),
        Some(repo) => {
            let folder = desired::folder(repo, &fleet.objects);
            let file = write(&folder, pool, global)?;
            format!(
                "{}: HardwarePool {} now has a larger rollout.retry. Look at it with `git diff`, then commit.\n",
                shown(&file),
                shown(pool)
            )
        }
    };
    output::print(&text);
    Ok(ExitCode::SUCCESS)
}

/// Raises a pool's `rollout.retry` in its file, and nothing else. Returns the file.
fn write(folder: &std::path::Path, pool: &str, global: &Global) -> Result<String, Failure> {
    let files = desired::files(folder)?;
    let documents = desired::documents(&files, global)?;
    let found = documents
        .iter()
        .find(|it| it.kind == "HardwarePool" && it.name == pool)
        .ok_or_else(|| {
            Failure::new(format!("{} has no HardwarePool {pool}", folder.display()))
                .hint("give the work tree that the pool comes from with --repo")
        })?;
    let by_hand = || {
        Failure::new(format!(
            "{}:{}: the change cannot be made for you",
            found.file, found.line
        ))
        .hint(format!(
            "set spec.rollout.retry of HardwarePool {pool} to a larger number by hand"
        ))
    };
    let (_, bytes) = files
        .iter()
        .find(|(path, _)| *path == found.file)
        .ok_or_else(by_hand)?;
    let text = std::str::from_utf8(bytes).map_err(|_| by_hand())?;
    let changed = raised(text, found.line).ok_or_else(by_hand)?;
    // The edit is believed only when it reads back as the very same document with the larger number.
    let mut again = files.clone();
    for (path, bytes) in &mut again {
        if *path == found.file {
            *bytes = changed.clone().into_bytes();
        }
    }
    let same = desired::documents(&again, global)?
        .iter()
        .zip(&documents)
        .all(|(new, old)| {
            let mut old = old.value.clone();
            if new.kind == "HardwarePool" && new.name == pool {
                let before = retry_of(&old);
                old["spec"]["rollout"]["retry"] = Value::from(before + 1);
            }
            new.value == old
        });
    if !same {
        return Err(by_hand());
    }
    let path = folder.join(&found.file);
    std::fs::write(&path, changed)
        .map_err(|error| Failure::from_error(&format!("write {}", path.display()), &error))?;
    Ok(found.file.clone())
}

fn retry_of(pool: &Value) -> u64 {
    pool["spec"]["rollout"]["retry"].as_u64().unwrap_or(0)
}

/// The text with the first `retry` of the document that begins at a line raised by one; where there is none, put in front of
/// what `rollout` holds.
fn raised(text: &str, line: u32) -> Option<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let begin = (line as usize).checked_sub(1)?;
    let length = lines
        .iter()
        .skip(begin)
        .take_while(|line| !line.starts_with("---"))
        .count();
    let document: String = lines.get(begin..begin + length)?.concat();
    let edited = edited(&document)?;
    let head: String = lines.get(..begin)?.concat();
    let tail: String = lines.get(begin + length..)?.concat();
    Some(format!("{head}{edited}{tail}"))
}

fn edited(document: &str) -> Option<String> {
    if let Some(at) = document.find("retry:") {
        let after = document.get(at + "retry:".len()..)?;
        let blanks = after.len() - after.trim_start_matches(' ').len();
        let digits: String = after
            .trim_start_matches(' ')
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        let next = digits.parse::<u32>().ok()?.checked_add(1)?;
        let (head, tail) = (
            document.get(..at + "retry:".len() + blanks)?,
            after.get(blanks + digits.len()..)?,
        );
        return Some(format!("{head}{next}{tail}"));
    }
    let at = document.find("\n  rollout:")? + "\n  rollout:".len();
    let (head, tail) = document.split_at(at);
    let value = tail.trim_start_matches(' ');
    Some(if let Some(inner) = value.strip_prefix('{') {
        format!("{head} {{retry: 1, {inner}")
    } else {
        let (rest, below) = tail.split_once('\n')?;
        format!("{head}{rest}\n    retry: 1\n{below}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_order_stay_where_they_are() {
        let text = "# pools\nkind: A\n---\nkind: HardwarePool # ours\nspec:\n  rollout:   # how\n    waves: []\n---\nkind: B\n";
        assert_eq!(
            raised(text, 4).unwrap(),
            "# pools\nkind: A\n---\nkind: HardwarePool # ours\nspec:\n  rollout:   # how\n    retry: 1\n    waves: []\n---\nkind: B\n"
        );
        let text = "spec:\n  rollout: {waves: []}\n";
        assert_eq!(
            raised(text, 1).unwrap(),
            "spec:\n  rollout: {retry: 1, waves: []}\n"
        );
        let text = "spec:\n  rollout:\n    retry: 9 # again\n";
        assert_eq!(
            raised(text, 1).unwrap(),
            "spec:\n  rollout:\n    retry: 10 # again\n"
        );
        assert_eq!(raised("spec: {}\n", 1), None);
    }
}
