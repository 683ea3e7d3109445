//! The ledger out: against repositories read by `git` itself, and against real servers over ssh and https.
#![allow(clippy::unwrap_used, clippy::panic)] // a fixture that fails is a test that fails

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kiban_git::{
    Batch, Change, CommitId, CommitMessage, Identity, Ledger, LedgerConfig, LedgerError, Remote,
    testserver::{HttpsServer, SshServer, git, git_command, init_bare},
};
use tempfile::TempDir;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let fixture = Fixture {
            dir: tempfile::tempdir().unwrap(),
        };
        init_bare(&fixture.bare()).unwrap();
        fixture
    }

    fn bare(&self) -> PathBuf {
        self.dir.path().join("ledger.git")
    }

    fn config(&self) -> LedgerConfig {
        config(Remote::new(&format!("file://{}", self.bare().display()), "ledger", true).unwrap())
    }

    fn open(&self, cache: &str, known_tip: Option<CommitId>) -> Ledger {
        Ledger::open(&self.dir.path().join(cache), self.config(), known_tip).unwrap()
    }

    fn git(&self, arguments: &[&str]) -> String {
        git(&self.bare(), arguments).unwrap()
    }

    /// What another program thinks of all that we wrote.
    fn fsck(&self) {
        self.git(&["fsck", "--strict", "--no-dangling"]);
    }

    fn count(&self) -> usize {
        self.git(&["rev-list", "--count", "ledger"]).parse().unwrap()
    }
}

fn config(remote: Remote) -> LedgerConfig {
    let author = Identity {
        name: "Kiban <x>".to_owned(),
        email: "kiban@example.org".to_owned(),
    };
    LedgerConfig {
        remote,
        author,
        signing_key: None,
    }
}

fn batch(n: i64, files: &[(&str, &str)]) -> Batch {
    Batch {
        changes: files
            .iter()
            .map(|(path, content)| Change {
                path: (*path).to_owned(),
                content: content.as_bytes().to_vec(),
            })
            .collect(),
        message: CommitMessage {
            subject: format!("Batch {n}"),
            body: String::new(),
            trailers: vec![
                ("Desired".to_owned(), format!("{n:040x}")),
                ("Campaign".to_owned(), "Rollout/r650-2026q4".to_owned()),
            ],
        },
        time: jiff::Timestamp::from_second(1_780_000_000 + n).unwrap(),
    }
}

fn at(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_780_000_000 + second).unwrap()
}

#[test]
fn batches_become_commits_that_git_itself_approves_of() {
    let fixture = Fixture::new();
    let mut ledger = fixture.open("cache", None);
    let done = ledger
        .append(
            &[
                batch(
                    1,
                    &[
                        ("devices/ab/a.yaml", "v: 1\n"),
                        ("operations/2026/11/24/a-1.yaml", "op: 1\n"),
                    ],
                ),
                batch(
                    2,
                    &[
                        ("devices/ab/a.yaml", "v: 2\n"),
                        ("devices/cd/c.yaml", "v: 1\n"),
                        ("devices.md", "x\n"),
                    ],
                ),
            ],
            soon(),
        )
        .unwrap();
    assert_eq!((done.pushed, done.skipped, done.commits.len()), (5, 0, 2));
    fixture.fsck();
    assert_eq!(
        fixture.git(&["rev-parse", "ledger"]),
        done.tip.unwrap().to_string()
    );
    assert_eq!(fixture.git(&["show", "ledger:devices/ab/a.yaml"]), "v: 2");
    assert_eq!(fixture.git(&["show", "ledger~1:devices/ab/a.yaml"]), "v: 1");
    assert_eq!(
        fixture
            .git(&["log", "-1", "--format=%an <%ae> %s", "ledger"])
            .as_str(),
        "Kiban x <kiban@example.org> Batch 2"
    );
    let trailers = fixture.git(&[
        "log",
        "-1",
        "--format=%(trailers:key=Campaign,valueonly)",
        "ledger",
    ]);
    assert_eq!(trailers, "Rollout/r650-2026q4");
    let story = fixture.git(&["log", "--format=%s", "ledger", "--", "devices/ab/a.yaml"]);
    assert_eq!(story, "Batch 2\nBatch 1");
}

