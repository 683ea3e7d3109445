//! The client against the emulated fleet: every persona read, updated and reset, end to end.

use kiban_bmc::{
    ApplyTime, Bmc, BmcResult, Connector, Credentials, Endpoint, ErrorKind, ExpectedIdentity, Fingerprint,
    HostReset, Image, Limits, PowerState, RedfishConnector, Started, TaskOutcome, TaskProgress, Trust,
    UpdateMethod, UpdateRequest, Vendor, image::ImageEndpoint,
};
use kiban_core::component::ComponentClass;
use kiban_sim::{
    Class, Fault, FlashOutcome, Fleet, FleetSpec, MachineHandle, MachineSpec, Options, Persona, Rule, What,
    image::{ImageHeader, build},
};
use std::{
    sync::{Arc, Once},
    time::Duration,
};

const SPEED: f64 = 150.0;
/// Ten minutes of the machines' time.
const PATIENCE: usize = 400;

fn limits() -> Limits {
    Limits {
        poll: Duration::from_millis(10),
        off_time: Duration::from_millis(20),
        request_timeout: Duration::from_secs(20),
        ..Limits::default()
    }
}

struct Rig {
    fleet: Fleet,
    folder: tempfile::TempDir,
}

impl Rig {
    async fn start(persona: Persona) -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let spec = FleetSpec {
            models: Vec::new(),
            machines: vec![MachineSpec::new("m1", persona)],
        };
        let fleet = Fleet::start(
            spec,
            Options {
                record_reads: true,
                ..Options::fast(SPEED)
            },
        )
        .await
        .unwrap();
        Self {
            fleet,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn machine(&self) -> MachineHandle {
        self.fleet.machine("m1").unwrap()
    }

    fn endpoint(&self) -> Endpoint {
        let (username, password) = self.fleet.credentials();
        let machine = self.machine();
        Endpoint {
            url: machine.url(),
            credentials: Credentials::new(username, password),
            trust: Trust::Pinned(Fingerprint::parse(&machine.fingerprint()).unwrap()),
            expect: Some(ExpectedIdentity {
                serial: Some(machine.state().serial),
                uuid: None,
            }),
        }
    }

    async fn connect(&self) -> BmcResult<Arc<dyn Bmc>> {
        RedfishConnector::new(limits()).connect(&self.endpoint()).await
    }

    fn request(&self, class: Class, version: &str) -> UpdateRequest {
        let model = self.machine().model().name.to_string();
        let image = build(&ImageHeader::new(class, version, model), 200_000);
        let name = format!("{class}-{version}.bin");
        let path = self.folder.path().join(&name);
        std::fs::write(&path, &image.bytes).unwrap();
        UpdateRequest {
            class: class.to_string().parse().unwrap(),
            components: Vec::new(),
            image: Image {
                path,
                file_name: name,
                size: image.bytes.len() as u64,
                sha256: image.sha256,
            },
            image_url: None,
            apply: ApplyTime::Immediate,
            wanted: version.to_owned(),
            method: None,
            force: false,
            deadline: Duration::from_secs(60),
        }
    }

    /// Follows a task until it ends or waits for a reset, across restarts of the BMC.
    async fn follow(&self, bmc: &dyn Bmc, started: &Started) -> Option<TaskProgress> {
        let mut task = started.task.clone()?;
        for _ in 0..PATIENCE {
            match bmc.follow(&task).await {
                Ok(progress) if progress.moved_to.is_some() => task = progress.moved_to.unwrap(),
                Ok(progress) if progress.outcome == TaskOutcome::InProgress => {}
                Ok(progress) => return Some(progress),
                Err(error) => assert!(error.transient(), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        panic!("the task of {started:?} never ends");
    }

    /// Reads until the wanted version runs.
    async fn wait_for(&self, bmc: &dyn Bmc, class: ComponentClass, wanted: &str) {
        let mut last = String::new();
        for _ in 0..PATIENCE {
            match bmc.inventory().await {
                Ok(inventory) => {
                    let found = inventory
                        .components
                        .iter()
                        .find(|component| component.class == class);
                    last = format!("{found:?}");
                    if found.and_then(|component| component.version.as_deref()) == Some(wanted) {
                        return;
                    }
                }
                Err(error) => {
                    assert!(error.transient(), "{error}");
                    last = error.to_string();
                }
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        panic!("{class} never runs {wanted}: {last}");
    }

    /// Waits until the BMC and the host are up again.
    async fn back(&self, bmc: &dyn Bmc) {
        for _ in 0..PATIENCE {
            let state = self.machine().state();
            if state.bmc == "Up" && state.host == "On" && bmc.power().await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        panic!("the machine never comes back: {:?}", self.machine().state());
    }

    /// What must hold at every test's end.
    async fn end(self, bmc: Arc<dyn Bmc>, flashes: usize) {
        bmc.close().await.unwrap();
        assert_eq!(self.machine().state().sessions, 0, "every session is given back");
        assert_eq!(
            self.fleet.record().all_flashes().len(),
            flashes,
            "{:#?}",
            self.fleet.record().all_flashes()
        );
        assert!(self.fleet.record().double_flashes().is_empty());
        self.fleet.shutdown().await;
    }
}

/// The whole way, for the BIOS and then the BMC.
async fn update_everything(persona: Persona, vendor: Vendor, method: Option<UpdateMethod>) {
    let rig = Rig::start(persona).await;
    let bmc = rig.connect().await.unwrap();
    let identity = bmc.identity().await.unwrap();
    assert_eq!(identity.vendor, vendor);
    let state = rig.machine().state();
    assert_eq!(identity.serial.as_deref(), Some(state.serial.as_str()));
    assert_eq!(identity.uuid.as_deref(), Some(state.uuid.to_string().as_str()));
    assert_eq!(bmc.power().await.unwrap(), PowerState::On);
    assert!(bmc.health().await.unwrap().steady);

    let inventory = bmc.inventory().await.unwrap();
    for firmware in &state.firmware {
        let class: ComponentClass = firmware.class.to_string().parse().unwrap();
        let fits = |c: &&kiban_core::component::Component| {
            c.class == class
                && c.version
                    .as_deref()
                    .is_some_and(|v| v.contains(&firmware.version))
        };
        assert!(
            inventory.components.iter().any(|c| fits(&c)),
            "{firmware:?} is missing: {:#?}",
            inventory.components
        );
    }

    for (class, version) in [(Class::Bios, "9.9.1"), (Class::Bmc, "9.8.2")] {
        let wanted: ComponentClass = class.to_string().parse().unwrap();
        let before = inventory.components.iter().filter(|c| c.class == wanted).count();
        assert_eq!(before, 1, "one {wanted}: {:#?}", inventory.components);
        let mut request = rig.request(class, version);
        request.method = method;
        let started = bmc.start_update(&request).await.unwrap();
        println!("{persona:?} {class}: {started:?}");
        let progress = rig.follow(bmc.as_ref(), &started).await;
        println!("{persona:?} {class}: {progress:?}");
        assert_ne!(
            progress.map(|progress| progress.outcome),
            Some(TaskOutcome::Failed)
        );
        if class == Class::Bios {
            bmc.reset_host(HostReset::ForceRestart).await.unwrap();
        }
        rig.wait_for(bmc.as_ref(), wanted, version).await;
        let pending = bmc.pending_work().await.unwrap();
        assert!(pending.iter().all(|work| !work.open()), "{pending:#?}");
    }
    let sent = rig.fleet.record().all_flashes();
    assert!(
        sent.iter()
            .all(|flash| matches!(flash.finished, Some((_, FlashOutcome::Written)))),
        "{sent:#?}"
    );
    rig.end(bmc, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dell_from_reading_to_new_firmware() {
    update_everything(Persona::Dell, Vendor::Dell, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hpe_from_reading_to_new_firmware() {
    update_everything(Persona::Hpe, Vendor::Hpe, Some(UpdateMethod::HttpPush)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lenovo_from_reading_to_new_firmware() {
    update_everything(Persona::Lenovo, Vendor::Lenovo, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn supermicro_from_reading_to_new_firmware() {
    update_everything(Persona::Supermicro, Vendor::Supermicro, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openbmc_from_reading_to_new_firmware() {
    update_everything(Persona::Openbmc, Vendor::OpenBmc, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bmc_fetches_the_image_from_its_unguessable_path() {
    for persona in [Persona::Dell, Persona::Hpe, Persona::Openbmc] {
        let rig = Rig::start(persona).await;
        let bmc = rig.connect().await.unwrap();
        let capabilities = bmc.capabilities().await.unwrap();
        if !capabilities.methods.contains(&UpdateMethod::SimpleUpdate) {
            println!("{persona:?} has no SimpleUpdate");
            rig.end(bmc, 0).await;
            continue;
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let images = ImageEndpoint::new(&format!("http://{}", listener.local_addr().unwrap()));
        let serving = tokio::spawn(axum::serve(listener, images.router()).into_future());
        let mut request = rig.request(Class::Bmc, "9.7.3");
        let offer = images.offer(&request.image, Duration::from_secs(60));
        request.image_url = Some(offer.url().to_owned());
        request.method = Some(UpdateMethod::SimpleUpdate);
        let started = bmc.start_update(&request).await.unwrap();
        rig.follow(bmc.as_ref(), &started).await;
        rig.wait_for(bmc.as_ref(), ComponentClass::Bmc, "9.7.3").await;
        assert!(offer.fetches() >= 1);
        serving.abort();
        rig.end(bmc, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unanswered_update_is_settled_by_reading() {
    let rig = Rig::start(Persona::Dell).await;
    let bmc = rig.connect().await.unwrap();
    rig.fleet.faults().add(
        Rule::new("m1", Fault::CutAfter)
            .on("POST", "/redfish/v1/UpdateService/*")
            .times(1),
    );
    let error = bmc
        .start_update(&rig.request(Class::Bmc, "9.9.1"))
        .await
        .unwrap_err();
    assert!(error.outcome_unknown(), "{error}");
    let work = bmc.pending_work().await.unwrap();
    assert!(
        work.iter().any(kiban_bmc::PendingWork::open),
        "the BMC knows of it: {work:#?}"
    );
    rig.wait_for(bmc.as_ref(), ComponentClass::Bmc, "9.9.1").await;
    rig.end(bmc, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_update_is_refused_and_names_the_first() {
    for persona in Persona::ALL {
        let rig = Rig::start(persona).await;
        let bmc = rig.connect().await.unwrap();
        bmc.start_update(&rig.request(Class::Bios, "9.9.1"))
            .await
            .unwrap();
        let error = bmc
            .start_update(&rig.request(Class::Bios, "9.9.2"))
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome_unknown()),
            (ErrorKind::Busy, false),
            "{persona:?}: {error}"
        );
        bmc.close().await.unwrap();
        rig.fleet.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_entry_in_ilos_queue_is_named_and_left_alone() {
    let rig = Rig::start(Persona::Hpe).await;
    rig.machine().add_queue_entry("somebody's update", "Exception");
    let bmc = rig.connect().await.unwrap();
    let error = bmc
        .start_update(&rig.request(Class::Bmc, "9.9.1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("somebody's update"), "{error}");
    rig.end(bmc, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_at_the_address_is_not_flashed() {
    let rig = Rig::start(Persona::Supermicro).await;
    let bmc = rig.connect().await.unwrap();
    bmc.identity().await.unwrap();
    rig.fleet.faults().add(Rule::new(
        "m1",
        Fault::WrongSerial {
            serial: "STRANGER".into(),
        },
    ));
    let error = bmc
        .start_update(&rig.request(Class::Bmc, "9.9.1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongMachine, "{error}");
    assert!(error.to_string().contains("STRANGER"), "{error}");
    rig.end(bmc, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_certificate_stops_everything() {
    let rig = Rig::start(Persona::Dell).await;
    let endpoint = rig.endpoint();
    rig.machine().renew_certificate();
    let error = RedfishConnector::new(limits())
        .connect(&endpoint)
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::CertificateChanged, "{error}");
    rig.fleet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_bmc_is_found_by_reading_back() {
    let rig = Rig::start(Persona::Dell).await;
    let bmc = rig.connect().await.unwrap();
    rig.fleet
        .faults()
        .add(Rule::new("m1", Fault::CompletedUnchanged).times(1));
    let before = rig.machine().version(Class::Bmc);
    let started = bmc.start_update(&rig.request(Class::Bmc, "9.9.1")).await.unwrap();
    let progress = rig.follow(bmc.as_ref(), &started).await.unwrap();
    assert!(
        matches!(progress.outcome, TaskOutcome::Done | TaskOutcome::Gone),
        "{progress:?}"
    );
    let inventory = loop {
        match bmc.inventory().await {
            Ok(inventory) => break inventory,
            Err(error) => assert!(error.transient(), "{error}"),
        }
    };
    let read = inventory
        .components
        .into_iter()
        .find(|c| c.class == ComponentClass::Bmc)
        .unwrap();
    assert_eq!(read.version, before);
    bmc.close().await.unwrap();
    rig.fleet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ac_cycles_activate_what_waits_for_them_on_every_persona() {
    for persona in Persona::ALL {
        let rig = Rig::start(persona).await;
        let bmc = rig.connect().await.unwrap();
        assert!(bmc.capabilities().await.unwrap().ac_cycle, "{persona:?}");
        let before = rig.machine().version(Class::Cpld).unwrap();
        let started = bmc.start_update(&rig.request(Class::Cpld, "77.7")).await.unwrap();
        rig.follow(bmc.as_ref(), &started).await;
        bmc.reset_host(HostReset::ForceRestart).await.unwrap();
        // Supermicro's needs two: one too few must not be enough.
        let cycles = if persona == Persona::Supermicro { 2 } else { 1 };
        for _ in 0..cycles {
            assert_eq!(rig.machine().version(Class::Cpld).unwrap(), before, "{persona:?}");
            bmc.ac_cycle().await.unwrap();
            rig.back(bmc.as_ref()).await;
        }
        rig.wait_for(bmc.as_ref(), ComponentClass::Cpld, "77.7").await;
        rig.end(bmc, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_boot_is_off_then_on_whatever_the_host_was() {
    for persona in Persona::ALL {
        let rig = Rig::start(persona).await;
        let bmc = rig.connect().await.unwrap();
        bmc.reset_host(HostReset::ColdBoot).await.unwrap();
        assert_ne!(rig.machine().state().host, "Off", "{persona:?}");
        bmc.reset_host(HostReset::ForceOff).await.unwrap();
        while bmc.power().await.unwrap() != PowerState::Off {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bmc.reset_host(HostReset::ColdBoot).await.unwrap();
        assert_ne!(rig.machine().state().host, "Off", "{persona:?}");
        let sent: Vec<String> = rig
            .fleet
            .record()
            .of("m1")
            .into_iter()
            .filter_map(|entry| match entry.what {
                What::Request { summary, .. } => summary.reset_type,
                _ => None,
            })
            .collect();
        assert_eq!(sent, ["ForceOff", "On", "ForceOff", "On"], "{persona:?}");
        rig.end(bmc, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_licence_is_named_and_nothing_is_sent_twice() {
    let rig = Rig::start(Persona::Supermicro).await;
    rig.fleet.faults().add(Rule::new("m1", Fault::Unlicensed));
    let bmc = rig.connect().await.unwrap();
    bmc.inventory().await.unwrap();
    let error = bmc
        .start_update(&rig.request(Class::Bmc, "9.9.1"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.outcome_unknown(), error.transient()),
        (ErrorKind::NotLicensed, false, false),
        "{error}"
    );
    assert!(error.to_string().contains("DCMS"), "{error}");
    rig.end(bmc, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_becomes_a_job_is_followed_there() {
    let rig = Rig::start(Persona::Lenovo).await;
    let bmc = rig.connect().await.unwrap();
    let started = bmc.start_update(&rig.request(Class::Nic, "9.9.1")).await.unwrap();
    let first = started.task.clone().unwrap();
    let moved = loop {
        let progress = bmc.follow(&first).await.unwrap();
        assert!(
            !matches!(progress.outcome, TaskOutcome::Done | TaskOutcome::Failed),
            "{progress:?}"
        );
        if let Some(job) = progress.moved_to {
            break job;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(moved.uri.contains("/JobService/Jobs/"), "{moved:?}");
    let work = bmc.pending_work().await.unwrap();
    assert!(work.iter().any(|work| work.task == moved), "{work:#?}");
    let progress = rig.follow(bmc.as_ref(), &started).await.unwrap();
    assert_eq!(progress.outcome, TaskOutcome::Done);
    bmc.reset_host(HostReset::ForceRestart).await.unwrap();
    rig.wait_for(bmc.as_ref(), ComponentClass::Nic, "9.9.1").await;
    rig.end(bmc, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebodys_install_set_blocks_until_the_host_has_done_it() {
    let rig = Rig::start(Persona::Hpe).await;
    rig.machine()
        .invoke_install_set("spp", &[("ilo", "Bmc"), ("rom", "Uefi"), ("nic", "Uefi")]);
    let bmc = rig.connect().await.unwrap();
    let error = bmc
        .start_update(&rig.request(Class::Bmc, "9.9.1"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    let (text, own) = (error.to_string(), "ilo.fwpkg");
    assert!(
        text.contains(".fwpkg") && !text.contains(own),
        "iLO has done its own: {text}"
    );
    bmc.reset_host(HostReset::ForceRestart).await.unwrap();
    while bmc
        .pending_work()
        .await
        .unwrap()
        .iter()
        .any(kiban_bmc::PendingWork::open)
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let started = bmc.start_update(&rig.request(Class::Bmc, "9.9.1")).await.unwrap();
    rig.follow(bmc.as_ref(), &started).await;
    rig.wait_for(bmc.as_ref(), ComponentClass::Bmc, "9.9.1").await;
    rig.end(bmc, 1).await;
}
