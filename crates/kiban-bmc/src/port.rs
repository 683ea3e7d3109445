//! The port: what Kiban asks of a BMC, whatever protocol answers.
//!
//! ```text
//!   executor ──▶ dyn Connector ──connect──▶ dyn Bmc ──▶ identity · inventory · start_update · follow · reset_*
//!   tests    ──▶ a fake                     crate::redfish is the one for real machines
//! ```
//!
//! Three rules hold for every implementation:
//! 1. A call does at most one change, and says with [`BmcError::outcome_unknown`] when it cannot tell whether the change
//!    happened. The caller then settles by reading ([`Bmc::pending_work`], [`Bmc::inventory`]), never by calling again.
//! 2. If [`Endpoint::expect`] is set, the machine's identity is compared before each change, on the same session.
//! 3. Nothing secret is in an error, in `Debug`, or in any text that is returned.

use futures::future::BoxFuture;
use jiff::Timestamp;
use kiban_core::{
    component::{Component, ComponentClass},
    settings::{Applied, Judgement, Reading, Scope, Values},
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

/// What a call to a BMC gives.
pub type BmcResult<T> = Result<T, BmcError>;

/// Makes connections to BMCs. The operator holds one; tests hold a fake.
pub trait Connector: Send + Sync {
    /// Opens (or shares) a connection to the BMC of one device. Reads the service root, so a wrong address, certificate or
    /// answer is found here; logs in when first needed.
    fn connect<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, BmcResult<Arc<dyn Bmc>>>;
}

/// One device's BMC.
pub trait Bmc: Send + Sync {
    /// The certificate that the BMC showed, to be recorded after a first use.
    fn certificate(&self) -> Option<Fingerprint>;

    /// Which machine this is.
    fn identity(&self) -> BoxFuture<'_, BmcResult<Identity>>;

    /// Whether the host is on.
    fn power(&self) -> BoxFuture<'_, BmcResult<PowerState>>;

    /// How the host and the BMC say they are.
    fn health(&self) -> BoxFuture<'_, BmcResult<HealthReport>>;

    /// Every component that carries firmware. What could not be read is a finding, not an error.
    fn inventory(&self) -> BoxFuture<'_, BmcResult<Inventory>>;

    /// What updates this BMC accepts.
    fn capabilities(&self) -> BoxFuture<'_, BmcResult<Capabilities>>;

    /// Sends an image and starts its installation. The caller has recorded its intent before. Returns once the BMC has
    /// accepted the work; where a BMC takes upload and start as two requests, both are done here.
    fn start_update<'a>(&'a self, request: &'a UpdateRequest) -> BoxFuture<'a, BmcResult<Started>>;

    /// Reads how a task is doing. Never changes anything, and never reads a URI whose reading has an effect.
    fn follow<'a>(&'a self, task: &'a TaskRef) -> BoxFuture<'a, BmcResult<TaskProgress>>;

    /// Tasks, jobs and queue entries, open or finished, that concern updates: what a crashed operation is settled by, and
    /// what tells that someone else is flashing.
    fn pending_work(&self) -> BoxFuture<'_, BmcResult<Vec<PendingWork>>>;

    /// Resets or powers the host.
    fn reset_host(&self, kind: HostReset) -> BoxFuture<'_, BmcResult<()>>;

    /// Restarts the BMC. It will be away for minutes afterwards.
    fn reset_bmc(&self) -> BoxFuture<'_, BmcResult<()>>;

    /// Removes and returns the device's input power, where the BMC can. Where it cannot ([`ErrorKind::NotSupported`]), a
    /// person must, and the message says so.
    fn ac_cycle(&self) -> BoxFuture<'_, BmcResult<()>>;

    /// The settings that are in force, and those that wait for a reset. [`ErrorKind::NotSupported`] where the BMC offers
    /// none of this scope.
    fn read_settings(&self, scope: Scope) -> BoxFuture<'_, BmcResult<Reading>> {
        Box::pin(async move { Err(no_settings(scope)) })
    }

    /// Compares wanted settings with the machine's own registry and state, read now. Changes nothing.
    fn validate_settings<'a>(
        &'a self,
        scope: Scope,
        wanted: &'a Values,
    ) -> BoxFuture<'a, BmcResult<Judgement>> {
        let _ = wanted;
        Box::pin(async move { Err(no_settings(scope)) })
    }

    /// Writes what differs and can be written now into the BMC's pending object, and reads it back from there. With a
    /// problem in any of them nothing is sent ([`ErrorKind::Invalid`]). Success says that the BMC has taken them; that they
    /// are in force is read with [`Bmc::read_settings`] after the reset that [`Applied::reset`] asks for. While
    /// [`Applied::left`] names something, that is to be repeated.
    fn apply_settings<'a>(&'a self, scope: Scope, wanted: &'a Values) -> BoxFuture<'a, BmcResult<Applied>> {
        let _ = wanted;
        Box::pin(async move { Err(no_settings(scope)) })
    }

    /// Gives the session back. Called on every way out; dropping the last handle does the same in the background.
    fn close(&self) -> BoxFuture<'_, BmcResult<()>>;
}

