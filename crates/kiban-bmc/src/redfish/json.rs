//! Lenient reading: a malformed field costs that field, and is noted.

use crate::{port::Finding, text::clean};
use serde_json::Value;

/// The most findings kept of one reading: enough to see what is wrong, too few to fill a status.
const MAX_FINDINGS: usize = 64;
/// The most values in one answer. The largest real one, an attribute registry of 3 MiB, has about 200,000; each takes
/// memory many times its text.
const MAX_VALUES: usize = 500_000;

/// What was tolerated while reading.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    left_out: usize,
}

impl Findings {
    pub(crate) fn note(&mut self, at: &str, what: impl AsRef<str>) {
        if self.list.len() >= MAX_FINDINGS {
            self.left_out += 1;
            return;
        }
        self.list.push(Finding {
            at: clean(at, 256),
            what: clean(what.as_ref(), 256),
        });
    }

    pub(crate) fn into_list(mut self) -> Vec<Finding> {
        self.list.sort_by(|a, b| (&a.at, &a.what).cmp(&(&b.at, &b.what)));
        self.list.dedup();
        if self.left_out > 0 {
            let what = format!("{} more findings are left out", self.left_out);
            self.list.push(Finding {
                at: String::new(),
                what,
            });
        }
        self.list
    }
}

/// One resource being read, with its address for the findings.
pub(crate) struct Fields<'a> {
    value: &'a Value,
    at: &'a str,
    findings: &'a mut Findings,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(value: &'a Value, at: &'a str, findings: &'a mut Findings) -> Self {
        Self { value, at, findings }
    }

    /// A text of at most 256 characters, cleaned. Null, empty and the vendors' words for nothing are None.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        match self.value.get(name)? {
            Value::Null => None,
            Value::String(text) => {
                if text.len() > 1024 {
                    self.findings
                        .note(self.at, format!("{name} has {} bytes, cut", text.len()));
                }
                meaningful(text)
            }
            // Numbers where texts belong are common enough (`"Version": 3`) and lose nothing as text.
            Value::Number(number) => {
                self.findings
                    .note(self.at, format!("{name} is a number, expected a string"));
                Some(number.to_string())
            }
            other => {
                self.findings
                    .note(self.at, format!("{name} is {}, expected a string", kind(other)));
                None
            }
        }
    }

    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        match self.value.get(name)? {
            Value::Null => None,
            Value::Bool(flag) => Some(*flag),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            other => {
                self.findings.note(
                    self.at,
                    format!("{name} is {}, expected true or false", kind(other)),
                );
                None
            }
        }
    }

    /// Checks that a field is a date and time, as the schema wants; nothing uses it, but a person may want to know.
    pub(crate) fn check_date(&mut self, name: &str) {
        match self.value.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.parse::<jiff::Timestamp>().is_ok() => {}
            Some(Value::String(text)) => self
                .findings
                .note(self.at, format!("{name} is no date: {text:?}")),
            Some(other) => self
                .findings
                .note(self.at, format!("{name} is {}, expected a date", kind(other))),
        }
    }

    pub(crate) fn findings(&mut self) -> &mut Findings {
        self.findings
    }
}

/// A text that says something, cleaned and cut; None for what vendors write instead of leaving a field out.
pub(crate) fn meaningful(text: &str) -> Option<String> {
    const NOTHING: [&str; 14] = [
        "n/a",
        "na",
        "none",
        "null",
        "unknown",
        "not specified",
        "not available",
        "not present",
        "to be filled by o.e.m.",
        "to be filled by oem",
        "default string",
        "not applicable",
        "-*",
        "-",
    ];
    let text = clean(text, 256);
    let lower = text.to_ascii_lowercase();
    (!text.is_empty() && !NOTHING.contains(&lower.as_str())).then_some(text)
}

/// A text at a path of names, cleaned; None if anything on the way is not what it should be.
pub(crate) fn text_at(value: &Value, path: &[&str]) -> Option<String> {
    at(value, path)?.as_str().and_then(meaningful)
}

/// A link's `@odata.id` at a path of names, unchecked.
pub(crate) fn link_at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    at(value, path)?.get("@odata.id")?.as_str()
}

/// The value at a path of names.
pub(crate) fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| value.get(name))
}

/// The items of a list at a path of names; none if there is no list.
pub(crate) fn list_at<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Why a body is refused before it is parsed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TooMuch {
    /// Nested deeper than allowed.
    Depth,
    /// More values than allowed.
    Values,
}

/// Looks through a body for depth and number of values without building anything.
pub(crate) fn check_shape(body: &[u8], max_depth: usize) -> Result<(), TooMuch> {
    let (mut depth, mut values, mut in_text, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in body {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'{' | b'[' => {
                depth += 1;
                values += 1;
                if depth > max_depth {
                    return Err(TooMuch::Depth);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => {
                values += 1;
                if values > MAX_VALUES {
                    return Err(TooMuch::Values);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_malformed_field_costs_that_field() {
        let value = json!({"Id": 7, "Version": {"a": 1}, "Name": "x\u{1b}[1m", "Updateable": "true", "ReleaseDate": "T00:00:00Z"});
        let mut findings = Findings::default();
        let mut fields = Fields::new(&value, "/redfish/v1/x", &mut findings);
        assert_eq!(fields.text("Id").as_deref(), Some("7"));
        assert_eq!(fields.text("Version"), None);
        assert_eq!(fields.text("Name").as_deref(), Some("x[1m"));
        assert_eq!(fields.flag("Updateable"), Some(true));
        fields.check_date("ReleaseDate");
        assert_eq!(fields.text("Absent"), None);
        let list = findings.into_list();
        assert_eq!(list.len(), 3, "{list:?}");
    }

    #[test]
    fn words_for_nothing_are_nothing() {
        for word in ["", "  ", "N/A", "Not Specified", "Not Present", "-*", "null"] {
            assert_eq!(meaningful(word), None, "{word:?}");
        }
        assert_eq!(meaningful(" 1.4 ").as_deref(), Some("1.4"));
    }

    #[test]
    fn shape_is_bounded_and_strings_do_not_count() {
        assert_eq!(check_shape(br#"{"a":"[[[[{{{{,,,,\"[["}"#, 2), Ok(()));
        assert_eq!(check_shape(&b"[".repeat(65), 64), Err(TooMuch::Depth));
        assert_eq!(
            check_shape(&b"0,".repeat(MAX_VALUES + 1), 64),
            Err(TooMuch::Values)
        );
    }

    #[test]
    fn findings_are_bounded() {
        let mut findings = Findings::default();
        (0..1000).for_each(|n| findings.note(&format!("/{n}"), "x".repeat(5000)));
        let list = findings.into_list();
        assert_eq!(list.len(), MAX_FINDINGS + 1);
        assert!(list.iter().all(|finding| finding.what.len() <= 256));
    }
}
