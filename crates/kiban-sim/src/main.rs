//! The emulated fleet as a tool of its own.
fn main() {}
