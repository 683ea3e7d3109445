//! `Device`: one physical machine with a BMC.

use crate::shared::{ComponentClass, Conditions};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One physical machine with a BMC: a server, a storage chassis or a switch.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kiban.dev",
    version = "v1alpha1",
    kind = "Device",
    namespaced,
    status = "DeviceStatus",
    derive = "PartialEq",
    shortname = "dev",
    category = "kiban",
    selectable = ".spec.model",
    selectable = ".spec.pool"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceSpec {
    /// What kind of machine it is.
    #[serde(default, rename = "type")]
    pub type_: DeviceType,
    /// Name of the `HardwareModel` that this device is one of.
    pub model: String,
    /// Serial number, as on the machine's label. Compared with what the BMC answers before anything is changed: a BMC
    /// that answers for another machine stops everything on it.
    pub serial: String,
    /// UUID of the system, compared in the same way when given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// How its BMC is reached.
    pub bmc: BmcAccess,
    /// Where it stands. Budgets per failure domain read this.
    #[serde(default)]
    pub location: Location,
    /// Since when it is owned, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned: Option<Ownership>,
    /// Name of the `HardwarePool` that it serves. Empty: it serves none.
    #[serde(default)]
    pub pool: String,
}

/// What kind of machine a device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeviceType {
    /// A server.
    #[default]
    Server,
    /// A storage chassis.
    Storage,
    /// A network switch.
    Switch,
}

/// How a BMC is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BmcAccess {
    /// Base address of the Redfish service, https only. Example: `https://10.20.3.41`.
    pub url: String,
    /// Name of the Secret, in the same namespace, that holds `username` and `password`.
    pub credentials: String,
    /// How the BMC's certificate is trusted. Default: by the system's certificate authorities.
    #[serde(default)]
    pub tls: BmcTls,
}

/// How a BMC's certificate is trusted: at most one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BmcTls {
    /// SHA-256 of the certificate (DER), 64 hex digits, with or without colons.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Name of the Secret, in the same namespace, whose `ca.crt` signs the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Trust the certificate that is seen first, and pin it: an explicit choice. A later change stops everything on the
    /// device until a person looks.
    #[serde(default)]
    pub first_use: bool,
}

/// Where a device stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Location {
    /// Site. Example: `tokyo-1`.
    #[serde(default)]
    pub site: String,
    /// Room.
    #[serde(default)]
    pub room: String,
    /// Rack.
    #[serde(default)]
    pub rack: String,
    /// Lowest rack unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<u16>,
    /// Power feeds.
    #[serde(default)]
    pub power: Vec<String>,
}

/// Since when a device is owned, and until when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ownership {
    /// Date of delivery. Example: `2023-04-01`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// End of the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ends: Option<String>,
}

/// What is known of a device. The executor that reads the BMC writes everything but `binding` and `waitingOn`, which
/// are the planner's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
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
    /// Whether the BMC says it can update it.
    #[serde(default)]
    pub updateable: bool,
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
    /// CamelCase reason: `Enrolled`, `FirmwareChanged`, `Unreachable`, `Reachable`, `HealthChanged`, `Held`, `Released`.
    pub reason: String,
    /// A sentence.
    pub message: String,
}
