//! The answer as bytes on the wire: the whole body, or the chunks of a stream, as steps for [`crate::play`].
//!
//! Scripted trouble is written into the steps here, so that playing them needs no knowledge of it.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    answer::{Answer, ToolCall},
    error::ApiError,
    play::Step,
    request::Request,
    script::Behaviour,
    trouble::Trouble,
};

const FINGERPRINT: &str = "fp_simulator";

/// What all chunks of one answer share.
pub(crate) struct Frame {
    /// Number of the call, from which the ids are made.
    pub(crate) serial: u64,
    /// Unix seconds.
    pub(crate) created: u64,
}

impl Frame {
    fn id(&self) -> String {
        format!("chatcmpl-sim{:016x}", self.serial)
    }

    fn call_id(&self) -> String {
        format!("call_sim{:016x}", self.serial)
    }
}

/// The body of an answer that is not streamed.
pub(crate) fn whole(frame: &Frame, request: &Request, answer: &Answer, behaviour: &Behaviour) -> Bytes {
    let content = answer.content();
    let message = match &answer.call {
        Some(call) => json!({
            "role": "assistant",
            "content": null,
            "tool_calls": [call_json(frame, call, &content, None)],
            "refusal": null,
            "annotations": [],
        }),
        None => json!({"role": "assistant", "content": content, "refusal": null, "annotations": []}),
    };
    let choices: Vec<Value> = (0..request.n)
        .map(|index| {
            json!({
                "index": index,
                "message": message,
                "logprobs": null,
                "finish_reason": answer.finish_reason,
            })
        })
        .collect();
    let mut body = json!({
        "id": frame.id(),
        "object": "chat.completion",
        "created": frame.created,
        "model": request.model,
        "choices": choices,
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    });
    if !behaviour.omit_usage {
        body["usage"] = answer.usage.json();
    }
    body.to_string().into()
}

/// Steps for a body with a declared length. A whole answer has been generated before its first byte is sent, so
/// even a broken one is billed in full.
pub(crate) fn whole_steps(body: &Bytes, tokens: u64, trouble: Trouble) -> Vec<Step> {
    match trouble {
        Trouble::Stall => vec![Step::Stall],
        Trouble::Cut => {
            let bytes = body.slice(..body.len() / 2);
            vec![Step::Send { bytes, tokens }, Step::Break]
        }
        _ => vec![Step::Send {
            bytes: body.clone(),
            tokens,
        }],
    }
}

/// Steps for a stream.
pub(crate) fn stream_steps(
    frame: &Frame,
    request: &Request,
    answer: &Answer,
    behaviour: &Behaviour,
    trouble: Trouble,
) -> Vec<Step> {
    if trouble == Trouble::Stall {
        return vec![Step::Stall];
    }
    let chunks = Chunks::new(frame, request, !behaviour.omit_usage && request.include_usage);
    let mut steps = Vec::new();
    let head_tokens = answer.call.as_ref().map_or(0, |call| call.tokens);
    for index in 0..request.n {
        steps.push(chunks.delta(index, &chunks.head(frame, answer.call.as_ref()), head_tokens));
    }
    let broken = matches!(trouble, Trouble::Cut | Trouble::ErrorInside);
    let sendable = if broken {
        behaviour.cut_after_chunks as usize
    } else {
        usize::MAX
    };
    let contents = answer
        .pieces
        .iter()
        .flat_map(|piece| (0..request.n).map(move |index| (index, piece)));
    for (sent, (index, piece)) in contents.enumerate().take(sendable) {
        if sent > 0 && index == 0 && behaviour.chunk_delay_ms > 0 {
            steps.push(Step::Wait(Duration::from_millis(behaviour.chunk_delay_ms)));
        }
        let delta = Chunks::content(&piece.text, answer.call.as_ref());
        steps.push(chunks.delta(index, &delta, piece.tokens));
    }
    match trouble {
        Trouble::Cut => steps.push(Step::Break),
        Trouble::ErrorInside => steps.push(event(&ApiError::scripted(500).body().to_string(), 0)),
        _ => {
            for index in 0..request.n {
                steps.push(chunks.finish(index, answer.finish_reason));
            }
            if chunks.usage {
                steps.push(chunks.chunk("", &answer.usage.json().to_string(), 0));
            }
            steps.push(event("[DONE]", 0));
        }
    }
    steps
}

/// A tool call as JSON; `index` only in streams.
fn call_json(frame: &Frame, call: &ToolCall, arguments: &str, index: Option<u64>) -> Value {
    let mut value = match call.function {
        true => json!({
            "id": frame.call_id(),
            "type": "function",
            "function": {"name": call.name, "arguments": arguments},
        }),
        false => json!({
            "id": frame.call_id(),
            "type": "custom",
            "custom": {"name": call.name, "input": arguments},
        }),
    };
    if let Some(index) = index {
        value["index"] = index.into();
    }
    value
}

/// Writes chunks by joining ready-made parts: streams are what load tests of the gateway spend the simulator's CPU on.
struct Chunks {
    /// Everything before the choices.
    head: String,
    /// Whether the stream reports usage: then every chunk but the last says `"usage":null`.
    usage: bool,
}

impl Chunks {
    fn new(frame: &Frame, request: &Request, usage: bool) -> Self {
        Self {
            head: format!(
                r#"{{"id":"{}","object":"chat.completion.chunk","created":{},"model":{},"service_tier":"default","system_fingerprint":"{FINGERPRINT}","choices":["#,
                frame.id(),
                frame.created,
                Value::from(request.model.as_str()),
            ),
            usage,
        }
    }

    /// The first delta of a choice.
    fn head(&self, frame: &Frame, call: Option<&ToolCall>) -> String {
        match call {
            None => r#"{"role":"assistant","content":"","refusal":null}"#.to_owned(),
            Some(call) => json!({
                "role": "assistant",
                "content": null,
                "tool_calls": [call_json(frame, call, "", Some(0))],
                "refusal": null,
            })
            .to_string(),
        }
    }

    /// A delta with a piece of text or arguments.
    fn content(text: &str, call: Option<&ToolCall>) -> String {
        let text = Value::from(text);
        match call {
            None => format!(r#"{{"content":{text}}}"#),
            Some(call) if call.function => {
                format!(r#"{{"tool_calls":[{{"index":0,"function":{{"arguments":{text}}}}}]}}"#)
            }
            Some(_) => format!(r#"{{"tool_calls":[{{"index":0,"custom":{{"input":{text}}}}}]}}"#),
        }
    }

    fn delta(&self, index: u64, delta: &str, tokens: u64) -> Step {
        let choice = format!(r#"{{"index":{index},"delta":{delta},"logprobs":null,"finish_reason":null}}"#);
        self.chunk(&choice, "null", tokens)
    }

    fn finish(&self, index: u64, reason: &str) -> Step {
        let choice = format!(r#"{{"index":{index},"delta":{{}},"logprobs":null,"finish_reason":"{reason}"}}"#);
        self.chunk(&choice, "null", 0)
    }

    fn chunk(&self, choice: &str, usage: &str, tokens: u64) -> Step {
        let head = &self.head;
        if self.usage {
            event(&format!(r#"{head}{choice}],"usage":{usage}}}"#), tokens)
        } else {
            event(&format!("{head}{choice}]}}"), tokens)
        }
    }
}

fn event(data: &str, tokens: u64) -> Step {
    Step::Send {
        bytes: format!("data: {data}\n\n").into(),
        tokens,
    }
}
