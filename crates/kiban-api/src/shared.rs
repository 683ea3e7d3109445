//! Types that several kinds share.

use k8s_openapi::apimachinery::pkg::{apis::meta::v1::Condition, util::intstr::IntOrString};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A count or a share: `3`, or `5%`. A percentage is of the devices concerned, rounded up; `0%` is none.
pub type Amount = IntOrString;

/// Which of a device's components an entry speaks of. All given patterns must match; `*` stands for any text, and
/// upper and lower case are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ComponentMatch {
    /// Pattern for the manufacturer as Redfish reports it. Example: `Mellanox*`. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub manufacturer: Option<String>,
    /// Pattern for the model as Redfish reports it. Example: `ConnectX-6*`. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub model: Option<String>,
    /// Pattern for the inventory entry's name. Example: `Integrated NIC*`. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub name: Option<String>,
}

/// A component's class, by what it does in the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum ComponentClass {
    BMC,
    BIOS,
    NIC,
    StorageController,
    Drive,
    PSU,
    CPLD,
    GPU,
    Other,
}

/// A Secret in the same namespace. References never cross a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretReference {
    /// Name of the Secret, in the same namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Conditions, one per type.
pub type Conditions = Vec<Condition>;
