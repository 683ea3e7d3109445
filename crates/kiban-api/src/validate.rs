//! Offline validation of a fleet repository's files, as sync does it before anything is applied and
//! `kubectl kiban validate` before anything is committed.
//!
//! ```text
//!   bytes ──limits──▶ text ──yaml──▶ tree with places ──schema, rules, metadata──▶ objects ──fleet──▶ Validated
//!                                            every step adds findings, none stops at the first
//! ```
//!
//! Judges as the API server would (the same schemas and CEL rules) and then more: what a file cannot say to a cluster,
//! and what does not fit together across files. All errors at once, each with file, line, column and field.

mod fleet;
mod metadata;
mod render;
mod rules;
mod schema;
mod text;
mod yaml;

pub use render::{render, summary};

use crate::{generate, labels};
use rules::Rules;
use serde_json::Value;
use std::collections::BTreeSet;
use yaml::{Node, Place};

/// Most bytes of one file. Two thousand devices fit; more is easier to read in several files.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// Most bytes of all files together: a hundred thousand devices, with room.
pub const MAX_TOTAL_BYTES: usize = 256 << 20;
/// Most documents in one file.
pub const MAX_FILE_DOCUMENTS: usize = 5_000;
/// Most documents in all.
pub const MAX_DOCUMENTS: usize = 250_000;
/// Most findings that are kept: nobody reads more, and a hostile repository could have millions.
pub const MAX_FINDINGS: usize = 500;

/// One file of a repository.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Path in the repository, with `/`.
    pub path: &'a str,
    /// Content.
    pub bytes: &'a [u8],
}

/// What validation needs to know beside the files.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The fleet's namespace. Objects may name it, or leave it out. Empty: not known, and any one namespace is taken.
    pub namespace: String,
    /// Objects (kind, name) that exist and do not come from these files: references to them are fine. Default: the
    /// files are all there is.
    pub existing: Option<BTreeSet<(String, String)>>,
}

/// What the files hold and what is wrong with them.
#[derive(Clone, Debug, Default)]
pub struct Validated {
    /// The objects that could be read, in the order of files and lines, also where findings speak against them.
    pub objects: Vec<SourceObject>,
    /// What is wrong, by file and line. At most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub more: usize,
    /// Documents read.
    pub documents: usize,
    /// Files read.
    pub files: usize,
}

impl Validated {
    /// Whether the files may be applied: nothing in them is an error.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.errors().next().is_none()
    }

    /// The errors, without the warnings.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
    }
}

/// An object as a file has it: no defaults, no namespace that was not written.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceObject {
    /// Path of the file.
    pub file: String,
    /// Line of the document's first key, from 1.
    pub line: u32,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// The whole object.
    pub value: Value,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum Severity {
    /// Nothing is applied.
    Error,
    /// It is applied; a person should look.
    Warning,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Path of the file. Empty: the files as a whole.
    pub file: String,
    /// Line, from 1. 0: the whole file.
    pub line: u32,
    /// Column in characters, from 1. 0: the whole line.
    pub column: u32,
    /// Characters that are meant, from the column on; 0 and 1 mean the place.
    pub length: u32,
    /// Field path. Example: `spec.rollout.waves[0].devices`. Empty: no field.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// A few words for the place itself. Often empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// What to do. May be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl Finding {
    fn error(file: &str, place: Place, field: &str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.to_owned(),
            line: place.line,
            column: place.column,
            length: place.length,
            field: field.to_owned(),
            message: message.into(),
            label: String::new(),
            hint: String::new(),
        }
    }

    fn warning(file: &str, place: Place, field: &str, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(file, place, field, message)
        }
    }

    fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// A document that could be read as an object of ours, with its places.
struct Document<'a> {
    file: &'a str,
    kind: &'static str,
    name: String,
    root: Node,
    value: Value,
}

/// Kinds that people keep in Git.
const WRITTEN: [&str; 6] = [
    "FleetPolicy",
    "FleetRepository",
    "HardwareModel",
    "Device",
    "HardwarePool",
    "FirmwareBaseline",
];
/// Kinds that are made in the cluster: by the operator, and approvals by people.
const OPERATED: [&str; 3] = ["Operation", "Rollout", "Approval"];

