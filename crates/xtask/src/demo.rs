//! `cargo xtask demo`: the main job as a story, told by `kiban-demo`.

use crate::{say, workspace};
use anyhow::{Context as _, Result, ensure};
use std::process::{Command, ExitCode};

/// How the story is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Play without waiting for the reader, and succeed only if the story ended as it should.
    #[arg(long)]
    pub(crate) auto: bool,
    /// Play on the cluster of this context of your kubeconfig instead of a control plane of its own.
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Stay up at the end, with a kubeconfig on offer, until Ctrl-C.
    #[arg(long)]
    pub(crate) stay: bool,
}

/// Builds what the story needs, and plays it.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    ensure!(
        workspace::find_program("git", &[]).is_some(),
        "git is missing; it comes with every system's packages (Debian: apt-get install git)"
    );
    say("building the operator, kubectl-kiban and the demo (minutes the first time, seconds after)");
    let built = workspace::cargo()
        .args([
            "build",
            "--bins",
            "--package",
            "kiban-operator",
            "--package",
            "kiban-cli",
            "--package",
            "kiban-lab",
        ])
        .status()
        .context("failed to run cargo build")?;
    ensure!(built.success(), "cargo build failed; its errors are above");
    say("looking for kube-apiserver, etcd, kubectl and helm (built once if they are nowhere)");
    tokio::task::spawn_blocking(kiban_devcluster::Tools::find).await??;
    let demo = workspace::Metadata::read()?
        .target_directory
        .join("debug/kiban-demo");
    let mut command = Command::new(demo);
    for (given, flag) in [(args.auto, "--auto"), (args.stay, "--stay")] {
        if given {
            command.arg(flag);
        }
    }
    if let Some(context) = &args.context {
        command.args(["--context", context]);
    }
    // The child is in our process group: Ctrl-C reaches both, and it stops what it started.
    let ignored = tokio::spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
    let status = tokio::task::spawn_blocking(move || command.status())
        .await?
        .context("failed to run the demo")?;
    ignored.abort();
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
