//! The files of a commit, read as blobs by id. There is no work tree, so no link can be followed, no filter runs, and
//! no name can escape; what would be dangerous for whoever does check the repository out is refused all the same.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use git2::{ObjectType, Odb, Oid, Repository};

use crate::{CommitId, printable};

/// How much a fleet's folder may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeLimits {
    /// Bytes of one file. 1 MiB: the API server takes no larger object either.
    pub max_file_bytes: u64,
    /// Bytes of all files. 256 MiB: 100,000 devices of 1 KB are 100 MB.
    pub max_total_bytes: u64,
    /// Files that are read. 200,000: a file for each of 100,000 devices, and as much again.
    pub max_files: usize,
    /// Entries that are looked at, whether read or not. A tree can name one subtree a million times.
    pub max_entries: usize,
    /// Folders in folders.
    pub max_depth: usize,
}

impl Default for TreeLimits {
    fn default() -> Self {
        TreeLimits {
            max_file_bytes: 1 << 20,
            max_total_bytes: 256 << 20,
            max_files: 200_000,
            max_entries: 1_000_000,
            max_depth: 32,
        }
    }
}

/// The fleet's files at a commit.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The commit.
    pub commit: CommitId,
    /// The YAML files, in order of their paths.
    pub files: Vec<SourceFile>,
    /// What is there and was not read, in order of its paths.
    pub ignored: Vec<Ignored>,
}

/// One YAML file.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path from the root of the repository, with slashes.
    pub path: String,
    /// The id of its content; the same id is the same content.
    pub oid: String,
    /// Its content as it is in Git: no line ending, filter or encoding is changed.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.path, self.bytes.len())
    }
}

/// Something that is in the folder and was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Its path from the root of the repository.
    pub path: String,
    /// Why.
    pub why: &'static str,
}

/// One entry that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its path from the root of the repository, fit for printing.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

/// Why the files of a commit could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// Objects are missing or broken.
    #[error("read commit {commit} at {path:?}: {detail}")]
    Unreadable {
        /// The commit.
        commit: CommitId,
        /// Where in it.
        path: String,
        /// What libgit2 said.
        detail: String,
    },
    /// The folder is not in the commit.
    #[error("find the folder {path:?} in commit {commit}: {detail}")]
    PathMissing {
        /// The commit.
        commit: CommitId,
        /// The folder.
        path: String,
        /// What is there instead.
        detail: String,
    },
    /// The folder is there and holds no YAML file. An emptied repository is a mistake until someone says otherwise.
    #[error("read the folder {path:?} of commit {commit}: it holds no YAML file ({ignored} others)")]
    NoFiles {
        /// The commit.
        commit: CommitId,
        /// The folder.
        path: String,
        /// How many entries were passed over.
        ignored: usize,
    },
    /// Entries that are refused, at most 50 of them.
    #[error("take the files of commit {commit}: {}", list(problems))]
    Refused {
        /// The commit.
        commit: CommitId,
        /// What is refused and why.
        problems: Vec<Refused>,
    },
    /// The folder holds more than is allowed.
    #[error("read the folder {path:?} of commit {commit}: {detail}")]
    TooLarge {
        /// The commit.
        commit: CommitId,
        /// The folder.
        path: String,
        /// Which limit, and its value.
        detail: String,
    },
}

fn list(problems: &[Refused]) -> String {
    problems
        .iter()
        .map(|p| format!("{}: {}", p.path, p.why))
        .collect::<Vec<_>>()
        .join("; ")
}

impl TreeError {
    /// The stable name of this error, for reasons of conditions and labels of metrics.
    pub fn category(&self) -> &'static str {
        match self {
            TreeError::Unreadable { .. } => "CommitUnreadable",
            TreeError::PathMissing { .. } => "PathMissing",
            TreeError::NoFiles { .. } => "NoFiles",
            TreeError::Refused { .. } => "FilesRefused",
            TreeError::TooLarge { .. } => "FolderTooLarge",
        }
    }
}

/// Problems listed at most: enough to see the pattern, not enough to fill a status.
const MAX_PROBLEMS: usize = 50;

const MODE_TREE: i32 = 0o040_000;
const MODE_LINK: i32 = 0o120_000;
const MODE_SUBMODULE: i32 = 0o160_000;

