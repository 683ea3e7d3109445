//! Starting, stopping and hurting one control plane.

use std::{
    hash::{BuildHasher, RandomState},
    net::TcpListener,
    ops::Deref,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::{net::TcpStream, sync::Mutex};

use crate::{
    Cluster, Error, Request, Result, Tools, audit, certificates,
    client::kubeconfig,
    process::{Server, Watchdog},
};

/// Names of the servers in the order in which they are stopped: a store that goes first makes the API server wait for it.
const STOP_ORDER: [&str; 2] = [KUBE_APISERVER, ETCD];
const KUBE_APISERVER: &str = "kube-apiserver";
const ETCD: &str = "etcd";

/// How long the API server may take to answer. It needs three seconds on two idle cores; a machine that builds at the same
/// time needs many times that.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// Ports are taken below the range from which Linux (32768) and the BSDs (49152) lend ports to clients, so that no
/// outgoing connection can take the API server's port while it restarts.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// How a control plane is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Keeps what clients ask, for [`DevCluster::requests`].
    pub audit: bool,
    /// More flags for kube-apiserver.
    pub apiserver_flags: Vec<String>,
}

/// A control plane that this process owns. It ends when this value is dropped, and when this process ends in any way.
///
/// ```no_run
/// # async fn example() -> kiban_devcluster::Result<()> {
/// let cluster = kiban_devcluster::DevCluster::start().await?;
/// let namespace = cluster.namespace("demo").await?;
/// namespace.kubectl(["create", "configmap", "hello"]).await?;
/// cluster.restart_apiserver().await?;
/// # Ok(())
/// # }
/// ```
pub struct DevCluster {
    cluster: Cluster,
    tools: Tools,
    dir: PathBuf,
    apiserver_args: Vec<String>,
    etcd_args: Vec<String>,
    port: u16,
    // Fields are dropped in this order, which is the order of stopping.
    apiserver: Mutex<Option<Server>>,
    etcd: Mutex<Option<Server>>,
    watchdog: Watchdog,
}

