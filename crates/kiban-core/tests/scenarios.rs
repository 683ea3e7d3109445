//! Rollouts, read as stories.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/fleet.rs"]
mod fleet;

use fleet::*;
use jiff::{SignedDuration, Timestamp};
use kiban_core::{
    Plan, World,
    amount::Amount,
    approval::{ApprovalFacts, ApprovalRule, Approved, People},
    check::check,
    facts::*,
    gate::{GateFacts, GateRule, GateState, HealthRule},
    plan,
    plan::RolloutState,
};
use std::fmt::Write;

fn checked(world: &World, now: Timestamp) -> Plan {
    let made = plan(world, now);
    assert_eq!(check(world, &made), []);
    assert_eq!(
        made,
        plan(world, now),
        "the same world and time give the same plan"
    );
    made
}

/// Plans, carries out, and gives the devices granted.
fn tick(world: &mut World, now: Timestamp) -> (Plan, Vec<String>) {
    let made = checked(world, now);
    let granted = made
        .operations
        .iter()
        .map(|operation| operation.device.clone())
        .collect();
    carry_out(world, &made);
    (made, granted)
}

fn reason(world: &World, plan: &Plan, device: &str) -> Option<&'static str> {
    plan.verdict(world, device)
        .unwrap()
        .waiting
        .map(|waiting| waiting.reason())
}

fn succeed(world: &mut World, name: &str, now: Timestamp) {
    let rack = world.device(name).unwrap().place().to_string();
    let rack = rack.rsplit('/').next().unwrap().to_owned();
    let pool = world.device(name).unwrap().pool().to_owned();
    end(
        world,
        &mut device(name, &pool, &rack, OLD),
        Outcome::Succeeded,
        NEW,
        now,
    );
}

fn fail(world: &mut World, name: &str, outcome: Outcome, now: Timestamp) {
    let rack = world.device(name).unwrap().place().to_string();
    let rack = rack.rsplit('/').next().unwrap().to_owned();
    let pool = world.device(name).unwrap().pool().to_owned();
    end(world, &mut device(name, &pool, &rack, OLD), outcome, NEW, now);
}

fn rollout(plan: &Plan) -> &RolloutState {
    &plan.rollouts[0]
}

fn tell(story: &mut String, world: &World, plan: &Plan, now: &str) {
    let _ = writeln!(story, "{now}");
    for state in &plan.rollouts {
        let status = &state.status;
        let _ = writeln!(
            story,
            "  {} wave {}/{}: {} of {} done, {} failed, {} running{}{}",
            state.name,
            status.wave,
            status.waves,
            status.done,
            status.total,
            status.failed,
            status.running,
            if status.halt.is_some() { ", halted" } else { "" },
            if status.completed_at.is_some() {
                ", complete"
            } else {
                ""
            },
        );
    }
    for operation in &plan.operations {
        let update = &operation.updates[0];
        let _ = writeln!(
            story,
            "  grant {}: {} {} -> {}",
            operation.device, update.class, update.from, update.to
        );
    }
    for (device, verdict) in plan.verdicts(world) {
        if let Some(waiting) = verdict.waiting {
            let _ = writeln!(
                story,
                "  {} {}: {}",
                device.name(),
                waiting.reason(),
                waiting.sentence(world)
            );
        }
    }
}

#[test]
fn a_commit_goes_out_canary_first_and_halts_at_a_failure_until_another_commit() {
    let waves = vec![wave(Amount::Count(1), 3600), wave(Amount::Percent(50), 0)];
    let mut world = fleet(
        6,
        PoolFacts {
            waves,
            ..pool("hosting", Amount::Count(2), 1)
        },
    );
    let mut story = String::new();

    let (made, granted) = tick(&mut world, at(0));
    tell(&mut story, &world, &made, "a commit wants 1.15.2");
    assert_eq!(granted, ["d00"]);

    succeed(&mut world, "d00", at(600));
    let (made, granted) = tick(&mut world, at(600));
    tell(&mut story, &world, &made, "the canary is through");
    assert!(granted.is_empty());
    assert_eq!(made.next_due, Some(at(4200)));

    let (made, granted) = tick(&mut world, at(4199));
    assert!(
        granted.is_empty() && !rollout(&made).changed,
        "a soak writes nothing while it lasts"
    );

    let (made, granted) = tick(&mut world, at(4200));
    tell(&mut story, &world, &made, "it has soaked");
    assert_eq!(granted.len(), 2);

    succeed(&mut world, &granted[0], at(5000));
    fail(&mut world, &granted[1], Outcome::Failed, at(5000));
    let (made, granted) = tick(&mut world, at(5000));
    tell(&mut story, &world, &made, "one fails");
    assert!(granted.is_empty());

    let (made, _) = tick(&mut world, at(999_999));
    assert!(made.operations.is_empty(), "a halt does not pass by itself");

    world.upsert_pool(PoolFacts {
        retry: 1,
        commit: "c2".into(),
        waves: Vec::new(),
        ..pool("hosting", Amount::Count(2), 1)
    });
    let (made, granted) = tick(&mut world, at(1_000_000));
    tell(&mut story, &world, &made, "a commit tries again");
    assert_eq!((granted.len(), rollout(&made).status.commit.as_str()), (1, "c2"));
    insta::assert_snapshot!(story);
}

#[test]
fn every_device_gets_there_and_then_all_is_quiet() {
    let mut world = fleet(12, pool("hosting", Amount::Percent(20), 1));
    let mut now = 0;
    loop {
        let (_, granted) = tick(&mut world, at(now));
        if granted.is_empty() {
            break;
        }
        for name in granted {
            now += 60;
            succeed(&mut world, &name, at(now));
        }
        assert!(now < 100_000);
    }
    let made = checked(&world, at(now + 1));
    assert_eq!(made.pools[0].compliant, 12);
    assert!(rollout(&made).status.completed_at.is_some());
    assert!(
        !rollout(&made).changed && made.next_due.is_none(),
        "nothing is written at rest"
    );
}

