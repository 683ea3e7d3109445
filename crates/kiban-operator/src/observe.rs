//! Observers: read the devices whose shards this replica holds, at enrolment and every read interval.
//!
//! ```text
//!   due (time, device) ──slot of its site──▶ read ──▶ status::next ──changed──▶ one write
//!        ▲                                    │
//!        └──── next time, spread; sooner after a failure, in slots for the silent ◀──┘
//! ```
//!
//! - A device whose operation runs is the executor's alone.
//! - At rest nothing is written: the same reading gives the same status.
//! - A restart is no storm: what was read before is read again in its time, spread over the interval.

pub mod read;
pub mod status;
#[cfg(test)]
mod tests;

use crate::{
    context::Context,
    execute::{has_begun, is_told, machines::Machines},
    metrics::Activity,
};
use futures::StreamExt as _;
use kiban_api::{Device, convert, labels};
use kube::ResourceExt;
use read::Unread;
use status::Change;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// After how many failed readings in a row a device is said to be unreachable: one lost packet is no news.
const FAILURES_TO_TELL: u32 = 3;
/// A reading older than so many intervals is not fresh.
const FRESH_INTERVALS: u32 = 3;
/// How many of those that are due are tried for a slot per round: a full site must not hide the others.
const LOOK_AHEAD: usize = 512;
/// Devices whose statuses are written at once when what they are measured by changed.
const MEASURED_AT_ONCE: usize = 16;
/// How many times the planner's debounce they wait, so that what it has to say is written with them.
const PAUSE_DEBOUNCES: u32 = 3;
/// Readings whose results wait to be taken in; there are never more than slots.
const RESULTS: usize = 1024;

/// Runs until the context ends.
pub async fn run(context: Context, machines: Machines) {
    let (results, mut taken) = mpsc::channel(RESULTS);
    let changes = context.stores.devices.subscribe();
    let stores = &context.stores;
    let (baselines, pools, policies) = (
        stores.baselines.subscribe(),
        stores.pools.subscribe(),
        stores.policies.subscribe(),
    );
    let mut observer = Observer {
        context: context.clone(),
        machines,
        results,
        watched: HashMap::new(),
        due: BTreeSet::new(),
        measures: BTreeMap::new(),
        measuring: tokio::task::JoinSet::new(),
    };
    observer.measures = observer.generations();
    observer.look(
        context
            .stores
            .devices
            .all()
            .iter()
            .map(|device| device.name_any())
            .collect(),
    );
    loop {
        let next = observer.start_due();
        tokio::select! {
            () = context.cancel.cancelled() => return,
            names = changes.changed() => observer.look(names),
            () = observer.machines.changed() => {
                observer.look(context.stores.devices.all().iter().map(|device| device.name_any()).collect());
            }
            _ = baselines.changed() => observer.measure(),
            _ = pools.changed() => observer.measure(),
            _ = policies.changed() => observer.measure(),
            Some((name, ended)) = taken.recv() => observer.ended(&name, ended),
            () = observer.machines.slots.freed(), if next.blocked => {}
            () = tokio::time::sleep_until(next.at) => {}
        }
    }
}

/// What is remembered of a device between two readings. Nothing here must survive.
struct Watched {
    due: Instant,
    reading: bool,
    failures: u32,
    slow: bool,
    read_at: Instant,
    /// What of the object, when it changes, calls for a reading at once.
    calls: Calls,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Calls {
    uid: String,
    generation: i64,
    reconcile: Option<String>,
    release: Option<String>,
    begun: bool,
}

/// How a reading ended.
enum Ended {
    Read,
    Unread {
        slow: bool,
    },
    /// Another had the device.
    Elsewhere,
}

struct Next {
    at: Instant,
    blocked: bool,
}

struct Observer {
    context: Context,
    machines: Machines,
    results: mpsc::Sender<(String, Ended)>,
    watched: HashMap<String, Watched>,
    due: BTreeSet<(Instant, String)>,
    /// What devices are measured by, as it was when they were last measured: kind, name and generation.
    measures: BTreeMap<(&'static str, String), i64>,
    measuring: tokio::task::JoinSet<()>,
}

impl Observer {
    fn generations(&self) -> BTreeMap<(&'static str, String), i64> {
        let stores = &self.context.stores;
        let baselines = stores.baselines.all();
        let baselines = baselines
            .iter()
            .map(|o| (("FirmwareBaseline", o.name_any()), o.metadata.generation));
        let pools = stores.pools.all();
        let pools = pools
            .iter()
            .map(|o| (("HardwarePool", o.name_any()), o.metadata.generation));
        let policies = stores.policies.all();
        let policies = policies
            .iter()
            .map(|o| (("FleetPolicy", o.name_any()), o.metadata.generation));
        baselines
            .chain(pools)
            .chain(policies)
            .map(|(key, generation)| (key, generation.unwrap_or(0)))
            .collect()
    }

