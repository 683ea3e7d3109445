//! Products: what machines of one model have in common, shared by all of them.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What kind of component carries firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// The baseboard management controller.
    #[serde(rename = "BMC", alias = "bmc")]
    Bmc,
    /// BIOS, UEFI, system ROM.
    #[serde(rename = "BIOS", alias = "bios")]
    Bios,
    /// Network adapter.
    #[serde(rename = "NIC", alias = "nic")]
    Nic,
    /// RAID controller or host bus adapter.
    StorageController,
    /// Disk or SSD.
    Drive,
    /// Power supply.
    #[serde(rename = "PSU", alias = "psu")]
    Psu,
    /// Complex programmable logic device.
    #[serde(rename = "CPLD", alias = "cpld")]
    Cpld,
    /// Graphics processor or accelerator.
    #[serde(rename = "GPU", alias = "gpu")]
    Gpu,
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Class::Bmc => "BMC",
            Class::Bios => "BIOS",
            Class::Nic => "NIC",
            Class::StorageController => "StorageController",
            Class::Drive => "Drive",
            Class::Psu => "PSU",
            Class::Cpld => "CPLD",
            Class::Gpu => "GPU",
        })
    }
}

/// What makes written firmware run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Activation {
    /// Nothing: it runs as soon as it is written.
    None,
    /// The BMC resets itself after the write.
    BmcReset,
    /// Somebody must ask for `Manager.Reset`.
    ManagerReset,
    /// The host must restart.
    HostReset,
    /// The mains must be cut so many times.
    AcCycle(u8),
}

/// Whose behaviour a BMC has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Persona {
    /// Dell iDRAC 9.
    Dell,
    /// HPE iLO 5.
    Hpe,
    /// Lenovo XClarity Controller 2.
    Lenovo,
    /// Supermicro X12.
    Supermicro,
    /// OpenBMC's bmcweb.
    Openbmc,
}

impl Persona {
    /// All of them, in the order of this type.
    pub const ALL: [Persona; 5] = [
        Persona::Dell,
        Persona::Hpe,
        Persona::Lenovo,
        Persona::Supermicro,
        Persona::Openbmc,
    ];

    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Persona::Dell => "dell",
            Persona::Hpe => "hpe",
            Persona::Lenovo => "lenovo",
            Persona::Supermicro => "supermicro",
            Persona::Openbmc => "openbmc",
        }
    }
}

impl std::str::FromStr for Persona {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|p| p.name().eq_ignore_ascii_case(s.trim()))
            .ok_or_else(|| {
                format!("know the persona {s:?}; there are dell, hpe, lenovo, supermicro, openbmc")
            })
    }
}

/// One component of a model.
#[derive(Debug, Clone)]
pub struct Component {
    /// The persona's stable id: an FQDD on Dell, the inventory id elsewhere.
    pub id: String,
    /// Its class.
    pub class: Class,
    /// The name in the firmware inventory.
    pub name: String,
    /// Who made it.
    pub manufacturer: String,
    /// Its product name.
    pub product: String,
    /// The vendor's software id.
    pub software_id: String,
    /// The version that a machine of this model is delivered with.
    pub version: Arc<str>,
    /// The oldest version that the BMC accepts.
    pub lowest: Option<String>,
    /// What makes a new version run.
    pub activation: Activation,
    /// Whether the BMC can update it.
    pub updateable: bool,
}

/// One product.
#[derive(Debug, Clone)]
pub struct Model {
    /// The product name, as `ComputerSystem.Model` says it.
    pub name: String,
    /// The maker.
    pub manufacturer: String,
    /// The stock keeping unit or machine type.
    pub sku: String,
    /// How its BMC behaves.
    pub persona: Persona,
    /// What carries firmware in it.
    pub components: Vec<Component>,
}

impl Model {
    /// The position of a component by its id.
    pub fn position(&self, id: &str) -> Option<usize> {
        self.components.iter().position(|c| c.id == id)
    }

    /// Positions of the components of one class.
    pub fn of_class(&self, class: Class) -> impl Iterator<Item = usize> + '_ {
        self.components
            .iter()
            .enumerate()
            .filter(move |(_, c)| c.class == class)
            .map(|(i, _)| i)
    }

    /// The position of a component among those of its class: drive 0, drive 1.
    pub(crate) fn ordinal(&self, index: usize) -> usize {
        let class = self.components[index].class;
        self.components[..index]
            .iter()
            .filter(|c| c.class == class)
            .count()
    }
}

