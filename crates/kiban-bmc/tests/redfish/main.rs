//! The Redfish client against captured machines, against scripted misbehaviour, and against the emulated fleet.

#![allow(missing_docs)]

mod captures;
mod faults;
mod personas;
mod server;
