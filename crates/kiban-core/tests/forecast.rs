//! The forecast against the planner that it forecasts: what it grants first, and when it is done.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/fleet.rs"]
mod fleet;

use fleet::*;
use jiff::Timestamp;
use kiban_core::{
    World,
    amount::Amount,
    facts::*,
    forecast::{Durations, Forecast, HORIZON, forecast},
    plan,
};
use std::collections::BTreeMap;

/// A BIOS update with its host reset, as the forecast takes it to last.
fn length(durations: Durations) -> i64 {
    i64::from(durations.operation + durations.update + durations.host_reset)
}

fn hosting() -> PoolFacts {
    PoolFacts {
        waves: vec![
            wave(Amount::Count(1), 3_600),
            wave(Amount::Percent(50), 86_400),
            wave(Amount::Percent(100), 0),
        ],
        ..pool("hosting", Amount::Percent(25), 1)
    }
}

/// The real planner, tick by tick, with operations that last as long as given: when each wave was done, and the last device.
fn played(world: &mut World, lasting: i64) -> (BTreeMap<u32, Timestamp>, Timestamp, usize) {
    let mut now = at(0);
    let mut ends: BTreeMap<(Timestamp, String), ()> = BTreeMap::new();
    let (mut waves, mut peak) = (BTreeMap::new(), 0);
    loop {
        let made = plan(world, now);
        carry_out(world, &made);
        for operation in &made.operations {
            let end = Timestamp::from_second(now.as_second() + lasting).unwrap();
            ends.insert((end, operation.device.clone()), ());
        }
        peak = peak.max(ends.len());
        for state in &made.rollouts {
            let status = &state.status;
            if status.wave_done_at.is_some() {
                waves.entry(status.wave).or_insert(now);
            }
            if status.completed_at.is_some() {
                return (waves, now, peak);
            }
        }
        let next = ends.keys().next().map(|(end, _)| *end);
        now = next.into_iter().chain(made.next_due).min().unwrap();
        while let Some(((end, name), ())) = ends.first_key_value()
            && *end <= now
        {
            let name = name.clone();
            let device_now = world.device(&name).unwrap();
            let (place, pool) = (device_now.place().to_string(), device_now.pool().to_owned());
            let rack = place.rsplit('/').next().unwrap().to_owned();
            end_of(world, &name, &pool, &rack, now);
            ends.pop_first();
        }
    }
}

fn end_of(world: &mut World, name: &str, pool: &str, rack: &str, now: Timestamp) {
    end(
        world,
        &mut device(name, pool, rack, OLD),
        Outcome::Succeeded,
        NEW,
        now,
    );
}

fn first(told: &Forecast) -> Vec<&str> {
    told.first.iter().map(String::as_str).collect()
}

#[test]
fn the_first_instant_is_the_plan() {
    for count in [1, 2, 7, 24] {
        let mut world = fleet(count, hosting());
        world.upsert_pool(PoolFacts {
            baselines: vec!["r650-q4".into()],
            ..pool("staging", Amount::Count(3), 2)
        });
        for n in 0..count {
            world.upsert_device(&device(
                &format!("s{n:02}"),
                "staging",
                &format!("r{}", n / 3),
                OLD,
            ));
        }
        world.upsert_policy(PolicyFacts {
            max_unavailable: Some(Amount::Count(2)),
            ..PolicyFacts::default()
        });
        let made = plan(&world, at(0));
        let granted: Vec<&str> = made.operations.iter().map(|it| it.device.as_str()).collect();
        assert!(!granted.is_empty());
        assert_eq!(
            first(&forecast(&world, at(0), HORIZON)),
            granted,
            "{count} devices"
        );
    }
}

/// The planner here ticks at the very second in which something ends, so the two agree to the second. In production a tick
/// is debounced and an operation leaves through the ledger: seconds per round, which `Durations::operation` allows for.
#[test]
fn playing_the_planner_itself_ends_at_the_same_second() {
    for count in [1, 5, 24, 60] {
        let told = forecast(&fleet(count, hosting()), at(0), HORIZON);
        let [rollout] = told.rollouts.as_slice() else {
            unreachable!("{told:?}")
        };
        let (waves, end, peak) = played(&mut fleet(count, hosting()), length(Durations::USUAL));
        assert_eq!(rollout.ends, Some(end), "{count} devices");
        assert_eq!(told.ends, Some(end));
        let done: BTreeMap<u32, Timestamp> = rollout
            .waves
            .iter()
            .filter_map(|wave| Some((wave.wave, wave.done?)))
            .filter(|(wave, _)| waves.contains_key(wave))
            .collect();
        assert_eq!(done, waves, "{count} devices");
        assert_eq!(told.pools[0].peak as usize, peak);
        assert!(told.pools[0].peak <= told.pools[0].allowed);
        let (_, late, _) = played(&mut fleet(count, hosting()), length(Durations::LONG));
        assert_eq!(rollout.ends_late, Some(late), "{count} devices");
        assert_eq!(told.operations as usize, count);
    }
}

#[test]
fn what_is_under_way_is_played_to_its_end() {
    let mut world = fleet(6, hosting());
    let made = plan(&world, at(0));
    carry_out(&mut world, &made);
    let told = forecast(&world, at(0), HORIZON);
    assert!(told.first.is_empty(), "the canary is under way");
    assert_eq!(
        told.ends,
        forecast(&fleet(6, hosting()), at(0), HORIZON).ends,
        "as if it began now"
    );
}

#[test]
fn a_device_that_waits_on_a_person_is_left_and_said() {
    let mut world = fleet(4, hosting());
    let mut held = device("d00", "hosting", "r0", OLD);
    held.hold = Some(HoldFacts::default());
    world.upsert_device(&held);
    let told = forecast(&world, at(0), HORIZON);
    assert_eq!(told.rollouts[0].ends, None);
    assert!(told.left >= 1 && told.rollouts[0].left == told.left);
}

#[test]
fn a_pause_and_a_short_horizon_end_nothing() {
    let mut world = fleet(4, hosting());
    let short = forecast(&world, at(0), jiff::SignedDuration::from_mins(30));
    assert_eq!((short.ends, short.rollouts[0].ends), (None, None));
    world.upsert_policy(PolicyFacts {
        paused: true,
        ..PolicyFacts::default()
    });
    let paused = forecast(&world, at(0), HORIZON);
    assert!(paused.first.is_empty() && paused.operations == 0 && paused.left == 4);
}
