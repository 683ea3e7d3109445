//! `FirmwareBaseline`: the wanted versions of components for some models.

use crate::shared::{
    ComponentClass, ComponentMatch, Conditions, IMAGE_URL, NAME, SHA256, VERSION, observed, written,
};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The wanted firmware versions of components, for some hardware models.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "kiban.dev",
    version = "v1alpha1",
    kind = "FirmwareBaseline",
    namespaced,
    doc = "The wanted firmware versions of components, for some hardware models. A pool names its baselines; changing one starts a rollout over the devices of those pools, in waves.",
    status = "FirmwareBaselineStatus",
    derive = "PartialEq",
    shortname = "fwb",
    category = "kiban",
    printcolumn(name = "Models", type_ = "string", json_path = ".spec.models", description = "Models that it speaks of"),
    printcolumn(name = "Devices", type_ = "integer", json_path = ".status.devices", description = "Devices that it applies to"),
    printcolumn(name = "Compliant", type_ = "integer", json_path = ".status.compliant", description = "Of them, at the baseline"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Versions", type_ = "string", json_path = ".spec.components[*].version", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 61")
        .message("a baseline's name must have at most 61 characters: its rollouts are named <pool>-<baseline>"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = written)]
#[x_kube(validation = Rule::new(
    "self.components.all(a, self.components.filter(b, a.class == b.class && has(a.match) == has(b.match) && (!has(a.match) || a.match == b.match)).size() == 1)")
    .message("two components have the same class and match: keep one of them").field_path(".components"))]
#[x_kube(validation = Rule::new(
    "self.components.all(a, has(a.match) || self.components.filter(b, a.class == b.class).size() == 1)")
    .message("a component without match means all of its class: give each component of that class a match, or keep one").field_path(".components"))]
pub struct FirmwareBaselineSpec {
    /// Names of the `HardwareModel`s that it speaks of. Example: `[r650]`. A pool may have at most one baseline per
    /// model.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 63), regex(pattern = NAME)),
        extend("x-kubernetes-list-type" = "set"))]
    pub models: Vec<String>,
    /// What is wanted, per component. Components that it does not name are left alone. Order does not matter: the BMC
    /// is updated first, then the BIOS, then the rest.
    #[schemars(length(min = 1, max = 32))]
    pub components: Vec<BaselineComponent>,
}

/// What is wanted of one component.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!(self.version in self.deny)")
    .message("the version wanted is denied: take it out of deny, or want another").field_path(".version"))]
pub struct BaselineComponent {
    /// Class of the component. Example: `NIC`.
    pub class: ComponentClass,
    /// Which components of the class. Default: all. Example: `{manufacturer: Mellanox, model: "ConnectX-6*"}`.
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub match_: Option<ComponentMatch>,
    /// The version wanted, as the BMC reports it once installed. Quote what YAML would read as a number. Example:
    /// `"1.15.2"`. Changing it starts a rollout.
    #[schemars(length(min = 1, max = 64), regex(pattern = VERSION))]
    pub version: String,
    /// Versions that are good enough to be left alone. Example: `">=1.14.1"`. Default: only `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = VERSION))]
    pub accept: Option<String>,
    /// Versions that must not run, even where `accept` would take them. Example: `["1.15.0"]`.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64), regex(pattern = VERSION)),
        extend("x-kubernetes-list-type" = "set"))]
    pub deny: Vec<String>,
    /// Where the image is. It is downloaded once, checked, and kept by its digest.
    pub image: Image,
    /// What makes a new version run. Default: by the class (BMC: `BMCReset`, which the BMC does by itself; others: `HostReset`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Allow the way back to an older version. Default false: a version known to be newer than `version` is left alone and reported.
    #[serde(default)]
    pub allow_downgrade: bool,
    /// Versions from which `version` may be installed directly, as a requirement. A device that runs another one, and that no
    /// stepping stone brings there, waits and says so. Default: from any. Example: `">=1.10.2"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = VERSION))]
    pub from: Option<String>,
    /// Stepping stones: versions that are installed on the way, in this order, each read back before the next. One operation
    /// does them all. Default: none. Example: `[{version: "1.10.2", from: "<1.10.2", image: {…}}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub via: Vec<SteppingStone>,
}

/// A version that is installed on the way to the wanted one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SteppingStone {
    /// The version, as the BMC reports it once installed. Example: `"1.10.2"`.
    #[schemars(length(min = 1, max = 64), regex(pattern = VERSION))]
    pub version: String,
    /// Versions from which the way leads over this stone, as a requirement. Default: every version known to be older. Needed where
    /// versions cannot be compared. Example: `"<1.10.2"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = VERSION))]
    pub from: Option<String>,
    /// Where the image is.
    pub image: Image,
    /// What makes it run. Default: by the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
}

/// A firmware image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// Address, https only, without an account in it. (`file:///…` only where the operator was started to allow it.)
    /// Example: `https://firmware.example/r650/idrac.exe`.
    #[schemars(length(min = 10, max = 1024), regex(pattern = IMAGE_URL))]
    pub url: String,
    /// SHA-256 of the file, 64 hex digits, as `sha256sum` prints it. Checked before anything else is done with the file.
    #[schemars(length(min = 64, max = 64), regex(pattern = SHA256))]
    pub sha256: String,
    /// Size in bytes, checked when given. Example: `18874368`. At most 16 GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 17_179_869_184_i64))]
    pub size: Option<i64>,
}

/// What makes a new version run: `None` (it runs when the update is done), `BMCReset`, `HostReset`, `ColdBoot` (host off, then
/// on) or `ACCycle` (a removal of AC power).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)] // said above: a schema with a text per value is not one that Kubernetes takes
pub enum Activation {
    None,
    BMCReset,
    HostReset,
    ColdBoot,
    ACCycle,
}

/// How a baseline stands. Written by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = observed)]
pub struct FirmwareBaselineStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Devices that it applies to.
    #[serde(default)]
    pub devices: u32,
    /// Of them, at the baseline.
    #[serde(default)]
    pub compliant: u32,
    /// `Ready`, `Reconciling`, `Stalled`, `ModelsResolved`.
    #[serde(default)]
    pub conditions: Conditions,
}
