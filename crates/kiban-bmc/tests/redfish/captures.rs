//! Four captured machines, served over HTTPS by kiban-sim as they were captured, read whole. What is expected is computed from the raw
//! files, not written down here: the captures are facts about machines and stay outside the project.

use kiban_bmc::{Bmc, Credentials, Endpoint, Inventory, Limits, PowerState, Redfish, Trust, Vendor};
use kiban_core::component::{Component, ComponentClass};
use kiban_sim::Mockup;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The unpacked tree of one capture; None, with a line that says so, where the fixtures are absent.
struct Capture {
    folder: tempfile::TempDir,
    tree: PathBuf,
}

impl Capture {
    fn unpack(name: &str) -> Option<Self> {
        let shared = std::env::var_os("KIBAN_SHARED").map_or_else(
            || {
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .canonicalize()
                    .unwrap()
                    .join("../../../shared")
            },
            PathBuf::from,
        );
        let archive = shared.join(format!("fixtures/redfish/{name}.tar.zst"));
        if !archive.is_file() {
            println!("skipped: capture of {name}: {} is absent", archive.display());
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let status = Command::new("tar")
            .arg("--zstd")
            .arg("-xf")
            .arg(&archive)
            .arg("-C")
            .arg(folder.path())
            .status();
        if !status.is_ok_and(|status| status.success()) {
            println!("skipped: capture of {name}: tar cannot unpack zstd here");
            return None;
        }
        let tree = folder.path().join(name);
        Some(Self { folder, tree })
    }

    fn read(&self, path: &str) -> Option<Value> {
        let path = path
            .split(['?', '#'])
            .next()
            .unwrap_or_default()
            .trim_matches('/');
        let file = self.tree.join(path).join("index.json");
        assert!(file.starts_with(self.folder.path()));
        serde_json::from_slice(&std::fs::read(file).ok()?).ok()
    }

    /// The raw firmware entries with a version that says something.
    fn entries(&self) -> Vec<Value> {
        let list = self.read("/redfish/v1/UpdateService/FirmwareInventory").unwrap();
        let links = list["Members"].as_array().unwrap().clone();
        links
            .iter()
            .map(|link| self.read(link["@odata.id"].as_str().unwrap()).unwrap())
            .collect()
    }
}

async fn serve(capture: &Capture) -> (Mockup, Redfish) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mockup = Mockup::serve(&capture.tree).await.unwrap();
    let endpoint = Endpoint {
        url: mockup.url(),
        credentials: Credentials::new("admin", "kiban-sim"),
        trust: Trust::Ca {
            pem: mockup.ca_pem().to_owned(),
        },
        expect: None,
    };
    let bmc = Redfish::connect(&endpoint, &Limits::default()).await.unwrap();
    (mockup, bmc)
}

/// Everything was read in one session, which was given back, and nothing was tried to be changed.
async fn end(mockup: Mockup, bmc: Redfish) -> usize {
    bmc.close().await.unwrap();
    assert_eq!(mockup.sessions(), (1, 0), "one session, given back");
    let (requests, refused) = mockup.requests();
    assert_eq!(refused, 0);
    mockup.shutdown().await;
    requests
}

async fn read(name: &str) -> Option<(Capture, Inventory, kiban_bmc::Identity)> {
    let capture = Capture::unpack(name)?;
    let (mockup, bmc) = serve(&capture).await;
    let identity = bmc.identity().await.unwrap();
    let inventory = bmc.inventory().await.unwrap();
    let requests = end(mockup, bmc).await;
    println!(
        "{name}: {} components, {} findings, {requests} requests",
        inventory.components.len(),
        inventory.findings.len()
    );
    for finding in &inventory.findings {
        println!("  finding: {}: {}", finding.at, finding.what);
    }
    for c in &inventory.components {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        println!(
            "  {:17} {:40} {:24} {:20} {}",
            c.class,
            c.id,
            text(&c.version),
            text(&c.manufacturer),
            text(&c.model)
        );
    }
    Some((capture, inventory, identity))
}

fn text<'a>(entry: &'a Value, name: &str) -> &'a str {
    entry[name].as_str().unwrap_or_default()
}

fn of(inventory: &Inventory, class: ComponentClass) -> Vec<&Component> {
    inventory
        .components
        .iter()
        .filter(|component| component.class == class)
        .collect()
}

/// Every raw entry that is chosen has a component that runs its version, as often as it is there.
fn versions_are_all_there(inventory: &Inventory, raw: &[Value], chosen: impl Fn(&Value) -> bool) {
    let mut left: Vec<&str> = inventory
        .components
        .iter()
        .filter_map(|component| component.version.as_deref())
        .collect();
    for entry in raw.iter().filter(|entry| chosen(entry)) {
        let version = text(entry, "Version").trim();
        let at = left.iter().position(|have| *have == version);
        assert!(at.is_some(), "{} {version} is missing", text(entry, "Id"));
        left.swap_remove(at.unwrap());
    }
}

