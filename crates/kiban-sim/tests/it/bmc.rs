//! A plain Redfish client, and what every test needs around it.

use kiban_sim::{
    Class, Fleet, FleetSpec, MachineHandle, MachineSpec, Options, Persona, Timing,
    image::{self, Image, ImageHeader},
};
use reqwest::{Certificate, Client, Response, multipart};
use serde_json::{Value, json};
use std::{future::Future, time::Duration};

/// Hours of a machine's life in seconds, yet slow enough to see what lies between.
pub(crate) const SPEED: f64 = 200.0;

pub(crate) async fn fleet(personas: &[Persona]) -> Fleet {
    Fleet::start(
        FleetSpec::generate(personas.len(), personas),
        Options::fast(SPEED),
    )
    .await
    .unwrap()
}

pub(crate) async fn one(persona: Persona) -> (Fleet, MachineHandle, Bmc) {
    one_of(MachineSpec::new("m", persona)).await
}

/// A machine whose flashes and restarts take seconds even at [`SPEED`], so that a slow test host still sees them.
pub(crate) async fn slow(persona: Persona) -> (Fleet, MachineHandle, Bmc) {
    let mut machine = MachineSpec::new("m", persona);
    machine.timing = Some(Timing {
        flash_bmc: 800.0,
        flash_bios: 800.0,
        bmc_dark: 400.0,
        bmc_starting: 400.0,
        ..Timing::default()
    });
    one_of(machine).await
}

pub(crate) async fn one_of(machine: MachineSpec) -> (Fleet, MachineHandle, Bmc) {
    let spec = FleetSpec {
        models: Vec::new(),
        machines: vec![machine],
    };
    let fleet = Fleet::start(spec, Options::fast(SPEED)).await.unwrap();
    let machine = fleet.machine("m").unwrap();
    let bmc = Bmc::new(&fleet, &machine);
    (fleet, machine, bmc)
}

/// Waits until `ready` gives a value. The limit only ends a test that would hang.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ready: impl FnMut() -> F) -> T {
    for _ in 0..6000 {
        if let Some(value) = ready().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain until {what}");
}

pub(crate) async fn until_version(machine: &MachineHandle, class: Class, version: &str) {
    until(&format!("{class} of {} is {version}", machine.name()), || async {
        (machine.version(class).as_deref() == Some(version)).then_some(())
    })
    .await;
}

pub(crate) async fn until_settled(machine: &MachineHandle) {
    until(&format!("{} is up", machine.name()), || async {
        let s = machine.state();
        (s.bmc == "Up" && s.host == "On" && !s.updating).then_some(())
    })
    .await;
}

pub(crate) fn picture(class: Class, version: &str) -> Image {
    image::build(&ImageHeader::new(class, version, "*"), 20_000)
}

#[derive(Clone)]
pub(crate) struct Bmc {
    pub(crate) base: String,
    pub(crate) client: Client,
}

