//! What the world is told: plain structs, one per kind, with names as text.
//!
//! ```text
//!   kinds (kiban-api) ──convert──▶ facts ──World::upsert_*──▶ compact rows
//! ```
//!
//! A fact is what an object says, parsed, and nothing more. The world accepts any of them in any order: a reference
//! to something that is not there is a finding of the plan, never an error here.

use crate::{
    amount::Amount,
    approval::{ApprovalGiven, ApprovalRule, People, Resumed},
    component::{Component, ComponentClass},
    gate::{GateRule, GateStanding},
};
use jiff::{SignedDuration, Timestamp, civil::Date};
use serde::{Deserialize, Serialize};

/// One physical machine: what engineers wrote of it and what its BMC said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceFacts {
    /// Name of the `Device`.
    pub name: String,
    /// Name of the `HardwareModel`.
    pub model: String,
    /// Serial number that the machine must answer with.
    pub serial: String,
    /// UUID that the machine must answer with, when written.
    pub uuid: Option<String>,
    /// Address of the BMC. Two devices with one address are a finding, and neither is changed.
    pub bmc_url: String,
    /// Site.
    pub site: String,
    /// Room.
    pub room: String,
    /// Rack.
    pub rack: String,
    /// Power feeds; it counts on each of them.
    pub power: Vec<String>,
    /// Redundancy group: of its devices only one is down at a time. Empty: none.
    pub redundancy_group: String,
    /// Name of the pool (`spec.pool`); empty: none.
    pub pool: String,
    /// Who the BMC says the machine is. None: it was never read.
    pub identity: Option<IdentityFacts>,
    /// Health as last read.
    pub health: Health,
    /// Whether the BMC answers.
    pub reach: Reach,
    /// Whether the inventory is as young as the policy wants (condition `InventoryFresh`).
    pub fresh: bool,
    /// Firmware as last read. None: never read. The order does not matter.
    pub firmware: Option<Vec<FirmwareFacts>>,
    /// When the firmware was last read to differ from the reading before (`status.firmwareReadAt`).
    pub firmware_changed_at: Option<Timestamp>,
    /// Set when a person must look before anything is changed.
    pub hold: Option<HoldFacts>,
    /// The last operation that ended on the device.
    pub last_operation: Option<LastOperationFacts>,
}

/// Who a BMC says its machine is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IdentityFacts {
    /// Manufacturer of the system.
    pub manufacturer: String,
    /// Model of the system.
    pub model: String,
    /// Serial number.
    pub serial: String,
    /// UUID.
    pub uuid: String,
}

/// Health of a machine (Redfish `Status.HealthRollup`, DSP0266).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Health {
    /// Not known.
    #[default]
    Unknown,
    /// In order.
    #[serde(rename = "OK")]
    Ok,
    /// Degraded, still serving: may be updated.
    Warning,
    /// Out of order: counts as unavailable and is not updated.
    Critical,
}

/// Whether a BMC answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reach {
    /// Nobody has read it yet.
    #[default]
    NeverRead,
    /// It answers.
    Reachable,
    /// It does not answer (condition `Reachable` is False).
    Unreachable,
}

/// Firmware of one component as the BMC reports it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FirmwareFacts {
    /// Class.
    pub class: ComponentClass,
    /// Name as the BMC reports it.
    pub name: String,
    /// Manufacturer, empty when unknown.
    #[serde(default)]
    pub manufacturer: String,
    /// Model, empty when unknown.
    #[serde(default)]
    pub model: String,
    /// Version that runs. Empty: the BMC did not say.
    pub version: String,
    /// Version that is staged and waits for its activation.
    #[serde(default)]
    pub staged: Option<String>,
    /// Whether the BMC says it can update it. None: it did not say, and it is tried.
    #[serde(default)]
    pub updateable: Option<bool>,
    /// Lowest version that the BMC accepts.
    #[serde(default)]
    pub lowest_supported: Option<String>,
}

impl FirmwareFacts {
    /// A component of which class, name and version are known.
    #[must_use]
    pub fn new(class: ComponentClass, name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            class,
            name: name.into(),
            manufacturer: String::new(),
            model: String::new(),
            version: version.into(),
            staged: None,
            updateable: None,
            lowest_supported: None,
        }
    }
}

