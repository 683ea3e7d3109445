//! `FirmwareBaseline`: the wanted versions of components for some models.

use crate::shared::{ComponentClass, ComponentMatch, Conditions};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The wanted firmware versions of components, for some hardware models.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kiban.dev",
    version = "v1alpha1",
    kind = "FirmwareBaseline",
    namespaced,
    status = "FirmwareBaselineStatus",
    derive = "PartialEq",
    shortname = "fwb",
    category = "kiban"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FirmwareBaselineSpec {
    /// Names of the `HardwareModel`s that it speaks of.
    pub models: Vec<String>,
    /// What is wanted, per component.
    pub components: Vec<BaselineComponent>,
}

/// What is wanted of one component.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BaselineComponent {
    /// Class.
    pub class: ComponentClass,
    /// Which components of the class. Default: all.
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub match_: Option<ComponentMatch>,
    /// The version wanted, as the BMC reports it once installed.
    pub version: String,
    /// Versions that are good enough to be left alone. Example: `>=1.14.1`. Default: only `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<String>,
    /// Versions that must not run, even where `accept` would take them.
    #[serde(default)]
    pub deny: Vec<String>,
    /// Where the image is.
    pub image: Image,
    /// What makes a new version run. Default: by the class (BMC: `BMCReset`, which the BMC does by itself; others: `HostReset`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Allow the way back to an older version. Default false: a version known to be newer than `version` is left alone and reported.
    #[serde(default)]
    pub allow_downgrade: bool,
}

/// A firmware image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// Address, https only. Example: `https://firmware.example/r650/idrac.exe`.
    pub url: String,
    /// SHA-256 of the file, 64 hex digits. Checked before anything else is done with it.
    pub sha256: String,
    /// Size in bytes, checked when given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
}

/// What makes a new version run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Activation {
    /// Nothing: it runs when the update is done.
    None,
    /// A reset of the BMC.
    BMCReset,
    /// A reset of the host.
    HostReset,
    /// Host off, then on.
    ColdBoot,
    /// A removal of AC power.
    ACCycle,
}

/// How a baseline stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
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
