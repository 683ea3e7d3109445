//! `FleetRepository`: where desired state comes from, and where history goes.

use crate::shared::{Conditions, SecretReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Git repository that holds the fleet's desired state, and the ledger branch that its history is written to.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kiban.dev",
    version = "v1alpha1",
    kind = "FleetRepository",
    plural = "fleetrepositories",
    namespaced,
    status = "FleetRepositoryStatus",
    derive = "PartialEq",
    shortname = "repo",
    category = "kiban"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FleetRepositorySpec {
    /// Address: `https://…` or `ssh://…`. (`file://…` only where the operator was started with `--allow-file-repositories`.)
    pub url: String,
    /// Branch. Default `main`.
    #[serde(default = "default_branch")]
    pub branch: String,
    /// Folder in the repository. Default: all of it.
    #[serde(default)]
    pub path: String,
    /// How often to look for a new commit. Default `1m`. A webhook, or the annotation `kiban.dev/reconcile-at`, makes it look at once.
    #[serde(default = "default_interval")]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LedgerTarget {
    /// Another repository. Default: the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Branch. Default `ledger`.
    #[serde(default = "default_ledger_branch")]
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
