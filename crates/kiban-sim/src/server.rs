//! One BMC on the network: a listener that closes while the BMC is down, TLS, HTTP/1.1, authentication, faults.

use crate::{
    fault::{Fault, Occasion},
    fleet::{Shared, closed},
    persona::Etag,
    record::{Summary, What},
    request::{self, Reply, Target},
    resource,
    state::{Bmc, Machine},
    update,
};
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Bodies without an image are small; a BMC reads no more.
const MAX_JSON_BYTES: usize = 1 << 20;

/// A client that does not finish its handshake is given up after so many real seconds.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Ends a connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection was cut")]
pub(crate) struct Cut;

/// Listens for one machine until the fleet stops.
pub(crate) async fn run(shared: Arc<Shared>, index: usize, listener: TcpListener) {
    let mut listener = Some(listener);
    let machine = &shared.machines[index];
    loop {
        // Registered before the state is read, so that no change in between is missed.
        let changed = machine.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if closed(&shared, machine) {
            listener = None;
            tokio::select! {
                () = changed => {}
                () = shared.stop.cancelled() => return,
            }
            continue;
        }
        let Some(open) = &listener else {
            listener = reopen(&shared, machine).await;
            if listener.is_none() {
                return;
            }
            continue;
        };
        tokio::select! {
            accepted = open.accept() => match accepted {
                Ok((stream, _)) => {
                    shared.tasks.spawn(connection(shared.clone(), index, stream));
                }
                // Out of file descriptors, most likely: wait for some to be freed.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            () = changed => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

async fn reopen(shared: &Shared, machine: &Machine) -> Option<TcpListener> {
    let address = *machine.address.get()?;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Some(listener),
            Err(error) => {
                tracing::warn!(machine = &*machine.name, %address, %error, "the port is taken; trying again");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(100)) => {}
                    () = shared.stop.cancelled() => return None,
                }
            }
        }
    }
}

async fn connection(shared: Arc<Shared>, index: usize, stream: TcpStream) {
    let machine = &shared.machines[index];
    shared.connections.fetch_add(1, Ordering::Relaxed);
    // The BMC's reset cuts its connections.
    let cut = machine.changed.notified();
    tokio::pin!(cut);
    cut.as_mut().enable();
    let serve = serve(&shared, index, stream);
    tokio::pin!(serve);
    loop {
        tokio::select! {
            () = &mut serve => break,
            () = cut.as_mut() => {
                cut.set(machine.changed.notified());
                cut.as_mut().enable();
                if closed(&shared, machine) {
                    break;
                }
            }
            () = shared.stop.cancelled() => break,
        }
    }
    shared.connections.fetch_sub(1, Ordering::Relaxed);
}

async fn serve(shared: &Arc<Shared>, index: usize, stream: TcpStream) {
    let machine = &shared.machines[index];
    let now = shared.clock.now_ms();
    let wanted = |f: &Fault| matches!(f, Fault::Refuse | Fault::Hang | Fault::TlsStall);
    match shared
        .faults
        .fire(now, &machine.name, Occasion::default(), wanted)
    {
        Some(Fault::Refuse) => {
            // A reset rather than an orderly end.
            let _ = stream.set_zero_linger();
            return;
        }
        Some(Fault::Hang) => {
            std::future::pending::<()>().await;
        }
        Some(Fault::TlsStall) => {
            // Take the hello, answer nothing.
            let mut buffer = [0; 1024];
            while stream.readable().await.is_ok() {
                match stream.try_read(&mut buffer) {
                    Ok(0) => break,
                    Err(e) if e.kind() != io::ErrorKind::WouldBlock => break,
                    _ => {}
                }
            }
            return;
        }
        _ => {}
    }
    let Ok(leaf) = shared.leaf(machine, false) else {
        return;
    };
    let acceptor = tokio_rustls::TlsAcceptor::from(leaf.config.clone());
    let _ = stream.set_nodelay(true);
    let Ok(Ok(tls)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else {
        return;
    };
    shared.handshakes.fetch_add(1, Ordering::Relaxed);
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let shared = shared.clone();
        async move { answer(shared, index, request).await }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(120))
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(tls), service)
        .await;
}

