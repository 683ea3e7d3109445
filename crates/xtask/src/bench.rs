//! `cargo xtask bench`: runs the bench programs, optimized, and prints one table with the machine named.
//!
//! A bench program prints, among whatever else, one line of JSON per figure:
//!
//! ```json
//! {"bench": "plan, 100,000 devices", "value": 31.4, "unit": "ms", "n": 15, "aim": 50, "better": "less"}
//! ```
//!
//! `value` is the median of `n` repetitions (1 where it is not said). `aim` and `better` (`less`, the default, or `more`) are optional. A program
//! without JSON at hand may print `what, unit<TAB>value<TAB><= aim` instead.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use serde::Deserialize;

use crate::{
    say,
    workspace::{self, Metadata},
};

/// Which benches to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which to run. Default: all.
    benches: Vec<Bench>,
    /// A smoke run: small fleets, few repetitions. It shows that the benches run; its figures say nothing.
    #[arg(long)]
    quick: bool,
    /// Fail if a figure misses its aim.
    #[arg(long)]
    strict: bool,
}

/// A bench program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Bench {
    /// The planner, alone: 100,000 and 1,000,000 devices.
    Plan,
    /// The ledger, alone: records into a bare repository on this disk.
    Ledger,
    /// A whole Kiban: a real control plane, the operator's own binary, 200 and 1,000 emulated BMCs.
    Fleet,
}

impl Bench {
    const ALL: [Self; 3] = [Self::Plan, Self::Ledger, Self::Fleet];

    /// What it measures and how long that takes, for the one who waits.
    fn describe(self) -> &'static str {
        match self {
            Self::Plan => "plan: 100,000 and 1,000,000 devices in 500 pools (a minute)",
            Self::Ledger => "ledger: 100,000 records, in batches, into a bare repository (a minute or two)",
            Self::Fleet => {
                "fleet: 200 and 1,000 emulated BMCs, enrolled and updated; 100 commits (half an hour)"
            }
        }
    }

    /// What cargo is told to run, after the profile.
    fn program(self, quick: bool) -> Vec<&'static str> {
        let (mut arguments, smoke): (Vec<_>, &[_]) = match self {
            Self::Plan => (
                vec![
                    "bench",
                    "--quiet",
                    "--package",
                    "kiban-core",
                    "--bench",
                    "plan",
                    "--",
                ],
                &["10000"],
            ),
            Self::Ledger => (
                vec![
                    "run",
                    "--quiet",
                    "--release",
                    "--package",
                    "kiban-git",
                    "--example",
                    "ledger_bench",
                    "--",
                ],
                &["4000", "2000"],
            ),
            Self::Fleet => (
                vec![
                    "run",
                    "--quiet",
                    "--release",
                    "--package",
                    "kiban-lab",
                    "--bin",
                    "kiban-bench",
                    "--",
                ],
                &["--quick"],
            ),
        };
        if quick {
            arguments.extend(smoke);
        }
        arguments
    }
}

/// One measured figure.
#[derive(Debug, Deserialize)]
struct Figure {
    bench: String,
    value: f64,
    unit: String,
    #[serde(default = "once")]
    n: usize,
    aim: Option<f64>,
    #[serde(default)]
    better: Better,
}

fn once() -> usize {
    1
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Better {
    #[default]
    Less,
    More,
}

impl Figure {
    /// Reads a line that a bench printed; None where it is no figure.
    fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok().or_else(|| Self::from_tabs(line))
    }

    fn from_tabs(line: &str) -> Option<Self> {
        let mut parts = line.split('\t').map(str::trim);
        let (what, measured) = (parts.next()?, parts.next()?);
        let (value, unit) = quantity(measured)?;
        // The unit stands after the value, or after the last comma of what is measured.
        let (bench, unit) = match what.rsplit_once(", ") {
            Some((bench, last)) if unit.is_empty() => (bench, last),
            _ => (what, unit.as_str()),
        };
        let aim = parts.next().unwrap_or_default();
        let bound = aim.trim_start_matches(['≥', '≤', '>', '<', '=', ' ']);
        Some(Self {
            bench: bench.to_owned(),
            value,
            unit: unit.to_owned(),
            n: 1,
            aim: quantity(bound).map(|(value, _)| value),
            better: if aim.starts_with(['≥', '>']) {
                Better::More
            } else {
                Better::Less
            },
        })
    }

    /// Whether the aim is met; `None` where there is none.
    fn met(&self) -> Option<bool> {
        self.aim.map(|aim| match self.better {
            Better::Less => self.value <= aim,
            Better::More => self.value >= aim,
        })
    }
}

