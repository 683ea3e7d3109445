//! What the holder of the planner's Lease does, as `kiban-operator/src/plan` and `src/ledger` do it: plans and writes them,
//! pushes what ended and lets it go.

use super::{
    API_DEADLINE, Sabotage, Sim,
    api::{BASELINES, DEVICES, OPERATIONS, Object, Operation, POLICIES, POOLS, ROLLOUTS, Status},
    at,
    call::{Reply, Request, Who},
    process::{PLANNER, Process, is_finished},
};
use kiban_core::{
    World,
    amount::Amount,
    check,
    facts::{OperationFacts, Outcome, PoolFacts, RolloutFacts},
    plan::{Adoption, NewOperation, RolloutState, Withdrawal},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

/// How often a plan is made without any change, and the ledger's round.
const PLAN_EVERY: i64 = 60_000;
const PUSH_EVERY: i64 = 5_000;

/// The planner.
#[derive(Debug, Default)]
pub(super) struct Planner {
    world: Option<World>,
    step: Step,
    /// Whether a tick comes soon anyhow.
    soon: bool,
    queue: VecDeque<Write>,
    /// Operations whose create was not answered, and when they were sent.
    uncertain: BTreeMap<String, i64>,
    /// Rollouts that could not be written: nothing is started for them.
    stuck: BTreeSet<String>,
    decided: i64,
    next_due: Option<i64>,
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    Rest,
    /// Reads what others granted, before the first plan.
    List,
    Write(Write),
}

#[derive(Clone, Debug)]
enum Write {
    Rollout(Box<RolloutState>),
    RolloutAnew(Box<RolloutState>),
    Finalizer {
        name: String,
        uid: u64,
    },
    Withdraw(Withdrawal),
    Adopt(Adoption),
    Create(Box<NewOperation>),
    /// What has the name that a create was refused for?
    Look(String),
    /// What became of a create that was not answered?
    Settle(String),
}

/// The ledger's part.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pushing: Vec<Operation>,
    releasing: VecDeque<Release>,
}

#[derive(Clone, Debug)]
struct Release {
    name: String,
    uid: u64,
    marked: bool,
}

impl Planner {
    /// Whether a change should bring the next tick forward.
    pub(super) fn poke(&mut self) -> bool {
        let rests = self.world.is_some() && matches!(self.step, Step::Rest) && !self.soon;
        self.soon |= rests;
        rests
    }
}

impl Process {
    /// Takes what changed into the planner's world.
    fn refresh(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        let Some(mut world) = self.planner.world.take() else {
            return;
        };
        for (kind, names) in changed.into_iter().enumerate() {
            for name in names {
                self.tell(&mut world, kind, &name);
            }
        }
        self.planner.world = Some(world);
    }

    fn tell(&self, world: &mut World, kind: usize, name: &str) {
        let known = self.store.get(kind).and_then(|store| store.get(name));
        match known.and_then(|known| known.object.as_deref()) {
            Some(Object::Operation(operation)) => world.upsert_operation(operation.facts()),
            Some(Object::Device(device)) => world.upsert_device(&device.facts),
            Some(Object::Rollout(rollout)) => world.upsert_rollout(rollout.clone()),
            Some(Object::Policy(policy)) => world.upsert_policy(policy.clone()),
            Some(Object::Baseline(baseline)) => world.upsert_baseline(baseline.clone()),
            Some(Object::Pool(pool)) => world.upsert_pool(pool.clone()),
            None => match kind {
                OPERATIONS => world.remove_operation(name),
                ROLLOUTS => world.remove_rollout(name),
                DEVICES => world.remove_device(name),
                POLICIES => world.remove_policy(),
                BASELINES => world.remove_baseline(name),
                _ => world.remove_pool(name),
            },
        };
    }

    fn pending(&self, device: &str, id: &str) -> Option<(u64, Operation)> {
        let (rv, operation) = self.operation(device)?;
        let pending =
            operation.spec.id == id && operation.status.outcome == Outcome::Pending && !operation.has_begun();
        pending.then(|| (rv, operation.clone()))
    }

    fn count(&mut self, facts: OperationFacts) {
        if let Some(world) = &mut self.planner.world {
            world.upsert_operation(facts);
        }
    }
}

