//! What a provider's responses say.

use serde_json::{Value, json};
use tollgate_types::{
    Usage,
    chat::{ChatEvent, Citation, FinishReason, TokenLogprob},
};

use super::{field, provider::reported, text};
use crate::{
    BadAnswer, ProviderError,
    names::{Names, fresh},
    side::Reader,
};

/// Follows an answer. Its stream has no end of its own but the connection's.
pub(super) struct ContentReader {
    names: Names,
    model: String,
    started: bool,
    calls: u32,
    /// Only the first call is told.
    one_call: bool,
    finished: bool,
    /// The last word on the usage, and whether it was told.
    usage: Option<Usage>,
    told: bool,
    report: Option<Value>,
    /// Searches of the web that were told of.
    searches: usize,
}

impl ContentReader {
    pub(super) fn new(names: Names, model: &str, one_call: bool) -> Self {
        Self {
            names,
            model: model.to_owned(),
            started: false,
            calls: 0,
            one_call,
            finished: false,
            usage: None,
            told: false,
            report: None,
            searches: 0,
        }
    }

    fn read(&mut self, data: &[u8]) -> Result<Vec<ChatEvent>, BadAnswer> {
        if std::str::from_utf8(data).is_err() {
            return Err(BadAnswer::NotUtf8);
        }
        let value: Value = serde_json::from_slice(data).map_err(|_| BadAnswer::NotJson)?;
        let value = match &value {
            Value::Array(list) => list.first().unwrap_or(&value),
            value => value,
        };
        if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
            return Err(BadAnswer::Reported(reported(error)));
        }
        let mut events = Vec::new();
        if !std::mem::replace(&mut self.started, true) {
            events.push(ChatEvent::Start {
                id: text(value, "responseId").unwrap_or_default(),
                model: text(value, "modelVersion").unwrap_or_else(|| self.model.clone()),
            });
        }
        let searched = value.pointer("/candidates/0/groundingMetadata/webSearchQueries");
        self.searches = self
            .searches
            .max(searched.and_then(Value::as_array).map_or(0, Vec::len));
        if let Some((report, usage)) = field(value, "usageMetadata").and_then(|found| Some((found, usage(found)?))) {
            self.usage = Some(usage);
            // How many queries there were, not which.
            let queries = vec![Value::Null; self.searches];
            self.report = Some(json!({
                "usageMetadata": report,
                "modelVersion": field(value, "modelVersion"),
                "candidates": [{ "groundingMetadata": { "webSearchQueries": queries } }],
            }));
        }
        let candidates = field(value, "candidates").and_then(Value::as_array);
        match candidates.and_then(|candidates| candidates.first()) {
            Some(candidate) => self.candidate(candidate, &mut events)?,
            None if field(value, "promptFeedback")
                .and_then(|feedback| field(feedback, "blockReason"))
                .is_some() =>
            {
                self.finish(FinishReason::ContentFilter, &mut events);
            }
            None => {}
        }
        if self.finished
            && !self.told
            && let Some(usage) = self.usage
        {
            self.told = true;
            events.push(ChatEvent::Usage { usage });
        }
        Ok(events)
    }

    fn candidate(&mut self, candidate: &Value, events: &mut Vec<ChatEvent>) -> Result<(), BadAnswer> {
        let parts = field(candidate, "content").and_then(|content| field(content, "parts"));
        for part in parts.and_then(Value::as_array).into_iter().flatten() {
            self.part(part, events);
        }
        let tokens = field(candidate, "logprobsResult").map(logprobs).unwrap_or_default();
        if !tokens.is_empty() {
            events.push(ChatEvent::Logprobs { tokens });
        }
        let grounding = field(candidate, "groundingMetadata").and_then(|found| field(found, "groundingChunks"));
        for chunk in grounding.and_then(Value::as_array).into_iter().flatten() {
            if let Some(web) = field(chunk, "web") {
                let citation = Citation {
                    url: text(web, "uri"),
                    title: text(web, "title"),
                    ..Citation::default()
                };
                events.push(ChatEvent::Citation { citation });
            }
        }
        let reason = match text(candidate, "finishReason").as_deref() {
            None | Some("FINISH_REASON_UNSPECIFIED") => return Ok(()),
            Some("STOP") if self.calls > 0 => FinishReason::ToolCalls,
            Some("STOP") => FinishReason::Stop,
            Some("MAX_TOKENS") => FinishReason::Length,
            Some("MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL") => {
                let message = "the model made a tool call that is not well-formed";
                return Err(BadAnswer::Reported(ProviderError::new(Some(message), None, None)));
            }
            Some(_) => FinishReason::ContentFilter,
        };
        self.finish(reason, events);
        Ok(())
    }

    fn finish(&mut self, reason: FinishReason, events: &mut Vec<ChatEvent>) {
        if !std::mem::replace(&mut self.finished, true) {
            events.push(ChatEvent::Finish {
                reason,
                stop_sequence: None,
            });
        }
    }

    fn part(&mut self, part: &Value, events: &mut Vec<ChatEvent>) {
        let signature = text(part, "thoughtSignature").filter(|signature| !signature.is_empty());
        if let Some(call) = field(part, "functionCall") {
            let index = self.calls;
            self.calls += 1;
            if self.one_call && index > 0 {
                return;
            }
            events.push(ChatEvent::ToolCall {
                index,
                id: Some(
                    text(call, "id")
                        .filter(|id| !id.is_empty())
                        .unwrap_or_else(|| fresh("call_")),
                ),
                name: text(call, "name").map(|name| self.names.client_name(&name)),
                arguments: field(call, "args").map_or_else(|| "{}".to_owned(), Value::to_string),
                signature,
            });
            return;
        }
        let is_thought = field(part, "thought").and_then(Value::as_bool).unwrap_or_default();
        let words = text(part, "text").filter(|text| !text.is_empty());
        match (words, is_thought) {
            (Some(text), true) => {
                events.push(ChatEvent::Reasoning { text });
                events.extend(signature.map(|signature| ChatEvent::ReasoningSignature { signature }));
            }
            (words, _) => {
                // A signature on words stands for reasoning that is not shown.
                events.extend(signature.map(|signature| ChatEvent::ReasoningSignature { signature }));
                events.extend(words.map(|text| ChatEvent::Text { text }));
            }
        }
        if let Some(data) = field(part, "inlineData") {
            events.push(ChatEvent::Media {
                media_type: text(data, "mimeType").unwrap_or_default(),
                data: text(data, "data").unwrap_or_default(),
            });
        }
    }
}

