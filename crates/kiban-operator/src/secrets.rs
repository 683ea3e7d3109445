//! Secrets, read by name. Never listed, never watched: the operator may see only what an object of the fleet names.

use crate::clock::Clock;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// A rotated password is seen after this long at the latest; a thousand BMCs that share an account cost one read.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// Reads Secrets of the fleet's namespace, and keeps each for a short while.
#[derive(Clone)]
pub struct Secrets {
    api: Api<Secret>,
    deadline: Duration,
    clock: Clock,
    kept: Arc<Mutex<HashMap<String, (Duration, SecretData)>>>,
}

/// The data of one Secret. Its `Debug` shows the keys only.
#[derive(Clone, Default)]
pub struct SecretData {
    data: Arc<BTreeMap<String, Vec<u8>>>,
    version: Arc<str>,
}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.data.keys()).finish()
    }
}

/// Why a Secret could not be used. No message holds any of its data.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// There is none of the name.
    #[error("read Secret {name:?}: there is none; create it in the fleet's namespace")]
    Missing {
        /// Its name.
        name: String,
    },
    /// It lacks a key.
    #[error("read {key:?} of Secret {name:?}: there is no such key")]
    KeyMissing {
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A value that must be text is not.
    #[error("read {key:?} of Secret {name:?}: it is not UTF-8")]
    NotText {
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// The API server did not give it.
    #[error("read Secret {name:?}")]
    Api {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server did not answer in time.
    #[error("read Secret {name:?}: no answer in time")]
    Timeout {
        /// Its name.
        name: String,
    },
}

impl SecretError {
    /// A stable word for conditions and metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "SecretMissing",
            Self::KeyMissing { .. } => "SecretKeyMissing",
            Self::NotText { .. } => "SecretNotText",
            Self::Api { .. } => "SecretUnreadable",
            Self::Timeout { .. } => "ApiTimeout",
        }
    }
}

impl Secrets {
    /// Reads Secrets of one namespace.
    #[must_use]
    pub fn new(client: Client, namespace: &str, deadline: Duration, clock: Clock) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            deadline,
            clock,
            kept: Arc::default(),
        }
    }

    /// The Secret of a name, at most half a minute old.
    pub async fn get(&self, name: &str) -> Result<SecretData, SecretError> {
        let now = self.clock.elapsed();
        if let Some((at, data)) = self.lock().get(name)
            && now.saturating_sub(*at) < KEPT_FOR
        {
            return Ok(data.clone());
        }
        self.get_live(name).await
    }

    /// The Secret of a name as it is now: for use after an account was refused.
    pub async fn get_live(&self, name: &str) -> Result<SecretData, SecretError> {
        let read = tokio::time::timeout(self.deadline, self.api.get_opt(name)).await;
        let found = read
            .map_err(|_| SecretError::Timeout { name: name.into() })?
            .map_err(|source| SecretError::Api {
                name: name.into(),
                source: Box::new(source),
            })?;
        let Some(secret) = found else {
            self.lock().remove(name);
            return Err(SecretError::Missing { name: name.into() });
        };
        let version = secret.metadata.resource_version.unwrap_or_default().into();
        let data = secret
            .data
            .unwrap_or_default()
            .into_iter()
            .map(|(key, value)| (key, value.0))
            .collect();
        let data = SecretData {
            data: Arc::new(data),
            version,
        };
        self.lock()
            .insert(name.to_owned(), (self.clock.elapsed(), data.clone()));
        Ok(data)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Duration, SecretData)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SecretData {
    /// Changes when the Secret changes.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// A value as bytes.
    #[must_use]
    pub fn bytes(&self, key: &str) -> Option<&[u8]> {
        self.data.get(key).map(Vec::as_slice)
    }

    /// A value as text, without the line end that editors leave.
    pub fn text(&self, secret: &str, key: &str) -> Result<Option<String>, SecretError> {
        let Some(value) = self.data.get(key) else {
            return Ok(None);
        };
        match std::str::from_utf8(value) {
            Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
            Err(_) => Err(SecretError::NotText {
                name: secret.into(),
                key: key.into(),
            }),
        }
    }

    /// A value as text that must be there.
    pub fn required(&self, secret: &str, key: &str) -> Result<String, SecretError> {
        self.text(secret, key)?.ok_or_else(|| SecretError::KeyMissing {
            name: secret.into(),
            key: key.into(),
        })
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.data.keys().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_value() {
        let data = BTreeMap::from([("password".to_owned(), b"canary-81".to_vec())]);
        let data = SecretData {
            data: Arc::new(data),
            version: "1".into(),
        };
        assert_eq!(format!("{data:?}"), r#"["password"]"#);
        assert_eq!(data.required("s", "password").unwrap(), "canary-81");
        let error = data.required("s", "username").unwrap_err();
        assert_eq!(
            (error.category(), error.to_string().contains("canary")),
            ("SecretKeyMissing", false)
        );
    }
}
