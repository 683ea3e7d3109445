//! The Redfish resources that every persona has, rendered on demand from the model and the machine's state.

use crate::{
    bios,
    fault::Fault,
    model::Class,
    persona::{self, Ids, Software},
    state::{Bmc, Host, Turn},
    task::Task,
};
use serde_json::{Map, Value, json};

const ROOT: &str = "/redfish/v1";

/// The resource at a path (without a slash at its end), or `None` where there is none.
pub(crate) fn get(turn: &Turn<'_>, path: &str) -> Option<Value> {
    let vendor = turn.machine.vendor();
    let mut doc = shared(turn, path).or_else(|| vendor.resource(turn, path))?;
    if let Some(map) = doc.as_object_mut() {
        vendor.decorate(turn, path, map);
        if let Some(Value::Array(members)) = map.get_mut("Members") {
            shuffle(turn, members);
        }
    }
    Some(doc)
}

fn shuffle(turn: &Turn<'_>, members: &mut [Value]) {
    if active(turn, |f| *f == Fault::ShuffleInventory).is_some() {
        for i in (1..members.len()).rev() {
            members.swap(i, (turn.shared.faults.random() % (i as u64 + 1)) as usize);
        }
    }
}

fn active(turn: &Turn<'_>, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
    turn.shared
        .faults
        .active(turn.t, &turn.machine.name, |r| wanted(&r.fault))
}

/// The serial number that is shown.
pub(crate) fn serial(turn: &Turn<'_>) -> String {
    match active(turn, |f| matches!(f, Fault::WrongSerial { .. })) {
        Some(Fault::WrongSerial { serial }) => serial,
        _ => turn.st.serial.to_string(),
    }
}

/// Whether a path is for machines with a licence that this one lacks.
pub(crate) fn unlicensed(turn: &Turn<'_>, path: &str) -> bool {
    turn.machine.vendor().sold_apart(path) && active(turn, |f| *f == Fault::Unlicensed).is_some()
}

fn uuid(turn: &Turn<'_>) -> String {
    match active(turn, |f| matches!(f, Fault::DuplicateUuid { .. })) {
        Some(Fault::DuplicateUuid { uuid }) => uuid.to_string(),
        _ => turn.st.uuid.to_string(),
    }
}

fn now(turn: &Turn<'_>) -> String {
    if active(turn, |f| *f == Fault::Clock1970).is_some() {
        return "1970-01-01T00:03:20Z".into();
    }
    turn.shared.clock.stamp(turn.t)
}

pub(crate) fn link(path: impl Into<String>) -> Value {
    json!({"@odata.id": path.into()})
}

pub(crate) fn collection(path: &str, kind: &str, name: &str, members: Vec<Value>) -> Value {
    json!({
        "@odata.id": path, "@odata.type": format!("#{kind}.{kind}"), "Name": name, "Description": name,
        "Members@odata.count": members.len(), "Members": members,
    })
}

fn shared(turn: &Turn<'_>, path: &str) -> Option<Value> {
    let ids = turn.machine.vendor().ids();
    if path == "/redfish" {
        return Some(json!({"v1": "/redfish/v1/"}));
    }
    let rest = path.strip_prefix(ROOT)?;
    let parts: Vec<&str> = rest.split('/').filter(|p| !p.is_empty()).collect();
    match parts.as_slice() {
        [] => Some(root(turn)),
        ["odata"] => Some(odata()),
        ["Systems"] => Some(collection(
            path,
            "ComputerSystemCollection",
            "Computer System Collection",
            vec![link(format!("{ROOT}/Systems/{}", ids.system))],
        )),
        ["Systems", s, rest @ ..] if *s == ids.system => system_tree(turn, ids, path, rest),
        ["Chassis"] => Some(collection(
            path,
            "ChassisCollection",
            "Chassis Collection",
            vec![link(format!("{ROOT}/Chassis/{}", ids.chassis))],
        )),
        ["Chassis", c, rest @ ..] if *c == ids.chassis => chassis_tree(turn, ids, path, rest),
        ["Managers"] => Some(collection(
            path,
            "ManagerCollection",
            "Manager Collection",
            vec![link(format!("{ROOT}/Managers/{}", ids.manager))],
        )),
        ["Managers", m] if *m == ids.manager => Some(manager(turn, ids)),
        ["SessionService", rest @ ..] => sessions(turn, path, rest),
        ["AccountService", rest @ ..] => accounts(turn, path, rest),
        ["TaskService", rest @ ..] => tasks(turn, path, rest),
        ["UpdateService", rest @ ..] => updates(turn, path, rest),
        ["Registries", rest @ ..] => bios::registries(turn, path, rest),
        _ => None,
    }
}

