//! `kubectl kiban`: the four questions, answered in a terminal.
//!
//! ```text
//!   what runs where?  status     why is this not moving?  explain     how did it come to this?  history
//!   what would this commit do?   plan, forecast, validate what does this BMC say?               probe
//! ```
//!
//! Every command reads; none writes to the cluster. `-o json|yaml` gives the same facts as the table.

pub mod check;
pub mod cli;
pub mod connect;
pub mod desired;
pub mod explain;
pub mod failure;
pub mod fleet;
pub mod forecast;
pub mod history;
pub mod output;
pub mod plan;
pub mod probe;
pub mod reference;
pub mod rollout;
pub mod snapshot;
pub mod status;
pub mod validate;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command};
use failure::Failure;
use std::process::ExitCode;

/// Parses the arguments, runs the command, prints, and says how it went: 0 done, 1 failed, 2 the answer is "no".
pub async fn run() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Status(args) => status::run(&cli.global, args).await,
        Command::Explain(args) => explain::run(&cli.global, args).await,
        Command::History(args) => history::run(&cli.global, args).await,
        Command::Plan(args) => plan::run(&cli.global, args).await,
        Command::Forecast(args) => forecast::run(&cli.global, args).await,
        Command::Rollout(command) => rollout::run(&cli.global, command).await,
        Command::Check(args) => check::run(&cli.global, args).await,
        Command::Snapshot(args) => snapshot::run(&cli.global, args).await,
        Command::Validate(args) => validate::run(&cli.global, args),
        Command::Probe(args) => probe::run(&cli.global, args).await,
        Command::Reference => {
            output::print(&reference::page());
            Ok(ExitCode::SUCCESS)
        }
        Command::Complete { words } => {
            output::print(&reference::complete(words));
            Ok(ExitCode::SUCCESS)
        }
        Command::Completion { shell } => {
            let mut command = Cli::command();
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command, "kubectl-kiban", &mut script);
            output::print(&String::from_utf8_lossy(&script));
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|failure: Failure| {
        output::print_failure(&failure);
        ExitCode::FAILURE
    })
}
