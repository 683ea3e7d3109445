//! BIOS attributes: current, pending in four styles, and the registry that says what they may be.

use crate::{
    persona::{Etag, Ids},
    request::Reply,
    state::Turn,
    task::TaskState,
};
use serde_json::{Map, Value, json};

/// The registry's id; per firmware version on real machines.
const REGISTRY: &str = "BiosAttributeRegistry.v1_0_0";

/// What one attribute is.
struct Attribute {
    name: &'static str,
    display: &'static str,
    kind: Kind,
    default: &'static str,
    read_only: bool,
}

enum Kind {
    Choice(&'static [&'static str]),
    Number(i64, i64),
    Text(u32),
}

const ATTRIBUTES: &[Attribute] = &[
    Attribute {
        name: "ProcVirtualization",
        display: "Virtualization Technology",
        kind: Kind::Choice(&["Enabled", "Disabled"]),
        default: "Enabled",
        read_only: false,
    },
    Attribute {
        name: "LogicalProc",
        display: "Logical Processor",
        kind: Kind::Choice(&["Enabled", "Disabled"]),
        default: "Enabled",
        read_only: false,
    },
    Attribute {
        name: "SriovGlobalEnable",
        display: "SR-IOV Global Enable",
        kind: Kind::Choice(&["Enabled", "Disabled"]),
        default: "Disabled",
        read_only: false,
    },
    Attribute {
        name: "SysProfile",
        display: "System Profile",
        kind: Kind::Choice(&["PerfPerWattOptimizedOs", "PerfOptimized", "Custom"]),
        default: "PerfPerWattOptimizedOs",
        read_only: false,
    },
    Attribute {
        name: "BootMode",
        display: "Boot Mode",
        kind: Kind::Choice(&["Uefi", "Bios"]),
        default: "Uefi",
        read_only: false,
    },
    Attribute {
        name: "AcPwrRcvryUserDelay",
        display: "User Defined Delay",
        kind: Kind::Number(60, 600),
        default: "60",
        read_only: false,
    },
    Attribute {
        name: "AssetTag",
        display: "Asset Tag",
        kind: Kind::Text(63),
        default: "",
        read_only: false,
    },
    Attribute {
        name: "SystemBiosVersion",
        display: "System BIOS Version",
        kind: Kind::Text(32),
        default: "",
        read_only: true,
    },
];

impl Attribute {
    fn default(&self) -> Value {
        match self.kind {
            Kind::Number(low, _) => json!(self.default.parse::<i64>().unwrap_or(low)),
            _ => json!(self.default),
        }
    }

    fn allows(&self, value: &Value) -> bool {
        match (&self.kind, value) {
            (Kind::Choice(values), Value::String(s)) => values.contains(&s.as_str()),
            (Kind::Number(low, high), Value::Number(n)) => {
                n.as_i64().is_some_and(|n| (*low..=*high).contains(&n))
            }
            (Kind::Text(max), Value::String(s)) => s.len() <= *max as usize,
            _ => false,
        }
    }
}

fn values(turn: &Turn<'_>) -> Map<String, Value> {
    let extra = turn.st.extra.as_ref();
    let bios = turn.machine.model.of_class(crate::model::Class::Bios).next();
    ATTRIBUTES
        .iter()
        .map(|a| {
            let value = match (a.name, bios) {
                ("SystemBiosVersion", Some(slot)) => json!(&*turn.st.slots[slot].active),
                _ => extra
                    .and_then(|e| e.attributes.get(a.name))
                    .cloned()
                    .unwrap_or_else(|| a.default()),
            };
            (a.name.to_owned(), value)
        })
        .collect()
}

/// `Bios`: what is in force.
pub(crate) fn current(turn: &Turn<'_>, ids: Ids, path: &str) -> Value {
    let mut settings = json!({
        "@odata.type": "#Settings.v1_3_3.Settings",
        "SettingsObject": {"@odata.id": format!("{path}/{}", ids.pending)},
    });
    if turn.machine.vendor().settings_need_job() {
        settings["SupportedApplyTimes"] = json!(["OnReset"]);
    }
    json!({
        "@odata.id": path, "@odata.type": "#Bios.v1_2_0.Bios", "Id": "Bios", "Name": "BIOS Configuration Current Settings",
        "AttributeRegistry": REGISTRY, "Attributes": values(turn), "@Redfish.Settings": settings,
    })
}

/// The pending settings: only what was changed, or everything, by the vendor's style.
pub(crate) fn pending(turn: &Turn<'_>, path: &str) -> Value {
    let vendor = turn.machine.vendor();
    let changed = turn
        .st
        .extra
        .as_ref()
        .map(|e| &e.pending)
        .filter(|p| !p.is_empty());
    let mut doc = json!({
        "@odata.id": path, "@odata.type": "#Bios.v1_2_0.Bios", "Id": path.rsplit('/').next(),
        "Name": "BIOS Configuration Pending Settings", "AttributeRegistry": REGISTRY,
    });
    let changed: Option<Map<String, Value>> =
        changed.map(|c| c.iter().map(|(k, v)| (k.clone(), v.clone())).collect());
    if vendor.pending_lists_all() {
        let mut all = values(turn);
        all.extend(changed.unwrap_or_default());
        doc["Attributes"] = Value::Object(all);
    } else if vendor.etag() == Etag::StrongRequired {
        // Supermicro leaves the key out when nothing is pending.
        if let Some(changed) = changed {
            doc["Attributes"] = Value::Object(changed);
        }
    } else {
        doc["Attributes"] = Value::Object(changed.unwrap_or_default());
    }
    doc
}

