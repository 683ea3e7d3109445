//! What waits for the ledger, as one round per repository.

use super::{home, record};
use crate::{inventory::Inventories, store::Stores};
use jiff::Timestamp;
use kiban_api::{Device, Operation, device::Transition, labels};
use kiban_core::history::{self, OperationRecord, trailer};
use kiban_git::{Batch, Change, CommitMessage};
use kube::ResourceExt;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// Trailers that name a device, at most: a commit's message is read by people.
const MAX_DEVICE_TRAILERS: usize = 50;

/// What goes into one push to one repository's ledger.
#[derive(Default)]
pub struct Round {
    /// Finished operations.
    pub operations: Vec<(Arc<Operation>, OperationRecord)>,
    /// Devices whose file is written, with what of their transitions it holds.
    pub devices: BTreeMap<String, DeviceEntry>,
    /// Rollouts at a milestone, by name, with its mark.
    pub rollouts: Vec<(String, u64)>,
    files: BTreeMap<String, RoundFile>,
}

/// A file of a round: its content, when it happened, and the campaign and commit that it is committed under.
type RoundFile = (Vec<u8>, Timestamp, (String, String));

/// A device's part in a round.
pub struct DeviceEntry {
    /// The device as it was gathered.
    pub object: Arc<Device>,
    /// The transitions that the file holds.
    pub transitions: Vec<Transition>,
    /// Digest of the inventory that the file holds.
    pub inventory: Option<String>,
}

impl Round {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// How many records it has.
    #[must_use]
    pub fn records(&self) -> usize {
        self.files.len()
    }

    /// The commits: one per cause, so that `git log` tells it. Dated by the newest of their records, so that the same round
    /// made again is the same.
    #[must_use]
    pub fn batches(&self) -> Vec<Batch> {
        let mut causes: BTreeMap<&(String, String), (Vec<Change>, Timestamp)> = BTreeMap::new();
        for (path, (content, at, cause)) in &self.files {
            let (changes, newest) = causes.entry(cause).or_insert_with(|| (Vec::new(), *at));
            changes.push(Change {
                path: path.clone(),
                content: content.clone(),
            });
            *newest = (*newest).max(*at);
        }
        let batches = causes.into_iter().map(|(cause, (changes, time))| Batch {
            message: self.message(cause, &changes),
            changes,
            time,
        });
        batches.collect()
    }

    fn message(&self, (campaign, commit): &(String, String), changes: &[Change]) -> CommitMessage {
        let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
        let mut devices = BTreeSet::new();
        for (_, record) in &self.operations {
            if (&record.campaign, &record.commit) == (campaign, commit) {
                *outcomes.entry(&record.outcome).or_default() += 1;
                devices.insert(record.device.as_str());
            }
        }
        if campaign.is_empty() {
            let paths: BTreeSet<_> = changes.iter().map(|change| change.path.as_str()).collect();
            let written = self
                .devices
                .keys()
                .filter(|name| paths.contains(history::device_path(name).as_str()));
            devices.extend(written.map(String::as_str));
        }
        let counted: Vec<_> = outcomes
            .iter()
            .map(|(outcome, n)| format!("{n} {}", outcome.to_lowercase()))
            .collect();
        let subject = match (campaign.as_str(), counted.as_slice(), devices.len()) {
            ("", _, 1) => format!("{}: {}", self.only_device(&devices), self.only_reason(&devices)),
            ("", _, n) => format!("{n} devices changed"),
            (campaign, [], _) => format!("{campaign}: milestone"),
            (campaign, counted, _) => format!("{campaign}: {}", counted.join(", ")),
        };
        let mut trailers = Vec::new();
        if !commit.is_empty() {
            trailers.push((trailer::DESIRED.to_owned(), commit.clone()));
        }
        if !campaign.is_empty() {
            trailers.push((trailer::CAMPAIGN.to_owned(), campaign.clone()));
        }
        let named = devices.iter().take(MAX_DEVICE_TRAILERS);
        trailers.extend(named.map(|device| (trailer::DEVICE.to_owned(), (*device).to_owned())));
        let more = devices.len().saturating_sub(MAX_DEVICE_TRAILERS);
        let body = if more > 0 {
            format!("And {more} more devices.")
        } else {
            String::new()
        };
        CommitMessage {
            subject,
            body,
            trailers,
        }
    }

