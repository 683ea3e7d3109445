//! Figures, in OpenMetrics. Labels are closed sets: never a device's name.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

/// What was done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs)]
pub enum Verb {
    Create,
    Apply,
    Patch,
    Update,
    Delete,
}

/// What a replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs)]
pub enum Activity {
    Sync,
    Plan,
    Ledger,
    Observe,
    Execute,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    kind: String,
    verb: Verb,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Activities {
    activity: Activity,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failure {
    activity: Activity,
    reason: String,
}

/// A set of one label, whose values come from a closed set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct State {
    state: String,
}

/// A set of the label `kind`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    kind: String,
}

/// A gauge that holds a fraction.
pub type FloatGauge = Gauge<f64, AtomicU64>;

/// The figures of one replica. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    api_writes: Family<Write, Counter>,
    api_write_failures: Family<Write, Counter>,
    reconciles: Family<Activities, Counter>,
    failures: Family<Failure, Counter>,
    durations: Family<Activities, Histogram>,
    /// Time that a plan took, without its writing.
    pub plan_duration: Histogram,
    /// Findings of the checker against plans, each of which was then not written.
    pub plan_findings: Counter,
    operations: Family<State, Gauge>,
    devices: Family<State, Gauge>,
    bmc_requests: Family<State, Counter>,
    /// Records that wait for the ledger to be pushed.
    pub ledger_waiting: Gauge,
    /// Records that the ledger holds since the start of this replica.
    pub ledger_records: Counter,
    /// Age of the oldest record that waits for the ledger, in seconds.
    pub ledger_lag: FloatGauge,
    /// Seconds since Git was last looked at with success.
    pub sync_age: FloatGauge,
    watch_failing: Family<Kind, FloatGauge>,
    undecodable: Family<Kind, Gauge>,
    relist_found: Family<Kind, Counter>,
    /// 1 where this replica holds the planner's Lease.
    pub leader: Gauge,
    /// Shards that this replica holds.
    pub shards_held: Gauge,
    /// Events that could not be written.
    pub events_dropped: Counter,
    /// Panics that were caught, each at the cost of one object.
    pub panics: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// From a millisecond to a quarter of an hour.
const DURATION_BUCKETS: [f64; 12] = [
    0.001, 0.005, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0,
];

fn duration_histogram() -> Histogram {
    Histogram::new(DURATION_BUCKETS)
}

