//! `cargo xtask demo`: the main job as a story.

use std::process::ExitCode;

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

/// Plays the story.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("the demo is not built yet ({args:?})")
}
