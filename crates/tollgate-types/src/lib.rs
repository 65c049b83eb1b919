//! The vocabulary of Tollgate: ids, money, usage, error codes, the chat model, the envelope and the ledger's events.
//!
//! Nothing here performs I/O, and nothing here knows a wire format. A type lives in this crate because at least two
//! services share it.

pub mod caller;
pub mod chat;
pub mod embed;
pub mod envelope;
pub mod error;
pub mod grant;
pub mod id;
pub mod job;
pub mod ledger;
pub mod limit;
pub mod money;
pub mod provider;
pub mod time;
pub mod usage;

pub use caller::Caller;
pub use envelope::{Dialect, Envelope, Failure, Operation, Payload, RequestView, Screen, Target};
pub use error::ErrorCode;
pub use grant::{Door, Grant, KeyRecord, Lane, Permission, Role, Tenant, TenantRecord};
pub use id::{AttemptId, BatchId, FileId, JobId, KeyId, LeaseId, LimitId, RequestId};
pub use job::{Job, JobEnd, JobNote};
pub use limit::{Hold, LimitRecord};
pub use money::Usd;
pub use time::Millis;
pub use usage::{Usage, UsageSource};
