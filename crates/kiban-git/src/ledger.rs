//! What happened, as it goes out to Git: batches of files become commits on a branch that only moves forward.
//!
//! ```text
//!  Batch, Batch ──▶ overlay: trees as changed so far ──▶ staged objects ──▶ one pack ──▶ one push
//!                      ▲ on top of the remote's tip                                      │
//!                      └──────────── someone else was first: fetch, build again ◀────────┘
//! ```
//!
//! Nothing that was not pushed is kept: a batch lives in the cluster until [`Ledger::append`] says that it is at the
//! remote. So a crash anywhere, a lost disk or a remote that is down for a week need no repair; the caller appends the
//! same batches again, and what had arrived is skipped.

mod index;
mod overlay;
mod pack;

use std::{collections::HashSet, path::Path, time::Instant};

use git2::{Commit, Oid, Repository};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use ssh_key::PrivateKey;

use crate::{
    CommitId,
    cache::{Cache, CacheError},
    printable,
    remote::{BranchTip, Connection, Pushed, Remote, RemoteError},
    signature,
    source::{commit_time, subject},
};
use overlay::Overlay;

/// Where the ledger goes and in whose name.
#[derive(Clone, Debug)]
pub struct LedgerConfig {
    /// The repository and the ledger's own branch in it. The repository may be the one of the desired state. One fetch may
    /// receive [`MIN_FETCH_BYTES`] whatever the remote's `max_bytes` says below that: a lost copy is fetched whole.
    pub remote: Remote,
    /// Who the commits are by.
    pub author: Identity,
    /// An ssh private key (not encrypted) that signs each commit, in the text form that `ssh-keygen` writes.
    pub signing_key: Option<SecretString>,
}

/// Bytes that a fetch of the ledger may receive at least. A million records in small commits are some 3 GB until the
/// remote packs them with deltas, and a limit below that would keep a ledger whose copy is lost from ever going on.
pub const MIN_FETCH_BYTES: u64 = 16 << 30;

/// A name and a mail address for commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name.
    pub name: String,
    /// The mail address.
    pub email: String,
}

/// A file as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its path from the root of the branch, with slashes.
    pub path: String,
    /// Its whole content.
    pub content: Vec<u8>,
}

/// What a commit says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitMessage {
    /// The first line.
    pub subject: String,
    /// Paragraphs after it; may be empty.
    pub body: String,
    /// `Key: value` lines at the end, in this order: why it happened.
    pub trailers: Vec<(String, String)>,
}

/// What becomes one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The files. A path that is there twice gets its last content.
    pub changes: Vec<Change>,
    /// The message.
    pub message: CommitMessage,
    /// When it happened. A commit is never dated before its parent: the clock may go back, the ledger does not.
    pub time: Timestamp,
}

/// What [`Ledger::append`] did. When it returns, everything given is at the remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The remote's tip now: keep it (in a status) and give it to [`Ledger::open`] the next time.
    pub tip: Option<CommitId>,
    /// The commit of each batch, in order; `None` where all of it was there already.
    pub commits: Vec<Option<CommitId>>,
    /// Files that were written.
    pub pushed: usize,
    /// Files that were there already with the same content.
    pub skipped: usize,
}

/// One version of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The commit that brought it.
    pub commit: CommitId,
    /// When.
    pub time: Timestamp,
    /// The first line of the commit's message.
    pub subject: String,
    /// The commit's trailers: why.
    pub trailers: Vec<(String, String)>,
    /// The file's content from then on; `None` when the commit removed it (which the ledger itself never does).
    pub content: Option<Vec<u8>>,
}

