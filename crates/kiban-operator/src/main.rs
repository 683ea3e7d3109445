//! The operator's thin binary.
fn main() {}
