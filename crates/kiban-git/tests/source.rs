//! Desired state in: against repositories made by `git`, and against real servers over ssh and https.
#![allow(clippy::unwrap_used, clippy::panic)] // a fixture that fails is a test that fails

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use kiban_git::{
    Ancestry, BranchName, CommitId, Credentials, Head, Mirror, Remote, RemoteError, RemoteUrl,
    SignatureStatus, Source, SourceError, TreeError, TreeLimits, Verification,
    testserver::{HttpsServer, SilentServer, SshServer, git, git_command, init_bare},
};
use secrecy::ExposeSecret;
use tempfile::TempDir;

/// Long enough for a busy machine; no test waits for it to pass.
const LONG: Duration = Duration::from_secs(120);

fn soon() -> Instant {
    Instant::now() + LONG
}

struct Repo {
    dir: TempDir,
}

impl Repo {
    fn new() -> Repo {
        let repo = Repo {
            dir: tempfile::tempdir().unwrap(),
        };
        init_bare(&repo.bare()).unwrap();
        repo
    }

    fn bare(&self) -> PathBuf {
        self.dir.path().join("fleet.git")
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn object(&self, kind: &str, content: &[u8]) -> String {
        let mut child = git_command(&self.bare())
            .args(["hash-object", "-w", "--literally", "--stdin", "-t", kind])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(content).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout)
            .unwrap()
            .trim()
            .to_owned()
    }

    /// A tree of raw entries, whatever they are called.
    fn tree(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let mut data = Vec::new();
        for (mode, name, id) in entries {
            data.extend_from_slice(mode.as_bytes());
            data.push(b' ');
            data.extend_from_slice(name);
            data.push(0);
            data.extend((0..20).map(|i| u8::from_str_radix(&id[2 * i..2 * i + 2], 16).unwrap()));
        }
        self.object("tree", &data)
    }

    fn commit_tree(&self, tree: &str, parent: Option<&str>, branch: &str) -> CommitId {
        let mut arguments = vec!["commit-tree", tree, "-m", "change"];
        if let Some(parent) = parent {
            arguments.extend(["-p", parent]);
        }
        let commit = git(&self.bare(), arguments).unwrap();
        git(
            &self.bare(),
            ["update-ref", &format!("refs/heads/{branch}"), &commit],
        )
        .unwrap();
        commit.parse().unwrap()
    }

    fn commit(&self, files: &[(&str, &[u8])]) -> CommitId {
        let index = self.dir.path().join("index");
        let _ = fs::remove_file(&index);
        for (path, content) in files {
            let id = self.object("blob", content);
            let entry = format!("100644,{id},{path}");
            let done = git_command(&self.bare())
                .env("GIT_INDEX_FILE", &index)
                .args(["update-index", "--add", "--cacheinfo", &entry])
                .status();
            assert!(done.unwrap().success());
        }
        let tree = git_command(&self.bare())
            .env("GIT_INDEX_FILE", &index)
            .arg("write-tree")
            .output()
            .unwrap();
        let tree = String::from_utf8(tree.stdout).unwrap();
        let parent = git(&self.bare(), ["rev-parse", "-q", "--verify", "refs/heads/main"]).ok();
        self.commit_tree(tree.trim(), parent.as_deref(), "main")
    }

    fn remote(&self) -> Remote {
        Remote::new(&format!("file://{}", self.bare().display()), "main", true).unwrap()
    }

    fn mirror(&self) -> Mirror {
        Mirror::open(&self.cache(), source(self.remote())).unwrap()
    }

    fn refused(&self, tree: &str) -> String {
        let commit = self.commit_tree(tree, None, "main");
        let mut mirror = self.mirror();
        assert_eq!(mirror.fetch(soon()).unwrap().commit, commit);
        match mirror.read_tree(commit) {
            Err(e @ TreeError::Refused { .. }) => e.to_string(),
            other => panic!("not refused: {other:?}"),
        }
    }
}

fn source(remote: Remote) -> Source {
    Source {
        remote,
        path: String::new(),
        verification: Verification::None,
        limits: TreeLimits::default(),
    }
}

fn paths(mirror: &Mirror, head: &Head) -> Vec<String> {
    mirror
        .read_tree(head.commit)
        .unwrap()
        .files
        .into_iter()
        .map(|file| file.path)
        .collect()
}