fn root(turn: &Turn<'_>) -> Value {
    json!({
        "@odata.id": "/redfish/v1/", "@odata.type": "#ServiceRoot.v1_10_0.ServiceRoot",
        "Id": "RootService", "Name": "Root Service", "RedfishVersion": "1.13.0", "UUID": uuid(turn),
        "Systems": link(format!("{ROOT}/Systems")), "Chassis": link(format!("{ROOT}/Chassis")),
        "Managers": link(format!("{ROOT}/Managers")), "Tasks": link(format!("{ROOT}/TaskService")),
        "SessionService": link(format!("{ROOT}/SessionService")),
        "AccountService": link(format!("{ROOT}/AccountService")),
        "UpdateService": link(format!("{ROOT}/UpdateService")),
        "Registries": link(format!("{ROOT}/Registries")),
        "Links": {"Sessions": link(format!("{ROOT}/SessionService/Sessions"))},
        "ProtocolFeaturesSupported": {
            "ExpandQuery": {"ExpandAll": false, "Levels": false, "Links": false, "NoLinks": false},
            "FilterQuery": false, "SelectQuery": false, "OnlyMemberQuery": false, "ExcerptQuery": false,
        },
    })
}

fn odata() -> Value {
    let service = |name: &str, url: &str| json!({"name": name, "kind": "Singleton", "url": url});
    json!({
        "@odata.context": "/redfish/v1/$metadata",
        "value": [
            service("Service", "/redfish/v1/"), service("Systems", "/redfish/v1/Systems"),
            service("Chassis", "/redfish/v1/Chassis"), service("Managers", "/redfish/v1/Managers"),
            service("TaskService", "/redfish/v1/TaskService"), service("AccountService", "/redfish/v1/AccountService"),
            service("SessionService", "/redfish/v1/SessionService"), service("UpdateService", "/redfish/v1/UpdateService"),
            service("Registries", "/redfish/v1/Registries"), service("Sessions", "/redfish/v1/SessionService/Sessions"),
        ],
    })
}

/// The metadata document: one reference per schema that is served.
pub(crate) fn metadata() -> String {
    let names = [
        "ServiceRoot",
        "ComputerSystemCollection",
        "ComputerSystem",
        "ChassisCollection",
        "Chassis",
        "ManagerCollection",
        "Manager",
        "SessionService",
        "SessionCollection",
        "Session",
        "AccountService",
        "ManagerAccountCollection",
        "ManagerAccount",
        "RoleCollection",
        "Role",
        "TaskService",
        "TaskCollection",
        "Task",
        "UpdateService",
        "SoftwareInventoryCollection",
        "SoftwareInventory",
        "Bios",
        "StorageCollection",
        "Storage",
        "Drive",
        "Power",
        "NetworkAdapterCollection",
        "NetworkAdapter",
        "MessageRegistryFileCollection",
        "MessageRegistryFile",
        "AttributeRegistry",
        "Settings",
        "Message",
        "ActionInfo",
        "JobService",
        "JobCollection",
        "Job",
    ];
    let mut xml = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<edmx:Edmx xmlns:edmx=\"http://docs.oasis-open.org/odata/ns/edmx\" Version=\"4.0\">\n",
    );
    for name in names {
        xml.push_str(&format!(
            "  <edmx:Reference Uri=\"http://redfish.dmtf.org/schemas/v1/{name}_v1.xml\"><edmx:Include Namespace=\"{name}\"/></edmx:Reference>\n",
        ));
    }
    xml.push_str("  <edmx:Reference Uri=\"http://redfish.dmtf.org/schemas/v1/RedfishExtensions_v1.xml\"><edmx:Include Namespace=\"RedfishExtensions.v1_0_0\" Alias=\"Redfish\"/></edmx:Reference>\n");
    xml.push_str("  <edmx:DataServices><Schema xmlns=\"http://docs.oasis-open.org/odata/ns/edm\" Namespace=\"Service\"><EntityContainer Name=\"Service\" Extends=\"ServiceRoot.v1_10_0.ServiceContainer\"/></Schema></edmx:DataServices>\n</edmx:Edmx>\n");
    xml
}

