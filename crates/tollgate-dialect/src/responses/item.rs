//! The items of an answer while they are being made.

use serde_json::{Value, json};
use tollgate_types::chat::TokenLogprob;

/// An item and its place in `output`.
pub(super) struct Item {
    pub(super) id: String,
    pub(super) body: Body,
}

pub(super) enum Body {
    Message(Vec<Words>),
    Reasoning {
        text: Option<String>,
        /// `encrypted_content`.
        sealed: Option<String>,
    },
    Call(Call),
}

/// A part of a message.
pub(super) enum Words {
    Text {
        text: String,
        annotations: Vec<Value>,
        logprobs: Vec<Value>,
    },
    Refusal(String),
}

pub(super) struct Call {
    /// As the events count calls.
    pub(super) index: u32,
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: String,
    /// What signs the call and has not been written.
    pub(super) signature: Option<String>,
}

impl Words {
    pub(super) const fn empty_text() -> Self {
        Self::Text {
            text: String::new(),
            annotations: Vec::new(),
            logprobs: Vec::new(),
        }
    }

    pub(super) fn json(&self) -> Value {
        match self {
            Self::Text {
                text,
                annotations,
                logprobs,
            } => json!({ "type": "output_text", "text": text, "annotations": annotations, "logprobs": logprobs }),
            Self::Refusal(refusal) => json!({ "type": "refusal", "refusal": refusal }),
        }
    }
}

impl Item {
    pub(super) fn json(&self, status: &str) -> Value {
        match &self.body {
            Body::Message(words) => json!({
                "id": self.id,
                "type": "message",
                "status": status,
                "role": "assistant",
                "content": words.iter().map(Words::json).collect::<Vec<_>>(),
            }),
            Body::Reasoning { text, sealed } => {
                let summary = text
                    .as_ref()
                    .map(|text| json!({ "type": "summary_text", "text": text }));
                let mut item = json!({ "id": self.id, "type": "reasoning", "summary": Vec::from_iter(summary) });
                if let (Some(sealed), Some(fields)) = (sealed, item.as_object_mut()) {
                    fields.insert("encrypted_content".to_owned(), json!(sealed));
                }
                item
            }
            Body::Call(call) => json!({
                "id": self.id,
                "type": "function_call",
                "status": status,
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
            }),
        }
    }
}

/// A token's log-probability. A whole text's tokens always have their bytes, a delta's only where they are known.
pub(super) fn logprob(token: &TokenLogprob, whole: bool) -> Value {
    let mut entry = token_object(token, whole);
    if let Some(fields) = entry.as_object_mut() {
        let top: Vec<_> = token
            .alternatives
            .iter()
            .map(|other| token_object(other, whole))
            .collect();
        fields.insert("top_logprobs".to_owned(), json!(top));
    }
    entry
}

fn token_object(token: &TokenLogprob, whole: bool) -> Value {
    let mut entry = json!({ "token": token.token, "logprob": token.logprob });
    let bytes = token
        .bytes
        .as_deref()
        .or_else(|| whole.then_some(token.token.as_bytes()));
    if let (Some(bytes), Some(fields)) = (bytes, entry.as_object_mut()) {
        fields.insert("bytes".to_owned(), json!(bytes));
    }
    entry
}
