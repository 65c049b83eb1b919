//! Answers on their way out: a body, or a stream in the form that the door's clients read.

use std::convert::Infallible;

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, stream};
use serde::Deserialize;
use std::borrow::Cow;
use tollgate_types::{Dialect, ErrorCode, Failure};

use super::error::{error_event, error_response};
use crate::{
    desk::{Event, Ticket},
    limits::rate_limit_headers,
};

/// How the pieces of a stream are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Server-sent events of data alone, the last one `[DONE]`.
    Done,
    /// Server-sent events that are named by their data's `type`.
    Named,
    /// Server-sent events of data alone.
    Plain,
    /// A JSON array that is written piece by piece.
    Array,
}

impl Form {
    /// The usual form of a dialect's streams.
    pub(super) const fn of(dialect: Dialect) -> Self {
        match dialect {
            Dialect::OpenaiChat => Self::Done,
            Dialect::OpenaiResponses | Dialect::Anthropic => Self::Named,
            Dialect::Gemini | Dialect::Bedrock | Dialect::Native => Self::Plain,
        }
    }
}

/// Waits for the first event, so that a failure before it is an error with a status and not a broken stream.
pub(super) async fn answer(ticket: Ticket, dialect: Dialect, form: Form) -> Response {
    let remaining = ticket.remaining();
    let mut response = Box::pin(answered(ticket, dialect, form)).await;
    for (name, value) in rate_limit_headers(&remaining) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn answered(mut ticket: Ticket, dialect: Dialect, form: Form) -> Response {
    let refuse = |failure: Failure| error_response(dialect, &failure.into(), None);
    if !ticket.is_streamed() {
        return match ticket.whole().await {
            Ok(body) => whole(body),
            Err(failure) => refuse(failure),
        };
    }
    match ticket.next().await {
        Event::Frame(first) => (
            stream_headers(form),
            Body::from_stream(pieces(ticket, first, dialect, form)),
        )
            .into_response(),
        Event::Failed(failure) => refuse(failure),
        Event::End => refuse(Failure::new(ErrorCode::ProviderBroken, "the answer was empty")),
    }
}

/// An answer that is not streamed.
pub(super) fn whole(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// All events of an answer that was kept.
pub(super) fn replay(frames: &[Bytes], form: Form) -> Response {
    let mut body = BytesMut::new();
    for (index, frame) in frames.iter().enumerate() {
        body.extend_from_slice(&piece(form, frame, index == 0));
    }
    body.extend_from_slice(&end(form));
    (stream_headers(form), body.freeze()).into_response()
}

fn stream_headers(form: Form) -> [(HeaderName, &'static str); 3] {
    let content_type = match form {
        Form::Array => "application/json",
        Form::Done | Form::Named | Form::Plain => "text/event-stream; charset=utf-8",
    };
    [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ]
}

/// The rest of an answer. A failure is a piece of its own, and nothing follows it that would look like an end.
fn pieces(ticket: Ticket, first: Bytes, dialect: Dialect, form: Form) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let start = (Some(ticket), Some(first), true);
    stream::unfold(start, move |(ticket, first, is_first)| async move {
        let mut ticket = ticket?;
        let event = match first {
            Some(first) => Event::Frame(first),
            None => ticket.next().await,
        };
        Some(match event {
            Event::Frame(frame) => (Ok(piece(form, &frame, is_first)), (Some(ticket), None, false)),
            Event::End => (Ok(end(form)), (None, None, false)),
            Event::Failed(failure) => {
                let error = error_event(dialect, &failure.into()).to_string();
                (Ok(piece(form, error.as_bytes(), is_first)), (None, None, false))
            }
        })
    })
}

fn end(form: Form) -> Bytes {
    match form {
        Form::Done => Bytes::from_static(b"data: [DONE]\n\n"),
        Form::Array => Bytes::from_static(b"]"),
        Form::Named | Form::Plain => Bytes::new(),
    }
}

/// The name of an event.
#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

fn piece(form: Form, data: &[u8], is_first: bool) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + 48);
    if form == Form::Array {
        out.put_slice(if is_first { b"[" } else { b",\n" });
        out.put_slice(data);
        return out.freeze();
    }
    if form == Form::Named
        && let Ok(Kind { kind }) = serde_json::from_slice(data)
        && !kind.contains(['\n', '\r'])
    {
        out.put_slice(b"event: ");
        out.put_slice(kind.as_bytes());
        out.put_u8(b'\n');
    }
    // A line break within the data starts another `data:` line.
    for line in data.split(|byte| *byte == b'\n') {
        out.put_slice(b"data: ");
        out.put_slice(line);
        out.put_u8(b'\n');
    }
    out.put_u8(b'\n');
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_with_line_breaks_stays_one_event() {
        assert_eq!(piece(Form::Done, b"{}", true), "data: {}\n\n");
        assert_eq!(piece(Form::Done, b"{\n}", false), "data: {\ndata: }\n\n");
    }

    #[test]
    fn named_events_take_their_name_from_their_data() {
        let event = piece(Form::Named, br#"{"type":"ping","x":1}"#, true);
        assert_eq!(event, "event: ping\ndata: {\"type\":\"ping\",\"x\":1}\n\n");
        let forged = piece(Form::Named, br#"{"type":"a\nevent: b"}"#, true);
        assert!(forged.starts_with(b"data: "));
    }

    #[test]
    fn an_array_is_whole_json_in_the_end() {
        let all = [
            piece(Form::Array, b"{}", true),
            piece(Form::Array, b"{}", false),
            end(Form::Array),
        ]
        .concat();
        assert!(serde_json::from_slice::<Vec<serde_json::Value>>(&all).is_ok_and(|pieces| pieces.len() == 2));
    }
}
