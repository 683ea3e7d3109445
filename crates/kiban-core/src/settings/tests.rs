use super::*;

fn choice(values: &[&str]) -> Attribute {
    Attribute::new(Kind::Choice(values.iter().map(|v| Choice::new(*v)).collect()))
}

fn rule(
    from: &[(&str, Test, &str, Join)],
    to: &str,
    property: Property,
    value: impl Into<Value>,
) -> Dependency {
    Dependency {
        conditions: from
            .iter()
            .map(|(attribute, test, value, join)| Condition {
                attribute: (*attribute).into(),
                test: *test,
                value: (*value).into(),
                join: *join,
            })
            .collect(),
        attribute: to.into(),
        property,
        value: value.into(),
    }
}

fn values<V: Into<Value> + Clone>(list: &[(&str, V)]) -> Values {
    list.iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone().into()))
        .collect()
}

/// What a small BIOS has: a profile that rules others, a number, a text, a flag, things that cannot be written.
fn registry() -> Registry {
    let on_off = || choice(&["Enabled", "Disabled"]);
    let number = Kind::Number {
        low: Some(60),
        high: Some(600),
        step: Some(30),
    };
    let text = Kind::Text {
        min: Some(2),
        max: Some(8),
    };
    let fixed = Attribute {
        read_only: true,
        ..Attribute::new(Kind::Text { min: None, max: None })
    };
    let attributes = [
        ("SysProfile", choice(&["Performance", "Custom"])),
        ("Turbo", on_off()),
        (
            "C1E",
            Attribute {
                read_only: true,
                ..on_off()
            },
        ),
        ("Sriov", on_off()),
        ("Delay", Attribute::new(number)),
        ("AssetTag", Attribute::new(text)),
        ("Quiet", Attribute::new(Kind::Flag)),
        ("Version", fixed),
        (
            "SetupPassword",
            Attribute::new(Kind::Text { min: None, max: None }),
        ),
        ("Pin", Attribute::new(Kind::Password)),
        ("Unfitted", on_off()),
    ];
    Registry {
        id: "Test.v1".into(),
        attributes: attributes.into_iter().map(|(n, a)| (n.to_owned(), a)).collect(),
        dependencies: vec![
            rule(
                &[("SysProfile", Test::Different, "Custom", Join::Or)],
                "C1E",
                Property::ReadOnly,
                true,
            ),
            rule(
                &[("SysProfile", Test::Equal, "Custom", Join::Or)],
                "C1E",
                Property::ReadOnly,
                false,
            ),
            rule(
                &[("SysProfile", Test::Equal, "Performance", Join::Or)],
                "Turbo",
                Property::CurrentValue,
                "Enabled",
            ),
        ],
    }
}

fn current() -> Values {
    let mut all = values(&[
        ("SysProfile", "Performance"),
        ("Turbo", "Enabled"),
        ("C1E", "Disabled"),
        ("Sriov", "Disabled"),
        ("AssetTag", "t-1"),
        ("Version", "1.2"),
        ("SetupPassword", ""),
    ]);
    all.extend(values(&[("Delay", 120_i64)]));
    all.extend(values(&[("Quiet", true)]));
    all
}

fn judge(wanted: &Values) -> Judgement {
    registry().judge(Scope::Bios, &current(), wanted)
}

fn only_problem(wanted: &Values) -> String {
    let judgement = judge(wanted);
    assert_eq!(judgement.problems.len(), 1, "{judgement:?}");
    judgement.problems[0].to_string()
}

#[test]
fn what_is_so_already_needs_nothing() {
    let judgement = judge(
        &current()
            .into_iter()
            .filter(|(n, _)| n != "SetupPassword")
            .collect(),
    );
    assert_eq!(judgement, Judgement::default());
}

