//! YAML into a tree in which every key and value knows its place.
//!
//! On the events of granit-parser, which serde-saphyr (and with it kube) reads YAML through: values alone would not
//! do, because whether a version was quoted, where a key stands twice, and where a value stands is lost in them.

use super::{Finding, text};
use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::Value;
use std::{borrow::Cow, collections::HashMap};

/// Deepest nesting. The kinds need nine.
const MAX_DEPTH: usize = 32;
/// Most nodes of one file after aliases are followed: far above what fits a file without them.
const MAX_NODES: usize = 500_000;

/// Where something stands: line and column from 1, and how many characters are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) length: u32,
}

impl Place {
    fn of(span: &Span) -> Self {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let one_line = span.start.line() == span.end.line();
        Self {
            line: number(span.start.line()),
            column: number(span.start.col()).saturating_add(1),
            length: if one_line {
                number(span.end.col().saturating_sub(span.start.col()))
            } else {
                1
            },
        }
    }
}

/// A value.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) content: Content,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Text; `plain` where it was not quoted, so that it may be a number, a boolean or null.
    Scalar { text: String, plain: bool },
    /// A list.
    List(Vec<Node>),
    /// A map, in the order written.
    Map(Vec<(Key, Node)>),
}

/// A key of a map.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) place: Place,
}

/// What an unquoted text is, to this reader or to one of YAML 1.1, which is what kubectl has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    /// Nothing, `~`, `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// `yes`, `off`, …: a boolean to some readers, text to others.
    OldBool,
    /// A whole number in decimal.
    Int(i64),
    /// A number in a form that readers read differently, or that is too large: `010`, `0o7`, `0x1f`, `1_000`.
    OddNumber,
    /// `1.10`, `1e3`, `.inf`.
    Float,
    /// Text.
    Text,
}

/// What an unquoted text is.
pub(super) fn plain(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "true" | "True" | "TRUE" => return Plain::Bool(true),
        "false" | "False" | "FALSE" => return Plain::Bool(false),
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Plain::OldBool,
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Plain::OldBool,
        ".nan" | ".NaN" | ".NAN" => return Plain::Float,
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Plain::Float;
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Plain::Text;
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(unsigned) {
        let padded = unsigned.len() > 1 && unsigned.starts_with('0');
        return match text.parse() {
            Ok(number) if !padded => Plain::Int(number),
            _ => Plain::OddNumber,
        };
    }
    let based = |prefix: &str, radix: u32| {
        let rest = unsigned.strip_prefix(prefix);
        rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c == '_' || c.is_digit(radix)))
    };
    if based("0x", 16) || based("0o", 8) || based("0b", 2) {
        return Plain::OddNumber;
    }
    let underscored = unsigned.contains('_') && unsigned.starts_with(|c: char| c.is_ascii_digit());
    if underscored
        && unsigned
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'_' | b'.'))
    {
        return Plain::OddNumber;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (
            mantissa,
            Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)),
        ),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_mantissa = (digits(whole) && (fraction.is_empty() || digits(fraction)))
        || (whole.is_empty() && digits(fraction));
    if is_mantissa && exponent.is_none_or(digits) {
        Plain::Float
    } else {
        Plain::Text
    }
}

impl Node {
    pub(super) fn as_map(&self) -> Option<&[(Key, Node)]> {
        match &self.content {
            Content::Map(fields) => Some(fields),
            _ => None,
        }
    }

