//! Reading a machine: who it is, how it is, and every component that carries firmware.
//!
//! ```text
//!   FirmwareInventory ─▶ entries ─ copies, rollback and pending images folded ─┐
//!   adapters, drives, controllers, supplies, GPUs ─▶ parts ─ maker, model, serial ─▶ merged ─▶ components
//! ```
//!
//! Losing one member, field or whole part list costs exactly that and leaves a finding.

use super::{
    Member, Redfish,
    classify::{self, Hints},
    json::{Fields, Findings, at, link_at, list_at, meaningful, text_at},
    transport::health,
    uri,
};
use crate::port::{
    BmcError, BmcResult, ErrorKind, Health, HealthReport, Identity, Inventory, PowerState, Vendor,
};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kiban_core::component::{Component, ComponentClass};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The identity that a system resource tells.
pub(crate) fn identity_of(system: &Value, path: &str, vendor: Vendor) -> Identity {
    let uuid = text_at(system, &["UUID"])
        .map(|uuid| uuid.to_ascii_lowercase())
        .filter(|uuid| uuid.chars().any(|c| c != '0' && c != '-'));
    let sku = text_at(system, &["SKU"]);
    let number = text_at(system, &["SerialNumber"]);
    // Dell's serial number in people's records is the service tag, which its Redfish calls SKU.
    let (serial, second_serial) = match (vendor, &sku) {
        (Vendor::Dell, Some(tag)) => (Some(tag.clone()), number),
        _ => (number, None),
    };
    Identity {
        manufacturer: text_at(system, &["Manufacturer"]),
        model: text_at(system, &["Model"]),
        serial,
        second_serial,
        uuid,
        sku,
        vendor,
        bmc_model: None,
        bmc_version: None,
        system: path.to_owned(),
    }
}

/// The power state that a system resource tells.
pub(crate) fn power_of(system: &Value) -> PowerState {
    match system.get("PowerState").and_then(Value::as_str) {
        Some("On") => PowerState::On,
        Some("Off") => PowerState::Off,
        Some("PoweringOn") => PowerState::PoweringOn,
        Some("PoweringOff") => PowerState::PoweringOff,
        Some("Paused") => PowerState::Paused,
        _ => PowerState::Unknown,
    }
}

/// A firmware entry as listed, before it is folded into a component.
struct Entry {
    path: String,
    role: Role,
    component: Component,
    related: Vec<String>,
}

/// What an entry is of its component.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// What is installed.
    Installed,
    /// What runs now, where that is told apart from what is installed (Dell's `Current-`).
    Running,
    /// What waits for its activation.
    Pending,
    /// Kept for going back: no component of its own.
    Rollback,
}

/// A physical part that may explain an entry.
#[derive(Debug, Default)]
struct Part {
    path: String,
    id: String,
    name: String,
    manufacturer: Option<String>,
    model: Option<String>,
    serial: Option<String>,
    slot: Option<String>,
    version: Option<String>,
}

/// Whether the host is still in its firmware (`BootProgress.LastState`, DSP0268 ComputerSystem 1.13). From the operating
/// system's start on it counts as back: many BMCs never hear of `OSRunning`, which needs an agent.
fn starting(system: &Value) -> bool {
    let last = at(system, &["BootProgress", "LastState"]).and_then(Value::as_str);
    !matches!(last, None | Some("None" | "OSBootStarted" | "OSRunning" | "OEM"))
}

impl Redfish {
    pub(crate) async fn read_identity(&self) -> BmcResult<Identity> {
        let (path, system) = self.system().await?;
        let mut identity = identity_of(&system, &path, self.vendor);
        if let Ok((_, manager)) = self.manager().await {
            identity.bmc_model = text_at(&manager, &["Model"]);
            identity.bmc_version = text_at(&manager, &["FirmwareVersion"]);
        }
        Ok(identity)
    }

