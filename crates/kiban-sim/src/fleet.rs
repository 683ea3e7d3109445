//! The running fleet: what a test, the demo or a bench holds.

use crate::{
    certificate::{Authority, CertificateError, Leaf},
    clock::Clock,
    fault::{Fault, Faults, Rule},
    model::{Class, Model, Persona},
    record::{Record, What},
    server,
    spec::{FleetSpec, SpecError, Timing},
    state::{Bmc, Host, Machine, QueueEntry, Slot, State},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How the machines' addresses are chosen when the spec does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// An address of 127.0.0.0/8 per machine, on one port, below a prefix that is drawn at random. A BMC that is down
    /// then really refuses connections, and nobody else can take its port meanwhile.
    AddressEach {
        /// The port of all machines.
        port: u16,
    },
    /// 127.0.0.1 and a port per machine, upwards from here. Stay below 32768, where the kernel takes ports for others.
    PortEach {
        /// The first port.
        base: u16,
    },
}

/// Whether machines share a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificates {
    /// Each machine its own, made when it is first needed.
    PerMachine,
    /// One for all, with `localhost` and 127.0.0.1 as its names. For thousands of idle BMCs on [`Listen::PortEach`].
    Shared,
}

/// How a fleet is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The account on every BMC.
    pub username: String,
    /// Its password.
    pub password: String,
    /// Virtual seconds per real second.
    pub speed: f64,
    /// Where machines listen.
    pub listen: Listen,
    /// Their certificates.
    pub certificates: Certificates,
    /// Where the admin endpoint listens (plain HTTP), if anywhere. It has no authentication: loopback only.
    pub admin: Option<SocketAddr>,
    /// What makes shuffles and the like repeatable.
    pub seed: u64,
    /// Whether reads are in the record too.
    pub record_reads: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            username: "admin".into(),
            password: "kiban-sim".into(),
            speed: 1.0,
            listen: Listen::AddressEach { port: 8443 },
            certificates: Certificates::PerMachine,
            admin: None,
            seed: 1,
            record_reads: false,
        }
    }
}

impl Options {
    /// The default with another speed.
    pub fn fast(speed: f64) -> Self {
        Self {
            speed,
            ..Self::default()
        }
    }
}

/// Why a fleet does not start.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The spec is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// An address cannot be listened on.
    #[error("listen on {address} for {machine}")]
    Listen {
        /// Who wanted to listen.
        machine: String,
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// There are more machines than file descriptors.
    #[error(
        "open {needed} listeners: this process may have {limit} open files; raise it with `ulimit -n {suggested}`"
    )]
    Files {
        /// Listeners and some connections.
        needed: u64,
        /// The soft limit.
        limit: u64,
        /// What would do.
        suggested: u64,
    },
    /// Machines do not fit into the ports from the base on.
    #[error("give {count} machines a port each from {base} on")]
    Ports {
        /// How many machines.
        count: usize,
        /// The first port.
        base: u16,
    },
    /// The HTTP client that fetches images cannot be made.
    #[error("set up the client that fetches images")]
    Client(#[source] reqwest::Error),
    /// The admin endpoint may not be open to the network.
    #[error("serve the admin endpoint on {0}: it has no authentication and must be on loopback")]
    Admin(SocketAddr),
}

pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) record: Record,
    pub(crate) faults: Faults,
    pub(crate) options: Options,
    pub(crate) machines: Vec<Machine>,
    by_name: HashMap<Box<str>, u32>,
    heap: Mutex<BinaryHeap<Reverse<(u64, u32)>>>,
    due: Notify,
    authority: Authority,
    common: OnceLock<Arc<Leaf>>,
    pub(crate) client: reqwest::Client,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) connections: AtomicU64,
    pub(crate) handshakes: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) peak_in_flight: AtomicU64,
}

