//! Is this https server's certificate signed by an authority that is trusted, and for this host?

use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// Accepts the leaf certificate (DER) that `host` presented, or says why not and what to do. `ca` is PEM.
pub(super) fn check_given(ca: &str, host: &str, leaf: &[u8], now: UnixTime) -> Result<(), String> {
    let authorities: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(ca.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| format!("read the given CA: {e}"))?;
    if authorities.is_empty() {
        return Err("the given CA holds no certificate in PEM".to_owned());
    }
    check(&authorities, &authorities, host, leaf, now).map_err(|e| {
        format!(
            "{e} (checked against the {} certificates of the given CA)",
            authorities.len()
        )
    })
}

/// Accepts the leaf certificate (DER) that `host` presented when it chains to an authority over the intermediates.
pub(super) fn check(
    authorities: &[CertificateDer<'_>],
    intermediates: &[CertificateDer<'_>],
    host: &str,
    leaf: &[u8],
    now: UnixTime,
) -> Result<(), String> {
    let leaf = CertificateDer::from(leaf);
    let certificate =
        EndEntityCert::try_from(&leaf).map_err(|e| format!("read the server's certificate: {e}"))?;
    let name = ServerName::try_from(host).map_err(|_| format!("{host:?} is not a name for a certificate"))?;
    certificate
        .verify_is_valid_for_subject_name(&name)
        .map_err(|e| e.to_string())?;
    // A certificate given itself is trusted as itself: people pin the self-signed one of an appliance this way.
    if authorities.contains(&leaf) {
        return Ok(());
    }
    let anchors: Vec<_> = authorities
        .iter()
        .filter_map(|ca| anchor_from_trusted_cert(ca).ok())
        .collect();
    certificate
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            intermediates,
            now,
            KeyUsage::server_auth(),
            None,
            None,
        )
        .map(|_| ())
        .map_err(|e| e.to_string())
}
