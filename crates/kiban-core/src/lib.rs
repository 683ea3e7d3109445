//! The domain and the planner of Kiban: world, plan, versions, waves, budgets and the step machine; pure, without I/O or a clock

pub mod amount;
pub mod assess;
pub mod budget;
pub mod check;
pub mod compliance;
pub mod component;
pub mod duration;
pub mod explain;
pub mod facts;
pub mod finding;
mod grant;
pub mod history;
pub mod operation;
pub mod pattern;
pub mod plan;
pub mod revision;
pub mod rollout;
mod survey;
pub mod version;
pub mod waiting;
pub mod wave;
pub mod world;

pub use plan::{Plan, plan};
pub use world::World;