    /// Measures every device that was read by what is wanted now, without asking its BMC. Changes of the statuses of what is
    /// wanted, which are many, change no generation.
    fn measure(&mut self) {
        let generations = self.generations();
        if generations == self.measures {
            return;
        }
        self.measures = generations;
        // What an earlier change began is superseded.
        self.measuring.abort_all();
        self.measure_all(self.watched.keys().cloned().collect());
    }

    fn measure_all(&mut self, names: Vec<String>) {
        if names.is_empty() {
            return;
        }
        // Ended ones are let go of, so that the set does not grow.
        while self.measuring.try_join_next().is_some() {}
        let context = self.context.clone();
        // The plan has something new to say of the same devices for the same reason: its notes go along.
        let pause = context.config.plan_debounce * PAUSE_DEBOUNCES;
        self.measuring.spawn(async move {
            let context = &context;
            tokio::time::sleep(pause).await;
            futures::stream::iter(names)
                .for_each_concurrent(MEASURED_AT_ONCE, |name| measure(context, name))
                .await;
        });
    }

    /// Takes in what changed about some devices, or about which are ours.
    fn look(&mut self, names: BTreeSet<String>) {
        let now = Instant::now();
        let mut taken_over = Vec::new();
        for name in names {
            let device = self
                .context
                .stores
                .devices
                .get(&name)
                .filter(|_| self.machines.shards.holding(&name).is_some());
            let Some(device) = device else {
                if let Some(watched) = self.watched.remove(&name) {
                    self.due.remove(&(watched.due, name));
                }
                continue;
            };
            let calls = self.calls(&device);
            match self.watched.get_mut(&name) {
                Some(watched) if watched.calls == calls => {}
                Some(watched) => {
                    let over =
                        watched.calls.begun && !calls.begun && watched.calls.generation == calls.generation;
                    watched.calls = calls;
                    if !over {
                        self.plan(&name, now);
                    }
                }
                None => {
                    let read = device
                        .status
                        .as_ref()
                        .is_some_and(|status| status.observed_generation == calls.generation);
                    // What was read before the restart is read again in its time.
                    let spread = if read {
                        self.interval().mul_f64(rand::random_range(0.0..1.0))
                    } else {
                        Duration::ZERO
                    };
                    let watched = Watched {
                        due: now + spread,
                        reading: false,
                        failures: 0,
                        slow: false,
                        read_at: now,
                        calls,
                    };
                    self.due.insert((watched.due, name.clone()));
                    if read {
                        taken_over.push(name.clone());
                    }
                    self.watched.insert(name, watched);
                }
            }
        }
        // What is wanted may have changed while nobody watched.
        self.measure_all(taken_over);
    }

    fn calls(&self, device: &Device) -> Calls {
        let annotation = |key: &str| device.annotations().get(key).cloned();
        let operation = self.context.stores.operations.get(&device.name_any());
        Calls {
            uid: device.uid().unwrap_or_default(),
            generation: device.metadata.generation.unwrap_or(0),
            reconcile: annotation(labels::RECONCILE_ANNOTATION),
            release: annotation(labels::RELEASE_HOLD_ANNOTATION),
            begun: operation.is_some_and(|operation| has_begun(&operation) && !is_told(&operation, device)),
        }
    }

