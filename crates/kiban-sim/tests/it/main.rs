//! The emulated fleet over real HTTPS.

mod bmc;
mod captures;
mod faults;
mod outside;
mod power;
mod service;
mod updates;
