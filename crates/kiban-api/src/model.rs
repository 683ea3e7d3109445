//! `HardwareModel`: a product that can be bought.

use crate::{
    device::DeviceType,
    shared::{LINE, NAME_OR_EMPTY, written},
};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A product that can be bought: what devices of it look like from their BMCs.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "kiban.dev",
    version = "v1alpha1",
    kind = "HardwareModel",
    namespaced,
    doc = "A product that can be bought: what devices of it look like from their BMCs. Devices and baselines name it.",
    derive = "PartialEq",
    shortname = "hwm",
    category = "kiban",
    printcolumn(name = "Manufacturer", type_ = "string", json_path = ".spec.manufacturer"),
    printcolumn(name = "Product", type_ = "string", json_path = ".spec.product"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Base", type_ = "string", json_path = ".spec.base", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 63")
        .message("a model's name must have at most 63 characters: it is written to labels"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = written)]
pub struct HardwareModelSpec {
    /// Who makes it, for people. Example: `Dell`.
    #[schemars(length(min = 1, max = 64), regex(pattern = LINE))]
    pub manufacturer: String,
    /// The product's name, for people. Example: `PowerEdge R650`.
    #[schemars(length(min = 1, max = 128), regex(pattern = LINE))]
    pub product: String,
    /// What kind of machine it is. Default `Server`.
    #[serde(default, rename = "type")]
    pub type_: DeviceType,
    /// How its BMC names it: a device of this model must match one of these patterns (`*` stands for any text), else nothing is changed
    /// on it. Default: the product's name. Example: `["PowerEdge R650*"]`.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128), regex(pattern = LINE)),
        extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("self.all(pattern, !pattern.matches('^[*]*$'))")
        .message("a pattern that matches every machine protects none: give part of the model's name"))]
    pub reported_as: Vec<String>,
    /// The base that it implements: models of one base can replace each other once parts are added. Default: none. Example: `onyx-1u`.
    #[serde(default)]
    #[schemars(length(max = 63), regex(pattern = NAME_OR_EMPTY))]
    pub base: String,
}
