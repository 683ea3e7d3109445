//! `kubectl kiban history`: `git log` and `git show` of the ledger with a nicer face.

use crate::{
    cli::{Format, Global, HistoryArgs},
    connect::{self, Connection},
    failure::Failure,
    output::{self, BAD, FAINT, GOOD, STRONG, shown, span},
};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use k8s_openapi::api::core::v1::Secret;
use kiban_api::FleetRepository;
use kiban_core::history::{
    DeviceRecord, OperationRecord, TransitionRecord, device_path, operation_path, trailer,
};
use kiban_git::{CommitId, Credentials, Entry, Identity, Ledger, LedgerConfig, Remote};
use kube::{Api, ResourceExt as _};
use secrecy::SecretString;
use serde::Serialize;
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

/// How long the ledger may take to be fetched.
const FETCH: Duration = Duration::from_secs(60);

/// An operation's file lies in the folder of the day it ended, which can be before the day of the ledger's commit: as long before as the
/// ledger's remote was away. Looked for this far back.
const DAYS_BACK: i32 = 60;

/// One event of a device's life.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When it happened.
    pub at: Timestamp,
    /// What happened, in a line.
    pub what: String,
    /// Whether it went well; None for what is neither.
    pub good: Option<bool>,
    /// What wanted it, and the commit of desired state.
    pub why: String,
    /// The ledger's commit.
    pub ledger_commit: String,
    /// The operation, if it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationRecord>,
}

/// Runs the command.
pub async fn run(global: &Global, args: &HistoryArgs) -> Result<ExitCode, Failure> {
    let config = match &args.ledger {
        Some(given) => given_ledger(given, &args.ledger_branch)?,
        None => cluster_ledger(global).await?,
    };
    let args = HistoryArgsOwned {
        device: args
            .device
            .as_deref()
            .map(|device| device.strip_prefix("device/").unwrap_or(device).to_owned()),
        at: args.at.as_deref().map(parse_date).transpose()?,
        pool: args.pool.clone(),
        limit: args.limit.clamp(1, 100_000),
    };
    let format = global.output;
    let text = tokio::task::spawn_blocking(move || read(config, &args, format))
        .await
        .map_err(|error| Failure::from_error("read the ledger", &error))??;
    output::print(&text);
    Ok(ExitCode::SUCCESS)
}

struct HistoryArgsOwned {
    device: Option<String>,
    at: Option<Timestamp>,
    pool: Option<String>,
    limit: usize,
}

fn read(config: LedgerConfig, args: &HistoryArgsOwned, format: Format) -> Result<String, Failure> {
    let cache = cache_dir(config.remote.url.as_str());
    let mut ledger = Ledger::open(&cache, config, None)
        .map_err(|error| Failure::from_error("open the ledger's local copy", &error))?;
    let tip = ledger
        .fetch(Instant::now() + FETCH)
        .map_err(|error| {
            Failure::from_error("fetch the ledger", &error)
                .hint("--ledger DIR reads a clone that you have; `git clone --bare` makes one")
        })?
        .ok_or_else(|| {
            Failure::new("there is no ledger yet")
                .hint("it begins when the operator has read the first device")
        })?;
    match (&args.device, args.at) {
        (Some(device), None) => {
            let events = life(&ledger, device, tip, args.limit)?;
            if events.is_empty() {
                return Err(Failure::new(format!("the ledger knows no device {device}"))
                    .hint("`kubectl kiban history --at now` lists those it knows"));
            }
            match output::structured(format, &events)? {
                Some(text) => Ok(text),
                None => Ok(render_life(&events, format)),
            }
        }
        (device, at) => {
            let at = at.unwrap_or_else(Timestamp::now);
            let commit = ledger
                .at(at)
                .map_err(|error| Failure::from_error("look for the ledger's commit", &error))?
                .ok_or_else(|| Failure::new(format!("the ledger began after {at}")))?;
            let mut devices = devices_at(&ledger, commit, device.as_deref())?;
            if let Some(pool) = &args.pool {
                devices.retain(|record| record.pool == *pool);
            }
            match output::structured(format, &devices)? {
                Some(text) => Ok(text),
                None => Ok(render_devices(&devices, format)),
            }
        }
    }
}

