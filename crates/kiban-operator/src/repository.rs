//! What sync and the ledger share about a `FleetRepository`: how its remotes are reached, and how its status is written.

use crate::{
    condition::{self, Standing, Truth},
    context::Context,
    secrets::SecretError,
    writer::WriteError,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kiban_api::{FleetRepository, FleetRepositoryStatus, repository::Verify, shared::SecretReference};
use kiban_git::{Credentials, Remote, RemoteError, Verification};
use kube::ResourceExt;
use serde_json::{Value, json};

/// Why a repository cannot be reached as its spec says.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// A Secret that it names cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Its address or branch is refused.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The keys that may sign cannot be read.
    #[error("read the keys in Secret {secret:?}: {why}")]
    Keys {
        /// The Secret.
        secret: String,
        /// What is wrong; never a key.
        why: String,
    },
}

impl RepositoryError {
    /// A stable word for conditions and metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Secret(error) => error.category(),
            Self::Remote(error) => error.category(),
            Self::Keys { .. } => "KeysUnreadable",
        }
    }
}

/// How a remote is reached.
pub async fn remote(
    context: &Context,
    url: &str,
    branch: &str,
    credentials: Option<&SecretReference>,
) -> Result<Remote, RepositoryError> {
    let mut remote = Remote::new(url, branch, context.config.allow_file_repositories)?;
    let Some(SecretReference { name }) = credentials else {
        return Ok(remote);
    };
    let secret = context.secrets.get(name).await?;
    remote.known_hosts = secret.text(name, "known_hosts")?;
    remote.ca = secret.text(name, "ca.crt")?;
    let username = secret.text(name, "username")?;
    if let Some(identity) = secret.text(name, "identity")? {
        remote.credentials = Credentials::SshKey {
            username: username.unwrap_or_else(|| "git".into()),
            // OpenSSH's own format ends with a line end, which some parsers want.
            private_key: format!("{identity}\n").into(),
            passphrase: secret.text(name, "passphrase")?.map(Into::into),
        };
    } else if username.is_some() || secret.bytes("password").is_some() {
        remote.credentials = Credentials::UserPassword {
            username: username.unwrap_or_default(),
            password: secret.required(name, "password")?.into(),
        };
    }
    Ok(remote)
}

/// Whose signature is wanted.
pub async fn verification(
    context: &Context,
    verify: Option<&Verify>,
) -> Result<Verification, RepositoryError> {
    let Some(Verify {
        keys: SecretReference { name },
    }) = verify
    else {
        return Ok(Verification::None);
    };
    let secret = context.secrets.get(name).await?;
    let text = |key: &str| secret.text(name, key).map(Option::unwrap_or_default);
    let mut openpgp = Vec::new();
    for key in secret.keys().filter(|key| key.ends_with(".asc")) {
        openpgp.push(text(key)?);
    }
    Verification::required(&text("allowed_signers")?, &text("revoked_keys")?, &openpgp).map_err(|error| {
        RepositoryError::Keys {
            secret: name.clone(),
            why: error.to_string(),
        }
    })
}

