//! The machine against a BMC of paper, with a clock of paper: crashes at every effect, and random faults.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const OLD: &str = "1.0.0";
const NEW: &str = "2.0.0";

/// How a machine behaves.
#[derive(Clone, Debug)]
struct Habits {
    class: ComponentClass,
    activation: Activation,
    /// How long a flash takes.
    flash: u64,
    /// A finished task is forgotten at once.
    purges_tasks: bool,
    /// The list of work shows nothing at all.
    hides_work: bool,
    /// A staged version is not shown.
    hides_staged: bool,
    /// The answer to a send names no task.
    names_no_task: bool,
    /// Says done, does nothing.
    lies: bool,
    /// The task fails at its end.
    fails: bool,
    /// The task stands still until the BMC is restarted (true: forever).
    stuck: Option<bool>,
    /// The BMC never comes back after the flash.
    bricks: bool,
    /// The first so many sends are refused.
    refusals: u32,
    /// The task waits for the reset instead of ending.
    awaits_reset: bool,
    /// The host stays off after a reset.
    stays_off: bool,
    /// The version goes back after so many readings.
    reverts_after: Option<u32>,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            class: ComponentClass::Bios,
            activation: Activation::HostReset,
            flash: 120,
            purges_tasks: false,
            hides_work: false,
            hides_staged: false,
            names_no_task: false,
            lies: false,
            fails: false,
            stuck: None,
            bricks: false,
            refusals: 0,
            awaits_reset: false,
            stays_off: false,
            reverts_after: None,
        }
    }
}

#[derive(Clone, Debug)]
struct Flash {
    started: u64,
    ended: bool,
}

/// The machine behind the BMC, and everything that was asked of it.
#[derive(Clone, Debug)]
struct Machine {
    habits: Habits,
    version: String,
    staged: bool,
    on: bool,
    flash: Option<Flash>,
    away_until: u64,
    lost: bool,
    unstuck: bool,
    readings_of_new: u32,
    /// Accepted sends by attempt, refused ones, and resets with whether a flash ran.
    accepted: Vec<u32>,
    refused: Vec<u32>,
    resets: Vec<(Reset, bool)>,
}

impl Machine {
    fn new(habits: Habits) -> Self {
        Self {
            habits,
            version: OLD.into(),
            staged: false,
            on: true,
            flash: None,
            away_until: 0,
            lost: false,
            unstuck: false,
            readings_of_new: 0,
            accepted: Vec::new(),
            refused: Vec::new(),
            resets: Vec::new(),
        }
    }

    fn flashing(&self) -> bool {
        self.flash.as_ref().is_some_and(|flash| !flash.ended)
    }

    fn tick(&mut self, now: u64) {
        let stuck = self.habits.stuck.is_some() && !self.unstuck;
        let Some(flash) = self.flash.as_mut().filter(|flash| !flash.ended && !stuck) else {
            return;
        };
        if now < flash.started + self.habits.flash {
            return;
        }
        flash.ended = true;
        if self.habits.lies || self.habits.fails {
            return;
        }
        match self.habits.activation {
            Activation::None => self.version = NEW.into(),
            Activation::BmcReset => {
                self.version = NEW.into();
                self.away_until = now + 60;
            }
            _ => self.staged = true,
        }
        self.lost = self.habits.bricks;
    }

    fn task(&self) -> TaskState {
        match &self.flash {
            None => TaskState::Gone,
            Some(flash) if !flash.ended => TaskState::Running,
            Some(_) if self.habits.purges_tasks => TaskState::Gone,
            Some(_) if self.habits.fails => TaskState::Failed,
            Some(_) if self.habits.awaits_reset && self.staged => TaskState::AwaitingReset,
            Some(_) => TaskState::Done,
        }
    }

    fn reset(&mut self, kind: Reset, now: u64) {
        self.resets.push((kind, self.flashing()));
        if kind == Reset::Bmc {
            self.away_until = now + 60;
            self.unstuck = self.habits.stuck == Some(false);
            return;
        }
        if self.staged {
            self.staged = false;
            self.version = NEW.into();
        }
        self.on = kind == Reset::PowerOn || !self.habits.stays_off;
    }

