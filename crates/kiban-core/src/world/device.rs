//! One device as a row.

use super::{
    World,
    firmware::{FirmwareSet, FirmwareSets},
    identity,
    interner::{Interner, Sym, hash},
    place::{DomainId, PlaceId, Places},
};
use crate::facts::{DeviceFacts, FailureDomain, FirmwareFacts, Health, Outcome, Reach};
use std::sync::Arc;

/// A device, by number. It stays the same as long as the device is in the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub(crate) u32);

impl DeviceId {
    /// As an index of a list that has a place for every device.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Whether the machine that answered is the one that was written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IdentityMatch {
    NeverRead,
    Same,
    Other,
}

/// What the last operation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastOperation {
    /// Hash of its id: the text is unique to the device and not needed.
    pub(crate) id: u64,
    pub(crate) revision: Sym,
    pub(crate) outcome: Outcome,
    pub(crate) finished_s: i64,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceRow {
    pub(crate) name: Arc<str>,
    pub(crate) keys: [identity::Key; 3],
    pub(crate) last: Option<LastOperation>,
    /// When the firmware was read to differ, in seconds since 1970.
    pub(crate) changed_s: Option<i64>,
    pub(crate) hold: Option<Sym>,
    pub(crate) model: Sym,
    pub(crate) pool: Sym,
    pub(crate) reported: Sym,
    pub(crate) firmware: FirmwareSet,
    pub(crate) place: PlaceId,
    /// Redundancy group; empty: none.
    pub(crate) group: Sym,
    pub(crate) identity: IdentityMatch,
    pub(crate) health: Health,
    pub(crate) reach: Reach,
    pub(crate) fresh: bool,
    /// An operation of its name is in the world.
    pub(crate) operation: bool,
    /// An operation ended and vanished that `last` does not tell of yet.
    pub(crate) echo: bool,
}

impl DeviceRow {
    pub(crate) fn new(
        facts: &DeviceFacts,
        interner: &mut Interner,
        firmware: &mut FirmwareSets,
        places: &mut Places,
    ) -> Self {
        Self {
            name: facts.name.as_str().into(),
            keys: identity::keys(facts),
            last: facts.last_operation.as_ref().map(|last| LastOperation {
                id: hash(&last.id),
                revision: interner.intern(&last.revision),
                outcome: if last.outcome.is_final() {
                    last.outcome
                } else {
                    Outcome::Failed
                },
                finished_s: last.finished_at.as_second(),
            }),
            changed_s: facts.firmware_changed_at.map(jiff::Timestamp::as_second),
            hold: facts.hold.as_ref().map(|hold| interner.intern(&hold.reason)),
            model: interner.intern(&facts.model),
            pool: interner.intern(&facts.pool),
            reported: interner.intern(
                facts
                    .identity
                    .as_ref()
                    .map_or("", |identity| identity.model.trim()),
            ),
            firmware: facts
                .firmware
                .as_deref()
                .map_or(FirmwareSet::NEVER_READ, |list| firmware.hold(list, interner)),
            place: places.intern(&facts.site, &facts.room, &facts.rack, &facts.power, interner),
            group: interner.intern(facts.redundancy_group.trim()),
            identity: identity_match(facts),
            health: facts.health,
            reach: facts.reach,
            fresh: facts.fresh,
            operation: false,
            echo: false,
        }
    }

    /// Whether its last operation, as its status has it, is this one.
    pub(crate) fn tells_of(&self, operation: &str) -> bool {
        self.last.is_some_and(|last| last.id == hash(operation))
    }

    /// Whether it uses up budget by itself, operations aside: what is not known to serve is taken not to.
    pub(crate) fn is_unavailable(&self) -> bool {
        self.hold.is_some()
            || self.health == Health::Critical
            || self.reach != Reach::Reachable
            || !self.fresh
            || self.firmware == FirmwareSet::NEVER_READ
    }
}

