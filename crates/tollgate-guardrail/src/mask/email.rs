//! E-mail addresses: the part of RFC 5321 that people use, with letters of all scripts (RFC 6531), and the ways in which
//! addresses are disguised or escaped: `%40`, `\u0040`, `jo.doe at example dot com`.
//!
//! An address is found from its `@`: back over the local part, on over the domain. Quoted local parts and address
//! literals (`user@[192.0.2.1]`) are left alone.

use super::View;
use super::glyph::Glyph;
use crate::fold::{alphanumeric, continuous};

/// Longest local part (RFC 5321, 4.5.3.1.1), in characters.
const MAX_LOCAL: usize = 64;
/// Longest domain (RFC 5321, 4.5.3.1.2), in characters.
const MAX_DOMAIN: usize = 255;
/// Longest local part in a script without spaces: without a limit, the sentence before an address would be part of it.
const MAX_CONTINUOUS: usize = 16;

/// What stands for `@`; of signs that begin alike, the longest first.
const SIGNS: [&str; 12] = [
    "@", "%40", "\\u0040", "[at] ", "(at) ", "[at]", "(at)", " [at] ", " (at) ", " [at]", " (at)", SPOKEN,
];
/// The sign that is also an ordinary word: stands for `@` only if the dots are written out too.
const SPOKEN: &str = " at ";
const LONGEST_SIGN: usize = 6;
/// What stands for `.` in a domain that has no real one.
const DOTS: [&str; 5] = [" dot ", "[dot]", "(dot)", " [dot] ", " (dot) "];

/// What is at a glyph.
pub(super) enum Finding {
    Address {
        start: usize,
        end: usize,
    },
    Nothing,
    /// It depends on what comes next; nothing before this glyph is part of it.
    Undecided(usize),
}

/// Looks whether the glyph at `at` is the sign in an address.
pub(super) fn at(view: &View<'_>, at: usize) -> Finding {
    let c = view.glyphs[at].c;
    if !may_begin(c, view.glyphs.get(at + 1)) {
        return Finding::Nothing;
    }
    for sign in SIGNS {
        if !sign.starts_with(c) || spelled(&view.glyphs[at..], sign) != sign.len() {
            continue;
        }
        let Some(start) = local_part(view, at).filter(|&start| plausible(view, sign, start, at)) else {
            continue;
        };
        match domain(view, at + sign.len(), sign == SPOKEN) {
            Domain::Open => return Finding::Undecided(start),
            Domain::Ends(end) => return Finding::Address { start, end },
            Domain::None => {}
        }
    }
    Finding::Nothing
}

/// The first glyph that could be in an address whose sign is yet to come or cut off by the end of the text.
pub(super) fn held(view: &View<'_>) -> usize {
    let end = view.glyphs.len();
    let mut held = local_part(view, end).unwrap_or(end);
    for at in end.saturating_sub(LONGEST_SIGN).max(view.first)..end {
        let rest = &view.glyphs[at..];
        if !may_begin(rest[0].c, rest.get(1)) {
            continue;
        }
        for sign in SIGNS
            .into_iter()
            .filter(|sign| sign.starts_with(rest[0].c) && sign.len() > rest.len())
        {
            if spelled(rest, sign) == rest.len() {
                let start = local_part(view, at).filter(|&start| plausible(view, sign, start, at));
                held = held.min(start.unwrap_or(end));
            }
        }
    }
    held
}

/// The address between two glyphs, the same for each way to write it.
pub(super) fn key(glyphs: &[Glyph]) -> String {
    let mut key: String = glyphs.iter().flat_map(|glyph| glyph.c.to_lowercase()).collect();
    for sign in SIGNS.iter().filter(|&&sign| sign != "@") {
        if !key.contains('@') {
            key = key.replacen(sign, "@", 1);
        }
    }
    key = DOTS.iter().rev().fold(key, |key, dot| key.replace(dot, "."));
    key.retain(|c| c != ' ');
    key
}

/// Whether a sign may begin with `c` and go on with `next`.
fn may_begin(c: char, next: Option<&Glyph>) -> bool {
    match c {
        '@' => true,
        '%' | '\\' | '[' | '(' => next.is_none_or(|next| matches!(next.c, '4' | 'u' | 'a' | 'A')),
        ' ' => next.is_none_or(|next| matches!(next.c, 'a' | 'A' | '[' | '(')),
        _ => false,
    }
}

/// How many characters of `pattern` are at the beginning of `glyphs`, without a wrong one; 0 if there is one.
fn spelled(glyphs: &[Glyph], pattern: &str) -> usize {
    let same = glyphs
        .iter()
        .zip(pattern.chars())
        .all(|(glyph, c)| glyph.c.to_ascii_lowercase() == c);
    if same { glyphs.len().min(pattern.len()) } else { 0 }
}