    pub(super) fn as_list(&self) -> Option<&[Node]> {
        match &self.content {
            Content::List(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?
            .iter()
            .find(|(name, _)| name.text == key)
            .map(|(_, value)| value)
    }

    /// The text of a scalar, quoted or not.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true } if plain(text) == Plain::Null)
    }

    /// The node at a path such as `spec.waves[0].percent`, or the deepest one on the way to it.
    pub(super) fn at(&self, path: &str) -> &Node {
        let mut node = self;
        for part in path
            .split(['.', '['])
            .map(|part| part.trim_end_matches(']'))
            .filter(|part| !part.is_empty())
        {
            let next = match part.parse::<usize>() {
                Ok(index) if node.as_list().is_some() => node.as_list().and_then(|items| items.get(index)),
                _ => node.get(part),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// The value as JSON, read as YAML 1.2 reads it. For what has no schema.
    pub(super) fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar { text, plain: true } => match plain(text) {
                Plain::Null => Value::Null,
                Plain::Bool(value) => value.into(),
                Plain::Int(number) => number.into(),
                Plain::OldBool | Plain::OddNumber | Plain::Float | Plain::Text => text.as_str().into(),
            },
            Content::Scalar { text, .. } => text.as_str().into(),
            Content::List(items) => items.iter().map(Node::to_json).collect(),
            Content::Map(fields) => fields
                .iter()
                .map(|(key, value)| (key.text.clone(), value.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

/// The documents of a file, without empty ones. What cannot be read becomes findings; the documents after it are read.
pub(super) fn parse(file: &str, content: &str, findings: &mut Vec<Finding>) -> Vec<Node> {
    let options = granit_parser::options! {
        disallow_directives: true,
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut parser = Parser::new_from_str_with_options(content, options);
    let mut builder = Builder {
        file,
        findings,
        open: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        broken: false,
    };
    let mut documents = Vec::new();
    loop {
        match parser.next_event() {
            None => break,
            Some(Ok((event, span))) => match builder.event(event, &span) {
                Ok(Some(root)) => documents.push(root),
                Ok(None) => {}
                Err(Stop) => break,
            },
            Some(Err(error)) => {
                builder.syntax(content, &error);
                builder.reset();
                match parser.proceed_next_document() {
                    Ok(true) => {}
                    _ => break,
                }
            }
        }
    }
    documents.retain(|root| !root.is_null());
    documents
}

/// The file is given up.
struct Stop;

/// A list or map that is being read.
struct Open {
    place: Place,
    anchor: usize,
    content: Content,
    key: Option<Key>,
    /// Its deepest child, itself not counted.
    depth: usize,
}

struct Builder<'f, 'a> {
    file: &'a str,
    findings: &'f mut Vec<Finding>,
    open: Vec<Open>,
    /// What an alias stands for, with how many nodes and how deep it is.
    anchors: HashMap<usize, (Node, usize, usize)>,
    nodes: usize,
    /// Whether the present document has something in it that no object has; it is then left out.
    broken: bool,
}

impl Builder<'_, '_> {
    /// Takes an event; returns the document that it ends.
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<Option<Node>, Stop> {
        let place = Place::of(span);
        match event {
            Event::DocumentStart(..) => self.reset(),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !self.is_string(tag.as_ref(), place);
                // A plain scalar's span may reach to the next line's start; its text says better how long it is.
                let length = match style {
                    ScalarStyle::Plain => u32::try_from(text.chars().count()).unwrap_or(u32::MAX),
                    _ => place.length,
                };
                let content = Content::Scalar {
                    text: text.into_owned(),
                    plain,
                };
                let node = Node {
                    place: Place { length, ..place },
                    content,
                };
                return self.value(node, anchor, 1, 0);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.start(place, anchor, tag.as_ref(), Content::List(Vec::new()));
            }
            Event::MappingStart(_, anchor, tag) => {
                self.start(place, anchor, tag.as_ref(), Content::Map(Vec::new()));
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    let node = Node {
                        place: open.place,
                        content: open.content,
                    };
                    return self.value(node, open.anchor, 1, open.depth + 1);
                }
            }
            Event::Alias(anchor) => {
                let Some((node, nodes, depth)) = self.anchors.get(&anchor).cloned() else {
                    self.error(place, "an alias stands for what it is a part of");
                    return self.value(
                        Node {
                            place,
                            content: Content::List(Vec::new()),
                        },
                        0,
                        1,
                        0,
                    );
                };
                return self.value(Node { place, ..node }, 0, nodes, depth);
            }
            _ => {}
        }
        Ok(None)
    }

    fn reset(&mut self) {
        self.open.clear();
        self.anchors.clear();
        self.broken = false;
    }

    fn start(&mut self, place: Place, anchor: usize, tag: Option<&Cow<'_, Tag>>, content: Content) {
        self.is_string(tag, place);
        // The whole of a list or map would underline half a file.
        let place = Place { length: 1, ..place };
        self.open.push(Open {
            place,
            anchor,
            content,
            key: None,
            depth: 0,
        });
    }

    /// Whether a tag makes a scalar a text. Tags of others make it an error.
    fn is_string(&mut self, tag: Option<&Cow<'_, Tag>>, place: Place) -> bool {
        match tag.map(|tag| tag.core_suffix()) {
            Some(None) => {
                self.error(place, "tags (`!name`) are not supported");
                false
            }
            Some(Some(core)) => core == "str",
            None => false,
        }
    }

    fn error(&mut self, place: Place, message: impl Into<String>) {
        self.broken = true;
        self.findings.push(Finding::error(self.file, place, "", message));
    }

    /// Puts a whole value where it belongs: `size` nodes, the deepest `depth` below it.
    fn value(&mut self, node: Node, anchor: usize, size: usize, depth: usize) -> Result<Option<Node>, Stop> {
        self.nodes = self.nodes.saturating_add(size);
        if self.nodes > MAX_NODES || depth + self.open.len() > MAX_DEPTH {
            let what = if self.nodes > MAX_NODES {
                "has too many values"
            } else {
                "is nested too deeply"
            };
            let found = Finding::error(
                self.file,
                node.place,
                "",
                format!("the file {what}, aliases followed"),
            );
            self.findings
                .push(found.hint("nothing in a fleet needs that; write it out, or split the file"));
            return Err(Stop);
        }
        if anchor != 0 {
            self.anchors
                .insert(anchor, (node.clone(), size.max(count(&node)), depth));
        }
        let Some(open) = self.open.last_mut() else {
            return Ok((!self.broken).then_some(node));
        };
        open.depth = open.depth.max(depth);
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Map(fields) => match open.key.take() {
                None => self.key(node),
                Some(key) => fields.push((key, node)),
            },
            Content::Scalar { .. } => {}
        }
        Ok(None)
    }

    fn key(&mut self, node: Node) {
        let place = node.place;
        let Content::Scalar { text, .. } = node.content else {
            self.broken = true;
            let found = Finding::error(self.file, place, "", "a key must be a text");
            self.findings.push(found.hint("template markers such as {{ x }} are not expanded here: write the value, or quote it to keep it as it is"));
            self.set_key(String::new(), place);
            return;
        };
        let first = self.open.last().and_then(|open| match &open.content {
            Content::Map(fields) => fields
                .iter()
                .find(|(key, _)| key.text == text)
                .map(|(key, _)| key.place.line),
            _ => None,
        });
        if let Some(first) = first {
            self.error(
                place,
                format!(
                    "the key {} stands twice, first in line {first}",
                    text::shown(&text)
                ),
            );
        } else if text == "<<" {
            self.error(place, "merge keys (`<<`) are not supported: write the fields out");
        }
        self.set_key(text, place);
    }

    fn set_key(&mut self, text: String, place: Place) {
        if let Some(open) = self.open.last_mut() {
            open.key = Some(Key { text, place });
        }
    }

    fn syntax(&mut self, content: &str, error: &granit_parser::ScanError) {
        let marker = error.marker();
        let line = content
            .lines()
            .nth(marker.line().saturating_sub(1))
            .unwrap_or_default();
        let indentation = &line[..line.len() - line.trim_start().len()];
        let column = u32::try_from(marker.col()).unwrap_or(u32::MAX).saturating_add(1);
        let place = Place {
            line: u32::try_from(marker.line()).unwrap_or(u32::MAX),
            column,
            length: 1,
        };
        let found = Finding::error(self.file, place, "", format!("not YAML: {}", error.info()));
        self.findings.push(if indentation.contains('\t') {
            found.hint("the line is indented by a tab: YAML wants spaces")
        } else if line.contains("{{") || line.contains("${") {
            found.hint(
                "template markers are not expanded here: write the value, or quote it to keep it as it is",
            )
        } else {
            found
        });
    }
}

fn count(node: &Node) -> usize {
    match &node.content {
        Content::Scalar { .. } => 1,
        Content::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Content::Map(fields) => 1 + fields.iter().map(|(_, value)| count(value)).sum::<usize>(),
    }
}
