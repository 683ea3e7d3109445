//! The operator of Kiban: the shell around the planner and the step machine.
//!
//! ```text
//!              ┌────────── in the replica that holds the Lease kiban-planner ──────────┐
//!   Git ──▶ sync ──apply──▶ API server ──watch──▶ store ──▶ plan ──create──▶ Operation │
//!   Git ◀── ledger ◀──────── outcomes ◀─────────────────────────────────────────┐  │   │
//!              └────────────────────────────────────────────────────────────────│──│───┘
//!                               observe ── reads ──▶ BMC ◀── changes ── execute ┘◀─┘
//!                               └── in every replica, by shards held with Leases ─┘
//! ```
//!
//! A folder per activity, not per kind. What they share is the [`context::Context`]: the watched objects
//! ([`store::Stores`]), the one way to write ([`writer::Writer`], which counts), events, metrics and a clock.
//!
//! Invariants kept here: a replica acts on the fleet only while it holds a Lease that it renewed by its own clock
//! ([`lease`]); one undecodable object hurts only itself ([`store`]); every write has a deadline shorter than what is
//! left of the Lease; nothing in memory is needed after a restart.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod clock;
pub mod condition;
pub mod config;
pub mod context;
pub mod events;
pub mod execute;
pub mod gate;
pub mod health;
pub mod inventory;
pub mod lease;
pub mod ledger;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod repository;
pub mod run;
pub mod secrets;
pub mod store;
pub mod sync;
pub mod writer;

pub use config::Config;
pub use context::Context;
pub use run::{Running, run, start};
