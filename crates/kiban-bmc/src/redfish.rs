//! The port for real machines: Redfish over HTTPS.
//!
//! ```text
//!   RedfishConnector ── one Shared per BMC, while anyone uses it ──▶ Shared: transport, session, gate (1 change, 2 reads)
//!                                                                       ▲
//!   Redfish (a handle) ─ inventory · update · task · reset ─────────────┘
//! ```
//!
//! Answers are read as plain JSON, field by field, not through a generated model: nv-redfish 0.22, tried first, loses a
//! whole inventory to one bad date, and what BMCs send is never quite the schema. Nothing here trusts an answer: addresses
//! stay on the BMC, sizes are bounded, texts are cleaned.
//!
//! A session is opened when first needed, shared by all handles, renewed after a 401, and deleted when the last handle is
//! closed or dropped. After two refusals of the same account nothing more is sent for half an hour or until the account
//! changes, because BMCs lock accounts out.

mod classify;
mod inventory;
mod json;
mod reset;
mod task;
mod tls;
mod transport;
mod update;
mod uri;

use crate::port::{
    Bmc, BmcError, BmcResult, Capabilities, Connector, Endpoint, ErrorKind, Fingerprint, HealthReport,
    HostReset, Identity, Inventory, Limits, PendingWork, PowerState, Started, TaskProgress, TaskRef, Trust,
    UpdateRequest, Vendor,
};
use futures::future::BoxFuture;
use json::{at, link_at};
use reqwest::{
    Method,
    header::{HeaderName, HeaderValue, IF_MATCH},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, SemaphorePermit};
use transport::{Answer, Content, Request, Transport};

/// After how many refusals an account is left alone, and for how long. iDRAC and XCC lock an account out at three to five.
const REFUSALS: u32 = 2;
const REFUSED_FOR: Duration = Duration::from_secs(30 * 60);

/// Connects to BMCs by Redfish. Handles to the same BMC with the same account and trust share one session.
pub struct RedfishConnector {
    limits: Limits,
    shared: Mutex<HashMap<String, Weak<Shared>>>,
    refusals: Arc<Mutex<HashMap<String, Refusals>>>,
}

/// How often which account was refused at an address.
#[derive(Clone, Copy)]
struct Refusals {
    account: [u8; 32],
    count: u32,
    since: Instant,
}

impl RedfishConnector {
    /// A connector with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            shared: Mutex::default(),
            refusals: Arc::default(),
        }
    }

    fn share(&self, endpoint: &Endpoint) -> BmcResult<Arc<Shared>> {
        let mut all = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = all.get(&endpoint.url).and_then(Weak::upgrade)
            && shared.serves(endpoint)
        {
            return Ok(shared);
        }
        // Kept small: an entry per BMC in use, not per BMC ever seen.
        all.retain(|_, shared| shared.strong_count() > 0);
        let shared = Arc::new(Shared::new(endpoint, &self.limits, self.refusals.clone())?);
        all.insert(endpoint.url.clone(), Arc::downgrade(&shared));
        Ok(shared)
    }
}

impl Connector for RedfishConnector {
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, BmcResult<Arc<dyn Bmc>>> {
        Box::pin(async move {
            let shared = self.share(endpoint)?;
            let bmc = Redfish::over(shared, endpoint).await?;
            Ok(Arc::new(bmc) as Arc<dyn Bmc>)
        })
    }
}

/// A handle to one BMC.
pub struct Redfish {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    /// The service root, read when the handle was made.
    root: Value,
    vendor: Vendor,
    closed: AtomicBool,
}

impl Redfish {
    /// Connects to one BMC without a connector, for a single conversation.
    pub async fn connect(endpoint: &Endpoint, limits: &Limits) -> BmcResult<Self> {
        let shared = Arc::new(Shared::new(endpoint, limits, Arc::default())?);
        Self::over(shared, endpoint).await
    }