/// Why the ledger could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The remote could not be used.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The local copy could not be used.
    #[error("use the local copy of the ledger")]
    Cache(#[from] CacheError),
    /// The branch was there and is gone. It is not made anew: that would bury that history was lost.
    #[error(
        "find the ledger branch {branch:?} in {url}: it is gone, and it was at {known_tip}; push it back from a clone, \
         or confirm a new beginning"
    )]
    Vanished {
        /// The remote.
        url: String,
        /// The branch.
        branch: String,
        /// Where it was last.
        known_tip: CommitId,
    },
    /// The branch does not descend from where it was.
    #[error(
        "continue the ledger branch {branch:?} in {url}: it was rewritten (now {tip}, which does not descend from \
         {known_tip}); push it back from a clone, or confirm a new beginning"
    )]
    Rewritten {
        /// The remote.
        url: String,
        /// The branch.
        branch: String,
        /// Where it was last.
        known_tip: CommitId,
        /// Where it is now.
        tip: CommitId,
    },
    /// The remote refused the push: a hook, a protected branch, no right to write.
    #[error("push the ledger to {url}: the remote refused: {detail}")]
    PushRefused {
        /// The remote.
        url: String,
        /// What it said.
        detail: String,
    },
    /// Others pushed to the branch each time that we tried.
    #[error("push the ledger to {url}: someone else was first {attempts} times")]
    Contended {
        /// The remote.
        url: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The path of a change is refused.
    #[error("write {path:?} to the ledger: it {why}")]
    PathRefused {
        /// The path.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The signing key cannot be used.
    #[error("sign a ledger commit: {detail}")]
    Signing {
        /// What was seen; never the key.
        detail: String,
    },
    /// Objects of the local copy are missing or broken.
    #[error("read the ledger: {detail}")]
    Unreadable {
        /// What libgit2 said.
        detail: String,
    },
    /// The local copy could not be written or read for a reason that a fresh one would share: a full disk, no permission.
    #[error("write new commits to the local copy of the ledger: {detail}")]
    CopyFailed {
        /// What the system or libgit2 said.
        detail: String,
    },
    /// A copy fresh from the remote cannot be built upon either.
    #[error(
        "make ledger commits on {tip}: {detail}; a fresh copy gave the same, so the branch itself holds broken objects \
         (see git fsck there) or this is a fault of ours"
    )]
    Unbuildable {
        /// The branch's tip, or that there is none.
        tip: String,
        /// What libgit2 said.
        detail: String,
    },
}

impl LedgerError {
    /// The stable name of this error, for reasons of conditions and labels of metrics.
    pub fn category(&self) -> &'static str {
        match self {
            LedgerError::Remote(e) => e.category(),
            LedgerError::Cache(_) => "CacheFailed",
            LedgerError::Vanished { .. } => "LedgerVanished",
            LedgerError::Rewritten { .. } => "LedgerRewritten",
            LedgerError::PushRefused { .. } => "PushRefused",
            LedgerError::Contended { .. } => "PushContended",
            LedgerError::PathRefused { .. } => "PathRefused",
            LedgerError::Signing { .. } => "SigningFailed",
            LedgerError::Unreadable { .. } => "LedgerUnreadable",
            LedgerError::CopyFailed { .. } => "LedgerCopyFailed",
            LedgerError::Unbuildable { .. } => "LedgerUnbuildable",
        }
    }

    /// Whether appending the same batches later may succeed with nothing changed by a person.
    pub fn is_transient(&self) -> bool {
        match self {
            LedgerError::Remote(e) => e.is_transient(),
            LedgerError::Cache(_)
            | LedgerError::Contended { .. }
            | LedgerError::Unreadable { .. }
            | LedgerError::CopyFailed { .. } => true,
            _ => false,
        }
    }
}

impl From<git2::Error> for LedgerError {
    fn from(e: git2::Error) -> Self {
        let detail = printable(e.message(), 300);
        // What the operating system refused is no sign of broken objects.
        if e.class() == git2::ErrorClass::Os {
            LedgerError::CopyFailed { detail }
        } else {
            LedgerError::Unreadable { detail }
        }
    }
}

/// The ledger: a local copy of its branch, and the way to move it forward. One process at a time may have it open.
pub struct Ledger {
    cache: Cache,
    config: LedgerConfig,
    signing_key: Option<PrivateKey>,
    known_tip: Option<CommitId>,
}

/// Where the local copy remembers the remote's tip.
const TIP_REFERENCE: &str = "refs/kiban/ledger";

/// What is being pushed. The remote's tip is remembered only when it is there.
const PUSH_REFERENCE: &str = "refs/kiban/ledger-push";

/// In the local copy's configuration; see [`forgo_deltas`].
const DELTA_SETTING: &str = "pack.deltaCacheSize";

/// The trailer that names what a commit was made of, so that the same batch is known again.
const BATCH_TRAILER: &str = "Batch";

