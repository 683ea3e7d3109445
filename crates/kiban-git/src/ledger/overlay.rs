//! The tip's trees with our changes on top. Only the folders on the way to a changed file are read or rewritten.

use std::collections::{BTreeMap, HashMap};

use git2::{ObjectType, Odb, Oid, Repository};

use super::{LedgerError, printable};

/// New objects, in the order in which they were made.
pub(super) struct Staged {
    pub(super) order: Vec<Oid>,
    pub(super) objects: HashMap<Oid, (ObjectType, Vec<u8>)>,
}

/// Trees as changed so far.
pub(super) struct Overlay<'r> {
    odb: Odb<'r>,
    staged: Staged,
    root: Folder,
}

#[derive(Default)]
struct Folder {
    /// The tree as it is stored; `None` for a new or a changed one.
    id: Option<Oid>,
    /// By Git's sort key: the name, with a slash at the end of a folder's. `None`: not read yet.
    entries: Option<BTreeMap<Vec<u8>, Item>>,
}

enum Item {
    Folder(Folder),
    /// A file, or whatever a person put there by hand.
    Other {
        mode: Vec<u8>,
        id: Oid,
    },
}

const MODE_FOLDER: &[u8] = b"40000";
const MODE_FILE: &[u8] = b"100644";

impl<'r> Overlay<'r> {
    pub(super) fn new(repo: &'r Repository, tip: Option<Oid>) -> Result<Self, git2::Error> {
        let root = match tip {
            Some(tip) => Folder {
                id: Some(repo.find_commit(tip)?.tree_id()),
                entries: None,
            },
            None => Folder {
                id: None,
                entries: Some(BTreeMap::new()),
            },
        };
        let staged = Staged {
            order: Vec::new(),
            objects: HashMap::new(),
        };
        Ok(Overlay {
            odb: repo.odb()?,
            staged,
            root,
        })
    }

    /// Keeps a new object until the pack is written.
    pub(super) fn stage(&mut self, kind: ObjectType, data: Vec<u8>) -> Result<Oid, git2::Error> {
        stage(&mut self.staged, kind, data)
    }

    /// The id of a file.
    pub(super) fn blob(&mut self, path: &str) -> Result<Option<Oid>, LedgerError> {
        let (folders, name) = split(path);
        let mut folder = &mut self.root;
        for part in folders {
            folder.load(&self.staged, &self.odb)?;
            folder = match folder
                .entries
                .as_mut()
                .and_then(|entries| entries.get_mut(&key(part, true)))
            {
                Some(Item::Folder(folder)) => folder,
                _ => return Ok(None),
            };
        }
        folder.load(&self.staged, &self.odb)?;
        match folder
            .entries
            .as_ref()
            .and_then(|entries| entries.get(&key(name, false)))
        {
            Some(Item::Other { id, .. }) => Ok(Some(*id)),
            _ => Ok(None),
        }
    }

    /// The content of a blob, staged or stored.
    pub(super) fn content(&self, id: Oid) -> Result<Vec<u8>, git2::Error> {
        match self.staged.objects.get(&id) {
            Some((_, data)) => Ok(data.clone()),
            None => Ok(self.odb.read(id)?.data().to_vec()),
        }
    }

    /// Gives a file its content.
    pub(super) fn write(&mut self, path: &str, content: &[u8]) -> Result<(), LedgerError> {
        let blob = stage(&mut self.staged, ObjectType::Blob, content.to_vec())?;
        let in_the_way = |what: &str| LedgerError::PathRefused {
            path: printable(path, 200),
            why: format!("is in the way of {what} that is there"),
        };
        let (folders, name) = split(path);
        let mut folder = &mut self.root;
        for part in folders {
            let entries = folder.change(&self.staged, &self.odb)?;
            if entries.contains_key(&key(part, false)) {
                return Err(in_the_way("a file"));
            }
            let item = entries.entry(key(part, true)).or_insert_with(|| {
                Item::Folder(Folder {
                    id: None,
                    entries: Some(BTreeMap::new()),
                })
            });
            folder = match item {
                Item::Folder(folder) => folder,
                Item::Other { .. } => return Err(in_the_way("a submodule")),
            };
        }
        let entries = folder.change(&self.staged, &self.odb)?;
        if entries.contains_key(&key(name, true)) {
            return Err(in_the_way("a folder"));
        }
        entries.insert(
            key(name, false),
            Item::Other {
                mode: MODE_FILE.to_vec(),
                id: blob,
            },
        );
        Ok(())
    }

