//! How many devices of each room and site answer: kept as facts come in, so that a plan need not count.

use super::{
    device::DeviceRow,
    place::{DomainId, Places},
};
use crate::facts::{DarkFacts, FailureDomain, Reach};

/// The domains that may be dark. A rack that loses its power is no reason to stop a fleet.
const KINDS: [FailureDomain; 2] = [FailureDomain::Room, FailureDomain::Site];

/// Per room and site, by number of the domain.
#[derive(Debug, Default)]
pub(super) struct Reached {
    counts: Vec<Count>,
}

/// Devices of one domain.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Were ever read.
    read: u32,
    /// Of them, do not answer now.
    silent: u32,
}

impl Reached {
    pub(super) fn add(&mut self, places: &Places, row: &DeviceRow) {
        self.change(places, row, |count| count.saturating_add(1));
    }

    pub(super) fn remove(&mut self, places: &Places, row: &DeviceRow) {
        self.change(places, row, |count| count.saturating_sub(1));
    }

    fn change(&mut self, places: &Places, row: &DeviceRow, change: impl Fn(u32) -> u32) {
        // What was never read may have been dark for ever: it says nothing of now.
        if row.reach == Reach::NeverRead {
            return;
        }
        for domain in KINDS.iter().flat_map(|&kind| places.domains_of(row.place, kind)) {
            if self.counts.len() <= domain.index() {
                self.counts.resize(domain.index() + 1, Count::default());
            }
            if let Some(count) = self.counts.get_mut(domain.index()) {
                count.read = change(count.read);
                if row.reach == Reach::Unreachable {
                    count.silent = change(count.silent);
                }
            }
        }
    }

    /// The domains that are dark. Devices without a room are in no room together, since their site is looked at, too;
    /// those without a site are taken to be in one.
    pub(super) fn dark(&self, places: &Places, limit: DarkFacts) -> Vec<DomainId> {
        let over = |count: &Count| {
            let share = u64::from(count.read) * u64::from(limit.percent);
            count.silent >= limit.devices.max(1) && u64::from(count.silent) * 100 > share
        };
        let domains = (0..).map(DomainId).zip(&self.counts);
        domains
            .filter(|(domain, count)| over(count) && !places.is_no_room(*domain))
            .map(|(domain, _)| domain)
            .collect()
    }
}