/// `PATCH` of the pending settings.
pub(crate) fn patch(turn: &mut Turn<'_>, body: &Value) -> Reply {
    let Some(wanted) = body["Attributes"].as_object() else {
        return Reply::bad_value("Attributes");
    };
    for (name, value) in wanted {
        let Some(attribute) = ATTRIBUTES.iter().find(|a| a.name == name) else {
            let text =
                format!("The property {name} is not in the list of valid properties for the resource.");
            return Reply::error(400, "Base.1.12.PropertyUnknown", &text);
        };
        if attribute.read_only {
            let text = format!("The property {name} is a read only property and cannot be assigned a value.");
            return Reply::error(400, "Base.1.12.PropertyNotWritable", &text);
        }
        if !attribute.allows(value) {
            return Reply::bad_value(name);
        }
    }
    let vendor = turn.machine.vendor();
    let extra = turn.st.extra();
    if !vendor.settings_need_job() {
        extra.pending.extend(wanted.clone());
        return Reply::message(
            200,
            "Base.1.12.Success",
            "Changes take effect after the system restarts.",
        );
    }
    if extra.settings_job.is_some() {
        let same = wanted.iter().all(|(k, v)| extra.pending.get(k) == Some(v));
        // The same values again: answered well, without another job.
        return if same {
            Reply::ok_message()
        } else {
            Reply::error(
                400,
                "IDRAC.2.8.LC068",
                "A configuration job is already created; pending data is locked.",
            )
        };
    }
    extra.pending.extend(wanted.clone());
    if body.get("@Redfish.SettingsApplyTime").is_none() {
        return Reply::ok_message();
    }
    let job = turn.new_task("Configure: BIOS configuration", TaskState::Pending);
    turn.st.extra().settings_job = Some(job);
    Reply::empty(202).header("Location", crate::persona::task_path(turn, job))
}

/// The registries: one, of BIOS attributes.
pub(crate) fn registries(turn: &Turn<'_>, path: &str, rest: &[&str]) -> Option<Value> {
    let uri = format!("/redfish/v1/Registries/{REGISTRY}/{REGISTRY}.json");
    match rest {
        [] => Some(json!({
            "@odata.id": path, "@odata.type": "#MessageRegistryFileCollection.MessageRegistryFileCollection",
            "Name": "Registry File Collection", "Members@odata.count": 1,
            "Members": [{"@odata.id": format!("{path}/{REGISTRY}")}],
        })),
        [id] if *id == REGISTRY => Some(json!({
            "@odata.id": path, "@odata.type": "#MessageRegistryFile.v1_1_0.MessageRegistryFile", "Id": REGISTRY,
            "Name": "BIOS Attribute Registry File", "Registry": REGISTRY, "Languages": ["en"],
            "Location": [{"Language": "en", "Uri": uri}],
        })),
        [id, file] if *id == REGISTRY && file.strip_suffix(".json") == Some(REGISTRY) => Some(registry(turn)),
        _ => None,
    }
}

fn registry(turn: &Turn<'_>) -> Value {
    let attributes: Vec<Value> = ATTRIBUTES
        .iter()
        .map(|a| {
            let mut doc = json!({
                "AttributeName": a.name, "DisplayName": a.display, "DefaultValue": a.default(),
                "ReadOnly": a.read_only, "Hidden": false, "ResetRequired": true,
            });
            match a.kind {
                Kind::Choice(values) => {
                    doc["Type"] = json!("Enumeration");
                    doc["Value"] = values
                        .iter()
                        .map(|v| json!({"ValueName": v, "ValueDisplayName": v}))
                        .collect();
                }
                Kind::Number(low, high) => {
                    doc["Type"] = json!("Integer");
                    doc["LowerBound"] = json!(low);
                    doc["UpperBound"] = json!(high);
                }
                Kind::Text(max) => {
                    doc["Type"] = json!("String");
                    doc["MaxLength"] = json!(max);
                }
            }
            doc
        })
        .collect();
    let bios = turn.machine.model.of_class(crate::model::Class::Bios).next();
    json!({
        "@odata.type": "#AttributeRegistry.v1_3_6.AttributeRegistry", "Id": REGISTRY, "Name": "BIOS Attribute Registry",
        "Language": "en", "OwningEntity": turn.machine.model.manufacturer, "RegistryVersion": "1.0.0",
        "SupportedSystems": [{
            "ProductName": turn.machine.model.name, "SystemId": turn.machine.model.sku.replace(|c: char| !c.is_ascii_alphanumeric(), ""),
            "FirmwareVersion": bios.map(|s| turn.st.slots[s].active.to_string()),
        }],
        "RegistryEntries": {"Attributes": attributes},
    })
}
