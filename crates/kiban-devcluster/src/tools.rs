//! Where the programs come from: `KUBEBUILDER_ASSETS`, else PATH where the version is the pinned one, else built once.
//!
//! The pin is `tools/*/go.mod`, read at compile time: versions are written nowhere else. What is built goes to
//! `target/controlplane/<module>-<hash of its go.mod and go.sum>/bin` of the workspace, whatever CARGO_TARGET_DIR says,
//! so that every checkout builds it once and a changed pin builds it anew.

use std::{
    fs,
    io::{BufRead, BufReader, IsTerminal, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// A small Go module that pins programs.
#[derive(Debug)]
struct Module {
    /// Its directory under `tools/`.
    name: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
}

static CONTROL_PLANE: Module = Module {
    name: "controlplane",
    go_mod: include_str!("../../../tools/controlplane/go.mod"),
    go_sum: include_str!("../../../tools/controlplane/go.sum"),
};

static HELM: Module = Module {
    name: "helm",
    go_mod: include_str!("../../../tools/helm/go.mod"),
    go_sum: include_str!("../../../tools/helm/go.sum"),
};

/// A program that the control plane or its tests need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// The store.
    Etcd,
    /// The API server.
    KubeApiserver,
    /// The client that everything here is done with.
    Kubectl,
    /// For the tests of the charts.
    Helm,
}

impl Tool {
    /// All of them, in the order in which they are built.
    pub const ALL: [Tool; 4] = [Tool::Etcd, Tool::KubeApiserver, Tool::Kubectl, Tool::Helm];

    /// The file's name.
    pub fn name(self) -> &'static str {
        match self {
            Tool::Etcd => "etcd",
            Tool::KubeApiserver => "kube-apiserver",
            Tool::Kubectl => "kubectl",
            Tool::Helm => "helm",
        }
    }

    /// The pinned version, such as `1.36.3`.
    pub fn version(self) -> &'static str {
        self.module().version_of(self.pinned_by())
    }

    fn module(self) -> &'static Module {
        match self {
            Tool::Helm => &HELM,
            Tool::Etcd | Tool::KubeApiserver | Tool::Kubectl => &CONTROL_PLANE,
        }
    }

    /// The Go module whose version is the program's.
    fn pinned_by(self) -> &'static str {
        match self {
            Tool::Etcd => "go.etcd.io/etcd/server/v3",
            Tool::KubeApiserver | Tool::Kubectl => "k8s.io/kubernetes",
            Tool::Helm => "helm.sh/helm/v4",
        }
    }

    /// The main package.
    fn package(self) -> &'static str {
        match self {
            Tool::Etcd => "go.etcd.io/etcd/server/v3",
            Tool::KubeApiserver => "k8s.io/kubernetes/cmd/kube-apiserver",
            Tool::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
            Tool::Helm => "helm.sh/helm/v4/cmd/helm",
        }
    }

    /// The linker's flags: without symbols, and with the version that a release build would carry. An API server
    /// without one calls itself `v0.0.0-master` and enables no feature that has a version.
    fn ldflags(self) -> String {
        let version = self.version();
        match self {
            Tool::Etcd => "-s -w".to_owned(),
            Tool::Helm => format!("-s -w -X helm.sh/helm/v4/internal/version.version=v{version}"),
            Tool::KubeApiserver | Tool::Kubectl => {
                let mut numbers = version.split('.');
                let (major, minor) = (
                    numbers.next().unwrap_or_default(),
                    numbers.next().unwrap_or_default(),
                );
                let package = "k8s.io/component-base/version";
                format!(
                    "-s -w -X {package}.gitVersion=v{version} -X {package}.gitMajor={major} \
                     -X {package}.gitMinor={minor} -X {package}.gitTreeState=clean"
                )
            }
        }
    }

    /// What prints the version.
    fn version_args(self) -> &'static [&'static str] {
        match self {
            Tool::Etcd | Tool::KubeApiserver => &["--version"],
            Tool::Kubectl => &["version", "--client"],
            Tool::Helm => &["version", "--short"],
        }
    }

    /// True where what a program printed names the pinned minor version.
    fn accepts(self, printed: &str) -> bool {
        let minor = self
            .version()
            .rsplit_once('.')
            .map_or(self.version(), |(minor, _)| minor);
        printed.split_whitespace().any(|word| {
            let rest = word.trim_start_matches('v').strip_prefix(minor);
            rest.is_some_and(|rest| {
                rest.starts_with('.') && !rest.contains("-alpha") && !rest.contains("-beta")
            })
        })
    }

    /// Finds the program, or builds it.
    ///
    /// It blocks while it builds (minutes, once), and says on stderr what it is doing.
    pub fn find(self) -> Result<PathBuf> {
        match self.look() {
            Some(path) => Ok(path),
            None => build(&[self]).map(|()| self.built_path()),
        }
    }

    /// The program where it exists already.
    pub fn look(self) -> Option<PathBuf> {
        self.in_assets()
            .or_else(|| self.on_path())
            .or_else(|| Some(self.built_path()).filter(|path| path.is_file()))
    }

    fn in_assets(self) -> Option<PathBuf> {
        let dir = std::env::var_os("KUBEBUILDER_ASSETS")?;
        Some(Path::new(&dir).join(self.name())).filter(|path| path.is_file())
    }

    fn on_path(self) -> Option<PathBuf> {
        let path = on_path(self.name())?;
        let output = Command::new(&path)
            .args(self.version_args())
            .stdin(Stdio::null())
            .output()
            .ok()?;
        let printed = String::from_utf8_lossy(&output.stdout);
        self.accepts(&printed).then_some(path)
    }

    fn built_path(self) -> PathBuf {
        self.module().bin_dir().join(self.name())
    }
}

