//! Faults: rules that say which machine misbehaves, on what, how often, and how.
//!
//! ```yaml
//! faults:
//! - {machine: "dell-*", path: "/redfish/v1/UpdateService/*", method: POST, count: 1, fault: {kind: cutAfter}}
//! - {machine: hpe-0003, component: BIOS, fault: {kind: brick}}
//! ```

use crate::{image::glob, model::Class};
use serde::{Deserialize, Serialize};
use std::sync::{
    RwLock,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// A file of rules.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultFile {
    /// The rules, tried in order.
    pub faults: Vec<Rule>,
}

/// When to misbehave, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Given when the rule is added; names it for removal.
    #[serde(default)]
    pub id: u64,
    /// Glob over machine names.
    #[serde(default = "any")]
    pub machine: String,
    /// Glob over request paths; `*` also spans `/`. Without it, any path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// An HTTP method; without it, any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The class being flashed, for faults of updates; without it, any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<Class>,
    /// Let so many occasions pass first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skip: u32,
    /// Misbehave so many times; without it, always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Misbehave for so many virtual seconds from when the rule was added; without it, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// How.
    pub fault: Fault,
    /// How often it did; kept by the emulator.
    #[serde(default)]
    pub fired: u32,
    /// When it was added, in virtual milliseconds; kept by the emulator.
    #[serde(default)]
    pub since_ms: u64,
}

fn any() -> String {
    "*".to_owned()
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Fault {
    /// Connections are refused: the port is closed. With a count, they are accepted and reset.
    Refuse,
    /// Connections are accepted, and nothing is ever said.
    Hang,
    /// The TLS handshake starts and never ends.
    TlsStall,
    /// Another certificate is shown, from an authority that nobody knows.
    CertificateChanged,
    /// A certificate of the right authority is shown that ended long ago.
    CertificateExpired,
    /// The request is answered with this status and has no effect. 401, 429, 500, 503.
    Status {
        /// The status.
        status: u16,
        /// `Retry-After` in seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<u32>,
        /// The Redfish message id in the body; without it the body is empty.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message_id: Option<String>,
    },
    /// The answer waits.
    Latency {
        /// Real milliseconds.
        ms: u64,
    },
    /// The body drips.
    SlowDrip {
        /// Real bytes per second.
        bytes_per_second: u32,
    },
    /// The body ends early, under a `Content-Length` that promises all of it.
    Truncate {
        /// After so many bytes.
        at: usize,
    },
    /// Strings become numbers and objects become null, one level down.
    WrongType,
    /// The body goes on and on.
    HugeBody {
        /// Bytes in all.
        bytes: u64,
    },
    /// The body is arrays within arrays.
    DeepNesting {
        /// How deep.
        depth: usize,
    },
    /// The answer is a redirect.
    Redirect {
        /// Where to.
        location: String,
    },
    /// The answer is a 200 with a page of HTML, as from a proxy.
    Html,
    /// The connection is cut before the request has any effect.
    CutBefore,
    /// The request has its effect, and the connection is cut before the answer.
    CutAfter,
    /// An update is answered 202, and nothing ever happens.
    AcceptNothing,
    /// The task of an update becomes 404 while the update goes on.
    TaskVanishes,
    /// The task of an update stays Running at 100 %.
    TaskStuck {
        /// Whether its status is Critical, as with Dell's JCP052.
        #[serde(default)]
        critical: bool,
    },
    /// The task ends as Exception after the image was verified; nothing is written.
    TaskFails,
    /// The task says Completed, and the old version stays.
    CompletedUnchanged,
    /// The new version runs, until the second reset brings the backup image back.
    FlipBack,
    /// The BMC resets itself half-way through the flash.
    RebootMidFlash,
    /// The machine does not survive the flash: its BMC never returns.
    Brick,
    /// Power actions are answered well and do nothing.
    PowerIgnored,
    /// Another serial number is shown, as when an address moved to another machine.
    WrongSerial {
        /// The serial shown.
        serial: String,
    },
    /// The UUID of another machine is shown.
    DuplicateUuid {
        /// The UUID shown.
        uuid: uuid::Uuid,
    },
    /// Members of collections come in another order each time.
    ShuffleInventory,
    /// The BMC's clock stands in 1970.
    Clock1970,
    /// The licence for updates and settings is missing, where the vendor sells one (Supermicro).
    Unlicensed,
}

impl Fault {
    /// Whether it happens to a request and its answer.
    pub(crate) fn of_request(&self) -> bool {
        matches!(
            self,
            Fault::Status { .. }
                | Fault::Latency { .. }
                | Fault::SlowDrip { .. }
                | Fault::Truncate { .. }
                | Fault::WrongType
                | Fault::HugeBody { .. }
                | Fault::DeepNesting { .. }
                | Fault::Redirect { .. }
                | Fault::Html
                | Fault::CutBefore
                | Fault::CutAfter
        )
    }

    /// The name in files and in the record.
    pub fn name(&self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(map)) => map
                .get("kind")
                .and_then(|k| k.as_str())
                .unwrap_or_default()
                .to_owned(),
            _ => String::new(),
        }
    }
}

