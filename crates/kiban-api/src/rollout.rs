//! `Rollout`: one baseline's way over one pool. The operator makes them; people read them.

use crate::shared::{Conditions, NAME, observed, written};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One baseline's way over one pool. The operator makes it when a baseline of the pool's asks for change, named
/// `<pool>-<baseline>`, and keeps it afterwards as the record of the last change.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "kiban.dev",
    version = "v1alpha1",
    kind = "Rollout",
    namespaced,
    doc = "One baseline's way over one pool, wave by wave. The operator makes it; people read it. To resume a halted rollout, commit a change to the baseline, or a larger rollout.retry in the pool, or approve where the pool says who may.",
    status = "RolloutStatus",
    derive = "PartialEq",
    shortname = "kro",
    category = "kiban",
    selectable = ".spec.pool",
    selectable = ".spec.baseline",
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Baseline", type_ = "string", json_path = ".spec.baseline"),
    printcolumn(name = "Wave", type_ = "string", json_path = ".status.waveSummary", description = "Present wave, of how many"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress", description = "Devices done, of how many"),
    printcolumn(name = "Running", type_ = "integer", json_path = ".status.running"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.failed"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Halted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Halted\")].status"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1),
    printcolumn(name = "Commit", type_ = "string", json_path = ".status.commit", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name == self.spec.pool + '-' + self.spec.baseline")
        .message("a rollout is named <pool>-<baseline>"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = written)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a rollout's spec never changes"))]
pub struct RolloutSpec {
    /// Name of the `HardwarePool`. Example: `hosting-package`.
    #[schemars(length(min = 1, max = 61), regex(pattern = NAME))]
    pub pool: String,
    /// Name of the `FirmwareBaseline`. Example: `r650-2026q4`.
    #[schemars(length(min = 1, max = 61), regex(pattern = NAME))]
    pub baseline: String,
}

/// How far a rollout is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = observed)]
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
    /// How the pool's gates stand. Written when a state changes, not with each measurement.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub gates: Vec<GateStatus>,
    /// The approvals that counted, in the order in which they did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub approvals: Vec<GivenApproval>,
    /// The last halt that an approval ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
    /// The devices that went first of their classes (model, parts and present versions alike). The first 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub canaries: Vec<Canary>,
    /// Set when the rollout halted; stays until a new revision, or an approval that ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halt: Option<Halt>,
    /// When every device of it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// `Ready`, `Reconciling`, `Stalled`, `Halted`.
    #[serde(default)]
    pub conditions: Conditions,
}

/// An approval that counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GivenApproval {
    /// Name of the `Approval`.
    pub approval: String,
    /// `wave <name>`, or `resume`.
    pub what: String,
    /// Who gave it.
    pub by: String,
    /// When it was given.
    pub at: Time,
}

/// A halt that an approval ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resumed {
    /// When the halt had begun.
    pub halt: Time,
    /// When it was ended.
    pub at: Time,
    /// Devices that had failed until then. They do not halt again.
    #[serde(default)]
    pub failed: u32,
    /// Devices that were in critical health then. They do not halt again.
    #[serde(default)]
    pub lost: u32,
}

/// How a gate stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateStatus {
    /// Name of the gate.
    pub name: String,
    /// `Holds`, `Fails`, or `NoData`: not measured, or nothing that says anything came of it.
    pub state: String,
    /// Since when.
    pub since: Time,
    /// What was seen when it became so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// The device that went first of its class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// Digest of the class: the model, and the present versions of what is to change.
    pub class: String,
    /// Name of the device.
    pub device: String,
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
    #[schemars(length(max = 20))]
    pub devices: Vec<String>,
}