/// What the first line of a Git LFS pointer is.
const LFS_MAGIC: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Reads the YAML files under `path` at `commit`.
pub(crate) fn read(
    repo: &Repository,
    commit: CommitId,
    path: &str,
    limits: &TreeLimits,
) -> Result<Snapshot, TreeError> {
    let unreadable = |at: &str| {
        let path = at.to_owned();
        move |e: git2::Error| TreeError::Unreadable {
            commit,
            path,
            detail: printable(e.message(), 300),
        }
    };
    let odb = repo.odb().map_err(unreadable(""))?;
    let root = repo.find_commit(commit.0).map_err(unreadable(""))?.tree_id();
    let mut walk = Walk {
        commit,
        limits,
        folder: path,
        odb,
        seen: HashMap::new(),
        entries: 0,
        bytes: 0,
        files: Vec::new(),
        ignored: Vec::new(),
        problems: Vec::new(),
    };
    let start = walk.descend(repo, root, path)?;
    let mut folders = vec![(start, path.trim_matches('/').to_owned(), 0)];
    while let Some((id, at, depth)) = folders.pop() {
        let tree = repo.find_tree(id).map_err(unreadable(&at))?;
        let mut names_here = HashSet::new();
        for entry in tree.iter() {
            walk.visit(
                &at,
                depth,
                entry.name_bytes(),
                entry.filemode_raw(),
                entry.id(),
                &mut folders,
                &mut names_here,
            )?;
        }
    }
    walk.finish()
}

struct Walk<'a> {
    commit: CommitId,
    limits: &'a TreeLimits,
    folder: &'a str,
    odb: Odb<'a>,
    /// Lower-case path to the path as written.
    seen: HashMap<String, String>,
    entries: usize,
    bytes: u64,
    files: Vec<SourceFile>,
    ignored: Vec<Ignored>,
    problems: Vec<Refused>,
}

impl Walk<'_> {
    /// Finds the folder to read.
    fn descend(&self, repo: &Repository, root: Oid, path: &str) -> Result<Oid, TreeError> {
        let missing = |detail: String| TreeError::PathMissing {
            commit: self.commit,
            path: printable(path, 300),
            detail,
        };
        let mut id = root;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            if let Some(why) = bad_name(part.as_bytes()) {
                return Err(missing(why.to_owned()));
            }
            let tree = repo.find_tree(id).map_err(|e| TreeError::Unreadable {
                commit: self.commit,
                path: path.to_owned(),
                detail: printable(e.message(), 300),
            })?;
            let entry = tree
                .get_name_bytes(part.as_bytes())
                .ok_or_else(|| missing(format!("no {part:?}")))?;
            match entry.filemode_raw() {
                MODE_TREE => id = entry.id(),
                MODE_LINK => return Err(missing(format!("{part:?} is a symbolic link"))),
                MODE_SUBMODULE => return Err(missing(format!("{part:?} is a submodule"))),
                _ => return Err(missing(format!("{part:?} is a file"))),
            }
        }
        Ok(id)
    }

    #[allow(clippy::too_many_arguments)] // one entry of a tree is what it is
    fn visit(
        &mut self,
        at: &str,
        depth: usize,
        name: &[u8],
        mode: i32,
        id: Oid,
        folders: &mut Vec<(Oid, String, usize)>,
        names_here: &mut HashSet<Vec<u8>>,
    ) -> Result<(), TreeError> {
        self.entries += 1;
        if self.entries > self.limits.max_entries {
            return Err(self.too_large(format!("more than {} entries", self.limits.max_entries)));
        }
        let text = String::from_utf8_lossy(name);
        let path = if at.is_empty() {
            text.into_owned()
        } else {
            format!("{at}/{text}")
        };
        if let Some(why) = bad_name(name) {
            self.refuse(&path, why);
            return Ok(());
        }
        if !names_here.insert(name.to_vec()) {
            self.refuse(&path, "is there twice");
            return Ok(());
        }
        match mode {
            MODE_LINK => {
                self.refuse(&path, "is a symbolic link");
                return Ok(());
            }
            MODE_SUBMODULE => {
                self.refuse(&path, "is a submodule");
                return Ok(());
            }
            _ => {}
        }
        if let Some(other) = self.seen.insert(path.to_lowercase(), path.clone()) {
            self.refuse(
                &path,
                &format!(
                    "differs from {} only in upper and lower case",
                    printable(&other, 200)
                ),
            );
            return Ok(());
        }
        // Workflows and editors keep YAML of their own in hidden folders.
        if name.starts_with(b".") {
            self.ignored.push(Ignored {
                path,
                why: "its name begins with a dot",
            });
            return Ok(());
        }
        if mode == MODE_TREE {
            if depth >= self.limits.max_depth {
                return Err(self.too_large(format!("folders more than {} deep", self.limits.max_depth)));
            }
            folders.push((id, path, depth + 1));
            return Ok(());
        }
        if !(name.ends_with(b".yaml") || name.ends_with(b".yml")) {
            self.ignored.push(Ignored {
                path,
                why: "it is not a .yaml or .yml file",
            });
            return Ok(());
        }
        self.read_file(path, id)
    }

    fn read_file(&mut self, path: String, id: Oid) -> Result<(), TreeError> {
        let unreadable = |e: git2::Error| TreeError::Unreadable {
            commit: self.commit,
            path: path.clone(),
            detail: printable(e.message(), 300),
        };
        // The header says the size before a 10 GB blob is inflated.
        let (size, kind) = self.odb.read_header(id).map_err(unreadable)?;
        if kind != ObjectType::Blob {
            self.refuse(&path, "is not a file, whatever its mode says");
            return Ok(());
        }
        if size as u64 > self.limits.max_file_bytes {
            let why = format!("has {size} bytes; {} are allowed", self.limits.max_file_bytes);
            self.refuse(&path, &why);
            return Ok(());
        }
        self.bytes += size as u64;
        if self.bytes > self.limits.max_total_bytes {
            return Err(self.too_large(format!("more than {} bytes of YAML", self.limits.max_total_bytes)));
        }
        if self.files.len() >= self.limits.max_files {
            return Err(self.too_large(format!("more than {} YAML files", self.limits.max_files)));
        }
        let bytes = self.odb.read(id).map_err(unreadable)?.data().to_vec();
        if bytes.starts_with(LFS_MAGIC) {
            self.refuse(
                &path,
                "is a Git LFS pointer, not the file: commit the file itself",
            );
            return Ok(());
        }
        self.files.push(SourceFile {
            path,
            oid: id.to_string(),
            bytes,
        });
        Ok(())
    }

    fn refuse(&mut self, path: &str, why: &str) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Refused {
                path: printable(path, 300),
                why: why.to_owned(),
            });
        }
    }

    fn too_large(&self, detail: String) -> TreeError {
        TreeError::TooLarge {
            commit: self.commit,
            path: self.folder.to_owned(),
            detail,
        }
    }

    fn finish(mut self) -> Result<Snapshot, TreeError> {
        if !self.problems.is_empty() {
            self.problems.sort_by(|a, b| a.path.cmp(&b.path));
            return Err(TreeError::Refused {
                commit: self.commit,
                problems: self.problems,
            });
        }
        if self.files.is_empty() {
            return Err(TreeError::NoFiles {
                commit: self.commit,
                path: self.folder.to_owned(),
                ignored: self.ignored.len(),
            });
        }
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.ignored.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Snapshot {
            commit: self.commit,
            files: self.files,
            ignored: self.ignored,
        })
    }
}

