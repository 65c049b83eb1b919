//! The events from which audit builds the ledger.
//!
//! Each event is complete in itself: `settled` repeats what `started` said, so that a row can be written from either,
//! whatever order they arrive in. An event never carries a prompt, an answer or a secret.

use serde::{Deserialize, Serialize};
use tollgate_pricing::Consumption;

use crate::{
    AttemptId, Caller, Dialect, ErrorCode, Hold, KeyId, Millis, Operation, RequestId, Target, Usage, UsageSource,
};

/// What both events of an attempt say about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub attempt_id: AttemptId,
    pub request_id: RequestId,
    pub generation: u32,
    /// Number of attempts of the same request that failed before this one.
    pub retry: u32,
    /// It was made because another attempt of the request was slow.
    #[serde(default)]
    pub hedge: bool,
    pub target: Target,
    /// The public name under which the client asked for the model.
    pub model: String,
    pub caller: Caller,
    pub dialect: Dialect,
    #[serde(default)]
    pub operation: Operation,
    pub stream: bool,
    pub started_at: Millis,
    /// After this an attempt that has not settled is an orphan.
    pub deadline: Millis,
    /// For the estimate, should the attempt be orphaned.
    pub estimated_input_tokens: u64,
    /// The client's own limit on the answer.
    pub max_output_tokens: Option<u64>,
    /// What is reserved for it, where budgets apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

/// How a call to a provider ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// The provider's answer was complete.
    Answered,
    /// The provider refused or failed.
    Failed,
    /// We closed the connection: the client left or the deadline passed.
    Cancelled,
    /// The answer broke off.
    Broken,
}

impl AttemptOutcome {
    /// The name used in the database, in reports and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Broken => "broken",
        }
    }
}

/// How the call ended and what it used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    pub outcome: AttemptOutcome,
    pub error: Option<ErrorCode>,
    pub provider_status: Option<u16>,
    /// The model that the provider says it used.
    pub served_model: Option<String>,
    pub usage: Usage,
    pub usage_source: UsageSource,
    /// All that the provider's report says of the price, if there is one that can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumption: Option<Box<Consumption>>,
    pub ended_at: Millis,
    /// From the call to the first byte of the answer's content.
    pub first_token_ms: Option<u64>,
}

impl Settlement {
    /// What the call is billed for: as the provider says, else by its tokens.
    #[must_use]
    pub fn used(&self) -> Consumption {
        match (self.usage_source, &self.consumption) {
            (UsageSource::None, _) => Consumption::default(),
            (_, Some(said)) => Consumption::clone(said),
            (_, None) => self.usage.consumption(),
        }
    }
}

/// The terminal state of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestState {
    Answered,
    /// A guardrail said no.
    Denied,
    Failed,
    /// The client left.
    Cancelled,
}

impl RequestState {
    /// Every state, for tables and tests.
    pub const ALL: [Self; 4] = [Self::Answered, Self::Denied, Self::Failed, Self::Cancelled];

    /// The name used in the database, in reports and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The end of a request, written by its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conclusion {
    pub request_id: RequestId,
    pub caller: Caller,
    pub model: String,
    pub dialect: Dialect,
    pub stream: bool,
    pub state: RequestState,
    pub error: Option<ErrorCode>,
    /// Times that the owner had to send the request again.
    pub resends: u32,
    pub accepted_at: Millis,
    pub concluded_at: Millis,
}

/// That somebody changed how the gateway runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Administration {
    /// Of the request that asked for it.
    pub request_id: RequestId,
    pub at: Millis,
    /// The key that was shown.
    pub actor_id: KeyId,
    pub actor: String,
    /// `target.drain`, `target.restore`
    pub action: String,
    /// What was changed.
    pub subject: String,
}

/// One event of the ledger stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum LedgerEvent {
    /// A worker is about to call the provider.
    Started(Attempt),
    /// The call has ended.
    Settled { attempt: Attempt, settlement: Settlement },
    /// The owner lost the worker that held the claim. Unless the worker settles within a short grace, the attempt is an
    /// orphan.
    Abandoned { attempt_id: AttemptId, at: Millis },
    /// A request reached its terminal state.
    Concluded(Conclusion),
    /// Somebody changed how the gateway runs.
    Administered(Administration),
}

impl LedgerEvent {
    /// The kind, as it appears in the subject.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Started(_) => "started",
            Self::Settled { .. } => "settled",
            Self::Abandoned { .. } => "abandoned",
            Self::Concluded(_) => "concluded",
            Self::Administered(_) => "administered",
        }
    }

    /// What the event is about, as it appears in the subject: an attempt of a request, an attempt, or a request.
    #[must_use]
    pub fn about(&self) -> String {
        match self {
            Self::Started(attempt) | Self::Settled { attempt, .. } => {
                format!("{}.{}", attempt.request_id, attempt.attempt_id)
            }
            Self::Abandoned { attempt_id, .. } => attempt_id.to_string(),
            Self::Concluded(conclusion) => conclusion.request_id.to_string(),
            Self::Administered(administration) => administration.request_id.to_string(),
        }
    }
}
