//! Desired state from Git to the API server: all of a commit, or none of it.
//!
//! ```text
//!   look (interval, webhook, annotation) ──▶ fetch ──▶ verify ──▶ read ──▶ validate ──▶ compare ──▶ apply, prune
//!                                              └────────┴─────────┴──────────┴── refuse: the last good commit stays
//! ```
//!
//! Only what differs is written: an object whose spec is as the commit says is left alone, so at rest nothing is written,
//! and a commit that changes one baseline is one write. What a person changed with kubectl in a field that Git has is
//! taken back, with an event that names them.

pub mod apply;
pub mod changes;
pub mod desired;
pub mod kinds;
pub mod look;
pub mod webhook;

use crate::{
    context::Context,
    lease::Tenure,
    metrics::Activity,
    repository::{self, annotation},
};
use kiban_api::{FleetRepository, labels};
use kube::ResourceExt;
use look::{Looked, Memory};
use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// The longest wait between two looks that fail.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// A repository that panics this often in a row is left alone until its spec changes.
const MAX_PANICS: u32 = 3;
/// Looks are at least this far apart, so that a storm of webhooks is one look.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// When each repository was last looked at with success, on the monotonic clock.
type Ages = Arc<Mutex<BTreeMap<String, Duration>>>;

struct Follower {
    wake: Wake,
    ends: CancellationToken,
    task: JoinHandle<()>,
}

/// Why a follower is woken.
#[derive(Clone, Default)]
struct Wake {
    /// Someone pushed: look.
    pushed: Arc<Notify>,
    /// The object changed, which our own status writes do too: look if a person asks for something.
    changed: Arc<Notify>,
}

/// Follows every `FleetRepository` until the tenure ends. Each has a task of its own: a remote that hangs delays nobody.
pub async fn run(context: Context, tenure: Tenure) {
    let changed = context.stores.repositories.subscribe();
    let mut followers: BTreeMap<String, Follower> = BTreeMap::new();
    let ages = Ages::default();
    loop {
        let present: BTreeSet<String> = context
            .stores
            .repositories
            .all()
            .iter()
            .map(|r| r.name_any())
            .collect();
        for name in &present {
            followers
                .entry(name.clone())
                .or_insert_with(|| follow(&context, &tenure, name, &ages));
        }
        for (name, gone) in followers.extract_if(.., |name, _| !present.contains(name)) {
            gone.ends.cancel();
            ages.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        }
        tokio::select! {
            () = tenure.ends.cancelled() => break,
            names = changed.changed() => {
                names.iter().filter_map(|name| followers.get(name)).for_each(|f| f.wake.changed.notify_one());
            }
            () = context.look_at_git.notified() => followers.values().for_each(|f| f.wake.pushed.notify_one()),
            () = tokio::time::sleep(context.config.lease_renew) => show_age(&context, &ages),
        }
    }
    for (_, follower) in followers {
        // A Git call in a blocking thread cannot be stopped; it writes to the cache alone.
        let _ = tokio::time::timeout(context.config.api_deadline, follower.task).await;
    }
}

fn show_age(context: &Context, ages: &Ages) {
    let ages = ages.lock().unwrap_or_else(PoisonError::into_inner);
    let oldest = ages
        .values()
        .min()
        .map(|at| context.clock.elapsed().saturating_sub(*at));
    context
        .metrics
        .sync_age
        .set(oldest.unwrap_or_default().as_secs_f64());
}

fn follow(context: &Context, tenure: &Tenure, name: &str, ages: &Ages) -> Follower {
    let (wake, ends) = (Wake::default(), tenure.ends.child_token());
    let (context, name, ages) = (context.clone(), name.to_owned(), ages.clone());
    let (woken, end) = (wake.clone(), ends.clone());
    let task = tokio::spawn(async move {
        tokio::select! {
            () = end.cancelled() => {}
            () = keep_looking(context, name, woken, ages) => {}
        }
    });
    Follower { wake, ends, task }
}

