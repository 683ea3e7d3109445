//! `cargo xtask`: the project's tasks, with nothing to install but Rust and Go.
//!
//! Each task says what it is doing, keeps what it prepared under `target/`, and names what is missing with how to get it.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task runner talks to the person who runs it"
)]

mod bench;
mod cluster;
mod demo;
mod generate;
mod simulate;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

/// The project's tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Play the main job on an embedded control plane with an emulated fleet.
    Demo(demo::Args),
    /// Prepare what the tests need, run them all, and say what was skipped.
    Test(test::Args),
    /// Write what comes from code: CRDs and references.
    Generate(generate::Args),
    /// Run the benches and print one table.
    Bench(bench::Args),
    /// Play seeded worlds: the real planner and step machine under faults, every invariant checked after every event.
    Simulate(simulate::Args),
    /// Start the tests' control plane with Kiban's CRDs, and stay until Ctrl-C.
    Cluster,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Demo(args) => demo::run(args).await,
        Task::Test(args) => test::run(args).await,
        Task::Generate(args) => generate::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Simulate(args) => simulate::run(&args),
        Task::Cluster => cluster::run().await,
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Announces the next part of a task.
fn say(text: &str) {
    eprintln!("==> {text}");
}
