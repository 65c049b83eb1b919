//! Server-sent events, read from a stream of bytes that may be split anywhere.
//!
//! Follows the event-stream format of the HTML standard, less the fields that no provider uses.

use bytes::{Bytes, BytesMut};

use crate::BadAnswer;

/// Collects bytes and gives out the data of each complete event.
pub struct Decoder {
    buffer: BytesMut,
    /// Bytes of `buffer` known to hold no line end.
    searched: usize,
    data: BytesMut,
    has_data: bool,
    max_event: usize,
}

impl Decoder {
    /// A decoder that refuses an event of more than `max_event` bytes.
    #[must_use]
    pub fn new(max_event: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            searched: 0,
            data: BytesMut::new(),
            has_data: false,
            max_event,
        }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The data of the next complete event, if there is one.
    pub fn next_event(&mut self) -> Result<Option<Bytes>, BadAnswer> {
        while let Some(line) = self.next_line()? {
            if line.is_empty() {
                if self.has_data {
                    self.has_data = false;
                    return Ok(Some(self.data.split().freeze()));
                }
            } else if let Some(value) = line.strip_prefix(b"data:") {
                let value = value.strip_prefix(b" ").unwrap_or(value);
                if self.has_data {
                    self.data.extend_from_slice(b"\n");
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
                if self.data.len() > self.max_event {
                    return Err(BadAnswer::TooLarge);
                }
            }
        }
        Ok(None)
    }

    /// A line without its end: `\n` or `\r\n`. A lone `\r`, which the standard allows, is sent by no provider.
    fn next_line(&mut self) -> Result<Option<Bytes>, BadAnswer> {
        match self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            Some(found) => {
                let mut line = self.buffer.split_to(self.searched + found + 1);
                self.searched = 0;
                line.truncate(line.len() - 1);
                if line.last() == Some(&b'\r') {
                    line.truncate(line.len() - 1);
                }
                Ok(Some(line.freeze()))
            }
            None if self.buffer.len() > self.max_event => Err(BadAnswer::TooLarge),
            None => {
                self.searched = self.buffer.len();
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(stream: &[u8], cuts: &[usize]) -> Vec<Bytes> {
        let mut decoder = Decoder::new(1000);
        let mut events = Vec::new();
        let mut from = 0;
        for to in cuts.iter().copied().chain([stream.len()]) {
            let to = to.clamp(from, stream.len());
            decoder.push(&stream[from..to]);
            from = to;
            while let Some(event) = decoder.next_event().unwrap() {
                events.push(event);
            }
        }
        events
    }

    const STREAM: &[u8] =
        b": hi\n\ndata: {\"a\":1}\n\r\ndata:x\r\ndata: y\r\n\r\nevent: e\nid: 3\n\ndata: [DONE]\n\ndata: cut";

    #[test]
    fn events_and_nothing_else() {
        assert_eq!(all(STREAM, &[]), ["{\"a\":1}", "x\ny", "[DONE]"]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut decoder = Decoder::new(10);
        decoder.push(b"data: 0123456789");
        assert_eq!(decoder.next_event(), Err(BadAnswer::TooLarge));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(mut cuts in proptest::collection::vec(0..STREAM.len(), 0..20)) {
            cuts.sort_unstable();
            prop_assert_eq!(all(STREAM, &cuts), all(STREAM, &[]));
        }
    }
}
