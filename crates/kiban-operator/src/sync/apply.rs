//! Writes what a commit changes, in order, a bounded number at a time.

use super::{changes::Changes, desired::Desired, kinds::Kind};
use crate::{context::Context, writer::WriteError};
use futures::{StreamExt, stream};
use kiban_api::{FleetRepository, repository::SourceError};
use kube::ResourceExt;

/// What came of it.
#[derive(Debug, Default)]
pub struct Applied {
    /// Objects that were written, with the generation that they have now.
    pub written: Vec<(Kind, String, i64)>,
    /// Objects that were removed.
    pub removed: usize,
    /// Removals that wait for an operation to end.
    pub waiting: Vec<String>,
    /// What failed, with its place.
    pub errors: Vec<SourceError>,
    /// Category of the first failure.
    pub reason: Option<&'static str>,
}

/// Applies a commit's changes. Kinds that are referred to come first; within a kind, many at once. A kind in which
/// something failed ends it: what comes later may refer to it.
pub async fn apply(
    context: &Context,
    repository: &FleetRepository,
    commit: &str,
    desired: &Desired,
    changes: &Changes,
) -> Applied {
    let mut applied = Applied::default();
    let name = repository.name_any();
    for kind in Kind::ALL {
        let calls: Vec<_> = changes
            .apply
            .iter()
            .filter(|(k, _)| *k == kind)
            .filter_map(|key| desired.objects.get(key).map(|wanted| (&key.1, wanted)))
            .map(|(object, wanted)| {
                let value = wanted.to_apply(kind, object, &name, commit);
                async move {
                    (
                        object,
                        wanted,
                        apply_one(context, repository, kind, object, &value).await,
                    )
                }
            })
            .collect();
        let mut results = stream::iter(calls).buffer_unordered(context.config.apply_concurrency.max(1));
        while let Some((object, wanted, result)) = results.next().await {
            match result {
                Ok(generation) => applied.written.push((kind, object.clone(), generation)),
                Err(error) => applied.failed(&error, wanted.file.clone(), wanted.line),
            }
        }
        if applied.reason.is_some() {
            return applied;
        }
    }
    prune(context, changes, &mut applied).await;
    applied
}

impl Applied {
    fn failed(&mut self, error: &WriteError, file: String, line: u32) {
        self.reason.get_or_insert(error.category());
        self.errors.push(SourceError {
            file,
            line,
            field: String::new(),
            message: error.to_string(),
        });
    }
}

/// Applies without force first: a conflict names who changed a field that Git has. Then Git wins, and the event says it.
async fn apply_one(
    context: &Context,
    repository: &FleetRepository,
    kind: Kind,
    name: &str,
    value: &serde_json::Value,
) -> Result<i64, WriteError> {
    match kind.apply(context, value, name, false).await {
        Err(error) if error.is_conflict() => {
            let note = format!(
                "{} {name}: {}; what is in Git is put back",
                kind.as_str(),
                conflict(&error)
            );
            tracing::warn!(%note, "a field that Git has was changed by someone else");
            context.events.warning(repository, "ChangeTakenBack", note);
            kind.apply(context, value, name, true).await
        }
        result => result,
    }
}

/// The API server's own words: `Apply failed with 1 conflict: conflict with "kubectl-edit" using …: .spec.pool`.
fn conflict(error: &WriteError) -> String {
    match error {
        WriteError::Api { source, .. } => match &**source {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        },
        WriteError::Timeout { .. } => error.to_string(),
    }
}

/// Removes what the commit has no more. A device with an operation is removed when that has ended.
async fn prune(context: &Context, changes: &Changes, applied: &mut Applied) {
    for (kind, name) in &changes.prune {
        if *kind == Kind::Device && context.stores.operations.get(name).is_some() {
            applied.waiting.push(name.clone());
            continue;
        }
        match kind.delete(context, name).await {
            Ok(()) => applied.removed += 1,
            // Someone changed it since it was looked at: the next look decides anew.
            Err(error) => applied.failed(&error, String::new(), 0),
        }
    }
}
