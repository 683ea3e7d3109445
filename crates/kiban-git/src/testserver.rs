//! Real Git servers on loopback, for the tests of this crate and the end-to-end tests: OpenSSH's sshd, and nginx with
//! git-http-backend behind fcgiwrap (Debian packages `openssh-server`, `nginx`, `fcgiwrap`, `git`).
//!
//! Each server has its own directory, port, host key or certificate authority, works as root or not, and is stopped,
//! by its process id, when it is dropped. Where a program is absent, `start` says which one; a test prints
//! `skipped: …` with it and returns.

// Test code: a failed expectation is the test's failure.
#![allow(clippy::expect_used)]

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;

use crate::{BranchName, Credentials, Remote, RemoteUrl, remote::DEFAULT_MAX_BYTES};

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A program that it needs is not installed.
    #[error("{program} is not installed")]
    Absent {
        /// The program.
        program: &'static str,
    },
    /// It did not come up.
    #[error("start {program}: {detail}")]
    Failed {
        /// The program.
        program: &'static str,
        /// What it wrote, or what went wrong.
        detail: String,
    },
    /// A file could not be written or read.
    #[error("prepare the server's files")]
    Io(#[from] io::Error),
}

/// A process that ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is to be reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// sshd, serving every repository that the current user can read by its absolute path.
pub struct SshServer {
    dir: TempDir,
    port: u16,
    user: String,
    process: Option<Process>,
}

impl SshServer {
    /// Starts sshd on a free loopback port.
    pub fn start() -> Result<SshServer, StartError> {
        let sshd = find("sshd")?;
        let keygen = find("ssh-keygen")?;
        find("git-upload-pack")?;
        let dir = tempfile::Builder::new().prefix("kiban-sshd-").tempdir()?;
        for key in ["host", "client", "stranger"] {
            run(
                &keygen,
                ["-q", "-t", "ed25519", "-N", "", "-C", key, "-f"],
                &dir.path().join(key),
            )?;
        }
        fs::copy(dir.path().join("client.pub"), dir.path().join("authorized_keys"))?;
        let user = output(Command::new("id").arg("-un"))?;
        if user == "root" {
            // sshd as root insists on its empty directory; packages leave it to the service manager.
            fs::create_dir_all("/run/sshd")?;
        }
        let mut server = SshServer {
            dir,
            port: 0,
            user,
            process: None,
        };
        server.restart_with(&sshd)?;
        Ok(server)
    }

    /// Ends the server: connections are refused from now on.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it again, on the same port.
    pub fn restart(&mut self) -> Result<(), StartError> {
        let sshd = find("sshd")?;
        self.restart_with(&sshd)
    }

    fn restart_with(&mut self, sshd: &Path) -> Result<(), StartError> {
        let dir = self.dir.path().display().to_string();
        self.process = None;
        for _ in 0..5 {
            let port = if self.port == 0 { free_port()? } else { self.port };
            let config = format!(
                "ListenAddress 127.0.0.1\nPort {port}\nHostKey {dir}/host\nPidFile {dir}/pid\n\
                 AuthorizedKeysFile {dir}/authorized_keys\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n\
                 PasswordAuthentication no\nKbdInteractiveAuthentication no\nPubkeyAuthentication yes\n\
                 MaxStartups 100\nPrintMotd no\n"
            );
            fs::write(self.dir.path().join("config"), config)?;
            let log = self.dir.path().join("log");
            let child = Command::new(sshd)
                .args(["-D", "-e", "-f"])
                .arg(self.dir.path().join("config"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create(&log)?)
                .spawn()?;
            let mut process = Process(child);
            if is_up(&mut process, port) {
                self.port = port;
                self.process = Some(process);
                return Ok(());
            }
        }
        let detail = fs::read_to_string(self.dir.path().join("log"))?;
        Err(StartError::Failed {
            program: "sshd",
            detail,
        })
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a repository.
    pub fn url(&self, repository: &Path) -> String {
        format!(
            "ssh://{}@127.0.0.1:{}{}",
            self.user,
            self.port,
            repository.display()
        )
    }

    /// The `known_hosts` line of the server.
    pub fn known_hosts(&self) -> String {
        format!("[127.0.0.1]:{} {}", self.port, self.file("host.pub"))
    }

    /// The private key of a client that may log in.
    pub fn client_key(&self) -> String {
        self.file("client")
    }

    /// The private key of a client that may not.
    pub fn stranger_key(&self) -> String {
        self.file("stranger")
    }

    /// A remote that reaches the repository, with all that it takes.
    pub fn remote(&self, repository: &Path, branch: &str) -> Remote {
        Remote {
            url: RemoteUrl::parse(&self.url(repository), false).expect("our own URL"),
            branch: BranchName::parse(branch).expect("a branch name"),
            credentials: Credentials::SshKey {
                username: self.user.clone(),
                private_key: self.client_key().into(),
                passphrase: None,
            },
            known_hosts: Some(self.known_hosts()),
            ca: None,
            max_bytes: DEFAULT_MAX_BYTES,
        }
    }

    /// From now on every login of the client runs this command of the shell instead of Git's: a server that says what no
    /// Git server would.
    pub fn answer_with(&self, command: &str) -> Result<(), StartError> {
        let key = self.file("client.pub");
        let quoted = command.replace('"', "\\\"");
        let line = format!("command=\"{quoted}\" {key}");
        Ok(fs::write(self.dir.path().join("authorized_keys"), line)?)
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).expect("a file of our own")
    }
}

/// nginx with git-http-backend, serving the repositories of one directory over https with a password.
pub struct HttpsServer {
    dir: TempDir,
    port: u16,
    ca: String,
    processes: Vec<Process>,
}

impl HttpsServer {
    /// The user that may read and write.
    pub const USER: &'static str = "kiban";
    /// Its password.
    pub const PASSWORD: &'static str = "correct-horse-battery";