    fn only_device<'a>(&self, devices: &BTreeSet<&'a str>) -> &'a str {
        devices.first().copied().unwrap_or_default()
    }

    fn only_reason(&self, devices: &BTreeSet<&str>) -> String {
        let entry = devices.first().and_then(|device| self.devices.get(*device));
        entry
            .and_then(|e| e.transitions.last())
            .map_or_else(|| "changed".into(), |t| t.reason.clone())
    }

    fn add_operation(&mut self, object: &Arc<Operation>, record: OperationRecord) {
        let path = history::operation_path(&record.device, &record.id, record.finished_at);
        let cause = (record.campaign.clone(), record.commit.clone());
        self.files
            .insert(path, (record::yaml(&record), record.finished_at, cause));
        self.operations.push((object.clone(), record));
    }

    fn add_device(
        &mut self,
        object: &Arc<Device>,
        inventories: &Inventories,
        cause: Option<(Timestamp, (String, String))>,
    ) {
        let name = object.name_any();
        let record = record::device(object);
        let digest = Some(record.inventory_digest.clone()).filter(|digest| !digest.is_empty());
        let text = digest.as_ref().and_then(|digest| inventories.get(&name, digest));
        if digest.is_some() && text.is_none() {
            // The observer reads it anew; until then the ledger holds the digest.
            inventories.want(&name);
        }
        let transitions = object
            .status
            .as_ref()
            .map(|s| s.unledgered.clone())
            .unwrap_or_default();
        let newest = transitions.iter().map(|t| t.at.0).max();
        let (at, cause) = cause.unwrap_or((
            newest.unwrap_or(Timestamp::UNIX_EPOCH),
            (String::new(), String::new()),
        ));
        let at = newest.map_or(at, |newest| newest.max(at));
        let content = record::device_file(&record, text.as_deref());
        self.files
            .insert(history::device_path(&name), (content, at, cause));
        let inventory = text.and(digest);
        self.devices.insert(
            name,
            DeviceEntry {
                object: object.clone(),
                transitions,
                inventory,
            },
        );
    }
}

