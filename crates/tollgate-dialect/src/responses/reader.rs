//! A provider's answer, streamed or whole.
//!
//! The same text comes up to four times in a stream: in deltas, and then whole in the events that end the text, its part,
//! its item and the response. It is read from the first of them; the later ones only fill in what was missing.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;
use tollgate_types::{
    Usage,
    chat::{ChatEvent, FinishReason},
};

use super::{
    citation,
    fields::{HOSTED, list, logprob, number, report, response_of},
    provider::reported,
    sealed::Sealed,
};
use crate::{BadAnswer, ProviderError, names::Names, side::Reader};

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Text,
    Refusal,
    Summary,
    Reasoning,
    Arguments,
    Logprobs,
}

/// What is known of an item of the output.
#[derive(Default)]
struct Item {
    /// The index of the call that it is.
    call: Option<u32>,
    /// Which parts have been read, if only in pieces.
    said: HashSet<(Kind, u64)>,
    /// How many annotations of each part have been read.
    cited: HashMap<u64, usize>,
    done: bool,
}

/// A part of an item.
#[derive(Clone, Copy)]
struct Place {
    item: u64,
    part: u64,
    kind: Kind,
}

pub(super) struct ResponseReader {
    names: Names,
    /// Whether the request was ours, so that nothing can come that we did not ask for.
    translated: bool,
    started: bool,
    done: bool,
    items: BTreeMap<u64, Item>,
    /// Output indices by item id.
    ids: HashMap<String, u64>,
    calls: u32,
    /// Signatures that travel beside their calls, by call id.
    call_signatures: HashMap<String, String>,
    refused: bool,
    /// Whether the last words were reasoning that nothing has ended.
    in_reasoning: bool,
    searches: u64,
    partial: Option<Usage>,
    report: Option<Value>,
    /// What the event being read says.
    out: Vec<ChatEvent>,
}

impl ResponseReader {
    pub(super) fn new(names: Names) -> Self {
        Self {
            names,
            translated: false,
            started: false,
            done: false,
            items: BTreeMap::new(),
            ids: HashMap::new(),
            calls: 0,
            call_signatures: HashMap::new(),
            refused: false,
            in_reasoning: false,
            searches: 0,
            partial: None,
            report: None,
            out: Vec::new(),
        }
    }

    /// A reader of the answer to a request that we wrote.
    pub(super) fn translated(names: Names) -> Self {
        Self {
            translated: true,
            ..Self::new(names)
        }
    }

    fn read(&mut self, kind: &str, event: &Value) -> Result<(), BadAnswer> {
        match kind {
            "response.created" | "response.in_progress" | "response.queued" => self.start(response_of(event)?),
            "response.output_item.added" => self.added(number(event, "output_index"), &event["item"]),
            "response.output_item.done" => self.item(number(event, "output_index"), &event["item"]),
            "response.content_part.done" => self.part(
                number(event, "output_index"),
                number(event, "content_index"),
                &event["part"],
            ),
            "response.output_text.annotation.added" => {
                let (item, part) = (number(event, "output_index"), number(event, "content_index"));
                self.cite(item, part, number(event, "annotation_index"), &event["annotation"])
            }
            "response.completed" | "response.incomplete" => {
                let response = response_of(event)?;
                self.start(response)?;
                self.finish(response, kind == "response.incomplete")
            }
            "response.failed" | "response.cancelled" => Err(self.failed(&event["response"])),
            "error" => {
                let error = event.get("error").filter(|error| error.is_object());
                Err(BadAnswer::Reported(reported(error.unwrap_or(event))))
            }
            _ => self.words(kind, event),
        }
    }

    /// A delta, or the end of a text. Events of other kinds tell how the provider's own tools get on.
    fn words(&mut self, event: &str, fields: &Value) -> Result<(), BadAnswer> {
        let (kind, index, whole) = match event {
            "response.output_text.delta" | "response.output_text.done" => (Kind::Text, "content_index", "text"),
            "response.refusal.delta" | "response.refusal.done" => (Kind::Refusal, "content_index", "refusal"),
            "response.reasoning_summary_text.delta" | "response.reasoning_summary_text.done" => {
                (Kind::Summary, "summary_index", "text")
            }
            "response.reasoning_text.delta" | "response.reasoning_text.done" => {
                (Kind::Reasoning, "content_index", "text")
            }
            "response.function_call_arguments.delta" | "response.function_call_arguments.done" => {
                (Kind::Arguments, "content_index", "arguments")
            }
            _ => return Ok(()),
        };
        let place = Place {
            item: number(fields, "output_index"),
            part: number(fields, index),
            kind,
        };
        if event.ends_with(".delta") {
            let delta = fields["delta"].as_str().ok_or(BadAnswer::Lacks("a delta's text"))?;
            self.say(place, delta)?;
            self.logprobs(place, fields);
        } else if let Some(text) = fields[whole].as_str() {
            self.catch_up(place, text)?;
            self.catch_up_logprobs(place, fields);
        }
        Ok(())
    }

