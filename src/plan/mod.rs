//! Reconciliation: desired and observed state become a plan of operations, which is then executed.
