//! Outcomes on their way into Git: the outbox's other end.
//!
//! ```text
//!   finished Operations ─┐
//!   devices' unledgered ─┼─gather─▶ Round ──append, push──▶ the ledger branch ──then──▶ release
//!   rollouts' milestones ┘                                     (a crash anywhere: gathered again, skipped as known)
//! ```
//!
//! Nothing is released before the push that holds it has succeeded: an operation keeps its finalizer, a device its
//! unledgered transitions. The content of a record depends on the object alone, so that the same round made twice is
//! recognized and written once.

pub mod gather;
pub mod record;
pub mod release;

use crate::{
    condition::{self, Truth},
    context::Context,
    lease::Tenure,
    metrics::Activity,
    repository::{self, RepositoryError},
};
use gather::{Held, Round};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kiban_api::{FleetRepository, labels, repository::LedgerStatus};
use kiban_core::history;
use kiban_git::{Appended, CommitId, Identity, Ledger, LedgerConfig, LedgerError};
use kube::ResourceExt;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// The longest wait between two tries while the remote is away.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// While the remote is away, how often the condition's figures are renewed.
const RENEW_CONDITION: Duration = Duration::from_secs(60);

/// Why the ledger could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutError {
    /// How it is reached is not known.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Git said no.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The thread that ran Git panicked.
    #[error("write the ledger: libgit2's thread ended without an answer")]
    Thread,
    /// The status holds something that is no commit.
    #[error("read the ledger's last commit in the status: {0}")]
    Status(String),
}

impl OutError {
    /// A stable word for conditions and metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Repository(error) => error.category(),
            Self::Ledger(error) => error.category(),
            Self::Thread => "GitPanicked",
            Self::Status(_) => "LedgerStatusBroken",
        }
    }
}

/// How one repository's ledger is doing.
#[derive(Default)]
struct Out {
    failures: u32,
    failing_since: Option<Timestamp>,
    next_try: Duration,
    condition_at: Duration,
    /// What of each rollout is in the ledger, as far as this tenure knows.
    rollouts: HashMap<String, u64>,
    /// What the ledger holds of each device, as far as this tenure asked it.
    devices: HashMap<String, Held>,
}

/// Gathers and pushes until the tenure ends.
pub async fn run(context: Context, tenure: Tenure) {
    let operations = context.stores.operations.subscribe();
    let devices = context.stores.devices.subscribe();
    let rollouts = context.stores.rollouts.subscribe();
    let mut outs: HashMap<String, Out> = HashMap::new();
    let mut more = true;
    loop {
        if !more {
            tokio::select! {
                () = tenure.ends.cancelled() => return,
                _ = operations.changed() => {}
                _ = devices.changed() => {}
                _ = rollouts.changed() => {}
                // A try that failed is due again, or a release waits for an executor.
                () = tokio::time::sleep(retry_in(&context, &outs)) => {}
            }
        }
        // What comes in during the wait shares the commit.
        tokio::select! {
            () = tenure.ends.cancelled() => return,
            () = tokio::time::sleep(context.config.ledger_interval) => {}
        }
        // What was told until now is in the stores.
        let _ = (operations.take(), devices.take(), rollouts.take());
        more = false;
        let started = context.clock.elapsed();
        let mut failure = None;
        more |= ask(&context, &mut outs, &mut failure).await;
        let (rounds, homeless) = gather_all(&context, &outs);
        context.metrics.ledger_waiting.set(waiting(&rounds) + homeless);
        for (name, round) in rounds {
            let out = outs.entry(name.clone()).or_default();
            if round.is_empty() || context.clock.elapsed() < out.next_try {
                continue;
            }
            let full = round.records() >= context.config.ledger_batch;
            match push(&context, &tenure, &name, round, out).await {
                Ok(()) => more |= full,
                Err(error) => failure = Some(error.category()),
            }
        }
        set_lag(&context);
        context
            .metrics
            .round(Activity::Ledger, context.clock.elapsed() - started, failure);
    }
}

fn retry_in(context: &Context, outs: &HashMap<String, Out>) -> Duration {
    let now = context.clock.elapsed();
    let failing = outs.values().filter(|out| out.failures > 0);
    failing
        .map(|out| out.next_try.saturating_sub(now))
        .min()
        .unwrap_or(MAX_BACKOFF)
        .max(Duration::from_millis(50))
}

fn waiting(rounds: &HashMap<String, Round>) -> i64 {
    i64::try_from(rounds.values().map(Round::records).sum::<usize>()).unwrap_or(i64::MAX)
}

/// One round per repository, and how many records have none to go to.
fn gather_all(context: &Context, outs: &HashMap<String, Out>) -> (HashMap<String, Round>, i64) {
    let known = |repository: &str, rollout: &str| outs.get(repository)?.rollouts.get(rollout).copied();
    let (rounds, homeless) = gather::gather(
        &context.stores,
        context.config.ledger_batch,
        &context.inventories,
        known,
        held(outs),
    );
    if homeless > 0 {
        tracing::warn!(
            homeless,
            "outcomes wait: there is no FleetRepository whose ledger they could go to"
        );
    }
    (rounds, i64::try_from(homeless).unwrap_or(i64::MAX))
}