    fn reading(&mut self) -> Reading {
        if self.version == NEW {
            self.readings_of_new += 1;
            if self
                .habits
                .reverts_after
                .is_some_and(|after| self.readings_of_new > after)
            {
                self.version = OLD.into();
            }
        }
        let mut component = Component::new("x", self.habits.class, "X");
        component.version = Some(self.version.clone());
        component.staged = (self.staged && !self.habits.hides_staged).then(|| NEW.to_owned());
        Reading {
            components: vec![component],
            on: Some(self.on),
        }
    }
}

/// What befalls one effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    /// The process dies before the effect.
    DieBefore,
    /// The effect happens, and the process dies before it knows.
    DieAfter,
    /// The process learns the answer, and dies.
    DieAnswered,
    /// Nothing reaches the other side.
    Silent,
    /// It happens, and the answer is lost.
    AnswerLost,
    /// It says that it is busy.
    Busy,
    /// The process stands still for two hours first.
    Freeze,
    /// Another machine answers.
    WrongMachine,
    /// Another certificate is shown.
    Certificate,
}

struct Run {
    plan: OperationPlan,
    machine: Machine,
    durable: Record,
    outcome: Option<Outcome>,
    now: u64,
    /// Names of the effects in order.
    trace: Vec<&'static str>,
    mishaps: BTreeMap<usize, Mishap>,
}

fn plan(habits: &Habits) -> OperationPlan {
    let update = Update {
        select: Selector::class(habits.class),
        name: "X".into(),
        from: OLD.into(),
        to: NEW.into(),
        sha256: "ab".into(),
        activation: habits.activation,
        unstick: true,
    };
    // Fewer looks than in production: the crash tests are as many as the square of the effects.
    let timing = Timing {
        poll: Duration::from_secs(30),
        ..Timing::default()
    };
    OperationPlan {
        id: "op".into(),
        updates: vec![update],
        timing,
    }
}

impl Run {
    fn new(habits: Habits, mishaps: BTreeMap<usize, Mishap>) -> Self {
        Self {
            plan: plan(&habits),
            machine: Machine::new(habits),
            durable: Record::default(),
            outcome: None,
            now: 1_000,
            trace: Vec::new(),
            mishaps,
        }
    }

    fn at(&self) -> Timestamp {
        Timestamp::from_second(i64::try_from(self.now).unwrap()).unwrap()
    }

    /// Runs to the end; panics when an invariant breaks.
    fn run(mut self) -> Self {
        let mut state = State::recover(self.durable.clone(), self.at());
        let mut observation = Observation::Begin;
        while self.outcome.is_none() {
            let (next, effect) = advance(&self.plan, state, observation, self.at());
            // A state must survive being written down: the seeded world keeps them.
            let at = self.trace.len();
            state = if at % 16 == 7 {
                serde_json::from_str(&serde_json::to_string(&next).unwrap()).unwrap()
            } else {
                next
            };
            assert!(at < 20_000, "no end in sight: {:?}", &self.trace[at - 40..]);
            self.trace.push(effect.kind.as_str());
            let mishap = self.mishaps.get(&at).copied();
            if mishap == Some(Mishap::Freeze) {
                self.now += 7_200;
                self.machine.tick(self.now);
            }
            if mishap == Some(Mishap::DieBefore) {
                (state, observation) = self.restart();
                continue;
            }
            observation = self.perform(&effect, &state, mishap);
            if matches!(mishap, Some(Mishap::DieAfter | Mishap::DieAnswered)) {
                if mishap == Some(Mishap::DieAnswered) && self.outcome.is_none() {
                    let _ = advance(&self.plan, state, observation, self.at());
                }
                (state, observation) = self.restart();
            }
        }
        self
    }

    fn restart(&mut self) -> (State, Observation) {
        self.now += 20;
        (
            State::recover(self.durable.clone(), self.at()),
            Observation::Begin,
        )
    }