/// What decides whether a repository is looked at again before its interval is over.
#[derive(PartialEq, Eq, Clone, Default)]
struct Asked {
    generation: i64,
    annotations: Vec<Option<String>>,
}

fn asked(object: &FleetRepository) -> Asked {
    let keys = [
        labels::RECONCILE_ANNOTATION,
        labels::CONFIRM_PRUNE_ANNOTATION,
        labels::ACCEPT_REWRITE_ANNOTATION,
    ];
    Asked {
        generation: object.metadata.generation.unwrap_or_default(),
        annotations: keys
            .iter()
            .map(|key| annotation(object, key).map(str::to_owned))
            .collect(),
    }
}

async fn keep_looking(context: Context, name: String, wake: Wake, ages: Ages) {
    let drift = kinds::Drift::subscribe(&context.stores);
    let mut memory = Memory::default();
    let (mut failures, mut panics) = (0_u32, 0_u32);
    loop {
        let Some(object) = context.stores.repositories.get(&name) else {
            wake.changed.notified().await;
            continue;
        };
        let before = asked(&object);
        let started = context.clock.elapsed();
        let looking = AssertUnwindSafe(look::look(&context, &object, &mut memory));
        let result = futures::FutureExt::catch_unwind(looking).await;
        let failure = match result {
            Ok(Looked::Good) => {
                (failures, panics) = (0, 0);
                ages.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(name.clone(), context.clock.elapsed());
                None
            }
            Ok(Looked::Failed(reason)) => {
                failures = failures.saturating_add(1);
                Some(reason)
            }
            Err(_) => {
                context.metrics.panics.inc();
                (failures, panics) = (failures.saturating_add(1), panics.saturating_add(1));
                memory = Memory::default();
                tracing::error!(repository = name, panics, "looking at a repository panicked");
                Some("Panicked")
            }
        };
        context
            .metrics
            .round(Activity::Sync, context.clock.elapsed() - started, failure);
        let pause = pause(&context, &object, failures);
        let until = tokio::time::sleep(if panics >= MAX_PANICS {
            Duration::MAX / 4
        } else {
            pause
        });
        tokio::pin!(until);
        tokio::time::sleep(MIN_PAUSE).await;
        loop {
            tokio::select! {
                () = &mut until => break,
                names = drift.changed(), if memory.is_applied() => {
                    if memory.has_drifted(&context.stores, names) {
                        break;
                    }
                }
                () = wake.pushed.notified() => break,
                () = wake.changed.notified() => {
                    if context.stores.repositories.get(&name).is_none_or(|object| asked(&object) != before) {
                        (failures, panics) = (0, 0);
                        break;
                    }
                }
            }
        }
    }
}

fn pause(context: &Context, object: &FleetRepository, failures: u32) -> Duration {
    let spec = &object.spec;
    let interval = if spec.url.starts_with("file:") {
        context.config.file_poll
    } else {
        let parsed = kiban_core::duration::parse(&spec.interval)
            .ok()
            .and_then(|d| Duration::try_from(d).ok());
        parsed.unwrap_or(Duration::from_secs(60))
    };
    if failures == 0 || spec.url.starts_with("file:") {
        return interval.mul_f64(rand::random_range(0.9..1.1));
    }
    let backoff = Duration::from_secs(1)
        .saturating_mul(1 << failures.min(6))
        .min(MAX_BACKOFF)
        .min(interval);
    backoff.mul_f64(rand::random_range(0.5..1.0))
}

/// Writes a status of sync's.
async fn write_status(
    context: &Context,
    name: &str,
    change: impl FnMut(&FleetRepository, &mut kiban_api::FleetRepositoryStatus),
) {
    if let Err(error) = repository::update_status(context, labels::SYNC_MANAGER, name, change).await {
        tracing::warn!(repository = name, %error, "could not write a repository's status");
    }
}