impl Bmc {
    pub(crate) fn new(fleet: &Fleet, machine: &MachineHandle) -> Self {
        let client = Client::builder()
            .tls_certs_only([Certificate::from_pem(fleet.ca_pem().as_bytes()).unwrap()])
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        Self {
            base: machine.url(),
            client,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) async fn try_get(&self, path: &str) -> reqwest::Result<Response> {
        self.client
            .get(self.url(path))
            .basic_auth("admin", Some("kiban-sim"))
            .send()
            .await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self.try_get(path).await.unwrap();
        assert_eq!(response.status(), 200, "GET {path}");
        response.json().await.unwrap()
    }

    pub(crate) async fn status(&self, path: &str) -> u16 {
        self.try_get(path).await.unwrap().status().as_u16()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Response {
        self.client
            .post(self.url(path))
            .basic_auth("admin", Some("kiban-sim"))
            .json(&body)
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn patch(&self, path: &str, body: Value, if_match: Option<&str>) -> Response {
        let mut request = self
            .client
            .patch(self.url(path))
            .basic_auth("admin", Some("kiban-sim"))
            .json(&body);
        if let Some(etag) = if_match {
            request = request.header("If-Match", etag);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn multipart(
        &self,
        path: &str,
        image: &Image,
        parameters: Value,
    ) -> reqwest::Result<Response> {
        let form = multipart::Form::new()
            .part(
                "UpdateParameters",
                multipart::Part::text(parameters.to_string())
                    .mime_str("application/json")
                    .unwrap(),
            )
            .part(
                "UpdateFile",
                multipart::Part::bytes(image.bytes.clone()).file_name("image.bin"),
            );
        self.client
            .post(self.url(path))
            .basic_auth("admin", Some("kiban-sim"))
            .multipart(form)
            .send()
            .await
    }

    pub(crate) async fn raw(&self, path: &str, image: &Image) -> Response {
        self.client
            .post(self.url(path))
            .basic_auth("admin", Some("kiban-sim"))
            .body(image.bytes.clone())
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn inventory(&self) -> Vec<Value> {
        let list = self.get("/redfish/v1/UpdateService/FirmwareInventory").await;
        let mut entries = Vec::new();
        for member in list["Members"].as_array().unwrap() {
            entries.push(self.get(member["@odata.id"].as_str().unwrap()).await);
        }
        entries
    }

    pub(crate) async fn ids(&self) -> Vec<String> {
        self.inventory()
            .await
            .iter()
            .map(|e| e["Id"].as_str().unwrap().to_owned())
            .collect()
    }

    pub(crate) async fn until_task(&self, path: &str, state: &str) -> Value {
        until(&format!("{path} is {state}"), || async {
            let task: Value = self.try_get(path).await.ok()?.json().await.ok()?;
            (task["TaskState"] == state).then_some(task)
        })
        .await
    }

    /// Sends an image the way that this persona takes it, to the point where the BMC goes on by itself.
    pub(crate) async fn update(&self, persona: Persona, image: &Image) -> Response {
        match persona {
            Persona::Dell => {
                let parameters = json!({"Targets": [], "@Redfish.OperationApplyTime": "OnReset", "Oem": {}});
                self.multipart("/redfish/v1/UpdateService/MultipartUpload", image, parameters)
                    .await
                    .unwrap()
            }
            Persona::Lenovo => self
                .multipart("/mfwupdate", image, json!({"Targets": []}))
                .await
                .unwrap(),
            Persona::Hpe => {
                let login = json!({"UserName": "admin", "Password": "kiban-sim"});
                let session = self.post("/redfish/v1/SessionService/Sessions", login).await;
                let key = session.headers()["x-auth-token"].to_str().unwrap().to_owned();
                let form = multipart::Form::new()
                    .text("sessionKey", key)
                    .text("parameters", r#"{"UpdateRepository":false,"UpdateTarget":true}"#)
                    .part(
                        "file",
                        multipart::Part::bytes(image.bytes.clone()).file_name("image.bin"),
                    );
                self.client
                    .post(self.url("/cgi-bin/uploadFile"))
                    .basic_auth("admin", Some("kiban-sim"))
                    .multipart(form)
                    .send()
                    .await
                    .unwrap()
            }
            Persona::Supermicro => {
                let parameters =
                    json!({"Targets": [], "@Redfish.OperationApplyTime": "OnStartUpdateRequest"});
                let answer = self
                    .multipart("/redfish/v1/UpdateService/upload", image, parameters)
                    .await
                    .unwrap();
                assert_eq!(answer.status(), 202);
                let body: Value = answer.json().await.unwrap();
                let task = body["Accepted"]["@Message.ExtendedInfo"][0]["MessageArgs"][0]
                    .as_str()
                    .unwrap();
                let verified = self.until_task(task, "Completed").await;
                assert!(
                    verified["Name"].as_str().unwrap().ends_with("Verify"),
                    "{verified}"
                );
                self.post(
                    "/redfish/v1/UpdateService/Actions/UpdateService.StartUpdate",
                    json!({}),
                )
                .await
            }
            Persona::Openbmc => self.raw("/redfish/v1/UpdateService/update", image).await,
        }
    }

    pub(crate) fn system(persona: Persona) -> &'static str {
        match persona {
            Persona::Dell => "/redfish/v1/Systems/System.Embedded.1",
            Persona::Openbmc => "/redfish/v1/Systems/system",
            _ => "/redfish/v1/Systems/1",
        }
    }

    pub(crate) async fn reset(&self, persona: Persona, kind: &str) -> Response {
        let path = format!("{}/Actions/ComputerSystem.Reset", Self::system(persona));
        self.post(&path, json!({"ResetType": kind})).await
    }
}
