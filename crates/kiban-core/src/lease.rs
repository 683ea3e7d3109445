//! Leases: who may act. The pure decision; the operator's shell keeps to it, and so does the seeded world.
//!
//! ```text
//!   seen (by our own clock) ──decide──▶ Acquire(epoch) ──▶ a tenure ──renew──▶ … ──▶ Lost
//!                              └──────▶ Wait
//! ```
//!
//! Times are durations on the asking process's own monotonic clock. What a remote clock wrote is not looked at.

use std::time::Duration;

/// A Lease as it was seen, with when it was first seen so by our own clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its holder; none: it was released.
    pub holder: Option<String>,
    /// Its epoch.
    pub transitions: i64,
    /// How long it lasts after it was renewed.
    pub duration: Duration,
    /// Its resource version.
    pub version: String,
    /// When it was first seen with this version, on our monotonic clock.
    pub changed_at: Duration,
}

/// A tenure of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its epoch.
    pub epoch: i64,
    /// When the last renewal that succeeded was sent, on our monotonic clock.
    pub renewed_at: Duration,
}

/// What to do about a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Take it, with this epoch.
    Acquire {
        /// One more than the last.
        epoch: i64,
    },
    /// It is ours: renew it.
    Renew,
    /// Another's: look again.
    Wait,
    /// It was ours and is no more. Stop at once.
    Lost,
}

/// Decides about a Lease. `lease`: as seen, or none when there is none. `held`: our tenure, if we are in one.
#[must_use]
pub fn decide(
    lease: Option<&Seen>,
    me: &str,
    held: Option<Held>,
    duration: Duration,
    now: Duration,
) -> Decision {
    if let Some(held) = held {
        let lapsed = now.saturating_sub(held.renewed_at) >= duration;
        let ours = lease.is_some_and(|l| l.holder.as_deref() == Some(me) && l.transitions == held.epoch);
        return if ours && !lapsed {
            Decision::Renew
        } else {
            Decision::Lost
        };
    }
    let Some(lease) = lease else {
        return Decision::Acquire { epoch: 1 };
    };
    let next = Decision::Acquire {
        epoch: lease.transitions.saturating_add(1),
    };
    match lease.holder.as_deref() {
        None | Some("") => next,
        // Ours by name, but we are in no tenure: the answer to our own write was lost. A new epoch is on the safe side.
        Some(holder) if holder == me => next,
        Some(_) if now.saturating_sub(lease.changed_at) >= lease.duration => next,
        Some(_) => Decision::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn seen(holder: &str, transitions: i64, changed_at: u64) -> Seen {
        Seen {
            holder: (!holder.is_empty()).then(|| holder.to_owned()),
            transitions,
            duration: LASTS,
            version: "1".into(),
            changed_at: at(changed_at),
        }
    }

    #[test]
    fn a_lease_that_nobody_holds_is_taken_with_a_new_epoch() {
        assert_eq!(
            decide(None, "me", None, LASTS, at(0)),
            Decision::Acquire { epoch: 1 }
        );
        assert_eq!(
            decide(Some(&seen("", 4, 0)), "me", None, LASTS, at(0)),
            Decision::Acquire { epoch: 5 }
        );
    }

    #[test]
    fn anothers_lease_lapses_by_when_we_saw_it_change() {
        let lease = seen("other", 4, 100);
        assert_eq!(decide(Some(&lease), "me", None, LASTS, at(114)), Decision::Wait);
        assert_eq!(
            decide(Some(&lease), "me", None, LASTS, at(115)),
            Decision::Acquire { epoch: 5 }
        );
    }

    #[test]
    fn our_name_without_a_tenure_is_a_new_epoch() {
        assert_eq!(
            decide(Some(&seen("me", 4, 0)), "me", None, LASTS, at(1)),
            Decision::Acquire { epoch: 5 }
        );
    }

    #[test]
    fn a_tenure_is_lost_by_our_clock_whatever_the_lease_says() {
        let held = Some(Held {
            epoch: 4,
            renewed_at: at(100),
        });
        let lease = seen("me", 4, 100);
        assert_eq!(decide(Some(&lease), "me", held, LASTS, at(114)), Decision::Renew);
        assert_eq!(decide(Some(&lease), "me", held, LASTS, at(115)), Decision::Lost);
    }

    #[test]
    fn a_tenure_is_lost_when_the_lease_is_anothers_gone_or_of_another_epoch() {
        let held = Some(Held {
            epoch: 4,
            renewed_at: at(100),
        });
        for lease in [
            Some(seen("other", 5, 101)),
            Some(seen("me", 5, 101)),
            Some(seen("", 4, 101)),
            None,
        ] {
            assert_eq!(
                decide(lease.as_ref(), "me", held, LASTS, at(101)),
                Decision::Lost,
                "{lease:?}"
            );
        }
    }

    /// Two processes with clocks that differ, one of which freezes: whatever the order of events, their tenures never
    /// overlap by either's own judgement of true time.
    #[test]
    fn a_frozen_holder_has_stopped_before_another_may_start() {
        // The holder renewed at true time 100 (sent), and freezes. The other saw the change at 100 or later.
        for seen_after in 0..10 {
            let held = Held {
                epoch: 1,
                renewed_at: at(100),
            };
            let other = seen("holder", 1, 100 + seen_after);
            for now in 100..200 {
                let still = decide(
                    Some(&seen("holder", 1, 100)),
                    "holder",
                    Some(held),
                    LASTS,
                    at(now),
                );
                let takes = decide(Some(&other), "other", None, LASTS, at(now));
                assert!(
                    !(still == Decision::Renew && takes != Decision::Wait),
                    "both at {now}"
                );
            }
        }
    }
}
