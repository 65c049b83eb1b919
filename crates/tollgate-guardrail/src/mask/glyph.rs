//! Text as the mask looks at it: no invisible characters, and one code point for each thing that looks or works the same.

use crate::fold::ignorable;

/// Invisible characters in a row that a match may contain; bounds what is held back.
const MAX_GAP: usize = 64;

/// A visible character and the offset it came from.
#[derive(Clone, Copy)]
pub(super) struct Glyph {
    pub(super) c: char,
    pub(super) at: u32,
}

/// Reads characters into glyphs.
#[derive(Default)]
pub(super) struct Reader {
    gap: usize,
}

impl Reader {
    /// The glyph for the next character, which is at offset `at`.
    pub(super) fn read(&mut self, c: char, at: u32) -> Option<Glyph> {
        if c.is_ascii_graphic() || c == ' ' {
            self.gap = 0;
            return Some(Glyph { c, at });
        }
        if ignorable(c) {
            self.gap += 1;
            // A flood of them hides nothing; NUL is part of no match and ends whatever came before.
            return self.gap.is_multiple_of(MAX_GAP).then_some(Glyph { c: '\0', at });
        }
        self.gap = 0;
        Some(Glyph { c: plain(c), at })
    }
}

/// The ASCII character that `c` stands for, if there is one that matters in an address or a number.
fn plain(c: char) -> char {
    const ZEROS: [u32; 9] = [0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xe50, 0x1040, 0x17e0];
    if c.is_ascii() {
        return c;
    }
    let code = c as u32;
    let ascii = |code: u32| char::from_u32(code).unwrap_or(c);
    match c {
        '\u{ff01}'..='\u{ff5e}' => ascii(code - 0xfee0),
        '\u{fe6b}' => '@',
        '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => ' ',
        '\u{2010}' | '\u{2011}' => '-',
        '\u{1d7ce}'..='\u{1d7ff}' => ascii(0x30 + (code - 0x1d7ce) % 10),
        _ => match ZEROS.iter().find(|&&zero| (zero..zero + 10).contains(&code)) {
            Some(zero) => ascii(0x30 + code - zero),
            None => c,
        },
    }
}
