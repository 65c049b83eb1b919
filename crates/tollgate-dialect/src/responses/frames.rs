//! Where the text is in the events of a stream.
//!
//! Deltas continue a slot: `choice` is the output index, `kind` the event's type or the call's arguments. Every other event
//! repeats texts whole; those are [`SlotKind::Whole`]. Log-probabilities spell the text
//! once more, token by token: they go when a check changes the text of their event.

use serde_json::{Value, json};

use crate::text::{self, Slot, SlotKind};

fn kind(frame: &Value) -> &str {
    frame.get("type").and_then(Value::as_str).unwrap_or_default()
}

fn output_index(frame: &Value) -> u64 {
    frame.get("output_index").and_then(Value::as_u64).unwrap_or_default()
}

/// Shows each piece of text in one event to `check`, with the slot that it continues.
pub(crate) fn visit(frame: &mut Value, check: &mut dyn FnMut(Slot, &mut String)) {
    let choice = output_index(frame);
    let event = kind(frame).to_owned();
    let mut changed = false;
    let mut compare = |kind: SlotKind, text: &mut String| {
        let before = text.clone();
        check(Slot { choice, kind }, text);
        changed |= *text != before;
    };
    match frame.get_mut("delta") {
        // Sound, in base64.
        Some(Value::String(_)) if event.ends_with("audio.delta") => {}
        Some(Value::String(delta)) if event.ends_with("arguments.delta") => {
            compare(SlotKind::Arguments(choice), delta);
        }
        Some(Value::String(delta)) => compare(SlotKind::Text(event), delta),
        _ => text::visit(frame, &mut |text| compare(SlotKind::Whole, text)),
    }
    if changed {
        drop_logprobs(frame);
    }
}

/// Empties every list of log-probabilities.
fn drop_logprobs(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(drop_logprobs),
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::Array(tokens) if name == "logprobs" => tokens.clear(),
                    other => drop_logprobs(other),
                }
            }
        }
        _ => {}
    }
}

/// The blocks that the event says are finished, by `Slot::choice`.
pub(crate) fn finished(frame: &Value) -> Vec<u64> {
    match kind(frame) {
        "response.completed" | "response.incomplete" | "response.failed" => {
            let output = frame.pointer("/response/output").and_then(Value::as_array);
            (0..output.map_or(0, Vec::len) as u64).collect()
        }
        event if event.ends_with(".done") && frame.get("output_index").is_some() => vec![output_index(frame)],
        _ => Vec::new(),
    }
}

/// An event that carries `text` for `slot` and nothing else. `like` is the last event that carried some for it.
pub(crate) fn with(like: &Value, slot: &Slot, text: String) -> Value {
    let mut event = like.as_object().cloned().unwrap_or_default();
    let kind = match &slot.kind {
        SlotKind::Text(kind) if kind.ends_with(".delta") => kind.as_str(),
        SlotKind::Text(_) | SlotKind::Whole => "response.output_text.delta",
        SlotKind::Arguments(_) => match kind(like) {
            same if same.ends_with("arguments.delta") => same,
            _ => "response.function_call_arguments.delta",
        },
    };
    let kind = kind.to_owned();
    for other in ["obfuscation", "logprobs"] {
        event.shift_remove(other);
    }
    if kind == "response.output_text.delta" {
        event.insert("logprobs".to_owned(), json!([]));
    }
    event.insert("type".to_owned(), json!(kind));
    event.insert("output_index".to_owned(), json!(slot.choice));
    event.insert("delta".to_owned(), json!(text));
    event.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(frame: &mut Value) -> Vec<(Slot, String)> {
        let mut seen = Vec::new();
        visit(frame, &mut |slot, text| {
            seen.push((slot, text.clone()));
            *text = text.replace("secret", "***");
        });
        seen
    }

    fn slot(choice: u64, kind: &str) -> Slot {
        Slot {
            choice,
            kind: SlotKind::Text(kind.to_owned()),
        }
    }

    #[test]
    fn deltas_continue_their_slot_and_nothing_else_in_them_is_shown() {
        let mut delta = json!({ "type": "response.output_text.delta", "item_id": "msg_1", "output_index": 3,
            "content_index": 1, "delta": "a secret", "logprobs": [{ "token": "secret", "logprob": -1.0 }],
            "obfuscation": "xyz", "sequence_number": 9 });
        let text = slot(3, "response.output_text.delta");
        assert!(seen(&mut delta) == [(text.clone(), "a secret".to_owned())]);
        assert_eq!((&delta["delta"], &delta["logprobs"]), (&json!("a ***"), &json!([])));
        assert_eq!(
            with(&delta, &text, "more".to_owned()),
            json!({ "type": "response.output_text.delta", "item_id": "msg_1", "output_index": 3, "content_index": 1,
                "delta": "more", "sequence_number": 9, "logprobs": [] })
        );
        let mut arguments = json!({ "type": "response.function_call_arguments.delta", "item_id": "fc_1",
            "output_index": 2, "delta": "{\"a\"", "sequence_number": 4 });
        let found = seen(&mut arguments);
        assert!(found[0].0.kind == SlotKind::Arguments(2) && found.len() == 1);
        let made = with(&arguments, &found[0].0, ":1}".to_owned());
        assert_eq!((&made["delta"], made.get("logprobs")), (&json!(":1}"), None));
        let mut audio = json!({ "type": "response.audio.delta", "delta": "UklG", "sequence_number": 1 });
        assert!(seen(&mut audio).is_empty());
    }

    #[test]
    fn texts_that_come_again_are_whole_and_their_tokens_go_with_them() {
        let part = json!({ "type": "output_text", "text": "a secret", "annotations": [],
            "logprobs": [{ "token": "secret", "logprob": -1.0, "bytes": [], "top_logprobs": [] }] });
        let mut done = json!({ "type": "response.content_part.done", "item_id": "msg_1", "output_index": 1,
            "content_index": 0, "part": part, "sequence_number": 7 });
        assert!(
            seen(&mut done)[0]
                == (
                    Slot {
                        choice: 1,
                        kind: SlotKind::Whole
                    },
                    "a secret".to_owned()
                )
        );
        assert_eq!(
            (&done["part"]["text"], &done["part"]["logprobs"]),
            (&json!("a ***"), &json!([]))
        );
        let mut completed = json!({ "type": "response.completed", "sequence_number": 8, "response": {
            "id": "resp_1", "object": "response", "model": "m", "status": "completed", "output": [
                { "id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAA" },
                { "id": "fc_1", "type": "function_call", "call_id": "c", "name": "f", "arguments": "{\"a\":\"secret\"}" }
            ] } });
        let texts: Vec<_> = seen(&mut completed).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["f", "secret"]);
        assert_eq!(completed["response"]["output"][1]["arguments"], r#"{"a":"***"}"#);
        assert_eq!(finished(&completed), [0, 1]);
    }

    #[test]
    fn a_block_is_finished_when_anything_of_it_is_done() {
        for event in [
            "output_text",
            "refusal",
            "function_call_arguments",
            "reasoning_summary_text",
            "content_part",
            "output_item",
        ] {
            let frame = json!({ "type": format!("response.{event}.done"), "output_index": 2 });
            assert_eq!(finished(&frame), [2]);
        }
        assert_eq!(
            finished(&json!({ "type": "response.output_text.delta", "output_index": 2 })),
            [0; 0]
        );
        assert_eq!(finished(&json!({ "type": "response.completed" })), [0; 0]);
    }
}
