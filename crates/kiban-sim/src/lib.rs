//! An emulated fleet: BMCs that speak Redfish over HTTPS, with state, tasks, reboots and faults.
//!
//! ```text
//!   FleetSpec ──▶ Fleet::start ──▶ a listener per machine ──▶ TLS ──▶ HTTP ──▶ fault? ──▶ Machine (state, timers)
//!                    │                                                                        │
//!                    ├── machines(): look, and change beside the network                      ▼
//!                    ├── faults():   rules by machine, path, method, count                 Record
//!                    └── record():   every mutating request and every effect, in order  ◀─────┘
//! ```
//!
//! - Machines of one model share it; a machine at rest has no timers and no buffers.
//! - Time is virtual: everything takes as long as on real machines, divided by [`Options::speed`].
//! - What a machine does is decided under its lock, at one instant, after all earlier timers happened in order.

mod admin;
mod bios;
mod certificate;
mod clock;
mod fault;
mod fleet;
pub mod image;
mod mockup;
mod model;
mod persona;
mod record;
mod request;
mod resource;
mod server;
mod session;
mod spec;
mod state;
mod task;
mod update;
pub mod world;

pub use certificate::CertificateError;
pub use clock::Clock;
pub use fault::{Fault, FaultFile, Rule};
pub use fleet::{
    Certificates, DeviceInfo, FaultHandle, Firmware, Fleet, FleetError, Listen, MachineHandle, MachineState,
    Options, Stats, devices,
};
pub use mockup::{Mockup, MockupError};
pub use model::{Activation, Class, Component, Model, Persona, built_in};
pub use record::{Entry, Flash, FlashOutcome, Record, Summary, What};
pub use spec::{ComponentSpec, FleetSpec, MachineSpec, ModelSpec, SpecError, Timing};
