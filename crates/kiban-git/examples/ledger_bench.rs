//! How fast the ledger is: `cargo run --release -p kiban-git --example ledger_bench [records] [records per push]`.
//!
//! A record is one operation file and its device's file, in batches (commits) of 200. The remote is a bare repository on
//! this disk, so what is measured is our work and libgit2's, not a network. Batches are made before the clock starts.
#![allow(clippy::print_stdout)] // a program that prints a table

use std::{
    error::Error,
    time::{Duration, Instant},
};

use kiban_git::{Batch, Change, CommitMessage, Identity, Ledger, LedgerConfig, Remote};

const DEVICES: u64 = 20_000;
const BATCH: u64 = 200;
/// Records of one day, so that a day's folder has a size that a large fleet would give it.
const PER_DAY: u64 = 5_000;

fn batch(first: u64) -> Batch {
    let mut changes = Vec::new();
    for n in first..first + BATCH {
        // A stride that visits every device once in each round.
        let device = n.wrapping_mul(7919) % DEVICES;
        let shard = device.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        let (day, id) = (n / PER_DAY, n);
        let (year, month, day) = (2026 + day / 336, 1 + day / 28 % 12, 1 + day % 28);
        changes.push(Change {
            path: format!("operations/{year}/{month:02}/{day:02}/dev-{device:05}-{id:08x}.yaml"),
            content: format!(
                "operation: dev-{device:05}-{id:08x}\ncampaign: Rollout/r650-2026q4\ncomponent: BIOS\nfrom: 1.{}.0\nto: 1.{}.0\n\
                 outcome: Succeeded\nevidence: {:064x}\nsteps: [Drain, Stage, Intent, Send, Follow, Reset, Verify, Undrain]\n",
                id % 90, id % 90 + 1, u128::from(id).wrapping_mul(0x1234_5678_9abc_def1_2345)
            )
            .into_bytes(),
        });
        changes.push(Change {
            path: format!("devices/{shard:02x}/dev-{device:05}.yaml"),
            content: format!(
                "device: dev-{device:05}\nmodel: r650\nserial: SN{device:08}\nfirmware:\n  BIOS: 1.{}.0\n  BMC: 7.00.00.174\n\
                 health: OK\nlastOperation: dev-{device:05}-{id:08x}\n",
                id % 90 + 1
            )
            .into_bytes(),
        });
    }
    let message = CommitMessage {
        subject: format!("{BATCH} operations"),
        body: String::new(),
        trailers: vec![("Desired".to_owned(), format!("{first:040x}"))],
    };
    Batch {
        changes,
        message,
        time: jiff::Timestamp::from_second(1_767_225_600 + first as i64 / 5).unwrap_or_default(),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let records: u64 = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let per_push: u64 = arguments.next().map_or(Ok(10_000), |text| text.parse())?;
    let dir = std::env::temp_dir().join(format!("kiban-ledger-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let bare = dir.join("remote.git");
    git2::Repository::init_bare(&bare)?;
    let remote = Remote::new(&format!("file://{}", bare.display()), "ledger", true)?;
    let author = Identity {
        name: "Kiban".to_owned(),
        email: "kiban@example.org".to_owned(),
    };
    let config = LedgerConfig {
        remote,
        author,
        signing_key: None,
    };
    let mut ledger = Ledger::open(&dir.join("cache"), config, None)?;
    println!(
        "{:>10} {:>12} {:>12} {:>14} {:>12}",
        "records", "records/s", "push of", "history ms", "versions"
    );
    let begun = Instant::now();
    let (mut done, mut last, mut spent) = (0, 0, Duration::ZERO);
    while done < records {
        let batches: Vec<_> = (0..per_push / BATCH).map(|i| batch(done + i * BATCH)).collect();
        let start = Instant::now();
        ledger.append(&batches, Instant::now() + Duration::from_secs(600))?;
        spent += start.elapsed();
        done += per_push;
        if done - last >= records / 10 || done >= records {
            let start = Instant::now();
            let device: u64 = 7919 % DEVICES;
            let shard = device.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
            let versions = ledger
                .history(&format!("devices/{shard:02x}/dev-{device:05}.yaml"), 1000)?
                .len();
            let history = start.elapsed();
            let rate = (done - last) as f64 / spent.as_secs_f64();
            println!(
                "{done:>10} {rate:>12.0} {per_push:>12} {:>14.1} {versions:>12}",
                history.as_secs_f64() * 1e3
            );
            last = done;
            spent = Duration::ZERO;
        }
    }
    println!(
        "{done} records in {:.1} s, the making of the batches included",
        begun.elapsed().as_secs_f64()
    );
    drop(ledger);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