#[test]
fn a_commit_is_fetched_and_its_yaml_is_read_byte_by_byte() {
    let repo = Repo::new();
    let crlf = b"kind: Device\r\nname: a\r\n";
    let commit = repo.commit(&[
        ("fleet/devices/a.yaml", crlf),
        ("fleet/pool.yml", b"kind: HardwarePool\n"),
        ("fleet/README.md", b"read me"),
        ("fleet/.gitattributes", b"*.yaml text eol=lf filter=evil\n"),
        ("fleet/.github/workflow.yaml", b"on: push\n"),
        ("other/b.yaml", b"not ours"),
    ]);
    let mut from = source(repo.remote());
    from.path = "fleet".to_owned();
    let mut mirror = Mirror::open(&repo.cache(), from).unwrap();
    let head = mirror.fetch(soon()).unwrap();
    assert_eq!(head.commit, commit);
    assert_eq!(
        (head.author.name.as_str(), head.subject.as_str()),
        ("Aoi", "change")
    );
    assert_eq!(head.signature, SignatureStatus::NotChecked);
    let snapshot = mirror.read_tree(commit).unwrap();
    let read: Vec<_> = snapshot
        .files
        .iter()
        .map(|f| (f.path.as_str(), f.bytes.as_slice()))
        .collect();
    assert_eq!(
        read,
        [
            ("fleet/devices/a.yaml", &crlf[..]),
            ("fleet/pool.yml", b"kind: HardwarePool\n")
        ]
    );
    let ignored: Vec<_> = snapshot.ignored.iter().map(|i| i.path.as_str()).collect();
    assert_eq!(
        ignored,
        ["fleet/.gitattributes", "fleet/.github", "fleet/README.md"]
    );
}

#[test]
fn entries_that_are_not_plain_files_and_folders_are_refused_by_name() {
    let repo = Repo::new();
    let blob = repo.object("blob", b"kind: Device\n");
    let target = repo.object("blob", b"../../../etc/passwd");
    let sub = repo.tree(&[("120000", b"loop", &target)]);
    let text = repo.refused(&repo.tree(&[
        ("100644", b"a.yaml", &blob),
        ("40000", b"dir", &sub),
        ("120000", b"link.yaml", &target),
        ("160000", b"module", &blob),
    ]));
    assert!(text.contains("dir/loop: is a symbolic link"), "{text}");
    assert!(text.contains("link.yaml: is a symbolic link"), "{text}");
    assert!(text.contains("module: is a submodule"), "{text}");
}

#[test]
fn names_that_would_escape_or_collide_are_refused() {
    let repo = Repo::new();
    let blob = repo.object("blob", b"kind: Device\n");
    for name in [
        "..",
        "../../etc/x",
        "/etc/x",
        ".git",
        ".GIT",
        "git~1",
        "a\\b.yaml",
        "c:x.yaml",
        "a\x1b[31m.yaml",
    ] {
        let repo = Repo::new();
        let blob = repo.object("blob", b"kind: Device\n");
        let text = repo.refused(&repo.tree(&[("100644", name.as_bytes(), &blob)]));
        assert!(!text.contains('\x1b'), "{text:?}");
    }
    let text = repo.refused(&repo.tree(&[("100644", b"A.yaml", &blob), ("100644", b"a.yaml", &blob)]));
    assert!(
        text.contains("a.yaml: differs from A.yaml only in upper and lower case"),
        "{text}"
    );
    let twice = Repo::new();
    let blob = twice.object("blob", b"x");
    let text = twice.refused(&twice.tree(&[("100644", b"a.yaml", &blob), ("100644", b"a.yaml", &blob)]));
    assert!(text.contains("a.yaml: is there twice"), "{text}");
}

#[test]
fn lfs_pointers_and_large_files_are_named() {
    let repo = Repo::new();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let head = repo.commit(&[("big.yaml", &vec![b'#'; (1 << 20) + 1]), ("lfs.yaml", pointer)]);
    let mut mirror = repo.mirror();
    mirror.fetch(soon()).unwrap();
    let text = mirror.read_tree(head).unwrap_err().to_string();
    assert!(
        text.contains("big.yaml: has 1048577 bytes; 1048576 are allowed"),
        "{text}"
    );
    assert!(text.contains("lfs.yaml: is a Git LFS pointer"), "{text}");
}

