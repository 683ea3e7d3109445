//! How a remote repository is reached: its URL, its credentials, and what makes us trust it.

mod authorities;
mod certificate;
mod connection;
mod known_hosts;
mod relay;

pub(crate) use connection::{BranchTip, Connection, Pushed};

use std::fmt;

use secrecy::SecretString;

/// A remote repository and the branch of it that is meant.
#[derive(Clone, Debug)]
pub struct Remote {
    /// Where it is.
    pub url: RemoteUrl,
    /// The branch, without `refs/heads/`.
    pub branch: BranchName,
    /// How we introduce ourselves.
    pub credentials: Credentials,
    /// Host keys that an ssh server may have, in the format of OpenSSH's `known_hosts` (hashed names too). An ssh
    /// remote without it is refused: trust on first use would trust whoever answers after a restart.
    pub known_hosts: Option<String>,
    /// Certificates in PEM that an https server's certificate must chain to, or be. Without it, the system's. An
    /// intermediate belongs here too: with a `ca`, what the server sends beside its own certificate is not looked at.
    pub ca: Option<String>,
    /// How many bytes one fetch or push may receive.
    pub max_bytes: u64,
}

/// Bytes that one fetch may receive unless the caller says otherwise: a fleet's YAML is a few MiB, its history less
/// than a hundred; whoever points us at a monorepo of 10 GB is told so instead of filling the disk.
pub const DEFAULT_MAX_BYTES: u64 = 1 << 30;

impl Remote {
    /// A remote with no credentials and the default limit. `allow_file` permits `file:` URLs (demo and tests).
    pub fn new(url: &str, branch: &str, allow_file: bool) -> Result<Self, RemoteError> {
        Ok(Remote {
            url: RemoteUrl::parse(url, allow_file)?,
            branch: BranchName::parse(branch)?,
            credentials: Credentials::None,
            known_hosts: None,
            ca: None,
            max_bytes: DEFAULT_MAX_BYTES,
        })
    }
}

/// Who we are to the remote. The secrets are wiped when dropped and never printed.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Nobody: a public https repository, or a file.
    #[default]
    None,
    /// An ssh private key, in the text form that `ssh-keygen` writes. It stays in memory.
    SshKey {
        /// The user to log in as when the URL names none; usually `git`.
        username: String,
        /// The private key.
        private_key: SecretString,
        /// What the key is encrypted with, if it is.
        passphrase: Option<SecretString>,
    },
    /// A user and a password or token, for https.
    UserPassword {
        /// The user; many hosts take anything with a token.
        username: String,
        /// The password or token.
        password: SecretString,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credentials::None => "None",
            Credentials::SshKey { .. } => "SshKey(…)",
            Credentials::UserPassword { .. } => "UserPassword(…)",
        })
    }
}

/// How a URL is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Git's smart protocol over https.
    Https,
    /// Git over ssh.
    Ssh,
    /// A directory of this machine, for the demo and the tests.
    File,
}

/// A checked URL of a repository: https, ssh (also in the `user@host:path` form), or a file where allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteUrl {
    text: String,
    scheme: Scheme,
    user: Option<String>,
    host: String,
    port: u16,
    path: String,
}

