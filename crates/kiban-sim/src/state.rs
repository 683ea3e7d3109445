//! One machine: what it is, what it is doing, and what time makes of it.
//!
//! A machine at rest has no timers and costs nothing. What it started (a flash, a reboot) leaves timers; whoever looks
//! at the machine, or the fleet's scheduler when one is due, first lets time pass ([`Turn::settle`]), in order.

use crate::{
    fault::{Fault, Occasion},
    fleet::Shared,
    image::{ImageHeader, glob},
    model::{Activation, Class, Model},
    persona::{self, Vendor},
    record::{FlashOutcome, What},
    session::Sessions,
    spec::Timing,
    task::{Task, TaskState},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64},
    },
};
use tokio::sync::Notify;

/// One machine of the fleet.
pub(crate) struct Machine {
    pub(crate) index: u32,
    pub(crate) name: Box<str>,
    pub(crate) model: Arc<Model>,
    pub(crate) timing: Arc<Timing>,
    pub(crate) address: OnceLock<SocketAddr>,
    /// Wakes the listener and every connection: the BMC went down or came back, or the faults changed.
    pub(crate) changed: Notify,
    /// Requests answered, and when the last came (virtual milliseconds, plus one; 0 is never).
    pub(crate) requests: AtomicU64,
    pub(crate) last_request: AtomicU64,
    /// Requests being answered now, and the most there ever were: how gentle a client is with one BMC.
    pub(crate) in_flight: AtomicU32,
    pub(crate) peak_in_flight: AtomicU32,
    pub(crate) state: Mutex<State>,
    pub(crate) certificate: Mutex<Option<Arc<crate::certificate::Leaf>>>,
}

/// Whether the BMC answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bmc {
    Up,
    /// Restarting: nothing listens.
    Dark,
    /// Restarting: it listens and answers 503.
    Starting,
    /// It will never answer again.
    Dead,
}

/// What the host does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    Off,
    /// Self-test and start of the operating system.
    Booting,
    /// The operating system runs.
    On,
    Stopping,
}

/// What happens when a timer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Timer {
    Verified,
    Written,
    Reset(&'static str),
    BmcListens,
    BmcReady,
    HostOff { then_on: bool },
    HostPosted,
    HostBooted,
    MainsBack,
    Purge(u32),
}

/// The firmware of one component.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) active: Arc<str>,
    pub(crate) rare: Option<Box<Rare>>,
}

/// What most slots never have.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rare {
    pub(crate) staged: Option<Staged>,
    pub(crate) previous: Option<Arc<str>>,
    /// After so many more resets the backup image comes back.
    flip: Option<(u8, Arc<str>)>,
    flip_on_activation: bool,
    pub(crate) installed_ms: u64,
}

/// An image that waits to become active.
#[derive(Debug, Clone)]
pub(crate) struct Staged {
    pub(crate) version: Arc<str>,
    pub(crate) activation: Activation,
    pub(crate) cycles_left: u8,
    pub(crate) digest: String,
    /// Dell writes such firmware during the host's self-test; the others have written it when they say staged.
    pub(crate) written: bool,
    pub(crate) task: u32,
}

/// When an update is to take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApplyTime {
    Immediate,
    OnReset,
    OnStartUpdateRequest,
}

/// An update as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct UpdateRequest {
    pub(crate) header: Result<ImageHeader, String>,
    pub(crate) digest: String,
    pub(crate) targets: Vec<String>,
    pub(crate) apply: ApplyTime,
}

/// The update that the BMC is busy with.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    pub(crate) task: u32,
    pub(crate) request: UpdateRequest,
    pub(crate) slots: Vec<usize>,
    pub(crate) phase: Phase,
    pub(crate) span: (u64, u64),
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Downloading,
    /// Behind a foreign entry of the vendor's queue.
    Queued,
    Verifying,
    /// Uploaded and verified; waits for `UpdateService.StartUpdate`.
    AwaitStart,
    Writing,
    Stuck,
}

/// An entry of iLO's update task queue.
#[derive(Debug, Clone)]
pub(crate) struct QueueEntry {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) by: String,
}

impl QueueEntry {
    /// An entry that waits for the host, expired, or failed holds everything behind it.
    pub(crate) fn blocks(&self) -> bool {
        self.state != "Complete" && self.state != "Canceled"
    }
}

/// What most machines never have.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    pub(crate) update: Option<Update>,
    /// BIOS attributes that differ from the model's.
    pub(crate) attributes: BTreeMap<String, serde_json::Value>,
    pub(crate) pending: BTreeMap<String, serde_json::Value>,
    /// Dell: the job that will apply the pending attributes. Without one they stay pending.
    pub(crate) settings_job: Option<u32>,
    /// Lenovo: who holds `HttpPushUriTargetsBusy`.
    pub(crate) claim: Option<String>,
    pub(crate) claim_targets: Vec<String>,
    /// OpenBMC: the global apply time.
    pub(crate) on_reset: bool,
    pub(crate) queue: Vec<QueueEntry>,
    /// HPE: install sets, each a name and its steps in order: name, and who does it.
    pub(crate) install_sets: Vec<(String, Vec<(String, String)>)>,
    pub(crate) last_result: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) asset_tag: Option<String>,
    pub(crate) led: Option<String>,
    pub(crate) boot_target: Option<String>,
    pub(crate) restore_power: bool,
}

