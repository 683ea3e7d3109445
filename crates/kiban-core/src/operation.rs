//! The step machine: how one operation is brought to its end, one effect at a time.
//!
//! ```text
//!                    ┌────────────── advance(plan, state, observation, now) ──────────────┐
//!   Observation ───▶ │ Identify ▶ Survey ▶ Stage ▶ Clear ▶ Intend ▶ Send ▶ Follow ▶ Check │ ───▶ (State, Effect)
//!   (what was seen)  │   ▲                           Settle ◀──────┘ unknown       │      │      (one thing to do,
//!                    │   └── next update ◀ Probe ◀ ReadBack ◀ Activate ◀───────────┘      │       with a deadline)
//!                    └────────────────────────────────────────────────────────────────────┘
//!   crash ───▶ State::recover(plan, record, now): everything that is needed is in the record and in the BMC
//! ```
//!
//! Invariants, each with a test in `operation/tests.rs` that crashes at every effect:
//!
//! 1. [`EffectKind::Send`] is given only after an [`EffectKind::WriteIntent`] for it was confirmed, and once per intent.
//!    No way leads from an intent whose outcome is unknown back to a send.
//! 2. [`EffectKind::Reset`] is given only after it was recorded in the intent, and never while the BMC reports work under
//!    way, except the one BMC restart that cures a stuck task where [`Update::unstick`] allows it.
//! 3. Another machine or another certificate, seen at any moment, ends the operation as held, and nothing more is sent.
//! 4. Every loop is bounded by a [`Timing`]; every operation ends.
//! 5. Success is the wanted version read back [`Timing::readbacks`] times in a row after its activation, nothing else.

mod machine;
#[cfg(test)]
mod tests;

use crate::{
    component::{Component, ComponentClass},
    facts::{Activation, ComponentMatch},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

pub use machine::advance;

/// What an operation is to do; does not change while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationPlan {
    /// The operation's id.
    pub id: String,
    /// The updates, in the order in which they are done.
    pub updates: Vec<Update>,
    /// How long things may take.
    pub timing: Timing,
}

/// One component's update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Which components of the device it speaks of.
    pub select: Selector,
    /// The component's name, for people.
    pub name: String,
    /// The version when it was planned, for people.
    pub from: String,
    /// The version wanted, as the BMC reports it once installed.
    pub to: String,
    /// SHA-256 of the image, lower-case hex.
    pub sha256: String,
    /// What makes the new version run.
    pub activation: Activation,
    /// Whether a restart of the BMC is known to cure a task that makes no progress (Dell's JCP052), and to be harmless to
    /// the component that is being written.
    pub unstick: bool,
}

/// Which components of a device are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector {
    /// The class.
    pub class: ComponentClass,
    /// Which of the class.
    pub matches: ComponentMatch,
}

impl Selector {
    /// Every component of a class.
    #[must_use]
    pub fn class(class: ComponentClass) -> Self {
        Self {
            class,
            matches: ComponentMatch::default(),
        }
    }

    /// Whether the component is meant.
    #[must_use]
    pub fn matches(&self, component: &Component) -> bool {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        self.class == component.class
            && self.matches.covers(
                &text(&component.manufacturer),
                &text(&component.model),
                &component.name,
            )
    }
}

/// A disruption that a step asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reset {
    /// Restart the BMC.
    Bmc,
    /// Restart the host.
    Host,
    /// Host off, then on.
    Cold,
    /// Remove and return AC power.
    Ac,
    /// Turn the host on, which is what a reset of a host that is off means.
    PowerOn,
}

impl Reset {
    /// The word for status and ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bmc => "BMCReset",
            Self::Host => "HostReset",
            Self::Cold => "ColdBoot",
            Self::Ac => "ACCycle",
            Self::PowerOn => "PowerOn",
        }
    }

    /// The inverse of [`Reset::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Bmc, Self::Host, Self::Cold, Self::Ac, Self::PowerOn]
            .into_iter()
            .find(|reset| reset.as_str() == text)
    }
}

