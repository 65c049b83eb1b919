//! A wire format: how one provider's requests are read and its answers written.

use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use crate::{answer::Answer, ask::Ask, error::ApiError, script::Behaviour};

/// What all pieces of one answer share.
pub(crate) struct Frame {
    /// Number of the call, from which the ids are made.
    pub(crate) serial: u64,
    /// Unix seconds.
    pub(crate) created: u64,
}

/// A piece of a stream.
pub(crate) struct Chunk {
    pub(crate) bytes: Bytes,
    /// Answer tokens that it carries.
    pub(crate) tokens: u64,
    /// Whether it carries content: such chunks are counted when an answer is to break off after some.
    pub(crate) content: bool,
    /// Whether the scripted pause comes before it, should it not be the first with content.
    pub(crate) paced: bool,
}

impl Chunk {
    /// A piece of the answer itself.
    pub(crate) fn content(bytes: impl Into<Bytes>, tokens: u64) -> Self {
        Self {
            bytes: bytes.into(),
            tokens,
            content: true,
            paced: true,
        }
    }

    /// What goes around the answer.
    pub(crate) fn around(bytes: impl Into<Bytes>, tokens: u64) -> Self {
        Self {
            bytes: bytes.into(),
            tokens,
            content: false,
            paced: false,
        }
    }
}

/// One provider's format, for one request.
pub(crate) trait WireFormat: Send + Sync + 'static {
    /// Its name in the log of calls.
    fn name(&self) -> &'static str;

    /// Whether the caller may call at all.
    fn authenticate(&self, headers: &HeaderMap) -> Result<(), ApiError>;

    /// Checks a request as the real service does.
    fn read(&self, body: &Value, models: &[String]) -> Result<Ask, ApiError>;

    /// The model and the wish for a stream, of a request that may yet be refused.
    fn glance(&self, body: &Value) -> (Option<String>, bool);

    /// The body of an answer that is not streamed.
    fn whole(&self, frame: &Frame, ask: &Ask, answer: &Answer, behaviour: &Behaviour) -> Bytes;

    /// The answer as a stream, from its first byte to its last.
    fn stream(&self, frame: &Frame, ask: &Ask, answer: &Answer, behaviour: &Behaviour) -> Vec<Chunk>;

    /// Whether the call costs nothing.
    fn is_free(&self) -> bool {
        false
    }

    /// Whether the prompt alone is billed: there is no answer in tokens.
    fn has_no_answer(&self) -> bool {
        false
    }

    /// An error instead of an answer.
    fn error(&self, error: &ApiError) -> Response;

    /// An error in the middle of a stream.
    fn error_inside(&self, error: &ApiError) -> Bytes;

    /// The body of a 200 that is an error all the same.
    fn error_whole(&self, error: &ApiError) -> Bytes {
        error.body().to_string().into()
    }

    /// Media type of a stream.
    fn stream_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }
}

/// An event of data alone.
pub(crate) fn event(data: &str) -> Bytes {
    format!("data: {data}\n\n").into()
}

/// An event with a name.
pub(crate) fn named_event(name: &str, data: &Value) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}