/// Everything that changes about a machine.
pub(crate) struct State {
    pub(crate) serial: Box<str>,
    pub(crate) uuid: uuid::Uuid,
    pub(crate) bmc: Bmc,
    pub(crate) host: Host,
    pub(crate) slots: Box<[Slot]>,
    pub(crate) sessions: Sessions,
    pub(crate) tasks: Vec<Task>,
    pub(crate) next_task: u32,
    pub(crate) bmc_since_ms: u64,
    pub(crate) extra: Option<Box<Extra>>,
    timers: Vec<(u64, Timer)>,
}

/// Why an update or a reset is not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Another update is under way.
    Busy,
    /// The host is already off, or already on.
    SameState,
    /// Nothing uploaded that could be started.
    NothingToStart,
}

impl State {
    pub(crate) fn new(serial: Box<str>, uuid: uuid::Uuid, host: Host, slots: Box<[Slot]>) -> Self {
        Self {
            serial,
            uuid,
            bmc: Bmc::Up,
            host,
            slots,
            sessions: Sessions::default(),
            tasks: Vec::new(),
            next_task: 1,
            bmc_since_ms: 0,
            extra: None,
            timers: Vec::new(),
        }
    }

    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    pub(crate) fn update(&self) -> Option<&Update> {
        self.extra.as_ref().and_then(|e| e.update.as_ref())
    }

    pub(crate) fn task(&mut self, id: u32) -> Option<&mut Task> {
        self.tasks.iter_mut().find(|t| t.id == id)
    }

    pub(crate) fn staged(&self, slot: usize) -> Option<&Staged> {
        self.slots[slot].rare.as_ref().and_then(|r| r.staged.as_ref())
    }

    pub(crate) fn host_powered(&self) -> bool {
        self.host != Host::Off
    }

    fn cancel(&mut self, which: impl Fn(Timer) -> bool) {
        self.timers.retain(|(_, t)| !which(*t));
    }
}

impl Machine {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn vendor(&self) -> &'static dyn Vendor {
        persona::vendor(self.model.persona)
    }
}

/// A machine under its lock, at one instant.
pub(crate) struct Turn<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) machine: &'a Machine,
    pub(crate) st: &'a mut State,
    pub(crate) t: u64,
}

impl Shared {
    /// Locks the machine, lets time pass, and acts.
    pub(crate) fn with<R>(&self, machine: &Machine, act: impl FnOnce(&mut Turn<'_>) -> R) -> R {
        let mut st = machine.lock();
        let now = self.clock.now_ms();
        let mut turn = Turn {
            shared: self,
            machine,
            st: &mut st,
            t: now,
        };
        turn.settle(now);
        act(&mut turn)
    }
}

fn ms(seconds: f64) -> u64 {
    (seconds * 1000.0).max(0.0) as u64
}

impl Turn<'_> {
    /// Lets every timer happen that is due by `now`, in order, each at its own time.
    pub(crate) fn settle(&mut self, now: u64) {
        while let Some(i) = (0..self.st.timers.len())
            .filter(|i| self.st.timers[*i].0 <= now)
            .min_by_key(|i| self.st.timers[*i].0)
        {
            let (at, timer) = self.st.timers.remove(i);
            self.t = at;
            self.happen(timer);
        }
        if self.st.timers.is_empty() {
            self.st.timers = Vec::new();
        }
        self.t = now;
    }

    fn after(&mut self, seconds: f64, timer: Timer) {
        let at = self.t + ms(seconds);
        self.st.timers.push((at, timer));
        self.shared.schedule(at, self.machine.index);
    }

    pub(crate) fn log(&self, what: What) {
        self.shared.record.push(self.t, &self.machine.name, what);
    }

    pub(crate) fn fault(&self, class: Option<Class>, wanted: impl Fn(&Fault) -> bool) -> bool {
        let occasion = Occasion {
            class,
            ..Occasion::default()
        };
        self.shared
            .faults
            .fire(self.t, &self.machine.name, occasion, wanted)
            .is_some()
    }

    fn happen(&mut self, timer: Timer) {
        match timer {
            Timer::Verified => self.verified(),
            Timer::Written => self.written(),
            Timer::Reset(cause) => self.reset_bmc(cause),
            Timer::BmcListens => {
                self.st.bmc = Bmc::Starting;
                self.machine.changed.notify_waiters();
            }
            Timer::BmcReady => self.bmc_ready(),
            Timer::HostOff { then_on } => {
                self.st.host = Host::Off;
                if then_on {
                    self.boot();
                }
            }
            Timer::HostPosted => self.host_posted(),
            Timer::HostBooted => {
                self.st.host = Host::On;
                self.log(What::HostUp);
            }
            Timer::MainsBack => self.mains_back(),
            Timer::Purge(id) => {
                if let Some(task) = self.st.task(id) {
                    task.gone = true;
                }
            }
        }
    }

