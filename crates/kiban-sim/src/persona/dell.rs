//! Dell iDRAC 9: jobs and tasks are twins, versions are in inventory ids, host firmware is written at self-test.

use super::{Etag, Ids, Software, Vendor, accepted_with_location, merge, task_path};
use crate::{
    model::Class,
    request::{Reply, Target},
    state::{Refusal, Turn},
    task::{Task, TaskState},
};
use serde_json::{Map, Value, json};

pub(super) struct Dell;

const SYSTEM: &str = "System.Embedded.1";
const MANAGER: &str = "iDRAC.Embedded.1";
const JOBS: &str = "/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/Jobs";
const EXTENDED_RESET: &str = "/redfish/v1/Chassis/System.Embedded.1/Actions/Oem/DellOemChassis.ExtendedReset";
const CLEAR_PENDING: &str =
    "/redfish/v1/Systems/System.Embedded.1/Bios/Settings/Actions/Oem/DellManager.ClearPending";

impl Vendor for Dell {
    fn ids(&self) -> Ids {
        Ids {
            system: SYSTEM,
            manager: MANAGER,
            chassis: SYSTEM,
            pending: "Settings",
            storage: "RAID.SL.3-1",
        }
    }

    fn session_limit(&self) -> usize {
        8
    }

    fn no_session(&self) -> Reply {
        let text = "The maximum number of user sessions is reached.";
        Reply::error(503, "IDRAC.2.8.RAC0218", text)
    }

    fn etag(&self) -> Etag {
        Etag::WeakRefused
    }

    fn etag_in_body(&self) -> bool {
        false
    }

    fn writes_at_post(&self) -> bool {
        true
    }

    fn purges_tasks(&self) -> bool {
        true
    }

    fn settings_need_job(&self) -> bool {
        true
    }

    fn task_id(&self, id: u32) -> String {
        format!("JID_{:012}", 734_512_000_000_u64 + u64::from(id))
    }

    fn parse_task_id(&self, id: &str) -> Option<u32> {
        let number: u64 = id.strip_prefix("JID_")?.parse().ok()?;
        u32::try_from(number.checked_sub(734_512_000_000)?).ok()
    }

