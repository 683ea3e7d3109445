//! `FleetPolicy`: what holds for the whole fleet. One per namespace, named `fleet`.

use crate::shared::{Amount, ComponentClass, ComponentMatch, Conditions};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What holds for the whole fleet (everything in the namespace). There is one, named `fleet`; without it the defaults hold.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kiban.dev",
    version = "v1alpha1",
    kind = "FleetPolicy",
    plural = "fleetpolicies",
    namespaced,
    status = "FleetPolicyStatus",
    derive = "PartialEq",
    shortname = "fp",
    category = "kiban"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FleetPolicySpec {
    /// Stop: nothing new is started anywhere. What is under way is finished. Default false.
    #[serde(default)]
    pub paused: bool,
    /// Most devices of the fleet that may be unavailable at once. Default: no limit beside the pools' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<Amount>,
    /// Versions that are never installed, whatever a baseline says.
    #[serde(default)]
    pub denied_versions: Vec<DeniedVersion>,
    /// Limits on the traffic to BMCs.
    #[serde(default)]
    pub bmc: BmcTraffic,
    /// What a commit may remove.
    #[serde(default)]
    pub prune: PruneGuard,
}

/// Versions of one component that are never installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeniedVersion {
    /// Class.
    pub class: ComponentClass,
    /// Which components of the class. Default: all.
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub match_: Option<ComponentMatch>,
    /// The versions.
    pub versions: Vec<String>,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

/// Limits on the traffic to BMCs. One BMC gets at most one change and two reads at once, always.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BmcTraffic {
    /// Most BMCs that are spoken to at once. Default 64.
    #[serde(default = "default_concurrent")]
    pub max_concurrent: u32,
    /// Most BMCs of one site that are spoken to at once. Default 32.
    #[serde(default = "default_concurrent_per_site")]
    pub max_concurrent_per_site: u32,
    /// How often a device's inventory is read. Default `10m`. A reading older than three times this is not fresh.
    #[serde(default = "default_read_interval")]
    pub read_interval: String,
}

fn default_concurrent() -> u32 {
    64
}
fn default_concurrent_per_site() -> u32 {
    32
}
fn default_read_interval() -> String {
    "10m".into()
}
impl Default for BmcTraffic {
    fn default() -> Self {
        Self {
            max_concurrent: default_concurrent(),
            max_concurrent_per_site: default_concurrent_per_site(),
            read_interval: default_read_interval(),
        }
    }
}

/// What a commit may remove without a person's confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PruneGuard {
    /// A commit that would remove more than this share of the objects of one kind is held until it is confirmed with the
    /// annotation `kiban.dev/confirm-prune: <commit>` on the `FleetRepository`. In percent, default 10. One object may
    /// always be removed.
    #[serde(default = "default_prune_percent")]
    pub max_percent: u32,
}
fn default_prune_percent() -> u32 {
    10
}
impl Default for PruneGuard {
    fn default() -> Self {
        Self {
            max_percent: default_prune_percent(),
        }
    }
}

/// How the policy stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FleetPolicyStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// `Ready`, `Reconciling`, `Stalled`.
    #[serde(default)]
    pub conditions: Conditions,
}
