//! What a device waits on: every refusal of the gate, with the figures that a person needs.
//!
//! A value is 16 bytes and copies, since a fleet has a million of them per plan; [`WaitingOn::sentence`] resolves the
//! names.

use crate::{
    component::ComponentClass,
    gate::{Ailment, Closed},
    world::{DeviceId, DomainId, Sym, World},
};
use jiff::Timestamp;
use std::fmt;

/// Why a device does not move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitingOn {
    /// Its pool does not exist.
    Pool {
        /// The name that the device gives.
        pool: Sym,
    },
    /// Its model does not exist.
    Model {
        /// The name that the device gives.
        model: Sym,
    },
    /// Another device has the same serial number, UUID or BMC address: one of the two is not what it says.
    Duplicate {
        /// One such other device.
        other: DeviceId,
    },
    /// No BMC reading yet.
    NeverRead,
    /// The BMC answers as a product that the model does not know.
    WrongModel {
        /// What the BMC says.
        reported: Sym,
    },
    /// The BMC answers with another serial number or UUID than the device has.
    WrongMachine,
    /// Two baselines of the pool speak of the model.
    BaselineConflict {
        /// One.
        first: Sym,
        /// The other.
        second: Sym,
    },
    /// The fleet is paused.
    Paused,
    /// An operation is on it already, for another change.
    Operation,
    /// The operation before is over, but not yet in the ledger.
    Ledger,
    /// A person must look first.
    Held {
        /// The reason that the hold gives.
        reason: Sym,
    },
    /// The BMC does not answer.
    Unreachable,
    /// The machine's health is critical.
    Unhealthy,
    /// The inventory is older than the policy allows.
    Stale,
    /// Several entries of the baseline speak of one component and want different versions of it.
    Ambiguous {
        /// Its class.
        class: ComponentClass,
        /// Its name.
        component: Sym,
    },
    /// The wanted version is denied, by the baseline itself or by the fleet's policy.
    Denied {
        /// Class.
        class: ComponentClass,
        /// The version wanted.
        version: Sym,
    },
    /// The baseline gives no image.
    Image {
        /// Class.
        class: ComponentClass,
        /// The version wanted.
        version: Sym,
    },
    /// The BMC says that it cannot update the component.
    NotUpdateable {
        /// Class.
        class: ComponentClass,
        /// The component.
        component: Sym,
    },
    /// The wanted version is below the lowest one that the BMC accepts.
    LowestSupported {
        /// Class.
        class: ComponentClass,
        /// The version wanted.
        version: Sym,
        /// The lowest accepted.
        lowest: Sym,
    },
    /// No path leads from the version that runs to the wanted one.
    Path {
        /// Class.
        class: ComponentClass,
        /// What runs.
        is: Sym,
        /// What is wanted.
        wanted: Sym,
    },
    /// The device has no such component.
    ComponentNotFound {
        /// Class.
        class: ComponentClass,
    },
    /// The BMC does not say which version the component runs.
    VersionUnknown {
        /// Class.
        class: ComponentClass,
        /// The component.
        component: Sym,
    },
    /// It runs a newer version than wanted, and the baseline does not allow the way back.
    Downgrade {
        /// Class.
        class: ComponentClass,
        /// What runs.
        is: Sym,
        /// What is wanted.
        wanted: Sym,
    },
    /// It failed in this revision; only a commit tries again.
    Failed,
    /// It reached the baseline in this revision and soon after read differently; only a commit tries again.
    Reverted,
    /// Its rollout halted.
    Halted {
        /// Devices that failed.
        failed: u32,
        /// Failures that halt.
        limit: u32,
    },
    /// The wave before soaks.
    Soak {
        /// The wave that is done.
        wave: u32,
        /// When the next one opens, in seconds since 1970.
        until_s: i64,
    },
    /// Its wave is not open.
    Wave {
        /// Present wave, from 1.
        wave: u16,
        /// Waves in all.
        waves: u16,
        /// Devices that the present wave reaches.
        reach: u32,
        /// Devices that the change concerns.
        total: u32,
    },
    /// Its wave needs an approval that nobody has given.
    Approval {
        /// Pool.
        pool: Sym,
        /// The wave, from 1.
        wave: u16,
    },
    /// A gate of its wave is closed.
    Gate {
        /// Pool.
        pool: Sym,
        /// The gate's name.
        gate: Sym,
        /// Why it is closed.
        closed: Closed,
        /// The wave, from 1.
        wave: u16,
    },
    /// Too many of the devices that have the change are out of order.
    GateHealth {
        /// The gate's name.
        gate: Sym,
        /// What is wrong with them.
        ailment: Ailment,
        /// The wave, from 1.
        wave: u16,
        /// How many they are.
        is: u32,
        /// How many may be.
        most: u32,
    },
    /// The first device of each class goes first: of this class none is through well yet, or of others.
    Canary {
        /// Classes that have one through.
        done: u32,
        /// Classes in all that can have one.
        needed: u32,
    },
    /// The pool's budget is used up.
    Budget {
        /// Pool.
        pool: Sym,
        /// Unavailable now, granted operations included.
        unavailable: u32,
        /// Allowed.
        allowed: u32,
    },
    /// The budget of its failure domain is used up.
    Domain {
        /// The domain.
        domain: DomainId,
        /// Unavailable now, granted operations included.
        unavailable: u32,
        /// Allowed.
        allowed: u32,
    },
    /// The budget that the pools of its service share is used up.
    ServiceBudget {
        /// The service.
        service: Sym,
        /// Unavailable now, granted operations included.
        unavailable: u32,
        /// Allowed.
        allowed: u32,
    },
    /// The fleet's budget of its failure domain, over all pools, is used up.
    FleetDomain {
        /// The domain.
        domain: DomainId,
        /// Unavailable now, granted operations included.
        unavailable: u32,
        /// Allowed.
        allowed: u32,
    },
    /// Another device of its redundancy group is down.
    RedundancyGroup {
        /// The group.
        group: Sym,
        /// One such device.
        other: DeviceId,
    },
    /// Its room or site is dark, or one into which its rollout reaches: most devices there do not answer.
    Dark {
        /// The room or site.
        domain: DomainId,
    },
    /// The fleet's budget is used up.
    FleetBudget {
        /// Unavailable now, granted operations included.
        unavailable: u32,
        /// Allowed.
        allowed: u32,
    },
}

