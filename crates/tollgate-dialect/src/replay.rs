//! An answer that was kept, given as a stream to who asks for one: the request loses its wish for a stream before it is
//! stored, and the whole answer becomes events again.

use bytes::Bytes;
use serde_json::Value;
use tollgate_types::{Dialect, RequestView, chat::ChatEvent};

use crate::{BadAnswer, Invalid, native, splice::Fields, translate};

/// The same request for an answer that is not streamed.
pub fn unstreamed(client: Dialect, body: &[u8]) -> Result<Bytes, Invalid> {
    if client == Dialect::Gemini {
        // Its path says it.
        return Ok(Bytes::copy_from_slice(body));
    }
    let mut fields = Fields::read(body)?;
    if fields.get("stream").is_some() {
        fields.set("stream", &Value::Bool(false))?;
    }
    fields.remove("stream_options");
    fields.write()
}

/// The frames of a stream for a whole answer. `body` and `view` are of the request that asked for the stream.
pub fn restream(client: Dialect, body: &[u8], view: &RequestView, whole: &[u8]) -> Result<Vec<Bytes>, BadAnswer> {
    let unreadable = || BadAnswer::Lacks("the form of its dialect");
    let (events, mut writer) = match translate::pass_on_reader(client) {
        Some(mut reader) => {
            let request = translate::read(client, body, view).map_err(|_| unreadable())?;
            (reader.whole(whole)?, translate::writer(client, &request, view))
        }
        None => {
            let events: Vec<ChatEvent> = serde_json::from_slice(whole).map_err(|_| unreadable())?;
            (events, native::writer())
        }
    };
    let mut frames = Vec::new();
    for event in events {
        frames.extend(writer.event(event)?);
    }
    frames.extend(writer.end()?);
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tollgate_types::Operation;

    use super::*;
    use crate::view;

    #[test]
    fn a_kept_answer_streams_in_its_dialect() {
        let answer = json!({ "id": "c", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{ "index": 0, "message": { "role": "assistant", "content": "hello" }, "finish_reason": "stop" }],
            "usage": { "prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4 } });
        let asked = json!({ "model": "m", "stream": true, "stream_options": { "include_usage": true },
            "messages": [{ "role": "user", "content": "x" }] })
        .to_string();
        let stored = unstreamed(Dialect::OpenaiChat, asked.as_bytes()).unwrap();
        let stored: Value = serde_json::from_slice(&stored).unwrap();
        assert_eq!((&stored["stream"], stored.get("stream_options")), (&json!(false), None));
        let view = view(Dialect::OpenaiChat, Operation::Chat, None, asked.as_bytes()).unwrap();
        let frames = restream(
            Dialect::OpenaiChat,
            asked.as_bytes(),
            &view,
            answer.to_string().as_bytes(),
        )
        .unwrap();
        let frames: Vec<Value> = frames
            .iter()
            .map(|frame| serde_json::from_slice(frame).unwrap())
            .collect();
        let said: String = frames
            .iter()
            .filter_map(|frame| frame.pointer("/choices/0/delta/content")?.as_str())
            .collect();
        assert_eq!(said, "hello");
        assert!(
            frames
                .iter()
                .any(|frame| frame.pointer("/choices/0/finish_reason") == Some(&json!("stop")))
        );
        assert_eq!(frames.last().unwrap().pointer("/usage/total_tokens"), Some(&json!(4)));
    }
}
