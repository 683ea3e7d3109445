//! The machine itself: what each phase asks for, and what it makes of the answer.

use super::{
    Effect, EffectKind, Failure, FailureClass, Intent, Observation, OperationPlan, Outcome, Reading, Reason,
    Record, Reset, ResetRecord, State, TaskSeen, TaskState, Update, UpdateOutcome, UpdateResult, Work,
};
use crate::{facts::Activation, version::FirmwareVersion};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{cmp::Ordering, collections::BTreeSet, time::Duration};

/// What the machine is at. A phase asks for one kind of effect at a time, and says what follows from its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// After a crash: write the record, so that whoever wrote it before cannot write again.
    TakeOver,
    /// Until no call of whoever ran this before can still be on its way, and a little longer: that was by another's clock.
    WaitOut { until: Timestamp },
    /// Who answers?
    Identify,
    /// What does it run?
    Survey,
    /// Get the image.
    Stage,
    /// Is the BMC free?
    Clear { attempt: u32 },
    /// Record what is about to be sent.
    Intend { attempt: u32 },
    /// Send it.
    Send,
    /// Follow the task. `moved_at`: when it last showed progress.
    Follow {
        task: String,
        percent: Option<u8>,
        message: String,
        moved_at: Timestamp,
    },
    /// The task ended: what does the device run now?
    Check {
        ended: Ended,
        message: String,
        look: Look,
    },
    /// Nobody knows whether the update was accepted: look until it shows.
    Settle { look: Look, staged: bool },
    /// Make the new version run, or cure a stuck task.
    Activate {
        kind: Reset,
        step: Activate,
        tries: u32,
        unstick: Option<String>,
    },
    /// Read the wanted version, several times in a row.
    ReadBack {
        good: u32,
        until: Timestamp,
        reverted: bool,
        confirmed: bool,
    },
    /// Is the device well?
    Probe,
    /// It is over.
    Over(Outcome),
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ended {
    Done,
    Failed,
    /// It vanished, or there never was one.
    Gone,
}

/// Where a phase that looks at both, looks now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Look {
    Inventory,
    Work,
}

/// How far an activation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Activate {
    /// Is anything being written?
    Work,
    /// Is the host on, and is it still needed?
    Power,
    /// Record the reset.
    Record,
    /// Ask for it.
    Send,
}

/// What follows from an observation.
enum Next {
    /// Another phase, at once.
    Go(Phase),
    /// The same phase again, after a while.
    Again(Duration),
    /// The end.
    End(Outcome),
}

impl State {
    /// The state of an operation of which nothing was done yet.
    #[must_use]
    pub fn begin(now: Timestamp) -> Self {
        Self::at(Record::default(), Phase::Identify, now)
    }

    /// The state of an operation that someone may have worked on before: what was written says where to go on. An intent
    /// without an outcome is settled by looking, never by sending.
    #[must_use]
    pub fn recover(record: Record, now: Timestamp) -> Self {
        let phase = if record.intent.is_some() {
            Phase::TakeOver
        } else {
            Phase::Identify
        };
        let mut state = Self::at(record, phase, now);
        // Without a task, nobody knows whether what was recorded was ever sent.
        state.adopted = state
            .record
            .intent
            .as_ref()
            .is_some_and(|intent| intent.task.is_none());
        state
    }

    fn at(record: Record, phase: Phase, now: Timestamp) -> Self {
        Self {
            record,
            phase,
            since: now,
            silent_since: None,
            written_at: now,
            due: now,
            dirty: false,
            writing_until: None,
            seen: String::new(),
            adopted: false,
            unstuck: false,
        }
    }

    /// The step's name, for people: the printer column, logs, the time-in-step metric.
    #[must_use]
    pub fn step(&self) -> &'static str {
        match &self.phase {
            Phase::TakeOver | Phase::WaitOut { .. } => "take-over",
            Phase::Identify => "identify",
            Phase::Survey => "survey",
            Phase::Stage => "stage",
            Phase::Clear { .. } => "wait-for-bmc",
            Phase::Intend { .. } | Phase::Send => "send",
            Phase::Follow { .. } | Phase::Check { .. } => "follow",
            Phase::Settle { .. } => "settle",
            Phase::Activate { .. } => "activate",
            Phase::ReadBack { .. } => "verify",
            Phase::Probe => "probe",
            Phase::Over(_) => "done",
        }
    }

    /// Whether an irreversible request may be under way: nothing else may disturb the device.
    #[must_use]
    pub fn intent_open(&self) -> bool {
        self.record.intent.is_some()
    }
}

/// Takes what was seen and gives what is to be done. Pure and total: the same arguments give the same answer, and there is
/// one for every combination of them.
#[must_use]
pub fn advance(
    plan: &OperationPlan,
    mut state: State,
    observation: Observation,
    now: Timestamp,
) -> (State, Effect) {
    excuse(&mut state, plan.timing.retry, now);
    let (mut state, effect) = step(plan, state, observation, now);
    state.due = effect.deadline;
    (state, effect)
}

/// A process that stood still saw nothing of that time: no limit runs while nobody looks. The limits of the record do, for
/// they are about calls on their way, and about the operation as a whole.
fn excuse(state: &mut State, slack: Duration, now: Timestamp) {
    let late = now.duration_since(state.due);
    if SignedDuration::try_from(slack).is_ok_and(|slack| late <= slack) {
        return;
    }
    let later = |at: &mut Timestamp| *at = at.checked_add(late).unwrap_or(Timestamp::MAX);
    later(&mut state.since);
    state.silent_since.as_mut().map(later);
    match &mut state.phase {
        Phase::Follow { moved_at, .. } => later(moved_at),
        Phase::ReadBack { until, .. } => later(until),
        _ => {}
    }
}

