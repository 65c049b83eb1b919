//! Replaces personal data in text that arrives in pieces.
//!
//! The masker keeps what is not yet decided. With each piece it looks through that, and lets out everything before the
//! first character that could still turn out to be in a match. What it keeps is bounded, and so is what it looks at
//! again, so the cost grows with the text only.
//!
//! A match is decided by its own text and what is before it, and text before a match is decided as if the text ended
//! there. After a match nothing before it counts. So masked text, masked again, stays as it is.

mod card;
mod email;
mod glyph;

use std::collections::HashMap;

use glyph::{Glyph, Reader};
use tollgate_config::schema::Mask;

/// Glyphs before the undecided ones that are kept because their neighbours depend on them.
const CONTEXT: usize = 3;
/// Text is looked through in parts of at most this many bytes.
const PART: usize = 64 * 1024;

/// What to replace.
#[derive(Clone, Copy, Default)]
pub(crate) struct Kinds {
    email: bool,
    card: bool,
}

impl Kinds {
    pub(crate) fn new(masks: &[Mask]) -> Self {
        Self {
            email: masks.contains(&Mask::Email),
            card: masks.contains(&Mask::Card),
        }
    }

    pub(crate) fn is_empty(self) -> bool {
        !self.email && !self.card
    }
}

/// Placeholders given so far. No `Debug`: the keys are the personal data.
#[derive(Default)]
pub(crate) struct Placeholders {
    emails: HashMap<String, usize>,
    cards: HashMap<String, usize>,
}

impl Placeholders {
    fn name(&mut self, found: &Found, glyphs: &[Glyph]) -> String {
        let glyphs = &glyphs[found.start..found.end];
        let (name, numbers, key) = match found.mask {
            Mask::Email => ("EMAIL", &mut self.emails, email::key(glyphs)),
            Mask::Card => (
                "CARD",
                &mut self.cards,
                glyphs.iter().map(|g| g.c).filter(char::is_ascii_digit).collect(),
            ),
        };
        let next = numbers.len() + 1;
        let number = numbers.entry(key).or_insert(next);
        format!("[{name}_{number}]")
    }
}

/// What the finders look at.
struct View<'a> {
    glyphs: &'a [Glyph],
    /// Nothing before this glyph counts: it was masked.
    floor: usize,
    /// No match begins before this glyph: it was let out.
    first: usize,
    /// Whether the text ends here.
    last: bool,
}

impl View<'_> {
    /// The character `n` glyphs before `at`.
    fn before(&self, at: usize, n: usize) -> Option<char> {
        (at >= self.floor + n).then(|| self.glyphs[at - n].c)
    }

    /// The first match at or after `from`, or else the first glyph that is undecided.
    fn next(&self, kinds: Kinds, from: usize) -> Result<Found, usize> {
        let mut at = from;
        while at < self.glyphs.len() {
            let c = self.glyphs[at].c;
            let mut next = at + 1;
            if c.is_ascii_digit() && kinds.card {
                match card::at(self, at) {
                    card::Finding::Card(end) => {
                        return Ok(Found {
                            mask: Mask::Card,
                            start: at,
                            end,
                        });
                    }
                    card::Finding::Nothing(after) => next = after,
                    card::Finding::Undecided => return Err(at.min(self.held(kinds))),
                }
            } else if !c.is_ascii_alphanumeric() && kinds.email {
                match email::at(self, at) {
                    email::Finding::Address { start, end } => {
                        return Ok(Found {
                            mask: Mask::Email,
                            start,
                            end,
                        });
                    }
                    email::Finding::Nothing => {}
                    email::Finding::Undecided(start) => return Err(start),
                }
            }
            at = next;
        }
        Err(self.held(kinds))
    }

    fn held(&self, kinds: Kinds) -> usize {
        if self.last || !kinds.email {
            self.glyphs.len()
        } else {
            email::held(self)
        }
    }
}

struct Found {
    mask: Mask,
    start: usize,
    end: usize,
}

/// Masks one text. No `Debug`: it holds text.
pub(crate) struct Masker {
    kinds: Kinds,
    reader: Reader,
    /// Text that was not let out.
    text: String,
    /// The text's glyphs, and before them some context.
    glyphs: Vec<Glyph>,
    first: usize,
    floor: usize,
}

impl Masker {
    pub(crate) fn new(kinds: Kinds) -> Self {
        Self {
            kinds,
            reader: Reader::default(),
            text: String::new(),
            glyphs: Vec::new(),
            first: 0,
            floor: 0,
        }
    }

    /// Takes the next piece and adds to `out` what is decided. Whether anything was replaced.
    pub(crate) fn push(&mut self, mut piece: &str, names: &mut Placeholders, out: &mut String) -> bool {
        let mut changed = false;
        while !piece.is_empty() {
            let (part, rest) = piece.split_at(piece.floor_char_boundary(PART));
            for (offset, c) in part.char_indices() {
                self.glyphs
                    .extend(self.reader.read(c, (self.text.len() + offset) as u32));
            }
            self.text.push_str(part);
            changed |= self.decide(false, names, out);
            piece = rest;
        }
        changed
    }

    /// The text has ended: adds the rest of it to `out`. Whether anything was replaced.
    pub(crate) fn finish(&mut self, names: &mut Placeholders, out: &mut String) -> bool {
        self.decide(true, names, out)
    }

    fn decide(&mut self, last: bool, names: &mut Placeholders, out: &mut String) -> bool {
        let mut done = 0;
        let mut from = self.first;
        let mut changed = false;
        let undecided = loop {
            let view = View {
                glyphs: &self.glyphs,
                floor: self.floor,
                first: from,
                last,
            };
            match view.next(self.kinds, from) {
                Ok(found) => {
                    out.push_str(&self.text[done..self.offset(found.start)]);
                    out.push_str(&names.name(&found, &self.glyphs));
                    done = self.end_offset(found.end - 1);
                    from = found.end;
                    self.floor = found.end;
                    changed = true;
                }
                Err(undecided) => break undecided,
            }
        };
        let cut = self.offset(undecided);
        out.push_str(&self.text[done..cut]);
        self.forget(undecided, cut);
        changed
    }

    /// Drops what was let out, except some context.
    fn forget(&mut self, undecided: usize, cut: usize) {
        self.text.drain(..cut);
        let kept = undecided.saturating_sub(CONTEXT).max(self.floor.min(undecided));
        self.glyphs.drain(..kept);
        self.first = undecided - kept;
        self.floor = self.floor.saturating_sub(kept);
        for glyph in &mut self.glyphs[self.first..] {
            glyph.at -= cut as u32;
        }
    }

    /// Where the glyph begins in the text.
    fn offset(&self, glyph: usize) -> usize {
        self.glyphs
            .get(glyph)
            .map_or(self.text.len(), |glyph| glyph.at as usize)
    }

    /// Where the glyph ends in the text.
    fn end_offset(&self, glyph: usize) -> usize {
        let begin = self.offset(glyph);
        self.text[begin..]
            .chars()
            .next()
            .map_or(begin, |c| begin + c.len_utf8())
    }
}

#[cfg(test)]
mod tests;
