//! The budgets once more, from the facts: who is down once the plan is carried out, and by which limit that is too many.
//!
//! Only a limit that the plan itself adds to can be broken by it: what was down before is how things are.

use super::Checker;
use crate::{
    facts::{DomainLimit, FailureDomain, PoolFacts, Reach},
    world::DomainId,
};
use std::collections::{BTreeMap, BTreeSet};

/// Who is down, or will be.
#[derive(Default)]
struct Down<'a> {
    by_pool: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// Everyone bound to a pool, and whoever has an operation.
    all: BTreeSet<&'a str>,
    by_group: BTreeMap<&'a str, BTreeSet<&'a str>>,
    bound: BTreeMap<&'a str, u32>,
    fleet_size: u32,
}

impl<'a> Checker<'a> {
    pub(super) fn budgets(&mut self) {
        if self.plan.operations.is_empty() {
            return;
        }
        let down = self.down();
        let pools: BTreeSet<&str> = self.plan.operations.iter().map(|it| it.pool.as_str()).collect();
        for name in &pools {
            if let Some(pool) = self.world.pool(name) {
                self.pool(pool, &down);
            }
        }
        self.services(&pools, &down);
        for (group, names) in &down.by_group {
            if names.len() > 1 && names.iter().any(|name| self.granted.contains(name)) {
                self.fault("RedundancyGroup", format!("{group}: {names:?}"));
            }
        }
        let policy = self.world.policy();
        self.domains("FleetDomain", "the fleet", &policy.domains, Some(&down.all));
        let share = policy.max_unavailable.map(|amount| amount.of(down.fleet_size));
        let limit = [share, policy.at_most].into_iter().flatten().min();
        if let Some(limit) = limit.filter(|limit| down.all.len() > *limit as usize) {
            self.fault("FleetBudget", format!("{} of {limit}", down.all.len()));
        }
    }

