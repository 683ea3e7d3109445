//! Firmware updates, as each vendor does them.

use crate::bmc::{Bmc, one, one_of, picture, slow, until, until_settled, until_version};
use kiban_sim::{
    Activation, Class, FlashOutcome, MachineSpec, Persona, What,
    image::{self, ImageHeader},
};
use serde_json::{Value, json};

#[tokio::test]
async fn every_persona_updates_its_bmc_which_goes_dark_and_returns_with_the_new_version() {
    for persona in Persona::ALL {
        let (fleet, machine, bmc) = slow(persona).await;
        let before = machine.version(Class::Bmc).unwrap();
        let image = picture(Class::Bmc, "99.1.2");
        let answer = bmc.update(persona, &image).await;
        assert_eq!(answer.status(), 202, "{persona:?}");
        until("its port is closed", || async {
            bmc.try_get("/redfish/v1")
                .await
                .err()
                .filter(reqwest::Error::is_connect)
                .map(|_| ())
        })
        .await;
        until_version(&machine, Class::Bmc, "99.1.2").await;
        until_settled(&machine).await;
        let flashes = fleet.record().flashes("m");
        assert_eq!(flashes.len(), 1, "{persona:?}");
        assert_eq!(
            (flashes[0].from.as_str(), flashes[0].digest.as_str()),
            (before.as_str(), image.sha256.as_str())
        );
        assert_eq!(flashes[0].finished.unwrap().1, FlashOutcome::Written);
        assert_eq!(fleet.record().peak_disrupted(), 1);
        assert!(
            !fleet
                .record()
                .of("m")
                .iter()
                .any(|e| matches!(e.what, What::HostDown { .. })),
            "the host runs on"
        );
        fleet.shutdown().await;
    }
}

#[tokio::test]
async fn every_persona_stages_its_bios_until_the_host_resets() {
    for persona in Persona::ALL {
        let (fleet, machine, bmc) = one(persona).await;
        let old = machine.version(Class::Bios).unwrap();
        assert_eq!(
            bmc.update(persona, &picture(Class::Bios, "77.7")).await.status(),
            202
        );
        until("it is staged", || async {
            machine
                .state()
                .firmware
                .iter()
                .find(|f| f.class == Class::Bios)?
                .staged
                .clone()
                .map(|_| ())
        })
        .await;
        assert_eq!(machine.version(Class::Bios).unwrap(), old, "{persona:?}");
        assert_eq!(bmc.reset(persona, "ForceRestart").await.status(), 204);
        until_version(&machine, Class::Bios, "77.7").await;
        until_settled(&machine).await;
        let system = bmc.get(Bmc::system(persona)).await;
        assert_eq!(system["BiosVersion"], "77.7", "{persona:?}");
        assert_eq!(fleet.record().flashes("m").len(), 1);
    }
}

#[tokio::test]
async fn dell_names_versions_in_ids_keeps_the_old_one_purges_the_task_and_keeps_the_job() {
    let (_fleet, machine, bmc) = one(Persona::Dell).await;
    let no_oem = bmc
        .multipart(
            "/redfish/v1/UpdateService/MultipartUpload",
            &picture(Class::Bios, "2.0.0"),
            json!({"Targets": []}),
        )
        .await
        .unwrap();
    assert_eq!(no_oem.status(), 400);
    let answer = bmc.update(Persona::Dell, &picture(Class::Bios, "2.0.0")).await;
    let task = answer.headers()["location"].to_str().unwrap().to_owned();
    let pending = bmc.until_task(&task, "Pending").await;
    assert_eq!(pending["Name"], "Firmware Update: BIOS");
    let jid = task.rsplit('/').next().unwrap();
    let job = format!("/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/Jobs/{jid}");
    assert_eq!(bmc.get(&job).await["JobState"], "Scheduled");
    let ids = bmc.ids().await;
    assert!(
        ids.contains(&"Installed-159-1.13.2__BIOS.Setup.1-1".to_owned()),
        "{ids:?}"
    );
    assert!(
        ids.contains(&"Available-159-2.0.0__BIOS.Setup.1-1".to_owned()),
        "{ids:?}"
    );
    bmc.reset(Persona::Dell, "ForceRestart").await;
    until_version(&machine, Class::Bios, "2.0.0").await;
    let ids = bmc.ids().await;
    assert!(
        ids.contains(&"Installed-159-2.0.0__BIOS.Setup.1-1".to_owned()),
        "{ids:?}"
    );
    assert!(
        ids.contains(&"Previous-159-1.13.2__BIOS.Setup.1-1".to_owned()),
        "{ids:?}"
    );
    assert!(!ids.iter().any(|i| i.starts_with("Available-")), "{ids:?}");
    until("the task is purged", || async {
        (bmc.status(&task).await == 404).then_some(())
    })
    .await;
    assert_eq!(bmc.get(&job).await["JobState"], "Completed");
}

