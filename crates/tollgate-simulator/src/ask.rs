//! What a request asks for, whatever wire format it came in.

use serde_json::Value;

/// A valid request, reduced to what the answer depends on.
#[derive(Debug, Default)]
pub(crate) struct Ask {
    pub(crate) model: String,
    pub(crate) stream: bool,
    /// Send the usage at the end of a stream, where a format leaves the choice.
    pub(crate) include_usage: bool,
    /// The text of the last user turn; empty without one.
    pub(crate) prompt: String,
    pub(crate) input_tokens: u64,
    /// The terms on which the call is served, where a format knows such.
    pub(crate) service_tier: &'static str,
    /// Number of choices.
    pub(crate) n: u64,
    /// Most tokens of an answer.
    pub(crate) limit: Option<u64>,
    pub(crate) stop: Vec<String>,
    pub(crate) tools: Vec<Tool>,
    /// The tool that the answer has to call.
    pub(crate) forced: Option<Tool>,
    /// The answer must not call a tool.
    pub(crate) no_tools: bool,
    pub(crate) format: Form,
    /// The request turned reasoning on.
    pub(crate) reasoning: bool,
    /// Alternatives of each token whose log-probabilities are asked for.
    pub(crate) logprobs: Option<u64>,
    pub(crate) attachments: Attachments,
    /// Texts of the tool results that end the conversation; empty if its last turn is the user's own words.
    pub(crate) results: Vec<String>,
}

/// A tool the answer may call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tool {
    pub(crate) name: String,
    /// JSON schema of a function's arguments; `None` for a custom tool, whose input is plain text.
    pub(crate) parameters: Option<Value>,
}

/// What form the text of the answer must have.
#[derive(Debug, Default, PartialEq)]
pub(crate) enum Form {
    #[default]
    Text,
    /// Any JSON object.
    Object,
    /// A JSON object of this schema.
    Schema(Value),
}

/// What the last user turn holds beside text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Attachments {
    pub(crate) images: u64,
    pub(crate) files: u64,
    pub(crate) sounds: u64,
}

/// Flat price of an image, a sound or a file, in tokens.
pub(crate) const TOKENS_PER_ATTACHMENT: u64 = 85;

impl Attachments {
    /// A note for the end of an echo, so that a test sees what arrived.
    pub(crate) fn note(self) -> String {
        let counted = [(self.images, "image"), (self.files, "file"), (self.sounds, "sound")];
        counted
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!(" [{count} {name}{}]", if *count == 1 { "" } else { "s" }))
            .collect()
    }
}