/// What is wrong with the name of an entry, if anything: names that leave the folder, or that some file system takes
/// for Git's own folder. The rules are those of `git fsck` and a little more.
pub(crate) fn bad_name(name: &[u8]) -> Option<&'static str> {
    let Ok(text) = std::str::from_utf8(name) else {
        return Some("has a name that is not UTF-8");
    };
    if text.is_empty() {
        return Some("has an empty name");
    }
    if text == "." || text == ".." {
        return Some("would leave its folder");
    }
    if text.contains('/') {
        return Some("has a slash in its name");
    }
    if text.contains(['\\', ':']) {
        return Some("has a backslash or a colon in its name");
    }
    if text.chars().any(char::is_control) {
        return Some("has a control character in its name");
    }
    if text.len() > 255 {
        return Some("has a name longer than 255 bytes");
    }
    // HFS+ ignores these characters, NTFS trailing dots and spaces, and both ignore case.
    let visible: String = text
        .chars()
        .filter(|c| !matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'))
        .collect();
    let folded = visible.to_lowercase();
    let folded = folded.trim_end_matches(['.', ' ']);
    if folded == ".git" || folded == "git~1" {
        return Some("is a name for Git's own folder");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_some_system_takes_for_something_else_are_refused() {
        for name in [
            &b""[..],
            b".",
            b"..",
            b"a/b",
            b"a\\b",
            b"c:",
            b".git",
            b".GIT",
            b".Git. ",
            b"git~1",
            b"GIT~1",
            b"\xff",
            b"a\x1b[31m",
            b"a\nb",
            "\u{200c}.g\u{200d}it".as_bytes(),
            &[b'a'; 256],
        ] {
            assert!(bad_name(name).is_some(), "{:?}", String::from_utf8_lossy(name));
        }
        for name in [
            "devices.yaml",
            ".gitignore",
            "git",
            "日本.yaml",
            "a b.yaml",
            "...",
            "git~2",
        ] {
            assert_eq!(bad_name(name.as_bytes()), None, "{name}");
        }
    }
}
