//! Gates, measured.
//!
//! ```text
//!   pools, rollouts ──▶ what is needed ──due──▶ measure (TCP, HTTP, Prometheus, condition) ──▶ Measured ──▶ Keeper{World}
//! ```
//!
//! Runs where plans are made. Only gates of a pool with a rollout that is under way are measured, a few at a time, each with a
//! deadline and not all at one instant. Nothing is kept beyond this process: a planner that has just begun knows nothing, and
//! what is not known opens nothing. Whether a measurement is young enough, and what it lets through, is core's to say.

mod condition;
mod http;
mod prometheus;
mod tcp;

use crate::{context::Context, lease::Tenure};
use kiban_api::{HardwarePool, gate::Gate};
use kiban_core::gate::{GateFacts, GateState};
use kube::ResourceExt;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// Measurements at once, at most.
const AT_ONCE: usize = 16;
/// Measurements within the age that counts: two may be lost before the gate closes.
const WITHIN_AGE: u32 = 3;
/// At least this often a gate is measured, however old a measurement may be: a failure is to be seen soon.
const SLOWEST: Duration = Duration::from_secs(60);
/// Never more often than this, whatever is asked for.
const FASTEST: Duration = Duration::from_millis(300);
/// Nothing is waited for longer.
const LONGEST_DEADLINE: Duration = Duration::from_secs(60);
/// Most characters of what is said of a measurement.
const MESSAGE: usize = 300;

/// A pool's name and a gate's.
type Key = (String, String);

/// What was measured of all gates, for the planner. Cheap to clone.
#[derive(Clone, Default)]
pub struct Measured {
    facts: Arc<Mutex<BTreeMap<Key, GateFacts>>>,
    wake: Arc<Notify>,
}

impl Measured {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, GateFacts>> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that is known now.
    #[must_use]
    pub fn all(&self) -> Vec<GateFacts> {
        self.lock().values().cloned().collect()
    }

    /// Waits until a gate has become something else. For one waiter.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    fn take(&self, facts: GateFacts) {
        let key = (facts.pool.clone(), facts.name.clone());
        let state = facts.state;
        let before = self.lock().insert(key, facts);
        // The same again only grows younger, which the next plan sees in its time.
        if before.is_none_or(|before| before.state != state) {
            self.wake.notify_one();
        }
    }

    fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// Forgets everything: this replica plans no more.
    pub fn clear(&self) {
        self.lock().clear();
    }
}

/// What came of one measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reading {
    state: GateState,
    message: String,
}

impl Reading {
    fn holds(message: impl Into<String>) -> Self {
        Self::new(GateState::Holds, message)
    }

    fn fails(message: impl Into<String>) -> Self {
        Self::new(GateState::Fails, message)
    }

    fn no_data(message: impl Into<String>) -> Self {
        Self::new(GateState::NoData, message)
    }

    /// What others say goes into a status: one line, not too long, and nothing that a terminal would obey.
    fn new(state: GateState, message: impl Into<String>) -> Self {
        let message: String = message.into();
        let line = message.chars().map(|c| if c.is_control() { ' ' } else { c });
        Self {
            state,
            message: line.take(MESSAGE).collect(),
        }
    }
}

/// A gate that is measured.
struct Watched {
    gate: Gate,
    due: Instant,
    running: bool,
}

/// Measures until the tenure ends.
pub async fn run(context: Context, tenure: Tenure) {
    let (pools, rollouts) = (
        context.stores.pools.subscribe(),
        context.stores.rollouts.subscribe(),
    );
    let mut measurer = Measurer {
        context: context.clone(),
        watched: BTreeMap::new(),
        running: JoinSet::new(),
    };
    measurer.look();
    loop {
        let next = measurer.start_due();
        tokio::select! {
            () = tenure.ends.cancelled() => return,
            _ = pools.changed() => measurer.look(),
            _ = rollouts.changed() => measurer.look(),
            Some(ended) = measurer.running.join_next() => match ended {
                Ok((key, gate, reading)) => measurer.ended(key, &gate, reading),
                // Its own panic is caught where it runs; this is the set's end.
                Err(error) => tracing::warn!(%error, "a measurement ended oddly"),
            },
            () = sleep_until(next) => {}
        }
    }
}

struct Measurer {
    context: Context,
    watched: BTreeMap<Key, Watched>,
    running: JoinSet<(Key, Gate, Reading)>,
}

impl Measurer {
    /// Takes in which gates are needed now.
    fn look(&mut self) {
        let wanted = needed(&self.context);
        let context = &self.context;
        self.watched.retain(|key, watched| {
            let stays = wanted.get(key) == Some(&watched.gate);
            if !stays {
                // What was measured answers another question now, or none.
                context.gates.forget(key);
            }
            stays
        });
        for (key, gate) in wanted {
            self.watched.entry(key).or_insert_with(|| Watched {
                gate,
                due: Instant::now(),
                running: false,
            });
        }
    }

