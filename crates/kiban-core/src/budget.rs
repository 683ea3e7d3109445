//! Budgets: how much may be unavailable at once, in a pool, a service, a failure domain and the fleet.
//!
//! Unavailable is whatever is not known to serve (held, critical, unreachable, never read, not fresh) and whatever has
//! an operation that has not ended. A device that is both counts once; one on two power feeds counts on each.
//!
//! ```text
//!   device ──▶ its pool ─▶ its pool's domains ─▶ its service ─▶ the fleet's domains ─▶ its redundancy group ─▶ the fleet
//! ```

use crate::{
    amount::Amount,
    facts::{DomainLimit, FailureDomain},
    waiting::WaitingOn,
    world::{DeviceId, DeviceRow, DomainId, PlaceId, Places, PoolRow, Sym, World},
};
use hashbrown::HashMap;

/// One limit and what is used of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Unavailable now, granted operations included.
    pub used: u32,
    /// Allowed.
    pub allowed: u32,
}

impl Budget {
    /// Whether one more may become unavailable.
    #[must_use]
    pub fn has_room(self) -> bool {
        self.used < self.allowed
    }

    /// How many more may become unavailable.
    #[must_use]
    pub fn room(self) -> u32 {
        self.allowed.saturating_sub(self.used)
    }

    fn take(&mut self) {
        self.used = self.used.saturating_add(1);
    }

    fn refuses(self, ask: Ask) -> bool {
        match ask {
            Ask::OneMore => !self.has_room(),
            Ask::AsItIs => self.used > self.allowed,
        }
    }
}

/// What a budget is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Whether one more may become unavailable.
    OneMore,
    /// Whether what is counted already may stay.
    AsItIs,
}

/// How many of a whole may be unavailable: ceil(share × whole), or the count, and never more than the bound.
#[must_use]
pub fn allowed(amount: Amount, at_most: Option<u32>, whole: u32) -> u32 {
    amount.of(whole).min(at_most.unwrap_or(u32::MAX))
}

/// Limits per failure domain, and what is used in each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DomainBudgets {
    limits: Vec<DomainLimit>,
    used: HashMap<DomainId, u32>,
}

impl DomainBudgets {
    /// Of several limits on one kind the lowest holds.
    pub(crate) fn new(limits: impl IntoIterator<Item = DomainLimit>) -> Self {
        let mut lowest: Vec<DomainLimit> = Vec::new();
        for limit in limits {
            match lowest.iter_mut().find(|known| known.over == limit.over) {
                Some(known) => known.max = known.max.min(limit.max),
                None => lowest.push(limit),
            }
        }
        Self {
            limits: lowest,
            used: HashMap::new(),
        }
    }

    /// The kinds of domains that are limited.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = FailureDomain> {
        self.limits.iter().map(|limit| limit.over)
    }

    fn change(&mut self, places: &Places, place: PlaceId, change: impl Fn(u32) -> u32) {
        for limit in &self.limits {
            for &domain in places.domains_of(place, limit.over) {
                let used = self.used.entry(domain).or_default();
                *used = change(*used);
            }
        }
    }

    fn refusals<'a>(
        &'a self,
        places: &'a Places,
        place: PlaceId,
        ask: Ask,
    ) -> impl Iterator<Item = (DomainId, Budget)> + 'a {
        self.limits.iter().flat_map(move |limit| {
            let domains = places.domains_of(place, limit.over).iter();
            domains.filter_map(move |domain| {
                let budget = Budget {
                    used: self.used.get(domain).copied().unwrap_or(0),
                    allowed: limit.max,
                };
                budget.refuses(ask).then_some((*domain, budget))
            })
        })
    }
}

/// The budgets of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolBudget {
    pub(crate) pool: Sym,
    pub(crate) total: Budget,
    /// Devices bound.
    pub(crate) bound: u32,
    /// Index of its service's budget, where the service has one.
    service: Option<usize>,
    pub(crate) domains: DomainBudgets,
}

/// The budget of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ServiceBudget {
    service: Sym,
    total: Budget,
}

/// Every budget of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Budgets {
    pub(crate) pools: Vec<PoolBudget>,
    services: Vec<ServiceBudget>,
    fleet: Budget,
    /// Whether the policy limits the fleet as a whole.
    fleet_limited: bool,
    domains: DomainBudgets,
    /// Devices that are down, by redundancy group.
    groups: HashMap<Sym, Vec<DeviceId>>,
}