    fn interval(&self) -> Duration {
        let policy = self.context.stores.policies.all();
        let policy = policy.first().and_then(|policy| convert::traffic(policy).ok());
        let policy = policy.map_or(Duration::from_secs(600), |traffic| traffic.read_interval);
        self.context
            .config
            .read_interval
            .unwrap_or(policy)
            .max(Duration::from_millis(100))
    }

    fn plan(&mut self, name: &str, at: Instant) {
        let Some(watched) = self.watched.get_mut(name) else {
            return;
        };
        self.due.remove(&(watched.due, name.to_owned()));
        watched.due = at;
        if !watched.reading {
            self.due.insert((at, name.to_owned()));
        }
    }

    /// Starts what is due and has a slot.
    fn start_due(&mut self) -> Next {
        let now = Instant::now();
        let limits = Machines::limits(&self.context);
        let due: Vec<String> = self
            .due
            .iter()
            .take_while(|(at, _)| *at <= now)
            .take(LOOK_AHEAD)
            .map(|(_, name)| name.clone())
            .collect();
        let mut blocked = false;
        for name in due {
            let Some(device) = self.context.stores.devices.get(&name) else {
                continue;
            };
            let Some(holding) = self.machines.shards.holding(&name) else {
                continue;
            };
            let Some(watched) = self.watched.get_mut(&name) else {
                continue;
            };
            let operation = self.context.stores.operations.get(&name);
            let executors =
                operation.is_some_and(|operation| has_begun(&operation) && !is_told(&operation, &device));
            let claim = if executors {
                None
            } else {
                self.machines.claim(&name)
            };
            let Some(claim) = claim else {
                // Its operation tells what it finds; this is only in case that it does not.
                let later = self.interval().min(self.context.config.settle);
                self.plan(&name, now + later);
                continue;
            };
            let Some(slot) = self
                .machines
                .slots
                .try_take(&device.spec.location.site, watched.slow, limits)
            else {
                blocked = true;
                continue;
            };
            watched.reading = true;
            let stale = now.duration_since(watched.read_at) >= self.interval() * FRESH_INTERVALS;
            let failures = self.watched.get(&name).map_or(0, |watched| watched.failures);
            let key = self.watched.get(&name).map(|watched| (watched.due, name.clone()));
            key.map(|key| self.due.remove(&key));
            let (context, machines, results) =
                (self.context.clone(), self.machines.clone(), self.results.clone());
            holding.tasks.spawn(async move {
                let reading = observe(&context, &machines, &device, failures, stale);
                let reading = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(reading));
                let ended = tokio::select! {
                    () = holding.tenure.ends.cancelled() => Ended::Elsewhere,
                    ended = reading => ended.unwrap_or_else(|_| {
                        context.metrics.panics.inc();
                        tracing::error!(device = %name, "a device's answer made the operator panic");
                        Ended::Unread { slow: false }
                    }),
                };
                drop((slot, claim));
                // Fails only when the observer has ended, and then nobody waits for it.
                let _ = results.send((name, ended)).await;
            });
        }
        let soonest = self.due.iter().map(|(at, _)| *at).find(|at| *at > now);
        let at = soonest
            .unwrap_or(now + Duration::from_secs(3600))
            .min(now + Duration::from_secs(3600));
        Next { at, blocked }
    }

