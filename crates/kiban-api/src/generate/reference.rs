//! The reference page: every kind and field, from the schemas.

use super::definitions;
use serde_json::Value;
use std::fmt::Write as _;

/// The kinds as a Markdown page.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "<!-- Generated from the Rust types by `cargo xtask generate`. Change those, not this. -->\n\n# Kinds\n\n\
         Group `kiban.dev`, version `v1alpha1`. `kubectl explain <kind>.spec` says the same in a terminal.\n",
    );
    for definition in definitions() {
        let names = &definition.spec.names;
        let short = names.short_names.clone().unwrap_or_default().join("`, `");
        let Some(schema) = super::schema(&names.kind) else {
            continue;
        };
        let doc = schema
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let _ = write!(
            page,
            "\n## {}\n\n`{}`, short `{short}`. {doc}\n",
            names.kind, names.plural
        );
        for part in ["spec", "status"] {
            if let Some(part_schema) = schema.pointer(&format!("/properties/{part}")) {
                let _ = write!(page, "\n| field | type | meaning |\n|---|---|---|\n");
                fields(&mut page, part, part_schema);
            }
        }
        let mut rules = Vec::new();
        collect_rules(schema, &mut rules);
        if !rules.is_empty() {
            page.push_str("\nRules:\n\n");
            for rule in rules {
                let _ = writeln!(page, "- {rule}");
            }
        }
    }
    page
}

fn fields(page: &mut String, path: &str, schema: &Value) {
    let required: Vec<&str> = strings(schema.get("required"));
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return;
    };
    let mut names: Vec<&String> = properties.keys().collect();
    names.sort();
    for name in names {
        let field = &properties[name];
        let path = format!("{path}.{name}");
        let must = if required.contains(&name.as_str()) {
            ", required"
        } else {
            ""
        };
        let doc = field
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let doc = doc.replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(page, "| `{path}` | {}{must} | {doc} |", kind_of(field));
        match field.get("items") {
            // A condition is the same in every kind, and not ours to explain.
            Some(items) if name != "conditions" => fields(page, &format!("{path}[]"), items),
            Some(_) => {}
            None => fields(page, &path, field),
        }
    }
}

fn kind_of(field: &Value) -> String {
    if field.get("x-kubernetes-int-or-string").is_some() {
        return "count or percent".into();
    }
    if let Some(values) = field.get("enum") {
        return strings(Some(values))
            .iter()
            .map(|value| format!("`{value}`"))
            .collect::<Vec<_>>()
            .join(" ");
    }
    let name = field.get("type").and_then(Value::as_str).unwrap_or("any");
    let most = |key| field.get(key).and_then(Value::as_u64);
    match (
        most("maxLength"),
        most("maxItems"),
        most("minimum"),
        most("maximum"),
    ) {
        (Some(most), ..) => format!("{name} ≤ {most}"),
        (_, Some(most), ..) => format!("list ≤ {most}"),
        (.., Some(least), Some(most)) if most < u64::from(u32::MAX) => format!("{name} {least}–{most}"),
        _ => name.into(),
    }
}

fn strings(value: Option<&Value>) -> Vec<&str> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn collect_rules(schema: &Value, rules: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            for rule in fields
                .get("x-kubernetes-validations")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let message = rule
                    .get("message")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned();
                if !rules.contains(&message) {
                    rules.push(message);
                }
            }
            for value in fields.values() {
                collect_rules(value, rules);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_rules(item, rules)),
        _ => {}
    }
}