    // ---- updates

    pub(crate) fn new_task(&mut self, name: impl Into<String>, state: TaskState) -> u32 {
        /// BMCs keep few tasks; the oldest finished ones go first.
        const MAX_TASKS: usize = 32;
        if self.st.tasks.len() >= MAX_TASKS
            && let Some(i) = self.st.tasks.iter().position(|t| t.state.ended())
        {
            self.st.tasks.remove(i);
        }
        let id = self.st.next_task;
        self.st.next_task += 1;
        self.st.tasks.push(Task {
            id,
            name: name.into(),
            state,
            critical: false,
            start_ms: self.t,
            end_ms: None,
            span: None,
            messages: Vec::new(),
            gone: false,
            job: false,
            slots: Vec::new(),
        });
        id
    }

    /// Takes an update that came with its image.
    pub(crate) fn push_update(&mut self, request: UpdateRequest) -> Result<u32, Refusal> {
        self.admit()?;
        let task = self.new_task("Firmware Update", TaskState::Starting);
        if self.accept_nothing(task) {
            return Ok(task);
        }
        let update = Update {
            task,
            request,
            slots: Vec::new(),
            phase: Phase::Verifying,
            span: (self.t, self.t),
        };
        self.st.extra().update = Some(update);
        self.verify_or_queue();
        Ok(task)
    }

    /// Takes an update whose image the BMC is about to fetch.
    pub(crate) fn pull_update(&mut self, targets: Vec<String>, apply: ApplyTime) -> Result<u32, Refusal> {
        self.admit()?;
        let task = self.new_task("Firmware Update", TaskState::New);
        if self.accept_nothing(task) {
            return Ok(task);
        }
        let request = UpdateRequest {
            header: Err("no image yet".into()),
            digest: String::new(),
            targets,
            apply,
        };
        let update = Update {
            task,
            request,
            slots: Vec::new(),
            phase: Phase::Downloading,
            span: (self.t, self.t),
        };
        self.st.extra().update = Some(update);
        Ok(task)
    }

    fn admit(&mut self) -> Result<(), Refusal> {
        if self.st.update().is_some() {
            Err(Refusal::Busy)
        } else {
            Ok(())
        }
    }

    fn accept_nothing(&mut self, task: u32) -> bool {
        let nothing = self.fault(None, |f| *f == Fault::AcceptNothing);
        if nothing && let Some(task) = self.st.task(task) {
            task.state = TaskState::New;
        }
        nothing
    }

    /// The image that [`Turn::pull_update`] announced is here, or cannot be had.
    pub(crate) fn downloaded(&mut self, task: u32, header: Result<ImageHeader, String>, digest: String) {
        let Some(update) = self.st.extra().update.as_mut() else {
            return;
        };
        if update.task != task || update.phase != Phase::Downloading {
            return;
        }
        update.request.header = header;
        update.request.digest = digest;
        self.verify_or_queue();
    }

    fn verify_or_queue(&mut self) {
        let blocked = self
            .st
            .extra
            .as_ref()
            .is_some_and(|e| e.queue.iter().any(QueueEntry::blocks));
        let Some(update) = self.st.extra().update.as_mut() else {
            return;
        };
        let task = update.task;
        update.phase = if blocked { Phase::Queued } else { Phase::Verifying };
        if let Some(task) = self.st.task(task) {
            task.state = if blocked {
                TaskState::Pending
            } else {
                TaskState::Running
            };
        }
        if !blocked {
            self.after(self.machine.timing.verify, Timer::Verified);
        }
    }

    /// Puts steps (name, and who does it) at the end of iLO's queue.
    pub(crate) fn enqueue(&mut self, steps: Vec<(String, String)>) {
        let queue = &mut self.st.extra().queue;
        for (name, by) in steps {
            let id = queue.iter().map(|e| e.id).max().unwrap_or(0) + 1;
            queue.push(QueueEntry {
                id,
                name,
                state: "Pending".into(),
                by,
            });
        }
        self.work_queue(false);
    }

    /// The queue is worked off in order, as far as it goes: iLO does its own entries at once, UEFI does its at self-test,
    /// and one that waits for somebody, expired or failed holds all behind it.
    pub(crate) fn work_queue(&mut self, at_post: bool) {
        let Some(extra) = self.st.extra.as_mut() else {
            return;
        };
        for entry in &mut extra.queue {
            let due = entry.state == "Pending" && (entry.by == "Bmc" || at_post && entry.by == "Uefi");
            if due {
                entry.state = "Complete".into();
            }
            if entry.blocks() {
                break;
            }
        }
        self.queue_changed();
    }

