//! `FleetPolicy`: what holds for the whole fleet. One per namespace, named `fleet`.

use crate::pool::DomainLimit;
use crate::shared::{
    Amount, ComponentClass, ComponentMatch, Conditions, DURATION, LINE, VERSION, amount, observed, written,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What holds for the whole fleet (everything in the namespace). There is one, named `fleet`; without it the defaults hold.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "kiban.dev",
    version = "v1alpha1",
    kind = "FleetPolicy",
    plural = "fleetpolicies",
    namespaced,
    doc = "What holds for the whole fleet (everything in the namespace): the pause switch, the fleet-wide budget, denied versions, limits on BMC traffic, the prune guard. There is one, named `fleet`; without it the defaults hold.",
    status = "FleetPolicyStatus",
    derive = "PartialEq",
    shortname = "fp",
    category = "kiban",
    printcolumn(name = "Paused", type_ = "boolean", json_path = ".spec.paused"),
    printcolumn(name = "Max unavailable", type_ = "string", json_path = ".spec.maxUnavailable"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name == 'fleet'")
        .message("a fleet has one FleetPolicy, and its name is fleet"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = written)]
pub struct FleetPolicySpec {
    /// Stop: nothing new is started anywhere. What is under way is finished. Default false. Changing it back resumes
    /// where things stood.
    #[serde(default)]
    pub paused: bool,
    /// Most devices of the fleet that may be unavailable at once: a count, or a percentage rounded up. Devices that are
    /// unhealthy, unreachable or held use it up. Default: no limit beside the pools' own. Example: `2%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "amount")]
    pub max_unavailable: Option<Amount>,
    /// An absolute bound on `maxUnavailable`. Default: none. Example: `50`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub at_most: Option<u32>,
    /// Most devices that may be unavailable at once in each failure domain, of all pools together: two pools in one rack do
    /// not add up. Default: none beside the pools' own. Example: `[{over: Rack, max: 2}, {over: Power, max: 4}]`.
    #[serde(default)]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["over"]))]
    pub domains: Vec<DomainLimit>,
    /// Budgets that all pools of a service share, beside their own. Default: none. Example:
    /// `[{name: hosting-package, maxUnavailable: 3%, atMost: 20}]`.
    #[serde(default)]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub services: Vec<ServiceBudget>,
    /// When a room or site counts as dark. Then nothing is started in it, and rollouts that have devices in it wait until it
    /// answers again; its devices do not count as failed.
    #[serde(default)]
    pub dark: Dark,
    /// Versions that are never installed, whatever a baseline says. Default: none. What runs already is left alone.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub denied_versions: Vec<DeniedVersion>,
    /// Limits on the traffic to BMCs.
    #[serde(default)]
    pub bmc: BmcTraffic,
    /// What a commit may remove.
    #[serde(default)]
    pub prune: PruneGuard,
}

/// When a room or site counts as dark: both must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dark {
    /// More than this share of its devices does not answer, in percent of those that were ever read. Default `50`. Example: `30`.
    #[serde(default = "default_dark_percent")]
    #[schemars(range(min = 1, max = 99))]
    pub percent: u8,
    /// At least so many devices do not answer. Default `5`. Example: `10`.
    #[serde(default = "default_dark_devices")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub devices: u32,
}

fn default_dark_percent() -> u8 {
    50
}
fn default_dark_devices() -> u32 {
    5
}
impl Default for Dark {
    fn default() -> Self {
        Self {
            percent: default_dark_percent(),
            devices: default_dark_devices(),
        }
    }
}

/// What all pools of a service may have unavailable together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceBudget {
    /// The service, as `spec.service` of its pools names it. Example: `hosting-package`.
    #[schemars(length(min = 1, max = 63), regex(pattern = LINE))]
    pub name: String,
    /// Most devices of all its pools that may be unavailable at once: a count, or a percentage of them rounded up. `0` and `0%`
    /// mean that nothing of the service is ever updated. Example: `3%`.
    #[schemars(schema_with = "amount")]
    pub max_unavailable: Amount,
    /// An absolute bound on `maxUnavailable`. Default: none. Example: `20`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub at_most: Option<u32>,
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
    /// The versions, as the BMC reports them. Example: `["1.15.0"]`.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 64), regex(pattern = VERSION)),
        extend("x-kubernetes-list-type" = "set"))]
    pub versions: Vec<String>,
    /// Why, for people: it is shown wherever the rule holds something back. Default empty. Example: `bricks port 2, ticket 4711`.
    #[serde(default)]
    #[schemars(length(max = 256), regex(pattern = LINE))]
    pub reason: String,
}

/// Limits on the traffic to BMCs. One BMC gets at most one change and two reads at once, always.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self.maxConcurrentPerSite <= self.maxConcurrent")
    .message("maxConcurrentPerSite is more than maxConcurrent, so it could never be reached").field_path(".maxConcurrentPerSite"))]
pub struct BmcTraffic {
    /// Most BMCs that are spoken to at once. Default 64.
    #[serde(default = "default_concurrent")]
    #[schemars(range(min = 1, max = 4096))]
    pub max_concurrent: u32,
    /// Most BMCs of one site that are spoken to at once. Default 32.
    #[serde(default = "default_concurrent_per_site")]
    #[schemars(range(min = 1, max = 4096))]
    pub max_concurrent_per_site: u32,
    /// How often a device's inventory is read. Default `10m`. A reading older than three times this is not fresh.
    #[serde(default = "default_read_interval")]
    #[schemars(length(min = 2, max = 32), regex(pattern = DURATION))]
    #[x_kube(validation = Rule::new("self != '0s'").message("an interval must be longer than 0s"))]
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
    #[schemars(range(min = 0, max = 100))]
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
#[schemars(transform = observed)]
pub struct FleetPolicyStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// `Ready`, `Reconciling`, `Stalled`.
    #[serde(default)]
    pub conditions: Conditions,
}