impl Budgets {
    /// Nothing is used, and what is allowed is not known before the devices are counted.
    pub(crate) fn new(world: &World, pools: &[&PoolRow]) -> Self {
        let policy = world.policy();
        let services: Vec<ServiceBudget> = policy
            .services
            .iter()
            .map(|service| ServiceBudget {
                // A service that no pool names has no number, and limits nobody.
                service: world.sym(&service.name).unwrap_or_default(),
                total: Budget::default(),
            })
            .collect();
        let pools = pools.iter().map(|pool| {
            let own = DomainLimit {
                over: pool.facts.domain,
                max: pool.facts.max_per_domain,
            };
            let named = |it: &ServiceBudget| !it.service.is_empty() && it.service == pool.service;
            PoolBudget {
                pool: pool.name,
                service: services.iter().position(named),
                domains: DomainBudgets::new([own].into_iter().chain(pool.facts.domains.iter().copied())),
                ..PoolBudget::default()
            }
        });
        Self {
            pools: pools.collect(),
            services,
            fleet: Budget::default(),
            fleet_limited: policy.max_unavailable.is_some() || policy.at_most.is_some(),
            domains: DomainBudgets::new(policy.domains.iter().copied()),
            groups: HashMap::new(),
        }
    }

    /// Sets what is allowed, once it is known how many devices there are.
    pub(crate) fn set_allowed(&mut self, world: &World, pools: &[&PoolRow], fleet_size: u32) {
        let policy = world.policy();
        let mut of_service = vec![0_u32; self.services.len()];
        for (budget, row) in self.pools.iter_mut().zip(pools) {
            let facts = &row.facts;
            budget.total.allowed = allowed(facts.max_unavailable, facts.at_most, budget.bound);
            if let Some(bound) = budget.service.and_then(|at| of_service.get_mut(at)) {
                *bound = bound.saturating_add(budget.bound);
            }
        }
        for ((budget, facts), bound) in self.services.iter_mut().zip(&policy.services).zip(of_service) {
            budget.total.allowed = allowed(facts.max_unavailable, facts.at_most, bound);
        }
        let amount = policy.max_unavailable.unwrap_or(Amount::Percent(100));
        self.fleet.allowed = allowed(amount, policy.at_most, fleet_size);
    }

    /// Counts a device of a pool as unavailable, whether or not there is room: that is how things are.
    pub(crate) fn count(&mut self, places: &Places, pool: usize, device: DeviceId, row: &DeviceRow) {
        self.count_in_fleet(places, Some(row.place));
        self.count_in_pool(places, pool, Some(row.place), None);
        self.count_in_group(device, row);
    }

    /// Counts a device on its redundancy group alone, whether or not it serves a pool.
    pub(crate) fn count_in_group(&mut self, device: DeviceId, row: &DeviceRow) {
        if !row.group.is_empty() {
            self.groups.entry(row.group).or_default().push(device);
        }
    }

    /// Counts a device that serves no pool known, or an operation whose device is gone.
    pub(crate) fn count_in_fleet(&mut self, places: &Places, place: Option<PlaceId>) {
        self.fleet.take();
        if let Some(place) = place {
            self.domains.change(places, place, |used| used.saturating_add(1));
        }
    }

    /// Counts a device on a pool and its service alone: its operation was granted by a pool that it no longer serves.
    /// `counted`: the pool on which it counts already; a service is not charged twice for one device.
    pub(crate) fn count_in_pool(
        &mut self,
        places: &Places,
        pool: usize,
        place: Option<PlaceId>,
        counted: Option<usize>,
    ) {
        let known = counted
            .and_then(|at| self.pools.get(at))
            .and_then(|it| it.service);
        let Some(budget) = self.pools.get_mut(pool) else {
            return;
        };
        budget.total.take();
        if let Some(place) = place {
            budget
                .domains
                .change(places, place, |used| used.saturating_add(1));
        }
        if let Some(service) = budget.service.filter(|at| Some(*at) != known)
            && let Some(service) = self.services.get_mut(service)
        {
            service.total.take();
        }
    }

