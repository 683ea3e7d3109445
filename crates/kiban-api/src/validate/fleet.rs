//! What must fit together across documents.

use super::{Document, Finding, Options, text};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Checks all documents against each other.
pub(super) fn check(documents: &[Document<'_>], options: &Options, findings: &mut Vec<Finding>) {
    let fleet = Fleet::new(documents, options);
    fleet.twice(findings);
    for document in documents {
        match document.kind {
            "Device" => fleet.device(document, findings),
            "HardwarePool" => fleet.pool(document, findings),
            "FirmwareBaseline" => fleet.baseline(document, findings),
            "FleetPolicy" => fleet.policy(document, findings),
            _ => {}
        }
    }
    fleet.devices_apart(findings);
    fleet.rollouts_apart(findings);
}

/// The documents by kind and name, and what is asked of them more than once.
struct Fleet<'d, 'a> {
    documents: &'d [Document<'a>],
    options: &'d Options,
    by_name: HashMap<(&'d str, &'d str), &'d Document<'a>>,
    /// Devices of each pool.
    members: HashMap<&'d str, Vec<&'d Document<'a>>>,
}

impl<'d, 'a> Fleet<'d, 'a> {
    fn new(documents: &'d [Document<'a>], options: &'d Options) -> Self {
        let mut by_name = HashMap::new();
        let mut members: HashMap<&str, Vec<_>> = HashMap::new();
        for document in documents {
            by_name
                .entry((document.kind, document.name.as_str()))
                .or_insert(document);
            if document.kind == "Device" {
                members
                    .entry(text(&document.value, "/spec/pool"))
                    .or_default()
                    .push(document);
            }
        }
        Self {
            documents,
            options,
            by_name,
            members,
        }
    }

    fn twice(&self, findings: &mut Vec<Finding>) {
        for document in self.documents.iter().filter(|document| !document.name.is_empty()) {
            let Some(first) = self.by_name.get(&(document.kind, document.name.as_str())) else {
                continue;
            };
            if !std::ptr::eq(*first, document) {
                let message = format!("{} {} is defined twice", document.kind, document.name);
                let place = document.root.at("metadata.name").place;
                let found = Finding::error(document.file, place, "metadata.name", message);
                findings.push(found.label(format!("first in {}:{}", first.file, first.root.place.line)));
            }
        }
    }

    /// Whether a reference leads somewhere; a finding if not.
    fn refers(
        &self,
        document: &Document<'_>,
        field: &str,
        kind: &str,
        name: &str,
        findings: &mut Vec<Finding>,
    ) -> bool {
        let elsewhere = self.options.existing.as_ref();
        let exists = self.by_name.contains_key(&(kind, name))
            || elsewhere.is_some_and(|existing| existing.contains(&(kind.to_owned(), name.to_owned())));
        // A name that is none has a finding of its own.
        if exists || name.is_empty() {
            return exists;
        }
        let known = self
            .by_name
            .keys()
            .filter(|(known, _)| *known == kind)
            .map(|(_, name)| *name);
        let place = document.root.at(field).place;
        let found = Finding::error(
            document.file,
            place,
            field,
            format!("there is no {kind} {}", text::shown(name)),
        );
        findings.push(
            found.hint(text::suggestion(name, known).unwrap_or_else(|| format!("add a {kind} of that name"))),
        );
        false
    }

    fn device(&self, device: &Document<'_>, findings: &mut Vec<Finding>) {
        self.refers(
            device,
            "spec.model",
            "HardwareModel",
            text(&device.value, "/spec/model"),
            findings,
        );
        self.refers(
            device,
            "spec.pool",
            "HardwarePool",
            text(&device.value, "/spec/pool"),
            findings,
        );
    }

    fn baseline(&self, baseline: &Document<'_>, findings: &mut Vec<Finding>) {
        for (index, model) in texts(&baseline.value, "/spec/models").enumerate() {
            self.refers(
                baseline,
                &format!("spec.models[{index}]"),
                "HardwareModel",
                model,
                findings,
            );
        }
        // What the schema refuses has its own findings, and is not understood further.
        if let Ok(object) = serde_json::from_value(baseline.value.clone())
            && let Err(errors) = crate::convert::baseline(&object)
        {
            for error in errors.0 {
                let place = baseline.root.at(&error.field).place;
                findings.push(Finding::error(baseline.file, place, &error.field, error.message));
            }
        }
        for (index, component) in list(&baseline.value, "/spec/components").iter().enumerate() {
            if text(component, "/image/url").starts_with("file:") {
                let field = format!("spec.components[{index}].image.url");
                let message = "an image from a file is taken only where the operator was started to allow it";
                findings.push(Finding::warning(
                    baseline.file,
                    baseline.root.at(&field).place,
                    &field,
                    message,
                ));
            }
        }
    }

    fn pool(&self, pool: &Document<'_>, findings: &mut Vec<Finding>) {
        let mut of_model: HashMap<&str, &str> = HashMap::new();
        for (index, name) in texts(&pool.value, "/spec/baselines").enumerate() {
            let field = format!("spec.baselines[{index}]");
            if !self.refers(pool, &field, "FirmwareBaseline", name, findings) {
                continue;
            }
            let Some(baseline) = self.by_name.get(&("FirmwareBaseline", name)) else {
                continue;
            };
            for model in texts(&baseline.value, "/spec/models") {
                if let Some(other) = of_model.insert(model, name).filter(|other| *other != name) {
                    let message =
                        format!("the pool has two baselines for the model {model}: {other} and {name}");
                    let found = Finding::error(pool.file, pool.root.at(&field).place, &field, message);
                    findings.push(found.hint(
                        "a device can be kept at one baseline only: take one out, or part their models",
                    ));
                }
            }
        }
        let members = self
            .members
            .get(pool.name.as_str())
            .map(Vec::as_slice)
            .unwrap_or_default();
        // Devices may be elsewhere, when files are only a part of the fleet.
        if members.is_empty() {
            if self.options.existing.is_none() {
                let place = pool.root.at("metadata.name").place;
                findings.push(Finding::warning(
                    pool.file,
                    place,
                    "metadata.name",
                    format!("no device is in the pool {}", pool.name),
                ));
            }
            return;
        }
        waves(pool, members.len(), findings);
        budget(pool, members.len(), findings);
        places(pool, members, findings);
    }

    /// The budgets that pools share.
    fn policy(&self, policy: &Document<'_>, findings: &mut Vec<Finding>) {
        let mut warn = |field: &str, message: String| {
            let place = policy.root.at(field).place;
            findings.push(Finding::warning(policy.file, place, field, message));
        };
        if is_nothing(&policy.value["spec"]["maxUnavailable"]) {
            let message = "with this budget nothing of the fleet is ever updated";
            warn("spec.maxUnavailable", message.to_owned());
        }
        let pools = self.documents.iter().filter(|it| it.kind == "HardwarePool");
        let served: BTreeSet<&str> = pools.map(|pool| text(&pool.value, "/spec/service")).collect();
        for (index, service) in list(&policy.value, "/spec/services").iter().enumerate() {
            let name = text(service, "/name");
            if is_nothing(&service["maxUnavailable"]) {
                let message = format!("with this budget nothing of the service {name} is ever updated");
                warn(&format!("spec.services[{index}].maxUnavailable"), message);
            }
            if !served.contains(name) && self.options.existing.is_none() {
                let message = format!("no pool serves {}", text::shown(name));
                warn(&format!("spec.services[{index}].name"), message);
            }
        }
    }

    /// One machine is one device: neither serial number nor BMC may be in two.
    fn devices_apart(&self, findings: &mut Vec<Finding>) {
        let mut serials: HashMap<String, &Document<'_>> = HashMap::new();
        let mut addresses: HashMap<String, &Document<'_>> = HashMap::new();
        let mut uuids: HashMap<String, &Document<'_>> = HashMap::new();
        for device in self.documents.iter().filter(|document| document.kind == "Device") {
            let once = [
                (
                    "spec.serial",
                    "serial number",
                    &mut serials,
                    text(&device.value, "/spec/serial").to_ascii_uppercase(),
                ),
                (
                    "spec.uuid",
                    "UUID",
                    &mut uuids,
                    text(&device.value, "/spec/uuid").to_ascii_lowercase(),
                ),
                (
                    "spec.bmc.url",
                    "BMC",
                    &mut addresses,
                    address(text(&device.value, "/spec/bmc/url")),
                ),
            ];
            for (field, what, seen, value) in once {
                if value.is_empty() {
                    continue;
                }
                match seen.get(&value) {
                    // The same device twice has its own finding.
                    Some(first) if first.name != device.name => {
                        let message = format!("the {what} of {} is that of {}, too", device.name, first.name);
                        let found = Finding::error(device.file, device.root.at(field).place, field, message);
                        findings.push(found.label(format!(
                            "also in {}:{}",
                            first.file,
                            first.root.at(field).place.line
                        )));
                    }
                    Some(_) => {}
                    None => {
                        seen.insert(value, device);
                    }
                }
            }
        }
    }

    /// `a` with `b-c`, and `a-b` with `c`, would be one rollout.
    fn rollouts_apart(&self, findings: &mut Vec<Finding>) {
        let mut names: BTreeMap<String, (&str, &str)> = BTreeMap::new();
        for pool in self
            .documents
            .iter()
            .filter(|document| document.kind == "HardwarePool")
        {
            for (index, baseline) in texts(&pool.value, "/spec/baselines").enumerate() {
                let name = format!("{}-{baseline}", pool.name);
                let mine = (pool.name.as_str(), baseline);
                let first = *names.entry(name.clone()).or_insert(mine);
                if first != mine {
                    let field = format!("spec.baselines[{index}]");
                    let message = format!(
                        "the rollout of this pool and baseline would be named {name}, as that of pool {} and baseline {}",
                        first.0, first.1
                    );
                    let found = Finding::error(pool.file, pool.root.at(&field).place, &field, message);
                    findings.push(found.hint("name one of the four otherwise"));
                }
            }
        }
    }
}

