//! A connection to one remote that ends when we say so.
//!
//! libgit2 calls back only while data flows, and its socket timeouts are process-wide settings behind `unsafe`. A
//! server that accepts the connection and then says nothing would hold a thread for ever. So libgit2 talks to a
//! loopback port of ours, which passes the bytes on to exactly one host, counts them, and hangs up at the deadline.
//! For https it asks for the connection with CONNECT, so TLS stays between libgit2 and the server.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// What the bytes to the relay look like before the remote is dialled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nothing: every connection goes straight to the target (ssh).
    Direct,
    /// An HTTP proxy's `CONNECT target` (https).
    Connect,
}

/// Why the relay hung up, when the remote did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HangUp {
    /// The deadline passed.
    Deadline,
    /// More bytes came than allowed.
    TooLarge,
    /// The target could not be reached.
    Unreachable(String),
    /// A connection to another host was asked for.
    Elsewhere(String),
}

/// The relay for one fetch or push. Dropping it closes every connection.
pub(super) struct Relay {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    host: String,
    port: u16,
    mode: Mode,
    deadline: Instant,
    max_bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    streams: Vec<TcpStream>,
    received: u64,
    closed: bool,
    reason: Option<HangUp>,
}

/// One address of a dual-stack host that drops packets must not use up the whole deadline.
const DIAL_LIMIT: Duration = Duration::from_secs(10);

impl Relay {
    /// Opens the loopback port and begins to watch the deadline.
    pub(super) fn start(
        host: &str,
        port: u16,
        mode: Mode,
        deadline: Instant,
        max_bytes: u64,
    ) -> io::Result<Relay> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let relay_port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            host: host.to_owned(),
            port,
            mode,
            deadline,
            max_bytes,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let watched = Arc::clone(&shared);
        thread::Builder::new()
            .name("git-deadline".to_owned())
            .spawn(move || watched.watch())?;
        let accepting = Arc::clone(&shared);
        thread::Builder::new()
            .name("git-relay".to_owned())
            .spawn(move || {
                for client in listener.incoming().flatten() {
                    if accepting.lock().closed {
                        break;
                    }
                    let serving = Arc::clone(&accepting);
                    let spawned = thread::Builder::new()
                        .name("git-relay".to_owned())
                        .spawn(move || serving.serve(client));
                    if spawned.is_err() {
                        accepting.close(Some(HangUp::Unreachable(
                            "no thread left for the connection".to_owned(),
                        )));
                    }
                }
            })?;
        Ok(Relay {
            port: relay_port,
            shared,
        })
    }

    /// The loopback port to talk to.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Closes every connection now, before it returns.
    pub(super) fn hang_up(&self) {
        self.shared.close(None);
    }

    /// Why it hung up, if it did.
    pub(super) fn reason(&self) -> Option<HangUp> {
        self.shared.lock().reason.clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.close(None);
        // The listener's thread sleeps in accept; one connection wakes it, and it sees that it is over.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        drop(TcpStream::connect_timeout(&address, Duration::from_secs(1)));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let mut state = self.lock();
        while !state.closed {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                return self.close(Some(HangUp::Deadline));
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn close(&self, reason: Option<HangUp>) {
        let mut state = self.lock();
        state.reason = state.reason.take().or(reason);
        state.closed = true;
        for stream in state.streams.drain(..) {
            // Already closed by the other side is as good.
            drop(stream.shutdown(Shutdown::Both));
        }
        self.changed.notify_all();
    }

    /// Keeps a handle for hanging up, unless that has happened already.
    fn keep(&self, stream: &TcpStream) -> io::Result<()> {
        let handle = stream.try_clone()?;
        let mut state = self.lock();
        if state.closed {
            handle.shutdown(Shutdown::Both)?;
            return Err(io::ErrorKind::NotConnected.into());
        }
        state.streams.push(handle);
        Ok(())
    }

    fn serve(&self, mut client: TcpStream) {
        if self.keep(&client).is_err() {
            return;
        }
        if self.mode == Mode::Connect && !self.read_connect(&mut client) {
            drop(client.shutdown(Shutdown::Both));
            return;
        }
        let remote = match self.dial() {
            Ok(remote) => remote,
            Err(e) => {
                // The reason is set before the connection ends, so that whoever sees the end can ask for it.
                return self.close(Some(HangUp::Unreachable(e.to_string())));
            }
        };
        if self.mode == Mode::Connect && client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").is_err() {
            return;
        }
        let (Ok(client_in), Ok(remote_out)) = (client.try_clone(), remote.try_clone()) else {
            return;
        };
        drop(remote.set_nodelay(true));
        drop(client.set_nodelay(true));
        let upstream = thread::Builder::new()
            .name("git-relay".to_owned())
            .spawn(move || {
                let (mut from, mut to) = (client_in, remote_out);
                drop(io::copy(&mut from, &mut to));
                drop(to.shutdown(Shutdown::Write));
            });
        if upstream.is_ok() {
            self.copy_counted(remote, client);
        }
    }

    fn copy_counted(&self, mut remote: TcpStream, mut client: TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = match remote.read(&mut buffer) {
                Ok(n) if n > 0 => n,
                _ => break,
            };
            let received = {
                let mut state = self.lock();
                state.received += n as u64;
                state.received
            };
            if received > self.max_bytes {
                return self.close(Some(HangUp::TooLarge));
            }
            if client.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        drop(client.shutdown(Shutdown::Both));
        drop(remote.shutdown(Shutdown::Both));
    }

    /// Reads the head of the CONNECT request, which may ask for the one target only.
    fn read_connect(&self, client: &mut TcpStream) -> bool {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() > 8 * 1024 || client.read_exact(&mut byte).is_err() {
                return false;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let asked = head
            .strip_prefix("CONNECT ")
            .and_then(|rest| rest.split(' ').next())
            .unwrap_or_default();
        let wanted = [
            format!("{}:{}", self.host, self.port),
            format!("[{}]:{}", self.host, self.port),
        ];
        if !wanted.iter().any(|target| target.eq_ignore_ascii_case(asked)) {
            self.close(Some(HangUp::Elsewhere(crate::printable(asked, 100))));
            return false;
        }
        true
    }

    fn dial(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            let left = self
                .deadline
                .saturating_duration_since(Instant::now())
                .min(DIAL_LIMIT);
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match TcpStream::connect_timeout(&address, left) {
                Ok(stream) => {
                    self.keep(&stream)?;
                    return Ok(stream);
                }
                Err(e) => last = e,
            }
        }
        Err(last)
    }
}
