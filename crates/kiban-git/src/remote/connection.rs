//! One conversation with a remote: fetch a branch, or push one forward.

use std::{
    cell::{Cell, OnceCell, RefCell},
    rc::Rc,
    time::Instant,
};

use git2::{
    AutotagOption, CertificateCheckStatus, Cred, CredentialType, ErrorClass, ErrorCode, FetchOptions, Oid,
    ProxyOptions, PushOptions, RemoteCallbacks, RemoteRedirect, Repository, cert::Cert,
};
use rustls_pki_types::UnixTime;
use secrecy::ExposeSecret;

use super::{
    Credentials, Remote, RemoteError, Scheme,
    authorities::{self, Chain, ChainError},
    certificate, known_hosts,
    relay::{HangUp, Mode, Relay},
};
use crate::printable;

/// What a remote has to say about the branch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BranchTip {
    /// It is there, and its objects are here.
    At(Oid),
    /// The repository has branches, but not this one. Some of their names, for the message.
    Missing(Vec<String>),
    /// The repository has no branch at all.
    EmptyRepository,
}

/// What became of a push.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// The remote's branch is at our commit.
    Done,
    /// Someone else was first: the remote's branch is not an ancestor of ours.
    NotFastForward,
    /// The remote said no, with its words.
    Refused(String),
}

/// A conversation with a deadline.
pub(crate) struct Connection<'r> {
    remote: &'r Remote,
    relay: Option<Relay>,
    deadline: Instant,
    /// What a callback found. libgit2 passes on only a text of it.
    verdict: Rc<RefCell<Option<RemoteError>>>,
    /// What the server's certificate is checked against when no CA is given.
    chain: OnceCell<Chain>,
}

impl<'r> Connection<'r> {
    /// Prepares the conversation. Nothing is sent yet.
    pub(crate) fn start(remote: &'r Remote, deadline: Instant) -> Result<Self, RemoteError> {
        let mode = match remote.url.scheme() {
            Scheme::Https => Some(Mode::Connect),
            Scheme::Ssh => Some(Mode::Direct),
            Scheme::File => None,
        };
        if remote.url.scheme() == Scheme::Ssh && remote.known_hosts.is_none() {
            return Err(RemoteError::HostKey {
                url: remote.url.to_string(),
                detail: "no known_hosts is given (ssh-keyscan shows the lines for it)".to_owned(),
            });
        }
        let relay = match mode {
            Some(mode) => Some(
                Relay::start(
                    remote.url.host(),
                    remote.url.port(),
                    mode,
                    deadline,
                    remote.max_bytes,
                )
                .map_err(|e| RemoteError::Unreachable {
                    url: remote.url.to_string(),
                    detail: format!("open a local port: {e}"),
                })?,
            ),
            None => None,
        };
        Ok(Connection {
            remote,
            relay,
            deadline,
            verdict: Rc::default(),
            chain: OnceCell::new(),
        })
    }

    /// Learns what the server's certificate is to be checked against, when that is for the system to say.
    fn learn_chain(&self) -> Result<(), RemoteError> {
        let (Some(relay), Scheme::Https, None) = (&self.relay, self.remote.url.scheme(), &self.remote.ca)
        else {
            return Ok(());
        };
        let url = &self.remote.url;
        if self.chain.get().is_none() {
            let chain = authorities::chain(relay.port(), url.host(), url.port()).map_err(|e| match e {
                ChainError::Untrusted(detail) => RemoteError::Certificate {
                    url: url.to_string(),
                    detail,
                },
                // The relay knows better why a conversation ended.
                ChainError::Broken(detail) => self.ended().unwrap_or_else(|| RemoteError::Unreachable {
                    url: url.to_string(),
                    detail: format!("shake hands for TLS: {detail}"),
                }),
            })?;
            // It was empty a moment ago, and a connection is not shared between threads.
            drop(self.chain.set(chain));
        }
        Ok(())
    }