fn step(plan: &OperationPlan, mut state: State, observation: Observation, now: Timestamp) -> (State, Effect) {
    if let Phase::Over(outcome) = &state.phase {
        let effect = finish(plan, outcome.clone(), now);
        return (state, effect);
    }
    let next = match observation {
        Observation::WrongMachine { message } => Next::End(Outcome::Held(Reason::WrongMachine, message)),
        Observation::CertificateChanged { message } => {
            Next::End(Outcome::Held(Reason::CertificateChanged, message))
        }
        observation => {
            if let Some(until) = state.writing_until.take() {
                // A progress write that failed is not worth a second thought; the next one comes in time.
                state.written_at = now;
                state.dirty = state.dirty && observation != Observation::Written;
                return (
                    state,
                    Effect {
                        kind: EffectKind::Wait,
                        deadline: until,
                    },
                );
            }
            match overdue(plan, &mut state, now) {
                Some(outcome) => Next::End(outcome),
                None => absorb(plan, &mut state, observation, now),
            }
        }
    };
    apply(plan, state, next, now)
}

/// Carries out what was decided.
fn apply(plan: &OperationPlan, mut state: State, next: Next, now: Timestamp) -> (State, Effect) {
    match next {
        Next::Go(phase) => {
            // A phase that looks now here, now there, is still the same phase: its limit runs on.
            if std::mem::discriminant(&phase) != std::mem::discriminant(&state.phase) {
                state.since = now;
            }
            state.phase = phase;
            let effect = request(plan, &mut state, now);
            (state, effect)
        }
        Next::Again(wait) => {
            let until = after(now, wait.max(Duration::from_millis(1)));
            if state.dirty && state.intent_open() && now >= after(state.written_at, plan.timing.progress) {
                state.writing_until = Some(until);
                return (
                    state,
                    Effect {
                        kind: EffectKind::WriteProgress,
                        deadline: after(now, plan.timing.write),
                    },
                );
            }
            (
                state,
                Effect {
                    kind: EffectKind::Wait,
                    deadline: until,
                },
            )
        }
        Next::End(outcome) => {
            close(plan, &mut state, &outcome);
            state.phase = Phase::Over(outcome.clone());
            let effect = finish(plan, outcome, now);
            (state, effect)
        }
    }
}

/// What the present phase wants done. The only place where effects are made, and the only place where an intent or a reset
/// enters the record.
fn request(plan: &OperationPlan, state: &mut State, now: Timestamp) -> Effect {
    let timing = &plan.timing;
    let effect = |kind, limit| Effect {
        kind,
        deadline: after(now, limit),
    };
    let update = state.record.update;
    match state.phase.clone() {
        Phase::TakeOver => effect(EffectKind::WriteProgress, timing.write),
        Phase::WaitOut { until } => Effect {
            kind: EffectKind::Wait,
            deadline: until,
        },
        Phase::Identify => effect(EffectKind::CheckIdentity, timing.read),
        Phase::Stage => effect(EffectKind::StageImage { update }, timing.stage),
        Phase::Intend { attempt } => {
            intend(plan, state, attempt, now);
            effect(EffectKind::WriteIntent, timing.write)
        }
        Phase::Send => {
            let (attempt, deadline) = state
                .record
                .intent
                .as_ref()
                .map_or((1, now), |intent| (intent.attempt, intent.call_deadline));
            Effect {
                kind: EffectKind::Send { update, attempt },
                deadline,
            }
        }
        Phase::Follow { task, .. } => effect(EffectKind::FollowTask { task }, timing.read),
        Phase::Clear { .. }
        | Phase::Check { look: Look::Work, .. }
        | Phase::Settle { look: Look::Work, .. }
        | Phase::Activate {
            step: Activate::Work, ..
        } => effect(EffectKind::FindWork, timing.read),
        Phase::Survey
        | Phase::ReadBack { .. }
        | Phase::Check {
            look: Look::Inventory,
            ..
        }
        | Phase::Settle {
            look: Look::Inventory,
            ..
        }
        | Phase::Activate {
            step: Activate::Power,
            ..
        } => effect(EffectKind::ReadInventory, timing.read),
        Phase::Activate {
            step: Activate::Record,
            kind,
            tries,
            ..
        } => {
            record_reset(plan, state, kind, tries, now);
            effect(EffectKind::WriteIntent, timing.write)
        }
        Phase::Activate {
            step: Activate::Send,
            kind,
            ..
        } => {
            let deadline = last_reset(state).map_or(now, |reset| reset.call_deadline);
            Effect {
                kind: EffectKind::Reset { kind },
                deadline,
            }
        }
        Phase::Probe => effect(EffectKind::ProbeHealth, timing.read),
        Phase::Over(outcome) => finish(plan, outcome, now),
    }
}

