//! What a test does with a cluster, through kubectl: what people type is what is tested.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    io,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
};

use tokio::{io::AsyncWriteExt, process::Command};

use crate::{Error, Result, certificates::write_private, tools::Tool};

/// A way into a running control plane, as whoever its kubeconfig says. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cluster {
    kubeconfig: Arc<Path>,
    kubectl: Arc<Path>,
    helm: Option<Arc<Path>>,
}

impl Cluster {
    /// A cluster by its kubeconfig and the kubectl to use with it.
    pub fn new(kubeconfig: impl Into<PathBuf>, kubectl: impl Into<PathBuf>) -> Self {
        Self {
            kubeconfig: kubeconfig.into().into(),
            kubectl: kubectl.into().into(),
            helm: None,
        }
    }

    /// Uses this helm rather than looking for one.
    pub fn with_helm(mut self, helm: Option<PathBuf>) -> Self {
        self.helm = helm.map(Arc::from);
        self
    }

    /// The kubeconfig file.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The kubectl of this cluster's version.
    pub fn kubectl_path(&self) -> &Path {
        &self.kubectl
    }

    /// The pinned helm, built at the first call if need be.
    pub async fn helm_path(&self) -> Result<PathBuf> {
        match &self.helm {
            Some(helm) => Ok(helm.to_path_buf()),
            None => crate::cluster::blocking(|| Tool::Helm.find()).await,
        }
    }

    /// The same cluster as someone else.
    pub fn as_user(&self, kubeconfig: impl Into<PathBuf>) -> Self {
        Self {
            kubeconfig: kubeconfig.into().into(),
            ..self.clone()
        }
    }

    /// Runs kubectl and returns what it printed.
    pub async fn kubectl(&self, args: impl IntoIterator<Item = impl AsRef<str>>) -> Result<String> {
        self.run(&self.kubectl, args, None).await
    }

    /// Runs kubectl with something on its stdin, for `-f -`.
    pub async fn kubectl_with_input(
        &self,
        args: impl IntoIterator<Item = impl AsRef<str>>,
        input: &str,
    ) -> Result<String> {
        self.run(&self.kubectl, args, Some(input)).await
    }

    /// Runs helm and returns what it printed.
    pub async fn helm(&self, args: impl IntoIterator<Item = impl AsRef<str>>) -> Result<String> {
        let helm = self.helm_path().await?;
        self.run(&helm, args, None).await
    }

