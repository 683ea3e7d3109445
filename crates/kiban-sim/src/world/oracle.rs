//! What must hold at every instant, judged by what the API server stores and what the machines really do.

use super::{
    api::{Api, Operation},
    machine::Machine,
};
use kiban_core::{
    facts::{FailureDomain, Health, Outcome, PoolFacts, Reach},
    operation::Intent,
};
use std::collections::{BTreeMap, BTreeSet};

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule, in `CamelCase`.
    pub rule: &'static str,
    /// What broke it.
    pub what: String,
}

/// How long after it was stored something is taken to be known to whoever plans: the slowest watch, and a tick.
pub(super) const KNOWN_AFTER: i64 = 40_000;

/// What is remembered to judge by.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) violation: Option<Violation>,
    /// Accepted sends by operation and update: the attempts, and whether each was refused in so many words.
    sends: BTreeMap<(u64, usize), Vec<(u32, bool)>>,
    /// By machine and component: revision and image of the last accepted send.
    images: BTreeMap<(String, String), (String, String)>,
    /// Since when a device's stored status says that it is unavailable.
    pub(super) unavailable: BTreeMap<String, i64>,
    /// Since when a rollout is stored as halted, with its revision.
    pub(super) halted: BTreeMap<String, (String, i64)>,
    /// Machines whose last disruption was ours and that are not well again.
    pub(super) ours: BTreeSet<String>,
    /// Operations that were begun: by id, the outcome that was stored.
    begun: BTreeMap<String, Option<Outcome>>,
    pub(super) flashes: u64,
    pub(super) begun_count: u64,
    pub(super) held: u64,
    /// The fullest that a budget was: used and allowed.
    pub(super) worst: (u32, u32),
}

impl Oracle {
    pub(super) fn fail(&mut self, rule: &'static str, what: String) {
        self.violation.get_or_insert(Violation { rule, what });
    }

    /// A send reached a BMC.
    pub(super) fn sent(
        &mut self,
        operation: Option<&Operation>,
        device: &str,
        uid: u64,
        update: usize,
        attempt: u32,
        now: i64,
    ) {
        let intent: Option<&Intent> = operation
            .filter(|it| it.uid == uid)
            .and_then(|it| it.status.record.intent.as_ref());
        match intent {
            Some(intent) if (intent.update, intent.attempt) == (update, attempt) => {
                let deadline = super::millis(intent.call_deadline);
                if now > deadline {
                    self.fail(
                        "SentTooLate",
                        format!("{device}: {} s after its deadline", (now - deadline) / 1000),
                    );
                }
            }
            _ => self.fail(
                "SentWithoutIntent",
                format!("{device}: update {update}, attempt {attempt}"),
            ),
        }
    }

    /// A BMC accepted or refused it.
    pub(super) fn accepted(
        &mut self,
        operation: Option<&Operation>,
        (uid, update, attempt): (u64, usize, u32),
        refused: bool,
        over: bool,
    ) {
        let Some(operation) = operation else { return };
        let (device, component) = (operation.spec.device.clone(), update.to_string());
        let earlier = self.sends.entry((uid, update)).or_default();
        let again = earlier
            .iter()
            .any(|(before, refused)| *before == attempt || !refused);
        earlier.push((attempt, refused));
        if again {
            self.fail(
                "FlashedTwice",
                format!(
                    "{device}: update {update} of {} was sent again",
                    operation.spec.id
                ),
            );
        }
        if refused {
            return;
        }
        if over {
            self.fail(
                "FlashOverFlash",
                format!("{device}: another update was still being written"),
            );
        }
        self.flashes += 1;
        let Some(planned) = operation.spec.updates.get(update) else {
            return;
        };
        let image = (
            operation.spec.revision.clone(),
            format!("{component}{}", planned.image.sha256),
        );
        let key = (device.clone(), planned.class.to_string());
        if self.images.insert(key, image.clone()) == Some(image) {
            self.fail(
                "SameImageTwice",
                format!("{device}: {} for one revision", planned.to),
            );
        }
    }

    /// An operation was stored with its first intent: from now on its device is disrupted.
    pub(super) fn began(
        &mut self,
        api: &Api,
        machines: &BTreeMap<String, Machine>,
        operation: &Operation,
        now: i64,
    ) {
        let spec = &operation.spec;
        if self.begun.insert(spec.id.clone(), None).is_some() {
            self.fail("BegunTwice", spec.id.clone());
        }
        self.begun_count += 1;
        let rollout = self.halted.get(&spec.rollout);
        if rollout.is_some_and(|(revision, since)| *revision == spec.revision && now - since > KNOWN_AFTER) {
            let epoch = operation.epoch;
            self.fail(
                "StartedThoughHalted",
                format!("{} of {} (epoch {epoch})", spec.device, spec.rollout),
            );
        }
        self.budgets(api, machines, now);
    }

    /// Devices that are disrupted by us: a begun operation on them, or not well since one.
    pub(super) fn budgets(&mut self, api: &Api, machines: &BTreeMap<String, Machine>, now: i64) {
        let begun = api
            .operations()
            .filter(|it| it.has_begun() && !it.status.outcome.is_final());
        let mut disrupted: BTreeSet<&str> = begun.map(|it| it.spec.device.as_str()).collect();
        self.ours
            .retain(|name| machines.get(name).is_some_and(|machine| machine.is_down(now)));
        let ours: Vec<String> = self.ours.iter().cloned().collect();
        disrupted.extend(ours.iter().map(String::as_str));
        let fleet = api
            .policy()
            .max_unavailable
            .map(|amount| amount.of(super::count(machines.len())));
        if fleet.is_some_and(|allowed| super::count(disrupted.len()) > allowed) {
            self.fail("FleetBudget", format!("{disrupted:?}"));
        }
        for pool in api.pools() {
            self.pool(api, pool, &disrupted);
        }
    }

