//! How the events of an answer are told apart.

use bytes::Bytes;

use crate::{BadAnswer, bedrock::EventStream, sse};

/// The form of an answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One JSON body.
    Whole,
    /// Server-sent events.
    Sse,
    /// AWS's binary event stream.
    EventStream,
}

/// Collects bytes and gives out the data of each complete event.
pub enum Events {
    Sse(sse::Decoder),
    EventStream(EventStream),
}

impl Events {
    /// A decoder that refuses an event of more than `max_event` bytes.
    #[must_use]
    pub fn new(framing: Framing, max_event: usize) -> Self {
        match framing {
            Framing::EventStream => Self::EventStream(EventStream::new(max_event)),
            Framing::Sse | Framing::Whole => Self::Sse(sse::Decoder::new(max_event)),
        }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        match self {
            Self::Sse(events) => events.push(bytes),
            Self::EventStream(events) => events.push(bytes),
        }
    }

    /// The data of the next complete event, if there is one.
    pub fn next_event(&mut self) -> Result<Option<Bytes>, BadAnswer> {
        match self {
            Self::Sse(events) => events.next_event(),
            Self::EventStream(events) => events.next_event(),
        }
    }
}
