//! Firmware images: fetched once, verified before anything else, kept by digest, and served to BMCs that fetch for themselves.
//!
//! ```text
//!   ImageSource {url, sha256} ──▶ ImageStore ──▶ <folder>/<sha256> ──▶ Image ──▶ pushed, or
//!                                   one download per digest             ImageEndpoint ──▶ https://operator/images/<token>/<name>
//! ```
//!
//! A URL may only name a host that is listed; an empty list lists none. A host listed by its whole name may be anywhere but
//! link-local; one that only fits a pattern must be at a public address. The address that was checked is the one that is
//! connected to.

mod endpoint;

pub use endpoint::{ImageEndpoint, Offer};

use crate::{port::Image, text::clean};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use reqwest::{Client, Response, StatusCode, Url, header::LOCATION};
use sha2::{Digest, Sha256};
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How often a download may be sent on; makers' sites do once or twice.
const MAX_REDIRECTS: usize = 3;

/// Which images may be fetched, from where, and how large they may be.
#[derive(Clone, Debug)]
pub struct ImageRules {
    /// Hosts, as `downloads.example` or `*.example` (names under it). Empty: none.
    pub hosts: Vec<String>,
    /// The largest image, in bytes. 2 GiB: bundles of GPU baseboards have a bit over one.
    pub max_bytes: u64,
    /// How long a download may take in all.
    pub timeout: Duration,
    /// Authorities (PEM) that images' hosts are trusted by, instead of the system's.
    pub ca_pem: Option<String>,
    /// Let `file://` through. For tests and demos only.
    pub allow_files: bool,
}

impl Default for ImageRules {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            max_bytes: 2 * 1024 * 1024 * 1024,
            timeout: Duration::from_secs(30 * 60),
            ca_pem: None,
            allow_files: false,
        }
    }
}

/// Where an image is, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSource {
    /// `https://…`.
    pub url: String,
    /// Its SHA-256, 64 hex digits.
    pub sha256: String,
    /// The name to present to a BMC. None: the URL's last part.
    pub file_name: Option<String>,
}

/// An image that could not be had. No text of it holds a URL's query, which may hold a token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ImageError {
    /// The digest is no SHA-256.
    #[error("the digest of {url} is no SHA-256 (64 hex digits)")]
    Digest {
        /// Without its query.
        url: String,
    },
    /// The URL may not be fetched.
    #[error("{url} may not be fetched: {why}")]
    Refused {
        /// Without its query.
        url: String,
        /// Which rule.
        why: String,
    },
    /// The host or network failed.
    #[error("failed to fetch {url}: {why}")]
    Fetch {
        /// Without its query.
        url: String,
        /// The cause.
        why: String,
    },
    /// Another file than the baseline means.
    #[error("{url} has SHA-256 {found}, expected {expected}")]
    Mismatch {
        /// Without its query.
        url: String,
        /// What was wanted.
        expected: String,
        /// What came.
        found: String,
    },
    /// Nothing or a web page came.
    #[error("{url} is no image: {why}")]
    NotAnImage {
        /// Without its query.
        url: String,
        /// What it is.
        why: String,
    },
    /// Larger than allowed.
    #[error("{url} is larger than {max} bytes")]
    TooLarge {
        /// Without its query.
        url: String,
        /// The limit.
        max: u64,
    },
    /// The local disk failed.
    #[error("failed to keep an image in {folder}: {why}")]
    Disk {
        /// The store's folder.
        folder: String,
        /// The cause.
        why: String,
    },
}

impl ImageError {
    /// A stable PascalCase word.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Digest { .. } => "ImageDigestInvalid",
            Self::Refused { .. } => "ImageRefused",
            Self::Fetch { .. } => "ImageUnreachable",
            Self::Mismatch { .. } => "ImageMismatch",
            Self::NotAnImage { .. } => "NotAnImage",
            Self::TooLarge { .. } => "ImageTooLarge",
            Self::Disk { .. } => "ImageStoreFailed",
        }
    }

    /// Whether trying again later can help without anyone changing anything.
    #[must_use]
    pub fn transient(&self) -> bool {
        matches!(self, Self::Fetch { .. } | Self::Disk { .. })
    }
}