/// The models that the emulator knows without a spec, one per persona.
pub fn built_in(persona: Persona) -> Model {
    match persona {
        Persona::Dell => dell(),
        Persona::Hpe => hpe(),
        Persona::Lenovo => lenovo(),
        Persona::Supermicro => supermicro(),
        Persona::Openbmc => openbmc(),
    }
}

#[allow(clippy::too_many_arguments, reason = "one row of a table")]
fn row(
    class: Class,
    id: &str,
    name: &str,
    manufacturer: &str,
    product: &str,
    software_id: &str,
    version: &str,
    lowest: Option<&str>,
    activation: Activation,
) -> Component {
    Component {
        id: id.into(),
        class,
        name: name.into(),
        manufacturer: manufacturer.into(),
        product: product.into(),
        software_id: software_id.into(),
        version: version.into(),
        lowest: lowest.map(Into::into),
        activation,
        updateable: true,
    }
}

use Activation::{AcCycle, BmcReset, HostReset, None as Now};
use Class::{Bios, Bmc, Cpld, Drive, Nic, Psu, StorageController as Raid};

#[rustfmt::skip]
fn dell() -> Model {
    Model {
        name: "PowerEdge R650".into(), manufacturer: "Dell Inc.".into(), sku: "0R650".into(), persona: Persona::Dell,
        components: vec![
            row(Bmc, "iDRAC.Embedded.1-1", "Integrated Dell Remote Access Controller", "Dell Inc.", "iDRAC9", "25227", "6.10.80.00", Some("6.00.02.00"), BmcReset),
            row(Bios, "BIOS.Setup.1-1", "BIOS", "Dell Inc.", "BIOS", "159", "1.13.2", Some("1.4.4"), HostReset),
            row(Nic, "NIC.Slot.3-1-1", "Mellanox ConnectX-6 Lx Dual Port 25GbE SFP28 Adapter", "Mellanox Technologies", "ConnectX-6 Lx", "109484", "26.36.10.10", None, HostReset),
            row(Raid, "RAID.SL.3-1", "PERC H755 Front", "Broadcom", "PERC H755 Front", "107298", "52.21.0-4606", None, HostReset),
            row(Drive, "Disk.Bay.0:Enclosure.Internal.0-1", "PCIe SSD in Slot 0 in Bay 1", "Samsung", "Dell Ent NVMe PM1733a MU 1.6TB", "110346", "2.3.0", None, Now),
            row(Drive, "Disk.Bay.1:Enclosure.Internal.0-1", "PCIe SSD in Slot 1 in Bay 1", "Samsung", "Dell Ent NVMe PM1733a MU 1.6TB", "110346", "2.3.0", None, Now),
            row(Psu, "PSU.Slot.1", "Power Supply.Slot.1", "Delta", "PWR SPLY,1100W,RDNT,DELTA", "108255", "00.1B.53", None, AcCycle(1)),
            row(Psu, "PSU.Slot.2", "Power Supply.Slot.2", "Delta", "PWR SPLY,1100W,RDNT,DELTA", "108255", "00.1B.53", None, AcCycle(1)),
            row(Cpld, "CPLD.Embedded.1", "System CPLD", "Dell Inc.", "System CPLD", "27763", "1.1.1", None, AcCycle(1)),
        ],
    }
}

