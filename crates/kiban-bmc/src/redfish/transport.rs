//! One request to one BMC: bounded in time, size and shape, never redirected, and honest about what may have happened.

use super::{
    json::{self, TooMuch, at, list_at},
    tls::{self, Seen},
    uri,
};
use crate::{
    port::{BmcError, BmcResult, Endpoint, ErrorKind, Fingerprint, Health, Limits, TaskMessage},
    text::clean,
};
use bytes::{Bytes, BytesMut};
use reqwest::{
    Body, Client, Method, StatusCode, Url,
    header::{
        CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue,
        LOCATION, RETRY_AFTER,
    },
};
use serde_json::Value;
use std::{
    sync::{
        PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The longest pause that a BMC may ask for: beyond an hour it is a mistake or an attack.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// How long a connection is kept between two reads. Long enough for one inventory, short enough that BMCs, which often
/// have eight connections in all, get theirs back.
const KEEP_CONNECTION: Duration = Duration::from_secs(3);
/// The header that carries a session's token.
pub(crate) const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-auth-token");

/// What is sent.
pub(crate) enum Content {
    /// Nothing.
    None,
    /// A JSON body.
    Json(Value),
    /// A body of a known length, with its content type.
    Stream {
        body: Body,
        length: u64,
        content_type: String,
    },
}

/// A request.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) content: Content,
    pub(crate) token: Option<&'a HeaderValue>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) timeout: Duration,
    /// Completes "failed to …".
    pub(crate) doing: &'a str,
}

/// An answer that came in whole, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    pub(crate) etag: Option<String>,
    pub(crate) location: Option<String>,
    pub(crate) token: Option<HeaderValue>,
    retry_after: Option<Duration>,
    json: bool,
}

/// The way to one BMC.
pub(crate) struct Transport {
    base: Url,
    /// For reads: keeps a connection for a moment, because a TLS handshake per resource costs a BMC seconds.
    reader: Client,
    /// For changes, and for BMCs that choke on kept connections: a fresh connection each, so that a connection that was
    /// already dead is told apart from one that died with our request in it.
    writer: Client,
    fresh_only: AtomicBool,
    seen: Seen,
    limits: Limits,
}