    /// Fetches the branch's objects. No reference is written: the caller decides what to make of the tip.
    pub(crate) fn fetch(&self, repo: &Repository) -> Result<BranchTip, RemoteError> {
        self.learn_chain()?;
        let tip = self.fetch_inner(repo).map_err(|e| self.translate(&e))?;
        match self.verdict.take() {
            Some(verdict) => Err(verdict),
            None => Ok(tip),
        }
    }

    fn fetch_inner(&self, repo: &Repository) -> Result<BranchTip, git2::Error> {
        let mut remote = self.anonymous(repo)?;
        let wanted = self.remote.branch.reference();
        let mut options = FetchOptions::new();
        options
            .remote_callbacks(self.callbacks())
            .proxy_options(self.proxy())
            .download_tags(AutotagOption::None)
            .update_fetchhead(false)
            .follow_redirects(RemoteRedirect::None);
        // Not `connect` and then `list`: git2's connect has no way to forbid redirects to another host.
        remote.download(&[wanted.as_str()], Some(&mut options))?;
        let mut tip = None;
        let mut others = Vec::new();
        let mut any = false;
        for head in remote.list()? {
            any |= head.name().starts_with("refs/heads/");
            if head.name() == wanted {
                tip = Some(head.oid());
            } else if let Some(name) = head.name().strip_prefix("refs/heads/")
                && others.len() < 5
            {
                others.push(printable(name, 60));
            }
        }
        let Some(tip) = tip else {
            return Ok(if any {
                BranchTip::Missing(others)
            } else {
                BranchTip::EmptyRepository
            });
        };
        Ok(BranchTip::At(tip))
    }

    /// Moves the remote's branch forward to `commit`, never in another direction.
    pub(crate) fn push(&self, repo: &Repository, local_reference: &str) -> Result<Pushed, RemoteError> {
        self.learn_chain()?;
        let refusal = Rc::new(RefCell::new(None));
        match self.push_inner(repo, local_reference, &refusal) {
            Ok(()) => Ok(match refusal.take() {
                None => Pushed::Done,
                // What servers say when the branch moved between their advertisement and our command.
                Some(text) if is_race(&text) => Pushed::NotFastForward,
                Some(text) => Pushed::Refused(text),
            }),
            Err(e) if e.code() == ErrorCode::NotFastForward && self.verdict.borrow().is_none() => {
                Ok(Pushed::NotFastForward)
            }
            Err(e) => Err(self.translate(&e)),
        }
    }

    fn push_inner(
        &self,
        repo: &Repository,
        local_reference: &str,
        refusal: &Rc<RefCell<Option<String>>>,
    ) -> Result<(), git2::Error> {
        let mut remote = self.anonymous(repo)?;
        let mut callbacks = self.callbacks();
        let refusal = Rc::clone(refusal);
        callbacks.push_update_reference(move |_, status| {
            if let Some(text) = status {
                *refusal.borrow_mut() = Some(printable(text, 300));
            }
            Ok(())
        });
        let mut options = PushOptions::new();
        options
            .remote_callbacks(callbacks)
            .proxy_options(self.proxy())
            .packbuilder_parallelism(0)
            .follow_redirects(RemoteRedirect::None);
        // No leading '+': a push that is not fast-forward fails.
        let refspec = format!("{local_reference}:{}", self.remote.branch.reference());
        remote.push(&[refspec], Some(&mut options))
    }