fn held(outs: &HashMap<String, Out>) -> impl Fn(&str, &str) -> Option<Held> {
    |repository: &str, device: &str| outs.get(repository)?.devices.get(device).cloned()
}

/// Asks the ledgers what they hold of devices that this tenure has not asked for. Returns whether some are left.
async fn ask(context: &Context, outs: &mut HashMap<String, Out>, failure: &mut Option<&'static str>) -> bool {
    let limit = context.config.ledger_batch;
    let mut left = false;
    for (name, devices) in gather::unasked(&context.stores, limit, held(outs)) {
        let out = outs.entry(name.clone()).or_default();
        if context.clock.elapsed() < out.next_try {
            continue;
        }
        left |= devices.len() >= limit;
        let waiting = devices.len();
        match look(context, &name, devices).await {
            Ok(found) => out.devices.extend(found),
            Err(error) => {
                *failure = Some(error.category());
                put_off(context, &name, out, &error, waiting).await;
            }
        }
    }
    left
}

/// Reads what a ledger holds of some devices.
async fn look(context: &Context, name: &str, devices: Vec<String>) -> Result<Vec<(String, Held)>, OutError> {
    in_ledger(context, name, move |mut ledger, deadline, tip| {
        let tip = match ledger.tip() {
            // The local copy is where the branch was left.
            present if present.is_some() && present == tip => present,
            _ => ledger.fetch(deadline)?,
        };
        let mut found = Vec::with_capacity(devices.len());
        for device in devices {
            let file = match tip {
                Some(tip) => ledger.read(&history::device_path(&device), tip)?,
                None => None,
            };
            let held = file.map_or(Held::Nothing, |file| record::held(&file));
            found.push((device, held));
        }
        Ok(found)
    })
    .await
}

/// After a failure: when it is tried again, and what the repository's condition says until then.
async fn put_off(context: &Context, name: &str, out: &mut Out, error: &OutError, records: usize) {
    out.failures += 1;
    let since = *out.failing_since.get_or_insert_with(|| context.clock.now());
    let backoff = Duration::from_secs(1)
        .saturating_mul(1 << out.failures.min(6))
        .min(MAX_BACKOFF);
    out.next_try = context.clock.elapsed() + backoff.mul_f64(rand::random_range(0.5..1.0));
    tracing::warn!(repository = name, records, error = %chain(error), "the ledger could not be used");
    let due = out.failures == 1 || context.clock.elapsed() >= out.condition_at + RENEW_CONDITION;
    if due {
        out.condition_at = context.clock.elapsed();
        failed(context, name, error, since, records).await;
    }
}