#[test]
fn trees_are_bounded_in_count_size_and_depth() {
    let repo = Repo::new();
    let blob = repo.object("blob", b"kind: Device\n");
    // Each level names the one below ten times: ten billion files in eleven objects.
    let mut tree = repo.tree(&[("100644", b"a.yaml", &blob)]);
    for _ in 0..10 {
        let names: Vec<_> = (0..10).map(|i| format!("d{i}")).collect();
        let entries: Vec<_> = names
            .iter()
            .map(|n| ("40000", n.as_bytes(), tree.as_str()))
            .collect();
        tree = repo.tree(&entries);
    }
    let bomb = repo.commit_tree(&tree, None, "main");
    let mut from = source(repo.remote());
    from.limits.max_entries = 5000;
    let mut mirror = Mirror::open(&repo.cache(), from.clone()).unwrap();
    mirror.fetch(soon()).unwrap();
    assert!(matches!(mirror.read_tree(bomb), Err(TreeError::TooLarge { .. })));
    drop(mirror);

    let files = repo.commit(&[("a.yaml", b"12345"), ("b/c/d.yaml", b"12345")]);
    for limits in [
        TreeLimits {
            max_files: 1,
            ..TreeLimits::default()
        },
        TreeLimits {
            max_total_bytes: 9,
            ..TreeLimits::default()
        },
        TreeLimits {
            max_depth: 1,
            ..TreeLimits::default()
        },
    ] {
        from.limits = limits;
        let mut mirror = Mirror::open(&repo.cache(), from.clone()).unwrap();
        mirror.fetch(soon()).unwrap();
        assert!(
            matches!(mirror.read_tree(files), Err(TreeError::TooLarge { .. })),
            "{:?}",
            from.limits
        );
    }
    from.limits = TreeLimits {
        max_files: 2,
        max_total_bytes: 10,
        max_depth: 2,
        ..TreeLimits::default()
    };
    let mut mirror = Mirror::open(&repo.cache(), from).unwrap();
    let head = mirror.fetch(soon()).unwrap();
    assert_eq!(paths(&mirror, &head), ["a.yaml", "b/c/d.yaml"]);
}

#[test]
fn nothing_there_is_never_no_files() {
    let repo = Repo::new();
    let mut mirror = repo.mirror();
    assert!(matches!(
        mirror.fetch(soon()),
        Err(SourceError::RepositoryEmpty { .. })
    ));

    let first = repo.commit(&[("a.yaml", b"a: 1")]);
    mirror.fetch(soon()).unwrap();
    git(&repo.bare(), ["branch", "-m", "main", "trunk"]).unwrap();
    let error = mirror.fetch(soon()).unwrap_err();
    assert_eq!(error.category(), "BranchMissing");
    assert!(error.to_string().contains("trunk"), "{error}");
    git(&repo.bare(), ["branch", "-m", "trunk", "main"]).unwrap();

    // A valid commit that holds nothing.
    let emptied = repo.commit_tree(
        "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
        Some(&first.to_string()),
        "main",
    );
    git(&repo.bare(), ["hash-object", "-w", "-t", "tree", "/dev/null"]).unwrap();
    let head = mirror.fetch(soon()).unwrap();
    assert_eq!(head.commit, emptied);
    assert!(matches!(
        mirror.read_tree(emptied),
        Err(TreeError::NoFiles { ignored: 0, .. })
    ));

    drop(mirror);
    let mut elsewhere = source(repo.remote());
    elsewhere.path = "no/such/folder".to_owned();
    let mut mirror = Mirror::open(&repo.cache(), elsewhere).unwrap();
    let head = mirror.fetch(soon()).unwrap();
    assert_eq!(
        mirror.read_tree(head.commit).unwrap_err().category(),
        "PathMissing"
    );

    fs::rename(repo.bare(), repo.dir.path().join("gone")).unwrap();
    assert_eq!(mirror.fetch(soon()).unwrap_err().category(), "RepositoryMissing");
}

#[test]
fn a_merge_that_drops_files_and_strange_dates_are_read_as_they_are() {
    let repo = Repo::new();
    let one = repo.commit(&[("a.yaml", b"a: 1"), ("b.yaml", b"b: 1")]);
    let blob = repo.object("blob", b"a: 1");
    let tree = repo.tree(&[("100644", b"a.yaml", &blob)]);
    for (date, seconds) in [
        ("0 +0000", 0),
        ("4299999999 +1400", 4_299_999_999),
        ("1700000000 -1130", 1_700_000_000),
    ] {
        let merge = git_command(&repo.bare())
            .args([
                "commit-tree",
                &tree,
                "-p",
                &one.to_string(),
                "-p",
                &one.to_string(),
                "-m",
                "merge",
            ])
            .env("GIT_AUTHOR_DATE", format!("@{date}"))
            .env("GIT_COMMITTER_DATE", format!("@{date}"))
            .output()
            .unwrap();
        let merge = String::from_utf8(merge.stdout).unwrap();
        git(&repo.bare(), ["update-ref", "refs/heads/main", merge.trim()]).unwrap();
        let mut mirror = repo.mirror();
        let head = mirror.fetch(soon()).unwrap();
        assert_eq!(head.time.as_second(), seconds);
        assert_eq!(paths(&mirror, &head), ["a.yaml"]);
        assert_eq!(mirror.ancestry(one, head.commit), Ancestry::FastForward);
    }
}