impl From<&Component> for FirmwareFacts {
    fn from(component: &Component) -> Self {
        Self {
            class: component.class,
            name: component.name.clone(),
            manufacturer: component.manufacturer.clone().unwrap_or_default(),
            model: component.model.clone().unwrap_or_default(),
            version: component.version.clone().unwrap_or_default(),
            staged: component.staged.clone(),
            updateable: component.updateable,
            lowest_supported: component.lowest_supported.clone(),
        }
    }
}

/// Why a person must look at a device first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HoldFacts {
    /// CamelCase reason, for example `OutcomeUnknown`.
    pub reason: String,
    /// The operation that led to it; empty when none did.
    pub operation: String,
}

/// What the last operation on a device came to (`Device.status.lastOperation`): the durable memory of what a
/// revision did to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastOperationFacts {
    /// Its id.
    pub id: String,
    /// The rollout's revision that it served.
    pub revision: String,
    /// How it ended; an outcome that is not final is read as `Failed`.
    pub outcome: Outcome,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// How an operation stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Not started.
    #[default]
    Pending,
    /// Under way.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly, and known how.
    Failed,
    /// Ended in a state that a person must look at.
    Held,
}

impl Outcome {
    /// Whether it has ended.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Held)
    }

    /// The name used in status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Held => "Held",
        }
    }
}

/// A product that can be bought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelFacts {
    /// Name of the `HardwareModel`.
    pub name: String,
    /// Patterns for the model that the BMC reports. The conversion puts the product's name here where none is
    /// written; an empty list matches nothing.
    pub reported_as: Vec<String>,
}

/// The devices that serve one service, and what that service demands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolFacts {
    /// Name of the `HardwarePool`.
    pub name: String,
    /// The service that it serves: pools of one service share the service's budget.
    #[serde(default)]
    pub service: String,
    /// Names of the baselines.
    pub baselines: Vec<String>,
    /// Most devices unavailable at once.
    pub max_unavailable: Amount,
    /// An absolute bound on that; None: none.
    #[serde(default)]
    pub at_most: Option<u32>,
    /// Most devices unavailable at once in one failure domain.
    pub max_per_domain: u32,
    /// What a failure domain is.
    pub domain: FailureDomain,
    /// Further limits on the pool's devices, each per domain of its kind.
    #[serde(default)]
    pub domains: Vec<DomainLimit>,
    /// Who is served first where pools share a budget: the larger.
    #[serde(default)]
    pub priority: i32,
    /// The waves; empty: the default ones (1 device, 10 %, 100 %).
    pub waves: Vec<WaveFacts>,
    /// Failures that halt a rollout; 0 is read as 1.
    pub halt_after_failed: u32,
    /// Changing it starts a new revision.
    pub retry: u32,
    /// What must hold before a wave opens.
    #[serde(default)]
    pub gates: Vec<GateRule>,
    /// Who must approve before a wave.
    #[serde(default)]
    pub approvals: Vec<ApprovalRule>,
    /// Who may end a halt by an approval; nobody: only a commit does.
    #[serde(default)]
    pub resumable_by: People,
    /// The commit that last changed it; empty when it did not come from Git.
    #[serde(default)]
    pub commit: String,
}

impl PoolFacts {
    /// A pool with the defaults of the kind: one device at a time, one per rack, the first failure halts.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            service: String::new(),
            baselines: Vec::new(),
            max_unavailable: Amount::Count(1),
            at_most: None,
            max_per_domain: 1,
            domain: FailureDomain::Rack,
            domains: Vec::new(),
            priority: 0,
            waves: Vec::new(),
            halt_after_failed: 1,
            retry: 0,
            gates: Vec::new(),
            approvals: Vec::new(),
            resumable_by: People::default(),
            commit: String::new(),
        }
    }
}

/// When disruption is allowed: a `MaintenanceWindow`, as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WindowFacts {
    /// Name of the `MaintenanceWindow`.
    pub name: String,
    /// When it opens: a cron pattern of five fields, in wall time of the zone.
    pub start: String,
    /// How long it stays open, for example `7h`.
    pub duration: String,
    /// IANA time zone, for example `Asia/Tokyo`.
    pub time_zone: String,
    /// First and last day on which it opens; None: no bound.
    pub valid: (Option<Date>, Option<Date>),
    /// Days on which it does not open.
    pub exceptions: Vec<DaysFacts>,
}

