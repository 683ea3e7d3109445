//! The emulated fleet over real HTTPS.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends where something is not as it should be, and says what it skips"
)]

mod bmc;
mod captures;
mod faults;
mod outside;
mod power;
mod service;
mod updates;
