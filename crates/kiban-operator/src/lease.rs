//! Leases: who may act. The pure decision is `kiban_core::lease`; this is the shell that keeps to it.
//!
//! ```text
//!   seen (by our own clock) ──decide──▶ Acquire(epoch) ──▶ Tenure ──renew──▶ … ──▶ Lost / released
//!                              └──────▶ Wait
//! ```
//!
//! - Whether another's Lease has lapsed is judged by when *we* saw it change last, on a monotonic clock. What a remote
//!   clock wrote into it is for people.
//! - `leaseTransitions` grows with every tenure, also of the same process, so it is an epoch that fences.
//! - A tenure ends by our own clock when it was not renewed in time, counted from before the renewal was *sent*.
//! - Every write carries the resource version that was seen.

use crate::context::Context;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
pub use kiban_core::lease::{Decision, Held, Seen, decide};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Name of the Lease whose holder syncs, plans and keeps the ledger.
pub const PLANNER_LEASE: &str = "kiban-planner";

/// Name of the Lease of one shard.
#[must_use]
pub fn shard_lease(shard: u32) -> String {
    format!("kiban-shard-{shard}")
}

/// A time in which we hold a Lease.
#[derive(Clone)]
pub struct Tenure {
    /// Its epoch.
    pub epoch: i64,
    /// Ends when the tenure does. What acts under the tenure stops with it.
    pub ends: CancellationToken,
    renewed_at: Arc<Mutex<Duration>>,
    duration: Duration,
    clock: crate::clock::Clock,
}

impl Tenure {
    /// How long the tenure surely lasts. A call under it must have its deadline within this.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        if self.ends.is_cancelled() {
            return Duration::ZERO;
        }
        let renewed_at = *self.renewed_at.lock().unwrap_or_else(PoisonError::into_inner);
        (renewed_at + self.duration).saturating_sub(self.clock.elapsed())
    }

    /// Whether the tenure is over, by our own clock or by what was seen.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.remaining().is_zero()
    }
}

/// Reads a Lease live: its holder (none when released) and epoch. None: there is no such Lease.
pub async fn read(context: &Context, name: &str) -> Result<Option<(Option<String>, i64)>, kube::Error> {
    let api: Api<Lease> = Api::namespaced(context.client.clone(), &context.namespace);
    let lease = timely(context, api.get_opt(name)).await?;
    Ok(lease.map(|lease| {
        let spec = lease.spec.unwrap_or_default();
        (
            spec.holder_identity.filter(|holder| !holder.is_empty()),
            i64::from(spec.lease_transitions.unwrap_or(0)),
        )
    }))
}

async fn timely<T>(
    context: &Context,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    match tokio::time::timeout(context.config.api_deadline, call).await {
        Ok(result) => result,
        Err(elapsed) => Err(kube::Error::Service(Box::new(elapsed))),
    }
}

struct Keeper<'a> {
    context: &'a Context,
    api: Api<Lease>,
    name: &'a str,
    seen: Option<Seen>,
    held: Option<Held>,
}

/// Whether a tenure is wanted: asked before each attempt and each renewal.
pub type Appetite = Arc<dyn Fn() -> bool + Send + Sync>;

