//! A whole Kiban on one machine: a real control plane, an emulated fleet, a Git repository and the operator's binary.
//!
//! ```text
//!   Repository ──file://──▶ Operator (process) ──TLS──▶ kube-apiserver ──▶ etcd
//!       ▲                      │
//!       └─────── ledger ───────┤ Redfish over HTTPS
//!                              ▼
//!                           Fleet (kiban-sim), with a record of every request that changed something
//! ```
//!
//! The demo, the end-to-end tests and the benches stand on it, so that what is shown, what is tested and what is measured are the same
//! thing. Nothing here is mocked but the machines.

pub mod estate;
pub mod lab;
pub mod operator;
pub mod repository;
