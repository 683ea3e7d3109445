//! What a firmware entry is: by several keys, because no single one holds on all BMCs.

use super::json::{at, text_at};
use crate::port::Vendor;
use kiban_core::component::ComponentClass;
use serde_json::Value;

/// Whose BMC, from the service root alone.
pub(crate) fn vendor_of_root(root: &Value) -> Vendor {
    let mut words: Vec<String> = [&["Vendor"][..], &["Product"], &["Name"]]
        .iter()
        .filter_map(|path| text_at(root, path))
        .collect();
    words.extend(oem_names(root));
    vendor_of_words(&words)
}

/// Whose BMC, from its manager.
pub(crate) fn vendor_of_manager(manager: &Value) -> Vendor {
    let mut words: Vec<String> = [&["Manufacturer"][..], &["Model"], &["Description"], &["Name"]]
        .iter()
        .filter_map(|path| text_at(manager, path))
        .collect();
    words.extend(oem_names(manager));
    vendor_of_words(&words)
}

fn oem_names(value: &Value) -> Vec<String> {
    at(value, &["Oem"])
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|oem| oem.keys().take(16).cloned())
        .collect()
}

fn vendor_of_words(words: &[String]) -> Vendor {
    let has = |needles: &[&str]| {
        words.iter().any(|word| {
            let word = word.to_ascii_lowercase();
            needles.iter().any(|needle| word.contains(needle))
        })
    };
    // OpenBMC before the makers: machines of many makers run it, and behave as it does.
    if has(&["openbmc"]) {
        Vendor::OpenBmc
    } else if has(&["dell", "idrac"]) {
        Vendor::Dell
    } else if has(&["hpe", "hewlett", "ilo 5", "ilo 6", "ilo 7"]) {
        Vendor::Hpe
    } else if has(&["lenovo", "xclarity"]) {
        Vendor::Lenovo
    } else if has(&["supermicro", "smc"]) {
        Vendor::Supermicro
    } else if has(&["ami", "megarac"])
        && words
            .iter()
            .any(|word| word.eq_ignore_ascii_case("ami") || word.contains("MegaRAC"))
    {
        Vendor::Ami
    } else {
        Vendor::Other
    }
}

/// What is known of a firmware entry when it is to be classed.
#[derive(Debug, Default)]
pub(crate) struct Hints<'a> {
    /// Its id, without a version.
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) description: &'a str,
    pub(crate) software_id: &'a str,
    /// Paths of related resources.
    pub(crate) related: Vec<String>,
}

