//! Desired state from Git to the API server.

pub mod webhook;

use crate::{context::Context, lease::Tenure};

/// Runs until the tenure ends.
pub async fn run(context: Context, tenure: Tenure) {
    let _ = context;
    tenure.ends.cancelled().await;
}