    async fn over(shared: Arc<Shared>, endpoint: &Endpoint) -> BmcResult<Self> {
        let doing = "read the service root";
        let root = shared.read("/redfish/v1/", false, doing).await?.object(doing)?;
        if !["RedfishVersion", "Systems", "Managers"]
            .iter()
            .any(|name| root.get(name).is_some())
        {
            return Err(BmcError::new(
                ErrorKind::MalformedAnswer,
                doing,
                "the answer is JSON, but no Redfish service root",
            ));
        }
        let sessions = link_at(&root, &["Links", "Sessions"])
            .and_then(|link| uri::resource_path(shared.transport.base(), link));
        if let Some(path) = sessions {
            let _ = shared.sessions.set(path);
        }
        shared.handles.fetch_add(1, Ordering::SeqCst);
        let vendor = classify::vendor_of_root(&root);
        let mut bmc = Self {
            shared,
            endpoint: endpoint.clone(),
            root,
            vendor,
            closed: AtomicBool::new(false),
        };
        if bmc.vendor == Vendor::Other {
            // Not every root names its maker (OpenBMC's, some Supermicros'); the manager does. Unreadable costs nothing now.
            if let Ok((_, manager)) = bmc.manager().await {
                bmc.vendor = classify::vendor_of_manager(&manager);
            }
        }
        Ok(bmc)
    }

    fn limits(&self) -> &Limits {
        self.shared.transport.limits()
    }

    /// Whose BMC this is.
    #[must_use]
    pub fn vendor(&self) -> Vendor {
        self.vendor
    }

    /// Reads a resource as an object.
    async fn get(&self, path: &str, doing: &str) -> BmcResult<Value> {
        self.open(doing)?;
        self.shared.read(path, true, doing).await?.object(doing)
    }

    /// Reads the resource that a link points at.
    async fn follow_link(&self, from: &Value, names: &[&str], doing: &str) -> BmcResult<(String, Value)> {
        let link = link_at(from, names).ok_or_else(|| {
            BmcError::new(
                ErrorKind::NotSupported,
                doing,
                format!("the BMC has no {}", names.join(".")),
            )
        })?;
        let path = self.resource(link, doing)?;
        let value = self.get(&path, doing).await?;
        Ok((path, value))
    }

    fn resource(&self, link: &str, doing: &str) -> BmcResult<String> {
        uri::resource_path(self.shared.transport.base(), link).ok_or_else(|| {
            BmcError::new(
                ErrorKind::Redirected,
                doing,
                format!("the BMC points to {link:?}, which is not its own"),
            )
        })
    }

    /// Sends a change. The caller holds the change permit.
    async fn change(&self, method: Method, path: &str, body: Value, doing: &str) -> BmcResult<Answer> {
        self.open(doing)?;
        let content = || {
            if body.is_null() {
                Content::None
            } else {
                Content::Json(body.clone())
            }
        };
        self.shared
            .change(method, path, &content, self.limits().request_timeout, doing)
            .await
    }

    /// Patches a resource. ETags are a ladder on real BMCs: as given, then without `W/`, then read again, then none.
    async fn patch(&self, path: &str, body: Value, doing: &str) -> BmcResult<Answer> {
        let mut tried = Vec::new();
        for round in 0..3 {
            self.open(doing)?;
            let etag = self
                .shared
                .read(path, true, doing)
                .await?
                .check(doing, false)?
                .etag
                .filter(|etag| !etag.is_empty());
            let strong = etag
                .as_deref()
                .map(|etag| etag.trim_start_matches("W/").to_owned());
            let ladder = if round == 2 {
                vec![None]
            } else {
                vec![etag, strong]
            };
            for etag in ladder {
                if etag.is_none() && round < 2 || tried.contains(&etag) {
                    continue;
                }
                let headers: Vec<(HeaderName, HeaderValue)> = etag
                    .as_deref()
                    .and_then(|etag| HeaderValue::from_str(etag).ok())
                    .map(|value| (IF_MATCH, value))
                    .into_iter()
                    .collect();
                tried.push(etag);
                let content = || Content::Json(body.clone());
                let answer = self.shared.change_with(
                    Method::PATCH,
                    path,
                    &content,
                    headers,
                    self.limits().request_timeout,
                    doing,
                );
                let answer = answer.await?;
                // 412: changed meanwhile, or this BMC does not know its own ETag. 428: it wants one after all.
                if !matches!(answer.status.as_u16(), 412 | 428) {
                    return answer.check(doing, true);
                }
            }
        }
        Err(BmcError::new(
            ErrorKind::Busy,
            doing,
            "the resource changes faster than it can be patched (ETag mismatch)",
        ))
    }

