//! Captured trees: the DMTF mockup layout, served read-only over HTTPS as the machine it was captured from.

use crate::{
    certificate::{Authority, CertificateError},
    image::hex,
    server::{Body, credentials, full},
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    net::SocketAddr,
    path::{Component, Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Why a captured tree is not served.
#[derive(Debug, thiserror::Error)]
pub enum MockupError {
    /// The folder holds no service root.
    #[error("find redfish/v1/index.json in {0}")]
    Layout(PathBuf),
    /// The certificate cannot be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// A captured tree on the network. Dropping it stops it.
pub struct Mockup {
    inner: Arc<Inner>,
    address: SocketAddr,
    ca_pem: String,
    fingerprint: String,
}

struct Inner {
    /// The folder that holds `redfish`.
    root: PathBuf,
    username: String,
    password: String,
    tokens: Mutex<HashSet<String>>,
    opened: AtomicUsize,
    requests: AtomicUsize,
    refused: AtomicUsize,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Mockup {
    /// Serves the tree in `dir` on a free port of 127.0.0.1, with the account `admin` / `kiban-sim`. The tree may lie
    /// one or two folders further down, as archives have it.
    pub async fn serve(dir: impl AsRef<Path>) -> Result<Self, MockupError> {
        Self::serve_on(dir, SocketAddr::from(([127, 0, 0, 1], 0)), "admin", "kiban-sim").await
    }

    /// Serves the tree at an address, with an account.
    pub async fn serve_on(
        dir: impl AsRef<Path>,
        address: SocketAddr,
        username: &str,
        password: &str,
    ) -> Result<Self, MockupError> {
        let root = find_root(dir.as_ref(), 2).ok_or_else(|| MockupError::Layout(dir.as_ref().to_owned()))?;
        let authority = Authority::new()?;
        let leaf = authority.leaf("mockup", &[address.ip()])?;
        let failed = |source| MockupError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let inner = Arc::new(Inner {
            root,
            username: username.to_owned(),
            password: password.to_owned(),
            tokens: Mutex::default(),
            opened: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        inner
            .tasks
            .spawn(accept(inner.clone(), listener, leaf.config.clone()));
        Ok(Self {
            inner,
            address,
            ca_pem: authority.pem().to_owned(),
            fingerprint: leaf.fingerprint.clone(),
        })
    }

    /// The base URL, without a slash at its end.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The certificate authority, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// SHA-256 of the certificate (DER), lower-case hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// How many sessions were opened since the start, and how many are open now.
    pub fn sessions(&self) -> (usize, usize) {
        let tokens = self.inner.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        (self.inner.opened.load(Ordering::SeqCst), tokens.len())
    }

    /// How many requests were answered, and how many of them would have changed something and were refused.
    pub fn requests(&self) -> (usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (count(&self.inner.requests), count(&self.inner.refused))
    }

    /// Stops and waits.
    pub async fn shutdown(self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Drop for Mockup {
    fn drop(&mut self) {
        self.inner.stop.cancel();
    }
}

fn find_root(dir: &Path, depth: usize) -> Option<PathBuf> {
    if dir.join("redfish/v1/index.json").is_file() {
        return dir.canonicalize().ok();
    }
    if depth == 0 {
        return None;
    }
    let mut folders: Vec<PathBuf> = std::fs::read_dir(dir)
        .ok()?
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.is_dir())
        .collect();
    folders.sort();
    folders.iter().find_map(|p| find_root(p, depth - 1))
}

async fn accept(inner: Arc<Inner>, listener: TcpListener, config: Arc<rustls::ServerConfig>) {
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = inner.stop.cancelled() => return,
        };
        let (inner, acceptor) = (inner.clone(), acceptor.clone());
        inner.clone().tasks.spawn(async move {
            tokio::select! {
                () = connection(inner.clone(), acceptor, stream) => {}
                () = inner.stop.cancelled() => {}
            }
        });
    }
}

async fn connection(inner: Arc<Inner>, acceptor: tokio_rustls::TlsAcceptor, stream: TcpStream) {
    let Ok(tls) = acceptor.accept(stream).await else {
        return;
    };
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let inner = inner.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(&inner, request).await) }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(tls), service)
        .await;
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Vec::new()));
    *response.status_mut() = status;
    response
}

