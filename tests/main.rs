//! End to end: every role as its own process, on a real NATS server and a real Postgres, against the simulated provider.
//!
//! A claim about reliability is checked by counting both ends: what the simulator logged, what the clients saw, and what
//! SQL says. Tollgate's own metrics are never asked.

#![allow(
    clippy::expect_used,
    clippy::large_futures,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and clippy knows only unit tests as tests"
)]

mod accounting;
mod admin;
mod batches;
mod doors;
mod failures;
mod guardrails;
mod harness;
mod hedging;
mod hostile;
mod identity;
mod jobs;
mod keys;
mod limits;
mod matrix;
mod prices;
mod reconcile;
mod sdks;
mod streams;
mod up;
