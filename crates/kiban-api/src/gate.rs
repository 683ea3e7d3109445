//! Gates of a pool's rollouts: what must hold before a wave opens.

use crate::shared::{CONDITION_TYPE, DURATION, HOST_PORT, LABEL, LINE, NAME, NUMBER_CONDITION, PROBE_URL};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that must hold before a wave opens, and that is measured again and again while a rollout that needs it is under
/// way. What is not known is never good news: without a young measurement that holds, nothing begins. Exactly one of
/// `deviceHealth`, `tcp`, `http`, `prometheus` and `condition`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new(
    "(has(self.deviceHealth) ? 1 : 0) + (has(self.tcp) ? 1 : 0) + (has(self.http) ? 1 : 0) + (has(self.prometheus) ? 1 : 0) + (has(self.condition) ? 1 : 0) == 1")
    .message("give exactly one of deviceHealth, tcp, http, prometheus and condition"))]
#[x_kube(validation = Rule::new("self.maxAge != '0s'")
    .message("with maxAge 0s no measurement would ever be young enough").field_path(".maxAge"))]
#[x_kube(validation = Rule::new("self.timeout != '0s'")
    .message("with timeout 0s nothing would ever be measured").field_path(".timeout"))]
pub struct Gate {
    /// Its name in status and messages. Unique in the pool. Example: `slo`.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub name: String,
    /// Names of the waves that it guards, as `waves[].name` gives them. Default empty: every wave, the first included. Example:
    /// `[production]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(min = 1, max = 63), regex(pattern = LABEL)),
        extend("x-kubernetes-list-type" = "set"))]
    pub waves: Vec<String>,
    /// The oldest measurement that counts. It is measured three times as often, at least once a minute. Default `5m`. Example:
    /// `1m`.
    #[serde(default = "five_minutes")]
    #[schemars(length(min = 2, max = 32), regex(pattern = DURATION))]
    pub max_age: String,
    /// How long one measurement may take; what takes longer is no data. Default `10s`.
    #[serde(default = "ten_seconds")]
    #[schemars(length(min = 2, max = 32), regex(pattern = DURATION))]
    pub timeout: String,
    /// How long it must have held without a break before a wave opens. Default `0s`. Example: `10m`.
    #[serde(default = "no_time", rename = "for")]
    #[schemars(length(min = 2, max = 32), regex(pattern = DURATION))]
    pub for_: String,
    /// Whether the rollout halts when the gate, once the change has reached a device, fails for longer than
    /// `failureThreshold`. No data closes a gate, and never halts. Default `false`: it only waits.
    #[serde(default)]
    pub halt: bool,
    /// How long it may fail before it halts, where `halt` is set. Default `5m`. Example: `15m`.
    #[serde(default = "five_minutes")]
    #[schemars(length(min = 2, max = 32), regex(pattern = DURATION))]
    pub failure_threshold: String,
    /// Counts the devices that already have the change and are out of order. Needs no measurement of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_health: Option<DeviceHealthGate>,
    /// Holds while a TCP connection is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpGate>,
    /// Holds while an HTTP server answers as expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpGate>,
    /// Holds while a Prometheus query gives what is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<PrometheusGate>,
    /// Holds while a condition of a Kubernetes object in the fleet's namespace is as wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<ConditionGate>,
}

/// How many of the devices that already have the change may be out of order. With the defaults a single one closes the gate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceHealthGate {
    /// With health `Critical` in Redfish. Default `0`. Example: `2`.
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub max_critical: u32,
    /// Whose BMC does not answer. Default `0`.
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub max_unreachable: u32,
    /// Whose BMC does not say how they are, or was read too long ago. Default `0`; raise it for machines whose BMC never says.
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub max_unknown: u32,
}

/// A TCP probe, from where the operator runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpGate {
    /// Host and port. Example: `storage-vip.example:3260`.
    #[schemars(length(min = 3, max = 260), regex(pattern = HOST_PORT))]
    pub address: String,
}

/// An HTTP probe (GET), from where the operator runs. Redirects are not followed; of an answer at most 1 MiB is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpGate {
    /// The address, without an account in it. Example: `https://status.example/hosting`.
    #[schemars(length(max = 2048), regex(pattern = PROBE_URL))]
    pub url: String,
    /// The status that the server must answer with. Default `200`.
    #[serde(default = "ok")]
    #[schemars(range(min = 100, max = 599))]
    pub expect_status: u16,
    /// Text that the answer must contain. Default: anything will do. Example: `"state":"green"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = LINE))]
    pub body_contains: Option<String>,
    /// Name of a Secret in the same namespace: `token` (sent as Bearer), or `username` and `password`; `ca.crt` (PEM), the only
    /// authorities that are trusted then. Default: none. Example: `status-page`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub credentials: Option<String>,
}

/// An instant query to a server that speaks Prometheus' HTTP API. It holds when there is an answer and every sample in it is as
/// wanted. An error, a warning, an empty answer, NaN, or a time that is not the present is no data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrometheusGate {
    /// The server's address, to which `/api/v1/query` is added. Example: `https://prometheus.example`.
    #[schemars(length(max = 2048), regex(pattern = PROBE_URL))]
    pub url: String,
    /// The query. Write it so that it answers also when all is well: `up{job="x"} == 1` is empty when nothing is up, and an
    /// empty answer is no data. Example: `avg(up{job="hosting"})`.
    #[schemars(length(min = 1, max = 2048), regex(pattern = LINE))]
    pub query: String,
    /// What every sample must be: one of `>`, `>=`, `<`, `<=`, `==`, `!=`, and a number. Example: `> 0.99`.
    #[schemars(length(min = 2, max = 40), regex(pattern = NUMBER_CONDITION))]
    pub condition: String,
    /// Name of a Secret in the same namespace, as for `http`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub credentials: Option<String>,
}

/// A condition in the status of an object in the fleet's namespace. One that speaks of an older generation of the object is no data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConditionGate {
    /// Kind of the object. `Deployment` and `Job` need a right that the chart grants where `rbac.gates.workloads` is set.
    pub kind: ConditionKind,
    /// Its name. Example: `fleet`.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub name: String,
    /// Type of the condition. Example: `Ready`.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 128), regex(pattern = CONDITION_TYPE))]
    pub type_: String,
    /// What its status must be. Default `True`.
    #[serde(default)]
    pub status: ConditionStatus,
}

/// Kinds whose conditions a gate can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum ConditionKind {
    Device,
    HardwarePool,
    FirmwareBaseline,
    FleetRepository,
    Rollout,
    Deployment,
    Job,
}

impl ConditionKind {
    /// The name in YAML.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "Device",
            Self::HardwarePool => "HardwarePool",
            Self::FirmwareBaseline => "FirmwareBaseline",
            Self::FleetRepository => "FleetRepository",
            Self::Rollout => "Rollout",
            Self::Deployment => "Deployment",
            Self::Job => "Job",
        }
    }
}

/// What a condition says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum ConditionStatus {
    #[default]
    True,
    False,
}

impl ConditionStatus {
    /// The text in a status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
        }
    }
}

fn five_minutes() -> String {
    "5m".to_owned()
}
fn ten_seconds() -> String {
    "10s".to_owned()
}
fn no_time() -> String {
    "0s".to_owned()
}
fn ok() -> u16 {
    200
}