impl Reader for ContentReader {
    fn event(&mut self, data: &[u8]) -> Result<Vec<ChatEvent>, BadAnswer> {
        self.read(data)
    }

    fn whole(&mut self, body: &[u8]) -> Result<Vec<ChatEvent>, BadAnswer> {
        let events = self.read(body)?;
        if !self.finished {
            return Err(BadAnswer::Lacks("a finish reason"));
        }
        Ok(events)
    }

    fn is_done(&self) -> bool {
        false
    }

    fn is_complete(&self) -> bool {
        self.finished
    }

    fn report(&self) -> Option<&Value> {
        self.report.as_ref()
    }

    fn partial_usage(&self) -> Option<Usage> {
        self.usage
    }
}

/// Thoughts are counted beside the answer, what was cached within the prompt.
fn usage(value: &Value) -> Option<Usage> {
    let count = |name: &str| field(value, name).and_then(Value::as_u64);
    let thoughts = count("thoughtsTokenCount").unwrap_or_default();
    let sound = |name: &str| {
        let details = field(value, name).and_then(Value::as_array).into_iter().flatten();
        let audio = details.filter(|detail| text(detail, "modality").as_deref() == Some("AUDIO"));
        audio
            .filter_map(|detail| field(detail, "tokenCount").and_then(Value::as_u64))
            .sum()
    };
    Some(Usage {
        input_tokens: count("promptTokenCount")? + count("toolUsePromptTokenCount").unwrap_or_default(),
        cached_input_tokens: count("cachedContentTokenCount").unwrap_or_default(),
        audio_input_tokens: sound("promptTokensDetails"),
        output_tokens: count("candidatesTokenCount").unwrap_or_default() + thoughts,
        reasoning_tokens: thoughts,
        audio_output_tokens: sound("candidatesTokensDetails"),
        ..Usage::default()
    })
}

fn logprobs(result: &Value) -> Vec<TokenLogprob> {
    let token = |value: &Value| {
        Some(TokenLogprob {
            token: text(value, "token")?,
            logprob: field(value, "logProbability")?.as_f64()?,
            bytes: None,
            alternatives: Vec::new(),
        })
    };
    let list = |name: &str| {
        field(result, name)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let tops = list("topCandidates");
    let alternatives = |place: usize| -> Vec<TokenLogprob> {
        let top = tops
            .get(place)
            .and_then(|top| field(top, "candidates"))
            .and_then(Value::as_array);
        top.into_iter().flatten().filter_map(token).collect()
    };
    let chosen = list("chosenCandidates");
    let chosen = chosen.iter().enumerate().filter_map(|(place, value)| {
        Some(TokenLogprob {
            alternatives: alternatives(place),
            ..token(value)?
        })
    });
    chosen.collect()
}