    fn start(&mut self, response: &Value) -> Result<(), BadAnswer> {
        if self.started {
            return Ok(());
        }
        let text = |name: &str| response[name].as_str().map(str::to_owned);
        let start = ChatEvent::Start {
            id: text("id").ok_or(BadAnswer::Lacks("an id"))?,
            model: text("model").ok_or(BadAnswer::Lacks("a model"))?,
        };
        self.out.push(start);
        self.started = true;
        Ok(())
    }

    fn say(&mut self, place: Place, text: &str) -> Result<(), BadAnswer> {
        if text.is_empty() {
            return Ok(());
        }
        self.must_have_started()?;
        let item = self.items.entry(place.item).or_default();
        if place.kind == Kind::Arguments && item.call.is_none() {
            // The item that ends the call has them again, with its name.
            return Ok(());
        }
        let begins = item.said.insert((place.kind, place.part));
        let call = item.call;
        let in_reasoning = std::mem::take(&mut self.in_reasoning);
        let text = text.to_owned();
        self.out.push(match place.kind {
            Kind::Text | Kind::Logprobs => ChatEvent::Text { text },
            Kind::Refusal => {
                self.refused = true;
                ChatEvent::Refusal { text }
            }
            Kind::Summary | Kind::Reasoning => {
                self.in_reasoning = true;
                let text = if begins && in_reasoning {
                    format!("\n\n{text}")
                } else {
                    text
                };
                ChatEvent::Reasoning { text }
            }
            Kind::Arguments => ChatEvent::ToolCall {
                index: call.unwrap_or_default(),
                id: None,
                name: None,
                arguments: text,
                signature: None,
            },
        });
        Ok(())
    }

    /// A text that is whole: said, unless it has been in pieces.
    fn catch_up(&mut self, place: Place, text: &str) -> Result<(), BadAnswer> {
        let said = self.items.get(&place.item).map(|item| &item.said);
        if said.is_some_and(|said| said.contains(&(place.kind, place.part))) {
            return Ok(());
        }
        self.say(place, text)
    }

    fn logprobs(&mut self, place: Place, fields: &Value) {
        let tokens: Vec<_> = list(fields, "logprobs")
            .filter_map(|token| logprob(token, true))
            .collect();
        if place.kind == Kind::Text && !tokens.is_empty() {
            let item = self.items.entry(place.item).or_default();
            item.said.insert((Kind::Logprobs, place.part));
            self.out.push(ChatEvent::Logprobs { tokens });
        }
    }

    fn catch_up_logprobs(&mut self, place: Place, fields: &Value) {
        let item = self.items.entry(place.item).or_default();
        if !item.said.contains(&(Kind::Logprobs, place.part)) {
            self.logprobs(place, fields);
        }
    }

    fn cite(&mut self, item: u64, part: u64, index: u64, annotation: &Value) -> Result<(), BadAnswer> {
        self.must_have_started()?;
        let cited = self.items.entry(item).or_default().cited.entry(part).or_default();
        if index as usize >= *cited {
            *cited = (index as usize).saturating_add(1);
            let citation = citation::read(annotation);
            self.out
                .extend(citation.map(|citation| ChatEvent::Citation { citation }));
        }
        Ok(())
    }

    fn added(&mut self, index: u64, item: &Value) -> Result<(), BadAnswer> {
        self.remember(index, item)?;
        if item["type"] == "function_call" {
            self.call(index, item)?;
        }
        Ok(())
    }

    fn must_have_started(&self) -> Result<(), BadAnswer> {
        if self.started {
            Ok(())
        } else {
            Err(BadAnswer::Misplaced("content before the start"))
        }
    }

    fn remember(&mut self, index: u64, item: &Value) -> Result<(), BadAnswer> {
        self.must_have_started()?;
        self.items.entry(index).or_default();
        if let Some(id) = item["id"].as_str() {
            self.ids.entry(id.to_owned()).or_insert(index);
        }
        Ok(())
    }