impl WaitingOn {
    /// The reason in CamelCase, for `status.waitingOn.reason`, metric labels and conditions.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Pool { .. } => "PoolNotFound",
            Self::Model { .. } => "ModelNotFound",
            Self::Duplicate { .. } => "Duplicate",
            Self::NeverRead => "NeverRead",
            Self::WrongModel { .. } => "WrongModel",
            Self::WrongMachine => "WrongMachine",
            Self::BaselineConflict { .. } => "BaselineConflict",
            Self::Paused => "Paused",
            Self::Operation => "Operation",
            Self::Ledger => "Ledger",
            Self::Held { .. } => "Held",
            Self::Unreachable => "Unreachable",
            Self::Unhealthy => "Unhealthy",
            Self::Stale => "Stale",
            Self::Ambiguous { .. } => "Ambiguous",
            Self::Denied { .. } => "Denied",
            Self::Image { .. } => "Image",
            Self::NotUpdateable { .. } => "NotUpdateable",
            Self::LowestSupported { .. } => "LowestSupported",
            Self::Path { .. } => "Path",
            Self::ComponentNotFound { .. } => "ComponentNotFound",
            Self::VersionUnknown { .. } => "VersionUnknown",
            Self::Downgrade { .. } => "Downgrade",
            Self::Failed => "Failed",
            Self::Reverted => "Reverted",
            Self::Halted { .. } => "Halted",
            Self::Soak { .. } => "Soak",
            Self::Wave { .. } => "Wave",
            Self::Approval { .. } => "Approval",
            Self::Gate { .. } => "Gate",
            Self::GateHealth { .. } => "GateHealth",
            Self::Canary { .. } => "Canary",
            Self::Budget { .. } => "Budget",
            Self::Domain { .. } => "Domain",
            Self::ServiceBudget { .. } => "ServiceBudget",
            Self::FleetDomain { .. } => "FleetDomain",
            Self::RedundancyGroup { .. } => "RedundancyGroup",
            Self::Dark { .. } => "Dark",
            Self::FleetBudget { .. } => "FleetBudget",
        }
    }

    /// Whether it passes by itself, as the rollout goes on; else somebody must do something.
    #[must_use]
    pub fn passes_by_itself(self) -> bool {
        matches!(
            self,
            Self::NeverRead
                | Self::Operation
                | Self::Ledger
                | Self::Stale
                | Self::Soak { .. }
                | Self::Wave { .. }
                | Self::Gate {
                    closed: Closed::NotMeasured | Closed::NotForLong,
                    ..
                }
                | Self::Canary { .. }
                | Self::Budget { .. }
                | Self::Domain { .. }
                | Self::ServiceBudget { .. }
                | Self::FleetDomain { .. }
                | Self::RedundancyGroup { .. }
                | Self::FleetBudget { .. }
        ) && !self.is_never()
    }

    /// Whether it is a budget of nothing: it lets nobody move, ever.
    fn is_never(self) -> bool {
        match self {
            Self::Budget { allowed, .. }
            | Self::Domain { allowed, .. }
            | Self::ServiceBudget { allowed, .. }
            | Self::FleetDomain { allowed, .. }
            | Self::FleetBudget { allowed, .. } => allowed == 0,
            _ => false,
        }
    }

    /// Whether it speaks of this device's place only: another device of the same rollout may go in its stead.
    pub(crate) fn is_of_its_place(self) -> bool {
        matches!(
            self,
            Self::Domain { .. } | Self::FleetDomain { .. } | Self::RedundancyGroup { .. }
        )
    }

    /// The sentence for people, with names and figures.
    #[must_use]
    pub fn sentence(self, world: &World) -> Sentence<'_> {
        Sentence { waiting: self, world }
    }
}

