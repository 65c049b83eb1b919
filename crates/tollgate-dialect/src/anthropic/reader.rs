//! What a provider's events and bodies say.

use std::collections::HashMap;

use serde_json::Value;
use tollgate_types::{
    Usage,
    chat::{ChatEvent, FinishReason},
};

use super::{citation, provider::reported};
use crate::{BadAnswer, names::Names, side::Reader};

/// Follows an answer.
pub(super) struct MessageReader {
    names: Names,
    /// The tool whose call is the answer itself.
    answer_tool: Option<String>,
    /// What the blocks that are open hold.
    open: HashMap<u64, Open>,
    calls: u32,
    usage: Value,
    reason: Option<FinishReason>,
    stop_sequence: Option<String>,
    /// Whether the answer came as a call of the answer tool, and whether another tool was called.
    answered: bool,
    called: bool,
    done: bool,
}

/// An open block.
enum Open {
    Call { index: u32, silent: bool },
    Answer { silent: bool },
    Other,
}

impl MessageReader {
    pub(super) fn new(names: Names, answer_tool: Option<String>) -> Self {
        Self {
            names,
            answer_tool,
            open: HashMap::new(),
            calls: 0,
            usage: Value::Null,
            reason: None,
            stop_sequence: None,
            answered: false,
            called: false,
            done: false,
        }
    }

    fn start(&mut self, message: &Value) -> ChatEvent {
        let text = |name: &str| message.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        self.note_usage(message.get("usage"));
        ChatEvent::Start {
            id: text("id"),
            model: text("model"),
        }
    }

    fn note_usage(&mut self, usage: Option<&Value>) {
        let Some(Value::Object(usage)) = usage else { return };
        if !self.usage.is_object() {
            self.usage = Value::Object(serde_json::Map::new());
        }
        for (name, value) in usage.iter().filter(|(_, value)| !value.is_null()) {
            self.usage[name] = value.clone();
        }
    }

    fn usage(&self) -> Option<Usage> {
        let count = |pointer: &str| self.usage.pointer(pointer).and_then(Value::as_u64);
        let cached = count("/cache_read_input_tokens").unwrap_or_default();
        let hour = count("/cache_creation/ephemeral_1h_input_tokens").unwrap_or_default();
        let written = count("/cache_creation_input_tokens").unwrap_or_default();
        Some(Usage {
            input_tokens: count("/input_tokens")? + cached + written,
            cached_input_tokens: cached,
            cache_write_input_tokens: written,
            cache_write_1h_input_tokens: hour.min(written),
            output_tokens: count("/output_tokens")?,
            reasoning_tokens: count("/output_tokens_details/thinking_tokens")
                .or(count("/output_tokens_details/reasoning_tokens"))
                .unwrap_or_default(),
            web_searches: count("/server_tool_use/web_search_requests").unwrap_or_default(),
            ..Usage::default()
        })
    }

    fn block_start(&mut self, index: u64, block: &Value, events: &mut Vec<ChatEvent>) {
        let text = |name: &str| {
            let text = block.get(name).and_then(Value::as_str).unwrap_or_default();
            Some(text.to_owned()).filter(|text| !text.is_empty())
        };
        let open = match block.get("type").and_then(Value::as_str).unwrap_or_default() {
            "text" => {
                events.extend(text("text").map(|text| ChatEvent::Text { text }));
                self.citations(block, events);
                Open::Other
            }
            "thinking" => {
                events.extend(text("thinking").map(|text| ChatEvent::Reasoning { text }));
                events.extend(text("signature").map(|signature| ChatEvent::ReasoningSignature { signature }));
                Open::Other
            }
            "redacted_thinking" => {
                events.extend(text("data").map(|data| ChatEvent::RedactedReasoning { data }));
                Open::Other
            }
            "tool_use" if self.answer_tool.is_some() && text("name") == self.answer_tool => {
                self.answered = true;
                Open::Answer { silent: true }
            }
            "tool_use" => {
                let call = self.calls;
                self.calls += 1;
                self.called = true;
                events.push(ChatEvent::ToolCall {
                    index: call,
                    id: text("id"),
                    name: text("name").map(|name| self.names.client_name(&name)),
                    arguments: String::new(),
                    signature: None,
                });
                Open::Call {
                    index: call,
                    silent: true,
                }
            }
            // The provider's own tools: they reach only a client of this dialect, as they are.
            _ => Open::Other,
        };
        self.open.insert(index, open);
    }

    fn citations(&self, block: &Value, events: &mut Vec<ChatEvent>) {
        let citations = block.get("citations").and_then(Value::as_array).into_iter().flatten();
        events.extend(
            citations
                .filter_map(citation)
                .map(|citation| ChatEvent::Citation { citation }),
        );
    }

    fn arguments(&mut self, index: u64, text: &str) -> Option<ChatEvent> {
        match self.open.get_mut(&index)? {
            Open::Call { index, silent } => {
                *silent &= text.is_empty();
                Some(ChatEvent::ToolCall {
                    index: *index,
                    id: None,
                    name: None,
                    arguments: text.to_owned(),
                    signature: None,
                })
            }
            Open::Answer { silent } => {
                *silent &= text.is_empty();
                Some(ChatEvent::Text { text: text.to_owned() })
            }
            Open::Other => None,
        }
    }

