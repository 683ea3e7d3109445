//! What the operator is started with: flags, each with an environment variable.
//!
//! Everything durational is here, so that a test runs the same code as production, only faster.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Kiban's operator: keeps a fleet at the state that is committed to Git.
#[derive(Clone, Debug, clap::Parser)]
// A flag given twice counts as given last, so that a wrapper can have defaults of its own.
#[command(name = "kiban-operator", version, about, args_override_self = true)]
pub struct Config {
    /// Namespace of the fleet. Default: the one the operator runs in, or the kubeconfig's.
    #[arg(long, env = "KIBAN_NAMESPACE")]
    pub namespace: Option<String>,
    /// This replica's name in Leases and events. Default: the host's name. A random end is always added.
    #[arg(long, env = "KIBAN_REPLICA")]
    pub replica: Option<String>,

    /// Where `/livez`, `/readyz`, `/metrics` and the webhook are served.
    #[arg(long, env = "KIBAN_LISTEN", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Where images are served to BMCs that fetch them.
    #[arg(long, env = "KIBAN_IMAGE_LISTEN", default_value = "127.0.0.1:8081")]
    pub image_listen: SocketAddr,
    /// The base address under which BMCs reach the image endpoint. Default: the address it listens at.
    #[arg(long, env = "KIBAN_IMAGE_URL")]
    pub image_url: Option<String>,
    /// File with the certificate chain (PEM) of the image endpoint. Without one it serves http.
    #[arg(long, env = "KIBAN_IMAGE_CERTIFICATE", requires = "image_key")]
    pub image_certificate: Option<PathBuf>,
    /// File with the private key (PEM) of the image endpoint.
    #[arg(long, env = "KIBAN_IMAGE_KEY")]
    pub image_key: Option<PathBuf>,

    /// Folder for what can be had again: fetched repositories, images, inventories on their way to the ledger.
    #[arg(long, env = "KIBAN_CACHE_DIR", default_value = "/var/cache/kiban")]
    pub cache_dir: PathBuf,
    /// Allow `file://` repositories: for tests and the demo.
    #[arg(long, env = "KIBAN_ALLOW_FILE_REPOSITORIES")]
    pub allow_file_repositories: bool,
    /// Allow `file://` images: for tests and the demo.
    #[arg(long, env = "KIBAN_ALLOW_FILE_IMAGES")]
    pub allow_file_images: bool,
    /// Hosts that images may be fetched from, separated by commas: `downloads.example`, `*.example`. Default: none.
    #[arg(long, env = "KIBAN_IMAGE_HOSTS", value_delimiter = ',')]
    pub image_hosts: Vec<String>,
    /// Name of the Secret whose `token` signs calls of the webhook. Default: unsigned calls are taken; all a call can do
    /// is to make the operator look.
    #[arg(long, env = "KIBAN_WEBHOOK_SECRET")]
    pub webhook_secret: Option<String>,

    /// How long a Lease lasts that is not renewed.
    #[arg(long, env = "KIBAN_LEASE_DURATION", default_value = "15s", value_parser = duration)]
    pub lease_duration: Duration,
    /// How often a Lease is renewed, and looked at by those who do not hold it.
    #[arg(long, env = "KIBAN_LEASE_RENEW", default_value = "5s", value_parser = duration)]
    pub lease_renew: Duration,
    /// How long one call to the API server may take.
    #[arg(long, env = "KIBAN_API_DEADLINE", default_value = "8s", value_parser = duration)]
    pub api_deadline: Duration,
    /// How many shards the devices are divided into. The same in every replica.
    #[arg(long, env = "KIBAN_SHARDS", default_value_t = 16)]
    pub shards: u32,

    /// How long changes are gathered before a plan is made.
    #[arg(long, env = "KIBAN_PLAN_DEBOUNCE", default_value = "100ms", value_parser = duration)]
    pub plan_debounce: Duration,
    /// At least this often a plan is made even when nothing changed.
    #[arg(long, env = "KIBAN_PLAN_INTERVAL", default_value = "60s", value_parser = duration)]
    pub plan_interval: Duration,
    /// Shortest time between two writes of what a device waits on, and of a pool's or baseline's figures.
    #[arg(long, env = "KIBAN_STATUS_INTERVAL", default_value = "60s", value_parser = duration)]
    pub status_interval: Duration,
    /// Shortest time between two writes of a pool's, baseline's or rollout's figures.
    #[arg(long, env = "KIBAN_SUMMARY_INTERVAL", default_value = "3s", value_parser = duration)]
    pub summary_interval: Duration,

    /// How often `file://` repositories are looked at.
    #[arg(long, env = "KIBAN_FILE_POLL", default_value = "1s", value_parser = duration)]
    pub file_poll: Duration,
    /// How long one Git fetch or push may take.
    #[arg(long, env = "KIBAN_GIT_DEADLINE", default_value = "60s", value_parser = duration)]
    pub git_deadline: Duration,
    /// How many objects of a commit are applied at once.
    #[arg(long, env = "KIBAN_APPLY_CONCURRENCY", default_value_t = 16)]
    pub apply_concurrency: usize,

    /// How long outcomes are gathered before a ledger commit.
    #[arg(long, env = "KIBAN_LEDGER_INTERVAL", default_value = "5s", value_parser = duration)]
    pub ledger_interval: Duration,
    /// Most records in one ledger commit.
    #[arg(long, env = "KIBAN_LEDGER_BATCH", default_value_t = 1000)]
    pub ledger_batch: usize,

