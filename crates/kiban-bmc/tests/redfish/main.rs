//! The Redfish client against captured machines, against scripted misbehaviour, and against the emulated fleet.

#![allow(missing_docs)]
// Helpers of tests are tests to us, but not to clippy.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::type_complexity
)]

mod captures;
mod faults;
mod personas;
mod server;
mod updates;
