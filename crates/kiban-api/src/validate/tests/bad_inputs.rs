//! The list of bad inputs, one by one. Each entry: what it is, the file's text, and what must be said; an empty `says`
//! means that the file is taken.

use super::{File, Options, Validated, check, said, validate};
use std::fmt::Write as _;

const HEAD: &str =
    "apiVersion: kiban.dev/v1alpha1\nkind: HardwarePool\nmetadata: {name: a}\nspec:\n  service: web\n";

fn pool(rest: &str) -> String {
    format!("{HEAD}{rest}")
}

fn policy(rest: &str) -> String {
    format!("apiVersion: kiban.dev/v1alpha1\nkind: FleetPolicy\nmetadata: {{name: fleet}}\nspec:\n{rest}")
}

fn model(name: &str) -> String {
    format!(
        "apiVersion: kiban.dev/v1alpha1\nkind: HardwareModel\nmetadata: {{name: {name}}}\nspec: {{manufacturer: Dell, product: R650}}\n"
    )
}

fn device(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: kiban.dev/v1alpha1\nkind: Device\nmetadata: {{name: {name}}}\nspec: {{model: r650, {spec}, bmc: {{url: 'https://{name}.example', credentials: c}}}}\n"
    )
}

const SHA: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn baseline(name: &str, component: &str) -> String {
    format!(
        "---\napiVersion: kiban.dev/v1alpha1\nkind: FirmwareBaseline\nmetadata: {{name: {name}}}\nspec:\n  models: [r650]\n  components:\n  - {{{component}, image: {{url: https://firmware.example/x, sha256: {SHA}}}}}\n"
    )
}

