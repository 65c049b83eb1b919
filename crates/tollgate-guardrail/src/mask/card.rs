//! Payment card numbers: digits in an issuer's range and length, written in one of the usual groupings, whose checksum is
//! right (ISO/IEC 7812-1).
//!
//! Only groups at or after the first digit decide, never what follows the number: a match must not depend on text that
//! is masked later. A grouping nobody uses is not a card, or every tenth row of a table of numbers would be one.

use std::ops::RangeInclusive;

use super::View;
use super::glyph::Glyph;

const MAX_DIGITS: usize = 19;

/// Digits by group, as printed on cards and as people type them.
const LAYOUTS: [&[RangeInclusive<usize>]; 7] = [
    &[12..=19],
    &[4..=4, 4..=4, 4..=4, 1..=7],
    &[4..=4, 4..=4, 4..=4, 4..=4, 1..=3],
    &[4..=4, 6..=6, 4..=5],
    &[6..=6, 10..=10],
    &[6..=6, 13..=13],
    &[8..=8, 8..=8],
];

/// The first four digits of an issuer's numbers, and the lengths they have.
const ISSUERS: [(RangeInclusive<usize>, &[RangeInclusive<usize>]); 26] = [
    (4000..=4999, &[13..=13, 16..=16, 19..=19]), // Visa
    (5100..=5599, &[16..=16]),                   // Mastercard
    (2221..=2720, &[16..=16]),
    (3400..=3499, &[15..=15]), // American Express
    (3700..=3799, &[15..=15]),
    (6011..=6011, &[16..=19]), // Discover
    (6440..=6499, &[16..=19]),
    (6500..=6599, &[16..=19]),
    (3528..=3589, &[16..=19]), // JCB
    (2131..=2131, &[15..=15]),
    (1800..=1800, &[15..=15]),
    (3000..=3059, &[14..=19]), // Diners Club
    (3600..=3699, &[14..=19]),
    (3800..=3999, &[14..=19]),
    (6200..=6299, &[16..=19]), // UnionPay
    (5000..=5099, &[13..=19]), // Maestro
    (5600..=6999, &[13..=19]),
    (5018..=5018, &[12..=12]), // Maestro's short numbers: only where they are known to be issued
    (5020..=5020, &[12..=12]),
    (5038..=5038, &[12..=12]),
    (5893..=5893, &[12..=12]),
    (6304..=6304, &[12..=12]),
    (6759..=6759, &[12..=12]),
    (6761..=6763, &[12..=12]),
    (6799..=6799, &[12..=12]),
    (6390..=6390, &[12..=12]),
];

/// What is at a digit.
pub(super) enum Finding {
    /// A card number up to this glyph.
    Card(usize),
    /// None that begins before this glyph.
    Nothing(usize),
    /// It depends on what comes next.
    Undecided,
}

/// Looks at the digit at `start`.
pub(super) fn at(view: &View<'_>, start: usize) -> Finding {
    let View { glyphs, last, .. } = *view;
    let back = |n| view.before(start, n);
    let skip = || {
        let rest = glyphs[start..].iter().position(|glyph| !glyph.c.is_ascii_digit());
        Finding::Nothing(rest.map_or(glyphs.len(), |rest| start + rest))
    };
    if attached(back(1), back(2)) {
        return skip();
    }
    let groups = Groups::read(glyphs, start, last);
    // Digits one by one are a card only from the first of them; any other window would be chance.
    let first_single = !(back(1).is_some_and(separator)
        && back(2).is_some_and(|c| c.is_ascii_digit())
        && !back(3).is_some_and(|c| c.is_ascii_digit()));
    if groups.open.is_some_and(|open| groups.can_grow(open, first_single)) {
        return Finding::Undecided;
    }
    groups.card(first_single).map_or_else(skip, Finding::Card)
}

/// Whether a digit after `before` (and `earlier` before that) is the rest of something else: a longer number, a word,
/// a fraction, a telephone number.
fn attached(before: Option<char>, earlier: Option<char>) -> bool {
    match before {
        Some('+') => true,
        Some('.' | ',') => earlier.is_some_and(|c| c.is_ascii_digit()),
        // The letter of an escape (`\n`) in JSON text belongs to no word.
        Some('b' | 'f' | 'n' | 'r' | 't') => earlier != Some('\\'),
        Some(c) => c.is_ascii_alphanumeric(),
        None => false,
    }
}

