//! The house rules that a compiler does not hold: which crate may know which, and what no file may be.
//!
//! ```text
//!   core ◀── api, git, bmc, sim ◀── operator, cli          devcluster stands alone
//! ```
//!
//! ARCHITECTURE.md says why. Development dependencies are free, except in `kiban-core`, which stays without I/O even there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on stops"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Which of ours each of ours may depend on. A crate that is not listed here fails the test: its edges are to be decided.
const EDGES: [(&str, &[&str]); 9] = [
    ("kiban-core", &[]),
    ("kiban-api", &["kiban-core"]),
    ("kiban-git", &["kiban-core"]),
    ("kiban-bmc", &["kiban-core"]),
    ("kiban-sim", &["kiban-core"]),
    ("kiban-devcluster", &[]),
    (
        "kiban-operator",
        &["kiban-core", "kiban-api", "kiban-git", "kiban-bmc"],
    ),
    (
        "kiban-cli",
        &["kiban-core", "kiban-api", "kiban-git", "kiban-bmc"],
    ),
    // A whole Kiban on one machine; it runs the operator as a program, never as a library.
    (
        "kiban-lab",
        &[
            "kiban-core",
            "kiban-api",
            "kiban-git",
            "kiban-sim",
            "kiban-devcluster",
        ],
    ),
];

/// Packages that put the others together, and that nobody depends on.
const TOPS: [&str; 2] = ["xtask", "kiban-tests"];

/// Libraries that only these of ours may name as dependencies: each is somebody's door to the outside.
const DOORS: [(&str, &[&str]); 5] = [
    ("git2", &["kiban-git"]),
    // The emulator downloads images as a BMC does; the operator asks gates, never a BMC.
    ("reqwest", &["kiban-bmc", "kiban-sim", "kiban-operator"]),
    ("kube", &["kiban-api", "kiban-operator", "kiban-cli"]),
    ("k8s-openapi", &["kiban-api", "kiban-operator", "kiban-cli"]),
    ("prometheus-client", &["kiban-operator"]),
];