    /// The queue changed; what waited behind it may go on.
    pub(crate) fn queue_changed(&mut self) {
        if self.st.update().is_some_and(|u| u.phase == Phase::Queued) {
            self.verify_or_queue();
        }
    }

    fn verified(&mut self) {
        let Some(update) = self.st.update().cloned() else {
            return;
        };
        match self.check(&update.request) {
            Err((id, text)) => self.fail_update(id, &text),
            Ok((slots, name)) => {
                let vendor = self.machine.vendor();
                if let Some(task) = self.st.task(update.task) {
                    task.name = vendor.task_name(&name);
                    task.slots.clone_from(&slots);
                }
                if let Some(u) = self.st.extra().update.as_mut() {
                    u.slots = slots;
                }
                if self.fault(self.class_of_update(), |f| *f == Fault::TaskFails) {
                    self.fail_update("Update.1.0.VerificationFailed", "the image failed verification");
                } else if update.request.apply == ApplyTime::OnStartUpdateRequest {
                    let (now, verify_name) = (self.t, vendor.verify_name(&name));
                    if let Some(u) = self.st.extra().update.as_mut() {
                        u.phase = Phase::AwaitStart;
                    }
                    if let Some(task) = self.st.task(update.task) {
                        task.name = verify_name;
                        task.end(TaskState::Completed, now);
                    }
                } else {
                    self.write();
                }
            }
        }
    }

    fn class_of_update(&self) -> Option<Class> {
        self.st
            .update()
            .and_then(|u| u.request.header.as_ref().ok().map(|h| h.class))
    }

    /// What a BMC checks before it writes anything: which components, and whether they take this image.
    fn check(&self, request: &UpdateRequest) -> Result<(Vec<usize>, String), (&'static str, String)> {
        let header = request
            .header
            .as_ref()
            .map_err(|e| ("Update.1.0.TransferFailed", format!("the image: {e}")))?;
        let model = &self.machine.model;
        if !header.models.iter().any(|m| glob(m, &model.name)) {
            let text = format!("the image is for {:?}, this is a {}", header.models, model.name);
            return Err(("Update.1.0.ApplyFailed", text));
        }
        let slots: Vec<usize> = model
            .of_class(header.class)
            .filter(|i| {
                let c = &model.components[*i];
                header
                    .component
                    .as_ref()
                    .is_none_or(|g| glob(g, &c.id) || glob(g, &c.product))
            })
            .filter(|i| request.targets.is_empty() || self.targeted(*i, &request.targets))
            .collect();
        let Some(first) = slots.first() else {
            return Err((
                "Update.1.0.TargetDetermined",
                format!("no component takes this {} image", header.class),
            ));
        };
        for i in &slots {
            let c = &model.components[*i];
            if !c.updateable {
                return Err(("Update.1.0.ApplyFailed", format!("{} cannot be updated", c.name)));
            }
            if let Some(lowest) = &c.lowest
                && older(&header.version, lowest)
            {
                let text = format!(
                    "version {} is below the lowest supported {lowest}",
                    header.version
                );
                return Err(("Update.1.0.DowngradeNotAllowed", text));
            }
            if let Some(floor) = &header.requires
                && older(&self.st.slots[*i].active, floor)
            {
                return Err((
                    "Update.1.0.VerificationFailed",
                    format!("file signature is invalid below {floor}"),
                ));
            }
        }
        let c = &model.components[*first];
        let name = if c.class == Class::Bmc || c.class == Class::Bios {
            c.class.to_string()
        } else {
            c.name.clone()
        };
        Ok((slots, name))
    }

    fn targeted(&self, slot: usize, targets: &[String]) -> bool {
        let ids = self.machine.vendor().inventory_ids(self, slot);
        targets.iter().any(|target| {
            let last = target
                .trim_end_matches('/')
                .rsplit('/')
                .next()
                .unwrap_or_default();
            // Targets of the manager and the system mean their own firmware.
            ids.iter().any(|id| id == last)
                || last == self.machine.model.components[slot].id
                || persona::related(self.machine, slot)
                    .iter()
                    .any(|r| r == target.trim_end_matches('/'))
        })
    }

    fn fail_update(&mut self, id: &str, text: &str) {
        let Some(update) = self.st.extra().update.take() else {
            return;
        };
        self.st.extra().last_result = Some(id.to_owned());
        let now = self.t;
        if let Some(task) = self.st.task(update.task) {
            task.say(id, text);
            task.end(TaskState::Exception, now);
        }
        self.st.cancel(|t| matches!(t, Timer::Verified | Timer::Written));
    }

    /// `UpdateService.StartUpdate`: goes on with what was uploaded. Returns the new task.
    pub(crate) fn start_update(&mut self) -> Result<u32, Refusal> {
        let Some(update) = self.st.update().cloned() else {
            return Err(Refusal::NothingToStart);
        };
        if update.phase != Phase::AwaitStart {
            return Err(Refusal::Busy);
        }
        let vendor = self.machine.vendor();
        let name = self.component_name(&update);
        let task = self.new_task(vendor.task_name(&name), TaskState::Running);
        if let Some(t) = self.st.task(task) {
            t.slots.clone_from(&update.slots);
        }
        if let Some(u) = self.st.extra().update.as_mut() {
            u.task = task;
        }
        self.write();
        Ok(task)
    }

