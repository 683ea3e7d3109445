//! What the planner has to say of each device (`binding` and `waitingOn`), until it is written.
//!
//! The plan changes its mind about thousands of devices with each tick; a status that followed it would be most of what
//! the API server stores. So it is kept here, and written with another write where there is one (a reading, a comparison, an
//! outcome, the ledger's clearing of transitions), else at most once in a while per device.

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

/// Whether another write of a device's status is about to come, that can take its note along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// None is known of.
    None,
    /// One is expected: the note waits for it, but not longer than its interval.
    Soon,
    /// One will come, and until it does the note has no sense: the device was never read.
    Certain,
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

    /// What is to be said of a device.
    #[must_use]
    pub fn get(&self, device: &str) -> Option<Note> {
        self.lock().get(device).map(|pending| pending.note.clone())
    }

    /// This was written now. What the planner thought of meanwhile stays to be said, in its time.
    pub fn written(&self, device: &str, written: &Note, now: Duration) {
        // The order of `due`.
        let mut last = self.lock_last();
        let mut notes = self.lock();
        if notes.get(device).is_some_and(|pending| pending.note == *written) {
            notes.remove(device);
        }
        last.insert(device.to_owned(), now);
    }

    /// Devices whose note is to be written by itself now, and in how long the next one of the others is.
    #[must_use]
    pub fn due(
        &self,
        now: Duration,
        interval: Duration,
        company: impl Fn(&str) -> Company,
    ) -> (Vec<(String, Note)>, Option<Duration>) {
        let last = self.lock_last();
        let mut due = Vec::new();
        let mut next: Option<Duration> = None;
        for (device, pending) in self.lock().iter() {
            let rested = last.get(device).map_or(Duration::ZERO, |at| *at + interval);
            let at = match company(device) {
                Company::None => rested,
                Company::Soon => rested.max(pending.since + interval),
                Company::Certain => continue,
            };
            if at <= now {
                due.push((device.clone(), pending.note.clone()));
            } else {
                let wait = at - now;
                next = Some(next.map_or(wait, |next| next.min(wait)));
            }
        }
        due.sort_by(|a, b| a.0.cmp(&b.0));
        (due, next)
    }

    /// Whether nothing is to be said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Forgets everything: this replica plans no more.
    pub fn clear(&self) {
        self.lock().clear();
        self.lock_last().clear();
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
        let alone = |_: &str| Company::None;
        assert_eq!(notes.due(at(0), MINUTE, alone).0.len(), 1);
        notes.written("s1", &waiting("Wave"), at(0));
        notes.set("s1", waiting("Budget"), &waiting("Wave"), at(5));
        assert_eq!(notes.due(at(59), MINUTE, alone), (vec![], Some(at(1))));
        assert_eq!(
            notes.due(at(60), MINUTE, alone).0,
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
        let soon = |_: &str| Company::Soon;
        assert_eq!(notes.due(at(69), MINUTE, soon), (vec![], Some(at(1))));
        assert_eq!(notes.due(at(70), MINUTE, soon).0.len(), 1);
        assert_eq!(notes.due(at(700), MINUTE, |_| Company::Certain), (vec![], None));
    }

    #[test]
    fn what_was_thought_of_during_a_write_stays_to_be_said() {
        let notes = Notes::default();
        notes.set("s1", waiting("Wave"), &Note::default(), at(0));
        let written = notes.get("s1").unwrap();
        notes.set("s1", waiting("Budget"), &Note::default(), at(1));
        notes.written("s1", &written, at(1));
        assert_eq!(notes.get("s1"), Some(waiting("Budget")));
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
