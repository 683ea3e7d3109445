//! A real Kubernetes control plane on loopback, for tests, the demo and benches.
//!
//! ```text
//!   Tools ──find or build──▶ etcd, kube-apiserver, kubectl, helm
//!                                  │
//!   DevCluster ──spawn──▶ etcd ◀──TLS── kube-apiserver ◀──TLS── Cluster (kubectl, namespaces, tokens)
//!       │                    ▲               ▲
//!       └──pipe──▶ watchdog ─┴──────stops────┘   when the pipe closes, however that came about
//! ```
//!
//! What it keeps:
//! - It is the real thing: TLS, RBAC, admission, service account tokens. Nothing is mocked, so what passes here is
//!   not refused elsewhere. There is no kube-controller-manager, scheduler or kubelet: deleted namespaces stay
//!   `Terminating`, owner references collect no garbage, and no Pod runs.
//! - It listens on 127.0.0.1 only.
//! - Nothing stays behind. A normal end, a panic, Ctrl-C and even SIGKILL of the owner all close the pipe to a small
//!   watchdog, which stops the API server, then etcd, and removes their directory.

mod audit;
mod certificates;
mod client;
mod cluster;
mod error;
mod process;
mod shared;
mod tools;

pub use audit::Request;
pub use client::{Cluster, Namespace};
pub use cluster::{DevCluster, Options};
pub use error::Error;
pub use shared::shared;
pub use tools::{Tool, Tools};

/// What every function here returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;