pub(crate) fn no_settings(scope: Scope) -> BmcError {
    BmcError::new(
        ErrorKind::NotSupported,
        format!("read the {scope} settings"),
        format!("this machine offers no {scope} settings"),
    )
}

/// Where a BMC is and how to speak to it. `Debug` shows no secret.
#[derive(Clone)]
pub struct Endpoint {
    /// `https://host[:port]`, without a path. `http://` is refused except by a test's explicit [`Limits::allow_plain_http`].
    pub url: String,
    /// The account.
    pub credentials: Credentials,
    /// What makes its certificate believed.
    pub trust: Trust,
    /// What the machine must say of itself before anything is changed on it. None: not compared (probing only).
    pub expect: Option<ExpectedIdentity>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &self.url)
            .field("credentials", &self.credentials)
            .field("trust", &self.trust)
            .field("expect", &self.expect)
            .finish()
    }
}

/// A BMC account.
#[derive(Clone)]
pub struct Credentials {
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: SecretString,
}

impl Credentials {
    /// An account from a name and a password.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            username: username.into(),
            password: SecretString::from(password.into()),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(redacted)")
    }
}

/// What makes a BMC's certificate believed. There is no way to believe every certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Certificates that chain to one of these authorities (PEM, one or more) and name the host.
    Ca {
        /// The PEM text.
        pem: String,
    },
    /// Exactly this certificate, whatever it says.
    Pinned(Fingerprint),
    /// Whatever it shows now, because nothing is recorded yet and a person asked for this. [`Bmc::certificate`] then says
    /// what to record. A change while the connection lives is refused.
    FirstUse,
}

/// The SHA-256 of a certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Parses 64 hex digits, with or without colons, upper or lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text.trim().bytes().filter(|b| *b != b':').take(65).collect();
        if digits.len() != 64 {
            return None;
        }
        let mut bytes = [0_u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let high = (pair[0] as char).to_digit(16)?;
            let low = (pair[1] as char).to_digit(16)?;
            *byte = u8::try_from(high * 16 + low).ok()?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// What a machine must say of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectedIdentity {
    /// Its serial number; compared without regard to case and surrounding space.
    pub serial: Option<String>,
    /// Its UUID; an all-zero one counts as absent on either side.
    pub uuid: Option<String>,
}