/// Pushes tried while others push too. Each one fetches and builds anew; more than a few in a row is someone's loop.
const PUSH_ATTEMPTS: u32 = 5;

/// Commits searched for a batch that arrived although we did not hear of it.
const RECENT_COMMITS: usize = 1000;

impl Ledger {
    /// Opens the local copy in `cache_dir`, making it where it is absent or broken. `known_tip` is where the caller last
    /// knew the branch to be; `None` says that this fleet never had a ledger, and only then is the branch created.
    /// Nothing is fetched yet.
    pub fn open(
        cache_dir: &Path,
        mut config: LedgerConfig,
        known_tip: Option<CommitId>,
    ) -> Result<Ledger, LedgerError> {
        config.remote.max_bytes = config.remote.max_bytes.max(MIN_FETCH_BYTES);
        let signing_key = match &config.signing_key {
            Some(text) => Some(read_signing_key(text)?),
            None => None,
        };
        let cache = Cache::open(cache_dir, "ledger", &identity(&config.remote))?;
        forgo_deltas(cache.repo())?;
        Ok(Ledger {
            cache,
            config,
            signing_key,
            known_tip,
        })
    }

    /// The remote's tip as last seen, from the local copy.
    pub fn tip(&self) -> Option<CommitId> {
        self.cache.repo().refname_to_id(TIP_REFERENCE).ok().map(CommitId)
    }

    /// Brings the local copy to the remote's tip, and checks that the branch only moved forward.
    pub fn fetch(&mut self, deadline: Instant) -> Result<Option<CommitId>, LedgerError> {
        match self.fetch_once(deadline) {
            Err(LedgerError::Unreadable { detail }) => {
                tracing::warn!(url = %self.config.remote.url, %detail, "the local copy of the ledger is broken, fetching it again");
                self.begin_afresh()?;
                self.fetch_once(deadline)
            }
            result => result,
        }
    }

    fn begin_afresh(&mut self) -> Result<(), LedgerError> {
        self.cache.reset(&identity(&self.config.remote))?;
        forgo_deltas(self.cache.repo())
    }

    fn fetch_once(&mut self, deadline: Instant) -> Result<Option<CommitId>, LedgerError> {
        let (url, branch) = (
            self.config.remote.url.to_string(),
            self.config.remote.branch.to_string(),
        );
        let remembered = self.tip();
        let repo = self.cache.repo();
        if let Some(tip) = remembered {
            repo.find_commit(tip.0)?.tree()?;
        }
        let found = Connection::start(&self.config.remote, deadline)?.fetch(repo)?;
        let BranchTip::At(tip) = found else {
            return match self.known_tip.or(remembered) {
                Some(known_tip) => Err(LedgerError::Vanished {
                    url,
                    branch,
                    known_tip,
                }),
                None => Ok(None),
            };
        };
        repo.find_commit(tip)?.tree()?;
        for known_tip in [self.known_tip, remembered].into_iter().flatten() {
            let descends = known_tip.0 == tip || repo.graph_descendant_of(tip, known_tip.0).unwrap_or(false);
            if !descends {
                return Err(LedgerError::Rewritten {
                    url,
                    branch,
                    known_tip,
                    tip: CommitId(tip),
                });
            }
        }
        repo.reference(TIP_REFERENCE, tip, true, "fetched")?;
        self.known_tip = Some(CommitId(tip));
        Ok(self.known_tip)
    }

