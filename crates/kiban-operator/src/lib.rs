//! The operator of Kiban: watches, applies, leases, executors, ledger, metrics