fn ids_are_unique(inventory: &Inventory) {
    let ids: std::collections::BTreeSet<&str> = inventory
        .components
        .iter()
        .map(|component| component.id.as_str())
        .collect();
    assert_eq!(ids.len(), inventory.components.len());
}

#[tokio::test]
async fn dell_reads_whole() {
    let Some((capture, inventory, identity)) = read("dell").await else {
        return;
    };
    let system = capture.read("/redfish/v1/Systems/System.Embedded.1").unwrap();
    assert_eq!(identity.vendor, Vendor::Dell);
    assert_eq!(
        identity.serial.as_deref(),
        system["SKU"].as_str(),
        "the service tag"
    );
    assert_eq!(identity.second_serial.as_deref(), system["SerialNumber"].as_str());
    assert_eq!(identity.model.as_deref(), system["Model"].as_str());
    assert_eq!(inventory.power, PowerState::On);

    // One component per place: what is installed and what runs are one, what was before is none.
    let raw = capture.entries();
    let place = |entry: &Value| text(entry, "Id").split_once("__").unwrap().1.to_owned();
    let places: std::collections::BTreeSet<String> = raw
        .iter()
        .filter(|entry| !text(entry, "Id").starts_with("Previous-"))
        .map(place)
        .collect();
    let listed: std::collections::BTreeSet<String> = inventory
        .components
        .iter()
        .map(|component| component.id.clone())
        .collect();
    assert!(places.is_subset(&listed), "{:?}", places.difference(&listed));
    let previous = raw
        .iter()
        .find(|entry| text(entry, "Id").starts_with("Previous-159"))
        .unwrap();
    assert!(
        inventory
            .components
            .iter()
            .all(|c| c.version.as_deref() != previous["Version"].as_str())
    );
    versions_are_all_there(&inventory, &raw, |entry| {
        text(entry, "Id").starts_with("Installed-")
    });

    let [bmc] = of(&inventory, ComponentClass::Bmc)[..] else {
        panic!("one BMC")
    };
    let manager = capture.read("/redfish/v1/Managers/iDRAC.Embedded.1").unwrap();
    assert_eq!(bmc.version.as_deref(), manager["FirmwareVersion"].as_str());
    let [bios] = of(&inventory, ComponentClass::Bios)[..] else {
        panic!("one BIOS")
    };
    assert_eq!(bios.version.as_deref(), system["BiosVersion"].as_str());
    assert_eq!(bios.updateable, Some(true));
    let nics = of(&inventory, ComponentClass::Nic);
    let adapters = raw.iter().filter(|e| text(e, "Id").starts_with("Installed-"));
    let adapters = adapters.filter(|e| place(e).starts_with("NIC.") || place(e).starts_with("InfiniBand."));
    assert_eq!(nics.len(), adapters.count());
    let nic = nics.iter().find(|nic| nic.id == "NIC.Integrated.1-1-1").unwrap();
    let adapter = capture
        .read("/redfish/v1/Chassis/System.Embedded.1/NetworkAdapters/NIC.Integrated.1")
        .unwrap();
    assert_eq!(nic.manufacturer.as_deref(), adapter["Manufacturer"].as_str());
    assert_eq!(nic.model.as_deref(), adapter["Model"].as_str());
    assert_eq!(nic.serial.as_deref(), adapter["SerialNumber"].as_str());
    assert_eq!(of(&inventory, ComponentClass::Psu).len(), 2);
    assert_eq!(of(&inventory, ComponentClass::Drive).len(), 3);
    assert_eq!(of(&inventory, ComponentClass::Cpld).len(), 1);
    ids_are_unique(&inventory);
}

#[tokio::test]
async fn hpe_reads_whole() {
    let Some((capture, inventory, identity)) = read("hpe").await else {
        return;
    };
    let system = capture.read("/redfish/v1/Systems/1").unwrap();
    assert_eq!(identity.vendor, Vendor::Hpe);
    assert_eq!(identity.serial.as_deref(), system["SerialNumber"].as_str());
    let raw = capture.entries();
    versions_are_all_there(&inventory, &raw, |_| true);
    let [bmc] = of(&inventory, ComponentClass::Bmc)[..] else {
        panic!("one BMC")
    };
    let ilo = raw.iter().find(|entry| text(entry, "Name") == "iLO 5").unwrap();
    assert_eq!(bmc.version.as_deref(), ilo["Version"].as_str());
    let [bios] = of(&inventory, ComponentClass::Bios)[..] else {
        panic!("one BIOS, the redundant one is a copy")
    };
    assert_eq!(bios.version.as_deref(), system["BiosVersion"].as_str());
    let drives = raw
        .iter()
        .filter(|entry| text(entry, "Name").contains("NVMe Drive") || text(entry, "Name").contains("SSD"));
    assert_eq!(of(&inventory, ComponentClass::Drive).len(), drives.count());
    assert_eq!(of(&inventory, ComponentClass::StorageController).len(), 1);
    let supplies = raw
        .iter()
        .filter(|entry| text(entry, "Name") == "Power Supply Firmware")
        .count();
    assert_eq!(of(&inventory, ComponentClass::Psu).len(), supplies);
    assert!(
        of(&inventory, ComponentClass::Nic)
            .iter()
            .filter(|nic| nic.manufacturer.is_some())
            .count()
            >= 3
    );
    ids_are_unique(&inventory);
}