/// Gathers what waits: at most `limit` operations and devices. `known` gives the mark of a rollout that is in the ledger
/// already. Also returns how many records have no repository to go to.
pub fn gather(
    stores: &Stores,
    limit: usize,
    inventories: &Inventories,
    known: impl Fn(&str, &str) -> Option<u64>,
) -> (HashMap<String, Round>, usize) {
    let mut repositories = stores.repositories.all();
    repositories.sort_by_key(|r| r.name_any());
    let label = |object: &Device| object.labels().get(labels::REPOSITORY_LABEL).cloned();
    let mut rounds: HashMap<String, Round> = HashMap::new();
    let mut homeless = 0;

    let mut finished: Vec<_> = stores
        .operations
        .filter(|o| !o.finalizers().is_empty() && record::operation(o).is_some());
    finished.sort_by_key(|o| o.name_any());
    for operation in finished.iter().take(limit) {
        let Some(record) = record::operation(operation) else {
            continue;
        };
        let device = stores.devices.get(&record.device);
        let own = device.as_ref().and_then(|d| label(d));
        let Some(home) = home(&repositories, own.as_deref()) else {
            homeless += 1;
            continue;
        };
        let round = rounds.entry(home.to_owned()).or_default();
        // The device's file goes with the cause, once its status tells of the operation.
        let told = |d: &Device| {
            d.status
                .as_ref()?
                .last_operation
                .as_ref()
                .map(|last| last.id == record.id)
        };
        if let Some(device) = device.filter(|d| told(d) == Some(true)) {
            let cause = (record.campaign.clone(), record.commit.clone());
            round.add_device(&device, inventories, Some((record.finished_at, cause)));
        }
        round.add_operation(operation, record);
    }

    let mut changed = stores
        .devices
        .filter(|d| d.status.as_ref().is_some_and(|s| !s.unledgered.is_empty()));
    changed.sort_by_key(|d| d.name_any());
    for device in changed.iter().take(limit) {
        let own = label(device);
        let Some(home) = home(&repositories, own.as_deref()) else {
            homeless += 1;
            continue;
        };
        let round = rounds.entry(home.to_owned()).or_default();
        if !round.devices.contains_key(&device.name_any()) {
            round.add_device(device, inventories, None);
        }
    }

    for rollout in stores.rollouts.all() {
        let Some((record, mark)) = record::rollout(&rollout) else {
            continue;
        };
        let Some(home) = home(&repositories, None) else {
            continue;
        };
        if known(home, &record.rollout) == Some(mark) {
            continue;
        }
        let round = rounds.entry(home.to_owned()).or_default();
        let newest = [
            record.completed_at,
            record.halted_at,
            record.wave_done_at,
            record.started_at,
        ];
        let at = newest
            .into_iter()
            .flatten()
            .max()
            .unwrap_or(Timestamp::UNIX_EPOCH);
        let cause = (format!("Rollout/{}", record.rollout), record.commit.clone());
        round.files.insert(
            history::rollout_path(&record.rollout),
            (record::yaml(&record), at, cause),
        );
        round.rollouts.push((record.rollout, mark));
    }
    (rounds, homeless)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiban_api::{FleetRepository, Rollout};
    use serde_json::{Value, json};

    fn object<T: serde::de::DeserializeOwned>(kind: &str, name: &str, rest: Value) -> T {
        let mut value = json!({"apiVersion": "kiban.dev/v1alpha1", "kind": kind,
            "metadata": {"name": name, "uid": name, "resourceVersion": "1"}});
        value
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    fn device(name: &str, repository: &str, status: Value) -> Device {
        let spec = json!({"model": "m", "serial": "S1", "bmc": {"url": "https://x", "credentials": "c"}});
        let mut device: Device = object("Device", name, json!({"spec": spec, "status": status}));
        device
            .labels_mut()
            .insert(labels::REPOSITORY_LABEL.into(), repository.into());
        device
    }

    fn finished(name: &str, id: &str) -> Operation {
        let mut operation: Operation = object(
            "Operation",
            name,
            json!({
            "spec": {"id": id, "device": name, "campaign": "Rollout/web-m", "pool": "web", "revision": "r",
                "commit": "c0ffee", "wave": 1, "epoch": 1, "updates": []},
            "status": {"outcome": "Succeeded", "finishedAt": "2026-11-24T10:00:00Z"}}),
        );
        operation.finalizers_mut().push(labels::LEDGER_FINALIZER.into());
        operation
    }

    fn stores() -> Stores {
        let stores = Stores::default();
        for name in ["a", "b"] {
            let spec = json!({"spec": {"url": "https://git.example/x.git"}});
            stores
                .repositories
                .absorb(object::<FleetRepository>("FleetRepository", name, spec));
        }
        stores
    }

    #[test]
    fn a_round_has_one_commit_per_cause_and_is_the_same_when_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let inventories = Inventories::open(dir.path()).unwrap();
        let stores = stores();
        let told = json!({"lastOperation": {"id": "s1-1", "campaign": "", "revision": "r", "outcome": "Succeeded",
            "finishedAt": "2026-11-24T10:00:00Z"}});
        stores.devices.absorb(device("s1", "b", told));
        let transition =
            json!([{"at": "2026-11-24T09:00:00Z", "reason": "Enrolled", "message": "first read"}]);
        stores
            .devices
            .absorb(device("s2", "b", json!({"unledgered": transition})));
        stores.operations.absorb(finished("s1", "s1-1"));
        let (rounds, homeless) = gather(&stores, 100, &inventories, |_, _| None);
        assert_eq!(
            (rounds.len(), homeless),
            (1, 0),
            "all of it is the repository b's"
        );
        let batches = rounds["b"].batches();
        let subjects: Vec<_> = batches.iter().map(|b| b.message.subject.as_str()).collect();
        assert_eq!(subjects, ["s2: Enrolled", "Rollout/web-m: 1 succeeded"]);
        let trailer = |n: usize, key: &str| {
            batches[n]
                .message
                .trailers
                .iter()
                .find(|(k, _)| k == key)
                .map(|(_, v)| v.clone())
        };
        assert_eq!(trailer(1, "Desired").as_deref(), Some("c0ffee"));
        assert_eq!(trailer(1, "Campaign").as_deref(), Some("Rollout/web-m"));
        assert_eq!(
            (trailer(0, "Device").as_deref(), trailer(1, "Device").as_deref()),
            (Some("s2"), Some("s1"))
        );
        let (again, _) = gather(&stores, 100, &inventories, |_, _| None);
        assert_eq!(format!("{:?}", again["b"].batches()), format!("{batches:?}"));
    }

    #[test]
    fn a_rollout_is_written_at_its_milestones() {
        let dir = tempfile::tempdir().unwrap();
        let inventories = Inventories::open(dir.path()).unwrap();
        let stores = stores();
        let rest = json!({"spec": {"pool": "web", "baseline": "m"},
            "status": {"revision": "r", "wave": 1, "startedAt": "2026-11-24T09:00:00Z"}});
        stores
            .rollouts
            .absorb(object::<Rollout>("Rollout", "web-m", rest));
        let (rounds, _) = gather(&stores, 100, &inventories, |_, _| None);
        let mark = rounds["a"].rollouts[0].1;
        assert_eq!(
            rounds["a"].batches()[0].changes[0].path,
            "campaigns/rollout/web-m.yaml"
        );
        let (rounds, _) = gather(&stores, 100, &inventories, |_, _| Some(mark));
        assert!(rounds.is_empty(), "nothing changed since");
    }

    #[test]
    fn without_a_repository_everything_waits() {
        let dir = tempfile::tempdir().unwrap();
        let inventories = Inventories::open(dir.path()).unwrap();
        let stores = Stores::default();
        stores.operations.absorb(finished("s1", "s1-1"));
        let (rounds, homeless) = gather(&stores, 100, &inventories, |_, _| None);
        assert_eq!((rounds.len(), homeless), (0, 1));
    }
}