    fn open(&self, doing: &str) -> BmcResult<()> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(BmcError::new(ErrorKind::Invalid, doing, "this handle is closed"));
        }
        Ok(())
    }

    /// The members of a collection as links, with loops, wrong counts and foreign links noted instead of believed.
    async fn members(
        &self,
        collection: &str,
        findings: &mut json::Findings,
        doing: &str,
    ) -> BmcResult<Vec<Member>> {
        let first = self.get(collection, doing).await?;
        self.members_of(collection, first, findings, doing).await
    }

    async fn members_of(
        &self,
        collection: &str,
        first: Value,
        findings: &mut json::Findings,
        doing: &str,
    ) -> BmcResult<Vec<Member>> {
        let max = self.limits().members;
        let (mut members, mut pages) = (Vec::<Member>::new(), vec![uri::normal(collection).to_owned()]);
        let mut seen = std::collections::HashSet::new();
        let (mut page, mut claimed) = (first, None);
        loop {
            if page.get("Members").is_some_and(|list| !list.is_array()) {
                findings.note(collection, "Members is no list");
            }
            claimed = claimed.or_else(|| at(&page, &["Members@odata.count"]).and_then(Value::as_u64));
            let next = at(&page, &["Members@odata.nextLink"])
                .and_then(Value::as_str)
                .map(str::to_owned);
            for item in json::list_at(&page, &["Members"]) {
                let Some(link) = item.get("@odata.id").and_then(Value::as_str) else {
                    findings.note(collection, "a member has no address");
                    continue;
                };
                let Some(path) = uri::resource_path(self.shared.transport.base(), link) else {
                    findings.note(
                        collection,
                        format!("a member points to {link:?}, which is not on this BMC"),
                    );
                    continue;
                };
                if !seen.insert(uri::normal(&path).to_owned()) {
                    findings.note(collection, format!("{path} is listed twice"));
                    continue;
                }
                if members.len() >= max {
                    findings.note(
                        collection,
                        format!("more than {max} members, the rest is left out"),
                    );
                    return Ok(members);
                }
                let body = item
                    .as_object()
                    .is_some_and(|object| object.len() > 1)
                    .then(|| item.clone());
                members.push(Member { path, body });
            }
            let Some(next) = next else { break };
            let Some(path) = uri::resource_path(self.shared.transport.base(), &next) else {
                findings.note(
                    collection,
                    format!("the next page is at {next:?}, which is not on this BMC"),
                );
                break;
            };
            if pages.contains(&path) || pages.len() > max {
                findings.note(collection, "its pages go round in a circle");
                break;
            }
            pages.push(path.clone());
            match self.get(&path, doing).await {
                Ok(value) => page = value,
                Err(error)
                    if error.kind() == ErrorKind::NotFound || error.kind() == ErrorKind::MalformedAnswer =>
                {
                    findings.note(&path, error.to_string());
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(claimed) = claimed.filter(|count| *count != members.len() as u64) {
            findings.note(
                collection,
                format!("it counts {claimed} members and lists {}", members.len()),
            );
        }
        Ok(members)
    }

    /// The system that this handle is about: the one with the expected identity, else the first.
    async fn system(&self) -> BmcResult<(String, Value)> {
        let doing = "read the system";
        let systems = self.resource(
            link_at(&self.root, &["Systems"]).unwrap_or("/redfish/v1/Systems"),
            doing,
        )?;
        let members = self
            .members(&systems, &mut json::Findings::default(), doing)
            .await?;
        let mut first = None;
        for member in members.into_iter().take(8) {
            let system = self.get(&member.path, doing).await?;
            let Some(expected) = &self.endpoint.expect else {
                return Ok((member.path, system));
            };
            if inventory::identity_of(&system, &member.path, self.vendor).matches(expected) {
                return Ok((member.path, system));
            }
            first = first.or(Some((member.path, system)));
        }
        first.ok_or_else(|| BmcError::new(ErrorKind::MalformedAnswer, doing, "the BMC lists no system"))
    }

    /// The manager: the first one listed that is a BMC, else the first.
    async fn manager(&self) -> BmcResult<(String, Value)> {
        let doing = "read the manager";
        let managers = self.resource(
            link_at(&self.root, &["Managers"]).unwrap_or("/redfish/v1/Managers"),
            doing,
        )?;
        let members = self
            .members(&managers, &mut json::Findings::default(), doing)
            .await?;
        let mut first = None;
        for member in members.into_iter().take(4) {
            let manager = self.get(&member.path, doing).await?;
            if manager.get("ManagerType").and_then(Value::as_str) == Some("BMC") {
                return Ok((member.path, manager));
            }
            first = first.or(Some((member.path, manager)));
        }
        first.ok_or_else(|| BmcError::new(ErrorKind::MalformedAnswer, doing, "the BMC lists no manager"))
    }

    /// Takes the change permit and compares the machine's identity: nothing is changed on a machine that is not the one.
    async fn begin_change(&self, doing: &str) -> BmcResult<SemaphorePermit<'_>> {
        let permit = self
            .shared
            .changes
            .acquire()
            .await
            .map_err(|_| closed_gate(doing))?;
        if let Some(expected) = &self.endpoint.expect {
            let (path, system) = self.system().await?;
            let identity = inventory::identity_of(&system, &path, self.vendor);
            if !identity.matches(expected) {
                let shown = identity
                    .serial
                    .or(identity.uuid)
                    .unwrap_or_else(|| "nothing".into());
                let wanted = expected
                    .serial
                    .as_deref()
                    .or(expected.uuid.as_deref())
                    .unwrap_or("nothing");
                let detail =
                    format!("the BMC answers for {shown}, expected was {wanted}; nothing was changed");
                return Err(BmcError::new(ErrorKind::WrongMachine, doing, detail));
            }
        }
        Ok(permit)
    }

    async fn give_back(&self) -> BmcResult<()> {
        if self.closed.swap(true, Ordering::SeqCst) || self.shared.handles.fetch_sub(1, Ordering::SeqCst) > 1
        {
            return Ok(());
        }
        self.shared.log_out().await
    }
}

impl Drop for Redfish {
    fn drop(&mut self) {
        if self.closed.swap(true, Ordering::SeqCst) || self.shared.handles.fetch_sub(1, Ordering::SeqCst) > 1
        {
            return;
        }
        let shared = self.shared.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = shared.log_out().await {
                    tracing::debug!(%error, "session not given back");
                }
            });
        }
    }
}

