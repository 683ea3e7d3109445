//! The ordered log of everything that changed a machine, or tried to: what proves a double flash or a broken budget.

use crate::model::Class;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The log stops growing here (about 300 MB) and counts what it dropped; a proof over a truncated log is no proof.
const MAX_ENTRIES: usize = 1_000_000;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Position in the log, from 1.
    pub seq: u64,
    /// When, in virtual milliseconds since the fleet's start.
    pub virtual_ms: u64,
    /// When, in real time (RFC 3339).
    pub real: String,
    /// The machine's name.
    pub machine: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What a line of the log is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum What {
    /// A request arrived and was answered: every mutating one, and reads too if the options say so.
    Request {
        /// The HTTP method.
        method: String,
        /// The path without query.
        path: String,
        /// The status answered; 0 where the connection was cut instead.
        status: u16,
        /// What the body asked for, without secrets.
        #[serde(default, skip_serializing_if = "Summary::is_empty")]
        summary: Summary,
    },
    /// Bytes started to be written to a component's flash.
    FlashStarted {
        /// The component's id.
        component: String,
        /// Its class.
        class: Class,
        /// The version that ran.
        from: String,
        /// The version being written.
        to: String,
        /// SHA-256 of the image.
        digest: String,
    },
    /// The writing ended.
    FlashFinished {
        /// The component's id.
        component: String,
        /// How it ended.
        outcome: FlashOutcome,
    },
    /// Another version runs now.
    Activated {
        /// The component's id.
        component: String,
        /// The version before.
        from: String,
        /// The version now.
        to: String,
        /// What made it so.
        cause: String,
    },
    /// The host stopped serving.
    HostDown {
        /// What made it stop.
        cause: String,
    },
    /// The host serves again: its operating system runs.
    HostUp,
    /// The BMC stopped answering.
    BmcDown {
        /// What made it stop.
        cause: String,
    },
    /// The BMC is back and steady.
    BmcUp,
    /// The BMC will never answer again.
    Bricked,
    /// BIOS settings became active.
    SettingsApplied {
        /// The attributes that changed.
        attributes: Vec<String>,
    },
    /// Somebody changed the machine beside the network: a test, or the admin endpoint.
    ByHand {
        /// What was done.
        action: String,
    },
}

/// How a flash ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlashOutcome {
    /// All bytes are written.
    Written,
    /// The BMC or the power went away in the middle.
    Interrupted,
    /// The BMC claims success, but nothing changed (a fault).
    Lied,
    /// The machine did not survive (a fault).
    Bricked,
}

/// What a mutating request asked for, in the words that proofs need.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Summary {
    /// SHA-256 of the image that came with the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Bytes of that image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Where the BMC was told to fetch the image, without its query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_uri: Option<String>,
    /// The class that the image is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// The version that the image brings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The components it was aimed at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// The apply time asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apply_time: Option<String>,
    /// The reset asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_type: Option<String>,
    /// Names of the properties that were set; never their values, which may be secret.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<String>,
    /// The account that logged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The fault that was injected into this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

impl Summary {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One write of a component's flash, from the log.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Flash {
    /// The machine.
    pub machine: String,
    /// The component's id.
    pub component: String,
    /// Its class.
    pub class: Class,
    /// The version that ran before.
    pub from: String,
    /// The version written.
    pub to: String,
    /// SHA-256 of the image.
    pub digest: String,
    /// When it started, in virtual milliseconds.
    pub started_ms: u64,
    /// When and how it ended; `None` while it runs.
    pub finished: Option<(u64, FlashOutcome)>,
}

/// The log. Cheap to share; every method takes a consistent view.
#[derive(Debug, Default)]
pub struct Record {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: Vec<Entry>,
    dropped: u64,
}

impl Record {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, virtual_ms: u64, machine: &str, what: What) {
        let mut inner = self.lock();
        if inner.entries.len() >= MAX_ENTRIES {
            inner.dropped += 1;
            return;
        }
        let entry = Entry {
            seq: inner.entries.len() as u64 + 1,
            virtual_ms,
            real: jiff::Timestamp::now().to_string(),
            machine: machine.to_owned(),
            what,
        };
        inner.entries.push(entry);
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether nothing happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many lines were lost because the log was full.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// The lines after position `seq`, at most `limit`.
    pub fn since(&self, seq: u64, limit: usize) -> Vec<Entry> {
        self.lock()
            .entries
            .iter()
            .skip(seq as usize)
            .take(limit)
            .cloned()
            .collect()
    }

    /// All lines.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.clone()
    }

    /// The lines of one machine.
    pub fn of(&self, machine: &str) -> Vec<Entry> {
        self.lock()
            .entries
            .iter()
            .filter(|e| e.machine == machine)
            .cloned()
            .collect()
    }

    /// The flashes of one machine, in order of their start.
    pub fn flashes(&self, machine: &str) -> Vec<Flash> {
        flashes(self.lock().entries.iter().filter(|e| e.machine == machine))
    }

    /// The flashes of the whole fleet, in order of their start.
    pub fn all_flashes(&self) -> Vec<Flash> {
        flashes(self.lock().entries.iter())
    }

    /// Flashes that wrote, to one component of one machine, an image that had been written to it before without
    /// another image in between: what "at most one flash per intent" forbids. Empty is good.
    pub fn double_flashes(&self) -> Vec<Flash> {
        let mut last: HashMap<(String, String), String> = HashMap::new();
        let mut doubles = Vec::new();
        for flash in self.all_flashes() {
            let key = (flash.machine.clone(), flash.component.clone());
            if last.insert(key, flash.digest.clone()).as_deref() == Some(flash.digest.as_str()) {
                doubles.push(flash);
            }
        }
        doubles
    }

    /// The most machines that were disrupted at one instant: host down, BMC down, or a flash under way.
    pub fn peak_disrupted(&self) -> usize {
        peak(&self.lock().entries, |_| true)
    }

    /// As [`Record::peak_disrupted`], over the machines that `of` picks: a pool, a rack.
    pub fn peak_disrupted_of(&self, of: impl Fn(&str) -> bool) -> usize {
        peak(&self.lock().entries, of)
    }

    /// The requests with this method whose path contains `path`.
    pub fn requests(&self, method: &str, path: &str) -> Vec<Entry> {
        let wanted = |e: &&Entry| matches!(&e.what, What::Request { method: m, path: p, .. } if m == method && p.contains(path));
        self.lock().entries.iter().filter(wanted).cloned().collect()
    }
}