fn cases() -> Vec<(&'static str, String, &'static str)> {
    let metadata = |metadata: &str| {
        format!(
            "apiVersion: kiban.dev/v1alpha1\nkind: HardwareModel\nmetadata:\n  name: r650\n{metadata}\nspec: {{manufacturer: Dell, product: R650}}\n"
        )
    };
    let version = |text: &str| {
        format!(
            "{}{}",
            model("r650"),
            baseline("b", &format!("class: NIC, version: {text}"))
        )
    };
    let budget = |text: &str| pool(&format!("  disruption: {{maxUnavailable: {text}}}\n"));
    let soak = |text: &str| pool(&format!("  rollout: {{waves: [{{percent: 5, soak: {text}}}]}}\n"));
    let bomb = {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let _ = writeln!(
                bomb,
                "a{level}: &a{level} [{}]",
                vec![format!("*a{}", level - 1); 9].join(", ")
            );
        }
        bomb
    };
    vec![
        ("1 empty file", String::new(), ""),
        ("2 only comments", "# nothing\n# here\n".into(), ""),
        ("2 only separators", "---\n---\n...\n".into(), ""),
        (
            "3 BOM",
            format!("\u{FEFF}{}", model("r650")),
            "Warning fleet.yaml:1:1 : the file begins with a byte-order mark",
        ),
        (
            "6 tabs",
            "apiVersion: kiban.dev/v1alpha1\nkind: Device\nmetadata:\n\tname: a\n".into(),
            "the line is indented by a tab",
        ),
        (
            "7 duplicate keys",
            pool("  class: Public\n  class: Private\n"),
            "fleet.yaml:7:3 : the key `class` stands twice, first in line 6",
        ),
        ("8 billion laughs", bomb, "has too many values"),
        (
            "8 an alias of itself",
            "a: &a [*a]\n".into(),
            "an alias stands for what it is a part of",
        ),
        (
            "8 aliases that deepen",
            {
                let mut deep = String::from("a0: &a0 [x]\n");
                for level in 1..60 {
                    let _ = writeln!(deep, "a{level}: &a{level} [*a{}]", level - 1);
                }
                deep
            },
            "is nested too deeply",
        ),
        (
            "9 10^5-deep nesting",
            format!("a: {}", "[".repeat(100_000)),
            "not YAML",
        ),
        (
            "9 deep blocks",
            (0..1000)
                .map(|depth| format!("{}a:\n", " ".repeat(depth)))
                .collect(),
            "not YAML",
        ),
        (
            "12 unknown kind",
            "apiVersion: kiban.dev/v1alpha1\nkind: HardwarePol\n".into(),
            "unknown kind `HardwarePol` () [did you mean `HardwarePool`?]",
        ),
        (
            "12 unknown apiVersion",
            "apiVersion: kiban.dev/v1\nkind: Device\n".into(),
            "`Device` has the apiVersion kiban.dev/v1alpha1",
        ),
        (
            "12 another's kind",
            "apiVersion: apps/v1\nkind: Deployment\n".into(),
            "unknown kind `Deployment` of `apps/v1`",
        ),
        ("12 no kind", "metadata: {name: a}\n".into(), "kind is missing"),
        (
            "12 a Secret",
            "apiVersion: v1\nkind: Secret\n".into(),
            "a Secret does not belong into Git",
        ),
        (
            "12 an Operation",
            "apiVersion: kiban.dev/v1alpha1\nkind: Operation\n".into(),
            "written by the operator, never in Git",
        ),
        (
            "13 a typo",
            pool("  disruption: {maxUnavaliable: 1}\n"),
            "spec.disruption.maxUnavaliable: unknown field `maxUnavaliable`, did you mean `maxUnavailable`?",
        ),
        (
            "14 no",
            version("no"),
            "`no` without quotes is a boolean to some YAML readers () [quote it: \"no\"]",
        ),
        ("14 on", version("on"), "[quote it: \"on\"]"),
        ("14 1e3", version("1e3"), "[quote it: \"1e3\"]"),
        ("14 0o7", version("0o7"), "[quote it: \"0o7\"]"),
        ("14 1_000", version("1_000"), "[quote it: \"1_000\"]"),
        ("14 010", version("010"), "[quote it: \"010\"]"),
        ("14 quoted is fine", version("\"no\""), ""),
        (
            "15 1.10",
            version("1.10"),
            "`1.10` without quotes is a decimal number, of which trailing zeros are lost () [quote it: \"1.10\"]",
        ),
        ("15 three parts are a text", version("1.10.0"), ""),
        (
            "14 a serial of digits",
            format!("{}{}", model("r650"), device("a", "serial: 123456")),
            "quote it: \"123456\"",
        ),
        (
            "16 null for a map",
            pool("  disruption:\n"),
            "spec.disruption has no value",
        ),
        (
            "16 null for a text",
            pool("  class: ~\n"),
            "spec.class has no value",
        ),
        (
            "17 a share of a service above the whole",
            policy("  services: [{name: web, maxUnavailable: 101%}]\n"),
            "not `101%`",
        ),
        (
            "17 a negative limit on a rack",
            policy("  domains: [{over: Rack, max: -1}]\n"),
            "must be at least 1, not -1",
        ),
        (
            "18 a fleet of which nothing may move, said",
            policy("  maxUnavailable: 0%\n"),
            "Warning fleet.yaml:5:19 spec.maxUnavailable: with this budget nothing of the fleet is ever updated",
        ),
        (
            "18 a service of which nothing may move, said",
            policy("  services: [{name: web, maxUnavailable: 0}]\n"),
            "with this budget nothing of the service web is ever updated",
        ),
        (
            "a redundancy group is the one label of ours that Git may hold",
            metadata("  labels: {kiban.dev/redundancy-group: pair-7}"),
            "",
        ),
        (
            "another label of ours",
            metadata("  labels: {kiban.dev/pool: web}"),
            "kiban.dev/pool is reserved",
        ),
        ("17 negative budget", budget("-1"), "must be at least 0, not -1"),
        (
            "17 negative share",
            budget("-5%"),
            "must be a count or a share from 0% to 100%, not `-5%`",
        ),
        ("17 too large a share", budget("101%"), "not `101%`"),
        ("17 NaN", budget(".nan"), "not `.nan`"),
        ("17 half a device", budget("2.5"), "not `2.5`"),
        (
            "17 a quoted count",
            budget("\"3\""),
            "[write a count (3) or a share (5%)]",
        ),
        (
            "18 a share of nothing is none, and said to be",
            format!(
                "{}{}---\n{}",
                model("r650"),
                device("b", "serial: B1, pool: a, location: {rack: x}"),
                budget("0%")
            ),
            "Warning fleet.yaml:16:32 spec.disruption.maxUnavailable: with this budget nothing of the pool is ever updated",
        ),
        (
            "19 overflow",
            pool("  rollout: {retry: 9223372036854775808}\n"),
            "must be a whole number in decimal",
        ),
        (
            "19 int64 where 32 bits are",
            pool("  rollout: {retry: 9223372036854775807}\n"),
            "must be at most 4294967295",
        ),
        (
            "20 no unit",
            soak("\"5\""),
            "spec.rollout.waves[0].soak must be a duration such as 90m, 24h or 1d12h, not `5`",
        ),
        ("20 a number", soak("5"), "quote it"),
        ("20 negative", soak("-1h"), "must be a duration"),
        ("20 ISO 8601", soak("P1D"), "must be a duration"),
        ("20 too long", soak("99999999h"), "must be a duration"),
        ("23 254 characters", model(&"a".repeat(254)), "has 254 characters"),
        (
            "23 64 characters",
            model(&"a".repeat(64)),
            "must have at most 63 characters",
        ),
        ("23 upper case", model("R650"), "[write it in lower case: r650]"),
        ("23 underscore", model("r_650"), "[write - for _]"),
        ("23 emoji", model("r🙂650"), "is no Latin letter"),
        ("23 two dots", model("r..650"), "each part between dots"),
        ("23 a dot at the end", model("r650."), "each part between dots"),
        ("23 a number", model("650"), "quote it: \"650\""),
        (
            "24 namespace of no form",
            metadata("  namespace: No Good"),
            "leave it out: a fleet is one namespace",
        ),
        (
            "25 one object twice",
            format!("{}---\n{}", model("r650"), model("r650")),
            "HardwareModel r650 is defined twice (first in fleet.yaml:1)",
        ),
        (
            "26 one serial twice",
            format!(
                "{}{}{}",
                model("r650"),
                device("a", "serial: AB12"),
                device("b", "serial: ab12")
            ),
            "the serial number of b is that of a, too (also in fleet.yaml:9)",
        ),
        (
            "26 one BMC twice",
            format!(
                "{}{}{}",
                model("r650"),
                device("a", "serial: A1"),
                device("b", "serial: B1").replace("b.example", "A.example:443/")
            ),
            "the BMC of b is that of a, too",
        ),
        (
            "28 a gate that is nothing",
            pool("  rollout: {gates: [{name: slo}]}\n"),
            "give exactly one of deviceHealth, tcp, http, prometheus and condition",
        ),
        (
            "28 a gate that is two things",
            pool("  rollout: {gates: [{name: slo, deviceHealth: {}, tcp: {address: 'a.example:80'}}]}\n"),
            "give exactly one of deviceHealth, tcp, http, prometheus and condition",
        ),
        (
            "28 a gate for a wave that there is not",
            pool(
                "  rollout: {waves: [{name: all, percent: 100}], gates: [{name: slo, deviceHealth: {}, waves: [al]}]}\n",
            ),
            "a gate names a wave that there is not",
        ),
        (
            "28 two waves of one name",
            pool("  rollout: {waves: [{name: a, devices: 1}, {name: a, percent: 100}]}\n"),
            "two waves must not have one name",
        ),
        (
            "28 two gates of one name",
            pool("  rollout: {gates: [{name: slo, deviceHealth: {}}, {name: slo, deviceHealth: {}}]}\n"),
            "slo",
        ),
        (
            "28 a gate that no measurement could open",
            pool("  rollout: {gates: [{name: slo, deviceHealth: {}, maxAge: 0s}]}\n"),
            "with maxAge 0s no measurement would ever be young enough",
        ),
        (
            "28 a gate without time to measure",
            pool("  rollout: {gates: [{name: slo, deviceHealth: {}, timeout: 0s}]}\n"),
            "with timeout 0s nothing would ever be measured",
        ),
        (
            "28 a condition in words",
            pool(
                "  rollout: {gates: [{name: slo, prometheus: {url: 'https://p.example', query: up, condition: 'above 1'}}]}\n",
            ),
            "must be a comparison such as > 0.99",
        ),
        (
            "28 an account in an address",
            pool("  rollout: {gates: [{name: slo, http: {url: 'https://me:secret@p.example/'}}]}\n"),
            "accounts belong into a Secret",
        ),
        (
            "28 a port that is none",
            pool("  rollout: {gates: [{name: slo, tcp: {address: a.example}}]}\n"),
            "a host and a port such as storage.example:3260",
        ),
        (
            "28 gates as they should be",
            pool(
                "  rollout: {waves: [{name: a, devices: 1}], gates: [{name: slo, waves: [a], prometheus: {url: 'https://p.example', query: 'avg(up)', condition: '> 0.99'}}]}\n",
            ),
            "Warning fleet.yaml:3:18 metadata.name: no device is in the pool a",
        ),
        (
            "27 an empty pool",
            pool(""),
            "Warning fleet.yaml:3:18 metadata.name: no device is in the pool a",
        ),
        (
            "28 an empty match",
            format!(
                "{}{}",
                model("r650"),
                baseline("b", "class: NIC, match: {}, version: \"1\"")
            ),
            "match must give manufacturer, model or name",
        ),
        (
            "29 a pattern that matches all",
            model("r650").replace("product: R650", "product: R650, reportedAs: ['*']"),
            "a pattern that matches every machine protects none",
        ),
        (
            "30 a label with a newline",
            metadata("  labels: {team: \"a\\nb\"}"),
            "is no label value",
        ),
        (
            "32 a rack is missing on one",
            format!(
                "{}{}{}---\n{}",
                model("r650"),
                device("b", "serial: B1, pool: a, location: {rack: x}"),
                device("c", "serial: C1, pool: a"),
                pool("")
            ),
            "Warning fleet.yaml:14:7 spec.location.rack: c does not say its rack",
        ),
        (
            "33 a component twice",
            format!(
                "{}{}  - {{class: NIC, version: \"2\", image: {{url: https://firmware.example/x, sha256: {SHA}}}}}\n",
                model("r650"),
                baseline("b", "class: NIC, version: \"1\"")
            ),
            "two components have the same class and match",
        ),
        (
            "35 a via that loops",
            version(
                "\"2.0\", via: [{version: \"2.0\", image: {url: https://firmware.example/x, sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}}]",
            ),
            "spec.components[0].via[0].version: is the wanted version itself",
        ),
        (
            "35 a via that leads nowhere",
            version(
                "\"2.0\", from: \">=1.5\", via: [{version: \"1.0\", image: {url: https://firmware.example/x, sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}}]",
            ),
            "spec.components[0].from: does not take 1.0, the last stepping stone, which then leads nowhere",
        ),
        (
            "35 a requirement that nobody can read",
            version("\"2.0\", accept: \">>1\""),
            "spec.components[0].accept: \">>\" is no operator",
        ),
        (
            "38 uid",
            metadata("  uid: 1234"),
            "metadata.uid belongs to a cluster",
        ),
        (
            "38 ownerReferences",
            metadata("  ownerReferences: []"),
            "metadata.ownerReferences belongs to a cluster",
        ),
        (
            "38 resourceVersion",
            metadata("  resourceVersion: \"1\""),
            "metadata.resourceVersion belongs to a cluster",
        ),
        (
            "39 finalizers",
            metadata("  finalizers: [kiban.dev/ledger]"),
            "metadata.finalizers belongs to a cluster",
        ),
        (
            "39 status",
            format!("{}status: {{}}\n", model("r650")),
            "status is written by the operator",
        ),
        (
            "40 managedFields",
            metadata("  managedFields: []"),
            "metadata.managedFields belongs to a cluster",
        ),
        (
            "40 generateName",
            metadata("  generateName: x-"),
            "metadata.generateName would make a new object",
        ),
        (
            "41 an annotation of 256 KiB",
            metadata(&format!("  annotations: {{note: {}}}", "x".repeat(256 << 10))),
            "metadata.annotations has 256 KB, the limit is 16 KB",
        ),
        (
            "41 a reserved annotation",
            metadata("  annotations: {kiban.dev/confirm-prune: abc}"),
            "kiban.dev/confirm-prune is reserved",
        ),
        (
            "42 a template marker unquoted",
            pool("  class: {{ .Values.class }}\n"),
            "template markers such as {{ x }} are not expanded here",
        ),
        (
            "43 an escape sequence",
            pool("  service: \"\\e[31mweb\"\n").replace("  service: web\n", ""),
            "spec.service holds a control character, \\u{1b}",
        ),
        (
            "43 an invisible character",
            pool("  service: we\u{200B}b\n").replace("  service: web\n", ""),
            "holds an invisible character, \\u{200b}",
        ),
        (
            "43 a direction override",
            pool("  service: we\u{202E}b\n").replace("  service: web\n", ""),
            "holds an invisible character, \\u{202e}",
        ),
        (
            "44 a homoglyph in a name",
            model("r65о"),
            "\\u{43e} is no Latin letter",
        ),
        (
            "44 a homoglyph in a rack",
            format!(
                "{}{}",
                model("r650"),
                device("a", "serial: A1, location: {rack: rаck1}")
            ),
            "mixes alphabets: а is \\u{430}",
        ),
        (
            "44 another script alone is fine",
            pool("  service: 基盤\n").replace("  service: web\n", ""),
            "",
        ),
        (
            "a tag",
            pool("  class: !evil Public\n"),
            "tags (`!name`) are not supported",
        ),
        (
            "a merge key",
            pool("  <<: {class: Public}\n"),
            "merge keys (`<<`) are not supported",
        ),
        (
            "a directive",
            format!("%YAML 1.1\n---\n{}", model("r650")),
            "not YAML",
        ),
        ("CRLF", model("r650").replace('\n', "\r\n"), ""),
        (
            "no model",
            device("a", "serial: A1"),
            "there is no HardwareModel `r650` () [add a HardwareModel of that name]",
        ),
        (
            "no such pool",
            format!("{}{}", model("r650"), device("a", "serial: A1, pool: hostng")),
            "there is no HardwarePool `hostng`",
        ),
        (
            "two baselines for a model",
            format!(
                "{}{}{}---\n{}",
                model("r650"),
                baseline("b", "class: NIC, version: \"1\""),
                baseline("c", "class: BMC, version: \"1\""),
                pool("  baselines: [b, c]\n")
            ),
            "the pool has two baselines for the model r650: b and c",
        ),
        (
            "two rollouts of one name",
            {
                let pools = format!(
                    "{}---\n{}",
                    pool("  baselines: [b-c]\n"),
                    pool("  baselines: [c]\n").replace("name: a", "name: a-b")
                );
                format!(
                    "{}{}{}---\n{pools}",
                    model("r650"),
                    baseline("b-c", "class: NIC, version: \"1\""),
                    baseline("c", "class: NIC, version: \"1\"")
                )
            },
            "the rollout of this pool and baseline would be named a-b-c, as that of pool a and baseline b-c",
        ),
        (
            "nothing may move",
            format!(
                "{}{}---\n{}",
                model("r650"),
                device("b", "serial: B1, pool: a, location: {rack: x}"),
                budget("0")
            ),
            "with this budget nothing of the pool is ever updated",
        ),
        (
            "an image from a file",
            format!(
                "{}{}",
                model("r650"),
                baseline("b", "class: NIC, version: \"1\"")
                    .replace("https://firmware.example", "file:///images")
            ),
            "Warning fleet.yaml:12:45 spec.components[0].image.url",
        ),
    ]
}