    pub(crate) async fn read_health(&self) -> BmcResult<HealthReport> {
        let (_, system) = self.system().await?;
        let (_, manager) = self.manager().await?;
        let word = |value: &Value, name: &str| health(at(value, &["Status", name]).and_then(Value::as_str));
        let worse = |value: &Value| {
            word(value, "Health").max(match word(value, "HealthRollup") {
                Health::Unknown => Health::Ok,
                known => known,
            })
        };
        let messages = [&system, &manager]
            .iter()
            .flat_map(|value| list_at(value, &["Status", "Conditions"]))
            .filter_map(|condition| text_at(condition, &["Message"]))
            .take(16)
            .collect();
        let state = at(&system, &["Status", "State"]).and_then(Value::as_str);
        let bmc_state = at(&manager, &["Status", "State"]).and_then(Value::as_str);
        let steady =
            |state: Option<&str>| matches!(state, None | Some("Enabled" | "StandbyOffline" | "Disabled"));
        let power = power_of(&system);
        Ok(HealthReport {
            system: worse(&system),
            bmc: worse(&manager),
            power,
            steady: steady(state) && steady(bmc_state) && matches!(power, PowerState::On | PowerState::Off),
            booting: power == PowerState::On && starting(&system),
            messages,
        })
    }

    pub(crate) async fn read_inventory(&self) -> BmcResult<Inventory> {
        let mut findings = Findings::default();
        let (_, system) = self.system().await?;
        let entries = self.read_entries(&mut findings).await?;
        let parts = self.read_parts(&system, &mut findings).await?;
        let active = self.manager().await.ok();
        let mut components = merge_parts(fold(entries, &mut findings), parts);
        let missing =
            |components: &[Component], class| !components.iter().any(|component| component.class == class);
        // A BMC without an inventory of its own still says the two versions that matter most.
        if missing(&components, ComponentClass::Bios)
            && let Some(version) = text_at(&system, &["BiosVersion"])
        {
            components.push(Component {
                version: Some(version),
                ..Component::new("BIOS", ComponentClass::Bios, "BIOS")
            });
        }
        if missing(&components, ComponentClass::Bmc)
            && let Some(version) = active
                .as_ref()
                .and_then(|(_, manager)| text_at(manager, &["FirmwareVersion"]))
        {
            components.push(Component {
                version: Some(version),
                ..Component::new("BMC", ComponentClass::Bmc, "BMC")
            });
        }
        let max = self.limits().components;
        if components.len() > max {
            findings.note(
                "",
                format!("{} components, only {max} are kept", components.len()),
            );
            components.truncate(max);
        }
        components.sort_by(|a, b| (a.class, &a.id).cmp(&(b.class, &b.id)));
        Ok(Inventory {
            components,
            read_at: Timestamp::now(),
            power: power_of(&system),
            findings: findings.into_list(),
        })
    }

    /// Reads the members of a collection, two at a time, in their order. A member that cannot be read is a finding; a BMC
    /// that stops answering is an error, because an inventory with holes would look like removed parts.
    async fn read_members(
        &self,
        path: &str,
        findings: &mut Findings,
        doing: &str,
    ) -> BmcResult<Vec<(String, Value)>> {
        let members = match self.expanded(path, findings, doing).await {
            Some(members) => members,
            None => self.members(path, findings, doing).await?,
        };
        let reads = stream::iter(members.into_iter().map(|Member { path, body }| async move {
            match body {
                Some(body) => (path, Ok(body)),
                None => {
                    let value = self.get(&path, doing).await;
                    (path, value)
                }
            }
        }));
        let mut reads = reads.buffered(self.limits().reads.max(1));
        let mut all = Vec::new();
        while let Some((path, result)) = reads.next().await {
            match result {
                Ok(value) => all.push((path, value)),
                Err(error) if stays_away(&error) => return Err(error),
                Err(error) => findings.note(&path, error.to_string()),
            }
        }
        Ok(all)
    }

    /// The members in one read, where the BMC says that it can; None if it cannot after all.
    async fn expanded(&self, path: &str, findings: &mut Findings, doing: &str) -> Option<Vec<Member>> {
        let advertised = at(
            &self.root,
            &["ProtocolFeaturesSupported", "ExpandQuery", "NoLinks"],
        )
        .and_then(Value::as_bool);
        // iLO and iDRAC leave fields out of expanded members at times, and answer slower than to single reads when large.
        if advertised != Some(true) || path.contains('#') {
            return None;
        }
        let query = format!("{}?$expand=.($levels=1)", uri::normal(path));
        let first = self.get(&query, doing).await.ok()?;
        // Members that came as links after all are read one by one.
        self.members_of(path, first, findings, doing).await.ok()
    }

