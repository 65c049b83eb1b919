//! The two sides of a dialect, as the translation sees them.

use bytes::Bytes;
use serde_json::Value;
pub(crate) use tollgate_types::provider::{OnUnsupported, Quirks};
use tollgate_types::{Usage, chat::ChatEvent};

use crate::{BadAnswer, Refused};

/// Reads a provider's answer. Made by the side that wrote the request, which knows what it renamed.
///
/// [`ChatEvent`] says in what order events come.
pub(crate) trait Reader: Send {
    /// What one event of the stream says. `data` is the data of a server-sent event, or the payload of a message of AWS's
    /// event stream.
    fn event(&mut self, data: &[u8]) -> Result<Vec<ChatEvent>, BadAnswer>;

    /// What a whole body says.
    fn whole(&mut self, body: &[u8]) -> Result<Vec<ChatEvent>, BadAnswer>;

    /// Whether the stream has said that nothing more follows.
    fn is_done(&self) -> bool;

    /// Whether what has come would be a complete answer if the connection closed now.
    fn is_complete(&self) -> bool;

    /// What is known of the usage before it is final: the prompt's part, of a provider that tells it first.
    fn partial_usage(&self) -> Option<Usage> {
        None
    }

    /// The provider's report of the usage so far, in its own JSON, with what else of the answer decides the price.
    fn report(&self) -> Option<&Value> {
        None
    }
}

/// Writes an answer for a client.
pub(crate) trait Writer: Send {
    /// Frames, each the data of one event of the client's stream, for one event of the answer.
    fn event(&mut self, event: ChatEvent) -> Result<Vec<Bytes>, BadAnswer>;

    /// The frames that were held back until the answer was known to be complete.
    fn end(&mut self) -> Result<Vec<Bytes>, BadAnswer>;

    /// The body of an answer that is not streamed.
    fn whole(&mut self, events: Vec<ChatEvent>) -> Result<Bytes, BadAnswer>;
}

/// What a request is written for.
pub(crate) struct Target<'a> {
    /// The provider's own name of the model.
    pub(crate) model: &'a str,
    pub(crate) quirks: Quirks,
}

/// Keeps account of what a provider cannot be asked for.
pub(crate) struct Losses {
    policy: OnUnsupported,
    pub(crate) dropped: Vec<String>,
}

impl Losses {
    pub(crate) const fn new(policy: OnUnsupported) -> Self {
        Self {
            policy,
            dropped: Vec::new(),
        }
    }

    /// Says that `feature` cannot be asked for: an error, or, if that is the policy, the word to leave it out.
    pub(crate) fn cannot(&mut self, feature: impl Into<String>) -> Result<(), Refused> {
        let feature = feature.into();
        match self.policy {
            OnUnsupported::Refuse => Err(Refused::Unsupported(feature)),
            OnUnsupported::Drop => {
                self.dropped.push(feature);
                Ok(())
            }
        }
    }
}
