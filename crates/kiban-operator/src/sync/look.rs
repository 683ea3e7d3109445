//! One look at a repository: from the remote's tip to a status that says what came of it.

use super::{
    apply::{self, Applied},
    changes::{self, Changes, Guard},
    desired::{self, Desired, Wanted},
    kinds::Kind,
    write_status,
};
use crate::{
    condition::Truth,
    context::Context,
    repository::{self, RepositoryError, annotation},
    store::Stores,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kiban_api::{
    FleetRepository, FleetRepositoryStatus, labels,
    repository::{AppliedCommit, SourceError},
};
use kiban_git::{Ancestry, CommitId, Head, Mirror, SignatureStatus, Snapshot, Source, TreeError, TreeLimits};
use kube::ResourceExt;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{Hash, Hasher},
    time::Instant,
};

/// How a look ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Looked {
    /// The remote was read, and its tip is applied or refused for a reason that only a person can mend.
    Good,
    /// It is tried again soon. The category says why.
    Failed(&'static str),
}

/// What is remembered from look to look. Nothing of it is needed after a restart.
#[derive(Default)]
pub struct Memory {
    /// The commit that is applied in full, and under which spec.
    applied: Option<(CommitId, i64)>,
    /// Objects that are as that commit says, with the generation at which they are, and a digest of what it says.
    generations: HashMap<(Kind, String), (i64, u64)>,
    /// The commit that was refused, with all that the refusal depends on.
    refused: Option<Refusal>,
    /// Someone changed something since.
    drifted: bool,
}

#[derive(PartialEq, Eq)]
struct Refusal {
    commit: CommitId,
    generation: i64,
    annotations: [Option<String>; 3],
}

impl Memory {
    /// Whether a commit is applied, so that drift means something.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        self.applied.is_some()
    }

    /// Whether objects that changed are no longer as the commit says.
    pub fn has_drifted(&mut self, stores: &Stores, names: Vec<(Kind, BTreeSet<String>)>) -> bool {
        let moved = |kind: Kind, name: String| {
            let known = self.generations.get(&(kind, name.clone())).copied();
            known.is_some_and(|(known, _)| {
                kind.get(stores, &name)
                    .is_none_or(|p| p.generation != known || p.deleting)
            })
        };
        let drifted = names
            .into_iter()
            .any(|(kind, names)| names.into_iter().any(|name| moved(kind, name)));
        self.drifted |= drifted;
        drifted
    }
}

/// What Git said.
struct Fetched {
    head: Head,
    ancestry: Option<Ancestry>,
    /// None: it is not needed.
    tree: Option<Result<Snapshot, TreeError>>,
}

/// Why a commit is not applied. The last good one stays.
struct Refused {
    condition: &'static str,
    reason: &'static str,
    message: String,
    errors: Vec<SourceError>,
    count: usize,
    /// It may pass by itself.
    passes: bool,
}

impl Refused {
    fn new(condition: &'static str, reason: &'static str, message: String) -> Self {
        Self {
            condition,
            reason,
            message,
            errors: Vec::new(),
            count: 0,
            passes: false,
        }
    }
}