/// Which machine answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The system's maker as it says it, for example `Dell Inc.`.
    pub manufacturer: Option<String>,
    /// The product, for example `PowerEdge R750`.
    pub model: Option<String>,
    /// The serial number that people's records have: the chassis' own, on Dell the service tag. Placeholders such as
    /// `Not Specified` are None.
    pub serial: Option<String>,
    /// A second number that labels show, where there is one: Dell's `SerialNumber` beside the service tag.
    pub second_serial: Option<String>,
    /// The system's UUID, lower case. All-zero is None.
    pub uuid: Option<String>,
    /// The order number; Dell's service tag, HPE's product id.
    pub sku: Option<String>,
    /// Whose BMC this is: what decides which habits are expected of it.
    pub vendor: Vendor,
    /// The BMC's product, for example `iDRAC 9` or `iLO 5`, where it says so.
    pub bmc_model: Option<String>,
    /// The BMC's firmware version, where its manager says so.
    pub bmc_version: Option<String>,
    /// The `@odata.id` of the system that was read. With several behind one BMC, the one that matches
    /// [`Endpoint::expect`], else the first.
    pub system: String,
}

impl Identity {
    /// Whether this is the machine that is expected. What neither side knows does not count; but something must match.
    #[must_use]
    pub fn matches(&self, expected: &ExpectedIdentity) -> bool {
        let same = |want: &Option<String>, have: &Option<String>| match (plain(want), plain(have)) {
            (Some(want), Some(have)) => Some(want == have),
            (Some(_), None) => Some(false),
            (None, _) => None,
        };
        let serial = match same(&expected.serial, &self.serial) {
            Some(false) if plain(&expected.serial) == plain(&self.second_serial) => Some(true),
            judged => judged,
        };
        let uuid = match (plain(&expected.uuid), plain(&self.uuid)) {
            (Some(want), Some(have)) => Some(want == have),
            // A BMC that lost its UUID still has its serial; a serial that is gone is not excused.
            _ => None,
        };
        match (serial, uuid) {
            (Some(false), _) | (_, Some(false)) | (None, None) => false,
            (Some(true), _) | (None, Some(true)) => true,
        }
    }
}

fn plain(text: &Option<String>) -> Option<String> {
    let text = text.as_deref()?.trim().to_ascii_lowercase();
    let empty = text.is_empty() || text.chars().all(|c| c == '0' || c == '-');
    (!empty).then_some(text)
}

/// Whose BMC it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Vendor {
    /// Dell iDRAC.
    Dell,
    /// HPE iLO.
    Hpe,
    /// Lenovo XCC.
    Lenovo,
    /// Supermicro.
    Supermicro,
    /// OpenBMC and what is built on it.
    OpenBmc,
    /// AMI MegaRAC.
    Ami,
    /// Any other: spoken to by the standard alone.
    #[default]
    Other,
}

/// Whether the host is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PowerState {
    /// On.
    On,
    /// Off.
    Off,
    /// On its way on.
    PoweringOn,
    /// On its way off.
    PoweringOff,
    /// Paused.
    Paused,
    /// It did not say, or said something that the standard does not know.
    Unknown,
}

/// A `Status.Health`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Health {
    /// Normal.
    Ok,
    /// It did not say.
    Unknown,
    /// Needs attention.
    Warning,
    /// Needs it now.
    Critical,
}

/// How the device says it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthReport {
    /// The worse of the system's and what is in it (`HealthRollup`).
    pub system: Health,
    /// The BMC's own.
    pub bmc: Health,
    /// Whether the host was on.
    pub power: PowerState,
    /// Whether the system is `Enabled` and neither starting nor being updated.
    pub steady: bool,
    /// Whether the host is on and still in its firmware (`BootProgress`). Some BMCs never say that this ended.
    pub booting: bool,
    /// What is wrong, in the BMC's words, bounded and cleaned.
    pub messages: Vec<String>,
}

/// Everything that carries firmware, as read at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// The components, ordered by class and id: the same machine gives the same list.
    pub components: Vec<Component>,
    /// When the reading ended, by our clock (a BMC's may stand in 1970).
    pub read_at: Timestamp,
    /// Whether the host was on: with it off, adapters and their versions may be missing without being gone.
    pub power: PowerState,
    /// What was malformed, missing or left out, one each.
    pub findings: Vec<Finding>,
}

/// Something about an answer that was tolerated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The resource, for example `/redfish/v1/UpdateService/FirmwareInventory/17`.
    pub at: String,
    /// What was the matter, for example `Version is a number, expected a string`.
    pub what: String,
}

