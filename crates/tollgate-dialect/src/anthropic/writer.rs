//! Answers for a client: the events of a stream, or a whole message.

use bytes::Bytes;
use serde_json::{Value, json};
use tollgate_types::{
    Usage,
    chat::{Answered, ChatEvent, FinishReason, Part},
};

use super::citation_object;
use crate::{BadAnswer, names::fresh, side::Writer};

/// Opens and closes blocks as the pieces come.
pub(super) struct MessageWriter {
    id: String,
    model: String,
    started: bool,
    /// Index of the next block.
    next: u64,
    open: Option<Kind>,
    finish: Option<(FinishReason, Option<String>)>,
    called: bool,
    usage: Option<Usage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Call(u32),
}

impl MessageWriter {
    pub(super) fn new(model: &str) -> Self {
        Self {
            id: fresh("msg_"),
            model: model.to_owned(),
            started: false,
            next: 0,
            open: None,
            finish: None,
            called: false,
            usage: None,
        }
    }

    fn name(&mut self, id: String, model: String) {
        if id.starts_with("msg_") {
            self.id = id;
        }
        if !model.is_empty() {
            self.model = model;
        }
    }

    fn message(&self, content: Vec<Value>, usage: Value) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": null,
            "stop_sequence": null,
            "usage": usage,
        })
    }

    fn start(&mut self, out: &mut Vec<Bytes>) {
        if !std::mem::replace(&mut self.started, true) {
            let message = self.message(Vec::new(), usage_object(&Usage::default()));
            out.push(frame(&json!({ "type": "message_start", "message": message })));
        }
    }

    fn close(&mut self, out: &mut Vec<Bytes>) {
        if self.open.take().is_some() {
            out.push(frame(&json!({ "type": "content_block_stop", "index": self.next - 1 })));
        }
    }

    fn open(&mut self, kind: Kind, block: &Value, out: &mut Vec<Bytes>) {
        self.close(out);
        out.push(frame(
            &json!({ "type": "content_block_start", "index": self.next, "content_block": block }),
        ));
        self.next += 1;
        self.open = Some(kind);
    }

    /// Opens a block of this kind unless one is open.
    fn within(&mut self, kind: Kind, block: &Value, out: &mut Vec<Bytes>) {
        if self.open != Some(kind) {
            self.open(kind, block, out);
        }
    }

    fn delta(&self, delta: &Value, out: &mut Vec<Bytes>) {
        let index = self.next.saturating_sub(1);
        out.push(frame(
            &json!({ "type": "content_block_delta", "index": index, "delta": delta }),
        ));
    }

    fn content(&mut self, event: ChatEvent, out: &mut Vec<Bytes>) -> Result<(), BadAnswer> {
        let empty_text = json!({ "type": "text", "text": "" });
        let empty_thinking = json!({ "type": "thinking", "thinking": "", "signature": "" });
        match event {
            ChatEvent::Text { text } | ChatEvent::Refusal { text } => {
                self.within(Kind::Text, &empty_text, out);
                self.delta(&json!({ "type": "text_delta", "text": text }), out);
            }
            ChatEvent::Reasoning { text } => {
                self.within(Kind::Thinking, &empty_thinking, out);
                self.delta(&json!({ "type": "thinking_delta", "thinking": text }), out);
            }
            ChatEvent::ReasoningSignature { signature } => {
                self.within(Kind::Thinking, &empty_thinking, out);
                self.delta(&json!({ "type": "signature_delta", "signature": signature }), out);
                self.close(out);
            }
            ChatEvent::RedactedReasoning { data } => {
                self.open(
                    Kind::Thinking,
                    &json!({ "type": "redacted_thinking", "data": data }),
                    out,
                );
                self.close(out);
            }
            ChatEvent::ToolCall {
                index,
                id,
                name,
                arguments,
                ..
            } => {
                self.called = true;
                if self.open != Some(Kind::Call(index)) {
                    let id = id.unwrap_or_else(|| fresh("toolu_"));
                    let block = json!({ "type": "tool_use", "id": id, "name": name.unwrap_or_default(), "input": {} });
                    self.open(Kind::Call(index), &block, out);
                }
                if !arguments.is_empty() {
                    self.delta(&json!({ "type": "input_json_delta", "partial_json": arguments }), out);
                }
            }
            ChatEvent::Citation { citation } => {
                self.within(Kind::Text, &empty_text, out);
                self.delta(
                    &json!({ "type": "citations_delta", "citation": citation_object(&citation) }),
                    out,
                );
            }
            ChatEvent::Logprobs { .. } => return Err(BadAnswer::Inexpressible("log-probabilities")),
            ChatEvent::Media { .. } => return Err(BadAnswer::Inexpressible("an image or a sound")),
            ChatEvent::Start { .. } | ChatEvent::Finish { .. } | ChatEvent::Usage { .. } => {}
        }
        Ok(())
    }
}

