//! A commit's files as objects to apply, or as errors with their places.

use super::kinds::Kind;
use kiban_api::{
    labels,
    repository::SourceError,
    validate::{self, File, Finding, Options},
};
use kiban_git::Snapshot;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The objects of a commit.
#[derive(Debug, Default)]
pub struct Desired {
    /// By kind and name, which is also the order in which they are applied.
    pub objects: BTreeMap<(Kind, String), Wanted>,
    /// What a person should look at though it is applied.
    pub warnings: Vec<SourceError>,
}

/// One object of a commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The object as the file has it.
    pub value: Value,
    /// The file.
    pub file: String,
    /// The line of its first key, from 1.
    pub line: u32,
}

/// Why a commit's files cannot be applied.
#[derive(Debug)]
pub struct Invalid {
    /// The first errors.
    pub errors: Vec<SourceError>,
    /// How many there are in all.
    pub count: usize,
}

/// Most errors that a status holds.
pub const MAX_ERRORS: usize = 50;

/// Validates a commit's files. `existing`: objects that do not come from this repository, to which it may refer.
pub fn desired(
    snapshot: &Snapshot,
    namespace: &str,
    existing: BTreeSet<(String, String)>,
) -> Result<Desired, Invalid> {
    let files: Vec<_> = snapshot
        .files
        .iter()
        .map(|f| File {
            path: &f.path,
            bytes: &f.bytes,
        })
        .collect();
    let options = Options {
        namespace: namespace.to_owned(),
        existing: Some(existing),
    };
    let validated = validate::validate(&files, &options);
    let mut errors: Vec<_> = validated.errors().map(source_error).collect();
    let mut result = Desired::default();
    if errors.is_empty() {
        result.warnings = validated.findings.iter().map(source_error).collect();
        for object in validated.objects {
            let Some(kind) = Kind::parse(&object.kind) else {
                let message = format!(
                    "{} is made by the operator, and does not come from Git",
                    object.kind
                );
                errors.push(SourceError {
                    file: object.file,
                    line: object.line,
                    field: "kind".into(),
                    message,
                });
                continue;
            };
            let wanted = Wanted {
                value: object.value,
                file: object.file,
                line: object.line,
            };
            result.objects.insert((kind, object.name), wanted);
        }
    }
    if errors.is_empty() {
        return Ok(result);
    }
    let count = errors.len() + validated.more;
    errors.truncate(MAX_ERRORS);
    Err(Invalid { errors, count })
}

fn source_error(finding: &Finding) -> SourceError {
    let hint = if finding.hint.is_empty() {
        String::new()
    } else {
        format!("; {}", finding.hint)
    };
    SourceError {
        file: finding.file.clone(),
        line: finding.line,
        field: finding.field.clone(),
        message: format!("{}{hint}", finding.message),
    }
}

impl Wanted {
    /// The object as it is applied: with where it came from.
    #[must_use]
    pub fn to_apply(&self, kind: Kind, name: &str, repository: &str, commit: &str) -> Value {
        let written = |key: &str| {
            self.value["metadata"][key]
                .as_object()
                .cloned()
                .unwrap_or_else(Map::new)
        };
        let (mut own_labels, mut annotations) = (written("labels"), written("annotations"));
        own_labels.insert(labels::REPOSITORY_LABEL.into(), json!(repository));
        annotations.insert(
            labels::SOURCE_ANNOTATION.into(),
            json!(format!("{}:{}", self.file, self.line)),
        );
        annotations.insert(labels::COMMIT_ANNOTATION.into(), json!(commit));
        let mut object = json!({
            "apiVersion": format!("{}/{}", labels::GROUP, labels::VERSION),
            "kind": kind.as_str(),
            "metadata": { "name": name, "labels": own_labels, "annotations": annotations },
        });
        if let Some(spec) = self.value.get("spec") {
            object["spec"] = spec.clone();
        }
        object
    }

    /// The file that an object came from, by its annotation `path:line`.
    #[must_use]
    pub fn is_from(&self, source: Option<&str>) -> bool {
        source
            .and_then(|source| source.rsplit_once(':'))
            .is_some_and(|(file, _)| file == self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_says_where_it_came_from() {
        let wanted = Wanted {
            value: json!({"metadata": {"name": "r650", "labels": {"team": "a"}}, "spec": {"product": "R650"}}),
            file: "models/dell.yaml".into(),
            line: 12,
        };
        let object = wanted.to_apply(Kind::HardwareModel, "r650", "fleet", "c0ffee");
        assert_eq!(
            object["metadata"]["annotations"][labels::SOURCE_ANNOTATION],
            "models/dell.yaml:12"
        );
        assert_eq!(
            object["metadata"]["labels"],
            json!({"team": "a", labels::REPOSITORY_LABEL: "fleet"})
        );
        assert_eq!(object["spec"], json!({"product": "R650"}));
        assert!(
            wanted.is_from(Some("models/dell.yaml:9")),
            "a line that moved is no change"
        );
        assert!(!wanted.is_from(Some("models/hpe.yaml:12")) && !wanted.is_from(None));
    }
}