    fn component_name(&self, update: &Update) -> String {
        let c = update.slots.first().map(|i| &self.machine.model.components[*i]);
        c.map_or_else(String::new, |c| {
            if c.class == Class::Bmc || c.class == Class::Bios {
                c.class.to_string()
            } else {
                c.name.clone()
            }
        })
    }

    /// An upload that nobody started is given up.
    pub(crate) fn drop_upload(&mut self) {
        if self.st.update().is_some_and(|u| u.phase == Phase::AwaitStart) {
            self.st.extra().update = None;
        }
    }

    fn flash_seconds(&self, class: Class) -> f64 {
        let timing = &self.machine.timing;
        match class {
            Class::Bmc => timing.flash_bmc,
            Class::Bios => timing.flash_bios,
            _ => timing.flash_other,
        }
    }

    fn activation(&self, update: &Update, slot: usize) -> Activation {
        let own = self.machine.model.components[slot].activation;
        update
            .request
            .header
            .as_ref()
            .ok()
            .and_then(|h| h.activation)
            .unwrap_or(own)
    }

    fn write(&mut self) {
        let Some(mut update) = self.st.extra().update.take() else {
            return;
        };
        let Some(first) = update.slots.first().copied() else {
            return;
        };
        let class = self.machine.model.components[first].class;
        if self.fault(Some(class), |f| *f == Fault::TaskVanishes)
            && let Some(task) = self.st.task(update.task)
        {
            task.gone = true;
        }
        let vendor = self.machine.vendor();
        if vendor.writes_at_post() && self.activation(&update, first) == Activation::HostReset {
            self.schedule_for_post(&update);
            return;
        }
        if vendor.moves_to_job(class) {
            update.task = self.move_to_job(update.task);
        }
        let seconds = self.flash_seconds(class);
        update.span = (self.t, self.t + ms(seconds));
        update.phase = Phase::Writing;
        for slot in &update.slots {
            self.log_flash_start(*slot, &update);
        }
        let stuck = self.shared.faults.fire(
            self.t,
            &self.machine.name,
            Occasion {
                class: Some(class),
                ..Occasion::default()
            },
            |f| matches!(f, Fault::TaskStuck { .. }),
        );
        if let Some(task) = self.st.task(update.task) {
            task.state = TaskState::Running;
            task.span = Some(update.span);
        }
        if let Some(Fault::TaskStuck { critical }) = stuck {
            update.phase = Phase::Stuck;
            if let Some(task) = self.st.task(update.task) {
                task.critical = critical;
                task.say("IDRAC.2.8.JCP052", "the job made no progress");
            }
        } else {
            self.after(seconds, Timer::Written);
            if self.fault(Some(class), |f| *f == Fault::RebootMidFlash) {
                self.after(seconds / 2.0, Timer::Reset("fault"));
            }
        }
        self.st.extra().update = Some(update);
    }

    /// Ends a task by saying which job goes on with its work.
    fn move_to_job(&mut self, task: u32) -> u32 {
        let (name, slots) = self
            .st
            .task(task)
            .map(|t| (t.name.clone(), t.slots.clone()))
            .unwrap_or_default();
        let job = self.new_task(name, TaskState::Running);
        let path = persona::job_path(self, job);
        let now = self.t;
        if let Some(new) = self.st.task(job) {
            new.job = true;
            new.slots = slots;
        }
        if let Some(old) = self.st.task(task) {
            old.messages.push(crate::task::TaskMessage {
                id: "Update.1.0.OperationTransitionedToJob".into(),
                text: format!("The update operation has transitioned to the job at URI '{path}'."),
                args: vec![path],
            });
            old.end(TaskState::Completed, now);
        }
        job
    }

    fn log_flash_start(&self, slot: usize, update: &Update) {
        let component = &self.machine.model.components[slot];
        let to = update
            .request
            .header
            .as_ref()
            .map(|h| h.version.clone())
            .unwrap_or_default();
        self.log(What::FlashStarted {
            component: component.id.clone(),
            class: component.class,
            from: self.st.slots[slot].active.to_string(),
            to,
            digest: update.request.digest.clone(),
        });
    }

    fn log_flash_end(&self, slot: usize, outcome: FlashOutcome) {
        let component = self.machine.model.components[slot].id.clone();
        self.log(What::FlashFinished { component, outcome });
    }

    /// Dell: the package waits in a scheduled job for the host's next self-test.
    fn schedule_for_post(&mut self, update: &Update) {
        for slot in update.slots.clone() {
            self.stage(slot, update, false);
        }
        if let Some(task) = self.st.task(update.task) {
            task.state = TaskState::Pending;
            task.say("IDRAC.2.8.JCP001", "Task successfully scheduled.");
        }
        if update.request.apply == ApplyTime::Immediate && self.st.host != Host::Off {
            self.stop_host(self.machine.timing.graceful, true, "update job");
        }
    }