/// Counts a request out again.
struct Leave<'a> {
    shared: &'a Shared,
    machine: &'a Machine,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.shared.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.machine.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(
    shared: Arc<Shared>,
    index: usize,
    request: Request<Incoming>,
) -> Result<Response<Body>, Cut> {
    let machine = &shared.machines[index];
    let flying = shared.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
    shared.peak_in_flight.fetch_max(flying, Ordering::Relaxed);
    shared.requests.fetch_add(1, Ordering::Relaxed);
    machine.requests.fetch_add(1, Ordering::Relaxed);
    let here = machine.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
    machine.peak_in_flight.fetch_max(here, Ordering::Relaxed);
    // Dropped with the future too, when the connection is cut in the middle.
    let _leave = Leave {
        shared: &shared,
        machine,
    };
    machine
        .last_request
        .store(shared.clock.now_ms() + 1, Ordering::Relaxed);
    faulty(&shared, machine, request).await
}

/// Applies the fault of this request, if there is one, around what the BMC does.
async fn faulty(
    shared: &Arc<Shared>,
    machine: &Machine,
    request: Request<Incoming>,
) -> Result<Response<Body>, Cut> {
    let method = request.method().as_str().to_owned();
    let path = normal(request.uri().path());
    let now = shared.clock.now_ms();
    let occasion = Occasion {
        path: Some(&path),
        method: Some(&method),
        class: None,
    };
    let fault = shared
        .faults
        .fire(now, &machine.name, occasion, Fault::of_request);
    let mut summary = Summary {
        fault: fault.as_ref().map(Fault::name),
        ..Summary::default()
    };
    let log = |status: u16, summary: Summary| {
        let mutating = !matches!(method.as_str(), "GET" | "HEAD");
        if mutating || shared.options.record_reads {
            let what = What::Request {
                method: method.clone(),
                path: path.clone(),
                status,
                summary,
            };
            shared.record.push(shared.clock.now_ms(), &machine.name, what);
        }
    };
    match &fault {
        Some(Fault::CutBefore) => {
            log(0, summary);
            return Err(Cut);
        }
        Some(Fault::Status {
            status,
            retry_after,
            message_id,
        }) => {
            log(*status, summary);
            let mut reply = match message_id {
                Some(id) => Reply::error(*status, id, "This answer is a fault."),
                None => Reply::empty(*status),
            };
            if let Some(seconds) = retry_after {
                reply = reply.header("Retry-After", seconds.to_string());
            }
            return Ok(http_response(reply, None));
        }
        Some(Fault::Redirect { location }) => {
            log(302, summary);
            return Ok(http_response(
                Reply::empty(302).header("Location", location.clone()),
                None,
            ));
        }
        Some(Fault::Html) => {
            log(200, summary);
            let page = "<!DOCTYPE html><html><body><h1>It works!</h1></body></html>";
            return Ok(page_response(page));
        }
        Some(Fault::Latency { ms }) => tokio::time::sleep(Duration::from_millis(*ms)).await,
        _ => {}
    }
    let (reply, etag) = handle(shared, machine, &path, request, &mut summary).await;
    if fault == Some(Fault::CutAfter) {
        log(0, summary);
        return Err(Cut);
    }
    log(reply.status, summary);
    Ok(match fault {
        Some(fault) => spoil(reply, etag.as_deref(), &fault),
        None => http_response(reply, etag.as_deref()),
    })
}

/// A path without the slashes at its end; `/redfish/v1/` and `/redfish/v1` are one.
fn normal(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        "/".to_owned()
    } else {
        trimmed.to_owned()
    }
}

