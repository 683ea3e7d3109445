//! What a device's status says, from what was seen. Pure but for the writing of it.
//!
//! The same facts give the same status, so that a reading that found nothing new writes nothing.

use super::read::{Seen, Unread};
use crate::{
    condition::{self, Standing, Truth},
    context::Context,
    execute::difference,
    plan::notes::Note,
    writer::WriteError,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kiban_api::{
    Device, DeviceStatus, convert,
    device::{Compliance, FirmwareEntry, Hold, Identity, LastOperation, Transition},
    labels::{EXECUTOR_MANAGER, RELEASE_HOLD_ANNOTATION},
    shared::ComponentClass,
};
use kiban_bmc::{Health, PowerState};
use kiban_core::{
    assess::assess,
    compliance::Compliance as Answer,
    facts::{BaselineFacts, FirmwareFacts, PolicyFacts},
    revision,
};
use kube::ResourceExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Transitions that wait for the ledger at most; beyond, the two oldest become one.
const MOST_TRANSITIONS: usize = 16;
/// Lines of differences that a status carries.
const MOST_DIFFERENCES: usize = 32;

/// Something that changes what is known of a device.
#[derive(Clone, Debug)]
pub enum Change {
    /// It was read.
    Read(Box<Seen>),
    /// It could not be read, often enough to say so.
    Unread {
        /// Why.
        why: Unread,
        /// Whether the last good reading is older than the policy wants.
        stale: bool,
    },
    /// Nothing was read; what it is measured by changed.
    Measured,
    /// An operation on it ended.
    Finished {
        /// How.
        last: LastOperation,
        /// Whether a person must look.
        hold: Option<Hold>,
        /// What was read afterwards.
        seen: Option<Box<Seen>>,
        /// The classes that it updated: a change of theirs is its own, and no drift.
        classes: Vec<ComponentClass>,
    },
}

/// What a device's firmware is measured by.
#[derive(Clone, Debug, Default)]
pub struct Measure {
    /// The baseline that applies.
    pub baseline: Option<BaselineFacts>,
    /// The fleet's policy.
    pub policy: PolicyFacts,
    /// The revision that its rollout has, or will have as soon as a plan is made.
    pub revision: Option<String>,
}

impl Measure {
    /// What the fleet's objects say about a device.
    #[must_use]
    pub fn of(context: &Context, device: &Device) -> Self {
        let stores = &context.stores;
        let policy = stores
            .policies
            .all()
            .first()
            .and_then(|policy| convert::policy(policy).ok())
            .unwrap_or_default();
        let pool = Some(&device.spec.pool)
            .filter(|name| !name.is_empty())
            .and_then(|name| stores.pools.get(name));
        let baseline = pool.as_ref().and_then(|pool| {
            let named = pool
                .spec
                .baselines
                .iter()
                .filter_map(|name| stores.baselines.get(name));
            let mut speaking = named.filter(|baseline| baseline.spec.models.contains(&device.spec.model));
            // Two that speak of one model are the planner's finding; neither is measured by.
            let only = speaking.next().filter(|_| speaking.next().is_none());
            only.and_then(|baseline| convert::baseline(&baseline).ok())
        });
        let revision = pool.zip(baseline.as_ref()).map(|(pool, baseline)| {
            let components = revision::of_components(&baseline.components);
            revision::of(&components, pool.spec.rollout.retry)
        });
        Self {
            baseline,
            policy,
            revision,
        }
    }
}

/// Writes what a change makes of a device's status. None: nothing changed.
pub async fn write(context: &Context, name: &str, change: &Change) -> Result<Option<Device>, WriteError> {
    let mut device = match context.stores.devices.get(name) {
        Some(device) => (*device).clone(),
        None => return Ok(None),
    };
    for attempt in 0..4 {
        let old = device.status.clone().unwrap_or_default();
        let new = next(
            &device,
            change,
            &Measure::of(context, &device),
            context.clock.now(),
        );
        if let Change::Read(seen) | Change::Finished { seen: Some(seen), .. } = change {
            keep_inventory(context, name, &old, &new, seen);
        }
        let Some(mut status) = patch(&old, &new) else {
            return Ok(None);
        };
        // What the planner has to say of it goes along: one write instead of two.
        let mut note = context.notes.get(name);
        if matches!(change, Change::Finished { .. }) {
            // What the planner thought while it ran is over: it waits on nothing until the next plan says so.
            let binding = match note {
                Some(note) => note.binding,
                None => Note::of(&device).binding,
            };
            note = Some(Note {
                binding,
                waiting_on: None,
            });
        }
        if let (Some(Value::Object(note)), Value::Object(status)) =
            (note.as_ref().map(Note::patch), &mut status)
        {
            status.extend(note);
        }
        let metadata = json!({"uid": device.uid(), "resourceVersion": device.resource_version()});
        let patch = json!({"metadata": metadata, "status": status});
        match context
            .writer
            .merge_status::<Device>(EXECUTOR_MANAGER, name, &patch)
            .await
        {
            Ok(device) => {
                tracing::debug!(
                    device = name,
                    noted = note.is_some(),
                    "a device's status is written"
                );
                if let Some(note) = &note {
                    context.notes.written(name, note, context.clock.elapsed());
                }
                return Ok(Some(device));
            }
            Err(error) if error.is_conflict() && attempt < 3 => {
                // The planner or the ledger wrote beside us: decide again on what is there now.
                let read =
                    tokio::time::timeout(context.config.api_deadline, context.api::<Device>().get_opt(name))
                        .await;
                match read {
                    Ok(Ok(Some(there))) if there.uid() == device.uid() => device = there,
                    Ok(Ok(_)) => return Ok(None),
                    _ => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn patch(old: &DeviceStatus, new: &DeviceStatus) -> Option<serde_json::Value> {
    let (old, mut new) = (serde_json::to_value(old).ok()?, serde_json::to_value(new).ok()?);
    if let Some(schema) =
        kiban_api::generate::schema("Device").and_then(|schema| schema.pointer("/properties/status"))
    {
        kiban_api::bounds::fit(&mut new, schema);
    }
    difference(&old, &new)
}

/// The status after a change.
#[must_use]
pub fn next(device: &Device, change: &Change, measure: &Measure, now: Timestamp) -> DeviceStatus {
    let mut status = device.status.clone().unwrap_or_default();
    let generation = device.metadata.generation.unwrap_or(0);
    status.observed_generation = generation;
    let mut news = News {
        status: &mut status,
        generation,
        now,
    };
    match change {
        Change::Read(seen) => news.read(device, seen, &[]),
        Change::Measured => {}
        Change::Unread { why, stale } => news.unread(device, why, *stale),
        Change::Finished {
            last,
            hold,
            seen,
            classes,
        } => {
            if let Some(seen) = seen {
                news.read(device, seen, classes);
            }
            news.status.last_operation = Some(last.clone());
            if let Some(hold) = hold {
                news.hold(hold.clone());
            }
        }
    }
    news.measure(measure);
    news.stand(measure.revision.as_deref());
    status
}

struct News<'a> {
    status: &'a mut DeviceStatus,
    generation: i64,
    now: Timestamp,
}

impl News<'_> {
    fn set(&mut self, type_: &str, truth: Truth, reason: &str, message: &str) {
        condition::set(
            &mut self.status.conditions,
            type_,
            truth,
            reason,
            message,
            self.generation,
            self.now,
        );
    }

    fn transition(&mut self, reason: &str, message: String) {
        let list = &mut self.status.unledgered;
        list.push(Transition {
            at: seconds(self.now),
            reason: reason.into(),
            message,
        });
        while list.len() > MOST_TRANSITIONS {
            let oldest = list.remove(0);
            if let Some(next) = list.first_mut() {
                next.message = format!("{} ({}); {}", oldest.message, oldest.reason, next.message);
                next.at = oldest.at;
            }
        }
    }

    fn read(&mut self, device: &Device, seen: &Seen, own: &[ComponentClass]) {
        let first = self.status.identity.is_none();
        let returned =
            condition::find(&self.status.conditions, "Reachable").is_some_and(|c| c.status == "False");
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        self.status.identity = Some(Identity {
            manufacturer: text(&seen.identity.manufacturer),
            model: text(&seen.identity.model),
            serial: text(&seen.identity.serial),
            uuid: text(&seen.identity.uuid),
        });
        if device.spec.bmc.tls.first_use {
            self.pin(device, seen);
        }
        self.firmware(seen, first, own);
        self.health(seen, first);
        if returned && !first {
            self.transition("Reachable", "the BMC answers again".into());
        }
        self.set("Reachable", Truth::True, "Answers", "");
        self.set("InventoryFresh", Truth::True, "Read", "");
        self.release(device);
    }

    fn pin(&mut self, device: &Device, seen: &Seen) {
        let released = self.released(device);
        let changed = self
            .status
            .hold
            .as_ref()
            .is_some_and(|hold| hold.reason == "CertificateChanged")
            && released;
        if self.status.pinned_sha256.is_none() || changed {
            self.status.pinned_sha256 = seen.certificate.map(|certificate| certificate.to_string());
        }
    }

    fn firmware(&mut self, seen: &Seen, first: bool, own: &[ComponentClass]) {
        let mut entries: Vec<FirmwareEntry> = seen.inventory.components.iter().map(entry).collect();
        if seen.inventory.power != PowerState::On {
            // A host that is off hides its adapters, or their versions: what is not seen is not gone.
            for old in &self.status.firmware {
                match entries
                    .iter_mut()
                    .find(|new| new.class == old.class && new.name == old.name)
                {
                    Some(new) if new.version.is_empty() => new.version.clone_from(&old.version),
                    Some(_) => {}
                    None => entries.push(old.clone()),
                }
            }
            entries.sort_by(|a, b| (a.class, &a.name).cmp(&(b.class, &b.name)));
        }
        if entries != self.status.firmware || self.status.firmware_read_at.is_none() {
            let foreign = |entries: &[FirmwareEntry]| -> Vec<FirmwareEntry> {
                entries
                    .iter()
                    .filter(|entry| !own.contains(&entry.class))
                    .cloned()
                    .collect()
            };
            let changes = changes(&foreign(&self.status.firmware), &foreign(&entries));
            self.status.firmware_read_at = Some(seconds(self.now));
            // The first reading is told by the ledger itself, which holds no inventory yet: no outbox is needed for it.
            if !first && !changes.is_empty() {
                self.transition("FirmwareChanged", changes.join("; "));
            }
            self.status.firmware = entries;
        }
        self.status.inventory_digest = Some(inventory_text(seen).0);
    }

    fn health(&mut self, seen: &Seen, first: bool) {
        self.status.power = Some(power(seen.inventory.power).into());
        let Some(report) = &seen.health else { return };
        let worse = report.system.max(report.bmc);
        let new = match worse {
            Health::Ok => "OK",
            Health::Warning => "Warning",
            Health::Critical => "Critical",
            Health::Unknown => "Unknown",
        };
        let old = self.status.health.replace(new.into()).unwrap_or_default();
        if !first && old != new && old != "Unknown" && !old.is_empty() {
            let why = report
                .messages
                .first()
                .map(|message| format!(": {message}"))
                .unwrap_or_default();
            self.transition("HealthChanged", format!("{old} to {new}{why}"));
        }
    }

    fn unread(&mut self, device: &Device, why: &Unread, stale: bool) {
        let (category, message) = (why.category(), why.message());
        if !matches!(why, Unread::Failed { .. }) {
            // Held until a person looked; it stays known as what it was.
            let repeated = self
                .status
                .hold
                .as_ref()
                .is_some_and(|hold| hold.reason == category);
            if !repeated {
                self.hold(Hold {
                    reason: category.into(),
                    message: message.into(),
                    operation: String::new(),
                });
            }
        }
        let was_known = condition::find(&self.status.conditions, "Reachable");
        if was_known.is_none_or(|condition| condition.status == "True") && self.status.identity.is_some() {
            self.transition("Unreachable", format!("{category}: {message}"));
        }
        self.status.health = Some("Unknown".into());
        let advice = advice(category, device);
        self.set(
            "Reachable",
            Truth::False,
            category,
            &format!("{message}; {advice}"),
        );
        if stale || self.status.identity.is_none() {
            self.set(
                "InventoryFresh",
                Truth::False,
                "NotRead",
                "the last reading is older than the policy wants",
            );
        }
    }

    fn hold(&mut self, hold: Hold) {
        if self.status.hold.as_ref() != Some(&hold) {
            self.transition("Held", format!("{}: {}", hold.reason, hold.message));
            self.status.hold = Some(hold);
        }
    }

    /// What a person writes into the annotation to release the present hold: the operation's id, or the reason where there
    /// was none.
    fn released(&self, device: &Device) -> bool {
        let Some(hold) = &self.status.hold else {
            return false;
        };
        let key = if hold.operation.is_empty() {
            &hold.reason
        } else {
            &hold.operation
        };
        device
            .annotations()
            .get(RELEASE_HOLD_ANNOTATION)
            .is_some_and(|value| value == key)
    }

    fn release(&mut self, device: &Device) {
        if self.released(device)
            && let Some(hold) = self.status.hold.take()
        {
            self.transition(
                "Released",
                format!("a person released the hold for {}", hold.reason),
            );
        }
    }

    fn measure(&mut self, measure: &Measure) {
        let read = self.status.identity.is_some();
        let fresh = condition::is_true(&self.status.conditions, "InventoryFresh");
        let (state, baseline, differs) = match &measure.baseline {
            None => (Answer::NoBaseline, String::new(), Vec::new()),
            Some(baseline) if !read || !fresh => (Answer::Unknown, baseline.name.clone(), Vec::new()),
            Some(baseline) => {
                let firmware: Vec<FirmwareFacts> = self.status.firmware.iter().map(facts).collect();
                let assessment = assess(&firmware, baseline, &measure.policy);
                let lines = assessment
                    .differences
                    .into_iter()
                    .map(|difference| difference.line);
                (
                    assessment.compliance,
                    baseline.name.clone(),
                    lines.take(MOST_DIFFERENCES).collect(),
                )
            }
        };
        let truth = match state {
            Answer::Compliant => Truth::True,
            Answer::NonCompliant => Truth::False,
            Answer::Unknown | Answer::NoBaseline => Truth::Unknown,
        };
        self.set("Compliant", truth, state.as_str(), &differs.join("; "));
        self.status.compliance = Some(Compliance {
            state: state.as_str().into(),
            baseline,
            differs,
        });
    }

    fn stand(&mut self, revision: Option<&str>) {
        let hold = self
            .status
            .hold
            .as_ref()
            .map(|hold| (hold.reason.clone(), hold.message.clone()));
        let reach = condition::find(&self.status.conditions, "Reachable")
            .filter(|condition| condition.status == "False")
            .map(|condition| (condition.reason.clone(), condition.message.clone()));
        let critical = self.status.health.as_deref() == Some("Critical");
        let compliance = self
            .status
            .compliance
            .as_ref()
            .map_or("", |compliance| compliance.state.as_str());
        let differs = condition::find(&self.status.conditions, "Compliant")
            .map(|c| c.message.clone())
            .unwrap_or_default();
        let gave_up = self.gave_up(compliance, revision);
        let standing = if let Some((reason, message)) = &hold {
            Standing::Stalled { reason, message }
        } else if let Some((reason, message)) = &reach {
            Standing::Stalled { reason, message }
        } else if critical {
            Standing::Stalled {
                reason: "Unhealthy",
                message: "the device says that it needs attention now",
            }
        } else if let Some(message) = &gave_up {
            Standing::Stalled {
                reason: "UpdateFailed",
                message,
            }
        } else if compliance == "NonCompliant" {
            Standing::Reconciling {
                reason: "UpdateWanted",
                message: &differs,
            }
        } else {
            Standing::Ready {
                reason: "AsWanted",
                message: "",
            }
        };
        condition::stand(&mut self.status.conditions, &standing, self.generation, self.now);
    }

    /// What is said of a device whose update failed and that no plan takes up again before a commit.
    fn gave_up(&self, compliance: &str, revision: Option<&str>) -> Option<String> {
        let last = self.status.last_operation.as_ref()?;
        let failed = last.outcome != "Succeeded" && Some(last.revision.as_str()) == revision;
        (failed && compliance == "NonCompliant").then(|| {
            format!(
                "{}; when that is mended, a commit that changes the baseline or raises the pool's rollout.retry tries again",
                last.message
            )
        })
    }
}

fn advice(category: &str, device: &Device) -> String {
    let (url, secret) = (&device.spec.bmc.url, &device.spec.bmc.credentials);
    match category {
        "AuthenticationFailed" => format!("check username and password in Secret {secret}"),
        "TlsUntrusted" => "check spec.bmc.tls against the BMC's certificate".into(),
        "CertificateChanged" => format!(
            "if the certificate was renewed on purpose, annotate the device with {RELEASE_HOLD_ANNOTATION}=CertificateChanged"
        ),
        "WrongMachine" => format!(
            "once address and serial are right, annotate the device with {RELEASE_HOLD_ANNOTATION}=WrongMachine"
        ),
        "SessionLimit" => {
            "other clients keep every session of the BMC; close theirs or restart the BMC".into()
        }
        "NotLicensed" => "activate the licence that the message names on the BMC".into(),
        "Invalid" => format!("check spec.bmc and Secret {secret}"),
        "Redirected" => format!("a redirect is not followed: {url} must be the BMC's own address"),
        "MalformedAnswer" => format!(
            "check whether it is the BMC that answers at {url}, and not a proxy; it is asked again by itself"
        ),
        _ => format!("check power and network of the BMC at {url}; it is asked again by itself"),
    }
}

fn entry(component: &kiban_core::component::Component) -> FirmwareEntry {
    FirmwareEntry {
        class: component.class.into(),
        name: component.name.clone(),
        manufacturer: component.manufacturer.clone().unwrap_or_default(),
        model: component.model.clone().unwrap_or_default(),
        version: component.version.clone().unwrap_or_default(),
        staged: component.staged.clone(),
        updateable: component.updateable,
        lowest_supported: component.lowest_supported.clone(),
    }
}

fn facts(entry: &FirmwareEntry) -> FirmwareFacts {
    FirmwareFacts {
        class: entry.class.into(),
        name: entry.name.clone(),
        manufacturer: entry.manufacturer.clone(),
        model: entry.model.clone(),
        version: entry.version.clone(),
        staged: entry.staged.clone(),
        updateable: entry.updateable,
        lowest_supported: entry.lowest_supported.clone(),
    }
}

/// What differs between two readings, one line per component.
fn changes(old: &[FirmwareEntry], new: &[FirmwareEntry]) -> Vec<String> {
    let same = |a: &FirmwareEntry, b: &FirmwareEntry| a.class == b.class && a.name == b.name;
    let mut lines = Vec::new();
    for entry in new {
        match old.iter().find(|before| same(before, entry)) {
            Some(before) if before.version != entry.version => {
                lines.push(format!(
                    "{} {}: {} to {}",
                    class(entry),
                    entry.name,
                    before.version,
                    entry.version
                ));
            }
            Some(_) => {}
            None => lines.push(format!(
                "{} {}: came with {}",
                class(entry),
                entry.name,
                entry.version
            )),
        }
    }
    let gone = old
        .iter()
        .filter(|before| !new.iter().any(|entry| same(before, entry)));
    lines.extend(gone.map(|before| {
        format!(
            "{} {}: is gone, had {}",
            class(before),
            before.name,
            before.version
        )
    }));
    lines
}

fn class(entry: &FirmwareEntry) -> kiban_core::component::ComponentClass {
    entry.class.into()
}

fn power(power: PowerState) -> &'static str {
    match power {
        PowerState::On => "On",
        PowerState::Off => "Off",
        PowerState::PoweringOn => "PoweringOn",
        PowerState::PoweringOff => "PoweringOff",
        PowerState::Paused => "Paused",
        PowerState::Unknown => "Unknown",
    }
}

/// The full inventory for the ledger, with its digest. JSON, which is YAML; without anything that changes by itself.
fn inventory_text(seen: &Seen) -> (String, String) {
    let value = json!({"identity": seen.identity, "components": seen.inventory.components});
    let text = serde_json::to_string_pretty(&value).unwrap_or_default();
    let digest: String = Sha256::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    (format!("sha256:{digest}"), text)
}

/// Hands the full inventory to the ledger, where it is new or asked for.
fn keep_inventory(context: &Context, name: &str, old: &DeviceStatus, new: &DeviceStatus, seen: &Seen) {
    if old.inventory_digest == new.inventory_digest && !context.inventories.is_wanted(name) {
        return;
    }
    let (digest, text) = inventory_text(seen);
    if let Err(error) = context.inventories.put(name, &digest, &text) {
        tracing::warn!(device = name, %error, "could not keep an inventory for the ledger; the next reading tries again");
    }
}

fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
