//! Captured trees are served as they are.

use kiban_sim::Mockup;
use reqwest::{Certificate, Client};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The shared fixtures beside the repository, if they are there.
pub(crate) fn shared() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let dir = std::env::var_os("KIBAN_SHARED").map_or(default, PathBuf::from);
    dir.join("fixtures").is_dir().then(|| dir.join("fixtures"))
}

pub(crate) fn unpack(archive: &Path, into: &Path) {
    let done = Command::new("tar")
        .arg("--zstd")
        .arg("-xf")
        .arg(archive)
        .arg("-C")
        .arg(into)
        .status()
        .unwrap();
    assert!(done.success(), "unpack {}", archive.display());
}

fn client(mockup: &Mockup) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ca = Certificate::from_pem(mockup.ca_pem().as_bytes()).unwrap();
    Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap()
}

#[tokio::test]
async fn the_captures_are_served_read_only() {
    let Some(fixtures) = shared() else {
        println!("skipped: the captured Redfish trees are not beside the repository (KIBAN_SHARED)");
        return;
    };
    for (vendor, entries) in [("dell", 29), ("hpe", 48), ("lenovo", 43), ("supermicro", 106)] {
        let dir = tempfile::tempdir().unwrap();
        unpack(&fixtures.join(format!("redfish/{vendor}.tar.zst")), dir.path());
        let mockup = Mockup::serve(dir.path()).await.unwrap();
        let (client, base) = (client(&mockup), mockup.url());
        let get = |path: String| {
            client
                .get(format!("{base}{path}"))
                .basic_auth("admin", Some("kiban-sim"))
                .send()
        };
        let root: Value = client
            .get(format!("{base}/redfish/v1/"))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert!(root["RedfishVersion"].is_string());
        let inventory = "/redfish/v1/UpdateService/FirmwareInventory";
        assert_eq!(
            client
                .get(format!("{base}{inventory}"))
                .send()
                .await
                .unwrap()
                .status(),
            401
        );
        let list: Value = get(inventory.into()).await.unwrap().json().await.unwrap();
        let members = list["Members"].as_array().unwrap();
        assert_eq!(members.len(), entries, "{vendor}");
        for member in members {
            let path = member["@odata.id"].as_str().unwrap().to_owned();
            assert_eq!(get(path.clone()).await.unwrap().status(), 200, "{path}");
        }
        let change = client
            .post(format!("{base}/redfish/v1/Systems"))
            .basic_auth("admin", Some("kiban-sim"));
        assert_eq!(change.json(&json!({})).send().await.unwrap().status(), 405);
        mockup.shutdown().await;
    }
}

#[tokio::test]
async fn a_tree_gives_sessions_and_nothing_outside_itself() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("tree/redfish/v1");
    std::fs::create_dir_all(root.join("Systems")).unwrap();
    std::fs::write(root.join("index.json"), r#"{"Id":"RootService"}"#).unwrap();
    std::fs::write(root.join("Systems/index.json"), r#"{"Members":[]}"#).unwrap();
    std::fs::write(dir.path().join("index.json"), "secret").unwrap();
    std::os::unix::fs::symlink(dir.path(), root.join("Out")).unwrap();
    let mockup = Mockup::serve(dir.path()).await.unwrap();
    let (client, base) = (client(&mockup), mockup.url());
    let sessions = format!("{base}/redfish/v1/SessionService/Sessions");
    let bad = client
        .post(&sessions)
        .json(&json!({"UserName": "admin", "Password": "x"}))
        .send()
        .await
        .unwrap();
    assert_eq!(bad.status(), 401);
    let good = client
        .post(&sessions)
        .json(&json!({"UserName": "admin", "Password": "kiban-sim"}))
        .send()
        .await
        .unwrap();
    assert_eq!(good.status(), 201);
    let token = good.headers()["x-auth-token"].to_str().unwrap().to_owned();
    let location = good.headers()["location"].to_str().unwrap().to_owned();
    let get = |path: &str| {
        client
            .get(format!("{base}{path}"))
            .header("X-Auth-Token", &token)
            .send()
    };
    assert_eq!(get("/redfish/v1/Systems").await.unwrap().status(), 200);
    assert_eq!(
        get("/redfish/v1/Out").await.unwrap().status(),
        404,
        "a link out of the tree"
    );
    assert_eq!(
        get("/redfish/v1/%2e%2e/%2e%2e/%2e%2e").await.unwrap().status(),
        404
    );
    let end = client
        .delete(format!("{base}{location}"))
        .header("X-Auth-Token", &token)
        .send()
        .await
        .unwrap();
    assert_eq!(end.status(), 204);
    assert_eq!(get("/redfish/v1/Systems").await.unwrap().status(), 401);
    assert!(
        Mockup::serve(dir.path().join("tree/redfish")).await.is_err(),
        "no tree there"
    );
}

#[tokio::test]
async fn the_program_serves_a_tree_by_its_flag() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("redfish/v1");
    std::fs::create_dir_all(&root).unwrap();
    std::fs::write(root.join("index.json"), r#"{"Id":"RootService"}"#).unwrap();
    let program = env!("CARGO_BIN_EXE_kiban-sim");
    let ca = dir.path().join("ca.pem");
    let mut running = tokio::process::Command::new(program)
        .arg("--mockup")
        .arg(dir.path())
        .arg("--ca")
        .arg(&ca)
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let url = line.rsplit(' ').next().unwrap();
    let ca = Certificate::from_pem(&std::fs::read(&ca).unwrap()).unwrap();
    let client = Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap();
    let answer = client.get(format!("{url}/redfish/v1/")).send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["Id"], "RootService");
    running.kill().await.unwrap();

    // The flag belongs to no other command, and its account to nothing else.
    for wrong in [
        &["--mockup", ".", "serve"][..],
        &["--username", "x"],
        &["mockup", "."],
        &[],
    ] {
        let run = Command::new(program).args(wrong).output().unwrap();
        assert!(!run.status.success(), "{wrong:?}");
    }
}