/// The events of a device, the newest first.
fn life(ledger: &Ledger, device: &str, _tip: CommitId, limit: usize) -> Result<Vec<Event>, Failure> {
    let versions = ledger
        .history(&device_path(device), limit)
        .map_err(|error| Failure::from_error(&format!("read the history of {device}"), &error))?;
    let mut events = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let Some(record) = version.content.as_deref().and_then(parse::<DeviceRecord>) else {
            continue;
        };
        let before = versions
            .get(index + 1)
            .and_then(|older| older.content.as_deref())
            .and_then(parse::<DeviceRecord>);
        let mut here: Vec<Event> = Vec::new();
        let known = before
            .as_ref()
            .is_some_and(|before| before.last_operation == record.last_operation);
        if !known && let Some(operation) = find_operation(ledger, device, &record.last_operation, version) {
            here.push(operation_event(operation, version));
        }
        here.extend(
            record
                .transitions
                .iter()
                .map(|transition| transition_event(transition, version)),
        );
        if let Some(before) = &before
            && before.pool != record.pool
        {
            let what = if record.pool.is_empty() {
                format!("released from {}", before.pool)
            } else {
                format!("bound to {}", record.pool)
            };
            here.push(Event {
                at: version.time,
                what,
                good: None,
                why: why(version),
                ledger_commit: version.commit.to_string(),
                operation: None,
            });
        }
        here.sort_by_key(|event| std::cmp::Reverse(event.at));
        events.extend(here);
    }
    events.truncate(limit);
    Ok(events)
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    serde_saphyr::from_str(std::str::from_utf8(bytes).ok()?).ok()
}

fn find_operation(ledger: &Ledger, device: &str, id: &str, version: &Entry) -> Option<OperationRecord> {
    if id.is_empty() {
        return None;
    }
    (0..=DAYS_BACK).find_map(|days| {
        let day = version
            .time
            .checked_sub(jiff::SignedDuration::from_hours(24 * i64::from(days)))
            .ok()?;
        let bytes = ledger
            .read(&operation_path(device, id, day), version.commit)
            .ok()??;
        parse(&bytes)
    })
}

fn operation_event(record: OperationRecord, version: &Entry) -> Event {
    let mut what = String::new();
    for (index, update) in record.updates.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        // What was wanted tells more of a failure than that the version stayed.
        let done = update.outcome == "Succeeded" && !update.before.is_empty() && !update.after.is_empty();
        let (before, after) = if done {
            (&update.before, &update.after)
        } else {
            (&update.from, &update.to)
        };
        let _ = write!(what, "{separator}{} {before} → {after}", update.class);
        if record.updates.len() > 1 && !update.outcome.is_empty() && update.outcome != record.outcome {
            let _ = write!(what, " ({})", update.outcome);
        }
    }
    let good = record.outcome == "Succeeded";
    if !good {
        let _ = write!(
            what,
            "  {} ({}): {}",
            record.outcome.to_lowercase(),
            record.reason,
            record.message
        );
    }
    let mut why = record.campaign.clone();
    let _ = write!(why, " wave {}", record.wave);
    if !record.commit.is_empty() {
        let _ = write!(
            why,
            " · commit {}",
            record.commit.get(..7).unwrap_or(&record.commit)
        );
    }
    if let Some(started) = record.started_at {
        let _ = write!(
            why,
            " · {}",
            span(record.finished_at.as_second() - started.as_second())
        );
    }
    if record.resets > 0 {
        let _ = write!(
            why,
            " · {} reset{}",
            record.resets,
            if record.resets == 1 { "" } else { "s" }
        );
    }
    Event {
        at: record.finished_at,
        what,
        good: Some(good),
        why,
        ledger_commit: version.commit.to_string(),
        operation: Some(record),
    }
}

fn transition_event(transition: &TransitionRecord, version: &Entry) -> Event {
    Event {
        at: transition.at,
        what: transition.message.clone(),
        good: None,
        why: transition.reason.clone(),
        ledger_commit: version.commit.to_string(),
        operation: None,
    }
}

