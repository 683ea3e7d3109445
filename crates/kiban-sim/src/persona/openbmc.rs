//! OpenBMC's bmcweb: random inventory ids, a global apply time, tasks that die with the BMC.

use super::{Ids, Software, Vendor, accepted_with_location, merge, plain_inventory, task_path};
use crate::{
    request::{Reply, Target},
    state::{Refusal, Turn},
};
use serde_json::{Map, Value, json};

pub(super) struct Openbmc;

impl Vendor for Openbmc {
    fn ids(&self) -> Ids {
        Ids {
            system: "system",
            manager: "bmc",
            chassis: "chassis",
            pending: "Settings",
            storage: "1",
        }
    }

    fn session_limit(&self) -> usize {
        64
    }

    fn etag_in_body(&self) -> bool {
        false
    }

    fn tasks_die_with_bmc(&self) -> bool {
        true
    }

    fn says_powering_off(&self) -> bool {
        true
    }

    fn reset_types(&self) -> &'static [&'static str] {
        &[
            "On",
            "ForceOff",
            "ForceOn",
            "ForceRestart",
            "GracefulRestart",
            "GracefulShutdown",
            "PowerCycle",
            "Nmi",
        ]
    }

    fn manager_reset_types(&self) -> &'static [&'static str] {
        &["GracefulRestart", "ForceRestart"]
    }

    fn chassis_reset_types(&self) -> &'static [&'static str] {
        &["PowerCycle"]
    }

    // Only the older way, as most OpenBMC machines in the field.
    fn multipart_uri(&self) -> Option<&'static str> {
        None
    }

    fn http_push_uri(&self) -> Option<&'static str> {
        Some("/redfish/v1/UpdateService/update")
    }

    fn inventory(&self, turn: &Turn<'_>) -> Vec<Software> {
        let mut list = plain_inventory(turn);
        let mut staged = Vec::new();
        for entry in &mut list {
            let c = &turn.machine.model.components[entry.slot];
            if let Some(s) = turn.st.staged(entry.slot) {
                staged.push(Software {
                    id: hash(&c.id, &s.version),
                    version: s.version.to_string(),
                    state: "StandbyOffline",
                    ..entry.clone()
                });
            }
            entry.id = hash(&c.id, &entry.version);
        }
        list.extend(staged);
        list
    }

    fn decorate(&self, turn: &Turn<'_>, path: &str, doc: &mut Map<String, Value>) {
        match path {
            "/redfish/v1/UpdateService" => {
                let on_reset = turn.st.extra.as_ref().is_some_and(|e| e.on_reset);
                doc.insert(
                    "HttpPushUriOptions".into(),
                    json!({"HttpPushUriApplyTime": {"ApplyTime": if on_reset { "OnReset" } else { "Immediate" }}}),
                );
            }
            "/redfish/v1/Managers/bmc" => {
                let active = turn.machine.model.of_class(crate::model::Class::Bmc).next();
                if let Some(slot) = active {
                    let c = &turn.machine.model.components[slot];
                    let link = format!(
                        "/redfish/v1/UpdateService/FirmwareInventory/{}",
                        hash(&c.id, &turn.st.slots[slot].active)
                    );
                    merge(
                        doc,
                        "Links",
                        json!({"ActiveSoftwareImage": {"@odata.id": link}, "SoftwareImages": [{"@odata.id": link}], "SoftwareImages@odata.count": 1}),
                    );
                }
            }
            _ => {}
        }
    }

    fn act(&self, turn: &mut Turn<'_>, target: &Target<'_>, body: &Value) -> Option<Reply> {
        if (target.method, target.path) != ("PATCH", "/redfish/v1/UpdateService") {
            return None;
        }
        let time = &body["HttpPushUriOptions"]["HttpPushUriApplyTime"]["ApplyTime"];
        turn.st.extra().on_reset = match time.as_str() {
            Some("Immediate") => false,
            Some("OnReset") => true,
            _ => return Some(Reply::bad_value("ApplyTime")),
        };
        Some(Reply::empty(204))
    }

    fn accepted(&self, turn: &Turn<'_>, task: u32) -> Reply {
        let monitor = format!("{}/Monitor", task_path(turn, task));
        accepted_with_location(turn, task, monitor)
    }

    fn refused(&self, refusal: Refusal) -> Reply {
        match refusal {
            Refusal::Busy => Reply::error(
                503,
                "Base.1.13.ServiceTemporarilyUnavailable",
                "An update is in progress.",
            )
            .header("Retry-After", "30".into()),
            // bmcweb answers well and does nothing.
            Refusal::SameState => Reply::ok_message(),
            Refusal::NothingToStart => {
                Reply::error(400, "Base.1.13.ActionNotSupported", "There is nothing to start.")
            }
        }
    }
}

/// bmcweb names an image by a hash of its version.
fn hash(component: &str, version: &str) -> String {
    let h = component
        .bytes()
        .chain(version.bytes())
        .fold(0x811c_9dc5_u32, |h, b| {
            (h ^ u32::from(b)).wrapping_mul(0x0100_0193)
        });
    format!("{h:08x}")
}
