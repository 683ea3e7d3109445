//! The one way to write to the API server: counted, with a deadline, and read back at once.
//!
//! Each answer goes into the store of its kind, so that the next decision sees what this one wrote.

use crate::{
    metrics::{Metrics, Verb},
    store::{Stores, Watched},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde::Serialize;
use std::{sync::Arc, time::Duration};

/// Writes objects of the fleet.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    namespace: Arc<str>,
    metrics: Metrics,
    stores: Stores,
    deadline: Duration,
}

/// A write that failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The API server said no, or could not be reached.
    #[error("{verb:?} {kind} {name}: {source}")]
    Api {
        /// What was tried.
        verb: Verb,
        /// On which kind.
        kind: String,
        /// On which object.
        name: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// No answer came in time. The write may have happened.
    #[error("{verb:?} {kind} {name}: no answer in time")]
    Timeout {
        /// What was tried.
        verb: Verb,
        /// On which kind.
        kind: String,
        /// On which object.
        name: String,
    },
}

impl WriteError {
    /// A stable word for conditions and metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "ApiTimeout",
            _ if self.is_conflict() => "ApiConflict",
            _ if self.is_not_found() => "ApiNotFound",
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) if status.is_forbidden() => "ApiForbidden",
                kube::Error::Api(status) if status.is_invalid() => "ApiInvalid",
                kube::Error::Api(_) => "ApiRefused",
                _ => "ApiUnreachable",
            },
        }
    }

    fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Timeout { .. } => None,
        }
    }

    /// Someone else changed it first, or it is there already.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|status| status.code == 409)
    }

    /// It is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404)
    }

    /// Whether the same write may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.status()
            .is_none_or(|status| status.code == 409 || status.code == 429 || status.code >= 500)
    }
}

impl Writer {
    /// A writer for one namespace.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: Arc<str>,
        metrics: Metrics,
        stores: Stores,
        deadline: Duration,
    ) -> Self {
        Self {
            client,
            namespace,
            metrics,
            stores,
            deadline,
        }
    }

    /// How long one write may take.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    fn api<K: Watched>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Runs one write: counts it, bounds it.
    pub async fn run<T>(
        &self,
        verb: Verb,
        kind: &str,
        name: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, WriteError> {
        self.metrics.api_write(kind, verb);
        let (kind, name) = (kind.to_owned(), name.to_owned());
        let result = match tokio::time::timeout(self.deadline, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(WriteError::Api {
                verb,
                kind,
                name,
                source: Box::new(source),
            }),
            Err(_) => Err(WriteError::Timeout { verb, kind, name }),
        };
        if let Err(WriteError::Api { verb, kind, .. } | WriteError::Timeout { verb, kind, .. }) = &result {
            self.metrics.api_write_failed(kind, *verb);
        }
        result
    }

    async fn run_kept<K: Watched>(
        &self,
        verb: Verb,
        name: &str,
        call: impl Future<Output = Result<K, kube::Error>>,
    ) -> Result<K, WriteError> {
        let object = self.run(verb, &K::kind(&()), name, call).await?;
        K::store(&self.stores).absorb(object.clone());
        Ok(object)
    }

    /// Creates an object.
    pub async fn create<K: Watched + Serialize>(&self, manager: &str, object: &K) -> Result<K, WriteError> {
        let (api, name) = (self.api::<K>(), object.name_any());
        let params = PostParams {
            field_manager: Some(manager.into()),
            ..PostParams::default()
        };
        self.run_kept(Verb::Create, &name, api.create(&params, object))
            .await
    }

    /// Merges a patch into an object. A `metadata.resourceVersion` in it is a precondition.
    pub async fn merge<K: Watched>(
        &self,
        manager: &str,
        name: &str,
        patch: &serde_json::Value,
    ) -> Result<K, WriteError> {
        let (api, params) = (self.api::<K>(), PatchParams::default());
        let params = PatchParams {
            field_manager: Some(manager.into()),
            ..params
        };
        self.run_kept(Verb::Patch, name, api.patch(name, &params, &Patch::Merge(patch)))
            .await
    }

    /// Merges `{"status": …}` into an object's status. Fields that the patch does not name stay as they are, so that
    /// several managers can keep their own fields. A `metadata.resourceVersion` in it is a precondition.
    pub async fn merge_status<K: Watched>(
        &self,
        manager: &str,
        name: &str,
        patch: &serde_json::Value,
    ) -> Result<K, WriteError> {
        let (api, params) = (self.api::<K>(), PatchParams::default());
        let params = PatchParams {
            field_manager: Some(manager.into()),
            ..params
        };
        self.run_kept(
            Verb::Patch,
            name,
            api.patch_status(name, &params, &Patch::Merge(patch)),
        )
        .await
    }

    /// Applies `{"apiVersion", "kind", "status": …}` to an object's status, as the owner of exactly these fields.
    pub async fn apply_status<K: Watched>(
        &self,
        manager: &str,
        name: &str,
        patch: &serde_json::Value,
    ) -> Result<K, WriteError> {
        let (api, params) = (self.api::<K>(), PatchParams::apply(manager).force());
        self.run_kept(
            Verb::Apply,
            name,
            api.patch_status(name, &params, &Patch::Apply(patch)),
        )
        .await
    }

    /// Deletes the very object that was seen (by its uid), and if a resource version is given, only while it is as seen.
    /// That it is gone already is fine.
    pub async fn delete<K: Watched>(&self, object: &K, unchanged: bool) -> Result<(), WriteError> {
        let (api, name) = (self.api::<K>(), object.name_any());
        let resource_version = unchanged.then(|| object.resource_version()).flatten();
        let preconditions = Some(Preconditions {
            uid: object.uid(),
            resource_version,
        });
        let params = DeleteParams {
            preconditions,
            ..DeleteParams::default()
        };
        match self
            .run(Verb::Delete, &K::kind(&()), &name, api.delete(&name, &params))
            .await
        {
            Ok(either) => {
                // Left: it is being deleted and waits for its finalizers.
                if let Some(object) = either.left() {
                    K::store(&self.stores).absorb(object);
                }
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Deletes every object that a field selector matches, in one request. An empty selector would be all of them, and is
    /// refused.
    pub async fn delete_where<K: Watched>(&self, selector: &str) -> Result<(), WriteError> {
        if selector.is_empty() {
            tracing::error!("a deletion without a selector is refused");
            return Ok(());
        }
        let api = self.api::<K>();
        let (params, list) = (DeleteParams::default(), ListParams::default().fields(selector));
        let call = api.delete_collection(&params, &list);
        // What became of each, the watch tells.
        self.run(Verb::Delete, &K::kind(&()), "", call).await.map(|_| ())
    }
}
