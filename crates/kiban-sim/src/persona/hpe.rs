//! HPE iLO 5: progress in `UpdateService.Oem.Hpe`, numeric inventory ids, a queue that foreign entries block.

use super::{Etag, Ids, Software, Vendor, merge, plain_inventory, task_path};
use crate::{
    fault::Fault,
    request::{Reply, Target},
    state::{Phase, QueueEntry, Refusal, Turn},
};
use serde_json::{Map, Value, json};

pub(super) struct Hpe;

const SYSTEM_RESET: &str = "/redfish/v1/Systems/1/Actions/Oem/Hpe/HpeComputerSystemExt.SystemReset";
const QUEUE: &str = "/redfish/v1/UpdateService/UpdateTaskQueue";
const SETS: &str = "/redfish/v1/UpdateService/InstallSets";
const INVOKE: &str = "/Actions/HpeComponentInstallSet.Invoke";
const CLEAR_QUEUE: &str =
    "/redfish/v1/UpdateService/Actions/Oem/Hpe/HpeiLOUpdateServiceExt.DeleteUpdateTaskQueueItems";

impl Vendor for Hpe {
    fn ids(&self) -> Ids {
        Ids {
            system: "1",
            manager: "1",
            chassis: "1",
            pending: "Settings",
            storage: "DE00E000",
        }
    }

    fn session_limit(&self) -> usize {
        12
    }

    fn no_session(&self) -> Reply {
        Reply::error(
            503,
            "Base.1.4.SessionLimitExceeded",
            "The maximum number of sessions is reached.",
        )
    }

    fn etag(&self) -> Etag {
        Etag::Weak
    }

    fn pending_lists_all(&self) -> bool {
        true
    }

    fn says_powering_off(&self) -> bool {
        true
    }