impl Shared {
    /// Makes sure that somebody looks at the machine when its timer is due.
    pub(crate) fn schedule(&self, at_ms: u64, machine: u32) {
        let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
        let sooner = heap.peek().is_none_or(|Reverse((t, _))| at_ms < *t);
        heap.push(Reverse((at_ms, machine)));
        if sooner {
            self.due.notify_one();
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Machine> {
        self.by_name.get(name).map(|i| &self.machines[*i as usize])
    }

    /// The certificate that a machine shows now.
    pub(crate) fn leaf(&self, machine: &Machine, own: bool) -> Result<Arc<Leaf>, CertificateError> {
        let ip = machine
            .address
            .get()
            .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), SocketAddr::ip);
        if !own {
            let now = self.clock.now_ms();
            let occasion = crate::fault::Occasion::default();
            match self.faults.fire(now, &machine.name, occasion, |f| {
                matches!(f, Fault::CertificateChanged | Fault::CertificateExpired)
            }) {
                Some(Fault::CertificateChanged) => return self.authority.stranger(ip),
                Some(Fault::CertificateExpired) => return self.authority.expired(ip),
                _ => {}
            }
        }
        if self.options.certificates == Certificates::Shared {
            if let Some(leaf) = self.common.get() {
                return Ok(leaf.clone());
            }
            let leaf = self
                .authority
                .leaf("kiban-sim", &[IpAddr::V4(Ipv4Addr::LOCALHOST)])?;
            return Ok(self.common.get_or_init(|| leaf).clone());
        }
        let mut slot = machine.certificate.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = slot.as_ref() {
            return Ok(leaf.clone());
        }
        let leaf = self.authority.leaf(&machine.name, &[ip])?;
        *slot = Some(leaf.clone());
        Ok(leaf)
    }

    pub(crate) fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    async fn run_timers(self: Arc<Self>) {
        loop {
            let next = self
                .heap
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .peek()
                .map(|Reverse(x)| *x);
            let Some((at, index)) = next else {
                tokio::select! {
                    () = self.due.notified() => continue,
                    () = self.stop.cancelled() => return,
                }
            };
            if self.clock.now_ms() < at {
                tokio::select! {
                    () = tokio::time::sleep_until(self.clock.real(at).into()) => {}
                    () = self.due.notified() => {}
                    () = self.stop.cancelled() => return,
                }
                continue;
            }
            self.heap.lock().unwrap_or_else(PoisonError::into_inner).pop();
            self.with(&self.machines[index as usize], |_| ());
        }
    }

    pub(crate) fn faults_changed(&self) {
        for machine in &self.machines {
            machine.changed.notify_waiters();
        }
    }
}

/// A running fleet. Dropping it stops it; [`Fleet::shutdown`] also waits.
pub struct Fleet {
    shared: Arc<Shared>,
    admin: Option<SocketAddr>,
}

impl Fleet {
    /// Starts every machine of the spec in the runtime of the caller.
    pub async fn start(spec: FleetSpec, options: Options) -> Result<Self, FleetError> {
        spec.check_names()?;
        check_files(spec.machines.len() as u64)?;
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // The client that fetches images needs a default; losing the race to another thread is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let shared = Arc::new(build(&spec, options)?);
        let listeners = listen(&shared, &spec).await?;
        for (index, listener) in listeners.into_iter().enumerate() {
            shared.tasks.spawn(server::run(shared.clone(), index, listener));
        }
        shared.tasks.spawn(shared.clone().run_timers());
        let admin = match shared.options.admin {
            Some(address) if !address.ip().is_loopback() => return Err(FleetError::Admin(address)),
            Some(address) => Some(crate::admin::serve(shared.clone(), address).await?),
            None => None,
        };
        Ok(Self { shared, admin })
    }

    /// All machines, in the spec's order.
    pub fn machines(&self) -> Vec<MachineHandle> {
        (0..self.shared.machines.len() as u32)
            .map(|index| self.handle(index))
            .collect()
    }

    /// One machine.
    pub fn machine(&self, name: &str) -> Option<MachineHandle> {
        self.shared.by_name.get(name).map(|index| self.handle(*index))
    }

    fn handle(&self, index: u32) -> MachineHandle {
        MachineHandle {
            shared: self.shared.clone(),
            index,
        }
    }

    /// The certificate authority of every BMC, as PEM.
    pub fn ca_pem(&self) -> String {
        self.shared.authority.pem().to_owned()
    }

    /// The faults in force.
    pub fn faults(&self) -> FaultHandle {
        FaultHandle {
            shared: self.shared.clone(),
        }
    }

    /// The log of everything that changed something.
    pub fn record(&self) -> &Record {
        &self.shared.record
    }

    /// The clock that machines live by.
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// The account of every BMC.
    pub fn credentials(&self) -> (&str, &str) {
        (&self.shared.options.username, &self.shared.options.password)
    }