/// A way to get an image onto a BMC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UpdateMethod {
    /// We send the image in two parts (`MultipartHttpPushUri`).
    MultipartPush,
    /// The BMC fetches the image from us (`UpdateService.SimpleUpdate`).
    SimpleUpdate,
    /// We send the image as it is (`HttpPushUri`).
    HttpPush,
    /// We send the image, the BMC verifies it, we tell it to start (`UpdateService.StartUpdate`).
    PushThenStart,
}

/// When an accepted image is installed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ApplyTime {
    /// Whatever the BMC does when it is not told.
    #[default]
    Default,
    /// At once.
    Immediate,
    /// At the next reset of the host.
    OnReset,
    /// At the reset of the target.
    OnTargetReset,
    /// When asked by `StartUpdate`.
    OnStartUpdateRequest,
}

impl ApplyTime {
    /// The word that Redfish has for it.
    #[must_use]
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Default => None,
            Self::Immediate => Some("Immediate"),
            Self::OnReset => Some("OnReset"),
            Self::OnTargetReset => Some("OnTargetReset"),
            Self::OnStartUpdateRequest => Some("OnStartUpdateRequest"),
        }
    }
}

/// What updates a BMC accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// Whether the update service is enabled.
    pub enabled: bool,
    /// The methods, best first for this BMC.
    pub methods: Vec<UpdateMethod>,
    /// The apply times that it lists. Empty: it lists none, so none is sent.
    pub apply_times: Vec<ApplyTime>,
    /// The largest image it takes, in bytes.
    pub max_image_bytes: Option<u64>,
    /// Whether an installed version can wait for its activation, visible as [`Component::staged`].
    pub staging: bool,
    /// The protocols by which it can fetch (`SimpleUpdate`), for example `HTTPS`.
    pub transfer_protocols: Vec<String>,
    /// The kinds of host reset it lists.
    pub host_resets: Vec<HostReset>,
    /// Whether [`Bmc::ac_cycle`] can work.
    pub ac_cycle: bool,
}

/// An image on this machine's disk whose digest was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The file.
    pub path: PathBuf,
    /// The base name to present: some BMCs go by it.
    pub file_name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256, lower-case hex.
    pub sha256: String,
}

/// What to install.
#[derive(Clone, Debug)]
pub struct UpdateRequest {
    /// The class of the component.
    pub class: ComponentClass,
    /// [`Component::id`] of those to update. Empty: whatever the image is for, which is how most BMCs want it.
    pub components: Vec<String>,
    /// The image.
    pub image: Image,
    /// Where the BMC can fetch the same image ([`UpdateMethod::SimpleUpdate`]); None: that method is not used.
    pub image_url: Option<String>,
    /// When to install. Sent only where the BMC lists it.
    pub apply: ApplyTime,
    /// The version that should be read afterwards; for messages.
    pub wanted: String,
    /// Only this method. None: the BMC's best.
    pub method: Option<UpdateMethod>,
    /// Ask for installation of the same or a lower version (`ForceUpdate`).
    pub force: bool,
    /// How long the whole call may take.
    pub deadline: Duration,
}

/// An update that the BMC accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// What to follow. None: the BMC named nothing; read the inventory instead.
    pub task: Option<TaskRef>,
    /// How it was sent.
    pub method: UpdateMethod,
    /// When the BMC will install it, as far as it was told.
    pub apply: ApplyTime,
    /// What the BMC said on accepting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<TaskMessage>,
}

/// Something on a BMC that can be followed; small enough for a status.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRef {
    /// Its path on the BMC, for example `/redfish/v1/TaskService/Tasks/12`.
    pub uri: String,
    /// What it is.
    pub kind: TaskKind,
}

/// What a [`TaskRef`] points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TaskKind {
    /// A Redfish Task.
    Task,
    /// A Redfish or vendor's Job.
    Job,
    /// The update service itself reports the progress (iLO).
    UpdateService,
}

