//! The custom resources of Kiban (group `kiban.dev`, version `v1alpha1`).
//!
//! ```text
//!   YAML in Git ──validate──▶ kinds (kube types) ──convert──▶ kiban-core's domain types
//! ```
//!
//! The kinds are a boundary: nothing decides on them. [`convert`] parses them once into the domain's types, with
//! errors that name the field. The doc comments on fields are the manual: they are what `kubectl explain` prints.

// `KubeSchema` repeats each struct inside a function, where no `pub` can be reached.
#![allow(unreachable_pub)]

pub mod approval;
pub mod baseline;
pub mod bounds;
pub mod convert;
pub mod device;
pub mod gate;
pub mod generate;
pub mod labels;
pub mod model;
pub mod operation;
pub mod policy;
pub mod pool;
pub mod rbac;
pub mod repository;
pub mod rollout;
pub mod shared;
pub mod validate;

pub use approval::{Approval, ApprovalSpec};
pub use baseline::{FirmwareBaseline, FirmwareBaselineSpec, FirmwareBaselineStatus};
pub use device::{Device, DeviceSpec, DeviceStatus};
pub use model::{HardwareModel, HardwareModelSpec};
pub use operation::{Operation, OperationSpec, OperationStatus};
pub use policy::{FleetPolicy, FleetPolicySpec, FleetPolicyStatus};
pub use pool::{HardwarePool, HardwarePoolSpec, HardwarePoolStatus};
pub use repository::{FleetRepository, FleetRepositorySpec, FleetRepositoryStatus};
pub use rollout::{Rollout, RolloutSpec, RolloutStatus};