    async fn read_entries(&self, findings: &mut Findings) -> BmcResult<Vec<Entry>> {
        let doing = "read the firmware inventory";
        let service = match self.follow_link(&self.root, &["UpdateService"], doing).await {
            Ok((_, service)) => service,
            Err(error) if stays_away(&error) => return Err(error),
            Err(error) => {
                findings.note("/redfish/v1/UpdateService", error.to_string());
                return Ok(Vec::new());
            }
        };
        let Some(path) = link_at(&service, &["FirmwareInventory"]) else {
            findings.note("/redfish/v1/UpdateService", "it has no FirmwareInventory");
            return Ok(Vec::new());
        };
        let path = self.resource(path, doing)?;
        let members = match self.read_members(&path, findings, doing).await {
            Ok(members) => members,
            Err(error) if stays_away(&error) => return Err(error),
            Err(error) => {
                findings.note(&path, error.to_string());
                Vec::new()
            }
        };
        let active = match self.vendor {
            Vendor::OpenBmc => self.active_images().await,
            _ => HashSet::new(),
        };
        Ok(members
            .iter()
            .map(|(path, value)| self.entry(path, value, &active, findings))
            .collect())
    }

    /// The images that an OpenBMC says are the running ones: its entries have random ids, several per component.
    async fn active_images(&self) -> HashSet<String> {
        let mut active = HashSet::new();
        for resource in [self.manager().await, self.system().await].into_iter().flatten() {
            for names in [
                &["Links", "ActiveSoftwareImage"][..],
                &["Bios", "Links", "ActiveSoftwareImage"],
            ] {
                active.extend(link_at(&resource.1, names).map(|link| uri::normal(link).to_owned()));
            }
            if let Some(bios) = link_at(&resource.1, &["Bios"]).and_then(|link| self.resource(link, "").ok())
                && let Ok(bios) = self.get(&bios, "read the BIOS").await
            {
                active.extend(
                    link_at(&bios, &["Links", "ActiveSoftwareImage"])
                        .map(|link| uri::normal(link).to_owned()),
                );
            }
        }
        active
    }

    fn entry(&self, path: &str, value: &Value, active: &HashSet<String>, findings: &mut Findings) -> Entry {
        let mut fields = Fields::new(value, path, findings);
        let raw_id = fields.text("Id").unwrap_or_else(|| uri::tail(path).to_owned());
        let name = fields.text("Name").unwrap_or_else(|| raw_id.clone());
        let version = fields.text("Version");
        let description = fields.text("Description").unwrap_or_default();
        let software_id = fields.text("SoftwareId").unwrap_or_default();
        let manufacturer = fields.text("Manufacturer");
        let updateable = fields.flag("Updateable");
        let lowest_supported = fields.text("LowestSupportedVersion");
        let oem = oem_of(value);
        let serial = fields.text("SerialNumber");
        fields.check_date("ReleaseDate");
        if version.is_none() && !matches!(value.get("Version"), None | Some(Value::Null | Value::String(_))) {
            fields
                .findings()
                .note(path, "the member is kept without its version");
        }
        let related = list_at(value, &["RelatedItem"])
            .iter()
            .take(16)
            .filter_map(|item| {
                item.get("@odata.id")
                    .and_then(Value::as_str)
                    .or_else(|| item.as_str())
            })
            .map(str::to_owned)
            .collect::<Vec<_>>();
        let (mut role, id) = role_and_id(self.vendor, &raw_id, &name, version.as_deref());
        let state = text_at(value, &["Status", "State"]);
        let hints = Hints {
            id: &id,
            name: &name,
            description: &description,
            software_id: &software_id,
            related: related.clone(),
        };
        let mut class = classify::class_of(&hints);
        let slot = oem.or_else(|| slot_of(self.vendor, &id));
        let mut id = match (self.vendor, &slot) {
            // iLO numbers its entries in the order of the day; what and where is what stays.
            (Vendor::Hpe, Some(place)) if raw_id.bytes().all(|b| b.is_ascii_digit()) => {
                format!("{name}@{place}")
            }
            _ => id,
        };
        if self.vendor == Vendor::OpenBmc
            && !active.is_empty()
            && matches!(class, ComponentClass::Bmc | ComponentClass::Bios)
        {
            let running = active.contains(uri::normal(path));
            let waiting = state.as_deref() == Some("Updating") || state.as_deref() == Some("Enabled");
            role = match (running, waiting) {
                (true, _) => Role::Running,
                (false, true) => Role::Pending,
                (false, false) => Role::Rollback,
            };
            class.as_str().clone_into(&mut id);
        }
        if role == Role::Installed && state.as_deref() == Some("StandbySpare") {
            class = ComponentClass::Other;
        }
        let component = Component {
            version,
            manufacturer,
            updateable,
            lowest_supported,
            slot,
            serial,
            ..Component::new(id, class, name)
        };
        Entry {
            path: path.to_owned(),
            role,
            component,
            related,
        }
    }

