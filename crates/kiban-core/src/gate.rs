//! Gates: what must hold before a wave opens, as facts with an age.
//!
//! ```text
//!   somebody measures ──GateFacts──▶ World ──judge──▶ GateStanding ──grant──▶ the wave, or WaitingOn::Gate
//! ```
//!
//! Nothing is measured here. A fact that is missing, older than its gate allows or from the future is no data, and no
//! data never opens a wave. The health of the machines that have the change is in the world already, and is counted.

use crate::{
    facts::{Health, Reach},
    waiting::WaitingOn,
    world::{DeviceRow, PoolRow, World},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What a gate was last seen to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GateState {
    /// It holds: its waves may open.
    Holds,
    /// It was measured, and does not hold.
    Fails,
    /// It could not be measured, or what came says nothing.
    #[default]
    NoData,
}

impl GateState {
    /// The name used in status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Holds => "Holds",
            Self::Fails => "Fails",
            Self::NoData => "NoData",
        }
    }

    /// The state of a name; what is no name of one is no data.
    #[must_use]
    pub fn of(text: &str) -> Self {
        match text {
            "Holds" => Self::Holds,
            "Fails" => Self::Fails,
            _ => Self::NoData,
        }
    }
}

/// What was measured of one gate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GateFacts {
    /// Name of the pool.
    pub pool: String,
    /// Name of the gate.
    pub name: String,
    /// What came of it.
    pub state: GateState,
    /// When.
    pub measured_at: Timestamp,
    /// What was seen, for people.
    pub message: String,
}

/// One gate of a pool, as far as the planner must know it: how it is measured is the measurer's business.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GateRule {
    /// Its name, unique in the pool.
    pub name: String,
    /// The waves that it guards, from 1; empty: all of them.
    #[serde(default)]
    pub waves: Vec<u32>,
    /// The oldest measurement that counts.
    pub max_age: SignedDuration,
    /// How long it must have held before a wave opens.
    #[serde(default)]
    pub hold_for: SignedDuration,
    /// Whether failing for longer than `failure_threshold` halts the rollout.
    #[serde(default)]
    pub halt: bool,
    /// How long it may fail before that.
    #[serde(default)]
    pub failure_threshold: SignedDuration,
    /// Set for a gate that is counted and not measured.
    #[serde(default)]
    pub health: Option<HealthRule>,
}

/// How many of the devices that have the change may be out of order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthRule {
    /// With health `Critical`.
    pub max_critical: u32,
    /// Whose BMC does not answer.
    pub max_unreachable: u32,
    /// Whose health is not known, or was read too long ago.
    pub max_unknown: u32,
}

/// What is wrong with a device that has the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ailment {
    /// Its health is `Critical`.
    Critical,
    /// Its BMC does not answer.
    Unreachable,
    /// Its health is not known.
    Unknown,
}

impl Ailment {
    /// What is wrong with a device, if anything is.
    #[must_use]
    pub fn of(reach: Reach, health: Health, fresh: bool) -> Option<Self> {
        match (reach, health) {
            (Reach::Unreachable, _) => Some(Self::Unreachable),
            (_, Health::Critical) => Some(Self::Critical),
            (Reach::NeverRead, _) | (_, Health::Unknown) => Some(Self::Unknown),
            _ if !fresh => Some(Self::Unknown),
            _ => None,
        }
    }

    /// The words in a sentence.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "in critical health",
            Self::Unreachable => "unreachable",
            Self::Unknown => "of unknown health",
        }
    }
}

/// The devices that have the change and are out of order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ailing {
    pub(crate) critical: u32,
    pub(crate) unreachable: u32,
    pub(crate) unknown: u32,
}

impl Ailing {
    /// Counts a device; returns whether its health is lost.
    pub(crate) fn count(&mut self, row: &DeviceRow) -> bool {
        let ailment = Ailment::of(row.reach, row.health, row.fresh);
        match ailment {
            Some(Ailment::Critical) => self.critical += 1,
            Some(Ailment::Unreachable) => self.unreachable += 1,
            Some(Ailment::Unknown) => self.unknown += 1,
            None => {}
        }
        ailment == Some(Ailment::Critical)
    }