impl std::fmt::Debug for DevCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DevCluster")
            .field("dir", &self.dir)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Deref for DevCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl DevCluster {
    /// Starts a control plane and returns once it is ready, in a few seconds. The first call on a machine may have to build
    /// it, which takes minutes and is told on stderr.
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// As [`DevCluster::start`], with options.
    pub async fn start_with(options: Options) -> Result<Self> {
        let tools = blocking(Tools::find).await?;
        // A port that was free a moment ago can be taken by a cluster that starts at the same time.
        for _ in 0..4 {
            match Self::try_start(&tools, &options).await {
                Err(error) if error.is_port_taken() => {}
                result => return result,
            }
        }
        Self::try_start(&tools, &options).await
    }

    async fn try_start(tools: &Tools, options: &Options) -> Result<Self> {
        let dir = new_dir()?;
        // From here on the directory is the watchdog's to remove.
        let watchdog = Watchdog::start(&dir, &STOP_ORDER)?;
        certificates::write_all(&dir)?;
        let [port, etcd_port, peer_port] = free_ports()?;
        let kubeconfig_path = dir.join("kubeconfig");
        certificates::write_private(&kubeconfig_path, &admin_kubeconfig(&dir, port))?;
        let audit_policy = dir.join("audit-policy.json");
        certificates::write_private(&audit_policy, AUDIT_POLICY)?;

        let etcd_args = etcd_args(&dir, etcd_port, peer_port);
        let etcd = Server::spawn(&dir, ETCD, &tools.etcd, &etcd_args)?;
        let apiserver_args = apiserver_args(&dir, port, etcd_port, options);
        let cluster = Self {
            cluster: Cluster::new(kubeconfig_path, &*tools.kubectl),
            tools: tools.clone(),
            dir,
            apiserver_args,
            etcd_args,
            port,
            apiserver: Mutex::new(None),
            etcd: Mutex::new(Some(etcd)),
            watchdog,
        };
        cluster.start_apiserver().await?;
        Ok(cluster)
    }

    /// Stops the API server with SIGTERM and keeps the store, as an upgrade does.
    pub async fn stop_apiserver(&self) {
        if let Some(server) = self.apiserver.lock().await.take() {
            blocking(|| server.stop()).await;
        }
    }

    /// Kills the API server: no connection is closed in good order.
    pub async fn kill_apiserver(&self) {
        if let Some(server) = self.apiserver.lock().await.take() {
            blocking(|| server.kill()).await;
        }
    }

    /// Starts the API server on the same port and store, unless it runs, and waits until it is ready.
    pub async fn start_apiserver(&self) -> Result<()> {
        let mut slot = self.apiserver.lock().await;
        if slot.is_none() {
            *slot = Some(Server::spawn(
                &self.dir,
                KUBE_APISERVER,
                &self.tools.kube_apiserver,
                &self.apiserver_args,
            )?);
        }
        match slot.as_mut() {
            Some(server) => self.wait_ready(server).await,
            None => Ok(()),
        }
    }

    /// Stops and starts the API server. Every watch breaks; what is stored stays.
    pub async fn restart_apiserver(&self) -> Result<()> {
        self.stop_apiserver().await;
        self.start_apiserver().await
    }

    /// Kills etcd: the API server runs on, and answers every read and write of what is stored with an error.
    pub async fn kill_etcd(&self) {
        if let Some(server) = self.etcd.lock().await.take() {
            blocking(|| server.kill()).await;
        }
    }

    /// Starts etcd on the same port and data, unless it runs, and waits until the API server is ready, unless that was stopped.
    pub async fn start_etcd(&self) -> Result<()> {
        {
            let mut slot = self.etcd.lock().await;
            if slot.is_none() {
                *slot = Some(Server::spawn(&self.dir, ETCD, &self.tools.etcd, &self.etcd_args)?);
            }
        }
        match self.apiserver.lock().await.as_mut() {
            Some(server) => self.wait_ready(server).await,
            None => Ok(()),
        }
    }

    /// Makes the API server hang: connections stay open and nothing is answered, until [`DevCluster::thaw_apiserver`].
    pub async fn freeze_apiserver(&self) -> Result<()> {
        self.signal_apiserver(Signal::STOP).await
    }

    /// Ends what [`DevCluster::freeze_apiserver`] began.
    pub async fn thaw_apiserver(&self) -> Result<()> {
        self.signal_apiserver(Signal::CONT).await
    }

    async fn signal_apiserver(&self, signal: Signal) -> Result<()> {
        match self.apiserver.lock().await.as_mut() {
            Some(server) => server.signal(signal).map_err(|source| Error::Spawn {
                program: KUBE_APISERVER.to_owned(),
                source,
            }),
            None => Ok(()),
        }
    }

    /// Ends the control plane without blocking the runtime, which dropping does for about a second.
    pub async fn stop(self) {
        blocking(move || drop(self)).await;
    }

    /// The directory with its keys, logs and data; it is removed at the end.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the API server listens.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Every request that the API server has answered, in its order, if asked for in [`Options::audit`].
    pub fn requests(&self) -> Result<Vec<Request>> {
        audit::read(&self.dir.join("audit.log"))
    }

    /// The programs in use.
    pub fn tools(&self) -> &Tools {
        &self.tools
    }

    /// The process ids of all that runs for this cluster, the watchdog among them.
    pub async fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.watchdog.pid()];
        pids.extend(self.etcd.lock().await.as_ref().map(Server::pid));
        pids.extend(self.apiserver.lock().await.as_ref().map(Server::pid));
        pids
    }

    async fn wait_ready(&self, apiserver: &mut Server) -> Result<()> {
        let until = Instant::now() + READY_WITHIN;
        let mut pause = Duration::from_millis(50);
        loop {
            if let Some(error) = self.etcd.lock().await.as_mut().and_then(Server::ended) {
                return Err(error);
            }
            if let Some(error) = apiserver.ended() {
                return Err(error);
            }
            match self.ready().await {
                Ok(()) => return Ok(()),
                Err(reason) if Instant::now() > until => {
                    return Err(apiserver.failed(format!("not ready after {READY_WITHIN:?}: {reason}")));
                }
                Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            // Each look is a process; half a second is little beside a start.
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Ready, and with the namespace that every client takes for granted, which appears a moment later.
    async fn ready(&self) -> Result<(), String> {
        let connected = TcpStream::connect(("127.0.0.1", self.port)).await;
        connected.map_err(|error| format!("port {} does not answer: {error}", self.port))?;
        let ask = async |args: &[&str]| {
            self.cluster
                .kubectl(args)
                .await
                .map_err(|error| error.to_string())
        };
        ask(&["get", "--raw", "/readyz", "--request-timeout=10s"]).await?;
        ask(&[
            "get",
            "namespace",
            "default",
            "--request-timeout=10s",
            "-o",
            "name",
        ])
        .await?;
        Ok(())
    }
}

/// Runs something that blocks where it does not hold up other tasks.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        // The runtime never cancels a blocking task that has begun, and one that has not only while it shuts down.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn new_dir() -> Result<PathBuf> {
    let made = tempfile::Builder::new().prefix("kiban-devcluster-").tempdir();
    made.map(tempfile::TempDir::keep).map_err(|source| Error::File {
        action: "create",
        path: std::env::temp_dir(),
        source,
    })
}

/// Three ports that are free now. All are held until the last is found, so that they differ.
fn free_ports() -> Result<[u16; 3]> {
    let mut held = Vec::new();
    let width = PORTS.end - PORTS.start;
    // The start is random, so that clusters that start together seldom meet.
    let start = u16::try_from(RandomState::new().hash_one(0) % u64::from(width)).unwrap_or_default();
    for step in 0..width {
        let port = PORTS.start + (start + step) % width;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push((port, listener));
        }
        if let [(a, _), (b, _), (c, _)] = held[..] {
            return Ok([a, b, c]);
        }
    }
    Err(Error::NoPort {
        from: PORTS.start,
        to: PORTS.end,
    })
}

