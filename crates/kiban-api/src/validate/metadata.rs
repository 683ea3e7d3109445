//! What a document may say of itself: a name, labels, annotations, and nothing that belongs to a cluster.

use super::{
    Finding, Options, schema, text,
    yaml::{Content, Node, Place},
};
use crate::{labels, shared};
use regex::Regex;
use std::sync::OnceLock;

/// Most labels, and most annotations. Stored objects stay small.
const MAX_ENTRIES: usize = 32;
/// Most bytes of all annotations of an object. Kubernetes would take 256 KiB, etcd would regret it.
const MAX_ANNOTATION_BYTES: usize = 16 << 10;
/// Longest name that Kubernetes takes.
const MAX_NAME: usize = 253;

/// Checks `metadata`; returns the name, as far as there is one.
pub(super) fn check(file: &str, root: &Node, options: &Options, findings: &mut Vec<Finding>) -> String {
    let mut check = Check { file, findings };
    let Some(metadata) = root.get("metadata") else {
        check.error(
            root.place,
            "metadata",
            "metadata.name is missing",
            "every object has a name",
        );
        return String::new();
    };
    let Some(fields) = metadata.as_map() else {
        check.error(
            metadata.place,
            "metadata",
            "metadata must be a map with a name",
            "",
        );
        return String::new();
    };
    let mut name = None;
    for (key, value) in fields {
        match key.text.as_str() {
            "name" => name = Some(check.name(value)),
            "namespace" => check.namespace(value, options),
            "labels" => check.entries(value, "metadata.labels", true),
            "annotations" => check.entries(value, "metadata.annotations", false),
            other => check.foreign(other, key.place),
        }
    }
    name.unwrap_or_else(|| {
        check.error(
            metadata.place,
            "metadata.name",
            "metadata.name is missing",
            "every object has a name",
        );
        String::new()
    })
}

struct Check<'f, 'a> {
    file: &'a str,
    findings: &'f mut Vec<Finding>,
}

impl Check<'_, '_> {
    fn error(&mut self, place: Place, field: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.findings
            .push(Finding::error(self.file, place, field, message).hint(hint));
    }

    fn name(&mut self, node: &Node) -> String {
        const FIELD: &str = "metadata.name";
        let Content::Scalar { text: name, plain } = &node.content else {
            self.error(node.place, FIELD, "metadata.name must be a text", "");
            return String::new();
        };
        if *plain && let Some(read_as) = schema::misread(name) {
            let message = format!(
                "metadata.name must be a text, and {} without quotes is {read_as}",
                text::shown(name)
            );
            self.error(node.place, FIELD, message, format!("quote it: \"{name}\""));
        }
        if name.len() > MAX_NAME {
            let message = format!("metadata.name has {} characters, the limit is 63", name.len());
            self.error(node.place, FIELD, message, "");
        } else if !is_name(name) {
            let hint = match name
                .chars()
                .find(|c| !c.is_ascii_lowercase() && !c.is_ascii_digit() && !matches!(c, '-' | '.'))
            {
                Some(c) if c.is_ascii_uppercase() => {
                    format!("write it in lower case: {}", name.to_lowercase())
                }
                Some(c) if !c.is_ascii() => format!("{} is no Latin letter", c.escape_unicode()),
                Some('_') => "write - for _".into(),
                Some(c) => format!("{} does not belong into a name", text::shown(&c.to_string())),
                None => {
                    "it begins and ends with a letter or digit, and so does each part between dots".into()
                }
            };
            let message = format!(
                "metadata.name must consist of lower-case letters, digits, - and ., not be {}",
                text::shown(name)
            );
            self.error(node.place, FIELD, message, hint);
        }
        name.clone()
    }

    fn namespace(&mut self, node: &Node, options: &Options) {
        let namespace = node.text().unwrap_or_default();
        if !is_name(namespace) || namespace.len() > 63 {
            let message = format!(
                "metadata.namespace must be a namespace's name, not {}",
                text::shown(namespace)
            );
            self.error(
                node.place,
                "metadata.namespace",
                message,
                "leave it out: a fleet is one namespace",
            );
        } else if !options.namespace.is_empty() && namespace != options.namespace {
            let message = format!(
                "metadata.namespace is {namespace}, and the fleet is in {}",
                options.namespace
            );
            self.error(
                node.place,
                "metadata.namespace",
                message,
                "leave it out: a fleet is one namespace",
            );
        }
    }

