//! Signatures made by `git` with ssh-keygen and gpg, and read by us.
#![allow(clippy::unwrap_used, clippy::panic)] // a fixture that fails is a test that fails

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use kiban_git::{
    Head, Mirror, Remote, SignatureStatus, Source, TreeLimits, Verification,
    testserver::{git, git_command, init_bare},
};
use tempfile::TempDir;

struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let fixture = Fixture {
            dir: tempfile::tempdir().unwrap(),
        };
        init_bare(&fixture.path("fleet.git")).unwrap();
        git(
            Path::new("/"),
            [
                "init",
                "-q",
                "-b",
                "main",
                &fixture.path("work").display().to_string(),
            ],
        )
        .unwrap();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ssh_key(&self, name: &str, kind: &str) -> String {
        let key = self.path(name);
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", kind, "-N", "", "-C", name, "-f"])
            .arg(&key)
            .status();
        assert!(made.unwrap().success());
        fs::read_to_string(key.with_extension("pub"))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Commits with the given settings and pushes.
    fn commit(&self, settings: &[String], author: &str) {
        let work = self.path("work");
        let n = fs::read(work.join("a.yaml")).map_or(0, |content| content.len());
        fs::write(work.join("a.yaml"), "#".repeat(n + 1)).unwrap();
        git(&work, ["add", "a.yaml"]).unwrap();
        let mut command = git_command(&work);
        command.env("GNUPGHOME", self.path("gnupg"));
        for setting in settings {
            command.args(["-c", setting]);
        }
        let done = command
            .args(["commit", "-q", "-m", "change", "--author", author])
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let url = self.path("fleet.git").display().to_string();
        git(&work, ["push", "-q", "-f", &url, "main"]).unwrap();
    }

    fn ssh_settings(&self, key: &str) -> Vec<String> {
        vec![
            "gpg.format=ssh".to_owned(),
            format!("user.signingKey={}", self.path(key).display()),
            "commit.gpgSign=true".to_owned(),
        ]
    }

    fn head(&self, verification: Verification) -> Head {
        let remote = Remote::new(
            &format!("file://{}", self.path("fleet.git").display()),
            "main",
            true,
        )
        .unwrap();
        let source = Source {
            remote,
            path: String::new(),
            verification,
            limits: TreeLimits::default(),
        };
        let mut mirror = Mirror::open(&self.path("cache"), source).unwrap();
        mirror.fetch(Instant::now() + Duration::from_secs(60)).unwrap()
    }

    fn status(&self, allowed: &str, revoked: &str, openpgp: &[String]) -> SignatureStatus {
        self.head(Verification::required(allowed, revoked, openpgp).unwrap())
            .signature
    }
}

const AOI: &str = "Aoi <aoi@example.org>";

#[test]
fn ssh_signatures_are_told_apart() {
    let fixture = Fixture::new();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let key = fixture.ssh_key(kind, kind);
        fixture.commit(&fixture.ssh_settings(kind), AOI);
        let status = fixture.status(&format!("aoi@example.org {key}"), "", &[]);
        assert!(
            matches!(&status, SignatureStatus::Good(s) if s.name == "aoi@example.org"),
            "{kind}: {status}"
        );
    }
    let key = fixture.ssh_key("key", "ed25519");
    let other = fixture.ssh_key("other", "ed25519");
    // Whoever the commit claims to be by, the name is the key's.
    fixture.commit(&fixture.ssh_settings("key"), "Mallory <boss@example.org>");
    let status = |line: &str| fixture.status(line, "", &[]);
    let good = status(&format!("aoi@example.org namespaces=\"git\" {key}"));
    assert!(
        matches!(&good, SignatureStatus::Good(s) if s.name == "aoi@example.org" && s.key.starts_with("SHA256:"))
    );
    assert_eq!(fixture.head(Verification::None).author.email, "boss@example.org");
    assert!(matches!(
        status(&format!("aoi@example.org {other}")),
        SignatureStatus::UnknownKey { .. }
    ));
    let expired = status(&format!("aoi@example.org valid-before=\"20200101\" {key}"));
    assert!(matches!(expired, SignatureStatus::Expired { .. }), "{expired}");
    let early = status(&format!("aoi@example.org valid-after=\"21000101\" {key}"));
    assert!(matches!(early, SignatureStatus::Expired { .. }), "{early}");
    let files = status(&format!("aoi@example.org namespaces=\"file\" {key}"));
    assert!(matches!(files, SignatureStatus::NotForGit { .. }), "{files}");
    let revoked = fixture.status(&format!("aoi@example.org {key}"), &key, &[]);
    assert!(
        matches!(revoked, SignatureStatus::Revoked { .. }) && !revoked.is_accepted(),
        "{revoked}"
    );

    fixture.commit(&[], AOI);
    assert_eq!(
        status(&format!("aoi@example.org {key}")),
        SignatureStatus::Unsigned
    );
    assert!(Verification::required("", "", &[]).is_err());
}

