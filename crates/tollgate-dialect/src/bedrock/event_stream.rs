//! AWS's binary event stream, read from bytes that may be split anywhere.
//!
//! Each message has a prelude (its length, that of its headers, a checksum of the two), headers, a payload, and a checksum
//! of it all.

use aws_smithy_eventstream::frame::read_message_from;
use aws_smithy_types::event_stream::Message;
use bytes::{BufMut, Bytes, BytesMut};

use crate::BadAnswer;

/// Bytes of the prelude, its checksum included.
const PRELUDE: usize = 12;
/// Bytes of the shortest message: the prelude and the checksum at its end.
const SHORTEST: usize = PRELUDE + 4;

const DAMAGED: BadAnswer = BadAnswer::Misplaced("bytes that are no message of AWS's event stream");

/// Collects bytes and gives out each complete message as JSON.
///
/// An event of type `E` with the payload `P` is `{"E":P}`, and so is an exception. An error, which has no payload, is
/// `{"error":{"code":…,"message":…}}`.
pub struct EventStream {
    buffer: BytesMut,
    max_message: usize,
    /// What went wrong. Where the next message begins is not known then.
    failed: Option<BadAnswer>,
}

impl EventStream {
    /// A decoder that refuses a message of more than `max_message` bytes.
    #[must_use]
    pub fn new(max_message: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            max_message,
            failed: None,
        }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete message, if there is one.
    pub fn next_event(&mut self) -> Result<Option<Bytes>, BadAnswer> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let next = self.next_message().and_then(|message| match message {
            Some(message) => as_json(&message).map(Some),
            None => Ok(None),
        });
        if let Err(error) = &next {
            self.failed = Some(error.clone());
            self.buffer = BytesMut::new();
        }
        next
    }

    fn next_message(&mut self) -> Result<Option<Message>, BadAnswer> {
        let Some(prelude) = self.buffer.first_chunk::<PRELUDE>() else {
            return Ok(None);
        };
        let length = check_prelude(prelude)?;
        if length > self.max_message {
            return Err(BadAnswer::TooLarge);
        }
        if self.buffer.len() < length {
            return Ok(None);
        }
        let mut message = self.buffer.split_to(length).freeze();
        read_message_from(&mut message).map(Some).map_err(|_| DAMAGED)
    }
}

/// The length of the message. Its checksum is verified before the rest has come, lest a wrong length make us wait for more.
fn check_prelude(prelude: &[u8; PRELUDE]) -> Result<usize, BadAnswer> {
    let number = |place: usize| {
        prelude[place..place + 4]
            .iter()
            .fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte))
    };
    let length = usize::try_from(number(0)).map_err(|_| BadAnswer::TooLarge)?;
    if crc32(&prelude[..8]) != number(8) || length < SHORTEST {
        return Err(DAMAGED);
    }
    Ok(length)
}

/// CRC-32 as in gzip, bit by bit: enough for the few bytes of a prelude.
fn crc32(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL } else { sum >> 1 }
        })
    })
}

fn as_json(message: &Message) -> Result<Bytes, BadAnswer> {
    let header = |name: &str| {
        message
            .headers()
            .iter()
            .find(|header| header.name().as_str() == name)
            .and_then(|header| header.value().as_string().ok())
            .map(|value| value.as_str())
    };
    let name = match header(":message-type").ok_or(BadAnswer::Lacks("the type of a message"))? {
        "event" => header(":event-type").ok_or(BadAnswer::Lacks("the type of an event"))?,
        "exception" => header(":exception-type").ok_or(BadAnswer::Lacks("the type of an exception"))?,
        "error" => {
            let error = serde_json::json!({ "error": {
                "code": header(":error-code"),
                "message": header(":error-message"),
            } });
            return Ok(error.to_string().into());
        }
        _ => return Err(BadAnswer::Misplaced("a message of an unknown type")),
    };
    let name = serde_json::to_vec(name).map_err(|_| BadAnswer::NotJson)?;
    let payload: &[u8] = match &message.payload()[..] {
        [] => b"{}",
        payload => payload,
    };
    let mut json = BytesMut::with_capacity(name.len() + payload.len() + 3);
    json.put_u8(b'{');
    json.put_slice(&name);
    json.put_u8(b':');
    json.put_slice(payload);
    json.put_u8(b'}');
    Ok(json.freeze())
}

