//! How a device's firmware stands to its baseline, in words.

use crate::component::ComponentClass;
use serde::{Deserialize, Serialize};

/// The four answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Compliance {
    /// Every component is as the baseline wants it, or good enough by its own words.
    Compliant,
    /// At least one differs.
    NonCompliant,
    /// It was never read, not lately, or not completely.
    Unknown,
    /// No baseline of its pool speaks of its model, or it has no pool.
    #[default]
    NoBaseline,
}

impl Compliance {
    /// The name used in status and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compliant => "Compliant",
            Self::NonCompliant => "NonCompliant",
            Self::Unknown => "Unknown",
            Self::NoBaseline => "NoBaseline",
        }
    }
}

/// What is with one component that is not as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DifferenceKind {
    /// Another version runs, and an update is the answer. `staged`: the wanted version is installed and waits for its activation.
    Update {
        /// See above.
        staged: bool,
    },
    /// The wanted version is denied, so there is nothing to update to.
    Denied {
        /// Why: the policy's words, or that the baseline denies its own version.
        reason: String,
    },
    /// There is no image.
    NoImage,
    /// The BMC says that it cannot update the component.
    NotUpdateable,
    /// The wanted version is below the lowest that the BMC accepts.
    LowestSupported,
    /// Another entry of the baseline speaks of the same component and wants another version.
    Ambiguous,
    /// The BMC did not say which version runs.
    VersionUnknown,
    /// The device has no such component, though every machine has one.
    NotFound,
    /// A newer version runs and the way back is not allowed: left alone.
    Downgrade,
    /// No path leads from the version that runs to the wanted one.
    NoPath {
        /// Why, and what would mend it.
        why: String,
    },
}

impl DifferenceKind {
    /// Whether it keeps the whole device from being updated: half a baseline is no state that anybody has tested.
    #[must_use]
    pub fn is_block(&self) -> bool {
        !matches!(self, Self::Update { .. } | Self::Downgrade)
    }

    /// Whether it is certain that the component is not as wanted.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        !matches!(self, Self::Ambiguous | Self::VersionUnknown | Self::NotFound)
    }
}

/// One component that is not as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Difference {
    /// Index of the baseline's entry.
    pub wanted: usize,
    /// Index of the component in the reading; None when there is none.
    pub component: Option<usize>,
    /// Class.
    pub class: ComponentClass,
    /// What is with it.
    pub kind: DifferenceKind,
    /// Of an update: indices of the entry's stepping stones that come before the wanted version, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<usize>,
    /// One line for people: `NIC Mellanox ConnectX-6: 20.37.1014, wanted 20.39.2048`.
    pub line: String,
}

/// How a device's firmware stands to its baseline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Assessment {
    /// The answer.
    pub compliance: Compliance,
    /// Every component that is not as wanted, in the order of updates: BMC, BIOS, then the rest.
    pub differences: Vec<Difference>,
}

impl Assessment {
    /// The first difference that keeps the device from being updated.
    #[must_use]
    pub fn block(&self) -> Option<&Difference> {
        self.differences
            .iter()
            .find(|difference| difference.kind.is_block())
    }

    /// Indices of the baseline's entries to install, each once, in order.
    #[must_use]
    pub fn updates(&self) -> Vec<usize> {
        let mut updates = Vec::new();
        for difference in &self.differences {
            if matches!(difference.kind, DifferenceKind::Update { .. })
                && !updates.contains(&difference.wanted)
            {
                updates.push(difference.wanted);
            }
        }
        updates
    }

    /// Whether the device needs a change that an operation can bring, or could if nothing blocked it.
    #[must_use]
    pub fn needs_change(&self) -> bool {
        self.differences
            .iter()
            .any(|difference| difference.kind.is_certain() && difference.kind != DifferenceKind::Downgrade)
    }
}