#[tokio::test]
async fn lenovo_reads_whole() {
    let Some((capture, inventory, identity)) = read("lenovo").await else {
        return;
    };
    let system = capture.read("/redfish/v1/Systems/1").unwrap();
    assert_eq!(identity.vendor, Vendor::Lenovo);
    assert_eq!(identity.serial.as_deref(), system["SerialNumber"].as_str());
    let raw = capture.entries();
    versions_are_all_there(&inventory, &raw, |entry| !text(entry, "Id").ends_with("-Pending"));
    let waiting = raw
        .iter()
        .filter(|entry| text(entry, "Id").ends_with("-Pending"))
        .count();
    let firmware = raw.len() - waiting;
    assert!(
        inventory.components.len() >= firmware,
        "{} of {firmware}",
        inventory.components.len()
    );
    assert!(
        inventory
            .components
            .iter()
            .all(|component| component.staged.is_none()),
        "nothing waits on this machine"
    );
    let [bmc] = of(&inventory, ComponentClass::Bmc)[..] else {
        panic!("one BMC, the backup is a copy")
    };
    assert_eq!(bmc.id, "BMC-Primary");
    let [bios] = of(&inventory, ComponentClass::Bios)[..] else {
        panic!("one BIOS")
    };
    let uefi = raw.iter().find(|entry| text(entry, "Id") == "UEFI").unwrap();
    assert_eq!(bios.version.as_deref(), uefi["Version"].as_str());
    assert_eq!(of(&inventory, ComponentClass::Psu).len(), 4);
    assert_eq!(of(&inventory, ComponentClass::Drive).len(), 4);
    assert!(of(&inventory, ComponentClass::Gpu).len() >= 8);
    let drive = of(&inventory, ComponentClass::Drive)[0];
    assert!(drive.serial.is_some() && drive.model.is_some(), "{drive:?}");
    ids_are_unique(&inventory);
}

#[tokio::test]
async fn supermicro_reads_whole_despite_its_dates() {
    let Some((capture, inventory, identity)) = read("supermicro").await else {
        return;
    };
    let system = capture.read("/redfish/v1/Systems/1").unwrap();
    assert_eq!(identity.vendor, Vendor::Supermicro);
    assert_eq!(identity.serial.as_deref(), system["SerialNumber"].as_str());
    let raw = capture.entries();
    let present =
        |entry: &Value| text(entry, "Version") != "Not Present" && !text(entry, "Version").is_empty();
    versions_are_all_there(&inventory, &raw, |entry| {
        present(entry) && !text(entry, "Id").starts_with("Staging_")
    });
    let bad = raw
        .iter()
        .filter(|e| {
            e["ReleaseDate"]
                .as_str()
                .is_some_and(|date| date.starts_with('T'))
        })
        .count();
    assert!(bad > 0, "this capture is known for its dates");
    let noted = inventory
        .findings
        .iter()
        .filter(|finding| finding.what.contains("ReleaseDate"))
        .count();
    assert_eq!(noted, bad, "each is a finding, none costs its component");
    let [bmc] = of(&inventory, ComponentClass::Bmc)[..] else {
        panic!("one BMC")
    };
    assert_eq!(
        bmc.version.as_deref(),
        capture.read("/redfish/v1/Managers/1").unwrap()["FirmwareVersion"].as_str()
    );
    assert_eq!(bmc.staged, None, "the staging area holds the version that runs");
    let [bios] = of(&inventory, ComponentClass::Bios)[..] else {
        panic!("one BIOS")
    };
    let wanted = kiban_core::version::FirmwareVersion::parse(system["BiosVersion"].as_str().unwrap());
    assert!(kiban_core::version::FirmwareVersion::parse(bios.version.as_deref().unwrap()).is(&wanted));
    assert_eq!(of(&inventory, ComponentClass::Psu).len(), 8);
    assert_eq!(of(&inventory, ComponentClass::Nic).len(), 10);
    assert!(of(&inventory, ComponentClass::Gpu).len() >= 8);
    ids_are_unique(&inventory);
}
