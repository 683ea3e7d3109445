use super::*;
use proptest::prelude::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn rule(name: &str) -> GateRule {
    GateRule {
        name: name.into(),
        waves: Vec::new(),
        max_age: SignedDuration::from_secs(60),
        hold_for: SignedDuration::ZERO,
        halt: false,
        failure_threshold: SignedDuration::ZERO,
        health: None,
    }
}

fn measured(state: GateState, second: i64) -> GateFacts {
    GateFacts {
        pool: "web".into(),
        name: "slo".into(),
        state,
        measured_at: at(second),
        message: "0.97 > 0.99 is not so".into(),
    }
}

/// One gate of one pool, judged at second 1000.
fn judged(rule: GateRule, facts: Option<GateFacts>, stored: &[GateStanding], wave: u32) -> Judgement {
    let mut world = World::new();
    let mut pool = crate::facts::PoolFacts::new("web");
    pool.gates = vec![rule];
    world.upsert_pool(pool);
    world.set_gates(facts);
    let row = world.pool_rows().next().unwrap().clone();
    let evidence = Evidence {
        world: &world,
        pool: &row,
        ailing: Ailing::default(),
        stored,
        resumed_at: None,
        wave,
        now: at(1000),
    };
    judge(evidence).remove(0)
}

fn closed(judgement: &Judgement) -> Option<Closed> {
    match judgement.refusal {
        Some(WaitingOn::Gate { closed, .. }) => Some(closed),
        None => None,
        other => panic!("{other:?}"),
    }
}

fn standing(state: GateState, since: i64) -> GateStanding {
    GateStanding {
        name: "slo".into(),
        state,
        since: at(since),
        message: String::new(),
    }
}

#[test]
fn only_a_young_measurement_that_holds_opens() {
    let holds = judged(rule("slo"), Some(measured(GateState::Holds, 990)), &[], 1);
    assert_eq!((closed(&holds), holds.due), (None, Some(at(1050))));
    let of = |facts| closed(&judged(rule("slo"), facts, &[], 1));
    assert_eq!(of(None), Some(Closed::NotMeasured));
    assert_eq!(of(Some(measured(GateState::Holds, 939))), Some(Closed::Stale));
    assert_eq!(
        of(Some(measured(GateState::Holds, 1001))),
        Some(Closed::Stale),
        "the future"
    );
    assert_eq!(of(Some(measured(GateState::Fails, 1000))), Some(Closed::Fails));
    assert_eq!(of(Some(measured(GateState::NoData, 1000))), Some(Closed::NoData));
}

#[test]
fn a_gate_guards_its_waves_only() {
    let guarding = GateRule {
        waves: vec![2, 3],
        ..rule("slo")
    };
    let of = |wave| closed(&judged(guarding.clone(), None, &[], wave));
    assert_eq!((of(1), of(2), of(4)), (None, Some(Closed::NotMeasured), None));
}

#[test]
fn a_gate_that_has_just_begun_to_hold_is_waited_for() {
    let patient = GateRule {
        hold_for: SignedDuration::from_secs(300),
        ..rule("slo")
    };
    let facts = || Some(measured(GateState::Holds, 1000));
    let early = judged(patient.clone(), facts(), &[standing(GateState::Holds, 701)], 1);
    assert_eq!(
        (closed(&early), early.due),
        (Some(Closed::NotForLong), Some(at(1001)))
    );
    assert_eq!(
        closed(&judged(
            patient.clone(),
            facts(),
            &[standing(GateState::Holds, 700)],
            1
        )),
        None
    );
    let broken = judged(patient, facts(), &[standing(GateState::Fails, 0)], 1);
    assert_eq!(broken.standing.since, at(1000), "a break begins the wait anew");
}

