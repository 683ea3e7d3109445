//! `HardwarePool`: the devices that serve one service.

use crate::{
    gate::Gate,
    shared::{Amount, Conditions, DURATION, LABEL, LINE, NAME, amount, observed, written},
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The devices that serve one service, with what that service demands of them.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "kiban.dev",
    version = "v1alpha1",
    kind = "HardwarePool",
    plural = "hardwarepools",
    namespaced,
    doc = "The devices that serve one service, with what that service demands of them: which baselines they are kept at, how much of them may be disrupted at once, and how a change spreads.",
    status = "HardwarePoolStatus",
    derive = "PartialEq",
    shortname = "pool",
    shortname = "pools",
    category = "kiban",
    printcolumn(name = "Service", type_ = "string", json_path = ".spec.service"),
    printcolumn(name = "Class", type_ = "string", json_path = ".spec.class"),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role", priority = 1),
    printcolumn(name = "Bound", type_ = "integer", json_path = ".status.bound", description = "Devices bound"),
    printcolumn(name = "Compliant", type_ = "string", json_path = ".status.compliantSummary", description = "Devices at their baseline"),
    printcolumn(name = "Updating", type_ = "integer", json_path = ".status.updating", description = "Devices with an operation under way"),
    printcolumn(name = "Unavailable", type_ = "string", json_path = ".status.unavailableSummary", description = "Unavailable now, of how many may be"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 61")
        .message("a pool's name must have at most 61 characters: its rollouts are named <pool>-<baseline>"),
    validation = Rule::new("self.spec.baselines.all(b, size(self.metadata.name) + size(b) <= 62)")
        .message("the names of a pool and a baseline of its must have at most 62 characters together: their rollout is named <pool>-<baseline>"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = written)]
pub struct HardwarePoolSpec {
    /// The service that the pool serves. Pools of one service share the budget that the `FleetPolicy` gives to it
    /// (`spec.services`). Example: `hosting-package`.
    #[schemars(length(min = 1, max = 63), regex(pattern = LINE))]
    pub service: String,
    /// `Public`: lean hardware, open source. `Private`: redundant hardware, certified products. Default `Public`.
    #[serde(default)]
    pub class: PoolClass,
    /// `Staging` mirrors production and is changed first. Default `Production`.
    #[serde(default)]
    pub role: PoolRole,
    /// Names of the `FirmwareBaseline`s that the pool's devices are kept at; at most one may speak of a model. Default
    /// empty: nothing is changed on its devices. Example: `[r650-2026q4, sr630-2026q4]`.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(min = 1, max = 61), regex(pattern = NAME)),
        extend("x-kubernetes-list-type" = "set"))]
    pub baselines: Vec<String>,
    /// How much may be disrupted at once.
    #[serde(default)]
    pub disruption: Disruption,
    /// How a change spreads.
    #[serde(default)]
    pub rollout: RolloutStrategy,
}

/// Who the pool's service is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum PoolClass {
    #[default]
    Public,
    Private,
}

/// What the pool is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum PoolRole {
    #[default]
    Production,
    Staging,
}

/// How much of a pool may be disrupted at once. Devices that are unhealthy, unreachable or held use it up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Disruption {
    /// Most devices of the pool that may be unavailable at once: a count, or a percentage rounded up. Default `1`. `0` and
    /// `0%` mean that nothing is ever updated. Example: `5%`.
    #[serde(default = "one")]
    #[schemars(schema_with = "amount")]
    pub max_unavailable: Amount,
    /// An absolute bound on `maxUnavailable`, for a pool that grows. Default: none. Example: with `maxUnavailable: 5%` and
    /// `atMost: 40`, a pool of 2,000 devices has at most 40 down, not 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub at_most: Option<u32>,
    /// Most devices of the pool that may be unavailable at once in one failure domain. Default `1`. Example: `2`.
    #[serde(default = "one_u32")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_per_domain: u32,
    /// What a failure domain is, of the devices' `location`. Default `Rack`.
    #[serde(default)]
    pub domain: FailureDomain,
    /// Further limits on the pool's devices, one per kind of failure domain. Default: none. Example:
    /// `[{over: Power, max: 4}, {over: Room, max: 10}]`. Limits on all pools together are the `FleetPolicy`'s.
    #[serde(default)]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["over"]))]
    pub domains: Vec<DomainLimit>,
    /// Which pool is served first where several share a budget (the fleet's, a service's, a rack's): the one with the larger
    /// number; among equals the one that has the smaller share of its devices unavailable. Default `0`. Example: `10`.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
}

/// Most devices that may be unavailable at once in each failure domain of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DomainLimit {
    /// The kind of failure domain, of the devices' `location`. Example: `Power`.
    pub over: FailureDomain,
    /// How many devices in each. Example: `2`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max: u32,
}

/// What a failure domain is: `Rack`, `Room`, `Site`, or `Power` (a power feed: a device on two feeds is in both).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum FailureDomain {
    #[default]
    Rack,
    Room,
    Site,
    Power,
}

/// How a change spreads over a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new(
    "self.waves.filter(w, has(w.percent)).all(w, self.waves.filter(v, has(v.percent) && v.percent == w.percent).size() == 1) && self.waves.filter(w, has(w.percent)).map(w, w.percent).isSorted()")
    .message("the waves' percents must grow from wave to wave").field_path(".waves"))]
#[x_kube(validation = Rule::new(
    "self.waves.filter(w, has(w.devices)).all(w, self.waves.filter(v, has(v.devices) && v.devices == w.devices).size() == 1) && self.waves.filter(w, has(w.devices)).map(w, w.devices).isSorted()")
    .message("the waves' devices must grow from wave to wave").field_path(".waves"))]
