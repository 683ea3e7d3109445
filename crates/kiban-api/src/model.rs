//! `HardwareModel`: a product that can be bought.

use crate::device::DeviceType;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A product that can be bought: what devices of it look like from their BMCs.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kiban.dev",
    version = "v1alpha1",
    kind = "HardwareModel",
    namespaced,
    derive = "PartialEq",
    shortname = "hwm",
    category = "kiban"
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HardwareModelSpec {
    /// Who makes it, for people. Example: `Dell`.
    pub manufacturer: String,
    /// The product's name, for people. Example: `PowerEdge R650`.
    pub product: String,
    /// What kind of machine it is.
    #[serde(default, rename = "type")]
    pub type_: DeviceType,
    /// How its BMC names it: a device of this model must match one of these patterns (`*` stands for any text), else nothing is changed
    /// on it. Default: the product's name.
    #[serde(default)]
    pub reported_as: Vec<String>,
    /// The base that it implements. Example: `onyx-1u`.
    #[serde(default)]
    pub base: String,
}
