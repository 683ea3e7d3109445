//! The keys of one cluster: two CAs, the servers' certificates, the administrator's, and the key that signs tokens.
//!
//! etcd has a CA of its own. With one CA for both, whoever holds a client certificate of the API server could
//! read etcd past RBAC.

use std::{fs, os::unix::fs::OpenOptionsExt, path::Path};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::{Error, Result};

/// Names by which clients reach the API server: loopback, and what Pods would use (10.0.0.1 is the first address
/// of the service range).
const API_SERVER_NAMES: [&str; 6] = [
    "127.0.0.1",
    "localhost",
    "10.0.0.1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
];

/// Writes all keys and certificates into `dir`, as `<name>.crt` and `<name>.key`, readable by the owner alone.
pub(crate) fn write_all(dir: &Path) -> Result<()> {
    let ca = authority(dir, "ca")?;
    issue(
        dir,
        "apiserver",
        &API_SERVER_NAMES,
        None,
        &[ExtendedKeyUsagePurpose::ServerAuth],
        &ca,
    )?;
    issue(
        dir,
        "admin",
        &[],
        Some("system:masters"),
        &[ExtendedKeyUsagePurpose::ClientAuth],
        &ca,
    )?;

    let etcd_ca = authority(dir, "etcd-ca")?;
    // etcd dials itself with its server certificate, hence both usages.
    let both = [
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    issue(dir, "etcd", &["127.0.0.1", "localhost"], None, &both, &etcd_ca)?;
    issue(
        dir,
        "etcd-client",
        &[],
        None,
        &[ExtendedKeyUsagePurpose::ClientAuth],
        &etcd_ca,
    )?;

    let name = "service-accounts";
    let key = KeyPair::generate().map_err(|source| Error::Certificate { name, source })?;
    write_private(&dir.join("service-accounts.key"), &key.serialize_pem())?;
    write_private(&dir.join("service-accounts.pub"), &key.public_key_pem())
}

fn authority(dir: &Path, name: &'static str) -> Result<Issuer<'static, KeyPair>> {
    let fail = |source| Error::Certificate { name, source };
    let key = KeyPair::generate().map_err(fail)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(fail)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, format!("kiban-devcluster {name}"));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let certificate = params.self_signed(&key).map_err(fail)?;
    write_pair(dir, name, &certificate, &key)?;
    Ok(Issuer::new(params, key))
}

fn issue(
    dir: &Path,
    name: &'static str,
    hosts: &[&str],
    group: Option<&str>,
    usages: &[ExtendedKeyUsagePurpose],
    issuer: &Issuer<'_, KeyPair>,
) -> Result<()> {
    let fail = |source| Error::Certificate { name, source };
    let key = KeyPair::generate().map_err(fail)?;
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts).map_err(fail)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("kiban-{name}"));
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages.to_vec();
    let certificate = params.signed_by(&key, issuer).map_err(fail)?;
    write_pair(dir, name, &certificate, &key)
}

fn write_pair(dir: &Path, name: &str, certificate: &Certificate, key: &KeyPair) -> Result<()> {
    write_private(&dir.join(format!("{name}.crt")), &certificate.pem())?;
    write_private(&dir.join(format!("{name}.key")), &key.serialize_pem())
}

/// Writes a file that only its owner can read.
pub(crate) fn write_private(path: &Path, content: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options
        .open(path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, content.as_bytes()));
    written.map_err(|source| Error::File {
        action: "write",
        path: path.to_path_buf(),
        source,
    })
}