impl Module {
    fn dir(&self) -> PathBuf {
        workspace().join("tools").join(self.name)
    }

    /// The version of a required module, without the `v`.
    fn version_of(&self, module: &str) -> &'static str {
        let words = self
            .go_mod
            .lines()
            .map(|line| line.trim().trim_start_matches("require "));
        words
            .filter_map(|line| line.strip_prefix(module)?.strip_prefix(" v"))
            .next()
            .map_or("", |rest| rest.split_whitespace().next().unwrap_or_default())
    }

    /// The oldest Go that it builds with.
    fn go(&self) -> &'static str {
        self.go_mod
            .lines()
            .find_map(|line| line.strip_prefix("go "))
            .unwrap_or_default()
    }

    fn bin_dir(&self) -> PathBuf {
        let mut hasher = Sha256::new();
        hasher.update(self.go_mod);
        hasher.update(self.go_sum);
        let digest: String = hasher
            .finalize()
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        cache().join(format!("{}-{digest}", self.name)).join("bin")
    }
}

/// The programs of a control plane, found.
#[derive(Debug, Clone)]
pub struct Tools {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub kube_apiserver: PathBuf,
    /// kubectl.
    pub kubectl: PathBuf,
}

impl Tools {
    /// Finds all three, building what is missing.
    pub fn find() -> Result<Self> {
        prepare(&[Tool::Etcd, Tool::KubeApiserver, Tool::Kubectl])?;
        let find = |tool: Tool| tool.find();
        Ok(Self {
            etcd: find(Tool::Etcd)?,
            kube_apiserver: find(Tool::KubeApiserver)?,
            kubectl: find(Tool::Kubectl)?,
        })
    }
}

/// Builds those of `tools` that are nowhere to be found, in one go, so that the progress can say how many there are.
pub(crate) fn prepare(tools: &[Tool]) -> Result<()> {
    let missing: Vec<Tool> = tools
        .iter()
        .copied()
        .filter(|tool| tool.look().is_none())
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        build(&missing)
    }
}

/// The root of the workspace. Only ever used from a checkout, so the path of compilation is the path of use.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