    /// Starts nginx on a free loopback port for the bare repositories in `root`. Under `/elsewhere/` it redirects to
    /// another host.
    pub fn start(root: &Path) -> Result<HttpsServer, StartError> {
        let nginx = find("nginx")?;
        let fcgiwrap = find("fcgiwrap")?;
        let backend = [
            "/usr/lib/git-core/git-http-backend",
            "/usr/libexec/git-core/git-http-backend",
        ]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .ok_or(StartError::Absent {
            program: "git-http-backend",
        })?;
        let dir = tempfile::Builder::new().prefix("kiban-nginx-").tempdir()?;
        let ca = write_certificates(dir.path())?;
        fs::write(
            dir.path().join("htpasswd"),
            format!("{}:{{PLAIN}}{}\n", Self::USER, Self::PASSWORD),
        )?;
        let socket = dir.path().join("fcgi");
        // One process, so that stopping it stops all of it.
        let child = Command::new(fcgiwrap)
            .args(["-c", "1", "-s"])
            .arg(format!("unix:{}", socket.display()))
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("fcgi.log"))?)
            .spawn()?;
        let mut server = HttpsServer {
            dir,
            port: 0,
            ca,
            processes: vec![Process(child)],
        };
        for _ in 0..5 {
            let port = free_port()?;
            fs::write(
                server.dir.path().join("nginx.conf"),
                server.config(root, &socket, backend, port),
            )?;
            let child = Command::new(&nginx)
                .arg("-c")
                .arg(server.dir.path().join("nginx.conf"))
                .arg("-p")
                .arg(server.dir.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create(server.dir.path().join("nginx.err"))?)
                .spawn()?;
            let mut process = Process(child);
            if is_up(&mut process, port) {
                server.port = port;
                server.processes.push(process);
                return Ok(server);
            }
        }
        let detail = fs::read_to_string(server.dir.path().join("nginx.err"))?;
        Err(StartError::Failed {
            program: "nginx",
            detail,
        })
    }

    fn config(&self, root: &Path, socket: &Path, backend: &str, port: u16) -> String {
        let (dir, root, socket) = (self.dir.path().display(), root.display(), socket.display());
        let user = match output(Command::new("id").arg("-un")).as_deref() {
            Ok("root") => "user root;",
            _ => "",
        };
        format!(
            "{user} daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/error.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{\n\
               access_log {dir}/access.log; client_max_body_size 0;\n\
               client_body_temp_path {dir}/b; fastcgi_temp_path {dir}/f; proxy_temp_path {dir}/p;\n\
               uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
               server {{\n\
                 listen 127.0.0.1:{port} ssl;\n\
                 ssl_certificate {dir}/leaf.pem; ssl_certificate_key {dir}/leaf.key;\n\
                 location /elsewhere/ {{ return 301 https://localhost:{port}/$is_args$args; }}\n\
                 location / {{\n\
                   auth_basic git; auth_basic_user_file {dir}/htpasswd;\n\
                   fastcgi_pass unix:{socket};\n\
                   fastcgi_param SCRIPT_FILENAME {backend}; fastcgi_param PATH_INFO $uri;\n\
                   fastcgi_param GIT_PROJECT_ROOT {root}; fastcgi_param GIT_HTTP_EXPORT_ALL 1;\n\
                   fastcgi_param REMOTE_USER $remote_user; fastcgi_param QUERY_STRING $query_string;\n\
                   fastcgi_param REQUEST_METHOD $request_method; fastcgi_param CONTENT_TYPE $content_type;\n\
                   fastcgi_param CONTENT_LENGTH $content_length; fastcgi_param REMOTE_ADDR $remote_addr;\n\
                   fastcgi_param HTTP_CONTENT_ENCODING $http_content_encoding;\n\
                 }}\n\
               }}\n\
             }}\n"
        )
    }

    /// Ends the server: connections are refused from now on.
    pub fn stop(&mut self) {
        self.processes.clear();
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The certificate authority that signed the server's certificate, in PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// The URL of a repository, by its name in the root.
    pub fn url(&self, repository: &str) -> String {
        format!("https://127.0.0.1:{}/{repository}", self.port)
    }

    /// A remote that reaches the repository, with all that it takes.
    pub fn remote(&self, repository: &str, branch: &str) -> Remote {
        Remote {
            url: RemoteUrl::parse(&self.url(repository), false).expect("our own URL"),
            branch: BranchName::parse(branch).expect("a branch name"),
            credentials: Credentials::UserPassword {
                username: Self::USER.to_owned(),
                password: Self::PASSWORD.into(),
            },
            known_hosts: None,
            ca: Some(self.ca.clone()),
            max_bytes: DEFAULT_MAX_BYTES,
        }
    }
}

