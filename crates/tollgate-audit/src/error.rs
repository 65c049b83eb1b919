//! What can go wrong in audit, and which of it is the fault of the data.
//!
//! The distinction decides the fate of an event: one that the database can never take is set aside; anything else is a
//! database that is away, and the event waits in the stream.

/// Why audit could not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An event that cannot be recorded, however often it is tried. Names what is wrong, never the content.
    #[error("event {sequence} of the ledger stream cannot be recorded: {reason}")]
    Refused { sequence: u64, reason: &'static str },
    #[error("the queue")]
    Bus(#[from] tollgate_bus::Error),
    #[error("the database")]
    Database(#[from] sqlx::Error),
    #[error("cannot bring the database's tables up to date")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("the database did not answer in time")]
    Timeout,
    #[error("no database is configured: set audit.database_url or DATABASE_URL")]
    NoDatabase,
    #[error("the database URL cannot be read")]
    DatabaseUrl(#[from] tollgate_config::SecretError),
    /// Price sheets that cannot stand beside those that there are.
    #[error("{0}")]
    Prices(String),
    #[error("cannot serve gRPC")]
    Serve(#[from] tonic::transport::Error),
    #[error("cannot describe the service for gRPC reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("cannot read the contracts' descriptors")]
    Descriptors(#[from] prost_reflect::DescriptorError),
    #[error("the HTTP interface names a call that there is not: {0}")]
    Route(&'static str),
    #[error("a task of audit ended abnormally")]
    Task(#[source] tokio::task::JoinError),
}

/// What Postgres says when a statement takes longer than `statement_timeout`, or somebody cancels it.
const QUERY_CANCELLED: &str = "57014";

impl Error {
    /// Whether a query was stopped because it took too long.
    #[must_use]
    pub fn took_too_long(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.code().as_deref() == Some(QUERY_CANCELLED))
    }

    /// Why the data itself was refused, if that is what happened. Safe to store: neither content nor the server's text.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Refused { reason, .. } => Some((*reason).to_owned()),
            Self::Database(sqlx::Error::Encode(_)) => Some("a value has no form in the database".to_owned()),
            Self::Database(sqlx::Error::Database(error)) => {
                let code = error.code()?;
                // Data exceptions and integrity violations.
                if !(code.starts_with("22") || code.starts_with("23")) {
                    return None;
                }
                let constraint = error.constraint().unwrap_or("no constraint");
                Some(format!("the database refused it: {code}, {constraint}"))
            }
            _ => None,
        }
    }
}