#[test]
fn a_rewritten_branch_is_told_from_one_that_moved_on() {
    let repo = Repo::new();
    let one = repo.commit(&[("a.yaml", b"a: 1")]);
    let two = repo.commit(&[("a.yaml", b"a: 2")]);
    let mut mirror = repo.mirror();
    mirror.fetch(soon()).unwrap();
    assert_eq!(mirror.ancestry(two, two), Ancestry::Same);
    assert_eq!(mirror.ancestry(one, two), Ancestry::FastForward);
    git(&repo.bare(), ["update-ref", "refs/heads/main", &one.to_string()]).unwrap();
    assert_eq!(mirror.fetch(soon()).unwrap().commit, one);
    assert_eq!(mirror.ancestry(two, one), Ancestry::Rewound);
    git(&repo.bare(), ["update-ref", "-d", "refs/heads/main"]).unwrap();
    let other = repo.commit(&[("a.yaml", b"a: 3")]);
    mirror.fetch(soon()).unwrap();
    assert_eq!(mirror.ancestry(two, other), Ancestry::Diverged);
    let never: CommitId = "0123456789012345678901234567890123456789".parse().unwrap();
    assert_eq!(mirror.ancestry(never, other), Ancestry::Diverged);
}

#[test]
fn replace_references_and_grafts_change_nothing() {
    let repo = Repo::new();
    let honest = repo.commit(&[("a.yaml", b"a: honest")]);
    let forged = repo.commit(&[("a.yaml", b"a: forged")]);
    git(
        &repo.bare(),
        ["update-ref", "refs/heads/main", &honest.to_string()],
    )
    .unwrap();
    git(
        &repo.bare(),
        [
            "update-ref",
            &format!("refs/replace/{honest}"),
            &forged.to_string(),
        ],
    )
    .unwrap();
    fs::create_dir_all(repo.bare().join("info")).unwrap();
    fs::write(repo.bare().join("info/grafts"), format!("{honest} {forged}\n")).unwrap();
    let mut mirror = repo.mirror();
    let head = mirror.fetch(soon()).unwrap();
    assert_eq!(head.commit, honest);
    assert_eq!(mirror.read_tree(honest).unwrap().files[0].bytes, b"a: honest");
}

#[test]
fn many_references_do_not_hinder() {
    let repo = Repo::new();
    let commit = repo.commit(&[("a.yaml", b"a: 1")]);
    let mut packed = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    packed.push_str(&format!("{commit} refs/heads/main\n"));
    for i in 0..100_000 {
        packed.push_str(&format!("{commit} refs/tags/t{i:06}\n"));
    }
    fs::write(repo.bare().join("packed-refs"), packed).unwrap();
    fs::remove_file(repo.bare().join("refs/heads/main")).unwrap();
    let mut mirror = repo.mirror();
    assert_eq!(mirror.fetch(soon()).unwrap().commit, commit);
}

#[test]
fn a_broken_cache_is_fetched_again() {
    let repo = Repo::new();
    let content: Vec<u8> = (0..200_u32)
        .flat_map(|i| format!("key{i}: {}\n", i * 7919).into_bytes())
        .collect();
    let head = repo.commit(&[("a.yaml", &content)]);
    repo.mirror().fetch(soon()).unwrap();
    let cached = repo.cache().join("desired.git");
    let packs = || {
        fs::read_dir(cached.join("objects/pack"))
            .unwrap()
            .map(|e| e.unwrap().path())
    };
    let damage: [(&str, &dyn Fn()); 5] = [
        ("config is garbage", &|| {
            fs::write(cached.join("config"), b"[[[[").unwrap();
        }),
        ("pack is cut", &|| {
            for pack in packs().filter(|p| p.extension().is_some_and(|e| e == "pack")) {
                writable(&pack);
                let bytes = fs::read(&pack).unwrap();
                fs::write(&pack, &bytes[..bytes.len() / 2]).unwrap();
            }
        }),
        ("objects are gone", &|| {
            fs::remove_dir_all(cached.join("objects")).unwrap();
            fs::create_dir_all(cached.join("objects/pack")).unwrap();
        }),
        ("HEAD is gone", &|| fs::remove_file(cached.join("HEAD")).unwrap()),
        ("index is flipped", &|| {
            for index in packs().filter(|p| p.extension().is_some_and(|e| e == "idx")) {
                writable(&index);
                let mut bytes = fs::read(&index).unwrap();
                let n = bytes.len();
                bytes[1032..n - 40].fill(0xee);
                fs::write(&index, bytes).unwrap();
            }
        }),
    ];
    for (what, damage) in damage {
        damage();
        let mut mirror = repo.mirror();
        let found = mirror.fetch(soon()).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(found.commit, head, "{what}");
        assert_eq!(mirror.read_tree(head).unwrap().files[0].bytes, content, "{what}");
    }
}

#[allow(clippy::permissions_set_readonly_false)] // our own temporary file
fn writable(path: &Path) {
    let mut permissions = fs::metadata(path).unwrap().permissions();
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).unwrap();
}