fn power_state(turn: &Turn<'_>) -> &'static str {
    match turn.st.host {
        Host::Off => "Off",
        Host::Stopping if turn.machine.vendor().says_powering_off() => "PoweringOff",
        _ => "On",
    }
}

fn health(turn: &Turn<'_>) -> Value {
    json!({"Health": "OK", "State": if turn.st.host_powered() { "Enabled" } else { "StandbyOffline" }})
}

fn first_version(turn: &Turn<'_>, class: Class) -> Option<String> {
    let slot = turn.machine.model.of_class(class).next()?;
    Some(turn.machine.vendor().bare_version(&turn.st.slots[slot].active))
}

fn system_tree(turn: &Turn<'_>, ids: Ids, path: &str, rest: &[&str]) -> Option<Value> {
    let model = &turn.machine.model;
    let base = format!("{ROOT}/Systems/{}", ids.system);
    match rest {
        [] => Some(system(turn, ids, &base)),
        ["Bios"] => Some(bios::current(turn, ids, path)),
        ["Bios", p] if *p == ids.pending => Some(bios::pending(turn, path)),
        ["Storage"] => Some(collection(
            path,
            "StorageCollection",
            "Storage Collection",
            vec![link(format!("{path}/{}", ids.storage))],
        )),
        ["Storage", s] if *s == ids.storage => Some(storage(turn, path)),
        ["Storage", s, "Drives", d] if *s == ids.storage => {
            let slot = model
                .of_class(Class::Drive)
                .find(|i| persona::drive_id(turn.machine, *i) == *d)?;
            Some(drive(turn, path, slot))
        }
        _ => None,
    }
}

fn system(turn: &Turn<'_>, ids: Ids, base: &str) -> Value {
    let model = &turn.machine.model;
    let extra = turn.st.extra.as_ref();
    let progress = match turn.st.host {
        Host::Off | Host::Stopping => "None",
        Host::Booting => "SystemHardwareInitializationComplete",
        Host::On => "OSRunning",
    };
    let target = extra
        .and_then(|e| e.boot_target.clone())
        .unwrap_or_else(|| "None".into());
    json!({
        "@odata.id": base, "@odata.type": "#ComputerSystem.v1_16_0.ComputerSystem",
        "Id": ids.system, "Name": "System", "Description": "The host", "SystemType": "Physical",
        "Manufacturer": model.manufacturer, "Model": model.name, "SKU": model.sku, "PartNumber": model.sku,
        "SerialNumber": serial(turn), "UUID": uuid(turn), "HostName": "",
        "AssetTag": extra.and_then(|e| e.asset_tag.clone()).unwrap_or_default(),
        "IndicatorLED": extra.and_then(|e| e.led.clone()).unwrap_or_else(|| "Off".into()),
        "PowerState": power_state(turn), "BiosVersion": first_version(turn, Class::Bios), "Status": health(turn),
        "BootProgress": {"LastState": progress},
        "Boot": {
            "BootSourceOverrideEnabled": if target == "None" { "Disabled" } else { "Once" },
            "BootSourceOverrideTarget": target, "BootSourceOverrideMode": "UEFI",
            "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Hdd", "Cd", "BiosSetup"],
        },
        "ProcessorSummary": {"Count": 2, "Model": "Intel(R) Xeon(R) Gold 6330 CPU @ 2.00GHz", "Status": {"Health": "OK", "State": "Enabled"}},
        "MemorySummary": {"TotalSystemMemoryGiB": 256, "Status": {"Health": "OK", "State": "Enabled"}},
        "Bios": link(format!("{base}/Bios")), "Storage": link(format!("{base}/Storage")),
        "Links": {
            "Chassis": [link(format!("{ROOT}/Chassis/{}", ids.chassis))], "Chassis@odata.count": 1,
            "ManagedBy": [link(format!("{ROOT}/Managers/{}", ids.manager))], "ManagedBy@odata.count": 1,
        },
        "Actions": {"#ComputerSystem.Reset": {
            "target": format!("{base}/Actions/ComputerSystem.Reset"),
            "ResetType@Redfish.AllowableValues": turn.machine.vendor().reset_types(),
        }},
    })
}

