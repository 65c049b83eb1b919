//! Answers: what a whole one and the events of a stream have in common.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tollgate_types::{
    ErrorCode,
    chat::{self, ChatEvent, FinishReason, Span, SpanUnit},
};

use super::{error::error, measured::Measured, stream::Stream};
use crate::{
    BadAnswer, ProviderError,
    names::{Names, fresh},
    side::Reader,
};

/// Reads the answer to one request.
pub(super) struct ConverseReader {
    model: String,
    assembly: Assembly,
    stream: Stream,
    report: Option<Value>,
}

impl ConverseReader {
    /// `answer` is the tool whose arguments are the answer.
    pub(super) fn new(model: &str, names: Names, answer: Option<String>) -> Self {
        Self {
            model: model.to_owned(),
            assembly: Assembly {
                names,
                answer,
                answered: false,
                calls: 0,
                held: Vec::new(),
            },
            stream: Stream::default(),
            report: None,
        }
    }
}

impl ConverseReader {
    fn note(&mut self, measured: Option<Measured>, events: &mut Vec<ChatEvent>) -> Result<(), BadAnswer> {
        if let Some((event, report)) = measured.map_or(Ok(None), Measured::read)? {
            events.push(event);
            self.report = Some(report);
        }
        Ok(())
    }
}

impl Reader for ConverseReader {
    fn event(&mut self, data: &[u8]) -> Result<Vec<ChatEvent>, BadAnswer> {
        let mut events = Vec::new();
        let measured = self.stream.event(data, &self.model, &mut self.assembly, &mut events)?;
        self.note(measured, &mut events)?;
        Ok(events)
    }

    fn whole(&mut self, body: &[u8]) -> Result<Vec<ChatEvent>, BadAnswer> {
        let whole: Whole = parse(body)?;
        let Some(output) = whole.output else {
            // Services of AWS may answer with an error that has the status of a success.
            return Err(match error(body) {
                error if error.code.is_some() => BadAnswer::Reported(error),
                _ => BadAnswer::Lacks("its output"),
            });
        };
        let message = output.message.ok_or(BadAnswer::Lacks("its message"))?;
        let mut events = vec![start(&self.model)];
        for block in message.content {
            block.read(&mut self.assembly, &mut events)?;
        }
        let reason = whole.stop_reason.ok_or(BadAnswer::Lacks("why the model stopped"))?;
        let extra = whole.additional_model_response_fields.as_ref();
        self.assembly.finish(&reason, extra, &mut events)?;
        let measured = Measured {
            usage: whole.usage,
            service_tier: whole.service_tier,
        };
        self.note(Some(measured), &mut events)?;
        Ok(events)
    }

    fn is_done(&self) -> bool {
        self.stream.is_done()
    }

    fn is_complete(&self) -> bool {
        self.stream.is_complete()
    }

    fn report(&self) -> Option<&Value> {
        self.report.as_ref()
    }
}

/// Converse gives answers no id.
pub(super) fn start(model: &str) -> ChatEvent {
    ChatEvent::Start {
        id: fresh("msg_"),
        model: model.to_owned(),
    }
}

/// JSON of the shape that is expected.
pub(super) fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, BadAnswer> {
    serde_json::from_slice(json).map_err(|error| {
        if error.is_data() {
            BadAnswer::Lacks("a field, or has it in another form")
        } else {
            BadAnswer::NotJson
        }
    })
}

/// Makes events of blocks.
pub(super) struct Assembly {
    names: Names,
    answer: Option<String>,
    answered: bool,
    calls: u32,
    /// What the model says before it calls the tool whose arguments are the answer: no part of the answer then.
    held: Vec<ChatEvent>,
}

/// Where the arguments of a call go.
#[derive(Clone, Copy)]
pub(super) enum Slot {
    Call(u32),
    Answer,
}

impl Assembly {
    /// Text, or a citation of it.
    pub(super) fn say(&mut self, event: ChatEvent, events: &mut Vec<ChatEvent>) {
        if matches!(&event, ChatEvent::Text { text } if text.is_empty()) {
            return;
        }
        if self.answer.is_some() {
            self.held.push(event);
        } else {
            events.push(event);
        }
    }