/// A `TaskState` or what corresponds to it in a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the words of DSP0268 Task.TaskState
pub enum TaskState {
    New,
    Starting,
    Pending,
    Running,
    Service,
    Stopping,
    Suspended,
    UserIntervention,
    Completed,
    Exception,
    Killed,
    Cancelling,
    Cancelled,
    Interrupted,
    /// The BMC says nothing of it any more (or not yet): see [`TaskProgress::gone`].
    Absent,
    /// A word that the standard does not have.
    Unknown,
}

/// What a task's state means for who waits on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TaskOutcome {
    /// Ask again later.
    InProgress,
    /// It waits for a reset of the host (or whatever the component needs) and will not move before.
    AwaitingReset,
    /// The BMC says it is done. Read the version back: this alone proves nothing.
    Done,
    /// The BMC says it failed.
    Failed,
    /// There is no such task (any more). Not a failure: read the version back.
    Gone,
}

/// How a task is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskProgress {
    /// The state as the BMC gave it.
    pub state: TaskState,
    /// What that means, with the vendor's habits taken into account.
    pub outcome: TaskOutcome,
    /// 0 to 100, where it says so.
    pub percent: Option<u8>,
    /// What it said, newest last, at most sixteen.
    pub messages: Vec<TaskMessage>,
    /// The BMC answers, but knows no such task: it was purged after its end, died with a BMC restart, or is not there yet.
    pub gone: bool,
    /// Follow this one instead from now on (a task that became a job).
    pub moved_to: Option<TaskRef>,
}

/// One message of a task or an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMessage {
    /// The registry's id, for example `Update.1.0.AwaitToActivate` or `IDRAC.2.8.JCP052`; empty where none was given.
    pub id: String,
    /// The text, cleaned and cut to 512 characters.
    pub text: String,
    /// How grave it is.
    pub severity: Health,
}

/// Something about updates that a BMC has in hand or remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingWork {
    /// What to follow.
    pub task: TaskRef,
    /// What the BMC calls it, for example `Firmware Update: BIOS`.
    pub name: String,
    /// How it is doing.
    pub progress: TaskProgress,
    /// When it began by the BMC's own clock, as it wrote it. Not comparable with ours.
    pub started: Option<String>,
    /// The component class that the name speaks of, where it does.
    pub class: Option<ComponentClass>,
}

impl PendingWork {
    /// Whether it may still change the device.
    #[must_use]
    pub fn open(&self) -> bool {
        matches!(
            self.progress.outcome,
            TaskOutcome::InProgress | TaskOutcome::AwaitingReset
        )
    }
}

/// A kind of host reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HostReset {
    /// Turn it on.
    On,
    /// Ask the operating system to shut down.
    GracefulShutdown,
    /// Take the power away.
    ForceOff,
    /// Ask the operating system to restart.
    GracefulRestart,
    /// Restart at once; done as off, wait, on where this BMC's own restart is known to hang.
    ForceRestart,
    /// Off and on at once.
    PowerCycle,
    /// Off, a pause without power, on: what some firmware needs before it runs. Done in these steps on every BMC. The host
    /// is on afterwards, whatever it was before; an error that leaves the outcome unknown may have left it off.
    ColdBoot,
}

impl HostReset {
    /// The word that Redfish has for it; for a cold boot, which has none, HPE's.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "On",
            Self::GracefulShutdown => "GracefulShutdown",
            Self::ForceOff => "ForceOff",
            Self::GracefulRestart => "GracefulRestart",
            Self::ForceRestart => "ForceRestart",
            Self::PowerCycle => "PowerCycle",
            Self::ColdBoot => "ColdBoot",
        }
    }
}