/// Changes a repository's status. `change` is given the status as it is and makes it what it should be; where that is no
/// change, nothing is written. Sync and the ledger both write, so each write carries the version that it was made from,
/// and is made again from what is there where another was faster.
pub async fn update_status(
    context: &Context,
    manager: &str,
    name: &str,
    mut change: impl FnMut(&FleetRepository, &mut FleetRepositoryStatus),
) -> Result<(), WriteError> {
    const TRIES: usize = 5;
    for attempt in 1..=TRIES {
        let present = if attempt == 1 {
            context
                .stores
                .repositories
                .get(name)
                .map(|object| (*object).clone())
        } else {
            // The store is behind: what is there now must be read.
            let repositories = context.api::<FleetRepository>();
            let read = tokio::time::timeout(context.config.api_deadline, repositories.get_opt(name));
            read.await.ok().and_then(Result::ok).flatten()
        };
        let Some(present) = present else { return Ok(()) };
        let before = present.status.clone().unwrap_or_default();
        let mut after = before.clone();
        change(&present, &mut after);
        settle(&mut after, &present);
        kiban_api::bounds::fit_status("FleetRepository", &mut after);
        if after == before && present.status.is_some() {
            return Ok(());
        }
        let patch = merge_patch(&before, &after, present.resource_version());
        match context
            .writer
            .merge_status::<FleetRepository>(manager, name, &patch)
            .await
        {
            Ok(_) => return Ok(()),
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) if error.is_conflict() && attempt < TRIES => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A merge patch that leaves nothing of the old status: fields that are no longer there are taken away.
fn merge_patch(
    before: &FleetRepositoryStatus,
    after: &FleetRepositoryStatus,
    version: Option<String>,
) -> Value {
    let (before, mut status) = (json!(before), json!(after));
    if let (Value::Object(before), Value::Object(status)) = (before, &mut status) {
        for key in before.into_iter().map(|(key, _)| key) {
            status.entry(key).or_insert(Value::Null);
        }
    }
    json!({ "metadata": { "resourceVersion": version }, "status": status })
}

/// Conditions that are `Ready`'s parts, in the order in which they come about. The first that fails is the reason.
const STEPS: [&str; 4] = ["Fetched", "Verified", "Validated", "Applied"];

/// Reasons that pass by themselves: the remote is away, or we are at work.
const PASSING: [&str; 11] = [
    "RemoteUnreachable",
    "DeadlineExceeded",
    "ProtocolFailed",
    "CacheFailed",
    "GitPanicked",
    "ApiTimeout",
    "ApiUnreachable",
    "ApiConflict",
    "ApiRefused",
    "OperationUnderWay",
    "Progressing",
];

/// Sums the conditions up in the kstatus manner.
fn settle(status: &mut FleetRepositoryStatus, object: &FleetRepository) {
    let generation = object.metadata.generation.unwrap_or_default();
    status.observed_generation = generation;
    let now = jiff::Timestamp::now();
    let parts: Vec<Option<Condition>> = STEPS
        .iter()
        .map(|s| condition::find(&status.conditions, s).cloned())
        .collect();
    let failed = parts.iter().flatten().find(|c| c.status == "False");
    let standing = match (failed, &status.applied) {
        _ if object.spec.suspend => Standing::Ready {
            reason: "Suspended",
            message: "no new commit is looked for",
        },
        (Some(c), _) if PASSING.contains(&c.reason.as_str()) => Standing::Reconciling {
            reason: &c.reason,
            message: &c.message,
        },
        (Some(c), _) => Standing::Stalled {
            reason: &c.reason,
            message: &c.message,
        },
        (None, Some(_)) if parts.iter().all(Option::is_some) => Standing::Ready {
            reason: "Applied",
            message: "the newest commit is applied",
        },
        (None, _) => Standing::Reconciling {
            reason: "Progressing",
            message: "the repository is being read",
        },
    };
    let mut conditions = std::mem::take(&mut status.conditions);
    condition::stand(&mut conditions, &standing, generation, now);
    // Every condition speaks of the generation that it was made for: all are remade in each round.
    for c in &mut conditions {
        c.observed_generation = Some(generation);
    }
    status.conditions = conditions;
}

/// Sets one of the conditions that [`update_status`] sums up.
pub fn set(
    status: &mut FleetRepositoryStatus,
    object: &FleetRepository,
    type_: &str,
    truth: Truth,
    reason: &str,
    message: &str,
    now: jiff::Timestamp,
) {
    let generation = object.metadata.generation.unwrap_or_default();
    condition::set(
        &mut status.conditions,
        type_,
        truth,
        reason,
        message,
        generation,
        now,
    );
}

/// An annotation of an object.
#[must_use]
pub fn annotation<'a>(object: &'a FleetRepository, key: &str) -> Option<&'a str> {
    object.annotations().get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use kiban_api::FleetRepositorySpec;

    fn repository() -> FleetRepository {
        let spec: FleetRepositorySpec =
            serde_json::from_value(json!({"url": "https://git.example/f.git"})).unwrap();
        let mut object = FleetRepository::new("fleet", spec);
        object.metadata.generation = Some(3);
        object
    }

    fn ready(status: &FleetRepositoryStatus) -> (String, String) {
        let c = condition::find(&status.conditions, "Ready").unwrap();
        (c.status.clone(), c.reason.clone())
    }

    #[test]
    fn the_first_step_that_fails_is_the_reason() {
        let (object, now) = (repository(), Timestamp::UNIX_EPOCH);
        let mut status = FleetRepositoryStatus::default();
        settle(&mut status, &object);
        assert_eq!(ready(&status), ("False".into(), "Progressing".into()));
        for step in STEPS {
            set(&mut status, &object, step, Truth::True, step, "", now);
        }
        status.applied = serde_json::from_value(
            json!({"commit": "a", "subject": "", "author": "", "at": "2026-01-01T00:00:00Z", "documents": 1}),
        )
        .unwrap();
        settle(&mut status, &object);
        assert_eq!(ready(&status), ("True".into(), "Applied".into()));
        set(
            &mut status,
            &object,
            "Validated",
            Truth::False,
            "Invalid",
            "3 errors",
            now,
        );
        settle(&mut status, &object);
        assert_eq!(ready(&status), ("False".into(), "Invalid".into()));
        assert!(condition::is_true(&status.conditions, "Stalled"));
        assert_eq!(status.observed_generation, 3);
    }

    #[test]
    fn a_patch_takes_away_what_is_gone() {
        let before = FleetRepositoryStatus {
            refused_commit: Some("abc".into()),
            ..Default::default()
        };
        let patch = merge_patch(&before, &FleetRepositoryStatus::default(), Some("7".into()));
        assert_eq!(patch["status"]["refusedCommit"], Value::Null);
        assert!(patch["status"].as_object().unwrap().contains_key("refusedCommit"));
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
    }
}