    fn stage(&mut self, slot: usize, update: &Update, written: bool) {
        let Ok(header) = &update.request.header else {
            return;
        };
        let activation = self.activation(update, slot);
        let cycles_left = if let Activation::AcCycle(n) = activation {
            n.max(1)
        } else {
            0
        };
        let flip = self.fault(Some(self.machine.model.components[slot].class), |f| {
            *f == Fault::FlipBack
        });
        let rare = self.st.slots[slot].rare.get_or_insert_default();
        rare.flip_on_activation = flip;
        rare.staged = Some(Staged {
            version: header.version.as_str().into(),
            activation,
            cycles_left,
            digest: update.request.digest.clone(),
            written,
            task: update.task,
        });
    }

    fn written(&mut self) {
        let Some(update) = self.st.extra().update.take() else {
            return;
        };
        let class = update
            .slots
            .first()
            .map(|i| self.machine.model.components[*i].class);
        if self.fault(class, |f| *f == Fault::Brick) {
            self.brick(&update.slots);
            return;
        }
        let lied = self.fault(class, |f| *f == Fault::CompletedUnchanged);
        let mut resets = false;
        for slot in update.slots.clone() {
            self.log_flash_end(
                slot,
                if lied {
                    FlashOutcome::Lied
                } else {
                    FlashOutcome::Written
                },
            );
            if lied {
                continue;
            }
            self.stage(slot, &update, true);
            match self.activation(&update, slot) {
                Activation::None => self.activate(slot, "write"),
                Activation::BmcReset => resets = true,
                // With the host off there is nothing to restart; the next power on runs the new image.
                Activation::ManagerReset | Activation::HostReset | Activation::AcCycle(_) => {}
            }
        }
        self.st.extra().last_result = Some("Update.1.0.UpdateSuccessful".into());
        self.complete_task(update.task);
        if resets {
            self.after(
                self.machine.timing.self_reset_delay,
                Timer::Reset("firmware update"),
            );
        }
    }

    fn complete_task(&mut self, id: u32) {
        let (now, purges) = (self.t, self.machine.vendor().purges_tasks());
        if let Some(task) = self.st.task(id) {
            task.say("Update.1.0.UpdateSuccessful", "the update completed");
            task.end(TaskState::Completed, now);
            if purges {
                self.after(self.machine.timing.task_purge, Timer::Purge(id));
            }
        }
    }

    fn brick(&mut self, slots: &[usize]) {
        for slot in slots {
            self.log_flash_end(*slot, FlashOutcome::Bricked);
        }
        if self.st.host == Host::On {
            self.log(What::HostDown {
                cause: "brick".into(),
            });
        }
        self.st.host = Host::Off;
        self.st.bmc = Bmc::Dead;
        self.st.timers.clear();
        self.log(What::Bricked);
        self.machine.changed.notify_waiters();
    }

    fn activate(&mut self, slot: usize, cause: &str) {
        let now = self.t;
        let Some(rare) = self.st.slots[slot].rare.as_mut() else {
            return;
        };
        let Some(staged) = rare.staged.take() else { return };
        rare.installed_ms = now;
        let flip = std::mem::take(&mut rare.flip_on_activation);
        self.set_version(slot, staged.version, cause);
        if flip && let Some(rare) = self.st.slots[slot].rare.as_mut() {
            rare.flip = rare.previous.clone().map(|old| (1, old));
        }
    }

    fn set_version(&mut self, slot: usize, version: Arc<str>, cause: &str) {
        let old = std::mem::replace(&mut self.st.slots[slot].active, version.clone());
        if old != version {
            self.st.slots[slot].rare.get_or_insert_default().previous = Some(old.clone());
        }
        let component = self.machine.model.components[slot].id.clone();
        let (from, to) = (old.to_string(), version.to_string());
        self.log(What::Activated {
            component,
            from,
            to,
            cause: cause.to_owned(),
        });
    }

    /// Changes a component's firmware without the BMC's doing: a person beside us.
    pub(crate) fn flash_by_hand(&mut self, slot: usize, version: &str) {
        self.set_version(slot, version.into(), "by hand");
    }

    fn flip_back(&mut self, bmc: bool) {
        for slot in 0..self.st.slots.len() {
            if (self.machine.model.components[slot].class == Class::Bmc) != bmc {
                continue;
            }
            let Some(rare) = self.st.slots[slot].rare.as_mut() else {
                continue;
            };
            match rare.flip.take() {
                Some((0, old)) => self.set_version(slot, old, "backup image"),
                Some((n, old)) => rare.flip = Some((n - 1, old)),
                None => {}
            }
        }
    }

    fn activate_staged(&mut self, cause: &str, wanted: impl Fn(Activation) -> bool) {
        for slot in 0..self.st.slots.len() {
            let due = self.st.staged(slot).is_some_and(|s| {
                s.written
                    && (wanted(s.activation)
                        || matches!(s.activation, Activation::AcCycle(_)) && s.cycles_left == 0)
            });
            if due {
                self.activate(slot, cause);
            }
        }
    }