/// Validates files. Never fails: what is wrong is in the findings.
#[must_use]
pub fn validate(files: &[File<'_>], options: &Options) -> Validated {
    let mut findings = Vec::new();
    let mut documents = Vec::new();
    let mut read = 0;
    let total: usize = files.iter().map(|file| file.bytes.len()).sum();
    if total > MAX_TOTAL_BYTES {
        let message = format!(
            "the files have {} MB together, the limit is {} MB",
            total >> 20,
            MAX_TOTAL_BYTES >> 20
        );
        findings.push(
            Finding::error("", Place::default(), "", message)
                .hint("name a folder in the repository's `path`"),
        );
    } else {
        let mut rules = Rules::new();
        for file in files {
            read += check_file(file, options, &mut rules, &mut documents, &mut findings);
            if read > MAX_DOCUMENTS {
                let message = format!("more than {MAX_DOCUMENTS} documents");
                findings.push(Finding::error(file.path, Place::default(), "", message));
                break;
            }
        }
        fleet::check(&documents, options, &mut findings);
    }
    findings.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    // Errors first to be kept where there are too many.
    if findings.len() > MAX_FINDINGS {
        findings.sort_by_key(|finding| finding.severity);
    }
    let more = findings.len().saturating_sub(MAX_FINDINGS);
    findings.truncate(MAX_FINDINGS);
    let object = |document: Document<'_>| SourceObject {
        file: document.file.to_owned(),
        line: document.root.place.line,
        kind: document.kind.to_owned(),
        name: document.name,
        value: document.value,
    };
    Validated {
        objects: documents.into_iter().map(object).collect(),
        findings,
        more,
        documents: read,
        files: files.len(),
    }
}

/// Reads one file; returns how many documents it has.
fn check_file<'a>(
    file: &File<'a>,
    options: &Options,
    rules: &mut Rules,
    documents: &mut Vec<Document<'a>>,
    findings: &mut Vec<Finding>,
) -> usize {
    let Some(content) = text::decode(file, findings) else {
        return 0;
    };
    let roots = yaml::parse(file.path, content, findings);
    let read = roots.len();
    for root in roots {
        let before = findings.len();
        if let Some(mut document) = check_document(file.path, root, options, findings) {
            let well_formed = !findings[before..]
                .iter()
                .any(|finding| finding.severity == Severity::Error);
            if well_formed {
                rules.check(&mut document, findings);
            }
            documents.push(document);
        }
    }
    read
}

fn check_document<'a>(
    file: &'a str,
    root: Node,
    options: &Options,
    findings: &mut Vec<Finding>,
) -> Option<Document<'a>> {
    let kind = identify(file, &root, findings)?;
    let schema = generate::schema(kind)?;
    let mut walk = schema::Walk::new(file, findings);
    let value = walk.object(&root, schema);
    let name = metadata::check(file, &root, options, findings);
    Some(Document {
        file,
        kind,
        name,
        root,
        value,
    })
}

/// Which of our kinds a document is of.
fn identify(file: &str, root: &Node, findings: &mut Vec<Finding>) -> Option<&'static str> {
    if root.as_map().is_none() {
        let message = "a document must be an object with apiVersion, kind, metadata and spec";
        findings.push(Finding::error(file, root.place, "", message));
        return None;
    }
    let text = |field: &str| root.get(field).and_then(Node::text);
    let (Some(version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        for field in ["apiVersion", "kind"] {
            if text(field).is_none() {
                let found = Finding::error(file, root.place, field, format!("{field} is missing"));
                findings.push(
                    found.hint("every document begins with `apiVersion: kiban.dev/v1alpha1` and its `kind`"),
                );
            }
        }
        return None;
    };
    let ours = format!("{}/{}", labels::GROUP, labels::VERSION);
    let place = |field: &str| root.get(field).map(|node| node.place).unwrap_or_default();
    if let Some(known) = WRITTEN.into_iter().find(|known| *known == kind)
        && version == ours
    {
        return Some(known);
    }
    let (known_kind, known_version) = (
        WRITTEN.contains(&kind) || OPERATED.contains(&kind),
        version == ours,
    );
    let shown = text::shown(kind);
    if kind == "Approval" && version == ours {
        let message = "an Approval is made by the person who approves, never in Git";
        findings.push(
            Finding::error(file, place("kind"), "kind", message)
                .hint("take it out: kubectl create it yourself, so that the API server knows whose it is"),
        );
        return None;
    }
    findings.push(match (known_kind, known_version) {
        (true, true) => Finding::error(file, place("kind"), "kind", format!("{shown} is written by the operator, never in Git"))
            .hint("take it out: the operator makes it from pools, baselines and devices"),
        (true, false) => Finding::error(file, place("apiVersion"), "apiVersion", format!("{shown} has the apiVersion {ours}"))
            .label(format!("write {ours}")),
        (false, _) if version == "v1" && kind == "Secret" => {
            Finding::error(file, place("kind"), "kind", "a Secret does not belong into Git")
                .hint("make it in the cluster (kubectl create secret, External Secrets, …) and name it here")
        }
        (false, true) => Finding::error(file, place("kind"), "kind", format!("unknown kind {shown}"))
            .hint(text::suggestion(kind, WRITTEN).unwrap_or_else(|| format!("one of {}", WRITTEN.join(", ")))),
        (false, false) => {
            let message = format!("unknown kind {shown} of {}", text::shown(version));
            Finding::error(file, place("kind"), "kind", message).hint(format!(
                "a fleet repository holds {ours} objects alone; keep others in another folder, and name yours in the repository's `path`"
            ))
        }
    });
    None
}

#[cfg(test)]
mod tests;
