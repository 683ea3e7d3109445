//! What waits for the ledger, as one round per repository.

use super::{home, record};
use crate::{inventory::Inventories, store::Stores};
use jiff::Timestamp;
use kiban_api::{Device, FleetRepository, Operation, device::Transition, labels};
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
    /// Digest of the inventory whose text the file holds.
    pub inventory: Option<String>,
    /// Whether this is the first reading that the ledger hears of.
    pub first: bool,
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
        let last = entry.and_then(|e| e.transitions.last().map(|t| t.reason.clone()));
        match (last, entry) {
            (Some(reason), _) => reason,
            (None, Some(entry)) if entry.first => "Enrolled".into(),
            (None, _) => "changed".into(),
        }
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
        first: bool,
    ) {
        let name = object.name_any();
        let mut record = record::device(object);
        let enrolled = first.then(|| record::enrolled(object)).flatten();
        let read_at = enrolled.as_ref().map(|enrolled| enrolled.at);
        if let Some(enrolled) = enrolled {
            record.transitions.insert(0, enrolled);
        }
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
        let newest = transitions.iter().map(|t| t.at.0).max().max(read_at);
        // Without either, only the reading itself is news.
        let newest = newest.or_else(|| {
            let status = object.status.as_ref()?;
            status.firmware_read_at.as_ref().map(|at| at.0)
        });
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
                first,
            },
        );
    }
}

/// What a ledger holds of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// No inventory: the device was never read, as far as the ledger tells.
    Nothing,
    /// The inventory of this digest.
    Inventory(String),
}

/// Of these devices, at most `limit` per repository, the ledger must be asked what it holds before anything is gathered.
/// `held` tells what is known already.
pub fn unasked(
    stores: &Stores,
    limit: usize,
    held: impl Fn(&str, &str) -> Option<Held>,
) -> HashMap<String, Vec<String>> {
    let repositories = sorted(stores);
    let mut unasked: HashMap<String, Vec<String>> = HashMap::new();
    for device in stores.devices.filter(|device| digest(device).is_some()) {
        let (name, own) = (device.name_any(), label(&device));
        let Some(home) = home(&repositories, own.as_deref()) else {
            continue;
        };
        if held(home, &name).is_none() {
            let names = unasked.entry(home.to_owned()).or_default();
            if names.len() < limit {
                names.push(name);
            }
        }
    }
    unasked
}

fn sorted(stores: &Stores) -> Vec<Arc<FleetRepository>> {
    let mut repositories = stores.repositories.all();
    repositories.sort_by_key(|r| r.name_any());
    repositories
}

fn label(object: &Device) -> Option<String> {
    object.labels().get(labels::REPOSITORY_LABEL).cloned()
}

/// The digest of the inventory that a device's status speaks of.
pub fn digest(device: &Device) -> Option<&str> {
    let digest = device.status.as_ref()?.inventory_digest.as_deref();
    digest.filter(|digest| !digest.is_empty())
}