/// A member of a collection: where it is, and what the collection already told of it.
struct Member {
    path: String,
    body: Option<Value>,
}

fn closed_gate(doing: &str) -> BmcError {
    BmcError::new(ErrorKind::Invalid, doing, "the connection is closed")
}

/// What handles to the same BMC share.
struct Shared {
    transport: Transport,
    endpoint: Endpoint,
    account: [u8; 32],
    session: tokio::sync::Mutex<Option<Session>>,
    reads: Semaphore,
    changes: Semaphore,
    handles: AtomicUsize,
    refusals: Arc<Mutex<HashMap<String, Refusals>>>,
    /// Where sessions are made, once the root has said so.
    sessions: OnceLock<String>,
}

/// A session on the BMC.
#[derive(Clone)]
struct Session {
    token: HeaderValue,
    path: Option<String>,
    /// Grows with each log-in, so that of two requests with a dead token only one logs in anew.
    generation: u64,
}

impl Shared {
    fn new(
        endpoint: &Endpoint,
        limits: &Limits,
        refusals: Arc<Mutex<HashMap<String, Refusals>>>,
    ) -> BmcResult<Self> {
        Ok(Self {
            transport: Transport::new(endpoint, limits)?,
            endpoint: endpoint.clone(),
            account: account_digest(endpoint),
            session: tokio::sync::Mutex::new(None),
            reads: Semaphore::new(limits.reads.max(1)),
            changes: Semaphore::new(1),
            handles: AtomicUsize::new(0),
            refusals,
            sessions: OnceLock::new(),
        })
    }

    fn serves(&self, endpoint: &Endpoint) -> bool {
        let trust = match (&self.endpoint.trust, &endpoint.trust) {
            // What a first use found is what stays; a pin must be looked at anew.
            (Trust::FirstUse, Trust::Pinned(pin)) => self.transport.certificate() == Some(*pin),
            (ours, theirs) => ours == theirs,
        };
        trust && self.account == account_digest(endpoint)
    }

    /// Reads, with the session unless it is the public root; logs in again once if the session died.
    async fn read(&self, path: &str, with_session: bool, doing: &str) -> BmcResult<Answer> {
        let _permit = self.reads.acquire().await.map_err(|_| closed_gate(doing))?;
        let answer = self
            .exchange(
                Method::GET,
                path,
                &|| Content::None,
                Vec::new(),
                with_session,
                self.timeout(),
                doing,
            )
            .await?;
        answer.check(doing, false)
    }

