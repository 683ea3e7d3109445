//! Random worlds: whatever the facts, a plan breaks no rule; and whatever fails, a fleet ends at its baseline or says
//! what it waits on.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/fleet.rs"]
mod fleet;

use fleet::*;
use jiff::SignedDuration;
use kiban_core::{
    World,
    amount::Amount,
    check::check,
    component::ComponentClass,
    facts::*,
    gate::{GateFacts, GateRule, GateState, HealthRule},
    plan,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

const VERSIONS: [&str; 6] = ["1.10.2", "1.14.1", "1.15.0", "1.15.2", "1.16.0", "rc-7"];
/// The last one does not exist.
const POOLS: [&str; 8] = [
    "hosting", "web", "hosting", "web", "hosting", "web", "hosting", "gone",
];

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![
        (0_u32..6).prop_map(Amount::Count),
        (0_u8..=100).prop_map(Amount::Percent)
    ]
}

fn domain() -> impl Strategy<Value = FailureDomain> {
    prop::sample::select(FailureDomain::ALL.to_vec())
}

fn limits(most: usize) -> impl Strategy<Value = Vec<DomainLimit>> {
    let limit = (domain(), 0_u32..6).prop_map(|(over, max)| DomainLimit { over, max });
    prop::collection::vec(limit, 0..=most)
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop::sample::select(vec![
        Outcome::Pending,
        Outcome::Running,
        Outcome::Succeeded,
        Outcome::Failed,
        Outcome::Held,
    ])
}

fn a_pool(name: &'static str) -> impl Strategy<Value = PoolFacts> {
    let waves = prop::collection::vec(
        (amount(), -10_i64..5_000).prop_map(|(reach, soak)| wave(reach, soak)),
        0..4,
    );
    (
        amount(),
        0_u32..4,
        waves,
        0_u32..4,
        0_u32..2,
        domain(),
        any::<bool>(),
        limits(1),
        prop::option::weighted(0.2, 0_u32..5),
        -1_i32..2,
        prop::bool::weighted(0.7),
        prop::collection::vec(a_gate(), 0..2),
    )
        .prop_map(
            move |(
                max,
                per_domain,
                waves,
                halt,
                retry,
                domain,
                two,
                domains,
                at_most,
                priority,
                served,
                gates,
            )| {
                PoolFacts {
                    domains,
                    at_most,
                    priority,
                    service: if served { "hosting".into() } else { String::new() },
                    waves,
                    gates,
                    halt_after_failed: halt,
                    retry,
                    domain,
                    baselines: if two {
                        vec!["r650-q4".into(), "second".into()]
                    } else {
                        vec!["r650-q4".into(), "lost".into()]
                    },
                    ..pool(name, max, per_domain)
                }
            },
        )
}

/// A gate of any kind; mostly it guards another wave than the present one, so that there is more to see than gates.
fn a_gate() -> impl Strategy<Value = GateRule> {
    (
        prop::sample::select(vec![vec![], vec![1], vec![2], vec![3, 4]]),
        0_i64..600_000,
        0_i64..3,
        any::<bool>(),
        prop::option::of((0_u32..3, 0_u32..3, 0_u32..3)),
    )
        .prop_map(|(waves, max_age, failure, halt, health)| GateRule {
            name: "slo".into(),
            waves,
            max_age: SignedDuration::from_secs(max_age),
            hold_for: SignedDuration::ZERO,
            halt,
            failure_threshold: SignedDuration::from_secs(failure),
            health: health.map(|(max_critical, max_unreachable, max_unknown)| HealthRule {
                max_critical,
                max_unreachable,
                max_unknown,
            }),
        })
}

/// What was measured of the pools' gates at second 0: each state is some gate's.
fn measurements(pools: &[PoolFacts]) -> impl Iterator<Item = GateFacts> {
    let gates = pools
        .iter()
        .flat_map(|pool| pool.gates.iter().map(|gate| (pool.name.clone(), gate)));
    gates.map(|(pool, gate)| GateFacts {
        pool,
        name: gate.name.clone(),
        state: match gate.failure_threshold.as_secs() {
            0 => GateState::Fails,
            1 => GateState::NoData,
            _ => GateState::Holds,
        },
        measured_at: at(0),
        message: String::new(),
    })
}

