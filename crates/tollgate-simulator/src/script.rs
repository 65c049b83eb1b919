//! The script: which models the simulator knows, what its answers look like, and how much trouble it makes.
//!
//! A script is plain JSON, so that a test written in any language can set one over HTTP. Every field has a default
//! and an unknown field is refused: a misspelt trouble that silently does nothing would make a fault test pass.

use serde::{Deserialize, Serialize};

/// Parts per million: rates are turned into whole numbers once, so that shares add up without rounding drift.
pub(crate) const MILLION: u32 = 1_000_000;

/// Most words of an answer.
pub(crate) const MOST_WORDS: u32 = 200_000;

/// The models that every format answers for, and the one that makes vectors.
const MODELS: [&str; 8] = [
    "sim-mini",
    "sim-large",
    "sim-claude",
    "sim-gemini",
    "sim-embed",
    "gpt-4o-mini",
    "gpt-4o",
    "claude-sonnet-4-5",
];

/// What the simulator does. All shares are of the calls that pass authentication and validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// The models this provider has; any other is a 404.
    pub models: Vec<String>,
    /// Wait before the first byte of any answer, scripted errors included, in milliseconds.
    pub delay_ms: u64,
    /// Wait before each content chunk of a streamed answer but the first, in milliseconds.
    pub chunk_delay_ms: u64,
    /// Tokens per content chunk of a streamed answer; at least 1.
    pub chunk_tokens: u32,
    /// Length of a text answer in words, at most 200,000: cut to it, or padded up to it. Unset: whatever the echo gives.
    pub output_words: Option<u32>,
    /// Prompt tokens reported as read from a cache, at most the prompt's own tokens.
    pub cached_tokens: u64,
    /// Share of calls answered with an error status, 0 to 1.
    pub error_rate: f64,
    /// The status of those errors, 400 to 599.
    pub error_status: u16,
    /// If not empty, the statuses of those errors, taken in turn, instead of `error_status`.
    pub error_statuses: Vec<u16>,
    /// `retry-after` header on scripted 429 and 503, in seconds.
    pub retry_after_s: Option<u64>,
    /// Share of calls whose connection breaks in the middle of the answer, 0 to 1.
    pub cut_rate: f64,
    /// Content chunks sent before a stream is cut or carries an error; with fewer in the answer, before its finish chunk.
    pub cut_after_chunks: u32,
    /// Share of calls that get headers and then nothing, until the client leaves or 60 s have passed, 0 to 1.
    pub stall_rate: f64,
    /// Share of calls with an error inside a 200, 0 to 1: an `error` event in a stream, an `error` object as a whole body.
    pub error_in_stream_rate: f64,
    /// Leave usage out of every answer. The simulator still counts it.
    pub omit_usage: bool,
    /// Shifts where in the sequence of calls the trouble falls, not how much of it there is.
    pub seed: u64,
    /// Overrides by model; the first rule with the model's name applies.
    pub rules: Vec<Rule>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            models: MODELS.map(str::to_owned).to_vec(),
            delay_ms: 0,
            chunk_delay_ms: 0,
            chunk_tokens: 1,
            output_words: None,
            cached_tokens: 0,
            error_rate: 0.0,
            error_status: 500,
            error_statuses: Vec::new(),
            retry_after_s: None,
            cut_rate: 0.0,
            cut_after_chunks: 3,
            stall_rate: 0.0,
            error_in_stream_rate: 0.0,
            omit_usage: false,
            seed: 0,
            rules: Vec::new(),
        }
    }
}

/// The same fields for one model; unset ones are the script's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The model this rule is for; must be one of the script's `models`.
    pub model: String,
    /// As [`Script::delay_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// As [`Script::chunk_delay_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_delay_ms: Option<u64>,
    /// As [`Script::chunk_tokens`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_tokens: Option<u32>,
    /// As [`Script::output_words`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_words: Option<u32>,
    /// As [`Script::cached_tokens`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_tokens: Option<u64>,
    /// As [`Script::error_rate`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<f64>,
    /// As [`Script::error_status`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_status: Option<u16>,
    /// As [`Script::error_statuses`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_statuses: Option<Vec<u16>>,
    /// As [`Script::retry_after_s`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// As [`Script::cut_rate`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_rate: Option<f64>,
    /// As [`Script::cut_after_chunks`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_after_chunks: Option<u32>,
    /// As [`Script::stall_rate`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_rate: Option<f64>,
    /// As [`Script::error_in_stream_rate`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_in_stream_rate: Option<f64>,
    /// As [`Script::omit_usage`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omit_usage: Option<bool>,
}