#[test]
fn no_rollout_is_made_where_none_is_needed() {
    let mut world = fleet(0, pool("hosting", Amount::Count(1), 1));
    for n in 0..3 {
        world.upsert_device(&device(&format!("d{n}"), "hosting", "r1", NEW));
    }
    let made = checked(&world, at(0));
    assert!(made.rollouts.is_empty() && made.operations.is_empty());
    assert_eq!((made.pools[0].compliant, made.baselines[0].devices), (3, 3));
}

#[test]
fn a_b_a_within_a_minute_lets_what_runs_end_and_starts_nothing_else() {
    let mut world = fleet(6, pool("hosting", Amount::Count(3), 3));
    for n in 0..6 {
        world.upsert_device(&device(&format!("d{n:02}"), "hosting", "r0", NEW));
    }
    assert!(tick(&mut world, at(0)).1.is_empty());
    world.upsert_baseline(baseline("1.16.0", "c2"));
    let (_, granted) = tick(&mut world, at(10));
    assert_eq!(granted, ["d00"]);
    let running = world.operation("d00").unwrap().clone();
    world.upsert_operation(OperationFacts {
        outcome: Outcome::Running,
        ..running
    });
    world.upsert_baseline(baseline(NEW, "c3"));
    let (made, granted) = tick(&mut world, at(20));
    assert!(granted.is_empty() && made.withdraw.is_empty());
    assert_eq!((rollout(&made).status.total, made.pools[0].unavailable), (0, 1));
    // It ends at B, and is brought back to A as the only device.
    end(
        &mut world,
        &mut device("d00", "hosting", "r0", NEW),
        Outcome::Succeeded,
        "1.16.0",
        at(30),
    );
    let (made, granted) = tick(&mut world, at(30));
    assert_eq!(granted, ["d00"]);
    assert_eq!(rollout(&made).status.total, 1);
}

#[test]
fn an_operation_that_has_not_started_is_taken_back_when_its_reason_is_gone() {
    let mut world = fleet(4, pool("hosting", Amount::Count(2), 2));
    assert_eq!(tick(&mut world, at(0)).1, ["d00"]);
    let kept = checked(&world, at(1));
    assert_eq!((kept.adopt.len(), kept.withdraw.len()), (1, 0));

    let reason = |world: &World| {
        checked(world, at(2))
            .withdraw
            .iter()
            .map(|it| it.reason)
            .collect::<Vec<_>>()
    };
    world.upsert_policy(PolicyFacts {
        paused: true,
        ..PolicyFacts::default()
    });
    assert_eq!(reason(&world), ["Paused"]);
    world.remove_policy();
    world.upsert_baseline(baseline("1.16.0", "c2"));
    assert_eq!(reason(&world), ["Superseded"]);
    world.upsert_baseline(baseline(OLD, "c3"));
    assert_eq!(reason(&world), ["Superseded"]);
    world.upsert_baseline(baseline(NEW, "c1"));
    world.upsert_device(&device("d00", "hosting", "r0", NEW));
    assert_eq!(reason(&world), ["NotNeeded"]);
    world.remove_device("d00");
    assert_eq!(reason(&world), ["DeviceGone"]);
    world.upsert_device(&DeviceFacts {
        health: Health::Critical,
        ..device("d00", "hosting", "r0", OLD)
    });
    assert_eq!(reason(&world), ["Unhealthy"]);
    world.upsert_device(&device("d00", "hosting", "r0", OLD));
    for sick in ["d01", "d02"] {
        world.upsert_device(&DeviceFacts {
            health: Health::Critical,
            ..device(sick, "hosting", "r0", OLD)
        });
    }
    assert_eq!(reason(&world), ["Budget"]);
}

#[test]
fn unavailable_devices_use_the_budget_and_each_is_told_why() {
    let mut world = fleet(8, pool("hosting", Amount::Count(2), 1));
    world.upsert_device(&DeviceFacts {
        reach: Reach::Unreachable,
        ..device("d00", "hosting", "r0", OLD)
    });
    world.upsert_pool(PoolFacts {
        waves: vec![wave(Amount::Percent(100), 0)],
        ..pool("hosting", Amount::Count(2), 1)
    });
    let made = checked(&world, at(0));
    assert_eq!(made.operations.len(), 1);
    assert_eq!(made.operations[0].device, "d04", "rack r0 has no room");
    assert_eq!(reason(&world, &made, "d00"), Some("Unreachable"));
    assert_eq!(reason(&world, &made, "d01"), Some("Domain"));
    assert_eq!(reason(&world, &made, "d05"), Some("Budget"));
    assert_eq!(made.pools[0].unavailable, 1);
}

#[test]
fn zero_percent_lets_nothing_move() {
    let world = fleet(10, pool("hosting", Amount::Percent(0), 1));
    let made = checked(&world, at(0));
    assert!(made.operations.is_empty());
    assert_eq!(reason(&world, &made, "d00"), Some("Budget"));
}

#[test]
fn a_fleet_budget_holds_across_pools() {
    let mut world = fleet(6, pool("hosting", Amount::Count(6), 6));
    for n in 0..6 {
        world.upsert_device(&device(&format!("e{n}"), "web", "r9", OLD));
    }
    let waves = vec![wave(Amount::Percent(100), 0)];
    for name in ["hosting", "web"] {
        world.upsert_pool(PoolFacts {
            waves: waves.clone(),
            ..pool(name, Amount::Count(6), 6)
        });
    }
    world.upsert_policy(PolicyFacts {
        max_unavailable: Some(Amount::Percent(25)),
        ..PolicyFacts::default()
    });
    let made = checked(&world, at(0));
    assert_eq!(made.operations.len(), 3);
    assert_eq!(reason(&world, &made, "e1"), Some("FleetBudget"));
}

/// Devices of two pools, none of which a wave or its own budget holds.
fn two_pools(policy: PolicyFacts, priorities: [i32; 2]) -> World {
    let mut world = fleet(6, pool("hosting", Amount::Count(6), 6));
    for n in 0..12 {
        world.upsert_device(&device(&format!("e{n:02}"), "web", &format!("r{}", n / 4), OLD));
    }
    for (name, priority) in ["hosting", "web"].into_iter().zip(priorities) {
        world.upsert_pool(PoolFacts {
            service: "shop".into(),
            waves: vec![wave(Amount::Percent(100), 0)],
            priority,
            ..pool(name, Amount::Count(12), 12)
        });
    }
    world.upsert_policy(policy);
    world
}