#[test]
fn a_signature_moved_to_another_commit_is_not_valid() {
    let fixture = Fixture::new();
    let key = fixture.ssh_key("key", "ed25519");
    fixture.commit(&fixture.ssh_settings("key"), AOI);
    let bare = fixture.path("fleet.git");
    let commit = git(&bare, ["cat-file", "commit", "main"]).unwrap();
    let forged = fixture.path("forged");
    fs::write(&forged, commit.replace("Aoi <aoi", "Eve <eve") + "\n").unwrap();
    let id = git(
        &bare,
        ["hash-object", "-t", "commit", "-w", &forged.display().to_string()],
    )
    .unwrap();
    git(&bare, ["update-ref", "refs/heads/main", &id]).unwrap();
    let status = fixture.status(&format!("aoi@example.org {key}"), "", &[]);
    assert!(matches!(status, SignatureStatus::Invalid { .. }), "{status}");
}

#[test]
fn openpgp_signatures_are_told_apart() {
    let fixture = Fixture::new();
    let home = fixture.path("gnupg");
    fs::create_dir(&home).unwrap();
    let gpg = |arguments: &[&str]| {
        let mut command = Command::new("gpg");
        command
            .env("GNUPGHOME", &home)
            .args(["--batch", "--quiet", "--yes", "--passphrase", ""]);
        command.args(arguments).output()
    };
    let Ok(made) = gpg(&[
        "--quick-gen-key",
        "Aoi <aoi@example.org>",
        "ed25519",
        "sign",
        "never",
    ]) else {
        return println!("skipped: gpg is not installed");
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(
        gpg(&[
            "--quick-gen-key",
            "Ren <ren@example.org>",
            "rsa2048",
            "sign",
            "never"
        ])
        .unwrap()
        .status
        .success()
    );
    let past = &[
        "--faked-system-time",
        "20200101T000000",
        "--quick-gen-key",
        "Old <old@example.org>",
        "ed25519",
        "sign",
        "1d",
    ];
    assert!(gpg(past).unwrap().status.success());
    let export = |who: &str| String::from_utf8(gpg(&["--armor", "--export", who]).unwrap().stdout).unwrap();
    let (aoi, ren, old) = (
        export("aoi@example.org"),
        export("ren@example.org"),
        export("old@example.org"),
    );
    let settings = |who: &str| vec![format!("user.signingKey={who}"), "commit.gpgSign=true".to_owned()];
    for (who, key) in [("aoi@example.org", &aoi), ("ren@example.org", &ren)] {
        fixture.commit(&settings(who), "Mallory <boss@example.org>");
        let status = fixture.status("", "", std::slice::from_ref(key));
        assert!(
            matches!(&status, SignatureStatus::Good(s) if s.name.contains(who)),
            "{who}: {status}"
        );
    }
    fixture.commit(&settings("aoi@example.org"), AOI);
    let status = fixture.status("", "", std::slice::from_ref(&ren));
    assert!(matches!(status, SignatureStatus::UnknownKey { .. }), "{status}");
    // gpg makes a revocation certificate with each key; a colon keeps it from being imported by accident.
    let revocations = home.join("openpgp-revocs.d");
    let fingerprint = String::from_utf8(
        gpg(&["--with-colons", "--fingerprint", "aoi@example.org"])
            .unwrap()
            .stdout,
    )
    .unwrap();
    let fingerprint = fingerprint
        .lines()
        .find_map(|l| l.strip_prefix("fpr:::::::::"))
        .unwrap()
        .trim_end_matches(':');
    let text = fs::read_to_string(revocations.join(format!("{fingerprint}.rev"))).unwrap();
    let import = fixture.path("revocation");
    fs::write(&import, text.replace(":-----BEGIN", "-----BEGIN")).unwrap();
    assert!(
        gpg(&["--import", &import.display().to_string()])
            .unwrap()
            .status
            .success()
    );
    let status = fixture.status("", "", &[export("aoi@example.org")]);
    assert!(matches!(status, SignatureStatus::Revoked { .. }), "{status}");

    // gpg itself will not sign with an expired key, so it is told that it is still that day.
    let wrapper = fixture.path("gpg-then");
    fs::write(
        &wrapper,
        "#!/bin/sh\nexec gpg --faked-system-time 20200101T010000 \"$@\"\n",
    )
    .unwrap();
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let mut then = settings("old@example.org");
    then.push(format!("gpg.program={}", wrapper.display()));
    fixture.commit(&then, AOI);
    let status = fixture.status("", "", &[old]);
    assert!(matches!(status, SignatureStatus::Expired { .. }), "{status}");
    // The agent that gpg started ends with its home.
    let _ = Command::new("gpgconf")
        .env("GNUPGHOME", &home)
        .args(["--kill", "gpg-agent"])
        .status();
}
