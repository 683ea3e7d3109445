//! The objects of the fleet as the watches tell them: one watch per kind, shared by all activities.
//!
//! ```text
//!   watch ──Apply/Delete/list──▶ Store ◀──absorb── answers to our own writes
//!                                  └──names that changed──▶ Subscription (a set, so it never grows beyond the objects)
//! ```
//!
//! Own code instead of kube's reflector for three reasons: answers to our own writes are taken in at once, so that what
//! was just written is read; subscribers are told names, not copies; and a full list now and then counts what the watch
//! failed to tell (it must be nothing).
//!
//! Resource versions of one kind are compared as numbers, which Kubernetes allows since 1.35 (KEP-5504) and etcd
//! always meant; one that is no number counts as newer, so that the watch wins.

use crate::{clock::Clock, context::Context, metrics::Metrics};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use kiban_api::{
    Approval, Device, FirmwareBaseline, FleetPolicy, FleetRepository, HardwareModel, HardwarePool, Operation,
    Rollout,
};
use kube::{
    Api, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak},
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// Objects per page of a list: a page is held twice while it is decoded.
const PAGE_SIZE: u32 = 250;

/// What a kind must be to be kept.
pub trait Watched:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Where objects of this kind are kept.
    fn store(stores: &Stores) -> &Store<Self>;
}

/// The stores, one per kind.
#[derive(Clone, Default)]
#[allow(missing_docs)]
pub struct Stores {
    pub policies: Store<FleetPolicy>,
    pub repositories: Store<FleetRepository>,
    pub models: Store<HardwareModel>,
    pub devices: Store<Device>,
    pub pools: Store<HardwarePool>,
    pub baselines: Store<FirmwareBaseline>,
    pub rollouts: Store<Rollout>,
    pub operations: Store<Operation>,
    pub approvals: Store<Approval>,
}

macro_rules! watched {
    ($($kind:ty => $field:ident),+ $(,)?) => {
        $(impl Watched for $kind {
            fn store(stores: &Stores) -> &Store<Self> {
                &stores.$field
            }
        })+

        impl Stores {
            /// Starts one watch per kind; each ends with the context's token.
            pub fn start(&self, context: &Context, tasks: &tokio_util::task::TaskTracker) {
                $(tasks.spawn(keep::<$kind>(context.clone(), self.$field.clone()));)+
            }

            /// Kinds that are not known in full yet.
            #[must_use]
            pub fn missing(&self) -> Vec<String> {
                let mut missing = Vec::new();
                $(if !self.$field.is_ready() { missing.push(<$kind>::kind(&()).into_owned()); })+
                missing
            }

            /// The longest time for which any watch has been failing.
            #[must_use]
            pub fn failing_for(&self, clock: &Clock) -> Duration {
                [$(self.$field.failing_for(clock)),+].into_iter().max().unwrap_or_default()
            }
        }
    };
}
watched! {
    FleetPolicy => policies,
    FleetRepository => repositories,
    HardwareModel => models,
    Device => devices,
    HardwarePool => pools,
    FirmwareBaseline => baselines,
    Rollout => rollouts,
    Operation => operations,
    Approval => approvals,
}

impl Stores {
    /// Returns when every kind is known in full.
    pub async fn wait_until_ready(&self) {
        self.policies.wait_until_ready().await;
        self.repositories.wait_until_ready().await;
        self.models.wait_until_ready().await;
        self.devices.wait_until_ready().await;
        self.pools.wait_until_ready().await;
        self.baselines.wait_until_ready().await;
        self.rollouts.wait_until_ready().await;
        self.operations.wait_until_ready().await;
        self.approvals.wait_until_ready().await;
    }
}

/// The objects of one kind. Cheap to clone.
pub struct Store<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for Store<K> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        let (ready, _) = watch::channel(false);
        let inner = Inner {
            objects: RwLock::default(),
            undecodable: Mutex::default(),
            subscriptions: Mutex::default(),
            failing_since: Mutex::default(),
            ready,
        };
        Self {
            inner: Arc::new(inner),
        }
    }
}

