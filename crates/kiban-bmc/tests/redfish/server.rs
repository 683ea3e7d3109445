//! A scripted BMC: HTTPS on loopback, every answer decided by a closure, able to misbehave below HTTP.

use kiban_bmc::{Credentials, Endpoint, Limits, Redfish, Trust};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{TlsAcceptor, rustls};

pub(crate) const PASSWORD: &str = "canary-7731";

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path == path
    }
}

/// What the closure wants done.
pub(crate) enum Reply {
    /// Status, further header lines, body.
    Http(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// These bytes, then the connection is closed.
    Bytes(Vec<u8>),
    /// Nothing, and the connection is closed.
    Close,
    /// Nothing, and the connection stays open.
    Stall,
    /// These bytes, one each fifty milliseconds.
    Drip(Vec<u8>),
}

impl Reply {
    pub(crate) fn json(value: &Value) -> Self {
        Self::status(200, value)
    }

    pub(crate) fn status(status: u16, value: &Value) -> Self {
        Self::Http(status, Vec::new(), value.to_string().into_bytes())
    }

    pub(crate) fn error(status: u16, id: &str, text: &str) -> Self {
        let body = json!({"error": {"code": "Base.1.0.GeneralError", "message": "see below",
            "@Message.ExtendedInfo": [{"MessageId": id, "Message": text}]}});
        Self::status(status, &body)
    }

    pub(crate) fn not_found() -> Self {
        Self::error(404, "Base.1.0.ResourceMissingAtURI", "not here")
    }
}

/// How connections behave before HTTP.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Below {
    Tls,
    /// The connection is taken, and nothing follows.
    Silence,
}

/// A running scripted BMC. Its task ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
    pub(crate) certificate_der: Vec<u8>,
    log: Arc<Mutex<Vec<Seen>>>,
}

type Handler = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

impl Server {
    pub(crate) async fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(Below::Tls, None, handler).await
    }

    /// `validity`: the years that the certificate is good for; None: now.
    pub(crate) async fn start_with(
        below: Below,
        validity: Option<(i32, i32)>,
        handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params =
            rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        if let Some((from, to)) = validity {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
        }
        let certificate = params.self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (handler, shared): (Handler, _) = (Arc::new(handler), log.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, handler, log) = (acceptor.clone(), handler.clone(), shared.clone());
                tokio::spawn(async move {
                    if below == Below::Silence {
                        std::future::pending::<()>().await;
                    }
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, &handler, &log).await;
                    }
                });
            }
        });
        Self {
            address,
            ca_pem: certificate.pem(),
            certificate_der: certificate.der().to_vec(),
            log,
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint {
            url: format!("https://{}", self.address),
            credentials: Credentials::new("root", PASSWORD),
            trust: Trust::Ca {
                pem: self.ca_pem.clone(),
            },
            expect: None,
        }
    }

    pub(crate) fn log(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    /// Changes that came in, sessions aside.
    pub(crate) fn changes(&self) -> Vec<Seen> {
        self.log()
            .into_iter()
            .filter(|seen| seen.method != "GET" && !seen.path.contains("/Sessions"))
            .collect()
    }

    pub(crate) fn count(&self, method: &str, path: &str) -> usize {
        self.log().iter().filter(|seen| seen.is(method, path)).count()
    }

    pub(crate) async fn connect(&self) -> Redfish {
        Redfish::connect(&self.endpoint(), &limits()).await.unwrap()
    }
}

