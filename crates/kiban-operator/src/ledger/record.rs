//! Objects as records: what is kept of them for ever.

use super::gather::Held;
use kiban_api::{
    Device, Operation, Rollout,
    operation::{PlannedUpdate, UpdateResult},
};
use kiban_core::history::{
    DeviceRecord, FirmwareRecord, OperationRecord, RolloutRecord, TransitionRecord, UpdateRecord,
};
use kube::ResourceExt;
use std::fmt::Write;

/// Outcomes that are final.
pub const FINAL: [&str; 3] = ["Succeeded", "Failed", "Held"];

/// A finished operation as a record. None: it has not finished.
#[must_use]
pub fn operation(object: &Operation) -> Option<OperationRecord> {
    let (spec, status) = (&object.spec, object.status.as_ref()?);
    if !FINAL.contains(&status.outcome.as_str()) {
        return None;
    }
    let updates = spec.updates.iter().enumerate();
    Some(OperationRecord {
        id: spec.id.clone(),
        device: spec.device.clone(),
        campaign: spec.campaign.clone(),
        pool: spec.pool.clone(),
        commit: spec.commit.clone(),
        revision: spec.revision.clone(),
        wave: spec.wave,
        epoch: spec.epoch,
        executor: status.executor.clone(),
        started_at: status.started_at.as_ref().map(|at| at.0),
        // One that ended without saying when is dated by when it was made: the content must not change from try to try.
        finished_at: status
            .finished_at
            .as_ref()
            .or(object.metadata.creation_timestamp.as_ref())?
            .0,
        outcome: status.outcome.clone(),
        reason: status.reason.clone(),
        message: status.message.clone(),
        resets: status.resets,
        updates: updates
            .map(|(n, planned)| update(planned, status.results.get(n)))
            .collect(),
    })
}

fn update(planned: &PlannedUpdate, result: Option<&UpdateResult>) -> UpdateRecord {
    UpdateRecord {
        class: format!("{:?}", planned.class),
        component: planned.name.clone(),
        from: planned.from.clone(),
        to: planned.to.clone(),
        sha256: planned.image.sha256.clone(),
        before: result.map(|r| r.before.clone()).unwrap_or_default(),
        after: result.map(|r| r.after.clone()).unwrap_or_default(),
        outcome: result.map_or_else(|| "NotDone".into(), |r| r.outcome.clone()),
        attempts: result.map_or(0, |r| r.attempts),
    }
}

/// A device as a record, with what happened to it lately.
#[must_use]
pub fn device(object: &Device) -> DeviceRecord {
    let (spec, status) = (&object.spec, object.status.clone().unwrap_or_default());
    let place = [&spec.location.site, &spec.location.room, &spec.location.rack];
    let compliance = status
        .compliance
        .unwrap_or_else(|| kiban_api::device::Compliance {
            state: "Unknown".into(),
            baseline: String::new(),
            differs: Vec::new(),
        });
    let firmware = status.firmware.into_iter();
    DeviceRecord {
        device: object.name_any(),
        model: spec.model.clone(),
        serial: spec.serial.clone(),
        uuid: status.identity.map(|identity| identity.uuid).unwrap_or_default(),
        location: place
            .into_iter()
            .filter(|part| !part.is_empty())
            .cloned()
            .collect(),
        pool: spec.pool.clone(),
        health: status.health.unwrap_or_default(),
        compliance: compliance.state,
        baseline: compliance.baseline,
        hold: status
            .hold
            .map(|hold| format!("{}: {}", hold.reason, hold.message))
            .unwrap_or_default(),
        last_operation: status.last_operation.map(|last| last.id).unwrap_or_default(),
        firmware: firmware
            .map(|f| FirmwareRecord {
                class: format!("{:?}", f.class),
                name: f.name,
                version: f.version,
                staged: f.staged,
            })
            .collect(),
        transitions: status
            .unledgered
            .into_iter()
            .map(|t| TransitionRecord {
                at: t.at.0,
                reason: t.reason,
                message: t.message,
            })
            .collect(),
        inventory_digest: status.inventory_digest.unwrap_or_default(),
    }
}

/// What happened when a device was read for the first time.
#[must_use]
pub fn enrolled(object: &Device) -> Option<TransitionRecord> {
    let status = object.status.as_ref()?;
    Some(TransitionRecord {
        at: status.firmware_read_at.as_ref()?.0,
        reason: "Enrolled".into(),
        message: format!("read for the first time, {} components", status.firmware.len()),
    })
}

/// What a device's file in the ledger holds. Only the one line is looked for: there may be a hundred thousand to read.
#[must_use]
pub fn held(file: &[u8]) -> Held {
    const KEY: &str = "inventoryDigest:";
    let text = String::from_utf8_lossy(file);
    let line = text.lines().find_map(|line| line.strip_prefix(KEY));
    let digest = line.map(|line| line.trim().trim_matches(['"', '\'']));
    digest
        .filter(|digest| !digest.is_empty())
        .map_or(Held::Nothing, |digest| Held::Inventory(digest.to_owned()))
}

