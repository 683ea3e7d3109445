//! Desired state as it comes in: a mirror of one branch, its head, and who signed it.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use git2::{Commit, Oid};
use jiff::Timestamp;

pub use crate::cache::CacheError;
use crate::{
    CommitId,
    cache::Cache,
    printable,
    remote::{BranchTip, Connection, Remote, RemoteError},
    signature::{self, SignatureStatus, Verification},
    tree::{self, Snapshot, TreeError, TreeLimits},
};

/// Where desired state comes from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The repository and branch.
    pub remote: Remote,
    /// The folder in the repository that holds the fleet; empty for its root. Slashes, no leading one.
    pub path: String,
    /// Which signatures are wanted on the head commit.
    pub verification: Verification,
    /// How much may be in the folder.
    pub limits: TreeLimits,
}

/// A person as a commit names them. Anyone can write anything here; only a signature says who it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The name.
    pub name: String,
    /// The mail address.
    pub email: String,
}

/// The head of the branch.
#[derive(Clone, Debug)]
pub struct Head {
    /// The commit.
    pub commit: CommitId,
    /// Who wrote it, by its own account.
    pub author: Person,
    /// Who committed it, by its own account.
    pub committer: Person,
    /// When it was committed, by its own account: it may be 1970 or 2106, so nothing may be decided by it.
    pub time: Timestamp,
    /// The first line of its message, without control characters, at most 200 characters.
    pub subject: String,
    /// What its signature says.
    pub signature: SignatureStatus,
}

/// How the head relates to the commit that was applied before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ancestry {
    /// It is the same commit.
    Same,
    /// It descends from the previous one.
    FastForward,
    /// It is an ancestor of the previous one: someone pushed the branch back, by mistake or as an attack.
    Rewound,
    /// Neither descends from the other, or the previous one is no longer to be found: the branch was rewritten.
    Diverged,
}

/// Why the desired state could not be had. In each case the last good one stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The remote could not be used.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The branch is gone, or was never there.
    #[error(
        "find branch {branch:?} in {url}: it is not there; there is {}",
        list_branches(others)
    )]
    BranchMissing {
        /// The remote.
        url: String,
        /// The branch.
        branch: String,
        /// Some branches that are there.
        others: Vec<String>,
    },
    /// The repository has no branch at all.
    #[error("find branch {branch:?} in {url}: the repository is empty")]
    RepositoryEmpty {
        /// The remote.
        url: String,
        /// The branch.
        branch: String,
    },
    /// The local cache could not be used.
    #[error("use the local copy of the repository")]
    Cache(#[from] CacheError),
    /// The commit cannot be read, even from a fresh copy.
    #[error("read commit {commit}: {detail}")]
    CommitUnreadable {
        /// The commit.
        commit: String,
        /// What was seen.
        detail: String,
    },
    /// The tree is refused or unreadable.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

fn list_branches(others: &[String]) -> String {
    if others.is_empty() {
        "nothing else".to_owned()
    } else {
        others.join(", ")
    }
}

impl SourceError {
    /// The stable name of this error, for reasons of conditions and labels of metrics.
    pub fn category(&self) -> &'static str {
        match self {
            SourceError::Remote(e) => e.category(),
            SourceError::BranchMissing { .. } => "BranchMissing",
            SourceError::RepositoryEmpty { .. } => "RepositoryEmpty",
            SourceError::Cache(_) => "CacheFailed",
            SourceError::CommitUnreadable { .. } => "CommitUnreadable",
            SourceError::Tree(e) => e.category(),
        }
    }

    /// Whether the same call may succeed later with nothing changed by a person.
    pub fn is_transient(&self) -> bool {
        match self {
            SourceError::Remote(e) => e.is_transient(),
            SourceError::Cache(_) => true,
            _ => false,
        }
    }
}

/// The local copy of one branch. One process at a time may have it open.
pub struct Mirror {
    cache: Cache,
    source: Source,
}

/// Where the mirror remembers the tip it fetched. Outside `refs/heads`, so that no default branch gets in its way.
const HEAD_REFERENCE: &str = "refs/kiban/desired";