/// A range of days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DaysFacts {
    /// First day.
    pub from: Date,
    /// Last day.
    pub to: Date,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

/// A time in which nothing is disrupted, whatever a window says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FreezeFacts {
    /// When it begins.
    pub from: Timestamp,
    /// When it ends.
    pub to: Timestamp,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
    /// Names of the pools that are frozen; empty: the whole fleet.
    #[serde(default)]
    pub pools: Vec<String>,
}

/// What a failure domain is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FailureDomain {
    /// A rack, within its room and site.
    #[default]
    Rack,
    /// A room, within its site.
    Room,
    /// A site.
    Site,
    /// A power feed, within its site. A device on two feeds is in both domains.
    Power,
}

impl FailureDomain {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Rack, Self::Room, Self::Site, Self::Power];

    /// The word in a sentence.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rack => "rack",
            Self::Room => "room",
            Self::Site => "site",
            Self::Power => "power feed",
        }
    }
}

/// Most devices that may be unavailable at once in each domain of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainLimit {
    /// The kind.
    pub over: FailureDomain,
    /// How many.
    pub max: u32,
}

/// One wave: how far the change has spread when it is done, and the wait after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaveFacts {
    /// How far, of all devices concerned (cumulative): a count, or percent rounded up.
    pub reach: Amount,
    /// The wait before the next wave opens; negative is read as none.
    pub soak: SignedDuration,
}

/// The wanted firmware of some models.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BaselineFacts {
    /// Name of the `FirmwareBaseline`.
    pub name: String,
    /// Names of the models that it speaks of.
    pub models: Vec<String>,
    /// What is wanted.
    pub components: Vec<WantedComponent>,
    /// The commit that last changed it; empty when it did not come from Git.
    pub commit: String,
}

/// What is wanted of one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WantedComponent {
    /// Class.
    pub class: ComponentClass,
    /// Which components of the class.
    #[serde(rename = "match", default)]
    pub matches: ComponentMatch,
    /// The version wanted.
    pub version: String,
    /// Versions that are good enough, as a requirement, for example `>=1.14.1`.
    #[serde(default)]
    pub accept: Option<String>,
    /// Versions that must not run.
    #[serde(default)]
    pub deny: Vec<String>,
    /// The image; without one nothing is installed.
    #[serde(default)]
    pub image: Option<Image>,
    /// What makes the version run; None: by the class.
    #[serde(default)]
    pub activation: Option<Activation>,
    /// Whether the way back to an older version is allowed.
    #[serde(default)]
    pub allow_downgrade: bool,
    /// Versions from which it may be installed directly, as a requirement; None: from any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Versions to pass through on the way, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<SteppingStone>,
}

/// A version that a component passes through on its way to the wanted one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SteppingStone {
    /// The version.
    pub version: String,
    /// Versions from which the way leads over this stone, as a requirement; None: from every version known to be older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its image.
    pub image: Image,
    /// What makes it run; None: by the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
}

/// Which components of a class an entry speaks of: every given pattern must match, `*` stands for any text, upper
/// and lower case are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ComponentMatch {
    /// Pattern for the manufacturer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// Pattern for the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Pattern for the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ComponentMatch {
    /// Whether no pattern is given: all components of the class.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.manufacturer.is_none() && self.model.is_none() && self.name.is_none()
    }

    /// Whether a component with these texts is spoken of.
    #[must_use]
    pub fn covers(&self, manufacturer: &str, model: &str, name: &str) -> bool {
        let holds = |pattern: &Option<String>, text: &str| {
            pattern
                .as_deref()
                .is_none_or(|pattern| crate::pattern::matches(pattern, text))
        };
        holds(&self.manufacturer, manufacturer) && holds(&self.model, model) && holds(&self.name, name)
    }
}

/// A firmware image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Address.
    pub url: String,
    /// SHA-256 of the file, 64 hex digits.
    pub sha256: String,
    /// Size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// What makes a new version run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Activation {
    /// Nothing: it runs when the update is done.
    None,
    /// A reset of the BMC.
    #[serde(rename = "BMCReset")]
    BmcReset,
    /// A reset of the host.
    HostReset,
    /// Host off, then on.
    ColdBoot,
    /// A removal of AC power.
    #[serde(rename = "ACCycle")]
    AcCycle,
}

