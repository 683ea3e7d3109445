//! Outside judges: DMTF's Redfish-Service-Validator and OpenStack's sushy.

use crate::{
    bmc::{SPEED, picture},
    captures::{shared, unpack},
};
use kiban_sim::{Class, Fleet, FleetSpec, Options, Persona};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The Python that `cargo xtask test` prepared, or one that lies where it would.
fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let default = root.join("target/python/bin/python");
    let python = std::env::var_os("KIBAN_PYTHON").map_or(default, PathBuf::from);
    python.is_file().then_some(python)
}

/// The CSDL schemas: a folder that is named, the shared archive, unpacked, or those inside of nv-redfish-schema.
fn schemas(scratch: &Path) -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os("KIBAN_CSDL") {
        return Some(PathBuf::from(dir)).filter(|d| d.is_dir());
    }
    if let Some(archive) = shared()
        .map(|f| f.join("redfish-csdl.tar.zst"))
        .filter(|a| a.is_file())
    {
        unpack(&archive, scratch);
        return Some(scratch.join("csdl"));
    }
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline"])
        .output()
        .ok()?;
    let metadata: Value = serde_json::from_slice(&metadata.stdout).ok()?;
    let package = metadata["packages"]
        .as_array()?
        .iter()
        .find(|p| p["name"] == "nv-redfish-schema")?;
    let manifest = PathBuf::from(package["manifest_path"].as_str()?);
    find_folder(manifest.parent()?, "ServiceRoot_v1.xml", 4)
}

fn find_folder(dir: &Path, file: &str, depth: usize) -> Option<PathBuf> {
    if dir.join(file).is_file() {
        return Some(dir.to_owned());
    }
    if depth == 0 {
        return None;
    }
    let mut folders: Vec<PathBuf> = std::fs::read_dir(dir)
        .ok()?
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.is_dir())
        .collect();
    // In order: redfish-csdl lies before the larger swordfish-csdl.
    folders.sort();
    folders.iter().find_map(|d| find_folder(d, file, depth - 1))
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dmtf_validator_finds_no_failure_in_any_persona() {
    let Some(python) = python() else {
        println!("skipped: no Python with redfish_service_validator (KIBAN_PYTHON or target/python)");
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let Some(schemas) = schemas(scratch.path()) else {
        println!("skipped: no CSDL schemas in KIBAN_CSDL, beside the repository, or in nv-redfish-schema");
        return;
    };
    let fleet = Fleet::start(FleetSpec::generate(5, &Persona::ALL), Options::fast(SPEED))
        .await
        .unwrap();
    for machine in fleet.machines() {
        // A task and pending firmware have resources of their own to judge.
        let bmc = crate::bmc::Bmc::new(&fleet, &machine);
        let persona = machine.state().persona;
        assert_eq!(
            bmc.update(persona, &picture(Class::Bios, "9.9.9")).await.status(),
            202
        );
        let logs = scratch.path().join(machine.name());
        let mut command = Command::new(python.with_file_name("rf_service_validator"));
        command
            .args([
                "-r",
                &machine.url(),
                "-u",
                "admin",
                "-p",
                "kiban-sim",
                "--authtype",
                "Basic",
                "--nooemcheck",
            ])
            .args(["--skipschema", "--schema_directory"])
            .arg(&schemas)
            .arg("--logdir")
            .arg(&logs);
        let output = run(command).await;
        let log = text(&output);
        let row = log
            .lines()
            .rev()
            .find(|l| l.starts_with('|') && l.contains(|c: char| c.is_ascii_digit()));
        let counts: Vec<u32> = row
            .unwrap_or_else(|| panic!("no verdict on {}:\n{log}", machine.name()))
            .split('|')
            .filter_map(|c| c.trim().parse().ok())
            .collect();
        let [pass, warn, fail, ..] = counts[..] else {
            panic!("a strange verdict: {counts:?}")
        };
        println!(
            "{}: {pass} passed, {warn} warnings, {fail} failed",
            machine.name()
        );
        let failures: Vec<&str> = log
            .lines()
            .filter(|l| l.contains("FAIL -") || l.contains("Error:"))
            .collect();
        assert_eq!(fail, 0, "{}: {failures:#?}", machine.name());
        assert!(pass > 400, "{}: only {pass} checks", machine.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sushy_logs_in_reads_and_updates_every_persona() {
    let Some(python) = python() else {
        println!("skipped: no Python with sushy (KIBAN_PYTHON or target/python)");
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let image = picture(Class::Nic, "45.6");
    let bytes = image.bytes.clone();
    let app = axum::Router::new().route("/nic.bin", axum::routing::get(move || async move { bytes }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/nic.bin", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    let fleet = Fleet::start(FleetSpec::generate(5, &Persona::ALL), Options::fast(SPEED))
        .await
        .unwrap();
    let ca = scratch.path().join("ca.pem");
    std::fs::write(&ca, fleet.ca_pem()).unwrap();
    for machine in fleet.machines() {
        let mut command = Command::new(&python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sushy_update.py"));
        command
            .arg(machine.url())
            .arg(&ca)
            .args(["admin", "kiban-sim", &uri]);
        let output = run(command).await;
        assert!(output.status.success(), "{}: {}", machine.name(), text(&output));
        let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
        let state = machine.state();
        assert_eq!(seen["serial"], state.serial, "{seen}");
        assert_eq!(
            (&seen["power"], &seen["drives"], &seen["adapters"]),
            (&"On".into(), &2.into(), &1.into())
        );
        for f in &state.firmware {
            if f.class != Class::Nic {
                assert!(
                    seen["firmware"]
                        .as_object()
                        .unwrap()
                        .values()
                        .any(|v| *v == f.version.as_str()),
                    "{seen}"
                );
            }
        }
        let last = seen["states"].as_array().unwrap().last().unwrap();
        // Dell reboots the host for it and may have purged the task by the next look.
        assert!(
            last == "Completed" || state.persona == Persona::Dell,
            "{}: {seen}",
            machine.name()
        );
        let flashes = fleet.record().flashes(machine.name());
        assert_eq!(
            (flashes.len(), flashes[0].digest.as_str()),
            (1, image.sha256.as_str())
        );
    }
    server.abort();
}