    fn pool(&mut self, api: &Api, pool: &PoolFacts, disrupted: &BTreeSet<&str>) {
        let bound = api.objects.get(super::api::DEVICES).into_iter().flatten();
        let bound = bound.filter(|(name, _)| api.device(name).is_some_and(|it| it.facts.pool == pool.name));
        let allowed = pool.max_unavailable.of(super::count(bound.count()));
        let mut domains: BTreeMap<String, u32> = BTreeMap::new();
        let mut used = 0;
        for device in disrupted.iter().filter_map(|name| api.device(name)) {
            let facts = &device.facts;
            if facts.pool == pool.name {
                used += 1;
                *domains
                    .entry(domain(pool.domain, &facts.room, &facts.rack))
                    .or_default() += 1;
            }
        }
        if used * self.worst.1.max(1) > self.worst.0 * allowed.max(1) {
            self.worst = (used, allowed);
        }
        if used > allowed {
            self.fail(
                "PoolBudget",
                format!("{}: {used} of {allowed}: {disrupted:?}", pool.name),
            );
        }
        if let Some((domain, used)) = domains.into_iter().find(|(_, used)| *used > pool.max_per_domain) {
            self.fail(
                "DomainBudget",
                format!("{domain}: {used} of {}: {disrupted:?}", pool.max_per_domain),
            );
        }
    }

    /// An operation was created by a planner whose epoch is the present one.
    pub(super) fn granted(&mut self, api: &Api, operation: &Operation, decided: i64) {
        let Some(pool) = api.pools().find(|pool| pool.name == operation.spec.pool) else {
            return;
        };
        let known = |name: &str| {
            self.unavailable
                .get(name)
                .is_some_and(|since| decided - since > KNOWN_AFTER)
        };
        let mut bound = 0;
        let mut used = 0;
        for name in api
            .objects
            .get(super::api::DEVICES)
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
        {
            if api.device(name).is_none_or(|it| it.facts.pool != pool.name) {
                continue;
            }
            bound += 1;
            let begun = api
                .operation(name)
                .is_some_and(|it| !it.status.outcome.is_final() && it.epoch == operation.epoch);
            used += u32::from(begun || known(name));
        }
        let allowed = pool.max_unavailable.of(bound);
        if used > allowed {
            self.fail(
                "GrantedOverBudget",
                format!("{}: {used} of {allowed}", operation.spec.device),
            );
        }
    }

    /// An operation's outcome was stored.
    pub(super) fn ended(&mut self, machines: &BTreeMap<String, Machine>, operation: &Operation, now: i64) {
        let outcome = operation.status.outcome;
        let spec = &operation.spec;
        self.held += u64::from(outcome == Outcome::Held);
        if let Some(Some(before)) = self.begun.insert(spec.id.clone(), Some(outcome)) {
            self.fail(
                "TwoOutcomes",
                format!("{}: {before:?}, then {outcome:?}", spec.id),
            );
        }
        if machines
            .get(&spec.device)
            .is_some_and(|machine| machine.is_down(now))
        {
            self.ours.insert(spec.device.clone());
        }
    }

    /// The ledger took records in.
    pub(super) fn pushed(&mut self, ledger: &mut Vec<(String, Outcome)>, records: Vec<(String, Outcome)>) {
        for (id, outcome) in records {
            match ledger.iter().find(|(there, _)| *there == id) {
                Some((_, there)) if *there == outcome => {}
                Some((_, there)) => {
                    self.fail("LedgerRewritten", format!("{id}: {there:?}, then {outcome:?}"));
                }
                None => ledger.push((id, outcome)),
            }
        }
    }

    /// An operation left the API server.
    pub(super) fn removed(&mut self, ledger: &[(String, Outcome)], operation: &Operation) {
        let id = &operation.spec.id;
        if operation.has_begun() && !ledger.iter().any(|(there, _)| there == id) {
            self.fail("HistoryLost", id.clone());
        }
    }

    /// Every operation that was begun is told once.
    pub(super) fn history(&mut self, ledger: &[(String, Outcome)]) {
        let told: BTreeMap<&str, Outcome> = ledger
            .iter()
            .map(|(id, outcome)| (id.as_str(), *outcome))
            .collect();
        let untold = self
            .begun
            .iter()
            .find(|(id, outcome)| told.get(id.as_str()).copied() != **outcome);
        if let Some((id, outcome)) = untold {
            let what = format!(
                "{id}: ended {outcome:?}, the ledger says {:?}",
                told.get(id.as_str())
            );
            self.fail("LedgerIncomplete", what);
        }
    }

    /// A device's stored status changed.
    pub(super) fn device(&mut self, name: &str, facts: &kiban_core::facts::DeviceFacts, now: i64) {
        let unavailable = facts.hold.is_some()
            || facts.health == Health::Critical
            || facts.reach != Reach::Reachable
            || !facts.fresh
            || facts.firmware.is_none();
        if unavailable {
            self.unavailable.entry(name.to_owned()).or_insert(now);
        } else {
            self.unavailable.remove(name);
        }
    }
}

fn domain(kind: FailureDomain, room: &str, rack: &str) -> String {
    match kind {
        FailureDomain::Rack => format!("{room}/{rack}"),
        FailureDomain::Room => room.to_owned(),
        FailureDomain::Site | FailureDomain::Power => String::new(),
    }
}
