//! Files that somebody's hand slipped on, thousands of them: nothing panics, every finding points into the file, and
//! what is taken is an object of its kind that converts.

use super::{ACCEPTED, File, Options, render, validate};
use crate::convert;
use proptest::prelude::*;
use serde_json::Value;

/// One slip: where, as a share of the text, and what.
#[derive(Clone, Debug)]
enum Slip {
    Delete(usize),
    Insert(&'static str),
    Replace(u8),
    Cut,
    Repeat(usize),
}

fn slip() -> impl Strategy<Value = (f64, Slip)> {
    let text = prop::sample::select(vec![
        "\n",
        "  ",
        "\t",
        ":",
        ": ",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "'",
        "|\n",
        ">\n",
        "#",
        "&a ",
        "*a",
        "!x ",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "<<: ",
        "null",
        "~",
        "no",
        "1e3",
        "0x1f",
        "-1",
        "99999999999999999999",
        "\u{0}",
        "\u{FEFF}",
        "\u{202E}",
        "基",
        "🙂",
        "\r",
        "{{ x }}",
        "? ",
        "@",
        "`",
        ".nan",
    ]);
    let kind = prop_oneof![
        (1_usize..40).prop_map(Slip::Delete),
        text.prop_map(Slip::Insert),
        any::<u8>().prop_map(Slip::Replace),
        Just(Slip::Cut),
        (1_usize..200).prop_map(Slip::Repeat),
    ];
    (0.0..1.0_f64, kind)
}

fn apply(text: &mut Vec<u8>, at: f64, slip: &Slip) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    let at = ((text.len() as f64) * at) as usize;
    match slip {
        Slip::Delete(length) => drop(text.drain(at..(at + length).min(text.len()))),
        Slip::Insert(what) => drop(text.splice(at..at, what.bytes())),
        Slip::Replace(byte) if at < text.len() => text[at] = *byte,
        Slip::Replace(_) => {}
        Slip::Cut => text.truncate(at),
        Slip::Repeat(length) => {
            let part = text[at..(at + length).min(text.len())].to_vec();
            drop(text.splice(at..at, part));
        }
    }
}

/// Whether the kind's Rust type takes an object, as the operator's watch will have to.
fn is_of_its_kind(kind: &str, value: &Value) -> Result<(), String> {
    fn typed<K: serde::de::DeserializeOwned>(value: &Value) -> Result<K, String> {
        serde_json::from_value(value.clone()).map_err(|error| error.to_string())
    }
    let text = |error: convert::FieldErrors| error.to_string();
    match kind {
        "Device" => typed(value).map(|device| drop(convert::device(&device))),
        "HardwareModel" => typed(value).map(|model| drop(convert::model(&model))),
        "HardwarePool" => typed(value).and_then(|pool| convert::pool(&pool).map(drop).map_err(text)),
        "FirmwareBaseline" => {
            typed(value).and_then(|baseline| convert::baseline(&baseline).map(drop).map_err(text))
        }
        "FleetPolicy" => typed(value).and_then(|policy| {
            convert::policy(&policy).map_err(text)?;
            convert::traffic(&policy).map(drop).map_err(text)
        }),
        "FleetRepository" => typed(value).and_then(|git| convert::interval(&git).map(drop).map_err(text)),
        other => Err(format!("{other} is no kind that people write")),
    }
}

/// The part of the accepted objects that people write.
fn written() -> &'static str {
    ACCEPTED
        .split("---\napiVersion: kiban.dev/v1alpha1\nkind: Rollout")
        .next()
        .unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_slip_is_answered_or_harmless(slips in prop::collection::vec(slip(), 1..6)) {
        let mut text = written().as_bytes().to_vec();
        for (at, slip) in &slips {
            apply(&mut text, *at, slip);
        }
        let files = [File { path: "fleet.yaml", bytes: &text }];
        let validated = validate(&files, &Options::default());
        let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
        for finding in &validated.findings {
            // A carriage return alone is a line to YAML, too.
            let returns = text.iter().filter(|byte| **byte == b'\r').count();
            prop_assert!(usize::try_from(finding.line).unwrap() <= lines + returns, "{:?}", finding);
            prop_assert!(!finding.message.is_empty());
        }
        let drawn = render(&validated.findings, &files, false, 80);
        prop_assert!(drawn.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", drawn);
        if validated.is_ok() {
            for object in &validated.objects {
                let outcome = is_of_its_kind(&object.kind, &object.value);
                prop_assert!(outcome.is_ok(), "{} {}: {:?}", object.kind, object.name, outcome);
            }
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let files = [File { path: "x", bytes: &bytes }];
        let validated = validate(&files, &Options::default());
        prop_assert!(validated.is_ok() || !render(&validated.findings, &files, true, 0).is_empty());
    }
}
