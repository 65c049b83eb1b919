//! Answers: what a chunk or a whole body says, and the frames that the client gets for it.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tollgate_types::{
    Dialect, RequestView, Usage,
    chat::{ChatEvent, FinishReason},
};

use crate::{BadAnswer, ProviderError, Summary, Tally};

/// The `data` of the event that ends a stream.
const DONE: &[u8] = b"[DONE]";

#[derive(Deserialize)]
struct Wire {
    id: Option<String>,
    model: Option<String>,
    choices: Option<Vec<Choice>>,
    usage: Option<WireUsage>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    #[serde(alias = "message")]
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    #[serde(alias = "reasoning")]
    reasoning_content: Option<String>,
    tool_calls: Option<Vec<WireToolCall>>,
}

#[derive(Deserialize)]
struct WireToolCall {
    index: Option<u32>,
    id: Option<String>,
    function: Option<WireFunction>,
}

#[derive(Deserialize)]
struct WireFunction {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<InputDetails>,
    completion_tokens_details: Option<OutputDetails>,
}

#[derive(Deserialize)]
struct InputDetails {
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct OutputDetails {
    reasoning_tokens: Option<u64>,
}

impl WireUsage {
    /// None unless both counts are there: half a usage is no usage.
    fn read(&self) -> Option<Usage> {
        Some(Usage {
            input_tokens: self.prompt_tokens?,
            output_tokens: self.completion_tokens?,
            cached_input_tokens: self
                .prompt_tokens_details
                .as_ref()
                .and_then(|details| details.cached_tokens)
                .unwrap_or_default(),
            reasoning_tokens: self
                .completion_tokens_details
                .as_ref()
                .and_then(|details| details.reasoning_tokens)
                .unwrap_or_default(),
        })
    }
}

type MakeEvent = fn(String) -> ChatEvent;

/// Follows an answer of OpenAI's dialect and makes the client's frames of it.
pub struct AnswerReader {
    client: Dialect,
    include_usage: bool,
    started: bool,
    finished: bool,
    done: bool,
    summary: Summary,
    tally: Tally,
}

impl AnswerReader {
    /// A reader for the answer to a request that a client made in the dialect `client`.
    #[must_use]
    pub fn new(client: Dialect, view: &RequestView) -> Self {
        Self {
            client,
            include_usage: view.include_usage,
            started: false,
            finished: false,
            done: false,
            summary: Summary::default(),
            tally: Tally::default(),
        }
    }

    /// The frames for one event of the stream; `data` is the event's data.
    pub fn event(&mut self, data: &[u8]) -> Result<Vec<Bytes>, BadAnswer> {
        if data == DONE {
            self.done = true;
            self.summary.complete = self.finished;
            return Ok(Vec::new());
        }
        let (wire, events) = self.read(data)?;
        match self.client {
            Dialect::Native => Ok(events
                .iter()
                .filter_map(|event| serde_json::to_vec(event).ok())
                .map(Into::into)
                .collect()),
            Dialect::OpenaiChat => {
                let only_usage = wire.choices.as_ref().is_none_or(Vec::is_empty) && wire.usage.is_some();
                if self.include_usage || !only_usage {
                    Ok(vec![if self.include_usage {
                        Bytes::copy_from_slice(data)
                    } else {
                        without_usage(data)?
                    }])
                } else {
                    Ok(Vec::new())
                }
            }
        }
    }

    /// The single frame for an answer that is not streamed.
    pub fn whole(&mut self, body: &[u8]) -> Result<Bytes, BadAnswer> {
        let (wire, events) = self.read(body)?;
        if wire.choices.as_ref().is_none_or(Vec::is_empty) {
            return Err(BadAnswer::Lacks("choices"));
        }
        self.summary.complete = true;
        match self.client {
            Dialect::OpenaiChat => Ok(Bytes::copy_from_slice(body)),
            Dialect::Native => serde_json::to_vec(&events)
                .map(Bytes::from)
                .map_err(|_| BadAnswer::NotJson),
        }
    }