struct Inner<K> {
    objects: RwLock<Objects<K>>,
    undecodable: Mutex<BTreeMap<String, String>>,
    subscriptions: Mutex<Vec<Weak<Pending>>>,
    failing_since: Mutex<Option<Duration>>,
    ready: watch::Sender<bool>,
}

struct Objects<K> {
    by_name: HashMap<String, Arc<K>>,
    /// The newest resource version that the watch told: what is older is known already.
    watched: u64,
}

impl<K> Default for Objects<K> {
    fn default() -> Self {
        Self {
            by_name: HashMap::new(),
            watched: 0,
        }
    }
}

#[derive(Default)]
struct Pending {
    names: Mutex<BTreeSet<String>>,
    wake: Notify,
}

/// Names of objects that changed since they were last taken.
pub struct Subscription {
    pending: Arc<Pending>,
}

impl Subscription {
    /// Waits until something changed, and takes the names of what did. Never empty. Safe to drop while it waits.
    pub async fn changed(&self) -> BTreeSet<String> {
        loop {
            let woken = self.pending.wake.notified();
            let names = self.take();
            if !names.is_empty() {
                return names;
            }
            woken.await;
        }
    }

    /// Waits until something changed, and takes nothing.
    pub async fn woken(&self) {
        loop {
            let woken = self.pending.wake.notified();
            if !lock(&self.pending.names).is_empty() {
                return;
            }
            woken.await;
        }
    }

    /// Takes what changed so far without waiting.
    #[must_use]
    pub fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *lock(&self.pending.names))
    }
}

/// A poisoned lock holds a map that was being changed by a panicking thread; each change is one insert, so it is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn version<K: Resource>(object: &K) -> u64 {
    object
        .meta()
        .resource_version
        .as_deref()
        .and_then(|text| text.parse().ok())
        .unwrap_or(u64::MAX)
}

