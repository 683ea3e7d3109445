//! A document against the OpenAPI schema of its kind, as the API server judges it, in words for people.

use super::{
    Finding, text,
    yaml::{Content, Node, Place, Plain, plain},
};
use crate::shared;
use regex::Regex;
use serde_json::{Map, Value};
use std::{collections::HashMap, fmt::Write as _, sync::Mutex, sync::OnceLock};

/// Goes through one document and gathers findings.
pub(super) struct Walk<'f, 'a> {
    file: &'a str,
    findings: &'f mut Vec<Finding>,
    path: String,
}

impl<'f, 'a> Walk<'f, 'a> {
    pub(super) fn new(file: &'a str, findings: &'f mut Vec<Finding>) -> Self {
        Self {
            file,
            findings,
            path: String::new(),
        }
    }

    /// The whole object; `metadata` is somebody else's, and taken as it is.
    pub(super) fn object(&mut self, root: &Node, schema: &Value) -> Value {
        let mut value = Map::new();
        for (key, node) in root.as_map().unwrap_or_default() {
            match key.text.as_str() {
                "apiVersion" | "kind" | "metadata" => {
                    value.insert(key.text.clone(), node.to_json());
                }
                "spec" => {
                    let schema = &schema["properties"]["spec"];
                    let spec = self.field("spec", |walk| walk.value(node, schema));
                    value.insert("spec".into(), spec);
                }
                "status" => {
                    let found = Finding::error(
                        self.file,
                        key.place,
                        "status",
                        "status is written by the operator, never in Git",
                    );
                    self.findings.push(found.hint("delete it"));
                }
                other => self.unknown(
                    other,
                    key.place,
                    ["apiVersion", "kind", "metadata", "spec"].into_iter(),
                ),
            }
        }
        if !value.contains_key("spec") {
            self.findings
                .push(Finding::error(self.file, root.place, "spec", "spec is missing"));
        }
        Value::Object(value)
    }

    fn field<T>(&mut self, name: &str, inner: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if !self.path.is_empty() && !name.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(name);
        let result = inner(self);
        self.path.truncate(length);
        result
    }

    fn error(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        let message = format!("{} {}", self.path, message.into());
        let finding = Finding::error(self.file, place, &self.path, message).hint(hint);
        self.findings.push(finding);
    }

