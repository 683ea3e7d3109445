//! Desired state from a work tree, and what the fleet's objects would be with it.
//!
//! ```text
//!   files ──validate (the operator's own code)──▶ documents ──overlay──▶ Snapshot as it would be, and what changed
//! ```

use crate::{cli::Global, failure::Failure, output, snapshot::Snapshot, validate as folder};
use kiban_api::{
    labels,
    validate::{self, Options, SourceObject, Validated},
};
use kube::{Resource, ResourceExt as _};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal as _,
    path::{Path, PathBuf},
};

/// Fields of one object that are listed; more are counted.
const FIELDS: usize = 40;

/// The longest value that is shown in a change.
const VALUE: usize = 60;

/// What a commit does to one object.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// `Added`, `Changed` or `Removed`.
    pub what: &'static str,
    /// The fields of the spec that change. The first forty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

/// What a commit does to one field.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldChange {
    /// Path in the spec. Example: `components[NIC].version`.
    pub field: String,
    /// Before; None: not set.
    pub from: Option<String>,
    /// After; None: not set.
    pub to: Option<String>,
}

/// The files of a folder.
pub type Files = Vec<(String, Vec<u8>)>;

/// The files as they are validated.
pub fn borrow(files: &Files) -> Vec<validate::File<'_>> {
    files
        .iter()
        .map(|(path, bytes)| validate::File { path, bytes })
        .collect()
}

/// The folder that holds the fleet: the one given, or in the root of a repository the one that its `FleetRepository` names.
#[must_use]
pub fn folder(given: &Path, snapshot: &Snapshot) -> PathBuf {
    let named = match snapshot.repositories.as_slice() {
        [one] => one.spec.path.trim_matches('/'),
        _ => "",
    };
    let inner = given.join(named);
    if !named.is_empty() && given.join(".git").exists() && inner.is_dir() {
        inner
    } else {
        given.to_path_buf()
    }
}

/// The files of a work tree.
pub fn files(folder: &Path) -> Result<Files, Failure> {
    folder::files(folder)
}

/// The files as they were at a revision.
pub fn files_at(folder: &Path, revision: &str) -> Result<Files, Failure> {
    let read = kiban_git::local::read(folder, revision).map_err(|error| {
        Failure::from_error("read the base", &error)
            .hint("give a revision that the repository in --repo has, for example origin/main; `git fetch` brings it")
    })?;
    Ok(read
        .files
        .into_iter()
        .map(|file| (file.path, file.bytes))
        .collect())
}

/// Validates files as the operator would before it applies them. What it would refuse is an error with every finding.
pub fn validated(
    files: &Files,
    global: &Global,
    snapshot: &Snapshot,
    owner: Option<&str>,
) -> Result<Validated, Failure> {
    let borrowed = borrow(files);
    let options = Options {
        namespace: global
            .namespace
            .clone()
            .unwrap_or_else(|| snapshot.namespace.clone()),
        existing: Some(existing(snapshot, owner)),
    };
    let validated = validate::validate(&borrowed, &options);
    if validated.is_ok() {
        return Ok(validated);
    }
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = validate::render(&validated.findings, &borrowed, color, output::width().min(160));
    output::print_error(&text);
    Err(Failure::new(validate::summary(&validated).trim())
        .hint("mend what is shown above; `kubectl kiban validate` checks it again"))
}

/// The documents of files that validate on their own.
pub fn documents(files: &Files, global: &Global) -> Result<Vec<SourceObject>, Failure> {
    let borrowed = borrow(files);
    let options = Options {
        namespace: global.namespace.clone().unwrap_or_default(),
        existing: Some(BTreeSet::new()),
    };
    let validated = validate::validate(&borrowed, &options);
    // What refers to an object that is not here is for `plan` to say; what cannot be read has no document.
    if validated.documents != validated.objects.len() {
        return Err(Failure::new(validate::summary(&validated).trim())
            .hint("`kubectl kiban validate` shows what is wrong"));
    }
    Ok(validated.objects)
}

/// Objects that do not come from the repository: the files may refer to them.
fn existing(snapshot: &Snapshot, owner: Option<&str>) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let mut add = |kind: &str, name: String, repository: Option<&String>| {
        let own = match (repository, owner) {
            (Some(repository), Some(owner)) => repository == owner,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if !own {
            found.insert((kind.to_owned(), name));
        }
    };
    macro_rules! all {
        ($($kind:literal: $list:ident),*) => {$(
            for object in &snapshot.$list {
                add($kind, object.name_any(), object.labels().get(labels::REPOSITORY_LABEL));
            }
        )*};
    }
    all!("FleetRepository": repositories, "FleetPolicy": policies, "HardwareModel": models, "HardwarePool": pools,
        "FirmwareBaseline": baselines, "Device": devices);
    found
}