async fn answer(inner: &Inner, request: Request<Incoming>) -> Response<Body> {
    use http_body_util::{BodyExt, Limited};
    /// A login is a line of JSON.
    const MAX_LOGIN: usize = 64 << 10;
    let (parts, body) = request.into_parts();
    inner.requests.fetch_add(1, Ordering::SeqCst);
    let path = parts.uri.path().trim_end_matches('/').to_owned();
    match parts.method {
        Method::GET | Method::HEAD => {
            let open = matches!(
                path.as_str(),
                "/redfish" | "/redfish/v1" | "/redfish/v1/odata" | "/redfish/v1/$metadata"
            );
            if !open && !known(inner, &parts.headers) {
                return empty(StatusCode::UNAUTHORIZED);
            }
            read(inner, &path).await
        }
        Method::POST if path == "/redfish/v1/SessionService/Sessions" => {
            let Ok(body) = Limited::new(body, MAX_LOGIN).collect().await else {
                return empty(StatusCode::PAYLOAD_TOO_LARGE);
            };
            login(inner, &body.to_bytes())
        }
        Method::DELETE
            if path.starts_with("/redfish/v1/SessionService/Sessions/") && known(inner, &parts.headers) =>
        {
            if let Some(token) = parts.headers.get("X-Auth-Token").and_then(|t| t.to_str().ok()) {
                inner
                    .tokens
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(token);
            }
            empty(StatusCode::NO_CONTENT)
        }
        _ => {
            inner.refused.fetch_add(1, Ordering::SeqCst);
            let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
            response
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
    }
}

fn known(inner: &Inner, headers: &HeaderMap) -> bool {
    if let Some(token) = headers.get("X-Auth-Token").and_then(|t| t.to_str().ok()) {
        return inner
            .tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(token);
    }
    credentials(headers).is_some_and(|(user, password)| user == inner.username && password == inner.password)
}

fn login(inner: &Inner, body: &[u8]) -> Response<Body> {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    if json["UserName"] != inner.username.as_str() || json["Password"] != inner.password.as_str() {
        return empty(StatusCode::UNAUTHORIZED);
    }
    let token = uuid::Uuid::new_v4().simple().to_string();
    // The session's name is public; it must not give the token away.
    let name = &hex(&Sha256::digest(token.as_bytes()))[..12];
    let location = format!("/redfish/v1/SessionService/Sessions/{name}");
    let doc = serde_json::json!({
        "@odata.id": location, "@odata.type": "#Session.v1_4_0.Session", "Id": name, "Name": "User Session",
        "UserName": inner.username,
    });
    let mut response = Response::new(full(doc.to_string()));
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let (Ok(location), Ok(token_value)) = (HeaderValue::from_str(&location), HeaderValue::from_str(&token))
    {
        headers.insert(header::LOCATION, location);
        headers.insert("X-Auth-Token", token_value);
    }
    inner
        .tokens
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(token);
    inner.opened.fetch_add(1, Ordering::SeqCst);
    response
}

async fn read(inner: &Inner, path: &str) -> Response<Body> {
    let Some(folder) = resolve(&inner.root, path) else {
        return empty(StatusCode::NOT_FOUND);
    };
    for (file, kind) in [
        ("index.json", "application/json;charset=utf-8"),
        ("index.xml", "application/xml"),
    ] {
        let Ok(found) = folder.join(file).canonicalize() else {
            continue;
        };
        // A link out of the tree is no part of the capture.
        if !found.starts_with(&inner.root) {
            return empty(StatusCode::NOT_FOUND);
        }
        if let Ok(bytes) = tokio::fs::read(&found).await {
            let mut response = Response::new(full(bytes));
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            response
                .headers_mut()
                .insert("OData-Version", HeaderValue::from_static("4.0"));
            return response;
        }
    }
    empty(StatusCode::NOT_FOUND)
}

/// The folder of a request path, below the root or not at all.
fn resolve(root: &Path, path: &str) -> Option<PathBuf> {
    let decoded = percent_decode(path)?;
    let relative = Path::new(decoded.trim_start_matches('/'));
    let plain = relative.components().all(|c| matches!(c, Component::Normal(_)));
    let exact = plain.then(|| root.join(relative))?;
    if exact.is_dir() {
        return Some(exact);
    }
    // iLO's links spell one resource in two ways (`/Systems/1/Bios`, `/systems/1/bios`); its capture has one of them.
    let mut folder = root.to_owned();
    for part in relative.components() {
        let name = part.as_os_str();
        let next = folder.join(name);
        folder = if next.is_dir() {
            next
        } else {
            let like = |entry: &std::fs::DirEntry| entry.file_name().eq_ignore_ascii_case(name);
            let mut found: Vec<_> = std::fs::read_dir(&folder).ok()?.flatten().filter(like).collect();
            found.sort_by_key(std::fs::DirEntry::file_name);
            found.first()?.path()
        };
    }
    Some(folder)
}

fn percent_decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(b) = rest.next() {
        if b == b'%' {
            let (high, low) = (rest.next()? as char, rest.next()? as char);
            bytes.push((high.to_digit(16)? * 16 + low.to_digit(16)?) as u8);
        } else {
            bytes.push(b);
        }
    }
    String::from_utf8(bytes).ok().filter(|s| !s.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root_and_are_found_in_any_case() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("redfish/v1/Systems/a:b")).unwrap();
        assert_eq!(resolve(root, "/redfish/v1").unwrap(), root.join("redfish/v1"));
        for path in ["/redfish/v1/Systems/a%3Ab", "/redfish/v1/systems/A:B"] {
            assert_eq!(resolve(root, path).unwrap(), root.join("redfish/v1/Systems/a:b"));
        }
        for absent in [
            "/redfish/../../etc",
            "/redfish/%2e%2e/%2e%2e/etc",
            "/redfish/%00",
            "/%zz",
            "/redfish/v2",
        ] {
            assert!(resolve(root, absent).is_none(), "{absent}");
        }
    }
}