#[rustfmt::skip]
fn hpe() -> Model {
    Model {
        name: "ProLiant DL360 Gen10 Plus".into(), manufacturer: "HPE".into(), sku: "P55274-B21".into(), persona: Persona::Hpe,
        components: vec![
            row(Bmc, "1", "iLO 5", "HPE", "iLO 5", "4764a662-b342-4fc7-9ce9-258c5d99e815", "2.78 Feb 01 2023", Some("2.30 Oct 01 2020"), BmcReset),
            row(Bios, "2", "System ROM", "HPE", "U46", "00000000-0000-0000-0000-000000553436", "U46 v1.64 (08/11/2022)", None, HostReset),
            row(Cpld, "3", "System Programmable Logic Device", "HPE", "System Programmable Logic Device", "00000000-0000-0000-0000-000000504c44", "0x1D", None, AcCycle(1)),
            row(Psu, "4", "Power Supply Firmware Bay 1", "HPE", "865414-B21", "9dcd62b5-0000-0000-0000-000000000001", "1.00", None, AcCycle(1)),
            row(Psu, "5", "Power Supply Firmware Bay 2", "HPE", "865414-B21", "9dcd62b5-0000-0000-0000-000000000002", "1.00", None, AcCycle(1)),
            row(Nic, "8", "Mellanox MCX631432AS-ADAI 10/25Gb 2p SFP28 OCP3", "Mellanox", "MCX631432AS-ADAI", "a6b1a447-382a-5a4f-15b3-101f15b30066", "26.34.10.02", None, HostReset),
            row(Raid, "9", "HPE MR416i-a Gen10+", "Broadcom", "MR416i-a Gen10+", "a6b1a447-382a-5a4f-1000-10e215903211", "52.16.3-4455", None, HostReset),
            row(Drive, "20", "NVMe Drive", "KIOXIA", "VO001600KYDMT", "a6b1a447-382a-5a4f-1e0f-001300000001", "HPK3", None, Now),
            row(Drive, "21", "NVMe Drive", "KIOXIA", "VO001600KYDMT", "a6b1a447-382a-5a4f-1e0f-001300000001", "HPK3", None, Now),
        ],
    }
}

#[rustfmt::skip]
fn lenovo() -> Model {
    Model {
        name: "ThinkSystem SR630 V2".into(), manufacturer: "Lenovo".into(), sku: "7Z71CTO1WW".into(), persona: Persona::Lenovo,
        components: vec![
            row(Bmc, "BMC-Primary", "Firmware:BMC", "Lenovo", "XClarity Controller", "BMC-AFBT-10", "AFBT36L-2.90", None, BmcReset),
            row(Bios, "UEFI", "Firmware:UEFI", "Lenovo", "UEFI", "UEFI-AFE1-6", "AFE128H-1.41", None, HostReset),
            row(Nic, "Slot_3.1", "Firmware:NIC-Mellanox ConnectX-6 Lx 10/25GbE SFP28 2-port PCIe Ethernet Adapter", "Mellanox", "ConnectX-6 Lx 10/25GbE SFP28 2-port", "NIC-MLNX01-13", "26.35.10.12", None, HostReset),
            row(Raid, "Slot_7.1", "Firmware:RAID-ThinkSystem RAID 940-8i 4GB Flash PCIe Gen4 12Gb Adapter", "Broadcom", "ThinkSystem RAID 940-8i 4GB Flash", "RAID-LSI940-13", "52.24.0-4766", None, HostReset),
            row(Drive, "Disk1", "Firmware:DISK-Micron_7450_MTFDKCC1T6TFS", "Micron", "Micron_7450_MTFDKCC1T6TFS", "DISK-MTFDKCC1T6TFS-3-10", "E2MU110", None, Now),
            row(Drive, "Disk2", "Firmware:DISK-Micron_7450_MTFDKCC1T6TFS", "Micron", "Micron_7450_MTFDKCC1T6TFS", "DISK-MTFDKCC1T6TFS-3-10", "E2MU110", None, Now),
            row(Psu, "PSU1", "POWER-PSU1", "ACBE", "750W Platinum", "POWER-ACBE5710-10", "3.30", None, AcCycle(1)),
            row(Psu, "PSU2", "POWER-PSU2", "ACBE", "750W Platinum", "POWER-ACBE5710-10", "3.30", None, AcCycle(1)),
            row(Cpld, "CPLD", "Firmware:FPGA", "Lenovo", "System board CPLD", "FPGA-AFBT-10", "AFTM05C-1.05", None, AcCycle(1)),
        ],
    }
}