#[test]
fn a_plain_change_is_ready_and_needs_a_reset() {
    let wanted = values(&[("Sriov", "Enabled")]);
    let judgement = judge(&wanted);
    assert!(judgement.problems.is_empty());
    assert_eq!(judgement.change.ready, wanted);
    assert!(judgement.change.reset && judgement.change.later.is_empty());
    let bmc = registry().judge(Scope::Bmc, &current(), &wanted);
    assert!(
        !bmc.change.reset,
        "a BMC's settings take effect at once unless the registry says otherwise"
    );
}

#[test]
fn problems_name_the_attribute_and_what_is_allowed() {
    for (wanted, message) in [
        (values(&[("Sriiov", "Enabled")]), "there is no attribute Sriiov"),
        (
            values(&[("sriov", "Enabled")]),
            "there is no attribute sriov; did you mean Sriov?",
        ),
        (
            values(&[("Version", "2")]),
            "attribute Version is read-only (now \"1.2\")",
        ),
        (
            values(&[("Sriov", "On")]),
            "attribute Sriov cannot be \"On\"; allowed: \"Enabled\", \"Disabled\"",
        ),
        (
            values(&[("AssetTag", "far too long")]),
            "attribute AssetTag cannot be \"far too long\"; allowed: a text of 2 to 8 characters",
        ),
        (
            values(&[("Quiet", "maybe")]),
            "attribute Quiet cannot be \"maybe\"; allowed: true or false",
        ),
        (
            values(&[("Unfitted", "Enabled")]),
            "attribute Unfitted does not exist on this machine in its present configuration",
        ),
        (
            values(&[("SetupPassword", "x")]),
            "attribute SetupPassword holds a secret, which is no setting to keep in Git",
        ),
        (
            values(&[("Pin", "x")]),
            "attribute Pin holds a secret, which is no setting to keep in Git",
        ),
        (
            values(&[("C1E", "Enabled")]),
            "attribute C1E cannot be set to \"Enabled\": it is read-only while SysProfile ≠ \"Custom\"",
        ),
    ] {
        assert_eq!(only_problem(&wanted), message);
    }
    for number in [0_i64, 59, 61, 601, i64::MIN] {
        let message = only_problem(&values(&[("Delay", number)]));
        assert_eq!(
            message,
            format!("attribute Delay cannot be {number}; allowed: 60 to 600 in steps of 30")
        );
    }
    assert_eq!(
        only_problem(&values(&[("AssetTag", 123_i64)])),
        "attribute AssetTag cannot be 123; allowed: a text of 2 to 8 characters"
    );
}

#[test]
fn no_secret_is_repeated() {
    let judgement = judge(&values(&[("SetupPassword", "canary-1"), ("Pin", "canary-2")]));
    assert_eq!(judgement.problems.len(), 2);
    assert!(!format!("{judgement:?}").contains("canary"));
}

#[test]
fn what_another_setting_opens_waits_for_it() {
    let judgement = judge(&values(&[("SysProfile", "Custom"), ("C1E", "Enabled")]));
    assert!(judgement.problems.is_empty(), "{judgement:?}");
    assert_eq!(judgement.change.ready, values(&[("SysProfile", "Custom")]));
    assert_eq!(judgement.change.later, values(&[("C1E", "Enabled")]));

    // After the reset the registry prints its flags anew.
    let mut state = current();
    state.insert("SysProfile".into(), "Custom".into());
    let mut after = registry();
    after.attributes.get_mut("C1E").unwrap().read_only = false;
    let judgement = after.judge(
        Scope::Bios,
        &state,
        &values(&[("SysProfile", "Custom"), ("C1E", "Enabled")]),
    );
    assert_eq!(judgement.change.ready, values(&[("C1E", "Enabled")]));
    assert!(judgement.change.later.is_empty());
}

#[test]
fn what_a_wanted_setting_closes_is_a_problem() {
    let mut state = current();
    state.insert("SysProfile".into(), "Custom".into());
    let wanted = values(&[("SysProfile", "Performance"), ("C1E", "Enabled")]);
    let mut open = registry();
    open.attributes.get_mut("C1E").unwrap().read_only = false;
    let judgement = open.judge(Scope::Bios, &state, &wanted);
    assert_eq!(judgement.problems[0].category(), "SettingBlocked");
}