fn granted(plan: &Plan) -> Vec<&str> {
    plan.operations.iter().map(|it| it.device.as_str()).collect()
}

#[test]
fn a_budget_that_pools_share_goes_round_by_priority_and_share() {
    let policy = PolicyFacts {
        at_most: Some(3),
        ..PolicyFacts::default()
    };
    // The pool of twelve has one of them down when the pool of six has: it has used the smaller share.
    let world = two_pools(policy.clone(), [0, 0]);
    assert_eq!(granted(&checked(&world, at(0))), ["d00", "e00", "e04"]);
    let world = two_pools(policy, [0, 1]);
    assert_eq!(granted(&checked(&world, at(0))), ["e00", "e04", "e08"]);
}

#[test]
fn a_service_shares_one_budget_over_its_pools() {
    let world = two_pools(
        PolicyFacts {
            services: vec![ServiceFacts {
                name: "shop".into(),
                max_unavailable: Amount::Percent(10),
                at_most: None,
            }],
            ..PolicyFacts::default()
        },
        [0, 0],
    );
    let made = checked(&world, at(0));
    assert_eq!(granted(&made), ["d00", "e00"], "10 % of 18, rounded up");
    let explained = kiban_core::explain::explain(&world, &made, "e04", at(0)).unwrap();
    assert_eq!(
        explained.not_yet[0].message,
        "the pools of service shop together allow 2 unavailable at a time, and 2 are"
    );
}

#[test]
fn two_pools_in_one_rack_do_not_add_up() {
    let world = two_pools(
        PolicyFacts {
            domains: vec![DomainLimit {
                over: FailureDomain::Rack,
                max: 1,
            }],
            ..PolicyFacts::default()
        },
        [0, 0],
    );
    let made = checked(&world, at(0));
    assert_eq!(
        granted(&made),
        ["d00", "e04", "e08"],
        "one in each of the three racks"
    );
    assert_eq!(reason(&world, &made, "e00"), Some("FleetDomain"));
    let explained = kiban_core::explain::explain(&world, &made, "d01", at(0)).unwrap();
    assert_eq!(
        explained.not_yet[0].message,
        "the fleet allows 1 unavailable at a time in rack tokyo-1/b/r0, and 1 are"
    );
}

#[test]
fn two_of_one_redundancy_group_are_never_down_together_whatever_their_pools() {
    let mut world = two_pools(PolicyFacts::default(), [0, 0]);
    let paired = |name: &str, pool: &str, rack: &str| DeviceFacts {
        redundancy_group: "pair-7".into(),
        ..device(name, pool, rack, OLD)
    };
    world.upsert_device(&paired("d00", "hosting", "r0"));
    world.upsert_device(&paired("e07", "web", "r1"));
    let made = checked(&world, at(0));
    assert!(granted(&made).contains(&"d00") && !granted(&made).contains(&"e07"));
    let explained = kiban_core::explain::explain(&world, &made, "e07", at(0)).unwrap();
    assert_eq!(
        explained.not_yet[0].message,
        "d00 of the redundancy group pair-7 is down or has an operation: one of a group at a time"
    );
    // One that is ill is down, too, even where it serves no pool.
    world.upsert_device(&paired("d00", "hosting", "r0"));
    world.upsert_device(&DeviceFacts {
        health: Health::Critical,
        ..paired("spare", "", "r9")
    });
    let made = checked(&world, at(0));
    assert_eq!(reason(&world, &made, "d00"), Some("RedundancyGroup"));
    let spare = made.verdict(&world, "spare").unwrap();
    assert_eq!(made.compliance(spare).baseline, "", "it serves no pool");
    assert_eq!(reason(&world, &made, "e07"), Some("RedundancyGroup"));
}

#[test]
fn of_two_operations_on_one_redundancy_group_one_is_taken_back() {
    let mut world = two_pools(PolicyFacts::default(), [0, 0]);
    tick(&mut world, at(0));
    assert!(world.operation("d00").is_some() && world.operation("d01").is_some());
    for name in ["d00", "d01"] {
        world.upsert_device(&DeviceFacts {
            redundancy_group: "pair".into(),
            ..device(name, "hosting", "r0", OLD)
        });
    }
    let made = checked(&world, at(1));
    let taken: Vec<(&str, &str)> = made
        .withdraw
        .iter()
        .map(|it| (it.device.as_str(), it.reason))
        .collect();
    assert_eq!(taken, [("d00", "RedundancyGroup")]);
}

#[test]
fn a_room_that_goes_dark_stops_the_rollout_until_it_answers_and_fails_nobody() {
    let mut world = fleet(0, pool("hosting", Amount::Count(12), 12));
    world.upsert_pool(PoolFacts {
        waves: vec![wave(Amount::Count(1), 3600), wave(Amount::Percent(100), 0)],
        ..pool("hosting", Amount::Count(20), 12)
    });
    let in_room = |n: usize| DeviceFacts {
        room: if n < 8 { "a".into() } else { "b".into() },
        ..device(&format!("d{n:02}"), "hosting", "r0", OLD)
    };
    for n in 0..20 {
        world.upsert_device(&in_room(n));
    }
    assert_eq!(tick(&mut world, at(0)).1, ["d00"]);
    let mut first = in_room(0);
    end(&mut world, &mut first, Outcome::Succeeded, NEW, at(600));
    tick(&mut world, at(600));
    // Five of the eight in room a are silent, the canary among them.
    first.reach = Reach::Unreachable;
    world.upsert_device(&first);
    for n in 1..5 {
        world.upsert_device(&DeviceFacts {
            reach: Reach::Unreachable,
            ..in_room(n)
        });
    }
    let (made, granted) = tick(&mut world, at(99_999));
    assert!(granted.is_empty());
    assert!(rollout(&made).status.halt.is_none() && rollout(&made).status.failed == 0);
    assert_eq!(reason(&world, &made, "d05"), Some("Dark"));
    assert_eq!(
        reason(&world, &made, "d12"),
        Some("Dark"),
        "the other room waits, too"
    );
    assert_eq!(
        rollout(&made).waiting.as_deref(),
        Some(
            "most devices in room tokyo-1/a do not answer: nothing is started there, and rollouts that reach into it wait"
        )
    );
    // Four of eight are not more than half.
    world.upsert_device(&in_room(4));
    assert!(!checked(&world, at(100_000)).operations.is_empty());
}