/// The class of an entry. Names and ids first where they are plain, then what it is related to.
pub(crate) fn class_of(hints: &Hints<'_>) -> ComponentClass {
    let id = hints.id.to_ascii_lowercase();
    let text = format!("{id} {} {}", hints.name, hints.description).to_ascii_lowercase();
    let words: Vec<&str> = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let word = |wanted: &[&str]| words.iter().any(|word| wanted.contains(word));
    // GPU1, NIC10, PSU2: a word and a number.
    let numbered = |wanted: &[&str]| {
        words
            .iter()
            .any(|word| wanted.contains(&word.trim_end_matches(|c: char| c.is_ascii_digit())))
    };
    let has = |wanted: &[&str]| wanted.iter().any(|needle| text.contains(needle));
    let related = |wanted: &[&str]| {
        hints
            .related
            .iter()
            .any(|path| wanted.iter().any(|needle| path.contains(needle)))
    };

    if is_copy(hints) || is_software(&text) {
        return ComponentClass::Other;
    }
    // NVIDIA baseboards list dozens of parts with ids as their only names.
    if let Some(part) = id.strip_prefix("hgx_fw_") {
        return match part.split('_').next().unwrap_or_default() {
            "gpu" => ComponentClass::Gpu,
            "cpld" => ComponentClass::Cpld,
            _ => ComponentClass::Other,
        };
    }
    if id.starts_with("hgx_") || word(&["erot", "inforom", "tpm"]) {
        return ComponentClass::Other;
    }
    if word(&["cpld", "fpga"]) || has(&["programmable logic"]) {
        return ComponentClass::Cpld;
    }
    if numbered(&["psu", "powersupply"]) || has(&["power supply"]) || related(&["/PowerSupplies"]) {
        return ComponentClass::Psu;
    }
    if related(&["/Drives/"]) {
        return ComponentClass::Drive;
    }
    if word(&["riser", "switched"]) {
        return ComponentClass::Other;
    }
    if word(&["me", "mcu", "microcode"]) && word(&["bios", "capsule", "uefi"]) {
        return ComponentClass::Other;
    }
    if word(&["idrac", "ilo", "xcc"]) || has(&["integrated dell remote access controller"]) {
        return ComponentClass::Bmc;
    }
    if has(&["backplane", "enclosure"]) && !id.starts_with("disk.") && !has(&["ssd", "drive"]) {
        return ComponentClass::Other;
    }
    // Cards have a BIOS of their own; the machine's is in no slot.
    if word(&["bios", "uefi"]) && !word(&["driver"]) && !id.starts_with("slot") || has(&["system rom"]) {
        return ComponentClass::Bios;
    }
    if numbered(&["gpu"]) || id.starts_with("video.") || related(&["/Processors/GPU"]) {
        return ComponentClass::Gpu;
    }
    if numbered(&["nic", "infiniband", "fc"])
        || word(&[
            "ethernet",
            "eth",
            "connectx",
            "bluefield",
            "smartnic",
            "networkadapter",
            "dpu",
        ])
        || has(&["network adapter", "network controller", "ethernet"])
        || related(&["/NetworkAdapters/"])
    {
        return ComponentClass::Nic;
    }
    if numbered(&["raid", "hba", "boss", "nvmecontroller"])
        || has(&[
            "smart array",
            "megaraid",
            "raid controller",
            "storage controller",
            "raid enablement",
            "hba",
        ])
        || id.starts_with("raid.")
        || id.starts_with("ahci.")
        || related(&["#/StorageControllers/", "/Controllers/"])
    {
        return ComponentClass::StorageController;
    }
    if numbered(&["disk", "ssd", "nvmessda", "nvmessd", "hdd"])
        || id.starts_with("disk.")
        || word(&["drive"])
        || has(&["solid state"])
    {
        return ComponentClass::Drive;
    }
    if word(&["bmc"]) || related(&["/Managers/"]) {
        return ComponentClass::Bmc;
    }
    if related(&["/Bios"]) || word(&["host"]) && word(&["image", "firmware"]) {
        return ComponentClass::Bios;
    }
    if related(&["/Storage/"]) {
        return ComponentClass::StorageController;
    }
    if hints.software_id.starts_with("BMC-") {
        return ComponentClass::Bmc;
    }
    ComponentClass::Other
}

/// Whether an entry is a second copy of something, for recovery: not what runs, and not what a baseline speaks of.
pub(crate) fn is_copy(hints: &Hints<'_>) -> bool {
    let text = format!("{} {}", hints.id, hints.name).to_ascii_lowercase();
    text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| {
        matches!(
            word,
            "backup" | "golden" | "redundant" | "recovery" | "capsule" | "bootloader"
        )
    })
}

/// Tools and packs that live on the machine beside its firmware.
fn is_software(text: &str) -> bool {
    [
        "driverpack",
        "driver pack",
        "diagnostics",
        "servicemodule",
        "service module",
        "lxpm",
        "intelligent provisioning",
        "drivers",
    ]
    .iter()
    .any(|needle| text.contains(needle))
}

