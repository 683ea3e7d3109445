//! `Operation`: one campaign's work on one device.

use crate::{
    baseline::{Activation, Image},
    shared::{ComponentClass, ComponentMatch, Conditions, LINE, NAME, VERSION, observed, written},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One campaign's work on one device: ordered steps. It is named after its device, so that the API server refuses a
/// second one. It is deleted once the ledger holds its outcome.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "kiban.dev",
    version = "v1alpha1",
    kind = "Operation",
    namespaced,
    doc = "One campaign's work on one device: ordered updates. The operator makes it; people read it. It is named after its device, so that the API server refuses a second one, and it is deleted once the ledger holds its outcome.",
    status = "OperationStatus",
    derive = "PartialEq",
    shortname = "op",
    category = "kiban",
    selectable = ".spec.pool",
    selectable = ".status.outcome",
    printcolumn(name = "Device", type_ = "string", json_path = ".spec.device"),
    printcolumn(name = "Campaign", type_ = "string", json_path = ".spec.campaign"),
    printcolumn(name = "Wave", type_ = "integer", json_path = ".spec.wave"),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.step"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Outcome", type_ = "string", json_path = ".status.outcome"),
    printcolumn(name = "Started", type_ = "date", json_path = ".status.startedAt"),
    printcolumn(name = "Executor", type_ = "string", json_path = ".status.executor", priority = 1),
    printcolumn(name = "Commit", type_ = "string", json_path = ".spec.commit", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name == self.spec.device")
        .message("an operation is named after its device, so that a device can have only one"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = written)]
#[x_kube(validation = Rule::new(
    "self.id == oldSelf.id && self.device == oldSelf.device && self.campaign == oldSelf.campaign && self.pool == oldSelf.pool && self.revision == oldSelf.revision && self.commit == oldSelf.commit && self.wave == oldSelf.wave && self.updates == oldSelf.updates")
    .message("an operation's spec never changes, its epoch aside"))]
#[x_kube(validation = Rule::new("self.epoch >= oldSelf.epoch")
    .message("an operation's epoch never goes back: a planner that lost its lease wrote this"))]
pub struct OperationSpec {
    /// Unique id of the operation, also in the ledger's file name. Derived from device, rollout and revision.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub id: String,
    /// Name of the `Device`. The same as this object's name.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME))]
    pub device: String,
    /// What wants it. Example: `Rollout/hosting-r650-2026q4`.
    #[schemars(length(min = 1, max = 128), regex(pattern = LINE))]
    pub campaign: String,
    /// Name of the pool, for budgets.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME))]
    pub pool: String,
    /// Digest of what is wanted, as in the rollout's status.
    #[schemars(length(min = 1, max = 128), regex(pattern = LINE))]
    pub revision: String,
    /// The commit that caused it. Default empty: not known.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub commit: String,
    /// The wave, from 1.
    pub wave: u32,
    /// The planner's epoch (`leaseTransitions` of its Lease) that granted it. An executor starts only operations of the current epoch.
    #[schemars(range(min = 0))]
    pub epoch: i64,
    /// The updates, in order.
    #[schemars(length(min = 1, max = 64))]
    pub updates: Vec<PlannedUpdate>,
}

/// One component's update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlannedUpdate {
    /// Class.
    pub class: ComponentClass,
    /// Which components of the class. Default: all.
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub match_: Option<ComponentMatch>,
    /// The component's name, for people. Whatever the BMC said: a bound that a status keeps must be kept here, too.
    #[schemars(length(max = 1024))]
    pub name: String,
    /// Version when it was planned, as the BMC said it.
    #[schemars(length(max = 1024))]
    pub from: String,
    /// Version wanted.
    #[schemars(length(min = 1, max = 64), regex(pattern = VERSION))]
    pub to: String,
    /// The image.
    pub image: Image,
    /// What makes it run.
    pub activation: Activation,
}

/// How an operation stands. Written by the executor that holds the device's shard, with a resourceVersion precondition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = observed)]
pub struct OperationStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Held`. The last three are final.
    #[serde(default)]
    pub outcome: String,
    /// For the printer column: the step. Example: `verify`.
    #[serde(default)]
    pub step: String,
    /// For the printer column: which of the updates. Example: `1/2`.
    #[serde(default)]
    pub progress: String,
    /// The executor that runs it: a pod's name and a number of its own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub executor: String,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Index of the update under way.
    #[serde(default)]
    pub update: u32,
    /// Written before an irreversible request is sent; cleared with its outcome. An intent without an outcome is settled by reading the
    /// BMC, never by sending again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    /// What was done, update by update.
    #[serde(default)]
    pub results: Vec<UpdateResult>,
    /// Host resets so far.
    #[serde(default)]
    pub resets: u32,
    /// What happened, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// CamelCase category of a failure. Example: `TaskFailed`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// `Ready`, `Reconciling`, `Stalled`.
    #[serde(default)]
    pub conditions: Conditions,
}

/// What an executor is about to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// Index of the update.
    pub update: u32,
    /// Component, for people.
    pub component: String,
    /// Version before.
    pub from: String,
    /// Version wanted.
    pub to: String,
    /// SHA-256 of the image.
    pub sha256: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// When it was written.
    pub at: Time,
    /// Until when the executor's call may still be on its way: whoever takes over waits this out before settling.
    pub call_deadline: Time,
    /// The BMC's task, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Resets asked for, each recorded before it is sent, so that a crash does not repeat it blindly.
    #[serde(default)]
    pub resets: Vec<IntentReset>,
}

/// A reset that an executor is about to send, or sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IntentReset {
    /// `BMCReset`, `HostReset`, `ColdBoot`, `ACCycle` or `PowerOn`.
    pub kind: String,
    /// When it was written.
    pub at: Time,
    /// Until when the executor's call may still be on its way.
    pub call_deadline: Time,
}

/// What was done with one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateResult {
    /// Component, for people.
    pub component: String,
    /// Version before.
    pub before: String,
    /// Version after, as read back.
    pub after: String,
    /// `Succeeded`, `AlreadyThere`, `Failed` or `Unknown`.
    pub outcome: String,
    /// Attempts sent.
    pub attempts: u32,
}
