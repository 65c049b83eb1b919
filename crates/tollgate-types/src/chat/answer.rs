//! What answers are made of.

use serde::{Deserialize, Serialize};

use crate::Usage;

/// Why the model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// It was done, or came to a stop sequence.
    Stop,
    /// The limit on the answer, or the model's window, was reached.
    Length,
    ToolCalls,
    /// The provider withheld the rest.
    ContentFilter,
    /// The model declined.
    Refusal,
}

/// A piece of an answer, in the order in which it is made. A whole answer is the same pieces at once.
///
/// [`Start`](Self::Start) comes first, then content, then [`Finish`](Self::Finish); [`Usage`](Self::Usage) at most once,
/// before or after `Finish`, and only when it is final. A piece of another kind, or a call with another index, begins a
/// new block.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ChatEvent {
    /// The answer begins; `model` is the one that the provider says it used.
    Start {
        id: String,
        model: String,
    },
    Text {
        text: String,
    },
    Refusal {
        text: String,
    },
    /// Reasoning that the provider shows.
    Reasoning {
        text: String,
    },
    /// Signature of the reasoning before it, which it ends. Alone, it signs reasoning that is not shown.
    ReasoningSignature {
        signature: String,
    },
    /// A whole block of reasoning that only the provider can read.
    RedactedReasoning {
        data: String,
    },
    /// The first piece of a call has `id` and `name`, later ones only more `arguments`. `index` counts calls from 0.
    ToolCall {
        index: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        #[serde(default)]
        arguments: String,
        /// As [`super::Part::ToolCall`]'s.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
    },
    /// What the text before it rests on.
    Citation {
        citation: Citation,
    },
    /// For the text before it, token by token.
    Logprobs {
        tokens: Vec<TokenLogprob>,
    },
    /// An image or a sound that the model made.
    Media {
        media_type: String,
        /// Base64.
        data: String,
    },
    Finish {
        reason: FinishReason,
        /// The stop sequence that was met, where the provider says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stop_sequence: Option<String>,
    },
    Usage {
        usage: Usage,
    },
}

/// What a text rests on: a page on the web, or a place in a document of the prompt.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Citation {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The source's own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quote: Option<String>,
    /// What part of the answer's text it is for, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Span>,
    /// Index of the document in the prompt, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<u64>,
    /// Where in that document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Span>,
}

/// A stretch, from the first to before the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    pub unit: SpanUnit,
    pub start: u64,
    pub end: u64,
}

/// What a [`Span`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanUnit {
    Character,
    Page,
    Block,
}

/// A token and how likely the model found it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenLogprob {
    pub token: String,
    pub logprob: f64,
    /// The token's bytes, for tokens that are no whole characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Vec<u8>>,
    /// The likeliest tokens at this place, themselves without alternatives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<TokenLogprob>,
}
