//! Personas: how one vendor's BMC differs from the next. What all share is in `resource` and `request`.

mod dell;
mod hpe;
mod lenovo;
mod openbmc;
mod supermicro;

use crate::{
    model::{Class, Persona},
    request::{Reply, Target},
    state::{Machine, Refusal, Turn},
    task::Task,
};
use serde_json::{Map, Value, json};

/// The ids in a vendor's resource paths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ids {
    pub(crate) system: &'static str,
    pub(crate) manager: &'static str,
    pub(crate) chassis: &'static str,
    /// The resource below `Bios` that holds pending settings.
    pub(crate) pending: &'static str,
    pub(crate) storage: &'static str,
}

/// How a vendor treats entity tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Etag {
    /// `"x"`, compared strictly.
    Strong,
    /// `"x"`, and a PATCH of settings without `If-Match` is refused.
    StrongRequired,
    /// `W/"x"`, accepted as it was given.
    Weak,
    /// `W/"x"` is given, and refused when it comes back; `"x"` and none are accepted.
    WeakRefused,
}

/// One entry of the firmware inventory.
#[derive(Debug, Clone)]
pub(crate) struct Software {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) slot: usize,
    pub(crate) updateable: bool,
    pub(crate) state: &'static str,
    pub(crate) description: String,
}

/// What a vendor does its own way.
pub(crate) trait Vendor: Sync {
    fn ids(&self) -> Ids;

    /// How many sessions may be open.
    fn session_limit(&self) -> usize {
        16
    }

    /// After how many seconds without use a session ends.
    fn session_timeout(&self) -> u64 {
        1800
    }

    /// The answer when no session is free.
    fn no_session(&self) -> Reply {
        Reply::error(
            503,
            "Base.1.12.SessionLimitExceeded",
            "The session limit is reached.",
        )
    }

    fn etag(&self) -> Etag {
        Etag::Strong
    }

    /// Whether `@odata.etag` is in bodies, beside the header.
    fn etag_in_body(&self) -> bool {
        true
    }

    /// Whether host firmware is written during the host's self-test rather than before it.
    fn writes_at_post(&self) -> bool {
        false
    }

    fn tasks_die_with_bmc(&self) -> bool {
        false
    }

    /// Whether finished tasks answer 404 a while after their success.
    fn purges_tasks(&self) -> bool {
        false
    }

    /// Whether pending BIOS settings are only applied by a job.
    fn settings_need_job(&self) -> bool {
        false
    }

    /// Whether the pending resource lists every attribute, or only those that were changed.
    fn pending_lists_all(&self) -> bool {
        false
    }

    /// Whether the work of a task goes on in a job once it writes.
    fn moves_to_job(&self, _class: Class) -> bool {
        false
    }

    fn task_name(&self, component: &str) -> String {
        format!("Firmware Update: {component}")
    }

    fn verify_name(&self, component: &str) -> String {
        format!("{component} Verify")
    }

    fn task_id(&self, id: u32) -> String {
        id.to_string()
    }

    fn parse_task_id(&self, id: &str) -> Option<u32> {
        id.parse().ok()
    }

    /// Whether the power state says so while the host goes down.
    fn says_powering_off(&self) -> bool {
        false
    }