/// Tries to hold the Lease `name` until the context ends. For each tenure `work` is run; when the tenure ends its token
/// is cancelled, and the next one is sought only after `work` has ended. On shutdown, and when `wanted` turns false, the
/// Lease is given back after `work` has ended.
pub async fn lead<F, W>(context: &Context, name: &str, wanted: Appetite, mut work: W)
where
    F: Future<Output = ()> + Send + 'static,
    W: FnMut(Tenure) -> F,
{
    let api = Api::namespaced(context.client.clone(), &context.namespace);
    let mut keeper = Keeper {
        context,
        api,
        name,
        seen: None,
        held: None,
    };
    while !context.cancel.is_cancelled() {
        if wanted()
            && let Some(tenure) = keeper.seek().await
        {
            tracing::info!(lease = name, epoch = tenure.epoch, "holding the lease");
            let running = tokio::spawn(work(tenure.clone()));
            let lost = keeper.hold(&tenure, &wanted, running).await;
            tracing::info!(lease = name, epoch = tenure.epoch, lost, "the tenure is over");
            if !lost {
                keeper.release().await;
            }
            keeper.held = None;
        }
        // Spread, so that the replicas do not all ask at the same moment.
        let pause = context.config.lease_renew.mul_f64(rand::random_range(0.8..1.2));
        tokio::select! {
            () = context.cancel.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Keeper<'_> {
    /// One look: takes the Lease if it may be taken.
    async fn seek(&mut self) -> Option<Tenure> {
        if let Err(error) = self.look().await {
            tracing::debug!(lease = self.name, %error, "could not read the lease");
            return None;
        }
        let context = self.context;
        let now = context.clock.elapsed();
        let decision = decide(
            self.seen.as_ref(),
            &context.identity,
            None,
            context.config.lease_duration,
            now,
        );
        let Decision::Acquire { epoch } = decision else {
            return None;
        };
        let sent = context.clock.elapsed();
        match self.write(Some(epoch)).await {
            Ok(()) => {
                self.held = Some(Held {
                    epoch,
                    renewed_at: sent,
                });
                Some(Tenure {
                    epoch,
                    ends: context.cancel.child_token(),
                    renewed_at: Arc::new(Mutex::new(sent)),
                    duration: context.config.lease_duration,
                    clock: context.clock.clone(),
                })
            }
            Err(error) => {
                tracing::debug!(lease = self.name, %error, "could not take the lease");
                None
            }
        }
    }

    /// Renews until the tenure is lost (true), or `work` ended, or an end was asked for (false).
    async fn hold(
        &mut self,
        tenure: &Tenure,
        wanted: &Appetite,
        mut running: tokio::task::JoinHandle<()>,
    ) -> bool {
        let mut ended = false;
        let lost = loop {
            // A failed renewal is tried again soon: there is time for several before the tenure lapses.
            let pause = self.context.config.lease_renew.min(tenure.remaining() / 3);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.context.cancel.cancelled() => break false,
                result = &mut running => {
                    if result.is_err_and(|e| e.is_panic()) {
                        self.context.metrics.panics.inc();
                        tracing::error!(lease = self.name, "what ran under the lease panicked, it is started anew");
                    }
                    ended = true;
                    break false;
                }
            }
            if !wanted() {
                break false;
            }
            if self.renew(tenure).await == Decision::Lost || tenure.is_over() {
                break true;
            }
        };
        tenure.ends.cancel();
        if !ended {
            // Until it has ended nothing new may start in its name, so there is no deadline but the process's own. The
            // Lease is renewed meanwhile where it is still ours, so that nobody starts beside what is still ending.
            self.wait_for_end(tenure, running, lost).await;
        }
        lost
    }

    async fn wait_for_end(&mut self, tenure: &Tenure, mut running: tokio::task::JoinHandle<()>, lost: bool) {
        let until = tokio::time::sleep(self.context.config.shutdown_deadline);
        tokio::pin!(until);
        loop {
            tokio::select! {
                _ = &mut running => return,
                () = &mut until => {
                    tracing::warn!(lease = self.name, "what ran under the lease did not end in time, it is aborted");
                    running.abort();
                    let _ = running.await;
                    return;
                }
                () = tokio::time::sleep(self.context.config.lease_renew), if !lost => {
                    self.renew(tenure).await;
                }
            }
        }
    }

    async fn renew(&mut self, tenure: &Tenure) -> Decision {
        let context = self.context;
        let now = context.clock.elapsed();
        let duration = context.config.lease_duration;
        let decision = decide(self.seen.as_ref(), &context.identity, self.held, duration, now);
        if decision != Decision::Renew {
            return decision;
        }
        let sent = context.clock.elapsed();
        match self.write(None).await {
            Ok(()) => {
                if let Some(held) = &mut self.held {
                    held.renewed_at = sent;
                }
                *tenure.renewed_at.lock().unwrap_or_else(PoisonError::into_inner) = sent;
                Decision::Renew
            }
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {
                // Someone else wrote it, or our own write was answered to nobody. What is there now tells.
                if let Err(error) = self.look().await {
                    tracing::warn!(lease = self.name, %error, "could not read the lease after a conflict");
                    return Decision::Wait;
                }
                decide(
                    self.seen.as_ref(),
                    &context.identity,
                    self.held,
                    duration,
                    context.clock.elapsed(),
                )
            }
            Err(error) => {
                tracing::warn!(lease = self.name, %error, "could not renew the lease");
                // The write may have landed without its answer: then the version changed, and the next try learns it.
                if let Err(error) = self.look().await {
                    tracing::debug!(lease = self.name, %error, "could not read the lease either");
                }
                decide(
                    self.seen.as_ref(),
                    &context.identity,
                    self.held,
                    duration,
                    context.clock.elapsed(),
                )
            }
        }
    }

    async fn release(&mut self) {
        let Some(seen) = &self.seen else { return };
        let spec = LeaseSpec {
            holder_identity: None,
            lease_duration_seconds: Some(1),
            lease_transitions: i32::try_from(seen.transitions).ok(),
            renew_time: Some(MicroTime(self.context.clock.now())),
            ..LeaseSpec::default()
        };
        let lease = self.object(spec);
        match timely(
            self.context,
            self.api.replace(self.name, &PostParams::default(), &lease),
        )
        .await
        {
            Ok(_) => tracing::info!(lease = self.name, "gave the lease back"),
            Err(error) => {
                tracing::warn!(lease = self.name, %error, "could not give the lease back, it will lapse");
            }
        }
    }

    async fn look(&mut self) -> Result<(), kube::Error> {
        let lease = timely(self.context, self.api.get_opt(self.name)).await?;
        self.take(lease);
        Ok(())
    }

    fn take(&mut self, lease: Option<Lease>) {
        let now = self.context.clock.elapsed();
        let Some(lease) = lease else {
            self.seen = None;
            return;
        };
        let version = lease.metadata.resource_version.unwrap_or_default();
        if self.seen.as_ref().is_some_and(|seen| seen.version == version) {
            return;
        }
        let spec = lease.spec.unwrap_or_default();
        let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
        self.seen = Some(Seen {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            transitions: i64::from(spec.lease_transitions.unwrap_or(0)),
            // A Lease without a duration is not ours; it gets ours.
            duration: seconds.map_or(self.context.config.lease_duration, Duration::from_secs),
            version,
            changed_at: now,
        });
    }

    /// Writes the Lease as ours, with the version that was seen as the precondition.
    async fn write(&mut self, new_epoch: Option<i64>) -> Result<(), kube::Error> {
        let (context, now) = (self.context, MicroTime(self.context.clock.now()));
        let epoch = new_epoch.or(self.held.map(|held| held.epoch)).unwrap_or(1);
        // Whole seconds, rounded up: nobody may think it lapsed before we do.
        let seconds = context.config.lease_duration.as_millis().div_ceil(1000);
        let spec = LeaseSpec {
            holder_identity: Some(context.identity.to_string()),
            lease_duration_seconds: i32::try_from(seconds).ok(),
            lease_transitions: i32::try_from(epoch).ok(),
            acquire_time: new_epoch.is_some().then(|| now.clone()),
            renew_time: Some(now),
            ..LeaseSpec::default()
        };
        let lease = self.object(spec);
        let params = PostParams::default();
        let written = if self.seen.is_some() {
            timely(context, self.api.replace(self.name, &params, &lease)).await?
        } else {
            timely(context, self.api.create(&params, &lease)).await?
        };
        self.take(Some(written));
        Ok(())
    }

    fn object(&self, spec: LeaseSpec) -> Lease {
        let label = (
            kiban_api::labels::MANAGED_BY_LABEL.to_owned(),
            kiban_api::labels::MANAGED_BY.to_owned(),
        );
        let metadata = ObjectMeta {
            name: Some(self.name.to_owned()),
            resource_version: self.seen.as_ref().map(|seen| seen.version.clone()),
            labels: Some(BTreeMap::from([label])),
            ..ObjectMeta::default()
        };
        Lease {
            metadata,
            spec: Some(spec),
        }
    }
}