impl Transport {
    pub(crate) fn new(endpoint: &Endpoint, limits: &Limits) -> BmcResult<Self> {
        let base = base_url(&endpoint.url, limits.allow_plain_http)?;
        let (config, seen) = tls::client_config(&endpoint.trust)?;
        let client = |idle: usize| {
            Client::builder()
                .tls_backend_preconfigured(config.clone())
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .no_proxy()
                .referer(false)
                .http1_only()
                .connect_timeout(limits.connect_timeout)
                .pool_idle_timeout(KEEP_CONNECTION)
                .pool_max_idle_per_host(idle)
                .user_agent(concat!("kiban/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|error| BmcError::new(ErrorKind::Invalid, "prepare a client", error.to_string()))
        };
        Ok(Self {
            base,
            reader: client(limits.reads)?,
            writer: client(0)?,
            fresh_only: AtomicBool::new(false),
            seen,
            limits: limits.clone(),
        })
    }

    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn certificate(&self) -> Option<Fingerprint> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and reads the answer. An error means that no whole, readable answer came; [`Answer::check`] judges
    /// what did come.
    pub(crate) async fn send(&self, request: Request<'_>) -> BmcResult<Answer> {
        let change = request.method != Method::GET;
        let (doing, timeout, method) = (request.doing, request.timeout, request.method.clone());
        let path = request.path.split('#').next().unwrap_or_default();
        let url = uri::same_host_path(&self.base, path)
            .and_then(|path| self.base.join(&path).ok())
            .ok_or_else(|| {
                BmcError::new(
                    ErrorKind::Redirected,
                    doing,
                    format!("{path:?} is no path on this BMC"),
                )
            })?;
        if change {
            let builder = self.fill(self.writer.request(method, url), request);
            return self.perform(builder, timeout, doing, true).await;
        }
        let fresh = self.fresh_only.load(Ordering::Relaxed);
        let client = if fresh { &self.writer } else { &self.reader };
        let (token, headers) = (request.token.cloned(), request.headers.clone());
        let first = self
            .perform(self.fill(client.get(url.clone()), request), timeout, doing, false)
            .await;
        match first {
            // A BMC that drops kept connections looks like this. Reading again on a fresh one changes nothing.
            Err(error) if error.kind() == ErrorKind::ConnectionLost && !fresh => {
                let again = Request {
                    method: Method::GET,
                    path,
                    content: Content::None,
                    token: token.as_ref(),
                    headers,
                    timeout,
                    doing,
                };
                let answer = self
                    .perform(self.fill(self.writer.get(url), again), timeout, doing, false)
                    .await?;
                self.fresh_only.store(true, Ordering::Relaxed);
                Ok(answer)
            }
            other => other,
        }
    }

    fn fill(&self, mut builder: reqwest::RequestBuilder, request: Request<'_>) -> reqwest::RequestBuilder {
        if request.method != Method::GET || self.fresh_only.load(Ordering::Relaxed) {
            builder = builder.header(CONNECTION, "close");
        }
        builder = builder
            .header("OData-Version", "4.0")
            .header("Accept", "application/json, */*;q=0.1");
        if let Some(token) = request.token {
            builder = builder.header(TOKEN_HEADER, token.clone());
        }
        for (name, value) in request.headers {
            builder = builder.header(name, value);
        }
        match request.content {
            Content::None => builder,
            Content::Json(value) => builder
                .header(CONTENT_TYPE, "application/json")
                .body(value.to_string()),
            Content::Stream {
                body,
                length,
                content_type,
            } => builder
                .header(CONTENT_TYPE, content_type)
                .header(CONTENT_LENGTH, length)
                .body(body),
        }
    }

    async fn perform(
        &self,
        builder: reqwest::RequestBuilder,
        timeout: Duration,
        doing: &str,
        change: bool,
    ) -> BmcResult<Answer> {
        let work = async {
            let response = builder
                .send()
                .await
                .map_err(|error| self.broken(&error, doing, change))?;
            self.read(response, doing, change).await
        };
        match tokio::time::timeout(timeout, work).await {
            Ok(result) => result,
            Err(_) => {
                let detail = format!("no whole answer within {} s", timeout.as_secs());
                Err(BmcError::new(ErrorKind::Timeout, doing, detail).with_outcome_unknown(change))
            }
        }
    }

    /// A request that got no answer. Nothing was sent if connecting failed; otherwise it may have had its effect.
    fn broken(&self, error: &reqwest::Error, doing: &str, change: bool) -> BmcError {
        if let Some((kind, detail)) = tls::tls_failure(error)
            && error.is_connect()
        {
            return BmcError::new(kind, doing, detail);
        }
        // reqwest's own text names the URL, which holds no secret, but the cause is what a person needs.
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let (kind, sent) = match () {
            () if error.is_connect() && error.is_timeout() => (ErrorKind::Timeout, false),
            () if error.is_connect() => (ErrorKind::Unreachable, false),
            () if error.is_builder() => (ErrorKind::Invalid, false),
            () if error.is_timeout() => (ErrorKind::Timeout, true),
            () if is_parse_error(error) => (ErrorKind::MalformedAnswer, true),
            () => (ErrorKind::ConnectionLost, true),
        };
        BmcError::new(kind, doing, cause.to_string()).with_outcome_unknown(change && sent)
    }

    async fn read(&self, mut response: reqwest::Response, doing: &str, change: bool) -> BmcResult<Answer> {
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        // A change that was answered with success has happened, even if the answer's body is beyond reading; one that was
        // refused has not.
        let unknown = change && (status.is_success() || ambiguous(status));
        let fail = |kind, detail: String| BmcError::new(kind, doing, detail).with_outcome_unknown(unknown);
        if status.is_redirection() {
            let to = headers
                .get(LOCATION)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            return Err(fail(
                ErrorKind::Redirected,
                format!("the BMC points elsewhere: {}", to.unwrap_or_default()),
            ));
        }
        let encoded = headers
            .get(CONTENT_ENCODING)
            .is_some_and(|value| value != "identity");
        if encoded {
            return Err(fail(
                ErrorKind::MalformedAnswer,
                "the answer is compressed, which was not asked for".into(),
            ));
        }
        let limit = self.limits.body_bytes;
        let too_large = || {
            fail(
                ErrorKind::TooLarge,
                format!("the answer is larger than {limit} bytes"),
            )
        };
        if response
            .content_length()
            .is_some_and(|length| length > limit as u64)
        {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.cut(&error, doing, unknown))?
        {
            if body.len() + chunk.len() > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        let (body, json) = self
            .parse(status, &body.freeze(), change)
            .map_err(|(kind, detail)| fail(kind, detail))?;
        Ok(Answer {
            status,
            body,
            etag: short_header(&headers, &ETAG),
            location: short_header(&headers, &LOCATION),
            token: headers
                .get(TOKEN_HEADER)
                .filter(|value| value.len() <= 4096)
                .cloned(),
            retry_after: retry_after(&headers),
            json,
        })
    }

    fn cut(&self, error: &reqwest::Error, doing: &str, unknown: bool) -> BmcError {
        let kind = if error.is_timeout() {
            ErrorKind::Timeout
        } else {
            ErrorKind::ConnectionLost
        };
        BmcError::new(kind, doing, "the answer was cut off").with_outcome_unknown(unknown)
    }

    /// Parses a body. What an error answer says beside its status is never needed, so it may be anything.
    fn parse(
        &self,
        status: StatusCode,
        body: &Bytes,
        change: bool,
    ) -> Result<(Value, bool), (ErrorKind, String)> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok((Value::Null, false));
        }
        match json::check_shape(body, self.limits.depth) {
            Ok(()) => {}
            Err(_) if !status.is_success() => return Ok((Value::Null, false)),
            Err(TooMuch::Depth) => {
                return Err((
                    ErrorKind::TooLarge,
                    format!("the answer is nested deeper than {}", self.limits.depth),
                ));
            }
            Err(TooMuch::Values) => {
                return Err((ErrorKind::TooLarge, "the answer holds too many values".into()));
            }
        }
        match serde_json::from_slice(body) {
            Ok(value) => Ok((value, true)),
            Err(_) if !status.is_success() => Ok((Value::Null, false)),
            // Some BMCs answer a change with a line of text; a page of HTML rather comes from a proxy in between.
            Err(_) if change && !body.trim_ascii_start().starts_with(b"<") => Ok((Value::Null, false)),
            Err(error) => {
                let start = clean(&String::from_utf8_lossy(&body[..body.len().min(80)]), 60);
                let what = if start.starts_with('<') {
                    "HTML, not JSON"
                } else {
                    "not JSON"
                };
                Err((
                    ErrorKind::MalformedAnswer,
                    format!("the answer is {what} ({error}): {start:?}"),
                ))
            }
        }
    }
}

fn is_parse_error(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = next {
        if let Some(error) = current.downcast_ref::<hyper::Error>() {
            return error.is_parse() || error.is_parse_too_large();
        }
        next = current.source();
    }
    false
}

/// Statuses that do not say whether a change was made: the server, or something between, broke while at it.
fn ambiguous(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 500 | 502 | 504)
}

