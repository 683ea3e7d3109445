//! What is wrong with the facts: found by the plan, told to people, and never a reason to act.

use serde::Serialize;
use std::fmt;

/// One thing that a person should mend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "reason")]
pub enum Finding {
    /// Two baselines of a pool speak of one model: its devices wait.
    BaselineConflict {
        /// Pool.
        pool: String,
        /// Model.
        model: String,
        /// The baselines.
        baselines: Vec<String>,
    },
    /// A pool names a baseline that does not exist.
    BaselineNotFound {
        /// Pool.
        pool: String,
        /// Baseline.
        baseline: String,
    },
    /// No device of a class can be its canary: the class is left out, and the others go on without one.
    CanaryLeftOut {
        /// Pool.
        pool: String,
        /// Baseline.
        baseline: String,
        /// Devices of the class.
        devices: u32,
        /// The first of them.
        first: String,
    },
    /// Devices claim to be the same machine: they wait.
    Duplicate {
        /// The devices, by name: the first 20.
        devices: Vec<String>,
    },
    /// Devices do not say where they stand: they share one failure domain.
    FailureDomainMissing {
        /// Pool.
        pool: String,
        /// `rack`, `room`, `site` or `power feed`.
        domain: String,
        /// How many.
        devices: u32,
    },
    /// Devices name a model that does not exist, or a baseline does.
    ModelNotFound {
        /// Model.
        model: String,
        /// Devices that name it.
        devices: u32,
    },
    /// An operation whose device or pool is gone.
    OperationOrphaned {
        /// Device.
        device: String,
    },
    /// Devices name a pool that does not exist.
    PoolNotFound {
        /// Pool.
        pool: String,
        /// Devices that name it.
        devices: u32,
    },
    /// A rollout whose pool or baseline is gone, or is no longer of the pool.
    RolloutOrphaned {
        /// Rollout.
        rollout: String,
    },
}

impl Finding {
    /// The reason in CamelCase.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BaselineConflict { .. } => "BaselineConflict",
            Self::BaselineNotFound { .. } => "BaselineNotFound",
            Self::CanaryLeftOut { .. } => "CanaryLeftOut",
            Self::Duplicate { .. } => "Duplicate",
            Self::FailureDomainMissing { .. } => "FailureDomainMissing",
            Self::ModelNotFound { .. } => "ModelNotFound",
            Self::OperationOrphaned { .. } => "OperationOrphaned",
            Self::PoolNotFound { .. } => "PoolNotFound",
            Self::RolloutOrphaned { .. } => "RolloutOrphaned",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BaselineConflict {
                pool,
                model,
                baselines,
            } => write!(
                f,
                "pool {pool} names {} baselines that speak of model {model} ({}): leave one",
                baselines.len(),
                baselines.join(", ")
            ),
            Self::BaselineNotFound { pool, baseline } => {
                write!(
                    f,
                    "pool {pool} names the FirmwareBaseline {baseline:?}, which does not exist"
                )
            }
            Self::CanaryLeftOut {
                pool,
                baseline,
                devices,
                first,
            } => write!(
                f,
                "none of the {devices} devices like {first} in pool {pool} can be a canary of {baseline} now (see what {first} waits on): they are left out, the rollout goes on without one"
            ),
            Self::Duplicate { devices } => write!(
                f,
                "the devices {} give the same serial number, UUID or BMC address: none of them is changed",
                devices.join(", ")
            ),
            Self::FailureDomainMissing {
                pool,
                domain,
                devices,
            } => write!(
                f,
                "{devices} devices of pool {pool} give no {domain}: they are taken to stand in one"
            ),
            Self::ModelNotFound { model, devices } => {
                write!(
                    f,
                    "{devices} devices name the HardwareModel {model:?}, which does not exist"
                )
            }
            Self::OperationOrphaned { device } => {
                write!(
                    f,
                    "the operation on {device} has no device or pool any more; it goes on counting until it ends"
                )
            }
            Self::PoolNotFound { pool, devices } => {
                write!(
                    f,
                    "{devices} devices name the HardwarePool {pool:?}, which does not exist"
                )
            }
            Self::RolloutOrphaned { rollout } => write!(
                f,
                "rollout {rollout} belongs to a pool and a baseline that are no longer together"
            ),
        }
    }
}