/// What the present phase makes of an observation.
fn absorb(plan: &OperationPlan, state: &mut State, observation: Observation, now: Timestamp) -> Next {
    let Some(update) = plan.updates.get(state.record.update) else {
        return Next::End(Outcome::Succeeded);
    };
    if matches!(observation, Observation::Begin | Observation::Elapsed) {
        return match &state.phase {
            Phase::WaitOut { until } if now >= *until => Next::Go(Phase::Identify),
            phase => Next::Go(phase.clone()),
        };
    }
    let was_silent = heard(state, &observation);
    match (state.phase.clone(), observation) {
        (Phase::TakeOver, Observation::Written) => {
            written(state, now);
            Next::Go(Phase::WaitOut {
                until: calls_end(&state.record).map_or(now, |end| after(end, plan.timing.retry)),
            })
        }
        (Phase::TakeOver, Observation::Failure(_)) => Next::Again(plan.timing.retry),
        (Phase::Identify, Observation::Identified) => Next::Go(resume(plan, update, state, now)),
        (Phase::Survey, Observation::Inventory(reading)) => survey(plan, update, state, &reading),
        (Phase::Stage, Observation::Staged) => Next::Go(Phase::Clear { attempt: 1 }),
        (Phase::Stage, Observation::Failure(failure)) => not_staged(plan, state, failure, now),
        (Phase::Intend { attempt }, Observation::Written) => {
            written(state, now);
            Next::Go(if fresh(state, plan.timing.send, now) {
                Phase::Send
            } else {
                Phase::Intend { attempt }
            })
        }
        (Phase::Intend { .. }, Observation::Failure(_)) => Next::Again(plan.timing.retry),
        (Phase::Send, Observation::Sent { task }) => sent(state, task, now),
        (Phase::Send, Observation::Failure(failure)) => not_sent(plan, state, failure, now),
        (
            Phase::Follow {
                task,
                percent,
                message,
                moved_at,
            },
            Observation::Task(seen),
        ) => follow(
            plan,
            update,
            state,
            Followed {
                task,
                percent,
                message,
                moved_at,
            },
            seen,
            now,
        ),
        (
            Phase::Activate {
                step: Activate::Record,
                kind,
                tries,
                unstick,
            },
            Observation::Written,
        ) => {
            written(state, now);
            let step = if fresh(state, plan.timing.reset, now) {
                Activate::Send
            } else {
                Activate::Record
            };
            Next::Go(Phase::Activate {
                kind,
                step,
                tries,
                unstick,
            })
        }
        (
            Phase::Activate {
                step: Activate::Record,
                ..
            },
            Observation::Failure(_),
        ) => Next::Again(plan.timing.retry),
        (
            Phase::Activate {
                step: Activate::Send,
                kind,
                tries,
                unstick,
            },
            observation,
        ) => reset_answered(plan, state, (kind, tries, unstick), observation, now),
        (phase, Observation::Failure(failure))
            if failure.class == FailureClass::NotSupported && asks_for_work(&phase) =>
        {
            // A BMC that cannot list its work leaves the inventory and the task to go by.
            work(plan, update, state, phase, &[], now)
        }
        (_, Observation::Failure(failure)) => silent(plan, state, failure, now),
        (phase, Observation::Work(list)) if asks_for_work(&phase) => {
            work(plan, update, state, phase, &list, now)
        }
        (phase, Observation::Inventory(reading)) => {
            inventory(plan, update, state, phase, &reading, was_silent, now)
        }
        (Phase::Probe, Observation::Health(health)) => {
            // A BMC that never says that its host has left the firmware costs a wait, not a failure.
            let booted = !health.booting || now >= after(state.since, plan.timing.boot);
            if health.steady && booted && !health.critical {
                return update_done(plan, update, state);
            }
            if now < after(state.since, plan.timing.probe) {
                return Next::Again(plan.timing.poll);
            }
            let what = if health.critical {
                "reports a critical fault"
            } else {
                "does not come to rest"
            };
            Next::End(Outcome::Failed(
                Reason::Unhealthy,
                format!(
                    "the device {what} after the update: {}",
                    or(&health.message, "it gives no details")
                ),
            ))
        }
        (phase, observation) => {
            let message = format!("the driver answered {observation:?} in phase {phase:?}");
            Next::End(give_up(
                state,
                Reason::Invalid,
                message.chars().take(400).collect(),
            ))
        }
    }
}

/// Where to go on, once the right machine answers.
fn resume(plan: &OperationPlan, update: &Update, state: &State, now: Timestamp) -> Phase {
    let Some(intent) = &state.record.intent else {
        return Phase::Survey;
    };
    let activating =
        |reset: &ResetRecord| reset.kind != Reset::Bmc || update.activation == Activation::BmcReset;
    if intent.resets.iter().any(activating) {
        // The reset may never have left: it counts as unconfirmed.
        return read_back(plan, false, now);
    }
    match &intent.task {
        Some(task) => following(task.clone(), now),
        None => Phase::Settle {
            look: Look::Inventory,
            staged: false,
        },
    }
}

fn survey(plan: &OperationPlan, update: &Update, state: &mut State, reading: &Reading) -> Next {
    let versions = Versions::of(update, reading, &update.from);
    state.seen = versions.text.clone();
    if versions.count == 0 {
        let hint = if reading.on == Some(false) {
            "; the host is off, which hides adapters on many machines"
        } else {
            ""
        };
        return Next::End(Outcome::Failed(
            Reason::ComponentMissing,
            format!("the device has no component that matches {}{hint}", update.name),
        ));
    }
    if versions.wanted {
        return already_there(plan, update, state);
    }
    let is_newer = |text: &str| newer(text, &update.to);
    let planned = split(&update.from);
    if let Some(now) = versions
        .others
        .iter()
        .find(|text| is_newer(text) && !planned.contains(text.as_str()))
    {
        return Next::End(Outcome::Failed(
            Reason::VersionChanged,
            format!(
                "{} runs {now}, which is newer than {} and was not there when this was planned",
                update.name, update.to
            ),
        ));
    }
    Next::Go(Phase::Stage)
}

