//! Lenovo XCC 2: pending and backup images in the inventory, the busy claim, monitors that forget finished tasks.

use super::{Ids, Software, Vendor, accepted_with_location, merge, task_path};
use crate::{
    fault::Fault,
    model::Class,
    request::{Reply, Target},
    state::{Refusal, Turn},
};
use serde_json::{Map, Value, json};

pub(super) struct Lenovo;

const SYSTEM_RESET: &str = "/redfish/v1/Systems/1/Actions/Oem/LenovoComputerSystem.SystemReset";

const JOB_SERVICE: &str = "/redfish/v1/JobService";

impl Vendor for Lenovo {
    fn ids(&self) -> Ids {
        Ids {
            system: "1",
            manager: "1",
            chassis: "1",
            pending: "Pending",
            storage: "RAID_Slot7",
        }
    }

    fn pending_lists_all(&self) -> bool {
        true
    }

    fn task_id(&self, id: u32) -> String {
        // A UUID-like id, stable per task.
        format!("4d9ff1b0-6f33-4d2b-9a4c-{id:012x}")
    }

    fn parse_task_id(&self, id: &str) -> Option<u32> {
        u32::from_str_radix(id.strip_prefix("4d9ff1b0-6f33-4d2b-9a4c-")?, 16).ok()
    }

    fn reset_types(&self) -> &'static [&'static str] {
        &[
            "On",
            "Nmi",
            "GracefulShutdown",
            "GracefulRestart",
            "ForceOn",
            "ForceOff",
            "ForceRestart",
            "PowerCycle",
        ]
    }

    fn multipart_uri(&self) -> Option<&'static str> {
        Some("/mfwupdate")
    }

    fn http_push_uri(&self) -> Option<&'static str> {
        Some("/fwupdate")
    }

    fn inventory(&self, turn: &Turn<'_>) -> Vec<Software> {
        let model = &turn.machine.model;
        let mut list = Vec::new();
        for (slot, c) in model.components.iter().enumerate() {
            let mut entry = |id: String, version: &str, state, text: &str| {
                list.push(Software {
                    id,
                    name: c.name.clone(),
                    version: version.to_owned(),
                    slot,
                    updateable: c.updateable,
                    state,
                    description: format!("The information of {} firmware.{text}", c.class),
                });
            };
            let own = &turn.st.slots[slot];
            entry(c.id.clone(), &own.active, "Enabled", "");
            let staged = own.rare.as_ref().and_then(|r| r.staged.as_ref());
            match c.class {
                Class::Bmc | Class::Bios => {
                    let (version, state) =
                        staged.map_or(("-*", "Disabled"), |s| (&*s.version, "StandbyOffline"));
                    entry(format!("{}-Pending", c.id), version, state, " (Pending)");
                }
                _ => {
                    if let Some(s) = staged {
                        entry(
                            format!("{}-Pending", c.id),
                            &s.version,
                            "StandbyOffline",
                            " (Pending)",
                        );
                    }
                }
            }
            if c.class == Class::Bmc {
                // The backup bank keeps what was delivered; only an update of the backup changes it.
                entry("BMC-Backup".into(), &c.version, "StandbySpare", " (Backup)");
            }
        }
        list
    }

    fn decorate(&self, turn: &Turn<'_>, path: &str, doc: &mut Map<String, Value>) {
        match path {
            "/redfish/v1" => {
                doc.insert("Vendor".into(), json!("Lenovo"));
                doc.insert("JobService".into(), json!({"@odata.id": JOB_SERVICE}));
            }
            "/redfish/v1/Systems/1" => {
                merge(
                    doc,
                    "Actions",
                    json!({"Oem": {"#LenovoComputerSystem.SystemReset": {
                        "target": SYSTEM_RESET, "ResetType@Redfish.AllowableValues": ["ACPowerCycle"],
                    }}}),
                );
            }
            "/redfish/v1/UpdateService" => {
                let extra = turn.st.extra.as_ref();
                doc.insert(
                    "HttpPushUriTargetsBusy".into(),
                    json!(extra.is_some_and(|e| e.claim.is_some())),
                );
                doc.insert(
                    "HttpPushUriTargets".into(),
                    json!(extra.map(|e| e.claim_targets.clone()).unwrap_or_default()),
                );
                doc.insert("MaxImageSizeBytes".into(), json!(250_000_000));
            }
            _ => {}
        }
    }

    fn moves_to_job(&self, class: Class) -> bool {
        class == Class::Nic
    }

    fn resource(&self, turn: &Turn<'_>, path: &str) -> Option<Value> {
        let rest = path.strip_prefix(JOB_SERVICE)?;
        let parts: Vec<&str> = rest.split('/').filter(|part| !part.is_empty()).collect();
        crate::resource::jobs(turn, path, &parts)
    }

    fn act(&self, turn: &mut Turn<'_>, target: &Target<'_>, body: &Value) -> Option<Reply> {
        match (target.method, target.path) {
            ("POST", SYSTEM_RESET) => {
                if body["ResetType"] != "ACPowerCycle" {
                    return Some(Reply::bad_value("ResetType"));
                }
                if !turn.fault(None, |f| *f == Fault::PowerIgnored) {
                    turn.ac_cycle("ACPowerCycle");
                }
                Some(Reply::empty(204))
            }
            ("PATCH", "/redfish/v1/UpdateService") => {
                let extra = turn.st.extra();
                if let Some(busy) = body.get("HttpPushUriTargetsBusy") {
                    let Some(busy) = busy.as_bool() else {
                        return Some(Reply::bad_value("HttpPushUriTargetsBusy"));
                    };
                    if busy && extra.claim.as_deref().is_some_and(|c| c != target.client) {
                        return Some(self.refused(Refusal::Busy));
                    }
                    extra.claim = busy.then(|| target.client.to_owned());
                    if !busy {
                        extra.claim_targets.clear();
                    }
                }
                if let Some(targets) = body.get("HttpPushUriTargets") {
                    let Some(list) = targets.as_array() else {
                        return Some(Reply::bad_value("HttpPushUriTargets"));
                    };
                    extra.claim_targets = list
                        .iter()
                        .filter_map(|t| t.as_str().map(str::to_owned))
                        .collect();
                }
                Some(Reply::ok_message())
            }
            _ => None,
        }
    }

    fn admit_update(&self, turn: &mut Turn<'_>, client: &str) -> Result<(), Reply> {
        let claim = turn.st.extra.as_ref().and_then(|e| e.claim.as_deref());
        if claim.is_some_and(|c| c != client) {
            Err(self.refused(Refusal::Busy))
        } else {
            Ok(())
        }
    }

    fn accepted(&self, turn: &Turn<'_>, task: u32) -> Reply {
        let monitor = task_path(turn, task).replace("/Tasks/", "/TaskMonitors/");
        accepted_with_location(turn, task, monitor)
    }

    fn refused(&self, refusal: Refusal) -> Reply {
        match refusal {
            Refusal::Busy => Reply::error(
                503,
                "ExtendedError.1.2.UpdateInProgress",
                "An update is in progress.",
            ),
            Refusal::SameState => Reply::error(
                409,
                "Base.1.12.ResourceInUse",
                "The system is in that state already.",
            ),
            Refusal::NothingToStart => {
                Reply::error(400, "Base.1.12.ActionNotSupported", "There is nothing to start.")
            }
        }
    }

    fn monitor_read(&self, turn: &mut Turn<'_>, task: u32) {
        turn.st.tasks.retain(|t| t.id != task || !t.state.ended());
    }
}