#[rustfmt::skip]
fn supermicro() -> Model {
    Model {
        name: "SYS-120U-TNR".into(), manufacturer: "Supermicro".into(), sku: "091715D9".into(), persona: Persona::Supermicro,
        components: vec![
            row(Bmc, "BMC", "BMC", "Supermicro", "AST2600", "BMC_X12AST2600-ROT-5201MS", "01.02.46", None, BmcReset),
            row(Bios, "BIOS", "BIOS", "Supermicro", "X12DPU-6", "BIOS_X12DPU-1C28", "BIOS Date: 07/07/2023 Ver 1.6", None, HostReset),
            row(Nic, "NIC1", "NIC1 System Slot1 AIOM-AOC-A25G-m2SM", "Mellanox", "AIOM-AOC-A25G-m2SM", "NIC-MLX6LX", "26.36.1010", None, HostReset),
            row(Raid, "StorageController1", "SAS 3916 RAID Controller", "Broadcom", "AOC-S3916L-H16IR-32DD", "RAID-3916", "5.200.02-3681", None, HostReset),
            row(Drive, "NVMeSSD0", "NVMe SSD 0", "Micron", "Micron_7400_MTFDKBG1T9TDZ", "SSD-MTFDKBG1T9TDZ", "E1MU23BC", None, Now),
            row(Drive, "NVMeSSD1", "NVMe SSD 1", "Micron", "Micron_7400_MTFDKBG1T9TDZ", "SSD-MTFDKBG1T9TDZ", "E1MU23BC", None, Now),
            row(Psu, "PowerSupply1", "Power supply 1", "SUPERMICRO", "PWS-1K22A-1R", "PWS-1K22A-1R", "1.2", None, AcCycle(1)),
            row(Psu, "PowerSupply2", "Power supply 2", "SUPERMICRO", "PWS-1K22A-1R", "PWS-1K22A-1R", "1.2", None, AcCycle(1)),
            row(Cpld, "CPLD_Motherboard", "CPLD Motherboard", "Supermicro", "CPLD Motherboard", "CPLD-X12DPU", "F0.A3.06", None, AcCycle(2)),
        ],
    }
}

#[rustfmt::skip]
fn openbmc() -> Model {
    Model {
        name: "Tioga Pass 2".into(), manufacturer: "Wiwynn".into(), sku: "B81.03301.0009".into(), persona: Persona::Openbmc,
        components: vec![
            row(Bmc, "bmc", "BMC image", "OpenBMC", "AST2600", "xyz.openbmc_project.Software.BMC", "2.14.0-1204-g8f2c5b1d44", None, BmcReset),
            row(Bios, "bios", "Host image", "Wiwynn", "UEFI", "xyz.openbmc_project.Software.Host", "TP2-3.08", None, HostReset),
            row(Nic, "nic0", "NIC image", "Broadcom", "BCM57414", "xyz.openbmc_project.Software.NIC", "223.0.161.0", None, HostReset),
            row(Raid, "hba0", "HBA image", "Broadcom", "HBA 9500-8i", "xyz.openbmc_project.Software.HBA", "24.00.00.00", None, HostReset),
            row(Drive, "drive0", "Drive image 0", "Solidigm", "SSDPF2KX019T1", "xyz.openbmc_project.Software.Drive", "9CV10410", None, Now),
            row(Drive, "drive1", "Drive image 1", "Solidigm", "SSDPF2KX019T1", "xyz.openbmc_project.Software.Drive", "9CV10410", None, Now),
            row(Psu, "psu0", "PSU image 0", "Delta", "ECD16020131", "xyz.openbmc_project.Software.PSU", "0203", None, AcCycle(1)),
            row(Psu, "psu1", "PSU image 1", "Delta", "ECD16020131", "xyz.openbmc_project.Software.PSU", "0203", None, AcCycle(1)),
            row(Cpld, "cpld0", "CPLD image", "Lattice", "LCMXO3LF-9400", "xyz.openbmc_project.Software.CPLD", "1B", None, AcCycle(1)),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_has_what_a_fleet_needs() {
        for persona in Persona::ALL {
            let model = built_in(persona);
            for (class, count) in [
                (Bmc, 1),
                (Bios, 1),
                (Nic, 1),
                (Raid, 1),
                (Drive, 2),
                (Psu, 2),
                (Cpld, 1),
            ] {
                assert_eq!(model.of_class(class).count(), count, "{class} of {}", model.name);
            }
            let mut ids: Vec<_> = model.components.iter().map(|c| &c.id).collect();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), model.components.len());
            assert_eq!(persona.name().parse::<Persona>().unwrap(), persona);
        }
    }
}
