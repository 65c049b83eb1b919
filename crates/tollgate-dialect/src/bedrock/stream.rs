//! The events of a stream: `{"contentBlockDelta":{…}}`.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tollgate_types::chat::ChatEvent;

use super::{
    error::{error, exception},
    measured::Measured,
    read::{Assembly, Call, Citation, Slot, Source, arguments_of, parse, start},
};
use crate::BadAnswer;

/// How far a stream has come.
#[derive(Default)]
pub(super) struct Stream {
    started: bool,
    stopped: bool,
    /// The usage, which comes last, has come.
    measured: bool,
    open: Option<Open>,
}

/// The block that is being made. Blocks of text begin without a word.
struct Open {
    index: u64,
    kind: Kind,
}

enum Kind {
    Text,
    Call { slot: Slot, empty: bool },
    Reasoning { signature: String, redacted: Blob },
    Image { format: String, bytes: Blob },
}

/// Bytes that come in pieces, each of them base64.
#[derive(Default)]
struct Blob(Vec<String>);

impl Blob {
    /// The whole as base64; None when nothing came.
    fn whole(&mut self) -> Result<Option<String>, BadAnswer> {
        if self.0.len() < 2 {
            return Ok(self.0.pop());
        }
        let mut bytes = Vec::new();
        for piece in self.0.drain(..) {
            let decoded = STANDARD.decode_vec(piece, &mut bytes);
            decoded.map_err(|_| BadAnswer::Misplaced("bytes that are not base64"))?;
        }
        Ok(Some(STANDARD.encode(bytes)))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockStart {
    content_block_index: u64,
    start: StartKind,
}

/// One of its fields is there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StartKind {
    tool_use: Option<Call>,
    image: Option<ImageStart>,
}

#[derive(Deserialize)]
struct ImageStart {
    format: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockDelta {
    content_block_index: u64,
    delta: Delta,
}

/// One of its fields is there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delta {
    text: Option<String>,
    tool_use: Option<Arguments>,
    reasoning_content: Option<Reasoning>,
    citation: Option<Citation>,
    image: Option<Image>,
}

#[derive(Deserialize)]
struct Arguments {
    #[serde(default)]
    input: String,
}

/// One of its fields is there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reasoning {
    text: Option<String>,
    signature: Option<String>,
    redacted_content: Option<String>,
}