#[test]
fn the_same_again_changes_nothing() {
    let fixture = Fixture::new();
    let batches = [
        batch(1, &[("a.yaml", "1")]),
        batch(2, &[("a.yaml", "2")]),
        batch(3, &[("b.yaml", "1")]),
    ];
    let mut ledger = fixture.open("cache", None);
    let tip = ledger.append(&batches, soon()).unwrap().tip;
    let again = ledger.append(&batches, soon()).unwrap();
    assert_eq!((again.pushed, again.skipped, again.tip), (0, 3, tip));
    // A pod that lost its disk and its memory, and knows only what its status says.
    drop(ledger);
    let again = fixture.open("fresh", tip).append(&batches, soon()).unwrap();
    assert_eq!((again.pushed, again.tip), (0, tip));
    // Cut otherwise, as after a restart: what is there already is passed over file by file.
    let mixed = [batch(9, &[("b.yaml", "1"), ("c.yaml", "1")])];
    let done = fixture.open("fresh", tip).append(&mixed, soon()).unwrap();
    assert_eq!((done.pushed, done.skipped), (1, 1));
    assert_eq!(fixture.count(), 4);
    fixture.fsck();
}

#[test]
fn while_the_remote_is_down_nothing_is_lost_and_later_nothing_is_there_twice() {
    let fixture = Fixture::new();
    let batches = [batch(1, &[("a.yaml", "1")]), batch(2, &[("a.yaml", "2")])];
    let mut ledger = fixture.open("cache", None);
    let tip = ledger.append(&batches[..1], soon()).unwrap().tip;
    let away = fixture.dir.path().join("away");
    fs::rename(fixture.bare(), &away).unwrap();
    for _ in 0..3 {
        ledger.append(&batches, soon()).unwrap_err();
    }
    assert_eq!(ledger.tip(), tip);
    fs::rename(&away, fixture.bare()).unwrap();
    assert_eq!(ledger.append(&batches, soon()).unwrap().pushed, 1);
    assert_eq!(fixture.count(), 2);
}

#[test]
fn someone_else_being_first_costs_a_fetch_and_loses_nothing() {
    let fixture = Fixture::new();
    let mut one = fixture.open("one", None);
    one.append(&[batch(1, &[("a.yaml", "1")])], soon()).unwrap();
    let mut two = fixture.open("two", None);
    two.append(&[batch(2, &[("b.yaml", "1")])], soon()).unwrap();
    // The first one believes that the tip is where it left it.
    let done = one.append(&[batch(3, &[("a.yaml", "2")])], soon()).unwrap();
    assert_eq!(done.pushed, 1);
    assert_eq!(
        fixture.git(&["log", "--format=%s", "ledger"]),
        "Batch 3\nBatch 2\nBatch 1"
    );
    assert_eq!(fixture.git(&["show", "ledger:b.yaml"]), "1");
    fixture.fsck();
}

#[test]
fn a_ledger_that_is_gone_or_rewritten_is_never_begun_anew() {
    let fixture = Fixture::new();
    let mut ledger = fixture.open("cache", None);
    let first = ledger
        .append(&[batch(1, &[("a.yaml", "1")])], soon())
        .unwrap()
        .tip
        .unwrap();
    let second = ledger
        .append(&[batch(2, &[("a.yaml", "2")])], soon())
        .unwrap()
        .tip
        .unwrap();
    drop(ledger);
    let next = [batch(3, &[("a.yaml", "3")])];

    fixture.git(&["update-ref", "refs/heads/ledger", &first.to_string()]);
    for cache in ["cache", "fresh-1"] {
        let error = fixture.open(cache, Some(second)).fetch(soon()).unwrap_err();
        assert!(matches!(error, LedgerError::Rewritten { .. }), "{cache}: {error}");
        assert!(!error.is_transient());
    }
    let error = fixture
        .open("fresh-2", Some(second))
        .append(&next, soon())
        .unwrap_err();
    assert!(matches!(error, LedgerError::Rewritten { .. }), "{error}");

    fixture.git(&["update-ref", "-d", "refs/heads/ledger"]);
    for cache in ["cache", "fresh-3"] {
        let error = fixture.open(cache, Some(second)).fetch(soon()).unwrap_err();
        assert!(matches!(error, LedgerError::Vanished { .. }), "{cache}: {error}");
    }
    // What was forgotten by the status is still known by the disk.
    let error = fixture.open("cache", None).fetch(soon()).unwrap_err();
    assert!(matches!(error, LedgerError::Vanished { .. }), "{error}");
    let none = git(
        &fixture.bare(),
        ["rev-parse", "-q", "--verify", "refs/heads/ledger"],
    );
    assert!(none.is_err(), "the branch was made anew");

    // A person pushes it back; all goes on.
    fixture.git(&["update-ref", "refs/heads/ledger", &second.to_string()]);
    assert_eq!(
        fixture
            .open("cache", Some(second))
            .append(&next, soon())
            .unwrap()
            .pushed,
        1
    );
}

