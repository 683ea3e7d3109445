//! `cargo xtask cluster`: the tests' control plane with Kiban's CRDs, to try things on.

use std::{process::ExitCode, time::Instant};

use anyhow::{Context as _, Result};
use kiban_devcluster::DevCluster;

use crate::{say, workspace};

/// Starts it and stays until Ctrl-C.
pub(crate) async fn run() -> Result<ExitCode> {
    say("starting a control plane");
    let started = Instant::now();
    let cluster = DevCluster::start().await?;
    let took = started.elapsed();
    cluster.apply_crds(&workspace::root().join("crds")).await?;
    say(&format!(
        "ready in {:.1} s; use it from another terminal, and end it with Ctrl-C",
        took.as_secs_f64()
    ));
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    println!("alias kubectl={}", cluster.kubectl_path().display());
    tokio::signal::ctrl_c()
        .await
        .context("failed to wait for Ctrl-C")?;
    say("stopping the control plane");
    let started = Instant::now();
    cluster.stop().await;
    say(&format!("stopped in {:.1} s", started.elapsed().as_secs_f64()));
    Ok(ExitCode::SUCCESS)
}
