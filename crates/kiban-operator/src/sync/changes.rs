//! What a commit changes in the cluster, and whether it may: the pure half of sync.

use super::{
    desired::{Desired, Wanted},
    kinds::{Compared, Kind, Present},
};
use kiban_api::repository::SourceError;
use std::collections::BTreeMap;

/// What a commit changes.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    /// To apply, in order.
    pub apply: Vec<(Kind, String)>,
    /// To remove, in order: what refers goes before what it refers to.
    pub prune: Vec<(Kind, String)>,
    /// Objects that are as the commit says, with the generation at which they are.
    pub same: Vec<(Kind, String, i64)>,
    /// Why it may not be applied: objects of another repository.
    pub errors: Vec<SourceError>,
}

/// Compares a commit with the cluster. `present`: all objects per kind; `compare`: how one compares; `settled`: whether an
/// object that differs was applied at this generation already, so that the difference is in a field that Git leaves to
/// others.
#[must_use]
pub fn changes(
    desired: &Desired,
    repository: &str,
    present: &BTreeMap<Kind, Vec<Present>>,
    compare: impl Fn(Kind, &str, &Wanted) -> Compared,
    settled: impl Fn(Kind, &str, i64, &Wanted) -> bool,
) -> Changes {
    let mut changes = Changes::default();
    let of = |kind: Kind| present.get(&kind).map(Vec::as_slice).unwrap_or_default();
    let owners: BTreeMap<(Kind, &str), &Present> = Kind::ALL
        .into_iter()
        .flat_map(|k| of(k).iter().map(move |p| ((k, p.name.as_str()), p)))
        .collect();
    for ((kind, name), wanted) in &desired.objects {
        let present = owners.get(&(*kind, name.as_str()));
        let other = present
            .and_then(|p| p.repository.as_deref())
            .filter(|owner| *owner != repository);
        if let Some(other) = other {
            changes.errors.push(SourceError {
                file: wanted.file.clone(),
                line: wanted.line,
                field: "metadata.name".into(),
                message: format!(
                    "{} {name} comes from the FleetRepository {other} already; take it out of one of the two",
                    kind.as_str()
                ),
            });
            continue;
        }
        match compare(*kind, name, wanted) {
            Compared::Same { generation } if present.is_some_and(|p| wanted.is_from(p.source.as_deref())) => {
                changes.same.push((*kind, name.clone(), generation));
            }
            Compared::Differs { generation } if settled(*kind, name, generation, wanted) => {
                changes.same.push((*kind, name.clone(), generation));
            }
            _ => changes.apply.push((*kind, name.clone())),
        }
    }
    // A FleetRepository is never removed because it is not in the repository: it is how the repository got here.
    for kind in Kind::ALL
        .into_iter()
        .rev()
        .filter(|kind| *kind != Kind::FleetRepository)
    {
        let ours = of(kind)
            .iter()
            .filter(|p| p.repository.as_deref() == Some(repository) && !p.deleting);
        let gone = ours.filter(|p| !desired.objects.contains_key(&(kind, p.name.clone())));
        let mut gone: Vec<_> = gone.map(|p| (kind, p.name.clone())).collect();
        gone.sort();
        changes.prune.extend(gone);
    }
    changes
}

/// Whether a commit's removals may be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// They may.
    Pass,
    /// The commit is held.
    Hold {
        /// CamelCase.
        reason: &'static str,
        /// What it would do, and what to do.
        message: String,
    },
}

