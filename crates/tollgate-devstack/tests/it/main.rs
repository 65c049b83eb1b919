//! The dev stack on real servers: found, fetched, killed, restarted and orphaned.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests may fail the test, too"
)]

mod fetching;
mod nats;
mod orphans;
mod postgres;
mod support;