type Kept = Result<(PathBuf, u64), ImageError>;
type Download = BoxFuture<'static, Kept>;

/// A folder of verified images, by digest. One process at a time uses a folder.
pub struct ImageStore {
    inner: Arc<Inner>,
    running: Mutex<HashMap<String, WeakShared<Download>>>,
}

struct Inner {
    folder: PathBuf,
    rules: ImageRules,
    /// Digests that this process has verified on disk; files from an earlier life are verified once again.
    verified: Mutex<HashSet<String>>,
}

impl ImageStore {
    /// Opens a store, makes its folder, and removes what an interrupted download left.
    pub fn open(folder: impl Into<PathBuf>, rules: ImageRules) -> Result<Self, ImageError> {
        let folder = folder.into();
        let disk = |error: std::io::Error| ImageError::Disk {
            folder: folder.display().to_string(),
            why: error.to_string(),
        };
        std::fs::create_dir_all(&folder).map_err(disk)?;
        for entry in std::fs::read_dir(&folder).map_err(disk)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(".part-") {
                std::fs::remove_file(entry.path()).map_err(disk)?;
            }
        }
        let inner = Inner {
            folder,
            rules,
            verified: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
            running: Mutex::default(),
        })
    }

    /// The image, fetched if it is not kept yet. Callers that want the same digest at the same time share one download.
    pub async fn get(&self, source: &ImageSource) -> Result<Image, ImageError> {
        let shown = shown(&source.url);
        let digest = source.sha256.trim().to_ascii_lowercase();
        if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ImageError::Digest { url: shown });
        }
        let file_name = file_name(source).ok_or_else(|| ImageError::Refused {
            url: shown,
            why: "its name is no plain file name; give one with fileName".into(),
        })?;
        let (path, size) = self.share(&digest, source).await?;
        Ok(Image {
            path,
            file_name,
            size,
            sha256: digest,
        })
    }

    fn share(&self, digest: &str, source: &ImageSource) -> Shared<Download> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, download| download.upgrade().is_some());
        if let Some(download) = running.get(digest).and_then(WeakShared::upgrade)
            && download.peek().is_none()
        {
            return download;
        }
        let (inner, digest_, url) = (self.inner.clone(), digest.to_owned(), source.url.clone());
        let download = async move { inner.keep(&digest_, &url).await }.boxed().shared();
        running.extend(download.downgrade().map(|weak| (digest.to_owned(), weak)));
        download
    }

    /// Removes every kept image whose digest is not in use. Says how many went.
    pub fn prune(&self, in_use: &HashSet<String>) -> Result<usize, ImageError> {
        let folder = &self.inner.folder;
        let disk = |error: std::io::Error| ImageError::Disk {
            folder: folder.display().to_string(),
            why: error.to_string(),
        };
        let mut gone = 0;
        for entry in std::fs::read_dir(folder).map_err(disk)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.len() == 64 && !in_use.contains(&name) {
                std::fs::remove_file(entry.path()).map_err(disk)?;
                self.inner
                    .verified
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&name);
                gone += 1;
            }
        }
        Ok(gone)
    }
}

impl Inner {
    async fn keep(&self, digest: &str, url: &str) -> Kept {
        let path = self.folder.join(digest);
        if let Some(size) = self.kept(&path, digest).await? {
            return Ok((path, size));
        }
        let part = self
            .folder
            .join(format!(".part-{digest}-{:016x}", rand::random::<u64>()));
        let fetched = tokio::time::timeout(self.rules.timeout, self.fetch(url, digest, &part)).await;
        let fetched = fetched.unwrap_or_else(|_| {
            Err(ImageError::Fetch {
                url: shown(url),
                why: "it takes too long".into(),
            })
        });
        match fetched {
            Ok(size) => {
                tokio::fs::rename(&part, &path)
                    .await
                    .map_err(|error| self.disk(&error))?;
                self.verified
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(digest.to_owned());
                Ok((path, size))
            }
            Err(error) => {
                // Not being able to remove it is not what went wrong; the next start does.
                tokio::fs::remove_file(&part).await.unwrap_or_default();
                Err(error)
            }
        }
    }

