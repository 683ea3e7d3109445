//! Power, resets, and what they do to sessions and listings.

use crate::bmc::{Bmc, one, one_of, picture, slow, until, until_settled};
use kiban_sim::{Class, FlashOutcome, MachineSpec, Persona, What};
use serde_json::json;

#[tokio::test]
async fn power_takes_time_and_adapters_are_listed_only_while_the_host_is_on() {
    for persona in Persona::ALL {
        let (fleet, machine, bmc) = one(persona).await;
        let chassis = bmc.get("/redfish/v1/Chassis").await["Members"][0]["@odata.id"]
            .as_str()
            .unwrap()
            .to_owned();
        let adapters = format!("{chassis}/NetworkAdapters");
        assert_eq!(bmc.get(&adapters).await["Members@odata.count"], 1);
        assert_eq!(bmc.reset(persona, "ForceOff").await.status(), 204);
        assert_ne!(machine.state().host, "On");
        until("it is off", || async {
            (machine.state().host == "Off").then_some(())
        })
        .await;
        assert_eq!(bmc.get(Bmc::system(persona)).await["PowerState"], "Off");
        assert_eq!(bmc.get(&adapters).await["Members@odata.count"], 0, "{persona:?}");
        let again = bmc.reset(persona, "ForceOff").await.status().as_u16();
        assert!(
            if persona == Persona::Openbmc {
                again == 200
            } else {
                again >= 400
            },
            "{persona:?} {again}"
        );
        assert_eq!(bmc.reset(persona, "On").await.status(), 204);
        until_settled(&machine).await;
        assert_eq!(bmc.get(&adapters).await["Members@odata.count"], 1);
        assert_eq!(bmc.reset(persona, "Nonsense").await.status(), 400);
        let events: Vec<_> = fleet
            .record()
            .of("m")
            .into_iter()
            .filter_map(|e| match e.what {
                What::HostDown { .. } => Some("down"),
                What::HostUp => Some("up"),
                _ => None,
            })
            .collect();
        assert_eq!(events, ["down", "up"]);
    }
}

#[tokio::test]
async fn a_bmc_reset_ends_sessions_refuses_connections_then_answers_503() {
    let (fleet, machine, bmc) = slow(Persona::Dell).await;
    let login = bmc
        .client
        .post(bmc.url("/redfish/v1/SessionService/Sessions"))
        .json(&json!({"UserName": "admin", "Password": "kiban-sim"}))
        .send()
        .await
        .unwrap();
    let token = login.headers()["x-auth-token"].to_str().unwrap().to_owned();
    let reset = bmc.post(
        "/redfish/v1/Managers/iDRAC.Embedded.1/Actions/Manager.Reset",
        json!({"ResetType": "GracefulRestart"}),
    );
    assert_eq!(reset.await.status(), 204);
    until("the port is closed", || async {
        bmc.try_get("/redfish/v1")
            .await
            .err()
            .filter(reqwest::Error::is_connect)
            .map(|_| ())
    })
    .await;
    until("it answers 503", || async {
        let status = bmc.try_get("/redfish/v1").await.ok()?.status();
        (status == 503).then_some(())
    })
    .await;
    until_settled(&machine).await;
    let stale = bmc
        .client
        .get(bmc.url("/redfish/v1/Systems"))
        .header("X-Auth-Token", token)
        .send()
        .await
        .unwrap();
    assert_eq!(stale.status(), 401, "sessions die with the BMC");
    assert!(
        !fleet
            .record()
            .of("m")
            .iter()
            .any(|e| matches!(e.what, What::HostDown { .. }))
    );
}

#[tokio::test]
async fn a_bmc_reset_in_the_middle_of_a_flash_interrupts_it() {
    let (fleet, machine, bmc) = slow(Persona::Hpe).await;
    bmc.update(Persona::Hpe, &picture(Class::Bios, "new")).await;
    until("it writes", || async {
        (!fleet.record().flashes("m").is_empty()).then_some(())
    })
    .await;
    machine.reset_bmc();
    until_settled(&machine).await;
    assert_eq!(
        fleet.record().flashes("m")[0].finished.unwrap().1,
        FlashOutcome::Interrupted
    );
    assert_eq!(machine.version(Class::Bios).unwrap(), "U46 v1.64 (08/11/2022)");
    assert!(machine.state().firmware.iter().all(|f| f.staged.is_none()));
}

#[tokio::test]
async fn an_ac_cycle_restores_the_power_that_was() {
    for off in [false, true] {
        let mut spec = MachineSpec::new("m", Persona::Openbmc);
        spec.off = off;
        let (fleet, machine, bmc) = one_of(spec).await;
        let path = "/redfish/v1/Chassis/chassis/Actions/Chassis.Reset";
        assert_eq!(
            bmc.post(path, json!({"ResetType": "PowerCycle"})).await.status(),
            204
        );
        until("the BMC is back", || async {
            (machine.state().bmc == "Up").then_some(())
        })
        .await;
        if off {
            assert_eq!(machine.state().host, "Off");
        } else {
            until_settled(&machine).await;
            assert!(fleet.record().of("m").iter().any(|e| e.what == What::HostUp));
        }
    }
}