/// Looks once.
pub async fn look(context: &Context, object: &FleetRepository, memory: &mut Memory) -> Looked {
    let name = object.name_any();
    let asked = annotation(object, labels::RECONCILE_ANNOTATION).map(str::to_owned);
    if object.spec.suspend {
        write_status(context, &name, |_, status| {
            status.last_handled_reconcile_at = asked.clone();
        })
        .await;
        return Looked::Good;
    }
    let fetched = match fetch(context, object, memory).await {
        Ok(fetched) => fetched,
        Err((reason, message)) => {
            tracing::warn!(
                repository = name,
                reason,
                message,
                "the repository could not be read"
            );
            let now = context.clock.now();
            write_status(context, &name, |object, status| {
                repository::set(status, object, "Fetched", Truth::False, reason, &message, now);
                status.last_handled_reconcile_at = asked.clone();
            })
            .await;
            return Looked::Failed(reason);
        }
    };
    let head = fetched.head.commit;
    let generation = object.metadata.generation.unwrap_or_default();
    let refusal = Refusal {
        commit: head,
        generation,
        annotations: deciding_annotations(object),
    };
    if memory.refused.as_ref() == Some(&refusal) {
        said_fetched(context, &name, &asked).await;
        return Looked::Good;
    }
    if memory.applied == Some((head, generation)) && !memory.drifted {
        said_fetched(context, &name, &asked).await;
        return Looked::Good;
    }
    memory.drifted = false;
    match bring_in(context, object, &fetched, memory).await {
        Ok(good) => {
            memory.refused = None;
            memory.applied = Some((head, generation));
            succeeded(context, &name, &fetched.head, &good, &asked).await;
            Looked::Good
        }
        Err(refused) => {
            let result = if refused.passes {
                Looked::Failed(refused.reason)
            } else {
                Looked::Good
            };
            memory.applied = None;
            memory.refused = (!refused.passes).then_some(refusal);
            refuse(context, object, &fetched.head, refused, &asked).await;
            result
        }
    }
}

fn deciding_annotations(object: &FleetRepository) -> [Option<String>; 3] {
    [
        labels::CONFIRM_PRUNE_ANNOTATION,
        labels::ACCEPT_REWRITE_ANNOTATION,
        labels::RECONCILE_ANNOTATION,
    ]
    .map(|key| annotation(object, key).map(str::to_owned))
}

/// The remote answers again, or a person asked and has an answer; else nothing changes and nothing is written.
async fn said_fetched(context: &Context, name: &str, asked: &Option<String>) {
    let now = context.clock.now();
    write_status(context, name, |object, status| {
        repository::set(
            status,
            object,
            "Fetched",
            Truth::True,
            "Fetched",
            "the remote was read",
            now,
        );
        status.last_handled_reconcile_at.clone_from(asked);
    })
    .await;
}

