//! `kubectl kiban`.
fn main() {}