/// Who asks: a session, or the account under basic authentication.
fn client(turn: &mut crate::state::Turn<'_>, headers: &HeaderMap) -> Option<String> {
    if let Some(token) = headers.get("X-Auth-Token").and_then(|t| t.to_str().ok()) {
        let timeout = turn.machine.vendor().session_timeout() * 1000;
        return turn
            .st
            .sessions
            .touch(token, turn.t, timeout)
            .map(|id| format!("session {id}"));
    }
    let (user, password) = credentials(headers)?;
    (user == turn.shared.options.username && request::password_is(turn, &password))
        .then(|| format!("basic {user}"))
}

/// The account of a request under basic authentication.
pub(crate) fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let basic = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .strip_prefix("Basic ")?;
    let decoded = decode_base64(basic.trim())?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn decode_base64(text: &str) -> Option<String> {
    let mut bits = 0_u32;
    let mut count = 0;
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for c in text.bytes().filter(|c| *c != b'=') {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    String::from_utf8(bytes).ok()
}

fn open_to_all(method: &Method, path: &str) -> bool {
    match *method {
        Method::GET | Method::HEAD => {
            matches!(
                path,
                "/redfish" | "/redfish/v1" | "/redfish/v1/odata" | "/redfish/v1/$metadata"
            )
        }
        Method::POST => matches!(
            path,
            "/redfish/v1/SessionService/Sessions" | "/redfish/v1/SessionService/Sessions/Members"
        ),
        _ => false,
    }
}

async fn handle(
    shared: &Arc<Shared>,
    machine: &Machine,
    path: &str,
    request: Request<Incoming>,
    summary: &mut Summary,
) -> (Reply, Option<String>) {
    let (parts, body) = request.into_parts();
    let open = open_to_all(&parts.method, path);
    let who = shared.with(machine, |turn| {
        if turn.st.bmc != Bmc::Up {
            return Err(
                Reply::error(503, "Base.1.12.ServiceInUnknownState", "The service is starting.")
                    .header("Retry-After", "30".into()),
            );
        }
        match client(turn, &parts.headers) {
            Some(_) if resource::unlicensed(turn, path) => {
                let mut reply = Reply::error(
                    403,
                    "SMC.1.0.OemLicenseNotPassed",
                    "Not licensed to perform this request. The following licenses DCMS were needed",
                );
                if let Some(body) = &mut reply.body {
                    body["error"]["@Message.ExtendedInfo"][0]["MessageArgs"] = serde_json::json!(["DCMS"]);
                }
                Err(reply)
            }
            Some(who) => Ok(who),
            None if open => Ok(String::new()),
            None => Err(
                Reply::error(401, "Base.1.12.NoValidSession", "There is no valid session.")
                    .header("WWW-Authenticate", "Basic realm=\"Redfish\"".into()),
            ),
        }
    });
    let who = match who {
        Ok(who) => who,
        Err(reply) => {
            // An upload is taken to its end before it is refused: a connection that closes under it would hide the answer.
            let mut body = body;
            if reply.status == 403 {
                while let Some(Ok(_)) = body.frame().await {}
            }
            return (reply, None);
        }
    };
    match parts.method {
        Method::GET | Method::HEAD => read(shared, machine, path),
        Method::POST | Method::PATCH | Method::DELETE => {
            let target = Target {
                method: parts.method.as_str(),
                path,
                client: &who,
            };
            (
                change(shared, machine, &target, &parts.headers, body, summary).await,
                None,
            )
        }
        _ => (
            Reply::error(
                405,
                "Base.1.12.OperationNotAllowed",
                "The method is not supported.",
            ),
            None,
        ),
    }
}

fn read(shared: &Shared, machine: &Machine, path: &str) -> (Reply, Option<String>) {
    if path == "/redfish/v1/$metadata" {
        return (Reply::new(200, Some(Value::String(resource::metadata()))), None);
    }
    shared.with(machine, |turn| {
        let Some(mut doc) = resource::get(turn, path) else {
            return (Reply::not_found(), None);
        };
        let etag = etag(turn.machine, &doc);
        if turn.machine.vendor().etag_in_body()
            && doc.get("@odata.id").is_some()
            && let Some(map) = doc.as_object_mut()
        {
            map.insert("@odata.etag".into(), Value::String(etag.clone()));
        }
        let mut status = 200;
        if let Some(task) = resource::monitored(turn, path) {
            let ended = turn.st.tasks.iter().any(|t| t.id == task && t.state.ended());
            // DSP0266: a monitor answers 202 until its task has ended.
            status = if ended { 200 } else { 202 };
            turn.machine.vendor().monitor_read(turn, task);
        }
        (Reply::new(status, Some(doc)), Some(etag))
    })
}

/// The entity tag: of what the resource says, but for its clock.
fn etag(machine: &Machine, doc: &Value) -> String {
    let mut still = doc.clone();
    if let Some(map) = still.as_object_mut() {
        map.remove("DateTime");
    }
    let text = still.to_string();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    });
    match machine.vendor().etag() {
        Etag::Weak | Etag::WeakRefused => format!("W/\"{hash:016x}\""),
        Etag::Strong | Etag::StrongRequired => format!("\"{hash:016x}\""),
    }
}