impl Activation {
    /// What a class needs when the baseline does not say.
    #[must_use]
    pub fn of_class(class: ComponentClass) -> Self {
        match class {
            ComponentClass::Bmc => Self::BmcReset,
            _ => Self::HostReset,
        }
    }
}

/// What holds for the whole fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyFacts {
    /// Start nothing new.
    pub paused: bool,
    /// Most devices of the fleet unavailable at once; None: the pools' own budgets alone.
    pub max_unavailable: Option<Amount>,
    /// An absolute bound on that; None: none.
    pub at_most: Option<u32>,
    /// Limits on all pools' devices together, each per domain of its kind.
    pub domains: Vec<DomainLimit>,
    /// Budgets that the pools of one service share.
    pub services: Vec<ServiceFacts>,
    /// When a room or a site counts as dark.
    pub dark: DarkFacts,
    /// Versions that are never installed.
    pub denied_versions: Vec<DeniedVersions>,
}

/// When a room or a site counts as dark: both must hold. Then it is the room that is ill, and not each device in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DarkFacts {
    /// More than this share of its devices that were ever read do not answer, in percent.
    pub percent: u8,
    /// At least so many do not.
    pub devices: u32,
}

impl Default for DarkFacts {
    fn default() -> Self {
        Self {
            percent: 50,
            devices: 5,
        }
    }
}

/// The budget of a service: its pools share it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceFacts {
    /// Name of the service, as its pools give it.
    pub name: String,
    /// Most devices of all its pools unavailable at once.
    pub max_unavailable: Amount,
    /// An absolute bound on that; None: none.
    #[serde(default)]
    pub at_most: Option<u32>,
}

/// Versions of one component that are never installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeniedVersions {
    /// Class.
    pub class: ComponentClass,
    /// Which components of the class.
    #[serde(rename = "match", default)]
    pub matches: ComponentMatch,
    /// The versions.
    pub versions: Vec<String>,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

/// A rollout as it is stored: the planner's own memory, which somebody else may have written over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutFacts {
    /// Name of the `Rollout`.
    pub name: String,
    /// Name of the pool.
    pub pool: String,
    /// Name of the baseline.
    pub baseline: String,
    /// Its status; None while it has none.
    pub status: Option<RolloutStatus>,
}

/// How far a rollout is, as its status holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutStatus {
    /// Digest of what is wanted.
    pub revision: String,
    /// The commit that brought the revision.
    pub commit: String,
    /// When the revision started.
    pub started_at: Option<Timestamp>,
    /// Devices that the change concerns.
    pub total: u32,
    /// Of them, done.
    pub done: u32,
    /// Of them, failed or held.
    pub failed: u32,
    /// Of them, with an operation under way.
    pub running: u32,
    /// Present wave, from 1.
    pub wave: u32,
    /// How many waves there are.
    pub waves: u32,
    /// When the present wave was done and its soak began.
    pub wave_done_at: Option<Timestamp>,
    /// How the pool's gates stand, in the order of the pool.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateStanding>,
    /// The approvals that counted, in the order in which they did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<ApprovalGiven>,
    /// The last halt that an approval ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Resumed>,
    /// The devices that went first of their classes, in this revision: the first [`crate::canary::CLASSES`].
    pub canaries: Vec<CanaryFacts>,
    /// Set when it halted.
    pub halt: Option<HaltFacts>,
    /// When every device of it was done.
    pub completed_at: Option<Timestamp>,
}

/// The device that went first of its class: of those with the same model, parts and present versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryFacts {
    /// Digest of the class.
    pub class: String,
    /// Name of the device.
    pub device: String,
}

/// Why a rollout halted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HaltFacts {
    /// When.
    pub at: Timestamp,
    /// What happened and how to resume.
    pub message: String,
    /// The devices that failed: the first [`crate::rollout::HALT_NAMES`].
    #[serde(default)]
    pub devices: Vec<String>,
}

/// An operation as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OperationFacts {
    /// Name of the device, which is also the object's.
    pub device: String,
    /// Unique id.
    pub id: String,
    /// What wants it, for example `Rollout/hosting-r650-2026q4`.
    pub campaign: String,
    /// Name of the pool whose budget it uses.
    pub pool: String,
    /// Digest of what is wanted.
    pub revision: String,
    /// The wave, from 1.
    pub wave: u32,
    /// The epoch that granted it.
    pub epoch: i64,
    /// How it stands.
    pub outcome: Outcome,
}
