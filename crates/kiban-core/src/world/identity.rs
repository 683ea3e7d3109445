//! Who claims to be which machine: serial numbers, UUIDs and BMC addresses that more than one device gives.

use super::{device::DeviceId, interner::hash};
use crate::facts::DeviceFacts;
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet};

/// Hash of one claim; 0 is none. Two claims that meet by chance (one in 10^19) would leave two devices alone, no worse.
pub(crate) type Key = u64;

/// The three claims of a device.
pub(crate) fn keys(facts: &DeviceFacts) -> [Key; 3] {
    let key = |kind: &str, text: &str| match text {
        "" => 0,
        text => hash(&format!("{kind}\0{text}")),
    };
    let serial = match facts.serial.trim() {
        "" => String::new(),
        // Serial numbers are unique within a product line only.
        serial => format!("{}\0{}", facts.model, serial.to_lowercase()),
    };
    let uuid = facts.uuid.as_deref().unwrap_or_default().trim().to_lowercase();
    let uuid = if uuid.chars().all(|c| c == '0' || c == '-') {
        ""
    } else {
        &uuid
    };
    let url = facts.bmc_url.trim().trim_end_matches('/').to_lowercase();
    [key("serial", &serial), key("uuid", uuid), key("url", &url)]
}

/// An index of claims. Almost every claim has one device; the others are kept apart.
#[derive(Debug, Default)]
pub(crate) struct Identities {
    single: HashMap<Key, DeviceId>,
    shared: BTreeMap<Key, BTreeSet<DeviceId>>,
}

impl Identities {
    pub(crate) fn insert(&mut self, id: DeviceId, keys: [Key; 3]) {
        for key in keys.into_iter().filter(|&key| key != 0) {
            if let Some(devices) = self.shared.get_mut(&key) {
                devices.insert(id);
            } else if let Some(&other) = self.single.get(&key) {
                if other != id {
                    self.single.remove(&key);
                    self.shared.insert(key, BTreeSet::from([id, other]));
                }
            } else {
                self.single.insert(key, id);
            }
        }
    }

    pub(crate) fn remove(&mut self, id: DeviceId, keys: [Key; 3]) {
        for key in keys.into_iter().filter(|&key| key != 0) {
            if let Some(devices) = self.shared.get_mut(&key) {
                devices.remove(&id);
                if devices.len() < 2 {
                    if let Some(&left) = devices.first() {
                        self.single.insert(key, left);
                    }
                    self.shared.remove(&key);
                }
            } else if self.single.get(&key) == Some(&id) {
                self.single.remove(&key);
            }
        }
    }

    pub(crate) fn shared(&self) -> impl Iterator<Item = (Key, Vec<DeviceId>)> {
        self.shared
            .iter()
            .map(|(&key, devices)| (key, devices.iter().copied().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_shared_until_only_one_device_makes_it() {
        let mut identities = Identities::default();
        let [a, b, c] = [DeviceId(1), DeviceId(2), DeviceId(3)];
        identities.insert(a, [7, 0, 1]);
        identities.insert(b, [7, 0, 2]);
        identities.insert(c, [7, 0, 3]);
        identities.insert(a, [7, 0, 1]);
        assert_eq!(identities.shared().collect::<Vec<_>>(), [(7, vec![a, b, c])]);
        identities.remove(b, [7, 0, 2]);
        assert_eq!(identities.shared().count(), 1);
        identities.remove(a, [7, 0, 1]);
        assert_eq!(identities.shared().count(), 0);
        identities.insert(b, [7, 0, 2]);
        assert_eq!(identities.shared().collect::<Vec<_>>(), [(7, vec![b, c])]);
    }

    #[test]
    fn no_uuid_and_a_zero_uuid_are_no_claim() {
        let zero = DeviceFacts {
            uuid: Some("00000000-0000-0000-0000-000000000000".into()),
            ..DeviceFacts::default()
        };
        assert_eq!(keys(&zero), [0, 0, 0]);
    }

    #[test]
    fn an_address_with_and_without_a_slash_is_one() {
        let facts = |url: &str| DeviceFacts {
            bmc_url: url.into(),
            ..DeviceFacts::default()
        };
        assert_eq!(keys(&facts("https://BMC-1/")), keys(&facts("https://bmc-1")));
    }
}