/// The class that a task's or job's name speaks of, for example `Firmware Update: BIOS`.
pub(crate) fn class_of_name(name: &str) -> Option<ComponentClass> {
    let class = class_of(&Hints {
        name,
        ..Hints::default()
    });
    (class != ComponentClass::Other).then_some(class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn class(id: &str, name: &str, related: &[&str]) -> ComponentClass {
        class_of(&Hints {
            id,
            name,
            related: related.iter().map(ToString::to_string).collect(),
            ..Hints::default()
        })
    }

    #[test]
    fn entries_of_many_makers_are_classed() {
        use ComponentClass::*;
        for (id, name, related, expected) in [
            (
                "iDRAC.Embedded.1-1",
                "Integrated Dell Remote Access Controller",
                "",
                Bmc,
            ),
            ("1", "iLO 5", "", Bmc),
            ("BMC-Primary", "Firmware:BMC", "/redfish/v1/Managers/1", Bmc),
            ("BMC-Backup", "Firmware:BMC", "/redfish/v1/Managers/1", Other),
            (
                "bmc_active",
                "Software Inventory",
                "/redfish/v1/Managers/bmc",
                Bmc,
            ),
            ("2", "System ROM", "", Bios),
            ("8", "Redundant System ROM", "", Other),
            ("UEFI", "Firmware:UEFI", "/redfish/v1/Systems/1/Bios", Bios),
            ("BIOS.Setup.1-1", "BIOS", "", Bios),
            (
                "NIC.Integrated.1-1-1",
                "Broadcom Adv. Dual 25Gb Ethernet",
                "",
                Nic,
            ),
            ("InfiniBand.Slot.7-1", "Mellanox ConnectX-6 Dual Port", "", Nic),
            ("Slot_15.Bundle", "Firmware:DEVICE-NetworkAdapter", "", Nic),
            ("17", "HPE Smart Array P408i-p SR Gen10", "", StorageController),
            ("RAID.Slot.3-1", "PERC H755", "", StorageController),
            (
                "Disk.Bay.0:Enclosure.Internal.0-1",
                "PCIe SSD in Slot 0 in Bay 1",
                "",
                Drive,
            ),
            ("21", "NVMe Drive", "", Drive),
            (
                "37",
                "480GB 6G SATA SSD",
                "/redfish/v1/Systems/1/Storage/DE081000/Drives/0",
                Drive,
            ),
            ("RAID.Backplane.Firmware.1", "Backplane 1", "", Other),
            ("PSU.Slot.1", "Power Supply.Slot.1", "", Psu),
            (
                "PowerSupply1",
                "Power supply 1",
                "/redfish/v1/Chassis/1/Power",
                Psu,
            ),
            ("CPLD.Embedded.1", "System CPLD", "", Cpld),
            ("4", "System Programmable Logic Device", "", Cpld),
            (
                "GPU1",
                "GPU firmware",
                "/redfish/v1/Systems/1/Processors/GPU1",
                Gpu,
            ),
            ("HGX_FW_GPU_SXM_1", "Software Inventory", "", Gpu),
            ("HGX_FW_BMC_0", "Software Inventory", "", Other),
            ("HGX_FW_ERoT_BMC_0", "Software Inventory", "", Other),
            ("DriverPack.Embedded.1", "Dell OS Driver Pack", "", Other),
            ("BIOS_ME", "BIOS ME", "/redfish/v1/Systems/1/Bios", Other),
            ("Golden_BIOS", "BIOS Golden", "/redfish/v1/Systems/1/Bios", Other),
            ("TPM.Integrated.1-1", "TPM", "", Other),
        ] {
            assert_eq!(class(id, name, &[related]), expected, "{id} / {name}");
        }
    }

    #[test]
    fn the_maker_is_found_in_what_there_is() {
        assert_eq!(vendor_of_root(&json!({"Vendor": "Dell"})), Vendor::Dell);
        assert_eq!(vendor_of_root(&json!({"Oem": {"Hpe": {}}})), Vendor::Hpe);
        assert_eq!(
            vendor_of_root(&json!({"Oem": {"Supermicro": {}}})),
            Vendor::Supermicro
        );
        assert_eq!(vendor_of_root(&json!({"Name": "Root Service"})), Vendor::Other);
        assert_eq!(
            vendor_of_manager(&json!({"Model": "OpenBmc", "Oem": {"OpenBmc": {}}})),
            Vendor::OpenBmc
        );
        assert_eq!(vendor_of_root(&json!({"Vendor": "AMI"})), Vendor::Ami);
        assert_eq!(vendor_of_root(&json!({"Vendor": "Amish"})), Vendor::Other);
    }

    #[test]
    fn a_jobs_name_tells_the_class() {
        assert_eq!(class_of_name("Firmware Update: BIOS"), Some(ComponentClass::Bios));
        assert_eq!(class_of_name("Export configuration"), None);
    }
}