#[tokio::test]
async fn a_second_update_is_refused_while_one_runs() {
    for (persona, status, id) in [
        (Persona::Dell, 503, "RAC0679"),
        (Persona::Hpe, 400, "InvalidOperationForSystemState"),
        (Persona::Lenovo, 503, "UpdateInProgress"),
        (Persona::Openbmc, 503, "ServiceTemporarilyUnavailable"),
    ] {
        let (fleet, _machine, bmc) = slow(persona).await;
        assert_eq!(
            bmc.update(persona, &picture(Class::Bmc, "9.1")).await.status(),
            202
        );
        let second = bmc.update(persona, &picture(Class::Bmc, "9.2")).await;
        assert_eq!(second.status(), status, "{persona:?}");
        let body: Value = second.json().await.unwrap();
        assert!(body["error"]["code"].as_str().unwrap().contains(id), "{body}");
        assert!(fleet.record().flashes("m").len() <= 1);
    }
}

#[tokio::test]
async fn supermicro_holds_an_upload_until_it_is_started_and_refuses_another() {
    let (fleet, machine, bmc) = one(Persona::Supermicro).await;
    let path = "/redfish/v1/UpdateService/upload";
    let start = "/redfish/v1/UpdateService/Actions/UpdateService.StartUpdate";
    assert_eq!(bmc.post(start, json!({})).await.status(), 400, "nothing to start");
    let first = bmc
        .multipart(path, &picture(Class::Bios, "2.0"), json!({}))
        .await
        .unwrap();
    assert!(
        first.headers().get("location").is_none(),
        "the task hides in the body"
    );
    let body: Value = first.json().await.unwrap();
    let task = body["Accepted"]["@Message.ExtendedInfo"][0]["MessageArgs"][0]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(bmc.until_task(&task, "Completed").await["Name"], "BIOS Verify");
    let again = bmc
        .multipart(path, &picture(Class::Bios, "2.1"), json!({}))
        .await
        .unwrap();
    let text = again.text().await.unwrap();
    assert!(text.contains("OemFirmwareAlreadyInUpdateMode"), "{text}");
    assert!(
        fleet.record().flashes("m").is_empty(),
        "nothing is written before the start"
    );
    let started: Value = bmc.post(start, json!({})).await.json().await.unwrap();
    let task = started["Accepted"]["@Message.ExtendedInfo"][0]["MessageArgs"][0]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(bmc.until_task(&task, "Completed").await["Name"], "BIOS Update");
    bmc.reset(Persona::Supermicro, "ForceRestart").await;
    until_version(&machine, Class::Bios, "2.0").await;
    assert!(bmc.ids().await.contains(&"Backup_BIOS".to_owned()));
}