/// How long things may take, and how often they are tried. Every wait of the machine is one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// One read of the BMC.
    pub read: Duration,
    /// The call that sends the image, upload included. Written into the intent: who takes over waits it out.
    pub send: Duration,
    /// The call that asks for a reset.
    pub reset: Duration,
    /// One write to the API server.
    pub write: Duration,
    /// Getting the image.
    pub stage: Duration,
    /// Between two looks at a task, or at work that is not there yet.
    pub poll: Duration,
    /// Between two tries of something that failed.
    pub retry: Duration,
    /// How long a BMC may be silent before anything was sent to it.
    pub start: Duration,
    /// How long other work on the BMC is waited for before ours is sent.
    pub busy: Duration,
    /// How long a task may stand still.
    pub stuck: Duration,
    /// How long an unknown outcome, or a task that vanished, is looked into before it is given up. Dell's jobs are known
    /// to need 15 minutes.
    pub settle: Duration,
    /// How long a BMC gets to restart by itself after its own update, before it is asked to.
    pub self_reset: Duration,
    /// How long a new version may take to be read after the reset.
    pub activation: Duration,
    /// How long a BMC may be silent once something was sent to it.
    pub bmc_return: Duration,
    /// How many good readings in a row are success.
    pub readbacks: u32,
    /// Between two of them.
    pub readback: Duration,
    /// How long the device may take to be healthy and steady afterwards.
    pub probe: Duration,
    /// How long a host that is said to be in its firmware is waited for. Shorter than [`Timing::probe`]: some BMCs say so for
    /// ever, with an operating system running.
    pub boot: Duration,
    /// The whole operation, from its first intent on.
    pub total: Duration,
    /// At most one progress write in this time.
    pub progress: Duration,
    /// How often an update may be sent: again only after the BMC refused in so many words, or nothing left us.
    pub attempts: u32,
    /// How often a refused reset may be asked for.
    pub reset_attempts: u32,
}

impl Default for Timing {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Self {
            read: minutes(2),
            send: minutes(30),
            reset: minutes(2),
            write: Duration::from_secs(30),
            stage: minutes(30),
            poll: Duration::from_secs(5),
            retry: Duration::from_secs(30),
            start: minutes(10),
            busy: minutes(30),
            stuck: minutes(30),
            settle: minutes(15),
            self_reset: minutes(5),
            activation: minutes(30),
            bmc_return: minutes(30),
            readbacks: 3,
            readback: Duration::from_secs(30),
            probe: minutes(15),
            boot: minutes(10),
            total: minutes(360),
            progress: Duration::from_secs(30),
            attempts: 3,
            reset_attempts: 3,
        }
    }
}

/// What of an operation must survive a crash. It is all in `Operation.status`; nothing else is believed afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When the first intent was written.
    pub started_at: Option<Timestamp>,
    /// Index of the update under way.
    pub update: usize,
    /// What is about to be sent, or was: an intent without an outcome.
    pub intent: Option<Intent>,
    /// What was done, update by update.
    pub results: Vec<UpdateResult>,
    /// Host resets so far, counted before each is sent.
    pub resets: u32,
}

/// What an executor is about to send. Durable before it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Index of the update.
    pub update: usize,
    /// Component, for people.
    pub component: String,
    /// The versions that the components had before, joined by `, `.
    pub from: String,
    /// Version wanted.
    pub to: String,
    /// SHA-256 of the image.
    pub sha256: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// When it was written.
    pub at: Timestamp,
    /// Until when the call may still be on its way.
    pub call_deadline: Timestamp,
    /// The BMC's task, once known. Opaque here.
    pub task: Option<String>,
    /// The resets asked for, each recorded before it is sent.
    pub resets: Vec<ResetRecord>,
}

/// A reset that is about to be sent, or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetRecord {
    /// What.
    pub kind: Reset,
    /// When it was written.
    pub at: Timestamp,
    /// Until when the call may still be on its way.
    pub call_deadline: Timestamp,
}

/// What was done with one component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateResult {
    /// Component, for people.
    pub component: String,
    /// Versions before.
    pub before: String,
    /// Versions after, as read back.
    pub after: String,
    /// How it ended.
    pub outcome: UpdateOutcome,
    /// Attempts sent.
    pub attempts: u32,
}

/// How one update ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateOutcome {
    /// The wanted version was read back.
    Succeeded,
    /// It had the wanted version before anything was sent.
    AlreadyThere,
    /// It has not the wanted version.
    Failed,
    /// Nobody can tell.
    Unknown,
}

impl UpdateOutcome {
    /// The word for status and ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::AlreadyThere => "AlreadyThere",
            Self::Failed => "Failed",
            Self::Unknown => "Unknown",
        }
    }

    /// The inverse of [`UpdateOutcome::as_str`]; what is not known is unknown.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        [Self::Succeeded, Self::AlreadyThere, Self::Failed]
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
            .unwrap_or(Self::Unknown)
    }
}