#[test]
fn what_a_crash_left_behind_is_removed_and_a_living_holder_is_not_disturbed() {
    let repo = Repo::new();
    repo.commit(&[("a.yaml", b"a: 1")]);
    let mut mirror = repo.mirror();
    mirror.fetch(soon()).unwrap();
    let Err(error) = Mirror::open(&repo.cache(), source(repo.remote())).map(|_| ()) else {
        panic!("two holders of one cache")
    };
    assert_eq!(error.category(), "CacheFailed");
    drop(mirror);
    let cached = repo.cache().join("desired.git");
    for left in [
        "config.lock",
        "HEAD.lock",
        "packed-refs.lock",
        "refs/kiban/desired.lock",
        "objects/pack/pack_git2_x1",
    ] {
        fs::write(cached.join(left), b"").unwrap();
    }
    let next = repo.commit(&[("a.yaml", b"a: 2")]);
    let mut mirror = repo.mirror();
    assert_eq!(mirror.fetch(soon()).unwrap().commit, next);
    assert!(!cached.join("objects/pack/pack_git2_x1").exists());
}

#[test]
fn another_url_is_another_repository() {
    let (one, two) = (Repo::new(), Repo::new());
    let first = one.commit(&[("a.yaml", b"a: 1")]);
    let second = two.commit(&[("b.yaml", b"b: 1")]);
    one.mirror().fetch(soon()).unwrap();
    let mut mirror = Mirror::open(&one.cache(), source(two.remote())).unwrap();
    assert_eq!(mirror.fetch(soon()).unwrap().commit, second);
    assert!(mirror.read_tree(first).is_err());
}