#[tokio::test]
async fn lenovo_claims_block_others_pending_images_show_and_monitors_forget() {
    let (fleet, machine, bmc) = one(Persona::Lenovo).await;
    let login = bmc
        .client
        .post(bmc.url("/redfish/v1/SessionService/Sessions"))
        .json(&json!({"UserName": "admin", "Password": "kiban-sim"}))
        .send()
        .await
        .unwrap();
    let token = login.headers()["x-auth-token"].to_str().unwrap().to_owned();
    let claim = |busy: bool| {
        let request = bmc
            .client
            .patch(bmc.url("/redfish/v1/UpdateService"))
            .header("X-Auth-Token", &token);
        request.json(&json!({"HttpPushUriTargetsBusy": busy})).send()
    };
    assert_eq!(claim(true).await.unwrap().status(), 200);
    assert_eq!(
        bmc.get("/redfish/v1/UpdateService").await["HttpPushUriTargetsBusy"],
        true
    );
    let refused = bmc.update(Persona::Lenovo, &picture(Class::Bios, "9Z")).await;
    assert_eq!(
        refused.status(),
        503,
        "the account without the session did not claim"
    );
    let stolen = bmc
        .patch(
            "/redfish/v1/UpdateService",
            json!({"HttpPushUriTargetsBusy": true}),
            None,
        )
        .await;
    assert_eq!(stolen.status(), 503);
    assert_eq!(claim(false).await.unwrap().status(), 200);

    let answer = bmc.update(Persona::Lenovo, &picture(Class::Bios, "9Z")).await;
    let monitor = answer.headers()["location"].to_str().unwrap().to_owned();
    assert!(monitor.contains("/TaskMonitors/"), "{monitor}");
    let task = answer.json::<Value>().await.unwrap()["@odata.id"]
        .as_str()
        .unwrap()
        .to_owned();
    bmc.until_task(&task, "Completed").await;
    let pending = bmc
        .get("/redfish/v1/UpdateService/FirmwareInventory/UEFI-Pending")
        .await;
    assert_eq!(pending["Version"], "9Z");
    assert_eq!(bmc.status(&task).await, 200, "reading the task leaves it");
    assert_eq!(bmc.status(&monitor).await, 200);
    assert_eq!(
        bmc.status(&task).await,
        404,
        "reading the finished monitor removes it"
    );
    bmc.reset(Persona::Lenovo, "ForceRestart").await;
    until_version(&machine, Class::Bios, "9Z").await;
    let pending = bmc
        .get("/redfish/v1/UpdateService/FirmwareInventory/UEFI-Pending")
        .await;
    assert_eq!(pending["Version"], "-*");
    assert_eq!(fleet.record().flashes("m").len(), 1);
}

#[tokio::test]
async fn a_foreign_entry_in_ilos_queue_blocks_an_update_until_it_is_removed() {
    let (_fleet, machine, bmc) = one(Persona::Hpe).await;
    machine.add_queue_entry("someone-elses", "Exception");
    let answer: Value = bmc
        .update(Persona::Hpe, &picture(Class::Nic, "27.1"))
        .await
        .json()
        .await
        .unwrap();
    assert!(answer["TaskMonitor"].as_str().unwrap().contains("/TaskMonitors/"));
    let task = answer["@odata.id"].as_str().unwrap().to_owned();
    assert_eq!(bmc.get(&task).await["TaskState"], "Pending");
    let queue = bmc.get("/redfish/v1/UpdateService/UpdateTaskQueue").await;
    let entry = queue["Members"][0]["@odata.id"].as_str().unwrap().to_owned();
    assert_eq!(bmc.get(&entry).await["State"], "Exception");
    let deleted = bmc
        .client
        .delete(bmc.url(&entry))
        .basic_auth("admin", Some("kiban-sim"))
        .send()
        .await
        .unwrap();
    assert_eq!(deleted.status(), 200);
    bmc.until_task(&task, "Completed").await;
    let service = bmc.get("/redfish/v1/UpdateService").await;
    assert_eq!(service["Oem"]["Hpe"]["State"], "Complete");
    assert!(
        service["Oem"]["Hpe"]["Result"]["MessageId"]
            .as_str()
            .unwrap()
            .ends_with("SystemResetRequired")
    );
    let nic = bmc.get("/redfish/v1/UpdateService/FirmwareInventory/8").await;
    assert_eq!(nic["Staged"], true);
    bmc.reset(Persona::Hpe, "ForceRestart").await;
    until_version(&machine, Class::Nic, "27.1").await;
}