fn write_certificates(dir: &Path) -> Result<String, StartError> {
    let failed = |e: rcgen::Error| StartError::Failed {
        program: "nginx",
        detail: e.to_string(),
    };
    let mut authority = CertificateParams::new(Vec::new()).map_err(failed)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority_key = KeyPair::generate().map_err(failed)?;
    let ca = authority.self_signed(&authority_key).map_err(failed)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let leaf_key = KeyPair::generate().map_err(failed)?;
    let leaf = CertificateParams::new(names).and_then(|params| params.signed_by(&leaf_key, &issuer));
    fs::write(dir.join("leaf.pem"), leaf.map_err(failed)?.pem())?;
    fs::write(dir.join("leaf.key"), leaf_key.serialize_pem())?;
    Ok(ca)
}

/// Makes an empty bare repository that may be pushed to over https too.
pub fn init_bare(path: &Path) -> Result<(), StartError> {
    git(
        Path::new("/"),
        ["init", "-q", "--bare", "-b", "main", &path.display().to_string()],
    )?;
    git(path, ["config", "http.receivepack", "true"])?;
    // Its objects are counted and compared by tests; nothing may repack them meanwhile.
    git(path, ["config", "gc.auto", "0"])?;
    git(path, ["config", "receive.autogc", "false"])?;
    Ok(())
}

/// Runs the `git` program in a directory, with no configuration but the repository's, and returns what it wrote.
pub fn git<I, S>(dir: &Path, arguments: I) -> Result<String, StartError>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = git_command(dir);
    command.args(arguments);
    output(&mut command)
}

/// The `git` program in a directory, with no configuration but the repository's.
pub fn git_command(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_AUTHOR_NAME", "Aoi")
        .env("GIT_AUTHOR_EMAIL", "aoi@example.org")
        .env("GIT_COMMITTER_NAME", "Aoi")
        .env("GIT_COMMITTER_EMAIL", "aoi@example.org");
    command
}

fn output(command: &mut Command) -> Result<String, StartError> {
    let done = command.stdin(Stdio::null()).output()?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_owned());
    }
    let detail = format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    Err(StartError::Failed {
        program: "git",
        detail,
    })
}

fn run<const N: usize>(program: &Path, arguments: [&str; N], last: &Path) -> Result<(), StartError> {
    output(Command::new(program).args(arguments).arg(last)).map(|_| ())
}

/// Programs for administrators are outside of most users' PATH.
fn find(program: &'static str) -> Result<PathBuf, StartError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .ok_or(StartError::Absent { program })
}

/// A port that was free a moment ago; whoever starts a server on it tries another when it is not any more.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn is_up(process: &mut Process, port: u16) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if matches!(process.0.try_wait(), Ok(Some(_))) {
            return false;
        }
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}

/// A server that takes connections and then says nothing, or drips, for as long as it lives.
pub struct SilentServer {
    port: u16,
}

impl SilentServer {
    /// Listens on a free loopback port. It lives as long as the process does: a thread that waits is all it is.
    pub fn start() -> io::Result<SilentServer> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            let mut held = Vec::new();
            for mut stream in listener.incoming().flatten() {
                let kept = stream.try_clone();
                thread::spawn(move || {
                    let mut sink = [0; 1024];
                    while stream.read(&mut sink).is_ok_and(|n| n > 0) {}
                });
                held.push(kept);
            }
        });
        Ok(SilentServer { port })
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}