#[test]
fn urls_and_branches_that_run_or_leak_something_are_refused() {
    for url in [
        "",
        "-uorigin",
        "--upload-pack=evil",
        "ext::sh -c id",
        "ext::sh",
        "file:///etc",
        "/etc",
        "./x",
        "http://a/b",
        "git://a/b",
        "ftp://a/b",
        "https://user@a/b",
        "https://user:secret@a/b",
        "ssh://git:secret@a/b",
        "ssh://-oProxyCommand=x/b",
        "-oProxyCommand=x:b",
        "git@-h:b",
        "https://a",
        "https://a/",
        "https:///b",
        "https://a:0/b",
        "https://a:99999/b",
        "https://a/b\nc",
        "https://a b/c",
        "git@host:-p",
        "ssh://a/b'c",
        "https://a\u{0}b/c",
        "https://a/b?c",
        "fd::3/x",
    ] {
        let error = RemoteUrl::parse(url, false).expect_err(url);
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    for url in [
        "https://h/b.git",
        "https://h:8443/a/b",
        "ssh://git@h:2222/a",
        "git@h:a/b.git",
        "h:a",
        "ssh://[::1]:22/a",
    ] {
        RemoteUrl::parse(url, false).unwrap_or_else(|e| panic!("{url}: {e}"));
    }
    for branch in [
        "",
        "-x",
        "--upload-pack=x",
        "a..b",
        "a b",
        "a~1",
        "a^",
        "a:b",
        "refs/heads/x",
        "a/",
        "/a",
        "a.lock",
        "@{x",
        "a\\b",
        "x\n",
        "*",
    ] {
        BranchName::parse(branch).expect_err(branch);
    }
    for branch in ["main", "fleet/tokyo-1", "v1.2", "基盤"] {
        BranchName::parse(branch).unwrap();
    }
    let Err(RemoteError::Url { url, .. }) = RemoteUrl::parse("https://bob:hunter2@host/x", false) else {
        panic!()
    };
    assert_eq!(url, "https://…@host/x");
}

#[test]
fn secrets_are_not_printed() {
    let mut remote = Remote::new("https://h/b", "main", false).unwrap();
    remote.credentials = Credentials::UserPassword {
        username: "canary-user".to_owned(),
        password: "canary-password".into(),
    };
    let text = format!("{remote:?} {:?}", source(remote.clone()));
    assert!(!text.contains("canary"), "{text}");
}

macro_rules! or_skip {
    ($server:expr) => {
        match $server {
            Ok(server) => server,
            Err(kiban_git::testserver::StartError::Absent { program }) => {
                println!("skipped: {program} is not installed");
                return;
            }
            Err(e) => panic!("{e}"),
        }
    };
}

#[test]
fn over_ssh() {
    let mut server = or_skip!(SshServer::start());
    let repo = Repo::new();
    let one = repo.commit(&[("a.yaml", b"a: 1")]);
    let mut mirror = Mirror::open(&repo.cache(), source(server.remote(&repo.bare(), "main"))).unwrap();
    assert_eq!(mirror.fetch(soon()).unwrap().commit, one);
    let two = repo.commit(&[("a.yaml", b"a: 2")]);
    assert_eq!(mirror.fetch(soon()).unwrap().commit, two);
    assert_eq!(mirror.ancestry(one, two), Ancestry::FastForward);

    server.stop();
    let error = mirror.fetch(soon()).unwrap_err();
    assert_eq!(error.category(), "RemoteUnreachable", "{error}");
    assert!(error.is_transient());
    // What was fetched can still be read.
    assert_eq!(mirror.read_tree(two).unwrap().files.len(), 1);
    server.restart().unwrap();
    assert_eq!(mirror.fetch(soon()).unwrap().commit, two);
}

#[test]
fn over_ssh_the_host_and_the_client_must_be_known() {
    let server = or_skip!(SshServer::start());
    let repo = Repo::new();
    repo.commit(&[("a.yaml", b"a: 1")]);
    let good = server.remote(&repo.bare(), "main");
    let category = |remote: Remote| {
        let cache = tempfile::tempdir().unwrap();
        let result = Mirror::open(cache.path(), source(remote)).unwrap().fetch(soon());
        result.map_or_else(|e| e.category(), |_| "fetched")
    };
    assert_eq!(category(good.clone()), "fetched");
    assert_eq!(
        category(Remote {
            known_hosts: None,
            ..good.clone()
        }),
        "HostKeyNotTrusted"
    );
    assert_eq!(
        category(Remote {
            known_hosts: Some(String::new()),
            ..good.clone()
        }),
        "HostKeyNotTrusted"
    );
    let other = SshServer::start().unwrap();
    let wrong = other
        .known_hosts()
        .replace(&other.port().to_string(), &server.port().to_string());
    assert_eq!(
        category(Remote {
            known_hosts: Some(wrong),
            ..good.clone()
        }),
        "HostKeyNotTrusted"
    );
    // As `ssh-keygen -H` hashes it.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("known_hosts");
    fs::write(&file, server.known_hosts() + "\n").unwrap();
    let hashed = std::process::Command::new("ssh-keygen")
        .arg("-H")
        .arg("-f")
        .arg(&file)
        .output()
        .unwrap();
    assert!(hashed.status.success());
    let hashed = fs::read_to_string(&file).unwrap();
    assert!(hashed.starts_with("|1|"), "{hashed}");
    assert_eq!(
        category(Remote {
            known_hosts: Some(hashed),
            ..good.clone()
        }),
        "fetched"
    );

    assert_eq!(
        category(Remote {
            credentials: Credentials::None,
            ..good.clone()
        }),
        "AuthenticationFailed"
    );
    let stranger = Credentials::SshKey {
        username: String::new(),
        private_key: server.stranger_key().into(),
        passphrase: None,
    };
    assert_eq!(
        category(Remote {
            credentials: stranger,
            ..good.clone()
        }),
        "AuthenticationFailed"
    );
    let missing = RemoteUrl::parse(&server.url(Path::new("/no/such/repository.git")), false).unwrap();
    assert_eq!(category(Remote { url: missing, ..good }), "RepositoryMissing");
}

#[test]
fn over_https() {
    let repo = Repo::new();
    let mut server = or_skip!(HttpsServer::start(repo.dir.path()));
    let one = repo.commit(&[("a.yaml", b"a: 1")]);
    let mut mirror = Mirror::open(&repo.cache(), source(server.remote("fleet.git", "main"))).unwrap();
    assert_eq!(mirror.fetch(soon()).unwrap().commit, one);
    let two = repo.commit(&[("a.yaml", b"a: 2")]);
    assert_eq!(mirror.fetch(soon()).unwrap().commit, two);
    server.stop();
    let error = mirror.fetch(soon()).unwrap_err();
    assert_eq!(error.category(), "RemoteUnreachable", "{error}");
}

#[test]
fn over_https_the_certificate_the_password_and_the_host_must_fit() {
    let repo = Repo::new();
    let server = or_skip!(HttpsServer::start(repo.dir.path()));
    repo.commit(&[("a.yaml", b"a: 1")]);
    let good = server.remote("fleet.git", "main");
    let result = |remote: Remote| {
        let cache = tempfile::tempdir().unwrap();
        Mirror::open(cache.path(), source(remote)).unwrap().fetch(soon())
    };
    let category = |remote: Remote| result(remote).map_or_else(|e| e.category(), |_| "fetched");
    assert_eq!(category(good.clone()), "fetched");
    assert_eq!(
        category(Remote {
            ca: None,
            ..good.clone()
        }),
        "CertificateNotTrusted"
    );
    let other = HttpsServer::start(repo.dir.path()).unwrap();
    assert_eq!(
        category(Remote {
            ca: Some(other.ca().to_owned()),
            ..good.clone()
        }),
        "CertificateNotTrusted"
    );
    // The certificate is for 127.0.0.1 and localhost; 127.0.0.2 is the same server by another name.
    let alias = format!("https://127.0.0.2:{}/fleet.git", server.port());
    let alias = RemoteUrl::parse(&alias, false).unwrap();
    let error = result(Remote {
        url: alias,
        ..good.clone()
    })
    .unwrap_err();
    assert!(
        ["CertificateNotTrusted", "RemoteUnreachable"].contains(&error.category()),
        "{error}"
    );

    assert_eq!(
        category(Remote {
            credentials: Credentials::None,
            ..good.clone()
        }),
        "AuthenticationFailed"
    );
    let wrong = Credentials::UserPassword {
        username: "kiban".to_owned(),
        password: "wrong-canary".into(),
    };
    let error = result(Remote {
        credentials: wrong,
        ..good.clone()
    })
    .unwrap_err();
    assert_eq!(error.category(), "AuthenticationFailed");
    assert!(!error.to_string().contains("canary"), "{error}");

    let missing = RemoteUrl::parse(&server.url("none.git"), false).unwrap();
    assert_eq!(
        category(Remote {
            url: missing,
            ..good.clone()
        }),
        "RepositoryMissing"
    );
    let elsewhere = RemoteUrl::parse(&server.url("elsewhere/fleet.git"), false).unwrap();
    let error = result(Remote {
        url: elsewhere,
        ..good
    })
    .unwrap_err();
    assert_eq!(error.category(), "RedirectRefused", "{error}");
}

#[test]
fn a_server_that_says_nothing_is_left_at_the_deadline() {
    let silent = SilentServer::start().unwrap();
    let given = Some(String::new());
    for (url, ca) in [
        (format!("https://127.0.0.1:{}/a", silent.port()), given.clone()),
        // With the system's authorities.
        (format!("https://127.0.0.1:{}/a", silent.port()), None),
        (format!("ssh://git@127.0.0.1:{}/a", silent.port()), given),
    ] {
        if ca.is_none() && rustls_native_certs::load_native_certs().certs.is_empty() {
            println!("skipped: this system has no certificate authorities");
            continue;
        }
        let mut remote = Remote::new(&url, "main", false).unwrap();
        remote.known_hosts = Some(String::new());
        remote.ca = ca;
        let cache = tempfile::tempdir().unwrap();
        let mut mirror = Mirror::open(cache.path(), source(remote)).unwrap();
        let error = mirror
            .fetch(Instant::now() + Duration::from_millis(300))
            .unwrap_err();
        assert_eq!(error.category(), "DeadlineExceeded", "{url}: {error}");
    }
}

/// The system's authorities come from `SSL_CERT_FILE`, and no test may change the environment of its neighbours: so this
/// runs itself again with another one.
#[test]
fn over_https_with_the_systems_authorities() {
    const URL: &str = "KIBAN_TEST_SYSTEM_CA_URL";
    if let Ok(url) = std::env::var(URL) {
        let mut remote = Remote::new(&url, "main", false).unwrap();
        remote.credentials = Credentials::UserPassword {
            username: std::env::var("KIBAN_TEST_USER").unwrap(),
            password: std::env::var("KIBAN_TEST_PASSWORD").unwrap().into(),
        };
        let cache = tempfile::tempdir().unwrap();
        let fetched = Mirror::open(cache.path(), source(remote)).unwrap().fetch(soon());
        println!("result: {}", fetched.map_or_else(|e| e.category(), |_| "Fetched"));
        return;
    }
    let repo = Repo::new();
    let server = or_skip!(HttpsServer::start(repo.dir.path()));
    repo.commit(&[("a.yaml", b"a: 1")]);
    let remote = server.remote("fleet.git", "main");
    let Credentials::UserPassword { username, password } = &remote.credentials else {
        panic!("the server wants a password");
    };
    let other = HttpsServer::start(repo.dir.path()).unwrap();
    for (ca, expected) in [
        (server.ca(), "result: Fetched"),
        (other.ca(), "result: CertificateNotTrusted"),
    ] {
        let file = repo.dir.path().join("system.pem");
        std::fs::write(&file, ca).unwrap();
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "over_https_with_the_systems_authorities",
                "--nocapture",
            ])
            .env(URL, remote.url.as_str())
            .env("KIBAN_TEST_USER", username)
            .env("KIBAN_TEST_PASSWORD", password.expose_secret())
            .env("SSL_CERT_FILE", &file)
            .env_remove("SSL_CERT_DIR")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
}

