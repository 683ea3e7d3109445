//! `Operation`: one campaign's work on one device.

use crate::{
    baseline::Activation, baseline::Image, shared::ComponentClass, shared::ComponentMatch, shared::Conditions,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One campaign's work on one device: ordered steps. It is named after its device, so that the API server refuses a
/// second one. It is deleted once the ledger holds its outcome.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kiban.dev",
    version = "v1alpha1",
    kind = "Operation",
    namespaced,
    status = "OperationStatus",
    derive = "PartialEq",
    shortname = "op",
    category = "kiban"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OperationSpec {
    /// Unique id of the operation, also in the ledger's file name. Derived from device, rollout and revision.
    pub id: String,
    /// Name of the `Device`. The same as this object's name.
    pub device: String,
    /// What wants it. Example: `Rollout/hosting-r650-2026q4`.
    pub campaign: String,
    /// Name of the pool, for budgets.
    pub pool: String,
    /// Digest of what is wanted, as in the rollout's status.
    pub revision: String,
    /// The commit that caused it.
    #[serde(default)]
    pub commit: String,
    /// The wave, from 1.
    pub wave: u32,
    /// The planner's epoch (`leaseTransitions` of its Lease) that granted it. An executor starts only operations of the current epoch.
    pub epoch: i64,
    /// The updates, in order.
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
    /// The component's name, for people.
    pub name: String,
    /// Version when it was planned.
    pub from: String,
    /// Version wanted.
    pub to: String,
    /// The image.
    pub image: Image,
    /// What makes it run.
    pub activation: Activation,
}

/// How an operation stands. Written by the executor that holds the device's shard, with a resourceVersion precondition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
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
