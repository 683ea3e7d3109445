//! `Device`: one physical machine with a BMC.

use crate::shared::{
    ComponentClass, Conditions, DATE, FINGERPRINT, HTTPS_URL, LINE, NAME, NAME_OR_EMPTY, SERIAL, UUID,
    observed, written,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One physical machine with a BMC: a server, a storage chassis or a switch.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "kiban.dev",
    version = "v1alpha1",
    kind = "Device",
    namespaced,
    doc = "One physical machine with a BMC: a server, a storage chassis or a switch. Removing it takes the machine out of Kiban's care and changes nothing on the machine.",
    status = "DeviceStatus",
    derive = "PartialEq",
    shortname = "dev",
    category = "kiban",
    selectable = ".spec.model",
    selectable = ".spec.pool",
    printcolumn(name = "Pool", type_ = "string", json_path = ".status.binding.pool", description = "The pool that it is bound to"),
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.model"),
    printcolumn(name = "Rack", type_ = "string", json_path = ".spec.location.rack"),
    printcolumn(name = "Power", type_ = "string", json_path = ".status.power"),
    printcolumn(name = "Health", type_ = "string", json_path = ".status.health"),
    printcolumn(name = "Compliant", type_ = "string", json_path = ".status.conditions[?(@.type==\"Compliant\")].status"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason", description = "How it stands; what is going on is in its operation"),
    printcolumn(name = "Waiting on", type_ = "string", json_path = ".status.waitingOn.message", description = "Why it is not moving", priority = 1),
    printcolumn(name = "Last operation", type_ = "string", json_path = ".status.lastOperation.outcome", priority = 1),
    printcolumn(name = "Held", type_ = "string", json_path = ".status.hold.reason", description = "Why a person must look", priority = 1),
    printcolumn(name = "Serial", type_ = "string", json_path = ".spec.serial", priority = 1),
    printcolumn(name = "Fresh", type_ = "string", json_path = ".status.conditions[?(@.type==\"InventoryFresh\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 63")
        .message("a device's name must have at most 63 characters: it is written to labels"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = written)]
pub struct DeviceSpec {
    /// What kind of machine it is. Default `Server`.
    #[serde(default, rename = "type")]
    pub type_: DeviceType,
    /// Name of the `HardwareModel` that this device is one of. Example: `r650`.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME))]
    pub model: String,
    /// Serial number, as on the machine's label. Compared with what the BMC answers before anything is changed: a BMC
    /// that answers for another machine stops everything on it. It may be changed, because a new mainboard brings a new one.
    /// Quote it if it is all digits. Example: `7XK2M13`.
    #[schemars(length(min = 2, max = 64), regex(pattern = SERIAL))]
    #[x_kube(validation = Rule::new(
        "!(self.lowerAscii() in ['none', 'n/a', 'na', 'not specified', 'unknown', 'default string', 'system serial number', 'to be filled by o.e.m', 'serial', '0123456789', '123456789', '1234567890'])")
        .message("this is what vendors write where no serial number is: give the one on the machine's label"))]
    pub serial: String,
    /// UUID of the system, compared in the same way when given. Example: `4c4c4544-0058-4b10-8032-b7c04f4d3133`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 36, max = 36), regex(pattern = UUID))]
    #[x_kube(validation = Rule::new("!self.matches('^[0-]*$') && !self.matches('^[fF-]*$')")
        .message("an all-zero or all-f UUID is what vendors write where none is: leave it out"))]
    pub uuid: Option<String>,
    /// How its BMC is reached.
    pub bmc: BmcAccess,
    /// Where it stands. Budgets per failure domain read this.
    #[serde(default)]
    pub location: Location,
    /// Since when it is owned, and until when. Default: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned: Option<Ownership>,
    /// Name of the `HardwarePool` that it serves. Default empty: it serves none, and nothing is changed on it. Changing it
    /// moves the device under the other pool's baselines and budget. Example: `hosting-package`.
    #[serde(default)]
    #[schemars(length(max = 63), regex(pattern = NAME_OR_EMPTY))]
    pub pool: String,
}

/// What kind of machine a device is: `Server`, `Storage` (a storage chassis) or `Switch` (a network switch).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)] // said above: a schema with a text per value is not one that Kubernetes takes
pub enum DeviceType {
    #[default]
    Server,
    Storage,
    Switch,
}

/// How a BMC is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BmcAccess {
    /// Base address of the Redfish service, https only, without an account in it. Example: `https://10.20.3.41`.
    #[schemars(length(min = 9, max = 256), regex(pattern = HTTPS_URL))]
    pub url: String,
    /// Name of the Secret, in the same namespace, that holds `username` and `password`. Example: `bmc-dell`.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub credentials: String,
    /// How the BMC's certificate is trusted. Default: by the system's certificate authorities.
    #[serde(default)]
    pub tls: BmcTls,
}

/// How a BMC's certificate is trusted: at most one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new(
    "(has(self.sha256) ? 1 : 0) + (has(self.ca) ? 1 : 0) + (has(self.firstUse) && self.firstUse ? 1 : 0) <= 1")
    .message("give at most one of sha256, ca and firstUse"))]
pub struct BmcTls {
    /// SHA-256 of the certificate (DER), 64 hex digits, with or without colons. A certificate with another digest stops
    /// everything on the device. Default: not pinned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 95), regex(pattern = FINGERPRINT))]
    pub sha256: Option<String>,
    /// Name of the Secret, in the same namespace, whose `ca.crt` signs the certificate. Default: the system's authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub ca: Option<String>,
    /// Trust the certificate that is seen first, and pin it: an explicit choice. A later change stops everything on the
    /// device until a person looks. Default false.
    #[serde(default)]
    pub first_use: bool,
}

