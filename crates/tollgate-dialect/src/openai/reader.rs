//! What a provider's chunks and bodies say.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_types::{
    Usage,
    chat::{ChatEvent, Citation, FinishReason, Media, Span, SpanUnit, TokenLogprob},
};

use super::{DONE, provider::reported};
use crate::{BadAnswer, names::Names, side::Reader};

#[derive(Deserialize)]
struct Wire {
    id: Option<String>,
    model: Option<String>,
    choices: Option<Vec<Choice>>,
    usage: Option<Value>,
    service_tier: Option<Value>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    #[serde(alias = "message")]
    delta: Option<Delta>,
    logprobs: Option<WireLogprobs>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
    tool_calls: Option<Vec<WireToolCall>>,
    annotations: Option<Vec<Value>>,
    images: Option<Vec<Value>>,
    audio: Option<Value>,
}

#[derive(Deserialize)]
struct WireToolCall {
    index: Option<u32>,
    id: Option<String>,
    function: Option<WireFunction>,
    extra_content: Option<Value>,
}

#[derive(Deserialize)]
struct WireFunction {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct WireLogprobs {
    content: Option<Vec<WireLogprob>>,
}

#[derive(Deserialize)]
struct WireLogprob {
    token: String,
    logprob: f64,
    bytes: Option<Vec<u8>>,
    #[serde(default)]
    top_logprobs: Vec<WireLogprob>,
}

impl From<WireLogprob> for TokenLogprob {
    fn from(wire: WireLogprob) -> Self {
        Self {
            token: wire.token,
            logprob: wire.logprob,
            bytes: wire.bytes,
            alternatives: wire.top_logprobs.into_iter().map(Into::into).collect(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<InputDetails>,
    #[serde(default)]
    completion_tokens_details: Option<OutputDetails>,
    /// DeepSeek's name for what was read from its cache.
    prompt_cache_hit_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
struct InputDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
    audio_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
struct OutputDetails {
    reasoning_tokens: Option<u64>,
    audio_tokens: Option<u64>,
}

impl WireUsage {
    /// Of a call that has no answer to count: embeddings.
    pub(super) fn read_input(self) -> Option<Usage> {
        Some(Usage {
            input_tokens: self.prompt_tokens?,
            ..Usage::default()
        })
    }

    /// None unless both counts are there: half a usage is no usage.
    fn read(self) -> Option<Usage> {
        let input = self.prompt_tokens_details.unwrap_or_default();
        let output = self.completion_tokens_details.unwrap_or_default();
        let cached = input.cached_tokens.or(self.prompt_cache_hit_tokens);
        Some(Usage {
            input_tokens: self.prompt_tokens?,
            output_tokens: self.completion_tokens?,
            cached_input_tokens: cached.unwrap_or_default(),
            cache_write_input_tokens: input.cache_write_tokens.unwrap_or_default(),
            audio_input_tokens: input.audio_tokens.unwrap_or_default(),
            reasoning_tokens: output.reasoning_tokens.unwrap_or_default(),
            audio_output_tokens: output.audio_tokens.unwrap_or_default(),
            ..Usage::default()
        })
    }
}

/// Follows an answer. Of several choices all are told, for a client of this dialect may have asked for them.
pub(super) struct ChatReader {
    names: Names,
    started: bool,
    done: bool,
    /// Whether each choice that was seen is finished.
    finished: BTreeMap<u32, bool>,
    report: Option<Value>,
}

impl ChatReader {
    pub(super) fn new(names: Names) -> Self {
        Self {
            names,
            started: false,
            done: false,
            finished: BTreeMap::new(),
            report: None,
        }
    }

    fn read(&mut self, data: &[u8]) -> Result<Vec<ChatEvent>, BadAnswer> {
        if std::str::from_utf8(data).is_err() {
            return Err(BadAnswer::NotUtf8);
        }
        let wire: Wire = serde_json::from_slice(data).map_err(|_| BadAnswer::NotJson)?;
        if let Some(error) = wire.error.filter(|error| !error.is_null()) {
            return Err(BadAnswer::Reported(reported(&error)));
        }
        let mut events = Vec::new();
        if let Some(choices) = wire.choices {
            if !std::mem::replace(&mut self.started, true) {
                events.push(ChatEvent::Start {
                    id: wire.id.unwrap_or_default(),
                    model: wire.model.unwrap_or_default(),
                });
            }
            for choice in choices {
                self.choice(choice, &mut events);
            }
        }
        if let Some(usage) = wire.usage.filter(|usage| !usage.is_null()) {
            let known = WireUsage::deserialize(&usage).map_err(|_| BadAnswer::NotJson)?;
            events.extend(known.read().map(|usage| ChatEvent::Usage { usage }));
            self.report = Some(json!({ "usage": usage, "service_tier": wire.service_tier }));
        }
        Ok(events)
    }

    fn choice(&mut self, choice: Choice, events: &mut Vec<ChatEvent>) {
        if let Some(delta) = choice.delta {
            self.delta(delta, events);
        }
        let tokens = choice
            .logprobs
            .and_then(|logprobs| logprobs.content)
            .unwrap_or_default();
        if !tokens.is_empty() {
            let tokens = tokens.into_iter().map(Into::into).collect();
            events.push(ChatEvent::Logprobs { tokens });
        }
        let finished = self.finished.entry(choice.index).or_default();
        if let Some(reason) = choice.finish_reason
            && !std::mem::replace(finished, true)
        {
            events.push(ChatEvent::Finish {
                reason: finish(&reason),
                stop_sequence: None,
            });
        }
    }

    fn delta(&self, delta: Delta, events: &mut Vec<ChatEvent>) {
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        let reasoning = filled(delta.reasoning_content).or(filled(delta.reasoning));
        events.extend(reasoning.map(|text| ChatEvent::Reasoning { text }));
        events.extend(filled(delta.content).map(|text| ChatEvent::Text { text }));
        events.extend(filled(delta.refusal).map(|text| ChatEvent::Refusal { text }));
        for (place, call) in delta.tool_calls.into_iter().flatten().enumerate() {
            let (name, arguments) = call.function.map_or((None, None), |f| (f.name, f.arguments));
            let signature = call.extra_content.as_ref();
            let signature = signature.and_then(|extra| extra.pointer("/google/thought_signature"));
            events.push(ChatEvent::ToolCall {
                index: call.index.unwrap_or(u32::try_from(place).unwrap_or(u32::MAX)),
                id: filled(call.id),
                name: filled(name).map(|name| self.names.client_name(&name)),
                arguments: arguments.unwrap_or_default(),
                signature: signature.and_then(Value::as_str).map(str::to_owned),
            });
        }
        events.extend(delta.annotations.iter().flatten().filter_map(citation));
        events.extend(delta.images.iter().flatten().filter_map(image));
        let spoken = delta
            .audio
            .as_ref()
            .and_then(|audio| audio.get("data"))
            .and_then(Value::as_str);
        events.extend(spoken.map(|data| ChatEvent::Media {
            media_type: "audio/*".to_owned(),
            data: data.to_owned(),
        }));
    }
}

impl Reader for ChatReader {
    fn event(&mut self, data: &[u8]) -> Result<Vec<ChatEvent>, BadAnswer> {
        if data == DONE {
            self.done = true;
            return Ok(Vec::new());
        }
        self.read(data)
    }

    fn whole(&mut self, body: &[u8]) -> Result<Vec<ChatEvent>, BadAnswer> {
        let events = self.read(body)?;
        if self.finished.is_empty() {
            return Err(BadAnswer::Lacks("choices"));
        }
        Ok(events)
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn report(&self) -> Option<&Value> {
        self.report.as_ref()
    }

    fn is_complete(&self) -> bool {
        !self.finished.is_empty() && self.finished.values().all(|finished| *finished)
    }
}

fn finish(reason: &str) -> FinishReason {
    match reason {
        "length" => FinishReason::Length,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::ContentFilter,
        _ => FinishReason::Stop,
    }
}

fn citation(annotation: &Value) -> Option<ChatEvent> {
    let cited = annotation.get("url_citation")?;
    let text = |name: &str| cited.get(name).and_then(Value::as_str).map(str::to_owned);
    let place = |name: &str| cited.get(name).and_then(Value::as_u64);
    let span = place("start_index").zip(place("end_index"));
    Some(ChatEvent::Citation {
        citation: Citation {
            url: text("url"),
            title: text("title"),
            quote: text("content"),
            answer: span.map(|(start, end)| Span {
                unit: SpanUnit::Character,
                start,
                end,
            }),
            ..Citation::default()
        },
    })
}

fn image(image: &Value) -> Option<ChatEvent> {
    match Media::from_url(image.pointer("/image_url/url")?.as_str()?) {
        Media::Inline { media_type, data } => Some(ChatEvent::Media { media_type, data }),
        Media::Url { .. } | Media::Uploaded { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &[u8] = br#"{"id":"c1","model":"m-1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null,"x":1.10}"#;
    const LAST: &[u8] = br#"{"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

    #[test]
    fn a_stream_that_closes_before_its_finish_is_not_complete() {
        let mut broken = ChatReader::new(Names::default());
        broken.event(FIRST).unwrap();
        assert!(!broken.is_complete());
        broken.event(DONE).unwrap();
        assert!(broken.is_done() && !broken.is_complete());
        broken.event(LAST).unwrap();
        assert!(broken.is_complete());
    }

    #[test]
    fn all_choices_must_finish() {
        let mut reader = ChatReader::new(Names::default());
        reader
            .event(
                br#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"},{"index":1,"delta":{"content":"x"}}]}"#,
            )
            .unwrap();
        assert!(!reader.is_complete());
    }

    #[test]
    fn an_error_inside_a_stream_is_an_error() {
        let said =
            ChatReader::new(Names::default()).event(br#"{"error":{"message":"overloaded","type":"server_error"}}"#);
        assert!(matches!(said, Err(BadAnswer::Reported(said)) if said.message == "overloaded"));
    }

    #[test]
    fn half_a_usage_is_none() {
        let usage = |json: &str| serde_json::from_str::<WireUsage>(json).unwrap().read();
        assert_eq!(usage(r#"{"prompt_tokens":5}"#), None);
        let whole = usage(r#"{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":3}}"#);
        assert_eq!(
            whole.map(|usage| (usage.input_tokens, usage.cached_input_tokens)),
            Some((5, 3))
        );
    }
}