#[test]
fn an_operation_that_has_not_started_is_taken_back_when_its_room_goes_dark() {
    let mut world = fleet(12, pool("hosting", Amount::Count(1), 1));
    assert_eq!(tick(&mut world, at(0)).1, ["d00"]);
    for n in 1..8 {
        world.upsert_device(&DeviceFacts {
            reach: Reach::Unreachable,
            ..device(&format!("d{n:02}"), "hosting", &format!("r{}", n / 4), OLD)
        });
    }
    let made = checked(&world, at(1));
    assert_eq!(made.withdraw[0].reason, "Dark");
}

/// Ten devices of three classes: d00..d05 run OLD, d06 and d07 1.11.0, d08 and d09 1.12.0; one to a rack.
fn three_classes(waves: Vec<WaveFacts>) -> World {
    let mut world = fleet(0, pool("hosting", Amount::Count(9), 1));
    world.upsert_pool(PoolFacts {
        waves,
        halt_after_failed: 3,
        ..pool("hosting", Amount::Count(9), 1)
    });
    for n in 0..10 {
        world.upsert_device(&of_three(n));
    }
    world
}

fn of_three(n: usize) -> DeviceFacts {
    let version = match n {
        0..6 => OLD,
        6..8 => "1.11.0",
        _ => "1.12.0",
    };
    device(&format!("d{n:02}"), "hosting", &format!("q{n}"), version)
}

#[test]
fn canaries_stand_for_every_class_even_where_the_first_wave_is_smaller() {
    let mut world = three_classes(vec![wave(Amount::Count(1), 0)]);
    let (made, granted) = tick(&mut world, at(0));
    assert_eq!(granted, ["d00", "d06", "d08"], "one of each class");
    assert_eq!(reason(&world, &made, "d01"), Some("Canary"));
    let explained = kiban_core::explain::explain(&world, &made, "d01", at(0)).unwrap();
    assert_eq!(
        explained.not_yet[0].message,
        "canaries go first, one of each class (model, parts and versions alike): 0 of 3 are through"
    );
    tick(&mut world, at(1));
    let (made, granted) = tick(&mut world, at(2));
    assert!(
        granted.is_empty() && made.withdraw.is_empty(),
        "none is taken back"
    );
    assert!(!rollout(&made).changed);

    // Two are through; one fails: its class sends another, and everybody waits for it.
    for n in [0, 6] {
        end(&mut world, &mut of_three(n), Outcome::Succeeded, NEW, at(60));
    }
    end(&mut world, &mut of_three(8), Outcome::Failed, NEW, at(60));
    let (made, granted) = tick(&mut world, at(60));
    assert_eq!((granted, rollout(&made).status.wave), (vec!["d09".to_owned()], 1));
    end(&mut world, &mut of_three(9), Outcome::Succeeded, NEW, at(120));
    let (made, granted) = tick(&mut world, at(120));
    assert_eq!((granted.len(), rollout(&made).status.wave), (6, 2), "{granted:?}");
}

#[test]
fn a_class_that_cannot_move_is_left_out_and_said() {
    let mut world = three_classes(vec![wave(Amount::Count(1), 0)]);
    for n in [6, 7] {
        world.upsert_device(&DeviceFacts {
            reach: Reach::Unreachable,
            ..of_three(n)
        });
    }
    // And one whose racks are full of machines that a person must mend.
    for n in [8, 9] {
        world.upsert_device(&DeviceFacts {
            health: Health::Critical,
            ..device(&format!("x{n}"), "hosting", &format!("q{n}"), NEW)
        });
    }
    let (made, granted) = tick(&mut world, at(0));
    assert_eq!(granted, ["d00"]);
    let left: Vec<String> = made.findings.iter().map(ToString::to_string).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(
        left[0].starts_with("none of the 2 devices like d06 in pool hosting can be a canary of r650-q4 now")
    );
    assert_eq!(reason(&world, &made, "d08"), Some("Domain"));
    end(&mut world, &mut of_three(0), Outcome::Succeeded, NEW, at(60));
    let (made, granted) = tick(&mut world, at(60));
    assert_eq!((granted.len(), rollout(&made).status.wave), (5, 2), "{granted:?}");

    // It answers again, in a later wave: one goes ahead of the other, and stops nobody else.
    for n in [6, 7] {
        world.upsert_device(&of_three(n));
    }
    let (made, granted) = tick(&mut world, at(120));
    assert!(
        granted.contains(&"d06".to_owned()) && !granted.contains(&"d07".to_owned()),
        "{granted:?}"
    );
    assert_eq!(reason(&world, &made, "d07"), Some("Canary"));
    end(&mut world, &mut of_three(6), Outcome::Succeeded, NEW, at(180));
    assert!(tick(&mut world, at(180)).1.contains(&"d07".to_owned()));
}

#[test]
fn a_canary_waits_for_an_operation_beside_it_and_is_not_left_out() {
    let mut world = three_classes(vec![wave(Amount::Count(1), 0)]);
    // Another pool's operation is in both racks of the third class.
    world.upsert_pool(pool("web", Amount::Count(9), 9));
    world.upsert_policy(PolicyFacts {
        domains: vec![DomainLimit {
            over: FailureDomain::Rack,
            max: 1,
        }],
        ..PolicyFacts::default()
    });
    for n in [8, 9] {
        let name = format!("x{n}");
        world.upsert_device(&device(&name, "web", &format!("q{n}"), NEW));
        world.upsert_operation(OperationFacts {
            device: name,
            pool: "web".into(),
            outcome: Outcome::Running,
            ..OperationFacts::default()
        });
    }
    assert_eq!(tick(&mut world, at(0)).1, ["d00", "d06"]);
    for n in [0, 6] {
        end(&mut world, &mut of_three(n), Outcome::Succeeded, NEW, at(60));
    }
    let (made, granted) = tick(&mut world, at(60));
    assert!(
        granted.is_empty() && made.findings.is_empty(),
        "{granted:?} {:?}",
        made.findings
    );
    world.remove_operation("x8");
    assert_eq!(tick(&mut world, at(120)).1, ["d08"]);
}