impl Metrics {
    /// Figures that are all zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("kiban");
        let durations = Family::new_with_constructor(duration_histogram as fn() -> Histogram);
        let mut metrics = Self {
            registry: Arc::new(Registry::default()),
            api_writes: Family::default(),
            api_write_failures: Family::default(),
            reconciles: Family::default(),
            failures: Family::default(),
            durations,
            plan_duration: duration_histogram(),
            plan_findings: Counter::default(),
            operations: Family::default(),
            devices: Family::default(),
            bmc_requests: Family::default(),
            ledger_waiting: Gauge::default(),
            ledger_records: Counter::default(),
            ledger_lag: FloatGauge::default(),
            sync_age: FloatGauge::default(),
            watch_failing: Family::default(),
            undecodable: Family::default(),
            relist_found: Family::default(),
            leader: Gauge::default(),
            shards_held: Gauge::default(),
            events_dropped: Counter::default(),
            panics: Counter::default(),
        };
        metrics.register(&mut registry);
        metrics.registry = Arc::new(registry);
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register(
            "api_writes",
            "Writes sent to the API server, Leases aside",
            self.api_writes.clone(),
        );
        r.register(
            "api_write_failures",
            "Writes that failed",
            self.api_write_failures.clone(),
        );
        r.register("reconciles", "Rounds of an activity", self.reconciles.clone());
        r.register(
            "reconcile_failures",
            "Rounds that failed, by reason",
            self.failures.clone(),
        );
        let help = "Time that a round took";
        r.register_with_unit("reconcile_duration", help, Unit::Seconds, self.durations.clone());
        let help = "Time that a plan took, without its writing";
        r.register_with_unit("plan_duration", help, Unit::Seconds, self.plan_duration.clone());
        r.register(
            "plan_findings",
            "Findings of the checker against plans",
            self.plan_findings.clone(),
        );
        r.register("operations", "Operations by outcome", self.operations.clone());
        r.register("devices", "Devices by compliance", self.devices.clone());
        r.register(
            "bmc_requests",
            "Requests to BMCs by outcome",
            self.bmc_requests.clone(),
        );
        r.register(
            "ledger_waiting",
            "Records that wait for the ledger",
            self.ledger_waiting.clone(),
        );
        r.register(
            "ledger_records",
            "Records that were pushed",
            self.ledger_records.clone(),
        );
        let help = "Age of the oldest record that waits for the ledger";
        r.register_with_unit("ledger_lag", help, Unit::Seconds, self.ledger_lag.clone());
        let help = "Time since Git was last looked at with success";
        r.register_with_unit("sync_age", help, Unit::Seconds, self.sync_age.clone());
        let help = "Since when a watch has been failing; 0: it is not";
        r.register_with_unit("watch_failing", help, Unit::Seconds, self.watch_failing.clone());
        r.register(
            "undecodable_objects",
            "Objects that cannot be read and are left out",
            self.undecodable.clone(),
        );
        let help = "Changes that only a full list told, and the watch did not: must be 0";
        r.register("relist_found", help, self.relist_found.clone());
        r.register("leader", "1 where this replica plans", self.leader.clone());
        r.register(
            "shards_held",
            "Shards that this replica holds",
            self.shards_held.clone(),
        );
        r.register(
            "events_dropped",
            "Events that could not be written",
            self.events_dropped.clone(),
        );
        r.register("panics", "Panics that were caught", self.panics.clone());
    }

    /// Counts a write.
    pub fn api_write(&self, kind: &str, verb: Verb) {
        self.api_writes
            .get_or_create(&Write {
                kind: kind.into(),
                verb,
            })
            .inc();
    }

    /// Counts a write that failed. It was counted as a write as well: it cost the API server the same.
    pub fn api_write_failed(&self, kind: &str, verb: Verb) {
        self.api_write_failures
            .get_or_create(&Write {
                kind: kind.into(),
                verb,
            })
            .inc();
    }

    /// Writes of one kind so far, whatever the verb.
    #[must_use]
    pub fn api_writes_of(&self, kind: &str) -> u64 {
        [Verb::Create, Verb::Apply, Verb::Patch, Verb::Update, Verb::Delete]
            .into_iter()
            .map(|verb| {
                self.api_writes
                    .get_or_create(&Write {
                        kind: kind.into(),
                        verb,
                    })
                    .get()
            })
            .sum()
    }

    /// A round of an activity ended. `failure` is its category.
    pub fn round(&self, activity: Activity, took: Duration, failure: Option<&str>) {
        self.reconciles.get_or_create(&Activities { activity }).inc();
        self.durations
            .get_or_create(&Activities { activity })
            .observe(took.as_secs_f64());
        if let Some(reason) = failure {
            self.failures
                .get_or_create(&Failure {
                    activity,
                    reason: reason.into(),
                })
                .inc();
        }
    }

    /// How many devices there are of one compliance.
    pub fn devices(&self, state: &str, count: i64) {
        self.devices
            .get_or_create(&State { state: state.into() })
            .set(count);
    }

    /// How many operations there are of one outcome.
    pub fn operations(&self, state: &str, count: i64) {
        self.operations
            .get_or_create(&State { state: state.into() })
            .set(count);
    }

    /// A request to a BMC ended: `Ok` or the error's category.
    pub fn bmc_request(&self, outcome: &str) {
        self.bmc_requests
            .get_or_create(&State {
                state: outcome.into(),
            })
            .inc();
    }

    /// Since when the watch of a kind has been failing.
    pub fn watch_failing(&self, kind: &str, for_: Duration) {
        self.watch_failing
            .get_or_create(&Kind { kind: kind.into() })
            .set(for_.as_secs_f64());
    }

    /// How many objects of a kind cannot be read.
    pub fn undecodable(&self, kind: &str, count: usize) {
        self.undecodable
            .get_or_create(&Kind { kind: kind.into() })
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A full list told of changes that the watch had not.
    pub fn relist_found(&self, kind: &str, count: usize) {
        self.relist_found
            .get_or_create(&Kind { kind: kind.into() })
            .inc_by(count as u64);
    }

    /// All of it, as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_counted_by_kind_and_verb() {
        let metrics = Metrics::new();
        metrics.api_write("Device", Verb::Apply);
        metrics.api_write("Device", Verb::Apply);
        metrics.api_write("Device", Verb::Patch);
        assert_eq!(metrics.api_writes_of("Device"), 3);
        let text = metrics.text();
        assert!(
            text.contains(r#"kiban_api_writes_total{kind="Device",verb="Apply"} 2"#),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }
}