    pub(super) fn call(
        &mut self,
        call: Call,
        arguments: String,
        events: &mut Vec<ChatEvent>,
    ) -> Result<Slot, BadAnswer> {
        if call.kind.is_some() {
            return Err(BadAnswer::Misplaced("a call of a tool of the provider's own"));
        }
        if self.answer.as_ref() == Some(&call.name) {
            if std::mem::replace(&mut self.answered, true) {
                return Err(BadAnswer::Misplaced("a second answer"));
            }
            self.held.clear();
            arguments_of(Slot::Answer, arguments, events);
            return Ok(Slot::Answer);
        }
        events.append(&mut self.held);
        let index = self.calls;
        self.calls += 1;
        events.push(ChatEvent::ToolCall {
            index,
            id: Some(call.tool_use_id),
            name: Some(self.names.client_name(&call.name)),
            arguments,
            signature: None,
        });
        Ok(Slot::Call(index))
    }

    pub(super) fn finish(
        &mut self,
        reason: &str,
        extra: Option<&Value>,
        events: &mut Vec<ChatEvent>,
    ) -> Result<(), BadAnswer> {
        if self.answered {
            self.held.clear();
        }
        events.append(&mut self.held);
        let reason = match reason {
            // Some models stop so after a call too, and what called only for the answer called for nothing.
            "end_turn" | "tool_use" if self.calls > 0 => FinishReason::ToolCalls,
            "end_turn" | "tool_use" | "stop_sequence" => FinishReason::Stop,
            "max_tokens" | "model_context_window_exceeded" => FinishReason::Length,
            "guardrail_intervened" | "content_filtered" => FinishReason::ContentFilter,
            "refusal" => FinishReason::Refusal,
            "malformed_model_output" | "malformed_tool_use" => {
                let message = "the model's output was malformed";
                let error = ProviderError::new(Some(message), Some(reason), Some(ErrorCode::ProviderError));
                return Err(BadAnswer::Reported(error));
            }
            _ => return Err(BadAnswer::Misplaced("an unknown reason to stop")),
        };
        let stop_sequence = extra
            .and_then(|extra| extra.get("stop_sequence"))
            .and_then(Value::as_str)
            .map(str::to_owned);
        events.push(ChatEvent::Finish { reason, stop_sequence });
        Ok(())
    }
}

/// More arguments of a call.
pub(super) fn arguments_of(slot: Slot, arguments: String, events: &mut Vec<ChatEvent>) {
    if arguments.is_empty() {
        return;
    }
    events.push(match slot {
        Slot::Answer => ChatEvent::Text { text: arguments },
        Slot::Call(index) => ChatEvent::ToolCall {
            index,
            id: None,
            name: None,
            arguments,
            signature: None,
        },
    });
}

/// The beginning of a call.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Call {
    pub(super) tool_use_id: String,
    pub(super) name: String,
    /// Absent for tools of the client's.
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Whole {
    output: Option<Output>,
    stop_reason: Option<String>,
    usage: Option<Value>,
    service_tier: Option<Value>,
    additional_model_response_fields: Option<Value>,
}

#[derive(Deserialize)]
struct Output {
    message: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    content: Vec<Block>,
}