#[test]
fn a_pack_larger_than_allowed_is_cut_off() {
    let server = or_skip!(SshServer::start());
    let repo = Repo::new();
    let mut noise = Vec::new();
    let mut state = 1_u64;
    while noise.len() < 4 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        noise.extend_from_slice(&state.to_be_bytes());
    }
    repo.commit(&[("a.yaml", b"a: 1"), ("noise.bin", &noise)]);
    let mut remote = server.remote(&repo.bare(), "main");
    remote.max_bytes = 1 << 20;
    let mut mirror = Mirror::open(&repo.cache(), source(remote)).unwrap();
    let error = mirror.fetch(soon()).unwrap_err();
    assert_eq!(error.category(), "RepositoryTooLarge", "{error}");
    assert!(!error.is_transient());
}

/// A pack of a few kilobytes that becomes 64 MiB: it may come, and the file in it is refused without being read.
#[test]
fn what_swells_when_it_is_unpacked_is_refused_by_name() {
    let repo = Repo::new();
    let bomb = vec![b'a'; 64 << 20];
    let head = repo.commit(&[("a.yaml", b"a: 1"), ("bomb.yaml", &bomb)]);
    let mut mirror = repo.mirror();
    mirror.fetch(soon()).unwrap();
    let text = mirror.read_tree(head).unwrap_err().to_string();
    assert!(text.contains("bomb.yaml: has 67108864 bytes"), "{text}");
    assert!(!text.contains("a.yaml"), "{text}");
}

