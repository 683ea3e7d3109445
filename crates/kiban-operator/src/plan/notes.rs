//! What the planner has to say of each device (`binding` and `waitingOn`), until it is written.
//!
//! The plan changes its mind about thousands of devices with each tick; a status that followed it would be most of what
//! the API server stores. So it is kept here, and written with another write where there is one (the ledger's clearing of
//! transitions), else at most once in a while per device.

use kiban_api::{
    Device,
    device::{Binding, Waiting},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What is to be said of one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// The pool that it is bound to.
    pub binding: Option<Binding>,
    /// What it waits on.
    pub waiting_on: Option<Waiting>,
}

impl Note {
    /// What a device's status says now.
    #[must_use]
    pub fn of(device: &Device) -> Self {
        let status = device.status.as_ref();
        Self {
            binding: status.and_then(|s| s.binding.clone()),
            waiting_on: status.and_then(|s| s.waiting_on.clone()),
        }
    }

    /// As a merge patch of a status: what is not there is taken away.
    #[must_use]
    pub fn patch(&self) -> Value {
        json!({ "binding": self.binding, "waitingOn": self.waiting_on })
    }
}

/// The notes of all devices whose status does not say yet what the plan says. Cheap to clone.
#[derive(Clone, Default)]
pub struct Notes {
    notes: Arc<Mutex<HashMap<String, Pending>>>,
    last: Arc<Mutex<HashMap<String, Duration>>>,
}

#[derive(Clone, Debug)]
struct Pending {
    note: Note,
    since: Duration,
}

impl Notes {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Pending>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_last(&self) -> MutexGuard<'_, HashMap<String, Duration>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plan says this of a device, whose status says `present`.
    pub fn set(&self, device: &str, note: Note, present: &Note, now: Duration) {
        let mut notes = self.lock();
        if note == *present {
            notes.remove(device);
            return;
        }
        let since = notes.get(device).map_or(now, |pending| pending.since);
        notes.insert(device.to_owned(), Pending { note, since });
    }

    /// The device is gone.
    pub fn forget(&self, device: &str) {
        self.lock().remove(device);
        self.lock_last().remove(device);
    }

    /// What is to be said of a device, as a merge patch of its status.
    #[must_use]
    pub fn patch(&self, device: &str) -> Option<Value> {
        self.lock().get(device).map(|pending| pending.note.patch())
    }

    /// It was written, with another write.
    pub fn written(&self, device: &str) {
        self.lock().remove(device);
    }

    /// Devices whose note is to be written now: not written within `interval`, and where another write is expected to
    /// take it along (`expected`), pending for longer than `interval`. Notes of a binding come first.
    #[must_use]
    pub fn due(
        &self,
        now: Duration,
        interval: Duration,
        expected: impl Fn(&str) -> bool,
    ) -> Vec<(String, Note)> {
        let last = self.lock_last();
        let mut due: Vec<_> = self
            .lock()
            .iter()
            .filter(|(device, pending)| {
                let rested = last
                    .get(*device)
                    .is_none_or(|at| now.saturating_sub(*at) >= interval);
                let waited = now.saturating_sub(pending.since) >= interval;
                rested && (waited || !expected(device))
            })
            .map(|(device, pending)| (device.clone(), pending.note.clone()))
            .collect();
        due.sort_by(|a, b| a.0.cmp(&b.0));
        due
    }

    /// When the next note may be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// It was written by itself, now.
    pub fn written_alone(&self, device: &str, now: Duration) {
        self.written(device);
        self.lock_last().insert(device.to_owned(), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn waiting(reason: &str) -> Note {
        let waiting_on = Some(Waiting {
            reason: reason.into(),
            message: String::new(),
        });
        Note {
            binding: Some(Binding { pool: "web".into() }),
            waiting_on,
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_note_is_written_at_most_once_per_interval() {
        let notes = Notes::default();
        notes.set("s1", waiting("Wave"), &Note::default(), at(0));
        assert_eq!(notes.due(at(0), MINUTE, |_| false).len(), 1);
        notes.written_alone("s1", at(0));
        notes.set("s1", waiting("Budget"), &waiting("Wave"), at(5));
        assert!(notes.due(at(59), MINUTE, |_| false).is_empty());
        assert_eq!(
            notes.due(at(60), MINUTE, |_| false),
            [("s1".to_owned(), waiting("Budget"))]
        );
        notes.set("s1", waiting("Wave"), &waiting("Wave"), at(61));
        assert!(
            notes.is_empty(),
            "the plan changed its mind back before it was written"
        );
    }

    #[test]
    fn a_note_waits_for_another_write_but_not_for_ever() {
        let notes = Notes::default();
        notes.set("s1", waiting("Wave"), &Note::default(), at(10));
        notes.set("s1", waiting("Budget"), &Note::default(), at(50));
        assert!(notes.due(at(69), MINUTE, |_| true).is_empty());
        assert_eq!(notes.due(at(70), MINUTE, |_| true).len(), 1);
    }

    #[test]
    fn a_patch_takes_away_what_is_not_said() {
        let patch = Note {
            binding: None,
            waiting_on: None,
        }
        .patch();
        assert_eq!(patch, json!({"binding": null, "waitingOn": null}));
    }
}
