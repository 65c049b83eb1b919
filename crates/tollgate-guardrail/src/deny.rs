//! Finds denied phrases in text that arrives in pieces.
//!
//! Phrases and text are folded alike (see [`crate::fold`]) and one automaton walks the folded text, so the cost does not
//! depend on the number of phrases. Its state says how much of the text's end could be the beginning of a phrase; that
//! much is held back.

use std::collections::HashMap;
use std::sync::Arc;

use aho_corasick::Anchored;
use aho_corasick::automaton::{Automaton, StateID};
use aho_corasick::nfa::contiguous::NFA;

use crate::fold::Folder;

/// Denied phrases, compiled once.
pub(crate) struct Phrases {
    automaton: NFA,
    start: StateID,
    /// Position in the configured list, by pattern: phrases that fold to nothing are not patterns.
    rules: Vec<usize>,
    /// Bytes of folded text that a state stands for.
    depths: HashMap<StateID, usize>,
    longest: usize,
}

impl Phrases {
    /// Without a phrase there is nothing to look for.
    pub(crate) fn new(phrases: &[String]) -> Option<Self> {
        let (rules, patterns): (Vec<_>, Vec<_>) = phrases
            .iter()
            .map(|phrase| fold(phrase))
            .enumerate()
            .filter(|(_, folded)| !folded.is_empty())
            .unzip();
        if patterns.is_empty() {
            return None;
        }
        let (automaton, start) = compile(&patterns);
        let mut depths = HashMap::from([(start, 0)]);
        for pattern in &patterns {
            let mut state = start;
            for (index, &byte) in pattern.iter().enumerate() {
                state = automaton.next_state(Anchored::No, state, byte);
                depths.insert(state, index + 1);
            }
        }
        let longest = automaton.max_pattern_len();
        Some(Self {
            automaton,
            start,
            rules,
            depths,
            longest,
        })
    }
}

#[expect(clippy::expect_used, reason = "fails only past 2^31 bytes of phrases")]
fn compile(patterns: &[Vec<u8>]) -> (NFA, StateID) {
    let automaton = NFA::builder()
        .prefilter(false)
        .build(patterns)
        .expect("the phrases fit into an automaton");
    let start = automaton
        .start_state(Anchored::No)
        .expect("unanchored searches are always possible");
    (automaton, start)
}

/// A phrase as it will stand in folded text.
fn fold(phrase: &str) -> Vec<u8> {
    let mut folded = Vec::new();
    let mut folder = Folder::default();
    let mut emit = |byte, _| folded.push(byte);
    for c in phrase.chars() {
        folder.push(c, 0, &mut emit);
    }
    folder.finish(0, &mut emit);
    folded.trim_ascii().to_vec()
}

/// The search through one text.
pub(crate) struct Search {
    phrases: Arc<Phrases>,
    folder: Folder,
    walk: Walk,
    /// Bytes of text taken.
    taken: usize,
}

struct Walk {
    state: StateID,
    /// Where the latest folded bytes came from, by number of the byte modulo the length.
    origins: Vec<usize>,
    folded: usize,
    hit: Option<usize>,
}

impl Search {
    pub(crate) fn new(phrases: Arc<Phrases>) -> Self {
        let origins = vec![0; phrases.longest.next_power_of_two()];
        let walk = Walk {
            state: phrases.start,
            origins,
            folded: 0,
            hit: None,
        };
        Self {
            phrases,
            folder: Folder::default(),
            walk,
            taken: 0,
        }
    }

    /// Takes the next piece; the rule whose phrase it completes, if one does.
    pub(crate) fn push(&mut self, piece: &str) -> Option<usize> {
        let Self {
            phrases,
            folder,
            walk,
            taken,
        } = self;
        for (offset, c) in piece.char_indices() {
            folder.push(c, *taken + offset, &mut |byte, at| walk.step(phrases, byte, at));
            if walk.hit.is_some() {
                return walk.hit;
            }
        }
        *taken += piece.len();
        None
    }

    /// The text has ended, and with it its last word.
    pub(crate) fn finish(&mut self) -> Option<usize> {
        let Self {
            phrases,
            folder,
            walk,
            taken,
        } = self;
        folder.finish(*taken, &mut |byte, at| walk.step(phrases, byte, at));
        walk.hit
    }

    /// Offset up to which no phrase can begin any more.
    pub(crate) fn cleared(&self) -> usize {
        let depth = self
            .phrases
            .depths
            .get(&self.walk.state)
            .copied()
            .unwrap_or(self.phrases.longest);
        let partial = if depth == 0 {
            self.taken
        } else {
            self.walk.origin(depth)
        };
        self.folder.waiting().map_or(partial, |waiting| waiting.min(partial))
    }
}

impl Walk {
    fn step(&mut self, phrases: &Phrases, byte: u8, at: usize) {
        let slot = self.folded & (self.origins.len() - 1);
        self.origins[slot] = at;
        self.folded += 1;
        self.state = phrases.automaton.next_state(Anchored::No, self.state, byte);
        if phrases.automaton.is_special(self.state) && phrases.automaton.is_match(self.state) && self.hit.is_none() {
            let found = 0..phrases.automaton.match_len(self.state);
            self.hit = found
                .map(|n| phrases.rules[phrases.automaton.match_pattern(self.state, n).as_usize()])
                .min();
        }
    }

    /// Where the `back`-th last folded byte came from.
    fn origin(&self, back: usize) -> usize {
        self.origins[self.folded.saturating_sub(back) & (self.origins.len() - 1)]
    }
}

#[cfg(test)]
mod tests;
