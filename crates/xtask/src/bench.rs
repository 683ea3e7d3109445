//! `cargo xtask bench`: runs every bench program and prints one table with the machine named.
//!
//! A bench is a program under `benches/` with `harness = false`. It prints, among whatever else, one line of JSON per figure:
//!
//! ```json
//! {"bench": "plan, 100,000 devices", "value": 31.4, "unit": "ms", "aim": 50, "better": "less"}
//! ```
//!
//! `aim` and `better` (`less`, the default, or `more`) are optional. `value` is the median of the bench's own repetitions.

use std::{
    fs,
    io::{BufRead, BufReader},
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
    /// Only bench programs whose name contains this.
    name: Option<String>,
    /// Fail if a figure misses its aim.
    #[arg(long)]
    strict: bool,
}

/// One measured figure.
#[derive(Debug, Deserialize)]
struct Figure {
    bench: String,
    value: f64,
    unit: String,
    aim: Option<f64>,
    #[serde(default)]
    better: Better,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Better {
    #[default]
    Less,
    More,
}

impl Figure {
    /// Whether the aim is met; `None` where there is none.
    fn met(&self) -> Option<bool> {
        self.aim.map(|aim| match self.better {
            Better::Less => self.value <= aim,
            Better::More => self.value >= aim,
        })
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let metadata = Metadata::read()?;
    let mut benches: Vec<(&str, &str)> = Vec::new();
    for package in &metadata.packages {
        for target in package
            .targets
            .iter()
            .filter(|target| target.kind.iter().any(|kind| kind == "bench"))
        {
            if args
                .name
                .as_ref()
                .is_none_or(|part| target.name.contains(part.as_str()))
            {
                benches.push((&package.name, &target.name));
            }
        }
    }
    ensure!(!benches.is_empty(), "no bench program matches");
    say("building the programs and the benches, optimized");
    let built = workspace::cargo()
        .args(["build", "--release", "--workspace", "--bins", "--benches"])
        .status()?;
    ensure!(built.success(), "the benches do not build");

    let mut figures = Vec::new();
    let mut failed = Vec::new();
    for (index, (package, name)) in benches.iter().enumerate() {
        say(&format!(
            "bench {} of {}: {package} {name}",
            index + 1,
            benches.len()
        ));
        let bin_dir = metadata.target_directory.join("release");
        let mut child = workspace::cargo()
            .args(["bench", "--quiet", "--package", package, "--bench", name])
            .env("KIBAN_BIN_DIR", bin_dir)
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to run cargo bench")?;
        for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
            let line = line.context("failed to read what the bench prints")?;
            match serde_json::from_str::<Figure>(&line) {
                Ok(figure) => figures.push(figure),
                Err(_) => eprintln!("{line}"),
            }
        }
        if !child.wait()?.success() {
            failed.push(*name);
        }
    }
    println!("{}\n{}", machine(), table(&figures));
    ensure!(failed.is_empty(), "these benches failed: {}", failed.join(", "));
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

fn table(figures: &[Figure]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_header(["what", "measured", "unit", "aim", "met"]);
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
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let rustc = Command::new("rustc")
        .arg("--version")
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    format!(
        "{}, {cores} cores, {} GiB, {} {}, {}",
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
        let printed = table(&[plan, ledger, free]).to_string();
        assert!(
            printed.contains("≤ 50") && printed.contains("≥ 1000") && printed.contains("NO"),
            "{printed}"
        );
    }
}