async fn fetch(
    context: &Context,
    object: &FleetRepository,
    memory: &Memory,
) -> Result<Fetched, (&'static str, String)> {
    let told = |error: RepositoryError| (error.category(), error.to_string());
    let spec = &object.spec;
    let credentials = spec.credentials.as_ref();
    let remote = repository::remote(context, &spec.url, &spec.branch, credentials)
        .await
        .map_err(told)?;
    let verification = repository::verification(context, spec.verify.as_ref())
        .await
        .map_err(told)?;
    let source = Source {
        remote,
        path: spec.path.clone(),
        verification,
        limits: TreeLimits::default(),
    };
    let dir = context.config.cache_dir.join("git").join(object.name_any());
    let previous = object
        .status
        .as_ref()
        .and_then(|s| s.applied.as_ref())
        .and_then(|a| a.commit.parse().ok());
    let generation = object.metadata.generation.unwrap_or_default();
    let known = memory
        .applied
        .filter(|(_, at)| *at == generation && !memory.drifted)
        .map(|(commit, _)| commit);
    let deadline = context.config.git_deadline;
    let work = move || -> Result<Fetched, kiban_git::SourceError> {
        let mut mirror = Mirror::open(&dir, source)?;
        let head = mirror.fetch(Instant::now() + deadline)?;
        let ancestry = previous.map(|previous| mirror.ancestry(previous, head.commit));
        let tree = (known != Some(head.commit)).then(|| mirror.read_tree(head.commit));
        Ok(Fetched { head, ancestry, tree })
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(fetched)) => Ok(fetched),
        Ok(Err(error)) => Err((error.category(), with_causes(&error))),
        Err(_) => {
            context.metrics.panics.inc();
            Err(("GitPanicked", "libgit2's thread ended without an answer".into()))
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What was brought in.
struct Good {
    documents: usize,
    written: usize,
    removed: usize,
    warnings: usize,
    waiting: Vec<String>,
}

async fn bring_in(
    context: &Context,
    object: &FleetRepository,
    fetched: &Fetched,
    memory: &mut Memory,
) -> Result<Good, Refused> {
    let head = &fetched.head;
    let commit = head.commit.to_string();
    verified(head)?;
    not_rewritten(object, head, fetched.ancestry)?;
    let snapshot = match &fetched.tree {
        Some(Ok(snapshot)) => snapshot,
        Some(Err(error)) => return Err(tree_refused(error)),
        None => {
            return Err(Refused {
                passes: true,
                ..Refused::new("Fetched", "Progressing", "read again".into())
            });
        }
    };
    let name = object.name_any();
    let existing = existing(&context.stores, &name);
    let namespace = context.namespace.clone();
    // Validating a hundred thousand files takes seconds: not on a thread that renews Leases.
    let snapshot_taken = snapshot.clone();
    let validating = move || desired::desired(&snapshot_taken, &namespace, existing);
    let desired = match tokio::task::spawn_blocking(validating).await {
        Ok(Ok(desired)) => desired,
        Ok(Err(invalid)) => return Err(invalid_refused(invalid)),
        Err(_) => {
            context.metrics.panics.inc();
            let message = "validation panicked on this commit; please report it".to_owned();
            return Err(Refused::new("Validated", "ValidationPanicked", message));
        }
    };
    let changes = compare(context, &name, &desired, memory);
    if !changes.errors.is_empty() {
        let message = format!("{} objects belong to another repository", changes.errors.len());
        let count = changes.errors.len();
        return Err(Refused {
            errors: changes.errors,
            count,
            ..Refused::new("Validated", "OwnedElsewhere", message)
        });
    }
    if let Guard::Hold { reason, message } = guarded(context, object, &desired, &changes, &commit) {
        return Err(Refused::new(
            "Validated",
            reason,
            message.replace("<name>", &name),
        ));
    }
    let applied = apply::apply(context, object, &commit, &desired, &changes).await;
    remember(memory, &desired, &changes, &applied);
    if let Some(reason) = applied.reason {
        let message = format!(
            "{} of {} writes failed",
            applied.errors.len(),
            changes.apply.len()
        );
        let (passes, count) = (reason != "ApiInvalid", applied.errors.len());
        let mut refused = Refused::new("Applied", reason, message);
        (refused.errors, refused.count, refused.passes) = (applied.errors, count, passes);
        refused.errors.truncate(desired::MAX_ERRORS);
        return Err(refused);
    }
    Ok(Good {
        documents: desired.objects.len(),
        written: applied.written.len(),
        removed: applied.removed,
        warnings: desired.warnings.len(),
        waiting: applied.waiting,
    })
}

fn verified(head: &Head) -> Result<(), Refused> {
    if head.signature.is_accepted() {
        return Ok(());
    }
    let message = format!("commit {} is not applied: {}", head.commit, head.signature);
    Err(Refused::new("Verified", head.signature.category(), message))
}

fn not_rewritten(object: &FleetRepository, head: &Head, ancestry: Option<Ancestry>) -> Result<(), Refused> {
    let what = match ancestry {
        None | Some(Ancestry::Same | Ancestry::FastForward) => return Ok(()),
        Some(Ancestry::Rewound) => "was pushed back to an ancestor of the applied commit",
        Some(Ancestry::Diverged) => "does not descend from the applied commit",
    };
    let commit = head.commit.to_string();
    if annotation(object, labels::ACCEPT_REWRITE_ANNOTATION) == Some(commit.as_str()) {
        return Ok(());
    }
    let message = format!(
        "the branch {} {what}; commit {commit} is not applied. If that is meant: kubectl annotate --overwrite \
         fleetrepository {} {}={commit}",
        object.spec.branch,
        object.name_any(),
        labels::ACCEPT_REWRITE_ANNOTATION
    );
    Err(Refused::new("Verified", "HistoryRewritten", message))
}

fn tree_refused(error: &TreeError) -> Refused {
    let errors = match error {
        TreeError::Refused { problems, .. } => {
            let one = |p: &kiban_git::tree::Refused| SourceError {
                file: p.path.clone(),
                line: 0,
                field: String::new(),
                message: p.why.clone(),
            };
            problems.iter().map(one).collect()
        }
        _ => Vec::new(),
    };
    // An emptied folder is a mistake until someone says otherwise; the guard has the same words for objects.
    let (reason, hint) = match error {
        TreeError::NoFiles { .. } => {
            let hint = "; the objects that came from this repository stay. To retire them, delete the objects or the \
                        namespace; else commit the files again";
            ("RepositoryEmptied", hint)
        }
        _ => (error.category(), ""),
    };
    let count = errors.len();
    Refused {
        errors,
        count,
        ..Refused::new("Validated", reason, format!("{error}{hint}"))
    }
}

fn invalid_refused(invalid: desired::Invalid) -> Refused {
    let first = invalid.errors.first();
    let place = first.map_or_else(String::new, |e| {
        let line = if e.line > 0 {
            format!(":{}", e.line)
        } else {
            String::new()
        };
        let field = if e.field.is_empty() {
            String::new()
        } else {
            format!(" {}", e.field)
        };
        format!(", the first at {}{line}{field}: {}", e.file, e.message)
    });
    let plural = if invalid.count == 1 { "" } else { "s" };
    let message = format!("{} error{plural}{place}", invalid.count);
    Refused {
        errors: invalid.errors,
        count: invalid.count,
        ..Refused::new("Validated", "Invalid", message)
    }
}

/// Objects that do not come from this repository, to which its objects may refer.
fn existing(stores: &Stores, repository: &str) -> BTreeSet<(String, String)> {
    let others = |kind: Kind| {
        let present = kind.present(stores).into_iter();
        present
            .filter(move |p| p.repository.as_deref() != Some(repository))
            .map(move |p| (kind.as_str().to_owned(), p.name))
    };
    Kind::ALL
        .into_iter()
        .filter(|kind| *kind != Kind::Device)
        .flat_map(others)
        .collect()
}

fn compare(context: &Context, repository: &str, desired: &Desired, memory: &Memory) -> Changes {
    let stores = &context.stores;
    let present: BTreeMap<_, _> = Kind::ALL
        .into_iter()
        .map(|kind| (kind, kind.present(stores)))
        .collect();
    changes::changes(
        desired,
        repository,
        &present,
        |kind, name, wanted| kind.compare(stores, name, &wanted.value, repository),
        // The same was applied already at this generation: what differs is a field that Git leaves to others.
        |kind, name, generation, wanted| {
            memory.generations.get(&(kind, name.to_owned())) == Some(&(generation, digest(wanted)))
        },
    )
}

fn guarded(
    context: &Context,
    object: &FleetRepository,
    desired: &Desired,
    changes: &Changes,
    commit: &str,
) -> Guard {
    let name = object.name_any();
    let ours = |kind: Kind| {
        kind.present(&context.stores)
            .iter()
            .filter(|p| p.repository.as_deref() == Some(name.as_str()))
            .count()
    };
    let totals = Kind::ALL.into_iter().map(|kind| (kind, ours(kind))).collect();
    // The policy that is in force, not the one in the commit: a commit may not lift its own guard.
    let policy = context
        .stores
        .policies
        .get("fleet")
        .map(|policy| policy.spec.prune.max_percent);
    let percent = policy.unwrap_or_else(|| kiban_api::policy::PruneGuard::default().max_percent);
    let confirmed = annotation(object, labels::CONFIRM_PRUNE_ANNOTATION) == Some(commit);
    changes::guard(desired, changes, &totals, percent, commit, confirmed)
}

fn digest(wanted: &Wanted) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    wanted.value.hash(&mut hasher);
    hasher.finish()
}

fn remember(memory: &mut Memory, desired: &Desired, changes: &Changes, applied: &Applied) {
    memory.generations.clear();
    for (kind, name, generation) in changes.same.iter().chain(&applied.written) {
        let key = (*kind, name.clone());
        if let Some(wanted) = desired.objects.get(&key) {
            memory.generations.insert(key, (*generation, digest(wanted)));
        }
    }
    // A removal that waits is looked at again when its operation is gone, or at the next interval.
    memory.drifted = !applied.waiting.is_empty();
}

async fn succeeded(context: &Context, name: &str, head: &Head, good: &Good, asked: &Option<String>) {
    let now = context.clock.now();
    let commit = head.commit.to_string();
    let signer = match &head.signature {
        SignatureStatus::Good(signer) => signer.name.clone(),
        _ => String::new(),
    };
    let mut is_new = false;
    write_status(context, name, |object, status| {
        let ok = |status: &mut FleetRepositoryStatus, type_: &str, reason: &str, message: &str| {
            repository::set(status, object, type_, Truth::True, reason, message, now);
        };
        ok(status, "Fetched", "Fetched", "the remote was read");
        let verified = if signer.is_empty() {
            "no signature is asked for".into()
        } else {
            format!("signed by {signer}")
        };
        ok(status, "Verified", head.signature.category(), &verified);
        let warned = if good.warnings == 0 {
            String::new()
        } else {
            format!(", {} warnings", good.warnings)
        };
        ok(
            status,
            "Validated",
            "Valid",
            &format!("{} objects{warned}", good.documents),
        );
        let waits = match good.waiting.as_slice() {
            [] => String::new(),
            waiting => format!(
                "; to be removed when their operations have ended: {}",
                waiting.join(", ")
            ),
        };
        ok(status, "Applied", "Applied", &format!("commit {commit}{waits}"));
        is_new = status
            .applied
            .as_ref()
            .is_none_or(|applied| applied.commit != commit);
        if is_new {
            status.applied = Some(AppliedCommit {
                commit: commit.clone(),
                subject: head.subject.clone(),
                author: format!("{} <{}>", head.author.name, head.author.email),
                signer: signer.clone(),
                at: Time(now),
                documents: u32::try_from(good.documents).unwrap_or(u32::MAX),
            });
        }
        status.refused_commit = None;
        status.errors.clear();
        status.error_count = 0;
        status.last_handled_reconcile_at.clone_from(asked);
    })
    .await;
    tracing::info!(
        repository = name,
        commit,
        written = good.written,
        removed = good.removed,
        "the commit is applied"
    );
    if is_new && let Some(object) = context.stores.repositories.get(name) {
        let note = format!(
            "{commit} ({}): {} written, {} removed",
            head.subject, good.written, good.removed
        );
        context.events.normal(&*object, "CommitApplied", note);
    }
}

async fn refuse(
    context: &Context,
    object: &FleetRepository,
    head: &Head,
    refused: Refused,
    asked: &Option<String>,
) {
    let now = context.clock.now();
    let (name, commit) = (object.name_any(), head.commit.to_string());
    let mut is_new = false;
    write_status(context, &name, |object, status| {
        repository::set(
            status,
            object,
            "Fetched",
            Truth::True,
            "Fetched",
            "the remote was read",
            now,
        );
        // What comes before it went well.
        for earlier in ["Verified", "Validated"]
            .iter()
            .take_while(|step| **step != refused.condition)
        {
            if refused.condition != "Fetched" {
                repository::set(status, object, earlier, Truth::True, earlier, "", now);
            }
        }
        repository::set(
            status,
            object,
            refused.condition,
            Truth::False,
            refused.reason,
            &refused.message,
            now,
        );
        is_new = status.refused_commit.as_deref() != Some(commit.as_str());
        let applied_already = status
            .applied
            .as_ref()
            .is_some_and(|applied| applied.commit == commit);
        status.refused_commit = (!applied_already).then(|| commit.clone());
        status.errors.clone_from(&refused.errors);
        status.error_count = u32::try_from(refused.count).unwrap_or(u32::MAX);
        status.last_handled_reconcile_at.clone_from(asked);
    })
    .await;
    tracing::warn!(
        repository = name,
        commit,
        reason = refused.reason,
        message = refused.message,
        "not applied"
    );
    if is_new && !refused.passes {
        context
            .events
            .warning(object, "CommitRefused", format!("{commit}: {}", refused.message));
    }
}