    /// Reads the parts that explain firmware entries. None of them is needed: what cannot be read is a finding.
    async fn read_parts(
        &self,
        system: &Value,
        findings: &mut Findings,
    ) -> BmcResult<Vec<(ComponentClass, Part)>> {
        let mut parts = Vec::new();
        let doing = "read the parts";
        let chassis = link_at(&self.root, &["Chassis"]).and_then(|link| self.resource(link, doing).ok());
        let mut chassis_all = Vec::new();
        if let Some(path) = chassis {
            chassis_all = self.part_members(&path, findings, doing).await?;
        }
        for (_, chassis) in chassis_all.iter().take(16) {
            if let Some(path) =
                link_at(chassis, &["NetworkAdapters"]).and_then(|link| self.resource(link, doing).ok())
            {
                for (path, adapter) in self.part_members(&path, findings, doing).await? {
                    parts.push((ComponentClass::Nic, part(&path, &adapter, findings)));
                }
            }
            parts.extend(self.power_supplies(chassis, findings).await?);
        }
        if let Some(path) = link_at(system, &["Storage"]).and_then(|link| self.resource(link, doing).ok()) {
            for (path, storage) in self.part_members(&path, findings, doing).await? {
                parts.extend(self.storage_parts(&path, &storage, findings).await?);
            }
        }
        if let Some(path) = link_at(system, &["Processors"]).and_then(|link| self.resource(link, doing).ok())
        {
            for (path, processor) in self.part_members(&path, findings, doing).await? {
                if matches!(
                    processor.get("ProcessorType").and_then(Value::as_str),
                    Some("GPU" | "Accelerator")
                ) {
                    parts.push((ComponentClass::Gpu, part(&path, &processor, findings)));
                }
            }
        }
        Ok(parts)
    }

    /// As [`Self::read_members`], for what is only good to have.
    async fn part_members(
        &self,
        path: &str,
        findings: &mut Findings,
        doing: &str,
    ) -> BmcResult<Vec<(String, Value)>> {
        match self.read_members(path, findings, doing).await {
            Err(error) if !stays_away(&error) => {
                findings.note(path, error.to_string());
                Ok(Vec::new())
            }
            other => other,
        }
    }

    async fn power_supplies(
        &self,
        chassis: &Value,
        findings: &mut Findings,
    ) -> BmcResult<Vec<(ComponentClass, Part)>> {
        let doing = "read the power supplies";
        let mut parts = Vec::new();
        for (names, inner) in [(&["PowerSubsystem"], true), (&["Power"], false)] {
            let Some(path) = link_at(chassis, names).and_then(|link| self.resource(link, doing).ok()) else {
                continue;
            };
            let power = match self.get(&path, doing).await {
                Ok(power) => power,
                Err(error) if stays_away(&error) => return Err(error),
                Err(error) => {
                    findings.note(&path, error.to_string());
                    continue;
                }
            };
            if inner {
                let link =
                    link_at(&power, &["PowerSupplies"]).and_then(|link| self.resource(link, doing).ok());
                if let Some(path) = link {
                    for (path, supply) in self.part_members(&path, findings, doing).await? {
                        parts.push((ComponentClass::Psu, part(&path, &supply, findings)));
                    }
                }
            } else {
                for supply in list_at(&power, &["PowerSupplies"]).iter().take(64) {
                    let path = supply
                        .get("@odata.id")
                        .and_then(Value::as_str)
                        .unwrap_or(&path)
                        .to_owned();
                    parts.push((ComponentClass::Psu, part(&path, supply, findings)));
                }
            }
            if !parts.is_empty() {
                break;
            }
        }
        Ok(parts)
    }

