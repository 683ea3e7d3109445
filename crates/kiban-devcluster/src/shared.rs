//! One control plane for all tests.

use tokio::sync::OnceCell;

use crate::{Cluster, DevCluster, Result};

/// The cluster that tests share: the one that `KIBAN_TEST_KUBECONFIG` names (`cargo xtask test` starts it and hands it
/// down, with `KIBAN_KUBECTL` and `KIBAN_HELM`), else one per test binary, started at the first call.
///
/// A test takes a [`Cluster::namespace`] for itself. Tests that restart or stop the server start a [`DevCluster`] of their own.
pub async fn shared() -> Result<Cluster> {
    if let Some(kubeconfig) = std::env::var_os("KIBAN_TEST_KUBECONFIG") {
        let kubectl = match std::env::var_os("KIBAN_KUBECTL") {
            Some(path) => path.into(),
            None => crate::cluster::blocking(|| crate::Tool::Kubectl.find()).await?,
        };
        let helm = std::env::var_os("KIBAN_HELM").map(Into::into);
        return Ok(Cluster::new(kubeconfig, kubectl).with_helm(helm));
    }
    // A static is never dropped: the watchdog ends this one together with the test binary.
    static SHARED: OnceCell<DevCluster> = OnceCell::const_new();
    let cluster = SHARED.get_or_try_init(DevCluster::start).await?;
    Ok((**cluster).clone())
}