#[test]
fn only_a_failure_that_lasts_halts_and_no_data_never_does() {
    let strict = GateRule {
        halt: true,
        failure_threshold: SignedDuration::from_secs(100),
        ..rule("slo")
    };
    let of = |state, stored: GateStanding| judged(strict.clone(), Some(measured(state, 1000)), &[stored], 1);
    assert!(!of(GateState::Fails, standing(GateState::Fails, 901)).halts);
    assert!(of(GateState::Fails, standing(GateState::Fails, 900)).halts);
    assert!(!of(GateState::NoData, standing(GateState::NoData, 0)).halts);
    assert!(!of(GateState::Fails, standing(GateState::Holds, 0)).halts);
    let lenient = judged(
        rule("slo"),
        Some(measured(GateState::Fails, 1000)),
        &[standing(GateState::Fails, 0)],
        1,
    );
    assert!(!lenient.halts);
}

#[test]
fn a_planner_that_has_just_begun_changes_nothing_that_is_written() {
    let stored = [standing(GateState::Holds, 5)];
    let blind = judged(rule("slo"), None, &stored, 1);
    assert_eq!(
        (closed(&blind), &blind.standing),
        (Some(Closed::NotMeasured), &stored[0])
    );
    let again = judged(rule("slo"), Some(measured(GateState::Holds, 1000)), &stored, 1);
    assert_eq!(
        (again.standing.state, again.standing.since),
        (GateState::Holds, at(5))
    );
}

#[test]
fn the_first_thing_that_is_known_is_said_though_it_is_no_data_still() {
    let stored = [standing(GateState::NoData, 5)];
    let first = judged(rule("slo"), Some(measured(GateState::NoData, 1000)), &stored, 1).standing;
    assert_eq!((first.since, first.message.is_empty()), (at(5), false));
    let again = GateFacts {
        message: "something else".into(),
        ..measured(GateState::NoData, 1000)
    };
    let later = judged(rule("slo"), Some(again), std::slice::from_ref(&first), 1).standing;
    assert_eq!(later, first, "one sentence per state, not one per measurement");
}

#[test]
fn the_sick_are_counted_by_what_ails_them() {
    let rule = HealthRule {
        max_critical: 1,
        ..HealthRule::default()
    };
    let of = |critical, unreachable, unknown| {
        let ailing = Ailing {
            critical,
            unreachable,
            unknown,
        };
        ailing.over(rule)
    };
    assert_eq!(of(1, 0, 0), None);
    assert_eq!(of(2, 0, 0), Some((Ailment::Critical, 2, 1)));
    assert_eq!(of(0, 1, 0), Some((Ailment::Unreachable, 1, 0)));
    assert_eq!(of(0, 0, 1), Some((Ailment::Unknown, 1, 0)));
    assert_eq!(Ailment::of(Reach::Reachable, Health::Warning, true), None);
    assert_eq!(
        Ailment::of(Reach::Reachable, Health::Ok, false),
        Some(Ailment::Unknown)
    );
    assert_eq!(
        Ailment::of(Reach::Reachable, Health::Unknown, true),
        Some(Ailment::Unknown)
    );
}

#[test]
fn conditions_are_read_as_written() {
    let of = |text: &str| text.parse::<Comparison>().unwrap();
    assert!(of("> 0.99").holds(0.995) && !of("> 0.99").holds(0.99));
    assert!(
        of(">=0.99").holds(0.99) && of("<= 5").holds(5.0) && of("== 0").holds(0.0) && of("!= 0").holds(1.0)
    );
    assert!(of("< 1e3").holds(-1.0) && of("< -1").holds(-2.0));
    assert_eq!(of(" >=  2 ").to_string(), ">= 2");
    for wrong in [
        "", "0.99", "=> 1", "> ", "> NaN", "> inf", "> 1 2", "~ 1", "> 0x10",
    ] {
        assert!(wrong.parse::<Comparison>().is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn what_is_no_number_never_holds(
        sign in prop::sample::select(vec![">", ">=", "<", "<=", "==", "!="]), bound in -1e9..1e9_f64,
    ) {
        let condition: Comparison = format!("{sign} {bound}").parse().unwrap();
        prop_assert!(!condition.holds(f64::NAN));
        prop_assert_eq!(condition.to_string().parse::<Comparison>(), Ok(condition));
    }
}