    fn unknown<'k>(&mut self, name: &str, place: Place, known: impl Iterator<Item = &'k str> + Clone) {
        let mut message = format!("unknown field {}", text::shown(name));
        let suggestion = text::suggestion(name, known.clone());
        if let Some(suggestion) = &suggestion {
            let _ = write!(message, ", {suggestion}");
        }
        let field = if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        };
        let finding = Finding::error(self.file, place, &field, message);
        self.findings.push(match suggestion {
            Some(_) => finding,
            None => finding.hint(format!("known here: {}", known.collect::<Vec<_>>().join(", "))),
        });
    }

    fn value(&mut self, node: &Node, schema: &Value) -> Value {
        if node.is_null() {
            self.error(
                node.place,
                "has no value",
                "give one, or delete the line: null means nothing here",
            );
            return Value::Null;
        }
        if schema.get("x-kubernetes-int-or-string").is_some() {
            return self.amount(node, schema);
        }
        match schema["type"].as_str() {
            Some("object") => self.map(node, schema),
            Some("array") => self.list(node, schema),
            Some("string") => self.string(node, schema),
            Some("integer") => self.integer(node, schema),
            Some("boolean") => self.boolean(node),
            _ => node.to_json(),
        }
    }

    fn wrong_type(&mut self, node: &Node, wanted: &str, hint: &str) -> Value {
        let is = match &node.content {
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
            Content::Scalar { text, plain: true } => match plain(text) {
                Plain::Bool(_) | Plain::OldBool => "a boolean",
                Plain::Int(_) | Plain::OddNumber | Plain::Float => "a number",
                Plain::Null | Plain::Text => "a text",
            },
            Content::Scalar { .. } => "a text",
        };
        self.error(node.place, format!("must be {wanted}, not {is}"), hint);
        node.to_json()
    }

    fn map(&mut self, node: &Node, schema: &Value) -> Value {
        let Some(fields) = node.as_map() else {
            return self.wrong_type(node, "a map", "write its fields below it, indented");
        };
        let empty = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&empty);
        let mut value = Map::new();
        for (key, inner) in fields {
            match properties.get(&key.text) {
                Some(schema) => {
                    let inner = self.field(&key.text, |walk| walk.value(inner, schema));
                    value.insert(key.text.clone(), inner);
                }
                None => self.unknown(&key.text, key.place, properties.keys().map(String::as_str)),
            }
        }
        for name in schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !value.contains_key(name) {
                let doc = properties
                    .get(name)
                    .and_then(|field| field["description"].as_str())
                    .unwrap_or_default();
                let doc = doc
                    .split(". ")
                    .next()
                    .unwrap_or_default()
                    .trim_end_matches('.')
                    .to_owned();
                self.field(name, |walk| walk.error(node.place, "is missing", doc));
            }
        }
        Value::Object(value)
    }

    fn list(&mut self, node: &Node, schema: &Value) -> Value {
        let Some(items) = node.as_list() else {
            return self.wrong_type(node, "a list", "write it as [a, b], or one `- item` per line");
        };
        let bound = |key: &str| schema[key].as_u64().and_then(|bound| usize::try_from(bound).ok());
        if bound("minItems").is_some_and(|least| items.len() < least) {
            self.error(node.place, "must not be empty", "");
        }
        if let Some(most) = bound("maxItems").filter(|most| items.len() > *most) {
            self.error(
                node.place,
                format!("has {} items, the limit is {most}", items.len()),
                "",
            );
            return node.to_json();
        }
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let value = self.field(&format!("[{index}]"), |walk| walk.value(item, &schema["items"]));
            if schema["x-kubernetes-list-type"] == "set" && values.contains(&value) {
                self.error(item.place, format!("has {value} twice"), "keep one of them");
            }
            if let Some(key) = same_key(schema, &values, &value) {
                self.error(item.place, format!("has {key} twice"), "keep one of them");
            }
            values.push(value);
        }
        Value::Array(values)
    }

    fn string(&mut self, node: &Node, schema: &Value) -> Value {
        let Content::Scalar {
            text,
            plain: unquoted,
        } = &node.content
        else {
            return self.wrong_type(node, "a text", "");
        };
        if *unquoted && let Some(read_as) = misread(text) {
            let hint = format!("quote it: \"{text}\"");
            self.error(
                node.place,
                format!(
                    "must be a text, and {} without quotes is {read_as}",
                    text::shown(text)
                ),
                hint,
            );
            return text.as_str().into();
        }
        self.characters(node.place, text);
        if let Some(values) = schema["enum"].as_array() {
            let known: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
            if !known.contains(&text.as_str()) {
                let hint = text::suggestion(text, known.iter().copied()).unwrap_or_default();
                self.error(
                    node.place,
                    format!("must be one of {}, not {}", known.join(", "), text::shown(text)),
                    hint,
                );
            }
            return text.as_str().into();
        }
        let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
        if schema["maxLength"].as_u64().is_some_and(|most| length > most) {
            self.error(
                node.place,
                format!("has {length} characters, the limit is {}", schema["maxLength"]),
                "",
            );
        } else if let Some(pattern) = schema["pattern"]
            .as_str()
            .filter(|pattern| !matches(pattern, text))
        {
            let (wanted, hint) = in_words(pattern);
            self.error(
                node.place,
                format!("must be {wanted}, not {}", text::shown(text)),
                hint,
            );
        } else if schema["minLength"].as_u64().is_some_and(|least| length < least) {
            self.error(
                node.place,
                if length == 0 {
                    "must not be empty"
                } else {
                    "is too short"
                },
                "",
            );
        }
        text.as_str().into()
    }

    /// What no field may hold, whatever its pattern: what a terminal would obey, and what deceives the eye.
    fn characters(&mut self, place: Place, text: &str) {
        if let Some(bad) = text
            .chars()
            .find(|c| text::is_control(*c) || text::is_invisible(*c))
        {
            let kind = if text::is_control(bad) {
                "a control"
            } else {
                "an invisible"
            };
            self.error(
                place,
                format!("holds {kind} character, {}", bad.escape_unicode()),
                "delete it",
            );
        } else if let Some(foreign) = text::foreign_letter(text) {
            let hint = "type it with Latin letters: two names that look the same would be two things";
            self.error(
                place,
                format!(
                    "mixes alphabets: {foreign} is {}, no Latin letter",
                    foreign.escape_unicode()
                ),
                hint,
            );
        }
    }

    fn integer(&mut self, node: &Node, schema: &Value) -> Value {
        let number = match &node.content {
            Content::Scalar { text, plain: true } => plain(text),
            Content::Scalar { text, .. } if plain(text) != Plain::Text => {
                return self.wrong_type(node, "a whole number", "write it without quotes");
            }
            _ => return self.wrong_type(node, "a whole number", ""),
        };
        let Plain::Int(number) = number else {
            let shown = text::shown(node.text().unwrap_or_default());
            self.error(
                node.place,
                format!("must be a whole number in decimal, not {shown}"),
                "",
            );
            return node.to_json();
        };
        self.range(node.place, number, schema);
        number.into()
    }

    fn range(&mut self, place: Place, number: i64, schema: &Value) {
        let bound = |key: &str| schema[key].as_i64();
        if let Some(least) = bound("minimum").filter(|least| number < *least) {
            self.error(place, format!("must be at least {least}, not {number}"), "");
        }
        if let Some(most) = bound("maximum").filter(|most| number > *most) {
            self.error(place, format!("must be at most {most}, not {number}"), "");
        }
    }

    fn boolean(&mut self, node: &Node) -> Value {
        match &node.content {
            Content::Scalar { text, plain: true } => match plain(text) {
                Plain::Bool(value) => value.into(),
                _ => self.wrong_type(node, "true or false", "write true or false, without quotes"),
            },
            _ => self.wrong_type(node, "true or false", "write true or false, without quotes"),
        }
    }

    fn amount(&mut self, node: &Node, schema: &Value) -> Value {
        let hint = "write a count (3) or a share (5%)";
        let Content::Scalar {
            text,
            plain: unquoted,
        } = &node.content
        else {
            return self.wrong_type(node, "a count or a share", hint);
        };
        match plain(text) {
            Plain::Int(number) if *unquoted => {
                self.range(node.place, number, schema);
                number.into()
            }
            Plain::Text
                if schema["pattern"]
                    .as_str()
                    .is_none_or(|pattern| matches(pattern, text)) =>
            {
                text.as_str().into()
            }
            _ => {
                self.error(
                    node.place,
                    format!(
                        "must be a count or a share from 0% to 100%, not {}",
                        text::shown(text)
                    ),
                    hint,
                );
                text.as_str().into()
            }
        }
    }
}

