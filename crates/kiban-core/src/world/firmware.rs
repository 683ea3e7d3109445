//! Firmware vectors, each held once: thousands of devices of one model run the same.

use super::interner::{Interner, Sym};
use crate::{component::ComponentClass, facts::FirmwareFacts};
use hashbrown::HashMap;
use std::sync::Arc;

/// A firmware vector, by number; 0 means never read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FirmwareSet(pub(crate) u32);

impl FirmwareSet {
    /// No reading yet.
    pub const NEVER_READ: Self = Self(0);
}

/// Firmware of one component, with its texts as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FirmwareRow {
    pub(crate) class: ComponentClass,
    pub(crate) name: Sym,
    pub(crate) manufacturer: Sym,
    pub(crate) model: Sym,
    pub(crate) version: Sym,
    pub(crate) staged: Option<Sym>,
    pub(crate) updateable: Option<bool>,
    pub(crate) lowest_supported: Option<Sym>,
}

#[derive(Debug, Default)]
struct Slot {
    rows: Arc<[FirmwareRow]>,
    used: u32,
}

/// All firmware vectors that some device runs.
#[derive(Debug, Default)]
pub(crate) struct FirmwareSets {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashMap<Arc<[FirmwareRow]>, u32>,
}

impl FirmwareSets {
    /// The number of a vector; the caller gives it back with [`Self::release`]. The order of the facts does not matter:
    /// BMCs list their inventory in any order.
    pub(crate) fn hold(&mut self, firmware: &[FirmwareFacts], interner: &mut Interner) -> FirmwareSet {
        let mut sorted: Vec<&FirmwareFacts> = firmware.iter().collect();
        sorted.sort();
        let rows: Vec<FirmwareRow> = sorted
            .into_iter()
            .map(|facts| FirmwareRow {
                class: facts.class,
                name: interner.intern(&facts.name),
                manufacturer: interner.intern(&facts.manufacturer),
                model: interner.intern(&facts.model),
                version: interner.intern(facts.version.trim()),
                staged: facts
                    .staged
                    .as_deref()
                    .map(|staged| interner.intern(staged.trim())),
                updateable: facts.updateable,
                lowest_supported: facts
                    .lowest_supported
                    .as_deref()
                    .map(|lowest| interner.intern(lowest.trim())),
            })
            .collect();
        if let Some(&at) = self.index.get(rows.as_slice()) {
            if let Some(slot) = self.slots.get_mut(at as usize) {
                slot.used = slot.used.saturating_add(1);
            }
            return FirmwareSet(at + 1);
        }
        let slot = Slot {
            rows: rows.into(),
            used: 1,
        };
        let rows = Arc::clone(&slot.rows);
        let at = match self.free.pop() {
            Some(at) => {
                if let Some(empty) = self.slots.get_mut(at as usize) {
                    *empty = slot;
                }
                at
            }
            None => {
                self.slots.push(slot);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX - 1)
            }
        };
        self.index.insert(rows, at);
        FirmwareSet(at + 1)
    }

    pub(crate) fn release(&mut self, set: FirmwareSet) {
        let Some(at) = set.0.checked_sub(1) else { return };
        let Some(slot) = self.slots.get_mut(at as usize) else {
            return;
        };
        slot.used = slot.used.saturating_sub(1);
        if slot.used == 0 {
            self.index.remove(&slot.rows);
            *slot = Slot::default();
            self.free.push(at);
        }
    }

    pub(crate) fn rows(&self, set: FirmwareSet) -> Option<&[FirmwareRow]> {
        let at = set.0.checked_sub(1)?;
        self.slots.get(at as usize).map(|slot| &*slot.rows)
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_vectors_are_one_in_any_order_and_freed_when_unused() {
        let mut interner = Interner::default();
        let mut sets = FirmwareSets::default();
        let bmc = FirmwareFacts::new(ComponentClass::Bmc, "iDRAC", "7.0");
        let bios = FirmwareFacts::new(ComponentClass::Bios, "BIOS", "1.2");
        let one = sets.hold(&[bmc.clone(), bios.clone()], &mut interner);
        let two = sets.hold(&[bios, bmc.clone()], &mut interner);
        assert_eq!(one, two);
        let other = sets.hold(&[bmc], &mut interner);
        assert_ne!(one, other);
        sets.release(one);
        assert!(sets.rows(two).is_some());
        sets.release(two);
        assert_eq!(sets.len(), 1);
        sets.release(FirmwareSet::NEVER_READ);
        let none = sets.hold(&[], &mut interner);
        assert_eq!(none, one, "the free slot is used again");
        assert_ne!(none, FirmwareSet::NEVER_READ, "read and empty is not never read");
    }
}
