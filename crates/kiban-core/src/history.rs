//! What the ledger holds and where: the words that its writer (the operator) and its readers (`history`) share.
//!
//! ```text
//!   devices/<2 hex>/<device>.yaml             DeviceRecord    what a machine is now
//!   operations/<yyyy>/<mm>/<dd>/<device>-<id>.yaml   OperationRecord   what was done to it, and why
//!   campaigns/rollout/<rollout>.yaml          RolloutRecord   waves, halts, completions
//! ```
//!
//! A file's older versions are its history; trailers of the commits say the cause ([`trailer`]). Fields may be added,
//! never renamed: files of ten years ago must still be read.

use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// Names of the trailers of ledger commits.
pub mod trailer {
    /// The commit of the desired state that caused it.
    pub const DESIRED: &str = "Desired";
    /// What wanted it. Example: `Rollout/hosting-r650-2026q4`.
    pub const CAMPAIGN: &str = "Campaign";
    /// A device that it speaks of. Repeated.
    pub const DEVICE: &str = "Device";
}

/// Where a device's file is. Two hex digits spread a large fleet over 256 folders, so that no tree of Git gets long.
#[must_use]
pub fn device_path(device: &str) -> String {
    format!("devices/{:02x}/{device}.yaml", spread(device))
}

/// Where an operation's file is.
#[must_use]
pub fn operation_path(device: &str, id: &str, finished_at: Timestamp) -> String {
    let date = finished_at.to_zoned(TimeZone::UTC);
    // An id is usually made of the device's name; a file's name says it once.
    let id = id
        .strip_prefix(device)
        .map_or(id, |rest| rest.trim_start_matches(['-', '.']));
    format!(
        "operations/{:04}/{:02}/{:02}/{device}-{id}.yaml",
        date.year(),
        date.month(),
        date.day()
    )
}

/// Where a rollout's file is.
#[must_use]
pub fn rollout_path(rollout: &str) -> String {
    format!("campaigns/rollout/{rollout}.yaml")
}

/// FNV-1a (32 bits), folded to a byte: no dependency, and the same for ever.
fn spread(name: &str) -> u8 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash.to_be_bytes()
        .into_iter()
        .fold(0, |folded, byte| folded ^ byte)
}

/// A finished operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationRecord {
    /// Its id.
    pub id: String,
    /// The device.
    pub device: String,
    /// What wanted it.
    pub campaign: String,
    /// The pool whose budget it used.
    pub pool: String,
    /// The commit of the desired state that caused it.
    #[serde(default)]
    pub commit: String,
    /// Digest of what was wanted.
    pub revision: String,
    /// The wave, from 1.
    pub wave: u32,
    /// The planner's epoch.
    pub epoch: i64,
    /// The executor that ended it.
    #[serde(default)]
    pub executor: String,
    /// When it started; none: it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// `Succeeded`, `Failed` or `Held`.
    pub outcome: String,
    /// CamelCase category of a failure.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What happened.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Host resets.
    #[serde(default)]
    pub resets: u32,
    /// Update by update: what was planned, and what came of it.
    #[serde(default)]
    pub updates: Vec<UpdateRecord>,
}

/// One component's update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateRecord {
    /// Class.
    pub class: String,
    /// The component's name.
    pub component: String,
    /// Version when it was planned.
    pub from: String,
    /// Version wanted.
    pub to: String,
    /// SHA-256 of the image.
    pub sha256: String,
    /// Version before it was begun, as read.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub before: String,
    /// Version after, as read back.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub after: String,
    /// `Succeeded`, `AlreadyThere`, `Failed`, `Unknown`, or `NotDone` where the operation ended before it.
    pub outcome: String,
    /// Attempts sent.
    #[serde(default)]
    pub attempts: u32,
}

/// What a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRecord {
    /// The device.
    pub device: String,
    /// Its model.
    pub model: String,
    /// Serial number, as written in Git.
    pub serial: String,
    /// UUID as the BMC says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uuid: String,
    /// Site, room, rack, as far as they are known.
    #[serde(default)]
    pub location: Vec<String>,
    /// The pool that it serves.
    #[serde(default)]
    pub pool: String,
    /// Health as last read.
    #[serde(default)]
    pub health: String,
    /// How it stands to its baseline.
    #[serde(default)]
    pub compliance: String,
    /// The baseline.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub baseline: String,
    /// Why a person must look at it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hold: String,
    /// The last operation's id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_operation: String,
    /// Firmware.
    #[serde(default)]
    pub firmware: Vec<FirmwareRecord>,
    /// What happened to it since the version of this file before.
    #[serde(default)]
    pub transitions: Vec<TransitionRecord>,
    /// Digest of the full inventory, which follows under `inventory` where it was at hand.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub inventory_digest: String,
}

/// Firmware of one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FirmwareRecord {
    /// Class.
    pub class: String,
    /// Name as the BMC reports it.
    pub name: String,
    /// Version that runs.
    pub version: String,
    /// Version that waits for its activation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<String>,
}

/// Something that happened to a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransitionRecord {
    /// When.
    pub at: Timestamp,
    /// CamelCase reason.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// How far a rollout was when a wave, a halt or the end came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutRecord {
    /// Its name.
    pub rollout: String,
    /// The pool.
    pub pool: String,
    /// The baseline.
    pub baseline: String,
    /// Digest of what is wanted.
    pub revision: String,
    /// The commit of the desired state that brought it.
    #[serde(default)]
    pub commit: String,
    /// When this revision started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Devices concerned.
    pub total: u32,
    /// Present wave, from 1.
    pub wave: u32,
    /// Waves in all.
    pub waves: u32,
    /// When the present wave was done and its soak began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave_done_at: Option<Timestamp>,
    /// When it halted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted_at: Option<Timestamp>,
    /// Why it halted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub halt: String,
    /// The devices that failed. The first twenty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_devices: Vec<String>,
    /// The approvals that counted: who let what happen, and when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<crate::approval::ApprovalGiven>,
    /// When every device was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_what_they_were() {
        // Changing one of these would lose the history before it.
        assert_eq!(
            device_path("tokyo-1-b07-12"),
            format!("devices/{:02x}/tokyo-1-b07-12.yaml", spread("tokyo-1-b07-12"))
        );
        assert_eq!((spread("a"), spread("tokyo-1-b07-12")), (0xed, 0x5e));
        let at = "2026-11-24T23:59:59Z".parse().unwrap();
        assert_eq!(
            operation_path("s1", "0af3", at),
            "operations/2026/11/24/s1-0af3.yaml"
        );
        assert_eq!(
            operation_path("s1", "s1-0af3", at),
            "operations/2026/11/24/s1-0af3.yaml"
        );
        assert_eq!(rollout_path("web-r650"), "campaigns/rollout/web-r650.yaml");
    }

    #[test]
    fn names_are_spread_over_the_folders() {
        let mut folders = [0; 256];
        for n in 0..25_600 {
            folders[usize::from(spread(&format!("server-{n:05}")))] += 1;
        }
        assert!(
            folders.iter().all(|count| (20..400).contains(count)),
            "{folders:?}"
        );
    }
}
