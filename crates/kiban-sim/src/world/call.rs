//! Calls on their way: what is asked of the API server, a BMC or the ledger, what comes back, and what befalls it.

use super::{
    api::{Lease, Object, Operation, Stored},
    rng::Rng,
};
use kiban_core::{
    facts::{LastOperationFacts, Outcome},
    operation::{EffectKind, Observation, Reading},
};

/// Whose call it is, within a process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// The keeper of one Lease.
    Lease(usize),
    Planner,
    Ledger,
    /// The look for operations that may start.
    Start,
    /// What runs one operation.
    Drive(String),
    Observe(String),
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) enum Request {
    GetLease(String),
    PutLease {
        name: String,
        rv: u64,
        holder: u64,
        epoch: i64,
    },
    ListOperations,
    Get {
        kind: usize,
        name: String,
    },
    /// Creates an operation. `decided`: when its plan was made.
    Create {
        name: String,
        operation: Box<Operation>,
        decided: i64,
    },
    /// Writes an operation over the one that was seen.
    Operation {
        name: String,
        rv: u64,
        operation: Box<Operation>,
    },
    /// Writes a device over the one that was seen.
    Put {
        kind: usize,
        name: String,
        rv: u64,
        object: Box<Object>,
    },
    New {
        kind: usize,
        name: String,
        object: Box<Object>,
    },
    Delete {
        name: String,
        uid: u64,
        rv: Option<u64>,
    },
    TakeFinalizer {
        name: String,
        uid: u64,
    },
    Push(Vec<(String, Outcome)>),
    Bmc {
        device: String,
        uid: u64,
        effect: EffectKind,
    },
    Read {
        device: String,
    },
}

impl Request {
    /// A word for the trace.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::GetLease(_) => "GetLease",
            Self::PutLease { .. } => "PutLease",
            Self::ListOperations => "List",
            Self::Get { .. } => "Get",
            Self::Create { .. } => "CreateOperation",
            Self::Operation { .. } => "PatchOperation",
            Self::Put { .. } => "Patch",
            Self::New { .. } => "Create",
            Self::Delete { .. } => "Delete",
            Self::TakeFinalizer { .. } => "TakeFinalizer",
            Self::Push(_) => "Push",
            Self::Bmc { effect, .. } => effect.as_str(),
            Self::Read { .. } => "Read",
        }
    }

    pub(super) fn is_lease(&self) -> bool {
        matches!(self, Self::GetLease(_) | Self::PutLease { .. })
    }

    /// Whether it changes a machine: the one call whose process is not frozen between its last check and its first byte,
    /// since nothing could stop what comes of that (ARCHITECTURE.md, "What is left of invariant 2").
    pub(super) fn changes_machine(&self) -> bool {
        matches!(
            self,
            Self::Bmc {
                effect: EffectKind::Send { .. } | EffectKind::Reset { .. },
                ..
            }
        )
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Lease(Option<Lease>),
    List(Vec<(String, Stored)>),
    Object(Option<Stored>),
    Done,
    Conflict,
    NotFound,
    Seen(Observation),
    Reading(Option<Box<Seen>>),
    /// Nobody knows.
    Failed {
        may_have_happened: bool,
    },
}

/// What an observer reads of a device.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) reading: Reading,
    pub(super) critical: bool,
    pub(super) impostor: bool,
}

/// What an operation's end adds to its device.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) last: LastOperationFacts,
    pub(super) hold: Option<String>,
    pub(super) unreachable: bool,
}

/// What befalls a call, or the process that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// The process dies before the call.
    DieBefore,
    /// The call happens, and the process dies before it hears.
    DieAfter,
    /// It happens, and an error comes back.
    ErrorDone,
    /// Nothing happens, and an error comes back.
    ErrorNothing,
    /// It happens; the process stands still before it hears.
    StallAfter,
    /// The process stands still between its decision and the call, and the call goes out when it goes on.
    StallBefore,
    /// The BMC says no.
    Refused,
}

impl Fault {
    /// A word for the report.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::DieBefore => "die before",
            Self::DieAfter => "die after",
            Self::ErrorDone => "error, though done",
            Self::ErrorNothing => "error, nothing done",
            Self::StallAfter => "stall after",
            Self::StallBefore => "stall before (stale)",
            Self::Refused => "refused",
        }
    }

    pub(super) fn draw(request: &Request, rng: &mut Rng) -> Option<Self> {
        let rate = if request.is_lease() { 400 } else { 6_000 };
        if !rng.chance(rate) {
            return None;
        }
        let all = [
            Self::DieBefore,
            Self::DieAfter,
            Self::ErrorDone,
            Self::ErrorNothing,
            Self::StallAfter,
            Self::StallBefore,
            Self::Refused,
        ];
        let fault = rng.pick(&all)?;
        match fault {
            Self::Refused
                if !matches!(
                    request,
                    Request::Bmc {
                        effect: EffectKind::Send { .. },
                        ..
                    }
                ) =>
            {
                Some(Self::ErrorNothing)
            }
            Self::StallBefore if request.changes_machine() => Some(Self::StallAfter),
            fault => Some(fault),
        }
    }
}