#[test]
fn a_status_that_is_lost_costs_canaries_and_a_b_a_begins_anew() {
    let mut world = three_classes(vec![wave(Amount::Count(1), 0)]);
    let (made, _) = tick(&mut world, at(0));
    for n in [0, 6, 8] {
        end(&mut world, &mut of_three(n), Outcome::Succeeded, NEW, at(60));
    }
    world.remove_rollout(&rollout(&made).name.clone());
    assert_eq!(tick(&mut world, at(60)).1, ["d01", "d07", "d09"]);
    // Another baseline: what has not started is taken back, and its canaries are its own.
    world.upsert_baseline(baseline("1.16.0", "c2"));
    let (made, granted) = tick(&mut world, at(70));
    assert_eq!((made.withdraw.len(), made.withdraw[0].reason), (3, "Superseded"));
    assert!(rollout(&made).status.canaries.len() == granted.len() && rollout(&made).status.wave == 1);
    // And back within the minute: nothing runs twice, and the canaries that were through are not through with this.
    world.upsert_baseline(baseline(NEW, "c3"));
    let (made, _) = tick(&mut world, at(80));
    assert_eq!(rollout(&made).status.wave, 1);
    let (made, _) = tick(&mut world, at(90));
    assert!(
        made.rollouts
            .iter()
            .all(|it| it.status.halt.is_none() && it.status.failed == 0)
    );
    assert_eq!(
        rollout(&made).status.done,
        3,
        "they are at what is wanted, and stay"
    );
}

#[test]
fn a_budget_of_nothing_is_legal_and_said() {
    let world = two_pools(
        PolicyFacts {
            max_unavailable: Some(Amount::Percent(0)),
            ..PolicyFacts::default()
        },
        [0, 0],
    );
    let made = checked(&world, at(0));
    assert!(made.operations.is_empty());
    let explained = kiban_core::explain::explain(&world, &made, "d01", at(0)).unwrap();
    assert_eq!(
        explained.not_yet[0].message,
        "the budget of the fleet is 0: nothing under it is ever updated"
    );
    assert!(!explained.not_yet[0].passes_by_itself);
}

#[test]
fn devices_that_give_no_rack_share_one_domain_and_are_reported() {
    let mut world = fleet(0, pool("hosting", Amount::Count(9), 1));
    for n in 0..3 {
        world.upsert_device(&device(&format!("d{n}"), "hosting", "", OLD));
    }
    world.upsert_pool(PoolFacts {
        waves: vec![wave(Amount::Percent(100), 0)],
        ..pool("hosting", Amount::Count(9), 1)
    });
    let made = checked(&world, at(0));
    assert_eq!(made.operations.len(), 1);
    let findings: Vec<String> = made.findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        findings,
        ["3 devices of pool hosting give no rack: they are taken to stand in one"]
    );
}

#[test]
fn two_devices_that_claim_to_be_one_machine_are_left_alone() {
    let mut world = fleet(3, pool("hosting", Amount::Count(3), 3));
    world.upsert_device(&DeviceFacts {
        bmc_url: "https://d01.bmc/".into(),
        ..device("d02", "hosting", "r0", OLD)
    });
    let made = checked(&world, at(0));
    assert_eq!(made.operations[0].device, "d00");
    assert_eq!(reason(&world, &made, "d01"), Some("Duplicate"));
    assert_eq!(reason(&world, &made, "d02"), Some("Duplicate"));
    assert_eq!(made.findings.len(), 1);
}

#[test]
fn what_is_named_and_missing_is_a_finding_and_moves_nothing() {
    let mut world = fleet(
        2,
        PoolFacts {
            baselines: vec!["r650-q4".into(), "gone".into()],
            ..pool("hosting", Amount::Count(2), 2)
        },
    );
    world.upsert_device(&device("e0", "nowhere", "r1", OLD));
    world.upsert_device(&DeviceFacts {
        model: "unheard-of".into(),
        ..device("e1", "hosting", "r1", OLD)
    });
    world.upsert_device(&DeviceFacts {
        identity: Some(IdentityFacts {
            model: "r650".into(),
            serial: "another".into(),
            ..IdentityFacts::default()
        }),
        ..device("e2", "hosting", "r1", OLD)
    });
    world.upsert_device(&DeviceFacts {
        identity: Some(IdentityFacts {
            model: "toaster".into(),
            serial: "S-e3".into(),
            ..IdentityFacts::default()
        }),
        ..device("e3", "hosting", "r1", OLD)
    });
    let made = checked(&world, at(0));
    let reasons = ["e0", "e1", "e2", "e3"].map(|name| reason(&world, &made, name).unwrap());
    assert_eq!(
        reasons,
        ["PoolNotFound", "ModelNotFound", "WrongMachine", "WrongModel"]
    );
    let findings: Vec<&str> = made
        .findings
        .iter()
        .map(kiban_core::finding::Finding::reason)
        .collect();
    assert_eq!(findings, ["BaselineNotFound", "ModelNotFound", "PoolNotFound"]);
}

#[test]
fn two_baselines_for_one_model_are_a_conflict() {
    let mut world = fleet(
        2,
        PoolFacts {
            baselines: vec!["r650-q4".into(), "other".into()],
            ..pool("hosting", Amount::Count(2), 2)
        },
    );
    world.upsert_baseline(BaselineFacts {
        name: "other".into(),
        ..baseline("1.16.0", "c2")
    });
    let made = checked(&world, at(0));
    assert!(made.operations.is_empty());
    assert_eq!(reason(&world, &made, "d00"), Some("BaselineConflict"));
}