    /// The size of an image that is already there, verified once per process; a file that is not what its name says is
    /// removed and fetched anew.
    async fn kept(&self, path: &Path, digest: &str) -> Result<Option<u64>, ImageError> {
        let Ok(metadata) = tokio::fs::symlink_metadata(path).await else {
            return Ok(None);
        };
        let known = self
            .verified
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(digest);
        if metadata.is_file() && known {
            return Ok(Some(metadata.len()));
        }
        if metadata.is_file() {
            let mut file = tokio::fs::File::open(path)
                .await
                .map_err(|error| self.disk(&error))?;
            let mut hash = Sha256::new();
            let mut buffer = vec![0; 256 * 1024];
            loop {
                let n = file.read(&mut buffer).await.map_err(|error| self.disk(&error))?;
                if n == 0 {
                    break;
                }
                hash.update(&buffer[..n]);
            }
            if hex(&hash.finalize()) == digest {
                self.verified
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(digest.to_owned());
                return Ok(Some(metadata.len()));
            }
        }
        tokio::fs::remove_file(path)
            .await
            .map_err(|error| self.disk(&error))?;
        Ok(None)
    }

    async fn fetch(&self, url: &str, digest: &str, part: &Path) -> Result<u64, ImageError> {
        let mut sink = Sink::create(part, url, self).await?;
        let parsed = Url::parse(url).map_err(|_| self.refuse(url, "it is no URL"))?;
        if parsed.scheme() == "file" {
            self.copy_file(&parsed, &mut sink).await?;
        } else {
            let mut response = self.request(parsed).await?;
            if response
                .content_length()
                .is_some_and(|length| length > self.rules.max_bytes)
            {
                return Err(ImageError::TooLarge {
                    url: shown(url),
                    max: self.rules.max_bytes,
                });
            }
            let chunk = |error: reqwest::Error| ImageError::Fetch {
                url: shown(url),
                why: cause(&error),
            };
            while let Some(bytes) = response.chunk().await.map_err(chunk)? {
                sink.write(&bytes).await?;
            }
        }
        sink.finish(digest).await
    }

