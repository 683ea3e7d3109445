//! The domain and the planner of Kiban: what is known, what to do about it, and how one operation is brought to its end.
//!
//! ```text
//!                       ┌──────────────── plan(&world, now) ────────────────┐
//!   facts ──▶ World ──▶ │ assess ──▶ propose ──▶ grant                      │ ──▶ Plan: operations, rollouts,
//!             (rows)    │ survey,    rollout,    grant, budget:             │     WaitingOn for all the rest
//!                       │ assess     wave        the one place of all rules │            │
//!                       └───────────────────────────────────────────────────┘     check (the rules once more), impact (what it means), forecast (when it ends)
//!   operation::advance(&plan, state, observation, now) ──▶ (state, effect)        explain (one device, every reason)
//! ```
//!
//! - Pure: no I/O, no clock, no threads, no randomness. `now` is an argument; the same world and the same `now` give the
//!   same plan, byte for byte, in whatever order the facts came.
//! - Total: no fact, however wrong, makes it fail or panic. What is wrong is a finding, what is in doubt waits.
//! - Nothing is remembered but what the objects hold: a planner that starts anew plans as the one before would have.

pub mod amount;
pub mod approval;
pub mod assess;
pub mod budget;
pub mod canary;
pub mod check;
pub mod compliance;
pub mod component;
pub mod duration;
pub mod explain;
pub mod facts;
pub mod finding;
pub mod forecast;
pub mod gate;
mod grant;
pub mod history;
pub mod impact;
pub mod lease;
pub mod operation;
pub mod path;
pub mod pattern;
pub mod plan;
pub mod revision;
pub mod rollout;
pub mod settings;
pub mod shard;
mod survey;
pub mod version;
pub mod waiting;
pub mod wave;
pub mod window;
pub mod world;

pub use plan::{Plan, plan};
pub use world::World;