/// Limits small enough for tests to run into.
pub(crate) fn limits() -> Limits {
    Limits {
        request_timeout: Duration::from_secs(3),
        connect_timeout: Duration::from_secs(1),
        poll: Duration::from_millis(10),
        off_time: Duration::from_millis(10),
        ..Limits::default()
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, handler: &Handler, log: &Mutex<Vec<Seen>>) {
    let mut buffer = Vec::new();
    while let Some(seen) = read_request(&mut stream, &mut buffer).await {
        let reply = handler(&seen);
        log.lock().unwrap().push(seen);
        let sent = match reply {
            Reply::Http(status, headers, body) => {
                let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
                if !headers
                    .iter()
                    .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
                {
                    head.push_str("Content-Type: application/json\r\n");
                }
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                head.push_str("\r\n");
                stream.write_all(&[head.as_bytes(), &body].concat()).await.is_ok()
                    && stream.flush().await.is_ok()
            }
            Reply::Bytes(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.flush().await;
                false
            }
            Reply::Close => false,
            Reply::Stall => {
                std::future::pending::<()>().await;
                false
            }
            Reply::Drip(bytes) => {
                for byte in bytes {
                    if stream.write_all(&[byte]).await.is_err() || stream.flush().await.is_err() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                false
            }
        };
        if !sent {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect();
    let length = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
    while buffer.len() < end + 4 + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[end + 4..end + 4 + length].to_vec();
    buffer.drain(..end + 4 + length);
    Some(Seen {
        method,
        path,
        headers,
        body,
    })
}

/// The answers that every test needs: root, session, one system, one manager. None: the test's own business.
pub(crate) fn basics(seen: &Seen, root: &Value) -> Option<Reply> {
    let link = |path: &str| json!({"@odata.id": path});
    let members = |paths: &[&str]| json!({"Members": paths.iter().map(|path| link(path)).collect::<Vec<_>>(), "Members@odata.count": paths.len()});
    Some(
        match (
            seen.method.as_str(),
            seen.path.split('?').next().unwrap_or_default(),
        ) {
            ("GET", "/redfish/v1/") => {
                let mut all = json!({
                    "RedfishVersion": "1.15.0", "Systems": link("/redfish/v1/Systems"), "Managers": link("/redfish/v1/Managers"),
                    "UpdateService": link("/redfish/v1/UpdateService"), "Tasks": link("/redfish/v1/TaskService"),
                    "Links": {"Sessions": link("/redfish/v1/SessionService/Sessions")},
                });
                all.as_object_mut()
                    .unwrap()
                    .extend(root.as_object().unwrap().clone());
                Reply::json(&all)
            }
            ("POST", "/redfish/v1/SessionService/Sessions") => {
                let headers = vec![
                    ("X-Auth-Token", "token-1".to_owned()),
                    ("Location", "/redfish/v1/SessionService/Sessions/1".to_owned()),
                ];
                Reply::Http(201, headers, b"{}".to_vec())
            }
            ("DELETE", "/redfish/v1/SessionService/Sessions/1") => Reply::Http(204, Vec::new(), Vec::new()),
            ("GET", "/redfish/v1/Systems") => Reply::json(&members(&["/redfish/v1/Systems/1"])),
            ("GET", "/redfish/v1/Systems/1") => Reply::json(&json!({
                "Manufacturer": "Example", "Model": "M1", "SerialNumber": "S1", "UUID": "11111111-2222-3333-4444-555555555555",
                "PowerState": "On", "Status": {"State": "Enabled", "Health": "OK"}, "BiosVersion": "1.0",
                "Actions": {"#ComputerSystem.Reset": {"target": "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
                    "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "ForceRestart", "GracefulRestart"]}},
            })),
            ("GET", "/redfish/v1/Managers") => Reply::json(&members(&["/redfish/v1/Managers/1"])),
            ("GET", "/redfish/v1/Managers/1") => Reply::json(&json!({
                "ManagerType": "BMC", "Model": "X", "FirmwareVersion": "2.0", "Status": {"State": "Enabled", "Health": "OK"},
                "Actions": {"#Manager.Reset": {"target": "/redfish/v1/Managers/1/Actions/Manager.Reset",
                    "ResetType@Redfish.AllowableValues": ["GracefulRestart"]}},
            })),
            ("GET", "/redfish/v1/TaskService") => {
                Reply::json(&json!({"Tasks": link("/redfish/v1/TaskService/Tasks")}))
            }
            ("POST", path) if path.contains("/Actions/") => Reply::Http(204, Vec::new(), Vec::new()),
            _ => return None,
        },
    )
}