fn separator(c: char) -> bool {
    matches!(c, ' ' | '-' | '\u{2012}' | '\u{2013}')
}

/// Groups of digits with one separator between them, at most [`MAX_DIGITS`] in all.
#[derive(Default)]
struct Groups {
    digits: Vec<u8>,
    /// Length of each whole group and the glyph after it.
    whole: Vec<(usize, usize)>,
    /// Digits of a further group that the text's end cuts off; none yet if it ends after a whole group.
    open: Option<usize>,
}

impl Groups {
    fn read(glyphs: &[Glyph], start: usize, last: bool) -> Self {
        let mut groups = Self::default();
        let mut next = start;
        let digit = |at: usize| glyphs.get(at).and_then(|glyph| glyph.c.to_digit(10));
        loop {
            let begin = next;
            while let Some(value) = digit(next) {
                if groups.digits.len() == MAX_DIGITS {
                    return groups;
                }
                groups.digits.push(value as u8);
                next += 1;
            }
            match glyphs.get(next) {
                None if !last => {
                    groups.open = Some(next - begin);
                    return groups;
                }
                Some(glyph) if glyph.c.is_ascii_alphabetic() => return groups,
                _ => groups.whole.push((next - begin, next)),
            }
            if !glyphs.get(next).is_some_and(|glyph| separator(glyph.c)) {
                return groups;
            }
            next += 1;
            if next == glyphs.len() && !last {
                groups.open = Some(0);
                return groups;
            }
            if digit(next).is_none() {
                return groups;
            }
        }
    }

    /// The glyph after the longest card number that ends with a group.
    fn card(&self, first_single: bool) -> Option<usize> {
        (1..=self.whole.len()).rev().find_map(|count| {
            let groups = &self.whole[..count];
            let total = groups.iter().map(|group| group.0).sum();
            let digits = self.digits.get(..total)?;
            (usual(groups, first_single) && issued(digits) && luhn(digits)).then_some(groups[count - 1].1)
        })
    }

    /// Whether more text could make a card number, or a longer one, of this.
    fn can_grow(&self, open: usize, first_single: bool) -> bool {
        let begun = |layout: &&[RangeInclusive<usize>]| {
            layout.len() > self.whole.len()
                && layout
                    .iter()
                    .zip(&self.whole)
                    .all(|(range, group)| range.contains(&group.0))
                && open <= *layout[self.whole.len()].end()
        };
        let single = first_single && open <= 1 && self.whole.iter().all(|group| group.0 == 1);
        (single || LAYOUTS.iter().any(begun)) && may_be_issued(&self.digits)
    }
}

fn usual(groups: &[(usize, usize)], first_single: bool) -> bool {
    let single = first_single && groups.len() >= 13 && groups.iter().all(|group| group.0 == 1);
    single
        || LAYOUTS.iter().any(|layout| {
            layout.len() == groups.len() && layout.iter().zip(groups).all(|(range, group)| range.contains(&group.0))
        })
}

fn number(digits: &[u8]) -> usize {
    digits.iter().fold(0, |number, &digit| number * 10 + usize::from(digit))
}

fn issued(digits: &[u8]) -> bool {
    let prefix = number(&digits[..digits.len().min(4)]);
    ISSUERS.iter().any(|(range, lengths)| {
        range.contains(&prefix) && lengths.iter().any(|lengths| lengths.contains(&digits.len()))
    })
}

/// Whether an issuer has numbers that begin like this.
fn may_be_issued(digits: &[u8]) -> bool {
    let known = &digits[..digits.len().min(4)];
    let unit = [1000, 100, 10, 1][known.len().saturating_sub(1)];
    let lowest = number(known) * unit;
    known.is_empty()
        || ISSUERS
            .iter()
            .any(|(range, _)| *range.start() < lowest + unit && *range.end() >= lowest)
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| match (place % 2, u32::from(digit)) {
            (0, digit) => digit,
            (_, digit @ 0..=4) => 2 * digit,
            (_, digit) => 2 * digit - 9,
        })
        .sum();
    sum.is_multiple_of(10)
}