    /// Whether the stream has said that nothing more follows.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.done
    }

    /// The connection closed. Some servers end a stream without `[DONE]`; a finished answer is complete all the same.
    pub const fn closed(&mut self) {
        self.summary.complete = self.finished;
    }

    /// What is known so far.
    #[must_use]
    pub const fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Tokens of what has arrived, by our own count.
    pub fn counted_output(&mut self) -> u64 {
        self.tally.tokens()
    }

    fn read(&mut self, data: &[u8]) -> Result<(Wire, Vec<ChatEvent>), BadAnswer> {
        if std::str::from_utf8(data).is_err() {
            return Err(BadAnswer::NotUtf8);
        }
        let wire: Wire = serde_json::from_slice(data).map_err(|_| BadAnswer::NotJson)?;
        if let Some(error) = &wire.error
            && !error.is_null()
        {
            return Err(BadAnswer::Reported(reported(error)));
        }
        let mut events = Vec::new();
        if !self.started && wire.choices.is_some() {
            self.started = true;
            self.summary.served_model.clone_from(&wire.model);
            events.push(ChatEvent::Start {
                id: wire.id.clone().unwrap_or_default(),
                model: wire.model.clone().unwrap_or_default(),
            });
        }
        for choice in wire.choices.iter().flatten() {
            self.read_choice(choice, &mut events);
        }
        if let Some(usage) = wire.usage.as_ref().and_then(WireUsage::read) {
            self.summary.usage = Some(usage);
            events.push(ChatEvent::Usage { usage });
        }
        Ok((wire, events))
    }