fn storage(turn: &Turn<'_>, path: &str) -> Value {
    let model = &turn.machine.model;
    let controllers: Vec<Value> = model
        .of_class(Class::StorageController)
        .enumerate()
        .map(|(n, slot)| {
            let c = &model.components[slot];
            json!({
                "@odata.id": format!("{path}#/StorageControllers/{n}"), "MemberId": n.to_string(), "Name": c.name,
                "Manufacturer": c.manufacturer, "Model": c.product,
                "FirmwareVersion": &*turn.st.slots[slot].active, "SerialNumber": part_serial(turn, slot),
                "Status": {"Health": "OK", "State": "Enabled"},
            })
        })
        .collect();
    let drives: Vec<Value> = model
        .of_class(Class::Drive)
        .map(|i| link(format!("{path}/Drives/{}", persona::drive_id(turn.machine, i))))
        .collect();
    json!({
        "@odata.id": path, "@odata.type": "#Storage.v1_8_0.Storage",
        "Id": path.rsplit('/').next(), "Name": "Storage", "Status": {"Health": "OK", "State": "Enabled"},
        "StorageControllers": controllers, "StorageControllers@odata.count": controllers.len(),
        "Drives": drives, "Drives@odata.count": drives.len(),
    })
}

fn drive(turn: &Turn<'_>, path: &str, slot: usize) -> Value {
    let c = &turn.machine.model.components[slot];
    json!({
        "@odata.id": path, "@odata.type": "#Drive.v1_12_0.Drive", "Id": path.rsplit('/').next(), "Name": c.name,
        "Manufacturer": c.manufacturer, "Model": c.product, "Revision": &*turn.st.slots[slot].active,
        "SerialNumber": part_serial(turn, slot), "PartNumber": c.software_id, "MediaType": "SSD", "Protocol": "NVMe",
        "CapacityBytes": 1_600_321_314_816_u64, "FailurePredicted": false, "PredictedMediaLifeLeftPercent": 97,
        "Status": {"Health": "OK", "State": "Enabled"},
    })
}

/// A part's serial number: made from the machine's UUID, so that it stays when the chassis' serial is swapped.
fn part_serial(turn: &Turn<'_>, slot: usize) -> String {
    let low = turn.st.uuid.as_u128() as u64;
    format!(
        "{:X}{:02X}",
        (low ^ (slot as u64).wrapping_mul(0x9e37_79b9)) & 0xff_ffff_ffff,
        slot
    )
}