    fn perform(&mut self, effect: &Effect, state: &State, mishap: Option<Mishap>) -> Observation {
        if effect.kind == EffectKind::Wait {
            self.now = self
                .now
                .max(u64::try_from(effect.deadline.as_second()).unwrap() + 1);
            return Observation::Elapsed;
        }
        assert!(
            mishap == Some(Mishap::Freeze) || effect.deadline >= self.at(),
            "a deadline in the past: {effect:?}"
        );
        self.now += 1;
        self.machine.tick(self.now);
        match &effect.kind {
            EffectKind::Finish(outcome) => {
                self.outcome = Some(outcome.clone());
                self.durable = state.record.clone();
                return Observation::Written;
            }
            EffectKind::WriteIntent | EffectKind::WriteProgress => {
                if matches!(mishap, Some(Mishap::Silent | Mishap::Busy)) {
                    return failure(FailureClass::Local, false);
                }
                self.durable = state.record.clone();
                return Observation::Written;
            }
            EffectKind::StageImage { .. } => return Observation::Staged,
            _ => {}
        }
        let silent = self.machine.lost || self.now < self.machine.away_until;
        match mishap {
            Some(Mishap::WrongMachine) => {
                return Observation::WrongMachine {
                    message: "another".into(),
                };
            }
            Some(Mishap::Certificate) => {
                return Observation::CertificateChanged {
                    message: "another".into(),
                };
            }
            Some(Mishap::Busy) => return failure(FailureClass::Busy, false),
            _ if silent || mishap == Some(Mishap::Silent) => return failure(FailureClass::Silent, false),
            _ => {}
        }
        // A driver does not begin a call after its deadline.
        if self.at() > effect.deadline {
            return failure(FailureClass::Local, false);
        }
        let answer = self.answer(&effect.kind);
        if mishap == Some(Mishap::AnswerLost) {
            failure(FailureClass::Silent, true)
        } else {
            answer
        }
    }

    fn answer(&mut self, kind: &EffectKind) -> Observation {
        let at = self.at();
        let machine = &mut self.machine;
        match kind {
            EffectKind::CheckIdentity => Observation::Identified,
            EffectKind::ReadInventory => Observation::Inventory(machine.reading()),
            EffectKind::FindWork => Observation::Work(
                machine
                    .flash
                    .iter()
                    .filter(|_| !machine.habits.hides_work && machine.task() != TaskState::Gone)
                    .map(|_| Work {
                        task: "t1".into(),
                        name: "flash".into(),
                        class: None,
                        state: machine.task(),
                    })
                    .collect(),
            ),
            EffectKind::Send { update, attempt } => {
                let intent = self
                    .durable
                    .intent
                    .as_ref()
                    .expect("sent without an intent that is written");
                assert_eq!(
                    (intent.update, intent.attempt),
                    (*update, *attempt),
                    "sent something else than intended"
                );
                assert!(at <= intent.call_deadline, "sent after the intent's deadline");
                let before = machine.accepted.iter().chain(&machine.refused);
                assert!(
                    before.copied().all(|sent| sent != *attempt),
                    "sent twice for one intent"
                );
                if machine.refused.len() < machine.habits.refusals as usize {
                    machine.refused.push(*attempt);
                    return failure(FailureClass::Busy, false);
                }
                machine.accepted.push(*attempt);
                machine.flash = Some(Flash {
                    started: self.now,
                    ended: false,
                });
                Observation::Sent {
                    task: (!machine.habits.names_no_task).then(|| "t1".to_owned()),
                }
            }
            EffectKind::FollowTask { .. } => Observation::Task(TaskSeen {
                state: machine.task(),
                // It shows that it moves, unless it does not.
                percent: machine
                    .habits
                    .stuck
                    .is_none()
                    .then_some(u8::try_from(self.now / 300 % 100).unwrap()),
                message: String::new(),
                moved_to: None,
            }),
            EffectKind::Reset { kind } => {
                let recorded = self.durable.intent.iter().flat_map(|intent| &intent.resets);
                assert_eq!(
                    recorded.last().map(|reset| reset.kind),
                    Some(*kind),
                    "reset without a record"
                );
                let cure = *kind == Reset::Bmc && machine.habits.stuck.is_some();
                assert!(cure || !machine.flashing(), "{kind:?} while a flash runs");
                machine.reset(*kind, self.now);
                Observation::ResetDone
            }
            EffectKind::ProbeHealth => Observation::Health(HealthSeen {
                critical: false,
                steady: true,
                booting: false,
                message: String::new(),
            }),
            other => panic!("not a request to a BMC: {other:?}"),
        }
    }