    /// Makes a commit of each batch, pushes them together, and returns when they are at the remote. On an error nothing is
    /// kept; append the same batches again. What is there already is skipped, so doing so is always safe.
    pub fn append(&mut self, batches: &[Batch], deadline: Instant) -> Result<Appended, LedgerError> {
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            check_path(&change.path)?;
        }
        let mut tip = match self.tip() {
            Some(tip) if Some(tip) == self.known_tip => Some(tip),
            _ => self.fetch(deadline)?,
        };
        let mut fresh = false;
        for _ in 0..PUSH_ATTEMPTS {
            let built = match self.build(batches, tip) {
                // The local copy broke under us; a fresh one is a fetch away. If that is no better, it was not the copy.
                Err(LedgerError::Unreadable { detail }) if !fresh => {
                    tracing::warn!(%detail, "the local copy of the ledger is broken, fetching it again");
                    self.begin_afresh()?;
                    fresh = true;
                    tip = self.fetch_once(deadline)?;
                    continue;
                }
                Err(LedgerError::Unreadable { detail }) => {
                    let tip = tip.map_or_else(|| "an empty branch".to_owned(), |tip| tip.to_string());
                    return Err(LedgerError::Unbuildable { tip, detail });
                }
                result => result?,
            };
            let Some(new_tip) = built.commits.iter().rev().flatten().next().copied() else {
                // Nothing is new as far as we know; that it is at the remote is known only by looking there.
                let seen = self.fetch(deadline)?;
                if seen == tip {
                    return Ok(Appended { tip, ..built });
                }
                tip = seen;
                continue;
            };
            let repo = self.cache.repo();
            repo.reference(PUSH_REFERENCE, new_tip.0, true, "to be pushed")?;
            match Connection::start(&self.config.remote, deadline)?.push(repo, PUSH_REFERENCE)? {
                Pushed::Done => {
                    repo.reference(TIP_REFERENCE, new_tip.0, true, "pushed")?;
                    self.known_tip = Some(new_tip);
                    match pack::consolidate(repo) {
                        Ok(false) => {}
                        Ok(true) => self.cache.reopen()?,
                        Err(e) => {
                            tracing::warn!(error = %e.message(), "could not merge small packs of the ledger's local copy");
                        }
                    }
                    return Ok(Appended {
                        tip: Some(new_tip),
                        ..built
                    });
                }
                Pushed::NotFastForward => tip = self.fetch(deadline)?,
                Pushed::Refused(detail) => {
                    let url = self.config.remote.url.to_string();
                    return Err(LedgerError::PushRefused { url, detail });
                }
            }
        }
        Err(LedgerError::Contended {
            url: self.config.remote.url.to_string(),
            attempts: PUSH_ATTEMPTS,
        })
    }

    /// Makes the commits of the batches on top of `tip`, in one pack, without moving any branch.
    fn build(&self, batches: &[Batch], tip: Option<CommitId>) -> Result<Appended, LedgerError> {
        let repo = self.cache.repo();
        let mut built = Appended {
            tip,
            commits: Vec::with_capacity(batches.len()),
            pushed: 0,
            skipped: 0,
        };
        let mut overlay = Overlay::new(repo, tip.map(|tip| tip.0))?;
        let mut arrived = None;
        let mut position = index::Position::at(repo, tip.map(|tip| tip.0))?;
        for batch in batches {
            let digest = digest(batch);
            let arrived = match &mut arrived {
                Some(arrived) => arrived,
                none => none.insert(recent_batches(repo, tip)?),
            };
            if arrived.contains(&digest) {
                built.skipped += batch.changes.len();
                built.commits.push(None);
                continue;
            }
            let mut written = 0;
            let last: std::collections::HashMap<&str, usize> = batch
                .changes
                .iter()
                .enumerate()
                .map(|(i, change)| (change.path.as_str(), i))
                .collect();
            for (i, change) in batch.changes.iter().enumerate() {
                let superseded = last.get(change.path.as_str()) != Some(&i);
                let previous = overlay.blob(&change.path)?;
                let id = Oid::hash_object(git2::ObjectType::Blob, &change.content)?;
                if superseded || previous == Some(id) {
                    built.skipped += 1;
                    continue;
                }
                overlay.write(&change.path, &change.content)?;
                index::record(&mut overlay, &change.path, previous, id, position.next_sequence())?;
                written += 1;
            }
            if written == 0 {
                built.commits.push(None);
                continue;
            }
            position.record_parents(&mut overlay)?;
            let tree = overlay.write_trees()?;
            let time = batch.time.as_second().max(position.time);
            let message = message(&batch.message, &digest, position.next_sequence());
            let commit = self.commit_text(tree, position.tip, time, &message)?;
            let id = overlay.stage(git2::ObjectType::Commit, commit)?;
            position.advance(id, time);
            built.pushed += written;
            built.commits.push(Some(CommitId(id)));
        }
        pack::write(repo, overlay.into_staged()).map_err(|e| LedgerError::CopyFailed {
            detail: printable(e.message(), 300),
        })?;
        Ok(built)
    }

    fn commit_text(
        &self,
        tree: Oid,
        parent: Option<Oid>,
        time: i64,
        message: &str,
    ) -> Result<Vec<u8>, LedgerError> {
        let clean = |text: &str| {
            text.chars()
                .filter(|c| !c.is_control() && *c != '<' && *c != '>')
                .collect::<String>()
        };
        let who = format!(
            "{} <{}> {time} +0000",
            clean(&self.config.author.name),
            clean(&self.config.author.email)
        );
        let parent = parent
            .map(|parent| format!("parent {parent}\n"))
            .unwrap_or_default();
        let head = format!("tree {tree}\n{parent}author {who}\ncommitter {who}\n");
        let unsigned = format!("{head}\n{message}");
        let Some(key) = &self.signing_key else {
            return Ok(unsigned.into_bytes());
        };
        let signature = signature::sign_ssh(key, unsigned.as_bytes()).map_err(|e| LedgerError::Signing {
            detail: e.to_string(),
        })?;
        // A header of several lines continues with a space.
        let folded = signature.trim_end().replace('\n', "\n ");
        Ok(format!("{head}gpgsig {folded}\n\n{message}").into_bytes())
    }

    /// The commit that was the tip at `date`; `None` when the ledger began later. From the local copy: fetch first.
    pub fn at(&self, date: Timestamp) -> Result<Option<CommitId>, LedgerError> {
        let Some(tip) = self.tip() else { return Ok(None) };
        index::commit_at(self.cache.repo(), tip.0, date)
    }

    /// A file as it was at a commit; `None` when it was not there. From the local copy: fetch first.
    pub fn read(&self, path: &str, at: CommitId) -> Result<Option<Vec<u8>>, LedgerError> {
        check_path(path)?;
        let repo = self.cache.repo();
        match blob_at(repo, &repo.find_commit(at.0)?, path)? {
            Some(id) => Ok(Some(repo.find_blob(id)?.content().to_vec())),
            None => Ok(None),
        }
    }

    /// The names in a folder at a commit, in Git's order, folders with a slash at the end; empty when it is not there.
    pub fn list(&self, folder: &str, at: CommitId) -> Result<Vec<String>, LedgerError> {
        let repo = self.cache.repo();
        let mut tree = repo.find_commit(at.0)?.tree()?;
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            let Some(entry) = tree
                .get_name(part)
                .filter(|e| e.kind() == Some(git2::ObjectType::Tree))
            else {
                return Ok(Vec::new());
            };
            let id = entry.id();
            drop(entry);
            tree = repo.find_tree(id)?;
        }
        let name = |entry: &git2::TreeEntry<'_>| {
            let slash = if entry.kind() == Some(git2::ObjectType::Tree) {
                "/"
            } else {
                ""
            };
            format!("{}{slash}", String::from_utf8_lossy(entry.name_bytes()))
        };
        Ok(tree.iter().map(|entry| name(&entry)).collect())
    }

    /// The versions of a file, the newest first, at most `limit`. From the local copy: fetch first.
    pub fn history(&self, path: &str, limit: usize) -> Result<Vec<Entry>, LedgerError> {
        check_path(path)?;
        match self.tip() {
            Some(tip) => index::history(self.cache.repo(), tip.0, path, limit),
            None => Ok(Vec::new()),
        }
    }
}

