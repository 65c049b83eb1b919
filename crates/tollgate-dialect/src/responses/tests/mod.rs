//! Requests and answers, both ways.

mod answers;
mod reading;
mod requests;
mod traps;

use bytes::Bytes;
use serde_json::Value;
use tollgate_types::chat::{ChatEvent, ChatRequest};
use tollgate_types::provider::{OnUnsupported, Quirks};

use super::{client, provider};
use crate::{
    BadAnswer, Refused,
    side::{Losses, Reader, Target},
};

/// Body, reader of its answer, and what was left out.
type Written = (Value, Box<dyn Reader>, Vec<String>);

/// What a provider is sent, and the reader of its answer.
fn write_with(request: &ChatRequest, quirks: Quirks, policy: OnUnsupported) -> Result<Written, Refused> {
    let mut losses = Losses::new(policy);
    let target = Target { model: "real", quirks };
    let (body, reader) = provider::write(request, &target, &mut losses)?;
    Ok((serde_json::from_slice(&body).unwrap(), reader, losses.dropped))
}

fn write(request: &ChatRequest) -> Value {
    let (body, ..) = write_with(request, Quirks::default(), OnUnsupported::Refuse).unwrap();
    body
}

fn read(body: &Value) -> ChatRequest {
    client::read(body.to_string().as_bytes()).unwrap()
}

/// The field that a request is refused for.
fn refused_at(body: &Value) -> Option<String> {
    client::read(body.to_string().as_bytes())
        .err()
        .and_then(|error| error.param)
}

/// The client's frames for these events.
fn stream(request: &ChatRequest, events: &[ChatEvent]) -> Result<Vec<Bytes>, BadAnswer> {
    let mut writer = client::writer(request);
    let mut frames = Vec::new();
    for event in events {
        frames.extend(writer.event(event.clone())?);
    }
    frames.extend(writer.end()?);
    Ok(frames)
}

fn values(frames: &[Bytes]) -> Vec<Value> {
    frames
        .iter()
        .map(|frame| serde_json::from_slice(frame).unwrap())
        .collect()
}

/// What a reader makes of frames.
fn follow<B: AsRef<[u8]>>(reader: &mut dyn Reader, frames: &[B]) -> Result<Vec<ChatEvent>, BadAnswer> {
    let mut events = Vec::new();
    for frame in frames {
        events.extend(reader.event(frame.as_ref())?);
    }
    Ok(events)
}

fn follow_values(frames: &[Value]) -> Vec<ChatEvent> {
    let frames: Vec<_> = frames.iter().map(Value::to_string).collect();
    follow(&mut *provider::reader(), &frames).unwrap()
}

/// Events with adjacent pieces of the same block in one.
fn merged(events: Vec<ChatEvent>) -> Vec<ChatEvent> {
    let mut merged: Vec<ChatEvent> = Vec::new();
    for event in events {
        match (merged.last_mut(), event) {
            (Some(ChatEvent::Text { text }), ChatEvent::Text { text: more })
            | (Some(ChatEvent::Refusal { text }), ChatEvent::Refusal { text: more })
            | (Some(ChatEvent::Reasoning { text }), ChatEvent::Reasoning { text: more }) => text.push_str(&more),
            (
                Some(ChatEvent::ToolCall { index, arguments, .. }),
                ChatEvent::ToolCall {
                    index: same,
                    id: None,
                    arguments: more,
                    ..
                },
            ) if *index == same => arguments.push_str(&more),
            (_, event) => merged.push(event),
        }
    }
    merged
}

/// JSON with fresh ids and times replaced, each id by the same number wherever it is.
fn steady(value: &Value) -> Value {
    fn walk(value: &Value, known: &mut Vec<String>) -> Value {
        match value {
            Value::String(text) => {
                let fresh = ["resp_", "msg_", "rs_", "fc_", "call_"].iter().find(|prefix| {
                    text.strip_prefix(**prefix)
                        .is_some_and(|rest| rest.len() == 32 && !rest.contains('_'))
                });
                let Some(prefix) = fresh else {
                    return value.clone();
                };
                let number = known.iter().position(|id| id == text).unwrap_or_else(|| {
                    known.push(text.clone());
                    known.len() - 1
                });
                format!("{prefix}#{number}").into()
            }
            Value::Array(items) => items.iter().map(|item| walk(item, known)).collect(),
            Value::Object(fields) => {
                let walked = fields.iter().map(|(name, field)| {
                    let is_time = name.ends_with("ed_at") && field.is_u64();
                    (name.clone(), if is_time { "now".into() } else { walk(field, known) })
                });
                Value::Object(walked.collect())
            }
            other => other.clone(),
        }
    }
    walk(value, &mut Vec::new())
}
