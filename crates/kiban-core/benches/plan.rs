//! How long a plan takes, and how much memory a world does: medians, as lines of JSON for `cargo xtask bench plan`, and a table with more for
//! people on standard error.
//!
//! A plain program: the figures wanted are a table to compare with the aims (50 ms for 100,000 devices, 500 ms for a
//! million, 25 MB per 10,000 devices), and building a million devices for each of a harness's samples would take hours.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

#[path = "../tests/support/fleet.rs"]
mod fleet;

use fleet::{NEW, OLD, at, baseline, carry_out, model, pool};
use kiban_core::{World, amount::Amount, component::ComponentClass, facts::*, forecast, plan};
use std::time::{Duration, Instant};

const POOLS: usize = 500;
const RUNS: usize = 15;
/// Of the devices, this many are off their baseline in the state between.
const SOME: usize = 3_870;

/// A server with what a server has: BMC, BIOS, two NICs, controller, drives, PSUs, CPLD.
fn device(n: usize, version: &str) -> DeviceFacts {
    let mut firmware = fleet::firmware(version);
    let mut add = |class, name: &str, manufacturer: &str, version: &str| {
        firmware.push(FirmwareFacts {
            manufacturer: manufacturer.into(),
            ..FirmwareFacts::new(class, name, version)
        });
    };
    let maker = if n.is_multiple_of(3) {
        "Mellanox"
    } else {
        "Broadcom"
    };
    for slot in 1..=2 {
        add(ComponentClass::Nic, &format!("NIC.{slot}"), maker, "20.39.2048");
        add(ComponentClass::Psu, &format!("PSU.{slot}"), "Delta", "00.1B.53");
    }
    add(ComponentClass::StorageController, "RAID.1", "Dell", "25.5.9.0001");
    add(ComponentClass::Cpld, "CPLD", "Dell", "1.0.2");
    for bay in 0..4 {
        let drive = if (n / 7).is_multiple_of(4) { "DL63" } else { "DL65" };
        add(ComponentClass::Drive, &format!("Bay.{bay}"), "Kioxia", drive);
    }
    let mut facts = fleet::device(
        &format!("tyo-{n:07}"),
        &format!("pool-{:03}", n % POOLS),
        &format!("r{:05}", n / 40),
        version,
    );
    let uuid = format!("4c4c4544-0058-4b32-804d-{n:012}");
    if let Some(identity) = &mut facts.identity {
        identity.uuid.clone_from(&uuid);
    }
    facts.uuid = Some(uuid);
    facts.firmware = Some(firmware);
    facts
}

fn world(devices: usize, off: impl Fn(usize) -> bool) -> World {
    let mut world = World::new();
    world.upsert_model(model("r650"));
    world.upsert_baseline(baseline(NEW, "c1"));
    for n in 0..POOLS {
        world.upsert_pool(PoolFacts {
            baselines: vec!["r650-q4".into()],
            ..pool(&format!("pool-{n:03}"), Amount::Percent(5), 1)
        });
    }
    for n in 0..devices {
        world.upsert_device(&device(n, if off(n) { OLD } else { NEW }));
    }
    world
}

/// The checker goes over every plan before it is written.
fn measure_check(world: &World) -> Duration {
    let made = plan(world, at(0));
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let start = Instant::now();
            assert!(std::hint::black_box(kiban_core::check::check(world, &made)).is_empty());
            start.elapsed()
        })
        .collect();
    times.sort();
    times[2]
}

fn measure(world: &World) -> (Duration, Duration, Duration) {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            let made = std::hint::black_box(plan(world, at(0)));
            let took = start.elapsed();
            drop(made);
            took
        })
        .collect();
    times.sort();
    (times[0], times[RUNS / 2], times[RUNS - 1])
}

/// Resident memory of this process in bytes (Linux; 0 elsewhere).
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    pages * 4096
}

fn main() {
    let sizes: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let sizes = if sizes.is_empty() {
        vec![100_000, 1_000_000]
    } else {
        sizes
    };
    eprintln!(
        "{:<10} {:<44} {:>9} {:>9} {:>9} {:>9} {:>8} {:>14}",
        "devices", "state", "min ms", "median ms", "max ms", "check ms", "granted", "MB per 10,000"
    );
    for size in sizes {
        type Off = Box<dyn Fn(usize) -> bool>;
        let states: [(&str, Off); 3] = [
            ("at rest", Box::new(|_| false)),
            ("3,870 non-compliant", Box::new(move |n| n * 7_919 % size < SOME)),
            ("everything non-compliant", Box::new(|_| true)),
        ];
        for (name, off) in states {
            let before = resident();
            let mut world = world(size, off);
            let memory = resident().saturating_sub(before) as f64 / 1e6 / (size as f64 / 1e4);
            // The state that lasts: rollouts are under way, the canaries granted.
            let first = plan(&world, at(0));
            row(size, name, &world, first.operations.len(), Some(memory));
            if name == "at rest" {
                // Later worlds are built on memory that this one gave back.
                figure(
                    &format!("world, {} devices, memory per 10,000", thousands(size)),
                    memory,
                    "MB",
                    1,
                    Some(25.0),
                );
            }
            if !first.operations.is_empty() {
                carry_out(&mut world, &first);
                row(size, &format!("{name}, canaries under way"), &world, 0, None);
                forecast_row(size, name, &world);
            }
        }
    }
}

/// Measures a plan and its check, and prints both.
fn row(size: usize, state: &str, world: &World, granted: usize, memory: Option<f64>) {
    let (min, median, max) = measure(world);
    let check = measure_check(world);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    eprintln!(
        "{size:<10} {state:<44} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {granted:>8} {:>14}",
        ms(min),
        ms(median),
        ms(max),
        ms(check),
        memory.map(|memory| format!("{memory:.2}")).unwrap_or_default()
    );
    // The aims are 50 ms for 100,000 devices and 500 ms for a million.
    let aim = size as f64 / 2_000.0;
    let devices = thousands(size);
    figure(
        &format!("plan, {devices} devices in {POOLS} pools, {state}"),
        ms(median),
        "ms",
        RUNS,
        Some(aim),
    );
}

/// Measures a forecast over 90 days. The aim is 5 s for 100,000 devices.
fn forecast_row(size: usize, state: &str, world: &World) {
    let mut times: Vec<Duration> = (0..3)
        .map(|_| {
            let start = Instant::now();
            let told = std::hint::black_box(forecast::forecast(world, at(0), forecast::HORIZON));
            assert!(told.operations > 0);
            start.elapsed()
        })
        .collect();
    times.sort();
    figure(
        &format!("forecast, {} devices over 90 days, {state}", thousands(size)),
        times[1].as_secs_f64() * 1e3,
        "ms",
        3,
        (size <= 100_000).then_some(5_000.0),
    );
}

/// One line for `cargo xtask bench`.
fn figure(what: &str, value: f64, unit: &str, n: usize, aim: Option<f64>) {
    let aim = aim.map(|aim| format!(r#", "aim": {aim}"#)).unwrap_or_default();
    println!(r#"{{"bench": "{what}", "value": {value:.3}, "unit": "{unit}", "n": {n}{aim}}}"#);
}

/// 1,000,000.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