impl RemoteUrl {
    /// Reads and checks a URL.
    pub fn parse(text: &str, allow_file: bool) -> Result<Self, RemoteError> {
        let refuse = |why: &str| {
            // A password in the URL must not come back in the error.
            let shown = match (text.find("://"), text.rfind('@')) {
                (Some(start), Some(at)) if at > start => format!("{}://…{}", &text[..start], &text[at..]),
                _ => text.to_owned(),
            };
            RemoteError::Url {
                url: crate::printable(&shown, 200),
                why: why.to_owned(),
            }
        };
        if text.is_empty() || text.len() > 2048 {
            return Err(refuse("it must have 1 to 2048 characters"));
        }
        if text.starts_with('-') {
            return Err(refuse("it must not begin with '-'"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(refuse("it must not contain spaces or control characters"));
        }
        let (scheme, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("ssh", rest)) => (Scheme::Ssh, rest),
            Some(("file", _)) if !allow_file => return Err(refuse("file URLs are not allowed here")),
            Some(("file", rest)) => {
                if !rest.starts_with('/') {
                    return Err(refuse("a file URL needs an absolute path"));
                }
                return Ok(RemoteUrl {
                    text: text.to_owned(),
                    scheme: Scheme::File,
                    user: None,
                    host: String::new(),
                    port: 0,
                    path: rest.to_owned(),
                });
            }
            Some(_) => return Err(refuse("the scheme must be https or ssh")),
            None => return Self::parse_scp_like(text, &refuse),
        };
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => return Err(refuse("it names no repository")),
        };
        let (user, host_port) = match authority.rsplit_once('@') {
            Some((user, host_port)) => (Some(user), host_port),
            None => (None, authority),
        };
        if user.is_some_and(|user| scheme == Scheme::Https || user.contains(':')) {
            return Err(refuse("credentials belong in a Secret, not in the URL"));
        }
        let default_port = if scheme == Scheme::Https { 443 } else { 22 };
        let (host, port) =
            split_port(host_port, default_port).ok_or_else(|| refuse("its port is not a port"))?;
        Self::checked(text, scheme, user, host, port, path, &refuse)
    }

    /// `user@host:path`, as `git clone` takes it.
    fn parse_scp_like(text: &str, refuse: &dyn Fn(&str) -> RemoteError) -> Result<Self, RemoteError> {
        let Some((authority, path)) = text.split_once(':') else {
            return Err(refuse("the scheme must be https or ssh"));
        };
        // `ext::sh -c …` and every other transport helper.
        if path.starts_with(':') {
            return Err(refuse("transport helpers are not allowed"));
        }
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        Self::checked(text, Scheme::Ssh, user, host, 22, path, refuse)
    }

    fn checked(
        text: &str,
        scheme: Scheme,
        user: Option<&str>,
        host: &str,
        port: u16,
        path: &str,
        refuse: &dyn Fn(&str) -> RemoteError,
    ) -> Result<Self, RemoteError> {
        let name = |s: &str, extra: &str| {
            !s.is_empty()
                && !s.starts_with('-')
                && s.chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c) || extra.contains(c))
        };
        let bare_host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        if !name(bare_host, ":") || (bare_host.contains(':') && bare_host == host) {
            return Err(refuse("its host is not a host name"));
        }
        if user.is_some_and(|user| !name(user, "+")) {
            return Err(refuse("its user is not a user name"));
        }
        let bare_path = path.trim_start_matches('/');
        if bare_path.is_empty() || bare_path.starts_with('-') || path.contains(['\\', '\'', '"', '?', '#']) {
            return Err(refuse("its path is not that of a repository"));
        }
        Ok(RemoteUrl {
            text: text.to_owned(),
            scheme,
            user: user.map(str::to_owned),
            host: bare_host.to_ascii_lowercase(),
            port,
            path: path.to_owned(),
        })
    }

    /// How it is spoken to.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host, in lower case, without brackets; empty for a file.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 for a file.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL as it was written. It holds no secret: one with a password is refused.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The ssh URL with another address in place of the host, for the relay.
    pub(crate) fn ssh_through(&self, port: u16, user: &str) -> String {
        // In the scp-like form a path is relative to the home directory unless it begins with a slash; `/~/` says that
        // in a URL to no server, so the path is sent as it stands, which is what `git` does.
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        format!("ssh://{user}@127.0.0.1:{port}{slash}{}", self.path)
    }

    /// The user that the URL names.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn split_port(host_port: &str, default: u16) -> Option<(&str, u16)> {
    let after_bracket = host_port.rfind(']').map_or(0, |i| i + 1);
    match host_port[after_bracket..].rfind(':') {
        Some(colon) => {
            let port = host_port[after_bracket + colon + 1..]
                .parse()
                .ok()
                .filter(|port| *port != 0)?;
            Some((&host_port[..after_bracket + colon], port))
        }
        None => Some((host_port, default)),
    }
}

/// A checked branch name, without `refs/heads/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchName(String);

