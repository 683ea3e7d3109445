//! Budgets: how much may be unavailable at once, in a pool, in a failure domain and in the fleet.
//!
//! Unavailable is whatever is not known to serve (held, critical, unreachable, never read, not fresh) and whatever has
//! an operation that has not ended. A device that is both counts once.

use crate::{
    waiting::WaitingOn,
    world::{DomainId, Sym},
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
}

/// The budgets of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolBudget {
    pub(crate) pool: Sym,
    pub(crate) total: Budget,
    pub(crate) per_domain: u32,
    pub(crate) domains: HashMap<DomainId, u32>,
}

impl PoolBudget {
    /// Counts a device as unavailable, whether or not there is room: that is how things are.
    pub(crate) fn count(&mut self, domain: Option<DomainId>) {
        self.total.take();
        if let Some(domain) = domain {
            let used = self.domains.entry(domain).or_default();
            *used = used.saturating_add(1);
        }
    }

    fn domain(&self, domain: DomainId) -> Budget {
        Budget {
            used: self.domains.get(&domain).copied().unwrap_or(0),
            allowed: self.per_domain,
        }
    }

    /// What keeps one more device of the pool from becoming unavailable: every reason, the pool's first.
    pub(crate) fn refusals(
        &self,
        domain: DomainId,
        fleet: FleetBudget,
    ) -> impl Iterator<Item = WaitingOn> + use<> {
        let here = self.domain(domain);
        let pool = WaitingOn::Budget {
            pool: self.pool,
            unavailable: self.total.used,
            allowed: self.total.allowed,
        };
        let domain = WaitingOn::Domain {
            domain,
            unavailable: here.used,
            allowed: here.allowed,
        };
        let fleet = fleet
            .0
            .filter(|fleet| !fleet.has_room())
            .map(|fleet| WaitingOn::FleetBudget {
                unavailable: fleet.used,
                allowed: fleet.allowed,
            });
        let full = |budget: Budget, refusal| (!budget.has_room()).then_some(refusal);
        [full(self.total, pool), full(here, domain), fleet]
            .into_iter()
            .flatten()
    }
}

/// The fleet's budget: none when the policy sets none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FleetBudget(pub(crate) Option<Budget>);

impl FleetBudget {
    pub(crate) fn count(&mut self) {
        if let Some(budget) = &mut self.0 {
            budget.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_refuses_first_then_the_domain_then_the_fleet() {
        let mut pool = PoolBudget {
            total: Budget { used: 0, allowed: 2 },
            per_domain: 1,
            ..PoolBudget::default()
        };
        let none = FleetBudget(None);
        let fleet = FleetBudget(Some(Budget { used: 5, allowed: 5 }));
        let reasons = |pool: &PoolBudget, domain, fleet| -> Vec<&str> {
            pool.refusals(domain, fleet).map(WaitingOn::reason).collect()
        };
        let [here, there] = [DomainId(1), DomainId(2)];
        assert!(reasons(&pool, here, none).is_empty());
        assert_eq!(reasons(&pool, here, fleet), ["FleetBudget"]);
        pool.count(Some(here));
        assert_eq!(reasons(&pool, here, fleet), ["Domain", "FleetBudget"]);
        assert!(reasons(&pool, there, none).is_empty());
        pool.count(None);
        assert_eq!(reasons(&pool, there, none), ["Budget"]);
        pool.count(Some(there));
        assert_eq!(
            pool.total.room(),
            0,
            "more than allowed leaves no room, and does not wrap"
        );
    }
}