#[test]
fn forced_values_conflict_when_wanted_otherwise_and_are_told_when_not() {
    let mut state = current();
    state.extend(values(&[("SysProfile", "Custom"), ("Turbo", "Disabled")]));
    let judgement = registry().judge(Scope::Bios, &state, &values(&[("SysProfile", "Performance")]));
    assert!(judgement.problems.is_empty());
    assert_eq!(judgement.change.also, values(&[("Turbo", "Enabled")]));

    let both = values(&[("SysProfile", "Performance"), ("Turbo", "Disabled")]);
    let judgement = registry().judge(Scope::Bios, &state, &both);
    assert_eq!(
        judgement.problems[0].to_string(),
        "attribute Turbo cannot be \"Disabled\": SysProfile = \"Performance\" makes it \"Enabled\""
    );
    // Machines that are in a state which their registry calls impossible are left in peace.
    let mut odd = current();
    odd.insert("Turbo".into(), "Disabled".into());
    assert_eq!(registry().judge(Scope::Bios, &odd, &both), Judgement::default());
}

#[test]
fn a_printed_flag_that_a_dependency_explains_goes_with_its_cause() {
    // Supermicro prints `Hidden: true` for what is hidden now, and says when it is hidden, not when it is not.
    let mut registry = registry();
    registry.attributes.get_mut("Sriov").unwrap().hidden = true;
    registry.dependencies.push(rule(
        &[("Turbo", Test::Equal, "Enabled", Join::Or)],
        "Sriov",
        Property::Hidden,
        true,
    ));
    registry
        .dependencies
        .retain(|d| d.property != Property::CurrentValue);
    let alone = registry.judge(Scope::Bios, &current(), &values(&[("Sriov", "Enabled")]));
    assert_eq!(
        alone.problems[0].to_string(),
        "attribute Sriov cannot be set to \"Enabled\": it is hidden while Turbo = \"Enabled\""
    );
    let both = registry.judge(
        Scope::Bios,
        &current(),
        &values(&[("Sriov", "Enabled"), ("Turbo", "Disabled")]),
    );
    assert!(both.problems.is_empty());
    assert_eq!(both.change.later, values(&[("Sriov", "Enabled")]));
}

#[test]
fn conditions_join_from_left_to_right_and_the_unknown_decides_nothing() {
    let state = values(&[("A", "1"), ("B", "2")]);
    let holds = |from: &[(&str, Test, &str, Join)]| rule(from, "X", Property::Hidden, true).holds(&state);
    use Join::{And, Or};
    use Test::{AtLeast, AtMost, Different, Equal, Greater, Less};
    assert_eq!(
        holds(&[("A", Equal, "1", Or), ("B", Equal, "9", And)]),
        Some(false)
    );
    assert_eq!(
        holds(&[
            ("A", Equal, "1", Or),
            ("B", Equal, "9", And),
            ("B", Equal, "2", Or)
        ]),
        Some(true)
    );
    assert_eq!(
        holds(&[("A", Equal, "9", Or), ("B", Equal, "9", Or)]),
        Some(false)
    );
    assert_eq!(holds(&[("Nowhere", Equal, "1", Or)]), None);
    assert_eq!(
        holds(&[("Nowhere", Different, "1", Or), ("A", Equal, "1", Or)]),
        Some(true)
    );
    assert_eq!(
        holds(&[("Nowhere", Different, "1", Or), ("A", Equal, "1", And)]),
        None
    );
    assert_eq!(
        holds(&[("Nowhere", Equal, "1", Or), ("A", Equal, "9", And)]),
        Some(false)
    );
    assert_eq!(
        holds(&[("B", Greater, "1", Or), ("B", Less, "3", And)]),
        Some(true)
    );
    assert_eq!(holds(&[("B", AtLeast, "3", Or)]), Some(false));
    assert_eq!(holds(&[("B", AtMost, "2", Or)]), Some(true));
    assert_eq!(holds(&[("B", Greater, "x", Or)]), None);
    assert_eq!(holds(&[]), None);
}

