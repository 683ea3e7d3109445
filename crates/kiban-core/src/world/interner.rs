//! Texts that many rows share, held once and spoken of by number.

use hashbrown::HashTable;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

/// A text of the world, by number. Only the world that gave it can read it; 0 is the empty text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sym(pub(crate) u32);

impl Sym {
    /// The empty text.
    pub const EMPTY: Self = Self(0);

    /// Whether it is the empty text.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::EMPTY
    }

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Texts by number. Nothing is ever given back: what is kept here is names of kinds, racks, components and versions,
/// of which a fleet sees few; what is unique to a device is kept elsewhere.
#[derive(Debug)]
pub(crate) struct Interner {
    texts: Vec<Box<str>>,
    index: HashTable<u32>,
}

/// The hash of a text, the same in every process.
pub(crate) fn hash(text: &str) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(text)
}

impl Default for Interner {
    fn default() -> Self {
        let mut interner = Self {
            texts: Vec::new(),
            index: HashTable::new(),
        };
        interner.intern("");
        interner
    }
}

impl Interner {
    pub(crate) fn intern(&mut self, text: &str) -> Sym {
        let hashed = hash(text);
        let texts = &self.texts;
        let is_it = |&at: &u32| texts.get(at as usize).is_some_and(|have| &**have == text);
        if let Some(&at) = self.index.find(hashed, is_it) {
            return Sym(at);
        }
        // 4 billion distinct texts do not fit into any machine that this runs on.
        let at = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.texts.push(text.into());
        let texts = &self.texts;
        self.index.insert_unique(hashed, at, |&at| {
            texts.get(at as usize).map_or(0, |text| hash(text))
        });
        Sym(at)
    }

    pub(crate) fn find(&self, text: &str) -> Option<Sym> {
        let is_it = |&at: &u32| self.texts.get(at as usize).is_some_and(|have| &**have == text);
        self.index.find(hash(text), is_it).copied().map(Sym)
    }

    pub(crate) fn text(&self, sym: Sym) -> &str {
        self.texts.get(sym.index()).map_or("", |text| text)
    }

    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_has_the_same_number() {
        let mut interner = Interner::default();
        let one = interner.intern("r650");
        assert_eq!(interner.intern("r650"), one);
        assert_ne!(interner.intern("sr630"), one);
        assert_eq!(interner.text(one), "r650");
        assert_eq!(interner.intern(""), Sym::EMPTY);
        assert_eq!(interner.find("sr650"), None);
    }
}
