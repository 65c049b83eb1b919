//! Our own token count, for when a provider gives none. Marked as such wherever it is used.

use serde_json::Value;

use crate::text;

/// Text is counted in pieces of about this size, so that a long answer is not kept.
const PIECE: usize = 16 << 10;
/// What a message costs beside its text, and what primes the answer: OpenAI's cookbook, "How to count tokens".
const PER_MESSAGE: u64 = 4;
const PER_REQUEST: u64 = 3;

/// The fields that a prompt is in, over all dialects.
const PROMPT: [&str; 7] = [
    "messages",
    "contents",
    "input",
    "system",
    "instructions",
    "systemInstruction",
    "tools",
];

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

/// Tokens of a request's prompt, in any dialect. Zero for what is not a request; images and files are not counted.
#[must_use]
pub fn prompt_tokens(body: &[u8]) -> u64 {
    let Ok(Value::Object(mut body)) = serde_json::from_slice::<Value>(body) else {
        return 0;
    };
    let turns = ["messages", "contents", "input"]
        .iter()
        .filter_map(|name| body.get(*name));
    let turns: usize = turns.map(|turns| turns.as_array().map_or(1, Vec::len)).sum();
    let mut total = PER_REQUEST + PER_MESSAGE * turns as u64;
    for name in PROMPT {
        if let Some(part) = body.get_mut(name) {
            text::visit(part, &mut |text| total += tokens(text));
        }
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
