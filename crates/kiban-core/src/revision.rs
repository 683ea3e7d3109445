//! Revisions and operation ids: digests that are the same in every process and every version of Kiban.

use crate::facts::WantedComponent;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Hex digits of a revision: 64 bits keep two revisions of one pool apart, and fit into a printer column.
const REVISION_DIGITS: usize = 16;

/// Hex digits of a class: a rollout has a few dozen.
const CLASS_DIGITS: usize = 12;

/// Hex digits of an operation's id: a million a year for a century stay apart.
const ID_DIGITS: usize = 20;

fn hex(digest: &[u8], digits: usize) -> String {
    let mut text = String::with_capacity(digest.len() * 2);
    for byte in digest {
        let _ = write!(text, "{byte:02x}");
    }
    text.truncate(digits);
    text
}

/// A digest over parts, each with its length before it, so that no two lists of parts are written alike.
fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize().to_vec()
}

/// Digest of what a baseline wants. The order of the entries is part of it.
#[must_use]
pub fn of_components(components: &[WantedComponent]) -> String {
    let parts: Vec<String> = components
        .iter()
        // A struct of texts, lists and numbers: serde_json writes its fields in the order of the declaration.
        .map(|wanted| serde_json::to_string(wanted).unwrap_or_default())
        .collect();
    hex(&digest(parts.iter().map(String::as_str)), 64)
}

/// The class of a device in a revision: its model, and which version it runs of what is to change (the index of the
/// baseline's entry, and the version).
#[must_use]
pub fn of_class(model: &str, versions: &[(usize, &str)]) -> String {
    let mut versions = versions.to_vec();
    versions.sort_unstable();
    versions.dedup();
    let parts: Vec<String> = versions
        .iter()
        .map(|(entry, version)| format!("{entry} {version}"))
        .collect();
    let all = [model].into_iter().chain(parts.iter().map(String::as_str));
    hex(&digest(all), CLASS_DIGITS)
}

/// The revision of a rollout: what its baseline wants, and how often a person asked to try again.
#[must_use]
pub fn of(components_digest: &str, retry: u32) -> String {
    hex(&digest([components_digest, &retry.to_string()]), REVISION_DIGITS)
}

/// The id of an operation. It follows from what it is for and from `previous`, a stamp of the operation before on the
/// device: a planner that was stopped half-way names the same operation again, and a baseline that goes back to an
/// earlier revision names a new one.
#[must_use]
pub fn operation_id(device: &str, rollout: &str, revision: &str, previous: u64) -> String {
    hex(
        &digest([device, rollout, revision, &previous.to_string()]),
        ID_DIGITS,
    )
}

/// The first digits of a name's digest, to spread files over folders and to tell long names apart.
#[must_use]
pub fn of_name(name: &str, digits: usize) -> String {
    hex(&Sha256::digest(name.as_bytes()), digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_what_they_were_in_every_version() {
        assert_eq!(of("abc", 0), "d9b3f6afd79aa463");
        assert_eq!(of_name("tyo-b07-12", 2).len(), 2);
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(operation_id("ab", "c", "r", 0), operation_id("a", "bc", "r", 0));
        assert_ne!(operation_id("a", "c", "r", 0), operation_id("a", "c", "r", 1));
        assert_ne!(of("abc", 1), of("abc", 2));
    }
}
