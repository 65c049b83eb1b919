//! OpenAI's Chat Completions, as its API reference describes it; also spoken by most self-hosted servers.
//!
//! Beyond the reference, the names that clients and servers have come to share are read and written: `reasoning_content`
//! and `thinking_blocks` for reasoning, `cache_control` on parts, `top_k`, `images` in answers, and
//! `extra_content.google.thought_signature` on tool calls.

pub mod client;
pub mod embed;
pub(crate) mod frames;
mod message;
pub mod provider;
mod reader;
mod request;
mod write;
mod writer;

use bytes::Bytes;

use crate::BadAnswer;
pub(crate) use request::{readdress, view};

/// The `data` of the event that ends a stream.
const DONE: &[u8] = b"[DONE]";

/// Longest name of a function, and what it may be made of.
const TOOL_NAME: crate::names::Rule = crate::names::Rule {
    also: "_-",
    longest: 64,
};

/// An event for a client of this dialect: the door writes the end itself.
pub(crate) fn pass(data: &[u8]) -> Result<Option<Bytes>, BadAnswer> {
    Ok((data != DONE).then(|| Bytes::copy_from_slice(data)))
}

/// The same without the usage that only we asked for.
pub(crate) fn pass_without_usage(data: &[u8]) -> Result<Option<Bytes>, BadAnswer> {
    if data == DONE {
        return Ok(None);
    }
    if !data.windows(7).any(|word| word == b"\"usage\"") {
        return pass(data);
    }
    let mut chunk: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(data).map_err(|_| BadAnswer::NotJson)?;
    let is_bare = chunk
        .get("choices")
        .and_then(|choices| choices.as_array())
        .is_some_and(Vec::is_empty);
    match chunk.shift_remove("usage") {
        Some(usage) if is_bare && !usage.is_null() => Ok(None),
        _ => serde_json::to_vec(&chunk)
            .map(|chunk| Some(chunk.into()))
            .map_err(|_| BadAnswer::NotJson),
    }
}