fn waves(pool: &Document<'_>, size: usize, findings: &mut Vec<Finding>) {
    for (index, wave) in list(&pool.value, "/spec/rollout/waves").iter().enumerate() {
        let devices = wave["devices"]
            .as_u64()
            .and_then(|devices| usize::try_from(devices).ok());
        if devices.is_some_and(|devices| devices > size) {
            let field = format!("spec.rollout.waves[{index}].devices");
            let message = "a wave wants more devices than the pool has";
            let found = Finding::error(pool.file, pool.root.at(&field).place, &field, message);
            let found = found.label(format!(
                "the pool has {size} device{}",
                if size == 1 { "" } else { "s" }
            ));
            findings.push(found.hint(format!(
                "waves[{index}].devices counts devices, not percent; write `percent: …` for a share"
            )));
        }
    }
}

/// A budget of nothing: legal, and said.
fn is_nothing(amount: &Value) -> bool {
    amount.as_u64() == Some(0) || amount.as_str() == Some("0%")
}

fn budget(pool: &Document<'_>, size: usize, findings: &mut Vec<Finding>) {
    const FIELD: &str = "spec.disruption.maxUnavailable";
    let amount = &pool.value["spec"]["disruption"]["maxUnavailable"];
    let count = amount.as_u64().and_then(|count| usize::try_from(count).ok());
    let message = match (count, amount.as_str()) {
        _ if is_nothing(amount) => "with this budget nothing of the pool is ever updated".to_owned(),
        (_, Some("100%")) => "this budget lets the whole pool go down at once".to_owned(),
        (Some(count), _) if count >= size && size > 1 => {
            format!("this budget lets the whole pool go down at once: it has {size} devices")
        }
        _ => return,
    };
    findings.push(Finding::warning(
        pool.file,
        pool.root.at(FIELD).place,
        FIELD,
        message,
    ));
}

