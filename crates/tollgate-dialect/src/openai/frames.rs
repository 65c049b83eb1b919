//! Where the text is in the chunks of a stream.

use serde_json::{Map, Value, json};

use crate::text::{self, Slot, SlotKind};

fn choices(chunk: &Value) -> impl Iterator<Item = &Value> {
    chunk.get("choices").and_then(Value::as_array).into_iter().flatten()
}

fn index(choice: &Value) -> u64 {
    choice.get("index").and_then(Value::as_u64).unwrap_or_default()
}

/// Shows each piece of text in one chunk to `check`, with the slot that it continues.
pub(crate) fn visit(chunk: &mut Value, check: &mut dyn FnMut(Slot, &mut String)) {
    let choices = chunk.get_mut("choices").and_then(Value::as_array_mut);
    for choice in choices.into_iter().flatten() {
        let index = index(choice);
        if let Some(delta) = choice.get_mut("delta").and_then(Value::as_object_mut) {
            visit_delta(index, delta, check);
        }
    }
}

fn visit_delta(choice: u64, delta: &mut Map<String, Value>, check: &mut dyn FnMut(Slot, &mut String)) {
    for (name, field) in delta {
        match field {
            Value::String(text) if name != "role" => {
                let kind = SlotKind::Text(name.clone());
                check(Slot { choice, kind }, text);
            }
            Value::Array(calls) if name == "tool_calls" => {
                for (place, call) in calls.iter_mut().enumerate() {
                    let index = call.get("index").and_then(Value::as_u64).unwrap_or(place as u64);
                    if let Some(Value::String(text)) = call.pointer_mut("/function/arguments") {
                        let kind = SlotKind::Arguments(index);
                        check(Slot { choice, kind }, text);
                    }
                }
            }
            // Blocks of reasoning, annotations.
            other => text::visit(other, &mut |text| {
                let kind = SlotKind::Whole;
                check(Slot { choice, kind }, text);
            }),
        }
    }
}

/// The choices that the chunk says are finished.
pub(crate) fn finished(chunk: &Value) -> Vec<u64> {
    choices(chunk)
        .filter(|choice| choice.get("finish_reason").is_some_and(|reason| !reason.is_null()))
        .map(index)
        .collect()
}

/// A chunk that carries `text` for `slot` and nothing else; what chunks have in common is taken from `like`.
pub(crate) fn with(like: &Value, slot: &Slot, text: String) -> Value {
    let delta = match &slot.kind {
        SlotKind::Whole => Value::Null,
        SlotKind::Text(name) => Map::from_iter([(name.clone(), text.into())]).into(),
        SlotKind::Arguments(index) => {
            json!({ "tool_calls": [{ "index": index, "function": { "arguments": text } }] })
        }
    };
    let mut chunk = like.as_object().cloned().unwrap_or_default();
    let choice = json!({ "index": slot.choice, "delta": delta, "finish_reason": null });
    chunk.insert("choices".to_owned(), json!([choice]));
    chunk.shift_remove("usage");
    chunk.into()
}
