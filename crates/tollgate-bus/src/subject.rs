//! Every NATS name in one place. A subject carries the version of what is published on it.

use std::fmt;

/// Envelopes that a guardrail is to check.
pub const GUARD: &str = "tollgate.v1.guard";
/// Envelopes that a router is to send to a provider.
pub const ROUTE: &str = "tollgate.v1.route";
/// Envelopes for one provider's workers: this and the provider's name.
pub const WORK: &str = "tollgate.v1.work";
/// Ledger events: this, the kind of event, and the id of what it is about.
pub const LEDGER: &str = "tollgate.v1.ledger";
/// The stream that keeps the ledger events.
pub const LEDGER_STREAM: &str = "TOLLGATE_LEDGER";
/// Audit's place in that stream.
pub const LEDGER_CONSUMER: &str = "audit";
/// The object store for payloads that are too large for a message.
pub const PAYLOAD_BUCKET: &str = "tollgate-payloads";

/// Accepted jobs: this, the priority, and the job's id.
pub const JOBS: &str = "tollgate.v1.jobs";
/// The stream that keeps them.
pub const JOB_STREAM: &str = "TOLLGATE_JOBS";
/// Ends of jobs: this and the job's id.
pub const JOB_END: &str = "tollgate.v1.jobend";
/// The stream that keeps them, one for each job.
pub const JOB_END_STREAM: &str = "TOLLGATE_JOB_ENDS";
/// What jobs are doing: this and the job's id.
pub const JOB_NOTE: &str = "tollgate.v1.jobnote";
/// The stream, in memory, of the last note on each job.
pub const JOB_NOTE_STREAM: &str = "TOLLGATE_JOB_NOTES";
/// Says, without content, that a job was submitted.
pub const JOB_HINT: &str = "tollgate.v1.jobhint";
/// The object store for bodies of jobs and answers that are too large for a message.
pub const JOB_BUCKET: &str = "tollgate-jobs";
/// Asked whether an attempt of a job is under way: this and the attempt's id.
pub const PRESENCE: &str = "tollgate.v1.attempt";
/// Header: the subject in which a compare-and-set looks for an older message, where that is not the message's own.
pub(crate) const EXPECTED_IN: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
/// The consumer of ends from which webhooks are sent.
pub const WEBHOOK_CONSUMER: &str = "webhooks";
/// The key-value bucket of what routers and operators say of targets.
pub const TARGET_BUCKET: &str = "tollgate-targets";

/// The bucket of the keys that were issued.
pub const KEY_BUCKET: &str = "tollgate-keys";
/// The bucket of what tenants may do.
pub const TENANT_BUCKET: &str = "tollgate-tenants";
/// The bucket of budgets and rate limits.
pub const LIMIT_BUCKET: &str = "tollgate-limits";
/// The bucket of price lists.
pub const PRICE_BUCKET: &str = "tollgate-prices";
/// Questions to audit for slices of limits.
pub const QUOTA: &str = "tollgate.v1.quota";
/// Webhooks that audit wants sent.
pub const NOTICE: &str = "tollgate.v1.notice";
/// The queue group of those that send them.
pub const NOTICE_QUEUE: &str = "webhooks";
/// What is known of batches: this, the key's id, the batch's id, and which part.
pub const BATCHES: &str = "tollgate.v1.batches";
/// The stream that keeps it.
pub const BATCH_STREAM: &str = "TOLLGATE_BATCHES";
/// The consumer of accepted batches.
pub const BATCH_CONSUMER: &str = "batches";
/// The object store for files that clients upload and fetch.
pub const FILE_BUCKET: &str = "tollgate-files";
/// Questions to audit about which jobs there are.
pub const JOB_LIST: &str = "tollgate.v1.joblist";
/// Questions to audit about how many there are.
pub const JOB_COUNT: &str = "tollgate.v1.jobcount";

/// The next stage of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Hop {
    Guard,
    Route,
    /// A worker of this provider.
    Work(String),
}

impl Hop {
    /// The subject on which the stage listens.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::Guard => GUARD.to_owned(),
            Self::Route => ROUTE.to_owned(),
            Self::Work(provider) => format!("{WORK}.{provider}"),
        }
    }

    /// The queue group that all replicas of the stage share.
    #[must_use]
    pub const fn queue(&self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::Route => "route",
            Self::Work(_) => "work",
        }
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject())
    }
}