    fn outcome(&self) -> &Outcome {
        self.outcome.as_ref().expect("it ended")
    }

    /// What must hold however it went.
    fn check(&self) {
        assert!(
            self.machine.accepted.len() <= 1,
            "flashed {} times",
            self.machine.accepted.len()
        );
        let disturbing = self
            .machine
            .resets
            .iter()
            .filter(|(kind, _)| *kind != Reset::PowerOn)
            .count();
        assert!(disturbing <= 3, "reset {disturbing} times");
        assert_eq!(self.durable.intent, None, "an intent is left without an outcome");
        if *self.outcome() == Outcome::Succeeded {
            assert_eq!(self.machine.version, NEW);
            assert!(self.machine.on, "the host was left off");
        }
    }
}

fn failure(class: FailureClass, unknown: bool) -> Observation {
    Observation::Failure(Failure {
        class,
        unknown,
        message: "a mishap".into(),
        retry_after: None,
    })
}

fn undisturbed(habits: Habits) -> Run {
    let run = Run::new(habits, BTreeMap::new()).run();
    run.check();
    run
}

fn scenarios() -> Vec<(&'static str, Habits, Option<Reason>)> {
    let base = Habits::default;
    let bmc = || Habits {
        class: ComponentClass::Bmc,
        activation: Activation::BmcReset,
        ..base()
    };
    vec![
        ("bios", base(), None),
        ("bmc", bmc(), None),
        (
            "nic that runs at once",
            Habits {
                activation: Activation::None,
                class: ComponentClass::Nic,
                ..base()
            },
            None,
        ),
        (
            "ac cycle",
            Habits {
                activation: Activation::AcCycle,
                ..base()
            },
            None,
        ),
        (
            "task purged",
            Habits {
                purges_tasks: true,
                ..base()
            },
            None,
        ),
        (
            "staged unseen",
            Habits {
                hides_staged: true,
                ..base()
            },
            None,
        ),
        (
            "purged and unseen",
            Habits {
                purges_tasks: true,
                hides_staged: true,
                hides_work: true,
                ..base()
            },
            None,
        ),
        (
            "no task",
            Habits {
                names_no_task: true,
                ..base()
            },
            None,
        ),
        (
            "bmc without a task",
            Habits {
                names_no_task: true,
                hides_work: true,
                ..bmc()
            },
            None,
        ),
        (
            "waits for the reset",
            Habits {
                awaits_reset: true,
                ..base()
            },
            None,
        ),
        (
            "refused once",
            Habits {
                refusals: 1,
                ..base()
            },
            None,
        ),
        (
            "host stays off",
            Habits {
                stays_off: true,
                ..base()
            },
            None,
        ),
        (
            "stuck, cured",
            Habits {
                stuck: Some(false),
                ..base()
            },
            None,
        ),
        (
            "stuck",
            Habits {
                stuck: Some(true),
                ..base()
            },
            Some(Reason::TaskStuck),
        ),
        (
            "fails",
            Habits {
                fails: true,
                ..base()
            },
            Some(Reason::TaskFailed),
        ),
        (
            "lies",
            Habits { lies: true, ..base() },
            Some(Reason::VersionUnchanged),
        ),
        (
            "lies about the bmc",
            Habits { lies: true, ..bmc() },
            Some(Reason::VersionUnchanged),
        ),
        (
            "never returns",
            Habits {
                bricks: true,
                ..bmc()
            },
            Some(Reason::BmcLost),
        ),
        (
            "reverts",
            Habits {
                reverts_after: Some(2),
                ..base()
            },
            Some(Reason::VersionReverted),
        ),
        (
            "refused for good",
            Habits {
                refusals: 9,
                ..base()
            },
            Some(Reason::BmcBusy),
        ),
    ]
}