    /// The first figure over its limit: what, how many, and how many may be.
    fn over(self, rule: HealthRule) -> Option<(Ailment, u32, u32)> {
        [
            (Ailment::Critical, self.critical, rule.max_critical),
            (Ailment::Unreachable, self.unreachable, rule.max_unreachable),
            (Ailment::Unknown, self.unknown, rule.max_unknown),
        ]
        .into_iter()
        .find(|(_, is, most)| is > most)
    }
}

/// How a gate stands in a rollout: kept in its status, written when the state changes and not with each measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GateStanding {
    /// Name of the gate.
    pub name: String,
    /// What it was last seen to be.
    pub state: GateState,
    /// Since when.
    pub since: Timestamp,
    /// What was seen when it became so.
    pub message: String,
}

/// Why a gate does not let a wave open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Closed {
    /// Nobody has measured it yet.
    NotMeasured,
    /// It could not be measured, or what came says nothing.
    NoData,
    /// The last measurement is too old.
    Stale,
    /// It was measured, and does not hold.
    Fails,
    /// It holds, but not for long enough yet.
    NotForLong,
}

/// One gate judged.
pub(crate) struct Judgement {
    pub(crate) standing: GateStanding,
    /// Why the present wave must not open, if the gate guards it and is closed.
    pub(crate) refusal: Option<WaitingOn>,
    /// When it would be judged otherwise without any other change.
    pub(crate) due: Option<Timestamp>,
    /// Set when it has failed for too long and halts.
    pub(crate) halts: bool,
}

/// What the gates of one rollout are judged by.
#[derive(Clone, Copy)]
pub(crate) struct Evidence<'a> {
    pub(crate) world: &'a World,
    pub(crate) pool: &'a PoolRow,
    pub(crate) ailing: Ailing,
    /// What the rollout's status holds of them, for this revision.
    pub(crate) stored: &'a [GateStanding],
    /// When a halt was ended by an approval: what failed before was looked at.
    pub(crate) resumed_at: Option<Timestamp>,
    /// Present wave, from 1.
    pub(crate) wave: u32,
    pub(crate) now: Timestamp,
}

/// Judges every gate of a pool.
pub(crate) fn judge(evidence: Evidence<'_>) -> Vec<Judgement> {
    let rules = evidence.pool.facts.gates.iter();
    rules.map(|rule| judge_one(evidence, rule)).collect()
}

/// What is known of a gate now: state, words, and until when that counts. None: nothing was measured yet.
struct Known {
    state: GateState,
    message: String,
    good_until: Option<Timestamp>,
    stale: bool,
    over: Option<(Ailment, u32, u32)>,
}

fn known(evidence: Evidence<'_>, rule: &GateRule) -> Option<Known> {
    if let Some(health) = rule.health {
        let over = evidence.ailing.over(health);
        let message = over.map_or_else(String::new, |(ailment, is, most)| {
            format!(
                "{is} of the devices that have the change are {}, {most} may be",
                ailment.as_str()
            )
        });
        let state = if over.is_some() {
            GateState::Fails
        } else {
            GateState::Holds
        };
        return Some(Known {
            state,
            message,
            good_until: None,
            stale: false,
            over,
        });
    }
    let facts = evidence.world.gate(&evidence.pool.facts.name, &rule.name)?;
    let good_until = facts
        .measured_at
        .checked_add(rule.max_age)
        .unwrap_or(Timestamp::MAX);
    // A time in the future is not one that this clock gave: its age is not known.
    let stale = evidence.now > good_until || evidence.now < facts.measured_at;
    Some(Known {
        state: if stale { GateState::NoData } else { facts.state },
        message: if stale {
            format!("the last measurement, of {}, is too old", facts.measured_at)
        } else {
            facts.message.clone()
        },
        good_until: (!stale).then_some(good_until),
        stale,
        over: None,
    })
}

