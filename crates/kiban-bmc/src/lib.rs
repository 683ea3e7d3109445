//! What a BMC can be asked to do, and Redfish with its vendors' quirks.
//!
//! ```text
//!   port      the trait and its words; no HTTP
//!   redfish   the port for real machines: session, lenient reading, updates, tasks, resets
//!   image     images fetched once, verified, kept by digest, and served to BMCs that fetch
//! ```

pub mod image;
pub mod port;
pub mod redfish;
pub mod text;

pub use port::*;
pub use redfish::{Redfish, RedfishConnector};
