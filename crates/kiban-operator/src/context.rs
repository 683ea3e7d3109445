//! What every activity is given.

use crate::{
    clock::Clock, config::Config, events::Events, gate::Measured, inventory::Inventories, metrics::Metrics,
    plan::notes::Notes, secrets::Secrets, store::Stores, writer::Writer,
};
use kube::Client;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What every activity is given. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// For reads that must be live. Writes go through [`Context::writer`].
    pub client: Client,
    /// The fleet.
    pub namespace: Arc<str>,
    /// This process, in Leases and statuses: the pod's name and a random end, so that no two are the same.
    pub identity: Arc<str>,
    /// Flags.
    pub config: Arc<Config>,
    /// Figures.
    pub metrics: Metrics,
    /// Kubernetes events.
    pub events: Events,
    /// The objects of the fleet as the watches tell them.
    pub stores: Stores,
    /// The one way to write.
    pub writer: Writer,
    /// Secrets, by name.
    pub secrets: Secrets,
    /// Full inventories on their way from the observer to the ledger.
    pub inventories: Inventories,
    /// What the planner, while this replica plans, has to say of devices: taken along by whoever writes a device's status.
    pub notes: Notes,
    /// What was measured of the pools' gates, while this replica plans.
    pub gates: Measured,
    /// Woken when someone wants Git to be looked at now.
    pub look_at_git: Arc<Notify>,
    /// Ends when the process is asked to stop.
    pub cancel: CancellationToken,
    /// Time.
    pub clock: Clock,
}

impl Context {
    /// The handle for one kind in the fleet's namespace, for live reads.
    pub fn api<K>(&self) -> kube::Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        kube::Api::namespaced(self.client.clone(), &self.namespace)
    }
}
