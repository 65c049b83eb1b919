//! The gRPC contracts of `proto/tollgate/v1` and the conversions between them and the domain types.
//!
//! `TryFrom` inward is the validation: what gets through is a domain value that every stage can trust. `From` outward
//! never fails.

/// Generated from `proto/tollgate/v1`.
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs)]
pub mod v1 {
    tonic::include_proto!("tollgate.v1");
}

mod chat;
mod jobs;
mod pipeline;
mod rights;
mod status;

/// The encoded descriptors of all contracts, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tollgate.bin"));

pub use jobs::JobRequest;
pub use pipeline::amount;
pub use status::{ERROR_DOMAIN, to_status};

/// Why a message from the wire is not a domain value. Names the field, never its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// The field, as the contract names it.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Invalid {
    /// That a field is wrong, and how.
    #[must_use]
    pub const fn new(field: &'static str, problem: &'static str) -> Self {
        Self { field, problem }
    }

    const fn missing(field: &'static str) -> Self {
        Self::new(field, "is missing")
    }
}
