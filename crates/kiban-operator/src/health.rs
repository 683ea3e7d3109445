//! The HTTP side: `/livez`, `/readyz`, `/metrics`, and the webhook that makes the operator look at Git.

use crate::{context::Context, sync::webhook};
use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use std::{fmt::Write, io, net::SocketAddr};
use tokio::net::TcpListener;

/// The OpenMetrics text format.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// A webhook's body is a few KiB; GitHub cuts its own at 25 MB, of which we read nothing but the signature's input.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// Binds the address now, so that a port that is taken is an error at the start. Serves until the context ends.
pub async fn serve(context: Context, listener: TcpListener) -> io::Result<()> {
    let cancel = context.cancel.clone();
    let app = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/hooks/git", post(webhook::receive))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(context);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move { cancel.cancelled().await })
        .await
}

/// Binds the address.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Ready: every kind is known in full and no watch has been failing for long. A replica that waits for a Lease is ready.
async fn readyz(State(context): State<Context>) -> impl IntoResponse {
    let mut text = String::new();
    let missing = context.stores.missing();
    if !missing.is_empty() {
        let _ = writeln!(
            text,
            "not listed yet: {} (are the CRDs installed?)",
            missing.join(", ")
        );
    }
    let failing = context.stores.failing_for(&context.clock);
    if failing >= context.config.watch_stale {
        let _ = writeln!(text, "a watch has been failing for {} s", failing.as_secs());
    }
    if text.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

async fn metrics(State(context): State<Context>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPENMETRICS)], context.metrics.text())
}
