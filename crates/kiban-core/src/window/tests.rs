use super::*;
use crate::facts::DaysFacts;
use proptest::prelude::*;

fn facts(start: &str, duration: &str, zone: &str) -> WindowFacts {
    WindowFacts {
        name: "nights".into(),
        start: start.into(),
        duration: duration.into(),
        time_zone: zone.into(),
        ..WindowFacts::default()
    }
}

fn schedule(start: &str, duration: &str, zone: &str) -> Schedule {
    Schedule::parse(&facts(start, duration, zone)).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn next(schedule: &Schedule, now: &str) -> (String, String) {
    let span = schedule.next_after(at(now)).unwrap();
    (span.opens.to_string(), span.closes.to_string())
}

fn pair(opens: &str, closes: &str) -> (String, String) {
    (at(opens).to_string(), at(closes).to_string())
}

#[test]
fn a_night_in_tokyo() {
    let nights = schedule("0 22 * * MON-FRI", "7h", "Asia/Tokyo");
    // Friday 27 November 2026, 21:59 and 22:00.
    assert_eq!(nights.span_at(at("2026-11-27T21:59:59+09:00")), None);
    let open = nights.span_at(at("2026-11-27T22:00:00+09:00")).unwrap();
    assert_eq!(open.closes, at("2026-11-28T05:00:00+09:00"));
    assert_eq!(
        nights.open_until(at("2026-11-28T04:59:59+09:00")),
        Some(Some(open.closes))
    );
    assert_eq!(nights.span_at(at("2026-11-28T05:00:00+09:00")), None);
    assert_eq!(
        next(&nights, "2026-11-27T22:00:00+09:00"),
        pair("2026-11-30T22:00:00+09:00", "2026-12-01T05:00:00+09:00"),
        "not on the weekend"
    );
}

#[test]
fn in_spring_a_skipped_start_opens_at_the_first_instant_after() {
    // Berlin, 28 March 2027: 02:00 becomes 03:00. New York, 14 March 2027: the same.
    let berlin = schedule("30 2 * * *", "1h", "Europe/Berlin");
    assert_eq!(
        next(&berlin, "2027-03-27T12:00:00Z"),
        pair("2027-03-28T03:00:00+02:00", "2027-03-28T03:30:00+02:00")
    );
    let york = schedule("30 2 * * *", "3h", "America/New_York");
    assert_eq!(
        next(&york, "2027-03-13T12:00:00Z"),
        pair("2027-03-14T03:00:00-04:00", "2027-03-14T05:30:00-04:00")
    );
    // Lord Howe, 3 October 2027: 02:00 becomes 02:30.
    let howe = schedule("15 2 * * *", "1h", "Australia/Lord_Howe");
    assert_eq!(
        next(&howe, "2027-10-02T00:00:00Z"),
        pair("2027-10-03T02:30:00+11:00", "2027-10-03T03:15:00+11:00")
    );
    let skipped = berlin.skipped_start(at("2027-01-01T00:00:00Z")).unwrap();
    assert_eq!(skipped.0.to_string(), "2027-03-28T02:30:00");
    assert_eq!(skipped.1, Some(at("2027-03-28T03:00:00+02:00")));
    assert_eq!(
        schedule("30 2 * * *", "1h", "Asia/Tokyo").skipped_start(at("2027-01-01T00:00:00Z")),
        None
    );
}

#[test]
fn a_window_wholly_in_the_skip_does_not_open_that_day() {
    let berlin = schedule("0 2 * * *", "30m", "Europe/Berlin");
    assert_eq!(
        next(&berlin, "2027-03-27T12:00:00Z"),
        pair("2027-03-29T02:00:00+02:00", "2027-03-29T02:30:00+02:00")
    );
    assert_eq!(berlin.skipped_start(at("2027-01-01T00:00:00Z")).unwrap().1, None);
}

#[test]
fn a_night_that_loses_an_hour_ends_when_the_wall_says_so() {
    let berlin = schedule("0 22 * * *", "7h", "Europe/Berlin");
    assert_eq!(
        next(&berlin, "2027-03-27T12:00:00Z"),
        pair("2027-03-27T22:00:00+01:00", "2027-03-28T05:00:00+02:00")
    );
}

#[test]
fn in_autumn_a_repeated_start_opens_once_and_for_no_longer() {
    // Berlin, 31 October 2027: 03:00 becomes 02:00.
    let berlin = schedule("30 2 * * *", "1h", "Europe/Berlin");
    assert_eq!(
        next(&berlin, "2027-10-30T12:00:00Z"),
        pair("2027-10-31T02:30:00+02:00", "2027-10-31T02:30:00+01:00")
    );
    assert!(
        berlin.span_at(at("2027-10-31T02:10:00+01:00")).is_some(),
        "the wall went back, the window is still open"
    );
    assert_eq!(berlin.span_at(at("2027-10-31T02:30:00+01:00")), None);
    assert_eq!(
        next(&berlin, "2027-10-31T02:10:00+01:00"),
        pair("2027-11-01T02:30:00+01:00", "2027-11-01T03:30:00+01:00")
    );
    let night = schedule("0 22 * * *", "7h", "America/New_York");
    // 7 November 2027: 02:00 becomes 01:00.
    assert_eq!(
        next(&night, "2027-11-06T12:00:00Z"),
        pair("2027-11-06T22:00:00-04:00", "2027-11-07T04:00:00-05:00")
    );
}

#[test]
fn exceptions_and_validity_are_days_of_the_start() {
    let mut written = facts("0 22 * * *", "7h", "Asia/Tokyo");
    let day = |text: &str| text.parse::<Date>().unwrap();
    written.exceptions = vec![DaysFacts {
        from: day("2026-12-25"),
        to: day("2027-01-03"),
        reason: "year's end".into(),
    }];
    written.valid = (Some(day("2026-12-20")), Some(day("2027-01-04")));
    let window = Schedule::parse(&written).unwrap();
    assert_eq!(
        next(&window, "2026-11-01T00:00:00Z").0,
        at("2026-12-20T22:00:00+09:00").to_string()
    );
    assert_eq!(
        window.span_at(at("2026-12-19T23:00:00+09:00")),
        None,
        "not valid yet"
    );
    assert!(
        window.span_at(at("2026-12-25T03:00:00+09:00")).is_some(),
        "the night that began on the 24th"
    );
    assert_eq!(window.span_at(at("2026-12-25T23:00:00+09:00")), None);
    assert_eq!(
        next(&window, "2026-12-25T06:00:00+09:00").0,
        at("2027-01-04T22:00:00+09:00").to_string()
    );
    assert!(window.span_at(at("2027-01-05T04:00:00+09:00")).is_some());
    assert_eq!(
        window.next_after(at("2027-01-05T04:00:00+09:00")),
        None,
        "never again"
    );
}

#[test]
fn a_window_longer_than_its_period_stays_open() {
    let hourly = schedule("0 * * * *", "90m", "UTC");
    let now = at("2026-11-27T10:30:00Z");
    assert_eq!(hourly.open_until(now), Some(None));
    assert!(hourly.overlaps_itself(now));
    let exact = schedule("0 * * * *", "1h", "UTC");
    assert_eq!(
        exact.open_until(now),
        Some(None),
        "one opening goes over into the next"
    );
    let short = schedule("0 * * * *", "59m", "UTC");
    assert_eq!(short.open_until(now), Some(Some(at("2026-11-27T10:59:00Z"))));
    assert!(!short.overlaps_itself(now));
}

#[test]
fn what_cannot_be_read_names_its_field() {
    let refused = |start, duration, zone| Schedule::parse(&facts(start, duration, zone)).unwrap_err();
    for (start, duration, zone, field) in [
        ("0 2 30 2 *", "1h", "UTC", "start"),
        ("* * * * * *", "1h", "UTC", "start"),
        ("0 2 * * * 2027", "1h", "UTC", "start"),
        ("0 25 * * *", "1h", "UTC", "start"),
        ("", "1h", "UTC", "start"),
        ("nightly", "1h", "UTC", "start"),
        ("0 2 * * *", "0s", "UTC", "duration"),
        ("0 2 * * *", "8d", "UTC", "duration"),
        ("0 2 * * *", "-1h", "UTC", "duration"),
        ("0 2 * * *", "1h", "Mars/Olympus", "timeZone"),
        ("0 2 * * *", "1h", "", "timeZone"),
    ] {
        assert_eq!(
            refused(start, duration, zone).field(),
            field,
            "{start} {duration} {zone}"
        );
    }
    assert!(matches!(
        refused("0 2 30 2 *", "1h", "UTC"),
        ScheduleError::Never { .. }
    ));
    let mut upside_down = facts("0 2 * * *", "1h", "UTC");
    let day = |text: &str| text.parse::<Date>().unwrap();
    upside_down.exceptions = vec![DaysFacts {
        from: day("2026-12-02"),
        to: day("2026-12-01"),
        reason: String::new(),
    }];
    assert_eq!(
        Schedule::parse(&upside_down).unwrap_err().field(),
        "exceptions[0]"
    );
}

/// Every minute of the days around a change of clocks, decided the slow way.
fn slowly(schedule: &Schedule, begin: Timestamp, end: Timestamp) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut at = begin;
    while at < end {
        let now = schedule.zone.to_datetime(at);
        let before = schedule.zone.to_datetime(at - SignedDuration::from_mins(1));
        // The wall shows a start now, or skipped it in this minute; and it did not show it before.
        let mut wall = if before < now {
            before
        } else {
            now - SignedDuration::from_mins(1)
        };
        while wall < now {
            wall += SignedDuration::from_mins(1);
            let begun = spans.iter().any(|(start, _)| *start == wall);
            if schedule.find(wall, true, true) == Some(wall) && !begun {
                spans.push((wall, at));
            }
        }
        at += SignedDuration::from_mins(1);
    }
    let spans = spans.into_iter().filter_map(|(start, opens)| {
        let mut closes = opens;
        let end = start + schedule.duration;
        while closes.duration_since(opens) < schedule.duration && schedule.zone.to_datetime(closes) < end {
            closes += SignedDuration::from_mins(1);
        }
        (opens < closes).then_some(Span { opens, closes })
    });
    spans.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn around_every_change_of_clocks_each_minute_is_as_the_wall_says(
        minute in 0_u8..60, hour in 0_u8..24, length in 1_i64..600, zone in 0_usize..4, spring in any::<bool>(),
    ) {
        let (zone, changes) = [
            ("Europe/Berlin", ["2027-03-28T01:00:00Z", "2027-10-31T01:00:00Z"]),
            ("America/New_York", ["2027-03-14T07:00:00Z", "2027-11-07T06:00:00Z"]),
            ("Australia/Lord_Howe", ["2027-10-02T15:30:00Z", "2027-04-03T15:00:00Z"]),
            ("Asia/Tokyo", ["2027-03-28T01:00:00Z", "2027-10-31T01:00:00Z"]),
        ][zone];
        let schedule = schedule(&format!("{minute} {hour} * * *"), &format!("{length}m"), zone);
        let change = at(changes[usize::from(!spring)]);
        let (begin, end) = (change - SignedDuration::from_hours(40), change + SignedDuration::from_hours(40));
        let spans = slowly(&schedule, begin, end);
        let mut now = change - SignedDuration::from_hours(14);
        while now < change + SignedDuration::from_hours(14) {
            let slow = spans.iter().rev().find(|span| span.opens <= now && now < span.closes).copied();
            prop_assert_eq!(schedule.span_at(now), slow, "{} {}", zone, now);
            let slow = spans.iter().find(|span| span.opens > now).copied();
            prop_assert_eq!(schedule.next_after(now), slow, "{} {}", zone, now);
            now += SignedDuration::from_mins(7);
        }
    }

    #[test]
    fn no_text_makes_it_panic(start in ".{0,30}", duration in ".{0,10}", zone in ".{0,20}") {
        if let Ok(schedule) = Schedule::parse(&facts(&start, &duration, &zone)) {
            let _ = schedule.next_after(Timestamp::MAX);
            let _ = schedule.span_at(Timestamp::MIN);
        }
    }
}
