//! The native dialect: the superset model itself, as JSON.

use bytes::Bytes;
use serde_json::{Value, json};
use tollgate_types::{
    Operation, RequestView,
    chat::{ChatEvent, ChatRequest},
    embed::{EmbedRequest, EmbedResponse},
};

use crate::{
    BadAnswer, Invalid,
    scan::first_look,
    side::Writer,
    text::{self, Slot, SlotKind},
};

fn not_a_request(error: &serde_json::Error) -> Invalid {
    Invalid::new(format!("not a request: {error}"))
}

pub(crate) fn read(body: &[u8]) -> Result<ChatRequest, Invalid> {
    serde_json::from_slice(body).map_err(|error| not_a_request(&error))
}

pub(crate) fn read_embed(body: &[u8]) -> Result<EmbedRequest, Invalid> {
    serde_json::from_slice(body).map_err(|error| not_a_request(&error))
}

pub(crate) fn view(body: &[u8]) -> Result<RequestView, Invalid> {
    let scan = first_look(body)?;
    let request = read(body)?;
    Ok(RequestView {
        operation: Operation::Chat,
        model: request.model,
        stream: request.stream,
        // The native answer always ends with its usage.
        include_usage: true,
        estimated_input_tokens: scan.estimated_tokens(),
        max_output_tokens: request.max_output_tokens,
        answers: 1,
    })
}

pub(crate) fn view_embed(body: &[u8]) -> Result<RequestView, Invalid> {
    let scan = first_look(body)?;
    Ok(RequestView {
        operation: Operation::Embed,
        model: read_embed(body)?.model,
        stream: false,
        include_usage: true,
        estimated_input_tokens: scan.estimated_tokens(),
        max_output_tokens: Some(0),
        answers: 1,
    })
}

/// A writer of answers: each event is a frame, a whole answer is an array of them.
pub(crate) fn writer() -> Box<dyn Writer> {
    Box::new(Events)
}

/// Vectors as they are.
pub(crate) fn write_embed(answer: &EmbedResponse) -> Bytes {
    serde_json::to_vec(answer).unwrap_or_default().into()
}

/// A count as an object.
pub(crate) fn write_count(tokens: u64) -> Bytes {
    json!({ "input_tokens": tokens }).to_string().into()
}

struct Events;

impl Writer for Events {
    fn event(&mut self, event: ChatEvent) -> Result<Vec<Bytes>, BadAnswer> {
        let frame = serde_json::to_vec(&event).map_err(|_| BadAnswer::NotJson)?;
        Ok(vec![frame.into()])
    }

    fn end(&mut self) -> Result<Vec<Bytes>, BadAnswer> {
        Ok(Vec::new())
    }

    fn whole(&mut self, events: Vec<ChatEvent>) -> Result<Bytes, BadAnswer> {
        serde_json::to_vec(&events)
            .map(Bytes::from)
            .map_err(|_| BadAnswer::NotJson)
    }
}

/// Shows the text of one event to `check`.
pub(crate) fn visit(frame: &mut Value, check: &mut dyn FnMut(Slot, &mut String)) {
    let kind = frame.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let (field, kind) = match kind.as_str() {
        "text" | "refusal" | "reasoning" => ("text", SlotKind::Text(kind)),
        "tool_call" => {
            let index = frame.get("index").and_then(Value::as_u64).unwrap_or_default();
            ("arguments", SlotKind::Arguments(index))
        }
        "citation" => {
            let slot = Slot {
                choice: 0,
                kind: SlotKind::Whole,
            };
            return text::visit(frame, &mut |text| check(slot.clone(), text));
        }
        _ => return,
    };
    if let Some(Value::String(text)) = frame.get_mut(field) {
        check(Slot { choice: 0, kind }, text);
    }
}

/// The one choice, when the event ends it.
pub(crate) fn finished(frame: &Value) -> Vec<u64> {
    match frame.get("type") {
        Some(kind) if kind == "finish" => vec![0],
        _ => Vec::new(),
    }
}

/// An event that carries `text` for `slot`.
pub(crate) fn with(slot: &Slot, text: String) -> Value {
    match &slot.kind {
        SlotKind::Text(kind) => json!({ "type": kind, "text": text }),
        SlotKind::Arguments(index) => json!({ "type": "tool_call", "index": index, "arguments": text }),
        SlotKind::Whole => Value::Null,
    }
}