async fn change(
    shared: &Arc<Shared>,
    machine: &Machine,
    target: &Target<'_>,
    headers: &HeaderMap,
    body: Incoming,
    summary: &mut Summary,
) -> Reply {
    let text = |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    if target.method == "POST"
        && let Some(form) = update::push_form(machine, target.path)
    {
        let content_type = text(header::CONTENT_TYPE);
        return update::push(shared, machine, form, content_type, target.client, body, summary).await;
    }
    let bytes = match Limited::new(body, MAX_JSON_BYTES).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => return Reply::error(413, "Base.1.12.PayloadTooLarge", "The body is too large."),
    };
    let json: Value = if bytes.is_empty() {
        Value::Object(serde_json::Map::new())
    } else {
        match serde_json::from_slice(&bytes) {
            Ok(json) => json,
            Err(_) => return Reply::error(400, "Base.1.12.MalformedJSON", "The body is not valid JSON."),
        }
    };
    let fault = summary.fault.take();
    *summary = request::summarize(target, &json);
    summary.fault = fault;
    if target.method == "POST" && update::is_simple_update(target.path) {
        return update::simple(shared, machine, target.client, &json, summary);
    }
    shared.with(machine, |turn| {
        if target.method == "POST" && open_to_all(&Method::POST, target.path) {
            return request::login(turn, &json);
        }
        if target.method == "PATCH"
            && let Some(doc) = resource::get(turn, target.path)
        {
            let etag = etag(turn.machine, &doc);
            if let Some(reply) = request::precondition(turn, target.path, text(header::IF_MATCH), &etag) {
                return reply;
            }
        }
        request::act(turn, target, &json)
    })
}

// ---- answers

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn render(reply: &Reply) -> (Vec<u8>, &'static str) {
    match &reply.body {
        None => (Vec::new(), "application/json"),
        // Only the metadata document is a bare string.
        Some(Value::String(xml)) => (xml.clone().into_bytes(), "application/xml"),
        Some(doc) => (
            serde_json::to_vec(doc).unwrap_or_default(),
            "application/json;odata.metadata=minimal;charset=utf-8",
        ),
    }
}

