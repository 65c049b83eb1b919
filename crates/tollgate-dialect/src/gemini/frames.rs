//! Where the text is in the responses of a stream.

use serde_json::{Value, json};

use crate::text::{self, Slot, SlotKind};

/// The two texts that stream side by side.
const TEXT: &str = "text";
const THOUGHT: &str = "thought";

fn index(candidate: &Value) -> u64 {
    candidate.get("index").and_then(Value::as_u64).unwrap_or_default()
}

/// Shows each piece of text in one response to `check`, with the slot that it continues. Calls come whole.
pub(crate) fn visit(frame: &mut Value, check: &mut dyn FnMut(Slot, &mut String)) {
    let candidates = frame.get_mut("candidates").and_then(Value::as_array_mut);
    for candidate in candidates.into_iter().flatten() {
        let choice = index(candidate);
        if let Some(parts) = candidate.pointer_mut("/content/parts").and_then(Value::as_array_mut) {
            for part in parts {
                visit_part(choice, part, check);
            }
        }
        for beside in ["groundingMetadata", "citationMetadata"] {
            if let Some(beside) = candidate.get_mut(beside) {
                whole(choice, beside, check);
            }
        }
    }
}

fn visit_part(choice: u64, part: &mut Value, check: &mut dyn FnMut(Slot, &mut String)) {
    let is_thought = part.get(THOUGHT) == Some(&Value::Bool(true));
    match part.get_mut(TEXT) {
        Some(Value::String(text)) => {
            let kind = SlotKind::Text(if is_thought { THOUGHT } else { TEXT }.to_owned());
            check(Slot { choice, kind }, text);
        }
        _ => whole(choice, part, check),
    }
}

fn whole(choice: u64, value: &mut Value, check: &mut dyn FnMut(Slot, &mut String)) {
    text::visit(value, &mut |text| {
        let kind = SlotKind::Whole;
        check(Slot { choice, kind }, text);
    });
}

/// The candidates that the response says are finished.
pub(crate) fn finished(frame: &Value) -> Vec<u64> {
    let candidates = frame.get("candidates").and_then(Value::as_array);
    let finished = candidates.into_iter().flatten();
    finished
        .filter(|candidate| candidate.get("finishReason").is_some_and(|reason| !reason.is_null()))
        .map(index)
        .collect()
}

/// A response that carries `text` for `slot` and nothing else; what responses have in common is taken from `like`.
pub(crate) fn with(like: &Value, slot: &Slot, text: String) -> Value {
    let mut part = json!({ "text": text });
    if matches!(&slot.kind, SlotKind::Text(kind) if kind == THOUGHT) {
        part[THOUGHT] = true.into();
    }
    let mut frame = like.as_object().cloned().unwrap_or_default();
    frame.shift_remove("usageMetadata");
    let candidate = json!({ "content": { "parts": [part], "role": "model" }, "index": slot.choice });
    frame.insert("candidates".to_owned(), json!([candidate]));
    frame.into()
}