    fn reset_types(&self) -> &'static [&'static str] {
        &[
            "On",
            "ForceOff",
            "GracefulShutdown",
            "ForceRestart",
            "Nmi",
            "PushPowerButton",
            "GracefulRestart",
        ]
    }

    // Gen10 Plus has only the form upload and SimpleUpdate.
    fn multipart_uri(&self) -> Option<&'static str> {
        None
    }

    fn http_push_uri(&self) -> Option<&'static str> {
        Some("/cgi-bin/uploadFile")
    }

    fn inventory(&self, turn: &Turn<'_>) -> Vec<Software> {
        let mut list = plain_inventory(turn);
        for entry in &mut list {
            entry.description = turn.machine.model.components[entry.slot].class.to_string();
        }
        // The ROM that a failed update falls back to.
        if let Some(slot) = turn.machine.model.of_class(crate::model::Class::Bios).next() {
            let previous = turn.st.slots[slot].rare.as_ref().and_then(|r| r.previous.clone());
            list.push(Software {
                id: "7".into(),
                name: "Redundant System ROM".into(),
                version: previous
                    .unwrap_or_else(|| turn.machine.model.components[slot].version.clone())
                    .to_string(),
                slot,
                updateable: false,
                state: "StandbySpare",
                description: "SystemRomBackup".into(),
            });
        }
        list
    }

    fn bare_version(&self, version: &str) -> String {
        version.to_owned()
    }

    fn decorate(&self, turn: &Turn<'_>, path: &str, doc: &mut Map<String, Value>) {
        match path {
            "/redfish/v1" => {
                doc.insert("Product".into(), json!(turn.machine.model.name));
                doc.insert("Vendor".into(), json!("HPE"));
                merge(
                    doc,
                    "Oem",
                    json!({"Hpe": {"@odata.type": "#HpeiLOServiceExt.v2_4_0.HpeiLOServiceExt", "Manager": [{"ManagerType": "iLO 5"}]}}),
                );
            }
            "/redfish/v1/Systems/1" => {
                let post = match turn.st.host {
                    crate::state::Host::Off => "PowerOff",
                    crate::state::Host::Booting => "InPost",
                    _ => "FinishedPost",
                };
                merge(
                    doc,
                    "Oem",
                    json!({"Hpe": {
                        "@odata.type": "#HpeComputerSystemExt.v2_10_0.HpeComputerSystemExt", "PostState": post,
                        "Actions": {"#HpeComputerSystemExt.SystemReset": {
                            "target": SYSTEM_RESET, "ResetType@Redfish.AllowableValues": ["ColdBoot", "AuxCycle"],
                        }},
                    }}),
                );
            }
            "/redfish/v1/UpdateService" => self.update_service(turn, doc),
            _ => {
                if let Some(id) = path.strip_prefix("/redfish/v1/UpdateService/FirmwareInventory/") {
                    self.software(turn, id, doc);
                }
            }
        }
    }

    fn resource(&self, turn: &Turn<'_>, path: &str) -> Option<Value> {
        if let Some(rest) = path.strip_prefix(SETS) {
            return install_sets(turn, rest);
        }
        let rest = path.strip_prefix(QUEUE)?;
        let queue = turn.st.extra.as_ref().map_or(&[][..], |e| &e.queue);
        if rest.is_empty() {
            let members: Vec<Value> = queue
                .iter()
                .map(|e| json!({"@odata.id": format!("{QUEUE}/{}", e.id)}))
                .collect();
            return Some(json!({
                "@odata.id": QUEUE, "@odata.type": "#HpeComponentUpdateTaskQueueCollection.HpeComponentUpdateTaskQueueCollection",
                "Name": "Update Task Queue", "Description": "Update Task Queue",
                "Members@odata.count": members.len(), "Members": members,
            }));
        }
        let entry = queue
            .iter()
            .find(|e| rest.strip_prefix('/') == Some(e.id.to_string().as_str()))?;
        Some(json!({
            "@odata.id": format!("{QUEUE}/{}", entry.id),
            "@odata.type": "#HpeComponentUpdateTask.v1_3_0.HpeComponentUpdateTask",
            "Id": entry.id.to_string(), "Name": entry.name, "Command": "ApplyUpdate", "State": entry.state,
            "UpdatableBy": [entry.by], "Filename": format!("{}.fwpkg", entry.name), "TPMOverride": false,
            "Result": {"MessageId": if entry.state == "Exception" { "Update.1.0.ApplyFailed" } else { "" }},
        }))
    }

    fn act(&self, turn: &mut Turn<'_>, target: &Target<'_>, body: &Value) -> Option<Reply> {
        match (target.method, target.path) {
            ("POST", SYSTEM_RESET) => {
                match body["ResetType"].as_str() {
                    _ if turn.fault(None, |f| *f == Fault::PowerIgnored) => {}
                    Some("AuxCycle") => turn.ac_cycle("AuxCycle"),
                    Some("ColdBoot") => {
                        let _ = turn.reset_host("PowerCycle");
                    }
                    _ => return Some(Reply::bad_value("ResetType")),
                }
                Some(Reply::ok_message())
            }
            ("POST", CLEAR_QUEUE) => {
                turn.st.extra().queue.clear();
                turn.queue_changed();
                Some(Reply::ok_message())
            }
            ("POST", QUEUE) => {
                let extra = turn.st.extra();
                let id = extra.queue.iter().map(|e| e.id).max().unwrap_or(0) + 1;
                let text = |key: &str, or: &str| body[key].as_str().unwrap_or(or).to_owned();
                let by = body["UpdatableBy"][0].as_str().unwrap_or("Uefi").to_owned();
                extra.queue.push(QueueEntry {
                    id,
                    name: text("Name", "task"),
                    state: "Pending".into(),
                    by,
                });
                turn.work_queue(false);
                Some(Reply::empty(201).header("Location", format!("{QUEUE}/{id}")))
            }
            ("POST", SETS) => {
                let Some(name) = body["Name"].as_str() else {
                    return Some(Reply::bad_value("Name"));
                };
                let steps = body["Sequence"].as_array().into_iter().flatten().map(|step| {
                    let text = |value: &Value, or: &str| value.as_str().unwrap_or(or).to_owned();
                    (text(&step["Name"], "step"), text(&step["UpdatableBy"][0], "Uefi"))
                });
                let set = (name.to_owned(), steps.collect());
                let sets = &mut turn.st.extra().install_sets;
                if sets.iter().any(|(known, _)| known == name) {
                    return Some(Reply::bad_value("Name"));
                }
                sets.push(set);
                Some(Reply::empty(201).header("Location", format!("{SETS}/{name}")))
            }
            ("POST", path) if path.starts_with(SETS) => {
                let name = path.strip_prefix(SETS)?.strip_prefix('/')?.strip_suffix(INVOKE)?;
                let extra = turn.st.extra();
                let (_, steps) = extra
                    .install_sets
                    .iter()
                    .find(|(known, _)| known == name)?
                    .clone();
                if body["ClearTaskQueue"] == true {
                    extra.queue.clear();
                }
                turn.enqueue(steps);
                Some(Reply::ok_message())
            }
            ("DELETE", path) if path.starts_with(SETS) => {
                let name = path.strip_prefix(SETS)?.strip_prefix('/')?;
                let sets = &mut turn.st.extra().install_sets;
                let i = sets.iter().position(|(known, _)| known == name)?;
                sets.remove(i);
                Some(Reply::ok_message())
            }
            ("DELETE", path) => {
                let id = path.strip_prefix(QUEUE)?.strip_prefix('/')?.parse::<u32>().ok()?;
                let queue = &mut turn.st.extra().queue;
                let before = queue.len();
                queue.retain(|e| e.id != id);
                if queue.len() == before {
                    return None;
                }
                turn.queue_changed();
                Some(Reply::ok_message())
            }
            _ => None,
        }
    }

    fn accepted(&self, turn: &Turn<'_>, task: u32) -> Reply {
        let path = task_path(turn, task);
        let monitor = path.replace("/Tasks/", "/TaskMonitors/");
        let body = json!({
            "@odata.id": path, "@odata.type": "#Task.v1_4_2.Task", "Id": task.to_string(),
            "Name": "Update task", "TaskMonitor": monitor, "TaskState": "Running",
        });
        Reply::new(202, Some(body))
    }

    fn refused(&self, refusal: Refusal) -> Reply {
        let text = match refusal {
            Refusal::Busy => "An update is in progress.",
            Refusal::SameState => "The server is already in the requested power state.",
            Refusal::NothingToStart => "There is nothing to start.",
        };
        Reply::error(400, "iLO.2.14.InvalidOperationForSystemState", text)
    }
}