impl Writer for MessageWriter {
    fn event(&mut self, event: ChatEvent) -> Result<Vec<Bytes>, BadAnswer> {
        let mut out = Vec::new();
        match event {
            ChatEvent::Start { id, model } => {
                self.name(id, model);
                self.start(&mut out);
            }
            ChatEvent::Finish { reason, stop_sequence } => {
                self.close(&mut out);
                self.finish = Some((reason, stop_sequence));
            }
            // Held until the end: it may come after the reason, with which it is sent.
            ChatEvent::Usage { usage } => self.usage = Some(usage),
            content => {
                self.start(&mut out);
                self.content(content, &mut out)?;
            }
        }
        Ok(out)
    }

    fn end(&mut self) -> Result<Vec<Bytes>, BadAnswer> {
        let mut out = Vec::new();
        self.start(&mut out);
        self.close(&mut out);
        let (reason, met) = self.finish.take().unwrap_or((FinishReason::Stop, None));
        let (reason, met) = stop(reason, met, self.called);
        let usage = usage_object(&self.usage.unwrap_or_default());
        let delta = json!({ "stop_reason": reason, "stop_sequence": met });
        out.push(frame(
            &json!({ "type": "message_delta", "delta": delta, "usage": usage }),
        ));
        out.push(frame(&json!({ "type": "message_stop" })));
        Ok(out)
    }

    fn whole(&mut self, events: Vec<ChatEvent>) -> Result<Bytes, BadAnswer> {
        let whole = Answered::of(events);
        if !whole.logprobs.is_empty() {
            return Err(BadAnswer::Inexpressible("log-probabilities"));
        }
        let content = whole.content.iter().map(block).collect::<Result<Vec<_>, _>>()?;
        let called = whole.content.iter().any(|part| matches!(part, Part::ToolCall { .. }));
        let (reason, met) = stop(whole.finish.unwrap_or(FinishReason::Stop), whole.stop_sequence, called);
        let usage = usage_object(&whole.usage.unwrap_or_default());
        self.name(whole.id, whole.model);
        let mut message = self.message(content, usage);
        message["stop_reason"] = reason.into();
        message["stop_sequence"] = met.into();
        Ok(message.to_string().into())
    }
}

fn frame(event: &Value) -> Bytes {
    event.to_string().into()
}

fn block(part: &Part) -> Result<Value, BadAnswer> {
    Ok(match part {
        Part::Text { text, citations, .. } => {
            let mut block = json!({ "type": "text", "text": text });
            if !citations.is_empty() {
                block["citations"] = citations.iter().map(citation_object).collect();
            }
            block
        }
        Part::Refusal { text } => json!({ "type": "text", "text": text }),
        Part::Reasoning { text, signature } => {
            json!({ "type": "thinking", "thinking": text, "signature": signature.as_deref().unwrap_or_default() })
        }
        Part::RedactedReasoning { data } => json!({ "type": "redacted_thinking", "data": data }),
        Part::ToolCall {
            id, name, arguments, ..
        } => {
            let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
            let input: Value =
                serde_json::from_str(arguments).map_err(|_| BadAnswer::Lacks("whole arguments of a call"))?;
            json!({ "type": "tool_use", "id": id, "name": name, "input": input })
        }
        Part::Image { .. } | Part::Audio { .. } | Part::File { .. } | Part::ToolResult { .. } => {
            return Err(BadAnswer::Inexpressible("an image or a sound"));
        }
    })
}

/// Some providers say that they stopped when they called a tool.
fn stop(reason: FinishReason, met: Option<String>, called: bool) -> (&'static str, Option<String>) {
    let reason = match reason {
        FinishReason::Stop if met.is_some() => "stop_sequence",
        FinishReason::Stop if called => "tool_use",
        FinishReason::Stop => "end_turn",
        FinishReason::Length => "max_tokens",
        FinishReason::ToolCalls => "tool_use",
        FinishReason::ContentFilter | FinishReason::Refusal => "refusal",
    };
    (reason, met)
}

fn usage_object(usage: &Usage) -> Value {
    let written = usage.cache_write_input_tokens;
    let other = usage.input_tokens.saturating_sub(usage.cached_input_tokens + written);
    json!({
        "input_tokens": other,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": written.saturating_sub(usage.cache_write_1h_input_tokens),
            "ephemeral_1h_input_tokens": usage.cache_write_1h_input_tokens,
        },
        "output_tokens": usage.output_tokens,
    })
}