#[x_kube(validation = Rule::new(
    "self.waves.filter(w, has(w.name)).all(w, self.waves.filter(v, has(v.name) && v.name == w.name).size() == 1)")
    .message("two waves must not have one name").field_path(".waves"))]
#[x_kube(validation = Rule::new(
    "!has(self.gates) || self.gates.all(g, !has(g.waves) || g.waves.all(n, self.waves.exists(w, has(w.name) && w.name == n)))")
    .message("a gate names a wave that there is not: give the wave that name, or correct the gate's waves").field_path(".gates"))]
#[x_kube(validation = Rule::new(
    "!has(self.approvals) || self.approvals.all(a, self.waves.exists(w, has(w.name) && w.name == a.beforeWave))")
    .message("an approval names a wave that there is not: give the wave that name, or correct beforeWave").field_path(".approvals"))]
pub struct RolloutStrategy {
    /// The waves, in order. The first is the canaries': it lasts until every class of devices (model, parts and present
    /// versions alike) has one through well, even where it is smaller than their number. Each says how far the change has spread when the wave is done, of all devices that the change concerns;
    /// the last is implied to be 100 %. Default: 1 device, then 10 %, then 100 %, without a soak. Example:
    /// `[{devices: 1}, {percent: 5, soak: 24h}, {percent: 100}]`.
    #[serde(default = "default_waves")]
    #[schemars(length(min = 1, max = 20))]
    pub waves: Vec<Wave>,
    /// When the rollout halts. A halt stays until a commit changes the baseline or `retry`.
    #[serde(default)]
    pub halt_after: HaltAfter,
    /// What must hold before a wave opens. Default: nothing beside the waves before it. Example:
    /// `[{name: slo, prometheus: {url: https://prometheus.example, query: 'avg(up{job="hosting"})', condition: '> 0.99'}}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub gates: Vec<Gate>,
    /// Who must approve before a wave opens. Default: nobody. Example:
    /// `[{beforeWave: production, by: {groups: [sre-leads]}}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub approvals: Vec<ApprovalRule>,
    /// Who may end a halt by an `Approval`, instead of by a commit. Default: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumable_by: Option<People>,
    /// Change it (any larger number) to try again the devices that failed, and to resume a halted rollout.
    #[serde(default)]
    pub retry: u32,
}

/// Who must approve before a wave opens: by an `Approval` of the present revision and that wave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovalRule {
    /// Name of the wave, as `waves[].name` gives it. Example: `production`.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub before_wave: String,
    /// Who may. One of them is enough; give two rules for one wave where two are wanted.
    pub by: People,
}

/// People, as the API server knows them: `kubectl auth whoami` prints both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("(has(self.users) && size(self.users) > 0) || (has(self.groups) && size(self.groups) > 0)")
    .message("name a user or a group: nobody could ever approve"))]
pub struct People {
    /// Names. Default: none. Example: `[mika@example.com]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253), regex(pattern = LINE)),
        extend("x-kubernetes-list-type" = "set"))]
    pub users: Vec<String>,
    /// Groups. Default: none. Example: `[sre-leads]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253), regex(pattern = LINE)),
        extend("x-kubernetes-list-type" = "set"))]
    pub groups: Vec<String>,
}

/// One wave: how far the change has spread when it is done, and how long it soaks then. Exactly one of `devices` and `percent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.devices) != has(self.percent)")
    .message("give exactly one of devices and percent"))]
pub struct Wave {
    /// A name, for gates to say which waves they guard. Default: none. Example: `production`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub name: Option<String>,
    /// Devices that have the change when the wave is done. Example: `1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub devices: Option<u32>,
    /// Percent of the devices concerned that have the change when the wave is done, rounded up. Example: `25`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<u32>,
    /// How long to wait after the wave before the next one opens. Example: `24h`, `90m`. Default `0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = DURATION))]
    pub soak: Option<String>,
}

/// When a rollout halts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HaltAfter {
    /// Devices that failed. Default `1`: the first failure halts. Held devices count as failed.
    #[serde(default = "one_u32")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub failed: u32,
}

fn one() -> Amount {
    Amount::Int(1)
}
fn one_u32() -> u32 {
    1
}
fn default_waves() -> Vec<Wave> {
    let percent = |p| Wave {
        name: None,
        devices: None,
        percent: Some(p),
        soak: None,
    };
    vec![
        Wave {
            name: None,
            devices: Some(1),
            percent: None,
            soak: None,
        },
        percent(10),
        percent(100),
    ]
}
impl Default for Disruption {
    fn default() -> Self {
        Self {
            max_unavailable: one(),
            at_most: None,
            max_per_domain: 1,
            domain: FailureDomain::Rack,
            domains: Vec::new(),
            priority: 0,
        }
    }
}
impl Default for RolloutStrategy {
    fn default() -> Self {
        Self {
            waves: default_waves(),
            halt_after: HaltAfter::default(),
            gates: Vec::new(),
            approvals: Vec::new(),
            resumable_by: None,
            retry: 0,
        }
    }
}
impl Default for HaltAfter {
    fn default() -> Self {
        Self { failed: 1 }
    }
}

/// How a pool stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = observed)]
pub struct HardwarePoolStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Devices bound.
    #[serde(default)]
    pub bound: u32,
    /// Devices at their baseline.
    #[serde(default)]
    pub compliant: u32,
    /// For the printer column. Example: `113 (96%)`.
    #[serde(default)]
    pub compliant_summary: String,
    /// Devices with an operation under way.
    #[serde(default)]
    pub updating: u32,
    /// Devices unavailable now, over what the budget allows. Example: `3/6`.
    #[serde(default)]
    pub unavailable_summary: String,
    /// `Ready`, `Reconciling`, `Stalled`, `BaselinesResolved`.
    #[serde(default)]
    pub conditions: Conditions,
}
