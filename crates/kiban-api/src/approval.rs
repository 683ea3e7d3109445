//! `Approval`: what a person let happen. People make them, never Git.

use crate::shared::{LABEL, LINE, NAME, written};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// One person's consent to one wave of one revision of a rollout, or to the end of one halt. It never changes; deleting it takes it
/// back for what has not started.
// One printer column after another is no attribute given twice.
#[allow(clippy::duplicated_attributes)]
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "kiban.dev",
    version = "v1alpha1",
    kind = "Approval",
    namespaced,
    doc = "One person's consent to one wave of one revision of a rollout, or to the end of one halt. The chart's ValidatingAdmissionPolicy sees to it that the approver is who asks. It counts if the pool names that person.",
    derive = "PartialEq",
    category = "kiban",
    selectable = ".spec.rollout",
    printcolumn(name = "Rollout", type_ = "string", json_path = ".spec.rollout"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".spec.revision"),
    printcolumn(name = "Wave", type_ = "string", json_path = ".spec.wave"),
    printcolumn(name = "Resumes", type_ = "date", json_path = ".spec.resumes", priority = 1),
    printcolumn(name = "Approver", type_ = "string", json_path = ".spec.approver"),
    printcolumn(name = "Comment", type_ = "string", json_path = ".spec.comment", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = written)]
#[x_kube(validation = Rule::new("self == oldSelf").message("an approval never changes: delete it, and make another"))]
#[x_kube(validation = Rule::new("has(self.wave) != has(self.resumes)").message("give exactly one of wave and resumes"))]
pub struct ApprovalSpec {
    /// Name of the `Rollout`. Example: `hosting-r650-2026q4`.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub rollout: String,
    /// The revision that was looked at, as the rollout's `status.revision` gives it. A newer one needs an approval of its own.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[0-9a-zA-Z-]+$"))]
    pub revision: String,
    /// Name of the wave that may open, as the pool's `rollout.waves[].name` gives it. Example: `production`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub wave: Option<String>,
    /// The halt that ends: its `status.halt.at` in the rollout. The devices that failed are not tried again. Example:
    /// `2026-11-24T02:13:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumes: Option<Time>,
    /// Who approves: the name that the API server knows the requester by. `kubectl auth whoami` prints it. Example:
    /// `mika@example.com`.
    #[schemars(length(min = 1, max = 253), regex(pattern = LINE))]
    pub approver: String,
    /// Groups of the requester's that the approval rests on, where the pool names a group. Default: none. Example: `[sre-leads]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253), regex(pattern = LINE)),
        extend("x-kubernetes-list-type" = "set"))]
    pub groups: Vec<String>,
    /// Why, for people. Default: nothing. Example: `canaries looked at with the vendor, CHG-4711`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512), regex(pattern = LINE))]
    pub comment: String,
}
