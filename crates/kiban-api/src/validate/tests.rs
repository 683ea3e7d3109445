//! What must be refused, and how it is said.

mod bad_inputs;
mod mutated;

use super::{File, Finding, OPERATED, Options, Severity, Validated, render, summary, validate};
use crate::generate;
use kube::core::cel::Validator;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const ACCEPTED: &str = include_str!("../../tests/accepted.yaml");
const REJECTED: &str = include_str!("../../tests/rejected.yaml");

fn check(text: &str) -> Validated {
    validate(
        &[File {
            path: "fleet.yaml",
            bytes: text.as_bytes(),
        }],
        &Options::default(),
    )
}

/// As text, one line each: what a test compares.
fn said(validated: &Validated) -> String {
    let line = |finding: &Finding| {
        format!(
            "{:?} {}:{}:{} {}: {} ({}) [{}]\n",
            finding.severity,
            finding.file,
            finding.line,
            finding.column,
            finding.field,
            finding.message,
            finding.label,
            finding.hint
        )
    };
    validated.findings.iter().map(line).collect()
}

fn accepted() -> Vec<Value> {
    serde_saphyr::from_multiple(ACCEPTED).unwrap()
}

/// RFC 7396, but null stays: a test of null writes one.
fn merge(target: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in change {
        let fields = target.as_object_mut().unwrap();
        match value {
            Value::Null => {
                fields.remove(name);
            }
            value => merge(fields.entry(name.clone()).or_insert(Value::Null), value),
        }
    }
}

#[test]
fn whole_objects_are_taken() {
    let objects: String = accepted()
        .iter()
        .filter(|object| !OPERATED.contains(&object["kind"].as_str().unwrap()))
        .map(|object| format!("---\n{object}\n"))
        .collect();
    let validated = check(&objects);
    assert_eq!(said(&validated), "");
    assert_eq!((validated.objects.len(), validated.documents), (6, 6));
    assert_eq!(validated.objects[3].kind, "Device");
    assert_eq!(validated.objects[3].value["spec"]["serial"], "7XK2M13");
    // What was not written is not there: sync applies what engineers wrote, and nothing else.
    let small = check(
        "apiVersion: kiban.dev/v1alpha1\nkind: HardwarePool\nmetadata: {name: a}\nspec: {service: web}\n",
    );
    assert_eq!(small.objects[0].value["spec"], json!({"service": "web"}));
}

#[test]
fn what_the_api_server_refuses_is_refused_offline() {
    let rejected: Vec<Value> = serde_saphyr::from_str(REJECTED).unwrap();
    assert!(rejected.len() > 70);
    for case in &rejected {
        let kind = case["kind"].as_str().unwrap();
        let says = case["says"].as_str().unwrap();
        let before = accepted()
            .into_iter()
            .find(|object| object["kind"] == kind)
            .unwrap();
        let mut after = before.clone();
        merge(&mut after, &case["change"]);
        let said = if OPERATED.contains(&kind) {
            // Never in a file; the rules are the same.
            let old = (case["update"] == true).then_some(&before);
            let errors = Validator::new()
                .validate(generate::schema(kind).unwrap(), &after, old)
                .unwrap_err();
            errors.to_string()
        } else {
            let mut objects = accepted();
            objects.retain(|object| {
                !OPERATED.contains(&object["kind"].as_str().unwrap()) && object["kind"] != kind
            });
            let text: String = objects
                .iter()
                .chain([&after])
                .map(|object| format!("---\n{object}\n"))
                .collect();
            let validated = check(&text);
            validated
                .errors()
                .map(|finding| format!("{} {}\n", finding.field, finding.message))
                .collect()
        };
        assert!(
            said.contains(says),
            "{says:?} is not in the refusal of {}: {said}",
            case["change"]
        );
    }
}