    /// Where the admin endpoint listens.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Counts since the start.
    pub fn stats(&self) -> Stats {
        stats(&self.shared)
    }

    /// Stops everything and waits for it.
    pub async fn shutdown(self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// Counts of a fleet since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Machines.
    pub machines: u64,
    /// Connections open now.
    pub connections: u64,
    /// TLS handshakes done.
    pub handshakes: u64,
    /// Requests answered.
    pub requests: u64,
    /// Requests being answered now.
    pub in_flight: u64,
    /// The most requests that were being answered at once.
    pub peak_in_flight: u64,
    /// Lines in the record.
    pub record: u64,
}

pub(crate) fn stats(shared: &Shared) -> Stats {
    let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
    Stats {
        machines: shared.machines.len() as u64,
        connections: get(&shared.connections),
        handshakes: get(&shared.handshakes),
        requests: get(&shared.requests),
        in_flight: get(&shared.in_flight),
        peak_in_flight: get(&shared.peak_in_flight),
        record: shared.record.len() as u64,
    }
}

/// Adds and removes faults.
#[derive(Clone)]
pub struct FaultHandle {
    pub(crate) shared: Arc<Shared>,
}

impl FaultHandle {
    /// Adds a rule and returns its id.
    pub fn add(&self, rule: Rule) -> u64 {
        let id = self.shared.faults.add(rule, self.shared.clock.now_ms());
        self.shared.faults_changed();
        id
    }

    /// Removes a rule; whether there was one.
    pub fn remove(&self, id: u64) -> bool {
        let removed = self.shared.faults.remove(|r| r.id != id);
        self.shared.faults_changed();
        removed > 0
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.shared.faults.remove(|_| false);
        self.shared.faults_changed();
    }

    /// The rules, with how often each fired.
    pub fn list(&self) -> Vec<Rule> {
        self.shared.faults.list()
    }
}

/// What runs on one component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Firmware {
    /// The component's id.
    pub id: String,
    /// Its class.
    pub class: Class,
    /// The version that runs.
    pub version: String,
    /// The version that waits for its activation.
    pub staged: Option<String>,
}

/// What a machine is at this moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineState {
    /// Its name.
    pub name: String,
    /// Its BMC's base URL.
    pub url: String,
    /// Its persona.
    pub persona: Persona,
    /// Its model.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// Its UUID.
    pub uuid: uuid::Uuid,
    /// `Up`, `Dark`, `Starting` or `Dead`.
    pub bmc: String,
    /// `Off`, `Booting`, `On` or `Stopping`.
    pub host: String,
    /// Whether an update is under way.
    pub updating: bool,
    /// Open sessions.
    pub sessions: usize,
    /// Requests answered.
    pub requests: u64,
    /// The most requests that its BMC answered at once.
    pub peak_in_flight: u32,
    /// When the last request came, in virtual milliseconds.
    pub last_request_ms: Option<u64>,
    /// What runs.
    pub firmware: Vec<Firmware>,
}

/// One machine of a running fleet: to look at, and to change beside the network.
#[derive(Clone)]
pub struct MachineHandle {
    shared: Arc<Shared>,
    index: u32,
}

impl MachineHandle {
    fn machine(&self) -> &Machine {
        &self.shared.machines[self.index as usize]
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.machine().name
    }

    /// Its BMC's base URL, without a slash at its end.
    pub fn url(&self) -> String {
        url(self.machine())
    }

