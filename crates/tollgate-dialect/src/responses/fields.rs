//! Fields of events and items, as the reader asks for them.

use serde_json::{Value, json};
use tollgate_types::chat::TokenLogprob;

use crate::BadAnswer;

/// Items of tools that the provider runs by itself; the words that come of them are in messages.
pub(super) const HOSTED: [&str; 8] = [
    "code_interpreter_call",
    "compaction",
    "file_search_call",
    "function_call_output",
    "mcp_call",
    "mcp_list_tools",
    "tool_search_output",
    "web_search_call",
];

pub(super) fn response_of(event: &Value) -> Result<&Value, BadAnswer> {
    event
        .get("response")
        .filter(|response| response.is_object())
        .ok_or(BadAnswer::Lacks("a response"))
}

pub(super) fn number(event: &Value, name: &str) -> u64 {
    event[name].as_u64().unwrap_or_default()
}

pub(super) fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// None for what is no token. Alternatives have none of their own.
pub(super) fn logprob(token: &Value, alternatives: bool) -> Option<TokenLogprob> {
    let bytes = token["bytes"].as_array().map(|bytes| {
        let byte = |byte: &Value| byte.as_u64().and_then(|byte| u8::try_from(byte).ok());
        bytes.iter().filter_map(byte).collect()
    });
    let others = alternatives.then(|| {
        list(token, "top_logprobs")
            .filter_map(|token| logprob(token, false))
            .collect()
    });
    Some(TokenLogprob {
        token: token["token"].as_str()?.to_owned(),
        logprob: token["logprob"].as_f64()?,
        bytes,
        alternatives: others.unwrap_or_default(),
    })
}

/// What of a response decides its price: of its items only what they are.
pub(super) fn report(response: &Value) -> Value {
    let items = list(response, "output");
    let items: Value = items
        .map(|item| json!({ "type": item["type"], "container_id": item["container_id"] }))
        .collect();
    json!({
        "usage": response["usage"],
        "service_tier": response["service_tier"],
        "tool_usage": response["tool_usage"],
        "output": items,
    })
}
