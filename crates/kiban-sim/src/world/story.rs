//! What people and the world outside do: the fleet, the commits, what goes dark, and who mends it.

use super::{
    Event, Sim,
    api::{BASELINES, DEVICES, Device, Object, POLICIES, POOLS},
    machine::Machine,
};
use jiff::SignedDuration;
use kiban_core::{
    amount::Amount,
    component::ComponentClass,
    facts::{
        BaselineFacts, ComponentMatch, DeniedVersions, DeviceFacts, HaltFacts, Image, ModelFacts,
        PolicyFacts, PoolFacts, WantedComponent, WaveFacts,
    },
};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// How long the storm lasts.
const STORM: i64 = 7 * HOUR;
/// How long the calm may take to come to the wanted state, and how long it is watched afterwards.
const CALM: i64 = 72 * HOUR;
const WATCH: i64 = 2 * HOUR;
const FIRST: &str = "1.0.0";
/// What BMCs that are kept as they are run.
const SETTLED: &str = "7.0.0";

/// What the story remembers.
#[derive(Debug, Default)]
pub(super) struct Story {
    wanted: String,
    settled_at: Option<i64>,
    writes: u64,
}

/// Something that happens.
#[derive(Clone, Debug)]
pub(super) enum Turn {
    Commit(&'static str),
    Pause(bool),
    Deny(Option<&'static str>),
    RoomDark,
    Reboot,
    Critical,
    Impostor,
    /// A person looks after the fleet.
    Person,
    Calm,
}

impl Sim {
    pub(super) fn set_the_stage(&mut self) {
        let spread = self.rng.range(2, 5);
        self.api.models = ["r650", "sr630"]
            .map(|name| ModelFacts {
                name: name.into(),
                reported_as: vec![format!("{name}*")],
            })
            .into();
        self.api
            .put(POLICIES, "fleet", Object::Policy(PolicyFacts::default()));
        for (name, percent) in [("hosting", 15), ("web", 25)] {
            let wave = |reach, minutes| WaveFacts {
                reach,
                soak: SignedDuration::from_mins(minutes),
            };
            let pool = PoolFacts {
                baselines: vec!["r650-q4".into(), "sr630-q4".into()],
                max_unavailable: Amount::Percent(percent),
                max_per_domain: u32::try_from(self.rng.range(1, 2)).unwrap_or(1),
                waves: vec![
                    wave(Amount::Count(1), 10),
                    wave(Amount::Percent(25), 10),
                    wave(Amount::Percent(100), 0),
                ],
                halt_after_failed: 3,
                ..PoolFacts::new(name)
            };
            self.api.put(POOLS, name, Object::Pool(pool));
        }
        for n in 0..self.options.devices {
            let name = format!("d{n:04}");
            let facts = DeviceFacts {
                model: if n % 3 == 0 { "sr630" } else { "r650" }.into(),
                serial: format!("S-{name}"),
                bmc_url: format!("https://{name}.bmc"),
                site: "tokyo-1".into(),
                room: format!("room-{}", n % 3),
                rack: format!("rack-{}", i64::from(n) / spread),
                pool: if n % 2 == 0 { "hosting" } else { "web" }.into(),
                name: name.clone(),
                ..DeviceFacts::default()
            };
            let bmc = if n % 3 == 0 { FIRST } else { SETTLED };
            self.machines.insert(name.clone(), Machine::new(bmc, FIRST));
            self.api
                .put(DEVICES, &name, Object::Device(Device { facts, release: None }));
        }
        self.commit(FIRST);
        self.write_the_story();
    }

    fn write_the_story(&mut self) {
        let minute = MINUTE;
        let mut turns = vec![(12 * minute, Turn::Commit("2.0.0"))];
        if self.rng.chance(500_000) {
            let begin = self.rng.range(40, 150) * minute;
            turns.push((begin, Turn::Commit("3.0.0")));
            // A, then B, then A again: within a minute, or within the hour.
            let back = if self.rng.chance(500_000) {
                self.rng.range(1, 60) * 1_000
            } else {
                self.rng.range(5, 60) * minute
            };
            turns.push((begin + back, Turn::Commit("2.0.0")));
        }
        if self.rng.chance(500_000) {
            let begin = self.rng.range(20, 200) * minute;
            turns.push((begin, Turn::Pause(true)));
            turns.push((begin + self.rng.range(1, 40) * minute, Turn::Pause(false)));
        }
        if self.rng.chance(400_000) {
            let begin = self.rng.range(20, 200) * minute;
            turns.push((begin, Turn::Deny(Some("2.0.0"))));
            turns.push((begin + self.rng.range(5, 90) * minute, Turn::Deny(None)));
        }
        for (chance, turn) in [
            (400_000, Turn::RoomDark),
            (800_000, Turn::Reboot),
            (800_000, Turn::Reboot),
            (500_000, Turn::Critical),
            (300_000, Turn::Impostor),
        ] {
            if self.rng.chance(chance) {
                turns.push((self.rng.range(15, 360) * minute, turn));
            }
        }
        turns.push((self.rng.range(60, 120) * minute, Turn::Person));
        turns.push((STORM, Turn::Calm));
        for (time, turn) in turns {
            self.push(time, Event::Story(turn));
        }
    }

    /// Engineers commit a version; the baselines' new content is applied.
    fn commit(&mut self, version: &str) {
        version.clone_into(&mut self.story.wanted);
        let wanted = |class: ComponentClass| WantedComponent {
            class,
            matches: ComponentMatch::default(),
            version: version.into(),
            accept: None,
            deny: Vec::new(),
            image: Some(Image {
                url: format!("https://firmware.example/{class}-{version}"),
                sha256: format!("{:064x}", u64::from(version.bytes().next().unwrap_or(0))),
                size: None,
            }),
            activation: None,
            allow_downgrade: true,
            from: None,
            via: Vec::new(),
        };
        let both = [
            ("r650", vec![wanted(ComponentClass::Bios)]),
            (
                "sr630",
                vec![wanted(ComponentClass::Bmc), wanted(ComponentClass::Bios)],
            ),
        ];
        for (model, components) in both {
            let name = format!("{model}-q4");
            let baseline = BaselineFacts {
                name: name.clone(),
                models: vec![model.into()],
                components,
                commit: version.into(),
            };
            self.api.put(BASELINES, &name, Object::Baseline(baseline));
        }
        self.note(format!("a commit wants {version}"));
    }

    fn change_policy(&mut self, change: impl FnOnce(&mut PolicyFacts)) {
        let mut policy = self.api.policy();
        change(&mut policy);
        self.api.put(POLICIES, "fleet", Object::Policy(policy));
    }

    pub(super) fn turn(&mut self, turn: Turn) {
        self.note(format!("{turn:?}"));
        let now = self.now;
        let names: Vec<String> = self.machines.keys().cloned().collect();
        let at = usize::try_from(self.rng.next() % names.len().max(1) as u64).unwrap_or(0);
        let one = names.get(at).cloned().unwrap_or_default();
        let long = self.rng.range(2, 40) * MINUTE;
        let count = |sim: &mut Self, what| *sim.faults.entry(what).or_default() += 1;
        match turn {
            Turn::Commit(version) => self.commit(version),
            Turn::Pause(paused) => self.change_policy(|policy| policy.paused = paused),
            Turn::Deny(version) => self.change_policy(|policy| {
                let versions = version.iter().map(|it| (*it).to_owned()).collect();
                let denied = DeniedVersions {
                    class: ComponentClass::Bios,
                    matches: ComponentMatch::default(),
                    versions,
                    reason: "it loses its settings".into(),
                };
                policy.denied_versions = version.map(|_| denied).into_iter().collect();
            }),
            Turn::RoomDark => {
                count(self, "room dark");
                let room = format!("room-{}", now % 3);
                for name in names {
                    let there = self
                        .api
                        .device(&name)
                        .is_some_and(|device| device.facts.room == room);
                    if let Some(machine) = self.machines.get_mut(&name).filter(|_| there) {
                        machine.dark_until = now + long;
                    }
                }
            }
            Turn::Reboot | Turn::Critical | Turn::Impostor => {
                count(self, "machine misbehaves");
                let Some(machine) = self.machines.get_mut(&one) else {
                    return;
                };
                match turn {
                    Turn::Reboot => machine.away_until = now + long,
                    Turn::Critical => machine.critical = true,
                    _ => machine.impostor_until = now + long,
                }
            }
            Turn::Person => self.person(),
            Turn::Calm => {
                self.stormy = false;
                self.change_policy(|policy| *policy = PolicyFacts::default());
                self.person();
            }
        }
    }

    /// A person releases what is held, repairs what is broken, and lets halted rollouts try again.
    fn person(&mut self) {
        let now = self.now;
        let calm = !self.stormy;
        let held: Vec<(String, String)> = self.held();
        for (name, key) in held {
            if let Some(device) = self.api.device(&name).cloned() {
                self.api.put(
                    DEVICES,
                    &name,
                    Object::Device(Device {
                        release: Some(key),
                        ..device
                    }),
                );
            }
        }
        self.machines.values_mut().for_each(Machine::repair);
        self.retry();
        if !calm {
            let pause = self.rng.range(30, 120) * MINUTE;
            return self.push(pause, Event::Story(Turn::Person));
        }
        match self.story.settled_at {
            None if self.is_settled() => {
                self.note("the wanted state is reached".into());
                self.oracle.history(&self.api.ledger);
                self.story.settled_at = Some(now);
            }
            None if now > STORM + CALM => {
                let what = self.unsettled();
                self.oracle.fail("NotReached", what);
            }
            None => {}
            // The last waves soak and are closed, and what was on its way arrives.
            Some(since) if now - since <= HOUR => self.story.writes = self.api.writes,
            Some(_) if self.api.writes != self.story.writes => {
                let writes = self.api.writes - self.story.writes;
                self.oracle
                    .fail("NotQuiet", format!("{writes} writes for a fleet at rest"));
            }
            Some(_) if !self.is_settled() => {
                let what = self.unsettled();
                self.oracle.fail("NotKept", what);
            }
            Some(since) => self.over = now - since > WATCH,
        }
        self.push(20 * MINUTE, Event::Story(Turn::Person));
    }

    fn held(&self) -> Vec<(String, String)> {
        let devices = self.machines.keys().filter_map(|name| self.api.device(name));
        let held = devices.filter_map(|device| {
            let hold = device.facts.hold.as_ref()?;
            let key = if hold.operation.is_empty() {
                &hold.reason
            } else {
                &hold.operation
            };
            (device.release.as_ref() != Some(key)).then(|| (device.facts.name.clone(), key.clone()))
        });
        held.collect()
    }

    /// In the storm: only what halted. In the calm: whatever stands still and is not as wanted.
    fn retry(&mut self) {
        let pools: Vec<PoolFacts> = self.api.pools().cloned().collect();
        for pool in pools {
            let rollouts = self.api.objects.get(super::api::ROLLOUTS).into_iter().flatten();
            let halted = rollouts
                .filter_map(|(name, _)| self.api.rollout(name))
                .any(|rollout| {
                    let halt: Option<&HaltFacts> =
                        rollout.status.as_ref().and_then(|status| status.halt.as_ref());
                    rollout.pool == pool.name && halt.is_some()
                });
            let works = self.api.operations().any(|it| it.spec.pool == pool.name);
            let failed = self.machines.keys().any(|name| {
                let device = self
                    .api
                    .device(name)
                    .filter(|device| device.facts.pool == pool.name);
                let failed = device.and_then(|device| device.facts.last_operation.as_ref());
                failed.is_some_and(|last| last.outcome != kiban_core::facts::Outcome::Succeeded)
                    && !self.is_as_wanted(name)
            });
            let reverted = !self.stormy && !works && !self.is_settled();
            if halted || (!self.stormy && failed && !works) || reverted {
                let retry = pool.retry + 1;
                let name = pool.name.clone();
                self.note(format!("{name} is to try again: {retry}"));
                self.api
                    .put(POOLS, &name, Object::Pool(PoolFacts { retry, ..pool }));
            }
        }
    }

    fn is_as_wanted(&self, name: &str) -> bool {
        let wanted = &self.story.wanted;
        let Some(machine) = self.machines.get(name) else {
            return false;
        };
        let [bmc, bios] = machine.versions();
        bios == wanted && (bmc == wanted || bmc == SETTLED)
    }

    fn is_settled(&self) -> bool {
        self.machines.keys().all(|name| self.is_as_wanted(name)) && self.api.operations().next().is_none()
    }

    fn unsettled(&self) -> String {
        let odd = self.machines.keys().filter(|name| !self.is_as_wanted(name));
        let odd = odd
            .take(5)
            .map(|name| format!("{name}: {:?}", self.api.device(name).map(|it| &it.facts)));
        let operations: Vec<_> = self
            .api
            .operations()
            .take(3)
            .map(|it| (&it.spec.id, &it.status.outcome))
            .collect();
        format!(
            "wanted {}; {operations:?}; {}",
            self.story.wanted,
            odd.collect::<Vec<_>>().join("\n")
        )
    }
}