fn already_there(plan: &OperationPlan, update: &Update, state: &mut State) -> Next {
    state.record.results.push(UpdateResult {
        component: update.name.clone(),
        before: state.seen.clone(),
        after: state.seen.clone(),
        outcome: UpdateOutcome::AlreadyThere,
        attempts: 0,
    });
    next_update(plan, state)
}

fn not_staged(plan: &OperationPlan, state: &State, failure: Failure, now: Timestamp) -> Next {
    // Another digest than the wanted one does not mend itself; a server that is away does.
    if failure.class != FailureClass::Image && now < after(state.since, plan.timing.start) {
        return Next::Again(pause(&failure, plan.timing.retry, plan.timing.start));
    }
    Next::End(Outcome::Failed(Reason::ImageUnavailable, failure.message))
}

fn sent(state: &mut State, task: Option<String>, now: Timestamp) -> Next {
    state.dirty = true;
    if let Some(intent) = &mut state.record.intent {
        intent.task.clone_from(&task);
    }
    match task {
        Some(task) => Next::Go(following(task, now)),
        None => Next::Go(Phase::Check {
            ended: Ended::Gone,
            message: String::new(),
            look: Look::Work,
        }),
    }
}

fn not_sent(plan: &OperationPlan, state: &mut State, failure: Failure, now: Timestamp) -> Next {
    if failure.unknown {
        state.adopted = true;
        return Next::Go(Phase::Settle {
            look: Look::Inventory,
            staged: false,
        });
    }
    let attempt = state.record.intent.as_ref().map_or(1, |intent| intent.attempt);
    if failure.class == FailureClass::Local {
        // It was never begun, on our side, so it does not count; the limit is the operation's own.
        state.phase = Phase::Clear { attempt };
        state.since = now;
        return Next::Again(plan.timing.retry);
    }
    if matches!(failure.class, FailureClass::Silent | FailureClass::Busy) && attempt < plan.timing.attempts {
        // The next request is a new intent, with a number of its own. The phase waits before it looks.
        state.phase = Phase::Clear { attempt: attempt + 1 };
        state.since = now;
        return Next::Again(pause(&failure, plan.timing.retry, plan.timing.busy));
    }
    let reason = match failure.class {
        FailureClass::NotSupported => Reason::NotSupported,
        FailureClass::Credentials => Reason::AuthenticationFailed,
        FailureClass::Untrusted => Reason::CertificateUntrusted,
        FailureClass::Image => Reason::ImageUnavailable,
        FailureClass::Silent => Reason::Unreachable,
        FailureClass::Busy => Reason::BmcBusy,
        FailureClass::Local => Reason::Invalid,
        FailureClass::Refused => Reason::UpdateRefused,
    };
    Next::End(Outcome::Failed(reason, failure.message))
}

struct Followed {
    task: String,
    percent: Option<u8>,
    message: String,
    moved_at: Timestamp,
}

fn follow(
    plan: &OperationPlan,
    update: &Update,
    state: &mut State,
    was: Followed,
    seen: TaskSeen,
    now: Timestamp,
) -> Next {
    if let Some(task) = seen.moved_to
        && task != was.task
    {
        state.dirty = true;
        if let Some(intent) = &mut state.record.intent {
            intent.task = Some(task.clone());
        }
        return Next::Go(following(task, now));
    }
    let ended = match seen.state {
        TaskState::Running => {
            let moved = seen.percent != was.percent || seen.message != was.message;
            let moved_at = if moved { now } else { was.moved_at };
            if now >= after(moved_at, plan.timing.stuck) {
                return stuck(plan, update, state, was.task, &seen.message, seen.percent);
            }
            state.phase = Phase::Follow {
                task: was.task,
                percent: seen.percent,
                message: seen.message,
                moved_at,
            };
            return Next::Again(plan.timing.poll);
        }
        TaskState::AwaitingReset => return activate(plan, update, now),
        TaskState::Done => Ended::Done,
        TaskState::Failed => Ended::Failed,
        TaskState::Gone => Ended::Gone,
    };
    Next::Go(Phase::Check {
        ended,
        message: seen.message,
        look: Look::Inventory,
    })
}

fn stuck(
    plan: &OperationPlan,
    update: &Update,
    state: &State,
    task: String,
    message: &str,
    percent: Option<u8>,
) -> Next {
    // Once; twice if nobody knows whether the first was ever sent.
    if update.unstick && !state.unstuck && resets(state, Reset::Bmc) < 2 {
        return Next::Go(Phase::Activate {
            kind: Reset::Bmc,
            step: Activate::Record,
            tries: 0,
            unstick: Some(task),
        });
    }
    let at = percent.map_or_else(String::new, |percent| format!(" at {percent} %"));
    Next::End(Outcome::Failed(
        Reason::TaskStuck,
        format!(
            "the update of {} stands still{at} for {} s: {}",
            update.name,
            plan.timing.stuck.as_secs(),
            or(message, "the BMC says nothing of it")
        ),
    ))
}