    async fn copy_file(&self, url: &Url, sink: &mut Sink<'_>) -> Result<(), ImageError> {
        if !self.rules.allow_files {
            return Err(self.refuse(url.as_str(), "only https:// is allowed"));
        }
        let path = url
            .to_file_path()
            .map_err(|()| self.refuse(url.as_str(), "it names no file"))?;
        let fail = |error: std::io::Error| ImageError::Fetch {
            url: shown(url.as_str()),
            why: error.to_string(),
        };
        // A device or pipe would be read for ever.
        if !tokio::fs::metadata(&path).await.map_err(fail)?.is_file() {
            return Err(self.refuse(url.as_str(), "it is no plain file"));
        }
        let mut file = tokio::fs::File::open(&path).await.map_err(fail)?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let n = file.read(&mut buffer).await.map_err(fail)?;
            if n == 0 {
                return Ok(());
            }
            sink.write(&buffer[..n]).await?;
        }
    }

    /// Asks, and follows redirects as far as each next host is allowed as well.
    async fn request(&self, mut url: Url) -> Result<Response, ImageError> {
        for _ in 0..=MAX_REDIRECTS {
            let (host, addresses) = self.allowed(&url).await?;
            let client = self.client(&host, &addresses)?;
            let fail = |why: String| ImageError::Fetch {
                url: shown(url.as_str()),
                why,
            };
            let response = client
                .get(url.clone())
                .send()
                .await
                .map_err(|error| fail(cause(&error)))?;
            if response.status().is_redirection() {
                let to = response
                    .headers()
                    .get(LOCATION)
                    .and_then(|value| value.to_str().ok());
                let next = to.and_then(|to| url.join(to).ok());
                url = next.ok_or_else(|| fail(format!("it answers {} to nowhere", response.status())))?;
                continue;
            }
            if response.status() != StatusCode::OK {
                return Err(fail(format!("it answers {}", response.status())));
            }
            return Ok(response);
        }
        Err(ImageError::Fetch {
            url: shown(url.as_str()),
            why: format!("more than {MAX_REDIRECTS} redirects"),
        })
    }

    /// The host's addresses, if the rules allow to go there.
    async fn allowed(&self, url: &Url) -> Result<(String, Vec<SocketAddr>), ImageError> {
        let refuse = |why: &str| Err(self.refuse(url.as_str(), why));
        if url.scheme() != "https" {
            return refuse("only https:// is allowed");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("it must not hold an account");
        }
        let Some(host) = url
            .host_str()
            .map(|host| host.trim_matches(['[', ']']).to_ascii_lowercase())
        else {
            return refuse("it names no host");
        };
        let exact = self
            .rules
            .hosts
            .iter()
            .any(|listed| listed.eq_ignore_ascii_case(&host));
        let pattern = self
            .rules
            .hosts
            .iter()
            .filter_map(|listed| listed.strip_prefix('*'))
            .any(|suffix| {
                suffix.starts_with('.')
                    && host.len() > suffix.len()
                    && host.ends_with(&suffix.to_ascii_lowercase())
            });
        if !exact && !pattern {
            return refuse("its host is not listed");
        }
        let port = url.port_or_known_default().unwrap_or(443);
        let found = tokio::net::lookup_host((host.as_str(), port)).await;
        let found: Vec<SocketAddr> = found
            .map_err(|error| ImageError::Fetch {
                url: shown(url.as_str()),
                why: error.to_string(),
            })?
            .filter(|address| permitted(address.ip(), exact))
            .collect();
        if found.is_empty() {
            return refuse(
                "its host has no address that may be connected to (private, loopback or link-local)",
            );
        }
        Ok((host, found))
    }

    fn client(&self, host: &str, addresses: &[SocketAddr]) -> Result<Client, ImageError> {
        let unusable = |why: String| ImageError::Fetch {
            url: String::from(host),
            why,
        };
        let mut builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(60))
            .resolve_to_addrs(host, addresses);
        if let Some(pem) = &self.rules.ca_pem {
            let authorities = reqwest::Certificate::from_pem_bundle(pem.as_bytes())
                .map_err(|error| unusable(cause(&error)))?;
            builder = builder.tls_certs_only(authorities);
        }
        builder.build().map_err(|error| unusable(cause(&error)))
    }

    fn refuse(&self, url: &str, why: &str) -> ImageError {
        ImageError::Refused {
            url: shown(url),
            why: why.to_owned(),
        }
    }

    fn disk(&self, error: &std::io::Error) -> ImageError {
        ImageError::Disk {
            folder: self.folder.display().to_string(),
            why: error.to_string(),
        }
    }
}

/// A file being written, hashed and judged as it comes.
struct Sink<'a> {
    file: tokio::fs::File,
    hash: Sha256,
    size: u64,
    start: Vec<u8>,
    url: &'a str,
    store: &'a Inner,
}

impl<'a> Sink<'a> {
    async fn create(path: &Path, url: &'a str, store: &'a Inner) -> Result<Self, ImageError> {
        let file = tokio::fs::File::create_new(path)
            .await
            .map_err(|error| store.disk(&error))?;
        Ok(Self {
            file,
            hash: Sha256::new(),
            size: 0,
            start: Vec::new(),
            url,
            store,
        })
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.size += bytes.len() as u64;
        let max = self.store.rules.max_bytes;
        if self.size > max {
            return Err(ImageError::TooLarge {
                url: shown(self.url),
                max,
            });
        }
        let missing = 64_usize.saturating_sub(self.start.len()).min(bytes.len());
        self.start.extend_from_slice(&bytes[..missing]);
        self.hash.update(bytes);
        self.file
            .write_all(bytes)
            .await
            .map_err(|error| self.store.disk(&error))
    }