#[tokio::test]
async fn openbmc_tasks_die_with_the_bmc_and_ids_are_hashes() {
    let (_fleet, machine, bmc) = one(Persona::Openbmc).await;
    let before = bmc.ids().await;
    let answer = bmc.update(Persona::Openbmc, &picture(Class::Bmc, "2.15.0")).await;
    let monitor = answer.headers()["location"].to_str().unwrap().to_owned();
    assert!(monitor.ends_with("/Monitor"), "{monitor}");
    until_version(&machine, Class::Bmc, "2.15.0").await;
    until_settled(&machine).await;
    assert_eq!(bmc.status(&monitor).await, 404);
    let after = bmc.ids().await;
    assert_eq!(before.len(), after.len());
    assert_eq!(
        before.iter().filter(|id| !after.contains(id)).count(),
        1,
        "one id changed with its version"
    );
}

#[tokio::test]
async fn what_does_not_fit_is_an_exception_and_writes_nothing() {
    let (fleet, machine, bmc) = one(Persona::Lenovo).await;
    let mut other_model = ImageHeader::new(Class::Bios, "9", "PowerEdge*");
    let wrong_model = image::build(&other_model, 5000);
    other_model.models = vec!["*".into()];
    other_model.requires = Some("AFE999Z-9.99".into());
    let too_far = image::build(&other_model, 5000);
    let mut garbage = picture(Class::Bios, "9");
    garbage.bytes[0] = b'X';
    for (image, why) in [
        (wrong_model, "this is a ThinkSystem"),
        (too_far, "signature"),
        (garbage, "magic"),
    ] {
        let answer: Value = bmc.update(Persona::Lenovo, &image).await.json().await.unwrap();
        let task = bmc
            .until_task(answer["@odata.id"].as_str().unwrap(), "Exception")
            .await;
        assert_eq!(task["TaskStatus"], "Critical");
        assert!(task["Messages"].to_string().contains(why), "{task}");
    }
    assert!(fleet.record().flashes("m").is_empty());
    assert_eq!(machine.version(Class::Bios).unwrap(), "AFE128H-1.41");
}

#[tokio::test]
async fn a_downgrade_below_the_lowest_supported_version_is_refused() {
    let (fleet, _machine, bmc) = one(Persona::Dell).await;
    let answer = bmc.update(Persona::Dell, &picture(Class::Bios, "1.4.3")).await;
    let task = bmc
        .until_task(answer.headers()["location"].to_str().unwrap(), "Exception")
        .await;
    assert!(
        task["Messages"].to_string().contains("DowngradeNotAllowed"),
        "{task}"
    );
    assert!(fleet.record().flashes("m").is_empty());
    let entry = bmc
        .get("/redfish/v1/UpdateService/FirmwareInventory/Installed-159-1.13.2__BIOS.Setup.1-1")
        .await;
    assert_eq!(entry["LowestSupportedVersion"], "1.4.4");
}

#[tokio::test]
async fn ac_cycles_are_counted_until_the_image_runs() {
    let (fleet, machine, bmc) = one(Persona::Supermicro).await;
    assert_eq!(
        bmc.update(Persona::Supermicro, &picture(Class::Cpld, "F0.B0.01"))
            .await
            .status(),
        202
    );
    let reset = "/redfish/v1/Systems/1/Actions/Oem/OemSystemExtensions.Reset";
    for cycle in 1..=2 {
        until("it is written", || async {
            (!machine.state().updating).then_some(())
        })
        .await;
        assert_eq!(
            machine.version(Class::Cpld).unwrap(),
            "F0.A3.06",
            "before cycle {cycle}"
        );
        assert_eq!(
            bmc.post(reset, json!({"ResetType": "ACCycle"})).await.status(),
            200
        );
        until_settled(&machine).await;
    }
    assert_eq!(machine.version(Class::Cpld).unwrap(), "F0.B0.01");
    let downs = fleet
        .record()
        .of("m")
        .iter()
        .filter(|e| matches!(e.what, What::BmcDown { .. }))
        .count();
    assert_eq!(downs, 2);
}