/// Keeps libgit2 from looking for deltas when it packs what is pushed: it compares each tree with ten others, which is
/// more work than all the rest, and the remote's own `git gc` does it better. libgit2 1.9 takes this setting for the size
/// of the largest object to be tried, too (pack-objects.c, packbuilder_config).
fn forgo_deltas(repo: &Repository) -> Result<(), LedgerError> {
    let mut settings = repo.config()?.open_level(git2::ConfigLevel::Local)?;
    if settings.get_i64(DELTA_SETTING).ok() != Some(1) {
        settings.set_i64(DELTA_SETTING, 1)?;
    }
    Ok(())
}

fn identity(remote: &Remote) -> String {
    format!("{}#{}", remote.url, remote.branch)
}

fn read_signing_key(text: &SecretString) -> Result<PrivateKey, LedgerError> {
    let key = PrivateKey::from_openssh(text.expose_secret().trim()).map_err(|e| LedgerError::Signing {
        detail: format!("read the signing key: {e}"),
    })?;
    if key.is_encrypted() {
        return Err(LedgerError::Signing {
            detail: "the signing key is encrypted; give it without".to_owned(),
        });
    }
    Ok(key)
}

/// Paths that we would refuse to read from a repository are not written to one either.
fn check_path(path: &str) -> Result<(), LedgerError> {
    let refuse = |why: &str| {
        Err(LedgerError::PathRefused {
            path: printable(path, 200),
            why: why.to_owned(),
        })
    };
    if path.is_empty() || path.len() > 1000 {
        return refuse("must have 1 to 1000 characters");
    }
    if path.starts_with('/') {
        return refuse("is absolute");
    }
    if path.split('/').next() == Some(index::FOLDER) {
        return refuse("is in the folder of the ledger's own index");
    }
    match path
        .split('/')
        .find_map(|part| crate::tree::bad_name(part.as_bytes()))
    {
        Some(why) => refuse(why),
        None => Ok(()),
    }
}