    fn manager_reset_types(&self) -> &'static [&'static str] {
        &["GracefulRestart"]
    }

    fn multipart_uri(&self) -> Option<&'static str> {
        Some("/redfish/v1/UpdateService/MultipartUpload")
    }

    fn http_push_uri(&self) -> Option<&'static str> {
        Some("/redfish/v1/UpdateService/FirmwareInventory")
    }

    fn inventory(&self, turn: &Turn<'_>) -> Vec<Software> {
        let model = &turn.machine.model;
        let mut list = Vec::new();
        for (slot, c) in model.components.iter().enumerate() {
            let mut entry = |prefix: &str, version: &str, state| {
                list.push(Software {
                    id: format!("{prefix}-{}-{version}__{}", c.software_id, c.id),
                    name: c.name.clone(),
                    version: version.to_owned(),
                    slot,
                    updateable: c.updateable,
                    state,
                    description: "Represents Firmware Inventory".into(),
                });
            };
            let active = &turn.st.slots[slot].active;
            // Some components are listed twice, as on the real one.
            if matches!(c.class, Class::Bios | Class::Nic) {
                entry("Current", active, "Enabled");
            }
            entry("Installed", active, "Enabled");
            if let Some(rare) = &turn.st.slots[slot].rare {
                if let Some(previous) = &rare.previous {
                    entry("Previous", previous, "StandbyOffline");
                }
                if let Some(staged) = &rare.staged {
                    entry("Available", &staged.version, "StandbyOffline");
                }
            }
        }
        list
    }

    fn decorate(&self, turn: &Turn<'_>, path: &str, doc: &mut Map<String, Value>) {
        match path {
            "/redfish/v1" => {
                doc.insert(
                    "Product".into(),
                    json!("Integrated Dell Remote Access Controller"),
                );
                doc.insert("Vendor".into(), json!("Dell"));
                let tag = crate::resource::serial(turn);
                merge(
                    doc,
                    "Oem",
                    json!({"Dell": {"@odata.type": "#DellServiceRoot.v1_0_0.DellServiceRoot", "IsBranded": 0, "ServiceTag": tag}}),
                );
            }
            "/redfish/v1/Systems/System.Embedded.1" => {
                // The service tag is the SKU; the serial number is that of the board.
                let tag = crate::resource::serial(turn);
                doc.insert("SKU".into(), json!(tag));
            }
            "/redfish/v1/Managers/iDRAC.Embedded.1" => {
                merge(
                    doc,
                    "Links",
                    json!({"Oem": {"Dell": {"@odata.type": "#DellOem.v1_3_0.DellOemLinks", "Jobs": {"@odata.id": JOBS}}}}),
                );
            }
            "/redfish/v1/Chassis/System.Embedded.1" => {
                merge(
                    doc,
                    "Actions",
                    json!({"Oem": {"#DellOemChassis.ExtendedReset": {
                        "target": EXTENDED_RESET,
                        "ResetType@Redfish.AllowableValues": ["PowerCycle"],
                        "FinalPowerState@Redfish.AllowableValues": ["On", "Off"],
                    }}}),
                );
            }
            "/redfish/v1/UpdateService" => {
                merge(
                    doc,
                    "Actions",
                    json!({"#UpdateService.SimpleUpdate": {
                        "target": "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate",
                        "TransferProtocol@Redfish.AllowableValues": ["HTTP", "HTTPS", "NFS", "CIFS", "TFTP"],
                        "@Redfish.OperationApplyTimeSupport": {
                            "@odata.type": "#Settings.v1_3_3.OperationApplyTimeSupport",
                            "SupportedValues": ["Immediate", "OnReset", "OnStartUpdateRequest"],
                        },
                    }}),
                );
            }
            "/redfish/v1/Systems/System.Embedded.1/Bios/Settings" => {
                merge(
                    doc,
                    "Actions",
                    json!({"Oem": {"#DellManager.ClearPending": {"target": CLEAR_PENDING}}}),
                );
            }
            _ => {}
        }
    }

    fn resource(&self, turn: &Turn<'_>, path: &str) -> Option<Value> {
        let rest = path.strip_prefix(JOBS)?;
        if rest.is_empty() {
            let members: Vec<Value> = turn
                .st
                .tasks
                .iter()
                .map(|t| json!({"@odata.id": format!("{JOBS}/{}", self.task_id(t.id))}))
                .collect();
            return Some(json!({
                "@odata.id": JOBS, "@odata.type": "#DellJobCollection.DellJobCollection",
                "Id": "JobQueue", "Name": "JobQueue", "Description": "Collection of Job Instances",
                "Members@odata.count": members.len(), "Members": members,
            }));
        }
        let id = self.parse_task_id(rest.strip_prefix('/')?)?;
        let task = turn.st.tasks.iter().find(|t| t.id == id)?;
        Some(self.job(turn, task))
    }

    fn act(&self, turn: &mut Turn<'_>, target: &Target<'_>, body: &Value) -> Option<Reply> {
        match (target.method, target.path) {
            ("POST", EXTENDED_RESET) => {
                if body["ResetType"] != "PowerCycle" {
                    return Some(Reply::bad_value("ResetType"));
                }
                if !turn.fault(None, |f| *f == crate::fault::Fault::PowerIgnored) {
                    turn.ac_cycle("ExtendedReset");
                    if body["FinalPowerState"] == "Off" {
                        turn.st.extra().restore_power = false;
                    }
                }
                Some(Reply::empty(204))
            }
            ("POST", CLEAR_PENDING) => {
                let extra = turn.st.extra();
                extra.pending.clear();
                extra.settings_job = None;
                Some(Reply::ok_message())
            }
            ("DELETE", path) => {
                let id = self.parse_task_id(path.strip_prefix(JOBS)?.strip_prefix('/')?)?;
                let i = turn.st.tasks.iter().position(|t| t.id == id)?;
                if turn.st.tasks[i].state == TaskState::Running {
                    return Some(Reply::error(
                        400,
                        "IDRAC.2.8.SUP011",
                        "A running job cannot be deleted.",
                    ));
                }
                turn.st.tasks.remove(i);
                for slot in &mut turn.st.slots {
                    if let Some(rare) = slot.rare.as_mut()
                        && rare.staged.as_ref().is_some_and(|s| s.task == id && !s.written)
                    {
                        rare.staged = None;
                    }
                }
                let extra = turn.st.extra();
                if extra.settings_job == Some(id) {
                    extra.settings_job = None;
                    extra.pending.clear();
                }
                Some(Reply::ok_message())
            }
            _ => None,
        }
    }

    fn accepted(&self, turn: &Turn<'_>, task: u32) -> Reply {
        accepted_with_location(turn, task, task_path(turn, task))
    }

    fn refused(&self, refusal: Refusal) -> Reply {
        match refusal {
            Refusal::Busy => Reply::error(
                503,
                "IDRAC.2.8.RAC0679",
                "A firmware update job is already running.",
            ),
            Refusal::SameState => Reply::error(
                409,
                "IDRAC.2.8.PSU501",
                "Server is already powered in the requested state.",
            ),
            Refusal::NothingToStart => Reply::error(400, "IDRAC.2.8.RED016", "Nothing is staged."),
        }
    }
}

impl Dell {
    fn job(&self, turn: &Turn<'_>, task: &Task) -> Value {
        let id = self.task_id(task.id);
        let state = match task.state {
            TaskState::New => "New",
            TaskState::Starting => "Downloading",
            TaskState::Pending => "Scheduled",
            TaskState::Running => "Running",
            TaskState::Completed => "Completed",
            TaskState::Exception => "Failed",
        };
        let message = task.messages.last();
        let bios = task.name.contains("BIOS configuration");
        json!({
            "@odata.id": format!("{JOBS}/{id}"), "@odata.type": "#DellJob.v1_4_0.DellJob",
            "Id": id, "Name": task.name, "Description": "Job Instance",
            "JobState": state, "JobType": if bios { "BIOSConfiguration" } else { "FirmwareUpdate" },
            "PercentComplete": task.percent(turn.t),
            "Message": message.map_or("The job is in progress.", |m| m.text.as_str()),
            "MessageId": message.map_or("IDRAC.2.8.RED002", |m| m.id.as_str()),
            "MessageArgs": [],
            "StartTime": turn.shared.clock.stamp(task.start_ms),
            "CompletionTime": task.end_ms.map(|t| turn.shared.clock.stamp(t)),
            "TargetSettingsURI": null,
        })
    }
}
