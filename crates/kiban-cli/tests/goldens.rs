//! What people read, on a fixed snapshot of the sample fleet: the binary itself, run offline.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::{path::PathBuf, process::Command};

const SNAPSHOT: &str = "crates/kiban-cli/tests/fixtures/sample-fleet.yaml";
const REPO: &str = "manifests/sample-fleet";

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .canonicalize()
        .unwrap()
}

/// Runs `kubectl kiban` as in a pipe, in UTC. Returns the exit code, standard output and standard error.
fn run_in(folder: &std::path::Path, columns: u16, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-kiban"))
        .current_dir(folder)
        .args(args)
        .env_clear()
        .env("TZ", "UTC")
        .env("COLUMNS", columns.to_string())
        .env("KUBECONFIG", "/nonexistent/kubeconfig")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn run(columns: u16, args: &[&str]) -> (i32, String, String) {
    run_in(&root(), columns, args)
}

/// Standard output of a command that must end with this code.
fn golden(code: i32, columns: u16, args: &[&str]) -> String {
    let (got, out, err) = run(columns, args);
    assert_eq!(got, code, "{args:?}: {err}{out}");
    assert!(!out.contains('\u{1b}'), "no colour in a pipe");
    out
}

fn plan(more: &[&str]) -> String {
    let args = [&["plan", "--repo", REPO, "--snapshot", SNAPSHOT], more].concat();
    golden(0, 100, &args)
}

/// The page shows what the program prints, not what it once printed.
fn shown_in_the_book(text: &str) {
    let page = std::fs::read_to_string(root().join("docs/plan-and-forecast.md")).unwrap();
    assert!(
        page.contains(text.trim_end()),
        "docs/plan-and-forecast.md lacks this output; put it there:\n{text}"
    );
}

#[test]
fn plan_as_a_table() {
    let text = plan(&[]);
    insta::assert_snapshot!("plan", text);
    shown_in_the_book(&text);
}

#[test]
fn plan_for_a_pull_request() {
    let text = plan(&["-o", "markdown"]);
    insta::assert_snapshot!("plan_markdown", text);
    shown_in_the_book(&text);
}

#[test]
fn plan_as_data() {
    let json = plan(&["-o", "json"]);
    insta::assert_snapshot!("plan_json", json);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let yaml: serde_json::Value = serde_saphyr::from_str(&plan(&["-o", "yaml"])).unwrap();
    assert_eq!(json, yaml, "the same facts in both");
}

#[test]
fn a_plan_that_breaks_a_rule_ends_with_2_and_one_that_does_not_validate_with_1() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str, from: &str, to: &str| {
        let text = std::fs::read_to_string(root().join(REPO).join(name)).unwrap();
        assert!(text.contains(from));
        std::fs::write(folder.path().join(name), text.replace(from, to)).unwrap();
    };
    copy("policy.yaml", "1.14.0", "1.15.2");
    copy("models.yaml", "onyx", "onyx");
    copy("pools.yaml", "hosting", "hosting");
    copy("baselines.yaml", "1.15.2", "1.15.2");
    let devices = folder.path().join("devices");
    std::fs::create_dir(&devices).unwrap();
    for rack in ["b07", "b08", "b09", "b10"] {
        let name = format!("devices/{rack}.yaml");
        copy(&name, "kind: Device", "kind: Device");
    }
    let repo = folder.path().to_str().unwrap().to_owned();
    let args = ["plan", "--repo", &repo, "--snapshot", SNAPSHOT];
    insta::assert_snapshot!("plan_denied", golden(2, 100, &args).replace(&repo, "DIR"));

    copy("pools.yaml", "25%", "many");
    let (code, out, err) = run(100, &args);
    assert_eq!((code, out.as_str()), (1, ""));
    insta::assert_snapshot!("plan_invalid", err);

    std::fs::remove_file(folder.path().join("devices/b07.yaml")).unwrap();
    copy("pools.yaml", "25%", "25%");
    let text = golden(2, 100, &args);
    assert!(text.contains("PruneHeld"), "{text}");
}

