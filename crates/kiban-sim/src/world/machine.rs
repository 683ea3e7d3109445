//! A machine and its BMC, as plain state: what it runs, what it is doing, and what is wrong with it.
//!
//! Time is in milliseconds since the world began. Nothing happens by a timer: [`Machine::tick`] brings the state up to now
//! whenever somebody looks.

use super::rng::Rng;
use kiban_core::{
    component::{Component, ComponentClass},
    operation::{
        EffectKind, Failure, FailureClass, HealthSeen, Observation, Reading, Reset, TaskSeen, TaskState, Work,
    },
};

/// How a BMC behaves over one update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    Plain,
    /// The finished task is forgotten at once.
    ForgetsTask,
    /// The answer to the request names no task.
    NamesNoTask,
    /// The task waits for the reset instead of ending.
    AwaitsReset,
    /// Says that it is done, and is not.
    Lies,
    /// The task fails at its end.
    Fails,
    /// The task stands still until the BMC is restarted, or for ever.
    Stuck {
        curable: bool,
    },
    /// The BMC never comes back.
    Bricks,
    /// The BMC restarts itself in the middle.
    Reboots,
    /// The machine is out of order afterwards.
    Critical,
    /// The version goes back with the second reading of it.
    Reverts,
}

impl Habit {
    pub(super) const HARMLESS: [Self; 4] = [
        Self::Plain,
        Self::ForgetsTask,
        Self::NamesNoTask,
        Self::AwaitsReset,
    ];
    pub(super) const HARMFUL: [Self; 9] = [
        Self::Lies,
        Self::Fails,
        Self::Stuck { curable: true },
        Self::Stuck { curable: false },
        Self::Bricks,
        Self::Reboots,
        Self::Reboots,
        Self::Critical,
        Self::Reverts,
    ];
}

/// An update that the BMC accepted.
#[derive(Clone, Debug)]
struct Flash {
    task: String,
    at: usize,
    to: String,
    ends: i64,
    habit: Habit,
    ended: bool,
    readings: u32,
    before: String,
}

/// One machine.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// Class and running version, in the order of [`CLASSES`].
    versions: [String; 2],
    staged: Option<(usize, String)>,
    flash: Option<Flash>,
    pub(super) away_until: i64,
    host_back: i64,
    host_off: bool,
    pub(super) bricked: bool,
    pub(super) critical: bool,
    /// Until when another machine answers at its address.
    pub(super) impostor_until: i64,
    /// Until when its room is dark.
    pub(super) dark_until: i64,
    tasks: u32,
}

/// The components that every machine has.
pub(super) const CLASSES: [ComponentClass; 2] = [ComponentClass::Bmc, ComponentClass::Bios];

/// What an accepted request was.
pub(super) struct Accepted {
    pub(super) answer: Observation,
    /// Another update was still being written.
    pub(super) over_another: bool,
}

impl Machine {
    pub(super) fn new(bmc: &str, bios: &str) -> Self {
        Self {
            versions: [bmc.to_owned(), bios.to_owned()],
            staged: None,
            flash: None,
            away_until: 0,
            host_back: 0,
            host_off: false,
            bricked: false,
            critical: false,
            impostor_until: 0,
            dark_until: 0,
            tasks: 0,
        }
    }

    /// What it runs, in the order of [`CLASSES`].
    pub(super) fn versions(&self) -> &[String; 2] {
        &self.versions
    }

    /// Whether it serves nobody by its own state: its BMC is gone, its host is off or starting, or it is out of order.
    pub(super) fn is_down(&self, now: i64) -> bool {
        self.bricked || self.critical || self.host_off || now < self.host_back
    }

    /// Whether its BMC answers.
    pub(super) fn answers(&self, now: i64) -> bool {
        !self.bricked && now >= self.away_until && now >= self.dark_until
    }

    /// Whether something is being written into it.
    pub(super) fn is_writing(&self) -> bool {
        self.flash
            .as_ref()
            .is_some_and(|flash| !flash.ended && !matches!(flash.habit, Habit::Stuck { .. }))
    }

    /// A person repairs it: what is broken works again, what stands still is cleared away.
    pub(super) fn repair(&mut self) {
        self.bricked = false;
        self.critical = false;
        self.host_off = false;
        self.impostor_until = 0;
        self.dark_until = 0;
        if let Some(flash) = self
            .flash
            .as_mut()
            .filter(|flash| matches!(flash.habit, Habit::Stuck { .. }))
        {
            flash.ended = true;
            flash.habit = Habit::Lies;
        }
    }

    pub(super) fn tick(&mut self, now: i64) {
        let Some(flash) = self
            .flash
            .as_mut()
            .filter(|flash| !flash.ended && now >= flash.ends)
        else {
            return;
        };
        if matches!(flash.habit, Habit::Stuck { .. }) {
            return;
        }
        flash.ended = true;
        match flash.habit {
            Habit::Lies | Habit::Fails => return,
            Habit::Bricks => self.bricked = true,
            Habit::Critical => self.critical = true,
            _ => {}
        }
        let (at, to) = (flash.at, flash.to.clone());
        if at == 0 {
            // A BMC restarts itself into its new firmware.
            self.away_until = self.away_until.max(flash.ends + 60_000);
            self.install(at, to);
        } else {
            self.staged = Some((at, to));
        }
    }

