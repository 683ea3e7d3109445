//! Errors for people: what was tried, why it failed, and what to do next. Never a backtrace.

use crate::output::shown;
use std::fmt;

/// A command that failed.
#[derive(Debug)]
pub struct Failure {
    /// What was tried and what came of it.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without advice.
    pub fn new(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            hint: None,
        }
    }

    /// The same with what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// From an error and its causes, each said once.
    pub fn from_error(tried: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = format!("{tried}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        Self::new(message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.message))
    }
}