#[test]
fn a_plan_against_a_revision_tells_what_changed_since() {
    let folder = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| {
        let done = Command::new("git")
            .current_dir(folder.path())
            .args([
                "-c",
                "user.name=t",
                "-c",
                "user.email=t@example.com",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(args)
            .output();
        done.is_ok_and(|done| done.status.success())
    };
    if !git(&["init", "-q"]) {
        eprintln!("skipped: git is not installed; get it from your distribution");
        return;
    }
    for entry in ["policy.yaml", "models.yaml", "pools.yaml", "baselines.yaml"] {
        std::fs::copy(root().join(REPO).join(entry), folder.path().join(entry)).unwrap();
    }
    std::fs::create_dir(folder.path().join("devices")).unwrap();
    for rack in ["b07", "b08", "b09", "b10"] {
        let name = format!("devices/{rack}.yaml");
        std::fs::copy(root().join(REPO).join(&name), folder.path().join(&name)).unwrap();
    }
    assert!(git(&["add", "."]) && git(&["commit", "-qm", "one"]));
    let baselines = folder.path().join("baselines.yaml");
    let text = std::fs::read_to_string(&baselines).unwrap();
    std::fs::write(&baselines, text.replace("01.03.19", "01.03.20")).unwrap();
    let repo = folder.path().to_str().unwrap();
    let text = golden(
        0,
        100,
        &["plan", "--repo", repo, "--base", "HEAD", "--snapshot", SNAPSHOT],
    );
    assert!(
        text.contains("components[BMC].version: 01.03.19 → 01.03.20") && !text.contains("20.37.1014"),
        "{text}"
    );
    assert!(text.contains("touched    4 by this commit"), "{text}");
}

#[test]
fn forecast_as_a_table_and_as_data() {
    let args = ["forecast", "--repo", REPO, "--snapshot", SNAPSHOT];
    let text = golden(0, 100, &args);
    insta::assert_snapshot!("forecast", text);
    shown_in_the_book(&text);
    let json = golden(0, 100, &[&args[..], &["-o", "json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["operations"], 4, "{json}");
}

#[test]
fn status_explain_and_check_read_a_snapshot() {
    let status = golden(0, 100, &["status", "--snapshot", SNAPSHOT]);
    insta::assert_snapshot!("status", status);
    let explain = golden(0, 100, &["explain", "device/tyo-b10-02", "--snapshot", SNAPSHOT]);
    insta::assert_snapshot!("explain", explain);
    let check = golden(0, 100, &["check", "--snapshot", SNAPSHOT]);
    insta::assert_snapshot!("check", check);
    let validate = golden(0, 100, &["validate", REPO]);
    insta::assert_snapshot!("validate", validate);
}

#[test]
fn nothing_is_wider_than_the_terminal_down_to_forty_columns() {
    for columns in [40, 60, 80, 120] {
        for args in [
            vec!["plan", "--repo", REPO, "--snapshot", SNAPSHOT],
            vec!["forecast", "--repo", REPO, "--snapshot", SNAPSHOT],
            vec!["status", "--snapshot", SNAPSHOT],
            vec!["explain", "tyo-b10-02", "--snapshot", SNAPSHOT],
            vec!["check", "--snapshot", SNAPSHOT],
        ] {
            let text = golden(0, columns, &args);
            // A word that is wider than the terminal stays whole, to be copied.
            let wide = text.lines().find(|line| {
                line.chars().count() > usize::from(columns)
                    && line.split_whitespace().all(|word| word.chars().count() < 30)
            });
            assert_eq!(wide, None, "{columns} columns, {args:?}");
        }
    }
}

#[test]
fn every_failure_says_what_to_do_next() {
    let cases: [&[&str]; 5] = [
        &["status", "--snapshot", "/nonexistent/file"],
        &["explain", "tyo-b10-99", "--snapshot", SNAPSHOT],
        &["status"],
        &["plan", "--repo", "/nonexistent", "--snapshot", SNAPSHOT],
        &[
            "plan",
            "--repo",
            REPO,
            "--base",
            "no-such-revision",
            "--snapshot",
            SNAPSHOT,
        ],
    ];
    for args in cases {
        let (code, out, err) = run(100, args);
        assert_eq!((code, out.as_str()), (1, ""), "{args:?}");
        assert!(
            err.starts_with("error: ") && err.contains("\nhint: "),
            "{args:?}: {err}"
        );
    }
}

/// The fleet of the snapshot with the r650's wanted BIOS raised: the first version in the file is the baseline's.
fn after_the_commit(folder: &std::path::Path) -> String {
    let text = std::fs::read_to_string(root().join(SNAPSHOT)).unwrap();
    let raised = text.replacen("version: 1.14.1", "version: 1.15.2", 1);
    assert_ne!(raised, text);
    let path = folder.join("after.yaml");
    std::fs::write(&path, raised).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_rollout_is_told_and_its_retry_is_a_change_to_commit() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = after_the_commit(folder.path());
    let name = "hosting-r650-2026q4";
    let status = golden(0, 100, &["rollout", "status", name, "--snapshot", &snapshot]);
    insta::assert_snapshot!("rollout_status", status);
    let shown = golden(0, 100, &["rollout", "retry", name, "--snapshot", &snapshot]);
    insta::assert_snapshot!("rollout_retry", shown);

    let repo = folder.path().join("fleet");
    std::fs::create_dir(&repo).unwrap();
    let pools = std::fs::read_to_string(root().join(REPO).join("pools.yaml")).unwrap();
    std::fs::write(repo.join("pools.yaml"), &pools).unwrap();
    let args = [
        "rollout",
        "resume",
        name,
        "--snapshot",
        &snapshot,
        "--repo",
        repo.to_str().unwrap(),
    ];
    golden(0, 100, &args);
    let changed = std::fs::read_to_string(repo.join("pools.yaml")).unwrap();
    let differing: Vec<&str> = changed.lines().filter(|line| !pools.contains(line)).collect();
    assert_eq!(differing, ["    retry: 1"]);

    let (code, _, err) = run(100, &["rollout", "status", "none", "--snapshot", &snapshot]);
    assert_eq!(code, 1);
    assert!(err.contains("\nhint: there is "), "{err}");
}