fn flashes<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<Flash> {
    let mut all: Vec<Flash> = Vec::new();
    for entry in entries {
        match &entry.what {
            What::FlashStarted {
                component,
                class,
                from,
                to,
                digest,
            } => all.push(Flash {
                machine: entry.machine.clone(),
                component: component.clone(),
                class: *class,
                from: from.clone(),
                to: to.clone(),
                digest: digest.clone(),
                started_ms: entry.virtual_ms,
                finished: None,
            }),
            What::FlashFinished { component, outcome } => {
                let open = all.iter_mut().rev().find(|f| {
                    f.machine == entry.machine && f.component == *component && f.finished.is_none()
                });
                if let Some(flash) = open {
                    flash.finished = Some((entry.virtual_ms, *outcome));
                }
            }
            _ => {}
        }
    }
    all
}

fn peak(entries: &[Entry], of: impl Fn(&str) -> bool) -> usize {
    #[derive(Default, Clone, Copy)]
    struct Now {
        host: bool,
        bmc: bool,
        flashes: u32,
    }
    // Effects are logged when they are noticed; virtual time, then position, is the order in which they happened.
    let mut order: Vec<&Entry> = entries.iter().filter(|e| of(&e.machine)).collect();
    order.sort_by_key(|e| (e.virtual_ms, e.seq));
    let mut state: BTreeMap<&str, Now> = BTreeMap::new();
    let (mut down, mut most) = (0_usize, 0_usize);
    for entry in order {
        let now = state.entry(&entry.machine).or_default();
        let before = now.host || now.bmc || now.flashes > 0;
        match &entry.what {
            What::HostDown { .. } => now.host = true,
            What::HostUp => now.host = false,
            What::BmcDown { .. } | What::Bricked => now.bmc = true,
            What::BmcUp => now.bmc = false,
            What::FlashStarted { .. } => now.flashes += 1,
            What::FlashFinished { .. } => now.flashes = now.flashes.saturating_sub(1),
            _ => {}
        }
        let after = now.host || now.bmc || now.flashes > 0;
        match (before, after) {
            (false, true) => down += 1,
            (true, false) => down -= 1,
            _ => {}
        }
        most = most.max(down);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flash(r: &Record, t: u64, m: &str, c: &str, digest: &str) {
        let what = What::FlashStarted {
            component: c.into(),
            class: Class::Bios,
            from: "1".into(),
            to: "2".into(),
            digest: digest.into(),
        };
        r.push(t, m, what);
        r.push(
            t + 10,
            m,
            What::FlashFinished {
                component: c.into(),
                outcome: FlashOutcome::Written,
            },
        );
    }

    #[test]
    fn a_second_flash_of_the_same_image_is_found_and_a_return_is_not() {
        let r = Record::default();
        flash(&r, 0, "a", "BIOS", "x");
        flash(&r, 100, "a", "BIOS", "y");
        flash(&r, 200, "a", "BIOS", "x");
        flash(&r, 300, "b", "BIOS", "x");
        assert_eq!(r.double_flashes(), vec![]);
        flash(&r, 400, "a", "BIOS", "x");
        assert_eq!(r.double_flashes().len(), 1);
        assert_eq!(r.flashes("a").len(), 4);
        assert_eq!(r.flashes("a")[0].finished, Some((10, FlashOutcome::Written)));
    }

    #[test]
    fn the_peak_counts_machines_not_causes_and_orders_by_virtual_time() {
        let r = Record::default();
        r.push(10, "a", What::HostDown { cause: "x".into() });
        r.push(11, "a", What::BmcDown { cause: "x".into() });
        r.push(30, "b", What::HostDown { cause: "x".into() });
        r.push(20, "a", What::HostUp);
        r.push(20, "a", What::BmcUp);
        assert_eq!(r.peak_disrupted(), 1);
        r.push(15, "c", What::BmcDown { cause: "x".into() });
        assert_eq!(r.peak_disrupted(), 2);
        assert_eq!(r.peak_disrupted_of(|m| m != "c"), 1);
    }

    #[test]
    fn entries_survive_json() {
        let r = Record::default();
        let summary = Summary {
            reset_type: Some("ForceOff".into()),
            ..Summary::default()
        };
        let what = What::Request {
            method: "POST".into(),
            path: "/x".into(),
            status: 204,
            summary,
        };
        r.push(1, "a", what);
        let json = serde_json::to_string(&r.entries()).unwrap();
        let back: Vec<Entry> = serde_json::from_str(&json).unwrap();
        assert_eq!(back, r.entries());
    }
}
