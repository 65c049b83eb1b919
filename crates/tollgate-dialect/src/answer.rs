//! A provider's answer on its way to the client.

use bytes::Bytes;
use tollgate_pricing::Consumption;
use tollgate_types::{Usage, chat::ChatEvent};

use crate::{
    BadAnswer, Tally,
    side::{Reader, Writer},
};

/// What is known of an answer at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// As the provider reported it.
    pub usage: Option<Usage>,
    /// The model that the provider says it used.
    pub served_model: Option<String>,
    /// Whether the provider said that the answer is complete.
    pub complete: bool,
}

/// What an event looks like to a client that speaks the provider's dialect.
pub(crate) type Filter = fn(&[u8]) -> Result<Option<Bytes>, BadAnswer>;

pub(crate) enum Output {
    /// Client and provider speak the same dialect: bytes go through, but for what the filter takes out of streams.
    Same(Option<Filter>),
    Written(Box<dyn Writer>),
    Plain(ReadPlain),
}

/// An answer that is no conversation, read at once.
pub(crate) struct Plain {
    pub(crate) frame: Bytes,
    pub(crate) usage: Option<Usage>,
    pub(crate) model: Option<String>,
}

type ReadPlain = Box<dyn Fn(&[u8]) -> Result<Plain, BadAnswer> + Send>;

/// Follows an answer and makes the client's frames of it.
pub struct Answer {
    reader: Box<dyn Reader>,
    output: Output,
    summary: Summary,
    tally: Tally,
    ended: bool,
}

impl Answer {
    pub(crate) fn new(reader: Box<dyn Reader>, output: Output) -> Self {
        Self {
            reader,
            output,
            summary: Summary::default(),
            tally: Tally::default(),
            ended: false,
        }
    }

    /// Of a call whose answer is not streamed and no conversation.
    pub(crate) fn plain(read: ReadPlain) -> Self {
        Self::new(Box::new(Nothing), Output::Plain(read))
    }

    /// The client's frames for the data of one event.
    pub fn event(&mut self, data: &[u8]) -> Result<Vec<Bytes>, BadAnswer> {
        let events = self.reader.event(data)?;
        events.iter().for_each(|event| self.note(event));
        let mut frames = Vec::new();
        match &mut self.output {
            Output::Same(None) => frames.push(Bytes::copy_from_slice(data)),
            Output::Same(Some(filter)) => frames.extend(filter(data)?),
            Output::Written(writer) => {
                for event in events {
                    frames.extend(writer.event(event)?);
                }
            }
            Output::Plain(_) => return Err(BadAnswer::Misplaced("a stream")),
        }
        if self.reader.is_done() {
            frames.extend(self.end()?);
        }
        Ok(frames)
    }

    /// The single frame for an answer that is not streamed.
    pub fn whole(&mut self, body: &[u8]) -> Result<Bytes, BadAnswer> {
        if let Output::Plain(read) = &self.output {
            let Plain { frame, usage, model } = read(body)?;
            self.summary = Summary {
                usage,
                served_model: model,
                complete: true,
            };
            return Ok(frame);
        }
        let events = self.reader.whole(body)?;
        events.iter().for_each(|event| self.note(event));
        self.summary.complete = true;
        match &mut self.output {
            Output::Same(_) | Output::Plain(_) => Ok(Bytes::copy_from_slice(body)),
            Output::Written(writer) => writer.whole(events),
        }
    }

    /// Whether the stream has said that nothing more follows.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.reader.is_done()
    }

    /// The connection closed; the frames that were held back. Some servers end a stream without saying so; a finished
    /// answer is complete all the same.
    pub fn closed(&mut self) -> Result<Vec<Bytes>, BadAnswer> {
        self.end()
    }

    fn end(&mut self) -> Result<Vec<Bytes>, BadAnswer> {
        if !self.reader.is_complete() || std::mem::replace(&mut self.ended, true) {
            return Ok(Vec::new());
        }
        self.summary.complete = true;
        match &mut self.output {
            Output::Same(_) | Output::Plain(_) => Ok(Vec::new()),
            Output::Written(writer) => writer.end(),
        }
    }

    /// What is known so far.
    #[must_use]
    pub const fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The prompt's part of the usage, of a provider that tells it before the answer and then broke off.
    #[must_use]
    pub fn partial_usage(&self) -> Option<Usage> {
        self.reader.partial_usage()
    }

    /// What was used, by all that decides the price; `None` when the provider does not say it, or in no way that is known.
    #[must_use]
    pub fn consumption(&self) -> Option<Consumption> {
        tollgate_pricing::read(self.reader.report()?).ok()
    }

    /// Tokens of what has arrived, by our own count.
    pub fn counted_output(&mut self) -> u64 {
        self.tally.tokens()
    }

    fn note(&mut self, event: &ChatEvent) {
        match event {
            ChatEvent::Start { model, .. } => self.summary.served_model = Some(model.clone()),
            ChatEvent::Text { text } | ChatEvent::Refusal { text } | ChatEvent::Reasoning { text } => {
                self.tally.add(text);
            }
            ChatEvent::ToolCall { arguments, name, .. } => {
                self.tally.add(name.as_deref().unwrap_or_default());
                self.tally.add(arguments);
            }
            ChatEvent::Usage { usage } => self.summary.usage = Some(*usage),
            ChatEvent::ReasoningSignature { .. }
            | ChatEvent::RedactedReasoning { .. }
            | ChatEvent::Citation { .. }
            | ChatEvent::Logprobs { .. }
            | ChatEvent::Media { .. }
            | ChatEvent::Finish { .. } => {}
        }
    }
}

/// Reads no conversation.
struct Nothing;

impl Reader for Nothing {
    fn event(&mut self, _: &[u8]) -> Result<Vec<ChatEvent>, BadAnswer> {
        Err(BadAnswer::Misplaced("a stream"))
    }

    fn whole(&mut self, _: &[u8]) -> Result<Vec<ChatEvent>, BadAnswer> {
        Err(BadAnswer::Misplaced("a conversation"))
    }

    fn is_done(&self) -> bool {
        false
    }

    fn is_complete(&self) -> bool {
        false
    }
}
