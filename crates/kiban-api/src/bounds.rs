//! Cuts a status to what its schema allows, so that no write is refused because a BMC or a Git server talks much.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// What stands where a text was cut.
const CUT: char = '…';

/// Cuts every text over `maxLength` and every list over `maxItems`, in place. `schema` is the OpenAPI schema of
/// `value`, for example of a whole kind as [`crate::generate::schema`] gives it. Lists lose their end, texts
/// theirs, marked with `…`. Nothing else changes: a value of a wrong type stays what it is.
pub fn fit(value: &mut Value, schema: &Value) {
    match value {
        Value::String(text) => {
            let most = limit(schema, "maxLength");
            if text.chars().count() > most {
                *text = text.chars().take(most.saturating_sub(1)).chain([CUT]).collect();
            }
        }
        Value::Array(items) => {
            items.truncate(limit(schema, "maxItems"));
            if let Some(schema) = schema.get("items") {
                for item in items {
                    fit(item, schema);
                }
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let inner = schema
                    .get("properties")
                    .and_then(|properties| properties.get(name));
                if let Some(inner) = inner.or_else(|| schema.get("additionalProperties")) {
                    fit(field, inner);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// As [`fit`], for a whole status of a kind. To be called before it is compared with the stored one, which was cut, too:
/// else the two would differ for ever.
pub fn fit_status<S: Serialize + DeserializeOwned>(kind: &str, status: &mut S) {
    let schema = crate::generate::schema(kind).and_then(|schema| schema.pointer("/properties/status"));
    let (Some(schema), Ok(mut value)) = (schema, serde_json::to_value(&*status)) else {
        return;
    };
    fit(&mut value, schema);
    if let Ok(fitted) = serde_json::from_value(value) {
        *status = fitted;
    }
}

fn limit(schema: &Value, key: &str) -> usize {
    schema
        .get(key)
        .and_then(Value::as_u64)
        .and_then(|most| usize::try_from(most).ok())
        .unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::{fit, fit_status};
    use crate::{FleetRepositoryStatus, repository::SourceError};
    use serde_json::json;

    #[test]
    fn texts_and_lists_are_cut_and_the_rest_stays() {
        let schema = json!({"properties": {
            "text": {"maxLength": 4},
            "list": {"maxItems": 2, "items": {"maxLength": 2}},
        }});
        let mut value =
            json!({"text": "基盤基盤基盤", "list": ["a", "bcd", "e"], "other": "untouched", "n": 7});
        fit(&mut value, &schema);
        assert_eq!(
            value,
            json!({"text": "基盤基…", "list": ["a", "b…"], "other": "untouched", "n": 7})
        );
    }
    #[test]
    fn a_talkative_git_server_does_not_stop_a_status() {
        let error = SourceError {
            file: "a.yaml".into(),
            line: 7,
            field: String::new(),
            message: "x".repeat(1 << 20),
        };
        let mut status = FleetRepositoryStatus {
            errors: vec![error; 90],
            ..FleetRepositoryStatus::default()
        };
        fit_status("FleetRepository", &mut status);
        assert_eq!(status.errors.len(), 50);
        assert_eq!(
            (status.errors[0].line, status.errors[0].message.chars().count()),
            (7, 1024)
        );
        let once = status.clone();
        fit_status("FleetRepository", &mut status);
        assert_eq!(status, once, "what fits stays as it is");
    }
}
