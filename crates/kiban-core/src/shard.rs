//! Shards: which replica works on a device.

/// The shard of a device, of `count`: FNV-1a, the same in every version and on every machine. A count of 0 is read as 1.
#[must_use]
pub fn of(device: &str, count: u32) -> u32 {
    let hash = device.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    // The low bits of FNV are its best ones, but names that differ in the last letter alone need the fold.
    (hash ^ (hash >> 16)) % count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_spread_over_the_shards() {
        let mut count = [0_u32; 16];
        for n in 0..4_800 {
            count[of(&format!("tyo-b{:02}-{:02}", n / 48, n % 48), 16) as usize] += 1;
        }
        assert!(count.iter().all(|n| (150..450).contains(n)), "{count:?}");
        assert_eq!(of("tyo-b07-12", 16), of("tyo-b07-12", 16));
        assert_eq!(of("tyo-b07-12", 0), 0);
    }
}