/// One device in any state, with the operation on it, if any.
fn a_device(n: usize) -> impl Strategy<Value = (DeviceFacts, Option<OperationFacts>)> {
    let revision = prop::sample::select(vec!["now-0", "now-1", "old"]);
    let mostly = |yes: f64| prop::bool::weighted(yes);
    (
        (
            prop::sample::select(POOLS.to_vec()),
            0_usize..4,
            prop::sample::select(VERSIONS.to_vec()),
            prop::sample::subsequence(vec!["pdu-a", "pdu-b", "pdu-c"], 0..=2),
        ),
        (
            mostly(0.95),
            mostly(0.95),
            mostly(0.95),
            mostly(0.97),
            mostly(0.97),
            mostly(0.97),
        ),
        prop::option::weighted(0.3, (revision.clone(), outcome(), 0_i64..200_000)),
        prop::option::weighted(
            0.12,
            (
                revision,
                outcome(),
                prop::sample::select(POOLS.to_vec()),
                any::<u32>(),
            ),
        ),
        0_i64..400_000,
    )
        .prop_map(
            move |(
                (pool, rack, version, feeds),
                (fresh, reach, healthy, known, own, free),
                last,
                operation,
                changed,
            )| {
                let name = format!("d{n:02}");
                let rack = if rack == 3 {
                    String::new()
                } else {
                    format!("r{rack}")
                };
                let mut facts = device(&name, pool, &rack, version);
                facts.room = if n.is_multiple_of(5) {
                    String::new()
                } else {
                    format!("room-{}", n % 2)
                };
                if n.is_multiple_of(4) {
                    facts.redundancy_group = format!("pair-{}", n % 3);
                }
                facts.power = feeds.into_iter().map(str::to_owned).collect();
                facts.fresh = fresh;
                facts.reach = if reach {
                    Reach::Reachable
                } else {
                    Reach::Unreachable
                };
                facts.health = if healthy {
                    Health::Warning
                } else {
                    Health::Critical
                };
                facts.firmware_changed_at = Some(at(changed));
                if !known {
                    facts.firmware = None;
                    facts.identity = None;
                    facts.reach = Reach::NeverRead;
                }
                if !own {
                    facts.serial = "S-d00".into();
                }
                if !free {
                    facts.hold = Some(HoldFacts {
                        reason: "OutcomeUnknown".into(),
                        operation: String::new(),
                    });
                }
                facts.last_operation = last.map(|(revision, outcome, finished)| LastOperationFacts {
                    id: format!("{name}-last"),
                    revision: revision.into(),
                    outcome,
                    finished_at: at(finished),
                });
                let operation = operation.map(|(revision, outcome, pool, wave)| OperationFacts {
                    device: name.clone(),
                    id: format!("{name}-now"),
                    campaign: format!("Rollout/{pool}-r650-q4"),
                    // Mostly of the pool that the device still serves.
                    pool: if wave % 4 > 0 {
                        facts.pool.clone()
                    } else {
                        pool.into()
                    },
                    revision: revision.into(),
                    wave,
                    epoch: 3,
                    outcome,
                });
                (facts, operation)
            },
        )
}

#[derive(Debug, Clone)]
struct Facts {
    pools: Vec<PoolFacts>,
    devices: Vec<(DeviceFacts, Option<OperationFacts>)>,
    policy: PolicyFacts,
    baselines: Vec<BaselineFacts>,
    rollouts: Vec<(usize, RolloutStatus)>,
}

fn a_status() -> impl Strategy<Value = RolloutStatus> {
    (
        prop_oneof![any::<u32>(), 1_u32..3],
        any::<u32>(),
        prop::option::of(-1_000_i64..10_000),
        prop::bool::weighted(0.15),
        0_u32..2,
    )
        .prop_map(|(wave, count, done_at, halted, retry)| RolloutStatus {
            revision: format!("now-{retry}"),
            wave,
            total: count,
            done: count,
            wave_done_at: done_at.map(at),
            halt: halted.then(|| HaltFacts {
                at: at(0),
                message: "somebody".into(),
                devices: Vec::new(),
            }),
            ..RolloutStatus::default()
        })
}

