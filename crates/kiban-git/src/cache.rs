//! A bare repository of ours in the cache directory: one process at a time, remade when it is broken.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use git2::{Repository, RepositoryInitOptions};

/// Why the local cache could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// A file operation failed: disk full, read-only, no permission.
    #[error("{action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process works in it.
    #[error("lock {}: another process holds it", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
    },
    /// libgit2 could not use it even after it was made anew.
    #[error("open the repository {}", path.display())]
    Repository {
        /// Where.
        path: PathBuf,
        /// What libgit2 said.
        source: git2::Error,
    },
}

/// Tries for the lock, and the pause between them: two seconds in all, and a pod that replaces another waits for it.
const LOCK_ATTEMPTS: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A locked bare repository. The lock is the operating system's and ends with the process.
pub(crate) struct Cache {
    path: PathBuf,
    _lock: File,
    repo: Repository,
}

impl Cache {
    /// Takes the lock and opens the repository, or makes it. `identity` is whose cache it is: another URL, another
    /// repository.
    pub(crate) fn open(dir: &Path, name: &str, identity: &str) -> Result<Cache, CacheError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| CacheError::Io { action, path, source }
        };
        fs::create_dir_all(dir).map_err(io("create", dir))?;
        let lock_path = dir.join(format!("{name}.lock"));
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(io("open", &lock_path))?;
        // A program that some other thread starts holds a copy of every open file for the moment until it runs.
        let mut attempts = LOCK_ATTEMPTS;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if attempts > 0 => {
                    attempts -= 1;
                    thread::sleep(LOCK_PAUSE);
                }
                Err(TryLockError::WouldBlock) => return Err(CacheError::Held { path: lock_path }),
                Err(TryLockError::Error(source)) => {
                    return Err(CacheError::Io {
                        action: "lock",
                        path: lock_path,
                        source,
                    });
                }
            }
        }
        let path = dir.join(format!("{name}.git"));
        let identity_path = path.join("kiban-identity");
        if path.exists() && fs::read_to_string(&identity_path).ok().as_deref() != Some(identity) {
            fs::remove_dir_all(&path).map_err(io("remove", &path))?;
        }
        // We hold the lock, so whoever wrote these is dead (F67).
        remove_stale_locks(&path).map_err(io("remove stale locks in", &path))?;
        let repo = match Repository::open_bare(&path) {
            Ok(repo) => repo,
            Err(e) => {
                if path.exists() {
                    tracing::warn!(path = %path.display(), error = %e.message(), "the cache is broken, making it anew");
                    fs::remove_dir_all(&path).map_err(io("remove", &path))?;
                }
                init(&path, identity)?
            }
        };
        Ok(Cache {
            path,
            _lock: lock,
            repo,
        })
    }

    pub(crate) fn repo(&self) -> &Repository {
        &self.repo
    }

    /// Opens the repository again, after files of it were replaced under libgit2.
    pub(crate) fn reopen(&mut self) -> Result<(), CacheError> {
        self.repo = Repository::open_bare(&self.path).map_err(|source| CacheError::Repository {
            path: self.path.clone(),
            source,
        })?;
        Ok(())
    }

    /// Throws everything away and begins again with an empty repository.
    pub(crate) fn reset(&mut self, identity: &str) -> Result<(), CacheError> {
        fs::remove_dir_all(&self.path).map_err(|source| CacheError::Io {
            action: "remove",
            path: self.path.clone(),
            source,
        })?;
        self.repo = init(&self.path, identity)?;
        Ok(())
    }
}

fn init(path: &Path, identity: &str) -> Result<Repository, CacheError> {
    let mut options = RepositoryInitOptions::new();
    // No template: one on this machine could bring hooks or settings.
    options
        .bare(true)
        .no_reinit(true)
        .mkpath(true)
        .external_template(false);
    let repo = Repository::init_opts(path, &options).map_err(|source| CacheError::Repository {
        path: path.to_owned(),
        source,
    })?;
    let identity_path = path.join("kiban-identity");
    fs::write(&identity_path, identity).map_err(|source| CacheError::Io {
        action: "write",
        path: identity_path,
        source,
    })?;
    Ok(repo)
}

fn remove_stale_locks(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            // Loose objects are in 256 folders of two digits; no lock is ever there.
            if name.len() > 2 {
                remove_stale_locks(&entry.path())?;
            }
        } else if name.ends_with(".lock") || name.starts_with("pack_") || name.starts_with("tmp_") {
            // Half-written packs of a killed fetch fill the disk one restart at a time.
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