/// A [`WaitingOn`] as a sentence.
#[derive(Clone, Copy, Debug)]
pub struct Sentence<'a> {
    waiting: WaitingOn,
    world: &'a World,
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |sym: Sym| self.world.text(sym);
        match self.waiting {
            WaitingOn::Pool { pool } => write!(f, "the HardwarePool {:?} does not exist", text(pool)),
            WaitingOn::Model { model } => write!(f, "the HardwareModel {:?} does not exist", text(model)),
            WaitingOn::Duplicate { other } => write!(
                f,
                "device {} has the same serial number, UUID or BMC address: correct one of the two",
                self.world.name(other)
            ),
            WaitingOn::NeverRead => f.write_str("its BMC has not been read yet"),
            WaitingOn::WrongModel { reported } => write!(
                f,
                "its BMC reports the model {:?}, which no pattern in reportedAs of its HardwareModel takes",
                text(reported)
            ),
            WaitingOn::WrongMachine => {
                f.write_str("its BMC answers with another serial number or UUID: check the address and the cabling")
            }
            WaitingOn::BaselineConflict { first, second } => write!(
                f,
                "the baselines {} and {} of its pool both speak of its model: leave one",
                text(first),
                text(second)
            ),
            WaitingOn::Paused => f.write_str("the fleet is paused (FleetPolicy spec.paused)"),
            WaitingOn::Operation => f.write_str("an operation for an earlier change is on it"),
            WaitingOn::Ledger => f.write_str("the operation before is over, its outcome is on its way to the ledger"),
            WaitingOn::Held { reason } => {
                write!(f, "it is held ({}): a person must look and release it", text(reason))
            }
            WaitingOn::Unreachable => f.write_str("its BMC does not answer"),
            WaitingOn::Unhealthy => f.write_str("its health is Critical: it is repaired before it is updated"),
            WaitingOn::Stale => f.write_str("its inventory is too old to decide on, and is to be read again"),
            WaitingOn::Ambiguous { class, component } => write!(
                f,
                "several entries of the baseline speak of the {class} {} and want different versions",
                text(component)
            ),
            WaitingOn::Denied { class, version } => {
                write!(f, "{class} {} is wanted but denied by the baseline or the FleetPolicy", text(version))
            }
            WaitingOn::Image { class, version } => {
                write!(f, "the baseline gives no image for {class} {}", text(version))
            }
            WaitingOn::NotUpdateable { class, component } => {
                write!(f, "its BMC says that it cannot update the {class} {}", text(component))
            }
            WaitingOn::LowestSupported { class, version, lowest } => write!(
                f,
                "{class} {} is wanted, but its BMC takes nothing below {}",
                text(version),
                text(lowest)
            ),
            WaitingOn::Path { class, is, wanted } => write!(
                f,
                "no path leads from {class} {} to {}: add a stepping stone (via) to the baseline, or tell from which \
                 versions those that are there are taken",
                text(is),
                text(wanted)
            ),
            WaitingOn::ComponentNotFound { class } => {
                write!(f, "its BMC lists no {class}, of which the baseline wants a version")
            }
            WaitingOn::VersionUnknown { class, component } => {
                write!(f, "its BMC does not say which version the {class} {} runs", text(component))
            }
            WaitingOn::Downgrade { class, is, wanted } => write!(
                f,
                "{class} runs {}, which is newer than the wanted {}; allowDowngrade is not set",
                text(is),
                text(wanted)
            ),
            WaitingOn::Failed => {
                f.write_str("it failed in this revision: a commit to the baseline or to rollout.retry tries again")
            }
            WaitingOn::Reverted => f.write_str(
                "it reached the baseline in this revision and then read differently: look, then raise rollout.retry",
            ),
            WaitingOn::Halted { failed, limit } if failed < limit => f.write_str(
                "its rollout halted, as its Halted condition says; a commit to the baseline or to rollout.retry resumes it",
            ),
            WaitingOn::Halted { failed, limit } => write!(
                f,
                "its rollout halted: {failed} failed, {limit} halts; a commit to the baseline or to rollout.retry resumes it"
            ),
            WaitingOn::Soak { wave, until_s } => {
                write!(f, "wave {wave} is done and soaks")?;
                Timestamp::from_second(until_s).map_or(Ok(()), |until| write!(f, " until {until}"))
            }
            WaitingOn::Canary { done, needed } => write!(
                f,
                "canaries go first, one of each class (model, parts and versions alike): {done} of {needed} are through"
            ),
            WaitingOn::Wave { wave, waves, reach, total } => {
                write!(f, "wave {wave} of {waves} is open and reaches {reach} of {total} devices: this one comes later")
            }
            WaitingOn::Approval { pool, wave } => {
                let rules = self.world.pool(text(pool)).into_iter().flat_map(|pool| &pool.approvals);
                match rules.into_iter().find(|rule| rule.wave == u32::from(wave)) {
                    Some(rule) => write!(
                        f,
                        "wave {wave} ({}) opens when one of these has approved this revision: {}",
                        rule.wave_name, rule.by
                    ),
                    None => write!(f, "wave {wave} opens when it is approved"),
                }
            }
            WaitingOn::Gate { pool, gate, closed, wave } => {
                write!(f, "wave {wave} opens only while the gate {} holds", text(gate))?;
                let seen = self.world.gate(text(pool), text(gate)).map_or("", |it| it.message.as_str());
                match closed {
                    Closed::NotMeasured => f.write_str(", which has not been measured yet"),
                    Closed::NoData => write!(f, ", and nothing is known of it: {seen}"),
                    Closed::Stale => f.write_str(", and its last measurement is too old"),
                    Closed::Fails => write!(f, ", which it does not: {seen}"),
                    Closed::NotForLong => f.write_str(", and it has not held for long enough yet"),
                }
            }
            WaitingOn::GateHealth { gate, ailment, wave, is, most } => write!(
                f,
                "wave {wave} opens only while the gate {} holds, which it does not: {is} of the devices that have the change are {}, {most} may be",
                text(gate),
                ailment.as_str()
            ),
            _ if self.waiting.is_never() => self.never(f),
            WaitingOn::Budget { pool, unavailable, allowed } => write!(
                f,
                "pool {} allows {allowed} unavailable at a time, and {unavailable} are",
                text(pool)
            ),
            WaitingOn::Domain { domain, unavailable, allowed } => write!(
                f,
                "{} allows {allowed} unavailable at a time, and {unavailable} are",
                self.world.domain(domain)
            ),
            WaitingOn::ServiceBudget { service, unavailable, allowed } => write!(
                f,
                "the pools of service {} together allow {allowed} unavailable at a time, and {unavailable} are",
                text(service)
            ),
            WaitingOn::FleetDomain { domain, unavailable, allowed } => write!(
                f,
                "the fleet allows {allowed} unavailable at a time in {}, and {unavailable} are",
                self.world.domain(domain)
            ),
            WaitingOn::RedundancyGroup { group, other } => write!(
                f,
                "{} of the redundancy group {} is down or has an operation: one of a group at a time",
                self.world.name(other),
                text(group)
            ),
            WaitingOn::Dark { domain } => write!(
                f,
                "most devices in {} do not answer: nothing is started there, and rollouts that reach into it wait",
                self.world.domain(domain)
            ),
            WaitingOn::FleetBudget { unavailable, allowed } => {
                write!(f, "the fleet allows {allowed} unavailable at a time, and {unavailable} are")
            }
        }
    }
}

impl Sentence<'_> {
    /// A budget of nothing: legal, and said.
    fn never(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the budget of ")?;
        match self.waiting {
            WaitingOn::Budget { pool, .. } => write!(f, "pool {}", self.world.text(pool))?,
            WaitingOn::ServiceBudget { service, .. } => write!(f, "service {}", self.world.text(service))?,
            WaitingOn::Domain { domain, .. } | WaitingOn::FleetDomain { domain, .. } => {
                write!(f, "{}", self.world.domain(domain))?;
            }
            _ => f.write_str("the fleet")?,
        }
        f.write_str(" is 0: nothing under it is ever updated")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_small_and_an_option_of_it_no_larger() {
        assert_eq!(size_of::<WaitingOn>(), 16);
        assert_eq!(size_of::<Option<WaitingOn>>(), 16);
    }
}