    async fn finish(mut self, expected: &str) -> Result<u64, ImageError> {
        let url = shown(self.url);
        if self.size == 0 {
            return Err(ImageError::NotAnImage {
                url,
                why: "it is empty".into(),
            });
        }
        let start = String::from_utf8_lossy(&self.start)
            .trim_start()
            .to_ascii_lowercase();
        if start.starts_with("<!doctype html") || start.starts_with("<html") {
            // A log-in or licence page. Said before the digest is, because it says what to do.
            return Err(ImageError::NotAnImage {
                url,
                why: "it is a web page".into(),
            });
        }
        let found = hex(&self.hash.finalize());
        if found != expected {
            return Err(ImageError::Mismatch {
                url,
                expected: expected.to_owned(),
                found,
            });
        }
        self.file.flush().await.map_err(|error| self.store.disk(&error))?;
        self.file
            .sync_all()
            .await
            .map_err(|error| self.store.disk(&error))?;
        Ok(self.size)
    }
}

/// Whether an address may be connected to for a host that is listed by name, or only fits a pattern.
fn permitted(ip: IpAddr, by_name: bool) -> bool {
    let ip = match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 => v4,
    };
    let (never, private) = match ip {
        IpAddr::V4(v4) => (
            // Link-local holds clouds' metadata services.
            v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast() || v4.is_multicast(),
            v4.is_private()
                || v4.is_loopback()
                || (v4.octets()[0] == 100 && (64..128).contains(&v4.octets()[1])),
        ),
        IpAddr::V6(v6) => (
            v6.is_unicast_link_local() || v6.is_unspecified() || v6.is_multicast(),
            v6.is_loopback() || v6.is_unique_local(),
        ),
    };
    !never && (by_name || !private)
}

/// A URL for people: without account, query and fragment.
fn shown(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut url) => {
            url.set_query(None);
            url.set_fragment(None);
            url.set_username("").unwrap_or_default();
            url.set_password(None).unwrap_or_default();
            clean(url.as_str(), 256)
        }
        Err(_) => clean(url.split(['?', '#']).next().unwrap_or_default(), 256),
    }
}

fn file_name(source: &ImageSource) -> Option<String> {
    let from_url = || {
        let url = Url::parse(&source.url).ok()?;
        url.path_segments()?.next_back().map(str::to_owned)
    };
    let name = source.file_name.clone().or_else(from_url)?;
    let plain = !name.is_empty()
        && name.len() <= 128
        && name != "."
        && name != ".."
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+' | '~' | ' ' | '(' | ')'));
    plain.then_some(name)
}

fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    clean(&cause.to_string(), 256)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(folder: &Path, rules: ImageRules) -> ImageStore {
        ImageStore::open(folder, rules).unwrap()
    }

    fn files() -> ImageRules {
        ImageRules {
            allow_files: true,
            max_bytes: 1000,
            ..ImageRules::default()
        }
    }

    fn source(path: &Path, content: &[u8]) -> ImageSource {
        std::fs::write(path, content).unwrap();
        let url = Url::from_file_path(path).unwrap().to_string();
        ImageSource {
            url,
            sha256: hex(&Sha256::digest(content)),
            file_name: None,
        }
    }

    #[tokio::test]
    async fn an_image_is_verified_and_kept_by_digest() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = from.path().join("bios.exe");
        let source = source(&path, b"firmware");
        let store = store(to.path(), files());
        let image = store.get(&source).await.unwrap();
        assert_eq!((image.file_name.as_str(), image.size), ("bios.exe", 8));
        assert_eq!(image.path, to.path().join(&source.sha256));
        // Its source may go: it is kept.
        std::fs::remove_file(&path).unwrap();
        assert_eq!(store.get(&source).await.unwrap(), image);
        // A later process does not believe the disk.
        let later = ImageStore::open(to.path(), files()).unwrap();
        std::fs::write(&image.path, b"tampered").unwrap();
        assert_eq!(
            later.get(&source).await.unwrap_err().category(),
            "ImageUnreachable",
            "fetched anew"
        );
        assert!(!image.path.exists());
        assert_eq!(store.prune(&HashSet::new()).unwrap(), 0);
    }

    #[tokio::test]
    async fn what_is_not_the_image_is_refused_and_leaves_nothing() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = store(to.path(), files());
        let path = from.path().join("x.bin");
        let mut cases = vec![(source(&path, b""), "NotAnImage")];
        let page = source(
            &from.path().join("page.bin"),
            b" <!DOCTYPE HTML><html>licence</html>",
        );
        cases.push((page, "NotAnImage"));
        cases.push((
            source(&from.path().join("large.bin"), &[1; 1001]),
            "ImageTooLarge",
        ));
        let wrong = source(&from.path().join("wrong.bin"), b"right");
        cases.push((
            ImageSource {
                sha256: "0".repeat(64),
                ..wrong.clone()
            },
            "ImageMismatch",
        ));
        for digest in ["", "abc", &"g".repeat(64), &"0".repeat(32), &"0".repeat(128)] {
            cases.push((
                ImageSource {
                    sha256: digest.to_owned(),
                    ..wrong.clone()
                },
                "ImageDigestInvalid",
            ));
        }
        for name in ["", "..", "../x", "a/b", "a\"b", "a\r\nb"] {
            cases.push((
                ImageSource {
                    file_name: Some(name.into()),
                    ..wrong.clone()
                },
                "ImageRefused",
            ));
        }
        cases.push((
            ImageSource {
                url: "file:///dev/zero".into(),
                ..wrong.clone()
            },
            "ImageRefused",
        ));
        for (source, category) in cases {
            assert_eq!(
                store.get(&source).await.unwrap_err().category(),
                category,
                "{source:?}"
            );
        }
        assert_eq!(
            std::fs::read_dir(to.path()).unwrap().count(),
            0,
            "nothing is left"
        );
    }

    #[tokio::test]
    async fn hosts_that_are_not_listed_are_not_asked() {
        let to = tempfile::tempdir().unwrap();
        let rules = ImageRules {
            hosts: vec![
                "*.example.invalid".into(),
                "169.254.169.254".into(),
                "[::ffff:169.254.169.254]".into(),
            ],
            ..ImageRules::default()
        };
        let store = store(to.path(), rules);
        for url in [
            "http://a.example.invalid/x.bin",
            "ftp://a.example.invalid/x.bin",
            "file:///etc/passwd",
            "https://example.invalid/x.bin",
            "https://evilexample.invalid/x.bin",
            "https://169.254.169.254/x.bin",
            "https://127.0.0.1/x.bin",
            "https://[::1]/x.bin",
            "https://[::ffff:169.254.169.254]/x.bin",
            "https://user:secret@a.example.invalid/x.bin",
        ] {
            let source = ImageSource {
                url: url.into(),
                sha256: "0".repeat(64),
                file_name: None,
            };
            let error = store.get(&source).await.unwrap_err();
            assert_eq!(error.category(), "ImageRefused", "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_query_is_never_shown() {
        assert_eq!(shown("https://u:p@h/x.bin?token=canary#f"), "https://h/x.bin");
        assert_eq!(shown("not a url?token=canary"), "not a url");
    }

    #[test]
    fn private_addresses_need_their_name_listed() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for private in [
            "10.0.0.1",
            "127.0.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(!permitted(ip(private), false), "{private}");
            assert!(permitted(ip(private), true), "{private}");
        }
        for never in ["169.254.169.254", "0.0.0.0", "fe80::1", "::ffff:169.254.169.254"] {
            assert!(!permitted(ip(never), true), "{never}");
        }
        assert!(permitted(ip("192.0.2.1"), false));
    }

    #[tokio::test]
    async fn an_interrupted_download_is_cleared_away() {
        let to = tempfile::tempdir().unwrap();
        std::fs::write(to.path().join(".part-x"), b"half").unwrap();
        store(to.path(), files());
        assert_eq!(std::fs::read_dir(to.path()).unwrap().count(), 0);
    }
}
