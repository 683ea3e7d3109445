//! `kubectl kiban forecast`: when each wave, and the whole, would end.

use crate::{
    cli::{ForecastArgs, Global},
    desired,
    failure::Failure,
    fleet::Fleet,
    output::{self, BAD, FAINT, GOOD, STRONG, WARN, shown},
    snapshot,
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use kiban_core::forecast::{Forecast, forecast};
use std::{fmt::Write as _, process::ExitCode};

/// Runs the command.
pub async fn run(global: &Global, args: &ForecastArgs) -> Result<ExitCode, Failure> {
    let mut objects = snapshot::take(global, args.source.snapshot.as_deref()).await?;
    if let Some(repo) = &args.repo {
        let owner = desired::owner(&objects, args.repository.as_deref())?;
        let files = desired::files(&desired::folder(repo, &objects))?;
        let documents = desired::validated(&files, global, &objects, owner.as_deref())?;
        desired::overlay(&mut objects, &documents.objects, owner.as_deref())?;
    }
    let fleet = Fleet::of(objects);
    let horizon = SignedDuration::from_hours(i64::from(args.days) * 24);
    let told = forecast(&fleet.world, fleet.objects.taken_at, horizon);
    let text = match output::structured(global.output, &told)? {
        Some(text) => text,
        None => output::fit(&render(&told, &TimeZone::system()), 11),
    };
    output::print(&text);
    Ok(ExitCode::SUCCESS)
}

/// A time as one says it: `Thu 4 Dec 02:40 JST`.
fn time(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone())
        .strftime("%a %-d %b %H:%M %Z")
        .to_string()
}

/// When it would be done, in a line.
#[must_use]
pub fn summary(told: &Forecast, zone: &TimeZone) -> String {
    let mut text = match (told.ends, told.operations) {
        (_, 0) => "nothing moves".to_owned(),
        (Some(end), _) if told.left > 0 => format!("what can move is done {}", time(end, zone)),
        (Some(end), _) => format!("done {}", time(end, zone)),
        (None, _) => format!("not done before {}", time(told.until, zone)),
    };
    if told.ends.is_some() && told.operations > 0 {
        let _ = match told.ends_late {
            Some(late) => write!(text, " (P90 {})", time(late, zone)),
            None => write!(text, " (P90 after {})", time(told.until, zone)),
        };
    }
    let peaks: Vec<String> = told
        .pools
        .iter()
        .take(3)
        .map(|pool| format!("{} {} of {}", pool.pool, pool.peak, pool.allowed))
        .collect();
    if !peaks.is_empty() {
        let more = if told.pools.len() > peaks.len() {
            ", …"
        } else {
            ""
        };
        let _ = write!(text, " · peak unavailable {}{more}", peaks.join(", "));
    }
    if told.left > 0 {
        let _ = write!(text, " · {} left", told.left);
    }
    text
}

/// The screen.
#[must_use]
pub fn render(told: &Forecast, zone: &TimeZone) -> String {
    let style = if told.left > 0 { WARN } else { GOOD };
    let mut text = format!(
        "{STRONG}From {}{STRONG:#}: {style}{}{style:#}\n",
        time(told.from, zone),
        shown(&summary(told, zone))
    );
    let mut rows = Vec::new();
    for rollout in &told.rollouts {
        for wave in &rollout.waves {
            // The zone is in the first line.
            let cell = |at: Option<Timestamp>| {
                at.map_or_else(
                    || "-".to_owned(),
                    |at| at.to_zoned(zone.clone()).strftime("%a %-d %b %H:%M").to_string(),
                )
            };
            rows.push(vec![
                rollout.name.clone(),
                wave.wave.to_string(),
                format!("{}/{}", wave.reach, rollout.total),
                cell(wave.opens),
                cell(wave.done),
                cell(wave.done_late),
            ]);
        }
    }
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&output::table(
            &["ROLLOUT", "WAVE", "REACHES", "OPENS", "DONE", "P90"],
            &rows,
        ));
        text.push('\n');
    }
    for rollout in told.rollouts.iter().filter(|rollout| rollout.left > 0) {
        let _ = writeln!(
            text,
            "{:<11}{BAD}{} of {}{BAD:#} never get there as things stand: {} ({FAINT}`kubectl kiban plan` or `explain` says why{FAINT:#})",
            "left",
            rollout.left,
            rollout.total,
            shown(&rollout.name)
        );
    }
    for (index, assumption) in told.assumptions.iter().enumerate() {
        let label = if index == 0 { "assumed" } else { "" };
        let _ = writeln!(text, "{label:<11}{FAINT}{}{FAINT:#}", shown(assumption));
    }
    text
}
