//! Full inventories on their way from the observer to the ledger.
//!
//! A device's status holds the digest, the ledger holds the text. Between the two it lies here, on disk, so that a
//! hundred thousand of them cost no memory. It is a cache: what a restart loses, the observer reads again.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Keeps inventories by device and digest.
#[derive(Clone, Debug)]
pub struct Inventories {
    dir: Arc<Path>,
    wanted: Arc<Mutex<BTreeSet<String>>>,
}

impl Inventories {
    /// Keeps them in a folder of the cache.
    pub fn open(cache_dir: &Path) -> io::Result<Self> {
        let dir = cache_dir.join("inventory");
        std::fs::create_dir_all(&dir)?;
        Ok(Self {
            dir: dir.into(),
            wanted: Arc::default(),
        })
    }

    /// Observer: keeps the text of `device`'s inventory whose digest is in its status. YAML, without secrets.
    pub fn put(&self, device: &str, digest: &str, text: &str) -> io::Result<()> {
        let Some(path) = self.path(device, digest) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a device's name or digest is no file name",
            ));
        };
        let part = path.with_extension("part");
        std::fs::write(&part, text)?;
        std::fs::rename(&part, &path)?;
        self.lock().remove(device);
        Ok(())
    }

    /// Ledger: the text, if it is here.
    #[must_use]
    pub fn get(&self, device: &str, digest: &str) -> Option<String> {
        std::fs::read_to_string(self.path(device, digest)?).ok()
    }

    /// Ledger: the text is pushed and not needed here any more.
    pub fn forget(&self, device: &str, digest: &str) {
        if let Some(path) = self.path(device, digest) {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Ledger: a device's inventory is missing here; its next reading should put it, changed or not.
    pub fn want(&self, device: &str) {
        self.lock().insert(device.to_owned());
    }

    /// Observer: whether the ledger asked for this device's inventory.
    #[must_use]
    pub fn is_wanted(&self, device: &str) -> bool {
        self.lock().contains(device)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, device: &str, digest: &str) -> Option<PathBuf> {
        let plain = |text: &str| {
            !text.is_empty()
                && text.len() <= 253
                && !text.starts_with('.')
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        // A digest may be written `sha256:…`; a colon is no part of a file's name everywhere.
        let digest = digest.rsplit(':').next().unwrap_or_default();
        (plain(device) && plain(digest)).then(|| self.dir.join(format!("{device}@{digest}.yaml")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_is_kept_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let inventories = Inventories::open(dir.path()).unwrap();
        inventories.want("a1");
        assert!(inventories.is_wanted("a1"));
        inventories.put("a1", "sha256:ab", "x: 1\n").unwrap();
        assert!(!inventories.is_wanted("a1"));
        assert_eq!(inventories.get("a1", "sha256:ab").as_deref(), Some("x: 1\n"));
        assert_eq!(
            inventories.get("a1", "sha256:cd"),
            None,
            "another digest is another inventory"
        );
        inventories.forget("a1", "sha256:ab");
        assert_eq!(inventories.get("a1", "sha256:ab"), None);
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let inventories = Inventories::open(dir.path()).unwrap();
        for name in ["", "..", "../x", "a/b", ".hidden"] {
            assert!(inventories.put(name, "ab", "").is_err(), "{name}");
        }
    }
}