#[test]
fn every_scenario_ends_as_it_should() {
    for (name, habits, reason) in scenarios() {
        let run = undisturbed(habits);
        assert_eq!(
            run.outcome().reason(),
            reason,
            "{name}: {:?} after {:?}",
            run.outcome(),
            run.trace
        );
    }
}

#[test]
fn a_quiet_update_takes_two_writes_and_one_flash() {
    let run = undisturbed(Habits {
        flash: 20,
        ..Habits::default()
    });
    let count = |name: &str| run.trace.iter().filter(|effect| **effect == name).count();
    // The intent, the reset's record, and the outcome.
    assert_eq!(
        (count("WriteIntent"), count("WriteProgress"), count("Finish")),
        (2, 0, 1),
        "{:?}",
        run.trace
    );
    assert_eq!((count("Send"), count("Reset")), (1, 1));
    assert_eq!(run.durable.results.len(), 1);
    assert_eq!(run.durable.results[0].outcome, UpdateOutcome::Succeeded);
    assert_eq!(run.durable.resets, 1);
}

#[test]
fn a_crash_at_any_effect_ends_as_without_it_or_held() {
    let mut crashes = 0;
    for (name, habits, _) in scenarios() {
        let golden = undisturbed(habits.clone());
        for at in 0..golden.trace.len() {
            for mishap in [
                Mishap::DieBefore,
                Mishap::DieAfter,
                Mishap::DieAnswered,
                Mishap::Freeze,
            ] {
                let run = Run::new(habits.clone(), BTreeMap::from([(at, mishap)])).run();
                run.check();
                let held = matches!(run.outcome(), Outcome::Held(..));
                // A crash takes readings away, so a version that reverts may be missed while it is there.
                let reverted = name == "reverts" && run.outcome().as_str() == "Failed";
                let same = run.outcome().reason() == golden.outcome().reason() || reverted;
                assert!(
                    held || same,
                    "{name}, {mishap:?} at {at} ({}): {:?}",
                    golden.trace[at],
                    run.outcome()
                );
                crashes += 1;
            }
        }
    }
    assert!(crashes > 1_000, "only {crashes} crashes were tried");
}

#[test]
fn two_crashes_in_a_row_are_no_worse() {
    for (name, habits, _) in scenarios().into_iter().take(6) {
        let golden = undisturbed(habits.clone());
        for first in 0..golden.trace.len().min(40) {
            for gap in 1..8 {
                let mishaps = BTreeMap::from([(first, Mishap::DieAfter), (first + gap, Mishap::DieAfter)]);
                let run = Run::new(habits.clone(), mishaps).run();
                run.check();
                let held = matches!(run.outcome(), Outcome::Held(..));
                assert!(
                    held || run.outcome() == golden.outcome(),
                    "{name} at {first}+{gap}: {:?}",
                    run.outcome()
                );
            }
        }
    }
}

#[test]
fn another_machine_or_certificate_stops_everything_at_any_moment() {
    let golden = undisturbed(Habits::default());
    let bmc_calls = [
        "CheckIdentity",
        "ReadInventory",
        "FindWork",
        "Send",
        "FollowTask",
        "Reset",
        "ProbeHealth",
    ];
    for (mishap, reason) in [
        (Mishap::WrongMachine, Reason::WrongMachine),
        (Mishap::Certificate, Reason::CertificateChanged),
    ] {
        for at in (0..golden.trace.len()).filter(|at| bmc_calls.contains(&golden.trace[*at])) {
            let run = Run::new(Habits::default(), BTreeMap::from([(at, mishap)])).run();
            run.check();
            assert!(
                matches!(run.outcome(), Outcome::Held(seen, _) if *seen == reason),
                "{:?}",
                run.outcome()
            );
            assert_eq!(
                run.trace[at..],
                [golden.trace[at], "Finish"],
                "something was done after it"
            );
        }
    }
}

