//! What a call used, as Converse says it.

use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_types::{Usage, chat::ChatEvent};

use crate::BadAnswer;

/// What the call used, and on which terms.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measured {
    pub(super) usage: Option<Value>,
    pub(super) service_tier: Option<Value>,
}

impl Measured {
    /// What a client is told, and the report that decides the price; none without a usage.
    pub(super) fn read(self) -> Result<Option<(ChatEvent, Value)>, BadAnswer> {
        let Some(usage) = self.usage else { return Ok(None) };
        let tokens = TokenUsage::deserialize(&usage);
        let tokens = tokens.map_err(|_| BadAnswer::Lacks("a field, or has it in another form"))?;
        let report = json!({ "usage": usage, "serviceTier": self.service_tier });
        Ok(Some((tokens.event(), report)))
    }
}

/// Tokens; those of the cache are not among the input's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct TokenUsage {
    input_tokens: u64,
    output_tokens: u64,
    cache_read_input_tokens: Option<u64>,
    cache_write_input_tokens: Option<u64>,
    cache_details: Option<Vec<CacheDetail>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CacheDetail {
    ttl: Option<String>,
    #[serde(default)]
    input_tokens: u64,
}

impl TokenUsage {
    fn event(&self) -> ChatEvent {
        let details = || self.cache_details.iter().flatten();
        let sum = |tokens: &mut dyn Iterator<Item = u64>| tokens.fold(0, u64::saturating_add);
        let read = self.cache_read_input_tokens.unwrap_or_default();
        let written = self
            .cache_write_input_tokens
            .unwrap_or_else(|| sum(&mut details().map(|detail| detail.input_tokens)));
        let hour = sum(&mut details()
            .filter(|detail| detail.ttl.as_deref() == Some("1h"))
            .map(|detail| detail.input_tokens));
        ChatEvent::Usage {
            usage: Usage {
                input_tokens: self.input_tokens.saturating_add(read).saturating_add(written),
                cached_input_tokens: read,
                cache_write_input_tokens: written,
                cache_write_1h_input_tokens: hour.min(written),
                output_tokens: self.output_tokens,
                ..Usage::default()
            },
        }
    }
}