    /// The first piece of a call, unless it has come.
    fn call(&mut self, index: u64, item: &Value) -> Result<(), BadAnswer> {
        let known = &mut self.items.entry(index).or_default().call;
        if known.is_some() {
            return Ok(());
        }
        let id = item["call_id"].as_str().ok_or(BadAnswer::Lacks("a call's id"))?;
        let name = item["name"].as_str().ok_or(BadAnswer::Lacks("a call's name"))?;
        *known = Some(self.calls);
        self.in_reasoning = false;
        self.out.push(ChatEvent::ToolCall {
            index: self.calls,
            id: Some(id.to_owned()),
            name: Some(self.names.client_name(name)),
            arguments: String::new(),
            signature: self.call_signatures.remove(id),
        });
        self.calls += 1;
        Ok(())
    }

    /// A whole item: what of it has not been read yet.
    fn item(&mut self, index: u64, item: &Value) -> Result<(), BadAnswer> {
        self.remember(index, item)?;
        let known = self.items.entry(index).or_default();
        if std::mem::replace(&mut known.done, true) {
            return Ok(());
        }
        match item["type"].as_str() {
            Some("message") => {
                for (part, content) in (0..).zip(list(item, "content")) {
                    self.part(index, part, content)?;
                }
                Ok(())
            }
            Some("reasoning") => self.reasoning(index, item),
            Some("function_call") => {
                self.call(index, item)?;
                let place = Place {
                    item: index,
                    part: 0,
                    kind: Kind::Arguments,
                };
                self.catch_up(place, item["arguments"].as_str().unwrap_or_default())
            }
            Some("image_generation_call") => {
                if let Some(data) = item["result"].as_str() {
                    let format = item["output_format"].as_str().unwrap_or("png");
                    self.out.push(ChatEvent::Media {
                        media_type: format!("image/{format}"),
                        data: data.to_owned(),
                    });
                }
                Ok(())
            }
            Some("web_search_call") => {
                // Opening a page that was found is not a search.
                let action = item.pointer("/action/type").and_then(Value::as_str);
                self.searches += u64::from(action.is_none_or(|action| action == "search"));
                Ok(())
            }
            Some(kind) if self.translated && !HOSTED.contains(&kind) => {
                Err(BadAnswer::Misplaced("an item of a kind that was not asked for"))
            }
            None if self.translated => Err(BadAnswer::Lacks("an item's type")),
            _ => Ok(()),
        }
    }

    fn part(&mut self, item: u64, part: u64, content: &Value) -> Result<(), BadAnswer> {
        let (kind, field) = match content["type"].as_str() {
            Some("output_text") => (Kind::Text, "text"),
            Some("refusal") => (Kind::Refusal, "refusal"),
            Some("reasoning_text") => (Kind::Reasoning, "text"),
            _ if self.translated => return Err(BadAnswer::Misplaced("a part of a kind that was not asked for")),
            _ => return Ok(()),
        };
        let place = Place { item, part, kind };
        let text = content[field].as_str().ok_or(BadAnswer::Lacks("a part's text"))?;
        self.catch_up(place, text)?;
        self.catch_up_logprobs(place, content);
        for (index, annotation) in (0..).zip(list(content, "annotations")) {
            self.cite(item, part, index, annotation)?;
        }
        Ok(())
    }

    fn reasoning(&mut self, index: u64, item: &Value) -> Result<(), BadAnswer> {
        for (field, kind) in [("summary", Kind::Summary), ("content", Kind::Reasoning)] {
            for (part, content) in (0..).zip(list(item, field)) {
                let text = content["text"]
                    .as_str()
                    .ok_or(BadAnswer::Lacks("the text of reasoning"))?;
                let place = Place {
                    item: index,
                    part,
                    kind,
                };
                self.catch_up(place, text)?;
            }
        }
        let Some(content) = item["encrypted_content"].as_str() else {
            return Ok(());
        };
        self.in_reasoning = false;
        match Sealed::read(item["id"].as_str().unwrap_or_default(), content) {
            Sealed::Signature(signature) => self.out.push(ChatEvent::ReasoningSignature { signature }),
            Sealed::Redacted(data) => self.out.push(ChatEvent::RedactedReasoning { data }),
            Sealed::Call { call_id, signature } => {
                self.call_signatures.insert(call_id, signature);
            }
        }
        Ok(())
    }

