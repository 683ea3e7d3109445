//! The budgets once more, from the facts: who is down once the plan is carried out, and by which limit that is too many.
//!
//! Only a limit that the plan itself adds to can be broken by it: what was down before is how things are.

use super::Checker;
use crate::{
    facts::{DomainLimit, FailureDomain, PoolFacts},
    world::DomainId,
};
use std::collections::{BTreeMap, BTreeSet};

/// Who is down, or will be.
#[derive(Default)]
struct Down<'a> {
    by_pool: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// Everyone bound to a pool, and whoever has an operation.
    all: BTreeSet<&'a str>,
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
