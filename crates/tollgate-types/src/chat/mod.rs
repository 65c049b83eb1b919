//! The superset chat model: what every dialect is translated to and from.
//!
//! As JSON it is also the native dialect, in which the gRPC door hands requests to the stages. It has no `Debug`: it is
//! made of prompts and answers.
//!
//! A conversation has one canonical form, which every reader makes and every writer may rely on: results of tools are in
//! turns of [`Role::Tool`] that hold nothing else, calls and reasoning are parts of the assistant's turn in the order in
//! which they were made, and no other turn holds them.

mod answer;
mod answered;
mod part;
mod reasoning;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use answer::{ChatEvent, Citation, FinishReason, Span, SpanUnit, TokenLogprob};
pub use answered::Answered;
pub use part::{Cache, Media, Part};
pub use reasoning::{Effort, Reasoning};

/// A chat request.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChatRequest {
    pub model: String,
    pub messages: Vec<Message>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<ResponseFormat>,
    /// Tokens of the answer, reasoning included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Reasoning>,
    /// Log-probabilities of the answer's tokens, each with this many alternatives; 0 for the chosen token alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<u32>,
    /// The caller's own opaque id of its end user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Fields of the client's dialect that ask for something this model cannot say. They reach a provider of the same
    /// dialect as they are, and no other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub beyond: Vec<String>,
    pub stream: bool,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    System,
    /// Instructions of the application, as newer OpenAI models call them; a system turn to everybody else.
    Developer,
    User,
    Assistant,
    /// Holds [`Part::ToolResult`]s and nothing else.
    Tool,
}

impl Role {
    /// The name that OpenAI's dialect and ours share.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    pub role: Role,
    #[serde(default)]
    pub content: Vec<Part>,
    /// Tells participants of the same role apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Message {
    /// A turn without a name.
    #[must_use]
    pub const fn new(role: Role, content: Vec<Part>) -> Self {
        Self {
            role,
            content,
            name: None,
        }
    }

    /// The name, where it tells anything: that of a tool's result repeats what its call says.
    #[must_use]
    pub fn participant(&self) -> Option<&str> {
        self.name.as_deref().filter(|_| self.role != Role::Tool)
    }
}

/// A function that the model may call.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON schema of the arguments; empty when it takes none.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
}

/// Whether and what the model must call.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    Auto,
    None,
    Required,
    Named(String),
}

/// The form that the answer must have.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ResponseFormat {
    Text,
    JsonObject,
    JsonSchema {
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        schema: Map<String, Value>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        strict: Option<bool>,
    },
}