/// The install sets: named orders of work, which `Invoke` puts into the queue.
fn install_sets(turn: &Turn<'_>, rest: &str) -> Option<Value> {
    let sets = turn.st.extra.as_ref().map_or(&[][..], |e| &e.install_sets);
    if rest.is_empty() {
        let members = sets
            .iter()
            .map(|(name, _)| crate::resource::link(format!("{SETS}/{name}")))
            .collect();
        let kind = "HpeComponentInstallSetCollection";
        return Some(crate::resource::collection(SETS, kind, "Install Sets", members));
    }
    let (name, steps) = sets
        .iter()
        .find(|(name, _)| rest.strip_prefix('/') == Some(name))?;
    let steps: Vec<Value> = steps
        .iter()
        .map(|(step, by)| {
            json!({"Name": step, "UpdatableBy": [by], "Command": "ApplyUpdate", "Filename": format!("{step}.fwpkg")})
        })
        .collect();
    Some(json!({
        "@odata.id": format!("{SETS}/{name}"), "@odata.type": "#HpeComponentInstallSet.v1_3_0.HpeComponentInstallSet",
        "Id": name, "Name": name, "IsRecovery": false, "Sequence": steps,
        "Actions": {"#HpeComponentInstallSet.Invoke": {"target": format!("{SETS}/{name}{INVOKE}")}},
    }))
}

impl Hpe {
    fn update_service(&self, turn: &Turn<'_>, doc: &mut Map<String, Value>) {
        let update = turn.st.update();
        let failed = |r: &str| !r.ends_with("UpdateSuccessful");
        let last = turn.st.extra.as_ref().and_then(|e| e.last_result.clone());
        let (state, percent) = match update.map(|u| (u.phase, u.span)) {
            Some((Phase::Downloading, _)) => ("Uploading", 0),
            Some((Phase::Verifying | Phase::Queued | Phase::AwaitStart, _)) => ("Verifying", 0),
            Some((Phase::Writing, (from, to))) if to > from => (
                "Writing",
                turn.t.clamp(from, to).saturating_sub(from) * 100 / (to - from),
            ),
            Some((Phase::Writing | Phase::Stuck, _)) => ("Writing", 100),
            None => match &last {
                Some(r) if failed(r) => ("Error", 0),
                Some(_) => ("Complete", 100),
                None => ("Idle", 0),
            },
        };
        let host_reset = turn
            .st
            .slots
            .iter()
            .any(|s| s.rare.as_ref().is_some_and(|r| r.staged.is_some()));
        let message = match &last {
            Some(r) if !failed(r) && host_reset => Some("iLO.2.14.SystemResetRequired".to_owned()),
            other => other.clone(),
        };
        merge(
            doc,
            "Oem",
            json!({"Hpe": {
                "@odata.type": "#HpeiLOUpdateServiceExt.v2_3_0.HpeiLOUpdateServiceExt",
                "State": state, "FlashProgressPercent": percent,
                "Result": {"MessageId": message.unwrap_or_default()},
                "UpdateTaskQueue": {"@odata.id": QUEUE}, "InstallSets": {"@odata.id": SETS},
                "DowngradePolicy": "AllowDowngrade",
                "Actions": {"#HpeiLOUpdateServiceExt.DeleteUpdateTaskQueueItems": {"target": CLEAR_QUEUE}},
            }}),
        );
    }

    fn software(&self, turn: &Turn<'_>, id: &str, doc: &mut Map<String, Value>) {
        let Some(slot) = turn.machine.model.position(id) else {
            return;
        };
        let c = &turn.machine.model.components[slot];
        // `Staged` came with version 1.12 of the schema.
        doc.insert(
            "@odata.type".into(),
            json!("#SoftwareInventory.v1_12_0.SoftwareInventory"),
        );
        doc.insert("Staged".into(), json!(turn.st.staged(slot).is_some()));
        merge(
            doc,
            "Oem",
            json!({"Hpe": {
                "@odata.type": "#HpeiLOSoftwareInventory.v2_0_0.HpeiLOSoftwareInventory",
                "DeviceContext": if c.class == crate::model::Class::Bmc { "System Board" } else { "Embedded Device" },
                "Targets": [c.software_id],
            }}),
        );
    }
}
