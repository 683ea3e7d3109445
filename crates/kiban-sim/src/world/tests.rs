//! The world over a fixed set of seeds, and rules broken on purpose.

use super::*;

fn options(seed: u64) -> Options {
    Options {
        seed,
        devices: 8 + u32::try_from(seed % 9).unwrap(),
        trace: false,
    }
}

fn must_hold(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let options = options(seed);
        let report = play(options);
        assert_eq!(
            report.violation,
            None,
            "seed {seed}; replay: cargo xtask simulate --seed {seed} --devices {} --trace\n{}",
            options.devices,
            report.trace.join("\n")
        );
        assert!(
            report.flashes >= u64::from(options.devices),
            "seed {seed}: too little happened"
        );
    }
}

#[test]
fn invariants_hold_in_the_first_seeds() {
    must_hold(0..20);
}

#[test]
fn invariants_hold_in_the_next_seeds() {
    must_hold(20..40);
}

#[test]
fn the_same_seed_gives_the_same_world() {
    let (one, other) = (play(options(7)), play(options(7)));
    assert_eq!(
        (one.digest, one.steps, &one.trace),
        (other.digest, other.steps, &other.trace)
    );
    assert_ne!(one.digest, play(options(8)).digest);
}

/// The rules that are found broken when one is broken on purpose, in as many seeds as it takes.
fn noticed(sabotage: Sabotage) -> &'static str {
    let reports = (0..20).map(|seed| Sim::new(options(seed), Some(sabotage)).run());
    let mut violations = reports.filter_map(|report| report.violation);
    violations
        .next()
        .map(|violation| violation.rule)
        .expect("nobody noticed")
}

#[test]
fn a_second_send_after_a_crash_is_noticed() {
    let rule = noticed(Sabotage::SendsAgain);
    assert!(
        ["FlashedTwice", "SameImageTwice", "FlashOverFlash"].contains(&rule),
        "{rule}"
    );
}

#[test]
fn a_planner_that_forgets_budgets_is_noticed() {
    let rule = noticed(Sabotage::ForgetsBudgets);
    assert!(
        ["PoolBudget", "DomainBudget", "GrantedOverBudget"].contains(&rule),
        "{rule}"
    );
}

#[test]
fn history_that_is_let_go_before_it_is_pushed_is_noticed() {
    assert_eq!(noticed(Sabotage::ReleasesUnpushed), "HistoryLost");
}
