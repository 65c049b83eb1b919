//! Answers, outward.

use tollgate_types::{
    RequestId,
    chat::{Answered, ChatEvent, FinishReason, TokenLogprob},
};

use super::part::inline;
use crate::v1;

const fn finish_out(reason: FinishReason) -> v1::FinishReason {
    match reason {
        FinishReason::Stop => v1::FinishReason::Stop,
        FinishReason::Length => v1::FinishReason::Length,
        FinishReason::ToolCalls => v1::FinishReason::ToolCalls,
        FinishReason::ContentFilter => v1::FinishReason::ContentFilter,
        FinishReason::Refusal => v1::FinishReason::Refusal,
    }
}

impl From<TokenLogprob> for v1::TokenLogprob {
    fn from(token: TokenLogprob) -> Self {
        Self {
            token: token.token,
            logprob: token.logprob,
            bytes: token.bytes.unwrap_or_default(),
            alternatives: token.alternatives.into_iter().map(Into::into).collect(),
        }
    }
}

impl v1::CompleteEvent {
    /// A piece of the answer to `request_id`.
    #[must_use]
    pub fn of(request_id: RequestId, event: ChatEvent) -> Self {
        use v1::complete_event::{Event, Finish, Logprobs, Start, ToolCallDelta};
        let event = match event {
            ChatEvent::Start { id, model } => Event::Start(Start {
                request_id: request_id.to_string(),
                provider_id: id,
                model,
            }),
            ChatEvent::Text { text } => Event::Text(text),
            ChatEvent::Refusal { text } => Event::Refusal(text),
            ChatEvent::Reasoning { text } => Event::Reasoning(text),
            ChatEvent::ReasoningSignature { signature } => Event::ReasoningSignature(signature),
            ChatEvent::RedactedReasoning { data } => Event::RedactedReasoning(data),
            ChatEvent::ToolCall {
                index,
                id,
                name,
                arguments,
                signature,
            } => Event::ToolCall(ToolCallDelta {
                index,
                id,
                name,
                arguments_json: arguments,
                signature,
            }),
            ChatEvent::Citation { citation } => Event::Citation(citation.into()),
            ChatEvent::Logprobs { tokens } => Event::Logprobs(Logprobs {
                tokens: tokens.into_iter().map(Into::into).collect(),
            }),
            ChatEvent::Media { media_type, data } => Event::Media(inline(media_type, &data)),
            ChatEvent::Finish { reason, stop_sequence } => Event::Finish(Finish {
                reason: finish_out(reason).into(),
                stop_sequence,
            }),
            ChatEvent::Usage { usage } => Event::Usage(usage.into()),
        };
        Self { event: Some(event) }
    }
}

impl v1::CompleteResponse {
    /// The whole answer to `request_id`, put together from its pieces.
    #[must_use]
    pub fn of(request_id: RequestId, events: impl IntoIterator<Item = ChatEvent>) -> Self {
        let whole = Answered::of(events);
        let finish = whole.finish.map_or(v1::FinishReason::Unspecified, finish_out);
        Self {
            request_id: request_id.to_string(),
            text: whole.all_text(),
            provider_id: whole.id,
            model: whole.model,
            content: whole.content.into_iter().map(Into::into).collect(),
            finish: finish.into(),
            stop_sequence: whole.stop_sequence,
            usage: whole.usage.map(Into::into),
            logprobs: whole.logprobs.into_iter().map(Into::into).collect(),
        }
    }
}
