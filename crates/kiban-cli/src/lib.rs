//! kubectl-kiban: status, explain, history, validate and probe
