//! Servers that cannot outlive their owner.
//!
//! Two ways of dying have to be told apart. Where Rust still runs (`Drop`, a panic that unwinds), the owner stops its
//! servers in order. Where it does not (SIGKILL, Ctrl-C, abort, a `static` at the end of a test binary), the kernel
//! closes the owner's end of a pipe, and a watchdog that reads from it does the same. `PR_SET_PDEATHSIG` would be
//! shorter but follows the *thread* that spawned, and each `#[tokio::test]` brings and ends its own threads.

use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Error, Result};

/// How long a server may take to end after SIGTERM before it is killed. The data is thrown away anyway; the API server
/// on an idle machine needs well under a second.
const GRACE: Duration = Duration::from_secs(5);

/// How often a stopping server is looked at.
const POLL: Duration = Duration::from_millis(20);

/// `$1` the directory, then the servers' names in stopping order. First marks the directory as closing, then reads the
/// pid files: a server writes its pid first and looks for the mark second, so that one of the two sees the other,
/// and none is missed however the owner's death falls between fork and exec.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
dir=$1; shift
while read -r _; do :; done
: > "$dir/closing"
for name in "$@"; do
  [ -f "$dir/$name.pid" ] || continue
  pid=$(cat "$dir/$name.pid")
  kill -TERM "$pid" 2>/dev/null || continue
  n=0
  while kill -0 "$pid" 2>/dev/null; do
    n=$((n + 1))
    if [ "$n" -gt 100 ]; then kill -KILL "$pid" 2>/dev/null; break; fi
    sleep 0.05
  done
done
rm -rf "$dir"
"#;

/// `$1` the pid file, `$2` the closing mark, then the server's command line.
const LAUNCH: &str = r#"set -e; echo $$ > "$1"; [ ! -e "$2" ]; shift 2; exec "$@""#;

/// Stops whatever is left in a cluster's directory, and removes the directory, once its owner is gone.
pub(crate) struct Watchdog {
    child: Child,
    dir: PathBuf,
}

impl Watchdog {
    /// Starts to watch over the servers `names` (in stopping order) whose pid files are in `dir`.
    pub(crate) fn start(dir: &Path, names: &[&str]) -> Result<Self> {
        let child = Command::new("sh")
            .args(["-c", WATCHDOG, "kiban-devcluster-watchdog"])
            .arg(dir)
            .args(names)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own: the terminal sends Ctrl-C to the owner's whole group.
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn {
                program: "sh".into(),
                source,
            })?;
        Ok(Self {
            child,
            dir: dir.to_path_buf(),
        })
    }

    /// The watchdog's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Closes the pipe; `wait` alone would do so too, but says it less clearly.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// One running server.
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    pid_file: PathBuf,
    log: PathBuf,
}

impl Server {
    /// Starts `program` with its log in `<dir>/<name>.log`.
    pub(crate) fn spawn(dir: &Path, name: &'static str, program: &Path, args: &[String]) -> Result<Self> {
        let pid_file = dir.join(format!("{name}.pid"));
        let log = dir.join(format!("{name}.log"));
        let open = || fs::OpenOptions::new().create(true).append(true).open(&log);
        let fail = |source| Error::File {
            action: "open",
            path: log.clone(),
            source,
        };
        let (out, err) = (open().map_err(fail)?, open().map_err(fail)?);
        let child = Command::new("sh")
            .args(["-c", LAUNCH, name])
            .arg(&pid_file)
            .arg(dir.join("closing"))
            .arg(program)
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn {
                program: program.display().to_string(),
                source,
            })?;
        Ok(Self {
            name,
            child,
            pid_file,
            log,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The error to report where the server has ended on its own.
    pub(crate) fn ended(&mut self) -> Option<Error> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(self.failed(format!("it ended with {status}"))),
            Err(error) => Some(self.failed(format!("it cannot be watched: {error}"))),
        }
    }

    /// An error about this server, with the end of its log.
    pub(crate) fn failed(&self, reason: String) -> Error {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        // Twenty lines hold the reason of both servers' fatal errors.
        let log = lines[lines.len().saturating_sub(20)..].join("\n");
        Error::Start {
            program: self.name,
            reason,
            log,
        }
    }

    /// Sends a signal. A server that has ended is left alone: once it is reaped, its number may be another's.
    pub(crate) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return Ok(());
        }
        match kill_process(Pid::from_child(&self.child), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// SIGTERM, the grace, SIGKILL.
    pub(crate) fn stop(self) {
        drop(self);
    }

    /// SIGKILL at once, as the kernel's memory killer would.
    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.signal(Signal::TERM);
        let until = Instant::now() + GRACE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(POLL);
        }
        // Only after the process is reaped: until then its number cannot belong to anyone else.
        let _ = fs::remove_file(&self.pid_file);
    }
}
