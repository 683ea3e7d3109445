//! Putting the parts together, and asking them questions.

use crate::{
    estate::{Bmc, Estate, object, yaml},
    operator::{Operator, OperatorOptions},
    repository::Repository,
};
use anyhow::{Context, Result, bail};
use kiban_devcluster::Namespace;
use kiban_sim::{Fleet, Options};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The account that every emulated BMC knows.
pub const BMC_USERNAME: &str = "admin";
/// Its password. Odd enough to be found by a test that looks for leaked secrets.
pub const BMC_PASSWORD: &str = "Lab-S3cret-canary-91c7";

/// A whole Kiban on one machine.
pub struct Lab {
    /// The fleet's namespace.
    pub namespace: Namespace,
    /// The machines.
    pub fleet: Fleet,
    /// What engineers commit to.
    pub repository: Repository,
    /// Pools, machines and images.
    pub estate: Estate,
    /// Folder for everything that the lab writes.
    pub dir: PathBuf,
    /// The kubeconfig that operators run with: exactly the rights of the chart's ServiceAccount.
    pub operator_kubeconfig: PathBuf,
}

impl Lab {
    /// Brings up everything but the operator: CRDs and the chart's rights in a namespace, the machines, the repository with the fleet's YAML
    /// committed, and the `FleetRepository` that points to it.
    pub async fn build(namespace: Namespace, dir: &Path, estate: Estate, fleet: Options) -> Result<Self> {
        install(&namespace).await?;
        let operator_kubeconfig = namespace.kubeconfig_for("kiban").await?;
        Self::build_with(namespace, dir, estate, fleet, operator_kubeconfig).await
    }

    /// The same with a kubeconfig of one's own for the operator, and nothing installed.
    pub async fn build_with(
        namespace: Namespace,
        dir: &Path,
        estate: Estate,
        options: Options,
        operator_kubeconfig: PathBuf,
    ) -> Result<Self> {
        let options = Options {
            username: BMC_USERNAME.to_owned(),
            password: BMC_PASSWORD.to_owned(),
            ..options
        };
        let fleet = Fleet::start(estate.fleet_spec(), options)
            .await
            .context("start the emulated fleet")?;
        let repository = Repository::create(&dir.join("git"))?;
        estate.write(&repository, &bmcs(&fleet)?)?;
        repository.commit("Describe the fleet as it is delivered")?;
        let lab = Self {
            namespace,
            fleet,
            repository,
            estate,
            dir: dir.to_owned(),
            operator_kubeconfig,
        };
        lab.apply_secret().await?;
        lab.apply_repository(json!({})).await?;
        Ok(lab)
    }