    async fn storage_parts(
        &self,
        path: &str,
        storage: &Value,
        findings: &mut Findings,
    ) -> BmcResult<Vec<(ComponentClass, Part)>> {
        let doing = "read the storage";
        let mut parts = Vec::new();
        let controllers = list_at(storage, &["StorageControllers"]);
        for (index, controller) in controllers.iter().take(16).enumerate() {
            let own = controller.get("@odata.id").and_then(Value::as_str);
            let path = own.map_or_else(|| format!("{path}#/StorageControllers/{index}"), str::to_owned);
            parts.push((
                ComponentClass::StorageController,
                part(&path, controller, findings),
            ));
        }
        if controllers.is_empty()
            && let Some(path) =
                link_at(storage, &["Controllers"]).and_then(|link| self.resource(link, doing).ok())
        {
            for (path, controller) in self.part_members(&path, findings, doing).await? {
                parts.push((
                    ComponentClass::StorageController,
                    part(&path, &controller, findings),
                ));
            }
        }
        let links = list_at(storage, &["Drives"]);
        let paths: Vec<String> = links
            .iter()
            .take(self.limits().members)
            .filter_map(|link| link.get("@odata.id").and_then(Value::as_str))
            .filter_map(|link| self.resource(link, doing).ok())
            .collect();
        let reads = stream::iter(paths.into_iter().map(|path| async move {
            let drive = self.get(&path, doing).await;
            (path, drive)
        }));
        let mut reads = reads.buffered(self.limits().reads.max(1));
        while let Some((path, drive)) = reads.next().await {
            match drive {
                Ok(drive) => parts.push((ComponentClass::Drive, part(&path, &drive, findings))),
                Err(error) if stays_away(&error) => return Err(error),
                Err(error) => findings.note(&path, error.to_string()),
            }
        }
        Ok(parts)
    }

    /// The addresses of components by their ids, for the targets of an update.
    pub(crate) async fn targets_of(&self, ids: &[String]) -> BmcResult<Vec<String>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut findings = Findings::default();
        let entries = self.read_entries(&mut findings).await?;
        let mut by_id = BTreeMap::<String, String>::new();
        for (id, entry) in unique_ids(entries) {
            if entry.role == Role::Installed || entry.role == Role::Running {
                by_id.entry(id).or_insert(entry.path);
            }
        }
        ids.iter()
            .map(|id| {
                by_id.get(id).cloned().ok_or_else(|| {
                    BmcError::new(
                        ErrorKind::NotFound,
                        "find the component",
                        format!("the BMC lists no component {id:?}"),
                    )
                })
            })
            .collect()
    }
}

/// Whether an error means that the BMC does not answer (any more), so that reading on is pointless and what was read so far
/// says nothing about what is there.
fn stays_away(error: &BmcError) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::MalformedAnswer
            | ErrorKind::NotSupported
            | ErrorKind::Rejected
            | ErrorKind::TooLarge
            | ErrorKind::Redirected
    )
}

