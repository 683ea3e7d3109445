//! OpenPGP signatures, by rPGP. It checks the mathematics; whether a key was bound, revoked or expired is asked here.

use jiff::Timestamp;
use pgp::{
    composed::{Deserializable, DetachedSignature, SignedPublicKey, SignedPublicSubKey},
    packet::{Signature, SignatureType},
    types::{KeyDetails, Tag},
};

use super::{KeysError, SignatureStatus, Signer};
use crate::printable;

/// A public key with its subkeys, as given.
#[derive(Debug)]
pub(super) struct Certificate(SignedPublicKey);

impl Certificate {
    pub(super) fn parse_all(armored: &[String]) -> Result<Vec<Certificate>, KeysError> {
        let wrong = |e: pgp::errors::Error| KeysError {
            what: "OpenPGP keys",
            line: 1,
            why: printable(&e.to_string(), 200),
        };
        let mut all = Vec::new();
        for text in armored {
            let (keys, _) = SignedPublicKey::from_string_many(text).map_err(wrong)?;
            for key in keys {
                all.push(Certificate(key.map_err(wrong)?));
            }
        }
        Ok(all)
    }

    fn signer(&self, key: &str) -> Signer {
        let user = self
            .0
            .details
            .users
            .first()
            .map(|user| String::from_utf8_lossy(user.id.id()).into_owned());
        Signer {
            name: printable(&user.unwrap_or_else(|| "(no user id)".to_owned()), 200),
            key: key.to_owned(),
        }
    }

    /// The newest signature of the primary key over itself and its users: where its expiry stands.
    fn newest_self_signature(&self) -> Option<&Signature> {
        let primary = &self.0.primary_key;
        let direct = self
            .0
            .details
            .direct_signatures
            .iter()
            .filter(|s| s.verify_key(primary).is_ok());
        let users = self.0.details.users.iter().flat_map(|user| {
            user.signatures.iter().filter(|s| {
                s.typ() != Some(SignatureType::CertRevocation)
                    && s.verify_certification(primary, Tag::UserId, &user.id).is_ok()
            })
        });
        direct
            .chain(users)
            .max_by_key(|s| s.created().map(|t| t.as_secs()))
    }

    fn is_revoked(&self) -> bool {
        self.0.details.revocation_signatures.iter().any(|s| {
            s.typ() == Some(SignatureType::KeyRevocation) && s.verify_key(&self.0.primary_key).is_ok()
        })
    }

    /// What stands against a signature by the primary key, or by `subkey`.
    fn objection(
        &self,
        subkey: Option<&SignedPublicSubKey>,
        signer: &Signer,
        times: [Timestamp; 3],
    ) -> Option<SignatureStatus> {
        let revoked = || {
            Some(SignatureStatus::Revoked {
                signer: signer.clone(),
            })
        };
        let not_for_git = |why: &str| {
            Some(SignatureStatus::NotForGit {
                signer: signer.clone(),
                why: why.to_owned(),
            })
        };
        let primary = &self.0.primary_key;
        if self.is_revoked() {
            return revoked();
        }
        let Some(own) = self.newest_self_signature() else {
            return not_for_git("the key has no valid signature of its own");
        };
        if let Some(why) = out_of_time(primary.created_at().as_secs(), own, times) {
            return Some(SignatureStatus::Expired {
                signer: signer.clone(),
                why,
            });
        }
        let Some(subkey) = subkey else {
            return if own.key_flags().sign() {
                None
            } else {
                not_for_git("the key is not for signing")
            };
        };
        let valid = |s: &&Signature| s.verify_subkey_binding(primary, &subkey.key).is_ok();
        let of_type = |wanted| subkey.signatures.iter().filter(move |s| s.typ() == Some(wanted));
        if of_type(SignatureType::SubkeyRevocation).any(|s| valid(&s)) {
            return revoked();
        }
        let newest = of_type(SignatureType::SubkeyBinding)
            .filter(valid)
            .max_by_key(|s| s.created().map(|t| t.as_secs()));
        let Some(binding) = newest else {
            return not_for_git("the subkey is not bound to its key");
        };
        // The back signature keeps others from adopting our signer's subkey as theirs.
        let back = binding.embedded_signature();
        if !binding.key_flags().sign()
            || back.is_none_or(|s| s.verify_primary_key_binding(&subkey.key, primary).is_err())
        {
            return not_for_git("the subkey is not for signing");
        }
        out_of_time(subkey.key.created_at().as_secs(), binding, times).map(|why| SignatureStatus::Expired {
            signer: signer.clone(),
            why,
        })
    }
}

