//! Waves: how far a change may have spread.
//!
//! A wave is not a list of devices but a mark: it is done when that many devices have had their operation. Which
//! devices those are is decided when they are granted, so that nothing has to be remembered.
//!
//! ```text
//!   waves 1, 10 %, 100 % of 24      mark 1 ── soak ── mark 3 ── soak ── mark 24
//! ```

use crate::{
    amount::Amount,
    facts::{RolloutStatus, WaveFacts},
};
use jiff::{SignedDuration, Timestamp};

/// How far a rollout may have spread now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaveState {
    /// Present wave, from 1.
    pub wave: u32,
    /// Waves in all.
    pub waves: u32,
    /// Devices that the present wave reaches, of those concerned.
    pub reach: u32,
    /// When the present wave was done; None: it is not.
    pub done_at: Option<Timestamp>,
    /// When the next wave opens, while this one soaks.
    pub soak_until: Option<Timestamp>,
}

/// What counts towards the marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Devices that the change concerns.
    pub total: u32,
    /// Of them, through with it, well or not.
    pub through: u32,
    /// Whether some class has no canary through that could have one: then the first wave is not done.
    pub canaries: bool,
    /// Whether the rollout halted: then no wave opens, and the present one is shown as it was.
    pub halted: bool,
}

/// The marks and soaks of a pool's waves: never falling, the last one everything. Without waves the default ones.
pub(crate) fn marks(waves: &[WaveFacts], total: u32) -> Vec<(u32, SignedDuration)> {
    let wave = |reach| WaveFacts {
        reach,
        soak: SignedDuration::ZERO,
    };
    let default = [Amount::Count(1), Amount::Percent(10), Amount::Percent(100)].map(wave);
    let waves = if waves.is_empty() { &default } else { waves };
    let mut marks = Vec::with_capacity(waves.len() + 1);
    let mut highest = 0;
    for wave in waves {
        highest = wave.reach.of(total).min(total).max(highest);
        marks.push((highest, wave.soak.max(SignedDuration::ZERO)));
    }
    // 5 devices reach everything of 3, yet say nothing of the fourth that comes tomorrow.
    let whole = waves
        .last()
        .is_some_and(|last| last.reach == Amount::Percent(100));
    if !whole {
        marks.push((total, SignedDuration::ZERO));
    }
    marks
}