    /// Where its BMC listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.machine().address.get().copied()
    }

    /// SHA-256 of its certificate (DER), lower-case hexadecimal. Empty if the certificate cannot be made.
    pub fn fingerprint(&self) -> String {
        self.shared
            .leaf(self.machine(), true)
            .map(|l| l.fingerprint.clone())
            .unwrap_or_default()
    }

    /// Its model.
    pub fn model(&self) -> &Model {
        &self.machine().model
    }

    /// What it is at this moment.
    pub fn state(&self) -> MachineState {
        machine_state(&self.shared, self.machine())
    }

    /// The version that runs on the first component of a class.
    pub fn version(&self, class: Class) -> Option<String> {
        self.state()
            .firmware
            .into_iter()
            .find(|f| f.class == class)
            .map(|f| f.version)
    }

    /// Replaces the firmware of a class by hand: a human flashes beside us.
    pub fn set_version(&self, class: Class, version: &str) {
        self.by_hand(&format!("set {class} to {version}"), |turn| {
            for slot in turn.machine.model.of_class(class).collect::<Vec<_>>() {
                turn.flash_by_hand(slot, version);
            }
        });
    }

    /// Gives it another serial number: another machine answers here.
    pub fn set_serial(&self, serial: &str) {
        self.by_hand("swap serial", |turn| turn.st.serial = serial.into());
    }

    /// Gives it another UUID.
    pub fn set_uuid(&self, uuid: uuid::Uuid) {
        self.by_hand("swap uuid", |turn| turn.st.uuid = uuid);
    }

    /// Replaces its certificate for good, by one of the same authority.
    pub fn renew_certificate(&self) {
        *self
            .machine()
            .certificate
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        self.by_hand("renew certificate", |_| ());
    }

    /// Changes the account's password.
    pub fn set_password(&self, password: &str) {
        self.by_hand("set password", |turn| {
            turn.st.extra().password = Some(password.to_owned());
        });
    }

    /// Ends all sessions, as a time-out would.
    pub fn end_sessions(&self) {
        self.by_hand("end sessions", |turn| turn.st.sessions.clear());
    }

    /// Puts an install set's steps (name, and who does it: `Bmc`, `Uefi`, `RuntimeAgent`) into iLO's update task queue, as
    /// somebody else's tool would.
    pub fn invoke_install_set(&self, name: &str, steps: &[(&str, &str)]) {
        self.by_hand(&format!("invoke install set {name}"), |turn| {
            let own = |(step, by): &(&str, &str)| ((*step).to_owned(), (*by).to_owned());
            turn.enqueue(steps.iter().map(own).collect());
        });
    }

    /// Puts a foreign entry into iLO's update task queue, which blocks what comes behind it.
    pub fn add_queue_entry(&self, name: &str, state: &str) {
        self.by_hand("add a queue entry", |turn| {
            let queue = &mut turn.st.extra().queue;
            let id = queue.iter().map(|e| e.id).max().unwrap_or(0) + 1;
            queue.push(QueueEntry {
                id,
                name: name.to_owned(),
                state: state.to_owned(),
                by: "Uefi".into(),
            });
        });
    }

    /// Resets the host, as its front panel would. The type is one of Redfish's.
    pub fn reset_host(&self, kind: &str) {
        self.by_hand(kind, |turn| {
            let _ = turn.reset_host(kind);
        });
    }

    /// Resets the BMC, as a person beside the machine would.
    pub fn reset_bmc(&self) {
        self.by_hand("reset the BMC", |turn| turn.reset_bmc("by hand"));
    }

    /// Pulls the power cords and plugs them in again.
    pub fn ac_cycle(&self) {
        self.by_hand("AC cycle", |turn| turn.ac_cycle("by hand"));
    }

    fn by_hand(&self, action: &str, act: impl FnOnce(&mut crate::state::Turn<'_>)) {
        by_hand(&self.shared, self.machine(), action, act);
    }
}

