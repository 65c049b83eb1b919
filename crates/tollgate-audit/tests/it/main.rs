//! The ledger on a real Postgres, and the service on a real NATS.

#![expect(
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails by panicking, and so do its helpers; and it has memory enough"
)]

mod guards;
mod keys;
mod ledger;
mod limits;
mod orphans;
mod prices;
mod reports;
mod service;
mod support;
mod tables;