#[tokio::test]
async fn drives_run_the_new_version_as_soon_as_it_is_written_and_an_image_may_say_otherwise() {
    let (_fleet, machine, bmc) = one(Persona::Lenovo).await;
    bmc.update(Persona::Lenovo, &picture(Class::Drive, "E2MU200"))
        .await;
    until_version(&machine, Class::Drive, "E2MU200").await;
    assert!(
        machine
            .state()
            .firmware
            .iter()
            .filter(|f| f.class == Class::Drive)
            .all(|f| f.version == "E2MU200")
    );
    until("it is idle", || async {
        (!machine.state().updating).then_some(())
    })
    .await;
    let mut header = ImageHeader::new(Class::Drive, "E2MU300", "*");
    header.activation = Some(Activation::ManagerReset);
    bmc.update(Persona::Lenovo, &image::build(&header, 4000)).await;
    until("it is written", || async {
        let s = machine.state();
        s.firmware
            .iter()
            .any(|f| f.staged.as_deref() == Some("E2MU300"))
            .then_some(())
    })
    .await;
    bmc.post(
        "/redfish/v1/Managers/1/Actions/Manager.Reset",
        json!({"ResetType": "GracefulRestart"}),
    )
    .await;
    until_version(&machine, Class::Drive, "E2MU300").await;
}

#[tokio::test]
async fn simple_update_fetches_the_image_from_loopback_and_nowhere_else() {
    let image = picture(Class::Nic, "31.0");
    let bytes = image.bytes.clone();
    let app = axum::Router::new().route("/fw/nic.bin", axum::routing::get(move || async move { bytes }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let simple = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";
    for persona in Persona::ALL {
        let (fleet, machine, bmc) = one(persona).await;
        for bad in [
            "http://192.0.2.1/x.bin".to_owned(),
            format!("http://{address}/absent"),
            "ftp://127.0.0.1/x".into(),
        ] {
            let answer = bmc.post(simple, json!({"ImageURI": bad})).await;
            assert_eq!(answer.status(), 202, "the BMC answers before it fetches");
            until("it gave up", || async {
                (!machine.state().updating).then_some(())
            })
            .await;
        }
        let uri = format!("http://{address}/fw/nic.bin");
        let answer = bmc
            .post(simple, json!({"ImageURI": uri, "TransferProtocol": "HTTP"}))
            .await;
        assert_eq!(answer.status(), 202);
        until("it is staged or running", || async {
            let s = machine.state();
            let nic = s.firmware.iter().find(|f| f.class == Class::Nic)?;
            (nic.version == "31.0" || nic.staged.is_some()).then_some(())
        })
        .await;
        until("it is idle", || async {
            (!machine.state().updating).then_some(())
        })
        .await;
        if machine.version(Class::Nic).unwrap() != "31.0" && persona != Persona::Dell {
            assert_eq!(bmc.reset(persona, "ForceRestart").await.status(), 204);
        }
        until_version(&machine, Class::Nic, "31.0").await;
        let flashes = fleet.record().flashes("m");
        assert_eq!(flashes.len(), 1);
        assert_eq!(flashes[0].digest, image.sha256);
    }
    server.abort();
}

#[tokio::test]
async fn targets_pick_one_component_of_a_class() {
    let (_fleet, machine, bmc) = one_of(MachineSpec::new("m", Persona::Lenovo)).await;
    let target = "/redfish/v1/UpdateService/FirmwareInventory/Disk2";
    let answer = bmc
        .multipart(
            "/mfwupdate",
            &picture(Class::Drive, "NEW"),
            json!({"Targets": [target]}),
        )
        .await
        .unwrap();
    assert_eq!(answer.status(), 202);
    until("the second drive runs it", || async {
        machine
            .state()
            .firmware
            .iter()
            .any(|f| f.id == "Disk2" && f.version == "NEW")
            .then_some(())
    })
    .await;
    assert_eq!(
        machine.version(Class::Drive).unwrap(),
        "E2MU110",
        "the first drive is as it was"
    );
}

#[tokio::test]
async fn ilos_form_needs_a_session() {
    let (fleet, _machine, bmc) = one(Persona::Hpe).await;
    let image = picture(Class::Nic, "1.0");
    let form = reqwest::multipart::Form::new().text("sessionKey", "0000").part(
        "file",
        reqwest::multipart::Part::bytes(image.bytes).file_name("nic.fwpkg"),
    );
    let upload = bmc
        .client
        .post(bmc.url("/cgi-bin/uploadFile"))
        .basic_auth("admin", Some("kiban-sim"));
    assert_eq!(upload.multipart(form).send().await.unwrap().status(), 401);
    assert!(fleet.record().flashes("m").is_empty());
}