#[test]
fn what_is_there_already_is_not_sent() {
    let mut run = Run::new(Habits::default(), BTreeMap::new());
    run.machine.version = NEW.into();
    let run = run.run();
    assert_eq!(*run.outcome(), Outcome::Succeeded);
    assert!(run.machine.accepted.is_empty() && run.machine.resets.is_empty());
    assert!(!run.trace.contains(&"WriteIntent") && !run.trace.contains(&"StageImage"));
    assert_eq!(run.durable.results[0].outcome, UpdateOutcome::AlreadyThere);
}

#[test]
fn a_lost_answer_to_the_send_is_settled_by_reading() {
    let golden = undisturbed(Habits::default());
    let send = golden.trace.iter().position(|effect| *effect == "Send").unwrap();
    let run = Run::new(Habits::default(), BTreeMap::from([(send, Mishap::AnswerLost)])).run();
    run.check();
    assert_eq!(*run.outcome(), Outcome::Succeeded);
    // The same, and the BMC shows neither work nor a staged version: nobody can tell, so nobody flashes again.
    let blind = Habits {
        hides_work: true,
        hides_staged: true,
        ..Habits::default()
    };
    let run = Run::new(blind, BTreeMap::from([(send, Mishap::AnswerLost)])).run();
    run.check();
    assert!(
        matches!(run.outcome(), Outcome::Held(Reason::OutcomeUnknown, _)),
        "{:?}",
        run.outcome()
    );
}

#[test]
fn a_takeover_waits_out_the_call_and_writes_first() {
    let golden = undisturbed(Habits::default());
    let send = golden.trace.iter().position(|effect| *effect == "Send").unwrap();
    let run = Run::new(Habits::default(), BTreeMap::from([(send, Mishap::DieAfter)])).run();
    assert_eq!(
        run.trace[send..send + 4],
        ["Send", "WriteProgress", "Wait", "CheckIdentity"]
    );
    assert_eq!(*run.outcome(), Outcome::Succeeded);
    let timing = Timing::default();
    assert!(
        run.now > 1_000 + timing.send.as_secs(),
        "it did not wait for the call's deadline"
    );
}

#[test]
fn a_silent_bmc_ends_the_operation_before_anything_is_sent() {
    let mut run = Run::new(Habits::default(), BTreeMap::new());
    run.machine.lost = true;
    let run = run.run();
    assert!(
        matches!(run.outcome(), Outcome::Failed(Reason::Unreachable, _)),
        "{:?}",
        run.outcome()
    );
    assert_eq!(run.durable.started_at, None, "nothing was intended");
}

#[test]
fn updates_are_done_in_order_and_read_again_between() {
    let mut run = Run::new(
        Habits {
            activation: Activation::None,
            ..Habits::default()
        },
        BTreeMap::new(),
    );
    let again = run.plan.updates[0].clone();
    run.plan.updates.push(again);
    let run = run.run();
    assert_eq!(*run.outcome(), Outcome::Succeeded);
    let outcomes: Vec<_> = run.durable.results.iter().map(|result| result.outcome).collect();
    assert_eq!(outcomes, [UpdateOutcome::Succeeded, UpdateOutcome::AlreadyThere]);
    assert_eq!(
        run.trace
            .iter()
            .filter(|effect| **effect == "CheckIdentity")
            .count(),
        2
    );
}