fn chassis_tree(turn: &Turn<'_>, ids: Ids, path: &str, rest: &[&str]) -> Option<Value> {
    let model = &turn.machine.model;
    match rest {
        [] => Some(chassis(turn, ids, path)),
        ["Power"] => Some(power(turn, path)),
        ["NetworkAdapters"] => {
            // Adapters are known only while the host feeds them.
            let members = if turn.st.host_powered() {
                model
                    .of_class(Class::Nic)
                    .map(|i| link(format!("{path}/{}", persona::adapter_id(turn.machine, i))))
                    .collect()
            } else {
                Vec::new()
            };
            Some(collection(
                path,
                "NetworkAdapterCollection",
                "Network Adapter Collection",
                members,
            ))
        }
        ["NetworkAdapters", a] if turn.st.host_powered() => {
            let slot = model
                .of_class(Class::Nic)
                .find(|i| persona::adapter_id(turn.machine, *i) == *a)?;
            let c = &model.components[slot];
            Some(json!({
                "@odata.id": path, "@odata.type": "#NetworkAdapter.v1_5_0.NetworkAdapter", "Id": a, "Name": c.name,
                "Manufacturer": c.manufacturer, "Model": c.product, "PartNumber": c.software_id,
                "SerialNumber": part_serial(turn, slot), "Status": {"Health": "OK", "State": "Enabled"},
                "Controllers": [{"FirmwarePackageVersion": &*turn.st.slots[slot].active}],
            }))
        }
        _ => None,
    }
}

fn chassis(turn: &Turn<'_>, ids: Ids, path: &str) -> Value {
    let model = &turn.machine.model;
    let mut doc = json!({
        "@odata.id": path, "@odata.type": "#Chassis.v1_16_0.Chassis", "Id": ids.chassis, "Name": "Computer System Chassis",
        "ChassisType": "RackMount", "Manufacturer": model.manufacturer, "Model": model.name, "SKU": model.sku,
        "SerialNumber": serial(turn), "PartNumber": model.sku, "PowerState": if turn.st.host_powered() { "On" } else { "Off" },
        "IndicatorLED": "Off", "Status": {"Health": "OK", "State": "Enabled"},
        "Power": link(format!("{path}/Power")), "NetworkAdapters": link(format!("{path}/NetworkAdapters")),
        "Links": {
            "ComputerSystems": [link(format!("{ROOT}/Systems/{}", ids.system))], "ComputerSystems@odata.count": 1,
            "ManagedBy": [link(format!("{ROOT}/Managers/{}", ids.manager))], "ManagedBy@odata.count": 1,
        },
    });
    let types = turn.machine.vendor().chassis_reset_types();
    if !types.is_empty() {
        doc["Actions"] = json!({"#Chassis.Reset": {
            "target": format!("{path}/Actions/Chassis.Reset"), "ResetType@Redfish.AllowableValues": types,
        }});
    }
    doc
}

fn power(turn: &Turn<'_>, path: &str) -> Value {
    let model = &turn.machine.model;
    let supplies: Vec<Value> = model
        .of_class(Class::Psu)
        .enumerate()
        .map(|(n, slot)| {
            let c = &model.components[slot];
            json!({
                "@odata.id": format!("{path}#/PowerSupplies/{n}"), "MemberId": n.to_string(), "Name": c.name,
                "Manufacturer": c.manufacturer, "Model": c.product, "FirmwareVersion": &*turn.st.slots[slot].active,
                "SerialNumber": part_serial(turn, slot), "PowerSupplyType": "AC", "PowerCapacityWatts": 1100,
                "LineInputVoltage": 200, "Status": {"Health": "OK", "State": "Enabled"},
            })
        })
        .collect();
    json!({
        "@odata.id": path, "@odata.type": "#Power.v1_6_0.Power", "Id": "Power", "Name": "Power",
        "PowerSupplies@odata.count": supplies.len(), "PowerSupplies": supplies,
    })
}