/// What an unquoted text would be taken for that was meant as text.
pub(super) fn misread(text: &str) -> Option<&'static str> {
    match plain(text) {
        Plain::Text | Plain::Null => None,
        Plain::Bool(_) | Plain::OldBool => Some("a boolean to some YAML readers"),
        Plain::Float => Some("a decimal number, of which trailing zeros are lost"),
        Plain::Int(_) => Some("a number"),
        Plain::OddNumber => Some("a number that YAML readers read differently"),
    }
}

/// Whether a text fits a pattern of a schema. A pattern that is none fits nothing: a schema's mistake must not pass.
fn matches(pattern: &str, text: &str) -> bool {
    static COMPILED: OnceLock<Mutex<HashMap<String, Option<Regex>>>> = OnceLock::new();
    let compiled = COMPILED.get_or_init(Mutex::default);
    let mut compiled = compiled.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(known) = compiled.get(pattern) {
        return known.as_ref().is_some_and(|regex| regex.is_match(text));
    }
    let regex = Regex::new(pattern).ok();
    let fits = regex.as_ref().is_some_and(|regex| regex.is_match(text));
    compiled.insert(pattern.to_owned(), regex);
    fits
}

/// What an item of a list that is keyed by a field has in common with an item before it.
fn same_key(schema: &Value, before: &[Value], item: &Value) -> Option<String> {
    let keys = schema["x-kubernetes-list-map-keys"].as_array()?;
    let of = |item: &Value| -> Vec<Value> {
        let fields = keys.iter().filter_map(Value::as_str);
        fields.map(|key| item[key].clone()).collect()
    };
    let mine = of(item);
    let words = || {
        mine.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    before.iter().any(|other| of(other) == mine).then(words)
}

/// What a pattern wants, and a hint.
fn in_words(pattern: &str) -> (String, &'static str) {
    let (wanted, hint) = match pattern {
        shared::NAME | shared::NAME_OR_EMPTY => (
            "a name of lower-case letters, digits, - and .",
            "it is the metadata.name of another object",
        ),
        shared::DURATION => (
            "a duration such as 90m, 24h or 1d12h",
            "units are d, h, m and s, the largest first",
        ),
        shared::PERCENT => ("a share such as 5%", ""),
        shared::SHA256 => ("64 hex digits", "sha256sum prints them"),
        shared::FINGERPRINT => (
            "64 hex digits, or 32 pairs with colons",
            "openssl x509 -fingerprint -sha256 prints them",
        ),
        shared::HTTPS_URL => (
            "an https:// address without an account in it",
            "accounts belong into a Secret",
        ),
        shared::IMAGE_URL => ("an https:// address of a file, without an account in it", ""),
        shared::VERSION => ("a version in printable ASCII, without blanks around it", ""),
        shared::LINE => ("one line without control characters", ""),
        shared::LABEL => ("a name of lower-case letters, digits and -", ""),
        shared::PROBE_URL => (
            "an http:// or https:// address without an account in it",
            "accounts belong into a Secret, named by credentials",
        ),
        shared::HOST_PORT => ("a host and a port such as storage.example:3260", ""),
        shared::NUMBER_CONDITION => (
            "a comparison such as > 0.99",
            "one of > >= < <= == != and a number",
        ),
        shared::CONDITION_TYPE => ("the type of a condition such as Ready", ""),
        shared::DATE => ("a date such as 2026-11-24", ""),
        shared::UUID => ("a UUID such as 4c4c4544-0058-4b10-8032-b7c04f4d3133", ""),
        shared::SERIAL => ("a serial number of letters, digits and - . _ / :", ""),
        shared::BRANCH => ("a branch name that does not begin with -", ""),
        other => return (format!("of the form {other}"), ""),
    };
    (wanted.to_owned(), hint)
}