    fn interrupt_flash(&mut self, text: &str) {
        let Some(update) = self.st.extra().update.take() else {
            return;
        };
        if matches!(update.phase, Phase::Writing | Phase::Stuck) {
            for slot in &update.slots {
                self.log_flash_end(*slot, FlashOutcome::Interrupted);
            }
        }
        self.st.cancel(|t| matches!(t, Timer::Verified | Timer::Written));
        let now = self.t;
        if let Some(task) = self.st.task(update.task)
            && !task.state.ended()
        {
            task.say("Update.1.0.ApplyFailed", text);
            task.end(TaskState::Exception, now);
        }
    }

    // ---- the BMC

    /// The BMC restarts: by itself, by request, or by a fault.
    pub(crate) fn reset_bmc(&mut self, cause: &str) {
        if self.st.bmc == Bmc::Dead {
            return;
        }
        self.bmc_down(cause);
        self.after(self.machine.timing.bmc_dark, Timer::BmcListens);
        self.after(
            self.machine.timing.bmc_dark + self.machine.timing.bmc_starting,
            Timer::BmcReady,
        );
    }

    fn bmc_down(&mut self, cause: &str) {
        self.interrupt_flash("the BMC was reset");
        self.st
            .cancel(|t| matches!(t, Timer::BmcListens | Timer::BmcReady | Timer::Reset(_)));
        let vendor = self.machine.vendor();
        self.st.sessions.clear();
        if vendor.tasks_die_with_bmc() {
            self.st.tasks = Vec::new();
        } else if vendor.purges_tasks() {
            for task in self.st.tasks.iter_mut().filter(|t| t.state.ended()) {
                task.gone = true;
            }
        }
        if let Some(extra) = self.st.extra.as_mut() {
            extra.claim = None;
        }
        if self.st.bmc == Bmc::Up {
            self.log(What::BmcDown {
                cause: cause.to_owned(),
            });
        }
        self.st.bmc = Bmc::Dark;
        self.machine.changed.notify_waiters();
    }

    fn bmc_ready(&mut self) {
        self.flip_back(true);
        self.activate_staged("BMC reset", |a| {
            matches!(a, Activation::BmcReset | Activation::ManagerReset)
        });
        self.st.bmc = Bmc::Up;
        self.st.bmc_since_ms = self.t;
        self.log(What::BmcUp);
        self.machine.changed.notify_waiters();
        if self
            .st
            .extra
            .as_mut()
            .is_some_and(|e| std::mem::take(&mut e.restore_power))
        {
            self.boot();
        }
    }

    /// The mains are cut and come back.
    pub(crate) fn ac_cycle(&mut self, cause: &str) {
        if self.st.bmc == Bmc::Dead {
            return;
        }
        let was_on = self.st.host != Host::Off;
        self.bmc_down(cause);
        self.host_down(cause);
        self.abort_post();
        self.st.host = Host::Off;
        self.st.extra().restore_power = was_on;
        self.st
            .cancel(|t| matches!(t, Timer::HostOff { .. } | Timer::HostPosted | Timer::HostBooted));
        self.after(self.machine.timing.ac_off, Timer::MainsBack);
    }

    fn mains_back(&mut self) {
        for slot in &mut self.st.slots {
            if let Some(staged) = slot.rare.as_mut().and_then(|r| r.staged.as_mut()) {
                staged.cycles_left = staged.cycles_left.saturating_sub(1);
            }
        }
        self.activate_staged("AC cycle", |_| false);
        self.after(self.machine.timing.bmc_dark, Timer::BmcListens);
        self.after(
            self.machine.timing.bmc_dark + self.machine.timing.bmc_starting,
            Timer::BmcReady,
        );
    }

    // ---- the host

    fn host_down(&mut self, cause: &str) {
        if self.st.host == Host::On {
            self.log(What::HostDown {
                cause: cause.to_owned(),
            });
        }
    }

    fn stop_host(&mut self, seconds: f64, then_on: bool, cause: &str) {
        self.host_down(cause);
        self.abort_post();
        self.st.host = Host::Stopping;
        self.st
            .cancel(|t| matches!(t, Timer::HostOff { .. } | Timer::HostPosted | Timer::HostBooted));
        self.after(seconds, Timer::HostOff { then_on });
    }

    /// Power lost during the self-test interrupts what Dell writes then.
    fn abort_post(&mut self) {
        if self.st.host != Host::Booting {
            return;
        }
        let now = self.t;
        for slot in 0..self.st.slots.len() {
            let Some(staged) = self.st.staged(slot) else {
                continue;
            };
            let id = staged.task;
            let running = !staged.written && self.st.task(id).is_some_and(|t| t.state == TaskState::Running);
            if !running {
                continue;
            }
            self.log_flash_end(slot, FlashOutcome::Interrupted);
            if let Some(rare) = self.st.slots[slot].rare.as_mut() {
                rare.staged = None;
            }
            if let Some(task) = self.st.task(id) {
                task.say("IDRAC.2.8.PR29", "power was lost during the update");
                task.end(TaskState::Exception, now);
            }
        }
    }