    /// Reads, whatever the status of the answer.
    async fn look(&self, path: &str, doing: &str) -> BmcResult<Answer> {
        let _permit = self.reads.acquire().await.map_err(|_| closed_gate(doing))?;
        self.exchange(
            Method::GET,
            path,
            &|| Content::None,
            Vec::new(),
            true,
            self.timeout(),
            doing,
        )
        .await
    }

    async fn change(
        &self,
        method: Method,
        path: &str,
        content: &(dyn Fn() -> Content + Sync),
        timeout: Duration,
        doing: &str,
    ) -> BmcResult<Answer> {
        self.change_with(method, path, content, Vec::new(), timeout, doing)
            .await?
            .check(doing, true)
    }

    async fn change_with(
        &self,
        method: Method,
        path: &str,
        content: &(dyn Fn() -> Content + Sync),
        headers: Vec<(HeaderName, HeaderValue)>,
        timeout: Duration,
        doing: &str,
    ) -> BmcResult<Answer> {
        self.exchange(method, path, content, headers, true, timeout, doing)
            .await
    }

    fn timeout(&self) -> Duration {
        self.transport.limits().request_timeout
    }

    #[allow(clippy::too_many_arguments)] // one call, one place; a struct would be built and taken apart once
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        content: &(dyn Fn() -> Content + Sync),
        headers: Vec<(HeaderName, HeaderValue)>,
        with_session: bool,
        timeout: Duration,
        doing: &str,
    ) -> BmcResult<Answer> {
        let mut stale = None;
        loop {
            let session = if with_session {
                Some(self.log_in(stale).await?)
            } else {
                None
            };
            let request = Request {
                method: method.clone(),
                path,
                content: content(),
                token: session.as_ref().map(|session| &session.token),
                headers: headers.clone(),
                timeout,
                doing,
            };
            let answer = self.transport.send(request).await?;
            match session {
                // Sessions time out and die with the BMC. A request refused for that had no effect, so it is sent again, once.
                Some(session) if answer.status.as_u16() == 401 && stale.is_none() => {
                    stale = Some(session.generation);
                }
                _ => return Ok(answer),
            }
        }
    }

    /// The session, opened if there is none, renewed if the one of generation `stale` is still the current one.
    async fn log_in(&self, stale: Option<u64>) -> BmcResult<Session> {
        let mut current = self.session.lock().await;
        let generation = match &*current {
            Some(session) if stale != Some(session.generation) => return Ok(session.clone()),
            Some(session) => session.generation + 1,
            None => stale.map_or(0, |generation| generation + 1),
        };
        let old = current.take().and_then(|session| session.path);
        let doing = "log in";
        self.not_locked_out(doing)?;
        let body = json!({
            "UserName": self.endpoint.credentials.username,
            "Password": self.endpoint.credentials.password.expose_secret(),
        });
        let answer = self
            .transport
            .send(Request {
                method: Method::POST,
                path: self
                    .sessions
                    .get()
                    .map_or("/redfish/v1/SessionService/Sessions", String::as_str),
                content: Content::Json(body),
                token: None,
                headers: Vec::new(),
                timeout: self.timeout(),
                doing,
            })
            .await;
        let answer = answer.map_err(|error| error.with_outcome_unknown(false))?;
        if matches!(answer.status.as_u16(), 401 | 403) {
            self.refused();
        }
        // A BMC may repeat in its message what was sent; nothing of a refused log-in's body is worth that risk.
        let answer = match answer.check(doing, false) {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::AuthenticationFailed | ErrorKind::Rejected
                ) =>
            {
                return Err(BmcError::new(
                    ErrorKind::AuthenticationFailed,
                    doing,
                    "the BMC refuses the account",
                ));
            }
            other => other?,
        };
        self.accepted();
        let path = answer
            .location
            .as_deref()
            .or_else(|| answer.body.get("@odata.id").and_then(Value::as_str))
            .and_then(|text| uri::resource_path(self.transport.base(), text))
            .filter(|path| path.contains("/Sessions/"));
        let Some(mut token) = answer.token else {
            return Err(BmcError::new(
                ErrorKind::MalformedAnswer,
                doing,
                "the BMC opened a session without a usable token",
            ));
        };
        token.set_sensitive(true);
        let session = Session {
            token,
            path,
            generation,
        };
        *current = Some(session.clone());
        if let Some(old) = old {
            // Usually dead already; but a BMC that says 401 for other reasons would lose one of its few sessions each time.
            self.delete_session(&old, &session.token)
                .await
                .unwrap_or_default();
        }
        Ok(session)
    }

    async fn log_out(&self) -> BmcResult<()> {
        let Some(session) = self.session.lock().await.take() else {
            return Ok(());
        };
        let Some(path) = session.path else { return Ok(()) };
        self.delete_session(&path, &session.token).await
    }

    async fn delete_session(&self, path: &str, token: &HeaderValue) -> BmcResult<()> {
        let doing = "give the session back";
        let request = Request {
            method: Method::DELETE,
            path,
            content: Content::None,
            token: Some(token),
            headers: Vec::new(),
            timeout: self.timeout(),
            doing,
        };
        match self.transport.send(request).await?.check(doing, false) {
            Ok(_) => Ok(()),
            // Already gone is what was wanted.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::AuthenticationFailed
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn not_locked_out(&self, doing: &str) -> BmcResult<()> {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        match refusals.get(&self.endpoint.url) {
            Some(refused)
                if refused.account == self.account
                    && refused.count >= REFUSALS
                    && refused.since.elapsed() < REFUSED_FOR =>
            {
                let left = REFUSED_FOR.saturating_sub(refused.since.elapsed());
                let detail = format!(
                    "the account was refused {REFUSALS} times; not tried again until it changes, to avoid a lock-out"
                );
                Err(BmcError::new(ErrorKind::AuthenticationFailed, doing, detail)
                    .with_retry_after(Some(left)))
            }
            _ => Ok(()),
        }
    }

    fn refused(&self) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = refusals.entry(self.endpoint.url.clone()).or_insert(Refusals {
            account: self.account,
            count: 0,
            since: Instant::now(),
        });
        let count = if entry.account == self.account {
            entry.count + 1
        } else {
            1
        };
        *entry = Refusals {
            account: self.account,
            count,
            since: Instant::now(),
        };
    }

    fn accepted(&self) {
        self.refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.endpoint.url);
    }
}

