//! `HardwarePool`: the devices that serve one service.

use crate::shared::{Amount, Conditions};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The devices that serve one service, with what that service demands of them.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kiban.dev",
    version = "v1alpha1",
    kind = "HardwarePool",
    plural = "hardwarepools",
    namespaced,
    status = "HardwarePoolStatus",
    derive = "PartialEq",
    shortname = "pool",
    shortname = "pools",
    category = "kiban"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HardwarePoolSpec {
    /// The service that the pool serves. Example: `hosting-package`.
    pub service: String,
    /// `Public`: lean hardware, open source. `Private`: redundant hardware, certified products.
    #[serde(default)]
    pub class: PoolClass,
    /// `Staging` mirrors production and is changed first.
    #[serde(default)]
    pub role: PoolRole,
    /// Names of the `FirmwareBaseline`s that the pool's devices are kept at; at most one may speak of a model.
    #[serde(default)]
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
    /// Most devices of the pool that may be unavailable at once: a count, or a percentage rounded up. Default `1`.
    #[serde(default = "one")]
    pub max_unavailable: Amount,
    /// Most devices of the pool that may be unavailable at once in one failure domain. Default `1`.
    #[serde(default = "one_u32")]
    pub max_per_domain: u32,
    /// What a failure domain is. Default `Rack`.
    #[serde(default)]
    pub domain: FailureDomain,
}

/// What a failure domain is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum FailureDomain {
    #[default]
    Rack,
    Room,
    Site,
}

/// How a change spreads over a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutStrategy {
    /// The waves, in order. Each says how far the change has spread when the wave is done, of all devices that the change concerns;
    /// the last is implied to be 100 %. Default: 1 device, then 10 %, then 100 %, without a soak.
    #[serde(default = "default_waves")]
    pub waves: Vec<Wave>,
    /// When the rollout halts. A halt stays until a commit changes the baseline or `retry`.
    #[serde(default)]
    pub halt_after: HaltAfter,
    /// Change it (any larger number) to try again the devices that failed, and to resume a halted rollout.
    #[serde(default)]
    pub retry: u32,
}

/// One wave: how far the change has spread when it is done, and how long it soaks then. Exactly one of `devices` and `percent`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wave {
    /// Devices that have the change when the wave is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub devices: Option<u32>,
    /// Percent of the devices concerned that have the change when the wave is done, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// How long to wait after the wave before the next one opens. Example: `24h`, `90m`. Default `0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak: Option<String>,
}

/// When a rollout halts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HaltAfter {
    /// Devices that failed. Default `1`: the first failure halts.
    #[serde(default = "one_u32")]
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
        devices: None,
        percent: Some(p),
        soak: None,
    };
    vec![
        Wave {
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
            max_per_domain: 1,
            domain: FailureDomain::Rack,
        }
    }
}
impl Default for RolloutStrategy {
    fn default() -> Self {
        Self {
            waves: default_waves(),
            halt_after: HaltAfter::default(),
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
