//! Who signed a commit, and may they? SSH signatures against allowed signers, OpenPGP signatures against public keys.
//! The keys come from the caller, never from the repository that they are to guard.

mod allowed_signers;
#[cfg(feature = "openpgp")]
mod openpgp;

use std::sync::Arc;

use git2::{ErrorCode, Oid, Repository};
use jiff::Timestamp;
use ssh_key::{HashAlg, PrivateKey, PublicKey, SshSig};

use crate::{printable, source::commit_time};
use allowed_signers::AllowedSigners;

/// Which signatures are wanted.
#[derive(Clone, Debug, Default)]
pub enum Verification {
    /// None: whoever can push decides. The status says that nothing was checked.
    #[default]
    None,
    /// The head commit must be signed by one of these keys.
    Required(Arc<Keys>),
}

/// The keys that may sign.
#[derive(Debug, Default)]
pub struct Keys {
    signers: AllowedSigners,
    revoked: Vec<PublicKey>,
    #[cfg(feature = "openpgp")]
    openpgp: Vec<openpgp::Certificate>,
}

/// Why the given keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("read {what}, line {line}: {why}")]
pub struct KeysError {
    /// Which of the texts.
    pub what: &'static str,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

impl Verification {
    /// Reads the keys. `allowed_signers` is OpenSSH's file of that name (`man ssh-keygen`), `revoked_keys` one ssh public
    /// key a line, `openpgp_keys` armored public keys. None of them is a mistake: nobody could sign.
    pub fn required(
        allowed_signers: &str,
        revoked_keys: &str,
        openpgp_keys: &[String],
    ) -> Result<Verification, KeysError> {
        let signers = AllowedSigners::parse(allowed_signers)?;
        let mut revoked = Vec::new();
        for (i, line) in revoked_keys.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = PublicKey::from_openssh(line);
            revoked.push(key.map_err(|e| KeysError {
                what: "revoked keys",
                line: i + 1,
                why: e.to_string(),
            })?);
        }
        #[cfg(not(feature = "openpgp"))]
        if !openpgp_keys.is_empty() {
            let why = "this build does not know OpenPGP".to_owned();
            return Err(KeysError {
                what: "OpenPGP keys",
                line: 1,
                why,
            });
        }
        if signers.is_empty() && openpgp_keys.is_empty() {
            let why = "there is no key, so no commit could be accepted".to_owned();
            return Err(KeysError {
                what: "allowed signers",
                line: 1,
                why,
            });
        }
        Ok(Verification::Required(Arc::new(Keys {
            signers,
            revoked,
            #[cfg(feature = "openpgp")]
            openpgp: openpgp::Certificate::parse_all(openpgp_keys)?,
        })))
    }
}

/// Who signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The principal of the allowed signers, or the OpenPGP user id: the name that the *keys* give, not the commit.
    pub name: String,
    /// The key's fingerprint: `SHA256:…` for ssh, hexadecimal digits for OpenPGP.
    pub key: String,
}

/// What a commit's signature says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureStatus {
    /// No signature was wanted, so none was looked at.
    NotChecked,
    /// Signed by someone who may.
    Good(Signer),
    /// There is no signature.
    Unsigned,
    /// The signature is by a key that was not given.
    UnknownKey {
        /// Its fingerprint or id.
        key: String,
    },
    /// The key is known and out of its time, at the commit's time or now.
    Expired {
        /// Whose key.
        signer: Signer,
        /// Its time.
        why: String,
    },
    /// The key is known and revoked.
    Revoked {
        /// Whose key.
        signer: Signer,
    },
    /// The key is known and not for signing commits.
    NotForGit {
        /// Whose key.
        signer: Signer,
        /// What it is for.
        why: String,
    },
    /// The signature does not fit the commit: it was altered, or made for something else.
    Invalid {
        /// What was seen.
        why: String,
    },
}

impl SignatureStatus {
    /// Whether the commit may be applied.
    pub fn is_accepted(&self) -> bool {
        matches!(self, SignatureStatus::NotChecked | SignatureStatus::Good(_))
    }

    /// The stable name, for reasons of conditions and labels of metrics.
    pub fn category(&self) -> &'static str {
        match self {
            SignatureStatus::NotChecked => "SignatureNotChecked",
            SignatureStatus::Good(_) => "SignatureGood",
            SignatureStatus::Unsigned => "Unsigned",
            SignatureStatus::UnknownKey { .. } => "SignerUnknown",
            SignatureStatus::Expired { .. } => "SignerExpired",
            SignatureStatus::Revoked { .. } => "SignerRevoked",
            SignatureStatus::NotForGit { .. } => "SignerNotForGit",
            SignatureStatus::Invalid { .. } => "SignatureInvalid",
        }
    }
}

