//! Time as the operator sees it: a wall clock for what people read, a monotonic one for what is decided by duration.

use std::time::{Duration, Instant};

/// Two clocks. The wall clock may jump; nothing that protects a machine is decided by it.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Clock {
    /// The time of day, for statuses, events and the ledger. Whole microseconds, as Kubernetes stores them.
    #[must_use]
    pub fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    /// Time since this clock was made. It never goes back.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}