/// Where an operation is. Made by [`State::begin`] or [`State::recover`], moved only by [`advance`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What must survive a crash. A driver makes exactly this durable on [`EffectKind::WriteIntent`] and
    /// [`EffectKind::WriteProgress`].
    pub record: Record,
    phase: machine::Phase,
    /// When the phase began.
    since: Timestamp,
    /// Since when the BMC has not answered.
    silent_since: Option<Timestamp>,
    /// When the record was last made durable, and whether it changed since.
    written_at: Timestamp,
    dirty: bool,
    /// The deadline of the effect that was given last.
    due: Timestamp,
    /// Until when to wait once the progress is written.
    writing_until: Option<Timestamp>,
    /// The versions that the update's components had at the last reading.
    seen: String,
    /// Whether it is unknown that the BMC ever accepted what the intent speaks of.
    adopted: bool,
    /// Whether the BMC was restarted to cure the task that is followed.
    unstuck: bool,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// What.
    pub kind: EffectKind,
    /// When the driver gives it up and reports a [`Failure`]. For a wait, when it is over.
    pub deadline: Timestamp,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EffectKind {
    /// Compare the machine that answers with the one that is meant. → [`Observation::Identified`]
    CheckIdentity,
    /// Read the firmware inventory. → [`Observation::Inventory`]
    ReadInventory,
    /// Have the image of an update on disk, its digest verified. → [`Observation::Staged`]
    StageImage {
        /// Index of the update.
        update: usize,
    },
    /// Read what work the BMC has in hand. → [`Observation::Work`]
    FindWork,
    /// Make [`State::record`] durable, with a precondition that nobody else wrote since. → [`Observation::Written`]
    WriteIntent,
    /// Send the image and start its installation. → [`Observation::Sent`]
    Send {
        /// Index of the update.
        update: usize,
        /// Which attempt.
        attempt: u32,
    },
    /// Read how a task does. → [`Observation::Task`]
    FollowTask {
        /// The task.
        task: String,
    },
    /// Reset something. → [`Observation::ResetDone`]
    Reset {
        /// What.
        kind: Reset,
    },
    /// Read whether the device is healthy and steady. → [`Observation::Health`]
    ProbeHealth,
    /// Make [`State::record`] durable, like [`EffectKind::WriteIntent`], but nothing depends on it. → [`Observation::Written`]
    WriteProgress,
    /// Do nothing until the deadline. → [`Observation::Elapsed`]
    Wait,
    /// Write the outcome, with [`State::record`], and stop.
    Finish(Outcome),
}

impl EffectKind {
    /// The effect's name: for logs, metrics, and the places where tests crash.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::CheckIdentity => "CheckIdentity",
            Self::ReadInventory => "ReadInventory",
            Self::StageImage { .. } => "StageImage",
            Self::FindWork => "FindWork",
            Self::WriteIntent => "WriteIntent",
            Self::Send { .. } => "Send",
            Self::FollowTask { .. } => "FollowTask",
            Self::Reset { .. } => "Reset",
            Self::ProbeHealth => "ProbeHealth",
            Self::WriteProgress => "WriteProgress",
            Self::Wait => "Wait",
            Self::Finish(_) => "Finish",
        }
    }
}

/// What a driver saw of the effect that it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Observation {
    /// Nothing yet: the first call.
    Begin,
    /// The wait is over.
    Elapsed,
    /// The right machine answers.
    Identified,
    /// Another machine answers.
    WrongMachine {
        /// Who it says it is, and who it should be.
        message: String,
    },
    /// Another certificate than the recorded one was shown.
    CertificateChanged {
        /// Which, and which was recorded.
        message: String,
    },
    /// The inventory.
    Inventory(Reading),
    /// The image is there.
    Staged,
    /// What the BMC has in hand.
    Work(Vec<Work>),
    /// The record is durable.
    Written,
    /// The BMC accepted the update.
    Sent {
        /// What to follow, where it said so.
        task: Option<String>,
    },
    /// How the task does.
    Task(TaskSeen),
    /// The reset was accepted.
    ResetDone,
    /// How the device is.
    Health(HealthSeen),
    /// The effect failed, or was given up.
    Failure(Failure),
}

/// A firmware inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The components.
    pub components: Vec<Component>,
    /// Whether the host was on; None where the BMC did not say.
    pub on: Option<bool>,
}

/// A piece of work that the BMC has in hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// What to follow.
    pub task: String,
    /// What the BMC calls it.
    pub name: String,
    /// The class of component that it speaks of, where it does.
    pub class: Option<ComponentClass>,
    /// How it does.
    pub state: TaskState,
}

/// What a task's state means for who waits on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    /// Under way.
    Running,
    /// It waits for the reset that activates it.
    AwaitingReset,
    /// The BMC says that it is done.
    Done,
    /// The BMC says that it failed.
    Failed,
    /// The BMC knows no such task.
    Gone,
}

/// How a task does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSeen {
    /// What its state means.
    pub state: TaskState,
    /// 0 to 100, where it says so.
    pub percent: Option<u8>,
    /// What it last said.
    pub message: String,
    /// Follow this one instead from now on.
    pub moved_to: Option<String>,
}

