//! A fleet's objects as they are at one time, from the cluster or from a file: the ground of every answer.
//!
//! ```text
//!   cluster ──read──▶ Snapshot ◀──load── file          Fleet::of(snapshot) ──▶ World ──▶ plan
//! ```
//!
//! There is no secret in it: objects name Secrets, and nothing reads them. What only the API server needs
//! (managedFields, the last applied copy) is left out.

use crate::{
    cli::{Format, Global, SnapshotArgs},
    connect::{self, Connection},
    failure::Failure,
    output,
};
use jiff::Timestamp;
use kiban_api::{
    Approval, Device, FirmwareBaseline, FleetPolicy, FleetRepository, HardwareModel, HardwarePool, Operation,
    Rollout,
};
use kube::Resource;
use serde::{Deserialize, Serialize};
use std::{io::Read as _, path::Path, process::ExitCode};

/// What the files say that they are.
const KIND: &str = "FleetSnapshot";

/// The version of the files that this program writes and reads. A field more is no new version.
const VERSION: u32 = 1;

/// Most bytes of a file that is read: a hundred thousand devices have about 200 MB.
const MAX_BYTES: u64 = 2 << 30;

/// The annotation in which `kubectl apply` keeps a second copy of an object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// A fleet's objects at one time.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// `FleetSnapshot`.
    pub kind: String,
    /// Version of the format: 1.
    pub version: u32,
    /// When it was taken; plans made from it are made for this time.
    pub taken_at: Timestamp,
    /// The fleet: its namespace.
    pub namespace: String,
    /// Where desired state comes from.
    #[serde(default)]
    pub repositories: Vec<FleetRepository>,
    /// Policies: at most one, `fleet`.
    #[serde(default)]
    pub policies: Vec<FleetPolicy>,
    /// Models.
    #[serde(default)]
    pub models: Vec<HardwareModel>,
    /// Pools.
    #[serde(default)]
    pub pools: Vec<HardwarePool>,
    /// Baselines.
    #[serde(default)]
    pub baselines: Vec<FirmwareBaseline>,
    /// Devices, with what their BMCs said.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Rollouts.
    #[serde(default)]
    pub rollouts: Vec<Rollout>,
    /// Operations.
    #[serde(default)]
    pub operations: Vec<Operation>,
    /// Approvals.
    #[serde(default)]
    pub approvals: Vec<Approval>,
}

/// Runs the command.
pub async fn run(global: &Global, args: &SnapshotArgs) -> Result<ExitCode, Failure> {
    let connection = connect::connect(global).await?;
    let snapshot = read(&connection).await?;
    let format = if global.output == Format::Yaml {
        Format::Yaml
    } else {
        Format::Json
    };
    let text = output::structured(format, &snapshot)?.unwrap_or_default();
    match &args.file {
        None => output::print(&text),
        Some(file) => {
            std::fs::write(file, &text)
                .map_err(|error| Failure::from_error(&format!("write {}", file.display()), &error))?;
            output::note(&format!(
                "{} devices of {} at {} in {}",
                snapshot.devices.len(),
                snapshot.namespace,
                snapshot.taken_at,
                file.display()
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The fleet from a file if one is given, else from the cluster.
pub async fn take(global: &Global, file: Option<&Path>) -> Result<Snapshot, Failure> {
    match file {
        Some(file) => load(file),
        None => read(&connect::connect(global).await?).await,
    }
}

/// Reads everything from the cluster.
pub async fn read(connection: &Connection) -> Result<Snapshot, Failure> {
    let (repositories, policies, models, pools, baselines, devices, rollouts, operations, approvals) = futures::try_join!(
        connection.list::<FleetRepository>(),
        connection.list::<FleetPolicy>(),
        connection.list::<HardwareModel>(),
        connection.list::<HardwarePool>(),
        connection.list::<FirmwareBaseline>(),
        connection.list::<Device>(),
        connection.list::<Rollout>(),
        connection.list::<Operation>(),
        connection.list::<Approval>(),
    )?;
    Ok(Snapshot {
        kind: KIND.into(),
        version: VERSION,
        taken_at: whole_second(Timestamp::now()),
        namespace: connection.namespace.clone(),
        repositories: lean(repositories),
        policies: lean(policies),
        models: lean(models),
        pools: lean(pools),
        baselines: lean(baselines),
        devices: lean(devices),
        rollouts: lean(rollouts),
        operations: lean(operations),
        approvals: lean(approvals),
    })
}

fn whole_second(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// Objects without what no answer needs.
fn lean<K: Resource>(mut objects: Vec<K>) -> Vec<K> {
    for object in &mut objects {
        let meta = object.meta_mut();
        meta.managed_fields = None;
        if let Some(annotations) = &mut meta.annotations {
            annotations.remove(LAST_APPLIED);
        }
    }
    objects
}

/// Reads a file that `kubectl kiban snapshot` wrote, JSON or YAML; `-` is standard input.
pub fn load(file: &Path) -> Result<Snapshot, Failure> {
    let tried = format!("read the snapshot {}", file.display());
    let hint = "`kubectl kiban snapshot FILE` writes one";
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(MAX_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|open| open.take(MAX_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::from_error(&tried, &error).hint(hint))?;
    parse(&text).map_err(|message| Failure::new(format!("{tried}: {message}")).hint(hint))
}

/// Only the head, which every version has.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    version: u32,
}

fn parse(text: &str) -> Result<Snapshot, String> {
    let head: Head = any(text)?;
    if head.kind != KIND {
        return Err(format!("it is no {KIND} but {:?}", head.kind));
    }
    if head.version != VERSION {
        return Err(format!(
            "it has version {} of the format; this kubectl-kiban reads version {VERSION}",
            head.version
        ));
    }
    any(text)
}

fn any<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|error| error.to_string())
    } else {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        r#"{"kind": "FleetSnapshot", "version": 1, "takenAt": "2026-11-27T10:00:00Z", "namespace": "tokyo"}"#;

    #[test]
    fn a_snapshot_is_read_back_in_both_forms() {
        let snapshot = parse(HEAD).unwrap();
        for format in [Format::Json, Format::Yaml] {
            let text = output::structured(format, &snapshot).unwrap().unwrap();
            assert_eq!(parse(&text).unwrap().taken_at, snapshot.taken_at, "{text}");
        }
    }

    #[test]
    fn another_version_and_another_file_are_named() {
        let other = HEAD.replace("\"version\": 1", "\"version\": 2");
        assert!(parse(&other).unwrap_err().contains("version 2"));
        assert!(parse("kind: Pod").unwrap_err().contains("\"Pod\""));
        assert!(parse("{").is_err());
    }

    #[test]
    fn what_only_the_api_server_needs_is_left_out() {
        let text = r#"{"apiVersion": "kiban.dev/v1alpha1", "kind": "HardwareModel",
            "metadata": {"name": "r650", "managedFields": [{}], "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"manufacturer": "Dell", "product": "PowerEdge R650"}}"#;
        let model: HardwareModel = serde_json::from_str(text).unwrap();
        let kept = lean(vec![model]);
        let meta = kept[0].meta();
        assert!(meta.managed_fields.is_none() && meta.annotations.as_ref().unwrap().is_empty());
    }
}