    fn read_choice(&mut self, choice: &Choice, events: &mut Vec<ChatEvent>) {
        // The native dialect has one choice; a client of OpenAI's gets all of them as they are.
        let tell = choice.index == 0;
        let mut say = |event| {
            if tell {
                events.push(event);
            }
        };
        if let Some(delta) = &choice.delta {
            let texts: [(_, MakeEvent); 3] = [
                (&delta.reasoning_content, |text| ChatEvent::Reasoning { text }),
                (&delta.content, |text| ChatEvent::Text { text }),
                (&delta.refusal, |text| ChatEvent::Refusal { text }),
            ];
            for (text, event) in texts {
                if let Some(text) = text.as_ref().filter(|text| !text.is_empty()) {
                    self.tally.add(text);
                    say(event(text.clone()));
                }
            }
            for (place, call) in delta.tool_calls.iter().flatten().enumerate() {
                let function = call.function.as_ref();
                let arguments = function
                    .and_then(|function| function.arguments.clone())
                    .unwrap_or_default();
                self.tally.add(&arguments);
                say(ChatEvent::ToolCall {
                    index: call.index.unwrap_or(u32::try_from(place).unwrap_or(u32::MAX)),
                    id: call.id.clone(),
                    name: function.and_then(|function| function.name.clone()),
                    arguments,
                });
            }
        }
        if let Some(reason) = &choice.finish_reason {
            self.finished = true;
            say(ChatEvent::Finish { reason: finish(reason) });
        }
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

/// The chunk without the `usage` that only we asked for.
fn without_usage(data: &[u8]) -> Result<Bytes, BadAnswer> {
    let mut chunk: serde_json::Map<String, Value> = serde_json::from_slice(data).map_err(|_| BadAnswer::NotJson)?;
    if chunk.shift_remove("usage").is_none() {
        return Ok(Bytes::copy_from_slice(data));
    }
    serde_json::to_vec(&chunk)
        .map(Bytes::from)
        .map_err(|_| BadAnswer::NotJson)
}

/// What an error body says; its own text when it is not of the usual shape.
#[must_use]
pub fn error_body(body: &[u8]) -> ProviderError {
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => reported(value.get("error").unwrap_or(&value)),
        Err(_) => ProviderError {
            message: "the provider gave no readable reason".to_owned(),
            code: None,
        },
    }
}

fn reported(error: &Value) -> ProviderError {
    let text = |name: &str| error.get(name).and_then(Value::as_str).map(str::to_owned);
    let message = text("message").or_else(|| error.as_str().map(str::to_owned));
    let mut message = message.unwrap_or_else(|| "the provider gave no reason".to_owned());
    if let Some((end, _)) = message.char_indices().nth(2000) {
        message.truncate(end);
    }
    ProviderError {
        message,
        code: text("code").or_else(|| text("type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(client: Dialect, include_usage: bool) -> AnswerReader {
        AnswerReader::new(
            client,
            &RequestView {
                model: "m".to_owned(),
                stream: true,
                include_usage,
                estimated_input_tokens: 0,
                max_output_tokens: None,
            },
        )
    }

    const FIRST: &[u8] = br#"{"id":"c1","model":"m-1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null,"x":1.10}"#;
    const TEXT: &[u8] = br#"{"id":"c1","choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]}"#;
    const LAST: &[u8] = br#"{"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    const USAGE: &[u8] = br#"{"id":"c1","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":3}}}"#;

    #[test]
    fn a_usage_that_only_we_asked_for_stays_here() {
        let mut reader = reader(Dialect::OpenaiChat, false);
        let frames: Vec<_> = [FIRST, TEXT, LAST, USAGE, DONE]
            .iter()
            .flat_map(|d| reader.event(d).unwrap())
            .collect();
        assert_eq!(frames.len(), 3);
        assert!(
            frames
                .iter()
                .all(|frame| !String::from_utf8_lossy(frame).contains("usage"))
        );
        assert_eq!(frames[1], TEXT);
        let usage = reader.summary().usage.unwrap();
        assert_eq!(
            (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens),
            (5, 3, 2)
        );
        assert!(reader.summary().complete && reader.is_done());
        assert_eq!(reader.counted_output(), 1);
    }

    #[test]
    fn a_usage_that_was_asked_for_goes_through_as_it_is() {
        let mut reader = reader(Dialect::OpenaiChat, true);
        let frames: Vec<_> = [FIRST, USAGE].iter().flat_map(|d| reader.event(d).unwrap()).collect();
        assert_eq!(frames, [FIRST, USAGE]);
    }

    #[test]
    fn a_stream_that_closes_before_its_finish_is_not_complete() {
        let mut broken = reader(Dialect::OpenaiChat, false);
        broken.event(FIRST).unwrap();
        broken.closed();
        assert!(!broken.summary().complete);
        let mut done_only = reader(Dialect::OpenaiChat, false);
        done_only.event(DONE).unwrap();
        assert!(!done_only.summary().complete);
    }

    #[test]
    fn an_error_inside_a_stream_is_an_error() {
        let error = reader(Dialect::OpenaiChat, false)
            .event(br#"{"error":{"message":"overloaded","type":"server_error"}}"#)
            .unwrap_err();
        assert!(matches!(error, BadAnswer::Reported(said) if said.message == "overloaded"));
    }

    #[test]
    fn native_clients_get_events() {
        let mut reader = reader(Dialect::Native, false);
        let frames: Vec<_> = [FIRST, TEXT, LAST, USAGE]
            .iter()
            .flat_map(|d| reader.event(d).unwrap())
            .collect();
        let texts: Vec<_> = frames
            .iter()
            .map(|frame| String::from_utf8_lossy(frame).into_owned())
            .collect();
        assert_eq!(texts[0], r#"{"type":"start","id":"c1","model":"m-1"}"#);
        assert_eq!(texts[1], r#"{"type":"text","text":"hello"}"#);
        assert_eq!(texts[2], r#"{"type":"finish","reason":"stop"}"#);
        assert!(texts[3].contains(r#""input_tokens":5"#));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(data in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut reader = reader(Dialect::OpenaiChat, false);
            let _ = reader.event(&data);
            let _ = reader.whole(&data);
            let _ = error_body(&data);
        }
    }
}