    /// Starts what is due, and says when the next is.
    fn start_due(&mut self) -> Instant {
        let now = Instant::now();
        for (key, watched) in &mut self.watched {
            if self.running.len() >= AT_ONCE {
                break;
            }
            if watched.running || watched.due > now {
                continue;
            }
            watched.running = true;
            let (context, key, gate) = (self.context.clone(), key.clone(), watched.gate.clone());
            self.running.spawn(async move {
                let reading = measure(&context, &gate);
                let reading = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(reading)).await;
                let reading = reading.unwrap_or_else(|_| {
                    context.metrics.panics.inc();
                    Reading::no_data("the measurement failed inside Kiban: its log says more")
                });
                (key, gate, reading)
            });
        }
        let full = self.running.len() >= AT_ONCE;
        let waiting = self.watched.values().filter(|watched| !watched.running && !full);
        waiting.map(|watched| watched.due).min().unwrap_or(now + SLOWEST)
    }

    fn ended(&mut self, key: Key, gate: &Gate, reading: Reading) {
        let Some(watched) = self.watched.get_mut(&key).filter(|watched| watched.gate == *gate) else {
            // Asked otherwise meanwhile. The new question has its own entry, which is not running.
            return;
        };
        watched.running = false;
        let spread = rand::random_range(0.9..1.1);
        watched.due = Instant::now() + interval(&watched.gate).mul_f64(spread);
        tracing::debug!(
            pool = key.0,
            gate = key.1,
            state = reading.state.as_str(),
            message = reading.message,
            "measured"
        );
        self.context.gates.take(GateFacts {
            pool: key.0,
            name: key.1,
            state: reading.state,
            measured_at: self.context.clock.now(),
            message: reading.message,
        });
    }
}

/// The gates that a rollout under way needs measured.
fn needed(context: &Context) -> BTreeMap<Key, Gate> {
    let under_way = context.stores.rollouts.filter(|rollout| {
        let status = rollout.status.as_ref();
        status.is_none_or(|status| status.completed_at.is_none())
    });
    let mut needed = BTreeMap::new();
    for rollout in under_way {
        if let Some(pool) = context.stores.pools.get(&rollout.spec.pool) {
            needed.extend(measured_gates(&pool));
        }
    }
    needed
}

fn measured_gates(pool: &HardwarePool) -> impl Iterator<Item = (Key, Gate)> + '_ {
    let gates = pool.spec.rollout.gates.iter();
    gates
        .filter(|gate| gate.device_health.is_none())
        .map(|gate| ((pool.name_any(), gate.name.clone()), gate.clone()))
}

fn duration(text: &str, default: Duration) -> Duration {
    let parsed = kiban_core::duration::parse(text).ok();
    parsed
        .and_then(|parsed| Duration::try_from(parsed).ok())
        .unwrap_or(default)
}

fn interval(gate: &Gate) -> Duration {
    let age = duration(&gate.max_age, SLOWEST);
    (age / WITHIN_AGE).clamp(FASTEST, SLOWEST)
}

/// One measurement, with its deadline.
async fn measure(context: &Context, gate: &Gate) -> Reading {
    let deadline = duration(&gate.timeout, Duration::from_secs(10)).min(LONGEST_DEADLINE);
    let measuring = async {
        if let Some(tcp) = &gate.tcp {
            tcp::measure(tcp).await
        } else if let Some(http) = &gate.http {
            http::measure(context, http).await
        } else if let Some(prometheus) = &gate.prometheus {
            prometheus::measure(context, prometheus, duration(&gate.max_age, SLOWEST)).await
        } else if let Some(condition) = &gate.condition {
            condition::measure(context, condition).await
        } else {
            Reading::no_data("it says nothing that could be measured")
        }
    };
    match tokio::time::timeout(deadline, measuring).await {
        Ok(reading) => reading,
        // A server that hangs is what a probe of it is there to see; a monitor that hangs has said nothing.
        Err(_) if gate.tcp.is_some() || gate.http.is_some() => {
            Reading::fails(format!("no answer within {deadline:?}"))
        }
        Err(_) => Reading::no_data(format!("no answer within {deadline:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(state: GateState) -> GateFacts {
        GateFacts {
            pool: "web".into(),
            name: "slo".into(),
            state,
            ..GateFacts::default()
        }
    }

    #[tokio::test]
    async fn the_planner_is_woken_by_a_change_and_not_by_the_same_again() {
        let measured = Measured::default();
        measured.take(facts(GateState::Holds));
        measured.woken().await;
        measured.take(facts(GateState::Holds));
        let woken = tokio::time::timeout(Duration::from_millis(50), measured.woken()).await;
        assert!(woken.is_err(), "nothing changed");
        measured.take(facts(GateState::Fails));
        measured.woken().await;
        assert_eq!(measured.all().len(), 1);
    }

    #[test]
    fn what_others_say_cannot_reach_a_terminal() {
        let reading = Reading::fails(format!("a\u{1b}[31m\n{}", "x".repeat(1000)));
        assert!(!reading.message.chars().any(char::is_control));
        assert_eq!(reading.message.chars().count(), MESSAGE);
    }
}