/// Commits that are not whole: without a tree that exists, without any tree, their own parent's absent.
#[test]
fn a_commit_that_is_not_whole_is_an_error_and_the_last_good_one_stays_readable() {
    let repo = Repo::new();
    let good = repo.commit(&[("a.yaml", b"a: 1")]);
    let mut mirror = repo.mirror();
    mirror.fetch(soon()).unwrap();
    let nobody = "Aoi <aoi@example.org> 1700000000 +0000";
    let nothing = "1".repeat(40);
    let tree = git(&repo.bare(), ["rev-parse", "main^{tree}"]).unwrap();
    for (what, head) in [
        ("a tree that does not exist", format!("tree {nothing}\n")),
        ("no tree", String::new()),
        (
            "a parent that does not exist",
            format!("tree {tree}\nparent {nothing}\n"),
        ),
    ] {
        let text = format!("{head}author {nobody}\ncommitter {nobody}\n\n{what}\n");
        let id = repo.object("commit", text.as_bytes());
        fs::write(repo.bare().join("refs/heads/main"), format!("{id}\n")).unwrap();
        let result = mirror.fetch(soon());
        match result {
            Err(error) => assert!(!error.to_string().is_empty(), "{what}"),
            // A server may send what it has: then nothing can be read of it, or all of it.
            Ok(head) => {
                let read = mirror.read_tree(head.commit);
                assert!(
                    what.starts_with("a parent") || read.is_err(),
                    "{what}: {:?}",
                    read.map(|tree| tree.files.len())
                );
            }
        }
        let files = mirror
            .read_tree(good)
            .unwrap_or_else(|e| panic!("{what}: {e}"))
            .files;
        assert_eq!(files.len(), 1, "{what}");
    }
    fs::write(repo.bare().join("refs/heads/main"), format!("{good}\n")).unwrap();
    assert_eq!(mirror.fetch(soon()).unwrap().commit, good);
}

/// A server that answers in no way that Git knows: an error each time, no panic, and the copy stays as it was.
#[test]
fn over_ssh_garbage_is_an_error() {
    let server = or_skip!(SshServer::start());
    let repo = Repo::new();
    let good = repo.commit(&[("a.yaml", b"a: 1")]);
    let mut mirror = Mirror::open(&repo.cache(), source(server.remote(&repo.bare(), "main"))).unwrap();
    assert_eq!(mirror.fetch(soon()).unwrap().commit, good);
    let unknown = "2".repeat(40);
    let advertised = format!("{unknown} refs/heads/main\\0side-band-64k ofs-delta");
    let line = format!("{:04x}{advertised}\\n", 4 + advertised.len() - 1 + 1);
    for command in [
        "true".to_owned(),
        "head -c 100000 /dev/urandom".to_owned(),
        "printf 'ffff'".to_owned(),
        "printf '0003'".to_owned(),
        "printf '0005\\001'".to_owned(),
        format!("printf '{line}0000'; printf '0008NAK\\n0005\\0010005\\0040004'"),
        "printf '0034ERR no such thing, and here is an escape \\033[2J!'".to_owned(),
    ] {
        server.answer_with(&command).unwrap();
        let result = mirror.fetch(Instant::now() + Duration::from_secs(20));
        let error = result.map(|head| head.commit).expect_err(&command);
        let text = error.to_string();
        assert!(!text.chars().any(char::is_control), "{command}: {text:?}");
        assert_eq!(mirror.read_tree(good).unwrap().files.len(), 1, "{command}");
    }
}
