//! `kubectl kiban validate`: a folder of fleet YAML, checked offline by the very code that refuses a commit.

use crate::{
    cli::{Global, ValidateArgs},
    failure::Failure,
};
use std::process::ExitCode;

/// Runs the command: exit code 0 when the operator would apply the folder, 2 when it would refuse it.
pub fn run(_global: &Global, _args: &ValidateArgs) -> Result<ExitCode, Failure> {
    Err(Failure::new("validate"))
}