    fn delta(&mut self, index: u64, delta: &Value) -> Option<ChatEvent> {
        let text = |name: &str| Some(delta.get(name)?.as_str()?.to_owned()).filter(|text| !text.is_empty());
        match delta.get("type").and_then(Value::as_str)? {
            "text_delta" => text("text").map(|text| ChatEvent::Text { text }),
            "thinking_delta" => text("thinking").map(|text| ChatEvent::Reasoning { text }),
            "signature_delta" => text("signature").map(|signature| ChatEvent::ReasoningSignature { signature }),
            "input_json_delta" => text("partial_json").and_then(|text| self.arguments(index, &text)),
            "citations_delta" => citation(delta.get("citation")?).map(|citation| ChatEvent::Citation { citation }),
            _ => None,
        }
    }

    /// A call without arguments has the empty object.
    fn block_stop(&mut self, index: u64) -> Option<ChatEvent> {
        match self.open.get(&index) {
            Some(Open::Call { silent: true, .. } | Open::Answer { silent: true }) => {
                let event = self.arguments(index, "{}");
                self.open.remove(&index);
                event
            }
            _ => {
                self.open.remove(&index);
                None
            }
        }
    }

    fn note_stop(&mut self, delta: &Value) {
        if let Some(reason) = delta.get("stop_reason").and_then(Value::as_str) {
            self.reason = Some(match reason {
                "max_tokens" | "pause_turn" | "model_context_window_exceeded" => FinishReason::Length,
                "tool_use" => FinishReason::ToolCalls,
                "refusal" => FinishReason::Refusal,
                _ => FinishReason::Stop,
            });
        }
        if let Some(met) = delta.get("stop_sequence").and_then(Value::as_str) {
            self.stop_sequence = Some(met.to_owned());
        }
    }

    fn finish(&mut self, events: &mut Vec<ChatEvent>) {
        let Some(reason) = self.reason else { return };
        // The answer tool's call is no call to the client.
        let is_answer = reason == FinishReason::ToolCalls && self.answered && !self.called;
        events.push(ChatEvent::Finish {
            reason: if is_answer { FinishReason::Stop } else { reason },
            stop_sequence: self.stop_sequence.take(),
        });
        events.extend(self.usage().map(|usage| ChatEvent::Usage { usage }));
    }
}

fn parse(data: &[u8]) -> Result<Value, BadAnswer> {
    if std::str::from_utf8(data).is_err() {
        return Err(BadAnswer::NotUtf8);
    }
    let value: Value = serde_json::from_slice(data).map_err(|_| BadAnswer::NotJson)?;
    if value.get("type").is_some_and(|kind| kind == "error") {
        return Err(BadAnswer::Reported(reported(value.get("error").unwrap_or(&value))));
    }
    Ok(value)
}

impl Reader for MessageReader {
    fn event(&mut self, data: &[u8]) -> Result<Vec<ChatEvent>, BadAnswer> {
        let value = parse(data)?;
        let index = value.get("index").and_then(Value::as_u64).unwrap_or_default();
        let mut events = Vec::new();
        match value.get("type").and_then(Value::as_str).unwrap_or_default() {
            "message_start" => {
                let message = value.get("message").ok_or(BadAnswer::Lacks("a message"))?;
                events.push(self.start(message));
            }
            "content_block_start" => {
                let block = value.get("content_block").ok_or(BadAnswer::Lacks("a block"))?;
                self.block_start(index, block, &mut events);
            }
            "content_block_delta" => {
                let delta = value.get("delta").ok_or(BadAnswer::Lacks("a delta"))?;
                events.extend(self.delta(index, delta));
            }
            "content_block_stop" => events.extend(self.block_stop(index)),
            "message_delta" => {
                self.note_usage(value.get("usage"));
                if let Some(delta) = value.get("delta") {
                    self.note_stop(delta);
                }
            }
            "message_stop" => {
                self.done = true;
                self.finish(&mut events);
            }
            // Pings, and what is yet to come.
            _ => {}
        }
        Ok(events)
    }

    fn whole(&mut self, body: &[u8]) -> Result<Vec<ChatEvent>, BadAnswer> {
        let message = parse(body)?;
        let blocks = message.get("content").and_then(Value::as_array);
        let mut events = vec![self.start(&message)];
        for (index, block) in blocks.ok_or(BadAnswer::Lacks("content"))?.iter().enumerate() {
            let index = index as u64;
            self.block_start(index, block, &mut events);
            if let Some(input) = block
                .get("input")
                .filter(|_| !matches!(self.open.get(&index), Some(Open::Other)))
            {
                events.extend(self.arguments(index, &input.to_string()));
            }
            self.open.remove(&index);
        }
        self.note_stop(&message);
        if self.reason.is_none() {
            return Err(BadAnswer::Lacks("a stop reason"));
        }
        self.finish(&mut events);
        self.done = true;
        Ok(events)
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn is_complete(&self) -> bool {
        self.done && self.reason.is_some()
    }

    fn report(&self) -> Option<&Value> {
        Some(&self.usage).filter(|usage| usage.is_object())
    }

    fn partial_usage(&self) -> Option<Usage> {
        self.usage()
    }
}