/// The present wave, from what was stored and what is through.
///
/// The stored wave is believed only as far as the marks bear it out: it says whether a soak is over, never that a wave
/// was done. So a status that somebody wrote over, or that is missing, costs a soak and no more. A clock that went
/// back makes a soak longer, never shorter than the time between the two readings.
#[must_use]
pub fn wave(
    waves: &[WaveFacts],
    progress: Progress,
    stored: Option<&RolloutStatus>,
    now: Timestamp,
) -> WaveState {
    let marks = marks(waves, progress.total);
    let count = u32::try_from(marks.len()).unwrap_or(u32::MAX);
    let mark = |wave: u32| {
        marks
            .get((wave - 1) as usize)
            .copied()
            .unwrap_or((0, SignedDuration::ZERO))
    };
    // The first wave that is not done, or the last.
    let bearable = marks
        .iter()
        .position(|(mark, _)| progress.through < *mark)
        .map_or(count, |at| u32::try_from(at).unwrap_or(count - 1) + 1);
    let mut wave = stored.map_or(1, |status| status.wave).clamp(1, bearable);
    let known = stored.is_some_and(|status| status.wave == wave);
    let mut done_at = stored.filter(|_| known).and_then(|status| status.wave_done_at);
    loop {
        let (reach, soak) = mark(wave);
        let done = wave < count && progress.through >= reach && !(wave == 1 && progress.canaries);
        if !done {
            return WaveState {
                wave,
                waves: count,
                reach,
                done_at: None,
                soak_until: None,
            };
        }
        // A time in the future is not one that this planner wrote under this clock.
        let at = done_at.filter(|&at| at <= now).unwrap_or(now);
        let until = at.checked_add(soak).unwrap_or(Timestamp::MAX);
        if now < until || progress.halted {
            return WaveState {
                wave,
                waves: count,
                reach,
                done_at: Some(at),
                soak_until: Some(until).filter(|&until| now < until && !progress.halted),
            };
        }
        wave += 1;
        done_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn soaking(reach: Amount, soak_s: i64) -> WaveFacts {
        WaveFacts {
            reach,
            soak: SignedDuration::from_secs(soak_s),
        }
    }

    fn through(total: u32, through: u32) -> Progress {
        Progress {
            total,
            through,
            canaries: false,
            halted: false,
        }
    }

    fn stored(wave: u32, done_at: Option<i64>) -> RolloutStatus {
        RolloutStatus {
            wave,
            wave_done_at: done_at.map(at),
            ..RolloutStatus::default()
        }
    }

    #[test]
    fn a_soak_is_waited_out_from_the_moment_the_wave_was_done() {
        let waves = [soaking(Amount::Count(1), 100), soaking(Amount::Percent(100), 0)];
        let first = wave(&waves, through(24, 0), None, at(0));
        assert_eq!(
            (first.wave, first.waves, first.reach, first.done_at),
            (1, 2, 1, None)
        );
        let done = wave(&waves, through(24, 1), Some(&stored(1, None)), at(50));
        assert_eq!(
            (done.wave, done.done_at, done.soak_until),
            (1, Some(at(50)), Some(at(150)))
        );
        let soaks = wave(&waves, through(24, 1), Some(&stored(1, Some(50))), at(149));
        assert_eq!((soaks.wave, soaks.done_at), (1, Some(at(50))));
        let open = wave(&waves, through(24, 1), Some(&stored(1, Some(50))), at(150));
        assert_eq!((open.wave, open.reach, open.done_at), (2, 24, None));
    }

    #[test]
    fn the_first_wave_lasts_until_every_class_has_its_canary() {
        let waves = [soaking(Amount::Count(1), 0), soaking(Amount::Percent(100), 0)];
        let awaited = Progress {
            canaries: true,
            ..through(24, 3)
        };
        let first = wave(&waves, awaited, Some(&stored(1, None)), at(0));
        assert_eq!((first.wave, first.done_at), (1, None));
        let second = wave(&waves, awaited, Some(&stored(2, None)), at(0));
        assert_eq!(second.wave, 2, "a class that turns up later stops nobody else");
        let lost = wave(&waves, awaited, None, at(0));
        assert_eq!(lost.wave, 1);
        assert_eq!(
            wave(&waves, through(24, 3), Some(&stored(1, None)), at(0)).wave,
            2
        );
    }

    #[test]
    fn a_wave_that_nobody_earned_is_not_believed() {
        let waves = [soaking(Amount::Count(1), 100), soaking(Amount::Percent(50), 100)];
        for wrong in [0, 2, 3, 99, u32::MAX] {
            let state = wave(&waves, through(24, 0), Some(&stored(wrong, Some(0))), at(1_000));
            assert_eq!((state.wave, state.reach), (1, 1), "stored wave {wrong}");
        }
    }

    #[test]
    fn a_soak_does_not_end_early_when_the_clock_was_ahead() {
        let waves = [soaking(Amount::Count(1), 100)];
        let state = wave(&waves, through(24, 1), Some(&stored(1, Some(1_000_000))), at(10));
        assert_eq!(
            (state.wave, state.done_at, state.soak_until),
            (1, Some(at(10)), Some(at(110)))
        );
    }

    #[test]
    fn the_last_wave_is_everything_whatever_is_written() {
        let state = wave(
            &[soaking(Amount::Percent(50), 0)],
            through(10, 5),
            Some(&stored(1, None)),
            at(0),
        );
        assert_eq!((state.wave, state.waves, state.reach), (2, 2, 10));
        let none = wave(&[], through(30, 0), None, at(0));
        assert_eq!((none.wave, none.waves, none.reach), (1, 3, 1));
    }

    proptest! {
        #[test]
        fn never_beyond_the_first_mark_that_is_not_reached(
            reach in prop::collection::vec((0_u32..200, any::<bool>(), -5_i64..500), 0..6),
            total in 0_u32..500, part in 0_u32..600, garbage in any::<u32>(), done in prop::option::of(any::<i32>()),
            now in any::<i32>(),
        ) {
            let waves: Vec<WaveFacts> = reach
                .into_iter()
                .map(|(n, percent, soak)| {
                    let reach = if percent { Amount::Percent(n.min(100) as u8) } else { Amount::Count(n) };
                    soaking(reach, soak)
                })
                .collect();
            let progress = through(total, part.min(total));
            let status = stored(garbage, done.map(i64::from));
            let state = wave(&waves, progress, Some(&status), at(now.into()));
            prop_assert!(state.wave >= 1 && state.wave <= state.waves);
            prop_assert!(state.reach <= total);
            // All marks before the present wave are reached.
            if state.wave > 1 {
                let (before, _) = marks(&waves, total)[state.wave as usize - 2];
                prop_assert!(progress.through >= before);
            }
            prop_assert!(state.soak_until.is_none_or(|until| until > at(now.into()) && state.done_at.is_some()));
        }
    }
}