pub(crate) fn by_hand(
    shared: &Shared,
    machine: &Machine,
    action: &str,
    act: impl FnOnce(&mut crate::state::Turn<'_>),
) {
    shared.with(machine, |turn| {
        turn.log(What::ByHand {
            action: action.to_owned(),
        });
        act(turn);
    });
}

pub(crate) fn url(machine: &Machine) -> String {
    machine
        .address
        .get()
        .map_or_else(String::new, |a| format!("https://{a}"))
}

pub(crate) fn machine_state(shared: &Shared, machine: &Machine) -> MachineState {
    shared.with(machine, |turn| MachineState {
        name: machine.name.to_string(),
        url: url(machine),
        persona: machine.model.persona,
        model: machine.model.name.clone(),
        serial: turn.st.serial.to_string(),
        uuid: turn.st.uuid,
        bmc: format!("{:?}", turn.st.bmc),
        host: format!("{:?}", turn.st.host),
        updating: turn.st.update().is_some(),
        sessions: turn.st.sessions.list().len(),
        requests: machine.requests.load(Ordering::Relaxed),
        peak_in_flight: machine.peak_in_flight.load(Ordering::Relaxed),
        last_request_ms: machine.last_request.load(Ordering::Relaxed).checked_sub(1),
        firmware: machine
            .model
            .components
            .iter()
            .enumerate()
            .map(|(slot, c)| Firmware {
                id: c.id.clone(),
                class: c.class,
                version: turn.st.slots[slot].active.to_string(),
                staged: turn.st.staged(slot).map(|s| s.version.to_string()),
            })
            .collect(),
    })
}

fn build(spec: &FleetSpec, options: Options) -> Result<Shared, FleetError> {
    let models = spec.models()?;
    let timing = Arc::new(Timing::default());
    let mut versions: HashMap<String, Arc<str>> = HashMap::new();
    let mut machines = Vec::with_capacity(spec.machines.len());
    for (index, m) in spec.machines.iter().enumerate() {
        let model = m.find_model(&models)?;
        let mut slots: Box<[Slot]> = model
            .components
            .iter()
            .map(|c| Slot {
                active: c.version.clone(),
                rare: None,
            })
            .collect();
        for change in &m.components {
            let hits = change.hits(&model, &format!("machine {}", m.name))?;
            if let Some(v) = &change.version {
                let shared = versions
                    .entry(v.clone())
                    .or_insert_with(|| v.as_str().into())
                    .clone();
                for i in hits {
                    slots[i].active = shared.clone();
                }
            }
        }
        let serial = m
            .serial
            .clone()
            .unwrap_or_else(|| made_up_serial(&m.name, model.persona));
        let uuid = m.uuid.unwrap_or_else(|| made_up_uuid(&m.name));
        let host = if m.off { Host::Off } else { Host::On };
        machines.push(Machine {
            index: index as u32,
            name: m.name.as_str().into(),
            model,
            timing: m.timing.clone().map_or_else(|| timing.clone(), Arc::new),
            address: OnceLock::new(),
            changed: Notify::new(),
            requests: AtomicU64::new(0),
            last_request: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            peak_in_flight: AtomicU32::new(0),
            state: Mutex::new(State::new(serial.into(), uuid, host, slots)),
            certificate: Mutex::new(None),
        });
    }
    let by_name = machines.iter().map(|m| (m.name.clone(), m.index)).collect();
    let client = reqwest::Client::builder()
        // A BMC checks no certificates unless it is told to, and knows no proxies.
        .tls_danger_accept_invalid_certs(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .timeout(std::time::Duration::from_secs(60))
        .build()
        .map_err(FleetError::Client)?;
    Ok(Shared {
        clock: Clock::start(options.speed),
        record: Record::default(),
        faults: Faults::new(options.seed),
        options,
        machines,
        by_name,
        heap: Mutex::new(BinaryHeap::new()),
        due: Notify::new(),
        authority: Authority::new()?,
        common: OnceLock::new(),
        client,
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
        connections: AtomicU64::new(0),
        handshakes: AtomicU64::new(0),
        requests: AtomicU64::new(0),
        in_flight: AtomicU64::new(0),
        peak_in_flight: AtomicU64::new(0),
    })
}

fn made_up_uuid(name: &str) -> uuid::Uuid {
    let digest = Sha256::digest(name.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

/// A serial in the vendor's manner: seven characters on Dell, ten and more elsewhere.
fn made_up_serial(name: &str, persona: Persona) -> String {
    const LETTERS: &[u8] = b"0123456789BCDFGHJKLMNPQRSTVWXYZ";
    let digest = Sha256::digest(name.as_bytes());
    let (prefix, length) = match persona {
        Persona::Dell => ("", 7),
        Persona::Hpe => ("CZ2", 7),
        Persona::Lenovo => ("J30", 5),
        Persona::Supermicro => ("S4", 13),
        Persona::Openbmc => ("WW", 10),
    };
    let tail = digest
        .iter()
        .skip(16)
        .take(length)
        .map(|b| LETTERS[*b as usize % LETTERS.len()] as char);
    prefix.chars().chain(tail).collect()
}

/// Listeners and their connections need a file descriptor each.
fn check_files(machines: u64) -> Result<(), FleetError> {
    // Connections, standard streams, the runtime's own.
    const SPARE: u64 = 64;
    let Ok(limits) = std::fs::read_to_string("/proc/self/limits") else {
        return Ok(());
    };
    let soft = limits.lines().find_map(|l| {
        l.strip_prefix("Max open files")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    let (needed, limit) = (machines + SPARE, soft.unwrap_or(u64::MAX));
    if needed > limit {
        return Err(FleetError::Files {
            needed,
            limit,
            suggested: (needed + machines).next_power_of_two(),
        });
    }
    Ok(())
}

async fn listen(shared: &Shared, spec: &FleetSpec) -> Result<Vec<TcpListener>, FleetError> {
    /// A prefix that is taken by another fleet is left for the next; so many neighbours are enough.
    const TRIES: usize = 64;
    let count = shared.machines.len();
    if let Listen::PortEach { base } = shared.options.listen
        && count > usize::from(u16::MAX - base) + 1
    {
        return Err(FleetError::Ports { count, base });
    }
    let mut last = None;
    for _ in 0..TRIES {
        let prefix = uuid::Uuid::new_v4().as_u128() as u32;
        match try_listen(shared, spec, prefix).await {
            Ok(listeners) => {
                for (machine, listener) in shared.machines.iter().zip(&listeners) {
                    if let Ok(address) = listener.local_addr() {
                        let _ = machine.address.set(address);
                    }
                }
                return Ok(listeners);
            }
            Err((fixed, error)) => {
                if fixed {
                    return Err(error);
                }
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or(FleetError::Ports { count, base: 0 }))
}

async fn try_listen(
    shared: &Shared,
    spec: &FleetSpec,
    prefix: u32,
) -> Result<Vec<TcpListener>, (bool, FleetError)> {
    let mut listeners = Vec::with_capacity(shared.machines.len());
    for (i, (machine, m)) in shared.machines.iter().zip(&spec.machines).enumerate() {
        let (address, fixed) = match (m.address, shared.options.listen) {
            (Some(address), _) => (address, true),
            (None, Listen::PortEach { base }) => (
                SocketAddr::from((Ipv4Addr::LOCALHOST, base + u16::try_from(i).unwrap_or(0))),
                true,
            ),
            (None, Listen::AddressEach { port }) => (SocketAddr::from((loopback(prefix, i), port)), false),
        };
        let listener = TcpListener::bind(address).await.map_err(|source| {
            (
                fixed,
                FleetError::Listen {
                    machine: machine.name.to_string(),
                    address,
                    source,
                },
            )
        })?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// The i-th address of 127.0.0.0/8 from a random start, leaving 127.0.0.0/16 to everybody else.
fn loopback(prefix: u32, i: usize) -> Ipv4Addr {
    // .0 and .255 look like a network and its broadcast, which some tools refuse.
    let block = 0x0100 + prefix.wrapping_add(i as u32 / 254) % 0xfe00;
    Ipv4Addr::from(0x7f00_0000 | (block << 8) | (1 + i as u32 % 254))
}

/// Whether the BMC's port is to be closed now.
pub(crate) fn closed(shared: &Shared, machine: &Machine) -> bool {
    let (bmc, now) = shared.with(machine, |turn| (turn.st.bmc, turn.t));
    matches!(bmc, Bmc::Dark | Bmc::Dead)
        || shared
            .faults
            .active(now, &machine.name, |r| {
                r.fault == Fault::Refuse && r.count.is_none()
            })
            .is_some()
}

/// What a manifest says of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its name.
    pub name: String,
    /// Its model.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// Its BMC's base URL.
    pub url: String,
}

/// What manifests say of a fleet's machines, without starting it. Only where addresses do not depend on chance.
pub fn devices(spec: &FleetSpec, listen: Listen) -> Result<Vec<DeviceInfo>, FleetError> {
    let models = spec.models()?;
    spec.check_names()?;
    let mut list = Vec::with_capacity(spec.machines.len());
    for (i, m) in spec.machines.iter().enumerate() {
        let model = m.find_model(&models)?;
        let address = match (m.address, listen) {
            (Some(address), _) => address,
            (None, Listen::PortEach { base }) => {
                let port = u16::try_from(i).ok().and_then(|i| base.checked_add(i));
                let count = spec.machines.len();
                SocketAddr::from((
                    Ipv4Addr::LOCALHOST,
                    port.ok_or(FleetError::Ports { count, base })?,
                ))
            }
            (None, Listen::AddressEach { port }) => SocketAddr::from((loopback(0, i), port)),
        };
        list.push(DeviceInfo {
            name: m.name.clone(),
            model: model.name.clone(),
            serial: m
                .serial
                .clone()
                .unwrap_or_else(|| made_up_serial(&m.name, model.persona)),
            url: format!("https://{address}"),
        });
    }
    Ok(list)
}