/// A rollout as a record, with a mark that changes at its milestones only. None: it has not begun.
#[must_use]
pub fn rollout(object: &Rollout) -> Option<(RolloutRecord, u64)> {
    let status = object.status.as_ref()?;
    if status.revision.is_empty() {
        return None;
    }
    let halt = status.halt.as_ref();
    let record = RolloutRecord {
        rollout: object.name_any(),
        pool: object.spec.pool.clone(),
        baseline: object.spec.baseline.clone(),
        revision: status.revision.clone(),
        commit: status.commit.clone(),
        started_at: status.started_at.as_ref().map(|at| at.0),
        total: status.total,
        wave: status.wave,
        waves: status.waves,
        wave_done_at: status.wave_done_at.as_ref().map(|at| at.0),
        halted_at: halt.map(|halt| halt.at.0),
        halt: halt.map(|halt| halt.message.clone()).unwrap_or_default(),
        failed_devices: halt.map(|halt| halt.devices.clone()).unwrap_or_default(),
        approvals: status
            .approvals
            .iter()
            .map(|given| kiban_core::approval::ApprovalGiven {
                approval: given.approval.clone(),
                what: given.what.clone(),
                by: given.by.clone(),
                at: given.at.0,
            })
            .collect(),
        completed_at: status.completed_at.as_ref().map(|at| at.0),
    };
    let mark = fnv(format!("{record:?}").as_bytes());
    Some((record, mark))
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A record as a file.
pub fn yaml<T: serde::Serialize>(record: &T) -> Vec<u8> {
    // These types hold text and numbers only; what cannot be written is said in the file rather than lost in silence.
    let mut text = serde_saphyr::to_string(record).unwrap_or_else(|error| format!("error: {error:?}\n"));
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.into_bytes()
}

/// A device's file: its record, and its full inventory where it is at hand.
#[must_use]
pub fn device_file(record: &DeviceRecord, inventory: Option<&str>) -> Vec<u8> {
    let mut bytes = yaml(record);
    if let Some(inventory) = inventory {
        let mut text = String::from("inventory:\n");
        for line in inventory.lines().filter(|line| *line != "---") {
            let _ = writeln!(text, "{}{line}", if line.is_empty() { "" } else { "  " });
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_finished_operation_is_a_record() {
        let object = |status: serde_json::Value| -> Operation {
            serde_json::from_value(json!({
                "apiVersion": "kiban.dev/v1alpha1", "kind": "Operation", "metadata": {"name": "s1"},
                "spec": {"id": "s1-ab", "device": "s1", "campaign": "Rollout/web-r650", "pool": "web", "revision": "r",
                    "commit": "c0ffee", "wave": 2, "epoch": 7, "updates": [
                    {"class": "BIOS", "name": "System BIOS", "from": "1", "to": "2", "activation": "HostReset",
                     "image": {"url": "https://x/y", "sha256": "ab"}},
                    {"class": "NIC", "name": "NIC 1", "from": "3", "to": "4", "activation": "HostReset",
                     "image": {"url": "https://x/z", "sha256": "cd"}}]},
                "status": status
            }))
            .unwrap()
        };
        assert_eq!(operation(&object(json!({"outcome": "Running"}))), None);
        let done = object(
            json!({"outcome": "Failed", "reason": "TaskFailed", "message": "no",
            "finishedAt": "2026-11-24T10:00:00Z",
            "results": [{"component": "System BIOS", "before": "1", "after": "2", "outcome": "Succeeded", "attempts": 1}]}),
        );
        let record = operation(&done).unwrap();
        let outcomes: Vec<_> = record.updates.iter().map(|u| u.outcome.as_str()).collect();
        assert_eq!(outcomes, ["Succeeded", "NotDone"]);
        let text = yaml(&record);
        let back: OperationRecord = serde_saphyr::from_slice(&text).unwrap();
        assert_eq!(back, record, "what is written is read back");
        assert_eq!(
            text,
            yaml(&operation(&done).unwrap()),
            "the same object gives the same bytes"
        );
    }

    #[test]
    fn an_inventory_follows_its_device() {
        let object: Device = serde_json::from_value(json!({
            "apiVersion": "kiban.dev/v1alpha1", "kind": "Device", "metadata": {"name": "s1"},
            "spec": {"model": "r650", "serial": "AB12", "bmc": {"url": "https://x", "credentials": "c"}},
            "status": {"unledgered": [{"at": "2026-11-24T10:00:00Z", "reason": "Enrolled", "message": "read: first"}]}
        }))
        .unwrap();
        let text = device_file(
            &device(&object),
            Some("parts:\n- name: \"a\"\n  note: |\n    two\n\n    lines\n"),
        );
        let value: serde_json::Value = serde_saphyr::from_slice(&text).unwrap();
        assert_eq!(value["inventory"]["parts"][0]["note"], "two\n\nlines\n");
        assert_eq!(value["transitions"][0]["message"], "read: first");
        assert_eq!(value["compliance"], "Unknown");
    }

    #[test]
    fn a_rollouts_mark_changes_at_milestones_only() {
        let mark = |status: serde_json::Value| {
            let object: Rollout = serde_json::from_value(json!({
                "apiVersion": "kiban.dev/v1alpha1", "kind": "Rollout", "metadata": {"name": "web-r650"},
                "spec": {"pool": "web", "baseline": "r650"}, "status": status
            }))
            .unwrap();
            rollout(&object).map(|(_, mark)| mark)
        };
        assert_eq!(mark(json!({})), None);
        let first = mark(json!({"revision": "r", "wave": 1, "done": 0}));
        assert_eq!(
            first,
            mark(json!({"revision": "r", "wave": 1, "done": 5, "running": 2}))
        );
        assert_ne!(first, mark(json!({"revision": "r", "wave": 2, "done": 5})));
    }
}