/// The id of a file at a commit.
fn blob_at(repo: &Repository, commit: &Commit<'_>, path: &str) -> Result<Option<Oid>, git2::Error> {
    let mut id = commit.tree_id();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let tree = repo.find_tree(id)?;
        let Some(entry) = tree.get_name(part) else {
            return Ok(None);
        };
        let wanted = if parts.peek().is_some() {
            git2::ObjectType::Tree
        } else {
            git2::ObjectType::Blob
        };
        if entry.kind() != Some(wanted) {
            return Ok(None);
        }
        id = entry.id();
    }
    Ok(Some(id))
}

/// What a batch is made of, as 40 digits.
fn digest(batch: &Batch) -> String {
    use sha1::{Digest, Sha1};
    let mut hash = Sha1::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    for change in &batch.changes {
        part(change.path.as_bytes());
        part(&change.content);
    }
    part(batch.message.subject.as_bytes());
    part(&batch.time.as_nanosecond().to_be_bytes());
    let mut text = String::new();
    for byte in hash.finalize() {
        use std::fmt::Write;
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The batches of the last commits.
fn recent_batches(repo: &Repository, tip: Option<CommitId>) -> Result<HashSet<String>, git2::Error> {
    let mut found = HashSet::new();
    let mut next = tip.map(|tip| tip.0);
    for _ in 0..RECENT_COMMITS {
        let Some(id) = next else { break };
        let commit = repo.find_commit(id)?;
        found.extend(
            trailers(&commit)
                .into_iter()
                .filter(|(key, _)| key == BATCH_TRAILER)
                .map(|(_, value)| value),
        );
        next = first_parent(&commit)?;
    }
    Ok(found)
}

fn first_parent(commit: &Commit<'_>) -> Result<Option<Oid>, git2::Error> {
    if commit.parent_count() == 0 {
        Ok(None)
    } else {
        commit.parent_id(0).map(Some)
    }
}

fn message(message: &CommitMessage, digest: &str, sequence: u64) -> String {
    let line = |text: &str| {
        text.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect::<String>()
    };
    let mut text = format!("{}\n\n", line(message.subject.trim()));
    if !message.body.trim().is_empty() {
        text.push_str(message.body.trim());
        text.push_str("\n\n");
    }
    for (key, value) in &message.trailers {
        text.push_str(&format!("{}: {}\n", line(key), line(value)));
    }
    text.push_str(&format!(
        "{BATCH_TRAILER}: {digest}\n{}: {sequence}\n",
        index::SEQUENCE_TRAILER
    ));
    text
}

/// The `Key: value` lines of the last paragraph of a message.
fn trailers(commit: &Commit<'_>) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(commit.message_raw_bytes()).into_owned();
    let Some((_, last)) = text.trim_end().rsplit_once("\n\n") else {
        return Vec::new();
    };
    let pair = |line: &str| {
        line.split_once(": ")
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    last.lines().filter_map(pair).collect()
}

fn entry(commit: &Commit<'_>, content: Option<Vec<u8>>) -> Entry {
    let own = [BATCH_TRAILER, index::SEQUENCE_TRAILER];
    Entry {
        commit: CommitId(commit.id()),
        time: commit_time(commit),
        subject: subject(commit),
        trailers: trailers(commit)
            .into_iter()
            .filter(|(key, _)| !own.contains(&key.as_str()))
            .collect(),
        content,
    }
}