    /// A field that a cluster gives an object, or none at all.
    fn foreign(&mut self, name: &str, place: Place) {
        let field = format!("metadata.{name}");
        match name {
            "uid"
            | "resourceVersion"
            | "generation"
            | "creationTimestamp"
            | "deletionTimestamp"
            | "deletionGracePeriodSeconds"
            | "selfLink"
            | "managedFields"
            | "ownerReferences"
            | "finalizers" => {
                let hint = "delete it: this file was taken from a cluster (kubectl get -o yaml), and the field belongs to that one";
                self.error(
                    place,
                    &field,
                    format!("{field} belongs to a cluster, not into Git"),
                    hint,
                );
            }
            "generateName" => {
                self.error(
                    place,
                    &field,
                    "metadata.generateName would make a new object with each commit",
                    "give a name",
                );
            }
            _ => {
                let hint = text::suggestion(name, ["name", "namespace", "labels", "annotations"]);
                let hint = hint.unwrap_or_else(|| "known here: name, namespace, labels, annotations".into());
                self.error(
                    place,
                    &field,
                    format!("unknown field {}", text::shown(&field)),
                    hint,
                );
            }
        }
    }

    fn entries(&mut self, node: &Node, field: &str, are_labels: bool) {
        let Some(entries) = node.as_map() else {
            self.error(node.place, field, format!("{field} must be a map of texts"), "");
            return;
        };
        if entries.len() > MAX_ENTRIES {
            self.error(
                node.place,
                field,
                format!(
                    "{field} has {} entries, the limit is {MAX_ENTRIES}",
                    entries.len()
                ),
                "",
            );
            return;
        }
        let mut bytes = 0;
        for (key, value) in entries {
            let path = format!("{field}.{}", text::shown(&key.text).trim_matches('`'));
            bytes += key.text.len() + value.text().map_or(0, str::len);
            let (prefix, name) = key.text.split_once('/').unwrap_or(("", &key.text));
            let good =
                (prefix.is_empty() || is_name(prefix) && prefix.len() <= MAX_NAME) && is_qualified(name);
            if !good {
                self.error(
                    key.place,
                    &path,
                    format!("{} is no key for {field}", text::shown(&key.text)),
                    "a key is [prefix/]name, the name up to 63 letters, digits, -, _ and .",
                );
            } else if are_labels && key.text == labels::REDUNDANCY_GROUP_LABEL {
                // The one that people write.
            } else if prefix == labels::GROUP || prefix.ends_with(&format!(".{}", labels::GROUP)) {
                let hint = "set it in the cluster where a person should (kubectl annotate); a commit cannot";
                self.error(
                    key.place,
                    &path,
                    format!("{} is reserved: the operator reads and writes it", key.text),
                    hint,
                );
            }
            let Content::Scalar {
                text: value_text,
                plain,
            } = &value.content
            else {
                self.error(value.place, &path, format!("{path} must be a text"), "");
                continue;
            };
            if *plain && let Some(read_as) = schema::misread(value_text) {
                let message = format!(
                    "{path} must be a text, and {} without quotes is {read_as}",
                    text::shown(value_text)
                );
                self.error(value.place, &path, message, format!("quote it: \"{value_text}\""));
            } else if are_labels && !(value_text.is_empty() || is_qualified(value_text)) {
                let message = format!("{path} is {}, which is no label value", text::shown(value_text));
                self.error(
                    value.place,
                    &path,
                    message,
                    "up to 63 letters, digits, -, _ and ., on one line; longer texts are annotations",
                );
            } else if value_text.chars().any(text::is_control) {
                self.error(
                    value.place,
                    &path,
                    format!("{path} holds a control character"),
                    "delete it",
                );
            }
        }
        if !are_labels && bytes > MAX_ANNOTATION_BYTES {
            let message = format!(
                "{field} has {} KB, the limit is {} KB",
                bytes >> 10,
                MAX_ANNOTATION_BYTES >> 10
            );
            self.error(
                node.place,
                field,
                message,
                "annotations are stored with every object: keep long texts elsewhere and link them",
            );
        }
    }
}

fn is_name(text: &str) -> bool {
    static NAME: OnceLock<Option<Regex>> = OnceLock::new();
    NAME.get_or_init(|| Regex::new(shared::NAME).ok())
        .as_ref()
        .is_some_and(|regex| regex.is_match(text))
}

fn is_qualified(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63 && text.bytes().all(inner) && ends(text.bytes().next()) && ends(text.bytes().last())
}
