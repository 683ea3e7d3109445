//! A component: what carries firmware in a device.
//!
//! ```text
//!   baseline ──wants──▶ ComponentClass + match ──finds──▶ Component ──has──▶ version text ──▶ FirmwareVersion
//! ```
//!
//! The text of a version stays as the BMC gave it; [`crate::version`] is what compares it.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The class of a component, as a baseline names it.
///
/// The set is closed on purpose: waves, update order and activation rules are written per class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ComponentClass {
    /// The baseboard management controller itself.
    #[serde(rename = "BMC")]
    Bmc,
    /// The host's BIOS or UEFI firmware.
    #[serde(rename = "BIOS")]
    Bios,
    /// A network adapter, DPUs included.
    #[serde(rename = "NIC")]
    Nic,
    /// A RAID controller, host bus adapter or boot-drive controller.
    StorageController,
    /// A disk or solid-state drive.
    Drive,
    /// A power supply.
    #[serde(rename = "PSU")]
    Psu,
    /// Programmable logic on a board or backplane.
    #[serde(rename = "CPLD")]
    Cpld,
    /// A graphics or compute accelerator.
    #[serde(rename = "GPU")]
    Gpu,
    /// Anything else that carries firmware.
    Other,
}

impl ComponentClass {
    /// Every class, in the order in which a device is updated when nothing else is asked:
    /// the BMC first (later updates go through it), then BIOS, then the rest.
    pub const ALL: [Self; 9] = [
        Self::Bmc,
        Self::Bios,
        Self::Cpld,
        Self::Nic,
        Self::StorageController,
        Self::Drive,
        Self::Psu,
        Self::Gpu,
        Self::Other,
    ];

    /// The name used in YAML, status and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bmc => "BMC",
            Self::Bios => "BIOS",
            Self::Nic => "NIC",
            Self::StorageController => "StorageController",
            Self::Drive => "Drive",
            Self::Psu => "PSU",
            Self::Cpld => "CPLD",
            Self::Gpu => "GPU",
            Self::Other => "Other",
        }
    }
}

impl fmt::Display for ComponentClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no component class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown component class {0:?}, expected one of BMC, BIOS, NIC, StorageController, Drive, PSU, CPLD, GPU, Other"
)]
pub struct UnknownClass(pub String);

impl FromStr for ComponentClass {
    type Err = UnknownClass;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|class| class.as_str() == text)
            .ok_or_else(|| UnknownClass(text.chars().take(64).collect()))
    }
}

/// One component of one device as its BMC reported it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// A key that stays the same across updates of this component, unique within the device.
    /// Where a BMC puts the version into its own id, the version is left out here.
    pub id: String,
    /// What it is.
    pub class: ComponentClass,
    /// What the vendor calls it, for people, for example `Integrated NIC 1 Port 1`.
    pub name: String,
    /// Who made it, where known. A part's maker, not the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// The product, where known, for example `ConnectX-6 Lx`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The active version as reported, trimmed. None: the BMC did not say (often because the host is off).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether the BMC says that it can update it. None: it did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updateable: Option<bool>,
    /// The lowest version the BMC says it would accept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lowest_supported: Option<String>,
    /// A version that is installed and waits for its activation (a reset).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<String>,
    /// Where in the device it sits, where known, for example `NIC.Integrated.1` or `PCIe Slot 3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<String>,
    /// The part's own serial number, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

impl Component {
    /// A component of which only id, class and name are known.
    #[must_use]
    pub fn new(id: impl Into<String>, class: ComponentClass, name: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            class,
            name: name.into(),
            manufacturer: None,
            model: None,
            version: None,
            updateable: None,
            lowest_supported: None,
            staged: None,
            slot: None,
            serial: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_in_yaml_display_and_parsing() {
        for class in ComponentClass::ALL {
            let json = serde_json::to_string(&class).unwrap();
            assert_eq!(json, format!("\"{class}\""));
            assert_eq!(class.as_str().parse(), Ok(class));
        }
    }

    #[test]
    fn an_unknown_class_is_named_and_cut() {
        let error = "x".repeat(1000).parse::<ComponentClass>().unwrap_err();
        assert_eq!(error.0.len(), 64);
    }

    #[test]
    fn unknown_fields_of_a_component_are_left_out_of_yaml() {
        let json = serde_json::to_value(Component::new("BMC", ComponentClass::Bmc, "iDRAC")).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"id": "BMC", "class": "BMC", "name": "iDRAC"})
        );
    }
}
