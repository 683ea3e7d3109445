//! Virtual time: everything a machine does is timed in virtual milliseconds since the fleet's start.

use std::time::{Duration, Instant};

/// How virtual time follows real time: from one start, at one speed.
#[derive(Debug, Clone)]
pub struct Clock {
    origin: Instant,
    epoch: jiff::Timestamp,
    speed: f64,
}

impl Clock {
    /// A clock that starts now and runs `speed` virtual seconds per real second.
    pub fn start(speed: f64) -> Self {
        Self {
            origin: Instant::now(),
            epoch: jiff::Timestamp::now(),
            speed: speed.clamp(0.01, 1_000_000.0),
        }
    }

    /// Virtual milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        (self.origin.elapsed().as_secs_f64() * 1000.0 * self.speed) as u64
    }

    /// The real instant at which a virtual time is reached.
    pub(crate) fn real(&self, virtual_ms: u64) -> Instant {
        self.origin + self.real_span(virtual_ms)
    }

    /// How long a virtual span takes in real time.
    pub(crate) fn real_span(&self, virtual_ms: u64) -> Duration {
        Duration::from_secs_f64(virtual_ms as f64 / 1000.0 / self.speed)
    }

    /// Virtual seconds per real second.
    pub fn speed(&self) -> f64 {
        self.speed
    }

    /// A virtual time as RFC 3339, to the second, as BMCs print it.
    pub(crate) fn stamp(&self, virtual_ms: u64) -> String {
        let at = self.epoch.as_second().saturating_add((virtual_ms / 1000) as i64);
        jiff::Timestamp::from_second(at).unwrap_or(self.epoch).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_rfc3339_and_follow_virtual_time() {
        let clock = Clock::start(100.0);
        let (a, b) = (clock.stamp(0), clock.stamp(3_600_000));
        let a: jiff::Timestamp = a.parse().unwrap();
        let b: jiff::Timestamp = b.parse().unwrap();
        assert_eq!(b.as_second() - a.as_second(), 3600);
        assert_eq!(clock.real_span(100_000), Duration::from_secs(1));
    }
}
