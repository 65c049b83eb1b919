//! The ledger on a real Postgres, and the service on a real NATS.

mod guards;
mod ledger;
mod orphans;
mod reports;
mod service;
mod support;