    /// How often a device's inventory is read, instead of what FleetPolicy says.
    #[arg(long, env = "KIBAN_READ_INTERVAL", value_parser = duration)]
    pub read_interval: Option<Duration>,
    /// How often a BMC's task is asked for.
    #[arg(long, env = "KIBAN_TASK_POLL", default_value = "5s", value_parser = duration)]
    pub task_poll: Duration,
    /// How long one request to a BMC may take. Less than a Lease lasts.
    #[arg(long, env = "KIBAN_BMC_DEADLINE", default_value = "30s", value_parser = duration)]
    pub bmc_deadline: Duration,
    /// How long connecting to a BMC may take.
    #[arg(long, env = "KIBAN_BMC_CONNECT_DEADLINE", default_value = "10s", value_parser = duration)]
    pub bmc_connect_deadline: Duration,
    /// How long sending an image to a BMC may take: the largest are hundreds of MiB over slow links.
    #[arg(long, env = "KIBAN_UPLOAD_DEADLINE", default_value = "15m", value_parser = duration)]
    pub upload_deadline: Duration,
    /// How long a BMC has to come back after a reset.
    #[arg(long, env = "KIBAN_RETURN_DEADLINE", default_value = "30m", value_parser = duration)]
    pub return_deadline: Duration,
    /// How long an update may take in all.
    #[arg(long, env = "KIBAN_UPDATE_DEADLINE", default_value = "3h", value_parser = duration)]
    pub update_deadline: Duration,
    /// How long a BMC is left alone after a reset before it is believed.
    #[arg(long, env = "KIBAN_SETTLE", default_value = "30s", value_parser = duration)]
    pub settle: Duration,
    /// How many readings in a row must agree before a version is believed.
    #[arg(long, env = "KIBAN_STABLE_READS", default_value_t = 2)]
    pub stable_reads: u32,
    /// How far apart those readings are.
    #[arg(long, env = "KIBAN_STABLE_READ_INTERVAL", default_value = "10s", value_parser = duration)]
    pub stable_read_interval: Duration,
    /// Shortest time between two writes of an operation's progress.
    #[arg(long, env = "KIBAN_PROGRESS_INTERVAL", default_value = "30s", value_parser = duration)]
    pub progress_interval: Duration,
    /// Most devices that this replica works on at once, whatever FleetPolicy allows.
    #[arg(long, env = "KIBAN_MAX_CONCURRENT", default_value_t = 256)]
    pub max_concurrent: usize,

    /// How long a watch lives before it is asked for anew. A silently dead one is noticed by then.
    #[arg(long, env = "KIBAN_WATCH_TIMEOUT", default_value = "280s", value_parser = duration)]
    pub watch_timeout: Duration,
    /// How often every kind is listed in full and compared with what the watch told.
    #[arg(long, env = "KIBAN_RELIST_INTERVAL", default_value = "30m", value_parser = duration)]
    pub relist_interval: Duration,
    /// A watch that has been failing for this long stops the replica from acting, and `/readyz` says so.
    #[arg(long, env = "KIBAN_WATCH_STALE", default_value = "60s", value_parser = duration)]
    pub watch_stale: Duration,
    /// How long what is under way may take to end after the signal to stop.
    #[arg(long, env = "KIBAN_SHUTDOWN_DEADLINE", default_value = "20s", value_parser = duration)]
    pub shutdown_deadline: Duration,
    /// How logs are written.
    #[arg(long, env = "KIBAN_LOG_FORMAT", default_value = "json")]
    pub log_format: LogFormat,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For a terminal.
    Text,
}

/// Flags that contradict each other.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A Lease would lapse between two renewals.
    #[error(
        "use --lease-renew {renew:?} with --lease-duration {duration:?}: it must be at most a third of it"
    )]
    RenewTooSlow {
        /// As given.
        renew: Duration,
        /// As given.
        duration: Duration,
    },
    /// A write could arrive after the Lease has lapsed.
    #[error("use --api-deadline {deadline:?} with --lease-duration {duration:?}: it must be shorter")]
    DeadlineTooLong {
        /// As given.
        deadline: Duration,
        /// As given.
        duration: Duration,
    },
    /// Nobody would own any device.
    #[error("use --shards 0: at least 1 is wanted")]
    NoShards,
}

impl Config {
    /// Checks what the flags say together.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.lease_renew * 3 > self.lease_duration {
            return Err(ConfigError::RenewTooSlow {
                renew: self.lease_renew,
                duration: self.lease_duration,
            });
        }
        if self.api_deadline >= self.lease_duration {
            return Err(ConfigError::DeadlineTooLong {
                deadline: self.api_deadline,
                duration: self.lease_duration,
            });
        }
        if self.shards == 0 {
            return Err(ConfigError::NoShards);
        }
        Ok(())
    }
}

/// Reads `100ms`, `5s`, `1h 30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text
        .trim()
        .parse()
        .map_err(|e| format!("read {text:?} as a duration: {e}"))?;
    Duration::try_from(parsed).map_err(|_| format!("read {text:?} as a duration: it must not be negative"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn the_defaults_fit_together() {
        let config = Config::parse_from(["kiban-operator"]);
        assert_eq!(config.check(), Ok(()));
        assert_eq!(config.plan_debounce, Duration::from_millis(100));
    }

    #[test]
    fn contradictions_are_refused() {
        let config = Config::parse_from(["kiban-operator", "--lease-duration", "9s"]);
        assert!(matches!(config.check(), Err(ConfigError::RenewTooSlow { .. })));
        let config = Config::parse_from(["kiban-operator", "--api-deadline", "15s"]);
        assert!(matches!(config.check(), Err(ConfigError::DeadlineTooLong { .. })));
        let config = Config::parse_from(["kiban-operator", "--shards", "0"]);
        assert_eq!(config.check(), Err(ConfigError::NoShards));
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        for bad in ["5", "-1h", "", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