impl std::fmt::Display for SignatureStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SignatureStatus::NotChecked => write!(f, "not checked"),
            SignatureStatus::Good(signer) => write!(f, "good, by {} ({})", signer.name, signer.key),
            SignatureStatus::Unsigned => write!(f, "the commit is not signed"),
            SignatureStatus::UnknownKey { key } => {
                write!(f, "signed by {key}, which is not an allowed signer")
            }
            SignatureStatus::Expired { signer, why } => {
                write!(
                    f,
                    "signed by {} ({}), whose key is not valid: {why}",
                    signer.name, signer.key
                )
            }
            SignatureStatus::Revoked { signer } => {
                write!(
                    f,
                    "signed by {} ({}), whose key is revoked",
                    signer.name, signer.key
                )
            }
            SignatureStatus::NotForGit { signer, why } => {
                write!(
                    f,
                    "signed by {} ({}), whose key is not for commits: {why}",
                    signer.name, signer.key
                )
            }
            SignatureStatus::Invalid { why } => write!(f, "the signature is not valid: {why}"),
        }
    }
}

/// The namespace that Git gives to its ssh signatures.
const NAMESPACE: &str = "git";

/// Checks the signature of a commit.
pub(crate) fn verify(repo: &Repository, commit: Oid, verification: &Verification) -> SignatureStatus {
    let Verification::Required(keys) = verification else {
        return SignatureStatus::NotChecked;
    };
    let (signature, signed) = match repo.extract_signature(&commit, None) {
        Ok(parts) => parts,
        Err(e) if e.code() == ErrorCode::NotFound => return SignatureStatus::Unsigned,
        Err(e) => {
            return SignatureStatus::Invalid {
                why: printable(e.message(), 200),
            };
        }
    };
    let committed = repo
        .find_commit(commit)
        .map(|c| commit_time(&c))
        .unwrap_or_default();
    verify_text(&signature, &signed, committed, Timestamp::now(), keys)
}

fn verify_text(
    signature: &[u8],
    signed: &[u8],
    committed: Timestamp,
    now: Timestamp,
    keys: &Keys,
) -> SignatureStatus {
    let text = String::from_utf8_lossy(signature);
    if text.contains("-----BEGIN SSH SIGNATURE-----") {
        return verify_ssh(text.trim(), signed, committed, now, keys);
    }
    if text.contains("-----BEGIN PGP SIGNATURE-----") {
        #[cfg(feature = "openpgp")]
        return openpgp::verify(&text, signed, committed, now, &keys.openpgp);
        #[cfg(not(feature = "openpgp"))]
        return SignatureStatus::Invalid {
            why: "this build does not know OpenPGP".to_owned(),
        };
    }
    SignatureStatus::Invalid {
        why: "it is neither an SSH nor an OpenPGP signature".to_owned(),
    }
}

fn verify_ssh(
    pem: &str,
    signed: &[u8],
    committed: Timestamp,
    now: Timestamp,
    keys: &Keys,
) -> SignatureStatus {
    let signature = match SshSig::from_pem(pem) {
        Ok(signature) => signature,
        Err(e) => {
            return SignatureStatus::Invalid {
                why: format!("read the SSH signature: {e}"),
            };
        }
    };
    let key = PublicKey::from(signature.public_key().clone());
    let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
    // A signature that does not fit is that first, whoever claims to have made it.
    if let Err(e) = key.verify(NAMESPACE, signed, &signature) {
        let why = if signature.namespace() == NAMESPACE {
            format!("it is not by {fingerprint} over this commit ({e})")
        } else {
            format!(
                "it was made for {:?}, not for Git",
                printable(signature.namespace(), 60)
            )
        };
        return SignatureStatus::Invalid { why };
    }
    let mut best = SignatureStatus::UnknownKey {
        key: fingerprint.clone(),
    };
    for line in keys.signers.with_key(key.key_data()) {
        let signer = Signer {
            name: line.principals.clone(),
            key: fingerprint.clone(),
        };
        if keys
            .revoked
            .iter()
            .any(|revoked| revoked.key_data() == key.key_data())
        {
            return SignatureStatus::Revoked { signer };
        }
        if !line.allows_namespace(NAMESPACE) {
            best = SignatureStatus::NotForGit {
                signer,
                why: line.namespaces.join(","),
            };
            continue;
        }
        // Git asks about the commit's time alone, which whoever holds an old key can write as they like.
        match line.valid_at(committed).and_then(|()| line.valid_at(now)) {
            Ok(()) => return SignatureStatus::Good(signer),
            Err(why) => best = SignatureStatus::Expired { signer, why },
        }
    }
    best
}

/// Signs a commit as `git commit -S` with `gpg.format = ssh` does.
pub(crate) fn sign_ssh(key: &PrivateKey, commit: &[u8]) -> Result<String, ssh_key::Error> {
    key.sign(NAMESPACE, HashAlg::Sha512, commit)?
        .to_pem(ssh_key::LineEnding::LF)
}