/// The way to make the new version run, from the moment when nothing is left to be written.
fn activate(plan: &OperationPlan, update: &Update, now: Timestamp) -> Next {
    let kind = match update.activation {
        Activation::None => return Next::Go(read_back(plan, true, now)),
        // Most BMCs restart by themselves; the time for that is the first part of reading back.
        Activation::BmcReset => {
            return Next::Go(Phase::ReadBack {
                good: 0,
                until: after(now, plan.timing.self_reset),
                reverted: false,
                confirmed: true,
            });
        }
        Activation::HostReset => Reset::Host,
        Activation::ColdBoot => Reset::Cold,
        Activation::AcCycle => Reset::Ac,
    };
    Next::Go(Phase::Activate {
        kind,
        step: Activate::Work,
        tries: 0,
        unstick: None,
    })
}

fn asks_for_work(phase: &Phase) -> bool {
    matches!(
        phase,
        Phase::Clear { .. }
            | Phase::Check { look: Look::Work, .. }
            | Phase::Settle { look: Look::Work, .. }
            | Phase::Activate {
                step: Activate::Work,
                ..
            }
    )
}

/// What follows from the BMC's list of work.
fn work(
    plan: &OperationPlan,
    update: &Update,
    state: &mut State,
    phase: Phase,
    list: &[Work],
    now: Timestamp,
) -> Next {
    let timing = &plan.timing;
    let running = list.iter().find(|work| work.state == TaskState::Running);
    let waiting = list.iter().find(|work| work.state == TaskState::AwaitingReset);
    let ours = |work: &&Work| work.class.is_none_or(|class| class == update.select.class);
    match phase {
        Phase::Clear { attempt } => match running.or(waiting) {
            None => Next::Go(Phase::Intend { attempt }),
            Some(_) if now < after(state.since, timing.busy) => Next::Again(timing.poll.max(timing.retry)),
            Some(work) => Next::End(give_up(
                state,
                Reason::BmcBusy,
                format!(
                    "the BMC has other work in hand, {:?}, that does not end; finish or delete it",
                    work.name
                ),
            )),
        },
        Phase::Activate {
            kind, tries, unstick, ..
        } => match running {
            None => Next::Go(Phase::Activate {
                kind,
                step: Activate::Power,
                tries,
                unstick,
            }),
            Some(_) if now < after(state.since, timing.stuck) => Next::Again(timing.poll),
            Some(work) => Next::End(give_up(
                state,
                Reason::TaskStuck,
                format!(
                    "the BMC still works on {:?}, and nothing is reset while it does",
                    work.name
                ),
            )),
        },
        Phase::Settle { staged, .. } => {
            if let Some(work) = running.filter(ours) {
                return adopt(state, work.task.clone(), now);
            }
            if staged || waiting.filter(ours).is_some() {
                return activate(plan, update, now);
            }
            if now < after(state.since, timing.settle) {
                state.phase = Phase::Settle {
                    look: Look::Inventory,
                    staged,
                };
                return Next::Again(timing.poll);
            }
            Next::End(unknown(update, state))
        }
        Phase::Check { ended, message, .. } => {
            if let Some(work) = running.filter(ours) {
                return adopt(state, work.task.clone(), now);
            }
            if waiting.filter(ours).is_some() {
                return activate(plan, update, now);
            }
            // Without a task that was seen to vanish, only time tells that the writing is over.
            let seen = state
                .record
                .intent
                .as_ref()
                .is_some_and(|intent| intent.task.is_some());
            let limit = if seen {
                timing.settle
            } else {
                timing.settle.max(timing.stuck)
            };
            if now < after(state.since, limit) {
                state.phase = Phase::Check {
                    ended,
                    message,
                    look: Look::Inventory,
                };
                return Next::Again(timing.poll);
            }
            // It was accepted, it is nowhere, and nothing else is under way: some only show it after the reset.
            activate(plan, update, now)
        }
        other => Next::Go(other),
    }
}

fn adopt(state: &mut State, task: String, now: Timestamp) -> Next {
    state.dirty = true;
    if let Some(intent) = &mut state.record.intent {
        intent.task = Some(task.clone());
    }
    Next::Go(following(task, now))
}

/// What follows from the inventory, in the phases after a send.
fn inventory(
    plan: &OperationPlan,
    update: &Update,
    state: &mut State,
    phase: Phase,
    reading: &Reading,
    was_silent: bool,
    now: Timestamp,
) -> Next {
    let from = state
        .record
        .intent
        .as_ref()
        .map_or_else(|| update.from.clone(), |intent| intent.from.clone());
    let versions = Versions::of(update, reading, &from);
    if versions.count > 0 {
        state.seen.clone_from(&versions.text);
    }
    match phase {
        Phase::Settle { .. } | Phase::Check { .. } if versions.wanted => Next::Go(read_back(plan, true, now)),
        Phase::Settle { .. } => Next::Go(Phase::Settle {
            look: Look::Work,
            staged: versions.staged,
        }),
        Phase::Check {
            ended: Ended::Failed,
            message,
            ..
        } => Next::End(Outcome::Failed(
            Reason::TaskFailed,
            format!(
                "the BMC says that the update of {} failed: {}",
                update.name,
                or(&message, "it gives no details")
            ),
        )),
        Phase::Check {
            ended: Ended::Gone,
            message,
            ..
        } if !versions.staged => Next::Go(Phase::Check {
            ended: Ended::Gone,
            message,
            look: Look::Work,
        }),
        Phase::Check { .. } => activate(plan, update, now),
        Phase::Activate {
            step: Activate::Power,
            kind,
            tries,
            unstick,
        } => {
            if versions.wanted && kind != Reset::PowerOn {
                return Next::Go(read_back(plan, true, now));
            }
            let off = reading.on == Some(false) && matches!(kind, Reset::Host | Reset::Cold);
            let kind = if off { Reset::PowerOn } else { kind };
            Next::Go(Phase::Activate {
                kind,
                step: Activate::Record,
                tries,
                unstick,
            })
        }
        Phase::ReadBack {
            good,
            until,
            reverted,
            confirmed,
        } => {
            let until = if was_silent {
                until.max(after(now, plan.timing.self_reset))
            } else {
                until
            };
            let was = ReadBack {
                good,
                until,
                reverted,
                confirmed,
            };
            verify(plan, update, state, was, &versions, reading.on, now)
        }
        other => Next::End(give_up(
            state,
            Reason::Invalid,
            format!("the driver answered an inventory in phase {other:?}"),
        )),
    }
}

