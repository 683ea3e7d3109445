//! What can go wrong between "no binaries" and "a cluster answers".

use std::{io, path::PathBuf};

/// A failure of the development control plane. Each says what was tried; the source says what the system answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory of the cluster could not be handled.
    #[error("failed to {action} {}", path.display())]
    File {
        /// The verb: read, write, create, lock.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be run at all.
    #[error("failed to run {program}")]
    Spawn {
        /// The program's name or path.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A control plane program has to be built and there is no Go to build it with.
    #[error(
        "{tool} {version} is neither in KUBEBUILDER_ASSETS nor on PATH, and building it needs Go {go} or newer, \
         which is not on PATH: get it from https://go.dev/dl, or set KUBEBUILDER_ASSETS to a directory that holds {tool}"
    )]
    NoGo {
        /// The missing program.
        tool: &'static str,
        /// Its pinned version.
        version: String,
        /// The Go version that its module asks for.
        go: String,
    },
    /// Go could not build a control plane program.
    #[error("failed to build {tool}: go said\n{output}")]
    Build {
        /// The program.
        tool: &'static str,
        /// The end of what Go printed.
        output: String,
    },
    /// A server ended or stayed silent while it should have become ready.
    #[error("failed to start {program}: {reason}; its log ends with\n{log}")]
    Start {
        /// Which of the servers.
        program: &'static str,
        /// What was seen.
        reason: String,
        /// The last lines of its log.
        log: String,
    },
    /// kubectl or helm ran and refused.
    #[error("failed to run `{command}` ({status}): {stderr}")]
    Command {
        /// The command line, without the kubeconfig.
        command: String,
        /// How it ended.
        status: String,
        /// What it printed on stderr.
        stderr: String,
    },
    /// A key or certificate could not be made.
    #[error("failed to make the certificate of {name}")]
    Certificate {
        /// Whose certificate.
        name: &'static str,
        /// What rcgen said.
        source: rcgen::Error,
    },
    /// No free port was found on loopback.
    #[error("failed to find a free port on 127.0.0.1 between {from} and {to}")]
    NoPort {
        /// First port tried.
        from: u16,
        /// Last port tried.
        to: u16,
    },
}

impl Error {
    /// True where trying again with other ports can help.
    pub(crate) fn is_port_taken(&self) -> bool {
        matches!(self, Error::Start { log, .. } if log.contains("address already in use"))
    }

    /// What kubectl or helm printed on stderr, where that is what failed: tests look for `forbidden` in it.
    pub fn stderr(&self) -> Option<&str> {
        match self {
            Error::Command { stderr, .. } => Some(stderr),
            _ => None,
        }
    }
}
