//! Plays seeded worlds and reports: `cargo xtask simulate` is this, built with optimisation.

#![expect(clippy::print_stdout, reason = "a report for the person who asked for it")]

use clap::Parser;
use kiban_sim::world::{Options, Report, play};
use std::{collections::BTreeMap, process::ExitCode, time::Instant};

/// What to play.
#[derive(Debug, Parser)]
#[command(
    name = "kiban-world",
    about = "Play seeded worlds and check every invariant after every event"
)]
struct Args {
    /// How many seeds.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// One seed alone, instead.
    #[arg(long)]
    seed: Option<u64>,
    /// Machines in each world.
    #[arg(long, default_value_t = 40)]
    devices: u32,
    /// Print the whole trace.
    #[arg(long)]
    trace: bool,
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    steps: u64,
    operations: u64,
    flashes: u64,
    held: u64,
    virtual_seconds: i64,
    worst: (u32, u32),
    faults: BTreeMap<&'static str, u64>,
}

impl Sum {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.steps += report.steps;
        self.operations += report.operations;
        self.flashes += report.flashes;
        self.held += report.held;
        self.virtual_seconds += report.virtual_seconds;
        let (used, allowed) = report.worst_budget;
        if used * self.worst.1.max(1) > self.worst.0 * allowed.max(1) {
            self.worst = report.worst_budget;
        }
        for (fault, count) in &report.faults {
            *self.faults.entry(fault).or_default() += count;
        }
    }

    fn print(&self, wall: f64) {
        println!("seeds            {}", self.seeds);
        println!("steps            {}", self.steps);
        println!("operations       {}", self.operations);
        println!("flashes          {}", self.flashes);
        println!("holds            {}", self.held);
        println!("worst budget use {} of {}", self.worst.0, self.worst.1);
        println!("virtual time     {} h", self.virtual_seconds / 3600);
        println!("wall time        {wall:.1} s");
        println!("seeds/s          {:.1}", self.seeds as f64 / wall.max(0.001));
        for (fault, count) in &self.faults {
            println!("fault            {fault}: {count}");
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let (from, seeds) = args.seed.map_or((args.from, args.seeds), |seed| (seed, 1));
    let begun = Instant::now();
    let mut sum = Sum::default();
    for seed in from..from.saturating_add(seeds) {
        let report = play(Options {
            seed,
            devices: args.devices.max(1),
            trace: args.trace,
        });
        sum.add(&report);
        if args.trace || report.violation.is_some() {
            for line in &report.trace {
                println!("{line}");
            }
        }
        if let Some(violation) = &report.violation {
            println!("\nseed {seed} breaks {}: {}", violation.rule, violation.what);
            println!(
                "replay: cargo xtask simulate --seed {seed} --devices {} --trace",
                args.devices
            );
            return ExitCode::FAILURE;
        }
    }
    sum.print(begun.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}