impl Sim {
    pub(super) fn begin_to_plan(&mut self, process: usize) {
        if let Some(there) = self.processes.get_mut(process) {
            there.planner = Planner {
                step: Step::List,
                ..Planner::default()
            };
        }
        self.call(process, Who::Planner, Request::ListOperations, API_DEADLINE);
        self.wake(process, Who::Ledger, PUSH_EVERY);
    }

    /// A world of all that is known.
    fn rebuild(&mut self, process: usize) {
        let models = self.api.models.clone();
        let Some(there) = self.processes.get_mut(process) else {
            return;
        };
        let mut world = World::new();
        for model in models {
            world.upsert_model(model);
        }
        for kind in [POLICIES, BASELINES, POOLS, DEVICES, ROLLOUTS, OPERATIONS] {
            let names: Vec<String> = there
                .store
                .get(kind)
                .into_iter()
                .flatten()
                .map(|(name, _)| name.clone())
                .collect();
            for name in names {
                there.tell(&mut world, kind, &name);
            }
        }
        there.planner.world = Some(world);
        there.changed = Default::default();
    }

    pub(super) fn plan(&mut self, process: usize, reply: Option<Reply>) {
        let now = self.now;
        let Some(there) = self.processes.get_mut(process) else {
            return;
        };
        // A write that is sent now must arrive while the tenure lasts.
        let time_left = there.remaining(PLANNER, now) > API_DEADLINE;
        match (std::mem::take(&mut there.planner.step), reply) {
            (Step::List, Some(Reply::List(all))) => {
                for (name, stored) in all {
                    there.take_in(OPERATIONS, &name, &stored);
                }
                self.rebuild(process);
            }
            (Step::List, _) => {
                there.planner.step = Step::List;
                if time_left {
                    return self.call(process, Who::Planner, Request::ListOperations, API_DEADLINE);
                }
                return self.wake(process, Who::Planner, 1_000);
            }
            (Step::Write(write), Some(reply)) => self.wrote(process, write, reply),
            (_, _) => self.tick(process),
        }
        self.write_next(process, time_left);
    }

    /// One tick: a plan, checked, and what of it is to be written.
    fn tick(&mut self, process: usize) {
        let now = self.now;
        let Some(there) = self.processes.get_mut(process) else {
            return;
        };
        there.planner.soon = false;
        there.refresh();
        if self.sabotage == Some(Sabotage::ForgetsBudgets)
            && let Some(world) = &mut there.planner.world
        {
            for pool in self.api.pools() {
                world.upsert_pool(PoolFacts {
                    max_unavailable: Amount::Count(u32::MAX),
                    max_per_domain: u32::MAX,
                    ..pool.clone()
                });
            }
        }
        let uncertain = there
            .planner
            .uncertain
            .iter()
            .filter(|(_, sent)| now - **sent >= API_DEADLINE * 2);
        let due: Vec<Write> = uncertain.map(|(name, _)| Write::Settle(name.clone())).collect();
        if !due.is_empty() {
            there.planner.soon = true;
            return there.planner.queue.extend(due);
        }
        let Some(world) = &there.planner.world else { return };
        let plan = kiban_core::plan(world, at(now));
        if let Some(violation) = check::check(world, &plan).first() {
            let what = format!("p{process}: {violation}");
            return self.oracle.fail("PlanBreaksRule", what);
        }
        let epoch = there.epoch().unwrap_or(0);
        let mut queue = VecDeque::new();
        let changed = plan.rollouts.iter().filter(|state| state.create || state.changed);
        queue.extend(changed.map(|state| Write::Rollout(Box::new(state.clone()))));
        let left = there
            .operations()
            .filter(|(_, it)| it.deleting && !it.has_begun());
        queue.extend(left.map(|(_, it)| Write::Finalizer {
            name: it.spec.device.clone(),
            uid: it.uid,
        }));
        queue.extend(plan.withdraw.iter().cloned().map(Write::Withdraw));
        queue.extend(
            plan.adopt
                .iter()
                .filter(|it| it.epoch != epoch)
                .cloned()
                .map(Write::Adopt),
        );
        queue.extend(
            plan.operations
                .iter()
                .cloned()
                .map(|it| Write::Create(Box::new(it))),
        );
        let planner = &mut there.planner;
        planner.queue = queue;
        planner.stuck.clear();
        planner.decided = now;
        planner.next_due = plan.next_due.map(super::millis);
    }

