//! Drift of what is committed, and what must hold of every schema.

use super::{crd_templates, crds, definitions, reference, schema};
use serde_json::Value;
use std::{fs, path::PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `KIBAN_GENERATE=1 cargo test -p kiban-api` writes the files instead of comparing them.
fn check(folder: &str, files: Vec<(String, String)>) {
    let folder = root().join(folder);
    if std::env::var_os("KIBAN_GENERATE").is_some() {
        fs::create_dir_all(&folder).unwrap();
        for (name, content) in &files {
            fs::write(folder.join(name), content).unwrap();
        }
    }
    for (name, content) in &files {
        let found = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(
            found == *content,
            "{name} has drifted from the types: run `cargo xtask generate`"
        );
    }
    let generated =
        |name: &str| name.starts_with("kiban.dev_") && !files.iter().any(|(file, _)| file == name);
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!generated(&name), "{name} belongs to no kind any more: remove it");
    }
}

#[test]
fn the_committed_crds_are_what_the_types_say() {
    check("crds", crds());
}

#[test]
fn the_charts_crds_are_what_the_types_say() {
    check("charts/kiban-crds/templates", crd_templates());
}

#[test]
fn the_reference_page_is_what_the_types_say() {
    check("docs/reference", vec![("kinds.md".into(), reference())]);
}

#[test]
fn names_do_not_clash_with_each_other_or_with_kubernetes_own() {
    // `kubectl api-resources` of a bare control plane: names and short names.
    let taken = [
        "po", "svc", "ns", "no", "cm", "ep", "ev", "pv", "pvc", "rc", "rs", "deploy", "ds", "sts", "hpa",
        "cj", "ing", "netpol", "pdb", "pc", "sc", "crd", "crds", "csr", "sa", "quota", "limits", "nodes",
        "jobs", "leases",
    ];
    let mut seen: Vec<String> = taken.map(String::from).to_vec();
    for definition in definitions() {
        let names = definition.spec.names;
        let mut own = names.short_names.unwrap_or_default();
        own.extend([names.plural, names.singular.unwrap_or_default()]);
        for name in own {
            assert!(!seen.contains(&name), "{name} is taken");
            seen.push(name);
        }
        assert_eq!(names.categories, Some(vec!["kiban".to_owned()]));
    }
}

fn walk(path: &str, node: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, node);
    if let Some(properties) = node.get("properties").and_then(Value::as_object) {
        for (name, inner) in properties {
            walk(&format!("{path}.{name}"), inner, visit);
        }
    }
    if let Some(items) = node.get("items") {
        walk(&format!("{path}[]"), items, visit);
    }
}

#[test]
fn every_field_is_bounded_and_explained() {
    for definition in definitions() {
        let kind = definition.spec.names.kind;
        let schema = schema(&kind).unwrap();
        let doc = schema["description"].as_str().unwrap_or_default();
        assert!(
            !doc.is_empty() && !doc.contains("Auto-generated"),
            "{kind} has no doc"
        );
        walk(&kind, schema, &mut |path, node| {
            if path == kind || path.ends_with(".metadata") || path.matches('.').count() < 2 {
                return;
            }
            let has = |key: &str| node.get(key).is_some();
            match node.get("type").and_then(Value::as_str) {
                Some("string") => assert!(
                    has("maxLength") || has("enum") || has("format"),
                    "{path} has no maxLength: {node}"
                ),
                Some("array") => assert!(has("maxItems"), "{path} has no maxItems"),
                Some("integer") => assert!(
                    has("minimum") && has("maximum")
                        || node["format"] == "int64"
                        || node["format"] == "int32",
                    "{path} has no bounds: {node}"
                ),
                Some("object" | "boolean") => {}
                None => assert!(has("x-kubernetes-int-or-string"), "{path} has no type: {node}"),
                Some(other) => panic!("{path} is a {other}"),
            }
            assert!(
                has("description") || path.ends_with(']'),
                "{path} is not explained"
            );
            assert!(!path.contains(".spec.") || !has("nullable"), "{path} may be null");
            assert!(
                !node["format"]
                    .as_str()
                    .is_some_and(|format| format.starts_with("uint")),
                "{path}: {node}"
            );
        });
    }
}

#[test]
fn every_rule_says_what_is_wrong() {
    for definition in definitions() {
        let kind = definition.spec.names.kind;
        walk(&kind, schema(&kind).unwrap(), &mut |path, node| {
            for rule in node["x-kubernetes-validations"].as_array().into_iter().flatten() {
                assert!(
                    rule["message"].as_str().is_some_and(|message| message.len() > 10),
                    "{path}: {rule}"
                );
            }
        });
    }
}