    /// Applies manifests (YAML or JSON) by server-side apply.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        self.kubectl_with_input(["apply", "--server-side", "-f", "-"], manifests)
            .await
            .map(drop)
    }

    /// Applies every CRD in a directory and waits until the API server serves them.
    pub async fn apply_crds(&self, dir: &Path) -> Result<()> {
        let fail = |source| Error::File {
            action: "read",
            path: dir.to_path_buf(),
            source,
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let manifest = path.extension().is_some_and(|it| it == "yaml" || it == "json");
            // A kustomization lists its neighbours and is no manifest itself.
            if manifest && path.file_stem().is_some_and(|stem| stem != "kustomization") {
                files.push(format!("--filename={}", path.display()));
            }
        }
        let apply = ["apply", "--server-side", "--force-conflicts"].map(str::to_owned);
        self.kubectl(apply.iter().chain(&files)).await?;
        let wait = ["wait", "--for=condition=Established", "--timeout=60s"].map(str::to_owned);
        self.kubectl(wait.iter().chain(&files)).await.map(drop)
    }

    /// Makes a namespace whose name begins with `prefix` and is nobody else's.
    ///
    /// It is never deleted: without a kube-controller-manager it would stay `Terminating`, and it ends with the cluster.
    pub async fn namespace(&self, prefix: &str) -> Result<Namespace> {
        let name = format!("{prefix}-{:010x}", RandomState::new().hash_one(prefix) >> 24);
        self.kubectl(["create", "namespace", &name]).await?;
        Ok(Namespace {
            cluster: self.clone(),
            name: name.into(),
        })
    }

    /// A namespace that exists.
    pub fn existing_namespace(&self, name: &str) -> Namespace {
        Namespace {
            cluster: self.clone(),
            name: name.into(),
        }
    }

    async fn run(
        &self,
        program: &Path,
        args: impl IntoIterator<Item = impl AsRef<str>>,
        input: Option<&str>,
    ) -> Result<String> {
        let args: Vec<String> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let output = spawn(program, &args, &self.kubeconfig, input)
            .await
            .map_err(|source| Error::Spawn {
                program: program.display().to_string(),
                source,
            })?;
        if !output.status.success() {
            return Err(Error::Command {
                command: format!("{name} {}", args.join(" ")),
                status: output.status.to_string(),
                stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

async fn spawn(
    program: &Path,
    args: &[String],
    kubeconfig: &Path,
    input: Option<&str>,
) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(args)
        .env("KUBECONFIG", kubeconfig)
        // A discovery cache shared with the user's own clusters would mix them up by host and port.
        .env("KUBECACHEDIR", kubeconfig.with_file_name("kubectl-cache"))
        // In-cluster settings of a CI that itself runs in Kubernetes must not leak in.
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env_remove("KUBERNETES_SERVICE_PORT")
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdin = child.stdin.take();
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A program that ends without reading all of it says why on stderr; the broken pipe says nothing.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    output
}

/// A namespace of a cluster: what one test has for itself.
#[derive(Debug, Clone)]
pub struct Namespace {
    cluster: Cluster,
    name: Arc<str>,
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Namespace {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster that it is in.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Runs kubectl in this namespace.
    pub async fn kubectl(&self, args: impl IntoIterator<Item = impl AsRef<str>>) -> Result<String> {
        self.cluster.kubectl(self.args(args)).await
    }

    /// Runs helm in this namespace.
    pub async fn helm(&self, args: impl IntoIterator<Item = impl AsRef<str>>) -> Result<String> {
        self.cluster.helm(self.args(args)).await
    }

    /// Applies manifests (YAML or JSON) here by server-side apply.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        let args = self.args(["apply", "--server-side", "-f", "-"]);
        self.cluster.kubectl_with_input(args, manifests).await.map(drop)
    }

    /// A token of a service account of this namespace, from the API server's TokenRequest, good for an hour.
    pub async fn token_for(&self, service_account: &str) -> Result<String> {
        let token = self
            .kubectl(["create", "token", service_account, "--duration=1h"])
            .await?;
        Ok(token.trim().to_owned())
    }

    /// A kubeconfig with exactly the rights of a service account of this namespace, which is also its default namespace.
    ///
    /// The file lies beside the cluster's own and goes with it.
    pub async fn kubeconfig_for(&self, service_account: &str) -> Result<PathBuf> {
        let token = self.token_for(service_account).await?;
        let view = self
            .cluster
            .kubectl(["config", "view", "--raw", "--minify", "--flatten", "-o", "json"])
            .await?;
        let view: serde_json::Value = serde_json::from_str(&view).unwrap_or_default();
        let cluster = view["clusters"][0]["cluster"].clone();
        let user = serde_json::json!({ "token": token });
        let config = kubeconfig(cluster, user, &self.name);
        let path = self
            .cluster
            .kubeconfig
            .with_file_name(format!("{}.{service_account}.kubeconfig", self.name));
        write_private(&path, &config)?;
        Ok(path)
    }

    /// The cluster as a service account of this namespace sees it.
    pub async fn as_service_account(&self, service_account: &str) -> Result<Namespace> {
        let kubeconfig = self.kubeconfig_for(service_account).await?;
        Ok(Namespace {
            cluster: self.cluster.as_user(kubeconfig),
            name: self.name.clone(),
        })
    }

    fn args(&self, args: impl IntoIterator<Item = impl AsRef<str>>) -> Vec<String> {
        let mut all = vec!["--namespace".to_owned(), self.name.to_string()];
        all.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        all
    }
}

/// A kubeconfig with one context, in JSON, which every reader of YAML reads.
pub(crate) fn kubeconfig(cluster: serde_json::Value, user: serde_json::Value, namespace: &str) -> String {
    let name = "kiban-devcluster";
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{ "name": name, "cluster": cluster }],
        "users": [{ "name": name, "user": user }],
        "contexts": [{
            "name": name,
            "context": { "cluster": name, "user": name, "namespace": namespace },
        }],
    });
    format!("{config:#}\n")
}