/// How the device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthSeen {
    /// Whether it says that it needs attention now.
    pub critical: bool,
    /// Whether it is neither starting nor being updated.
    pub steady: bool,
    /// Whether the host is on and still in its firmware.
    pub booting: bool,
    /// What is wrong, for people.
    pub message: String,
}

/// An effect that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Why.
    pub class: FailureClass,
    /// Whether what was asked for may have happened all the same.
    pub unknown: bool,
    /// What was tried and what came back, for people.
    pub message: String,
    /// When the other side asks to be left alone until then.
    pub retry_after: Option<Duration>,
}

/// Why an effect failed, by what can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureClass {
    /// No answer, or none that can be understood.
    Silent,
    /// It is busy, starting, or out of sessions.
    Busy,
    /// It said no.
    Refused,
    /// It cannot do this.
    NotSupported,
    /// It refused the account.
    Credentials,
    /// Its certificate is not trusted.
    Untrusted,
    /// The image could not be had, or is not the one that is meant.
    Image,
    /// Something on our side: a bad address, a full disk, an API server that does not answer.
    Local,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Every update has its wanted version.
    Succeeded,
    /// It has not, and everybody knows why.
    Failed(Reason, String),
    /// A person must look before anything is changed on the device.
    Held(Reason, String),
}

impl Outcome {
    /// The word for status and ledger.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Failed(..) => "Failed",
            Self::Held(..) => "Held",
        }
    }

    /// Why it did not succeed.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Succeeded => None,
            Self::Failed(reason, _) | Self::Held(reason, _) => Some(*reason),
        }
    }

    /// What happened, in a sentence. Empty for success.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Succeeded => "",
            Self::Failed(_, message) | Self::Held(_, message) => message,
        }
    }
}

/// Why an operation did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// Another machine answers at the BMC's address.
    WrongMachine,
    /// The BMC shows another certificate than the recorded one.
    CertificateChanged,
    /// The BMC's certificate is not trusted.
    CertificateUntrusted,
    /// Whether the update was done cannot be told.
    OutcomeUnknown,
    /// The BMC did not answer before anything was sent to it.
    Unreachable,
    /// The BMC refused the account.
    AuthenticationFailed,
    /// The BMC did not come back after the update.
    BmcLost,
    /// The BMC was busy with other work for too long.
    BmcBusy,
    /// The image could not be had, or its digest is another.
    ImageUnavailable,
    /// The device has no such component.
    ComponentMissing,
    /// A newer version than the wanted one came to be there after the plan was made.
    VersionChanged,
    /// The BMC refused the update.
    UpdateRefused,
    /// The BMC cannot do it.
    NotSupported,
    /// The BMC says that the update failed.
    TaskFailed,
    /// The update made no progress for too long.
    TaskStuck,
    /// The BMC said done, and the version is not there.
    VersionUnchanged,
    /// The wanted version was there, and went away again.
    VersionReverted,
    /// The reset that activates the version could not be had.
    ResetFailed,
    /// The device is not healthy after the update.
    Unhealthy,
    /// The operation took longer than it may.
    DeadlineExceeded,
    /// The operation cannot be carried out as it is written.
    Invalid,
    /// The operator itself failed while it worked on this.
    Panicked,
}

impl Reason {
    /// Those after which the machine is not read at once: it cannot be asked, or is not the one that is meant.
    pub const SILENT: [Self; 7] = [
        Self::WrongMachine,
        Self::CertificateChanged,
        Self::CertificateUntrusted,
        Self::Unreachable,
        Self::AuthenticationFailed,
        Self::BmcLost,
        Self::Panicked,
    ];

    /// The word for conditions, events and metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WrongMachine => "WrongMachine",
            Self::CertificateChanged => "CertificateChanged",
            Self::CertificateUntrusted => "CertificateUntrusted",
            Self::OutcomeUnknown => "OutcomeUnknown",
            Self::Unreachable => "Unreachable",
            Self::AuthenticationFailed => "AuthenticationFailed",
            Self::BmcLost => "BmcLost",
            Self::BmcBusy => "BmcBusy",
            Self::ImageUnavailable => "ImageUnavailable",
            Self::ComponentMissing => "ComponentMissing",
            Self::VersionChanged => "VersionChanged",
            Self::UpdateRefused => "UpdateRefused",
            Self::NotSupported => "NotSupported",
            Self::TaskFailed => "TaskFailed",
            Self::TaskStuck => "TaskStuck",
            Self::VersionUnchanged => "VersionUnchanged",
            Self::VersionReverted => "VersionReverted",
            Self::ResetFailed => "ResetFailed",
            Self::Unhealthy => "Unhealthy",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::Invalid => "Invalid",
            Self::Panicked => "Panicked",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
