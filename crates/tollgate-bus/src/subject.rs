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