fn facts() -> impl Strategy<Value = Facts> {
    let devices = (1_usize..24).prop_flat_map(|count| (0..count).map(a_device).collect::<Vec<_>>());
    let policy = (
        prop::bool::weighted(0.1),
        prop::option::weighted(0.3, amount()),
        prop::bool::weighted(0.1),
        prop_oneof![2 => Just(Vec::new()), 1 => limits(2)],
        prop::option::weighted(0.2, 0_u32..8),
        prop::option::weighted(0.4, (amount(), prop::option::weighted(0.2, 0_u32..4))),
        10_u8..90,
    )
        .prop_map(
            |(paused, max_unavailable, denied, domains, at_most, service, percent)| PolicyFacts {
                paused,
                max_unavailable,
                domains,
                at_most,
                dark: DarkFacts { percent, devices: 2 },
                services: service
                    .map(|(max_unavailable, at_most)| ServiceFacts {
                        name: "hosting".into(),
                        max_unavailable,
                        at_most,
                    })
                    .into_iter()
                    .collect(),
                denied_versions: denied
                    .then(|| DeniedVersions {
                        class: ComponentClass::Bios,
                        matches: ComponentMatch::default(),
                        versions: vec![NEW.into()],
                        reason: String::new(),
                    })
                    .into_iter()
                    .collect(),
            },
        );
    let baselines = (
        any::<bool>(),
        prop::bool::weighted(0.1),
        any::<bool>(),
        prop::option::of(Just(">=1.14.1".to_owned())),
    )
        .prop_map(|(downgrade, clash, image, accept)| {
            let mut first = baseline(NEW, "c1");
            first.components[0].allow_downgrade = downgrade;
            first.components[0].accept = accept;
            first.components[0].deny = vec!["1.15.0".into()];
            if !image && clash {
                first.components[0].image = None;
            }
            let mut second = BaselineFacts {
                name: "second".into(),
                ..baseline("1.14.1", "c1")
            };
            if !clash {
                second.models = vec!["sr630".into()];
            }
            vec![first, second]
        });
    (
        a_pool("hosting"),
        a_pool("web"),
        devices,
        policy,
        baselines,
        prop::collection::vec((0_usize..2, a_status()), 0..3),
    )
        .prop_map(|(hosting, web, devices, policy, baselines, rollouts)| Facts {
            pools: vec![hosting, web],
            devices,
            policy,
            baselines,
            rollouts,
        })
}

/// The stand-ins `now-0` and `now-1` become the real revisions, so that memories of the present revision occur.
fn real(revision: &str, baseline: &BaselineFacts) -> String {
    let digest = kiban_core::revision::of_components(&baseline.components);
    match revision {
        "now-0" => kiban_core::revision::of(&digest, 0),
        "now-1" => kiban_core::revision::of(&digest, 1),
        other => other.to_owned(),
    }
}

/// A device that went first of every class, and well.
fn witness(world: &mut World, pool: &str, revision: &str) -> Vec<CanaryFacts> {
    let facts = DeviceFacts {
        last_operation: Some(LastOperationFacts {
            id: "first".into(),
            revision: revision.into(),
            outcome: Outcome::Succeeded,
            finished_at: at(0),
        }),
        ..device(&format!("z-{pool}"), pool, "r9", NEW)
    };
    world.upsert_device(&facts);
    let class = |version: &&str| CanaryFacts {
        class: kiban_core::revision::of_class("r650", &[(0, version)]),
        device: facts.name.clone(),
    };
    VERSIONS.iter().map(class).collect()
}