#[test]
fn a_rewind_while_open_is_found_when_pushing() {
    let fixture = Fixture::new();
    let mut ledger = fixture.open("cache", None);
    let first = ledger
        .append(&[batch(1, &[("a.yaml", "1")])], soon())
        .unwrap()
        .tip
        .unwrap();
    ledger.append(&[batch(2, &[("a.yaml", "2")])], soon()).unwrap();
    // Another history of the same branch, as after a restore from an old backup that then went on.
    let tree = fixture.git(&["rev-parse", &format!("{first}^{{tree}}")]);
    let other = fixture.git(&["commit-tree", &tree, "-p", &first.to_string(), "-m", "other"]);
    fixture.git(&["update-ref", "refs/heads/ledger", &other]);
    let error = ledger
        .append(&[batch(3, &[("a.yaml", "3")])], soon())
        .unwrap_err();
    assert!(matches!(error, LedgerError::Rewritten { .. }), "{error}");
    assert_eq!(fixture.git(&["rev-parse", "ledger"]), other);
}

#[test]
fn a_lost_or_broken_local_copy_is_fetched_again() {
    let fixture = Fixture::new();
    let mut tip = fixture
        .open("cache", None)
        .append(&[batch(1, &[("d/a.yaml", "1")])], soon())
        .unwrap()
        .tip;
    let cached = fixture.dir.path().join("cache/ledger.git");
    let damage: [&dyn Fn(); 4] = [
        &|| fs::remove_dir_all(&cached).unwrap(),
        &|| fs::write(cached.join("HEAD"), "garbage").unwrap(),
        &|| {
            fs::remove_dir_all(cached.join("objects")).unwrap();
            fs::create_dir_all(cached.join("objects/pack")).unwrap();
        },
        &|| {
            for left in [
                "refs/kiban/ledger.lock",
                "objects/pack/pack_git2_1",
                "config.lock",
            ] {
                fs::write(cached.join(left), "").unwrap();
            }
        },
    ];
    for (i, damage) in damage.into_iter().enumerate() {
        damage();
        let next = [batch(10 + i as i64, &[("d/a.yaml", &format!("after {i}"))])];
        let done = fixture
            .open("cache", tip)
            .append(&next, soon())
            .unwrap_or_else(|e| panic!("{i}: {e}"));
        assert_eq!(done.pushed, 1);
        tip = done.tip;
    }
    assert_eq!(fixture.count(), 5);
    fixture.fsck();
}

#[test]
fn a_branch_that_cannot_be_built_upon_is_not_taken_for_a_broken_copy() {
    let fixture = Fixture::new();
    let mut ledger = fixture.open("cache", None);
    ledger.append(&[batch(1, &[("d/a.yaml", "1")])], soon()).unwrap();
    let person = fixture.dir.path().join("person");
    let bare = fixture.bare().display().to_string();
    let clone = [
        "clone",
        "-q",
        "-b",
        "ledger",
        &bare,
        &person.display().to_string(),
    ];
    git(Path::new("/"), clone).unwrap();
    // A submodule where the index of a file is to be: its commit is an object that no copy will ever hold.
    let entry = "160000,1111111111111111111111111111111111111111,index/files/d/a.yaml";
    git(&person, ["update-index", "--cacheinfo", entry]).unwrap();
    git(&person, ["commit", "-qm", "nonsense"]).unwrap();
    git(&person, ["push", "-q", "origin", "ledger"]).unwrap();
    let marker = fixture.dir.path().join("cache/ledger.git/not-reset-yet");
    fs::write(&marker, "").unwrap();
    let error = ledger
        .append(&[batch(2, &[("d/a.yaml", "2")])], soon())
        .unwrap_err();
    assert_eq!(error.category(), "LedgerUnbuildable", "{error}");
    assert!(!error.is_transient());
    // It was worth one try with a fresh copy, and what else there is to write can still be written.
    assert!(!marker.exists());
    let done = ledger.append(&[batch(3, &[("d/b.yaml", "3")])], soon()).unwrap();
    assert_eq!(done.pushed, 1);
    fixture.fsck();
}

