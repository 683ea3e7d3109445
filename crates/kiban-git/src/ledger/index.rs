//! The ledger's index of itself, in Git with all the rest: which commits changed a file, and which commit has which
//! number. Without it, the story of one device would be a walk over every commit there ever was.
//!
//! ```text
//! index/files/devices/ab/x.yaml    lines "<number> <blob>", the oldest first; at most 64, and before them
//!                                  "before <blob>", the file as it was when those were full
//! index/commits/<number/64 in hex, 3 digits split>/…   lines "<number> <commit>"
//! ```
//!
//! A commit cannot hold its own id, so each one notes its parent's. A person's commits have no number; the next of ours
//! numbers them too, and wherever the index and the tree disagree, the walk over the commits decides.

use git2::{Commit, ErrorCode, ObjectType, Oid, Repository};
use jiff::Timestamp;

use super::{Entry, LedgerError, blob_at, entry, first_parent, overlay::Overlay, trailers};
use crate::{CommitId, source::commit_time};

/// The folder of the index, beside `devices/` and the others.
pub(super) const FOLDER: &str = "index";

/// The trailer with a commit's number on the branch.
pub(super) const SEQUENCE_TRAILER: &str = "Sequence";

/// Lines of one index file: each change writes its file anew, so it is small; older lines are a step away.
const LINES: usize = 64;

/// Commits of people that are numbered after the fact. More than that is a migration, and begins a new numbering.
const MAX_UNNUMBERED: usize = 1000;

/// Files that are written once have no history; these are written again and again.
fn has_history(path: &str) -> bool {
    !path.starts_with("operations/")
}

fn file_index(path: &str) -> String {
    format!("{FOLDER}/files/{path}")
}

fn commits_index(number: u64) -> String {
    let page = number / LINES as u64;
    format!("{FOLDER}/commits/{:03x}/{:03x}", page >> 12, page & 0xfff)
}

/// Where the branch stands while commits are made.
pub(super) struct Position {
    pub(super) tip: Option<Oid>,
    /// The tip's time, in seconds since 1970.
    pub(super) time: i64,
    sequence: u64,
    /// Commits whose number is not written yet, the oldest first: a person's, and then the tip.
    pending: Vec<(u64, Oid)>,
}

impl Position {
    pub(super) fn at(repo: &Repository, tip: Option<Oid>) -> Result<Position, LedgerError> {
        let Some(id) = tip else {
            return Ok(Position {
                tip,
                time: 0,
                sequence: 0,
                pending: Vec::new(),
            });
        };
        let mut commit = repo.find_commit(id)?;
        let time = commit.time().seconds();
        let mut line = vec![id];
        let mut base = number(&commit);
        while base.is_none() && line.len() <= MAX_UNNUMBERED {
            let Some(parent) = first_parent(&commit)? else {
                break;
            };
            line.push(parent);
            commit = repo.find_commit(parent)?;
            base = number(&commit);
        }
        // Without a number anywhere the oldest that was looked at is the first.
        let first = base.unwrap_or(1);
        let pending: Vec<_> = line
            .into_iter()
            .rev()
            .zip(first..)
            .map(|(id, number)| (number, id))
            .collect();
        Ok(Position {
            tip,
            time,
            sequence: pending.last().map_or(0, |(number, _)| *number),
            pending,
        })
    }

    /// The number of the commit that is being made.
    pub(super) fn next_sequence(&self) -> u64 {
        self.sequence + 1
    }

    /// Notes the ids of the commits before the one that is being made.
    pub(super) fn record_parents(&mut self, overlay: &mut Overlay<'_>) -> Result<(), LedgerError> {
        for (number, id) in self.pending.drain(..) {
            let path = commits_index(number);
            let mut text = match overlay.blob(&path)? {
                Some(page) => overlay.content(page)?,
                None => Vec::new(),
            };
            text.extend_from_slice(format!("{number} {id}\n").as_bytes());
            overlay.write(&path, &text)?;
        }
        Ok(())
    }

    pub(super) fn advance(&mut self, tip: Oid, time: i64) {
        self.tip = Some(tip);
        self.time = time;
        self.sequence += 1;
        self.pending.push((self.sequence, tip));
    }
}

/// Notes that the commit with this number gives `path` the content `id` in place of `previous`.
pub(super) fn record(
    overlay: &mut Overlay<'_>,
    path: &str,
    previous: Option<Oid>,
    id: Oid,
    sequence: u64,
) -> Result<(), LedgerError> {
    if !has_history(path) {
        return Ok(());
    }
    let index = file_index(path);
    let mut text = String::new();
    if let Some(before) = overlay.blob(&index)? {
        text = String::from_utf8_lossy(&overlay.content(before)?).into_owned();
        if text.lines().count() >= LINES {
            text = format!("before {before}\n");
        }
    }
    // What a person wrote in between has no line; the gap is found by whoever reads, through the content before.
    let previous = previous.map_or_else(|| "-".to_owned(), |id| id.to_string());
    text.push_str(&format!("{sequence} {id} {previous}\n"));
    overlay.write(&index, text.as_bytes())
}