/// Gathers what waits: at most `limit` operations and devices. `known` gives the mark of a rollout that is in the ledger
/// already, `held` what the ledger holds of a device; one of which that is not known yet waits for a later round. Also
/// returns how many records have no repository to go to.
pub fn gather(
    stores: &Stores,
    limit: usize,
    inventories: &Inventories,
    known: impl Fn(&str, &str) -> Option<u64>,
    held: impl Fn(&str, &str) -> Option<Held>,
) -> (HashMap<String, Round>, usize) {
    let repositories = sorted(stores);
    let mut rounds: HashMap<String, Round> = HashMap::new();
    let mut homeless = 0;
    // Whether a device's file can be written: what the ledger has of it is known. One that was never read has no inventory.
    let asked = |home: &str, device: &Device| match digest(device) {
        None => Some(false),
        Some(_) => held(home, &device.name_any()).map(|held| held == Held::Nothing),
    };

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
        // The device's file goes with the cause, once its status tells of the operation.
        let told = |d: &Device| {
            let last = d
                .status
                .as_ref()
                .and_then(|status| status.last_operation.as_ref());
            last.is_some_and(|last| last.id == record.id)
        };
        let device = device.filter(|d| told(d));
        let first = match &device {
            None => false,
            Some(device) => match asked(home, device) {
                Some(first) => first,
                None => continue,
            },
        };
        let round = rounds.entry(home.to_owned()).or_default();
        if let Some(device) = device {
            let cause = (record.campaign.clone(), record.commit.clone());
            round.add_device(&device, inventories, Some((record.finished_at, cause)), first);
        }
        round.add_operation(operation, record);
    }

    // An inventory needs no outbox: the status holds it until it is another one. While an operation is on its way, the
    // device's file waits for its cause.
    let waits = |device: &Device| {
        let name = device.name_any();
        let status = device.status.as_ref();
        if status.is_some_and(|status| !status.unledgered.is_empty()) {
            return true;
        }
        let (Some(digest), own) = (digest(device), label(device)) else {
            return false;
        };
        let held = home(&repositories, own.as_deref()).and_then(|home| held(home, &name));
        held.is_some_and(|held| held != Held::Inventory(digest.to_owned()))
            && stores.operations.get(&name).is_none()
    };
    let mut changed = stores.devices.filter(waits);
    changed.sort_by_key(|d| d.name_any());
    for device in changed.iter().take(limit) {
        let own = label(device);
        let Some(home) = home(&repositories, own.as_deref()) else {
            homeless += 1;
            continue;
        };
        let Some(first) = asked(home, device) else {
            continue;
        };
        let round = rounds.entry(home.to_owned()).or_default();
        if !round.devices.contains_key(&device.name_any()) {
            round.add_device(device, inventories, None, first);
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
    use kiban_api::Rollout;
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
            json!([{"at": "2026-11-24T09:00:00Z", "reason": "Unreachable", "message": "no answer"}]);
        stores
            .devices
            .absorb(device("s2", "b", json!({"unledgered": transition})));
        stores.operations.absorb(finished("s1", "s1-1"));
        let (rounds, homeless) = gather(&stores, 100, &inventories, |_, _| None, |_, _| None);
        assert_eq!(
            (rounds.len(), homeless),
            (1, 0),
            "all of it is the repository b's"
        );
        let batches = rounds["b"].batches();
        let subjects: Vec<_> = batches.iter().map(|b| b.message.subject.as_str()).collect();
        assert_eq!(subjects, ["s2: Unreachable", "Rollout/web-m: 1 succeeded"]);
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
        let (again, _) = gather(&stores, 100, &inventories, |_, _| None, |_, _| None);
        assert_eq!(format!("{:?}", again["b"].batches()), format!("{batches:?}"));
    }

    #[test]
    fn an_inventory_is_written_when_the_ledger_holds_another_and_told_as_enrolment_when_it_holds_none() {
        let dir = tempfile::tempdir().unwrap();
        let inventories = Inventories::open(dir.path()).unwrap();
        let stores = stores();
        let read = json!({"inventoryDigest": "sha256:ab", "firmwareReadAt": "2026-11-24T09:00:00Z"});
        stores.devices.absorb(device("s1", "b", read));
        let with = |held: Option<Held>| {
            let (mut rounds, _) = gather(&stores, 100, &inventories, |_, _| None, |_, _| held.clone());
            rounds.remove("b").unwrap_or_default().batches()
        };
        assert_eq!(with(None), [], "the ledger is asked first");
        assert_eq!(unasked(&stores, 9, |_, _| None)["b"], ["s1"]);
        assert!(unasked(&stores, 9, |_, _| Some(Held::Nothing)).is_empty());
        assert_eq!(with(Some(Held::Inventory("sha256:ab".into()))), []);
        let first = with(Some(Held::Nothing));
        assert_eq!(first[0].message.subject, "s1: Enrolled");
        assert_eq!(first[0].time, "2026-11-24T09:00:00Z".parse().unwrap());
        let text = String::from_utf8(first[0].changes[0].content.clone()).unwrap();
        assert!(text.contains("reason: Enrolled"), "{text}");
        assert_eq!(record::held(text.as_bytes()), Held::Inventory("sha256:ab".into()));
        let other = with(Some(Held::Inventory("sha256:cd".into())));
        assert_eq!(other[0].message.subject, "s1: changed");
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
        let (rounds, _) = gather(&stores, 100, &inventories, |_, _| None, |_, _| None);
        let mark = rounds["a"].rollouts[0].1;
        assert_eq!(
            rounds["a"].batches()[0].changes[0].path,
            "campaigns/rollout/web-m.yaml"
        );
        let (rounds, _) = gather(&stores, 100, &inventories, |_, _| Some(mark), |_, _| None);
        assert!(rounds.is_empty(), "nothing changed since");
    }

    #[test]
    fn without_a_repository_everything_waits() {
        let dir = tempfile::tempdir().unwrap();
        let inventories = Inventories::open(dir.path()).unwrap();
        let stores = Stores::default();
        stores.operations.absorb(finished("s1", "s1-1"));
        let (rounds, homeless) = gather(&stores, 100, &inventories, |_, _| None, |_, _| None);
        assert_eq!((rounds.len(), homeless), (0, 1));
    }
}
