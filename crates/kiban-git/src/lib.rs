//! Desired state read from Git at a commit, and the ledger written back to Git.
//!
//! ```text
//!            ┌── Mirror::fetch ──▶ Head {commit, signature}      signature.rs  who signed it, and may they
//!  remote ───┤                       │
//!  remote.rs │                       └─ Mirror::read_tree ──▶ Snapshot {files}   tree.rs  blobs by id, no work tree
//!            └◀─ Ledger::append ◀── Batch {changes, message}     ledger.rs  commits, one push, fast-forward only
//! ```
//!
//! The crate is synchronous: libgit2 is, and the operator runs it on a blocking thread. It is the only crate that
//! knows libgit2. What it promises:
//!
//! - Nothing is ever checked out, no hook, filter, submodule or credential helper runs, no program is started.
//! - A call ends by its deadline even when the remote accepts the connection and then says nothing.
//! - A remote that is gone, empty, or without its branch is an error of its own, never "no files".
//! - The ledger branch only ever moves forward.

pub mod ledger;
pub mod local;
pub mod remote;
pub mod signature;
pub mod source;
#[cfg(feature = "testserver")]
pub mod testserver;
pub mod tree;

mod cache;

pub use ledger::{
    Appended, Batch, Change, CommitMessage, Entry, Identity, Ledger, LedgerConfig, LedgerError,
};
pub use remote::{BranchName, Credentials, Remote, RemoteError, RemoteUrl};
pub use signature::{SignatureStatus, Signer, Verification};
pub use source::{Ancestry, Head, Mirror, Source, SourceError};
pub use tree::{Ignored, Snapshot, SourceFile, TreeError, TreeLimits};

use std::{fmt, str::FromStr};

/// The id of a Git commit, in 40 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommitId(pub(crate) git2::Oid);

/// A text that is not a commit id.
#[derive(Debug, thiserror::Error)]
#[error("read {text:?} as a commit id: 40 hexadecimal digits are wanted")]
pub struct CommitIdError {
    /// What was given.
    pub text: String,
}

impl FromStr for CommitId {
    type Err = CommitIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // libgit2 would take a prefix and fill it with zeros; a short id in a status is a mistake.
        if text.len() == 40
            && let Ok(oid) = git2::Oid::from_str(text)
        {
            return Ok(CommitId(oid));
        }
        Err(CommitIdError {
            text: text.chars().take(80).collect(),
        })
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Text from a remote or a commit made fit for a status or a terminal: no control characters, bounded.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(limit)
        .collect::<String>()
        .trim()
        .to_owned()
}