/// Why a script was refused.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ScriptError {
    /// Not JSON, or a field that is unknown or of the wrong type.
    #[error("not a script: {0}")]
    Shape(String),
    /// A value out of its range.
    #[error("{place}: {problem}")]
    Value {
        /// The field, as `cut_rate` or `rules[0].cut_rate`.
        place: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Script {
    /// Reads a script from JSON and checks every value.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ScriptError> {
        let script: Self = serde_json::from_slice(bytes).map_err(|e| ScriptError::Shape(e.to_string()))?;
        script.validate()?;
        Ok(script)
    }

    /// Checks that rates are shares, statuses are errors and rules name known models.
    pub fn validate(&self) -> Result<(), ScriptError> {
        let refuse = |place: String, problem| Err(ScriptError::Value { place, problem });
        if self.models.is_empty() || self.models.iter().any(String::is_empty) {
            return refuse("models".into(), "must name at least one model, none of them empty");
        }
        self.effective(None).validate("")?;
        for (index, rule) in self.rules.iter().enumerate() {
            let prefix = format!("rules[{index}].");
            if !self.models.contains(&rule.model) {
                return refuse(format!("{prefix}model"), "is not one of the script's models");
            }
            self.effective(Some(rule)).validate(&prefix)?;
        }
        Ok(())
    }

    /// Where the rule for a model stands in `rules`, if there is one.
    pub(crate) fn rule_index(&self, model: &str) -> Option<usize> {
        self.rules.iter().position(|rule| rule.model == model)
    }

    /// The script with a rule's overrides applied.
    pub(crate) fn effective(&self, rule: Option<&Rule>) -> Behaviour {
        let own = Rule::default();
        let rule = rule.unwrap_or(&own);
        Behaviour {
            delay_ms: rule.delay_ms.unwrap_or(self.delay_ms),
            chunk_delay_ms: rule.chunk_delay_ms.unwrap_or(self.chunk_delay_ms),
            chunk_tokens: rule.chunk_tokens.unwrap_or(self.chunk_tokens),
            output_words: rule.output_words.or(self.output_words),
            cached_tokens: rule.cached_tokens.unwrap_or(self.cached_tokens),
            error_rate: rule.error_rate.unwrap_or(self.error_rate),
            error_statuses: self.statuses(rule),
            retry_after_s: rule.retry_after_s.or(self.retry_after_s),
            cut_rate: rule.cut_rate.unwrap_or(self.cut_rate),
            cut_after_chunks: rule.cut_after_chunks.unwrap_or(self.cut_after_chunks),
            stall_rate: rule.stall_rate.unwrap_or(self.stall_rate),
            error_in_stream_rate: rule.error_in_stream_rate.unwrap_or(self.error_in_stream_rate),
            omit_usage: rule.omit_usage.unwrap_or(self.omit_usage),
            calls: None,
            think_words: None,
            refuse: false,
            filter: false,
            cache_write_tokens: 0,
        }
    }

    /// The error statuses for a rule: its own settings beat the script's, and a list beats a single status.
    fn statuses(&self, rule: &Rule) -> Vec<u16> {
        match (&rule.error_statuses, rule.error_status) {
            (Some(list), _) if !list.is_empty() => list.clone(),
            (_, Some(status)) => vec![status],
            _ if !self.error_statuses.is_empty() => self.error_statuses.clone(),
            _ => vec![self.error_status],
        }
    }
}

/// The script as it applies to one model.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    pub(crate) delay_ms: u64,
    pub(crate) chunk_delay_ms: u64,
    pub(crate) chunk_tokens: u32,
    pub(crate) output_words: Option<u32>,
    pub(crate) cached_tokens: u64,
    pub(crate) error_rate: f64,
    /// Never empty.
    pub(crate) error_statuses: Vec<u16>,
    pub(crate) retry_after_s: Option<u64>,
    pub(crate) cut_rate: f64,
    pub(crate) cut_after_chunks: u32,
    pub(crate) stall_rate: f64,
    pub(crate) error_in_stream_rate: f64,
    pub(crate) omit_usage: bool,
    /// Parallel tool calls, when there are tools to call.
    pub(crate) calls: Option<u32>,
    /// Words of reasoning before the answer.
    pub(crate) think_words: Option<u32>,
    /// The answer is a refusal.
    pub(crate) refuse: bool,
    /// The answer ends because its content was filtered.
    pub(crate) filter: bool,
    /// Prompt tokens reported as written to a cache.
    pub(crate) cache_write_tokens: u64,
}

impl Behaviour {
    fn validate(&self, prefix: &str) -> Result<(), ScriptError> {
        let refuse = |field: &str, problem| {
            Err(ScriptError::Value {
                place: format!("{prefix}{field}"),
                problem,
            })
        };
        let rates = [
            ("error_rate", self.error_rate),
            ("cut_rate", self.cut_rate),
            ("stall_rate", self.stall_rate),
            ("error_in_stream_rate", self.error_in_stream_rate),
        ];
        for (field, rate) in rates {
            if !(0.0..=1.0).contains(&rate) {
                return refuse(field, "must be between 0 and 1");
            }
        }
        if self.shares().iter().sum::<u32>() > MILLION {
            return refuse("error_rate", "together with the other rates must not pass 1");
        }
        if !self.error_statuses.iter().all(|status| is_error(*status)) {
            return refuse("error_status", "must be between 400 and 599");
        }
        if self.output_words.is_some_and(|words| words > MOST_WORDS) {
            return refuse("output_words", "must be at most 200000");
        }
        if self.chunk_tokens == 0 {
            return refuse("chunk_tokens", "must be at least 1");
        }
        Ok(())
    }

    /// The rates in parts per million, in the order error, cut, stall, error inside, which [`crate::trouble::Draws`] relies on.
    pub(crate) fn shares(&self) -> [u32; 4] {
        let ppm = |rate: f64| (rate.clamp(0.0, 1.0) * f64::from(MILLION)).round() as u32;
        [
            ppm(self.error_rate),
            ppm(self.cut_rate),
            ppm(self.stall_rate),
            ppm(self.error_in_stream_rate),
        ]
    }
}

/// Whether a status may be scripted as an error.
pub(crate) fn is_error(status: u16) -> bool {
    (400..=599).contains(&status)
}
