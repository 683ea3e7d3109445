//! Every name that Kiban writes on objects: labels, annotations, finalizers, field managers. One place, so that
//! a user can search for what they see.

/// The API group of every kind.
pub const GROUP: &str = "kiban.dev";
/// The API version of every kind.
pub const VERSION: &str = "v1alpha1";

/// Finalizer on an `Operation`: released only when the ledger commit that holds its outcome is pushed.
pub const LEDGER_FINALIZER: &str = "kiban.dev/ledger";

/// Label on every object that came from Git: the name of its `FleetRepository`. Pruning looks at nothing else.
pub const REPOSITORY_LABEL: &str = "kiban.dev/repository";
/// Annotation on every object that came from Git: `path:line` in the repository.
pub const SOURCE_ANNOTATION: &str = "kiban.dev/source";
/// Annotation on every object that came from Git: the commit that last changed it.
pub const COMMIT_ANNOTATION: &str = "kiban.dev/commit";
/// Annotation that makes the operator look at once: any changed value, usually the present time.
pub const RECONCILE_ANNOTATION: &str = "kiban.dev/reconcile-at";
/// Annotation on a `FleetRepository`: the full commit id whose held-back prune a person confirms.
pub const CONFIRM_PRUNE_ANNOTATION: &str = "kiban.dev/confirm-prune";
/// Annotation on a `FleetRepository`: the full commit id of rewritten history that a person accepts.
pub const ACCEPT_REWRITE_ANNOTATION: &str = "kiban.dev/accept-rewrite";
/// Annotation on a held `Device`: the id of the operation whose hold a person releases after having looked.
pub const RELEASE_HOLD_ANNOTATION: &str = "kiban.dev/release-hold";
/// Label on an `Operation` and a `Rollout`: the pool.
pub const POOL_LABEL: &str = "kiban.dev/pool";
/// Label on an `Operation`: the rollout that caused it.
pub const ROLLOUT_LABEL: &str = "kiban.dev/rollout";
/// Label on a `Device`, written in Git: its redundancy group. Of one group only one device is down at a time, whatever pools
/// they are in. Example: `storage-pair-7`.
pub const REDUNDANCY_GROUP_LABEL: &str = "kiban.dev/redundancy-group";
/// Label on objects that the operator itself made.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Its value.
pub const MANAGED_BY: &str = "kiban";

/// Field manager of what sync applies from Git.
pub const SYNC_MANAGER: &str = "kiban-sync";
/// Field manager of the planner: `Rollout`s, `Operation`s, and in a device's status what waits on what.
pub const PLANNER_MANAGER: &str = "kiban-planner";
/// Field manager of the executors: an operation's progress, and a device's observed state.
pub const EXECUTOR_MANAGER: &str = "kiban-executor";
/// Field manager of the ledger.
pub const LEDGER_MANAGER: &str = "kiban-ledger";