fn manager(turn: &Turn<'_>, ids: Ids) -> Value {
    let path = format!("{ROOT}/Managers/{}", ids.manager);
    let bmc = turn.machine.model.of_class(Class::Bmc).next();
    json!({
        "@odata.id": path, "@odata.type": "#Manager.v1_12_0.Manager", "Id": ids.manager, "Name": "Manager",
        "Description": "BMC", "ManagerType": "BMC",
        "Manufacturer": bmc.map(|i| turn.machine.model.components[i].manufacturer.clone()),
        "Model": bmc.map(|i| turn.machine.model.components[i].product.clone()),
        "UUID": uuid(turn), "FirmwareVersion": first_version(turn, Class::Bmc), "PowerState": "On",
        "DateTime": now(turn), "DateTimeLocalOffset": "+00:00",
        "LastResetTime": turn.shared.clock.stamp(turn.st.bmc_since_ms),
        "Status": {"Health": "OK", "State": if turn.st.bmc == Bmc::Up { "Enabled" } else { "Starting" }},
        "Links": {
            "ManagerForServers": [link(format!("{ROOT}/Systems/{}", ids.system))], "ManagerForServers@odata.count": 1,
            "ManagerForChassis": [link(format!("{ROOT}/Chassis/{}", ids.chassis))], "ManagerForChassis@odata.count": 1,
        },
        "Actions": {"#Manager.Reset": {
            "target": format!("{path}/Actions/Manager.Reset"),
            "ResetType@Redfish.AllowableValues": turn.machine.vendor().manager_reset_types(),
        }},
    })
}

fn sessions(turn: &Turn<'_>, path: &str, rest: &[&str]) -> Option<Value> {
    let list = turn.st.sessions.list();
    match rest {
        [] => Some(json!({
            "@odata.id": path, "@odata.type": "#SessionService.v1_1_8.SessionService", "Id": "SessionService",
            "Name": "Session Service", "ServiceEnabled": true, "SessionTimeout": turn.machine.vendor().session_timeout(),
            "Status": {"Health": "OK", "State": "Enabled"}, "Sessions": link(format!("{path}/Sessions")),
        })),
        ["Sessions"] => {
            let members = list.iter().map(|s| link(format!("{path}/{}", s.id))).collect();
            Some(collection(
                path,
                "SessionCollection",
                "Session Collection",
                members,
            ))
        }
        ["Sessions", id] => {
            let session = list.iter().find(|s| s.id.to_string() == *id)?;
            Some(json!({
                "@odata.id": path, "@odata.type": "#Session.v1_4_0.Session", "Id": id, "Name": "User Session",
                "UserName": turn.shared.options.username, "CreatedTime": turn.shared.clock.stamp(session.created_ms),
            }))
        }
        _ => None,
    }
}

fn accounts(turn: &Turn<'_>, path: &str, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(json!({
            "@odata.id": path, "@odata.type": "#AccountService.v1_10_0.AccountService", "Id": "AccountService",
            "Name": "Account Service", "ServiceEnabled": true, "Status": {"Health": "OK", "State": "Enabled"},
            "Accounts": link(format!("{path}/Accounts")), "Roles": link(format!("{path}/Roles")),
        })),
        ["Accounts"] => Some(collection(
            path,
            "ManagerAccountCollection",
            "Accounts Collection",
            vec![link(format!("{path}/1"))],
        )),
        ["Accounts", "1"] => Some(json!({
            "@odata.id": path, "@odata.type": "#ManagerAccount.v1_8_0.ManagerAccount", "Id": "1", "Name": "User Account",
            "UserName": turn.shared.options.username, "Password": null, "Enabled": true, "Locked": false,
            "RoleId": "Administrator", "AccountTypes": ["Redfish"],
            "Links": {"Role": link("/redfish/v1/AccountService/Roles/Administrator")},
        })),
        ["Roles"] => Some(collection(
            path,
            "RoleCollection",
            "Roles Collection",
            vec![link(format!("{path}/Administrator"))],
        )),
        ["Roles", "Administrator"] => Some(json!({
            "@odata.id": path, "@odata.type": "#Role.v1_3_0.Role", "Id": "Administrator", "Name": "User Role",
            "RoleId": "Administrator", "IsPredefined": true,
            "AssignedPrivileges": ["Login", "ConfigureManager", "ConfigureUsers", "ConfigureSelf", "ConfigureComponents"],
        })),
        _ => None,
    }
}