#[test]
fn an_operation_that_ended_and_vanished_before_the_device_told_is_not_repeated() {
    let mut world = fleet(2, pool("hosting", Amount::Count(1), 1));
    assert_eq!(tick(&mut world, at(0)).1, ["d00"]);
    let operation = world.operation("d00").unwrap().clone();
    world.upsert_operation(OperationFacts {
        outcome: Outcome::Succeeded,
        ..operation
    });
    // The two watches come in the other order.
    world.remove_operation("d00");
    let (made, granted) = tick(&mut world, at(60));
    assert_eq!(reason(&world, &made, "d00"), Some("Ledger"));
    assert_eq!((granted, rollout(&made).status.done), (vec!["d01".to_owned()], 1));
}

#[test]
fn firmware_that_goes_back_soon_halts_and_a_part_replaced_later_is_updated() {
    let one = || fleet(1, pool("hosting", Amount::Count(1), 1));
    let after = |changed_s: i64| {
        let mut world = one();
        tick(&mut world, at(0));
        succeed(&mut world, "d00", at(0));
        let last_operation = Some(LastOperationFacts {
            id: checked(&one(), at(0)).operations[0].id.clone(),
            revision: checked(&world, at(0)).rollouts[0].status.revision.clone(),
            outcome: Outcome::Succeeded,
            finished_at: at(0),
        });
        world.upsert_device(&DeviceFacts {
            last_operation,
            firmware_changed_at: Some(at(changed_s)),
            ..device("d00", "hosting", "r0", OLD)
        });
        world
    };
    let world = after(600);
    let made = checked(&world, at(700));
    assert_eq!(reason(&world, &made, "d00"), Some("Reverted"));
    assert!(rollout(&made).status.halt.is_some());
    let world = after(30 * 86_400);
    let made = checked(&world, at(31 * 86_400));
    assert_eq!(made.operations.len(), 1);
    assert_ne!(
        made.operations[0].id,
        checked(&one(), at(0)).operations[0].id,
        "another operation, another id"
    );
}

#[test]
fn a_rollout_written_by_somebody_else_is_not_believed() {
    let mut world = fleet(40, pool("hosting", Amount::Count(2), 1));
    let (made, _) = tick(&mut world, at(0));
    let mut status = rollout(&made).status.clone();
    status.wave = u32::MAX;
    status.waves = 0;
    status.done = u32::MAX;
    status.total = 0;
    status.wave_done_at = Some(Timestamp::MAX);
    world.upsert_rollout(RolloutFacts {
        name: "hosting-r650-q4".into(),
        pool: "hosting".into(),
        baseline: "r650-q4".into(),
        status: Some(status),
    });
    let made = checked(&world, at(-1_000_000));
    assert!(made.operations.is_empty());
    assert_eq!((rollout(&made).status.wave, rollout(&made).status.total), (1, 40));
}

#[test]
fn a_baseline_that_vanishes_ends_nothing_that_runs_and_starts_nothing() {
    let mut world = fleet(6, pool("hosting", Amount::Count(2), 1));
    tick(&mut world, at(0));
    world.remove_baseline("r650-q4");
    let made = checked(&world, at(1));
    assert_eq!(made.withdraw.len(), 1);
    assert!(made.operations.is_empty() && made.rollouts.is_empty());
    let findings: Vec<&str> = made
        .findings
        .iter()
        .map(kiban_core::finding::Finding::reason)
        .collect();
    assert_eq!(findings, ["BaselineNotFound", "RolloutOrphaned"]);
}

#[test]
fn the_order_in_which_facts_came_does_not_matter() {
    let forward = fleet(30, pool("hosting", Amount::Percent(30), 2));
    let mut backward = World::new();
    backward.upsert_pool(pool("hosting", Amount::Percent(30), 2));
    for n in (0..30).rev() {
        backward.upsert_device(&device(&format!("d{n:02}"), "hosting", "r9", NEW));
        backward.upsert_device(&device(
            &format!("d{n:02}"),
            "hosting",
            &format!("r{}", n / 4),
            OLD,
        ));
    }
    backward.upsert_baseline(baseline(NEW, "c1"));
    backward.upsert_model(model("r650"));
    let one = checked(&forward, at(0)).to_json(&forward).to_string();
    let other = checked(&backward, at(0)).to_json(&backward).to_string();
    assert_eq!(one, other);
}

#[test]
fn explain_gives_every_reason_and_who_uses_the_budget_up() {
    let mut world = fleet(
        6,
        PoolFacts {
            waves: vec![wave(Amount::Percent(100), 0)],
            ..pool("hosting", Amount::Count(1), 1)
        },
    );
    tick(&mut world, at(0));
    let operation = world.operation("d00").unwrap().clone();
    world.upsert_operation(OperationFacts {
        outcome: Outcome::Running,
        ..operation
    });
    world.upsert_device(&DeviceFacts {
        health: Health::Critical,
        ..device("d01", "hosting", "r0", OLD)
    });
    let made = checked(&world, at(60));
    let explained = kiban_core::explain::explain(&world, &made, "d01", at(60)).unwrap();
    insta::assert_yaml_snapshot!(explained);
    assert_eq!(
        kiban_core::explain::explain(&world, &made, "nobody", at(60)),
        None
    );
    let moving = kiban_core::explain::explain(&world, &made, "d00", at(60)).unwrap();
    assert!(moving.not_yet.is_empty() && moving.operation.is_some());
}

#[test]
fn explain_says_when_a_soak_ends() {
    let mut world = fleet(
        3,
        PoolFacts {
            waves: vec![wave(Amount::Count(1), 5400)],
            ..pool("hosting", Amount::Count(1), 1)
        },
    );
    tick(&mut world, at(0));
    succeed(&mut world, "d00", at(100));
    tick(&mut world, at(100));
    let made = checked(&world, at(160));
    let explained = kiban_core::explain::explain(&world, &made, "d01", at(160)).unwrap();
    assert_eq!(explained.not_yet[0].until, Some(at(5500)));
    assert_eq!(
        explained.then,
        ["wave 2 opens in 1h29m", "one operation with 1 update"]
    );
}