#[test]
fn of_several_parts_none_may_be_left_behind() {
    let update = &plan(&Habits {
        class: ComponentClass::Nic,
        ..Habits::default()
    })
    .updates[0];
    let part = |version: Option<&str>, updateable| {
        let mut component = Component::new("n", ComponentClass::Nic, "N");
        component.version = version.map(Into::into);
        component.updateable = updateable;
        component
    };
    let wanted =
        |components: Vec<Component>| machine::wanted_for_test(update, &Reading { components, on: None });
    assert!(wanted(vec![part(Some(NEW), None), part(Some(NEW), None)]));
    assert!(wanted(vec![
        part(Some(NEW), None),
        part(Some("1.5 accepted"), None)
    ]));
    assert!(!wanted(vec![part(Some(NEW), None), part(Some(OLD), None)]));
    assert!(
        !wanted(vec![part(Some(NEW), None), part(None, None)]),
        "a silent part proves nothing"
    );
    assert!(wanted(vec![part(Some(NEW), None), part(None, Some(false))]));
    assert!(!wanted(vec![part(Some("1.5"), None)]) && !wanted(vec![]));
}

#[test]
fn a_version_that_outran_the_plan_is_left_alone() {
    let mut run = Run::new(Habits::default(), BTreeMap::new());
    run.machine.version = "2.1.0".into();
    let run = run.run();
    assert!(
        matches!(run.outcome(), Outcome::Failed(Reason::VersionChanged, _)),
        "{:?}",
        run.outcome()
    );
    assert!(run.machine.accepted.is_empty());
    // The way back that was planned is not one.
    let mut run = Run::new(Habits::default(), BTreeMap::new());
    run.machine.version = "2.1.0".into();
    run.plan.updates[0].from = "2.1.0".into();
    assert_eq!(*run.run().outcome(), Outcome::Succeeded);
}

#[test]
fn what_the_wanted_text_leaves_out_is_not_asked_for() {
    let mut run = Run::new(Habits::default(), BTreeMap::new());
    run.machine.version = "A42 v2.60 (08/11/2022)".into();
    run.plan.updates[0].to = "2.60".into();
    let run = run.run();
    assert_eq!(
        run.durable.results[0].outcome,
        UpdateOutcome::AlreadyThere,
        "compliance says so too"
    );
}

fn mishap() -> impl Strategy<Value = Mishap> {
    prop_oneof![
        Just(Mishap::DieBefore),
        Just(Mishap::DieAfter),
        Just(Mishap::DieAnswered),
        Just(Mishap::Silent),
        Just(Mishap::AnswerLost),
        Just(Mishap::Busy),
        Just(Mishap::Freeze),
    ]
}

fn habits() -> impl Strategy<Value = Habits> {
    // A flash that shows nothing and takes longer than [`Timing::stuck`] cannot be told from one that is over.
    let activation = prop_oneof![
        Just(Activation::None),
        Just(Activation::BmcReset),
        Just(Activation::HostReset),
        Just(Activation::ColdBoot),
        Just(Activation::AcCycle)
    ];
    let flags = proptest::array::uniform10(any::<bool>());
    let rare = proptest::option::weighted(0.15, any::<bool>());
    (
        activation,
        1_u64..1_700,
        flags,
        0_u32..5,
        rare,
        proptest::option::weighted(0.1, 0_u32..4),
    )
        .prop_map(
            |(activation, flash, flags, refusals, stuck, reverts_after)| Habits {
                class: ComponentClass::Bios,
                activation,
                flash,
                purges_tasks: flags[0],
                hides_work: flags[1],
                hides_staged: flags[2],
                // One that stands still and shows nothing of it cannot be told from one that is over either.
                names_no_task: flags[3] && stuck.is_none(),
                lies: flags[4] && flags[5],
                fails: flags[6] && flags[7] && !flags[4],
                stuck,
                bricks: flags[8] && flags[9] && flags[0],
                refusals,
                awaits_reset: flags[8],
                stays_off: flags[9],
                reverts_after,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Whatever the machine is like and whatever happens: one flash at most, no blind reset, an end, and no success
    /// that is none. The asserts are in [`Run`].
    #[test]
    fn random_faults_break_no_invariant(
        habits in habits(),
        mishaps in proptest::collection::btree_map(0_usize..120, mishap(), 0..12),
    ) {
        Run::new(habits, mishaps).run().check();
    }
}