impl Mirror {
    /// Opens the mirror in `cache_dir`, making it where it is absent or broken. Nothing is fetched yet.
    pub fn open(cache_dir: &Path, source: Source) -> Result<Mirror, SourceError> {
        let cache = Cache::open(cache_dir, "desired", source.remote.url.as_str())?;
        Ok(Mirror { cache, source })
    }

    /// Where desired state comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Fetches the branch and reads its head. By `deadline` it has ended, one way or the other.
    pub fn fetch(&mut self, deadline: Instant) -> Result<Head, SourceError> {
        match self.fetch_once(deadline) {
            // A broken copy is remade once; that nothing else is wrong is seen by its succeeding then.
            Err(SourceError::CommitUnreadable { .. } | SourceError::Tree(TreeError::Unreadable { .. })) => {
                tracing::warn!(url = %self.source.remote.url, "the local copy is broken, fetching all of it again");
                self.cache.reset(self.source.remote.url.as_str())?;
                self.fetch_once(deadline)
            }
            result => result,
        }
    }

    fn fetch_once(&self, deadline: Instant) -> Result<Head, SourceError> {
        let repo = self.cache.repo();
        let (url, branch) = (
            self.source.remote.url.to_string(),
            self.source.remote.branch.to_string(),
        );
        let tip = match Connection::start(&self.source.remote, deadline)?.fetch(repo)? {
            BranchTip::At(tip) => tip,
            BranchTip::Missing(others) => return Err(SourceError::BranchMissing { url, branch, others }),
            BranchTip::EmptyRepository => return Err(SourceError::RepositoryEmpty { url, branch }),
        };
        let head = self.head(tip)?;
        // Reading it now finds a broken copy while the remote is at hand to mend it.
        if let Err(e @ TreeError::Unreadable { .. }) = self.read_tree(head.commit) {
            return Err(e.into());
        }
        let kept = repo.reference(HEAD_REFERENCE, tip, true, "fetched");
        kept.map_err(|source| CacheError::Repository {
            path: PathBuf::from(HEAD_REFERENCE),
            source,
        })?;
        Ok(head)
    }

    fn head(&self, tip: Oid) -> Result<Head, SourceError> {
        let unreadable = |e: git2::Error| SourceError::CommitUnreadable {
            commit: tip.to_string(),
            detail: printable(e.message(), 300),
        };
        let commit = self.cache.repo().find_commit(tip).map_err(unreadable)?;
        let signature = signature::verify(self.cache.repo(), tip, &self.source.verification);
        Ok(Head {
            commit: CommitId(tip),
            author: person(&commit.author()),
            committer: person(&commit.committer()),
            time: commit_time(&commit),
            subject: subject(&commit),
            signature,
        })
    }

    /// Reads the fleet's files at a commit that was fetched, without a work tree.
    pub fn read_tree(&self, commit: CommitId) -> Result<Snapshot, TreeError> {
        tree::read(self.cache.repo(), commit, &self.source.path, &self.source.limits)
    }

    /// How `head` relates to `previous`, the commit that was applied last.
    pub fn ancestry(&self, previous: CommitId, head: CommitId) -> Ancestry {
        let repo = self.cache.repo();
        if previous == head {
            return Ancestry::Same;
        }
        // A commit that is not here is not an ancestor of one whose whole history is.
        let descends = |from: Oid, of: Oid| repo.graph_descendant_of(from, of).unwrap_or(false);
        if descends(head.0, previous.0) {
            Ancestry::FastForward
        } else if repo.find_commit(previous.0).is_ok() && descends(previous.0, head.0) {
            Ancestry::Rewound
        } else {
            Ancestry::Diverged
        }
    }
}

fn person(signature: &git2::Signature<'_>) -> Person {
    Person {
        name: printable(&String::from_utf8_lossy(signature.name_bytes()), 200),
        email: printable(&String::from_utf8_lossy(signature.email_bytes()), 200),
    }
}

/// The commit's own time, or 1970 when it is out of any calendar.
pub(crate) fn commit_time(commit: &Commit<'_>) -> Timestamp {
    Timestamp::from_second(commit.time().seconds()).unwrap_or_default()
}

pub(crate) fn subject(commit: &Commit<'_>) -> String {
    let message = String::from_utf8_lossy(commit.message_bytes()).into_owned();
    printable(
        message
            .lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default(),
        200,
    )
}