    /// Takes a device out of the count: its operation is taken back.
    pub(crate) fn give_back(&mut self, places: &Places, pool: usize, device: DeviceId, row: &DeviceRow) {
        let place = row.place;
        if let Some(group) = self.groups.get_mut(&row.group) {
            group.retain(|other| *other != device);
        }
        let less = |used: u32| used.saturating_sub(1);
        self.fleet.used = less(self.fleet.used);
        self.domains.change(places, place, less);
        if let Some(budget) = self.pools.get_mut(pool) {
            budget.total.used = less(budget.total.used);
            budget.domains.change(places, place, less);
            if let Some(service) = budget.service.and_then(|at| self.services.get_mut(at)) {
                service.total.used = less(service.total.used);
            }
        }
    }

    /// Every budget that refuses a device of a pool, the pool's own first.
    pub(crate) fn refusals<'a>(
        &'a self,
        places: &'a Places,
        pool: usize,
        device: DeviceId,
        row: &DeviceRow,
        ask: Ask,
    ) -> impl Iterator<Item = WaitingOn> + 'a {
        let (place, group) = (row.place, row.group);
        let other = self.groups.get(&group).into_iter().flatten();
        let of_group = other
            .filter(move |other| **other != device)
            .map(move |&other| WaitingOn::RedundancyGroup { group, other })
            .take(1);
        let fleet = (self.fleet_limited && self.fleet.refuses(ask)).then_some(WaitingOn::FleetBudget {
            unavailable: self.fleet.used,
            allowed: self.fleet.allowed,
        });
        let of_fleet =
            self.domains
                .refusals(places, place, ask)
                .map(|(domain, budget)| WaitingOn::FleetDomain {
                    domain,
                    unavailable: budget.used,
                    allowed: budget.allowed,
                });
        let of_pool = self
            .pools
            .get(pool)
            .into_iter()
            .flat_map(move |budget| self.of_pool(budget, places, place, ask));
        of_pool.chain(of_fleet).chain(of_group).chain(fleet)
    }

    fn of_pool<'a>(
        &'a self,
        pool: &'a PoolBudget,
        places: &'a Places,
        place: PlaceId,
        ask: Ask,
    ) -> impl Iterator<Item = WaitingOn> + 'a {
        let total = pool.total.refuses(ask).then_some(WaitingOn::Budget {
            pool: pool.pool,
            unavailable: pool.total.used,
            allowed: pool.total.allowed,
        });
        let domains = pool
            .domains
            .refusals(places, place, ask)
            .map(|(domain, budget)| WaitingOn::Domain {
                domain,
                unavailable: budget.used,
                allowed: budget.allowed,
            });
        let service = pool
            .service
            .and_then(|at| self.services.get(at))
            .filter(|service| service.total.refuses(ask))
            .map(|service| WaitingOn::ServiceBudget {
                service: service.service,
                unavailable: service.total.used,
                allowed: service.total.allowed,
            });
        total.into_iter().chain(domains).chain(service)
    }

    /// How much of its devices a pool has unavailable, in millionths: who has least is served first.
    pub(crate) fn share_used(&self, pool: usize) -> u64 {
        self.pools.get(pool).map_or(0, |budget| {
            u64::from(budget.total.used) * 1_000_000 / u64::from(budget.bound.max(1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{DeviceFacts, PolicyFacts, PoolFacts, ServiceFacts};

    fn limit(over: FailureDomain, max: u32) -> DomainLimit {
        DomainLimit { over, max }
    }

    /// Two pools of one service, and devices: name, rack, feeds.
    fn world(policy: PolicyFacts, devices: &[(&str, &str, &[&str])]) -> World {
        let mut world = World::new();
        for name in ["web", "batch"] {
            world.upsert_pool(PoolFacts {
                service: "hosting".into(),
                max_unavailable: Amount::Count(2),
                ..PoolFacts::new(name)
            });
        }
        world.upsert_policy(policy);
        for (name, rack, power) in devices {
            world.upsert_device(&DeviceFacts {
                name: (*name).into(),
                site: "tokyo-1".into(),
                rack: (*rack).into(),
                power: power.iter().map(|&feed| feed.to_owned()).collect(),
                ..DeviceFacts::default()
            });
        }
        world
    }

    fn budgets(world: &World) -> Budgets {
        let pools: Vec<&PoolRow> = world.pool_rows().collect();
        let mut budgets = Budgets::new(world, &pools);
        for pool in &mut budgets.pools {
            pool.bound = 10;
        }
        budgets.set_allowed(world, &pools, 20);
        budgets
    }

    fn row<'a>(world: &'a World, name: &str) -> (DeviceId, &'a DeviceRow) {
        let id = world.id(name).unwrap();
        (id, world.device_row(id).unwrap())
    }

    fn count(budgets: &mut Budgets, world: &World, pool: usize, name: &str) {
        let (id, row) = row(world, name);
        budgets.count(world.places(), pool, id, row);
    }

    fn reasons(budgets: &Budgets, world: &World, pool: usize, device: &str) -> Vec<&'static str> {
        let (id, row) = row(world, device);
        budgets
            .refusals(world.places(), pool, id, row, Ask::OneMore)
            .map(WaitingOn::reason)
            .collect()
    }

    #[test]
    fn a_share_is_rounded_up_and_bounded() {
        assert_eq!(allowed(Amount::Percent(5), None, 21), 2);
        assert_eq!(allowed(Amount::Percent(5), Some(40), 10_000), 40);
        assert_eq!(allowed(Amount::Percent(0), Some(40), 10_000), 0);
        assert_eq!(allowed(Amount::Count(7), Some(3), 1), 3);
    }

    #[test]
    fn the_pool_refuses_first_then_the_service_then_the_fleet() {
        let world = world(
            PolicyFacts {
                at_most: Some(3),
                services: vec![ServiceFacts {
                    name: "hosting".into(),
                    max_unavailable: Amount::Percent(10),
                    at_most: None,
                }],
                ..PolicyFacts::default()
            },
            &[("a", "r1", &[]), ("b", "r2", &[])],
        );
        let mut budgets = budgets(&world);
        assert!(reasons(&budgets, &world, 0, "a").is_empty());
        count(&mut budgets, &world, 0, "a");
        assert_eq!(reasons(&budgets, &world, 0, "a"), ["Domain"]);
        assert!(
            reasons(&budgets, &world, 1, "a").is_empty(),
            "a pool's domains are its own"
        );
        count(&mut budgets, &world, 1, "b");
        assert_eq!(reasons(&budgets, &world, 0, "a"), ["Domain", "ServiceBudget"]);
        count(&mut budgets, &world, 1, "a");
        assert_eq!(
            reasons(&budgets, &world, 1, "a"),
            ["Budget", "Domain", "ServiceBudget", "FleetBudget"]
        );
        let (id, found) = row(&world, "a");
        budgets.give_back(world.places(), 1, id, found);
        assert_eq!(reasons(&budgets, &world, 1, "a"), ["ServiceBudget"]);
    }

    #[test]
    fn a_device_on_two_feeds_counts_on_both_and_over_all_pools() {
        let world = world(
            PolicyFacts {
                domains: vec![limit(FailureDomain::Power, 1)],
                ..PolicyFacts::default()
            },
            &[
                ("two", "r1", &["pdu-a", "pdu-b"]),
                ("a", "r2", &["pdu-a"]),
                ("b", "r3", &["pdu-b"]),
                ("c", "r4", &["pdu-c"]),
            ],
        );
        let mut budgets = budgets(&world);
        count(&mut budgets, &world, 0, "two");
        assert_eq!(reasons(&budgets, &world, 1, "a"), ["FleetDomain"]);
        assert_eq!(reasons(&budgets, &world, 1, "b"), ["FleetDomain"]);
        assert!(reasons(&budgets, &world, 1, "c").is_empty());
    }

    #[test]
    fn of_two_limits_on_one_kind_the_lower_holds() {
        let both = [limit(FailureDomain::Rack, 3), limit(FailureDomain::Rack, 2)];
        assert_eq!(DomainBudgets::new(both).limits, [limit(FailureDomain::Rack, 2)]);
    }

    #[test]
    fn a_device_that_moved_within_a_service_is_charged_to_it_once() {
        let world = world(
            PolicyFacts {
                services: vec![ServiceFacts {
                    name: "hosting".into(),
                    max_unavailable: Amount::Count(2),
                    at_most: None,
                }],
                ..PolicyFacts::default()
            },
            &[("a", "r1", &[])],
        );
        let mut budgets = budgets(&world);
        let here = row(&world, "a").1.place;
        count(&mut budgets, &world, 0, "a");
        budgets.count_in_pool(world.places(), 1, Some(here), Some(0));
        assert_eq!(
            (budgets.services[0].total.used, budgets.pools[1].total.used),
            (1, 1)
        );
    }
}