/// Where a device stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Location {
    /// Site. Default: not known. Example: `tokyo-1`.
    #[serde(default)]
    #[schemars(length(max = 63), regex(pattern = LINE))]
    pub site: String,
    /// Room. Default: not known. Example: `b`.
    #[serde(default)]
    #[schemars(length(max = 63), regex(pattern = LINE))]
    pub room: String,
    /// Rack. Devices that give none share one failure domain with each other. Example: `b07`.
    #[serde(default)]
    #[schemars(length(max = 63), regex(pattern = LINE))]
    pub rack: String,
    /// Lowest rack unit that it fills, from 1. Example: `12`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub unit: Option<u16>,
    /// Power feeds, each once: the device counts on all of them where a budget is per power feed. Devices that give none share
    /// one with each other. A feed's name is taken within its site. Example: `[pdu-b07-a, pdu-b07-b]`.
    #[serde(default)]
    #[schemars(length(max = 8), inner(length(min = 1, max = 63), regex(pattern = LINE)),
        extend("x-kubernetes-list-type" = "set"))]
    pub power: Vec<String>,
}

/// Since when a device is owned, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.since) || !has(self.leaseEnds) || self.since <= self.leaseEnds")
    .message("leaseEnds is before since"))]
pub struct Ownership {
    /// Date of delivery. Example: `2023-04-01`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 10, max = 10), regex(pattern = DATE))]
    pub since: Option<String>,
    /// End of the lease. Example: `2027-03-31`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 10, max = 10), regex(pattern = DATE))]
    pub lease_ends: Option<String>,
}

/// What is known of a device. The executor that reads the BMC writes everything but `binding` and `waitingOn`, which
/// are the planner's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = observed)]
pub struct DeviceStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Planner: the pool that the device serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
    /// Executor: who the BMC says the machine is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Executor: power state as Redfish reports it (`On`, `Off`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<String>,
    /// Executor: health rollup as Redfish reports it: `OK`, `Warning`, `Critical`, or `Unknown` while unreachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Executor: firmware that decisions read, one entry per component.
    #[serde(default)]
    pub firmware: Vec<FirmwareEntry>,
    /// Executor: when the firmware was read and found to differ from the reading before. Freshness is the condition
    /// `InventoryFresh`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware_read_at: Option<Time>,
    /// Executor: digest of the full inventory, whose text is in the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory_digest: Option<String>,
    /// Executor: how the firmware stands to the baseline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compliance: Option<Compliance>,
    /// Planner: what the device waits on; absent when it waits on nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_on: Option<Waiting>,
    /// Executor: the last operation on this device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_operation: Option<LastOperation>,
    /// Executor: set when a person must look before anything is changed on the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Executor: certificate pinned on first use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned_sha256: Option<String>,
    /// Ledger outbox: transitions that are not yet in the ledger. Bounded; the oldest are merged.
    #[serde(default)]
    pub unledgered: Vec<Transition>,
    /// `Ready`, `Reconciling`, `Stalled` (kstatus), `Reachable`, `InventoryFresh`, `Compliant`.
    #[serde(default)]
    pub conditions: Conditions,
}

/// The pool that a device serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// Name of the `HardwarePool`.
    pub pool: String,
}

/// Who a BMC says its machine is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Manufacturer of the system.
    #[serde(default)]
    pub manufacturer: String,
    /// Model of the system.
    #[serde(default)]
    pub model: String,
    /// Serial number.
    #[serde(default)]
    pub serial: String,
    /// UUID.
    #[serde(default)]
    pub uuid: String,
}

/// Firmware of one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FirmwareEntry {
    /// Class.
    pub class: ComponentClass,
    /// Name as the BMC reports it.
    pub name: String,
    /// Manufacturer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub manufacturer: String,
    /// Model.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// Version that runs.
    pub version: String,
    /// Version that is staged and waits for its activation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<String>,
    /// Whether the BMC says it can update it. Absent: it does not say, and an update is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updateable: Option<bool>,
    /// Lowest version that the BMC accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lowest_supported: Option<String>,
}

/// How a device's firmware stands to its baseline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Compliance {
    /// `Compliant`, `NonCompliant`, `Unknown` (never read, or not fresh), or `NoBaseline`.
    pub state: String,
    /// The baseline that applies.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub baseline: String,
    /// One line per component that differs: `NIC Mellanox ConnectX-6: 20.37.1014, wanted 20.39.2048`.
    #[serde(default)]
    pub differs: Vec<String>,
}

/// What a device waits on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// The rule that holds it, one of the planner's `WaitingOn` variants: `Wave`, `Budget`, `Soak`, `Halted`, `Paused`, `Denied`, `Held`, …
    pub reason: String,
    /// A sentence with the figures.
    pub message: String,
}

/// The last operation on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastOperation {
    /// Its id; also the end of its file's name in the ledger.
    pub id: String,
    /// What wanted it. Example: `Rollout/hosting-r650-2026q4`.
    pub campaign: String,
    /// The rollout's revision that it served: the digest of what was wanted.
    pub revision: String,
    /// `Succeeded`, `Failed` or `Held`.
    pub outcome: String,
    /// What happened, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it ended.
    pub finished_at: Time,
}

/// A device that a person must look at before anything is changed on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// CamelCase reason: `OutcomeUnknown`, `WrongMachine`, `CertificateChanged`, …
    pub reason: String,
    /// What happened and what to do.
    pub message: String,
    /// The operation that led to it, if one did: the value to release it with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operation: String,
}

/// One transition on its way to the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// When.
    pub at: Time,
    /// CamelCase reason: `FirmwareChanged`, `Unreachable`, `Reachable`, `HealthChanged`, `Held`, `Released`.
    pub reason: String,
    /// A sentence.
    pub message: String,
}