#[test]
fn a_refusal_by_the_remote_is_passed_on() {
    use std::os::unix::fs::PermissionsExt;
    let server = match SshServer::start() {
        Ok(server) => server,
        Err(e) => return println!("skipped: {e}"),
    };
    let fixture = Fixture::new();
    let hook = fixture.bare().join("hooks/pre-receive");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(
        &hook,
        "#!/bin/sh\nprintf 'the branch is \\033[31mprotected\\n' >&2\nexit 1\n",
    )
    .unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let cache = fixture.dir.path().join("cache");
    let mut ledger = Ledger::open(&cache, config(server.remote(&fixture.bare(), "ledger")), None).unwrap();
    let error = ledger
        .append(&[batch(1, &[("a.yaml", "1")])], soon())
        .unwrap_err();
    assert!(matches!(error, LedgerError::PushRefused { .. }), "{error}");
    assert_eq!(ledger.tip(), None);
}

#[test]
fn paths_that_escape_collide_or_are_ours_are_refused() {
    let fixture = Fixture::new();
    let mut ledger = fixture.open("cache", None);
    for path in [
        "",
        "/a",
        "../a",
        "a/../b",
        "a//b",
        "a/",
        ".git/config",
        "a/.GIT/x",
        "a\\b",
        "c:d",
        "a\nb",
        "index/x",
    ] {
        let error = ledger.append(&[batch(1, &[(path, "x")])], soon()).unwrap_err();
        assert!(
            matches!(error, LedgerError::PathRefused { .. }),
            "{path:?}: {error}"
        );
    }
    ledger.append(&[batch(1, &[("a/b.yaml", "x")])], soon()).unwrap();
    for path in ["a", "a/b.yaml/c"] {
        let error = ledger.append(&[batch(2, &[(path, "x")])], soon()).unwrap_err();
        assert!(
            matches!(error, LedgerError::PathRefused { .. }),
            "{path:?}: {error}"
        );
    }
    assert_eq!(fixture.count(), 1);
}

#[test]
fn the_clock_may_go_back_and_the_ledger_does_not() {
    let fixture = Fixture::new();
    let mut ledger = fixture.open("cache", None);
    for (n, second) in [(1, 100), (2, 50), (3, 200)] {
        let mut one = batch(n, &[("a.yaml", &format!("v{n}"))]);
        one.time = at(second);
        ledger.append(&[one], soon()).unwrap();
    }
    let times = fixture.git(&["log", "--format=%ct", "--reverse", "ledger"]);
    let expected = [100, 100, 200]
        .map(|second| at(second).as_second().to_string())
        .join("\n");
    assert_eq!(times, expected);
    let read = |second| {
        let commit = ledger.at(at(second)).unwrap();
        commit.map(|commit| String::from_utf8(ledger.read("a.yaml", commit).unwrap().unwrap()).unwrap())
    };
    assert_eq!(read(99), None);
    assert_eq!(read(100).as_deref(), Some("v2"));
    assert_eq!(read(199).as_deref(), Some("v2"));
    assert_eq!(read(200).as_deref(), Some("v3"));
}

fn versions(ledger: &Ledger, path: &str) -> Vec<String> {
    let text = |content: Option<Vec<u8>>| content.map_or("-".to_owned(), |c| String::from_utf8(c).unwrap());
    ledger
        .history(path, 1000)
        .unwrap()
        .into_iter()
        .map(|e| format!("{} {}", e.subject, text(e.content)))
        .collect()
}

#[test]
fn history_is_what_git_log_says_also_after_a_person_wrote_to_the_branch() {
    let fixture = Fixture::new();
    let mut ledger = fixture.open("cache", None);
    let mut batches = Vec::new();
    for n in 0..300 {
        let device = format!("devices/{:02x}/d{}.yaml", n % 7, n % 7);
        let operation = format!("operations/2026/11/24/d{}-{n}.yaml", n % 7);
        batches.push(batch(
            n,
            &[(&device, &format!("v{}", n / 7 % 3)), (&operation, "op")],
        ));
    }
    ledger.append(&batches[..150], soon()).unwrap();
    // A person mends a record by hand.
    let person = fixture.dir.path().join("person");
    git(
        Path::new("/"),
        [
            "clone",
            "-q",
            "-b",
            "ledger",
            &fixture.bare().display().to_string(),
            &person.display().to_string(),
        ],
    )
    .unwrap();
    for content in ["by hand", "by hand again"] {
        fs::write(person.join("devices/03/d3.yaml"), content).unwrap();
        assert!(
            git_command(&person)
                .args(["commit", "-qam", content])
                .status()
                .unwrap()
                .success()
        );
    }
    git(&person, ["push", "-q"]).unwrap();
    ledger.fetch(soon()).unwrap();
    assert_eq!(
        versions(&ledger, "devices/03/d3.yaml")[..2],
        ["by hand again by hand again", "by hand by hand"]
    );
    ledger.append(&batches[150..], soon()).unwrap();
    fixture.fsck();
    for path in [
        "devices/03/d3.yaml",
        "devices/06/d6.yaml",
        "operations/2026/11/24/d6-6.yaml",
    ] {
        let log = fixture.git(&["log", "--format=%s", "ledger", "--", path]);
        let ours: Vec<_> = ledger
            .history(path, 1000)
            .unwrap()
            .into_iter()
            .map(|e| e.subject)
            .collect();
        assert_eq!(ours, log.lines().collect::<Vec<_>>(), "{path}");
    }
    assert_eq!(ledger.history("devices/06/d6.yaml", 3).unwrap().len(), 3);
    assert_eq!(ledger.history("devices/06/none.yaml", 3).unwrap(), []);
    let entry = &ledger.history("devices/06/d6.yaml", 1).unwrap()[0];
    assert_eq!(
        entry.trailers[1],
        ("Campaign".to_owned(), "Rollout/r650-2026q4".to_owned())
    );
    assert_eq!(entry.trailers.len(), 2);
    assert_eq!(ledger.list("devices", ledger.tip().unwrap()).unwrap().len(), 7);
}

