//! `POST /hooks/git`: someone pushed, look now.
//!
//! All a call can do is make the operator look; what it says is not read. Where a secret is set, the body's signature is
//! wanted as GitHub, Gitea and Forgejo give it (`X-Hub-Signature-256: sha256=<HMAC>`), or the token as GitLab does
//! (`X-Gitlab-Token`).

use crate::context::Context;
use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Takes a call.
pub async fn receive(
    State(context): State<Context>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, &'static str) {
    if let Some(secret) = &context.config.webhook_secret {
        let token = match context.secrets.get(secret).await {
            Ok(data) => data.required(secret, "token"),
            Err(error) => Err(error),
        };
        match token {
            Ok(token) if is_signed(token.as_bytes(), &headers, &body) => {}
            Ok(_) => return (StatusCode::UNAUTHORIZED, "the signature does not match\n"),
            Err(error) => {
                tracing::error!(%error, "the webhook's secret cannot be read, its calls are refused");
                return (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the webhook's secret cannot be read\n",
                );
            }
        }
    }
    context.look_at_git.notify_one();
    (StatusCode::ACCEPTED, "looking\n")
}

fn is_signed(token: &[u8], headers: &HeaderMap, body: &[u8]) -> bool {
    let mac = |data: &[u8]| Hmac::<Sha256>::new_from_slice(token).map(|mac| mac.chain_update(data));
    if let Some(signature) = headers
        .get("x-hub-signature-256")
        .and_then(|value| value.to_str().ok())
    {
        let wanted = signature.strip_prefix("sha256=").and_then(unhex);
        return match (wanted, mac(body)) {
            (Some(wanted), Ok(mac)) => mac.verify_slice(&wanted).is_ok(),
            _ => false,
        };
    }
    if let Some(given) = headers.get("x-gitlab-token") {
        // Compared by their MACs, so that the time it takes tells nothing of the token.
        return match (mac(given.as_bytes()), mac(token)) {
            (Ok(given), Ok(wanted)) => given.verify_slice(&wanted.finalize().into_bytes()).is_ok(),
            _ => false,
        };
    }
    false
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn githubs_own_example_is_accepted() {
        // From GitHub's documentation, "Validating webhook deliveries".
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let signed = headers("x-hub-signature-256", signature);
        assert!(is_signed(
            b"It's a Secret to Everybody",
            &signed,
            b"Hello, World!"
        ));
        assert!(!is_signed(
            b"It's a Secret to Everybody",
            &signed,
            b"Hello, World?"
        ));
        assert!(!is_signed(b"another", &signed, b"Hello, World!"));
    }

    #[test]
    fn gitlabs_token_is_compared_and_nothing_is_refused() {
        assert!(is_signed(b"t0ken", &headers("x-gitlab-token", "t0ken"), b""));
        assert!(!is_signed(b"t0ken", &headers("x-gitlab-token", "t0keN"), b""));
        assert!(!is_signed(b"t0ken", &HeaderMap::new(), b""));
        assert!(!is_signed(
            b"t0ken",
            &headers("x-hub-signature-256", "sha256=zz"),
            b""
        ));
    }
}