fn number(commit: &Commit<'_>) -> Option<u64> {
    trailers(commit)
        .into_iter()
        .find(|(key, _)| key == SEQUENCE_TRAILER)?
        .1
        .parse()
        .ok()
}

/// The commit with a number, as the index at `tip` has it.
fn commit_numbered<'r>(
    repo: &'r Repository,
    tip: &Commit<'r>,
    wanted: u64,
) -> Result<Option<Commit<'r>>, git2::Error> {
    if number(tip) == Some(wanted) {
        return Ok(Some(tip.clone()));
    }
    let Some(page) = blob_at(repo, tip, &commits_index(wanted))? else {
        return Ok(None);
    };
    let page = repo.find_blob(page)?;
    let text = String::from_utf8_lossy(page.content());
    let found = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(n, _)| n.parse() == Ok(wanted));
    match found.and_then(|(_, id)| Oid::from_str(id).ok()) {
        Some(id) => repo.find_commit(id).map(Some),
        None => Ok(None),
    }
}

/// The last commit of the first-parent line that is not younger than `date`.
pub(super) fn commit_at(
    repo: &Repository,
    tip: Oid,
    date: Timestamp,
) -> Result<Option<CommitId>, LedgerError> {
    let mut commit = repo.find_commit(tip)?;
    loop {
        if commit_time(&commit) <= date {
            return Ok(Some(CommitId(commit.id())));
        }
        // Our commits never go back in time, so from a numbered one on it is a search by halves.
        if let Some(last) = number(&commit)
            && let Some(found) = search(repo, &commit, last, date)?
        {
            return Ok(Some(found));
        }
        match first_parent(&commit)? {
            Some(parent) => commit = repo.find_commit(parent)?,
            None => return Ok(None),
        }
    }
}

fn search(
    repo: &Repository,
    tip: &Commit<'_>,
    last: u64,
    date: Timestamp,
) -> Result<Option<CommitId>, git2::Error> {
    let (mut low, mut high, mut found) = (1, last, None);
    while low <= high {
        let middle = low + (high - low) / 2;
        let Some(commit) = commit_numbered(repo, tip, middle)? else {
            return Ok(None);
        };
        if commit_time(&commit) <= date {
            found = Some(CommitId(commit.id()));
            low = middle + 1;
        } else {
            high = middle - 1;
        }
    }
    Ok(found)
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
        if has_history(path)
            && number(&commit).is_some()
            && let Some(rest) = indexed(repo, &commit, path, now, limit - entries.len())?
        {
            entries.extend(rest);
            return Ok(entries);
        }
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
            entries.push(entry(&commit, content(repo, now)?));
        }
        now = before;
        match parent {
            Some(parent) => commit = parent,
            None => break,
        }
    }
    Ok(entries)
}

/// The versions by the index at `tip`; `None` where it does not tell the whole story.
fn indexed(
    repo: &Repository,
    tip: &Commit<'_>,
    path: &str,
    now: Option<Oid>,
    limit: usize,
) -> Result<Option<Vec<Entry>>, git2::Error> {
    let mut entries = Vec::new();
    let mut expected = now;
    let mut page = blob_at(repo, tip, &file_index(path))?;
    while let Some(id) = page.take() {
        let blob = match repo.find_blob(id) {
            Ok(blob) => blob,
            Err(e) if e.code() == ErrorCode::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let text = String::from_utf8_lossy(blob.content()).into_owned();
        for line in text.lines().rev() {
            if let Some(before) = line.strip_prefix("before ") {
                page = Oid::from_str(before).ok();
                break;
            }
            if entries.len() == limit {
                return Ok(Some(entries));
            }
            let mut words = line.split(' ');
            let (Some(number), Some(id), Some(previous)) = (words.next(), words.next(), words.next()) else {
                return Ok(None);
            };
            let (Ok(number), Ok(id)) = (number.parse(), Oid::from_str(id)) else {
                return Ok(None);
            };
            let Some(commit) = (if expected == Some(id) {
                commit_numbered(repo, tip, number)?
            } else {
                None
            }) else {
                return Ok(None);
            };
            entries.push(entry(&commit, content(repo, Some(id))?));
            expected = Oid::from_str(previous).ok().filter(|_| previous != "-");
        }
    }
    // The chain ends where the file began, or it is not whole.
    Ok(if expected.is_none() || entries.len() >= limit {
        Some(entries)
    } else {
        None
    })
}

fn content(repo: &Repository, id: Option<Oid>) -> Result<Option<Vec<u8>>, git2::Error> {
    match id {
        Some(id) => {
            let odb = repo.odb()?;
            let object = odb.read(id)?;
            if object.kind() == ObjectType::Blob {
                Ok(Some(object.data().to_vec()))
            } else {
                Ok(None)
            }
        }
        None => Ok(None),
    }
}