/// What may not even be reached through others. Without a runtime and a socket, the planner cannot do I/O by accident.
const OUT_OF_REACH: [(&str, &[&str]); 4] = [
    (
        "kiban-core",
        &[
            "tokio",
            "kube",
            "k8s-openapi",
            "git2",
            "reqwest",
            "hyper",
            "rand",
            "tracing-subscriber",
        ],
    ),
    ("kiban-git", &["kube", "reqwest"]),
    ("kiban-bmc", &["kube", "git2"]),
    ("kiban-sim", &["kube", "git2"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--all-features"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The dependencies that end up in a program: normal and build ones, of every package that cargo resolved.
struct Graph {
    ours: BTreeSet<String>,
    direct: BTreeMap<String, BTreeSet<String>>,
    dev: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Self {
        let metadata = metadata();
        let names: BTreeMap<&str, &str> = each(&metadata["packages"])
            .map(|package| (package["id"].as_str().unwrap(), package["name"].as_str().unwrap()))
            .collect();
        let ours = each(&metadata["workspace_members"])
            .map(|id| names[id.as_str().unwrap()].to_owned())
            .collect();
        let (mut direct, mut dev) = (BTreeMap::new(), BTreeMap::new());
        for node in each(&metadata["resolve"]["nodes"]) {
            let name = names[node["id"].as_str().unwrap()].to_owned();
            for dep in each(&node["deps"]) {
                let to = names[dep["pkg"].as_str().unwrap()].to_owned();
                for kind in each(&dep["dep_kinds"]) {
                    let map = if kind["kind"] == "dev" {
                        &mut dev
                    } else {
                        &mut direct
                    };
                    map.entry(name.clone())
                        .or_insert_with(BTreeSet::new)
                        .insert(to.clone());
                }
            }
        }
        Self { ours, direct, dev }
    }

    fn of(&self, name: &str) -> impl Iterator<Item = &str> {
        self.direct.get(name).into_iter().flatten().map(String::as_str)
    }

    /// A chain of dependencies from one package to another, for the message.
    fn path(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut seen = BTreeSet::from([from.to_owned()]);
        let mut chains = vec![vec![from.to_owned()]];
        while let Some(chain) = chains.pop() {
            for next in self.of(chain.last()?) {
                let longer: Vec<String> = chain.iter().cloned().chain([next.to_owned()]).collect();
                if next == to {
                    return Some(longer);
                }
                if seen.insert(next.to_owned()) {
                    chains.push(longer);
                }
            }
        }
        None
    }
}

fn each(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[test]
fn our_crates_know_only_whom_they_may() {
    let graph = Graph::read();
    for name in &graph.ours {
        if TOPS.contains(&name.as_str()) {
            continue;
        }
        let allowed = EDGES.iter().find(|(crate_name, _)| crate_name == name);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{name} has no place in EDGES"));
        for dep in graph.of(name).filter(|dep| graph.ours.contains(*dep)) {
            // A crate may list itself to switch its own features on for its tests.
            assert!(
                allowed.contains(&dep) || dep == name,
                "{name} must not depend on {dep}"
            );
        }
    }
    let core_dev = graph.dev.get("kiban-core").into_iter().flatten();
    for dep in core_dev {
        assert!(
            !graph.ours.contains(dep),
            "kiban-core must not depend on {dep}, not even for its tests"
        );
    }
}

#[test]
fn nobody_depends_on_what_stands_at_the_top() {
    let graph = Graph::read();
    for name in &graph.ours {
        for dep in graph.of(name) {
            assert!(!TOPS.contains(&dep), "{name} must not depend on {dep}");
            let binary = TOPS.contains(&name.as_str());
            assert!(
                dep != "kiban-operator" || binary,
                "{name} must not depend on {dep}: only its binary does"
            );
        }
    }
}

#[test]
fn each_door_to_the_outside_has_one_keeper() {
    let graph = Graph::read();
    for (library, keepers) in DOORS {
        for name in graph.ours.iter().filter(|name| !TOPS.contains(&name.as_str())) {
            let named = graph.of(name).any(|dep| dep == library);
            assert!(
                !named || keepers.contains(&name.as_str()),
                "{name} must not name {library}: {keepers:?} do"
            );
        }
    }
}

#[test]
fn what_is_out_of_reach_stays_so_through_others() {
    let graph = Graph::read();
    assert!(
        graph.path("kiban-operator", "git2").is_some(),
        "the graph misses an edge that is known to be there"
    );
    for (name, unreachable) in OUT_OF_REACH {
        for library in unreachable {
            if let Some(path) = graph.path(name, library) {
                panic!("{name} must not reach {library}: {}", path.join(" → "));
            }
        }
    }
}

#[test]
fn each_duplicate_is_known_with_its_reason() {
    let deny = fs::read_to_string(root().join("deny.toml")).unwrap();
    let metadata = metadata();
    let packages: BTreeMap<&str, &Value> = each(&metadata["packages"])
        .map(|package| (package["id"].as_str().unwrap(), package))
        .collect();
    let nodes: BTreeMap<&str, &Value> = each(&metadata["resolve"]["nodes"])
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    // What only tests pull in is no part of any program.
    let mut shipped = BTreeSet::new();
    let mut next: Vec<&str> = each(&metadata["workspace_members"])
        .filter_map(Value::as_str)
        .collect();
    while let Some(id) = next.pop() {
        if shipped.insert(id) {
            let kept = each(&nodes[id]["deps"])
                .filter(|dep| each(&dep["dep_kinds"]).any(|kind| kind["kind"] != "dev"));
            next.extend(kept.filter_map(|dep| dep["pkg"].as_str()));
        }
    }
    assert!(shipped.len() > 100, "the graph misses what is known to be there");
    let mut versions: BTreeMap<&str, BTreeSet<(u64, u64)>> = BTreeMap::new();
    for id in shipped {
        let package = packages[id];
        let mut numbers = package["version"]
            .as_str()
            .unwrap()
            .split(['.', '+', '-'])
            .map(|part| part.parse().unwrap());
        let (major, minor) = (numbers.next().unwrap(), numbers.next().unwrap());
        let compatible = if major > 0 { (major, 0) } else { (0, minor) };
        versions
            .entry(package["name"].as_str().unwrap())
            .or_default()
            .insert(compatible);
    }
    let mut unknown = Vec::new();
    for (name, versions) in versions {
        for (major, minor) in versions.iter().rev().skip(1) {
            let version = if *major > 0 {
                major.to_string()
            } else {
                format!("0.{minor}")
            };
            if !deny.contains(&format!(r#"{{ crate = "{name}@{version}", reason ="#)) {
                unknown.push(format!("{name}@{version}"));
            }
        }
    }
    assert!(
        unknown.is_empty(),
        "deny.toml does not say why these are there beside a newer one: {unknown:?}"
    );
}

/// Calls that read something other than their arguments. In the core the same world and time must give the same plan.
const IMPURE: [&str; 8] = [
    "Timestamp::now",
    "Zoned::now",
    "SystemTime::",
    "Instant::now",
    "std::env",
    "std::fs",
    "std::net",
    "std::thread",
];

#[test]
fn the_core_has_no_clock_and_no_io() {
    for (path, text) in files()
        .iter()
        .filter(|(path, _)| path.starts_with("crates/kiban-core/src"))
    {
        for (number, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            for call in IMPURE {
                assert!(
                    !line.contains(call),
                    "{}:{}: {call} in the core",
                    path.display(),
                    number + 1
                );
            }
        }
    }
}

/// The files of the checkout that are text, by their path from the root: what Git tracks and what it would track.
fn files() -> Vec<(PathBuf, String)> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let listed = String::from_utf8(output.stdout).unwrap();
    let paths = listed
        .split('\0')
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    let files: Vec<_> = paths
        .filter_map(|path| Some((path.clone(), fs::read_to_string(root().join(&path)).ok()?)))
        .collect();
    assert!(files.len() > 30, "this is not the checkout");
    files
}

/// Longer, and nobody reads a file from its beginning to its end.
const MAX_LINES: usize = 1500;

#[test]
fn files_are_named_for_what_they_hold_and_can_be_read() {
    for (path, text) in files()
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|it| it == "rs"))
    {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap();
        let nameless = [
            "utils.rs",
            "util.rs",
            "helpers.rs",
            "helper.rs",
            "common.rs",
            "misc.rs",
            "mod.rs",
        ];
        assert!(
            !nameless.contains(&name),
            "{} says nothing about what it holds",
            path.display()
        );
        let lines = text.lines().count();
        assert!(
            lines <= MAX_LINES,
            "{} has {lines} lines; {MAX_LINES} are many",
            path.display()
        );
    }
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    let manifests: Vec<_> = files()
        .into_iter()
        .filter(|(path, _)| path.ends_with("Cargo.toml"))
        .collect();
    assert!(manifests.len() > 8, "{manifests:?}");
    for (path, text) in manifests
        .iter()
        .filter(|(path, _)| path != Path::new("Cargo.toml"))
    {
        assert!(
            text.contains("[lints]\nworkspace = true"),
            "{} has no workspace lints",
            path.display()
        );
    }
}

#[test]
fn nothing_names_a_path_of_this_machine() {
    let mut own: Vec<String> = vec![format!("{}/", root().display())];
    own.extend(
        ["HOME", "CARGO_HOME", "CARGO_TARGET_DIR"]
            .iter()
            .filter_map(|name| std::env::var(name).ok()),
    );
    // "/" and "/root" are in honest Dockerfiles; what is deeper is somebody's.
    own.retain(|path| path.trim_end_matches('/').matches('/').count() > 1);
    assert!(!own.is_empty() || root().components().count() <= 2);
    for (path, text) in files() {
        for place in &own {
            assert!(!text.contains(place.as_str()), "{} names {place}", path.display());
        }
    }
}
