//! Chance, from a seed: SplitMix64 (Steele, Lea and Flood, 2014), which is small, fast and the same everywhere.

/// A source of chance.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed ^ 0x6b69_6261_6e00_0000)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both included.
    pub(super) fn range(&mut self, low: i64, high: i64) -> i64 {
        let width = high.saturating_sub(low).unsigned_abs().saturating_add(1);
        low.saturating_add_unsigned(self.next() % width)
    }

    /// Whether something of this many in a million happens.
    pub(super) fn chance(&mut self, in_a_million: u64) -> bool {
        self.next() % 1_000_000 < in_a_million
    }

    pub(super) fn pick<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        let at = usize::try_from(self.next() % u64::try_from(list.len()).ok()?.max(1)).ok()?;
        list.get(at).copied()
    }
}