/// What an entry is and the id that stays across updates.
fn role_and_id(vendor: Vendor, raw: &str, name: &str, version: Option<&str>) -> (Role, String) {
    match vendor {
        Vendor::Dell => {
            // `Installed-159-1.8.2__BIOS.Setup.1-1`: role, kind, version, place. The place is what stays.
            let Some((head, place)) = raw.split_once("__") else {
                return (Role::Installed, raw.to_owned());
            };
            let role = match head.split('-').next().unwrap_or_default() {
                "Current" => Role::Running,
                "Previous" => Role::Rollback,
                "Available" | "Pending" => Role::Pending,
                _ => Role::Installed,
            };
            (role, place.to_owned())
        }
        _ => {
            if let Some(base) = raw.strip_suffix("-Pending") {
                return (Role::Pending, base.to_owned());
            }
            if let Some(base) = raw.strip_prefix("Staging_") {
                return (Role::Pending, base.to_owned());
            }
            // Version-in-id of other makers: `bios-2.1.0`.
            let without = version
                .filter(|v| v.len() >= 3)
                .and_then(|v| raw.strip_suffix(v))
                .map(|id| id.trim_end_matches(['-', '_']));
            let id = without.filter(|id| !id.is_empty()).unwrap_or(raw);
            // A random hash says nothing, and changes with each image.
            let hash = id.len() >= 8
                && id.bytes().all(|b| b.is_ascii_hexdigit())
                && id.bytes().any(|b| b.is_ascii_digit());
            (
                Role::Installed,
                if hash && !name.is_empty() {
                    name.to_owned()
                } else {
                    id.to_owned()
                },
            )
        }
    }
}

/// HPE says where an entry sits in its own part of it.
fn oem_of(value: &Value) -> Option<String> {
    text_at(value, &["Oem", "Hpe", "DeviceContext"])
}

fn slot_of(vendor: Vendor, id: &str) -> Option<String> {
    let place = match vendor {
        Vendor::Dell => id.contains('.').then(|| id.split(':').next().unwrap_or(id)),
        Vendor::Lenovo => id
            .starts_with("Slot_")
            .then(|| id.split('.').next().unwrap_or(id)),
        _ => None,
    };
    place.map(str::to_owned)
}

/// Gives entries of the same id and role numbers, in an order that does not depend on the BMC's.
fn unique_ids(mut entries: Vec<Entry>) -> Vec<(String, Entry)> {
    entries.sort_by(|a, b| {
        let key = |entry: &Entry| {
            (
                entry.component.id.clone(),
                entry.role as u8,
                entry.component.version.clone(),
                uri::tail(&entry.path).len(),
                entry.path.clone(),
            )
        };
        key(a).cmp(&key(b))
    });
    let mut counts = HashMap::<(String, u8), usize>::new();
    entries
        .into_iter()
        .map(|entry| {
            let count = counts
                .entry((entry.component.id.clone(), entry.role as u8))
                .or_default();
            *count += 1;
            let id = if *count == 1 {
                entry.component.id.clone()
            } else {
                format!("{}#{count}", entry.component.id)
            };
            (id, entry)
        })
        .collect()
}

/// Folds what runs, what is installed and what waits into one component each.
fn fold(entries: Vec<Entry>, findings: &mut Findings) -> Vec<(Component, Vec<String>)> {
    let mut running = BTreeMap::<String, (Component, Vec<String>)>::new();
    let mut pending = Vec::new();
    let mut later = Vec::new();
    for (id, entry) in unique_ids(entries) {
        let mut component = entry.component;
        component.id.clone_from(&id);
        match entry.role {
            Role::Rollback => {}
            Role::Pending => pending.push((id, component)),
            Role::Running => {
                running.insert(id, (component, entry.related));
            }
            Role::Installed => later.push((id, component, entry.related)),
        }
    }
    for (id, component, related) in later {
        match running.get_mut(&id) {
            // Installed but not what runs: it waits for its activation.
            Some((active, _)) => {
                if component.version != active.version {
                    active.staged = component.version;
                }
            }
            None => {
                running.insert(id, (component, related));
            }
        }
    }
    for (id, component) in pending {
        match running.get_mut(&id) {
            Some((active, _)) => {
                if component.version != active.version && component.version.is_some() {
                    active.staged = component.version;
                }
            }
            None => findings.note(&id, "an image waits for a component that is not listed"),
        }
    }
    running.into_values().collect::<Vec<_>>()
}

