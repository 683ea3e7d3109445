//! Rollouts.

/// Names of failed devices that a halt lists: enough to begin with, few enough for a status.
pub const HALT_NAMES: usize = 20;
