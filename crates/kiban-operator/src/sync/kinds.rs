//! The kinds that come from Git, behind one face: what is there, what differs, what changed beneath us.

use crate::{
    context::Context,
    metrics::Verb,
    store::{Stores, Subscription, Watched},
    writer::WriteError,
};
use kiban_api::{
    Device, FirmwareBaseline, FleetPolicy, FleetRepository, HardwareModel, HardwarePool, labels,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// A kind that comes from Git, in the order in which they are applied: what is referred to comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    FleetPolicy,
    FleetRepository,
    HardwareModel,
    FirmwareBaseline,
    HardwarePool,
    Device,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::FleetPolicy,
        Self::FleetRepository,
        Self::HardwareModel,
        Self::FirmwareBaseline,
        Self::HardwarePool,
        Self::Device,
    ];

    /// The name in YAML.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FleetPolicy => "FleetPolicy",
            Self::FleetRepository => "FleetRepository",
            Self::HardwareModel => "HardwareModel",
            Self::FirmwareBaseline => "FirmwareBaseline",
            Self::HardwarePool => "HardwarePool",
            Self::Device => "Device",
        }
    }

    /// The kind of a name in YAML.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What is known of an object in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// Its name.
    pub name: String,
    /// The repository that it came from, by its label.
    pub repository: Option<String>,
    /// The file that it came from, by its annotation.
    pub source: Option<String>,
    /// Generation of its spec.
    pub generation: i64,
    /// It is being deleted.
    pub deleting: bool,
}

/// How an object compares with what the commit says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// It is not there.
    Missing,
    /// Its spec and labels are as the commit says.
    Same {
        /// Generation of its spec.
        generation: i64,
    },
    /// They are not.
    Differs {
        /// Generation of its spec.
        generation: i64,
    },
}

/// What this needs of a kind beside watching it.
trait Desired: Watched {
    type Spec: PartialEq + DeserializeOwned;
    fn spec(&self) -> &Self::Spec;
}

macro_rules! desired {
    ($($kind:ident => $spec:ident),+ $(,)?) => {
        $(impl Desired for $kind {
            type Spec = kiban_api::$spec;
            fn spec(&self) -> &Self::Spec {
                &self.spec
            }
        })+
    };
}
desired! {
    FleetPolicy => FleetPolicySpec,
    FleetRepository => FleetRepositorySpec,
    HardwareModel => HardwareModelSpec,
    FirmwareBaseline => FirmwareBaselineSpec,
    HardwarePool => HardwarePoolSpec,
    Device => DeviceSpec,
}

/// Runs an expression with the type of a kind.
macro_rules! with_kind {
    ($value:expr, $type:ident => $body:expr) => {
        match $value {
            Kind::FleetPolicy => {
                type $type = FleetPolicy;
                $body
            }
            Kind::FleetRepository => {
                type $type = FleetRepository;
                $body
            }
            Kind::HardwareModel => {
                type $type = HardwareModel;
                $body
            }
            Kind::FirmwareBaseline => {
                type $type = FirmwareBaseline;
                $body
            }
            Kind::HardwarePool => {
                type $type = HardwarePool;
                $body
            }
            Kind::Device => {
                type $type = Device;
                $body
            }
        }
    };
}

impl Kind {
    /// What is in the cluster of this kind.
    #[must_use]
    pub fn present(self, stores: &Stores) -> Vec<Present> {
        with_kind!(self, K => K::store(stores).all().iter().map(|object| present(&**object)).collect())
    }

    /// One object of this kind.
    #[must_use]
    pub fn get(self, stores: &Stores, name: &str) -> Option<Present> {
        with_kind!(self, K => K::store(stores).get(name).map(|object| present(&*object)))
    }

    /// Compares an object with what the commit says of it.
    #[must_use]
    pub fn compare(self, stores: &Stores, name: &str, wanted: &Value, repository: &str) -> Compared {
        with_kind!(self, K => match K::store(stores).get(name) {
            None => Compared::Missing,
            Some(object) => {
                let generation = object.meta().generation.unwrap_or_default();
                if is_as_wanted(&*object, wanted, repository) {
                    Compared::Same { generation }
                } else {
                    Compared::Differs { generation }
                }
            }
        })
    }

    /// Applies an object. With `force`, fields that others own are taken. Returns the generation afterwards.
    pub async fn apply(
        self,
        context: &Context,
        object: &Value,
        name: &str,
        force: bool,
    ) -> Result<i64, WriteError> {
        with_kind!(self, K => {
            let api: Api<K> = context.api();
            let params = PatchParams::apply(labels::SYNC_MANAGER);
            let params = if force { params.force() } else { params };
            let patch = Patch::Apply(object);
            let written = context.writer.run(Verb::Apply, self.as_str(), name, api.patch(name, &params, &patch)).await?;
            let generation = written.meta().generation.unwrap_or_default();
            K::store(&context.stores).absorb(written);
            Ok(generation)
        })
    }

