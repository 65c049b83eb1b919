//! What travels down the queue: the request, who sent it, where its answer is awaited, and what was tried so far.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{AttemptId, Caller, ErrorCode, Millis, RequestId};

/// A wire format in which a client speaks to us, or we to a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// OpenAI's Chat Completions, and its embeddings.
    OpenaiChat,
    /// OpenAI's Responses.
    OpenaiResponses,
    /// Anthropic's Messages.
    Anthropic,
    /// Google's generateContent, at AI Studio and Vertex.
    Gemini,
    /// Amazon Bedrock's Converse. Providers speak it, no door does.
    Bedrock,
    /// [`crate::chat`] and [`crate::embed`] as JSON: what the gRPC door speaks inside. No provider speaks it.
    Native,
}

impl Dialect {
    /// Every dialect, for tables and tests.
    pub const ALL: [Self; 6] = [
        Self::OpenaiChat,
        Self::OpenaiResponses,
        Self::Anthropic,
        Self::Gemini,
        Self::Bedrock,
        Self::Native,
    ];

    /// The name used in configuration, messages and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenaiChat => "openai_chat",
            Self::OpenaiResponses => "openai_responses",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Bedrock => "bedrock",
            Self::Native => "native",
        }
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// An answer to a conversation.
    #[default]
    Chat,
    /// Vectors of texts.
    Embed,
    /// How many tokens a conversation has.
    CountTokens,
}

impl Operation {
    /// The name used in the ledger, messages and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embed => "embed",
            Self::CountTokens => "count_tokens",
        }
    }
}

/// The client's own bytes, or where they are kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Payload {
    /// The bytes themselves.
    Inline(Bytes),
    /// Too large for the queue: the name of an object in the payload store.
    Stored { object: String, size: u64 },
}

impl Payload {
    /// Size of the body in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Stored { size, .. } => *size,
        }
    }
}

/// A prompt is never printed.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
            Self::Stored { object, size } => write!(f, "Stored({object}, {size} bytes)"),
        }
    }
}

/// The few facts about a request that stages decide by, read once from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestView {
    pub operation: Operation,
    /// The public model name that the client asked for.
    pub model: String,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether the client asked for the usage at the end of a stream.
    pub include_usage: bool,
    /// Rough size of the prompt, in tokens: a quarter of its characters. For estimates only.
    pub estimated_input_tokens: u64,
    /// The client's own limit on each answer, in tokens.
    pub max_output_tokens: Option<u64>,
    /// How many answers the client asks for.
    pub answers: u64,
}

impl RequestView {
    /// The client's own limit on all that is answered, in tokens, or `assumed` for each answer.
    #[must_use]
    pub fn most_output_tokens(&self, assumed: Option<u64>) -> Option<u64> {
        let each = self.max_output_tokens.or(assumed)?;
        Some(each.saturating_mul(self.answers))
    }
}

/// A provider and the name that it knows the model by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    pub provider: String,
    pub model: String,
}

/// Asks that the answer pass through a guardrail on its way to the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screen {
    /// Address of the guardrail that screens, `http://host:port`.
    pub address: String,
    /// The policy by which it does.
    pub policy: String,
}

/// Why an attempt, or a whole request, did not succeed.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: ErrorCode,
    /// Safe to show to the client.
    pub message: String,
    /// How long the client should wait, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The status with which the provider answered, if it did.
    pub provider_status: Option<u16>,
    /// The target that failed, if the request had got that far.
    pub target: Option<Target>,
}

/// Without the message, which may quote a provider that quotes the prompt.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("code", &self.code)
            .field("provider_status", &self.provider_status)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Failure {
    /// A failure that no provider had a part in.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_ms: None,
            provider_status: None,
            target: None,
        }
    }

    /// The same, asking the client to wait.
    #[must_use]
    pub fn retry_after_ms(mut self, wait: u64) -> Self {
        self.retry_after_ms = Some(wait);
        self
    }
}

/// A request on its way through the stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub request_id: RequestId,
    /// Raised by the owner each time it sends the request again; older ones are refused.
    pub generation: u32,
    /// Address at which the owner awaits the answer, `http://host:port`.
    pub owner: String,
    /// After this the owner has given up.
    pub deadline: Millis,
    pub caller: Caller,
    pub view: RequestView,
    pub dialect: Dialect,
    /// Headers of the client that a provider of the same dialect is sent, by lower-case name.
    pub headers: BTreeMap<String, String>,
    pub payload: Payload,
    /// Set by guardrail when the policy screens answers.
    pub screen: Option<Screen>,
    /// Set by router: whom to call.
    pub target: Option<Target>,
    /// What failed so far, oldest first.
    pub failures: Vec<Failure>,
    /// Of a job: the place in the ledger stream of its last call's `started`, 0 before the first. The next call is made only
    /// if no other has started since. Its worker goes on when the owner is lost, and stores the answer itself.
    pub fence: Option<u64>,
    /// Of a hedge: where the request is under way already. Another target is to be called, or none.
    pub hedged: Option<Target>,
}

/// A worker's request to be the one that calls the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub request_id: RequestId,
    pub generation: u32,
    pub attempt_id: AttemptId,
    pub target: Target,
    /// Where the claim ends up; a screening guardrail passes it on to there.
    pub owner: String,
    /// The policy by which the answer is screened, when it goes through a guardrail.
    pub policy: Option<String>,
    pub dialect: Dialect,
    pub stream: bool,
}

/// Why a claim was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A newer generation of the request is under way, or this one is claimed already.
    Stale,
    /// The owner does not know the request: it has ended.
    Gone,
    /// The owner could not be asked.
    Unreachable,
    /// A limit has no room for this call; one to another target may have.
    Limited(Box<Failure>),
}