    /// The whole response: what of it has not been read yet, and how it ended.
    fn finish(&mut self, response: &Value, incomplete: bool) -> Result<(), BadAnswer> {
        let incomplete = match response["status"].as_str() {
            None => incomplete,
            Some("completed") => false,
            Some("incomplete") => true,
            Some("failed" | "cancelled") => return Err(self.failed(response)),
            Some(_) => return Err(BadAnswer::Misplaced("an end before the end")),
        };
        for (index, item) in (0..).zip(list(response, "output")) {
            let known = item["id"].as_str().and_then(|id| self.ids.get(id).copied());
            self.item(known.unwrap_or(index), item)?;
        }
        let filtered = response.pointer("/incomplete_details/reason").and_then(Value::as_str) == Some("content_filter");
        let reason = match (incomplete, filtered) {
            (true, true) => FinishReason::ContentFilter,
            (true, false) => FinishReason::Length,
            (false, _) if self.calls > 0 => FinishReason::ToolCalls,
            (false, _) if self.refused => FinishReason::Refusal,
            (false, _) => FinishReason::Stop,
        };
        self.out.push(ChatEvent::Finish {
            reason,
            stop_sequence: None,
        });
        let usage = self.usage(response);
        self.report = Some(report(response));
        self.out.extend(usage.map(|usage| ChatEvent::Usage { usage }));
        self.done = true;
        Ok(())
    }

    /// What a response that failed says, and what it used up to then.
    fn failed(&mut self, response: &Value) -> BadAnswer {
        self.partial = self.usage(response);
        self.report = Some(report(response));
        BadAnswer::Reported(match response.get("error") {
            Some(error) if !error.is_null() => reported(error),
            _ => ProviderError::new(Some("the provider gave up on the response"), None, None),
        })
    }

    fn usage(&self, response: &Value) -> Option<Usage> {
        let usage = response.get("usage").filter(|usage| usage.is_object())?;
        let count = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64);
        let searches = response.pointer("/tool_usage/web_search/num_requests");
        Some(Usage {
            input_tokens: count("/input_tokens").unwrap_or_default(),
            cached_input_tokens: count("/input_tokens_details/cached_tokens").unwrap_or_default(),
            cache_write_input_tokens: count("/input_tokens_details/cache_write_tokens").unwrap_or_default(),
            audio_input_tokens: count("/input_tokens_details/audio_tokens").unwrap_or_default(),
            output_tokens: count("/output_tokens").unwrap_or_default(),
            reasoning_tokens: count("/output_tokens_details/reasoning_tokens").unwrap_or_default(),
            audio_output_tokens: count("/output_tokens_details/audio_tokens").unwrap_or_default(),
            web_searches: searches.and_then(Value::as_u64).unwrap_or(self.searches),
            ..Usage::default()
        })
    }
}

impl Reader for ResponseReader {
    fn event(&mut self, data: &[u8]) -> Result<Vec<ChatEvent>, BadAnswer> {
        // Some servers end their stream as OpenAI's older dialect does.
        if self.done || data.trim_ascii() == b"[DONE]" {
            return Ok(Vec::new());
        }
        let event: Value = serde_json::from_slice(data).map_err(|_| BadAnswer::NotJson)?;
        match (event["type"].as_str(), event.get("error")) {
            (Some(kind), _) => self.read(kind, &event)?,
            (None, Some(error)) if !error.is_null() => return Err(BadAnswer::Reported(reported(error))),
            (None, _) => return Err(BadAnswer::Lacks("an event's type")),
        }
        Ok(std::mem::take(&mut self.out))
    }

    fn whole(&mut self, body: &[u8]) -> Result<Vec<ChatEvent>, BadAnswer> {
        let response: Value = serde_json::from_slice(body).map_err(|_| BadAnswer::NotJson)?;
        if response.get("error").is_some_and(|error| !error.is_null()) {
            return Err(self.failed(&response));
        }
        if !response["output"].is_array() {
            return Err(BadAnswer::Lacks("output"));
        }
        self.start(&response)?;
        self.finish(&response, false)?;
        Ok(std::mem::take(&mut self.out))
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn is_complete(&self) -> bool {
        self.done
    }

    fn report(&self) -> Option<&Value> {
        self.report.as_ref()
    }

    fn partial_usage(&self) -> Option<Usage> {
        self.partial
    }
}
