//! How Tollgate's services reach one another: the queue down, the delivery back, the ledger stream and the payload store.
//!
//! A stage is a function from an [`Envelope`](tollgate_types::Envelope) to an [`Outcome`]; the [`Runner`] reads the queue
//! for it and carries the outcome out. When the next stage runs in the same process it is called directly.

pub mod batches;
mod connection;
mod courier;
pub mod delivery;
pub mod jobs;
pub mod ledger;
mod payload;
pub mod presence;
mod pull;
pub mod quota;
pub mod registry;
mod runner;
mod serve;
pub mod subject;
pub mod targets;

pub use connection::Bus;
pub use courier::Courier;
pub use jobs::Jobs;
pub use ledger::Ledger;
pub use payload::Payloads;
pub use registry::{PriceList, Registry};
pub use runner::{Outcome, Runner, Stage};
pub use serve::{advertised, serve_delivery};
pub use subject::Hop;

/// What can go wrong between services.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{url} is no address of a NATS server")]
    Address { url: String, source: std::io::Error },
    #[error("cannot connect to NATS at {url}")]
    Connect {
        url: String,
        source: async_nats::ConnectError,
    },
    #[error("NATS server {found} is too old; Tollgate needs {needed} or newer")]
    TooOld { found: String, needed: &'static str },
    #[error("cannot set up {what}")]
    SetUp {
        what: &'static str,
        source: async_nats::Error,
    },
    #[error("cannot subscribe to {subject}")]
    Subscribe { subject: String, source: async_nats::Error },
    #[error("subscription to {0} was not confirmed by a round trip")]
    Unconfirmed(String),
    #[error("cannot publish to {subject}")]
    Publish { subject: String, source: async_nats::Error },
    /// The stream has said that it does not take the message: it is surely not stored.
    #[error("the stream refuses {subject}")]
    Refused { subject: String, source: async_nats::Error },
    #[error("this attempt has started already")]
    AlreadyStarted,
    #[error("cannot read the ledger stream")]
    Ledger(#[source] async_nats::Error),
    #[error("the payload store failed")]
    PayloadStore(#[source] async_nats::Error),
    #[error("the payload is not in the store any more")]
    PayloadGone,
    #[error("the streams of jobs do not answer")]
    Jobs(#[source] async_nats::Error),
    #[error("the store of files does not answer")]
    Files(#[source] async_nats::Error),
    #[error("the bucket of {what} does not answer")]
    Registry {
        what: &'static str,
        source: async_nats::Error,
    },
    #[error("the bucket of targets does not answer")]
    Targets(#[source] async_nats::Error),
    #[error("a record of a job is unreadable: {0}")]
    Unreadable(String),
    #[error("the delivery listener failed")]
    Delivery(#[from] tonic::transport::Error),
    #[error("the queue closed the subscription to {0}")]
    Closed(String),
}