struct ReadBack {
    good: u32,
    until: Timestamp,
    reverted: bool,
    confirmed: bool,
}

fn verify(
    plan: &OperationPlan,
    update: &Update,
    state: &mut State,
    was: ReadBack,
    versions: &Versions,
    on: Option<bool>,
    now: Timestamp,
) -> Next {
    let ReadBack {
        good,
        until,
        reverted,
        confirmed,
    } = was;
    let by_host = matches!(
        update.activation,
        Activation::HostReset | Activation::ColdBoot | Activation::AcCycle
    );
    let activated = resets(state, Reset::Host) + resets(state, Reset::Cold) + resets(state, Reset::Ac) > 0;
    // The host was on, or it would not have been reset: it is not left off.
    let left_off = by_host && activated && on == Some(false);
    let again = |kind| {
        Next::Go(Phase::Activate {
            kind,
            step: Activate::Work,
            tries: 0,
            unstick: None,
        })
    };
    if left_off && now >= after(state.since, plan.timing.readback * 2) {
        // Turning on what is off disturbs nothing, so a try that a crash swallowed is simply made again.
        if resets(state, Reset::PowerOn) < 3 {
            return again(Reset::PowerOn);
        }
        if now >= until {
            return Next::End(Outcome::Failed(
                Reason::Unhealthy,
                "the host stays off after the reset, however often it is turned on".to_owned(),
            ));
        }
    }
    if versions.wanted && !left_off {
        if good + 1 >= plan.timing.readbacks {
            return Next::Go(Phase::Probe);
        }
        state.phase = Phase::ReadBack {
            good: good + 1,
            until,
            reverted,
            confirmed,
        };
        return Next::Again(plan.timing.readback);
    }
    let reverted = reverted || (good > 0 && !versions.wanted);
    if left_off || now < until {
        state.phase = Phase::ReadBack {
            good: 0,
            until,
            reverted,
            confirmed,
        };
        return Next::Again(plan.timing.readback.min(plan.timing.poll * 2));
    }
    if update.activation == Activation::BmcReset && resets(state, Reset::Bmc) == 0 {
        return again(Reset::Bmc);
    }
    // A reset that may never have been sent is sent once more; one that was accepted is not.
    if let Some(kind) = last_reset(state).map(|reset| reset.kind)
        && !confirmed
        && resets(state, kind) < 2
    {
        return again(kind);
    }
    if reverted {
        return Next::End(Outcome::Failed(
            Reason::VersionReverted,
            format!(
                "{} ran {} after the update and went back to {}",
                update.name,
                update.to,
                or(&state.seen, "nothing")
            ),
        ));
    }
    if state.adopted {
        return Next::End(unknown(update, state));
    }
    Next::End(Outcome::Failed(
        Reason::VersionUnchanged,
        format!(
            "the BMC said that the update was done, but {} runs {}, not {}",
            update.name,
            or(&state.seen, "no known version"),
            update.to
        ),
    ))
}

/// What follows from the answer to a reset.
fn reset_answered(
    plan: &OperationPlan,
    state: &mut State,
    (kind, tries, unstick): (Reset, u32, Option<String>),
    observation: Observation,
    now: Timestamp,
) -> Next {
    let confirmed = match observation {
        Observation::ResetDone => true,
        Observation::Failure(failure) if failure.unknown => false,
        Observation::Failure(failure) => {
            let tries = tries + 1;
            if failure.class == FailureClass::NotSupported || tries >= plan.timing.reset_attempts {
                let message = format!("{} was refused: {}", kind.as_str(), failure.message);
                return Next::End(give_up(state, Reason::ResetFailed, message));
            }
            state.phase = Phase::Activate {
                kind,
                step: Activate::Record,
                tries,
                unstick,
            };
            return Next::Again(pause(&failure, plan.timing.retry, plan.timing.busy));
        }
        other => {
            return Next::End(give_up(
                state,
                Reason::Invalid,
                format!("the driver answered {other:?} to a reset"),
            ));
        }
    };
    match unstick {
        Some(task) => {
            state.unstuck = confirmed;
            Next::Go(following(task, now))
        }
        None => Next::Go(read_back(plan, confirmed, now)),
    }
}

