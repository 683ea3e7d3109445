//! The kinds' CEL rules, run as the API server runs them: on well-formed objects, defaults filled in.

use super::{Document, Finding};
use crate::generate;
use kube::core::cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use std::collections::HashMap;

/// The rules of the kinds met so far, compiled once.
pub(super) struct Rules {
    validator: Validator,
    compiled: HashMap<&'static str, CompiledSchema>,
}

impl Rules {
    pub(super) fn new() -> Self {
        Self {
            validator: Validator::new(),
            compiled: HashMap::new(),
        }
    }

    pub(super) fn check(&mut self, document: &mut Document<'_>, findings: &mut Vec<Finding>) {
        let Some(schema) = generate::schema(document.kind) else {
            return;
        };
        let compiled = self
            .compiled
            .entry(document.kind)
            .or_insert_with(|| compile_schema(schema));
        let Err(errors) = self.validator.validate_compiled(compiled, &document.value, None) else {
            return;
        };
        for error in errors {
            let field = error.field_path.trim_start_matches('.').replace("..", ".");
            let node = document
                .root
                .at(if field.is_empty() { "metadata.name" } else { &field });
            let message = match (&error.kind, field.is_empty()) {
                (ErrorKind::ValidationFailure, true) => error.message.clone(),
                (ErrorKind::ValidationFailure, false) => format!("{field}: {}", error.message),
                // A rule that cannot be run must not pass; the API server would say more.
                _ => format!(
                    "the rule {:?} cannot be checked here: {}",
                    error.rule, error.message
                ),
            };
            findings.push(Finding::error(document.file, node.place, &field, message));
        }
    }
}