#[cfg(test)]
pub(super) mod tests {
    use aws_smithy_eventstream::frame::write_message_to;
    use aws_smithy_types::event_stream::{Header, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    /// A message with these headers.
    pub(crate) fn message(headers: &[(&'static str, &str)], payload: &[u8]) -> Vec<u8> {
        let headers = headers
            .iter()
            .map(|(name, value)| Header::new(*name, HeaderValue::String((*value).to_owned().into())))
            .collect();
        let mut bytes = Vec::new();
        write_message_to(&Message::new_from_parts(headers, payload.to_vec()), &mut bytes).unwrap();
        bytes
    }

    /// An event as Bedrock sends it.
    pub(crate) fn event(kind: &str, payload: &[u8]) -> Vec<u8> {
        let headers = [
            (":event-type", kind),
            (":content-type", "application/json"),
            (":message-type", "event"),
        ];
        message(&headers, payload)
    }

    fn stream() -> Vec<u8> {
        [
            event("messageStart", br#"{"role":"assistant"}"#),
            event(
                "contentBlockDelta",
                br#"{"contentBlockIndex":0,"delta":{"text":"hi"},"p":"abcd"}"#,
            ),
            event("odd \" name", b""),
            message(
                &[
                    (":message-type", "exception"),
                    (":exception-type", "throttlingException"),
                ],
                br#"{"message":"slow down"}"#,
            ),
            message(
                &[
                    (":message-type", "error"),
                    (":error-code", "Bad"),
                    (":error-message", "so \"bad\""),
                ],
                b"",
            ),
        ]
        .concat()
    }

    /// The events, and what went wrong.
    pub(crate) fn all(stream: &[u8], cuts: &[usize]) -> (Vec<Bytes>, Option<BadAnswer>) {
        let mut decoder = EventStream::new(1000);
        let mut events = Vec::new();
        let mut from = 0;
        for to in cuts.iter().copied().chain([stream.len()]) {
            let to = to.clamp(from, stream.len());
            decoder.push(&stream[from..to]);
            from = to;
            loop {
                match decoder.next_event() {
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break,
                    Err(error) => return (events, Some(error)),
                }
            }
        }
        (events, None)
    }

    #[test]
    fn messages_become_json() {
        let expected = [
            r#"{"messageStart":{"role":"assistant"}}"#,
            r#"{"contentBlockDelta":{"contentBlockIndex":0,"delta":{"text":"hi"},"p":"abcd"}}"#,
            r#"{"odd \" name":{}}"#,
            r#"{"throttlingException":{"message":"slow down"}}"#,
            r#"{"error":{"code":"Bad","message":"so \"bad\""}}"#,
        ];
        assert_eq!(all(&stream(), &[]), (expected.map(Bytes::from).to_vec(), None));
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_it_has_come() {
        let long = event("e", &[b' '; 2000]);
        assert_eq!(all(&long[..PRELUDE], &[]).1, Some(BadAnswer::TooLarge));
    }

    #[test]
    fn an_error_lasts() {
        let mut decoder = EventStream::new(1000);
        decoder.push(b"<html>an error page</html>");
        assert!(decoder.next_event().is_err());
        decoder.push(&event("e", b"{}"));
        assert!(decoder.next_event().is_err());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(mut cuts in proptest::collection::vec(0..700_usize, 0..30)) {
            cuts.sort_unstable();
            prop_assert_eq!(all(&stream(), &cuts), all(&stream(), &[]));
        }

        #[test]
        fn a_cut_stream_gives_only_whole_messages(cut in 0..700_usize) {
            let stream = stream();
            let cut = cut.min(stream.len() - 1);
            let (events, error) = all(&stream[..cut], &[]);
            prop_assert!(error.is_none() && events.len() < 5);
            prop_assert_eq!(&events[..], &all(&stream, &[]).0[..events.len()]);
        }

        #[test]
        fn any_wrong_byte_is_an_error(place in 0..700_usize, change in 1..=255_u8) {
            let mut stream = stream();
            let place = place % stream.len();
            stream[place] ^= change;
            let (events, error) = all(&stream, &[]);
            prop_assert!(error.is_some());
            prop_assert!(events.len() < 5);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), length in 12..200_u32) {
            let _ = all(&bytes, &[]);
            // With a prelude that is right, the headers are read.
            let mut prelude = [&length.to_be_bytes()[..], &[0, 0, 0, 30]].concat();
            prelude.extend(crc32(&prelude).to_be_bytes());
            prelude.extend(bytes);
            let _ = all(&prelude, &[]);
        }
    }
}