#[test]
fn commits_are_signed_so_that_git_verifies_them() {
    let fixture = Fixture::new();
    let key = fixture.dir.path().join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    let mut signed = fixture.config();
    signed.signing_key = Some(fs::read_to_string(&key).unwrap().into());
    let mut ledger = Ledger::open(&fixture.dir.path().join("cache"), signed, None).unwrap();
    ledger
        .append(
            &[batch(1, &[("a.yaml", "1")]), batch(2, &[("a.yaml", "2")])],
            soon(),
        )
        .unwrap();
    let allowed = fixture.dir.path().join("allowed");
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    fs::write(&allowed, format!("kiban@example.org namespaces=\"git\" {public}")).unwrap();
    for commit in ["ledger", "ledger~1"] {
        let file = format!("gpg.ssh.allowedSignersFile={}", allowed.display());
        let done = git_command(&fixture.bare())
            .args(["-c", &file, "verify-commit", "-v", commit])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(
            done.status.success() && text.contains("Good \"git\" signature for kiban@example.org"),
            "{text}"
        );
    }
    fixture.fsck();
    let mut wrong = fixture.config();
    wrong.signing_key = Some("canary-not-a-key".to_owned().into());
    let Err(error) = Ledger::open(&fixture.dir.path().join("other"), wrong, None).map(|_| ()) else {
        panic!()
    };
    assert!(!error.to_string().contains("canary"), "{error}");
}

#[test]
fn over_ssh_and_https() {
    let fixture = Fixture::new();
    let mut tip = None;
    let mut remotes = Vec::new();
    let ssh = SshServer::start();
    let https = HttpsServer::start(fixture.dir.path());
    match &ssh {
        Ok(server) => remotes.push(server.remote(&fixture.bare(), "ledger")),
        Err(e) => println!("skipped: ssh: {e}"),
    }
    match &https {
        Ok(server) => remotes.push(server.remote("ledger.git", "ledger")),
        Err(e) => println!("skipped: https: {e}"),
    }
    for (i, remote) in remotes.into_iter().enumerate() {
        let i = i as i64;
        let cache = fixture.dir.path().join(format!("cache-{i}"));
        let mut ledger = Ledger::open(&cache, config(remote), tip).unwrap();
        ledger
            .append(&[batch(i, &[("a.yaml", &i.to_string())])], soon())
            .unwrap();
        tip = ledger
            .append(&[batch(10 + i, &[("b/c.yaml", &i.to_string())])], soon())
            .unwrap()
            .tip;
        assert_eq!(fixture.git(&["rev-parse", "ledger"]), tip.unwrap().to_string());
    }
    fixture.fsck();
}

#[test]
fn many_small_pushes_do_not_leave_many_packs() {
    let fixture = Fixture::new();
    let mut ledger = fixture.open("cache", None);
    for n in 0..120 {
        ledger
            .append(&[batch(n, &[("devices/00/a.yaml", &format!("v{n}"))])], soon())
            .unwrap();
    }
    let cached = fixture.dir.path().join("cache/ledger.git");
    let packs = fs::read_dir(cached.join("objects/pack")).unwrap().count() / 2;
    assert!(packs <= 51, "{packs}");
    git(&cached, ["fsck", "--strict", "--no-dangling"]).unwrap();
    assert_eq!(versions(&ledger, "devices/00/a.yaml").len(), 120);
    assert_eq!(
        git(&cached, ["rev-list", "--count", "refs/kiban/ledger"]).unwrap(),
        "120"
    );
}