fn identity_match(facts: &DeviceFacts) -> IdentityMatch {
    let Some(identity) = &facts.identity else {
        return IdentityMatch::NeverRead;
    };
    let same = |written: &str, read: &str| written.trim().eq_ignore_ascii_case(read.trim());
    let serial = !facts.serial.trim().is_empty() && same(&facts.serial, &identity.serial);
    let uuid = facts
        .uuid
        .as_deref()
        .is_none_or(|uuid| same(uuid, &identity.uuid));
    if serial && uuid {
        IdentityMatch::Same
    } else {
        IdentityMatch::Other
    }
}

/// A device of the world, to be read.
#[derive(Clone, Copy, Debug)]
pub struct Device<'a> {
    id: DeviceId,
    row: &'a DeviceRow,
    world: &'a World,
}

impl<'a> Device<'a> {
    pub(crate) fn new(id: DeviceId, row: &'a DeviceRow, world: &'a World) -> Self {
        Self { id, row, world }
    }

    /// Its number.
    #[must_use]
    pub fn id(self) -> DeviceId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'a str {
        &self.row.name
    }

    /// Name of its model.
    #[must_use]
    pub fn model(self) -> &'a str {
        self.world.text(self.row.model)
    }

    /// Name of the pool that it asks for; empty: none.
    #[must_use]
    pub fn pool(self) -> &'a str {
        self.world.text(self.row.pool)
    }

    /// Where it stands, for people.
    #[must_use]
    pub fn place(self) -> super::DomainName<'a> {
        self.world.domain(self.world.places.rack_of(self.row.place))
    }

    /// Its failure domains of a kind: one, or as many as it has power feeds.
    #[must_use]
    pub fn domains(self, kind: FailureDomain) -> &'a [DomainId] {
        self.world.places.domains_of(self.row.place, kind)
    }

    /// Name of its room; empty: not known.
    #[must_use]
    pub fn room(self) -> &'a str {
        self.world.places.room_name(self.row.place, &self.world.interner)
    }

    /// Its redundancy group; empty: none.
    #[must_use]
    pub fn redundancy_group(self) -> &'a str {
        self.world.text(self.row.group)
    }

    /// Whether it stands in a failure domain.
    #[must_use]
    pub fn is_in(self, domain: DomainId) -> bool {
        FailureDomain::ALL
            .iter()
            .any(|&kind| self.domains(kind).contains(&domain))
    }

    /// Whether it counts as unavailable, operations aside.
    #[must_use]
    pub fn is_unavailable(self) -> bool {
        self.row.is_unavailable()
    }

    /// Whether its BMC was read and gave the serial number and UUID that were written down.
    #[must_use]
    pub fn is_the_machine(self) -> bool {
        self.row.identity == IdentityMatch::Same
    }

    /// The revision that its last operation served, and how that ended.
    #[must_use]
    pub fn last_revision(self) -> Option<(&'a str, Outcome)> {
        self.row
            .last
            .map(|last| (self.world.text(last.revision), last.outcome))
    }

    /// Health as last read.
    #[must_use]
    pub fn health(self) -> Health {
        self.row.health
    }

    /// Whether its BMC answers.
    #[must_use]
    pub fn reach(self) -> Reach {
        self.row.reach
    }

    /// Whether its inventory is young enough.
    #[must_use]
    pub fn is_fresh(self) -> bool {
        self.row.fresh
    }

    /// Why it is held, if it is.
    #[must_use]
    pub fn hold(self) -> Option<&'a str> {
        self.row.hold.map(|reason| self.world.text(reason))
    }

    /// Its firmware, sorted by class and name; None when it was never read.
    #[must_use]
    pub fn firmware(self) -> Option<Vec<FirmwareFacts>> {
        let text = |sym| self.world.text(sym).to_owned();
        let rows = self.world.firmware_rows(self.row.firmware)?;
        let facts = rows.iter().map(|row| FirmwareFacts {
            class: row.class,
            name: text(row.name),
            manufacturer: text(row.manufacturer),
            model: text(row.model),
            version: text(row.version),
            staged: row.staged.map(text),
            updateable: row.updateable,
            lowest_supported: row.lowest_supported.map(text),
        });
        Some(facts.collect())
    }
}