/// The prune guard: an emptied repository removes nothing, and a commit that removes a large share of a kind waits for a
/// person. `totals`: objects per kind that came from this repository. `confirmed`: a person confirmed this very commit.
#[must_use]
pub fn guard(
    desired: &Desired,
    changes: &Changes,
    totals: &BTreeMap<Kind, usize>,
    max_percent: u32,
    commit: &str,
    confirmed: bool,
) -> Guard {
    let all: usize = totals.values().sum();
    if desired.objects.is_empty() {
        let message = format!(
            "commit {commit} holds no object; the {all} that came from this repository stay. To retire them, delete the \
             objects or the namespace; else commit the files again"
        );
        return Guard::Hold {
            reason: "RepositoryEmptied",
            message,
        };
    }
    if confirmed {
        return Guard::Pass;
    }
    let mut removed: BTreeMap<Kind, usize> = BTreeMap::new();
    for (kind, _) in &changes.prune {
        *removed.entry(*kind).or_default() += 1;
    }
    let over = removed.iter().filter_map(|(kind, n)| {
        let total = totals.get(kind).copied().unwrap_or_default().max(*n);
        // Rounded down: 10 % of 25 is 2. One may always go.
        let allowed = (total.saturating_mul(max_percent as usize) / 100).max(1);
        (*n > allowed).then(|| format!("{n} of {total} {} (allowed: {allowed})", kind.as_str()))
    });
    let over: Vec<_> = over.collect();
    if over.is_empty() {
        return Guard::Pass;
    }
    let message = format!(
        "commit {commit} would remove {}; nothing of it is applied. If that is meant: kubectl annotate --overwrite \
         fleetrepository <name> {}={commit}",
        over.join(", "),
        kiban_api::labels::CONFIRM_PRUNE_ANNOTATION
    );
    Guard::Hold {
        reason: "PruneHeld",
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn desired(names: &[&str]) -> Desired {
        let mut desired = Desired::default();
        for name in names {
            let wanted = Wanted {
                value: json!({}),
                file: "all.yaml".into(),
                line: 1,
            };
            desired.objects.insert((Kind::Device, (*name).to_owned()), wanted);
        }
        desired
    }

    fn present(name: &str, repository: Option<&str>) -> Present {
        Present {
            name: name.into(),
            repository: repository.map(str::to_owned),
            source: Some("all.yaml:9".into()),
            generation: 1,
            deleting: false,
        }
    }

    fn devices(present: Vec<Present>) -> BTreeMap<Kind, Vec<Present>> {
        BTreeMap::from([(Kind::Device, present)])
    }

    fn names(of: &[(Kind, String)]) -> Vec<&str> {
        of.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn only_what_differs_is_applied_and_only_what_is_ours_is_removed() {
        let present = devices(vec![
            present("same", Some("fleet")),
            present("changed", Some("fleet")),
            present("gone", Some("fleet")),
            present("by-hand", None),
            present("others", Some("other")),
        ]);
        let compare = |_: Kind, name: &str, _: &Wanted| match name {
            "same" => Compared::Same { generation: 1 },
            "new" => Compared::Missing,
            _ => Compared::Differs { generation: 1 },
        };
        let desired = desired(&["same", "changed", "new"]);
        let changes = super::changes(&desired, "fleet", &present, compare, |_, _, _, _| false);
        assert_eq!(names(&changes.apply), ["changed", "new"]);
        assert_eq!(names(&changes.prune), ["gone"]);
        assert_eq!(changes.same, [(Kind::Device, "same".into(), 1)]);
        assert_eq!(changes.errors, []);
    }

    #[test]
    fn an_object_of_another_repository_is_refused() {
        let present = devices(vec![present("s1", Some("other"))]);
        let changes = super::changes(
            &desired(&["s1"]),
            "fleet",
            &present,
            |_, _, _| Compared::Missing,
            |_, _, _, _| false,
        );
        assert!(changes.apply.is_empty());
        assert!(
            changes.errors[0].message.contains("FleetRepository other"),
            "{}",
            changes.errors[0].message
        );
    }

    #[test]
    fn a_field_that_git_leaves_to_others_is_not_fought_over() {
        let present = devices(vec![present("s1", Some("fleet"))]);
        let compare = |_: Kind, _: &str, _: &Wanted| Compared::Differs { generation: 4 };
        let settled = |_: Kind, _: &str, generation: i64, _: &Wanted| generation == 4;
        assert!(
            super::changes(&desired(&["s1"]), "fleet", &present, compare, settled)
                .apply
                .is_empty()
        );
    }

    fn guard_of(removed: usize, total: usize, percent: u32, confirmed: bool) -> Guard {
        let prune = (0..removed).map(|n| (Kind::Device, format!("s{n}"))).collect();
        let changes = Changes {
            prune,
            ..Changes::default()
        };
        guard(
            &desired(&["kept"]),
            &changes,
            &BTreeMap::from([(Kind::Device, total)]),
            percent,
            "c0ffee",
            confirmed,
        )
    }

    #[test]
    fn a_large_removal_waits_for_a_person() {
        assert_eq!(guard_of(1, 3, 10, false), Guard::Pass, "one may always go");
        assert_eq!(guard_of(2, 20, 10, false), Guard::Pass);
        assert_eq!(guard_of(1, 5, 0, false), Guard::Pass);
        for (removed, total, percent) in [(3, 20, 10), (2, 5, 0), (3, 25, 10), (2, 2, 49)] {
            let held = guard_of(removed, total, percent, false);
            assert!(
                matches!(
                    held,
                    Guard::Hold {
                        reason: "PruneHeld",
                        ..
                    }
                ),
                "{removed} of {total} at {percent} %"
            );
            assert_eq!(guard_of(removed, total, percent, true), Guard::Pass, "confirmed");
        }
    }

    #[test]
    fn an_emptied_repository_removes_nothing_even_when_confirmed() {
        let prune = vec![(Kind::Device, "s1".to_owned())];
        let changes = Changes {
            prune,
            ..Changes::default()
        };
        for confirmed in [false, true] {
            let held = guard(
                &Desired::default(),
                &changes,
                &BTreeMap::new(),
                100,
                "c0ffee",
                confirmed,
            );
            assert!(matches!(
                held,
                Guard::Hold {
                    reason: "RepositoryEmptied",
                    ..
                }
            ));
        }
    }
}
