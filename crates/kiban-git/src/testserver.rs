//! Real Git servers on loopback, for tests.
