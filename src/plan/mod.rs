//! Reconciliation: desired and observed state become a plan of operations, which is then executed.
//!
//! Four parts, each with one job: [`observed`] takes a snapshot of the engine and judges nothing; [`mod@reconcile`] (and
//! [`lifecycle`] for everything but `up`) decides and does no I/O; a [`Plan`] is what was decided, every operation with
//! its cause, and prints itself; [`execute`] carries it out in parallel and decides nothing. What a service looks like
//! to the engine is told by [`create`].

pub mod create;
pub mod execute;
pub mod from_labels;
pub mod hooks;
pub mod lifecycle;
pub mod observed;
mod operation;
#[cfg(test)]
mod plan_tests;
pub mod reconcile;

pub use execute::{Execution, ExecutionError, Settings};
pub use observed::Observed;
pub use operation::{Action, Condition, Operation, Plan, Replica, Stage, Target};
pub use reconcile::{Options, PlanError, Recreate, reconcile};