fn why(version: &Entry) -> String {
    let value = |key: &str| {
        version
            .trailers
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.clone())
    };
    match value(trailer::DESIRED) {
        Some(commit) => format!("commit {}", commit.get(..7).unwrap_or(&commit)),
        None => String::new(),
    }
}

fn devices_at(ledger: &Ledger, commit: CommitId, device: Option<&str>) -> Result<Vec<DeviceRecord>, Failure> {
    let fail = |error| Failure::from_error("read the ledger", &error);
    if let Some(device) = device {
        let bytes = ledger
            .read(&device_path(device), commit)
            .map_err(fail)?
            .ok_or_else(|| Failure::new(format!("the ledger knew no device {device} then")))?;
        return parse(&bytes).map(|record| vec![record]).ok_or_else(|| {
            Failure::new(format!(
                "{} at {commit} is not a device's record",
                device_path(device)
            ))
        });
    }
    let mut devices = Vec::new();
    for folder in ledger.list("devices", commit).map_err(fail)? {
        let folder = format!("devices/{}", folder.trim_end_matches('/'));
        for file in ledger.list(&folder, commit).map_err(fail)? {
            let Some(bytes) = ledger.read(&format!("{folder}/{file}"), commit).map_err(fail)? else {
                continue;
            };
            // One broken file must not hide the others; Git still has it for whoever wonders.
            devices.extend(parse::<DeviceRecord>(&bytes));
        }
    }
    devices.sort_by(|a, b| a.device.cmp(&b.device));
    Ok(devices)
}

fn render_life(events: &[Event], format: Format) -> String {
    let zone = TimeZone::system();
    let mut text = String::new();
    for event in events {
        let at = event
            .at
            .to_zoned(zone.clone())
            .strftime("%Y-%m-%d %H:%M")
            .to_string();
        let style = match event.good {
            Some(true) => GOOD,
            Some(false) => BAD,
            None => STRONG,
        };
        let _ = write!(
            text,
            "{FAINT}{at}{FAINT:#}  {style}{}{style:#}   {}",
            shown(&event.what),
            shown(&event.why)
        );
        if format == Format::Wide {
            let _ = write!(
                text,
                " · ledger {}",
                &event.ledger_commit[..7.min(event.ledger_commit.len())]
            );
        }
        text.push('\n');
    }
    text
}

fn render_devices(devices: &[DeviceRecord], format: Format) -> String {
    let firmware = |record: &DeviceRecord, class: &str| {
        let mut versions: Vec<&str> = record
            .firmware
            .iter()
            .filter(|f| f.class == class)
            .map(|f| f.version.as_str())
            .collect();
        versions.dedup();
        versions.join(" ")
    };
    if format == Format::Name {
        return devices.iter().fold(String::new(), |mut text, record| {
            let _ = writeln!(text, "device/{}", shown(&record.device));
            text
        });
    }
    let header = [
        "DEVICE",
        "POOL",
        "MODEL",
        "SERIAL",
        "HEALTH",
        "COMPLIANCE",
        "BMC",
        "BIOS",
        "NIC",
    ];
    let rows: Vec<Vec<String>> = devices
        .iter()
        .map(|record| {
            vec![
                record.device.clone(),
                record.pool.clone(),
                record.model.clone(),
                record.serial.clone(),
                record.health.clone(),
                record.compliance.clone(),
                firmware(record, "BMC"),
                firmware(record, "BIOS"),
                firmware(record, "NIC"),
            ]
        })
        .collect();
    if format == Format::Csv {
        return output::csv(
            &header.map(str::to_lowercase).each_ref().map(String::as_str),
            &rows,
        );
    }
    output::table(&header, &rows)
}