    fn reset_types(&self) -> &'static [&'static str] {
        &[
            "On",
            "ForceOff",
            "GracefulShutdown",
            "GracefulRestart",
            "ForceRestart",
            "PowerCycle",
            "PushPowerButton",
            "Nmi",
        ]
    }

    fn manager_reset_types(&self) -> &'static [&'static str] {
        &["GracefulRestart", "ForceRestart"]
    }

    /// What the chassis can be asked for; empty where it has no such action.
    fn chassis_reset_types(&self) -> &'static [&'static str] {
        &[]
    }

    /// Where a multipart update is posted.
    fn multipart_uri(&self) -> Option<&'static str>;

    /// Where a raw image is posted.
    fn http_push_uri(&self) -> Option<&'static str> {
        None
    }

    /// The firmware inventory.
    fn inventory(&self, turn: &Turn<'_>) -> Vec<Software>;

    /// The inventory ids that mean this component.
    fn inventory_ids(&self, turn: &Turn<'_>, slot: usize) -> Vec<String> {
        self.inventory(turn)
            .into_iter()
            .filter(|s| s.slot == slot)
            .map(|s| s.id)
            .collect()
    }

    /// The version as this vendor prints it in the System and the Manager.
    fn bare_version(&self, version: &str) -> String {
        version.to_owned()
    }

    /// Adds what only this vendor has to a resource that all have.
    fn decorate(&self, _turn: &Turn<'_>, _path: &str, _doc: &mut Map<String, Value>) {}

    /// Resources that only this vendor has.
    fn resource(&self, _turn: &Turn<'_>, _path: &str) -> Option<Value> {
        None
    }

    /// Mutating requests that only this vendor knows.
    fn act(&self, _turn: &mut Turn<'_>, _target: &Target<'_>, _body: &Value) -> Option<Reply> {
        None
    }

    /// Whether a path answers only with a licence.
    fn sold_apart(&self, _path: &str) -> bool {
        false
    }

    /// Whether an update may come from this client now.
    fn admit_update(&self, _turn: &mut Turn<'_>, _client: &str) -> Result<(), Reply> {
        Ok(())
    }

    /// The answer to an accepted update.
    fn accepted(&self, turn: &Turn<'_>, task: u32) -> Reply;

    /// The answer to what is refused.
    fn refused(&self, refusal: Refusal) -> Reply;

    /// After a finished task was read through its monitor.
    fn monitor_read(&self, _turn: &mut Turn<'_>, _task: u32) {}
}

/// The behaviour of a persona.
pub(crate) fn vendor(persona: Persona) -> &'static dyn Vendor {
    match persona {
        Persona::Dell => &dell::Dell,
        Persona::Hpe => &hpe::Hpe,
        Persona::Lenovo => &lenovo::Lenovo,
        Persona::Supermicro => &supermicro::Supermicro,
        Persona::Openbmc => &openbmc::Openbmc,
    }
}

/// The resources that a component's inventory entry points to.
pub(crate) fn related(machine: &Machine, slot: usize) -> Vec<String> {
    let ids = machine.vendor().ids();
    let n = machine.model.ordinal(slot);
    match machine.model.components[slot].class {
        Class::Bmc => vec![format!("/redfish/v1/Managers/{}", ids.manager)],
        Class::Bios => vec![format!("/redfish/v1/Systems/{}/Bios", ids.system)],
        Class::Nic => {
            vec![format!(
                "/redfish/v1/Chassis/{}/NetworkAdapters/{}",
                ids.chassis,
                adapter_id(machine, slot)
            )]
        }
        Class::StorageController => vec![format!(
            "/redfish/v1/Systems/{}/Storage/{}",
            ids.system, ids.storage
        )],
        Class::Drive => {
            vec![format!(
                "/redfish/v1/Systems/{}/Storage/{}/Drives/{}",
                ids.system,
                ids.storage,
                drive_id(machine, slot)
            )]
        }
        Class::Psu => vec![format!(
            "/redfish/v1/Chassis/{}/Power#/PowerSupplies/{n}",
            ids.chassis
        )],
        Class::Cpld | Class::Gpu => vec![format!("/redfish/v1/Chassis/{}", ids.chassis)],
    }
}

/// The network adapter's id: on Dell the FQDD without port and partition.
pub(crate) fn adapter_id(machine: &Machine, slot: usize) -> String {
    let id = &machine.model.components[slot].id;
    if machine.model.persona == Persona::Dell {
        id.split('-').next().unwrap_or(id).to_owned()
    } else {
        id.clone()
    }
}

/// The drive's id in its storage.
pub(crate) fn drive_id(machine: &Machine, slot: usize) -> String {
    machine.model.components[slot].id.clone()
}

/// One inventory entry per component, by the component's own id.
pub(crate) fn plain_inventory(turn: &Turn<'_>) -> Vec<Software> {
    let model = &turn.machine.model;
    (0..model.components.len())
        .map(|slot| {
            let c = &model.components[slot];
            Software {
                id: c.id.clone(),
                name: c.name.clone(),
                version: turn.st.slots[slot].active.to_string(),
                slot,
                updateable: c.updateable,
                state: "Enabled",
                description: format!("{} firmware", c.class),
            }
        })
        .collect()
}

/// A 202 whose `Location` and body both lead to the task.
pub(crate) fn accepted_with_location(turn: &Turn<'_>, task: u32, location: String) -> Reply {
    let body = turn
        .st
        .tasks
        .iter()
        .find(|t| t.id == task)
        .map(|t: &Task| crate::resource::task(turn, t));
    Reply::new(202, body).header("Location", location)
}

/// The path of a task.
pub(crate) fn task_path(turn: &Turn<'_>, task: u32) -> String {
    format!(
        "/redfish/v1/TaskService/Tasks/{}",
        turn.machine.vendor().task_id(task)
    )
}

/// The path of a job.
pub(crate) fn job_path(turn: &Turn<'_>, job: u32) -> String {
    format!(
        "/redfish/v1/JobService/Jobs/{}",
        turn.machine.vendor().task_id(job)
    )
}

/// Merges an object into `doc[key]`, which is made if absent.
pub(crate) fn merge(doc: &mut Map<String, Value>, key: &str, more: Value) {
    let entry = doc.entry(key.to_owned()).or_insert_with(|| json!({}));
    if let (Some(into), Value::Object(more)) = (entry.as_object_mut(), more) {
        into.extend(more);
    }
}