/// A BMC that does not answer, or not as it should: ask again, for as long as it may take.
fn silent(plan: &OperationPlan, state: &mut State, failure: Failure, now: Timestamp) -> Next {
    let timing = &plan.timing;
    let since = *state.silent_since.get_or_insert(now);
    let open = state.intent_open();
    let (limit, pause) = if open {
        (timing.bmc_return, timing.poll)
    } else {
        (timing.start, timing.retry)
    };
    if now < after(since, limit) {
        let pause = match failure.class {
            // BMCs lock accounts out after a handful of wrong passwords.
            FailureClass::Credentials => (timing.retry * 4).min(limit / 4),
            _ => self::pause(&failure, pause, limit),
        };
        return Next::Again(pause);
    }
    let reason = match failure.class {
        FailureClass::Credentials => Reason::AuthenticationFailed,
        FailureClass::Untrusted => Reason::CertificateUntrusted,
        FailureClass::Busy if !open => Reason::BmcBusy,
        FailureClass::NotSupported if !open => Reason::NotSupported,
        _ if open => Reason::BmcLost,
        _ => Reason::Unreachable,
    };
    let ours_to_mend = matches!(
        reason,
        Reason::AuthenticationFailed | Reason::CertificateUntrusted
    );
    if open && ours_to_mend {
        return Next::End(Outcome::Held(reason, failure.message));
    }
    Next::End(Outcome::Failed(reason, failure.message))
}

/// Notes that the BMC was heard; says whether it was silent before.
fn heard(state: &mut State, observation: &Observation) -> bool {
    match observation {
        Observation::Identified
        | Observation::Inventory(_)
        | Observation::Work(_)
        | Observation::Sent { .. }
        | Observation::Task(_)
        | Observation::ResetDone
        | Observation::Health(_) => state.silent_since.take().is_some(),
        _ => false,
    }
}

fn update_done(plan: &OperationPlan, update: &Update, state: &mut State) -> Next {
    if let Some(intent) = state.record.intent.take() {
        state.record.results.push(UpdateResult {
            component: update.name.clone(),
            before: intent.from,
            after: state.seen.clone(),
            outcome: UpdateOutcome::Succeeded,
            attempts: intent.attempt,
        });
    }
    next_update(plan, state)
}

fn next_update(plan: &OperationPlan, state: &mut State) -> Next {
    state.record.update += 1;
    state.adopted = false;
    state.seen.clear();
    if state.record.update >= plan.updates.len() {
        return Next::End(Outcome::Succeeded);
    }
    Next::Go(Phase::Identify)
}

/// Writes down how the update under way ended, as the operation ends.
fn close(plan: &OperationPlan, state: &mut State, outcome: &Outcome) {
    let Some(update) = plan.updates.get(state.record.update) else {
        return;
    };
    let intent = state.record.intent.take();
    let outcome = match (outcome, &state.phase) {
        (Outcome::Succeeded, _) => return,
        // The version was read back; it is the device that is not well.
        (_, Phase::Probe) => UpdateOutcome::Succeeded,
        (Outcome::Held(..), _) if intent.is_some() => UpdateOutcome::Unknown,
        _ => UpdateOutcome::Failed,
    };
    state.record.results.push(UpdateResult {
        component: update.name.clone(),
        before: intent
            .as_ref()
            .map_or_else(|| state.seen.clone(), |intent| intent.from.clone()),
        after: state.seen.clone(),
        outcome,
        attempts: intent.map_or(0, |intent| intent.attempt),
    });
}

/// Whether the whole operation took too long.
fn overdue(plan: &OperationPlan, state: &mut State, now: Timestamp) -> Option<Outcome> {
    let started = state.record.started_at?;
    if now < after(started, plan.timing.total) {
        return None;
    }
    if matches!(state.phase, Phase::Intend { .. }) {
        // It was never confirmed, so nothing was sent for it.
        state.record.intent = None;
    }
    let message = format!(
        "not done after {} s, in step {}",
        plan.timing.total.as_secs(),
        state.step()
    );
    Some(if state.intent_open() {
        Outcome::Held(Reason::DeadlineExceeded, message)
    } else {
        Outcome::Failed(Reason::DeadlineExceeded, message)
    })
}

/// The end for a reason that leaves the device's state unclear if the outcome of the present intent is.
fn give_up(state: &State, reason: Reason, message: String) -> Outcome {
    if state.adopted && state.intent_open() {
        Outcome::Held(reason, message)
    } else {
        Outcome::Failed(reason, message)
    }
}

fn unknown(update: &Update, state: &State) -> Outcome {
    Outcome::Held(
        Reason::OutcomeUnknown,
        format!(
            "whether {} accepted {} cannot be told: it runs {} and the BMC shows no trace of the update; look at it, \
             then release the hold",
            update.name,
            update.to,
            or(&state.seen, "no known version")
        ),
    )
}

fn intend(plan: &OperationPlan, state: &mut State, attempt: u32, now: Timestamp) {
    let Some(update) = plan.updates.get(state.record.update) else {
        return;
    };
    let before = state.record.intent.take();
    let from = before.map_or_else(|| from_versions(update, &state.seen), |intent| intent.from);
    state.adopted = false;
    state.unstuck = false;
    state.record.started_at.get_or_insert(now);
    state.record.intent = Some(Intent {
        update: state.record.update,
        component: update.name.clone(),
        from,
        to: update.to.clone(),
        sha256: update.sha256.clone(),
        attempt,
        at: now,
        call_deadline: after(now, plan.timing.write + plan.timing.send),
        task: None,
        resets: Vec::new(),
    });
}

/// Enters a reset into the record; in a second try, in the place of the one that was refused.
fn record_reset(plan: &OperationPlan, state: &mut State, kind: Reset, tries: u32, now: Timestamp) {
    let call_deadline = after(now, plan.timing.write + plan.timing.reset);
    let Some(intent) = &mut state.record.intent else {
        return;
    };
    let entry = ResetRecord {
        kind,
        at: now,
        call_deadline,
    };
    match intent
        .resets
        .last_mut()
        .filter(|last| last.kind == kind && (tries > 0 || last.at >= state.since))
    {
        Some(last) => *last = entry,
        None => {
            intent.resets.push(entry);
            state.record.resets += u32::from(kind != Reset::Bmc);
        }
    }
}