#[test]
fn the_checker_finds_what_a_planner_must_not_do() {
    let mut world = fleet(8, pool("hosting", Amount::Count(1), 1));
    let good = checked(&world, at(0));
    let rules = |world: &World, plan: &Plan| -> Vec<&'static str> {
        let mut rules: Vec<_> = check(world, plan)
            .into_iter()
            .map(|violation| violation.rule)
            .collect();
        rules.dedup();
        rules
    };
    let mut bad = good.clone();
    let mut more = bad.operations[0].clone();
    more.device = "d01".into();
    bad.operations.push(more);
    assert_eq!(
        rules(&world, &bad),
        ["DomainBudget", "GrantedAndWaiting", "PoolBudget"]
    );
    let mut bad = good.clone();
    bad.operations.push(bad.operations[0].clone());
    assert!(rules(&world, &bad).contains(&"OneOperationPerDevice"));
    let mut bad = good.clone();
    bad.operations[0].updates.clear();
    bad.operations[0].revision = "other".into();
    assert_eq!(rules(&world, &bad), ["NothingToDo", "Revision"]);

    // The same plan, after the world has moved on.
    world.upsert_policy(PolicyFacts {
        paused: true,
        ..PolicyFacts::default()
    });
    assert_eq!(rules(&world, &good), ["Paused"]);
    world.remove_policy();
    world.upsert_device(&DeviceFacts {
        health: Health::Critical,
        ..device("d07", "hosting", "r1", OLD)
    });
    assert_eq!(rules(&world, &good), ["PoolBudget"]);
    world.upsert_device(&device("d07", "hosting", "r1", OLD));
    world.upsert_device(&DeviceFacts {
        reach: Reach::Unreachable,
        serial: "other".into(),
        hold: Some(HoldFacts::default()),
        ..device("d00", "hosting", "r0", OLD)
    });
    assert_eq!(
        rules(&world, &good),
        ["Held", "RightMachine", "UnavailableIsNotUpdated"]
    );
}

/// A pool whose second wave waits for a measured gate, and halts where it fails for five minutes.
fn gated_pool() -> PoolFacts {
    PoolFacts {
        waves: vec![wave(Amount::Count(1), 60), wave(Amount::Percent(100), 0)],
        gates: vec![GateRule {
            name: "slo".into(),
            waves: vec![2],
            max_age: SignedDuration::from_secs(60),
            hold_for: SignedDuration::ZERO,
            halt: true,
            failure_threshold: SignedDuration::from_secs(300),
            health: None,
        }],
        ..pool("hosting", Amount::Percent(100), 4)
    }
}

fn measure(world: &mut World, state: GateState, now: Timestamp) {
    world.set_gates([GateFacts {
        pool: "hosting".into(),
        name: "slo".into(),
        state,
        measured_at: now,
        message: "0.5 is not > 0.9".into(),
    }]);
}

#[test]
fn a_gate_opens_its_wave_and_closes_it_again() {
    let mut world = fleet(8, gated_pool());
    let (_, granted) = tick(&mut world, at(0));
    assert_eq!(granted, ["d00"], "the first wave is not guarded");
    succeed(&mut world, "d00", at(10));
    let (soaks, _) = tick(&mut world, at(10));
    assert_eq!(reason(&world, &soaks, "d01"), Some("Soak"));
    let (unmeasured, granted) = tick(&mut world, at(70));
    assert_eq!(
        (reason(&world, &unmeasured, "d01"), granted.len()),
        (Some("Gate"), 0)
    );
    measure(&mut world, GateState::NoData, at(80));
    assert_eq!(tick(&mut world, at(80)).1.len(), 0);
    measure(&mut world, GateState::Holds, at(90));
    let (opened, granted) = tick(&mut world, at(90));
    assert_eq!(granted.len(), 7);
    assert_eq!(opened.next_due, Some(at(150)), "when the measurement is too old");
    // What has not started when the gate closes does not start.
    measure(&mut world, GateState::Fails, at(100));
    let (closed, _) = tick(&mut world, at(100));
    assert_eq!(closed.withdraw.len(), 7);
    assert!(closed.withdraw.iter().all(|it| it.reason == "Gate"));
}

#[test]
fn a_gate_that_fails_for_too_long_halts_and_the_halt_outlives_it() {
    let mut world = fleet(8, gated_pool());
    tick(&mut world, at(0));
    succeed(&mut world, "d00", at(10));
    measure(&mut world, GateState::Fails, at(100));
    let (failing, _) = tick(&mut world, at(100));
    assert_eq!(rollout(&failing).status.halt, None);
    measure(&mut world, GateState::Fails, at(400));
    let (halted, _) = tick(&mut world, at(400));
    let halt = rollout(&halted).status.halt.clone().unwrap();
    assert!(
        halt.message.contains("the gate slo has not held since"),
        "{}",
        halt.message
    );
    measure(&mut world, GateState::Holds, at(410));
    let (later, granted) = tick(&mut world, at(410));
    assert_eq!(
        (reason(&world, &later, "d01"), granted.len()),
        (Some("Halted"), 0)
    );
}

#[test]
fn health_that_is_lost_closes_the_gate_and_in_the_soak_it_halts() {
    let rule = GateRule {
        name: "canaries".into(),
        waves: Vec::new(),
        max_age: SignedDuration::from_secs(60),
        hold_for: SignedDuration::ZERO,
        halt: false,
        failure_threshold: SignedDuration::ZERO,
        health: Some(HealthRule::default()),
    };
    let facts = PoolFacts {
        gates: vec![rule],
        halt_after_failed: 2,
        ..gated_pool()
    };
    let mut world = fleet(8, facts);
    tick(&mut world, at(0));
    succeed(&mut world, "d00", at(10));
    tick(&mut world, at(10));
    let mut sick = device("d00", "hosting", "r0", NEW);
    sick.health = Health::Critical;
    sick.last_operation = Some(LastOperationFacts {
        id: "x".into(),
        revision: rollout(&checked(&world, at(10))).status.revision.clone(),
        outcome: Outcome::Succeeded,
        finished_at: at(10),
    });
    world.upsert_device(&sick);
    let (closed, granted) = tick(&mut world, at(75));
    assert_eq!(
        (reason(&world, &closed, "d01"), granted.len()),
        (Some("GateHealth"), 0)
    );
    assert_eq!(rollout(&closed).status.halt, None, "one of two");
    // The same with the default limit, while the wave still soaks.
    let mut strict = PoolFacts {
        gates: Vec::new(),
        halt_after_failed: 1,
        ..gated_pool()
    };
    strict.waves = vec![wave(Amount::Count(1), 1000), wave(Amount::Percent(100), 0)];
    let mut world = fleet(8, strict);
    tick(&mut world, at(0));
    succeed(&mut world, "d00", at(10));
    tick(&mut world, at(10));
    sick.last_operation.as_mut().unwrap().revision =
        rollout(&checked(&world, at(10))).status.revision.clone();
    world.upsert_device(&sick);
    let (halted, _) = tick(&mut world, at(20));
    let halt = rollout(&halted).status.halt.clone().unwrap();
    assert!(
        halt.message
            .contains("1 in critical health since the change (d00)"),
        "{}",
        halt.message
    );
    assert_eq!(halt.devices, ["d00"]);
}

