//! TLS towards a BMC: by authority, by pinned certificate, or by first use; never by looking away.

use crate::port::{BmcError, BmcResult, ErrorKind, Fingerprint, Trust};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use sha2::{Digest, Sha256};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// The certificate that a BMC showed last, shared with who asks for it.
pub(crate) type Seen = Arc<Mutex<Option<Fingerprint>>>;

/// The certificate is not the recorded one. Found again in an error's chain by its type.
#[derive(Debug)]
pub(crate) struct PinMismatch {
    pub(crate) expected: Fingerprint,
    pub(crate) shown: Fingerprint,
}

impl fmt::Display for PinMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the certificate is {}, recorded is {}",
            self.shown, self.expected
        )
    }
}

impl std::error::Error for PinMismatch {}

/// The TLS settings for one BMC, and where its certificate's fingerprint will be found.
pub(crate) fn client_config(trust: &Trust) -> BmcResult<(ClientConfig, Seen)> {
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let seen = Seen::default();
    let rule = match trust {
        Trust::Pinned(pin) => Rule::Pinned(*pin),
        Trust::FirstUse => Rule::FirstUse,
        Trust::Ca { pem } => Rule::Chain(chain_verifier(pem, &provider)?),
    };
    let verifier = Verifier {
        rule,
        algorithms,
        seen: seen.clone(),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(&error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    // The default keeps room for 256 sessions, far more than one BMC needs and too much memory times thousands of them.
    config.resumption = Resumption::in_memory_sessions(2);
    Ok((config, seen))
}

fn chain_verifier(
    pem: &str,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> BmcResult<Arc<WebPkiServerVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate =
            certificate.map_err(|error| invalid(&format!("the authority is not PEM: {error}")))?;
        roots
            .add(certificate)
            .map_err(|error| invalid(&format!("the authority is unusable: {error}")))?;
    }
    if roots.is_empty() {
        return Err(invalid("the authority holds no certificate"));
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| invalid(&error.to_string()))
}

fn invalid(detail: &str) -> BmcError {
    BmcError::new(ErrorKind::Invalid, "prepare TLS", detail)
}

#[derive(Debug)]
enum Rule {
    Chain(Arc<WebPkiServerVerifier>),
    Pinned(Fingerprint),
    FirstUse,
}

#[derive(Debug)]
struct Verifier {
    rule: Rule,
    algorithms: WebPkiSupportedAlgorithms,
    seen: Seen,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let shown = Fingerprint(Sha256::digest(end_entity.as_ref()).into());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = match &self.rule {
            Rule::Chain(verifier) => {
                verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
                None
            }
            Rule::Pinned(pin) => Some(*pin),
            Rule::FirstUse => *seen,
        };
        if let Some(expected) = expected.filter(|expected| *expected != shown) {
            let mismatch = OtherError(Arc::new(PinMismatch { expected, shown }));
            return Err(TlsError::InvalidCertificate(CertificateError::Other(mismatch)));
        }
        *seen = Some(shown);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What TLS had against the other side, found in an error's chain.
pub(crate) fn tls_failure(error: &(dyn std::error::Error + 'static)) -> Option<(ErrorKind, String)> {
    let mut next = Some(error);
    while let Some(current) = next {
        let inner = current
            .downcast_ref::<std::io::Error>()
            .and_then(|io| io.get_ref())
            .map(|inner| inner as &(dyn std::error::Error + 'static));
        if let Some(tls) = current.downcast_ref::<TlsError>() {
            return Some(judge(tls));
        }
        // The source of an I/O error is the source of what it holds: what it holds, which is wanted here, is skipped.
        next = inner.or_else(|| current.source());
    }
    None
}

fn judge(error: &TlsError) -> (ErrorKind, String) {
    if let TlsError::InvalidCertificate(CertificateError::Other(OtherError(other))) = error
        && let Some(mismatch) = other.downcast_ref::<PinMismatch>()
    {
        return (ErrorKind::CertificateChanged, mismatch.to_string());
    }
    (ErrorKind::TlsUntrusted, error.to_string())
}