impl Rule {
    /// A rule for one machine (or a glob), at every occasion.
    pub fn new(machine: impl Into<String>, fault: Fault) -> Self {
        Self {
            id: 0,
            machine: machine.into(),
            path: None,
            method: None,
            component: None,
            skip: 0,
            count: None,
            seconds: None,
            fault,
            fired: 0,
            since_ms: 0,
        }
    }

    /// Only on these paths.
    #[must_use]
    pub fn on(mut self, method: &str, path: &str) -> Self {
        self.method = Some(method.to_owned());
        self.path = Some(path.to_owned());
        self
    }

    /// Only so many times.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.count = Some(count);
        self
    }

    /// Only when this class is flashed.
    #[must_use]
    pub fn class(mut self, class: Class) -> Self {
        self.component = Some(class);
        self
    }

    fn live(&self, now_ms: u64) -> bool {
        self.count.is_none_or(|c| self.fired < c)
            && self
                .seconds
                .is_none_or(|s| now_ms.saturating_sub(self.since_ms) as f64 <= s * 1000.0)
    }
}

/// What is happening, for rules to match.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Occasion<'a> {
    pub(crate) path: Option<&'a str>,
    pub(crate) method: Option<&'a str>,
    pub(crate) class: Option<Class>,
}

/// The rules in force.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: RwLock<Vec<Rule>>,
    // Read on every request of every machine, most of the time to learn that there is nothing to do.
    count: AtomicUsize,
    next: AtomicU64,
    seed: AtomicU64,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed: AtomicU64::new(seed),
            ..Self::default()
        }
    }

    pub(crate) fn add(&self, mut rule: Rule, now_ms: u64) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        rule.id = id;
        rule.fired = 0;
        rule.since_ms = now_ms;
        let mut rules = self
            .rules
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        rules.push(rule);
        self.count.store(rules.len(), Ordering::Release);
        id
    }

    pub(crate) fn remove(&self, keep: impl Fn(&Rule) -> bool) -> usize {
        let mut rules = self
            .rules
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = rules.len();
        rules.retain(keep);
        self.count.store(rules.len(), Ordering::Release);
        before - rules.len()
    }

    pub(crate) fn list(&self) -> Vec<Rule> {
        self.rules
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    /// The first fault that applies, which then counts as having happened.
    pub(crate) fn fire(
        &self,
        now_ms: u64,
        machine: &str,
        occasion: Occasion<'_>,
        wanted: impl Fn(&Fault) -> bool,
    ) -> Option<Fault> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut rules = self
            .rules
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for rule in rules.iter_mut() {
            if !wanted(&rule.fault) || !rule.live(now_ms) || !matches(rule, machine, occasion) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.fired += 1;
            return Some(rule.fault.clone());
        }
        None
    }

    /// The first fault that applies, without counting it: for what is a state rather than an occasion.
    pub(crate) fn active(&self, now_ms: u64, machine: &str, wanted: impl Fn(&Rule) -> bool) -> Option<Fault> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let rules = self
            .rules
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        rules
            .iter()
            .find(|r| wanted(r) && r.live(now_ms) && glob(&r.machine, machine))
            .map(|r| r.fault.clone())
    }

    /// The next number of the seeded sequence (splitmix64).
    pub(crate) fn random(&self) -> u64 {
        let mut z = self
            .seed
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
            .wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn matches(rule: &Rule, machine: &str, occasion: Occasion<'_>) -> bool {
    let within = |wanted: &Option<String>, seen: Option<&str>| match (wanted, seen) {
        (None, _) => true,
        (Some(w), Some(s)) => glob(w, s.trim_end_matches('/')) || glob(w, s),
        (Some(_), None) => false,
    };
    glob(&rule.machine, machine)
        && within(&rule.path, occasion.path)
        && within(&rule.method, occasion.method)
        && rule.component.is_none_or(|c| occasion.class == Some(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(path: &str) -> Occasion<'_> {
        Occasion {
            path: Some(path),
            method: Some("POST"),
            class: None,
        }
    }

    #[test]
    fn rules_count_skip_and_end() {
        let faults = Faults::new(1);
        let mut rule = Rule::new("a*", Fault::CutAfter)
            .on("POST", "/redfish/v1/UpdateService*")
            .times(2);
        rule.skip = 1;
        faults.add(rule, 0);
        let hit = |m: &str, p: &str| faults.fire(0, m, post(p), Fault::of_request).is_some();
        assert!(!hit("b1", "/redfish/v1/UpdateService/x"), "another machine");
        assert!(!hit("a1", "/redfish/v1/Systems"), "another path");
        assert!(!hit("a1", "/redfish/v1/UpdateService/x"), "skipped");
        assert!(hit("a1", "/redfish/v1/UpdateService/x"));
        assert!(hit("a2", "/redfish/v1/UpdateService/"));
        assert!(!hit("a1", "/redfish/v1/UpdateService/x"), "used up");

        let mut timed = Rule::new("*", Fault::Html);
        timed.seconds = Some(10.0);
        let id = faults.add(timed, 1_000);
        assert!(
            faults
                .fire(11_000, "x", Occasion::default(), |f| *f == Fault::Html)
                .is_some()
        );
        assert!(
            faults
                .fire(11_001, "x", Occasion::default(), |f| *f == Fault::Html)
                .is_none()
        );
        assert_eq!(faults.remove(|r| r.id != id), 1);
    }

    #[test]
    fn a_file_reads_from_yaml_and_unknown_words_are_refused() {
        let text = "
faults:
- {machine: r650-*, path: '*/Tasks/*', method: GET, count: 3, fault: {kind: status, status: 503, retryAfter: 5}}
- {component: BIOS, fault: {kind: brick}}
- {fault: {kind: wrongSerial, serial: XXXX}}
";
        let file: FaultFile = serde_saphyr::from_str(text).unwrap();
        assert_eq!(
            file.faults[0].fault,
            Fault::Status {
                status: 503,
                retry_after: Some(5),
                message_id: None
            }
        );
        assert_eq!(file.faults[1].component, Some(Class::Bios));
        assert_eq!(file.faults[1].fault.name(), "brick");
        assert!(serde_saphyr::from_str::<FaultFile>("faults: [{fault: {kind: nonsense}}]").is_err());
        assert!(serde_saphyr::from_str::<FaultFile>("faults: [{machin: x, fault: {kind: brick}}]").is_err());
    }

    #[test]
    fn the_same_seed_gives_the_same_sequence() {
        let (a, b) = (Faults::new(7), Faults::new(7));
        let take = |f: &Faults| (0..5).map(|_| f.random()).collect::<Vec<_>>();
        assert_eq!(take(&a), take(&b));
        assert_ne!(take(&Faults::new(8)), take(&Faults::new(7)));
    }
}