/// `1,234.5 ms` as number and unit.
fn quantity(text: &str) -> Option<(f64, String)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.replace(',', "").parse().ok()?, unit.trim().to_owned()))
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let metadata = Metadata::read()?;
    let wanted: Vec<Bench> = Bench::ALL
        .into_iter()
        .filter(|bench| args.benches.is_empty() || args.benches.contains(bench))
        .collect();
    if wanted.contains(&Bench::Fleet) {
        say("building the operator and the command line, optimized");
        let built = workspace::cargo()
            .args(["build", "--release", "--bins"])
            .args([
                "--package",
                "kiban-operator",
                "--package",
                "kiban-cli",
                "--package",
                "kiban-lab",
            ])
            .status()?;
        ensure!(built.success(), "what is measured does not build");
    }
    let bin_dir = metadata.target_directory.join("release");
    let mut figures = Vec::new();
    let mut failed = Vec::new();
    for (index, bench) in wanted.iter().enumerate() {
        let quick = if args.quick {
            "; quick, its figures say nothing"
        } else {
            ""
        };
        say(&format!(
            "bench {} of {}: {}{quick}",
            index + 1,
            wanted.len(),
            bench.describe()
        ));
        if !measure(*bench, args.quick, &bin_dir, &mut figures)? {
            failed.push(bench);
        }
    }
    println!("{}\n{}", machine(), table(&figures));
    ensure!(failed.is_empty(), "these benches failed: {failed:?}");
    let missed = figures
        .iter()
        .filter(|figure| figure.met() == Some(false))
        .count();
    Ok(if missed > 0 && args.strict {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Runs one bench and takes its figures. False where it failed.
fn measure(bench: Bench, quick: bool, bin_dir: &Path, figures: &mut Vec<Figure>) -> Result<bool> {
    let mut child = workspace::cargo()
        .args(bench.program(quick))
        .env("KIBAN_BIN_DIR", bin_dir)
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to run cargo")?;
    let before = figures.len();
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        let line = line.context("failed to read what the bench prints")?;
        match Figure::read(&line) {
            Some(figure) => figures.push(figure),
            None => eprintln!("{line}"),
        }
    }
    Ok(child.wait()?.success() && figures.len() > before)
}

fn table(figures: &[Figure]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_header(["what", "measured", "unit", "n", "aim", "met"]);
    for figure in figures {
        let sign = if figure.better == Better::More {
            '≥'
        } else {
            '≤'
        };
        let aim = figure
            .aim
            .map(|aim| format!("{sign} {}", number(aim)))
            .unwrap_or_default();
        let met = figure
            .met()
            .map(|met| if met { "yes" } else { "NO" })
            .unwrap_or_default();
        table.add_row([
            figure.bench.clone(),
            number(figure.value),
            figure.unit.clone(),
            figure.n.to_string(),
            aim,
            met.to_owned(),
        ]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Three digits that matter, and no more than are known.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The machine in a line: figures without one mean nothing.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("unknown processor");
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|line| {
        line.strip_prefix("MemTotal:")?
            .trim()
            .split(' ')
            .next()?
            .parse::<u64>()
            .ok()
    });
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let rustc = Command::new("rustc")
        .arg("--version")
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    format!(
        "{}, {cores} cores, {} GiB, {} {kernel} {}, {}",
        model.trim_start_matches([' ', '\t', ':']),
        kib.unwrap_or_default() / 1024 / 1024,
        std::env::consts::OS,
        std::env::consts::ARCH,
        String::from_utf8_lossy(&rustc).trim(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_meets_its_aim_in_its_direction() {
        let figure = |json: &str| serde_json::from_str::<Figure>(json).unwrap();
        let plan = figure(r#"{"bench": "plan", "value": 60, "unit": "ms", "aim": 50}"#);
        assert_eq!(plan.met(), Some(false));
        let ledger =
            figure(r#"{"bench": "ledger", "value": 1500, "unit": "1/s", "aim": 1000, "better": "more"}"#);
        assert_eq!(ledger.met(), Some(true));
        let free = figure(r#"{"bench": "free", "value": 0, "unit": "writes"}"#);
        assert_eq!(free.met(), None);
        let tabs = Figure::read("ledger\t5,400 records/s\t≥ 1,000").unwrap();
        assert_eq!(
            (tabs.value, tabs.unit.as_str(), tabs.met()),
            (5400.0, "records/s", Some(true))
        );
        let tabs = Figure::read("ledger over ssh, records/s\t900\t>= 1000").unwrap();
        assert_eq!(
            (tabs.bench.as_str(), tabs.unit.as_str(), tabs.met()),
            ("ledger over ssh", "records/s", Some(false))
        );
        assert!(Figure::read("ledger is being measured").is_none());
        assert!(Figure::read("ledger over ssh, records/s\tskipped: no sshd\t>= 1000").is_none());
        let printed = table(&[plan, ledger, free]).to_string();
        assert!(
            printed.contains("≤ 50") && printed.contains("≥ 1000") && printed.contains("NO"),
            "{printed}"
        );
    }
}
