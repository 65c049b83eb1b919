//! Which characters count as the same, as nothing, or as a word, so that a check cannot be passed by writing the same
//! thing with other code points.
//!
//! Everything here looks at one character at a time (combining marks: at one run of them), because text arrives in
//! pieces and the result must not depend on where it was cut.

use unicode_normalization::char::{canonical_combining_class, decompose_compatible, is_combining_mark};

/// Folded white space and ignorable characters in a row after which two words are no longer neighbours. Bounds what a
/// partly matched phrase can hold back.
const MAX_GAP: usize = 256;
/// Marks on one character that are put in canonical order, as in the Stream-Safe Text Format (UAX #15).
const MAX_MARKS: usize = 30;

/// Stands in folded text before a word. Control characters are ignorable, so no text can contain it.
const WORD_START: u8 = 0x01;
/// Stands in folded text after a word.
const WORD_END: u8 = 0x02;
/// Stands in folded text where nothing may match across.
const BREAK: u8 = 0x00;

/// Whether a reader does not see `c`: Unicode's `Default_Ignorable_Code_Point`, and control characters.
pub(crate) fn ignorable(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control() && !c.is_ascii_whitespace() && c != '\u{b}';
    }
    matches!(c,
        '\u{80}'..='\u{84}' | '\u{86}'..='\u{9f}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}'
        | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Whether `c` is of a script whose words are not set apart by spaces (or, in Korean, have endings attached): there a
/// word may begin and end anywhere.
pub(crate) fn continuous(c: char) -> bool {
    matches!(c,
        '\u{e00}'..='\u{fff}' | '\u{1000}'..='\u{109f}' | '\u{1100}'..='\u{11ff}' | '\u{1780}'..='\u{17ff}'
        | '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{318f}' | '\u{31a0}'..='\u{31bf}' | '\u{31f0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{a960}'..='\u{a97f}' | '\u{ac00}'..='\u{d7ff}'
        | '\u{f900}'..='\u{faff}' | '\u{ff66}'..='\u{ffdc}' | '\u{20000}'..='\u{3ffff}')
}

/// Whether `c` belongs to a word: letters, digits and the marks on them.
pub(crate) fn alphanumeric(c: char) -> bool {
    if c.is_ascii() {
        c.is_ascii_alphanumeric()
    } else {
        c.is_alphanumeric() || is_combining_mark(c)
    }
}

/// Whether `c` is part of a word that has edges.
fn in_word(c: char) -> bool {
    c == '_' || (alphanumeric(c) && !continuous(c))
}

/// Rewrites text for comparing phrases: letter case, compatibility forms (full width, ligatures …), ignorable characters
/// and the length of white space make no difference; the edges of words are written out, so that a phrase which was
/// folded the same way matches whole words only.
#[derive(Default)]
pub(crate) struct Folder {
    in_word: bool,
    spaced: bool,
    gap: usize,
    /// Marks that wait for the rest of their run, to be put in canonical order.
    marks: Vec<char>,
    marks_at: usize,
}

impl Folder {
    /// Folds the next character, which came from offset `at`; `emit` is given each folded byte with its offset.
    pub(crate) fn push(&mut self, c: char, at: usize, emit: &mut impl FnMut(u8, usize)) {
        if c.is_ascii_graphic() {
            self.flush(emit);
            self.gap = 0;
            self.spaced = false;
            self.edge(c.is_ascii_alphanumeric() || c == '_', at, emit);
            emit((c as u8).to_ascii_lowercase(), at);
        } else if c.is_whitespace() {
            self.space(at, emit);
        } else if ignorable(c) {
            self.widen(at, emit);
        } else {
            self.other(c, at, emit);
        }
    }

    /// The text has ended.
    pub(crate) fn finish(&mut self, at: usize, emit: &mut impl FnMut(u8, usize)) {
        self.flush(emit);
        self.edge(false, at, emit);
    }

    /// Offset of the first character that was taken but not yet emitted.
    pub(crate) fn waiting(&self) -> Option<usize> {
        (!self.marks.is_empty()).then_some(self.marks_at)
    }

    fn space(&mut self, at: usize, emit: &mut impl FnMut(u8, usize)) {
        self.flush(emit);
        if !self.spaced {
            self.edge(false, at, emit);
            emit(b' ', at);
            self.spaced = true;
        }
        self.widen(at, emit);
    }

    fn widen(&mut self, at: usize, emit: &mut impl FnMut(u8, usize)) {
        self.gap += 1;
        if self.gap == MAX_GAP {
            self.flush(emit);
            self.edge(false, at, emit);
            emit(BREAK, at);
        }
    }

    fn other(&mut self, c: char, at: usize, emit: &mut impl FnMut(u8, usize)) {
        self.gap = 0;
        // A syllable or a voiced kana is a character of its own, not its first half followed by something.
        if matches!(c, '\u{3041}'..='\u{30ff}' | '\u{ac00}'..='\u{d7a3}') {
            self.place(c, at, emit);
        } else {
            decompose_compatible(c, |part| {
                part.to_uppercase()
                    .flat_map(char::to_lowercase)
                    .for_each(|folded| self.place(folded, at, emit));
            });
        }
    }

    fn place(&mut self, c: char, at: usize, emit: &mut impl FnMut(u8, usize)) {
        if c.is_whitespace() {
            self.space(at, emit);
        } else if canonical_combining_class(c) == 0 {
            self.flush(emit);
            self.spaced = false;
            self.write(c, at, emit);
        } else {
            if self.marks.len() == MAX_MARKS {
                self.flush(emit);
            }
            if self.marks.is_empty() {
                self.marks_at = at;
            }
            self.marks.push(c);
        }
    }

    fn flush(&mut self, emit: &mut impl FnMut(u8, usize)) {
        if self.marks.is_empty() {
            return;
        }
        let mut marks = std::mem::take(&mut self.marks);
        marks.sort_by_key(|&mark| canonical_combining_class(mark));
        self.spaced = false;
        for mark in marks {
            self.write(mark, self.marks_at, emit);
        }
    }

    fn write(&mut self, c: char, at: usize, emit: &mut impl FnMut(u8, usize)) {
        self.edge(in_word(c), at, emit);
        let mut bytes = [0; 4];
        for &byte in c.encode_utf8(&mut bytes).as_bytes() {
            emit(byte, at);
        }
    }

    fn edge(&mut self, in_word: bool, at: usize, emit: &mut impl FnMut(u8, usize)) {
        if in_word != self.in_word {
            emit(if in_word { WORD_START } else { WORD_END }, at);
            self.in_word = in_word;
        }
    }
}