/// A block of a whole answer; one of its fields is there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    text: Option<String>,
    tool_use: Option<WholeCall>,
    reasoning_content: Option<Reasoning>,
    citations_content: Option<Cited>,
    image: Option<Media>,
    audio: Option<Media>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WholeCall {
    tool_use_id: String,
    name: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    input: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reasoning {
    reasoning_text: Option<ReasoningText>,
    redacted_content: Option<String>,
}

#[derive(Deserialize)]
struct ReasoningText {
    text: String,
    signature: Option<String>,
}

#[derive(Deserialize)]
struct Cited {
    #[serde(default)]
    content: Vec<Text>,
    #[serde(default)]
    citations: Vec<Citation>,
}

#[derive(Deserialize)]
pub(super) struct Text {
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
struct Media {
    format: String,
    source: Option<Source>,
}

#[derive(Deserialize)]
pub(super) struct Source {
    pub(super) bytes: Option<String>,
}

impl Block {
    fn read(self, assembly: &mut Assembly, events: &mut Vec<ChatEvent>) -> Result<(), BadAnswer> {
        match self {
            Self { text: Some(text), .. } => assembly.say(ChatEvent::Text { text }, events),
            Self {
                tool_use: Some(call), ..
            } => {
                let arguments = call.input.as_ref().map_or("{}", |input| input.get()).to_owned();
                let call = Call {
                    tool_use_id: call.tool_use_id,
                    name: call.name,
                    kind: call.kind,
                };
                assembly.call(call, arguments, events)?;
            }
            Self {
                reasoning_content: Some(reasoning),
                ..
            } => reasoning.read(events)?,
            Self {
                citations_content: Some(cited),
                ..
            } => {
                let text = cited.content.into_iter().map(|part| part.text).collect();
                assembly.say(ChatEvent::Text { text }, events);
                for citation in cited.citations {
                    assembly.say(citation.event(), events);
                }
            }
            Self { image: Some(media), .. } => events.push(media.event("image")?),
            Self { audio: Some(media), .. } => events.push(media.event("audio")?),
            _ => return Err(BadAnswer::Misplaced("content of an unknown kind")),
        }
        Ok(())
    }
}

impl Reasoning {
    fn read(self, events: &mut Vec<ChatEvent>) -> Result<(), BadAnswer> {
        if let Some(data) = self.redacted_content {
            events.push(ChatEvent::RedactedReasoning { data });
            return Ok(());
        }
        let ReasoningText { text, signature } = self.reasoning_text.ok_or(BadAnswer::Lacks("its reasoning"))?;
        if !text.is_empty() {
            events.push(ChatEvent::Reasoning { text });
        }
        let signature = signature.filter(|signature| !signature.is_empty());
        events.extend(signature.map(|signature| ChatEvent::ReasoningSignature { signature }));
        Ok(())
    }
}

impl Media {
    fn event(self, kind: &str) -> Result<ChatEvent, BadAnswer> {
        let data = self.source.and_then(|source| source.bytes);
        Ok(ChatEvent::Media {
            media_type: format!("{kind}/{}", self.format),
            data: data.ok_or(BadAnswer::Lacks("the bytes of what the model made"))?,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Citation {
    title: Option<String>,
    source: Option<String>,
    #[serde(default)]
    source_content: Vec<Text>,
    location: Option<Location>,
}

/// One of its fields is there. A place in search results of the prompt is none that we can tell.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    web: Option<Web>,
    document_char: Option<Stretch>,
    document_page: Option<Stretch>,
    document_chunk: Option<Stretch>,
}

#[derive(Deserialize)]
struct Web {
    url: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stretch {
    document_index: Option<u64>,
    #[serde(default)]
    start: u64,
    #[serde(default)]
    end: u64,
}

impl Citation {
    pub(super) fn event(self) -> ChatEvent {
        let quote: String = self.source_content.into_iter().map(|part| part.text).collect();
        let mut citation = chat::Citation {
            title: self.title,
            quote: Some(quote).filter(|quote| !quote.is_empty()),
            ..chat::Citation::default()
        };
        let stretch = self.location.and_then(|location| {
            citation.url = location.web.and_then(|web| web.url);
            let character = location.document_char.map(|stretch| (SpanUnit::Character, stretch));
            let page = || location.document_page.map(|stretch| (SpanUnit::Page, stretch));
            let chunk = || location.document_chunk.map(|stretch| (SpanUnit::Block, stretch));
            character.or_else(page).or_else(chunk)
        });
        if let Some((unit, stretch)) = stretch {
            citation.document = stretch.document_index;
            citation.source = Some(Span {
                unit,
                start: stretch.start,
                end: stretch.end,
            });
        }
        match self.source {
            Some(source) if citation.url.is_none() && source.contains("://") => citation.url = Some(source),
            Some(source) if citation.title.is_none() => citation.title = Some(source),
            _ => {}
        }
        ChatEvent::Citation { citation }
    }
}
