//! Our own token count, for when a provider gives none. Marked as such wherever it is used.

use serde_json::Value;

use crate::text;

/// Text is counted in pieces of about this size, so that a long answer is not kept.
const PIECE: usize = 16 << 10;
/// What a message costs beside its text, and what primes the answer: OpenAI's cookbook, "How to count tokens".
const PER_MESSAGE: u64 = 4;
const PER_REQUEST: u64 = 3;

/// Tokens of a text that arrives in parts.
#[derive(Default)]
pub struct Tally {
    pending: String,
    counted: u64,
}

impl Tally {
    /// Adds the next part.
    pub fn add(&mut self, text: &str) {
        self.pending.push_str(text);
        if self.pending.len() > PIECE {
            self.settle();
        }
    }

    /// Tokens of all that was added.
    pub fn tokens(&mut self) -> u64 {
        self.settle();
        self.counted
    }

    fn settle(&mut self) {
        if !self.pending.is_empty() {
            self.counted += tokens(&self.pending);
            self.pending.clear();
        }
    }
}

/// Tokens of a request's prompt. Zero for what is not a request; images and files are not counted.
#[must_use]
pub fn prompt_tokens(body: &[u8]) -> u64 {
    let Ok(mut body) = serde_json::from_slice::<Value>(body) else {
        return 0;
    };
    let messages = body.get("messages").and_then(Value::as_array).map_or(0, Vec::len) as u64;
    let mut total = PER_REQUEST + PER_MESSAGE * messages;
    if let Some(messages) = body.get_mut("messages") {
        text::visit(messages, &mut |text| total += tokens(text));
    }
    total
}

fn tokens(text: &str) -> u64 {
    tiktoken_rs::o200k_base_singleton().encode_ordinary(text).len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_count_like_the_whole() {
        let mut tally = Tally::default();
        for part in ["Hel", "lo wor", "ld"] {
            tally.add(part);
        }
        assert_eq!(tally.tokens(), 2);
        tally.add(&"word ".repeat(10_000));
        assert!((9_990..10_020).contains(&tally.tokens()));
    }

    #[test]
    fn prompts_count_text_messages_and_priming() {
        let body = br#"{"model":"x","messages":[{"role":"user","content":"Hello world"}]}"#;
        assert_eq!(prompt_tokens(body), 3 + 4 + 2);
        assert_eq!(prompt_tokens(b"nonsense"), 0);
    }
}