fn judge_one(evidence: Evidence<'_>, rule: &GateRule) -> Judgement {
    let now = evidence.now;
    let stored = evidence.stored.iter().find(|it| it.name == rule.name);
    let known = known(evidence, rule);
    let standing = match (&known, stored) {
        (Some(known), Some(stored)) if stored.state == known.state => GateStanding {
            // Before the first measurement there was nothing to say.
            message: if stored.message.is_empty() {
                known.message.clone()
            } else {
                stored.message.clone()
            },
            ..stored.clone()
        },
        (Some(known), _) => GateStanding {
            name: rule.name.clone(),
            state: known.state,
            since: now,
            message: known.message.clone(),
        },
        // A planner that has just begun knows nothing yet: that closes the gate, and changes nothing that is written.
        (None, Some(stored)) => stored.clone(),
        (None, None) => GateStanding {
            name: rule.name.clone(),
            since: now,
            ..GateStanding::default()
        },
    };
    // A time in the future was written under another clock.
    let since = standing.since.min(now);
    let after = |from: Timestamp, span| from.checked_add(span).unwrap_or(Timestamp::MAX);
    let held_at = after(since, rule.hold_for);
    let looked_at = evidence.resumed_at.map_or(since, |at| at.max(since));
    let halts_at = after(looked_at, rule.failure_threshold);
    let state = known.as_ref().map(|known| known.state);
    let closed = match state {
        None => Some(Closed::NotMeasured),
        Some(GateState::Fails) => Some(Closed::Fails),
        Some(GateState::NoData) if known.as_ref().is_some_and(|known| known.stale) => Some(Closed::Stale),
        Some(GateState::NoData) => Some(Closed::NoData),
        Some(GateState::Holds) if now < held_at => Some(Closed::NotForLong),
        Some(GateState::Holds) => None,
    };
    let fails = state == Some(GateState::Fails) && rule.halt;
    let guards = rule.waves.is_empty() || rule.waves.contains(&evidence.wave);
    let over = known.as_ref().and_then(|known| known.over);
    let dues = [
        known.as_ref().and_then(|known| known.good_until),
        (closed == Some(Closed::NotForLong)).then_some(held_at),
        (fails && now < halts_at).then_some(halts_at),
    ];
    Judgement {
        refusal: closed
            .filter(|_| guards)
            .map(|closed| refusal(evidence, rule, closed, over)),
        due: dues.into_iter().flatten().min(),
        halts: fails && now >= halts_at,
        standing,
    }
}

fn refusal(
    evidence: Evidence<'_>,
    rule: &GateRule,
    closed: Closed,
    over: Option<(Ailment, u32, u32)>,
) -> WaitingOn {
    // Nobody writes 65,535 waves; the schema takes far fewer.
    let wave = u16::try_from(evidence.wave).unwrap_or(u16::MAX);
    let gate = evidence.world.sym(&rule.name).unwrap_or_default();
    match over {
        Some((ailment, is, most)) => WaitingOn::GateHealth {
            gate,
            ailment,
            wave,
            is,
            most,
        },
        None => WaitingOn::Gate {
            pool: evidence.pool.name,
            gate,
            closed,
            wave,
        },
    }
}

/// What a measured number must be: `> 0.99`, `<=5`, `== 0`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    operator: Operator,
    bound: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Greater,
    AtLeast,
    Less,
    AtMost,
    Equal,
    Unequal,
}

/// Longest first, so that `>=` is not read as `>`.
const OPERATORS: [(&str, Operator); 6] = [
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("==", Operator::Equal),
    ("!=", Operator::Unequal),
    (">", Operator::Greater),
    ("<", Operator::Less),
];

/// Why a text is no comparison.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a condition is written like > 0.99, <= 5 or == 0, not {0:?}")]
pub struct ComparisonError(String);

impl FromStr for Comparison {
    type Err = ComparisonError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || ComparisonError(text.chars().take(32).collect());
        let found = OPERATORS
            .iter()
            .find_map(|(sign, operator)| Some((*operator, text.trim().strip_prefix(sign)?)));
        let (operator, rest) = found.ok_or_else(fault)?;
        let bound: f64 = rest.trim().parse().map_err(|_| fault())?;
        if !bound.is_finite() {
            return Err(fault());
        }
        Ok(Self { operator, bound })
    }
}

impl Comparison {
    /// Whether a number is as wanted. What is no number (NaN) never is, whatever is asked.
    #[must_use]
    #[allow(clippy::float_cmp)] // What is asked for: `== 0` of a count.
    pub fn holds(self, number: f64) -> bool {
        !number.is_nan()
            && match self.operator {
                Operator::Greater => number > self.bound,
                Operator::AtLeast => number >= self.bound,
                Operator::Less => number < self.bound,
                Operator::AtMost => number <= self.bound,
                Operator::Equal => number == self.bound,
                Operator::Unequal => number != self.bound,
            }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = OPERATORS
            .iter()
            .find(|(_, operator)| *operator == self.operator)
            .map_or("", |(sign, _)| sign);
        write!(f, "{sign} {}", self.bound)
    }
}

#[cfg(test)]
mod tests;