fn short_header(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers
        .get(name)?
        .to_str()
        .ok()
        .filter(|text| text.len() <= 2048)
        .map(str::to_owned)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    // The other form, a date, is by the BMC's clock, which may stand in 1970.
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

fn base_url(text: &str, allow_plain_http: bool) -> BmcResult<Url> {
    let fail = |detail: &str| Err(BmcError::new(ErrorKind::Invalid, "use the BMC's URL", detail));
    let Ok(mut url) = Url::parse(text) else {
        return fail("it is no URL");
    };
    match url.scheme() {
        "https" => {}
        "http" if allow_plain_http => {}
        _ => return fail("it must begin with https://"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return fail("it must not hold an account; use credentials");
    }
    if !url.has_host() {
        return fail("it names no host");
    }
    url.set_path("/");
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

impl Answer {
    /// The messages that came with it (`@Message.ExtendedInfo`, of an error or beside a result).
    pub(crate) fn messages(&self) -> Vec<TaskMessage> {
        let mut all = list_at(&self.body, &["error", "@Message.ExtendedInfo"]).to_vec();
        all.extend_from_slice(list_at(&self.body, &["@Message.ExtendedInfo"]));
        for wrapper in ["Accepted", "Success"] {
            all.extend_from_slice(list_at(&self.body, &[wrapper, "@Message.ExtendedInfo"]));
        }
        messages(&all)
    }

    /// The same answer if it is a success; else the error that it stands for.
    pub(crate) fn check(self, doing: &str, change: bool) -> BmcResult<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        let said = self.messages();
        let (kind, why) = judge(self.status, &said);
        let words: Vec<String> = said
            .iter()
            .take(3)
            .map(|message| match (message.id.as_str(), message.text.as_str()) {
                ("", text) => text.to_owned(),
                (id, "") => id.to_owned(),
                (id, text) => format!("{text} ({id})"),
            })
            .collect();
        let general = at(&self.body, &["error", "message"])
            .and_then(Value::as_str)
            .unwrap_or_default();
        let words = if words.is_empty() {
            general.to_owned()
        } else {
            words.join("; ")
        };
        let detail = match (why, words.is_empty()) {
            ("", true) => format!("the BMC answers {}", self.status),
            ("", false) => format!("the BMC answers {}: {words}", self.status),
            (why, true) => format!("{why} ({})", self.status),
            (why, false) => format!("{why} ({}): {words}", self.status),
        };
        Err(BmcError::new(kind, doing, detail)
            .with_retry_after(self.retry_after)
            .with_outcome_unknown(change && ambiguous(self.status)))
    }

    /// The body as an object; what else it is makes it no Redfish.
    pub(crate) fn object(self, doing: &str) -> BmcResult<Value> {
        match self.body {
            body @ Value::Object(_) => Ok(body),
            _ => {
                let what = if self.json {
                    "the answer is JSON but no object"
                } else {
                    "the answer is empty"
                };
                Err(BmcError::new(ErrorKind::MalformedAnswer, doing, what))
            }
        }
    }
}

/// Reads messages, at most sixteen, the last ones.
pub(crate) fn messages(list: &[Value]) -> Vec<TaskMessage> {
    let from = list.len().saturating_sub(16);
    list[from..]
        .iter()
        .map(|item| {
            let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
            let severity = [text("MessageSeverity"), text("Severity")]
                .into_iter()
                .find(|word| !word.is_empty());
            TaskMessage {
                id: clean(text("MessageId"), 128),
                text: clean(text("Message"), 512),
                severity: health(severity),
            }
        })
        .filter(|message| !message.id.is_empty() || !message.text.is_empty())
        .collect()
}

/// A word of `Health` or `Severity`.
pub(crate) fn health(word: Option<&str>) -> Health {
    match word.map(str::to_ascii_lowercase).as_deref() {
        Some("ok" | "informational") => Health::Ok,
        Some("warning") => Health::Warning,
        Some("critical" | "fatal") => Health::Critical,
        _ => Health::Unknown,
    }
}

/// What a refusal means. The message decides before the status: 503 is both "starting" and "no free session".
fn judge(status: StatusCode, said: &[TaskMessage]) -> (ErrorKind, &'static str) {
    let has = |words: &[&str]| {
        said.iter().any(|message| {
            words
                .iter()
                .any(|word| message.id.contains(word) || message.text.contains(word))
        })
    };
    if has(&["RAC0218", "SessionLimitExceeded", "CreateLimitReachedForResource"])
        && !matches!(status.as_u16(), 401 | 404)
    {
        return (ErrorKind::SessionLimit, "every session of the BMC is taken");
    }
    // Supermicro answers so for updates, settings and more without SFT-OOB-LIC or SFT-DCMS-SINGLE; its status is 403.
    if has(&["OemLicenseNotPassed"]) {
        return (
            ErrorKind::NotLicensed,
            "the BMC lacks a licence for this; activate it on the BMC",
        );
    }
    if has(&[
        "OemFirmwareAlreadyInUpdateMode",
        "InvalidOperationForSystemState",
        "UpdateInProgress",
        "ResourceInUse",
        "RAC0679",
        "LC068",
        "SYS518",
    ]) {
        return (ErrorKind::Busy, "the BMC is busy");
    }
    match status.as_u16() {
        401 => (
            ErrorKind::AuthenticationFailed,
            "the account or session was refused",
        ),
        403 if has(&["InsufficientPrivilege"]) => (ErrorKind::Rejected, "the account may not do this"),
        403 => (ErrorKind::Rejected, "forbidden"),
        404 | 410 => (ErrorKind::NotFound, "there is no such resource"),
        405 | 501 => (ErrorKind::NotSupported, "this BMC cannot do it"),
        409 | 423 => (ErrorKind::Busy, "the BMC is busy"),
        429 => (ErrorKind::Unavailable, "the BMC asks to be asked less often"),
        500 | 502..=504 => (ErrorKind::Unavailable, "the BMC is not ready"),
        _ => (ErrorKind::Rejected, ""),
    }
}