#[test]
fn each_is_answered() {
    let mut wrong = String::new();
    for (what, text, says) in cases() {
        let validated = check(&text);
        let said = said(&validated);
        let taken = validated.is_ok() && says.is_empty();
        // Pools without devices warn; that is the business of one case only.
        let said = if says.is_empty() {
            said.lines().filter(|line| line.starts_with("Error")).collect()
        } else {
            said
        };
        if !(taken && said.is_empty() || !says.is_empty() && said.contains(says)) {
            let _ = writeln!(
                wrong,
                "{what}: {says:?} is not in\n{}",
                said.chars().take(1500).collect::<String>()
            );
        }
        for finding in &validated.findings {
            let lines = u32::try_from(text.lines().count()).unwrap() + 1;
            assert!(finding.line <= lines.max(1), "{what}: {finding:?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn bytes(bytes: &[u8]) -> Validated {
    validate(
        &[File {
            path: "fleet.yaml",
            bytes,
        }],
        &Options::default(),
    )
}

#[test]
fn other_encodings_are_named() {
    let utf16: Vec<u8> = [0xFF, 0xFE]
        .into_iter()
        .chain("kind: x".encode_utf16().flat_map(u16::to_le_bytes))
        .collect();
    assert!(said(&bytes(&utf16)).contains("it looks like UTF-16")); // 4
    let bare: Vec<u8> = "kind: x".encode_utf16().flat_map(u16::to_be_bytes).collect();
    assert!(said(&bytes(&bare)).contains("it looks like UTF-16"));
    assert!(said(&bytes(b"a: b\nc: \xE9t\xE9\n")).contains("fleet.yaml:2:1 : the file is not UTF-8")); // 5
}

#[test]
fn too_much_is_refused_without_reading_it() {
    let huge = vec![b'x'; 50 << 20];
    let validated = bytes(&huge); // 10
    assert!(said(&validated).contains("the file has 51200 KB, the limit is 1024 KB"));
    assert_eq!(validated.documents, 0);

    let many = "---\n".repeat(200_000);
    assert!(said(&check(&many)).contains("the file has 200000 documents")); // 11
    let file = "---\na: b\n".repeat(super::super::MAX_FILE_DOCUMENTS);
    let files: Vec<File<'_>> = (0..200)
        .map(|_| File {
            path: "a.yaml",
            bytes: file.as_bytes(),
        })
        .collect();
    let validated = validate(&files, &Options::default()); // 11, a million in many files
    assert!(said(&validated).contains("more than 250000 documents") || validated.more > 0);
    assert!(!validated.is_ok() && validated.documents < 260_000);
}

/// Template markers in quotes are text like any other (42), and stay as they are.
#[test]
fn template_markers_stay_literal() {
    let text = pool("  service: \"{{ x }} ${HOME} %s\"\n").replace("  service: web\n", "");
    let validated = check(&text);
    assert!(validated.is_ok(), "{}", said(&validated));
    assert_eq!(
        validated.objects[0].value["spec"]["service"],
        "{{ x }} ${HOME} %s"
    );
}