/// Devices that do not say where they stand share one failure domain, which is seldom meant where others do.
fn places(pool: &Document<'_>, members: &[&Document<'_>], findings: &mut Vec<Finding>) {
    let domain = match text(&pool.value, "/spec/disruption/domain") {
        "Room" => "room",
        "Site" => "site",
        "Power" => "power",
        _ => "rack",
    };
    let path = format!("/spec/location/{domain}");
    let without: BTreeSet<&str> = members
        .iter()
        .filter(|device| text(&device.value, &path).is_empty() && list(&device.value, &path).is_empty())
        .map(|device| device.name.as_str())
        .collect();
    let Some(first) = members
        .iter()
        .find(|device| without.contains(device.name.as_str()))
    else {
        return;
    };
    let message = match without.len() {
        1 => format!(
            "{} does not say its {domain}, which the pool {} spreads by",
            first.name, pool.name
        ),
        many => format!(
            "{} and {} more do not say their {domain}, which the pool {} spreads by",
            first.name,
            many - 1,
            pool.name
        ),
    };
    let found = Finding::warning(
        first.file,
        first.root.at("spec.location").place,
        &format!("spec.location.{domain}"),
        message,
    );
    findings.push(found.hint(format!(
        "devices without a {domain} count as one {domain} together"
    )));
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn list<'v>(value: &'v Value, pointer: &str) -> &'v [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn texts<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = &'v str> {
    list(value, pointer)
        .iter()
        .map(|item| item.as_str().unwrap_or_default())
}

/// An address as it is compared: two spellings of one BMC are one BMC.
fn address(url: &str) -> String {
    let url = url.trim_end_matches('/').to_ascii_lowercase();
    url.strip_suffix(":443").map(str::to_owned).unwrap_or(url)
}
