//! `kubectl kiban explain`: why one device is where it is, by the planner's own function.

use crate::{
    cli::{ExplainArgs, Global},
    failure::Failure,
};
use std::process::ExitCode;

/// Runs the command.
pub async fn run(_global: &Global, _args: &ExplainArgs) -> Result<ExitCode, Failure> {
    Err(Failure::new("explain"))
}