/// A pool whose second wave waits for an approval, and whose halts the same person may end.
fn approved_pool() -> PoolFacts {
    let alice = People {
        users: vec!["alice".into()],
        groups: Vec::new(),
    };
    PoolFacts {
        waves: vec![wave(Amount::Count(1), 0), wave(Amount::Percent(100), 0)],
        approvals: vec![ApprovalRule {
            wave: 2,
            wave_name: "rest".into(),
            by: alice.clone(),
        }],
        resumable_by: alice,
        ..pool("hosting", Amount::Percent(100), 4)
    }
}

fn approve(world: &mut World, name: &str, approver: &str, revision: &str, what: Approved) {
    world.upsert_approval(ApprovalFacts {
        name: name.into(),
        rollout: "hosting-r650-q4".into(),
        revision: revision.into(),
        what,
        approver: approver.into(),
        groups: Vec::new(),
        at: at(0),
    });
}

#[test]
fn a_wave_opens_when_the_right_person_has_approved_this_revision() {
    let mut world = fleet(8, approved_pool());
    let (first, granted) = tick(&mut world, at(0));
    assert_eq!(granted, ["d00"], "the first wave needs no approval");
    let revision = rollout(&first).status.revision.clone();
    let rest = || Approved::Wave("rest".into());
    succeed(&mut world, "d00", at(10));
    approve(&mut world, "stranger", "mallory", &revision, rest());
    approve(&mut world, "old", "alice", "an-older-revision", rest());
    approve(
        &mut world,
        "elsewhere",
        "alice",
        &revision,
        Approved::Wave("canary".into()),
    );
    let (waits, granted) = tick(&mut world, at(20));
    assert_eq!(
        (reason(&world, &waits, "d01"), granted.len()),
        (Some("Approval"), 0)
    );
    let waiting = waits.verdict(&world, "d01").unwrap().waiting.unwrap();
    assert_eq!(
        waiting.sentence(&world).to_string(),
        "wave 2 (rest) opens when one of these has approved this revision: alice"
    );
    approve(&mut world, "mine", "alice", &revision, rest());
    let (opened, granted) = tick(&mut world, at(30));
    assert_eq!(granted.len(), 7);
    let given = &rollout(&opened).status.approvals;
    assert_eq!(given.len(), 1);
    assert_eq!(
        (
            given[0].approval.as_str(),
            given[0].by.as_str(),
            given[0].what.as_str()
        ),
        ("mine", "alice", "wave rest")
    );
    // Taken back: what has not started does not start, and that it was given stays written.
    world.remove_approval("mine");
    let (closed, _) = tick(&mut world, at(40));
    assert_eq!(
        (closed.withdraw.len(), rollout(&closed).status.approvals.len()),
        (7, 1)
    );
}

#[test]
fn a_halt_ends_by_the_approval_of_someone_named_and_the_next_failure_halts_again() {
    let mut world = fleet(
        8,
        PoolFacts {
            approvals: Vec::new(),
            ..approved_pool()
        },
    );
    let (first, _) = tick(&mut world, at(0));
    let revision = rollout(&first).status.revision.clone();
    fail(&mut world, "d00", Outcome::Failed, at(10));
    let (halted, _) = tick(&mut world, at(20));
    let halt = rollout(&halted).status.halt.clone().unwrap();
    assert!(
        halt.message.ends_with("or approve (one of alice)"),
        "{}",
        halt.message
    );
    approve(&mut world, "no", "mallory", &revision, Approved::Resume(halt.at));
    approve(&mut world, "early", "alice", &revision, Approved::Resume(at(19)));
    let (still, granted) = tick(&mut world, at(30));
    assert_eq!(
        (rollout(&still).status.halt.as_ref(), granted.len()),
        (Some(&halt), 0)
    );
    approve(&mut world, "yes", "alice", &revision, Approved::Resume(halt.at));
    let (resumed, granted) = tick(&mut world, at(40));
    // The canary of the class failed: another goes ahead before the rest.
    assert_eq!((rollout(&resumed).status.halt.as_ref(), granted.len()), (None, 1));
    assert_eq!(
        reason(&world, &resumed, "d00"),
        Some("Failed"),
        "it is not tried again"
    );
    assert_eq!(rollout(&resumed).status.approvals[0].what, "resume");
    fail(&mut world, "d01", Outcome::Failed, at(50));
    let (again, _) = tick(&mut world, at(60));
    assert!(
        rollout(&again).status.halt.is_some(),
        "the approval was for the first halt"
    );
}

#[test]
fn a_device_whose_operation_ended_badly_uses_budget_until_its_own_status_tells() {
    let mut world = fleet(
        8,
        PoolFacts {
            halt_after_failed: 3,
            waves: vec![wave(Amount::Percent(100), 0)],
            ..pool("hosting", Amount::Count(1), 1)
        },
    );
    assert_eq!(tick(&mut world, at(0)).1, ["d00"]);
    let operation = world.operation("d00").unwrap().clone();
    for outcome in [Outcome::Held, Outcome::Failed] {
        // The outcome is stored; the device's status, which will say that it is held or does not answer, is not yet.
        world.upsert_operation(OperationFacts {
            outcome,
            ..operation.clone()
        });
        let made = checked(&world, at(60));
        assert!(made.operations.is_empty(), "{outcome:?}");
        assert_eq!(made.pools[0].unavailable, 1);
    }
}
