//! The fleet's certificate authority and its BMCs' certificates.

use crate::image::hex;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The key or certificate could not be made.
    #[error("make a certificate")]
    Make(#[from] rcgen::Error),
    /// The TLS library does not take it.
    #[error("set up TLS")]
    Tls(#[from] rustls::Error),
}

/// One server certificate, ready for handshakes.
pub(crate) struct Leaf {
    pub(crate) config: Arc<rustls::ServerConfig>,
    pub(crate) fingerprint: String,
}

/// Signs the certificates of a fleet.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    stranger: Mutex<Option<Arc<Leaf>>>,
    expired: Mutex<Option<Arc<Leaf>>>,
}

impl Authority {
    pub(crate) fn new() -> Result<Self, CertificateError> {
        let (issuer, pem) = authority("Kiban emulated fleet CA")?;
        Ok(Self {
            issuer,
            pem,
            stranger: Mutex::new(None),
            expired: Mutex::new(None),
        })
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for these addresses.
    pub(crate) fn leaf(&self, name: &str, addresses: &[IpAddr]) -> Result<Arc<Leaf>, CertificateError> {
        leaf(&self.issuer, name, addresses, (2020, 2120))
    }

    /// A certificate of an authority that nobody knows.
    pub(crate) fn stranger(&self, address: IpAddr) -> Result<Arc<Leaf>, CertificateError> {
        let mut slot = self.stranger.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = slot.as_ref() {
            return Ok(leaf.clone());
        }
        let made = leaf(
            &authority("Somebody else")?.0,
            "stranger",
            &[address],
            (2020, 2120),
        )?;
        *slot = Some(made.clone());
        Ok(made)
    }

    /// A certificate that ended long ago.
    pub(crate) fn expired(&self, address: IpAddr) -> Result<Arc<Leaf>, CertificateError> {
        let mut slot = self.expired.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = slot.as_ref() {
            return Ok(leaf.clone());
        }
        let made = leaf(&self.issuer, "expired", &[address], (2010, 2011))?;
        *slot = Some(made.clone());
        Ok(made)
    }
}

fn authority(name: &str) -> Result<(Issuer<'static, KeyPair>, String), CertificateError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2120, 1, 1);
    let pem = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), pem))
}

fn leaf(
    issuer: &Issuer<'static, KeyPair>,
    name: &str,
    addresses: &[IpAddr],
    (from, to): (i32, i32),
) -> Result<Arc<Leaf>, CertificateError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params
        .subject_alt_names
        .extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    let certificate = params.signed_by(&key, issuer)?;
    let der: CertificateDer<'static> = certificate.der().clone();
    let fingerprint = hex(&Sha256::digest(&der));
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(vec![der], key)?;
    // A resumed session shows no certificate, which would hide a changed one; and a cache costs memory per BMC.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(Leaf {
        config: Arc::new(config),
        fingerprint,
    }))
}