/// The repository whose work tree it is: the one given, or the only one that there is.
pub fn owner(snapshot: &Snapshot, given: Option<&str>) -> Result<Option<String>, Failure> {
    match (given, snapshot.repositories.as_slice()) {
        (Some(name), _) => Ok(Some(name.to_owned())),
        (None, []) => Ok(None),
        (None, [one]) => Ok(Some(one.name_any())),
        (None, several) => {
            let names: Vec<String> = several.iter().map(|it| it.name_any()).collect();
            Err(Failure::new(format!(
                "the fleet has several repositories: {}",
                names.join(", ")
            ))
            .hint("say with --repository which of them the folder is"))
        }
    }
}

/// The objects as they would be with these documents instead of those that came from the repository; statuses stay.
pub fn overlay(
    snapshot: &mut Snapshot,
    documents: &[SourceObject],
    owner: Option<&str>,
) -> Result<Vec<Change>, Failure> {
    let mut changes = Vec::new();
    let of = |kind: &str| {
        documents
            .iter()
            .filter(move |it| it.kind == kind)
            .collect::<Vec<_>>()
    };
    macro_rules! all {
        ($($kind:literal: $list:ident),*) => {$(
            replace($kind, &mut snapshot.$list, &of($kind), owner, &mut changes)?;
        )*};
    }
    all!("FleetPolicy": policies, "HardwareModel": models, "FirmwareBaseline": baselines, "HardwarePool": pools,
        "Device": devices);
    Ok(changes)
}

fn replace<K>(
    kind: &str,
    present: &mut Vec<K>,
    documents: &[&SourceObject],
    owner: Option<&str>,
    changes: &mut Vec<Change>,
) -> Result<(), Failure>
where
    K: Resource + Serialize + DeserializeOwned,
{
    let mut old: BTreeMap<String, K> = present
        .drain(..)
        .map(|object| (object.name_any(), object))
        .collect();
    let mut new = Vec::with_capacity(documents.len());
    for document in documents {
        let before = old.remove(&document.name);
        let (object, change) = merged::<K>(kind, document, before.as_ref())?;
        changes.extend(change);
        new.push(object);
    }
    for (name, object) in old {
        let repository = object.labels().get(labels::REPOSITORY_LABEL).map(String::as_str);
        if repository.is_some() && (owner.is_none() || repository == owner) {
            changes.push(Change {
                kind: kind.to_owned(),
                name,
                what: "Removed",
                fields: Vec::new(),
            });
        } else {
            new.push(object);
        }
    }
    *present = new;
    Ok(())
}

/// A document as the object that it would become.
fn merged<K>(kind: &str, document: &SourceObject, before: Option<&K>) -> Result<(K, Option<Change>), Failure>
where
    K: Resource + Serialize + DeserializeOwned,
{
    let fail = |error: serde_json::Error| {
        Failure::new(format!(
            "{}:{}: {kind} {}: {error}",
            document.file, document.line, document.name
        ))
    };
    // Through the type and back: with the schema's defaults, as the API server would store it.
    let typed: K = serde_json::from_value(document.value.clone()).map_err(fail)?;
    let mut value = serde_json::to_value(&typed).map_err(fail)?;
    let Some(before) = before else {
        let change = Change {
            kind: kind.to_owned(),
            name: document.name.clone(),
            what: "Added",
            fields: Vec::new(),
        };
        return Ok((typed, Some(change)));
    };
    let old = serde_json::to_value(before).map_err(fail)?;
    let mut fields = Vec::new();
    differences(
        "",
        old.get("spec").unwrap_or(&Value::Null),
        value.get("spec").unwrap_or(&Value::Null),
        &mut fields,
    );
    fields.truncate(FIELDS);
    if let Some(status) = old.get("status") {
        value["status"] = status.clone();
    }
    value["metadata"] = old.get("metadata").cloned().unwrap_or_default();
    let change = (!fields.is_empty()).then(|| Change {
        kind: kind.to_owned(),
        name: document.name.clone(),
        what: "Changed",
        fields,
    });
    let mut object: K = serde_json::from_value(value).map_err(fail)?;
    if change.is_some() {
        object.annotations_mut().remove(labels::COMMIT_ANNOTATION);
    }
    Ok((object, change))
}