fn out_of_time(created: u32, by: &Signature, times: [Timestamp; 3]) -> Option<String> {
    let created = i64::from(created);
    let ends = by
        .key_expiration_time()
        .map(|d| created + i64::from(d.as_secs()))
        .filter(|end| *end != created);
    let show = |seconds| Timestamp::from_second(seconds).unwrap_or_default();
    for time in times {
        if time.as_second() < created {
            return Some(format!("made {}, used at {time}", show(created)));
        }
        if let Some(end) = ends
            && time.as_second() >= end
        {
            return Some(format!("expired {}, used at {time}", show(end)));
        }
    }
    None
}

/// Checks an armored detached signature.
pub(super) fn verify(
    armored: &str,
    signed: &[u8],
    committed: Timestamp,
    now: Timestamp,
    certificates: &[Certificate],
) -> SignatureStatus {
    let signature = match DetachedSignature::from_string(armored) {
        Ok((signature, _)) => signature.signature,
        Err(e) => {
            return SignatureStatus::Invalid {
                why: format!("read the OpenPGP signature: {}", printable(&e.to_string(), 200)),
            };
        }
    };
    if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
        return SignatureStatus::Invalid {
            why: "it is not a signature over a document".to_owned(),
        };
    }
    let made = signature
        .created()
        .and_then(|t| Timestamp::from_second(i64::from(t.as_secs())).ok());
    let Some(made) = made else {
        return SignatureStatus::Invalid {
            why: "the signature says no time".to_owned(),
        };
    };
    let times = [made, committed, now];
    let fits = |fingerprint: &pgp::types::Fingerprint, id: &pgp::types::KeyId| {
        signature.issuer_fingerprint().contains(&fingerprint) || signature.issuer_key_id().contains(&id)
    };
    let mut unfit = None;
    for certificate in certificates {
        let primary = &certificate.0.primary_key;
        let mut candidates: Vec<(
            String,
            Result<(), pgp::errors::Error>,
            Option<&SignedPublicSubKey>,
        )> = Vec::new();
        if fits(&primary.fingerprint(), &primary.legacy_key_id()) {
            let name = format!("{:X}", primary.fingerprint());
            candidates.push((name, signature.verify(primary, signed), None));
        }
        for subkey in &certificate.0.public_subkeys {
            if fits(&subkey.key.fingerprint(), &subkey.key.legacy_key_id()) {
                let name = format!("{:X}", subkey.key.fingerprint());
                candidates.push((name, signature.verify(&subkey.key, signed), Some(subkey)));
            }
        }
        for (fingerprint, verified, subkey) in candidates {
            if let Err(e) = verified {
                let why = format!(
                    "it is not by {fingerprint} over this commit ({})",
                    printable(&e.to_string(), 120)
                );
                // Ids of keys are short enough for two keys to share one.
                unfit = Some(SignatureStatus::Invalid { why });
                continue;
            }
            let signer = certificate.signer(&fingerprint);
            return certificate
                .objection(subkey, &signer, times)
                .unwrap_or(SignatureStatus::Good(signer));
        }
    }
    if let Some(unfit) = unfit {
        return unfit;
    }
    let key = signature
        .issuer_fingerprint()
        .first()
        .map(|f| format!("{f:X}"))
        .or_else(|| signature.issuer_key_id().first().map(|id| id.to_string()))
        .unwrap_or_else(|| "a key that it does not name".to_owned());
    SignatureStatus::UnknownKey { key }
}