fn account_digest(endpoint: &Endpoint) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(endpoint.credentials.username.as_bytes());
    digest.update([0]);
    digest.update(endpoint.credentials.password.expose_secret().as_bytes());
    digest.finalize().into()
}

impl Bmc for Redfish {
    fn certificate(&self) -> Option<Fingerprint> {
        self.shared.transport.certificate()
    }

    fn identity(&self) -> BoxFuture<'_, BmcResult<Identity>> {
        Box::pin(self.read_identity())
    }

    fn power(&self) -> BoxFuture<'_, BmcResult<PowerState>> {
        Box::pin(async { Ok(inventory::power_of(&self.system().await?.1)) })
    }

    fn health(&self) -> BoxFuture<'_, BmcResult<HealthReport>> {
        Box::pin(self.read_health())
    }

    fn inventory(&self) -> BoxFuture<'_, BmcResult<Inventory>> {
        Box::pin(self.read_inventory())
    }

    fn capabilities(&self) -> BoxFuture<'_, BmcResult<Capabilities>> {
        Box::pin(self.read_capabilities())
    }

    fn start_update<'a>(&'a self, request: &'a UpdateRequest) -> BoxFuture<'a, BmcResult<Started>> {
        Box::pin(self.send_update(request))
    }

    fn follow<'a>(&'a self, task: &'a TaskRef) -> BoxFuture<'a, BmcResult<TaskProgress>> {
        Box::pin(self.read_task(task))
    }

    fn pending_work(&self) -> BoxFuture<'_, BmcResult<Vec<PendingWork>>> {
        Box::pin(self.read_pending_work())
    }

    fn reset_host(&self, kind: HostReset) -> BoxFuture<'_, BmcResult<()>> {
        Box::pin(self.do_reset_host(kind))
    }

    fn reset_bmc(&self) -> BoxFuture<'_, BmcResult<()>> {
        Box::pin(self.do_reset_bmc())
    }

    fn ac_cycle(&self) -> BoxFuture<'_, BmcResult<()>> {
        Box::pin(self.do_ac_cycle())
    }

    fn close(&self) -> BoxFuture<'_, BmcResult<()>> {
        Box::pin(self.give_back())
    }
}
