//! Answers for a client: the responses of a stream, or a whole one.

use bytes::Bytes;
use serde_json::{Value, json};
use tollgate_types::{
    Usage,
    chat::{ChatEvent, FinishReason, TokenLogprob},
};

use super::signature_out;
use crate::{BadAnswer, names::fresh, side::Writer};

/// Makes the one candidate of an answer. Arguments of calls are gathered: this dialect has no pieces of them.
pub(super) struct ContentWriter {
    id: String,
    model: String,
    calls: Vec<Call>,
    /// A signature for the part that follows.
    signature: Option<String>,
    finish: Option<FinishReason>,
    usage: Option<Usage>,
}

struct Call {
    index: u32,
    id: String,
    name: String,
    arguments: String,
    signature: Option<String>,
}

impl ContentWriter {
    pub(super) fn new(model: &str) -> Self {
        Self {
            id: fresh(""),
            model: model.to_owned(),
            calls: Vec::new(),
            signature: None,
            finish: None,
            usage: None,
        }
    }

    fn response(&self, parts: Vec<Value>) -> Value {
        json!({
            "candidates": [{ "content": { "parts": parts, "role": "model" }, "index": 0 }],
            "modelVersion": self.model,
            "responseId": self.id,
        })
    }

    /// The parts that an event brings.
    fn parts(&mut self, event: ChatEvent) -> Result<Vec<Value>, BadAnswer> {
        let is_call = matches!(event, ChatEvent::ToolCall { .. });
        let mut parts = if is_call { Vec::new() } else { self.take_calls()? };
        match event {
            ChatEvent::Start { id, model } => {
                if !id.is_empty() {
                    self.id = id;
                }
                if !model.is_empty() {
                    self.model = model;
                }
            }
            ChatEvent::Text { text } | ChatEvent::Refusal { text } => {
                let mut part = json!({ "text": text });
                if let Some(signature) = self.signature.take() {
                    part["thoughtSignature"] = signature_out(&signature).into();
                }
                parts.push(part);
            }
            ChatEvent::Reasoning { text } => parts.push(json!({ "text": text, "thought": true })),
            ChatEvent::ReasoningSignature { signature } => self.signature = Some(signature),
            ChatEvent::RedactedReasoning { data } => {
                parts.push(json!({ "text": "", "thought": true, "thoughtSignature": signature_out(&data) }));
            }
            ChatEvent::ToolCall {
                index,
                id,
                name,
                arguments,
                signature,
            } => match self.calls.iter_mut().find(|call| call.index == index) {
                Some(call) => call.arguments.push_str(&arguments),
                None => {
                    let signature = signature.or_else(|| self.signature.take());
                    self.calls.push(Call {
                        index,
                        id: id.unwrap_or_else(|| fresh("call_")),
                        name: name.unwrap_or_default(),
                        arguments,
                        signature,
                    });
                }
            },
            ChatEvent::Media { media_type, data } => {
                parts.push(json!({ "inlineData": { "mimeType": media_type, "data": data } }));
            }
            ChatEvent::Finish { reason, .. } => self.finish = Some(reason),
            ChatEvent::Usage { usage } => self.usage = Some(usage),
            ChatEvent::Citation { .. } | ChatEvent::Logprobs { .. } => {}
        }
        Ok(parts)
    }

    fn take_calls(&mut self) -> Result<Vec<Value>, BadAnswer> {
        let calls = std::mem::take(&mut self.calls).into_iter();
        calls
            .map(|call| {
                let arguments = if call.arguments.trim().is_empty() {
                    "{}"
                } else {
                    &call.arguments
                };
                let args: Value =
                    serde_json::from_str(arguments).map_err(|_| BadAnswer::Lacks("whole arguments of a call"))?;
                let mut part = json!({ "functionCall": { "id": call.id, "name": call.name, "args": args } });
                if let Some(signature) = call.signature {
                    part["thoughtSignature"] = signature_out(&signature).into();
                }
                Ok(part)
            })
            .collect()
    }

