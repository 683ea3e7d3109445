//! `cargo xtask simulate`: builds the seeded world with optimization and plays it. What it checks is in `docs/simulation.md`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{say, workspace};

/// Handed to the program as they are; see `cargo xtask simulate -- --help`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `--seeds N`, `--from S`, `--seed X`, `--devices D`, `--trace`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    rest: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    say("simulate: the seeded world, built with optimization");
    let mut command = workspace::cargo();
    command.args([
        "run",
        "--release",
        "--quiet",
        "--package",
        "kiban-sim",
        "--bin",
        "kiban-world",
        "--",
    ]);
    let status = command.args(&args.rest).status().context("run cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