    fn anonymous<'repo>(&self, repo: &'repo Repository) -> Result<git2::Remote<'repo>, git2::Error> {
        let url = match (&self.relay, self.remote.url.scheme()) {
            (Some(relay), Scheme::Ssh) => self.remote.url.ssh_through(relay.port(), self.user()),
            _ => self.remote.url.as_str().to_owned(),
        };
        let remote = repo.remote_anonymous(&url)?;
        if remote.url()? != url {
            // url.<base>.insteadOf in some Git configuration of this machine would send our credentials elsewhere.
            *self.verdict.borrow_mut() = Some(RemoteError::Url {
                url: self.remote.url.to_string(),
                why: "a Git configuration on this machine rewrites it (insteadOf)".to_owned(),
            });
            return Err(git2::Error::from_str("rewritten"));
        }
        Ok(remote)
    }

    fn user(&self) -> &str {
        match (&self.remote.credentials, self.remote.url.user()) {
            (_, Some(user)) => user,
            (Credentials::SshKey { username, .. } | Credentials::UserPassword { username, .. }, None)
                if !username.is_empty() =>
            {
                username
            }
            _ => "git",
        }
    }

    fn proxy(&self) -> ProxyOptions<'static> {
        let mut proxy = ProxyOptions::new();
        if let (Some(relay), Scheme::Https) = (&self.relay, self.remote.url.scheme()) {
            proxy.url(&format!("http://127.0.0.1:{}", relay.port()));
        }
        proxy
    }

    fn callbacks(&self) -> RemoteCallbacks<'_> {
        let mut callbacks = RemoteCallbacks::new();
        let deadline = self.deadline;
        let max_bytes = self.remote.max_bytes;
        let verdict = Rc::clone(&self.verdict);
        let url = self.remote.url.to_string();
        callbacks.transfer_progress(move |progress| {
            if progress.received_bytes() as u64 > max_bytes {
                *verdict.borrow_mut() = Some(RemoteError::TooLarge {
                    url: url.clone(),
                    max_bytes,
                });
                return false;
            }
            Instant::now() < deadline
        });
        callbacks.sideband_progress(move |_| Instant::now() < deadline);
        callbacks.certificate_check(move |cert, _| self.check_certificate(cert));
        let attempts = Cell::new(0_u32);
        callbacks.credentials(move |_, _, allowed| {
            attempts.set(attempts.get() + 1);
            self.credential(allowed, attempts.get())
        });
        callbacks
    }

    fn check_certificate(&self, cert: &Cert<'_>) -> Result<CertificateCheckStatus, git2::Error> {
        let url = &self.remote.url;
        let refuse = |error: RemoteError| {
            let text = error.to_string();
            *self.verdict.borrow_mut() = Some(error);
            match &self.relay {
                // Saying no here is what libgit2 cannot bear (see `start`). Hanging up before it may send anything is as
                // good: no request, and no credential, leaves this machine.
                Some(relay) if url.scheme() == Scheme::Https => {
                    relay.hang_up();
                    Ok(CertificateCheckStatus::CertificateOk)
                }
                _ => Err(git2::Error::new(
                    ErrorCode::Certificate,
                    ErrorClass::Callback,
                    text,
                )),
            }
        };
        if let Some(key) = cert.as_hostkey() {
            // The host that libgit2 names is the relay's; the one that counts is the URL's.
            let checked = match (key.hostkey(), &self.remote.known_hosts) {
                (Some(key), Some(known_hosts)) => {
                    known_hosts::check(known_hosts, url.host(), url.port(), key)
                }
                _ => Err("the server showed no host key".to_owned()),
            };
            return match checked {
                Ok(()) => Ok(CertificateCheckStatus::CertificateOk),
                Err(detail) => refuse(RemoteError::HostKey {
                    url: url.to_string(),
                    detail,
                }),
            };
        }
        let Some(leaf) = cert.as_x509() else {
            return refuse(RemoteError::Certificate {
                url: url.to_string(),
                detail: "the server showed a certificate of a kind that is not known".to_owned(),
            });
        };
        let now = UnixTime::now();
        let checked = match (&self.remote.ca, self.chain.get()) {
            (Some(ca), _) => certificate::check_given(ca, url.host(), leaf.data(), now),
            (None, Some(chain)) => certificate::check(
                &chain.authorities,
                &chain.intermediates,
                url.host(),
                leaf.data(),
                now,
            ),
            (None, None) => Err("there is nothing to check it against".to_owned()),
        };
        match checked {
            Ok(()) => Ok(CertificateCheckStatus::CertificateOk),
            Err(detail) => refuse(RemoteError::Certificate {
                url: url.to_string(),
                detail,
            }),
        }
    }

    fn credential(&self, allowed: CredentialType, attempt: u32) -> Result<Cred, git2::Error> {
        let refuse = |detail: &str| {
            let error = RemoteError::Authentication {
                url: self.remote.url.to_string(),
                detail: detail.to_owned(),
            };
            let text = error.to_string();
            *self.verdict.borrow_mut() = Some(error);
            Err(git2::Error::new(ErrorCode::Auth, ErrorClass::Callback, text))
        };
        if allowed.contains(CredentialType::USERNAME) {
            return Cred::username(self.user());
        }
        // libgit2 asks again for as long as the server refuses; accounts get locked that way.
        if attempt > 2 {
            return refuse("the credentials were refused");
        }
        match &self.remote.credentials {
            Credentials::SshKey {
                private_key,
                passphrase,
                ..
            } if allowed.contains(CredentialType::SSH_MEMORY)
                || allowed.contains(CredentialType::SSH_KEY) =>
            {
                let passphrase = passphrase.as_ref().map(ExposeSecret::expose_secret);
                Cred::ssh_key_from_memory(self.user(), None, private_key.expose_secret(), passphrase)
            }
            Credentials::UserPassword { username, password }
                if allowed.contains(CredentialType::USER_PASS_PLAINTEXT) =>
            {
                Cred::userpass_plaintext(username, password.expose_secret())
            }
            Credentials::None => refuse("the remote asks for credentials, and none are given"),
            _ => refuse("the remote does not take the kind of credentials given"),
        }
    }

    /// Why the conversation was ended by us, if it was.
    fn ended(&self) -> Option<RemoteError> {
        let url = self.remote.url.to_string();
        match self.relay.as_ref().and_then(Relay::reason) {
            Some(HangUp::Deadline) => Some(RemoteError::Deadline { url }),
            Some(HangUp::TooLarge) => Some(RemoteError::TooLarge {
                url,
                max_bytes: self.remote.max_bytes,
            }),
            Some(HangUp::Unreachable(detail)) => Some(RemoteError::Unreachable { url, detail }),
            Some(HangUp::Elsewhere(detail)) => Some(RemoteError::Redirected { url, detail }),
            None if Instant::now() >= self.deadline => Some(RemoteError::Deadline { url }),
            None => None,
        }
    }

    /// Turns what libgit2 says into what happened: the relay and our callbacks know better than its text.
    fn translate(&self, error: &git2::Error) -> RemoteError {
        if let Some(verdict) = self.verdict.take() {
            return verdict;
        }
        if let Some(ended) = self.ended() {
            return ended;
        }
        let url = self.remote.url.to_string();
        let detail = printable(error.message(), 300);
        let says = |words: &[&str]| {
            words
                .iter()
                .any(|word| detail.to_ascii_lowercase().contains(word))
        };
        match error.code() {
            ErrorCode::Auth => RemoteError::Authentication { url, detail },
            ErrorCode::Certificate => RemoteError::Certificate { url, detail },
            _ if says(&["certificate"]) => RemoteError::Certificate { url, detail },
            _ if says(&["redirect"]) => RemoteError::Redirected { url, detail },
            _ if says(&["authenticat", "status code: 401", "status code: 403"]) => {
                RemoteError::Authentication { url, detail }
            }
            _ if says(&[
                "status code: 404",
                "not found",
                "does not appear to be a git",
                "failed to resolve path",
            ]) =>
            {
                RemoteError::RepositoryMissing { url, detail }
            }
            _ if says(&["status code: 5", "failed to connect"]) => RemoteError::Unreachable { url, detail },
            _ => RemoteError::Protocol { url, detail },
        }
    }
}

fn is_race(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [
        "non-fast-forward",
        "fetch first",
        "failed to lock",
        "failed to update ref",
        "cannot lock",
        "incorrect old value",
    ]
    .iter()
    .any(|words| text.contains(words))
}