/// Whether `sign` may follow what is between two glyphs. After a space any word could, and would be held back with it: so
/// it must look like a part of an address.
fn plausible(view: &View<'_>, sign: &str, start: usize, end: usize) -> bool {
    let has = |test: fn(char) -> bool| view.glyphs[start..end].iter().any(|glyph| test(glyph.c));
    !sign.starts_with(' ')
        || has(|c| matches!(c, '.' | '_'))
        || (has(|c| c.is_ascii_digit()) && has(|c| c.is_ascii_alphabetic()))
}

/// The beginning of the longest local part that ends before `end`. It begins with a letter or digit, at the beginning of
/// a word.
fn local_part(view: &View<'_>, end: usize) -> Option<usize> {
    let mut start = None;
    let mut unspaced = 0;
    for at in (view.first.max(end.saturating_sub(MAX_LOCAL))..end).rev() {
        let c = view.glyphs[at].c;
        let next = (at + 1 < end).then(|| view.glyphs[at + 1].c);
        let parted = match next {
            Some('.') => c == '.',
            Some(next) => alphanumeric(c) && alphanumeric(next) && !joined(view, at + 1),
            None => false,
        };
        if parted || escape(view, at) || !(alphanumeric(c) || matches!(c, '.' | '_' | '%' | '+' | '-' | '\'')) {
            break;
        }
        if alphanumeric(c) && !joined(view, at) {
            start = Some(at);
        }
        unspaced += usize::from(continuous(c));
        if unspaced == MAX_CONTINUOUS {
            return Some(at);
        }
    }
    start
}

/// Whether the glyph at `at` continues the word before it.
fn joined(view: &View<'_>, at: usize) -> bool {
    view.before(at, 1).is_some_and(|before| {
        alphanumeric(before) && continuous(before) == continuous(view.glyphs[at].c) && !escape(view, at - 1)
    })
}

/// Whether the glyph at `at` is the letter of an escape (`\n`) in JSON text: no part of what follows, and to replace it
/// would break the JSON.
fn escape(view: &View<'_>, at: usize) -> bool {
    matches!(view.glyphs[at].c, 'b' | 'f' | 'n' | 'r' | 't') && view.before(at, 1) == Some('\\')
}

enum Domain {
    /// Ends before this glyph.
    Ends(usize),
    None,
    /// The text may go on with more of it.
    Open,
}

/// The domain that begins at `start`: as many labels as there are, up to the last that could be a top-level domain.
fn domain(view: &View<'_>, start: usize, spoken: bool) -> Domain {
    let glyphs = view.glyphs;
    let limit = start + MAX_DOMAIN;
    let mut best = Domain::None;
    let (mut at, mut labels, mut literal) = (start, 0, false);
    loop {
        let begin = at;
        while at < limit && in_label(glyphs, begin, at) {
            at += 1;
        }
        let hyphens = glyphs[begin..at]
            .iter()
            .rev()
            .take_while(|glyph| glyph.c == '-')
            .count();
        let end = at - hyphens;
        labels += 1;
        if labels > 1 && top_level(&glyphs[begin..end]) && !(spoken && literal) {
            best = Domain::Ends(end);
        }
        if at >= glyphs.len() {
            return if view.last { best } else { Domain::Open };
        }
        if end == begin || hyphens > 0 {
            return best;
        }
        match dot(&glyphs[at..], literal) {
            Dot::Length(length) => {
                literal |= length == 1;
                at += length;
            }
            Dot::CutOff if !view.last => return Domain::Open,
            Dot::CutOff | Dot::None => return best,
        }
    }
}

fn in_label(glyphs: &[Glyph], begin: usize, at: usize) -> bool {
    let Some(glyph) = glyphs.get(at) else { return false };
    if glyph.c == '-' {
        return at > begin;
    }
    // `jo@example.comです`: the script changes where the address ends.
    let changes = at > begin && {
        let before = glyphs[at - 1].c;
        before != '-' && continuous(before) != continuous(glyph.c)
    };
    alphanumeric(glyph.c) && !changes
}

/// Whether a label could be a top-level domain: not a version (`tokio@1.40.0`), not an IP address.
fn top_level(label: &[Glyph]) -> bool {
    let letter = |glyph: &Glyph| alphanumeric(glyph.c) && !glyph.c.is_numeric();
    label.len() > 1 && label[..2].iter().all(letter)
}

enum Dot {
    Length(usize),
    CutOff,
    None,
}

fn dot(glyphs: &[Glyph], literal: bool) -> Dot {
    if glyphs[0].c == '.' {
        return Dot::Length(1);
    }
    if literal {
        return Dot::None;
    }
    for dot in DOTS {
        match spelled(glyphs, dot) {
            length if length == dot.len() => return Dot::Length(length),
            0 => {}
            _ => return Dot::CutOff,
        }
    }
    Dot::None
}
