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

    /// What keeps one more device of the pool from becoming unavailable.
    pub(crate) fn refusal(&self, domain: DomainId, fleet: Option<Budget>) -> Option<WaitingOn> {
        if !self.total.has_room() {
            return Some(WaitingOn::Budget {
                pool: self.pool,
                unavailable: self.total.used,
                allowed: self.total.allowed,
            });
        }
        let here = self.domain(domain);
        if !here.has_room() {
            return Some(WaitingOn::Domain {
                domain,
                unavailable: here.used,
                allowed: here.allowed,
            });
        }
        let fleet = fleet.filter(|fleet| !fleet.has_room())?;
        Some(WaitingOn::FleetBudget {
            unavailable: fleet.used,
            allowed: fleet.allowed,
        })
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
        let fleet = Some(Budget { used: 5, allowed: 5 });
        let [here, there] = [DomainId(1), DomainId(2)];
        assert_eq!(pool.refusal(here, None), None);
        assert_eq!(
            pool.refusal(here, fleet).map(WaitingOn::reason),
            Some("FleetBudget")
        );
        pool.count(Some(here));
        assert_eq!(pool.refusal(here, None).map(WaitingOn::reason), Some("Domain"));
        assert_eq!(pool.refusal(there, None), None);
        pool.count(None);
        assert_eq!(pool.refusal(there, None).map(WaitingOn::reason), Some("Budget"));
        pool.count(Some(there));
        assert_eq!(
            pool.total.room(),
            0,
            "more than allowed leaves no room, and does not wrap"
        );
    }
}