    /// Deletes an object of this kind that came from Git.
    pub async fn delete(self, context: &Context, name: &str) -> Result<(), WriteError> {
        with_kind!(self, K => match K::store(&context.stores).get(name) {
            Some(object) => context.writer.delete(&*object, true).await,
            None => Ok(()),
        })
    }
}

fn present<K: Resource>(object: &K) -> Present {
    Present {
        name: object.name_any(),
        repository: object.labels().get(labels::REPOSITORY_LABEL).cloned(),
        source: object.annotations().get(labels::SOURCE_ANNOTATION).cloned(),
        generation: object.meta().generation.unwrap_or_default(),
        deleting: object.meta().deletion_timestamp.is_some(),
    }
}

/// Compares as the API server would store it: the commit's spec is read with the same defaults, so that a field that is
/// written out and one that is left to its default are the same, and one that was taken out of the file differs.
fn is_as_wanted<K: Desired>(object: &K, wanted: &Value, repository: &str) -> bool {
    let empty = json!({});
    let Ok(spec) = serde_json::from_value::<K::Spec>(wanted.get("spec").unwrap_or(&empty).clone()) else {
        return false;
    };
    let has = |present: &std::collections::BTreeMap<String, String>, key: &str| {
        wanted["metadata"][key].as_object().is_none_or(|wanted| {
            wanted
                .iter()
                .all(|(k, v)| present.get(k).map(String::as_str) == v.as_str())
        })
    };
    spec == *object.spec()
        && object.labels().get(labels::REPOSITORY_LABEL).map(String::as_str) == Some(repository)
        && has(object.labels(), "labels")
        && has(object.annotations(), "annotations")
        && object.meta().deletion_timestamp.is_none()
}

/// Tells which objects changed, for noticing what people change beneath us.
pub struct Drift {
    subscriptions: Vec<(Kind, Subscription)>,
}

impl Drift {
    /// From now on.
    #[must_use]
    pub fn subscribe(stores: &Stores) -> Self {
        let subscribe = |kind: Kind| with_kind!(kind, K => (kind, K::store(stores).subscribe()));
        Self {
            subscriptions: Kind::ALL.into_iter().map(subscribe).collect(),
        }
    }

    /// Waits until something changed.
    pub async fn changed(&self) -> Vec<(Kind, BTreeSet<String>)> {
        let waiting = self
            .subscriptions
            .iter()
            .map(|(kind, subscription)| Box::pin(async move { (*kind, subscription.changed().await) }));
        let (first, _, _) = futures::future::select_all(waiting).await;
        vec![first]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(spec: Value) -> Value {
        json!({"apiVersion": "kiban.dev/v1alpha1", "kind": "HardwareModel",
            "metadata": {"name": "r650", "labels": {"team": "a"}}, "spec": spec})
    }

    fn stores(spec: Value) -> Stores {
        let stores = Stores::default();
        let mut object: HardwareModel = serde_json::from_value(wanted(spec)).unwrap();
        object
            .labels_mut()
            .insert(labels::REPOSITORY_LABEL.into(), "fleet".into());
        object.metadata.resource_version = Some("5".into());
        object.metadata.generation = Some(2);
        stores.models.absorb(object);
        stores
    }

    #[test]
    fn a_default_written_out_is_no_difference() {
        let short = json!({"manufacturer": "Dell", "product": "R650"});
        let long = json!({"manufacturer": "Dell", "product": "R650", "type": "Server", "base": ""});
        let compare = |present: &Value, asked: &Value, repository: &str| {
            Kind::HardwareModel.compare(
                &stores(present.clone()),
                "r650",
                &wanted(asked.clone()),
                repository,
            )
        };
        let (same, differs) = (
            Compared::Same { generation: 2 },
            Compared::Differs { generation: 2 },
        );
        assert_eq!(compare(&short, &long, "fleet"), same);
        assert_eq!(compare(&long, &short, "fleet"), same);
        let based = json!({"manufacturer": "Dell", "product": "R650", "base": "onyx"});
        assert_eq!(
            compare(&based, &short, "fleet"),
            differs,
            "a field taken out of the file"
        );
        assert_eq!(
            compare(&short, &short, "other"),
            differs,
            "another repository's label"
        );
        let mut labelled = wanted(short.clone());
        labelled["metadata"]["labels"]["team"] = json!("b");
        assert_eq!(
            Kind::HardwareModel.compare(&stores(short.clone()), "r650", &labelled, "fleet"),
            differs
        );
        assert_eq!(
            Kind::HardwareModel.compare(&stores(short), "r750", &labelled, "fleet"),
            Compared::Missing
        );
    }
}
