//! Sessions, entity tags, settings, fleets.

use crate::bmc::{Bmc, fleet, one, until, until_settled};
use kiban_sim::{Fault, Fleet, FleetSpec, Listen, MachineSpec, Options, Persona, Rule};
use reqwest::Response;
use serde_json::{Value, json};

async fn login(bmc: &Bmc) -> Response {
    let body = json!({"UserName": "admin", "Password": "kiban-sim"});
    bmc.client
        .post(bmc.url("/redfish/v1/SessionService/Sessions"))
        .json(&body)
        .send()
        .await
        .unwrap()
}

#[tokio::test]
async fn sessions_have_the_vendors_limit_and_leave_when_deleted() {
    let (fleet, machine, bmc) = one(Persona::Dell).await;
    let mut sessions = Vec::new();
    for _ in 0..8 {
        let answer = login(&bmc).await;
        assert_eq!(answer.status(), 201);
        sessions.push((
            answer.headers()["location"].to_str().unwrap().to_owned(),
            answer.headers()["x-auth-token"].to_str().unwrap().to_owned(),
        ));
    }
    let full = login(&bmc).await;
    assert_eq!(full.status(), 503);
    assert!(full.text().await.unwrap().contains("RAC0218"));
    assert_eq!(
        bmc.status("/redfish/v1/Systems").await,
        200,
        "basic authentication needs no session"
    );
    let (location, token) = sessions.pop().unwrap();
    let deleted = bmc
        .client
        .delete(bmc.url(&location))
        .header("X-Auth-Token", token)
        .send()
        .await
        .unwrap();
    assert_eq!(deleted.status(), 204);
    assert_eq!(login(&bmc).await.status(), 201);
    assert_eq!(machine.state().sessions, 8);
    assert!(
        !serde_json::to_string(&fleet.record().entries())
            .unwrap()
            .contains("kiban-sim"),
        "no secret is recorded"
    );
    machine.end_sessions();
    assert_eq!(machine.state().sessions, 0);
}