fn http_response(reply: Reply, etag: Option<&str>) -> Response<Body> {
    let (bytes, kind) = render(&reply);
    let has_body = reply.body.is_some();
    let mut response = Response::new(full(bytes));
    dress(&mut response, reply, etag);
    if has_body {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    response
}

fn dress(response: &mut Response<Body>, reply: Reply, etag: Option<&str>) {
    *response.status_mut() =
        http::StatusCode::from_u16(reply.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert("OData-Version", HeaderValue::from_static("4.0"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some(value) = etag.and_then(|e| HeaderValue::from_str(e).ok()) {
        headers.insert(header::ETAG, value);
    }
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}

fn page_response(page: &'static str) -> Response<Body> {
    let mut response = Response::new(full(page));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

/// An answer with a body that is wrong in the way the fault says.
fn spoil(reply: Reply, etag: Option<&str>, fault: &Fault) -> Response<Body> {
    let (bytes, kind) = render(&reply);
    let body = match fault {
        Fault::SlowDrip { bytes_per_second } => drip(bytes, *bytes_per_second),
        Fault::Truncate { at } => return truncated(reply, bytes, *at, kind),
        Fault::WrongType => full(wrong_types(&reply.body)),
        Fault::HugeBody { bytes } => huge(*bytes),
        Fault::DeepNesting { depth } => full(format!("{}{}", "[".repeat(*depth), "]".repeat(*depth))),
        _ => full(bytes),
    };
    let mut response = Response::new(body);
    dress(&mut response, reply, etag);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn drip(bytes: Vec<u8>, per_second: u32) -> Body {
    let pause = Duration::from_secs(1) / per_second.max(1);
    let stream = stream::unfold((bytes, 0_usize), move |(bytes, at)| async move {
        if at >= bytes.len() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let frame = Frame::data(Bytes::copy_from_slice(&bytes[at..=at]));
        Some((Ok::<_, io::Error>(frame), (bytes, at + 1)))
    });
    BodyExt::boxed_unsync(StreamBody::new(stream))
}

fn truncated(reply: Reply, bytes: Vec<u8>, at: usize, kind: &'static str) -> Response<Body> {
    let length = bytes.len();
    let part = Bytes::copy_from_slice(&bytes[..at.min(length)]);
    let stream = stream::unfold(Some(part), |part| async move {
        match part {
            Some(part) => Some((Ok(Frame::data(part)), None)),
            None => {
                // Let what came before leave the buffers; an error at once would take it along.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Err(io::Error::from(io::ErrorKind::ConnectionAborted)), None))
            }
        }
    });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(stream)));
    dress(&mut response, reply, None);
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn huge(total: u64) -> Body {
    const CHUNK: u64 = 64 << 10;
    let filler = Bytes::from(vec![b' '; CHUNK as usize]);
    let stream = stream::unfold(0_u64, move |sent| {
        let filler = filler.clone();
        async move {
            if sent >= total {
                return None;
            }
            let chunk = filler.slice(..CHUNK.min(total - sent) as usize);
            Some((Ok::<_, io::Error>(Frame::data(chunk)), sent + CHUNK))
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(stream))
}

fn wrong_types(body: &Option<Value>) -> Vec<u8> {
    let Some(Value::Object(map)) = body else {
        return b"[]".to_vec();
    };
    let wrong: serde_json::Map<String, Value> = map
        .iter()
        .map(|(key, value)| {
            let value = match value {
                Value::String(_) if !key.starts_with("@odata") => Value::from(7),
                Value::Object(_) => Value::Null,
                Value::Number(n) => Value::String(n.to_string()),
                other => other.clone(),
            };
            (key.clone(), value)
        })
        .collect();
    serde_json::to_vec(&wrong).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_decode() {
        assert_eq!(
            decode_base64("YWRtaW46a2liYW4tc2lt").as_deref(),
            Some("admin:kiban-sim")
        );
        assert_eq!(decode_base64("YTpi").as_deref(), Some("a:b"));
        assert_eq!(decode_base64("YTo=").as_deref(), Some("a:"));
        assert_eq!(decode_base64("!"), None);
    }

    #[test]
    fn wrong_types_are_wrong() {
        let body = Some(serde_json::json!({"@odata.id": "/x", "Id": "1", "Status": {}, "Count": 2}));
        let wrong: Value = serde_json::from_slice(&wrong_types(&body)).unwrap();
        assert_eq!(
            wrong,
            serde_json::json!({"@odata.id": "/x", "Id": 7, "Status": null, "Count": "2"})
        );
    }
}