#[test]
fn every_rule_has_a_rejected_example() {
    let rejected: Vec<Value> = serde_saphyr::from_str(REJECTED).unwrap();
    fn messages(schema: &Value, found: &mut BTreeSet<String>) {
        match schema {
            Value::Object(fields) => {
                for rule in fields
                    .get("x-kubernetes-validations")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                {
                    found.insert(rule["message"].as_str().unwrap().to_owned());
                }
                fields.values().for_each(|field| messages(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| messages(item, found)),
            _ => {}
        }
    }
    for definition in generate::definitions() {
        let kind = definition.spec.names.kind;
        let mut rules = BTreeSet::new();
        messages(generate::schema(&kind).unwrap(), &mut rules);
        for rule in rules {
            // Rules of shared types need one example in any kind.
            let shown = rejected
                .iter()
                .any(|case| rule.contains(case["says"].as_str().unwrap()));
            assert!(shown, "{kind}: no example for {rule:?}");
        }
    }
}

#[test]
fn rules_are_compiled_by_the_offline_engine() {
    // A rule that the offline engine cannot run is a finding on every object, so that whole_objects_are_taken would
    // fail; this names the rule.
    for definition in generate::definitions() {
        let kind = definition.spec.names.kind;
        let object = accepted()
            .into_iter()
            .find(|object| object["kind"] == kind)
            .unwrap();
        let outcome = Validator::new().validate(generate::schema(&kind).unwrap(), &object, Some(&object));
        assert!(outcome.is_ok(), "{kind}: {outcome:?}");
    }
}

#[test]
fn every_error_at_once_in_the_order_of_the_file() {
    let validated = check(
        "apiVersion: kiban.dev/v1alpha1\nkind: HardwarePool\nmetadata: {name: Private}\nspec:\n  service: web\n  disruption:\n    maxUnavaliable: 1\n    maxPerDomain: 0\n---\n[not, an, object]\n---\napiVersion: kiban.dev/v1alpha1\nkind: Devise\n---\nbroken: [\n---\napiVersion: kiban.dev/v1alpha1\nkind: Device\nmetadata: {name: a}\nspec: {model: x, serial: AB12, bmc: {url: 'https://10.0.0.1', credentials: c}}\n",
    );
    let places: Vec<_> = validated.errors().map(|finding| finding.line).collect();
    assert_eq!(places, [3, 7, 8, 10, 13, 15, 20], "{}", said(&validated));
    let text = said(&validated);
    assert!(
        text.contains("unknown field `maxUnavaliable`, did you mean `maxUnavailable`?"),
        "{text}"
    );
    assert!(text.contains("did you mean `Device`?"), "{text}");
    assert!(text.contains("there is no HardwareModel `x`"), "{text}");
}

#[test]
fn a_finding_is_drawn_with_its_line() {
    let pool = "apiVersion: kiban.dev/v1alpha1\nkind: HardwarePool\nmetadata: {name: hosting}\nspec:\n  service: 基盤 web\n  rollout: {waves: [{devices: 200}]}\n---\napiVersion: kiban.dev/v1alpha1\nkind: HardwareModel\nmetadata: {name: r650}\nspec: {manufacturer: Dell, product: R650}\n---\napiVersion: kiban.dev/v1alpha1\nkind: Device\nmetadata: {name: a}\nspec: {model: r650, serial: AB12, bmc: {url: 'https://10.0.0.1', credentials: c}, location: {rack: a}, pool: hosting}\n";
    let files = [File {
        path: "pools/hosting.yaml",
        bytes: pool.as_bytes(),
    }];
    let validated = validate(&files, &Options::default());
    assert_eq!(
        render(&validated.findings, &files, false, 100),
        "error: a wave wants more devices than the pool has\n  \
         ╭─ pools/hosting.yaml:6:31\n\
         6 │   rollout: {waves: [{devices: 200}]}\n  \
         │                               ^^^ the pool has 1 device\n  \
         ╰─ hint: waves[0].devices counts devices, not percent; write `percent: …` for a share\n"
    );
    assert_eq!(
        summary(&validated),
        "checked 3 documents in 1 file: 1 error. Nothing would be applied."
    );
    // Colour changes nothing but colour.
    let coloured = render(&validated.findings, &files, true, 100);
    assert!(
        coloured.starts_with("\x1b[1;31merror\x1b[0m: a wave"),
        "{coloured:?}"
    );
}

#[test]
fn a_long_line_is_cut_around_the_mark() {
    let long = format!(
        "apiVersion: kiban.dev/v1alpha1\nkind: HardwarePool\nmetadata: {{name: a}}\nspec: {{service: \"{}\", clas: Public, baselines: [{}]}}\n",
        "x".repeat(60),
        "b, ".repeat(10)
    );
    let files = [File {
        path: "a.yaml",
        bytes: long.as_bytes(),
    }];
    let findings = validate(&files, &Options::default()).findings;
    let finding = findings
        .iter()
        .position(|finding| finding.field == "spec.clas")
        .unwrap();
    let drawn = render(&findings[finding..=finding], &files, false, 60);
    let mut lines = drawn.lines().skip(2);
    let (source, mark) = (lines.next().unwrap(), lines.next().unwrap());
    assert!(
        source.chars().count() <= 60 && source.contains("clas: Public"),
        "{drawn}"
    );
    let column = mark.chars().position(|c| c == '^').unwrap();
    assert_eq!(
        source.chars().skip(column).take(4).collect::<String>(),
        "clas",
        "{drawn}"
    );
}

#[test]
fn nothing_in_a_file_reaches_the_terminal_as_a_command() {
    let text = "apiVersion: kiban.dev/v1alpha1\nkind: \"De\\e[31mvice\"\nmetadata: {name: \"\\e]0;owned\\a\", \u{202E}x: y}\nspec: {}\n# \u{1b}[2J\n\u{9b}31m: x\n";
    let files = [File {
        path: "\u{1b}[2Jevil.yaml",
        bytes: text.as_bytes(),
    }];
    let validated = validate(&files, &Options::default());
    assert!(!validated.is_ok());
    let drawn = render(&validated.findings, &files, false, 80);
    assert!(drawn.chars().all(|c| c == '\n' || !c.is_control()), "{drawn:?}");
    assert!(!drawn.contains('\u{202E}'), "{drawn:?}");
}

#[test]
fn existing_objects_may_be_named() {
    let device = "apiVersion: kiban.dev/v1alpha1\nkind: Device\nmetadata: {name: a, namespace: tokyo}\nspec: {model: r650, serial: AB12, bmc: {url: 'https://10.0.0.1', credentials: c}}\n";
    let files = [File {
        path: "a.yaml",
        bytes: device.as_bytes(),
    }];
    let existing = BTreeSet::from([("HardwareModel".to_owned(), "r650".to_owned())]);
    let options = Options {
        namespace: "tokyo".into(),
        existing: Some(existing),
    };
    let validated = validate(&files, &options);
    assert_eq!(said(&validated), "");
    let elsewhere = Options {
        namespace: "osaka".into(),
        ..options
    };
    assert!(said(&validate(&files, &elsewhere)).contains("the fleet is in osaka"));
}

#[test]
fn findings_are_bounded_and_errors_come_first() {
    let mut text = String::from(
        "apiVersion: kiban.dev/v1alpha1\nkind: HardwarePool\nmetadata: {name: a}\nspec:\n  service: web\n",
    );
    for index in 0..900 {
        text.push_str(&format!("  wrong{index}: 1\n"));
    }
    let validated = check(&text);
    assert_eq!(validated.findings.len(), super::MAX_FINDINGS);
    assert_eq!(validated.more, 900 + 1 - super::MAX_FINDINGS);
    assert!(
        validated
            .findings
            .iter()
            .all(|finding| finding.severity == Severity::Error)
    );
}

#[test]
fn the_sample_fleet_is_in_order() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/sample-fleet");
    let mut found = Vec::new();
    for folder in [root.clone(), root.join("devices")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    let files: Vec<File<'_>> = found.iter().map(|(path, bytes)| File { path, bytes }).collect();
    let validated = validate(&files, &Options::default());
    assert_eq!(render(&validated.findings, &files, false, 100), "");
    assert_eq!(validated.objects.len(), 27);
    let models: BTreeSet<_> = validated
        .objects
        .iter()
        .filter(|object| object.kind == "HardwareModel")
        .map(|model| &model.name)
        .collect();
    assert_eq!(models.len(), 4);
}
