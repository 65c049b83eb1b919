//! The ledger on a real Postgres, and the service on a real NATS.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

mod guards;
mod ledger;
mod orphans;
mod prices;
mod reports;
mod service;
mod support;