impl BranchName {
    /// Reads and checks a branch name by Git's own rules and a few more.
    pub fn parse(text: &str) -> Result<Self, RemoteError> {
        let plain = text
            .chars()
            .all(|c| c.is_alphanumeric() || "-._/+#@=,%".contains(c));
        let valid = !text.is_empty()
            && text.len() <= 200
            && !text.starts_with('-')
            && !text.starts_with("refs/")
            && plain
            && git2::Reference::is_valid_name(&format!("refs/heads/{text}"));
        if valid {
            Ok(BranchName(text.to_owned()))
        } else {
            Err(RemoteError::Branch {
                branch: crate::printable(text, 200),
            })
        }
    }

    /// The name without `refs/heads/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name with `refs/heads/`.
    pub fn reference(&self) -> String {
        format!("refs/heads/{}", self.0)
    }
}

impl fmt::Display for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a remote could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// The URL is refused.
    #[error("use the repository URL {url:?}: {why}")]
    Url {
        /// The URL, without any password.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The branch name is refused.
    #[error("use the branch name {branch:?}: it is not a name that Git allows for a branch")]
    Branch {
        /// The name.
        branch: String,
    },
    /// No connection could be made.
    #[error("connect to {url}: {detail}")]
    Unreachable {
        /// The remote.
        url: String,
        /// What was seen.
        detail: String,
    },
    /// The ssh server's host key is not one we know.
    #[error("check the host key of {url}: {detail}")]
    HostKey {
        /// The remote.
        url: String,
        /// What was seen and what to do.
        detail: String,
    },
    /// The https server's certificate is not trusted.
    #[error("check the certificate of {url}: {detail}")]
    Certificate {
        /// The remote.
        url: String,
        /// What was seen and what to do.
        detail: String,
    },
    /// The remote refused our credentials, or wants some.
    #[error("log in to {url}: {detail}")]
    Authentication {
        /// The remote.
        url: String,
        /// What was seen.
        detail: String,
    },
    /// The remote says that there is no such repository (or that we may not know of it).
    #[error("find the repository {url}: {detail}")]
    RepositoryMissing {
        /// The remote.
        url: String,
        /// What the remote said.
        detail: String,
    },
    /// The remote sent us to another host.
    #[error("follow {url}: it redirects elsewhere, which is refused; write the final URL ({detail})")]
    Redirected {
        /// The remote.
        url: String,
        /// What was seen.
        detail: String,
    },
    /// The call did not end in its time.
    #[error("talk to {url}: no end within the deadline")]
    Deadline {
        /// The remote.
        url: String,
    },
    /// The remote sends more than is allowed.
    #[error("receive from {url}: more than {max_bytes} bytes")]
    TooLarge {
        /// The remote.
        url: String,
        /// The limit, in bytes.
        max_bytes: u64,
    },
    /// The remote does not speak as it should, or the pack that it sent is broken.
    #[error("talk to {url}: {detail}")]
    Protocol {
        /// The remote.
        url: String,
        /// What was seen.
        detail: String,
    },
}

impl RemoteError {
    /// The stable name of this error, for reasons of conditions and labels of metrics.
    pub fn category(&self) -> &'static str {
        match self {
            RemoteError::Url { .. } => "UrlRefused",
            RemoteError::Branch { .. } => "BranchNameRefused",
            RemoteError::Unreachable { .. } => "RemoteUnreachable",
            RemoteError::HostKey { .. } => "HostKeyNotTrusted",
            RemoteError::Certificate { .. } => "CertificateNotTrusted",
            RemoteError::Authentication { .. } => "AuthenticationFailed",
            RemoteError::RepositoryMissing { .. } => "RepositoryMissing",
            RemoteError::Redirected { .. } => "RedirectRefused",
            RemoteError::Deadline { .. } => "DeadlineExceeded",
            RemoteError::TooLarge { .. } => "RepositoryTooLarge",
            RemoteError::Protocol { .. } => "ProtocolFailed",
        }
    }

    /// Whether the same call may succeed later with nothing changed by a person.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            RemoteError::Unreachable { .. } | RemoteError::Deadline { .. } | RemoteError::Protocol { .. }
        )
    }
}