fn admin_kubeconfig(dir: &Path, port: u16) -> String {
    let cluster = serde_json::json!({
        "server": format!("https://127.0.0.1:{port}"),
        "certificate-authority": dir.join("ca.crt"),
    });
    let user = serde_json::json!({
        "client-certificate": dir.join("admin.crt"),
        "client-key": dir.join("admin.key"),
    });
    kubeconfig(cluster, user, "default")
}

fn etcd_args(dir: &Path, port: u16, peer_port: u16) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    let client = format!("https://127.0.0.1:{port}");
    let peer = format!("https://127.0.0.1:{peer_port}");
    vec![
        format!("--data-dir={}", file("etcd")),
        "--name=kiban".into(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=kiban={peer}"),
        "--client-cert-auth".into(),
        format!("--trusted-ca-file={}", file("etcd-ca.crt")),
        format!("--cert-file={}", file("etcd.crt")),
        format!("--key-file={}", file("etcd.key")),
        "--peer-client-cert-auth".into(),
        format!("--peer-trusted-ca-file={}", file("etcd-ca.crt")),
        format!("--peer-cert-file={}", file("etcd.crt")),
        format!("--peer-key-file={}", file("etcd.key")),
        // The data dies with the test: nothing is worth an fsync.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

fn apiserver_args(dir: &Path, port: u16, etcd_port: u16, options: &Options) -> Vec<String> {
    let file = |name: &str| dir.join(name).display().to_string();
    let mut args = vec![
        "--bind-address=127.0.0.1".into(),
        "--advertise-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        // A loopback address may not be an endpoint of the `kubernetes` Service, and nobody here needs that.
        "--endpoint-reconciler-type=none".into(),
        format!("--etcd-servers=https://127.0.0.1:{etcd_port}"),
        format!("--etcd-cafile={}", file("etcd-ca.crt")),
        format!("--etcd-certfile={}", file("etcd-client.crt")),
        format!("--etcd-keyfile={}", file("etcd-client.key")),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        "--authorization-mode=RBAC".into(),
        "--service-cluster-ip-range=10.0.0.0/24".into(),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-key-file={}", file("service-accounts.pub")),
        format!(
            "--service-account-signing-key-file={}",
            file("service-accounts.key")
        ),
        "--allow-privileged=true".into(),
        "--profiling=false".into(),
    ];
    if options.audit {
        args.push(format!("--audit-policy-file={}", file("audit-policy.json")));
        args.push(format!("--audit-log-path={}", file("audit.log")));
    }
    args.extend(options.apiserver_flags.iter().cloned());
    args
}

/// Who asked for what, once per request, without bodies.
const AUDIT_POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1",
  "kind": "Policy",
  "omitStages": ["RequestReceived"],
  "rules": [{"level": "Metadata"}]
}
"#;
