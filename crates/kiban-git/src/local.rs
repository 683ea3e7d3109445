//! A repository on this machine, read at any revision: what a commit would change, before it is pushed.

use std::path::Path;

use git2::Repository;

use crate::{
    CommitId, printable,
    tree::{self, Snapshot, TreeError, TreeLimits},
};

/// Why a local repository cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The folder is in no repository.
    #[error("find the Git repository of {folder}: {detail}")]
    NoRepository {
        /// The folder.
        folder: String,
        /// What libgit2 says.
        detail: String,
    },
    /// The revision names no commit.
    #[error("find the commit {revision:?}: {detail}")]
    NoCommit {
        /// What was given.
        revision: String,
        /// What libgit2 says.
        detail: String,
    },
    /// The folder lies outside the repository's work tree.
    #[error("find {folder} in the repository: it is outside of its work tree")]
    Outside {
        /// The folder.
        folder: String,
    },
    /// The tree is refused or unreadable.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// The fleet's files below a folder of a work tree, as they are at a revision (`origin/main`, `HEAD~2`, a commit id).
/// Paths in it are from the folder on. Nothing is fetched.
///
/// # Errors
/// When the folder is in no repository, the revision names no commit, or the tree is refused.
pub fn read(folder: &Path, revision: &str) -> Result<Snapshot, LocalError> {
    let shown = folder.display().to_string();
    let detail = |e: &git2::Error| printable(e.message(), 300);
    let repository = Repository::discover(folder).map_err(|e| LocalError::NoRepository {
        folder: shown.clone(),
        detail: detail(&e),
    })?;
    let missing = |e: git2::Error| LocalError::NoCommit {
        revision: printable(revision, 200),
        detail: detail(&e),
    };
    let commit = repository
        .revparse_single(revision)
        .and_then(|object| object.peel_to_commit())
        .map_err(missing)?;
    let below = repository
        .workdir()
        .and_then(|root| root.canonicalize().ok())
        .zip(folder.canonicalize().ok())
        .and_then(|(root, folder)| folder.strip_prefix(root).map(Path::to_path_buf).ok())
        .ok_or(LocalError::Outside { folder: shown })?;
    let below = below.to_string_lossy().replace('\\', "/");
    let mut snapshot = tree::read(&repository, CommitId(commit.id()), &below, &TreeLimits::default())?;
    for file in &mut snapshot.files {
        if let Some(path) = file.path.strip_prefix(&below) {
            file.path = path.trim_start_matches('/').to_owned();
        }
    }
    Ok(snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(repository: &Repository, text: &str) {
        let folder = repository.workdir().unwrap().join("fleet");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("a.yaml"), text).unwrap();
        let mut index = repository.index().unwrap();
        index.add_path(Path::new("fleet/a.yaml")).unwrap();
        let tree = repository.find_tree(index.write_tree().unwrap()).unwrap();
        let me = git2::Signature::now("t", "t@example.com").unwrap();
        let parent = repository.head().ok().and_then(|head| head.peel_to_commit().ok());
        let parents: Vec<&git2::Commit<'_>> = parent.iter().collect();
        repository
            .commit(Some("HEAD"), &me, &me, text, &tree, &parents)
            .unwrap();
    }

    #[test]
    fn a_folder_is_read_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init(folder.path()).unwrap();
        commit(&repository, "one");
        commit(&repository, "two");
        let fleet = folder.path().join("fleet");
        let at = |revision| {
            let files = read(&fleet, revision).unwrap().files;
            let [file] = files.as_slice() else {
                panic!("{files:?}")
            };
            (file.path.clone(), String::from_utf8(file.bytes.clone()).unwrap())
        };
        assert_eq!(at("HEAD"), ("a.yaml".into(), "two".into()));
        assert_eq!(at("HEAD~1"), ("a.yaml".into(), "one".into()));
        assert!(matches!(
            read(&fleet, "nowhere"),
            Err(LocalError::NoCommit { .. })
        ));
        let elsewhere = tempfile::tempdir().unwrap();
        assert!(matches!(
            read(elsewhere.path(), "HEAD"),
            Err(LocalError::NoRepository { .. })
        ));
    }
}
