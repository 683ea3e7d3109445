//! What can be typed.

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;

/// See why each machine of a fleet runs what it runs, what it waits on, and how it came to this.
///
/// Run it as `kubectl kiban`. It reads with your own rights and changes nothing: desired state is changed by a commit.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-kiban",
    bin_name = "kubectl kiban",
    version,
    max_term_width = 100
)]
pub struct Cli {
    /// Where the cluster is and how to print.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where the cluster is and how to print.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Kubeconfig file. Default: $KUBECONFIG, else ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// The fleet: its namespace. Default: the context's.
    #[arg(short = 'n', long, global = true, value_name = "NAME")]
    pub namespace: Option<String>,
    /// How to print. JSON and YAML hold the same facts as the table.
    #[arg(
        short = 'o',
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub output: Format,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For reading.
    Table,
    /// For reading, with everything.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Names only, as `kind/name`.
    Name,
    /// Comma-separated values, where the answer is a list.
    Csv,
    /// Markdown, for a pull request.
    Markdown,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The fleet at a glance: what is applied, what complies, what moves, what waits and why
    Status(StatusArgs),
    /// Why one device is where it is, what it waits on, and what comes next
    Explain(ExplainArgs),
    /// How a device came to this, from the ledger; or what the fleet ran on a day
    History(HistoryArgs),
    /// What a commit would do: machines, reboots, waves, what waits, what breaks a rule
    Plan(PlanArgs),
    /// When each wave and the whole would be done: the plan played on a virtual clock
    Forecast(ForecastArgs),
    /// How one rollout stands, and the change to commit that resumes it
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// Check every safety rule over the fleet and its plan once more, apart from the planner
    Check(CheckArgs),
    /// Write the fleet's objects to a file, to plan and explain offline. There is no secret in it
    Snapshot(SnapshotArgs),
    /// Check a folder of fleet YAML offline, every error at once
    Validate(ValidateArgs),
    /// Ask one BMC who it is and what firmware it runs
    Probe(ProbeArgs),
    /// Print the reference page of all commands
    #[command(hide = true)]
    Reference,
    /// Print what may follow the words typed so far, as kubectl asks a plugin
    #[command(hide = true)]
    Complete {
        /// The words, the one to complete last.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Print a shell completion script
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// Where the fleet's facts come from.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// Read the fleet from this file (see `snapshot`) instead of the cluster; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub snapshot: Option<PathBuf>,
}

/// `status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Where the facts come from.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Stay, and redraw when something changes. Ctrl-C ends it.
    #[arg(short, long, conflicts_with = "snapshot")]
    pub watch: bool,
}

/// `explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The device: `device/NAME`, or just its name.
    #[arg(value_name = "DEVICE")]
    pub device: String,
    /// Where the facts come from.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `plan`
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The fleet repository's work tree, or the folder in it that holds the fleet.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub repo: PathBuf,
    /// Compare with the files at this revision instead of what is applied. Example: origin/main
    #[arg(long, value_name = "REV")]
    pub base: Option<String>,
    /// The FleetRepository that the folder is the work tree of, where the fleet has several.
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
    /// Where the facts come from.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `forecast`
#[derive(Debug, Args)]
pub struct ForecastArgs {
    /// Forecast with the files of this work tree instead of what is applied.
    #[arg(long, value_name = "DIR")]
    pub repo: Option<PathBuf>,
    /// The FleetRepository that the folder is the work tree of, where the fleet has several.
    #[arg(long, value_name = "NAME", requires = "repo")]
    pub repository: Option<String>,
    /// How many days to look ahead.
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub days: u16,
    /// Where the facts come from.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `rollout`
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Its waves, progress, soak, why it is halted, and when it would be done
    Status(RolloutStatusArgs),
    /// Show, or make in a work tree, the change to commit that resumes a halted rollout and tries again what failed
    #[command(visible_alias = "resume")]
    Retry(RolloutRetryArgs),
}

/// `rollout status`
#[derive(Debug, Args)]
pub struct RolloutStatusArgs {
    /// The rollout. Example: hosting-r650-2026q4
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Stay, and redraw when something changes. Ctrl-C ends it.
    #[arg(short, long, conflicts_with = "snapshot")]
    pub watch: bool,
    /// Where the facts come from.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `rollout retry`
#[derive(Debug, Args)]
pub struct RolloutRetryArgs {
    /// The rollout. Example: hosting-r650-2026q4
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Make the change in this work tree; comments and order stay. Nothing is committed.
    #[arg(long, value_name = "DIR")]
    pub repo: Option<PathBuf>,
    /// Where the facts come from.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Where the facts come from.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `snapshot`
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// The file to write. Default: standard output.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `history`
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The device: `device/NAME`, or just its name. Not given: `--at` is needed.
    #[arg(value_name = "DEVICE", required_unless_present = "at")]
    pub device: Option<String>,
    /// What ran at the end of this day (`2026-10-01`) or at this time (`2026-10-01T12:00:00Z`).
    #[arg(long, value_name = "DATE")]
    pub at: Option<String>,
    /// Only devices of this pool (with --at).
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
    /// A ledger repository to read instead of the cluster's: a folder, or an address.
    #[arg(long, value_name = "REPOSITORY", env = "KIBAN_LEDGER")]
    pub ledger: Option<String>,
    /// The ledger's branch.
    #[arg(long, value_name = "NAME", default_value = "ledger")]
    pub ledger_branch: String,
    /// At most this many entries, newest first.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
}

/// `validate`
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// The folder.
    #[arg(value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
}

/// `probe`
#[derive(Debug, Args)]
pub struct ProbeArgs {
    /// The BMC's address. Example: https://10.20.3.41
    #[arg(value_name = "URL")]
    pub url: String,
    /// The account's name.
    #[arg(short, long, value_name = "NAME", env = "KIBAN_BMC_USERNAME")]
    pub username: String,
    /// Read the password from standard input. Otherwise it is taken from $KIBAN_BMC_PASSWORD.
    #[arg(long)]
    pub password_stdin: bool,
    /// Trust certificates that this authority signed (a PEM file).
    #[arg(long, value_name = "FILE", group = "trust")]
    pub ca: Option<PathBuf>,
    /// Trust exactly the certificate with this SHA-256 (64 hex digits).
    #[arg(long, value_name = "SHA256", group = "trust")]
    pub fingerprint: Option<String>,
    /// Trust what is there now, and print its fingerprint to commit.
    #[arg(long, group = "trust")]
    pub first_use: bool,
    /// Print a Device to commit instead: `kubectl kiban probe … --device > devices/NAME.yaml`.
    #[arg(long)]
    pub device: bool,
    /// The Device's name (with --device). Default: the serial number, in lower case.
    #[arg(long, value_name = "NAME", requires = "device")]
    pub name: Option<String>,
    /// The Device's HardwareModel (with --device). Default: made from the model that the BMC reports.
    #[arg(long, value_name = "NAME", requires = "device")]
    pub model: Option<String>,
    /// The Secret with the BMC's account (with --device).
    #[arg(long, value_name = "NAME", requires = "device", default_value = "bmc")]
    pub credentials: String,
}