fn tasks(turn: &Turn<'_>, path: &str, rest: &[&str]) -> Option<Value> {
    let vendor = turn.machine.vendor();
    let find = |id: &str| {
        let id = vendor.parse_task_id(id)?;
        turn.st.tasks.iter().find(|t| t.id == id && !t.gone && !t.job)
    };
    match rest {
        [] => Some(json!({
            "@odata.id": path, "@odata.type": "#TaskService.v1_2_0.TaskService", "Id": "TaskService",
            "Name": "Task Service", "ServiceEnabled": true, "DateTime": now(turn),
            "CompletedTaskOverWritePolicy": "Oldest", "LifeCycleEventOnTaskStateChange": false,
            "Status": {"Health": "OK", "State": "Enabled"}, "Tasks": link(format!("{path}/Tasks")),
        })),
        ["Tasks"] => {
            let shown = turn.st.tasks.iter().filter(|t| !t.gone && !t.job);
            let members = shown
                .map(|t| link(format!("{path}/{}", vendor.task_id(t.id))))
                .collect();
            Some(collection(path, "TaskCollection", "Task Collection", members))
        }
        ["Tasks", id] | ["Tasks", id, "Monitor"] | ["TaskMonitors", id] => find(id).map(|t| task(turn, t)),
        _ => None,
    }
}

/// The task that a monitor path stands for.
pub(crate) fn monitored(turn: &Turn<'_>, path: &str) -> Option<u32> {
    let rest = path.strip_prefix("/redfish/v1/TaskService/")?;
    let id = rest.strip_prefix("TaskMonitors/").or_else(|| {
        rest.strip_prefix("Tasks/")
            .and_then(|r| r.strip_suffix("/Monitor"))
    })?;
    turn.machine.vendor().parse_task_id(id)
}

/// The job service, for vendors that have one.
pub(crate) fn jobs(turn: &Turn<'_>, path: &str, rest: &[&str]) -> Option<Value> {
    let vendor = turn.machine.vendor();
    let mut all = turn.st.tasks.iter().filter(|t| t.job && !t.gone);
    match rest {
        [] => Some(json!({
            "@odata.id": path, "@odata.type": "#JobService.v1_0_4.JobService", "Id": "JobService",
            "Name": "Job Service", "ServiceEnabled": true, "DateTime": now(turn),
            "Status": {"Health": "OK", "State": "Enabled"}, "Jobs": link(format!("{path}/Jobs")),
        })),
        ["Jobs"] => {
            let members = all
                .map(|t| link(format!("{path}/{}", vendor.task_id(t.id))))
                .collect();
            Some(collection(path, "JobCollection", "Job Collection", members))
        }
        ["Jobs", id] => {
            let id = vendor.parse_task_id(id)?;
            let mut doc = task(turn, all.find(|t| t.id == id)?);
            let map = doc.as_object_mut()?;
            map.insert("@odata.id".into(), json!(path));
            map.insert("@odata.type".into(), json!("#Job.v1_1_2.Job"));
            map.remove("TaskMonitor");
            for (old, new) in [("TaskState", "JobState"), ("TaskStatus", "JobStatus")] {
                let value = map.remove(old)?;
                map.insert(new.into(), value);
            }
            Some(doc)
        }
        _ => None,
    }
}