impl<K> Store<K> {
    /// Whether the kind was listed in full since the start.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.inner.ready.borrow()
    }

    /// Returns when the kind was listed in full.
    pub async fn wait_until_ready(&self) {
        // The sender lives in `self`, so it cannot be gone.
        let _ = self.inner.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Objects that cannot be read, with why.
    #[must_use]
    pub fn undecodable(&self) -> BTreeMap<String, String> {
        lock(&self.inner.undecodable).clone()
    }

    /// For how long the watch has been failing; zero when it is not.
    #[must_use]
    pub fn failing_for(&self, clock: &Clock) -> Duration {
        lock(&self.inner.failing_since).map_or(Duration::ZERO, |since| clock.elapsed().saturating_sub(since))
    }

    /// Subscribes to the names of what changes from now on.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        let pending = Arc::new(Pending::default());
        lock(&self.inner.subscriptions).push(Arc::downgrade(&pending));
        Subscription { pending }
    }

    fn tell<'a>(&self, names: impl IntoIterator<Item = &'a str> + Clone) {
        lock(&self.inner.subscriptions).retain(|subscription| {
            let Some(pending) = subscription.upgrade() else {
                return false;
            };
            lock(&pending.names).extend(names.clone().into_iter().map(str::to_owned));
            pending.wake.notify_one();
            true
        });
    }

    fn read<R>(&self, f: impl FnOnce(&Objects<K>) -> R) -> R {
        f(&self.inner.objects.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<R>(&self, f: impl FnOnce(&mut Objects<K>) -> R) -> R {
        f(&mut self.inner.objects.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The object of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<K>> {
        self.read(|objects| objects.by_name.get(name).cloned())
    }

    /// All objects, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<K>> {
        self.read(|objects| objects.by_name.values().cloned().collect())
    }

    /// The objects that a condition holds for.
    pub fn filter(&self, mut keep: impl FnMut(&K) -> bool) -> Vec<Arc<K>> {
        self.read(|objects| {
            objects
                .by_name
                .values()
                .filter(|object| keep(object))
                .cloned()
                .collect()
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read(|objects| objects.by_name.len())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Resource<DynamicType = ()> + Clone> Store<K> {
    /// Takes in the answer to a write of ours. What the watch already told is newer, and stays.
    pub fn absorb(&self, mut object: K) {
        trim(&mut object);
        let name = object.name_any();
        let taken = self.write(|objects| {
            let newest = objects
                .by_name
                .get(&name)
                .map_or(0, |present| version(&**present));
            let fresh = version(&object) > objects.watched && version(&object) > newest;
            if fresh {
                objects.by_name.insert(name.clone(), Arc::new(object));
            }
            fresh
        });
        if taken {
            self.tell([name.as_str()]);
        }
    }

    fn apply(&self, object: K) {
        let name = object.name_any();
        let changed = self.write(|objects| {
            let new = version(&object);
            objects.watched = if new == u64::MAX {
                objects.watched
            } else {
                objects.watched.max(new)
            };
            match objects.by_name.get(&name) {
                Some(present) if version(&**present) >= new && new != u64::MAX => false,
                _ => {
                    objects.by_name.insert(name.clone(), Arc::new(object));
                    true
                }
            }
        });
        if changed {
            self.tell([name.as_str()]);
        }
    }

    fn delete(&self, name: &str, at: u64) {
        let changed = self.write(|objects| {
            objects.watched = if at == u64::MAX {
                objects.watched
            } else {
                objects.watched.max(at)
            };
            let older = objects
                .by_name
                .get(name)
                .is_some_and(|present| version(&**present) <= at);
            older && objects.by_name.remove(name).is_some()
        });
        if changed {
            self.tell([name]);
        }
    }

    /// Takes a full list in. Returns how many objects it told anew.
    fn replace(&self, listed: HashMap<String, K>) -> usize {
        let changed = self.write(|objects| {
            let mut changed = Vec::new();
            let mut fresh = HashMap::with_capacity(listed.len());
            for (name, object) in listed {
                let new = version(&object);
                objects.watched = if new == u64::MAX {
                    objects.watched
                } else {
                    objects.watched.max(new)
                };
                match objects.by_name.remove(&name) {
                    Some(present) if version(&*present) >= new && present.uid() == object.uid() => {
                        fresh.insert(name, present);
                    }
                    _ => {
                        changed.push(name.clone());
                        fresh.insert(name, Arc::new(object));
                    }
                }
            }
            changed.extend(objects.by_name.drain().map(|(name, _)| name));
            objects.by_name = fresh;
            changed
        });
        self.tell(changed.iter().map(String::as_str));
        self.inner.ready.send_replace(true);
        changed.len()
    }
}

/// Takes away what no decision reads.
fn trim<K: Resource>(object: &mut K) {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// One round of a watch: what a list or an event told.
struct Round<K> {
    store: Store<K>,
    metrics: Metrics,
    listed: HashMap<String, K>,
    /// The list was asked for by the clock, not after an error: what it tells anew, the watch missed.
    checking: bool,
}

impl<K: Watched> Round<K> {
    fn take(&mut self, event: watcher::Event<DeserializeGuard<K>>) -> bool {
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(object) => {
                if let Some(object) = self.decode(object) {
                    self.listed.insert(object.name_any(), object);
                }
            }
            watcher::Event::InitDone => {
                let told = self.store.replace(std::mem::take(&mut self.listed));
                let kind = K::kind(&());
                if std::mem::take(&mut self.checking) && told > 0 {
                    self.metrics.relist_found(&kind, told);
                    tracing::warn!(%kind, told, "a full list told of changes that the watch had not");
                }
                return true;
            }
            watcher::Event::Apply(object) => {
                if let Some(object) = self.decode(object) {
                    self.store.apply(object);
                }
            }
            watcher::Event::Delete(object) => {
                let at = object
                    .meta()
                    .resource_version
                    .as_deref()
                    .and_then(|text| text.parse().ok());
                let name = object.name_any();
                if lock(&self.store.inner.undecodable).remove(&name).is_some() {
                    self.store.tell([name.as_str()]);
                }
                self.store.delete(&name, at.unwrap_or(u64::MAX));
            }
        }
        false
    }

    fn decode(&self, object: DeserializeGuard<K>) -> Option<K> {
        let kind = K::kind(&());
        match object.0 {
            Ok(mut object) => {
                let healed = lock(&self.store.inner.undecodable)
                    .remove(&object.name_any())
                    .is_some();
                if healed {
                    self.metrics
                        .undecodable(&kind, lock(&self.store.inner.undecodable).len());
                }
                trim(&mut object);
                Some(object)
            }
            Err(invalid) => {
                let name = invalid.metadata.name.unwrap_or_default();
                tracing::error!(%kind, %name, error = %invalid.error, "an object cannot be read, it is left out");
                let mut undecodable = lock(&self.store.inner.undecodable);
                undecodable.insert(name.clone(), invalid.error);
                self.metrics.undecodable(&kind, undecodable.len());
                drop(undecodable);
                // What it said before is no longer what it says; nothing is decided by it.
                self.store.delete(&name, u64::MAX);
                self.store.tell([name.as_str()]);
                None
            }
        }
    }
}

async fn keep<K: Watched>(context: Context, store: Store<K>) {
    let api: Api<DeserializeGuard<K>> = Api::namespaced(context.client.clone(), &context.namespace);
    let mut first = true;
    loop {
        let checking = !std::mem::take(&mut first);
        let metrics = context.metrics.clone();
        let mut round = Round {
            store: store.clone(),
            metrics,
            listed: HashMap::new(),
            checking,
        };
        // Spread, so that the kinds are not all listed at the same moment.
        let spread = rand::random_range(0.8..1.2);
        let until = tokio::time::sleep(context.config.relist_interval.mul_f64(spread));
        tokio::select! {
            () = context.cancel.cancelled() => return,
            () = until => {}
            () = follow(&context, &api, &mut round) => {}
        }
    }
}

async fn follow<K: Watched>(context: &Context, api: &Api<DeserializeGuard<K>>, round: &mut Round<K>) {
    let kind = K::kind(&());
    // The API server takes no watch longer than this from a client that also detects dead ones.
    let timeout = u32::try_from(context.config.watch_timeout.as_secs())
        .unwrap_or(280)
        .clamp(1, 290);
    let config = watcher::Config::default().page_size(PAGE_SIZE).timeout(timeout);
    let mut stream = watcher(api.clone(), config).default_backoff().boxed();
    let mut probe = tokio::time::interval(context.config.lease_renew);
    loop {
        let next = tokio::select! {
            next = stream.try_next() => next,
            _ = probe.tick() => {
                check_failing(context, api, &round.store, &kind).await;
                continue;
            }
        };
        match next {
            Ok(Some(event)) => {
                *lock(&round.store.inner.failing_since) = None;
                round.take(event);
            }
            Ok(None) => return,
            Err(error) => {
                // A list after an error may well tell of changes; they were not missed.
                round.checking = false;
                let mut since = lock(&round.store.inner.failing_since);
                if since.is_none() {
                    *since = Some(context.clock.elapsed());
                    tracing::warn!(%kind, error = %describe(&error), "a watch fails, it is tried again");
                }
            }
        }
    }
}

/// A watch that was resumed says nothing until something changes. So while one counts as failing, a list of one object
/// asks whether the API server answers for this kind; the watch follows within its own backoff.
async fn check_failing<K: Watched>(
    context: &Context,
    api: &Api<DeserializeGuard<K>>,
    store: &Store<K>,
    kind: &str,
) {
    if lock(&store.inner.failing_since).is_some() && store.is_ready() {
        let one = kube::api::ListParams::default().limit(1);
        let asked = tokio::time::timeout(context.config.api_deadline, api.list_metadata(&one)).await;
        if matches!(asked, Ok(Ok(_))) {
            *lock(&store.inner.failing_since) = None;
        }
    }
    context
        .metrics
        .watch_failing(kind, store.failing_for(&context.clock));
}

/// A missing CRD is the one failure that a person must mend, so it is said in words.
fn describe(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.is_not_found() => {
            "the kind is not known to the API server: install the CRDs (chart kiban-crds)".into()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiban_api::HardwareModelSpec;

    fn model(name: &str, version: u64) -> HardwareModel {
        let spec: HardwareModelSpec =
            serde_json::from_value(serde_json::json!({"manufacturer": "Dell", "product": "R650"})).unwrap();
        let mut model = HardwareModel::new(name, spec);
        model.metadata.resource_version = Some(version.to_string());
        model.metadata.uid = Some(format!("uid-{name}"));
        model
    }

    fn version_of(store: &Store<HardwareModel>, name: &str) -> Option<u64> {
        store.get(name).map(|object| version(&*object))
    }

    #[test]
    fn our_own_writes_are_read_at_once_and_never_undo_the_watch() {
        let store = Store::default();
        store.apply(model("a", 5));
        store.absorb(model("a", 7));
        assert_eq!(version_of(&store, "a"), Some(7));
        store.apply(model("a", 6));
        assert_eq!(
            version_of(&store, "a"),
            Some(7),
            "an older event does not undo what was written"
        );
        store.delete("a", 9);
        store.absorb(model("a", 8));
        assert_eq!(
            version_of(&store, "a"),
            None,
            "a late answer does not bring a deleted object back"
        );
    }

    #[test]
    fn a_list_tells_what_is_new_gone_and_changed() {
        let store = Store::default();
        for name in ["same", "gone", "changed"] {
            store.apply(model(name, 3));
        }
        let subscription = store.subscribe();
        let listed = [("same", 3), ("changed", 8), ("new", 7)];
        let told = store.replace(
            listed
                .iter()
                .map(|(name, v)| ((*name).to_owned(), model(name, *v)))
                .collect(),
        );
        assert_eq!(told, 3);
        assert_eq!(
            subscription.take(),
            BTreeSet::from(["changed", "gone", "new"].map(str::to_owned))
        );
        assert_eq!(store.len(), 3);
    }

    #[tokio::test]
    async fn a_subscription_gathers_names_and_wakes() {
        let store = Store::default();
        let subscription = store.subscribe();
        store.apply(model("a", 1));
        store.apply(model("a", 2));
        store.apply(model("b", 3));
        assert_eq!(
            subscription.changed().await,
            BTreeSet::from(["a", "b"].map(str::to_owned))
        );
        assert!(subscription.take().is_empty());
        let waiting = tokio::spawn(async move { subscription.changed().await });
        tokio::task::yield_now().await;
        store.delete("b", 4);
        assert_eq!(waiting.await.unwrap(), BTreeSet::from(["b".to_owned()]));
    }

    #[test]
    fn an_object_that_cannot_be_read_hurts_only_itself() {
        let store = Store::default();
        store.apply(model("a", 1));
        let mut round = Round {
            store: store.clone(),
            metrics: Metrics::new(),
            listed: HashMap::new(),
            checking: false,
        };
        let bad = serde_json::json!({"apiVersion": "kiban.dev/v1alpha1", "kind": "HardwareModel",
            "metadata": {"name": "b", "resourceVersion": "2"}, "spec": 7});
        round.take(watcher::Event::Apply(serde_json::from_value(bad).unwrap()));
        assert_eq!((store.len(), store.undecodable().len()), (1, 1));
        let good = serde_json::to_value(model("b", 3)).unwrap();
        round.take(watcher::Event::Apply(serde_json::from_value(good).unwrap()));
        assert_eq!((store.len(), store.undecodable().len()), (2, 0));
    }
}
