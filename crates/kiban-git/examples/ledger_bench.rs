//! How fast the ledger is: `cargo run --release -p kiban-git --example ledger_bench [records ...]`.
//!
//! A record is one operation file and its device's file. At each size of the ledger, pushes as the operator makes them are
//! timed: 1,000 records in five commits of 200. The way from one size to the next is made of larger commits, untimed.
//! `file` is a bare repository on this disk: our work and libgit2's, and no network. `ssh` is OpenSSH's sshd with Git's own
//! receive-pack on this machine, so the server's work is in the figure. Each line is `what<TAB>value<TAB>aim`.
#![allow(clippy::print_stdout)] // a program that prints a table

use std::{
    error::Error,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use kiban_git::{
    Batch, Change, CommitMessage, Identity, Ledger, LedgerConfig, Remote, testserver::SshServer,
};

const DEVICES: u64 = 20_000;
/// Records of a timed commit, and commits of a timed push.
const COMMIT: u64 = 200;
const COMMITS: u64 = 5;
/// Timed pushes at each size; the median counts.
const PUSHES: usize = 7;
/// Records of an untimed commit, which is a push of its own.
const FILL: u64 = 5_000;
/// Records of one day, so that a day's folder has a size that a large fleet would give it.
const PER_DAY: u64 = 5_000;
/// Devices whose history is asked for at each size.
const ASKED: u64 = 101;

fn device_path(device: u64) -> String {
    let shard = device.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
    format!("devices/{shard:02x}/dev-{device:05}.yaml")
}

fn batch(first: u64, count: u64) -> Batch {
    let mut changes = Vec::new();
    for n in first..first + count {
        // A stride that visits every device once in each round.
        let device = n.wrapping_mul(7919) % DEVICES;
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
            path: device_path(device),
            content: format!(
                "device: dev-{device:05}\nmodel: r650\nserial: SN{device:08}\nfirmware:\n  BIOS: 1.{}.0\n  BMC: 7.00.00.174\n\
                 health: OK\nlastOperation: dev-{device:05}-{id:08x}\n",
                id % 90 + 1
            )
            .into_bytes(),
        });
    }
    let message = CommitMessage {
        subject: format!("{count} operations"),
        body: String::new(),
        trailers: vec![("Desired".to_owned(), format!("{first:040x}"))],
    };
    Batch {
        changes,
        message,
        time: jiff::Timestamp::from_second(1_767_225_600 + first as i64 / 5).unwrap_or_default(),
    }
}

fn open(dir: &Path, cache: &str, remote: Remote) -> Result<Ledger, Box<dyn Error>> {
    let author = Identity {
        name: "Kiban".to_owned(),
        email: "kiban@example.org".to_owned(),
    };
    let config = LedgerConfig {
        remote,
        author,
        signing_key: None,
    };
    Ok(Ledger::open(&dir.join(cache), config, None)?)
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Brings the ledger from `done` records to about `size`.
fn fill(ledger: &mut Ledger, done: &mut u64, size: u64) -> Result<(), Box<dyn Error>> {
    while *done < size {
        let count = FILL.min(size - *done);
        ledger.append(&[batch(*done, count)], later())?;
        *done += count;
    }
    Ok(())
}

/// Processor seconds of this process so far, where the system tells them: fields 14 and 15 of `/proc/self/stat`, in
/// hundredths of a second (proc(5); USER_HZ is 100 on every Linux that we run on).
fn processor() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let ticks = text.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
    let ticks: Result<Vec<u64>, _> = ticks.map(str::parse).collect();
    Some(ticks.ok()?.iter().sum::<u64>() as f64 / 100.0)
}

/// The rate of pushes as the operator makes them: the median of records a second, and records a processor second, which
/// other work on the machine does not change.
fn rate(ledger: &mut Ledger, done: &mut u64) -> Result<(f64, Option<f64>), Box<dyn Error>> {
    let mut rates = Vec::new();
    let (begun, first) = (processor(), *done);
    for _ in 0..PUSHES {
        // A few milliseconds beside some hundred.
        let batches: Vec<_> = (0..COMMITS).map(|i| batch(*done + i * COMMIT, COMMIT)).collect();
        let start = Instant::now();
        ledger.append(&batches, later())?;
        rates.push((COMMIT * COMMITS) as f64 / start.elapsed().as_secs_f64());
        *done += COMMIT * COMMITS;
    }
    let spent = begun.zip(processor()).map(|(begun, now)| now - begun);
    let per_processor = spent
        .filter(|spent| *spent > 0.0)
        .map(|spent| (*done - first) as f64 / spent);
    Ok((median(rates), per_processor))
}

/// The median time of a device's whole history, in milliseconds, and how many versions the devices have.
fn history(ledger: &Ledger) -> Result<(f64, f64), Box<dyn Error>> {
    let (mut times, mut versions) = (Vec::new(), Vec::new());
    for i in 0..ASKED {
        let path = device_path(i * 7919 % DEVICES);
        let start = Instant::now();
        let entries = ledger.history(&path, 1000)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        versions.push(entries.len() as f64);
    }
    Ok((median(times), median(versions)))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut sizes: Vec<u64> = std::env::args()
        .skip(1)
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    if sizes.is_empty() {
        sizes = vec![10_000, 50_000, 100_000];
    }
    sizes.sort_unstable();
    let dir = std::env::temp_dir().join(format!("kiban-ledger-bench-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let measured = measure(&dir, &sizes);
    fs::remove_dir_all(&dir)?;
    measured
}

fn measure(dir: &Path, sizes: &[u64]) -> Result<(), Box<dyn Error>> {
    println!("machine, cores\t{}\t", thread::available_parallelism()?);
    let bare = dir.join("remote.git");
    git2::Repository::init_bare(&bare)?;
    let remote = Remote::new(&format!("file://{}", bare.display()), "ledger", true)?;
    let mut ledger = open(dir, "cache", remote)?;
    let mut done = 0;
    for size in sizes {
        fill(&mut ledger, &mut done, *size)?;
        let (rate, per_processor) = rate(&mut ledger, &mut done)?;
        println!("ledger of {size} records, file, records/s\t{rate:.0}\t>= 1000");
        if let Some(rate) = per_processor {
            println!("ledger of {size} records, file, records/processor s\t{rate:.0}\t");
        }
        let (time, versions) = history(&ledger)?;
        println!(
            "ledger of {size} records, history of a device ({versions:.0} versions), ms\t{time:.2}\t<= 1000"
        );
    }
    let (mut bytes, mut packs) = (0, 0);
    for entry in fs::read_dir(dir.join("cache/ledger.git/objects/pack"))? {
        let entry = entry?;
        bytes += entry.metadata()?.len();
        packs += u64::from(entry.path().extension().is_some_and(|e| e == "pack"));
    }
    println!("ledger's local copy, MB\t{}\t", bytes / 1_000_000);
    println!("ledger's local copy, packs\t{packs}\t<= 50");

    let server = match SshServer::start() {
        Ok(server) => server,
        Err(e) => {
            println!("ledger over ssh, records/s\tskipped: {e}\t>= 1000");
            return Ok(());
        }
    };
    let bare = dir.join("ssh.git");
    git2::Repository::init_bare(&bare)?;
    let mut ledger = open(dir, "ssh-cache", server.remote(&bare, "ledger"))?;
    let mut done = 0;
    let size = sizes.first().copied().unwrap_or_default();
    fill(&mut ledger, &mut done, size)?;
    let (rate, _) = rate(&mut ledger, &mut done)?;
    println!("ledger of {size} records, ssh, records/s\t{rate:.0}\t>= 1000");
    Ok(())
}
