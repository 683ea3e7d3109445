//! Whether an HTTP server answers as expected, and the one way in which gates speak HTTP.

use super::Reading;
use crate::{context::Context, secrets::SecretError};
use kiban_api::gate::HttpGate;
use reqwest::{Certificate, Client, RequestBuilder, Response, redirect::Policy};
use std::{error::Error as _, time::Duration};

/// Most bytes of an answer that are read: a page is no answer, and memory is the operator's.
const MOST_BYTES: usize = 1 << 20;
/// How long connecting may take, within the measurement's own deadline.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// The Secret, or what is in it, cannot be used.
    #[error("{0}")]
    Account(String),
    /// The server was not found, or not trusted.
    #[error("{0}")]
    Unknown(String),
    /// The server did not answer.
    #[error("{0}")]
    Silent(String),
    /// The answer is longer than what is read.
    #[error("the answer has more than {MOST_BYTES} bytes")]
    TooLong,
}

impl From<SecretError> for Unanswered {
    fn from(error: SecretError) -> Self {
        Self::Account(error.to_string())
    }
}

pub(super) async fn measure(context: &Context, gate: &HttpGate) -> Reading {
    let answer = get(context, &gate.url, &[], gate.credentials.as_deref()).await;
    let (status, body) = match answer {
        Ok(answer) => answer,
        Err(why @ (Unanswered::Silent(_) | Unanswered::TooLong)) => return Reading::fails(why.to_string()),
        Err(why) => return Reading::no_data(why.to_string()),
    };
    if status != gate.expect_status {
        return Reading::fails(format!("it answers {status}, expected is {}", gate.expect_status));
    }
    // What the answer says stays out of the message: whoever may read a status need not be one who may read it.
    match &gate.body_contains {
        Some(text) if !contains(&body, text.as_bytes()) => {
            Reading::fails(format!("it answers {status}, without the expected text {text:?}"))
        }
        _ => Reading::holds(format!("it answers {status}")),
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

/// One GET: status and body. No redirects, no proxy, a bounded body.
pub(super) async fn get(
    context: &Context,
    url: &str,
    query: &[(&str, &str)],
    credentials: Option<&str>,
) -> Result<(u16, Vec<u8>), Unanswered> {
    let mut builder = Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_DEADLINE)
        .user_agent(concat!("kiban/", env!("CARGO_PKG_VERSION")));
    let secret = match credentials {
        Some(name) => Some((name, context.secrets.get(name).await?)),
        None => None,
    };
    if let Some((name, secret)) = &secret
        && let Some(pem) = secret.bytes("ca.crt")
    {
        let authorities = Certificate::from_pem_bundle(pem)
            .map_err(|_| Unanswered::Account(format!("read \"ca.crt\" of Secret {name:?}: it is no PEM")))?;
        builder = builder.tls_certs_only(authorities);
    }
    let unusable = |error: reqwest::Error| Unanswered::Unknown(cause(&error));
    let mut address = reqwest::Url::parse(url).map_err(|error| Unanswered::Unknown(error.to_string()))?;
    if !query.is_empty() {
        address.query_pairs_mut().extend_pairs(query);
    }
    let mut request = builder.build().map_err(unusable)?.get(address);
    if let Some((name, secret)) = &secret {
        request = authorize(request, name, secret)?;
    }
    let response = request.send().await.map_err(|error| unanswered(&error))?;
    let status = response.status().as_u16();
    Ok((status, read(response).await?))
}

fn authorize(
    request: RequestBuilder,
    name: &str,
    secret: &crate::secrets::SecretData,
) -> Result<RequestBuilder, Unanswered> {
    if let Some(token) = secret.text(name, "token")? {
        return Ok(request.bearer_auth(token));
    }
    match secret.text(name, "username")? {
        Some(username) => Ok(request.basic_auth(username, Some(secret.required(name, "password")?))),
        None => Ok(request),
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, Unanswered> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unanswered(&error))? {
        if body.len() + chunk.len() > MOST_BYTES {
            return Err(Unanswered::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A server that refuses or hangs is silent; one whose name or certificate is wrong was never asked.
fn unanswered(error: &reqwest::Error) -> Unanswered {
    let cause = cause(error);
    let never_asked = ["dns error", "failed to lookup", "certificate", "invalid peer"];
    if never_asked.iter().any(|words| cause.contains(words)) {
        Unanswered::Unknown(cause)
    } else {
        Unanswered::Silent(cause)
    }
}

/// The innermost cause, without the address, which may hold what is nobody's business.
fn cause(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(inner) = next {
        causes.push(inner.to_string());
        next = inner.source();
    }
    if causes.is_empty() {
        return "the request failed".to_owned();
    }
    causes.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_wherever_it_stands() {
        assert!(contains(b"{\"state\":\"green\"}", b"\"green\"") && contains(b"", b""));
        assert!(!contains(b"gree", b"green"));
    }
}
