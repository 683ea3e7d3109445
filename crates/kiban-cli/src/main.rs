//! `kubectl kiban`.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    // The only TLS provider that is built in; an error would mean that one is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    kiban_cli::run().await
}