#[tokio::test]
async fn only_the_root_is_open_and_passwords_rotate() {
    let (_fleet, _machine, bmc) = one(Persona::Openbmc).await;
    for (path, status) in [
        ("/redfish", 200),
        ("/redfish/v1/", 200),
        ("/redfish/v1/$metadata", 200),
        ("/redfish/v1/Systems", 401),
    ] {
        let answer = bmc.client.get(bmc.url(path)).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
    }
    let account = "/redfish/v1/AccountService/Accounts/1";
    assert_eq!(
        bmc.patch(account, json!({"Password": "another-one"}), None)
            .await
            .status(),
        200
    );
    assert_eq!(bmc.status("/redfish/v1/Systems").await, 401);
    let new = bmc
        .client
        .get(bmc.url("/redfish/v1/Systems"))
        .basic_auth("admin", Some("another-one"));
    assert_eq!(new.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn entity_tags_are_as_awkward_as_the_vendors_make_them() {
    async fn tag(bmc: &Bmc, path: &str) -> String {
        bmc.try_get(path).await.unwrap().headers()["etag"]
            .to_str()
            .unwrap()
            .to_owned()
    }
    // (persona, what comes back weak is accepted, no tag is accepted)
    for (persona, weak, as_given, without) in [
        (Persona::Dell, true, 412, 200),
        (Persona::Hpe, true, 200, 200),
        (Persona::Lenovo, false, 200, 200),
        (Persona::Openbmc, false, 200, 200),
    ] {
        let (_fleet, _machine, bmc) = one(persona).await;
        let path = Bmc::system(persona);
        let given = tag(&bmc, path).await;
        assert_eq!(given.starts_with("W/"), weak, "{persona:?}");
        let body = json!({"AssetTag": "a"});
        assert_eq!(
            bmc.patch(path, body.clone(), Some(&given)).await.status(),
            as_given,
            "{persona:?}"
        );
        let strong = tag(&bmc, path).await.trim_start_matches("W/").to_owned();
        assert_eq!(
            bmc.patch(path, json!({"AssetTag": "b"}), Some(&strong))
                .await
                .status(),
            200,
            "{persona:?}"
        );
        assert_eq!(
            bmc.patch(path, body.clone(), Some(&strong)).await.status(),
            412,
            "{persona:?}: it changed"
        );
        assert_eq!(
            bmc.patch(path, body.clone(), Some("")).await.status(),
            412,
            "{persona:?}: empty"
        );
        assert_eq!(bmc.patch(path, body, None).await.status(), without);
    }
    let (_fleet, _machine, bmc) = one(Persona::Supermicro).await;
    let body = json!({"Attributes": {"BootMode": "Bios"}});
    let path = "/redfish/v1/Systems/1/Bios/SD";
    assert_eq!(bmc.patch(path, body.clone(), None).await.status(), 428);
    let given = tag(&bmc, path).await;
    assert_eq!(bmc.patch(path, body, Some(&given)).await.status(), 200);
}

#[tokio::test]
async fn dell_settings_pend_for_ever_without_a_job() {
    let (_fleet, machine, bmc) = one(Persona::Dell).await;
    let bios = "/redfish/v1/Systems/System.Embedded.1/Bios";
    let settings = bmc.get(bios).await["@Redfish.Settings"]["SettingsObject"]["@odata.id"]
        .as_str()
        .unwrap()
        .to_owned();
    let wanted = json!({"Attributes": {"SriovGlobalEnable": "Enabled"}});
    assert_eq!(bmc.patch(&settings, wanted.clone(), None).await.status(), 200);
    bmc.reset(Persona::Dell, "ForceRestart").await;
    until_settled(&machine).await;
    assert_eq!(
        bmc.get(bios).await["Attributes"]["SriovGlobalEnable"],
        "Disabled",
        "no job, no effect"
    );
    let mut with_time = wanted.clone();
    with_time["@Redfish.SettingsApplyTime"] = json!({"ApplyTime": "OnReset"});
    let answer = bmc.patch(&settings, with_time.clone(), None).await;
    assert_eq!(answer.status(), 202);
    let job = answer.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(
        bmc.patch(&settings, with_time, None).await.status(),
        200,
        "the same again makes no second job"
    );
    let other = bmc
        .patch(
            &settings,
            json!({"Attributes": {"LogicalProc": "Disabled"}}),
            None,
        )
        .await;
    assert!(other.text().await.unwrap().contains("LC068"));
    bmc.reset(Persona::Dell, "ForceRestart").await;
    bmc.until_task(&job, "Completed").await;
    assert_eq!(bmc.get(bios).await["Attributes"]["SriovGlobalEnable"], "Enabled");
    assert_eq!(bmc.get(&settings).await["Attributes"], json!({}));
}

#[tokio::test]
async fn the_other_settings_styles() {
    for (persona, bios, at_rest) in [
        (Persona::Hpe, "/redfish/v1/Systems/1/Bios", Some(8)),
        (Persona::Lenovo, "/redfish/v1/Systems/1/Bios", Some(8)),
        (Persona::Supermicro, "/redfish/v1/Systems/1/Bios", None),
        (Persona::Openbmc, "/redfish/v1/Systems/system/Bios", Some(0)),
    ] {
        let (_fleet, _machine, bmc) = one(persona).await;
        let path = bmc.get(bios).await["@Redfish.Settings"]["SettingsObject"]["@odata.id"]
            .as_str()
            .unwrap()
            .to_owned();
        let listed = bmc.get(&path).await["Attributes"].as_object().map(|m| m.len());
        assert_eq!(listed, at_rest, "{persona:?}");
        for (body, id) in [
            (json!({"Attributes": {"Nonsense": 1}}), "PropertyUnknown"),
            (
                json!({"Attributes": {"BootMode": "Sideways"}}),
                "PropertyValueNotInList",
            ),
            (
                json!({"Attributes": {"SystemBiosVersion": "x"}}),
                "PropertyNotWritable",
            ),
        ] {
            let answer = bmc.patch(&path, body, Some("*")).await;
            assert_eq!(answer.status(), 400);
            assert!(answer.text().await.unwrap().contains(id));
        }
        let set = json!({"Attributes": {"BootMode": "Bios", "AcPwrRcvryUserDelay": 90}});
        assert_eq!(
            bmc.patch(&path, set, Some("*")).await.status(),
            200,
            "{persona:?}"
        );
        assert_eq!(bmc.get(&path).await["Attributes"]["BootMode"], "Bios");
        assert_eq!(
            bmc.get(bios).await["Attributes"]["BootMode"],
            "Uefi",
            "only after the reset"
        );
        bmc.reset(persona, "ForceRestart").await;
        until("it is in force", || async {
            (bmc.get(bios).await["Attributes"]["AcPwrRcvryUserDelay"] == 90).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn methods_and_paths_that_do_not_exist() {
    let (_fleet, _machine, bmc) = one(Persona::Hpe).await;
    assert_eq!(bmc.status("/redfish/v1/Nothing").await, 404);
    assert_eq!(bmc.post("/redfish/v1/Systems", json!({})).await.status(), 405);
    assert_eq!(bmc.post("/redfish/v1/Nothing", json!({})).await.status(), 404);
    let broken = bmc
        .client
        .post(bmc.url("/redfish/v1/Systems/1/Actions/ComputerSystem.Reset"));
    let broken = broken
        .basic_auth("admin", Some("kiban-sim"))
        .body("{")
        .send()
        .await
        .unwrap();
    assert_eq!(broken.status(), 400);
}

#[tokio::test]
async fn machines_have_addresses_and_certificates_of_their_own() {
    let fleet = fleet(&[Persona::Dell, Persona::Hpe, Persona::Lenovo]).await;
    let machines = fleet.machines();
    let mut prints: Vec<String> = machines.iter().map(|m| m.fingerprint()).collect();
    assert!(prints.iter().all(|p| p.len() == 64));
    prints.dedup();
    assert_eq!(prints.len(), 3);
    for machine in &machines {
        assert!(machine.address().unwrap().ip().is_loopback());
        let root = Bmc::new(&fleet, machine).get("/redfish/v1/").await;
        assert_eq!(root["UUID"], machine.state().uuid.to_string());
    }
    let before = machines[0].fingerprint();
    machines[0].renew_certificate();
    assert_ne!(machines[0].fingerprint(), before);
    assert_eq!(Bmc::new(&fleet, &machines[0]).status("/redfish/v1/").await, 200);
}

#[tokio::test]
async fn a_port_that_is_taken_and_an_open_admin_endpoint_are_refused_with_words() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut machine = MachineSpec::new("m", Persona::Dell);
    machine.address = Some(taken.local_addr().unwrap());
    let spec = FleetSpec {
        models: Vec::new(),
        machines: vec![machine],
    };
    let error = Fleet::start(spec, Options::default()).await.err().unwrap();
    assert!(error.to_string().contains("for m"), "{error}");
    let options = Options {
        admin: Some("0.0.0.0:0".parse().unwrap()),
        ..Options::default()
    };
    let error = Fleet::start(FleetSpec::generate(1, &[]), options)
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains("loopback"), "{error}");
    let options = Options {
        listen: Listen::PortEach { base: 65_530 },
        ..Options::default()
    };
    let error = Fleet::start(FleetSpec::generate(100, &[]), options)
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains("a port each"), "{error}");
}

#[tokio::test]
async fn more_machines_than_file_descriptors_is_a_clear_error() {
    let options = Options {
        listen: Listen::AddressEach { port: 8443 },
        ..Options::default()
    };
    let error = Fleet::start(FleetSpec::generate(3_000_000, &[Persona::Dell]), options)
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains("ulimit -n"), "{error}");
}

#[tokio::test]
async fn the_admin_endpoint_watches_and_hurts() {
    let options = Options {
        admin: Some("127.0.0.1:0".parse().unwrap()),
        ..Options::fast(crate::bmc::SPEED)
    };
    let fleet = Fleet::start(FleetSpec::generate(2, &[Persona::Dell]), options)
        .await
        .unwrap();
    let admin = format!("http://{}", fleet.admin().unwrap());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = |path: &str| client.get(format!("{admin}{path}")).send();
    let machines: Vec<Value> = get("/machines").await.unwrap().json().await.unwrap();
    assert_eq!(machines.len(), 2);
    assert_eq!(machines[0]["persona"], "dell");
    assert_eq!(
        get("/ca.pem").await.unwrap().text().await.unwrap(),
        fleet.ca_pem()
    );

    let bmc = Bmc::new(&fleet, &fleet.machines()[0]);
    let rule = json!({"machine": "dell-0001", "path": "*/Systems", "count": 1, "fault": {"kind": "status", "status": 500}});
    let id: u64 = client
        .post(format!("{admin}/faults"))
        .json(&rule)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(bmc.status("/redfish/v1/Systems").await, 500);
    assert_eq!(bmc.status("/redfish/v1/Systems").await, 200);
    let rules: Vec<Value> = get("/faults").await.unwrap().json().await.unwrap();
    assert_eq!(
        (rules[0]["id"].as_u64(), rules[0]["fired"].as_u64()),
        (Some(id), Some(1))
    );
    assert_eq!(
        client
            .delete(format!("{admin}/faults/{id}"))
            .send()
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(
        client
            .delete(format!("{admin}/faults/{id}"))
            .send()
            .await
            .unwrap()
            .status(),
        404
    );

    let hand = |action: &str, body: Value| {
        client
            .post(format!("{admin}/machines/dell-0002/{action}"))
            .json(&body)
            .send()
    };
    assert_eq!(
        hand("set-version", json!({"class": "BIOS", "version": "8.8"}))
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(
        hand("set-serial", json!({"serial": "SWAPPED"}))
            .await
            .unwrap()
            .status(),
        204
    );
    assert_eq!(hand("set-serial", json!({})).await.unwrap().status(), 400);
    assert_eq!(hand("explode", json!({})).await.unwrap().status(), 404);
    let other = Bmc::new(&fleet, &fleet.machines()[1])
        .get("/redfish/v1/Systems/System.Embedded.1")
        .await;
    assert_eq!(
        (&other["BiosVersion"], &other["SerialNumber"]),
        (&json!("8.8"), &json!("SWAPPED"))
    );
    let record: Vec<Value> = get("/record?since=0").await.unwrap().json().await.unwrap();
    assert!(
        record
            .iter()
            .any(|e| e["event"] == "byHand" && e["machine"] == "dell-0002")
    );
    let rest: Vec<Value> = get(&format!("/record?since={}", record.len()))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(rest.is_empty());
    let metrics: Value = get("/metrics").await.unwrap().json().await.unwrap();
    assert_eq!(metrics["machines"], 2);
    assert!(metrics["requests"].as_u64().unwrap() >= 3);
    fleet.shutdown().await;
}

#[tokio::test]
async fn how_many_requests_a_bmc_answered_at_once_is_counted() {
    let (fleet, machine, bmc) = one(Persona::Hpe).await;
    bmc.get("/redfish/v1/").await;
    assert_eq!(machine.state().peak_in_flight, 1);
    fleet.faults().add(Rule::new("m", Fault::Latency { ms: 2000 }));
    let (a, b, c) = tokio::join!(
        bmc.get("/redfish/v1/"),
        bmc.get("/redfish/v1/"),
        bmc.get("/redfish/v1/")
    );
    assert_eq!((&a, &b), (&b, &c));
    assert_eq!(machine.state().peak_in_flight, 3);
    assert_eq!(fleet.stats().in_flight, 0);
}