/// How much a BMC may ask of us, and we of it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest answer that is read: 8 MiB. The largest real one seen is a 3 MiB attribute registry.
    pub body_bytes: usize,
    /// The deepest JSON that is read. Real ones stay under 20.
    pub depth: usize,
    /// How long one request may take, from connecting to the answer's last byte.
    pub request_timeout: Duration,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// The most members of one collection that are read.
    pub members: usize,
    /// The most components that are kept of one device.
    pub components: usize,
    /// Reads at a time per BMC. Changes are always one.
    pub reads: usize,
    /// How often, and how far apart, a task is asked for while a call waits for one itself.
    pub poll: Duration,
    /// How long to wait between off and on where a restart is done in two steps.
    pub off_time: Duration,
    /// Let `http://` through. For tests only.
    pub allow_plain_http: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 8 * 1024 * 1024,
            depth: 64,
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            members: 1024,
            components: 512,
            reads: 2,
            poll: Duration::from_secs(5),
            off_time: Duration::from_secs(10),
            allow_plain_http: false,
        }
    }
}

/// Why a call failed: a stable word for conditions, events and metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKind {
    /// No connection: refused, no route, no such name.
    Unreachable,
    /// Connected, but no whole answer in time.
    Timeout,
    /// The connection broke before the whole answer had come.
    ConnectionLost,
    /// The certificate is not one that the trust allows: wrong authority, expired, wrong name, or TLS failed.
    TlsUntrusted,
    /// Another certificate than the recorded one.
    CertificateChanged,
    /// The account was refused. Not tried again by itself: BMCs lock accounts out.
    AuthenticationFailed,
    /// Every session of the BMC is taken.
    SessionLimit,
    /// The BMC is starting, or asks to come back later.
    Unavailable,
    /// The BMC does something else, or its queue is taken by another; the message names what.
    Busy,
    /// The BMC said no, in its own words.
    Rejected,
    /// This BMC cannot do it.
    NotSupported,
    /// The BMC could, but was not bought to: the message names the licence.
    NotLicensed,
    /// There is no such resource.
    NotFound,
    /// The answer is no Redfish: not JSON, HTML, wrong types where nothing can be left out.
    MalformedAnswer,
    /// The answer is larger, longer or deeper than allowed.
    TooLarge,
    /// Another machine answers at this address.
    WrongMachine,
    /// The answer points to another host or address.
    Redirected,
    /// Something about the request or this machine, before anything was sent: a missing image, a bad URL.
    Invalid,
}

impl ErrorKind {
    /// Every kind, for documentation and metrics.
    pub const ALL: [Self; 18] = [
        Self::Unreachable,
        Self::Timeout,
        Self::ConnectionLost,
        Self::TlsUntrusted,
        Self::CertificateChanged,
        Self::AuthenticationFailed,
        Self::SessionLimit,
        Self::Unavailable,
        Self::Busy,
        Self::Rejected,
        Self::NotSupported,
        Self::NotLicensed,
        Self::NotFound,
        Self::MalformedAnswer,
        Self::TooLarge,
        Self::WrongMachine,
        Self::Redirected,
        Self::Invalid,
    ];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "Unreachable",
            Self::Timeout => "Timeout",
            Self::ConnectionLost => "ConnectionLost",
            Self::TlsUntrusted => "TlsUntrusted",
            Self::CertificateChanged => "CertificateChanged",
            Self::AuthenticationFailed => "AuthenticationFailed",
            Self::SessionLimit => "SessionLimit",
            Self::Unavailable => "Unavailable",
            Self::Busy => "Busy",
            Self::Rejected => "Rejected",
            Self::NotSupported => "NotSupported",
            Self::NotLicensed => "NotLicensed",
            Self::NotFound => "NotFound",
            Self::MalformedAnswer => "MalformedAnswer",
            Self::TooLarge => "TooLarge",
            Self::WrongMachine => "WrongMachine",
            Self::Redirected => "Redirected",
            Self::Invalid => "Invalid",
        }
    }
}

/// A call to a BMC that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("failed to {doing}: {detail}")]
pub struct BmcError {
    kind: ErrorKind,
    doing: String,
    detail: String,
    outcome_unknown: bool,
    retry_after: Option<Duration>,
}