    fn install(&mut self, at: usize, to: String) {
        if let Some(version) = self.versions.get_mut(at) {
            *version = to;
        }
    }

    fn task(&self, flash: &Flash) -> TaskState {
        match flash.habit {
            _ if !flash.ended => TaskState::Running,
            Habit::ForgetsTask => TaskState::Gone,
            Habit::Fails => TaskState::Failed,
            Habit::AwaitsReset if self.staged.is_some() => TaskState::AwaitingReset,
            _ => TaskState::Done,
        }
    }

    fn reading(&mut self, now: i64) -> Reading {
        if let Some(flash) = self
            .flash
            .as_mut()
            .filter(|flash| flash.ended && flash.habit == Habit::Reverts)
            && self.versions.get(flash.at) == Some(&flash.to)
        {
            flash.readings += 1;
            if flash.readings > 1 {
                let (at, before) = (flash.at, flash.before.clone());
                self.install(at, before);
            }
        }
        let components = CLASSES
            .iter()
            .zip(&self.versions)
            .enumerate()
            .map(|(at, (class, version))| {
                let mut component = Component::new(class.as_str(), *class, class.as_str());
                component.version = Some(version.clone());
                component.staged = self
                    .staged
                    .as_ref()
                    .filter(|(staged, _)| *staged == at)
                    .map(|(_, to)| to.clone());
                component
            });
        Reading {
            components: components.collect(),
            on: Some(!self.host_off && now >= self.host_back),
        }
    }

    /// What its observer sees: nothing when the BMC does not answer.
    pub(super) fn read(&mut self, now: i64) -> Option<Reading> {
        self.tick(now);
        self.answers(now).then(|| self.reading(now))
    }

    /// Answers anything but a send.
    pub(super) fn answer(&mut self, kind: &EffectKind, now: i64) -> Observation {
        self.tick(now);
        if !self.answers(now) {
            return silent(false);
        }
        if now < self.impostor_until {
            return Observation::WrongMachine {
                message: "another machine answers".into(),
            };
        }
        match kind {
            EffectKind::CheckIdentity => Observation::Identified,
            EffectKind::ReadInventory => Observation::Inventory(self.reading(now)),
            EffectKind::FindWork => Observation::Work(self.work()),
            EffectKind::FollowTask { task } => Observation::Task(self.follow(task, now)),
            EffectKind::Reset { kind } => {
                self.reset(*kind, now);
                Observation::ResetDone
            }
            _ => Observation::Health(HealthSeen {
                critical: self.critical,
                steady: !self.is_writing() && now >= self.host_back,
                booting: now < self.host_back,
                message: String::new(),
            }),
        }
    }

    fn work(&self) -> Vec<Work> {
        let shown = self
            .flash
            .iter()
            .filter(|flash| self.task(flash) != TaskState::Gone);
        shown
            .map(|flash| Work {
                task: flash.task.clone(),
                name: "update".into(),
                class: CLASSES.get(flash.at).copied(),
                state: self.task(flash),
            })
            .collect()
    }

    fn follow(&self, task: &str, now: i64) -> TaskSeen {
        let flash = self.flash.as_ref().filter(|flash| flash.task == task);
        let moving = flash.is_some_and(|flash| !matches!(flash.habit, Habit::Stuck { .. }));
        TaskSeen {
            state: flash.map_or(TaskState::Gone, |flash| self.task(flash)),
            percent: moving.then(|| u8::try_from(now / 10_000 % 100).unwrap_or(0)),
            message: String::new(),
            moved_to: None,
        }
    }

    fn reset(&mut self, kind: Reset, now: i64) {
        if kind == Reset::Bmc {
            self.away_until = now + 60_000;
            if let Some(flash) = self
                .flash
                .as_mut()
                .filter(|flash| flash.habit == Habit::Stuck { curable: true })
            {
                flash.habit = Habit::Plain;
                flash.ends = now + 30_000;
            }
            return;
        }
        self.host_off = false;
        self.host_back = now + if kind == Reset::Ac { 300_000 } else { 120_000 };
        if let Some((at, to)) = self.staged.take() {
            self.install(at, to);
        }
    }

    /// Takes an image in and begins to write it.
    pub(super) fn accept(&mut self, at: usize, to: &str, habit: Habit, now: i64, rng: &mut Rng) -> Accepted {
        self.tick(now);
        let over_another = self.flash.as_ref().is_some_and(|flash| !flash.ended);
        self.tasks += 1;
        let task = format!("task-{}", self.tasks);
        let takes = rng.range(60_000, 420_000);
        if habit == Habit::Reboots {
            self.away_until = now + takes / 2;
        }
        self.flash = Some(Flash {
            task: task.clone(),
            at,
            to: to.to_owned(),
            ends: now + takes,
            habit,
            ended: false,
            readings: 0,
            before: self.versions.get(at).cloned().unwrap_or_default(),
        });
        let named = habit != Habit::NamesNoTask;
        Accepted {
            answer: Observation::Sent {
                task: named.then_some(task),
            },
            over_another,
        }
    }
}

/// No answer.
pub(super) fn silent(unknown: bool) -> Observation {
    failure(FailureClass::Silent, unknown, "no answer")
}

/// A failure.
pub(super) fn failure(class: FailureClass, unknown: bool, message: &str) -> Observation {
    Observation::Failure(Failure {
        class,
        unknown,
        message: message.to_owned(),
        retry_after: None,
    })
}