    fn last(&mut self, mut response: Value) -> Value {
        let reason = match self.finish.unwrap_or(FinishReason::Stop) {
            FinishReason::Stop | FinishReason::ToolCalls => "STOP",
            FinishReason::Length => "MAX_TOKENS",
            FinishReason::ContentFilter => "SAFETY",
            FinishReason::Refusal => "PROHIBITED_CONTENT",
        };
        response["candidates"][0]["finishReason"] = reason.into();
        if let Some(usage) = &self.usage {
            response["usageMetadata"] = usage_object(usage);
        }
        response
    }
}

impl Writer for ContentWriter {
    fn event(&mut self, event: ChatEvent) -> Result<Vec<Bytes>, BadAnswer> {
        let beside = beside(&event);
        let parts = self.parts(event)?;
        if parts.is_empty() && beside.is_none() {
            return Ok(Vec::new());
        }
        let mut response = self.response(parts);
        if let Some((name, value)) = beside {
            response["candidates"][0][name] = value;
        }
        Ok(vec![response.to_string().into()])
    }

    fn end(&mut self) -> Result<Vec<Bytes>, BadAnswer> {
        let parts = self.take_calls()?;
        let response = self.response(parts);
        Ok(vec![self.last(response).to_string().into()])
    }

    fn whole(&mut self, events: Vec<ChatEvent>) -> Result<Bytes, BadAnswer> {
        let mut parts: Vec<Value> = Vec::new();
        let (mut tokens, mut chunks) = (Vec::new(), Vec::new());
        for event in events {
            match event {
                ChatEvent::Logprobs { tokens: more } => tokens.extend(more),
                ChatEvent::Citation { citation } => {
                    chunks.push(json!({ "web": { "uri": citation.url, "title": citation.title } }));
                }
                content => {
                    for part in self.parts(content)? {
                        add(&mut parts, part);
                    }
                }
            }
        }
        parts.extend(self.take_calls()?);
        let mut response = self.response(parts);
        if !tokens.is_empty() {
            response["candidates"][0]["logprobsResult"] = logprobs(&tokens);
        }
        if !chunks.is_empty() {
            response["candidates"][0]["groundingMetadata"] = json!({ "groundingChunks": chunks });
        }
        Ok(self.last(response).to_string().into())
    }
}

/// What an event says beside the content's parts.
fn beside(event: &ChatEvent) -> Option<(&'static str, Value)> {
    match event {
        ChatEvent::Logprobs { tokens } => Some(("logprobsResult", logprobs(tokens))),
        ChatEvent::Citation { citation } => {
            let chunk = json!({ "web": { "uri": citation.url, "title": citation.title } });
            Some(("groundingMetadata", json!({ "groundingChunks": [chunk] })))
        }
        _ => None,
    }
}

/// Adds a part; words continue the words before them.
fn add(parts: &mut Vec<Value>, part: Value) {
    let is_plain = part.get("thoughtSignature").is_none() && part.get("text").is_some();
    let continues = parts
        .last()
        .is_some_and(|last| is_plain && last.get("text").is_some() && last.get("thought") == part.get("thought"));
    match (continues, parts.last_mut().and_then(|last| last.get_mut("text"))) {
        (true, Some(Value::String(text))) => text.push_str(part["text"].as_str().unwrap_or_default()),
        _ => parts.push(part),
    }
}

fn logprobs(tokens: &[TokenLogprob]) -> Value {
    let token = |token: &TokenLogprob| json!({ "token": token.token, "logProbability": token.logprob });
    let tops =
        |chosen: &TokenLogprob| json!({ "candidates": chosen.alternatives.iter().map(token).collect::<Vec<_>>() });
    json!({
        "chosenCandidates": tokens.iter().map(token).collect::<Vec<_>>(),
        "topCandidates": tokens.iter().map(tops).collect::<Vec<_>>(),
    })
}

fn usage_object(usage: &Usage) -> Value {
    json!({
        "promptTokenCount": usage.input_tokens,
        "cachedContentTokenCount": usage.cached_input_tokens,
        "candidatesTokenCount": usage.output_tokens.saturating_sub(usage.reasoning_tokens),
        "thoughtsTokenCount": usage.reasoning_tokens,
        "totalTokenCount": usage.input_tokens + usage.output_tokens,
    })
}
