//! Puts the activities together, and takes them apart in order when the process is asked to stop.

use crate::{
    clock::Clock,
    config::{Config, ConfigError},
    context::Context,
    events::Events,
    execute,
    gate::{self, Measured},
    health,
    inventory::Inventories,
    lease::{self, Tenure},
    ledger,
    metrics::Metrics,
    observe, plan,
    secrets::Secrets,
    store::Stores,
    sync,
    writer::Writer,
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Why the operator could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The flags contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No way to the API server was found.
    #[error("find the API server")]
    Client(#[from] Box<kube::Error>),
    /// An address is taken.
    #[error("listen at {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The cache folder cannot be used.
    #[error("use the cache folder {dir}")]
    Cache {
        /// The folder.
        dir: String,
        /// Why not.
        source: io::Error,
    },
}

/// An operator that runs in this process.
pub struct Running {
    /// Its context: for tests and benches that look at its figures.
    pub context: Context,
    /// Where its HTTP side listens.
    pub address: SocketAddr,
    tasks: TaskTracker,
}

impl Running {
    /// Asks it to stop, and waits until it has: Leases given back, nothing under way.
    pub async fn stop(self) {
        self.context.cancel.cancel();
        self.tasks.close();
        // A Lease's work may take the deadline once, its own return another.
        let most = self.context.config.shutdown_deadline * 2 + Duration::from_secs(5);
        if tokio::time::timeout(most, self.tasks.wait()).await.is_err() {
            tracing::warn!("not everything ended in time");
        }
    }

    /// Returns when everything has ended.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Starts the operator in this process, against the API server that `client` speaks to.
pub async fn start(
    config: Config,
    client: kube::Client,
    cancel: CancellationToken,
) -> Result<Running, RunError> {
    config.check()?;
    let cache = |source| RunError::Cache {
        dir: config.cache_dir.display().to_string(),
        source,
    };
    std::fs::create_dir_all(&config.cache_dir).map_err(cache)?;
    let inventories = Inventories::open(&config.cache_dir).map_err(cache)?;
    let listen = |source| RunError::Listen {
        address: config.listen,
        source,
    };
    let listener = health::bind(config.listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;

    let context = context(config, client, cancel, inventories);
    let tasks = TaskTracker::new();
    let machines = execute::prepare(&context, &tasks).await?;
    context.stores.start(&context, &tasks);
    tasks.spawn(serve(context.clone(), listener));
    tasks.spawn(lead(context.clone()));
    tasks.spawn(after_ready(
        context.clone(),
        "observe",
        observe::run(context.clone(), machines.clone()),
    ));
    tasks.spawn(after_ready(
        context.clone(),
        "execute",
        execute::run(context.clone(), machines),
    ));
    tracing::info!(%address, namespace = %context.namespace, identity = %context.identity, "started");
    Ok(Running {
        context,
        address,
        tasks,
    })
}

/// Runs the operator until `cancel`.
pub async fn run(config: Config, client: kube::Client, cancel: CancellationToken) -> Result<(), RunError> {
    let running = start(config, client, cancel.clone()).await?;
    cancel.cancelled().await;
    running.stop().await;
    Ok(())
}

fn context(
    config: Config,
    client: kube::Client,
    cancel: CancellationToken,
    inventories: Inventories,
) -> Context {
    let namespace: Arc<str> = config
        .namespace
        .clone()
        .unwrap_or_else(|| client.default_namespace().to_owned())
        .into();
    let replica = config
        .replica
        .clone()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_else(|| "kiban".into());
    // A process that is started again is another one: it must not take itself for its predecessor.
    let identity: Arc<str> = format!("{replica}_{:08x}", rand::random::<u32>()).into();
    let (metrics, stores, clock) = (Metrics::new(), Stores::default(), Clock::default());
    let deadline = config.api_deadline;
    Context {
        events: Events::new(client.clone(), &identity, metrics.clone()),
        writer: Writer::new(
            client.clone(),
            namespace.clone(),
            metrics.clone(),
            stores.clone(),
            deadline,
        ),
        secrets: Secrets::new(client.clone(), &namespace, deadline, clock.clone()),
        client,
        namespace,
        identity,
        config: Arc::new(config),
        metrics,
        stores,
        inventories,
        notes: plan::notes::Notes::default(),
        gates: Measured::default(),
        look_at_git: Arc::default(),
        cancel,
        clock,
    }
}

async fn serve(context: Context, listener: tokio::net::TcpListener) {
    let cancel = context.cancel.clone();
    if let Err(error) = health::serve(context, listener).await {
        tracing::error!(%error, "the HTTP side ended, the process stops");
        cancel.cancel();
    }
}

async fn after_ready(context: Context, activity: &str, work: impl Future<Output = ()>) {
    tokio::select! {
        () = context.cancel.cancelled() => return,
        () = context.stores.wait_until_ready() => {}
    }
    work.await;
    if !context.cancel.is_cancelled() {
        tracing::error!(
            activity,
            "an activity ended by itself, the process stops and is started anew"
        );
        context.cancel.cancel();
    }
}

/// Sync, plan and ledger, in the one replica that holds the planner's Lease.
async fn lead(context: Context) {
    tokio::select! {
        () = context.cancel.cancelled() => return,
        () = context.stores.wait_until_ready() => {}
    }
    let stale = context.clone();
    // A replica whose watches fail gives the Lease to one whose do not.
    let wanted = Arc::new(move || stale.stores.failing_for(&stale.clock) < stale.config.watch_stale);
    let leader = context.clone();
    lease::lead(&context, lease::PLANNER_LEASE, wanted, move |tenure| {
        led(leader.clone(), tenure)
    })
    .await;
}

async fn led(context: Context, tenure: Tenure) {
    context.metrics.leader.set(1);
    let mut activities = tokio::task::JoinSet::new();
    activities.spawn(sync::run(context.clone(), tenure.clone()));
    activities.spawn(plan::run(context.clone(), tenure.clone()));
    activities.spawn(gate::run(context.clone(), tenure.clone()));
    activities.spawn(ledger::run(context.clone(), tenure.clone()));
    while let Some(ended) = activities.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            context.metrics.panics.inc();
            tracing::error!("an activity panicked, the tenure ends and is sought anew");
        }
        // One that ends before its time takes the others with it: they are started anew together.
        tenure.ends.cancel();
    }
    // What this planner meant to say is the next one's to say.
    context.notes.clear();
    context.gates.clear();
    context.metrics.leader.set(0);
}