/// A task's resource.
pub(crate) fn task(turn: &Turn<'_>, task: &Task) -> Value {
    let vendor = turn.machine.vendor();
    let id = vendor.task_id(task.id);
    let messages: Vec<Value> = task
        .messages
        .iter()
        .map(|m| json!({"MessageId": m.id, "Message": m.text, "MessageArgs": m.args, "MessageSeverity": if task.critical { "Critical" } else { "OK" }}))
        .collect();
    let mut doc = json!({
        "@odata.id": format!("/redfish/v1/TaskService/Tasks/{id}"), "@odata.type": "#Task.v1_5_1.Task",
        "Id": id, "Name": task.name, "TaskState": task.state.name(),
        "TaskStatus": if task.critical { "Critical" } else { "OK" },
        "PercentComplete": task.percent(turn.t), "StartTime": turn.shared.clock.stamp(task.start_ms),
        "Messages": messages,
        "TaskMonitor": format!("/redfish/v1/TaskService/TaskMonitors/{id}"),
    });
    if turn.machine.model.persona == crate::model::Persona::Openbmc {
        doc["TaskMonitor"] = json!(format!("/redfish/v1/TaskService/Tasks/{id}/Monitor"));
    }
    if let Some(end) = task.end_ms {
        doc["EndTime"] = json!(turn.shared.clock.stamp(end));
    }
    doc
}

fn updates(turn: &Turn<'_>, path: &str, rest: &[&str]) -> Option<Value> {
    let vendor = turn.machine.vendor();
    match rest {
        [] => {
            let mut doc: Map<String, Value> = json!({
                "@odata.id": path, "@odata.type": "#UpdateService.v1_11_0.UpdateService", "Id": "UpdateService",
                "Name": "Update Service", "ServiceEnabled": true, "Status": {"Health": "OK", "State": "Enabled"},
                "FirmwareInventory": link(format!("{path}/FirmwareInventory")),
                "Actions": {"#UpdateService.SimpleUpdate": {
                    "target": format!("{path}/Actions/UpdateService.SimpleUpdate"),
                    "TransferProtocol@Redfish.AllowableValues": ["HTTP", "HTTPS"],
                }},
            })
            .as_object()
            .cloned()?;
            if let Some(uri) = vendor.multipart_uri() {
                doc.insert("MultipartHttpPushUri".into(), json!(uri));
            }
            if let Some(uri) = vendor.http_push_uri() {
                doc.insert("HttpPushUri".into(), json!(uri));
            }
            Some(Value::Object(doc))
        }
        ["FirmwareInventory"] => {
            let members = vendor
                .inventory(turn)
                .iter()
                .map(|s| link(format!("{path}/{}", s.id)))
                .collect();
            Some(collection(
                path,
                "SoftwareInventoryCollection",
                "Firmware Inventory Collection",
                members,
            ))
        }
        ["FirmwareInventory", id] => {
            let found = vendor.inventory(turn).into_iter().find(|s| s.id == *id)?;
            Some(software(turn, path, &found))
        }
        _ => None,
    }
}

fn software(turn: &Turn<'_>, path: &str, entry: &Software) -> Value {
    let c = &turn.machine.model.components[entry.slot];
    // An adapter's own resource is gone while the host is off.
    let shown = c.class != Class::Nic || turn.st.host_powered();
    let related: Vec<Value> = persona::related(turn.machine, entry.slot)
        .into_iter()
        .filter(|_| shown)
        .map(link)
        .collect();
    let mut doc = json!({
        "@odata.id": path, "@odata.type": "#SoftwareInventory.v1_4_0.SoftwareInventory", "Id": entry.id,
        "Name": entry.name, "Description": entry.description, "Version": entry.version,
        "Updateable": entry.updateable, "Manufacturer": c.manufacturer, "SoftwareId": c.software_id,
        "Status": {"Health": "OK", "State": entry.state},
        "RelatedItem@odata.count": related.len(), "RelatedItem": related,
    });
    if let Some(lowest) = &c.lowest {
        doc["LowestSupportedVersion"] = json!(lowest);
    }
    doc
}