/// The end of a day in the reader's own time zone, or a point in time.
fn parse_date(text: &str) -> Result<Timestamp, Failure> {
    if text == "now" {
        return Ok(Timestamp::now());
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let date: Date = text.parse().map_err(|error| {
        Failure::from_error(&format!("read {text:?} as a date"), &error)
            .hint("2026-10-01, or 2026-10-01T12:00:00Z, or now")
    })?;
    date.at(23, 59, 59, 0)
        .to_zoned(TimeZone::system())
        .map(|zoned| zoned.timestamp())
        .map_err(|error| Failure::from_error(&format!("read {text:?} as a date"), &error))
}

fn given_ledger(given: &str, branch: &str) -> Result<LedgerConfig, Failure> {
    let folder = Path::new(given);
    let url = if folder.is_dir() {
        let folder = folder
            .canonicalize()
            .map_err(|error| Failure::from_error(&format!("find {}", folder.display()), &error))?;
        format!("file://{}", folder.display())
    } else {
        given.to_owned()
    };
    let remote = Remote::new(&url, branch, true).map_err(|error| {
        Failure::from_error("use --ledger", &error)
            .hint("a folder with a Git repository, or https://…, or ssh://…")
    })?;
    Ok(reading(remote))
}

/// We never write, so whose name commits would carry does not matter.
fn reading(remote: Remote) -> LedgerConfig {
    LedgerConfig {
        remote,
        author: Identity {
            name: "kubectl-kiban".into(),
            email: "kubectl-kiban@localhost".into(),
        },
        signing_key: None,
    }
}

/// The ledger that the fleet's `FleetRepository` names, with its own credentials as far as the user may read them.
async fn cluster_ledger(global: &Global) -> Result<LedgerConfig, Failure> {
    let connection = connect::connect(global).await?;
    let repositories = connection.list::<FleetRepository>().await?;
    let Some(repository) = repositories.first() else {
        return Err(Failure::new(format!(
            "namespace {} has no FleetRepository",
            connection.namespace
        ))
        .hint("choose the fleet with -n, or give --ledger REPOSITORY"));
    };
    let ledger = &repository.spec.ledger;
    let url = ledger.url.as_ref().unwrap_or(&repository.spec.url);
    let mut remote = Remote::new(url, &ledger.branch, true).map_err(|error| {
        Failure::from_error(&format!("use the ledger of {}", repository.name_any()), &error)
    })?;
    if let Some(reference) = ledger
        .credentials
        .as_ref()
        .or(repository.spec.credentials.as_ref())
    {
        fill_credentials(&connection, &reference.name, &mut remote).await?;
    }
    Ok(reading(remote))
}

async fn fill_credentials(connection: &Connection, name: &str, remote: &mut Remote) -> Result<(), Failure> {
    let secrets: Api<Secret> = Api::namespaced(connection.client.clone(), &connection.namespace);
    let secret = secrets.get(name).await.map_err(|error| match &error {
        kube::Error::Api(status) if status.code == 403 => Failure::new(format!(
            "you may not read Secret {name}, which holds the ledger's credentials"
        ))
        .hint("clone the ledger with your own, and give the clone with --ledger DIR"),
        other => Failure::from_error(&format!("read Secret {name}"), other),
    })?;
    let text = |key: &str| {
        secret
            .data
            .as_ref()
            .and_then(|data| data.get(key))
            .and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
    };
    remote.known_hosts = text("known_hosts");
    remote.ca = text("ca.crt");
    if let Some(private_key) = text("identity") {
        remote.credentials = Credentials::SshKey {
            username: "git".into(),
            private_key: SecretString::from(private_key),
            passphrase: text("passphrase").map(SecretString::from),
        };
    } else if let (Some(username), Some(password)) = (text("username"), text("password")) {
        remote.credentials = Credentials::UserPassword {
            username,
            password: SecretString::from(password),
        };
    }
    Ok(())
}

/// A folder per ledger, so that the next look only fetches what is new.
fn cache_dir(url: &str) -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_else(std::env::temp_dir);
    // FNV-1a: a name for a folder, nothing that anyone could gain by guessing.
    let hash = url.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    });
    base.join("kiban").join(format!("ledger-{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days_or_points_in_time() {
        assert_eq!(
            parse_date("2026-10-01T12:00:00Z").unwrap(),
            "2026-10-01T12:00:00Z".parse().unwrap()
        );
        let end = parse_date("2026-10-01").unwrap().to_zoned(TimeZone::system());
        assert_eq!(
            (end.date().to_string().as_str(), end.hour(), end.second()),
            ("2026-10-01", 23, 59)
        );
        assert!(parse_date("yesterday").unwrap_err().hint.is_some());
    }
}