#[derive(Deserialize)]
struct Image {
    source: Option<Source>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockStop {
    content_block_index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageStop {
    stop_reason: String,
    additional_model_response_fields: Option<Value>,
}

impl Stream {
    /// Metadata comes after the message has stopped, so that the stop does not end the stream.
    pub(super) const fn is_done(&self) -> bool {
        self.stopped && self.measured
    }

    pub(super) const fn is_complete(&self) -> bool {
        self.stopped
    }

    /// Reads what is no measure; returns the one that it is.
    pub(super) fn event(
        &mut self,
        data: &[u8],
        model: &str,
        assembly: &mut Assembly,
        events: &mut Vec<ChatEvent>,
    ) -> Result<Option<Measured>, BadAnswer> {
        let event: BTreeMap<Cow<'_, str>, &RawValue> = parse(data)?;
        let mut event = event.into_iter();
        let (Some((kind, payload)), None) = (event.next(), event.next()) else {
            return Err(BadAnswer::Misplaced("an event that is not one thing"));
        };
        let payload = payload.get().as_bytes();
        match &*kind {
            "messageStart" => {
                if std::mem::replace(&mut self.started, true) {
                    return Err(BadAnswer::Misplaced("a second start"));
                }
                events.push(start(model));
            }
            "contentBlockStart" => self.block_start(parse(payload)?, assembly, events)?,
            "contentBlockDelta" => self.block_delta(parse(payload)?, assembly, events)?,
            "contentBlockStop" => {
                let stop: BlockStop = parse(payload)?;
                self.expect_content()?;
                if self
                    .open
                    .as_ref()
                    .is_some_and(|open| open.index == stop.content_block_index)
                {
                    self.close(events)?;
                }
            }
            "messageStop" => {
                let stop: MessageStop = parse(payload)?;
                self.expect_content()?;
                self.close(events)?;
                let extra = stop.additional_model_response_fields.as_ref();
                assembly.finish(&stop.stop_reason, extra, events)?;
                self.stopped = true;
            }
            "metadata" => {
                let measured = parse(payload)?;
                if !self.started || std::mem::replace(&mut self.measured, true) {
                    return Err(BadAnswer::Misplaced("metadata"));
                }
                return Ok(Some(measured));
            }
            "error" => return Err(BadAnswer::Reported(error(payload))),
            kind if kind.ends_with("Exception") => return Err(BadAnswer::Reported(exception(kind, payload))),
            // Events that we do not know carry no content: that comes in blocks.
            _ => {}
        }
        Ok(None)
    }

    fn expect_content(&self) -> Result<(), BadAnswer> {
        if self.started && !self.stopped {
            Ok(())
        } else {
            Err(BadAnswer::Misplaced("content outside of the message"))
        }
    }

    fn block_start(
        &mut self,
        block: BlockStart,
        assembly: &mut Assembly,
        events: &mut Vec<ChatEvent>,
    ) -> Result<(), BadAnswer> {
        self.expect_content()?;
        self.close(events)?;
        let kind = match block.start {
            StartKind {
                tool_use: Some(call), ..
            } => Kind::Call {
                slot: assembly.call(call, String::new(), events)?,
                empty: true,
            },
            StartKind {
                image: Some(ImageStart { format }),
                ..
            } => Kind::Image {
                format,
                bytes: Blob::default(),
            },
            StartKind { .. } => return Err(BadAnswer::Misplaced("content of an unknown kind")),
        };
        self.open = Some(Open {
            index: block.content_block_index,
            kind,
        });
        Ok(())
    }

    fn block_delta(
        &mut self,
        block: BlockDelta,
        assembly: &mut Assembly,
        events: &mut Vec<ChatEvent>,
    ) -> Result<(), BadAnswer> {
        self.expect_content()?;
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.index != block.content_block_index)
        {
            self.close(events)?;
        }
        let is_reasoning = block.delta.reasoning_content.is_some();
        let open = self.open.get_or_insert_with(|| Open {
            index: block.content_block_index,
            kind: if is_reasoning {
                Kind::Reasoning {
                    signature: String::new(),
                    redacted: Blob::default(),
                }
            } else {
                Kind::Text
            },
        });
        open.kind.add(block.delta, assembly, events)
    }

    /// Gives out what was held back until its block was whole.
    fn close(&mut self, events: &mut Vec<ChatEvent>) -> Result<(), BadAnswer> {
        match self.open.take().map(|open| open.kind) {
            Some(Kind::Call { slot, empty: true }) => arguments_of(slot, "{}".to_owned(), events),
            Some(Kind::Reasoning {
                signature,
                mut redacted,
            }) => {
                let signature = Some(signature).filter(|signature| !signature.is_empty());
                events.extend(signature.map(|signature| ChatEvent::ReasoningSignature { signature }));
                events.extend(redacted.whole()?.map(|data| ChatEvent::RedactedReasoning { data }));
            }
            Some(Kind::Image { format, mut bytes }) => {
                let data = bytes.whole()?;
                events.push(ChatEvent::Media {
                    media_type: format!("image/{format}"),
                    data: data.ok_or(BadAnswer::Lacks("the bytes of an image"))?,
                });
            }
            Some(Kind::Text | Kind::Call { empty: false, .. }) | None => {}
        }
        Ok(())
    }
}

impl Kind {
    fn add(&mut self, delta: Delta, assembly: &mut Assembly, events: &mut Vec<ChatEvent>) -> Result<(), BadAnswer> {
        match (self, delta) {
            (Self::Text, Delta { text: Some(text), .. }) => assembly.say(ChatEvent::Text { text }, events),
            (
                Self::Text,
                Delta {
                    citation: Some(citation),
                    ..
                },
            ) => assembly.say(citation.event(), events),
            (
                Self::Call { slot, empty },
                Delta {
                    tool_use: Some(Arguments { input }),
                    ..
                },
            ) => {
                *empty &= input.is_empty();
                arguments_of(*slot, input, events);
            }
            (
                Self::Reasoning { signature, redacted },
                Delta {
                    reasoning_content: Some(reasoning),
                    ..
                },
            ) => {
                let text = reasoning.text.filter(|text| !text.is_empty());
                events.extend(text.map(|text| ChatEvent::Reasoning { text }));
                signature.extend(reasoning.signature);
                redacted.0.extend(reasoning.redacted_content);
            }
            (Self::Image { bytes, .. }, Delta { image: Some(image), .. }) => {
                let piece = image.source.and_then(|source| source.bytes);
                bytes.0.push(piece.ok_or(BadAnswer::Lacks("the bytes of an image"))?);
            }
            _ => return Err(BadAnswer::Misplaced("content of a kind that its block does not hold")),
        }
        Ok(())
    }
}
