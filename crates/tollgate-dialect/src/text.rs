//! Where the human text is in requests and answers, for checks that read or change it.
//!
//! A check sees every string that is not known to be structure, so that a field nobody here has heard of is not a way
//! around it.

use serde_json::{Map, Value, json};
use tollgate_types::Dialect;

/// Fields whose strings are structure, never text.
const STRUCTURE: [&str; 13] = [
    "model",
    "role",
    "type",
    "id",
    "tool_call_id",
    "object",
    "format",
    "detail",
    "data",
    "file_data",
    "finish_reason",
    "reason",
    "system_fingerprint",
];

/// Shows each text of a request or a whole answer to `check`, which may change it.
pub fn visit(value: &mut Value, check: &mut dyn FnMut(&mut String)) {
    match value {
        Value::String(text) => check(text),
        Value::Array(items) => items.iter_mut().for_each(|item| visit(item, check)),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(_) if STRUCTURE.contains(&name.as_str()) => {}
                    Value::String(url) if name == "url" && url.starts_with("data:") => {}
                    Value::String(json) if name == "arguments" => visit_nested(json, check),
                    other => visit(other, check),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// JSON inside a string: its own texts are checked without their escapes, and it is written anew only when one changed.
pub fn visit_nested(json: &mut String, check: &mut dyn FnMut(&mut String)) {
    let Ok(mut inner @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str::<Value>(json) else {
        return check(json);
    };
    let mut changed = false;
    visit(&mut inner, &mut |text| {
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
    /// Index of the choice.
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
}

/// Shows each piece of text in one frame of a stream to `check`, with the slot that it continues.
pub fn visit_frame(dialect: Dialect, frame: &mut Value, check: &mut dyn FnMut(Slot, &mut String)) {
    match dialect {
        Dialect::OpenaiChat => {
            for choice in frame
                .get_mut("choices")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                let index = choice.get("index").and_then(Value::as_u64).unwrap_or_default();
                if let Some(delta) = choice.get_mut("delta").and_then(Value::as_object_mut) {
                    visit_delta(index, delta, check);
                }
            }
        }
        Dialect::Native => {
            let kind = frame.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
            let (field, kind) = match kind.as_str() {
                "text" | "refusal" | "reasoning" => ("text", SlotKind::Text(kind)),
                "tool_call" => {
                    let index = frame.get("index").and_then(Value::as_u64).unwrap_or_default();
                    ("arguments", SlotKind::Arguments(index))
                }
                _ => return,
            };
            if let Some(Value::String(text)) = frame.get_mut(field) {
                check(Slot { choice: 0, kind }, text);
            }
        }
    }
}

fn visit_delta(choice: u64, delta: &mut Map<String, Value>, check: &mut dyn FnMut(Slot, &mut String)) {
    for (name, field) in delta {
        match field {
            Value::String(text) if name != "role" => {
                check(
                    Slot {
                        choice,
                        kind: SlotKind::Text(name.clone()),
                    },
                    text,
                );
            }
            Value::Array(calls) if name == "tool_calls" => {
                for (place, call) in calls.iter_mut().enumerate() {
                    let index = call.get("index").and_then(Value::as_u64).unwrap_or(place as u64);
                    if let Some(Value::String(text)) = call.pointer_mut("/function/arguments") {
                        check(
                            Slot {
                                choice,
                                kind: SlotKind::Arguments(index),
                            },
                            text,
                        );
                    }
                }
            }
            _ => {}
        }
    }
}

/// The choices that a frame says are finished.
#[must_use]
pub fn finished(dialect: Dialect, frame: &Value) -> Vec<u64> {
    match dialect {
        Dialect::OpenaiChat => frame
            .get("choices")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter(|choice| choice.get("finish_reason").is_some_and(|reason| !reason.is_null()))
            .map(|choice| choice.get("index").and_then(Value::as_u64).unwrap_or_default())
            .collect(),
        Dialect::Native if frame.get("type").is_some_and(|kind| kind == "finish") => vec![0],
        Dialect::Native => Vec::new(),
    }
}

/// A frame that carries `text` for `slot` and nothing else; what frames have in common is taken from `like`.
#[must_use]
pub fn frame_with(dialect: Dialect, like: &Value, slot: &Slot, text: String) -> Value {
    match (dialect, &slot.kind) {
        (Dialect::Native, SlotKind::Text(kind)) => json!({ "type": kind, "text": text }),
        (Dialect::Native, SlotKind::Arguments(index)) => {
            json!({ "type": "tool_call", "index": index, "arguments": text })
        }
        (Dialect::OpenaiChat, kind) => {
            let delta = match kind {
                SlotKind::Text(name) => Map::from_iter([(name.clone(), text.into())]).into(),
                SlotKind::Arguments(index) => {
                    json!({ "tool_calls": [{ "index": index, "function": { "arguments": text } }] })
                }
            };
            let mut frame = like.as_object().cloned().unwrap_or_default();
            let choice = json!({ "index": slot.choice, "delta": delta, "finish_reason": null });
            frame.insert("choices".to_owned(), json!([choice]));
            frame.shift_remove("usage");
            frame.into()
        }
    }
}

#[cfg(test)]
mod tests {
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