fn cache() -> PathBuf {
    workspace().join("target").join("controlplane")
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Builds under a lock, so that test binaries that start together build once; the others find it done.
fn build(tools: &[Tool]) -> Result<()> {
    let file = |action, path: &Path, source| Error::File {
        action,
        path: path.to_path_buf(),
        source,
    };
    let cache = cache();
    fs::create_dir_all(&cache).map_err(|source| file("create", &cache, source))?;
    let lock_path = cache.join("lock");
    let lock = fs::File::create(&lock_path).map_err(|source| file("create", &lock_path, source))?;
    if lock.try_lock().is_err() {
        say("waiting for another process that builds the control plane");
        lock.lock().map_err(|source| file("lock", &lock_path, source))?;
    }
    for (index, tool) in tools.iter().enumerate() {
        let target = tool.built_path();
        if target.is_file() {
            continue;
        }
        let Some(go) = on_path("go") else {
            return Err(Error::NoGo {
                tool: tool.name(),
                version: tool.version().to_owned(),
                go: tool.module().go().to_owned(),
            });
        };
        let bin = tool.module().bin_dir();
        fs::create_dir_all(&bin).map_err(|source| file("create", &bin, source))?;
        let partial = bin.join(format!(".{}.partial", tool.name()));
        go_build(&go, *tool, &partial, &format!("{} of {}", index + 1, tools.len()))?;
        fs::rename(&partial, &target).map_err(|source| file("rename", &partial, source))?;
    }
    Ok(())
}

fn go_build(go: &Path, tool: Tool, output: &Path, position: &str) -> Result<()> {
    let title = format!(
        "building {} {} with Go ({position}, once, cached under target/)",
        tool.name(),
        tool.version()
    );
    say(&title);
    let started = Instant::now();
    let spawned = Command::new(go)
        // -v names each package as it is compiled: the only progress that Go offers.
        .args([
            "build",
            "-v",
            "-mod=readonly",
            "-trimpath",
            "-ldflags",
            &tool.ldflags(),
            "-o",
        ])
        .arg(output)
        .arg(tool.package())
        .current_dir(tool.module().dir())
        .env("CGO_ENABLED", "0")
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|source| Error::Spawn {
        program: go.display().to_string(),
        source,
    })?;
    let mut progress = Progress::new(tool.name(), started);
    let mut kept: Vec<String> = Vec::new();
    for line in child
        .stderr
        .take()
        .into_iter()
        .flat_map(|stderr| BufReader::new(stderr).lines().map_while(|l| l.ok()))
    {
        progress.line(&line);
        // Go's own words on failure come last; the packages before them say nothing.
        if kept.len() == 40 {
            kept.remove(0);
        }
        kept.push(line);
    }
    let status = child.wait().map_err(|source| Error::Spawn {
        program: go.display().to_string(),
        source,
    })?;
    progress.end();
    if !status.success() {
        return Err(Error::Build {
            tool: tool.name(),
            output: kept.join("\n"),
        });
    }
    say(&format!("built {} in {}", tool.name(), clock(started.elapsed())));
    Ok(())
}

/// One line that is rewritten on a terminal, and a line now and then elsewhere.
struct Progress {
    tool: &'static str,
    started: Instant,
    shown: Instant,
    packages: usize,
    terminal: bool,
}

impl Progress {
    fn new(tool: &'static str, started: Instant) -> Self {
        Self {
            tool,
            started,
            shown: started,
            packages: 0,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    fn line(&mut self, line: &str) {
        if line.starts_with("go: ") {
            return;
        }
        self.packages += 1;
        // A log wants a sign of life, not a film.
        let pause = if self.terminal {
            Duration::from_millis(100)
        } else {
            Duration::from_secs(20)
        };
        if self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let (tool, packages, elapsed) = (self.tool, self.packages, clock(self.started.elapsed()));
        if self.terminal {
            let mut package = line.to_owned();
            package.truncate(package.floor_char_boundary(50));
            let _ = write!(
                std::io::stderr(),
                "\r\x1b[K  {tool}: {packages} packages, {elapsed}  {package}"
            );
        } else {
            say(&format!("  {tool}: {packages} packages, {elapsed}"));
        }
    }

    fn end(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Straight to stderr: the test harness swallows what `eprintln!` prints, and a silent wait of minutes looks like a hang.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    format!("{}m{:02}s", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_go_modules() {
        for tool in Tool::ALL {
            let numbers: Vec<u32> = tool
                .version()
                .split('.')
                .map(|part| part.parse().unwrap())
                .collect();
            assert_eq!(numbers.len(), 3, "{} {}", tool.name(), tool.version());
            assert!(!tool.module().go().is_empty());
        }
        assert!(Tool::KubeApiserver.version().starts_with("1.36."));
        assert!(Tool::Etcd.version().starts_with("3.6."));
    }

    #[test]
    fn staging_modules_follow_the_pinned_kubernetes() {
        let minor = Tool::KubeApiserver.version().trim_start_matches("1.");
        let replaced: Vec<&str> = CONTROL_PLANE
            .go_mod
            .lines()
            .filter(|line| line.contains("=> k8s.io/"))
            .collect();
        assert!(replaced.len() > 20, "{replaced:?}");
        for line in replaced {
            assert!(
                line.ends_with(&format!(" v0.{minor}")),
                "{line} is not Kubernetes 1.{minor}"
            );
        }
    }

    #[test]
    fn a_program_of_another_minor_version_is_not_taken() {
        assert!(Tool::KubeApiserver.accepts("Kubernetes v1.36.9\n"));
        assert!(!Tool::KubeApiserver.accepts("Kubernetes v1.3.36\n"));
        assert!(!Tool::KubeApiserver.accepts("Kubernetes v1.36.0-alpha.1\n"));
        assert!(!Tool::Kubectl.accepts("Client Version: v1.32.4\nKustomize Version: v5.5.0\n"));
        assert!(Tool::Etcd.accepts("etcd Version: 3.6.1\nGit SHA: Not provided\nGo Version: go1.26\n"));
        assert!(!Tool::Etcd.accepts("etcd Version: 3.5.21\nGo Version: go1.23\n"));
    }
}