async fn push(
    context: &Context,
    tenure: &Tenure,
    name: &str,
    round: Round,
    out: &mut Out,
) -> Result<(), OutError> {
    let records = round.records();
    match append(context, name, &round).await {
        Ok(appended) => {
            context.metrics.ledger_records.inc_by(records as u64);
            tracing::info!(
                repository = name,
                records,
                written = appended.pushed,
                "the ledger is pushed"
            );
            pushed(context, name, &appended).await;
            *out = Out {
                rollouts: std::mem::take(&mut out.rollouts),
                devices: std::mem::take(&mut out.devices),
                ..Out::default()
            };
            out.devices.extend(round.devices.iter().map(|(device, entry)| {
                let held = gather::digest(&entry.object)
                    .map_or(Held::Nothing, |digest| Held::Inventory(digest.to_owned()));
                (device.clone(), held)
            }));
            out.rollouts.extend(
                round
                    .rollouts
                    .iter()
                    .map(|(rollout, mark)| (rollout.clone(), *mark)),
            );
            // Each release is safe by itself; what the tenure's end leaves over is gathered and released again.
            tokio::select! {
                () = tenure.ends.cancelled() => {}
                unfinished = release::release(context, &round) => {
                    if unfinished {
                        // An executor has yet to write what it did into the device's status.
                        out.next_try = Duration::ZERO;
                    }
                }
            }
            Ok(())
        }
        Err(error) => {
            put_off(context, name, out, &error, records).await;
            Err(error)
        }
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

async fn append(context: &Context, name: &str, round: &Round) -> Result<Appended, OutError> {
    let batches = round.batches();
    in_ledger(context, name, move |mut ledger, deadline, _| {
        ledger.append(&batches, deadline)
    })
    .await
}

/// Does something with a repository's ledger, given its deadline and the tip that the repository's status knows.
async fn in_ledger<T: Send + 'static>(
    context: &Context,
    name: &str,
    work: impl FnOnce(Ledger, Instant, Option<CommitId>) -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, OutError> {
    let Some(object) = context.stores.repositories.get(name) else {
        // It was deleted since the round was gathered; the next round goes elsewhere, or waits.
        return Err(OutError::Status(format!("there is no FleetRepository {name}")));
    };
    let config = config(context, &object).await?;
    let status = object.status.as_ref().and_then(|status| status.ledger.as_ref());
    let tip = match status {
        Some(ledger) => Some(
            ledger
                .commit
                .parse::<CommitId>()
                .map_err(|e| OutError::Status(e.to_string()))?,
        ),
        None => None,
    };
    let dir = cache_dir(context, name);
    let deadline = context.config.git_deadline;
    let work = move || -> Result<T, LedgerError> {
        // Opened anew each time: an open costs a few files, and nothing of a failed round is left in it.
        let ledger = Ledger::open(&dir, config, tip)?;
        work(ledger, Instant::now() + deadline, tip)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => {
            context.metrics.panics.inc();
            Err(OutError::Thread)
        }
    }
}

/// Where the local copy of a repository's ledger is.
fn cache_dir(context: &Context, name: &str) -> PathBuf {
    context.config.cache_dir.join("git").join(name)
}

async fn config(context: &Context, object: &FleetRepository) -> Result<LedgerConfig, OutError> {
    let spec = &object.spec;
    let url = spec.ledger.url.as_deref().unwrap_or(&spec.url);
    // The account of the desired state is not sent to another repository.
    let credentials = match (&spec.ledger.credentials, &spec.ledger.url) {
        (Some(own), _) => Some(own),
        (None, _) => spec.credentials.as_ref(),
    };
    let remote = repository::remote(context, url, &spec.ledger.branch, credentials).await?;
    let signing_key = match &spec.ledger.signing_key {
        Some(reference) => {
            let secret = context
                .secrets
                .get(&reference.name)
                .await
                .map_err(RepositoryError::from)?;
            let key = secret
                .required(&reference.name, "identity")
                .map_err(RepositoryError::from)?;
            Some(format!("{key}\n").into())
        }
        None => None,
    };
    let author = Identity {
        name: "Kiban".into(),
        email: format!("kiban@{}.invalid", context.namespace),
    };
    Ok(LedgerConfig {
        remote,
        author,
        signing_key,
    })
}

async fn pushed(context: &Context, name: &str, appended: &Appended) {
    let now = context.clock.now();
    let written = repository::update_status(context, labels::LEDGER_MANAGER, name, |object, status| {
        if let Some(tip) = appended.tip {
            let commit = tip.to_string();
            let known = status
                .ledger
                .as_ref()
                .is_some_and(|ledger| ledger.commit == commit);
            if !known {
                status.ledger = Some(LedgerStatus {
                    commit,
                    pushed_at: Time(now),
                });
            }
        }
        repository::set(
            status,
            object,
            "LedgerPushed",
            Truth::True,
            "Pushed",
            "history is at the remote",
            now,
        );
    });
    if let Err(error) = written.await {
        // The remote holds it. The status is brought up by the next push.
        tracing::warn!(repository = name, %error, "could not write the ledger's status");
    }
}

async fn failed(context: &Context, name: &str, error: &OutError, since: Timestamp, records: usize) {
    let now = context.clock.now();
    let message = format!(
        "since {}: {}; {records} records wait, nothing is lost",
        since.strftime("%Y-%m-%dT%H:%M:%SZ"),
        chain(error)
    );
    let mut first = false;
    let written = repository::update_status(context, labels::LEDGER_MANAGER, name, |object, status| {
        first = condition::find(&status.conditions, "LedgerPushed").is_none_or(|c| c.status != "False");
        repository::set(
            status,
            object,
            "LedgerPushed",
            Truth::False,
            error.category(),
            &message,
            now,
        );
    });
    if let Err(error) = written.await {
        tracing::warn!(repository = name, %error, "could not write the ledger's status");
    }
    if first && let Some(object) = context.stores.repositories.get(name) {
        context.events.warning(&*object, "LedgerNotPushed", message);
    }
}

/// The age of the oldest record that waits.
fn set_lag(context: &Context) {
    let now = context.clock.now();
    let mut oldest: Option<Timestamp> = None;
    let mut see = |at: Timestamp| oldest = Some(oldest.map_or(at, |o| o.min(at)));
    for operation in context.stores.operations.all() {
        if let Some(at) = operation.status.as_ref().and_then(|s| s.finished_at.as_ref()) {
            see(at.0);
        }
    }
    for device in context
        .stores
        .devices
        .filter(|d| d.status.as_ref().is_some_and(|s| !s.unledgered.is_empty()))
    {
        device
            .status
            .iter()
            .flat_map(|s| &s.unledgered)
            .for_each(|t| see(t.at.0));
    }
    let age = oldest.map_or(0.0, |at| now.duration_since(at).as_secs_f64().max(0.0));
    context.metrics.ledger_lag.set(age);
}

/// The repository whose ledger an object's history goes to: the one that the object came from, else the first.
pub(crate) fn home<'a>(repositories: &'a [Arc<FleetRepository>], labels_of: Option<&str>) -> Option<&'a str> {
    let own = labels_of.and_then(|label| repositories.iter().find(|r| r.name_any() == label));
    own.or_else(|| repositories.first())?.metadata.name.as_deref()
}
