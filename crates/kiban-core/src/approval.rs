//! Approvals: what a person said, and whether that counts.
//!
//! ```text
//!   Approval (one revision of one rollout, one wave or one halt) ──ApprovalFacts──▶ World ──▶ grant
//! ```
//!
//! That the name in it is the requester's own is the API server's business (the chart's ValidatingAdmissionPolicy). Here it
//! is only asked whether the pool names that person, and whether this revision and this wave are meant.

use crate::{
    facts::HaltFacts,
    waiting::WaitingOn,
    world::{PoolRow, World},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// People, by name and by group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct People {
    /// Names, as the API server knows them.
    pub users: Vec<String>,
    /// Groups, as the API server knows them.
    pub groups: Vec<String>,
}

impl People {
    /// Whether an approval is by one of them. Nobody is named: nobody is meant.
    #[must_use]
    pub fn include(&self, approval: &ApprovalFacts) -> bool {
        self.users.contains(&approval.approver)
            || self.groups.iter().any(|group| approval.groups.contains(group))
    }
}

impl fmt::Display for People {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users = self.users.iter().cloned();
        let groups = self.groups.iter().map(|group| format!("a member of {group}"));
        let all: Vec<String> = users.chain(groups).collect();
        f.write_str(&all.join(", "))
    }
}

/// Who must approve before a wave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalRule {
    /// Number of the wave, from 1.
    pub wave: u32,
    /// Its name.
    pub wave_name: String,
    /// Who may.
    pub by: People,
}

/// What an approval is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Approved {
    /// A wave, by name.
    Wave(String),
    /// The end of a halt: the one that began then.
    Resume(Timestamp),
}

/// What a person said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalFacts {
    /// Name of the object.
    pub name: String,
    /// Name of the rollout.
    pub rollout: String,
    /// The revision that was looked at.
    pub revision: String,
    /// What is approved.
    pub what: Approved,
    /// Who: the name that the API server knew the requester by.
    pub approver: String,
    /// Groups of the requester's that the approval rests on.
    #[serde(default)]
    pub groups: Vec<String>,
    /// When.
    pub at: Timestamp,
}

/// An approval that counted, as the rollout's status and the ledger keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalGiven {
    /// Name of the approval.
    pub approval: String,
    /// `wave <name>`, or `resume`.
    pub what: String,
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// A halt that an approval ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resumed {
    /// When the halt had begun.
    pub halt: Timestamp,
    /// When it was ended.
    pub at: Timestamp,
    /// Failures until then, which do not halt again.
    pub failed: u32,
    /// Devices in critical health then, which do not halt again.
    #[serde(default)]
    pub lost: u32,
}

/// The approval that lets a wave open, by name: the first that counts.
pub(crate) fn of_wave<'a>(
    world: &'a World,
    rollout: &str,
    revision: &str,
    rule: &ApprovalRule,
) -> Option<&'a ApprovalFacts> {
    for_revision(world, rollout, revision)
        .find(|it| matches!(&it.what, Approved::Wave(wave) if *wave == rule.wave_name) && rule.by.include(it))
}

/// The approval that ends a halt.
pub(crate) fn of_halt<'a>(
    world: &'a World,
    rollout: &str,
    revision: &str,
    halt: &HaltFacts,
    by: &People,
) -> Option<&'a ApprovalFacts> {
    // A status holds whole seconds.
    let same = |at: &Timestamp| at.as_second() == halt.at.as_second();
    for_revision(world, rollout, revision)
        .find(|it| matches!(&it.what, Approved::Resume(at) if same(at)) && by.include(it))
}

fn for_revision<'a>(
    world: &'a World,
    rollout: &str,
    revision: &str,
) -> impl Iterator<Item = &'a ApprovalFacts> {
    world
        .approvals()
        .filter(move |it| it.rollout == rollout && it.revision == revision)
}

/// What the approvals of a rollout let open.
pub(crate) struct Judgement {
    /// Why the present wave must not open.
    pub(crate) refusal: Option<WaitingOn>,
    /// The approval that opened it.
    pub(crate) given: Option<ApprovalGiven>,
}

/// Judges the approvals before a wave. Several rules for one wave are all to be met.
pub(crate) fn judge(world: &World, pool: &PoolRow, rollout: &str, revision: &str, wave: u32) -> Judgement {
    let mut judgement = Judgement {
        refusal: None,
        given: None,
    };
    for rule in pool.facts.approvals.iter().filter(|rule| rule.wave == wave) {
        match of_wave(world, rollout, revision, rule) {
            Some(approval) => {
                judgement.given = Some(ApprovalGiven {
                    approval: approval.name.clone(),
                    what: format!("wave {}", rule.wave_name),
                    by: approval.approver.clone(),
                    at: approval.at,
                });
            }
            None => {
                judgement.refusal = Some(WaitingOn::Approval {
                    pool: pool.name,
                    wave: u16::try_from(wave).unwrap_or(u16::MAX),
                });
            }
        }
    }
    judgement
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approval(approver: &str, groups: &[&str]) -> ApprovalFacts {
        ApprovalFacts {
            name: "a".into(),
            rollout: "web-r650".into(),
            revision: "r1".into(),
            what: Approved::Wave("rest".into()),
            approver: approver.into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    fn counts(approval: &ApprovalFacts, rollout: &str, revision: &str, by: People) -> bool {
        let mut world = World::new();
        world.upsert_approval(approval.clone());
        let rule = ApprovalRule {
            wave: 2,
            wave_name: "rest".into(),
            by,
        };
        of_wave(&world, rollout, revision, &rule).is_some()
    }

    fn people(users: &[&str], groups: &[&str]) -> People {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        People {
            users: own(users),
            groups: own(groups),
        }
    }

    #[test]
    fn an_approval_counts_for_one_revision_one_wave_and_from_those_named() {
        let alice = approval("alice", &["sre"]);
        let of = |by| counts(&alice, "web-r650", "r1", by);
        assert!(of(people(&["alice"], &[])) && of(people(&["bob"], &["sre"])));
        assert!(
            !of(people(&["bob"], &["ops"])) && !of(People::default()),
            "nobody named is nobody"
        );
        assert!(
            !counts(&alice, "web-r650", "r2", people(&["alice"], &[])),
            "of an old revision"
        );
        assert!(
            !counts(&alice, "db-r650", "r1", people(&["alice"], &[])),
            "of another rollout"
        );
        let other = ApprovalFacts {
            what: Approved::Wave("canary".into()),
            ..alice.clone()
        };
        assert!(
            !counts(&other, "web-r650", "r1", people(&["alice"], &[])),
            "of another wave"
        );
        let resumes = ApprovalFacts {
            what: Approved::Resume(Timestamp::UNIX_EPOCH),
            ..alice
        };
        assert!(
            !counts(&resumes, "web-r650", "r1", people(&["alice"], &[])),
            "of something else"
        );
    }

    #[test]
    fn people_are_named_in_a_sentence() {
        assert_eq!(people(&["alice"], &["sre"]).to_string(), "alice, a member of sre");
    }
}
