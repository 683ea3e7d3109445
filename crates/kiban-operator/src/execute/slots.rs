//! Slots: how many BMCs are spoken to at once, in all and per site. BMCs that do not answer have slots of their own, so that
//! waiting for them keeps nobody else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Most slots at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub total: usize,
    /// Per site.
    pub per_site: usize,
}

impl Limits {
    /// How many of them, beside them, are for BMCs that do not answer: a quarter.
    fn slow(self) -> usize {
        (self.total / 4).max(1)
    }
}

#[derive(Default)]
struct Taken {
    sound: usize,
    slow: usize,
    sites: HashMap<String, usize>,
}

/// The slots of one replica. Cheap to clone.
#[derive(Clone, Default)]
pub struct Slots {
    taken: Arc<Mutex<Taken>>,
    freed: Arc<Notify>,
}

/// A slot; given back when dropped.
pub struct Slot {
    slots: Slots,
    site: String,
    slow: bool,
}

impl Slots {
    /// A slot, if one is free. `slow`: the BMC did not answer lately.
    #[must_use]
    pub fn try_take(&self, site: &str, slow: bool, limits: Limits) -> Option<Slot> {
        let mut taken = self.lock();
        if slow {
            if taken.slow >= limits.slow() {
                return None;
            }
            taken.slow += 1;
        } else {
            let here = taken.sites.get(site).copied().unwrap_or(0);
            if taken.sound >= limits.total || here >= limits.per_site {
                return None;
            }
            taken.sound += 1;
            *taken.sites.entry(site.to_owned()).or_default() += 1;
        }
        drop(taken);
        Some(Slot {
            slots: self.clone(),
            site: site.to_owned(),
            slow,
        })
    }

    /// A slot, as soon as one is free.
    pub async fn take(&self, site: &str, slow: bool, limits: impl Fn() -> Limits) -> Slot {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(slot) = self.try_take(site, slow, limits()) {
                return slot;
            }
            freed.await;
        }
    }

    /// Returns when a slot was given back.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        if self.slow {
            taken.slow = taken.slow.saturating_sub(1);
        } else {
            taken.sound = taken.sound.saturating_sub(1);
            if let Some(here) = taken.sites.get_mut(&self.site) {
                *here = here.saturating_sub(1);
                if *here == 0 {
                    taken.sites.remove(&self.site);
                }
            }
        }
        drop(taken);
        self.slots.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        total: 4,
        per_site: 3,
    };

    #[test]
    fn a_site_cannot_take_all_and_the_slow_take_none_of_the_sound() {
        let slots = Slots::default();
        let here: Vec<_> = std::iter::from_fn(|| slots.try_take("a", false, LIMITS)).collect();
        assert_eq!(here.len(), 3);
        let there: Vec<_> = std::iter::from_fn(|| slots.try_take("b", false, LIMITS)).collect();
        assert_eq!(there.len(), 1);
        let slow: Vec<_> = std::iter::from_fn(|| slots.try_take("a", true, LIMITS)).collect();
        assert_eq!(slow.len(), 1);
        drop(here);
        assert!(
            slots.try_take("a", true, LIMITS).is_none(),
            "a sound slot is no slow one"
        );
        assert!(slots.try_take("a", false, LIMITS).is_some());
    }

    #[tokio::test]
    async fn who_waits_gets_the_slot_that_is_freed() {
        let slots = Slots::default();
        let limits = Limits {
            total: 1,
            per_site: 1,
        };
        let first = slots.try_take("a", false, limits).unwrap();
        let waiter = tokio::spawn({
            let slots = slots.clone();
            async move { slots.take("a", false, move || limits).await }
        });
        tokio::task::yield_now().await;
        drop(first);
        let second = waiter.await.unwrap();
        assert!(slots.try_take("a", false, limits).is_none());
        drop(second);
    }
}
