//! Audit: the ledger of every call, what it cost, and the reports. The only crate that speaks SQL.
//!
//! [`Service`] reads the ledger stream and writes each event to Postgres before it acknowledges it, gives up on attempts
//! that nobody settles, and answers cost reports over gRPC. [`Store`] is the ledger itself; writing an event twice, or
//! late, or before the one it follows, ends in the same rows.

mod bill;
mod catalogue;
mod chain;
mod check;
mod consume;
mod error;
mod grpc;
mod http;
mod jobs;
mod keys;
mod lane;
mod lease;
mod limits;
mod notice;
mod orphan;
mod price;
mod publish;
mod render;
mod report;
mod rows;
mod service;
mod store;
mod tables;
mod tenants;
mod trim;
mod upkeep;

use sqlx::{Connection, PgConnection, migrate::Migrator};

pub use bill::{Amounts, Bill, BillError, Compared, Measured, Verdict, read_bill};
pub use catalogue::{Listed, PriceChange};
pub use chain::{AuditEvent, Broken, verify};
pub use check::AttemptRow;
pub use error::Error;
pub use http::{Body, PREFIX, ROUTES, Route};
pub use keys::{Actor, KeyInfo, NewKey, Refusal};
pub use lease::{Asked, Granted};
pub use limits::{LimitInfo, NewLimit};
pub use orphan::ASSUMED_OUTPUT_TOKENS;
pub use publish::Buckets;
pub use render::{Format, render, render_table};
pub use report::{CostRow, GroupBy};
pub use service::{Service, Streams};
pub use store::{Recorded, Store};
pub use tables::{Column, Days, Kind, Page, Table};
pub use tenants::TenantInfo;

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// Brings the database's tables, views and shipped prices up to date. Several processes may do so at once: they queue on
/// a lock in the database.
pub async fn migrate(database_url: &str) -> Result<(), Error> {
    let mut connection = PgConnection::connect(database_url).await?;
    MIGRATIONS.run(&mut connection).await?;
    let shipped: Vec<_> = tollgate_pricing::shipped().sheets().cloned().collect();
    let mut transaction = connection.begin().await?;
    catalogue::import(&mut transaction, &shipped, chrono::Utc::now()).await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(())
}
