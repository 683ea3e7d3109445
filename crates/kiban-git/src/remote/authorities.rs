//! The system's authorities, and the certificates that lead to them from the one a server shows.
//!
//! libgit2 would check the chain itself, but it shows us only the leaf, and when it refuses one behind a CONNECT proxy,
//! libgit2 1.9 frees the proxy's stream before the TLS stream that still writes to it (httpclient.c,
//! http_client_connect). So a handshake of our own comes first, through the same relay and so within the same deadline:
//! it is checked by rustls, and it tells the intermediates with which the leaf that libgit2 then sees is checked.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpStream},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, ServerName};

/// What a server's certificate may chain to, and over what.
#[derive(Debug)]
pub(super) struct Chain {
    /// The system's authorities.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    /// What the server sent beside its own certificate.
    pub(super) intermediates: Vec<CertificateDer<'static>>,
}

/// Why there is no chain.
#[derive(Debug)]
pub(super) enum ChainError {
    /// The certificate is not trusted, or the system knows no authority.
    Untrusted(String),
    /// The conversation ended before it was seen.
    Broken(String),
}

/// Shakes hands with the server behind the relay and hangs up again.
pub(super) fn chain(relay_port: u16, host: &str, port: u16) -> Result<Chain, ChainError> {
    let untrusted = |e: &dyn std::fmt::Display| ChainError::Untrusted(e.to_string());
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs.iter().cloned());
    if roots.is_empty() {
        let detail = found.errors.first().map(|e| format!(": {e}")).unwrap_or_default();
        return Err(ChainError::Untrusted(format!(
            "this system knows no certificate authority; give the server's as `ca`{detail}"
        )));
    }
    // The provider is named: no process-wide default is needed, and none is set behind anyone's back.
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| untrusted(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| ChainError::Untrusted(format!("{host:?} is not a name for a certificate")))?;
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(|e| untrusted(&e))?;
    let broken = |e: io::Error| match e.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(e)) => {
            ChainError::Untrusted(format!("{e} (checked against the system's authorities)"))
        }
        _ => ChainError::Broken(e.to_string()),
    };
    let mut stream = connect(relay_port, host, port).map_err(broken)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).map_err(broken)?;
    }
    tls.send_close_notify();
    // The verdict is there already; a server that has gone needs no goodbye.
    drop(tls.write_tls(&mut stream));
    let shown = tls.peer_certificates().unwrap_or_default();
    Ok(Chain {
        authorities: found.certs,
        intermediates: shown
            .iter()
            .skip(1)
            .cloned()
            .map(CertificateDer::into_owned)
            .collect(),
    })
}

/// A connection to the server through the relay, as libgit2 will ask for one.
fn connect(relay_port: u16, host: &str, port: u16) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, relay_port))?;
    let target = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    stream.write_all(format!("CONNECT {target} HTTP/1.1\r\n\r\n").as_bytes())?;
    // Not one byte more than the relay's own answer: what follows is the server's.
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(stream)
}