fn resets(state: &State, kind: Reset) -> usize {
    let all = state.record.intent.iter().flat_map(|intent| &intent.resets);
    all.filter(|reset| reset.kind == kind).count()
}

fn last_reset(state: &State) -> Option<&ResetRecord> {
    state.record.intent.as_ref()?.resets.last()
}

/// When the last call that the record speaks of is certainly over.
fn calls_end(record: &Record) -> Option<Timestamp> {
    let intent = record.intent.as_ref()?;
    intent
        .resets
        .iter()
        .map(|reset| reset.call_deadline)
        .chain([intent.call_deadline])
        .max()
}

/// Whether at least half of the time for the call is left: a process that was frozen after its write starts over.
fn fresh(state: &State, call: Duration, now: Timestamp) -> bool {
    let Some(intent) = &state.record.intent else {
        return false;
    };
    let deadline = intent
        .resets
        .last()
        .map_or(intent.call_deadline, |reset| reset.call_deadline);
    after(now, call / 2) <= deadline
}

fn written(state: &mut State, now: Timestamp) {
    state.written_at = now;
    state.dirty = false;
}

fn following(task: String, now: Timestamp) -> Phase {
    Phase::Follow {
        task,
        percent: None,
        message: String::new(),
        moved_at: now,
    }
}

fn read_back(plan: &OperationPlan, confirmed: bool, now: Timestamp) -> Phase {
    Phase::ReadBack {
        good: 0,
        until: after(now, plan.timing.activation),
        reverted: false,
        confirmed,
    }
}

fn finish(plan: &OperationPlan, outcome: Outcome, now: Timestamp) -> Effect {
    Effect {
        kind: EffectKind::Finish(outcome),
        deadline: after(now, plan.timing.write),
    }
}

/// What an update's components run.
struct Versions {
    /// How many there are.
    count: usize,
    /// At least one has the wanted version, none has one that it should have left, and none is silent.
    wanted: bool,
    /// The wanted version waits for its activation.
    staged: bool,
    /// The versions that are not the wanted one.
    others: BTreeSet<String>,
    /// Every version, joined.
    text: String,
}

impl Versions {
    fn of(update: &Update, reading: &Reading, from: &str) -> Self {
        let leave = split(from);
        let mut all = BTreeSet::new();
        let mut others = BTreeSet::new();
        let (mut count, mut at_wanted, mut bad, mut staged) = (0, 0, 0, false);
        for component in reading
            .components
            .iter()
            .filter(|component| update.select.matches(component))
        {
            count += 1;
            staged |= component
                .staged
                .as_deref()
                .is_some_and(|staged| meets(staged, &update.to));
            match component
                .version
                .as_deref()
                .map(str::trim)
                .filter(|text| !text.is_empty())
            {
                Some(text) if meets(text, &update.to) => {
                    at_wanted += 1;
                    all.insert(text.to_owned());
                }
                Some(text) => {
                    bad += usize::from(leave.iter().any(|from| same(from, text)));
                    others.insert(text.to_owned());
                    all.insert(text.to_owned());
                }
                // A part that cannot be updated and has no version has none to reach.
                None => bad += usize::from(component.updateable != Some(false)),
            }
        }
        let text = all.into_iter().collect::<Vec<_>>().join(", ");
        Self {
            count,
            wanted: at_wanted > 0 && bad == 0,
            staged,
            others,
            text,
        }
    }
}

/// What the tests ask of [`Versions`].
#[cfg(test)]
pub(super) fn wanted_for_test(update: &Update, reading: &Reading) -> bool {
    Versions::of(update, reading, &update.from).wanted
}

/// The versions that an update is to leave: those of the plan that were read, else whatever was read that is not wanted.
fn from_versions(update: &Update, seen: &str) -> String {
    let planned = split(&update.from);
    let others: Vec<&str> = split(seen)
        .into_iter()
        .filter(|text| !meets(text, &update.to))
        .collect();
    let both: Vec<&str> = others
        .iter()
        .copied()
        .filter(|text| planned.iter().any(|from| same(from, text)))
        .collect();
    if both.is_empty() {
        others.join(", ")
    } else {
        both.join(", ")
    }
}

fn split(versions: &str) -> BTreeSet<&str> {
    versions
        .split(", ")
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .collect()
}

/// Whether a reading says what is wanted, by the rules that compliance goes by too.
fn meets(reading: &str, wanted: &str) -> bool {
    FirmwareVersion::parse(reading).is(&FirmwareVersion::parse(wanted))
}

/// Whether two readings say the same.
fn same(one: &str, other: &str) -> bool {
    FirmwareVersion::parse(one) == FirmwareVersion::parse(other)
}

/// Whether one version is known to be newer than another.
fn newer(one: &str, other: &str) -> bool {
    FirmwareVersion::parse(one).partial_cmp(&FirmwareVersion::parse(other)) == Some(Ordering::Greater)
}

/// How long to leave the other side alone: what it asks for, within reason.
fn pause(failure: &Failure, otherwise: Duration, limit: Duration) -> Duration {
    failure.retry_after.unwrap_or(otherwise).min(limit)
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// A time later than another; the end of time where there is none.
fn after(at: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait)
        .ok()
        .and_then(|wait| at.checked_add(wait).ok())
        .unwrap_or(Timestamp::MAX)
}
