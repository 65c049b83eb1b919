//! Where the text is in the events of a stream.

use serde_json::{Value, json};

use crate::text::{self, Slot, SlotKind};

fn index(frame: &Value) -> u64 {
    frame.get("index").and_then(Value::as_u64).unwrap_or_default()
}

/// The fields of deltas that are text, by the delta's type.
const DELTAS: [(&str, &str); 3] = [
    ("text_delta", "text"),
    ("thinking_delta", "thinking"),
    ("input_json_delta", "partial_json"),
];

/// Shows each piece of text in one event to `check`, with the slot that it continues.
pub(crate) fn visit(frame: &mut Value, check: &mut dyn FnMut(Slot, &mut String)) {
    let choice = index(frame);
    let whole = |value: &mut Value, check: &mut dyn FnMut(Slot, &mut String)| {
        text::visit(value, &mut |text| {
            let kind = SlotKind::Whole;
            check(Slot { choice, kind }, text);
        });
    };
    match frame.get("type").and_then(Value::as_str) {
        Some("content_block_delta") => {
            let Some(delta) = frame.get_mut("delta") else { return };
            let kind = delta.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
            let Some((_, field)) = DELTAS.iter().find(|(known, _)| *known == kind) else {
                return whole(delta, check);
            };
            if let Some(Value::String(text)) = delta.get_mut(*field) {
                let kind = match *field {
                    "partial_json" => SlotKind::Arguments(choice),
                    _ => SlotKind::Text(kind),
                };
                check(Slot { choice, kind }, text);
            }
        }
        Some("content_block_start") => {
            if let Some(block) = frame.get_mut("content_block") {
                whole(block, check);
            }
        }
        Some("message_start") => {
            if let Some(content) = frame.pointer_mut("/message/content") {
                whole(content, check);
            }
        }
        _ => {}
    }
}

/// The block that the event says is finished.
pub(crate) fn finished(frame: &Value) -> Vec<u64> {
    match frame.get("type").and_then(Value::as_str) {
        Some("content_block_stop") => vec![index(frame)],
        _ => Vec::new(),
    }
}

/// An event that carries `text` for `slot` and nothing else.
pub(crate) fn with(_like: &Value, slot: &Slot, text: String) -> Value {
    let delta = match &slot.kind {
        SlotKind::Arguments(_) => json!({ "type": "input_json_delta", "partial_json": text }),
        SlotKind::Text(kind) if kind == "thinking_delta" => json!({ "type": kind, "thinking": text }),
        SlotKind::Text(_) | SlotKind::Whole => json!({ "type": "text_delta", "text": text }),
    };
    json!({ "type": "content_block_delta", "index": slot.choice, "delta": delta })
}