    /// Stages the trees that changed and returns the root's id.
    pub(super) fn write_trees(&mut self) -> Result<Oid, git2::Error> {
        self.root.write(&mut self.staged)
    }

    pub(super) fn into_staged(self) -> Staged {
        self.staged
    }
}

impl Folder {
    fn load(&mut self, staged: &Staged, odb: &Odb<'_>) -> Result<(), git2::Error> {
        if self.entries.is_some() {
            return Ok(());
        }
        let Some(id) = self.id else {
            self.entries = Some(BTreeMap::new());
            return Ok(());
        };
        self.entries = Some(match staged.objects.get(&id) {
            Some((_, data)) => parse(data)?,
            None => parse(odb.read(id)?.data())?,
        });
        Ok(())
    }

    /// The entries, to be changed: the folder is no longer what is stored.
    fn change(
        &mut self,
        staged: &Staged,
        odb: &Odb<'_>,
    ) -> Result<&mut BTreeMap<Vec<u8>, Item>, git2::Error> {
        self.load(staged, odb)?;
        self.id = None;
        Ok(self.entries.get_or_insert_default())
    }

    fn write(&mut self, staged: &mut Staged) -> Result<Oid, git2::Error> {
        if let Some(id) = self.id {
            return Ok(id);
        }
        let mut data = Vec::new();
        for (key, item) in self.entries.get_or_insert_default() {
            let (mode, name, id) = match item {
                Item::Folder(folder) => (MODE_FOLDER, &key[..key.len() - 1], folder.write(staged)?),
                Item::Other { mode, id } => (mode.as_slice(), &key[..], *id),
            };
            data.extend_from_slice(mode);
            data.push(b' ');
            data.extend_from_slice(name);
            data.push(0);
            data.extend_from_slice(id.as_bytes());
        }
        let id = stage(staged, ObjectType::Tree, data)?;
        self.id = Some(id);
        Ok(id)
    }
}

fn stage(staged: &mut Staged, kind: ObjectType, data: Vec<u8>) -> Result<Oid, git2::Error> {
    let id = Oid::hash_object(kind, &data)?;
    if !staged.objects.contains_key(&id) {
        // An object that is stored already is stored twice now and then; asking for each would be a search through every
        // pack, and for a new one libgit2 lists the folder again to be sure.
        staged.order.push(id);
        staged.objects.insert(id, (kind, data));
    }
    Ok(id)
}

fn split(path: &str) -> (impl Iterator<Item = &str>, &str) {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    (folders.split('/').filter(|part| !part.is_empty()), name)
}

fn key(name: &str, folder: bool) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    if folder {
        key.push(b'/');
    }
    key
}

fn parse(data: &[u8]) -> Result<BTreeMap<Vec<u8>, Item>, git2::Error> {
    let broken = || git2::Error::from_str("a tree of the ledger is broken");
    let mut entries = BTreeMap::new();
    let mut rest = data;
    while !rest.is_empty() {
        let space = rest.iter().position(|b| *b == b' ').ok_or_else(broken)?;
        let nul = rest
            .iter()
            .position(|b| *b == 0)
            .filter(|nul| *nul > space)
            .ok_or_else(broken)?;
        let (mode, name) = (&rest[..space], &rest[space + 1..nul]);
        let id = Oid::from_bytes(rest.get(nul + 1..nul + 21).ok_or_else(broken)?)?;
        rest = &rest[nul + 21..];
        let mut key = name.to_vec();
        if mode == MODE_FOLDER {
            key.push(b'/');
            entries.insert(
                key,
                Item::Folder(Folder {
                    id: Some(id),
                    entries: None,
                }),
            );
        } else {
            entries.insert(
                key,
                Item::Other {
                    mode: mode.to_vec(),
                    id,
                },
            );
        }
    }
    Ok(entries)
}