impl BmcError {
    /// An error of a kind; `doing` completes "failed to …", `detail` says why. Both are cleaned and cut.
    pub fn new(kind: ErrorKind, doing: impl AsRef<str>, detail: impl AsRef<str>) -> Self {
        Self {
            kind,
            doing: crate::text::clean(doing.as_ref(), 256),
            detail: crate::text::clean(detail.as_ref(), 1024),
            outcome_unknown: false,
            retry_after: None,
        }
    }

    /// The same, for a change that may have happened.
    #[must_use]
    pub fn with_outcome_unknown(mut self, unknown: bool) -> Self {
        self.outcome_unknown = unknown;
        self
    }

    /// The same, with the time after which to come back.
    #[must_use]
    pub fn with_retry_after(mut self, after: Option<Duration>) -> Self {
        self.retry_after = after;
        self
    }

    /// Why.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Why, as a stable PascalCase word.
    #[must_use]
    pub fn category(&self) -> &'static str {
        self.kind.as_str()
    }

    /// The request was sent (in whole or in part) and no answer tells whether it had its effect. Settle by reading.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        self.outcome_unknown
    }

    /// How long the BMC asks to be left alone.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether trying the same again later can help without anyone doing anything.
    #[must_use]
    pub fn transient(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Unreachable
                | ErrorKind::Timeout
                | ErrorKind::ConnectionLost
                | ErrorKind::SessionLimit
                | ErrorKind::Unavailable
                | ErrorKind::Busy
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_out_of_debug() {
        let endpoint = Endpoint {
            url: "https://bmc".into(),
            credentials: Credentials::new("root", "canary-4711"),
            trust: Trust::FirstUse,
            expect: None,
        };
        let text = format!("{endpoint:?}");
        assert!(!text.contains("canary-4711") && !text.contains("root"), "{text}");
    }

    #[test]
    fn a_fingerprint_is_read_in_the_forms_people_paste() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        assert_eq!(Fingerprint::parse(&plain), Fingerprint::parse(&colons));
        assert_eq!(Fingerprint::parse(&plain).unwrap().to_string(), plain);
        for bad in ["", "ab", &"zz".repeat(32), &"ab".repeat(33)] {
            assert_eq!(Fingerprint::parse(bad), None);
        }
    }

    #[test]
    fn identity_needs_something_that_matches_and_nothing_that_differs() {
        let is = |serial: Option<&str>, uuid: Option<&str>| Identity {
            serial: serial.map(Into::into),
            uuid: uuid.map(Into::into),
            ..Identity::default()
        };
        let want = |serial: Option<&str>, uuid: Option<&str>| ExpectedIdentity {
            serial: serial.map(Into::into),
            uuid: uuid.map(Into::into),
        };
        assert!(is(Some("ABC"), None).matches(&want(Some(" abc"), None)));
        assert!(is(Some("ABC"), None).matches(&want(Some("ABC"), Some("1234"))));
        assert!(!is(Some("ABD"), Some("1234")).matches(&want(Some("ABC"), Some("1234"))));
        assert!(!is(Some("ABC"), Some("1235")).matches(&want(Some("ABC"), Some("1234"))));
        assert!(!is(None, Some("1234")).matches(&want(Some("ABC"), Some("1234"))));
        assert!(
            !is(Some("ABC"), None).matches(&want(None, None)),
            "nothing expected is nothing matched"
        );
        assert!(
            !is(None, Some("0000-0000")).matches(&want(None, Some("0000-0000"))),
            "zero is no identity"
        );
    }

    #[test]
    fn categories_are_distinct_pascal_case_words() {
        let words: std::collections::BTreeSet<_> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(words.len(), ErrorKind::ALL.len());
        assert!(words.iter().all(|word| word.chars().all(char::is_alphanumeric)));
    }

    #[test]
    fn errors_carry_no_control_characters() {
        let error = BmcError::new(ErrorKind::Rejected, "log in", "\u{1b}[31mno\r\n\u{202e}way");
        assert_eq!(error.to_string(), "failed to log in: [31mno way");
    }
}