#[test]
fn choices_are_spelled_as_the_machine_spells_them() {
    let choices = ["Force BIOS", "Keep Current"].iter().zip(["1", "0"]);
    let choices = choices.map(|(display, name)| Choice {
        name: name.into(),
        display: Some((*display).into()),
    });
    let registry = Registry {
        attributes: BTreeMap::from([("Rom".to_owned(), Attribute::new(Kind::Choice(choices.collect())))]),
        ..Registry::default()
    };
    let judge = |now: &str, wanted: Value| {
        registry.judge(Scope::Bios, &values(&[("Rom", now)]), &values(&[("Rom", wanted)]))
    };
    let judgement = judge("Force BIOS", "Keep Current".into());
    assert_eq!(judgement.change.ready, values(&[("Rom", "Keep Current")]));
    let judgement = judge("1", 0.into());
    assert_eq!(judgement.change.ready, values(&[("Rom", "0")]));
    assert_eq!(judge("1", 1.into()), Judgement::default());
    assert_eq!(
        judge("Force BIOS", "0".into()).problems[0].to_string(),
        "attribute Rom cannot be \"0\"; allowed: \"Force BIOS\", \"Keep Current\""
    );
}

#[test]
fn without_a_registry_names_and_types_are_the_machines_own() {
    let current = current();
    let registry = Registry::of_values(&current);
    let judgement = registry.judge(Scope::Bmc, &current, &values(&[("Sriov", "Whatever")]));
    assert_eq!(judgement.change.ready, values(&[("Sriov", "Whatever")]));
    for (wanted, word) in [
        (values(&[("Nowhere", "x")]), "UnknownSetting"),
        (values(&[("Quiet", "maybe")]), "SettingNotAllowed"),
    ] {
        let judgement = registry.judge(Scope::Bmc, &current, &wanted);
        assert_eq!(judgement.problems[0].category(), word);
    }
}

#[test]
fn differences_are_what_drifted() {
    let wanted = values(&[("Sriov", "Enabled"), ("Delay", "120"), ("Gone", "x")]);
    let words: Vec<String> = differences(&wanted, &current())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        words,
        [
            "Gone is missing, should be \"x\"",
            "Sriov is \"Disabled\", should be \"Enabled\""
        ]
    );
}

#[test]
fn values_read_as_people_write_them() {
    let read: Values = serde_json::from_str(r#"{"a": "Enabled", "b": 120, "c": true}"#).unwrap();
    assert_eq!(read["a"], "Enabled".into());
    assert_eq!(read["b"], 120.into());
    assert_eq!(read["c"], true.into());
    assert_eq!(
        serde_json::to_string(&read).unwrap(),
        r#"{"a":"Enabled","b":120,"c":true}"#
    );
    assert!(serde_json::from_str::<Values>(r#"{"a": [1]}"#).is_err());
    assert!(Value::Text("0".into()).is(&Value::Number(0)) && !Value::Text("x".into()).is(&Value::Number(0)));
    assert!(Value::Flag(true).is(&"True".into()) && !Value::Flag(true).is(&"Enabled".into()));
}

#[test]
fn names_of_secrets_are_known_and_policies_about_them_are_not_secrets() {
    for name in [
        "SysPassword",
        "ClientPassword_294A",
        "Users.2.Password",
        "Users.2.SHA256PasswordSalt",
        "IPMILan.1.EncryptionKey",
        "SNMP.1.AgentCommunity",
    ] {
        assert!(names_secret(name), "{name}");
    }
    for name in [
        "PasswordStatus",
        "Security.1.MinimumPasswordLength",
        "HotKey",
        "SecureBoot",
    ] {
        assert!(!names_secret(name), "{name}");
    }
}
