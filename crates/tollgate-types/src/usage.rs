//! What a call used, in tokens, and how we know.

use serde::{Deserialize, Serialize};

/// Tokens of one call. Counts that are part of another say so; all are as the provider bills them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// All tokens of the prompt, cached ones included.
    pub input_tokens: u64,
    /// The part of `input_tokens` that the provider read from its cache.
    pub cached_input_tokens: u64,
    /// The part of `input_tokens` that the provider wrote to its cache.
    pub cache_write_input_tokens: u64,
    /// The part of `cache_write_input_tokens` that is kept for an hour, which costs more than five minutes.
    pub cache_write_1h_input_tokens: u64,
    /// The part of `input_tokens` that was sound.
    pub audio_input_tokens: u64,
    /// All tokens of the answer, reasoning included.
    pub output_tokens: u64,
    /// The part of `output_tokens` that was reasoning.
    pub reasoning_tokens: u64,
    /// The part of `output_tokens` that was sound.
    pub audio_output_tokens: u64,
    /// Searches of the web that the provider made for the answer; billed by number.
    pub web_searches: u64,
}

/// Where a usage comes from. A reader of the ledger must be able to tell a bill from a guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The provider reported it. An explicit zero is a zero.
    Provider,
    /// The provider gave none (a stream that ended early); we counted what we sent and received.
    Counted,
    /// Nobody saw the end of the call; an estimate from the request.
    Estimated,
    /// The provider refused or was never reached: nothing was used.
    None,
}

impl UsageSource {
    /// The name used in the database, in reports and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Counted => "counted",
            Self::Estimated => "estimated",
            Self::None => "none",
        }
    }
}
