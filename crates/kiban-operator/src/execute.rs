//! Executors: run operations on the devices whose shards this replica holds.
//!
//! ```text
//!   Operation (store) ──take up──▶ drive: advance() ──Effect──▶ act: one call to the BMC ──Observation──▶ advance() …
//!                                    └── writes Operation.status, preconditioned; at the end Device.status
//! ```
//!
//! - An operation is taken up only by the holder of its device's shard, and started only in the planner's present epoch,
//!   read live; what has begun is brought to its end whatever the epoch, the pause, or the policy.
//! - One owner per device: observer and executor claim it ([`machines::Machines::claim`]).
//! - Everything that is needed after a crash is in `Operation.status` and in the BMC.

mod act;
mod drive;
pub mod images;
pub mod machines;
mod record;
pub mod shards;
pub mod slots;

pub(crate) use act::wrong_machine;
pub(crate) use record::difference;

use crate::{context::Context, lease, run::RunError};
use kiban_api::{Device, Operation, convert, labels};
use kiban_bmc::RedfishConnector;
use kube::ResourceExt;
use machines::Machines;
use std::{collections::BTreeSet, io, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

/// How often operations that could not be started are looked at again, beside every change of them.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Opens the image store, serves its images, and makes what observer and executor share.
pub async fn prepare(context: &Context, tasks: &TaskTracker) -> Result<Machines, RunError> {
    let config = &context.config;
    let listen = |source| RunError::Listen {
        address: config.image_listen,
        source,
    };
    let listener = TcpListener::bind(config.image_listen).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let scheme = if config.image_certificate.is_some() {
        "https"
    } else {
        "http"
    };
    let base = config
        .image_url
        .clone()
        .unwrap_or_else(|| format!("{scheme}://{address}"));
    let cache = |error| RunError::Cache {
        dir: config.cache_dir.display().to_string(),
        source: io::Error::other(error),
    };
    let images = Arc::new(images::Store::open(context, &base).map_err(cache)?);
    let (serving, cancel) = (images.serve(context, listener), context.cancel.clone());
    tasks.spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the image endpoint ended, the process stops");
            cancel.cancel();
        }
    });
    let limits = kiban_bmc::Limits {
        request_timeout: config.bmc_deadline,
        connect_timeout: config.bmc_connect_deadline,
        poll: config.task_poll,
        off_time: config.settle.min(kiban_bmc::Limits::default().off_time),
        ..kiban_bmc::Limits::default()
    };
    Ok(Machines::new(
        context,
        Arc::new(RedfishConnector::new(limits)),
        images,
    ))
}

/// Runs until the context ends.
pub async fn run(context: Context, machines: Machines) {
    let taking = async {
        tokio::select! {
            () = context.cancel.cancelled() => {}
            () = take_up(&context, &machines) => {}
        }
    };
    // The Leases are given back by their keepers once what runs under them has ended, so this is waited for.
    tokio::join!(machines.shards.keep(&context), taking);
}

async fn take_up(context: &Context, machines: &Machines) {
    let (operations, devices) = (
        context.stores.operations.subscribe(),
        context.stores.devices.subscribe(),
    );
    let mut waiting: BTreeSet<String> = context
        .stores
        .operations
        .all()
        .iter()
        .map(|op| op.name_any())
        .collect();
    let mut ticks = tokio::time::interval(LOOK_AGAIN);
    loop {
        let mut epoch = None;
        for name in std::mem::take(&mut waiting) {
            if consider(context, machines, &name, &mut epoch).await == Considered::Later {
                waiting.insert(name);
            }
        }
        tokio::select! {
            names = operations.changed() => waiting.extend(names),
            // A device may be what an operation waits for.
            names = devices.changed() => {
                waiting.extend(names.into_iter().filter(|name| context.stores.operations.get(name).is_some()));
            }
            () = machines.changed() => waiting.extend(context.stores.operations.all().iter().map(|op| op.name_any())),
            _ = ticks.tick() => {}
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Considered {
    /// Nothing to do, or it runs.
    Settled,
    /// Look again.
    Later,
}

/// Takes an operation up if it may be.
async fn consider(context: &Context, machines: &Machines, name: &str, epoch: &mut Option<i64>) -> Considered {
    let Some(operation) = context.stores.operations.get(name) else {
        return Considered::Settled;
    };
    let Some(holding) = machines.shards.holding(name) else {
        return Considered::Settled;
    };
    let Some(device) = context.stores.devices.get(name) else {
        return Considered::Later;
    };
    let started = has_begun(&operation);
    if is_final(&operation) {
        if is_told(&operation, &device) {
            return Considered::Settled;
        }
    } else if !started && !may_start(context, &operation, &device, epoch).await {
        return Considered::Later;
    }
    let Some(claim) = machines.claim(name) else {
        return Considered::Later;
    };
    let machines = machines.clone();
    let context = context.clone();
    let name = name.to_owned();
    holding.tasks.spawn(async move {
        drive::drive(&context, &machines, &holding.tenure, &name).await;
        drop(claim);
    });
    Considered::Settled
}

/// Whether its outcome is written.
pub(crate) fn is_final(operation: &Operation) -> bool {
    operation
        .status
        .as_ref()
        .is_some_and(|status| convert::outcome(&status.outcome).is_final())
}

/// Whether an executor has begun with it.
pub(crate) fn has_begun(operation: &Operation) -> bool {
    operation.status.as_ref().is_some_and(|status| {
        status.intent.is_some()
            || !status.results.is_empty()
            || !matches!(status.outcome.as_str(), "" | "Pending")
    })
}

/// Whether the device's status knows the operation's outcome.
pub(crate) fn is_told(operation: &Operation, device: &Device) -> bool {
    let last = device
        .status
        .as_ref()
        .and_then(|status| status.last_operation.as_ref());
    last.is_some_and(|last| last.id == operation.spec.id)
}

/// Whether an operation that nobody has begun may be begun now. The epoch is read live once per round.
async fn may_start(
    context: &Context,
    operation: &Operation,
    device: &Arc<Device>,
    epoch: &mut Option<i64>,
) -> bool {
    let ledgered = operation
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == labels::LEDGER_FINALIZER);
    let held = device.status.as_ref().is_some_and(|status| status.hold.is_some());
    let paused = context
        .stores
        .policies
        .all()
        .iter()
        .any(|policy| policy.spec.paused);
    let leaving =
        operation.metadata.deletion_timestamp.is_some() || device.metadata.deletion_timestamp.is_some();
    if !ledgered || held || paused || leaving || is_told(operation, device) {
        return false;
    }
    if epoch.is_none() {
        match lease::read(context, lease::PLANNER_LEASE).await {
            Ok(Some((_, current))) => *epoch = Some(current),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "could not read the planner's lease, nothing is started"),
        }
    }
    *epoch == Some(operation.spec.epoch)
}