    fn down(&self) -> Down<'a> {
        let mut down = Down::default();
        for device in self.world.devices() {
            let name = device.name();
            let active = || {
                let operation = self.world.operation(name);
                operation.is_some_and(|it| !it.outcome.is_final())
            };
            if !device.redundancy_group().is_empty()
                && (device.is_unavailable() || self.granted.contains(name) || active())
            {
                let group = down.by_group.entry(device.redundancy_group()).or_default();
                group.insert(name);
            }
            if device.pool().is_empty() {
                continue;
            }
            down.fleet_size += 1;
            *down.bound.entry(device.pool()).or_default() += 1;
            if device.is_unavailable() {
                down.by_pool
                    .entry(device.pool())
                    .or_default()
                    .insert(device.name());
                down.all.insert(device.name());
            }
        }
        for operation in self.world.operations().filter(|it| !it.outcome.is_final()) {
            let name = operation.device.as_str();
            down.by_pool.entry(&operation.pool).or_default().insert(name);
            if let Some(device) = self.world.device(name) {
                down.by_pool.entry(device.pool()).or_default().insert(name);
            }
            down.all.insert(name);
        }
        for operation in &self.plan.operations {
            let name = operation.device.as_str();
            down.by_pool.entry(&operation.pool).or_default().insert(name);
            down.all.insert(name);
        }
        down
    }

    fn pool(&mut self, pool: &PoolFacts, down: &Down<'a>) {
        let here = down.by_pool.get(pool.name.as_str());
        let bound = down.bound.get(pool.name.as_str()).copied().unwrap_or(0);
        let allowed = pool
            .max_unavailable
            .of(bound)
            .min(pool.at_most.unwrap_or(u32::MAX));
        let count = here.map_or(0, BTreeSet::len);
        if count > allowed as usize {
            self.fault("PoolBudget", format!("{}: {count} of {allowed}", pool.name));
        }
        let own = DomainLimit {
            over: pool.domain,
            max: pool.max_per_domain,
        };
        self.domains("DomainBudget", &pool.name, &[own], here);
        self.domains("DomainBudget", &pool.name, &pool.domains, here);
    }

    /// Nothing is started where most devices do not answer, nor by a rollout that has devices there.
    pub(super) fn dark(&mut self) {
        if self.plan.operations.is_empty() {
            return;
        }
        let kinds = [FailureDomain::Room, FailureDomain::Site];
        let mut counts: BTreeMap<DomainId, (u32, u32)> = BTreeMap::new();
        let mut nowhere: BTreeSet<DomainId> = BTreeSet::new();
        for device in self.world.devices().filter(|it| it.reach() != Reach::NeverRead) {
            for domain in kinds.iter().flat_map(|&kind| device.domains(kind)) {
                let count = counts.entry(*domain).or_default();
                *count = (
                    count.0 + 1,
                    count.1 + u32::from(device.reach() == Reach::Unreachable),
                );
            }
            if device.room().is_empty() {
                nowhere.extend(device.domains(FailureDomain::Room));
            }
        }
        let limit = self.world.policy().dark;
        let is_dark = |(read, silent): &(u32, u32)| {
            *silent >= limit.devices.max(1) && silent * 100 > read * u32::from(limit.percent)
        };
        counts.retain(|domain, count| is_dark(count) && !nowhere.contains(domain));
        if counts.is_empty() {
            return;
        }
        for device in self.world.devices() {
            let model = self.world.model(device.model());
            if model.is_none() || !counts.keys().any(|domain| device.is_in(*domain)) {
                continue;
            }
            let granting = self.rollouts.values().find(|state| {
                let baseline = self.world.baseline(&state.baseline);
                self.speaking(device.pool(), device.model()) == 1
                    && state.pool == device.pool()
                    && baseline.is_some_and(|it| it.models.iter().any(|model| model == device.model()))
                    && self.plan.operations.iter().any(|it| it.rollout == state.name)
            });
            if let Some(state) = granting {
                let name = state.name.clone();
                self.fault("Dark", name);
            }
        }
    }

    /// How many baselines of a pool speak of a model: of two, neither moves the device.
    fn speaking(&self, pool: &str, model: &str) -> usize {
        let names: BTreeSet<&str> = self
            .world
            .pool(pool)
            .into_iter()
            .flat_map(|pool| pool.baselines.iter().map(String::as_str))
            .collect();
        let speaks = |name: &&str| {
            let baseline = self.world.baseline(name);
            baseline.is_some_and(|it| it.models.iter().any(|other| other == model))
        };
        names.into_iter().filter(speaks).count()
    }

    fn services(&mut self, granting: &BTreeSet<&str>, down: &Down<'a>) {
        let world = self.world;
        for service in &world.policy().services {
            let pools = || world.pools().filter(|pool| pool.service == service.name);
            if !pools().any(|pool| granting.contains(pool.name.as_str())) {
                continue;
            }
            let names: BTreeSet<&str> = pools()
                .filter_map(|pool| down.by_pool.get(pool.name.as_str()))
                .flatten()
                .copied()
                .collect();
            let bound = pools()
                .filter_map(|pool| down.bound.get(pool.name.as_str()))
                .sum();
            let allowed = service
                .max_unavailable
                .of(bound)
                .min(service.at_most.unwrap_or(u32::MAX));
            if names.len() > allowed as usize {
                let what = format!("{}: {} of {allowed}", service.name, names.len());
                self.fault("ServiceBudget", what);
            }
        }
    }

    fn domains(
        &mut self,
        rule: &'static str,
        whose: &str,
        limits: &[DomainLimit],
        down: Option<&BTreeSet<&'a str>>,
    ) {
        for limit in limits {
            for (domain, (count, granted)) in self.per_domain(limit.over, down) {
                if granted && count > limit.max {
                    let domain = self.world.domain(domain);
                    self.fault(rule, format!("{whose} {domain}: {count} of {}", limit.max));
                }
            }
        }
    }

    /// By number, since two domains may read alike: how many are down, and whether the plan adds to them.
    fn per_domain(
        &self,
        kind: FailureDomain,
        down: Option<&BTreeSet<&'a str>>,
    ) -> BTreeMap<DomainId, (u32, bool)> {
        let mut domains: BTreeMap<DomainId, (u32, bool)> = BTreeMap::new();
        for name in down.into_iter().flatten() {
            let Some(device) = self.world.device(name) else {
                continue;
            };
            for domain in device.domains(kind) {
                let entry = domains.entry(*domain).or_default();
                entry.0 += 1;
                entry.1 |= self.granted.contains(name);
            }
        }
        domains
    }
}