    fn ended(&mut self, name: &str, ended: Ended) {
        let (interval, retry) = (self.interval(), self.context.config.task_poll);
        let now = Instant::now();
        let Some(watched) = self.watched.get_mut(name) else {
            return;
        };
        watched.reading = false;
        // What called for a reading while this one ran is not forgotten.
        let called = watched.due > now;
        let spread = rand::random_range(0.9..1.1);
        let at = match ended {
            Ended::Read => {
                watched.failures = 0;
                watched.slow = false;
                watched.read_at = now;
                now + interval.mul_f64(spread)
            }
            Ended::Unread { slow } => {
                watched.failures = watched.failures.saturating_add(1);
                watched.slow = slow;
                let pause = retry.saturating_mul(1 << watched.failures.min(8)).min(interval);
                now + pause.mul_f64(spread)
            }
            Ended::Elsewhere => now + retry,
        };
        let at = if called { at.min(watched.due) } else { at };
        self.plan(name, at);
    }
}

/// Measures one device anew. One that was never read, or whose operation runs, is measured by whoever reads it next.
async fn measure(context: &Context, name: String) {
    let Some(device) = context.stores.devices.get(&name) else {
        return;
    };
    let read = device
        .status
        .as_ref()
        .is_some_and(|status| status.identity.is_some());
    let operation = context.stores.operations.get(&name);
    if !read || operation.is_some_and(|operation| has_begun(&operation) && !is_told(&operation, &device)) {
        return;
    }
    if let Err(error) = status::write(context, &name, &Change::Measured).await {
        tracing::warn!(device = %name, %error, "could not write how a device compares, its next reading tries again");
    }
}

/// One reading and what it makes of the status.
async fn observe(
    context: &Context,
    machines: &Machines,
    device: &Device,
    failures: u32,
    stale: bool,
) -> Ended {
    let begun = context.clock.elapsed();
    let name = device.name_any();
    let repin = wants_repin(device);
    let result = read::read(context, machines, device, repin).await;
    let failed = result.as_ref().err().map(Unread::category);
    let (change, ended) = match result {
        Ok(seen) => (Some(Change::Read(Box::new(seen))), Ended::Read),
        Err(why) => {
            let slow = matches!(why, Unread::Failed { slow: true, .. });
            let tell = failures + 1 >= FAILURES_TO_TELL || !matches!(why, Unread::Failed { .. });
            (
                tell.then_some(Change::Unread { why, stale }),
                Ended::Unread { slow },
            )
        }
    };
    if let Some(change) = &change {
        match status::write(context, &name, change).await {
            Ok(Some(after)) => announce(context, device, &after),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(device = %name, %error, "could not write a device's status, the next reading tries again");
            }
        }
    }
    context.metrics.round(
        Activity::Observe,
        context.clock.elapsed().saturating_sub(begun),
        failed,
    );
    ended
}

fn wants_repin(device: &Device) -> bool {
    let hold = device.status.as_ref().and_then(|status| status.hold.as_ref());
    let release = device.annotations().get(labels::RELEASE_HOLD_ANNOTATION);
    hold.is_some_and(|hold| hold.reason == "CertificateChanged" && release == Some(&released_by(hold)))
}

fn released_by(hold: &kiban_api::device::Hold) -> String {
    if hold.operation.is_empty() {
        hold.reason.clone()
    } else {
        hold.operation.clone()
    }
}

/// Events for what a person would want to see: a device gone, back, or held.
fn announce(context: &Context, before: &Device, after: &Device) {
    let conditions = |device: &Device| {
        device
            .status
            .as_ref()
            .map(|status| status.conditions.clone())
            .unwrap_or_default()
    };
    let reach = |device: &Device| convert::condition(&conditions(device), "Reachable").map(str::to_owned);
    match (reach(before).as_deref(), reach(after).as_deref()) {
        (Some("True") | None, Some("False")) => {
            let why = crate::condition::find(&conditions(after), "Reachable")
                .map(|c| c.message.clone())
                .unwrap_or_default();
            context.events.warning(after, "Unreachable", why);
        }
        (Some("False"), Some("True")) => context.events.normal(after, "Reachable", "the BMC answers again"),
        _ => {}
    }
    let hold = |device: &Device| device.status.as_ref().and_then(|status| status.hold.clone());
    match (hold(before), hold(after)) {
        (None, Some(hold)) => {
            context
                .events
                .warning(after, "Held", format!("{}: {}", hold.reason, hold.message));
        }
        (Some(hold), None) => context.events.normal(
            after,
            "Released",
            format!("the hold for {} is released", hold.reason),
        ),
        _ => {}
    }
}
