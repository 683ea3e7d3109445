//! `FleetRepository`: where desired state comes from, and where history goes.

use crate::shared::{BRANCH, Conditions, DURATION, LINE, SecretReference, observed, written};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Git repository that holds the fleet's desired state, and the ledger branch that its history is written to.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "kiban.dev",
    version = "v1alpha1",
    kind = "FleetRepository",
    plural = "fleetrepositories",
    namespaced,
    doc = "A Git repository that holds the fleet's desired state, and the ledger branch that its history is written to. A commit is applied whole or not at all; its status says which one is, and why a newer one is not.",
    status = "FleetRepositoryStatus",
    derive = "PartialEq",
    shortname = "repo",
    category = "kiban",
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url", priority = 1),
    printcolumn(name = "Branch", type_ = "string", json_path = ".spec.branch", priority = 1),
    printcolumn(name = "Commit", type_ = "string", json_path = ".status.applied.commit", description = "The commit that is applied"),
    printcolumn(name = "Signer", type_ = "string", json_path = ".status.applied.signer"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message"),
    printcolumn(name = "Ledger pushed", type_ = "date", json_path = ".status.ledger.pushedAt", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 63")
        .message("a repository's name must have at most 63 characters: it is written to labels"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = written)]
#[x_kube(validation = Rule::new("has(self.ledger.url) || self.ledger.branch != self.branch")
    .message("the ledger must be another branch than the desired state: history is written to it").field_path(".ledger.branch"))]
pub struct FleetRepositorySpec {
    /// Address: `https://…` or `ssh://…`. (`file://…` only where the operator was started with `--allow-file-repositories`.)
    /// Example: `ssh://git@git.example/fleet.git`.
    #[schemars(length(min = 8, max = 512), regex(pattern = r"^[a-z0-9+]+://[!-~]+$"))]
    #[x_kube(validation = Rule::new("self.startsWith('https://') || self.startsWith('ssh://') || self.startsWith('file:///')")
        .message("must begin with https://, ssh:// or file:/// (for git@host:path write ssh://git@host/path)"))]
    #[x_kube(validation = Rule::new("!self.matches('^[a-z+]*://[^/@]*:[^/@]*@') && !self.matches('^https://[^/]*@')")
        .message("must not carry an account or a password: put them into a Secret and name it in credentials"))]
    pub url: String,
    /// Branch. Default `main`. Changing it applies the other branch's tip, under the prune guard.
    #[serde(default = "default_branch")]
    #[schemars(length(min = 1, max = 200), regex(pattern = BRANCH))]
    #[x_kube(validation = Rule::new("!self.contains('..') && !self.contains('//') && !self.endsWith('/') && !self.endsWith('.') && !self.endsWith('.lock')")
        .message("is not a name that Git takes for a branch"))]
    pub branch: String,
    /// Folder in the repository. Default: all of it. Example: `fleets/tokyo`.
    #[serde(default)]
    #[schemars(length(max = 512), regex(pattern = LINE))]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.contains('\\\\') && !self.split('/').exists(part, part == '..')")
        .message("must be a folder inside the repository, without a leading / and without .."))]
    pub path: String,
    /// How often to look for a new commit. Default `1m`. A webhook, or the annotation `kiban.dev/reconcile-at`, makes it look at once.
    #[serde(default = "default_interval")]
    #[schemars(length(min = 2, max = 32), regex(pattern = DURATION))]
    #[x_kube(validation = Rule::new("self != '0s'").message("an interval must be longer than 0s"))]
    pub interval: String,
    /// Stop looking for new commits. Default false.
    #[serde(default)]
    pub suspend: bool,
    /// Secret with `username` and `password` (https), or `identity` and `known_hosts` (ssh), and `ca.crt` for a private authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<SecretReference>,
    /// Whose signature a commit must carry. Default: none is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// Where history is written. Default: the branch `ledger` of the same repository.
    #[serde(default)]
    pub ledger: LedgerTarget,
}

/// Whose signature a commit must carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verify {
    /// Secret with `allowed_signers` (the format of ssh-keygen's ALLOWED SIGNERS), or OpenPGP public keys in `*.asc`, or both.
    pub keys: SecretReference,
}

/// Where history is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LedgerTarget {
    /// Another repository, in the same forms as `spec.url`. Default: the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 512), regex(pattern = r"^[a-z0-9+]+://[!-~]+$"))]
    #[x_kube(validation = Rule::new("self.startsWith('https://') || self.startsWith('ssh://') || self.startsWith('file:///')")
        .message("must begin with https://, ssh:// or file:/// (for git@host:path write ssh://git@host/path)"))]
    #[x_kube(validation = Rule::new("!self.matches('^[a-z+]*://[^/@]*:[^/@]*@') && !self.matches('^https://[^/]*@')")
        .message("must not carry an account or a password: put them into a Secret and name it in credentials"))]
    pub url: Option<String>,
    /// Branch. Default `ledger`.
    #[serde(default = "default_ledger_branch")]
    #[schemars(length(min = 1, max = 200), regex(pattern = BRANCH))]
    #[x_kube(validation = Rule::new("!self.contains('..') && !self.contains('//') && !self.endsWith('/') && !self.endsWith('.') && !self.endsWith('.lock')")
        .message("is not a name that Git takes for a branch"))]
    pub branch: String,
    /// Secret, as `spec.credentials`. Default: the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<SecretReference>,
    /// Secret whose `identity` (an OpenSSH private key) signs ledger commits. Default: they are not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<SecretReference>,
}

fn default_branch() -> String {
    "main".into()
}
fn default_interval() -> String {
    "1m".into()
}
fn default_ledger_branch() -> String {
    "ledger".into()
}
impl Default for LedgerTarget {
    fn default() -> Self {
        Self {
            url: None,
            branch: default_ledger_branch(),
            credentials: None,
            signing_key: None,
        }
    }
}

/// What is applied, and how history is getting out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = observed)]
pub struct FleetRepositoryStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// The commit that is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<AppliedCommit>,
    /// The newest commit seen, when it is not the applied one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_commit: Option<String>,
    /// Why it was refused: every error with file, line and field. The first 50.
    #[serde(default)]
    #[schemars(length(max = 50))]
    pub errors: Vec<SourceError>,
    /// How many errors there are in all.
    #[serde(default)]
    pub error_count: u32,
    /// Last handled value of the annotation `kiban.dev/reconcile-at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// The ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerStatus>,
    /// `Ready`, `Reconciling`, `Stalled`, `Fetched`, `Verified`, `Validated`, `Applied`, `LedgerPushed`.
    #[serde(default)]
    pub conditions: Conditions,
}

/// The commit that is applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedCommit {
    /// Full commit id.
    pub commit: String,
    /// First line of its message.
    pub subject: String,
    /// Author, name and address.
    pub author: String,
    /// Who signed it; empty: nobody, and nobody was asked to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub signer: String,
    /// Since when it is applied.
    pub at: Time,
    /// Documents in it.
    pub documents: u32,
}

/// One error in a commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceError {
    /// File in the repository.
    pub file: String,
    /// Line, from 1; 0: the whole file.
    #[serde(default)]
    pub line: u32,
    /// Field path. Example: `spec.disruption.maxUnavailable`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// How history is getting out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerStatus {
    /// Tip that was pushed last: what the remote must still contain.
    pub commit: String,
    /// When the ledger was last pushed.
    pub pushed_at: Time,
}
