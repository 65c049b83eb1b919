//! Where the human text is in requests and answers, for checks that read or change it.
//!
//! A check sees every string that is not known to be structure, so that a field nobody here has heard of is not a way
//! around it.

use serde_json::Value;
use tollgate_types::Dialect;

use crate::{anthropic, gemini, native, openai, responses};

/// Fields whose strings are structure, never text.
const STRUCTURE: [&str; 27] = [
    "call_id",
    "data",
    "detail",
    "encrypted_content",
    "file_data",
    "file_id",
    "finishReason",
    "finish_reason",
    "format",
    "id",
    "item_id",
    "media_type",
    "mimeType",
    "model",
    "modelVersion",
    "object",
    "previous_response_id",
    "reason",
    "responseId",
    "role",
    "signature",
    "status",
    "stop_reason",
    "system_fingerprint",
    "thoughtSignature",
    "tool_call_id",
    "tool_use_id",
];

/// Shows each text of a request or a whole answer to `check`, which may change it.
pub fn visit(value: &mut Value, check: &mut dyn FnMut(&mut String)) {
    match value {
        Value::String(text) => check(text),
        Value::Array(items) => items.iter_mut().for_each(|item| visit(item, check)),
        Value::Object(fields) => {
            let is_event = fields.contains_key("sequence_number");
            for (name, field) in fields {
                match (name.as_str(), field) {
                    // What a tool is called with, or answers, has names of its own choice.
                    ("arguments", Value::String(json)) => visit_nested(json, check),
                    ("arguments" | "args", free) | ("input", free @ Value::Object(_)) => visit_free(free, check),
                    ("response", free @ Value::Object(_)) if !is_event => visit_free(free, check),
                    ("type", Value::String(_)) => {}
                    (name, Value::String(_)) if STRUCTURE.contains(&name) => {}
                    ("url" | "image_url", Value::String(url)) if url.starts_with("data:") => {}
                    (_, other) => visit(other, check),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Shows every string to `check`: nothing here is structure.
fn visit_free(value: &mut Value, check: &mut dyn FnMut(&mut String)) {
    match value {
        Value::String(text) => check(text),
        Value::Array(items) => items.iter_mut().for_each(|item| visit_free(item, check)),
        Value::Object(fields) => fields.values_mut().for_each(|field| visit_free(field, check)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Takes out what tells the text once more where no check can follow it: token by token.
pub fn withhold_tokens(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(withhold_tokens),
        Value::Object(fields) => {
            for (name, field) in fields {
                match name.as_str() {
                    "logprobs" if field.is_array() => *field = Value::Array(Vec::new()),
                    "logprobs" | "logprobsResult" if field.is_object() => *field = Value::Null,
                    _ => withhold_tokens(field),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// JSON inside a string: its own texts are checked without their escapes, and it is written anew only when one changed.
pub fn visit_nested(json: &mut String, check: &mut dyn FnMut(&mut String)) {
    let Ok(mut inner @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str::<Value>(json) else {
        return check(json);
    };
    let mut changed = false;
    visit_free(&mut inner, &mut |text| {
        let before = text.clone();
        check(text);
        changed |= *text != before;
    });
    if changed {
        *json = inner.to_string();
    }
}

/// Which of the texts that stream side by side.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Index of the choice, or of the block.
    pub choice: u64,
    pub kind: SlotKind,
}

/// The field that a text streams in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SlotKind {
    /// Content, refusal, reasoning: a field of the delta (OpenAI) or a type of event (native).
    Text(String),
    /// Arguments of the tool call with this index: JSON text.
    Arguments(u64),
    /// A text that is complete in itself: what a closing event repeats, what is not streamed in pieces.
    Whole,
}

/// Shows each piece of text in one frame of a stream to `check`, with the slot that it continues. A text that a frame
/// repeats whole, as some closing events do, is shown as [`visit`] shows it.
pub fn visit_frame(dialect: Dialect, frame: &mut Value, check: &mut dyn FnMut(Slot, &mut String)) {
    match dialect {
        Dialect::OpenaiChat => openai::frames::visit(frame, check),
        Dialect::OpenaiResponses => responses::frames::visit(frame, check),
        Dialect::Anthropic => anthropic::frames::visit(frame, check),
        Dialect::Gemini => gemini::frames::visit(frame, check),
        Dialect::Native | Dialect::Bedrock => native::visit(frame, check),
    }
}

/// The choices or blocks that a frame says are finished.
#[must_use]
pub fn finished(dialect: Dialect, frame: &Value) -> Vec<u64> {
    match dialect {
        Dialect::OpenaiChat => openai::frames::finished(frame),
        Dialect::OpenaiResponses => responses::frames::finished(frame),
        Dialect::Anthropic => anthropic::frames::finished(frame),
        Dialect::Gemini => gemini::frames::finished(frame),
        Dialect::Native | Dialect::Bedrock => native::finished(frame),
    }
}

/// A frame that carries `text` for `slot` and nothing else; `like` is the last that carried some for it.
#[must_use]
pub fn frame_with(dialect: Dialect, like: &Value, slot: &Slot, text: String) -> Value {
    match dialect {
        Dialect::OpenaiChat => openai::frames::with(like, slot, text),
        Dialect::OpenaiResponses => responses::frames::with(like, slot, text),
        Dialect::Anthropic => anthropic::frames::with(like, slot, text),
        Dialect::Gemini => gemini::frames::with(like, slot, text),
        Dialect::Native | Dialect::Bedrock => native::with(slot, text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(mut value: Value) -> Vec<String> {
        let mut found = Vec::new();
        visit(&mut value, &mut |text| found.push(text.clone()));
        found
    }

    #[test]
    fn every_text_is_seen_and_no_structure() {
        let request = json!({
            "model": "m@x.org", "user": "u", "x_unknown": { "deep": ["d"] },
            "messages": [
                { "role": "user", "content": "a" },
                { "role": "user", "content": [
                    { "type": "text", "text": "b" },
                    { "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } },
                    { "type": "image_url", "image_url": { "url": "https://h/?q=c" } },
                    { "type": "file", "file": { "filename": "f", "file_data": "data:application/pdf;base64,AAAA" } } ] },
                { "role": "assistant", "tool_calls": [
                    { "id": "i", "type": "function", "function": { "name": "n", "arguments": "{\"to\":\"e\\u0040x\"}" } } ] }
            ]
        });
        assert_eq!(texts(request), ["u", "d", "a", "b", "https://h/?q=c", "f", "n", "e@x"]);
    }

    #[test]
    fn nested_json_stays_as_it_is_unless_a_text_in_it_changes() {
        let mut same = r#"{ "a" : "b" }"#.to_owned();
        visit_nested(&mut same, &mut |_| {});
        assert_eq!(same, r#"{ "a" : "b" }"#);
        visit_nested(&mut same, &mut |text| text.push('!'));
        assert_eq!(same, r#"{"a":"b!"}"#);
    }

    #[test]
    fn frames_say_which_text_they_continue() {
        let mut frame = json!({ "id": "c", "choices": [
            { "index": 1, "delta": { "content": "x", "tool_calls": [{ "index": 2, "function": { "arguments": "{" } }] },
              "finish_reason": "stop" }], "usage": null });
        let mut seen = Vec::new();
        visit_frame(Dialect::OpenaiChat, &mut frame, &mut |slot, text| {
            seen.push((slot, text.clone()))
        });
        let content = Slot {
            choice: 1,
            kind: SlotKind::Text("content".to_owned()),
        };
        assert_eq!(seen[0], (content.clone(), "x".to_owned()));
        assert_eq!(seen[1].0.kind, SlotKind::Arguments(2));
        assert_eq!(finished(Dialect::OpenaiChat, &frame), [1]);
        let made = frame_with(Dialect::OpenaiChat, &frame, &content, "y".to_owned());
        assert_eq!(
            made,
            json!({ "id": "c", "choices": [{ "index": 1, "delta": { "content": "y" }, "finish_reason": null }] })
        );
    }
}
