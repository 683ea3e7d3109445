//! What observer and executor share about the machines: who owns one, how its BMC is reached, how many at once.

use super::{
    shards::Shards,
    slots::{Limits, Slots},
};
use crate::{context::Context, secrets::SecretError};
use futures::future::BoxFuture;
use kiban_api::{Device, convert, device::BmcTls};
use kiban_bmc::{
    BmcError, BmcResult, Connector, Credentials, Endpoint, ErrorKind, ExpectedIdentity, Fingerprint, Trust,
};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// Where the system's certificate authorities are, on the usual distributions.
const SYSTEM_AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Gets images: downloaded once, verified, kept by digest.
pub trait Images: Send + Sync {
    /// The image on disk, its digest verified.
    fn stage<'a>(
        &'a self,
        image: &'a kiban_api::baseline::Image,
        deadline: Duration,
    ) -> BoxFuture<'a, Result<kiban_bmc::Image, ImageFault>>;

    /// Where a BMC can fetch it for as long as the answer is kept. None: nowhere.
    fn offer(&self, image: &kiban_bmc::Image) -> Option<Offer>;
}

/// An image that a BMC can fetch, until this is dropped.
pub struct Offer {
    /// The address: unguessable, and gone afterwards.
    pub url: String,
    /// What ends it.
    pub guard: Box<dyn std::any::Any + Send + Sync>,
}

/// An image that could not be had.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ImageFault {
    /// What happened.
    pub message: String,
    /// It is there, and it is not the one that is meant: trying again does not help.
    pub wrong: bool,
}

/// Shared by the observer and the executor. Cheap to clone.
#[derive(Clone)]
pub struct Machines {
    /// The shards that this replica holds.
    pub shards: Shards,
    /// How many BMCs at once.
    pub slots: Slots,
    /// Makes connections.
    pub connector: Arc<dyn Connector>,
    /// Gets images.
    pub images: Arc<dyn Images>,
    claims: Arc<Mutex<HashSet<String>>>,
    changed: Arc<Notify>,
}

/// A device that one activity has for itself; given back when dropped.
pub struct Claim {
    claims: Arc<Mutex<HashSet<String>>>,
    changed: Arc<Notify>,
    device: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.claims
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.device);
        self.changed.notify_waiters();
    }
}

impl Machines {
    /// With real connections, or a test's.
    #[must_use]
    pub fn new(context: &Context, connector: Arc<dyn Connector>, images: Arc<dyn Images>) -> Self {
        let changed = Arc::new(Notify::new());
        Self {
            shards: Shards::new(context.config.shards, changed.clone(), context.metrics.clone()),
            slots: Slots::default(),
            connector,
            images,
            claims: Arc::default(),
            changed,
        }
    }

    /// Takes a device for oneself, unless another has it.
    #[must_use]
    pub fn claim(&self, device: &str) -> Option<Claim> {
        let fresh = self
            .claims
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(device.to_owned());
        fresh.then(|| Claim {
            claims: self.claims.clone(),
            changed: self.changed.clone(),
            device: device.to_owned(),
        })
    }

    /// Returns when a shard was won or lost, or a device given back.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What the policy and the flags allow at once.
    #[must_use]
    pub fn limits(context: &Context) -> Limits {
        let most = context.config.max_concurrent.max(1);
        let policy = context.stores.policies.all();
        let traffic = policy.first().and_then(|policy| convert::traffic(policy).ok());
        let defaults = kiban_api::policy::BmcTraffic::default();
        let or = |limit: Option<usize>, default: u32| limit.unwrap_or(default as usize).clamp(1, most);
        Limits {
            total: or(traffic.map(|t| t.max_concurrent), defaults.max_concurrent),
            per_site: or(
                traffic.map(|t| t.max_concurrent_per_site),
                defaults.max_concurrent_per_site,
            ),
        }
    }

    /// How a device's BMC is reached. `live`: the account was refused, so the Secret is read anew. `repin`: a person
    /// released the hold on a changed certificate, so the recorded one does not count.
    pub async fn endpoint(
        context: &Context,
        device: &Device,
        live: bool,
        repin: bool,
    ) -> BmcResult<Endpoint> {
        let bmc = &device.spec.bmc;
        let doing = "read the BMC's account";
        let invalid = |error: SecretError| BmcError::new(ErrorKind::Invalid, doing, error.to_string());
        let secret = if live {
            context.secrets.get_live(&bmc.credentials).await
        } else {
            context.secrets.get(&bmc.credentials).await
        };
        let secret = secret.map_err(invalid)?;
        let username = secret.required(&bmc.credentials, "username").map_err(invalid)?;
        let password = secret.required(&bmc.credentials, "password").map_err(invalid)?;
        let recorded = device
            .status
            .as_ref()
            .and_then(|status| status.pinned_sha256.as_deref())
            .filter(|_| !repin);
        Ok(Endpoint {
            url: bmc.url.clone(),
            credentials: Credentials::new(username, password),
            trust: trust(context, &bmc.tls, recorded).await?,
            expect: Some(ExpectedIdentity {
                serial: Some(device.spec.serial.clone()),
                uuid: device.spec.uuid.clone(),
            }),
        })
    }
}

async fn trust(context: &Context, tls: &BmcTls, recorded: Option<&str>) -> BmcResult<Trust> {
    let invalid =
        |detail: String| BmcError::new(ErrorKind::Invalid, "decide which certificate to trust", detail);
    let pinned = |text: &str| {
        Fingerprint::parse(text)
            .map(Trust::Pinned)
            .ok_or_else(|| invalid(format!("{text:?} is no SHA-256 fingerprint")))
    };
    if let Some(text) = &tls.sha256 {
        return pinned(text);
    }
    if let Some(name) = &tls.ca {
        let secret = context
            .secrets
            .get(name)
            .await
            .map_err(|error| invalid(error.to_string()))?;
        let pem = secret
            .required(name, "ca.crt")
            .map_err(|error| invalid(error.to_string()))?;
        return Ok(Trust::Ca { pem });
    }
    if tls.first_use {
        return recorded.map_or(Ok(Trust::FirstUse), pinned);
    }
    for path in SYSTEM_AUTHORITIES {
        if let Ok(pem) = tokio::fs::read_to_string(path).await {
            return Ok(Trust::Ca { pem });
        }
    }
    Err(invalid(
        "this system has no certificate authorities; give spec.bmc.tls".into(),
    ))
}
