//! What a call used, in tokens, and how we know.

use serde::{Deserialize, Serialize};
use tollgate_pricing::{Consumption, Unit};

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

impl Usage {
    /// What was used, of a count that is our own or an estimate.
    ///
    /// Kinds that are part of a count are never more than all of it, and where a token is in two kinds (sound that was read
    /// from the cache) it is in the first of: read from the cache, written to it, sound.
    #[must_use]
    pub fn consumption(&self) -> Consumption {
        let mut input = self.input_tokens;
        let cached = take(&mut input, self.cached_input_tokens);
        let mut written = take(&mut input, self.cache_write_input_tokens);
        let written_1h = take(&mut written, self.cache_write_1h_input_tokens);
        let audio_input = take(&mut input, self.audio_input_tokens);
        let mut output = self.output_tokens;
        let audio_output = take(&mut output, self.audio_output_tokens);
        let reasoning = take(&mut output, self.reasoning_tokens);
        let quantities = [
            (Unit::Input, input),
            (Unit::CachedInput, cached),
            (Unit::CacheWrite, written),
            (Unit::CacheWrite1h, written_1h),
            (Unit::AudioInput, audio_input),
            (Unit::Output, output),
            (Unit::AudioOutput, audio_output),
            (Unit::Reasoning, reasoning),
            (Unit::WebSearch, self.web_searches),
        ];
        Consumption {
            quantities: quantities.into_iter().filter(|(_, count)| *count > 0).collect(),
            prompt_tokens: self.input_tokens,
            ..Consumption::default()
        }
    }
}

/// Takes up to `part` from `rest`.
fn take(rest: &mut u64, part: u64) -> u64 {
    let taken = part.min(*rest);
    *rest -= taken;
    taken
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_part_of_their_counts() {
        let usage = Usage {
            input_tokens: 1000,
            cached_input_tokens: 100,
            cache_write_input_tokens: 300,
            cache_write_1h_input_tokens: 200,
            audio_input_tokens: 50,
            output_tokens: 500,
            reasoning_tokens: 400,
            audio_output_tokens: 20,
            web_searches: 3,
        };
        let expected = [
            (Unit::Input, 550),
            (Unit::CachedInput, 100),
            (Unit::CacheWrite, 100),
            (Unit::CacheWrite1h, 200),
            (Unit::AudioInput, 50),
            (Unit::Output, 80),
            (Unit::Reasoning, 400),
            (Unit::AudioOutput, 20),
            (Unit::WebSearch, 3),
        ];
        assert_eq!(usage.consumption().quantities, expected.into());
        let cached_sound = Usage {
            input_tokens: 10,
            cached_input_tokens: 1000,
            audio_input_tokens: 10,
            ..Usage::default()
        };
        assert_eq!(cached_sound.consumption().quantities, [(Unit::CachedInput, 10)].into());
    }
}
