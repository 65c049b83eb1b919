//! Counting and splitting text by o200k_base, the vocabulary of the models this provider imitates.

use tiktoken_rs::{CoreBPE, o200k_base_singleton};

/// Longer text is encoded slice by slice: the splitting pattern backtracks, and gives up on very long runs of blanks.
const SLICE_BYTES: usize = 64 * 1024;

/// A part of an answer: whole characters, and the tokens they cost.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) tokens: u64,
}

/// Loads the vocabulary, which takes a good part of a second the first time.
pub(crate) fn warm_up() {
    o200k_base_singleton();
}

/// Tokens in a text. Above 64 KiB the count is by slices, so up to one token a slice too high.
pub(crate) fn count(text: &str) -> u64 {
    encode(text).len() as u64
}

/// Splits a text into pieces of `per_piece` tokens, or more where a character spans tokens, keeping at most `limit`
/// tokens. Also says whether the limit cut the text.
pub(crate) fn pieces(text: &str, per_piece: u32, limit: Option<u64>) -> (Vec<Piece>, bool) {
    let mut tokens = encode(text);
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let cut = tokens.len() > limit;
    tokens.truncate(limit);

    let mut pieces: Vec<Piece> = Vec::new();
    let mut bytes = Vec::new();
    let mut held = 0;
    for token in tokens {
        bytes.extend(bytes_of(token));
        held += 1;
        if held < u64::from(per_piece) {
            continue;
        }
        if let Ok(text) = std::str::from_utf8(&bytes) {
            pieces.push(Piece {
                text: text.to_owned(),
                tokens: held,
            });
            bytes.clear();
            held = 0;
        }
    }
    if held > 0 {
        // The limit may have cut a character in two: its first half is paid for but not sent.
        let valid = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(e) => std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default(),
        };
        pieces.push(Piece {
            text: valid.to_owned(),
            tokens: held,
        });
    }
    (pieces, cut)
}

fn encode(text: &str) -> Vec<u32> {
    let bpe = o200k_base_singleton();
    let mut tokens = Vec::new();
    let mut rest = text;
    while rest.len() > SLICE_BYTES {
        let (slice, tail) = rest.split_at(rest.floor_char_boundary(SLICE_BYTES));
        tokens.extend(bpe.encode_ordinary(slice));
        rest = tail;
    }
    tokens.extend(bpe.encode_ordinary(rest));
    tokens
}

fn bytes_of(token: u32) -> Vec<u8> {
    let bpe: &CoreBPE = o200k_base_singleton();
    // Only tokens from `encode` come here, and the vocabulary has all of those.
    bpe.decode_bytes(&[token]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_characters_and_join_to_the_text() {
        let text = "Zoë says 🦀🦀 𓀀 日本語 and leaves";
        for per_piece in [1, 2, 5] {
            let (pieces, cut) = pieces(text, per_piece, None);
            let joined: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
            assert_eq!(joined, text);
            assert!(!cut && pieces.iter().all(|piece| !piece.text.is_empty()));
            assert_eq!(pieces.iter().map(|piece| piece.tokens).sum::<u64>(), count(text));
        }
    }

    #[test]
    fn a_limit_is_exact_even_inside_a_character() {
        for limit in 1..12 {
            let (pieces, cut) = pieces("𓀀𓀁𓀂𓀃𓀄𓀅𓀆𓀇", 1, Some(limit));
            assert!(cut);
            assert_eq!(pieces.iter().map(|piece| piece.tokens).sum::<u64>(), limit);
        }
    }

    #[test]
    fn a_long_run_of_blanks_is_counted() {
        assert!(count(&" ".repeat(1_000_000)) > 0);
        assert!(count(&"a".repeat(300_000)) > 0);
    }
}
