//! Supermicro X12: upload, then `StartUpdate`; the task's URI hides in a message; settings pend in `/Bios/SD`.

use super::{Etag, Ids, Software, Vendor, merge, plain_inventory, task_path};
use crate::{
    fault::Fault,
    model::Class,
    request::{Reply, Target},
    state::{Refusal, Turn},
};
use serde_json::{Map, Value, json};

pub(super) struct Supermicro;

const SYSTEM_RESET: &str = "/redfish/v1/Systems/1/Actions/Oem/OemSystemExtensions.Reset";

const RESET_INFO: &str = "/redfish/v1/Systems/1/Oem/Supermicro/ResetActionInfo";

impl Vendor for Supermicro {
    fn ids(&self) -> Ids {
        Ids {
            system: "1",
            manager: "1",
            chassis: "1",
            pending: "SD",
            storage: "HA-RAID",
        }
    }

    fn session_timeout(&self) -> u64 {
        300
    }

    fn etag(&self) -> Etag {
        Etag::StrongRequired
    }

    fn reset_types(&self) -> &'static [&'static str] {
        &[
            "On",
            "ForceOff",
            "GracefulShutdown",
            "GracefulRestart",
            "ForceRestart",
            "Nmi",
            "ForceOn",
            "PowerCycle",
        ]
    }

    fn task_name(&self, component: &str) -> String {
        format!("{component} Update")
    }

    fn multipart_uri(&self) -> Option<&'static str> {
        Some("/redfish/v1/UpdateService/upload")
    }

    fn inventory(&self, turn: &Turn<'_>) -> Vec<Software> {
        let mut list = plain_inventory(turn);
        let model = &turn.machine.model;
        for (class, id, name) in [
            (Class::Bmc, "Backup_BMC", "BMC Backup"),
            (Class::Bios, "Backup_BIOS", "BIOS Backup"),
        ] {
            if let Some(slot) = model.of_class(class).next() {
                let previous = turn.st.slots[slot].rare.as_ref().and_then(|r| r.previous.clone());
                list.push(Software {
                    id: id.into(),
                    name: name.into(),
                    version: previous.map_or_else(|| "Not Present".to_owned(), |v| v.to_string()),
                    slot,
                    updateable: true,
                    state: "StandbySpare",
                    description: format!("{class} backup firmware"),
                });
            }
        }
        for (slot, id) in [(Class::Bmc, "Staging_BMC"), (Class::Bios, "Staging_BIOS")] {
            let Some(slot) = model.of_class(slot).next() else {
                continue;
            };
            let Some(staged) = turn.st.staged(slot) else {
                continue;
            };
            list.push(Software {
                id: id.into(),
                name: id.replace('_', " "),
                version: staged.version.to_string(),
                slot,
                updateable: false,
                state: "StandbyOffline",
                description: "staged firmware".into(),
            });
        }
        list
    }

    fn bare_version(&self, version: &str) -> String {
        // The System prints "1.6", the inventory "BIOS Date: 07/07/2023 Ver 1.6".
        version.rsplit_once("Ver ").map_or(version, |(_, v)| v).to_owned()
    }

    fn decorate(&self, _turn: &Turn<'_>, path: &str, doc: &mut Map<String, Value>) {
        match path {
            "/redfish/v1" => {
                doc.insert("Vendor".into(), json!("Supermicro"));
                doc.insert("Product".into(), json!(null));
            }
            "/redfish/v1/Systems/1" => {
                merge(
                    doc,
                    "Actions",
                    json!({"Oem": {"#OemSystemExtensions.Reset": {
                        "target": SYSTEM_RESET, "@Redfish.ActionInfo": RESET_INFO,
                    }}}),
                );
            }
            "/redfish/v1/UpdateService" => {
                merge(
                    doc,
                    "Actions",
                    json!({
                        "#UpdateService.StartUpdate": {"target": "/redfish/v1/UpdateService/Actions/UpdateService.StartUpdate"},
                    }),
                );
            }
            _ => {
                if path.starts_with("/redfish/v1/UpdateService/FirmwareInventory/") {
                    merge(
                        doc,
                        "Oem",
                        json!({"Supermicro": {
                            "@odata.type": "#SmcSoftwareInventoryExtensions.v1_0_0.SoftwareInventory",
                            "UniqueFilename": null,
                        }}),
                    );
                }
            }
        }
    }

    fn resource(&self, _turn: &Turn<'_>, path: &str) -> Option<Value> {
        (path == RESET_INFO).then(|| {
            json!({
                "@odata.id": RESET_INFO, "@odata.type": "#ActionInfo.v1_1_2.ActionInfo",
                "Id": "ResetActionInfo", "Name": "Reset Action Info",
                "Parameters": [{
                    "Name": "ResetType", "Required": true, "DataType": "String", "AllowableValues": ["ACCycle"],
                }],
            })
        })
    }

    fn sold_apart(&self, path: &str) -> bool {
        // Updates and settings are of SFT-OOB-LIC; what is read of firmware is free.
        path.starts_with("/redfish/v1/Systems/1/Bios")
            || path.starts_with("/redfish/v1/UpdateService/Actions/")
            || path == "/redfish/v1/UpdateService/upload"
    }

    fn act(&self, turn: &mut Turn<'_>, target: &Target<'_>, body: &Value) -> Option<Reply> {
        if (target.method, target.path) != ("POST", SYSTEM_RESET) {
            return None;
        }
        if body["ResetType"] != "ACCycle" {
            return Some(Reply::bad_value("ResetType"));
        }
        if !turn.fault(None, |f| *f == Fault::PowerIgnored) {
            turn.ac_cycle("ACCycle");
        }
        Some(Reply::ok_message())
    }

    fn accepted(&self, turn: &Turn<'_>, task: u32) -> Reply {
        // Well-formed JSON that is not a Task.
        Reply::new(
            202,
            Some(json!({"Accepted": {
                "code": "Base.v1_10_3.Accepted",
                "Message": "Successfully Accepted Request. Please see the location header and ExtendedInfo for more information.",
                "@Message.ExtendedInfo": [{
                    "MessageId": "SMC.1.0.OemSimpleupdateAcceptedMessage",
                    "Severity": "Ok",
                    "Resolution": "No resolution was required.",
                    "Message": "Please also check Task Resource to see more information.",
                    "MessageArgs": [task_path(turn, task)],
                    "RelatedProperties": ["BiosVerifyAccepted"],
                }],
            }})),
        )
    }

    fn refused(&self, refusal: Refusal) -> Reply {
        match refusal {
            Refusal::Busy => Reply::error(
                400,
                "SMC.v1_0_0.OemFirmwareAlreadyInUpdateMode",
                "Firmware is already in update mode.",
            ),
            Refusal::SameState => Reply::error(
                400,
                "Base.v1_10_3.ActionNotSupported",
                "The power state is that already.",
            ),
            Refusal::NothingToStart => Reply::error(
                400,
                "SMC.v1_0_0.OemUpdateNotReady",
                "Nothing was uploaded and verified.",
            ),
        }
    }
}