    fn write_next(&mut self, process: usize, time_left: bool) {
        let now = self.now;
        let Some(there) = self.processes.get_mut(process) else {
            return;
        };
        if !time_left {
            there.planner.queue.clear();
        }
        while let Some(write) = there.planner.queue.pop_front() {
            let Some(request) = there.request(&write) else {
                continue;
            };
            there.planner.step = Step::Write(write);
            return self.call(process, Who::Planner, request, API_DEADLINE);
        }
        let soon = !there.changed.iter().all(BTreeSet::is_empty) || there.planner.soon || !time_left;
        there.planner.soon = soon;
        let soak = there
            .planner
            .next_due
            .map_or(PLAN_EVERY, |due| (due - now + 1).clamp(100, PLAN_EVERY));
        self.wake(process, Who::Planner, if soon { 300 } else { soak });
    }

    fn wrote(&mut self, process: usize, write: Write, reply: Reply) {
        let now = self.now;
        let Some(there) = self.processes.get_mut(process) else {
            return;
        };
        if let Reply::Object(Some(stored)) = &reply {
            let (kind, name) = match &write {
                Write::Rollout(state) | Write::RolloutAnew(state) => (ROLLOUTS, state.name.clone()),
                Write::Finalizer { name, .. } | Write::Look(name) | Write::Settle(name) => {
                    (OPERATIONS, name.clone())
                }
                Write::Withdraw(it) => (OPERATIONS, it.device.clone()),
                Write::Adopt(it) => (OPERATIONS, it.device.clone()),
                Write::Create(it) => (OPERATIONS, it.device.clone()),
            };
            there.take_in(kind, &name, stored);
            if let (Some(world), Object::Rollout(rollout)) = (&mut there.planner.world, &*stored.object) {
                world.upsert_rollout(rollout.clone());
            }
            if let Object::Operation(operation) = &*stored.object {
                let facts = operation.facts();
                if !matches!(write, Write::Look(_)) {
                    there.count(facts);
                }
            }
        }
        match (write, reply) {
            (Write::Rollout(state), Reply::Object(_)) if state.create => {
                let anew = RolloutState {
                    create: false,
                    ..*state
                };
                there.planner.queue.push_front(Write::Rollout(Box::new(anew)));
            }
            (Write::Rollout(state), Reply::Conflict) if state.create => {
                there.planner.queue.push_front(Write::RolloutAnew(state));
            }
            (Write::RolloutAnew(state), Reply::Object(Some(_))) => {
                let anew = RolloutState {
                    create: false,
                    ..*state
                };
                there.planner.queue.push_front(Write::Rollout(Box::new(anew)));
            }
            (Write::Rollout(_) | Write::RolloutAnew(_), Reply::Object(_)) => {}
            (Write::Rollout(state) | Write::RolloutAnew(state), _) => {
                there.planner.stuck.insert(state.name);
            }
            (Write::Withdraw(it), Reply::Object(Some(stored))) => {
                if let Object::Operation(operation) = &*stored.object {
                    let finalizer = Write::Finalizer {
                        name: it.device,
                        uid: operation.uid,
                    };
                    there.planner.queue.push_front(finalizer);
                }
            }
            (Write::Create(wanted), Reply::Conflict) => {
                let counted = wanted.pending(there.epoch().unwrap_or(0));
                there.count(counted);
                there.planner.queue.push_front(Write::Look(wanted.device));
            }
            (
                Write::Create(wanted),
                Reply::Failed {
                    may_have_happened: true,
                },
            ) => {
                let counted = wanted.pending(there.epoch().unwrap_or(0));
                there.count(counted);
                there.planner.uncertain.insert(wanted.device, now);
            }
            (Write::Settle(name), Reply::Object(stored)) => {
                there.planner.uncertain.remove(&name);
                let gone = stored.is_none() && there.operation(&name).is_none();
                if let Some(world) = there.planner.world.as_mut().filter(|_| gone) {
                    world.remove_operation(&name);
                }
            }
            _ => {}
        }
    }