fn part(path: &str, value: &Value, findings: &mut Findings) -> Part {
    let mut fields = Fields::new(value, path, findings);
    let package = list_at(value, &["Controllers"])
        .iter()
        .find_map(|controller| text_at(controller, &["FirmwarePackageVersion"]));
    let version = fields
        .text("FirmwareVersion")
        .or_else(|| fields.text("Revision"))
        .or(package);
    let slot = text_at(value, &["Location", "PartLocation", "ServiceLabel"])
        .or_else(|| text_at(value, &["PhysicalLocation", "PartLocation", "ServiceLabel"]));
    Part {
        id: fields.text("Id").unwrap_or_else(|| uri::tail(path).to_owned()),
        name: fields.text("Name").unwrap_or_else(|| uri::tail(path).to_owned()),
        manufacturer: fields.text("Manufacturer"),
        model: fields.text("Model").or_else(|| fields.text("PartNumber")),
        serial: fields.text("SerialNumber"),
        slot,
        version,
        path: path.to_owned(),
    }
}

/// Gives each component what its part knows, and adds the parts with firmware that no entry speaks of.
fn merge_parts(
    mut folded: Vec<(Component, Vec<String>)>,
    parts: Vec<(ComponentClass, Part)>,
) -> Vec<Component> {
    let mut used = HashSet::<usize>::new();
    for (component, related) in &mut folded {
        let same_class: Vec<(usize, &Part)> = parts
            .iter()
            .enumerate()
            .filter(|(_, (class, _))| *class == component.class)
            .map(|(n, (_, part))| (n, part))
            .collect();
        let exact = same_class
            .iter()
            .find(|(_, part)| explains(component, related, part));
        if let Some((n, part)) = exact {
            used.insert(*n);
            enrich(component, part, true);
            continue;
        }
        // No link: parts of the same class and version tell the maker if they all agree, the serial only if there is one.
        let alike: Vec<&(usize, &Part)> = same_class
            .iter()
            .filter(|(_, part)| part.version.is_some() && part.version == component.version)
            .collect();
        if let Some((_, first)) = alike.first()
            && alike
                .iter()
                .all(|(_, part)| part.manufacturer == first.manufacturer && part.model == first.model)
        {
            enrich(component, first, alike.len() == 1);
        }
        used.extend(alike.iter().map(|(n, _)| *n));
    }
    let mut components: Vec<Component> = folded.into_iter().map(|(component, _)| component).collect();
    // A lone NVMe drive shows as a controller and a drive of one serial number: one thing, listed once.
    let told: HashSet<String> = parts
        .iter()
        .enumerate()
        .filter(|(n, _)| used.contains(n))
        .filter_map(|(_, (_, part))| part.serial.clone())
        .collect();
    for (n, (class, part)) in parts.into_iter().enumerate() {
        let known = part.serial.as_ref().is_some_and(|serial| told.contains(serial));
        if used.contains(&n) || known || part.version.is_none() {
            continue;
        }
        let mut component = Component::new(part.id.clone(), class, part.name.clone());
        component.version.clone_from(&part.version);
        enrich(&mut component, &part, true);
        if components.iter().any(|other| other.id == component.id) {
            component.id = uri::normal(&part.path)
                .trim_start_matches("/redfish/v1/")
                .to_owned();
        }
        if !components.iter().any(|other| other.id == component.id) {
            components.push(component);
        }
    }
    components
}

/// Whether a part is what an entry is about: linked, or named in its id.
fn explains(component: &Component, related: &[String], part: &Part) -> bool {
    let linked = related.iter().any(|link| {
        let (link, part) = (link.trim_end_matches('/'), part.path.trim_end_matches('/'));
        link == part || (!link.contains('#') && !part.contains('#') && link == uri::normal(part))
    });
    // `NIC.Integrated.1-1-1` is port 1 of `NIC.Integrated.1`.
    let named = part.id.len() >= 4
        && component
            .id
            .strip_prefix(part.id.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    linked || named
}

fn enrich(component: &mut Component, part: &Part, same: bool) {
    // The part's maker beats the entry's: servers' makers write their own name there.
    if let Some(manufacturer) = &part.manufacturer {
        component.manufacturer = Some(manufacturer.clone());
    }
    component.model = component.model.take().or_else(|| part.model.clone());
    if same {
        component.serial = component.serial.take().or_else(|| part.serial.clone());
        component.slot = component.slot.take().or_else(|| part.slot.clone());
    }
    component.manufacturer = component.manufacturer.take().as_deref().and_then(meaningful);
}
