//! The operator's own binary, run as a process: what is killed in a test dies as it would in a cluster.

use anyhow::{Context, Result, bail};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How the operator is run.
#[derive(Clone, Debug)]
pub struct OperatorOptions {
    /// The binary.
    pub binary: PathBuf,
    /// The kubeconfig with the rights it has.
    pub kubeconfig: PathBuf,
    /// The fleet.
    pub namespace: String,
    /// Folder for its cache and log.
    pub dir: PathBuf,
    /// A name for its files and Leases.
    pub replica: String,
    /// More flags. They win over the lab's own.
    pub flags: Vec<String>,
    /// What is logged, as `RUST_LOG` has it. None: what `KIBAN_OPERATOR_LOG` says, else `info`.
    pub log: Option<String>,
}

/// A running operator. Dropping it kills it.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    listen: SocketAddr,
    log: PathBuf,
}

/// Timings for a fleet whose machines run about a hundred times faster than real ones. The rules are the same, only the waits are
/// shorter.
pub const QUICK: [&str; 32] = [
    "--lease-duration",
    "6s",
    "--lease-renew",
    "1s",
    "--api-deadline",
    "4s",
    "--summary-interval",
    "500ms",
    "--plan-interval",
    "2s",
    "--status-interval",
    "1s",
    "--ledger-interval",
    "1s",
    "--file-poll",
    "300ms",
    "--task-poll",
    "300ms",
    "--settle",
    "300ms",
    "--stable-read-interval",
    "200ms",
    "--bmc-deadline",
    "3s",
    "--bmc-connect-deadline",
    "1s",
    "--upload-deadline",
    "5s",
    "--return-deadline",
    "30s",
    "--update-deadline",
    "120s",
];

/// The lab's own timings, without those that are given otherwise: a flag may not be given twice.
fn quick(flags: &[String]) -> Vec<&'static str> {
    let own = QUICK.chunks(2).filter(|pair| {
        let given = |flag: &String| pair.first().is_some_and(|name| flag == name);
        !flags.iter().any(given)
    });
    own.flatten().copied().collect()
}

impl Operator {
    /// Starts it, without waiting until it is ready.
    pub fn start(options: &OperatorOptions) -> Result<Self> {
        let listen = free_address()?;
        let image = free_address()?;
        let cache = options.dir.join(format!("cache-{}", options.replica));
        std::fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
        let log = options.dir.join(format!("operator-{}.log", options.replica));
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("open {}", log.display()))?;
        let child = Command::new(&options.binary)
            .args(["--namespace", &options.namespace, "--replica", &options.replica])
            .args([
                "--listen",
                &listen.to_string(),
                "--image-listen",
                &image.to_string(),
            ])
            .arg("--cache-dir")
            .arg(&cache)
            .args([
                "--allow-file-repositories",
                "--allow-file-images",
                "--log-format",
                "text",
            ])
            .args(quick(&options.flags))
            .args(&options.flags)
            .env("KUBECONFIG", &options.kubeconfig)
            .env(
                "RUST_LOG",
                options
                    .log
                    .clone()
                    .or_else(|| std::env::var("KIBAN_OPERATOR_LOG").ok())
                    .unwrap_or_else(|| "info".to_owned()),
            )
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {}", options.binary.display()))?;
        Ok(Self { child, listen, log })
    }

    /// Waits until `/readyz` says so.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "the operator ended with {status}; its last words:\n{}",
                    self.last_words(15)
                );
            }
            if self.get("/readyz").is_ok_and(|(code, _)| code == 200) {
                return Ok(());
            }
            if Instant::now() > end {
                bail!(
                    "the operator is not ready after {limit:?}; its last words:\n{}",
                    self.last_words(15)
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it serves health, metrics and the webhook.
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The end of its log.
    pub fn last_words(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Its metrics, as text.
    pub fn metrics(&self) -> Result<String> {
        Ok(self.get("/metrics")?.1)
    }

    /// The sum of a metric over its labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = self.metrics()?;
        Ok(text
            .lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    /// Calls the Git webhook: the operator looks at once.
    pub fn call_webhook(&self) -> Result<u16> {
        request(
            self.listen,
            "POST /hooks/git HTTP/1.1\r\nContent-Length: 2\r\nContent-Type: application/json\r\n",
            "{}",
        )
        .map(|(code, _)| code)
    }

    fn get(&self, path: &str) -> Result<(u16, String)> {
        request(self.listen, &format!("GET {path} HTTP/1.1\r\n"), "")
    }

    /// Kills it without a warning, as a lost node would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill the operator")?;
        self.child.wait().context("wait for the operator's end")?;
        Ok(())
    }

    /// Freezes it (SIGSTOP), as a stalled hypervisor would.
    pub fn freeze(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal("CONT")
    }

    /// Asks it to stop and waits for its end.
    pub fn stop(&mut self, limit: Duration) -> Result<()> {
        self.signal("TERM")?;
        let end = Instant::now() + limit;
        while self.running() {
            if Instant::now() > end {
                self.kill()?;
                bail!(
                    "the operator did not stop within {limit:?}; its last words:\n{}",
                    self.last_words(15)
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()?;
        if !status.success() {
            bail!("send SIG{name} to the operator");
        }
        Ok(())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address on loopback that nobody listens at.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?)
}

/// One plain HTTP request to loopback: a client library would be more than the whole of it.
fn request(address: SocketAddr, head: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "{head}Host: {address}\r\nConnection: close\r\n\r\n{body}")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("an HTTP answer has a head")?;
    let code = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .context("an HTTP answer has a status")?;
    Ok((code, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_wins_over_the_labs_own() {
        let flags = quick(&[
            "--settle".to_owned(),
            "9s".to_owned(),
            "--shards".to_owned(),
            "4".to_owned(),
        ]);
        assert_eq!(flags.len(), QUICK.len() - 2);
        assert!(!flags.contains(&"--settle") && flags.contains(&"--task-poll"));
    }
}