    /// The ledger's round: what ended is pushed, and what is pushed and told is let go.
    pub(super) fn ledger(&mut self, process: usize, reply: Option<Reply>) {
        let unpushed = self.sabotage == Some(Sabotage::ReleasesUnpushed);
        let now = self.now;
        let Some(there) = self.processes.get_mut(process) else {
            return;
        };
        let pushed = std::mem::take(&mut there.ledger.pushing);
        match reply {
            None => {
                let finished: Vec<Operation> = there
                    .operations()
                    .map(|(_, it)| it)
                    .filter(|it| is_finished(it))
                    .cloned()
                    .collect();
                if unpushed {
                    there.release(&finished);
                } else if !finished.is_empty() && there.remaining(PLANNER, now) > 0 {
                    let records = finished
                        .iter()
                        .map(|it| (it.spec.id.clone(), it.status.outcome))
                        .collect();
                    there.ledger.pushing = finished;
                    return self.call(process, Who::Ledger, Request::Push(records), 60_000);
                }
            }
            Some(Reply::Done) if !pushed.is_empty() => there.release(&pushed),
            Some(_) if !pushed.is_empty() => {}
            Some(reply) => {
                if let Some(done) = there.ledger.releasing.pop_front()
                    && !done.marked
                    && matches!(reply, Reply::Object(Some(_)))
                {
                    there
                        .ledger
                        .releasing
                        .push_front(Release { marked: true, ..done });
                }
            }
        }
        let Some(release) = there.ledger.releasing.front().cloned() else {
            return self.wake(process, Who::Ledger, PUSH_EVERY);
        };
        let Release { name, uid, marked } = release;
        let request = if marked {
            Request::TakeFinalizer { name, uid }
        } else {
            Request::Delete { name, uid, rv: None }
        };
        self.call(process, Who::Ledger, request, API_DEADLINE);
    }
}

impl Process {
    fn release(&mut self, pushed: &[Operation]) {
        let told = pushed.iter().filter(|it| self.is_told(it));
        let told: Vec<Release> = told
            .map(|it| Release {
                name: it.spec.device.clone(),
                uid: it.uid,
                marked: false,
            })
            .collect();
        self.ledger.releasing.extend(told);
    }

    /// The call that a write is. None: there is nothing to do any more.
    fn request(&self, write: &Write) -> Option<Request> {
        let epoch = self.epoch()?;
        match write {
            Write::Rollout(state) if state.create => {
                let facts = RolloutFacts {
                    name: state.name.clone(),
                    pool: state.pool.clone(),
                    baseline: state.baseline.clone(),
                    status: None,
                };
                Some(Request::New {
                    kind: ROLLOUTS,
                    name: state.name.clone(),
                    object: Box::new(Object::Rollout(facts)),
                })
            }
            Write::Rollout(state) => {
                let known = self.store.get(ROLLOUTS)?.get(&state.name)?;
                let facts = RolloutFacts {
                    name: state.name.clone(),
                    pool: state.pool.clone(),
                    baseline: state.baseline.clone(),
                    status: Some(state.status.clone()),
                };
                let object = Box::new(Object::Rollout(facts));
                Some(Request::Put {
                    kind: ROLLOUTS,
                    name: state.name.clone(),
                    rv: known.rv,
                    object,
                })
            }
            Write::RolloutAnew(state) => Some(Request::Get {
                kind: ROLLOUTS,
                name: state.name.clone(),
            }),
            Write::Finalizer { name, uid } => Some(Request::TakeFinalizer {
                name: name.clone(),
                uid: *uid,
            }),
            Write::Withdraw(it) => {
                let (rv, operation) = self.pending(&it.device, &it.id)?;
                Some(Request::Delete {
                    name: it.device.clone(),
                    uid: operation.uid,
                    rv: Some(rv),
                })
            }
            Write::Adopt(it) => {
                let (rv, operation) = self.pending(&it.device, &it.id).filter(|(_, it)| !it.deleting)?;
                let operation = Box::new(Operation { epoch, ..operation });
                Some(Request::Operation {
                    name: it.device.clone(),
                    rv,
                    operation,
                })
            }
            Write::Create(wanted) if self.planner.stuck.contains(&wanted.rollout) => None,
            Write::Create(wanted) => {
                let operation = Box::new(Operation {
                    uid: 0,
                    spec: Rc::new((**wanted).clone()),
                    epoch,
                    finalizer: true,
                    deleting: false,
                    status: Status::default(),
                });
                let decided = self.planner.decided;
                Some(Request::Create {
                    name: wanted.device.clone(),
                    operation,
                    decided,
                })
            }
            Write::Look(name) | Write::Settle(name) => Some(Request::Get {
                kind: OPERATIONS,
                name: name.clone(),
            }),
        }
    }
}