fn build(facts: &Facts, backwards: bool) -> World {
    let mut world = World::new();
    let first = &facts.baselines[0];
    let add_devices = |world: &mut World| {
        let mut devices: Vec<_> = facts.devices.iter().collect();
        if backwards {
            devices.reverse();
        }
        for (device, operation) in devices {
            let mut device = device.clone();
            if let Some(last) = &mut device.last_operation {
                last.revision = real(&last.revision, first);
            }
            world.upsert_device(&device);
            if let Some(operation) = operation {
                let retry = facts
                    .pools
                    .iter()
                    .find(|pool| pool.name == operation.pool)
                    .map(|pool| pool.retry);
                let present = retry
                    .filter(|_| operation.revision != "old")
                    .map(|retry| format!("now-{retry}"));
                world.upsert_operation(OperationFacts {
                    revision: real(&present.unwrap_or_else(|| operation.revision.clone()), first),
                    ..operation.clone()
                });
            }
        }
    };
    if backwards {
        add_devices(&mut world);
    }
    world.upsert_model(model("r650"));
    world.upsert_policy(facts.policy.clone());
    for pool in &facts.pools {
        world.upsert_pool(pool.clone());
    }
    world.set_gates(measurements(&facts.pools));
    for baseline in &facts.baselines {
        world.upsert_baseline(baseline.clone());
    }
    for (pool, status) in &facts.rollouts {
        let pool = POOLS[*pool];
        let revision = real(&status.revision, first);
        let canaries = if status.done.is_multiple_of(2) {
            witness(&mut world, pool, &revision)
        } else {
            Vec::new()
        };
        world.upsert_rollout(RolloutFacts {
            name: format!("{pool}-r650-q4"),
            pool: pool.into(),
            baseline: "r650-q4".into(),
            status: Some(RolloutStatus {
                revision,
                canaries,
                ..status.clone()
            }),
        });
    }
    if !backwards {
        add_devices(&mut world);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_breaks_a_rule_and_the_same_facts_give_the_same_plan(facts in facts(), now in -10_000_i64..500_000) {
        let world = build(&facts, false);
        let made = plan(&world, at(now));
        prop_assert_eq!(check(&world, &made), vec![]);
        let other = build(&facts, true);
        prop_assert_eq!(
            made.to_json(&world).to_string(),
            plan(&other, at(now)).to_json(&other).to_string()
        );
    }

    #[test]
    fn a_plan_that_is_carried_out_asks_for_nothing_more(facts in facts(), now in -10_000_i64..500_000) {
        let mut world = build(&facts, false);
        let mut made = plan(&world, at(now));
        // Withdrawn operations give their budget back in the plan after, which may grant it to others: a few times.
        let mut rounds = 0;
        while !made.operations.is_empty() || !made.withdraw.is_empty() {
            prop_assert!(rounds < 60, "{made:?}");
            carry_out(&mut world, &made);
            made = plan(&world, at(now));
            prop_assert_eq!(check(&world, &made), vec![]);
            rounds += 1;
        }
        carry_out(&mut world, &made);
        let quiet = plan(&world, at(now));
        prop_assert!(quiet.rollouts.iter().all(|state| !state.changed && !state.create), "{quiet:?}");
    }

    #[test]
    fn a_fleet_reaches_its_baseline_or_says_what_it_waits_on(
        max in prop_oneof![(1_u32..6).prop_map(Amount::Count), (1_u8..=100).prop_map(Amount::Percent)],
        per_domain in 1_u32..4,
        waves in prop::collection::vec((amount(), 0_i64..5_000).prop_map(|(reach, soak)| wave(reach, soak)), 0..4),
        halt in 1_u32..4,
        count in 1_usize..30,
        fates in prop::collection::vec(prop::sample::select(vec![
            Outcome::Succeeded, Outcome::Succeeded, Outcome::Succeeded, Outcome::Succeeded, Outcome::Failed, Outcome::Held,
        ]), 40),
    ) {
        let facts = PoolFacts { waves, halt_after_failed: halt, ..pool("hosting", max, per_domain) };
        let mut world = fleet(count, facts);
        let mut devices: BTreeMap<String, DeviceFacts> = (0..count)
            .map(|n| (format!("d{n:02}"), device(&format!("d{n:02}"), "hosting", &format!("r{}", n / 4), OLD)))
            .collect();
        let mut fates = fates.into_iter().cycle();
        let (mut now, mut idle, mut flashed) = (0, 0, BTreeMap::<String, u32>::new());
        while idle < 2 {
            let made = plan(&world, at(now));
            prop_assert_eq!(check(&world, &made), vec![]);
            carry_out(&mut world, &made);
            // One of those under way ends; the others go on.
            let under_way: Vec<String> = world.operations().map(|operation| operation.device.clone()).collect();
            if let Some(name) = under_way.get(now as usize % under_way.len().max(1)) {
                end(&mut world, devices.get_mut(name).unwrap(), fates.next().unwrap(), NEW, at(now));
                *flashed.entry(name.clone()).or_default() += 1;
                idle = 0;
            } else if let Some(due) = made.next_due {
                now = due.as_second() - at(0).as_second();
                continue;
            } else {
                idle += 1;
            }
            now += 7;
            prop_assert!(now < 1_000_000, "never ends");
        }
        let last = plan(&world, at(now));
        prop_assert!(last.operations.is_empty() && last.rollouts.iter().all(|state| !state.changed));
        prop_assert!(flashed.values().all(|&times| times == 1), "nothing is tried again by itself: {flashed:?}");
        // A held device uses the budget up until a person has looked; then a wave stands still behind it.
        let blocked = last.verdicts(&world).any(|(_, verdict)| {
            matches!(verdict.waiting.map(|waiting| waiting.reason()), Some("Budget" | "Domain"))
        });
        for (device, verdict) in last.verdicts(&world) {
            let reason = verdict.waiting.map(kiban_core::waiting::WaitingOn::reason);
            let lasting = matches!(reason, Some("Failed" | "Held" | "Halted" | "Budget" | "Domain"))
                || (matches!(reason, Some("Wave" | "Canary")) && blocked);
            let there = verdict.compliance == kiban_core::compliance::Compliance::Compliant && reason.is_none();
            prop_assert!(there || lasting, "{} {:?}", device.name(), verdict);
        }
        let failed = last.rollouts.iter().map(|state| state.status.failed).sum::<u32>();
        let all = last.pools[0].compliant as usize + failed as usize == count;
        let stuck = failed >= halt || devices.values().any(|device| device.hold.is_some());
        prop_assert!(all || stuck, "{last:?}");
    }
}

/// Who is down: by themselves, or by an operation that has not ended.
fn down(world: &World) -> Vec<&str> {
    let devices = world.devices().filter(|device| {
        let operation = world.operation(device.name());
        !device.pool().is_empty()
            && (device.is_unavailable() || operation.is_some_and(|it| !it.outcome.is_final()))
    });
    devices.map(|device| device.name()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// However plans, outcomes and accidents mix, no limit has more devices down than it allows, unless they went down by
    /// themselves. Counted here, from what the world says after each step.
    #[test]
    fn never_more_down_than_any_limit_allows(
        max in amount(),
        fleet_max in prop::option::of(2_u32..8),
        own in limits(2),
        of_fleet in limits(3),
        service in prop::option::of(1_u32..6),
        priorities in (0_i32..2, 0_i32..2),
        fates in prop::collection::vec((0_u8..10, any::<u8>()), 60),
    ) {
        let mut world = World::new();
        world.upsert_model(model("r650"));
        world.upsert_baseline(baseline(NEW, "c1"));
        for (name, priority) in [("hosting", priorities.0), ("web", priorities.1)] {
            world.upsert_pool(PoolFacts {
                service: "all".into(),
                domains: own.clone(),
                priority,
                waves: vec![wave(Amount::Percent(100), 0)],
                halt_after_failed: 99,
                ..pool(name, max, 3)
            });
        }
        let services = service.map(|count| ServiceFacts {
            name: "all".into(),
            max_unavailable: Amount::Percent(50),
            at_most: Some(count),
        });
        world.upsert_policy(PolicyFacts {
            at_most: fleet_max,
            domains: of_fleet.clone(),
            services: services.into_iter().collect(),
            ..PolicyFacts::default()
        });
        let mut devices: BTreeMap<String, DeviceFacts> = BTreeMap::new();
        for n in 0_u32..24 {
            let name = format!("d{n:02}");
            let mut facts = device(&name, if n % 3 == 0 { "web" } else { "hosting" }, &format!("r{}", n / 4), OLD);
            facts.room = format!("room-{}", n / 12);
            if n.is_multiple_of(5) {
                facts.redundancy_group = "pair".into();
            }
            facts.power = vec![format!("pdu-{}", n % 4), format!("pdu-{}", n % 3)];
            world.upsert_device(&facts);
            devices.insert(name, facts);
        }
        for (now, (fate, which)) in (0_i64..).zip(fates) {
            let before: Vec<String> = down(&world).into_iter().map(str::to_owned).collect();
            let made = plan(&world, at(now * 60));
            prop_assert_eq!(check(&world, &made), vec![]);
            carry_out(&mut world, &made);
            let mut counts: BTreeMap<String, (u32, u32)> = BTreeMap::new();
            for name in down(&world) {
                let facts = &devices[name];
                // A limit is to be kept where the plan added to what was down.
                let added = u32::from(!before.iter().any(|it| it == name));
                let mut tell = |limit: String| {
                    let count = counts.entry(limit).or_default();
                    *count = (count.0 + 1, count.1 + added);
                };
                tell("fleet".into());
                tell("service".into());
                tell(format!("pool {}", facts.pool));
                if !facts.redundancy_group.is_empty() {
                    tell("group pair".into());
                }
                for (kind, places) in [
                    (FailureDomain::Rack, vec![&facts.rack]),
                    (FailureDomain::Room, vec![&facts.room]),
                    (FailureDomain::Site, vec![&facts.site]),
                    (FailureDomain::Power, {
                        let mut feeds: Vec<&String> = facts.power.iter().collect();
                        feeds.dedup();
                        feeds
                    }),
                ] {
                    for place in places {
                        tell(format!("{kind:?} {place}"));
                        tell(format!("{} {kind:?} {place}", facts.pool));
                    }
                }
            }
            let most = |limit: &str| -> u32 {
                let of = |list: &[DomainLimit], kind: &str| {
                    let named = list.iter().filter(|it| format!("{:?}", it.over) == kind);
                    named.map(|it| it.max).min().unwrap_or(u32::MAX)
                };
                let mut words = limit.split(' ');
                let (first, second) = (words.next().unwrap(), words.next());
                match (first, second) {
                    ("group", _) => 1,
                    ("fleet", _) => fleet_max.unwrap_or(u32::MAX),
                    ("service", _) => service.map_or(u32::MAX, |count| count.min(12)),
                    ("pool", Some(name)) => max.of(if name == "web" { 8 } else { 16 }),
                    ("hosting" | "web", Some("Rack")) => of(&own, "Rack").min(3),
                    ("hosting" | "web", Some(kind)) => of(&own, kind),
                    (kind, _) => of(&of_fleet, kind),
                }
            };
            for (limit, (count, added)) in counts {
                prop_assert!(added == 0 || count <= most(&limit), "{limit}: {count} of {}", most(&limit));
            }
            // Then something happens: an operation ends, or a machine breaks, or comes back.
            let names: Vec<String> = match fate {
                0..6 => world.operations().map(|operation| operation.device.clone()).collect(),
                _ => devices.keys().cloned().collect(),
            };
            let Some(name) = names.get(usize::from(which) % names.len().max(1)) else {
                continue;
            };
            let facts = devices.get_mut(name).unwrap();
            match fate {
                0..5 => end(&mut world, facts, Outcome::Succeeded, NEW, at(now * 60)),
                5 => end(&mut world, facts, Outcome::Failed, NEW, at(now * 60)),
                6 => facts.health = Health::Critical,
                7 => facts.reach = Reach::Unreachable,
                _ => (facts.health, facts.reach) = (Health::Ok, Reach::Reachable),
            }
            world.upsert_device(facts);
        }
    }
}

/// The property tests are worth what their worlds are worth: every reason occurs in them, and grants are not rare.
#[test]
fn random_worlds_meet_every_rule() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut reasons: BTreeMap<&str, u32> = BTreeMap::new();
    let mut tell = |reason: &'static str| *reasons.entry(reason).or_default() += 1;
    for n in 0..2_000 {
        let world = build(&facts().new_tree(&mut runner).unwrap().current(), false);
        let made = plan(&world, at(n * 50));
        if !made.operations.is_empty() {
            tell("granted");
        }
        for withdrawal in &made.withdraw {
            tell(if withdrawal.reason == "Superseded" {
                "superseded"
            } else {
                "withdrawn"
            });
        }
        if !made.adopt.is_empty() {
            tell("adopted");
        }
        for (_, verdict) in made.verdicts(&world) {
            tell(verdict.waiting.map_or("none", |waiting| waiting.reason()));
        }
    }
    let expected = [
        "BaselineConflict",
        "Budget",
        "Canary",
        "Dark",
        "Denied",
        "Domain",
        "Downgrade",
        "Duplicate",
        "Failed",
        "FleetBudget",
        "FleetDomain",
        "Gate",
        "Halted",
        "Held",
        "Image",
        "Ledger",
        "NeverRead",
        "Operation",
        "Paused",
        "PoolNotFound",
        "RedundancyGroup",
        "Reverted",
        "ServiceBudget",
        "Soak",
        "Stale",
        "Unhealthy",
        "Unreachable",
        "Wave",
        "adopted",
        "superseded",
        "withdrawn",
    ];
    let missing: Vec<&str> = expected
        .into_iter()
        .filter(|reason| !reasons.contains_key(reason))
        .collect();
    assert!(missing.is_empty(), "{missing:?} never occur: {reasons:?}");
    assert!(reasons["granted"] > 250 && reasons["adopted"] > 5, "{reasons:?}");
}
