//! Desired state read from Git at a commit, and the ledger written back to Git
