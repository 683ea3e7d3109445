//! Shards: which devices this replica works on.
//!
//! A device belongs to the shard that its name hashes to; a shard belongs to the holder of its Lease. What runs for a
//! shard is tracked with it, so that the Lease is given back only after the last of it has ended.

use crate::{
    context::Context,
    lease::{self, Tenure},
    metrics::Metrics,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

/// The shards that this replica holds. Cheap to clone.
#[derive(Clone)]
pub struct Shards {
    count: u32,
    held: Arc<Mutex<BTreeMap<u32, Holding>>>,
    changed: Arc<Notify>,
    metrics: Metrics,
}

/// A shard that is held.
#[derive(Clone)]
pub struct Holding {
    /// The tenure under which it is.
    pub tenure: Tenure,
    /// What runs for it.
    pub tasks: TaskTracker,
}

impl Shards {
    /// `count` shards, none of them held yet.
    #[must_use]
    pub fn new(count: u32, changed: Arc<Notify>, metrics: Metrics) -> Self {
        Self {
            count: count.max(1),
            held: Arc::default(),
            changed,
            metrics,
        }
    }

    /// The shard of a device.
    #[must_use]
    pub fn of(&self, device: &str) -> u32 {
        kiban_core::shard::of(device, self.count)
    }

    /// The shard of a device, if this replica holds it.
    #[must_use]
    pub fn holding(&self, device: &str) -> Option<Holding> {
        let held = self.lock();
        held.get(&self.of(device))
            .filter(|holding| !holding.tenure.is_over())
            .cloned()
    }

    /// Seeks and keeps the Leases of all shards until the context ends.
    pub async fn keep(&self, context: &Context) {
        let mut keepers = tokio::task::JoinSet::new();
        for shard in 0..self.count {
            let (shards, context) = (self.clone(), context.clone());
            keepers.spawn(async move {
                let stale = context.clone();
                let wanted =
                    Arc::new(move || stale.stores.failing_for(&stale.clock) < stale.config.watch_stale);
                let work = move |tenure| shards.clone().hold(shard, tenure);
                lease::lead(&context, &lease::shard_lease(shard), wanted, work).await;
            });
        }
        while keepers.join_next().await.is_some() {}
    }

    async fn hold(self, shard: u32, tenure: Tenure) {
        let tasks = TaskTracker::new();
        self.lock().insert(
            shard,
            Holding {
                tenure: tenure.clone(),
                tasks: tasks.clone(),
            },
        );
        self.tell();
        tenure.ends.cancelled().await;
        self.lock().remove(&shard);
        self.tell();
        tasks.close();
        tasks.wait().await;
    }

    fn tell(&self) {
        self.metrics
            .shards_held
            .set(i64::try_from(self.lock().len()).unwrap_or(i64::MAX));
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Holding>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