    async fn apply_secret(&self) -> Result<()> {
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "bmc"},
            "stringData": {"username": BMC_USERNAME, "password": BMC_PASSWORD},
        });
        self.namespace
            .apply(&secret.to_string())
            .await
            .context("apply the Secret with the BMCs' account")
    }

    /// Applies the `FleetRepository`, with more fields of its spec.
    pub async fn apply_repository(&self, more: Value) -> Result<()> {
        let mut spec = json!({"url": self.repository.url(), "interval": "1m"});
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        let text = yaml(&[object("FleetRepository", "fleet", spec)])?;
        self.namespace
            .apply(&text)
            .await
            .context("apply the FleetRepository")
    }

    /// How an operator of this lab is started.
    pub fn operator_options(&self, replica: &str, flags: &[&str]) -> Result<OperatorOptions> {
        Ok(OperatorOptions {
            binary: binary("kiban-operator")?,
            kubeconfig: self.operator_kubeconfig.clone(),
            namespace: self.namespace.name().to_owned(),
            dir: self.dir.clone(),
            replica: replica.to_owned(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            log: None,
        })
    }

    /// Starts an operator and waits until it is ready.
    pub async fn start_operator(&self, replica: &str, flags: &[&str]) -> Result<Operator> {
        let options = self.operator_options(replica, flags)?;
        tokio::task::spawn_blocking(move || {
            let mut operator = Operator::start(&options)?;
            operator.wait_ready(Duration::from_secs(60))?;
            Ok(operator)
        })
        .await?
    }

    /// Every object of a kind, as JSON.
    pub async fn list(&self, kind: &str) -> Result<Vec<Value>> {
        let text = self.namespace.kubectl(["get", kind, "-o", "json"]).await?;
        let mut list: Value = serde_json::from_str(&text).context("read kubectl's JSON")?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => bail!("kubectl get {kind} gave no list"),
        }
    }

    /// One object, as JSON; Null when it does not exist.
    pub async fn get(&self, kind: &str, name: &str) -> Result<Value> {
        let text = self
            .namespace
            .kubectl(["get", kind, name, "-o", "json", "--ignore-not-found"])
            .await?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).context("read kubectl's JSON")
    }

    /// Waits until a question about all objects of a kind is answered with yes. What they looked like last is in the error.
    pub async fn wait_for(
        &self,
        what: &str,
        kind: &str,
        limit: Duration,
        mut done: impl FnMut(&[Value]) -> bool,
    ) -> Result<Vec<Value>> {
        let end = Instant::now() + limit;
        loop {
            let items = self.list(kind).await?;
            if done(&items) {
                return Ok(items);
            }
            if Instant::now() > end {
                let last: Vec<String> = items.iter().take(12).map(summary).collect();
                bail!(
                    "{what} did not happen within {limit:?}; the {kind} were last:\n{}",
                    last.join("\n")
                );
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Waits until every device is compliant.
    pub async fn wait_compliant(&self, limit: Duration) -> Result<()> {
        self.wait_for("every device compliant", "devices", limit, |devices| {
            !devices.is_empty() && devices.iter().all(|device| compliance(device) == "Compliant")
        })
        .await
        .map(drop)
    }

    /// Waits until a commit is applied.
    pub async fn wait_applied(&self, commit: &str, limit: Duration) -> Result<()> {
        self.wait_for("the commit applied", "fleetrepositories", limit, |repositories| {
            repositories
                .iter()
                .any(|repository| repository["status"]["applied"]["commit"] == commit)
        })
        .await
        .map(drop)
    }

    /// Waits until nothing is under way and everything that ended is in the ledger.
    pub async fn wait_quiet(&self, limit: Duration) -> Result<()> {
        self.wait_for("no operation left", "operations", limit, |operations| {
            operations.is_empty()
        })
        .await?;
        self.wait_for("no transition left", "devices", limit, |devices| {
            devices.iter().all(|device| {
                device["status"]["unledgered"]
                    .as_array()
                    .is_none_or(|list| list.is_empty())
            })
        })
        .await?;
        // A reading needs no outbox: the status holds it until the ledger does.
        self.wait_for("every reading in the ledger", "devices", limit, |devices| {
            let files = self.repository.git_in_remote(&[
                "grep",
                "-h",
                "inventoryDigest:",
                "ledger",
                "--",
                "devices/",
            ]);
            let held = files.unwrap_or_default();
            devices
                .iter()
                .filter_map(|device| device["status"]["inventoryDigest"].as_str())
                .all(|digest| held.contains(digest))
        })
        .await
        .map(drop)
    }

    /// Runs `kubectl-kiban` against this lab; standard output, or standard error when it failed.
    pub async fn kiban(&self, args: &[&str]) -> Result<(bool, String)> {
        let output = tokio::process::Command::new(binary("kubectl-kiban")?)
            .args(args)
            .args(["--namespace", self.namespace.name()])
            .env("KUBECONFIG", self.namespace.cluster().kubeconfig())
            .env("COLUMNS", "150")
            .output()
            .await
            .context("run kubectl-kiban")?;
        let text = if output.status.success() {
            output.stdout
        } else {
            output.stderr
        };
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        ))
    }
}

/// Installs the CRDs in the cluster and the chart's ServiceAccount with its rights in the namespace, as Helm would.
pub async fn install(namespace: &Namespace) -> Result<()> {
    let root = root();
    namespace
        .cluster()
        .apply_crds(&root.join("crds"))
        .await
        .context("install the CRDs")?;
    let rendered = namespace
        .helm([
            "template",
            "kiban",
            &root.join("charts/kiban").display().to_string(),
            "--show-only",
            "templates/serviceaccount.yaml",
            "--show-only",
            "templates/role.yaml",
            "--show-only",
            "templates/rolebinding.yaml",
        ])
        .await
        .context("render the chart")?;
    namespace
        .apply(&rendered)
        .await
        .context("apply the chart's rights")
}

/// A device's compliance as its status says it.
pub fn compliance(device: &Value) -> &str {
    device["status"]["compliance"]["state"].as_str().unwrap_or("")
}

/// The versions that a device's status shows for a class.
pub fn versions<'a>(device: &'a Value, class: &str) -> Vec<&'a str> {
    device["status"]["firmware"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|entry| entry["class"] == class)
        .filter_map(|entry| entry["version"].as_str())
        .collect()
}

fn summary(item: &Value) -> String {
    let mut status = item["status"].clone();
    if let Some(status) = status.as_object_mut() {
        // Long, and rarely what a failure is about.
        status.remove("firmware");
        status.remove("observedGeneration");
    }
    format!("  {}: {status}", item["metadata"]["name"].as_str().unwrap_or("?"))
}

fn bmcs(fleet: &Fleet) -> Result<BTreeMap<String, Bmc>> {
    fleet
        .machines()
        .iter()
        .map(|machine| {
            let address = machine
                .address()
                .with_context(|| format!("{} listens nowhere", machine.name()))?;
            let bmc = Bmc {
                address,
                serial: machine.state().serial,
                sha256: machine.fingerprint(),
            };
            Ok((machine.name().to_owned(), bmc))
        })
        .collect()
}

/// The repository's root, when run from a checkout, which a lab always is.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A binary of the workspace: in `KIBAN_BIN_DIR`, else beside the running one.
pub fn binary(name: &str) -> Result<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("KIBAN_BIN_DIR")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    let own = std::env::current_exe().context("find the running binary")?;
    // Binaries lie in `debug/`, tests in `debug/deps/`.
    folders.extend(own.ancestors().skip(1).take(2).map(Path::to_path_buf));
    folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("{name} is not built: run `cargo build --workspace --bins` first"))
}