    /// The host powers on: self-test, pending work, operating system.
    fn boot(&mut self) {
        self.st.host = Host::Booting;
        let mut extension = 0.0;
        for slot in 0..self.st.slots.len() {
            let Some(staged) = self.st.staged(slot).filter(|s| !s.written).cloned() else {
                continue;
            };
            let component = &self.machine.model.components[slot];
            self.log(What::FlashStarted {
                component: component.id.clone(),
                class: component.class,
                from: self.st.slots[slot].active.to_string(),
                to: staged.version.to_string(),
                digest: staged.digest.clone(),
            });
            let seconds = self.flash_seconds(component.class);
            extension += seconds;
            let span = (self.t, self.t + ms(seconds));
            if let Some(task) = self.st.task(staged.task) {
                task.state = TaskState::Running;
                task.span = Some(span);
            }
        }
        let boot = self.machine.timing.host_boot;
        self.after(boot / 2.0 + extension, Timer::HostPosted);
        self.after(boot + extension, Timer::HostBooted);
    }

    fn host_posted(&mut self) {
        for slot in 0..self.st.slots.len() {
            let Some(staged) = self.st.staged(slot).filter(|s| !s.written).cloned() else {
                continue;
            };
            let class = self.machine.model.components[slot].class;
            if self.fault(Some(class), |f| *f == Fault::Brick) {
                self.brick(&[slot]);
                return;
            }
            let lied = self.fault(Some(class), |f| *f == Fault::CompletedUnchanged);
            self.log_flash_end(
                slot,
                if lied {
                    FlashOutcome::Lied
                } else {
                    FlashOutcome::Written
                },
            );
            if let Some(rare) = self.st.slots[slot].rare.as_mut() {
                if lied {
                    rare.staged = None;
                } else if let Some(s) = rare.staged.as_mut() {
                    s.written = true;
                }
            }
            self.complete_task(staged.task);
        }
        self.work_queue(true);
        self.flip_back(false);
        self.activate_staged("host reset", |a| a == Activation::HostReset);
        self.apply_settings();
    }

    fn apply_settings(&mut self) {
        let needs_job = self.machine.vendor().settings_need_job();
        let Some(extra) = self.st.extra.as_mut() else {
            return;
        };
        if extra.pending.is_empty() || (needs_job && extra.settings_job.is_none()) {
            return;
        }
        let pending = std::mem::take(&mut extra.pending);
        let attributes: Vec<String> = pending.keys().cloned().collect();
        extra.attributes.extend(pending);
        let job = extra.settings_job.take();
        self.log(What::SettingsApplied { attributes });
        if let Some(job) = job {
            self.complete_task(job);
        }
    }

    /// `ComputerSystem.Reset`.
    pub(crate) fn reset_host(&mut self, kind: &str) -> Result<(), Refusal> {
        if self.fault(None, |f| *f == Fault::PowerIgnored) {
            return Ok(());
        }
        let timing = self.machine.timing.clone();
        let off = self.st.host == Host::Off;
        match kind {
            "On" | "ForceOn" if off => self.boot(),
            "On" | "ForceOn" => return Err(Refusal::SameState),
            "Nmi" => {}
            "FullPowerCycle" => self.ac_cycle("FullPowerCycle"),
            "PushPowerButton" if off => self.boot(),
            "ForceOff" | "GracefulShutdown" | "ForceRestart" | "GracefulRestart" if off => {
                return Err(Refusal::SameState);
            }
            "PowerCycle" if off => self.boot(),
            "ForceOff" => self.stop_host(timing.power, false, kind),
            "GracefulShutdown" | "PushPowerButton" => self.stop_host(timing.graceful, false, kind),
            "GracefulRestart" => self.stop_host(timing.graceful, true, kind),
            _ => self.stop_host(timing.power, true, kind),
        }
        Ok(())
    }
}

/// Whether a version is older than another, by their numbers in order; where a number is missing, by text.
pub(crate) fn older(a: &str, b: &str) -> bool {
    let numbers = |s: &str| -> Vec<u64> {
        s.split(|c: char| !c.is_ascii_digit())
            .filter(|p| !p.is_empty())
            .filter_map(|p| p.parse().ok())
            .collect()
    };
    let (x, y) = (numbers(a), numbers(b));
    if x.is_empty() || y.is_empty() {
        a < b
    } else {
        x < y
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_their_numbers() {
        assert!(older("6.00.02.00", "6.10.80.00"));
        assert!(older("1.9", "1.10"));
        assert!(!older("1.10", "1.9"));
        assert!(!older("2.78 Feb 01 2023", "2.30 Oct 01 2020"));
        assert!(older("HPK3", "HPK4"));
    }
}