/// The leaves in which two values differ. Entries of a list are told apart by what they are, not by where they stand.
fn differences(path: &str, old: &Value, new: &Value, found: &mut Vec<FieldChange>) {
    if old == new || found.len() > FIELDS {
        return;
    }
    match (old, new) {
        (Value::Object(one), Value::Object(other)) => {
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                differences(&path, &of(one), &of(other), found);
            }
        }
        (Value::Array(one), Value::Array(other)) if keyed(one) && keyed(other) => {
            let index = |list: &[Value]| -> BTreeMap<String, Value> {
                list.iter().map(|it| (key_of(it), it.clone())).collect()
            };
            let (one, other) = (index(one), index(other));
            let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let of = |map: &BTreeMap<String, Value>| map.get(key).cloned().unwrap_or_default();
                differences(&format!("{path}[{key}]"), &of(&one), &of(&other), found);
            }
        }
        _ => found.push(FieldChange {
            field: path.to_owned(),
            from: text(old),
            to: text(new),
        }),
    }
}

/// Whether every entry has a key of its own.
fn keyed(list: &[Value]) -> bool {
    let keys: BTreeSet<String> = list.iter().map(key_of).collect();
    keys.len() == list.len() && !keys.contains("")
}

/// What an entry of a list is: its class with its patterns, or its name.
fn key_of(entry: &Value) -> String {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("class").is_empty() {
        return text("name").to_owned();
    }
    let patterns = entry.get("match").and_then(Value::as_object);
    let patterns = patterns
        .into_iter()
        .flat_map(|map| map.values())
        .filter_map(Value::as_str);
    [text("class")]
        .into_iter()
        .chain(patterns)
        .collect::<Vec<_>>()
        .join(" ")
}

fn text(value: &Value) -> Option<String> {
    let full = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        // An entry of a baseline is known by its version.
        Value::Object(map) if map.contains_key("class") && map.contains_key("version") => map
            .get("version")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        other => other.to_string(),
    };
    if full.chars().count() <= VALUE {
        return Some(full);
    }
    Some(full.chars().take(VALUE - 1).chain(['…']).collect())
}

/// Why the operator would hold a commit with these removals, if it would: the prune guard.
#[must_use]
pub fn held(before: &Snapshot, changes: &[Change], owner: Option<&str>) -> Option<String> {
    let percent = before
        .policies
        .first()
        .map_or(10, |policy| policy.spec.prune.max_percent) as usize;
    let mut removed: BTreeMap<&str, usize> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.what == "Removed") {
        *removed.entry(&change.kind).or_default() += 1;
    }
    let others = existing(before, owner);
    let total = |kind: &str| {
        let all = match kind {
            "FleetPolicy" => before.policies.len(),
            "HardwareModel" => before.models.len(),
            "HardwarePool" => before.pools.len(),
            "FirmwareBaseline" => before.baselines.len(),
            _ => before.devices.len(),
        };
        all.saturating_sub(others.iter().filter(|(other, _)| other == kind).count())
    };
    let over: Vec<String> = removed
        .into_iter()
        .filter_map(|(kind, n)| {
            let total = total(kind).max(n);
            let allowed = (total * percent / 100).max(1);
            (n > allowed).then(|| format!("{n} of {total} {kind} (allowed: {allowed})"))
        })
        .collect();
    (!over.is_empty()).then(|| {
        format!(
            "it removes {}: the operator holds such a commit until a person confirms it with the annotation {}",
            over.join(", "),
            labels::CONFIRM_PRUNE_ANNOTATION
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_change_is_told_by_what_it_is_not_by_where_it_stands() {
        let old = json!({"models": ["a"], "components": [
            {"class": "BIOS", "version": "1"}, {"class": "NIC", "match": {"manufacturer": "M"}, "version": "1"}]});
        let new = json!({"models": ["a"], "components": [
            {"class": "BMC", "version": "7"},
            {"class": "NIC", "match": {"manufacturer": "M"}, "version": "2"}, {"class": "BIOS", "version": "1"}]});
        let mut found = Vec::new();
        differences("", &old, &new, &mut found);
        let lines: Vec<String> = found
            .iter()
            .map(|it| format!("{}: {:?} -> {:?}", it.field, it.from, it.to))
            .collect();
        assert_eq!(
            lines,
            [
                "components[BMC]: None -> Some(\"7\")",
                "components[NIC M].version: Some(\"1\") -> Some(\"2\")"
            ]
        );
    }
}
