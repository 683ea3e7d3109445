//! `Rollout`: one baseline's way over one pool. The operator makes them; people read them.

use crate::shared::Conditions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One baseline's way over one pool. The operator makes it when a baseline of the pool's asks for change, named
/// `<pool>-<baseline>`, and keeps it afterwards as the record of the last change.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kiban.dev",
    version = "v1alpha1",
    kind = "Rollout",
    namespaced,
    status = "RolloutStatus",
    derive = "PartialEq",
    shortname = "kro",
    category = "kiban"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutSpec {
    /// Name of the `HardwarePool`.
    pub pool: String,
    /// Name of the `FirmwareBaseline`.
    pub baseline: String,
}

/// How far a rollout is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Digest of what is wanted: the baseline's components, and the pool's `retry`. A new one starts the waves anew.
    #[serde(default)]
    pub revision: String,
    /// The commit that brought this revision.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub commit: String,
    /// When this revision started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Devices that the change concerned when the revision started: percentages are of these.
    #[serde(default)]
    pub total: u32,
    /// Of them, done.
    #[serde(default)]
    pub done: u32,
    /// Of them, failed.
    #[serde(default)]
    pub failed: u32,
    /// Of them, with an operation under way.
    #[serde(default)]
    pub running: u32,
    /// Present wave, from 1.
    #[serde(default)]
    pub wave: u32,
    /// How many waves there are.
    #[serde(default)]
    pub waves: u32,
    /// For the printer column. Example: `2/4`.
    #[serde(default)]
    pub wave_summary: String,
    /// For the printer column. Example: `8/24`.
    #[serde(default)]
    pub progress: String,
    /// When the present wave was done and its soak began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave_done_at: Option<Time>,
    /// Set when the rollout halted; stays until a new revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halt: Option<Halt>,
    /// When every device of it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// `Ready`, `Reconciling`, `Stalled`, `Halted`.
    #[serde(default)]
    pub conditions: Conditions,
}

/// Why a rollout halted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Halt {
    /// When.
    pub at: Time,
    /// What happened and how to resume.
    pub message: String,
    /// The devices that failed. The first 20.
    #[serde(default)]
    pub devices: Vec<String>,
}
