//! The domain and the planner of Kiban: world, plan, versions, waves, budgets and the step machine; pure, without I/O or a clock

pub mod component;
pub mod operation;
pub mod version;
