//! Which call meets which trouble: by the script's shares, or by a directive in the prompt.
//!
//! The shares are exact, not random. Every call adds each rate to that trouble's credit; a trouble whose credit has
//! reached one happens and pays for it. Over N calls a rate r therefore gives N·r troubles, give or take one, which
//! lets a test compare counts instead of bounding a probability.

use crate::{
    error::ApiError,
    script::{Behaviour, MILLION, MOST_WORDS, Script, is_error},
};

/// Most parallel calls of one answer.
const MOST_CALLS: u32 = 64;

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trouble {
    None,
    /// An error status instead of an answer.
    Error(u16),
    /// The connection breaks in the middle of the answer.
    Cut,
    /// Headers, then silence.
    Stall,
    /// An error inside a 200.
    ErrorInside,
    /// An error of a kind that services word each in its own way.
    Kind(ErrorKind),
}

/// A kind of error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ErrorKind {
    ContextLength,
    ContentPolicy,
    Overloaded,
    Quota,
}

impl Trouble {
    /// The error with which the call is refused, if it is.
    pub(crate) fn error(self) -> Option<ApiError> {
        match self {
            Self::Error(status) => Some(ApiError::scripted(status)),
            Self::Kind(kind) => Some(ApiError::of_kind(kind)),
            Self::None | Self::Cut | Self::Stall | Self::ErrorInside => None,
        }
    }
}

/// The draws of one script: a credit per trouble and per rule, in script order with the script itself first.
#[derive(Debug)]
pub(crate) struct Draws {
    credits: Vec<[u32; 4]>,
    errors: Vec<usize>,
}

impl Draws {
    pub(crate) fn new(script: &Script) -> Self {
        let lanes = script.rules.len() + 1;
        let phase = |lane: usize, kind: usize| (mix(script.seed, lane * 4 + kind) % u64::from(MILLION)) as u32;
        Self {
            credits: (0..lanes)
                .map(|lane| std::array::from_fn(|kind| phase(lane, kind)))
                .collect(),
            errors: vec![0; lanes],
        }
    }

    /// The trouble of the next call. `rule` is the index of the rule in force, `None` for the script itself.
    pub(crate) fn next(&mut self, rule: Option<usize>, behaviour: &Behaviour) -> Trouble {
        let lane = rule.map_or(0, |index| index + 1);
        let (Some(credits), Some(errors)) = (self.credits.get_mut(lane), self.errors.get_mut(lane)) else {
            return Trouble::None;
        };
        for (credit, share) in credits.iter_mut().zip(behaviour.shares()) {
            *credit = credit.saturating_add(share);
        }
        // One trouble a call: the largest credit goes first, the others keep theirs for the next call.
        let Some((kind, credit)) = credits
            .iter_mut()
            .enumerate()
            .max_by_key(|(kind, credit)| (**credit, 4 - kind))
        else {
            return Trouble::None;
        };
        if *credit < MILLION {
            return Trouble::None;
        }
        *credit -= MILLION;
        match kind {
            0 => {
                let status = behaviour
                    .error_statuses
                    .get(*errors % behaviour.error_statuses.len().max(1));
                *errors += 1;
                Trouble::Error(status.copied().unwrap_or(500))
            }
            1 => Trouble::Cut,
            2 => Trouble::Stall,
            _ => Trouble::ErrorInside,
        }
    }
}

/// A start for a credit below one; seed 0 starts at zero, so that the first trouble comes when it is fully due.
fn mix(seed: u64, salt: usize) -> u64 {
    if seed == 0 {
        return 0;
    }
    // SplitMix64's finaliser: spreads neighbouring seeds.
    let mut z = seed.wrapping_add((salt as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Applies the `#sim:` directives of a prompt to this call's behaviour. Returns the trouble they ask for, if any;
/// such a call draws nothing from the script. An unknown or malformed directive is an error with its text.
pub(crate) fn directives(prompt: &str, behaviour: &mut Behaviour) -> Result<Option<Trouble>, String> {
    let mut trouble = None;
    for word in prompt.split_whitespace() {
        let Some(directive) = word.strip_prefix("#sim:") else {
            continue;
        };
        let (key, value) = directive.split_once('=').unwrap_or((directive, ""));
        let number = || value.parse::<u32>().map_err(|_| directive.to_owned());
        match key {
            "status" => {
                let status = value.parse().ok().filter(|status| is_error(*status));
                trouble = Some(Trouble::Error(status.ok_or_else(|| directive.to_owned())?));
            }
            "cut" => {
                trouble = Some(Trouble::Cut);
                if !value.is_empty() {
                    behaviour.cut_after_chunks = number()?;
                }
            }
            "error" => {
                trouble = Some(Trouble::ErrorInside);
                if !value.is_empty() {
                    behaviour.cut_after_chunks = number()?;
                }
            }
            "stall" if value.is_empty() => trouble = Some(Trouble::Stall),
            "ok" if value.is_empty() => trouble = Some(Trouble::None),
            "omit_usage" if value.is_empty() => behaviour.omit_usage = true,
            "delay_ms" => behaviour.delay_ms = number()?.into(),
            "chunk_delay_ms" => behaviour.chunk_delay_ms = number()?.into(),
            "chunk_tokens" => behaviour.chunk_tokens = number()?.max(1),
            "calls" => behaviour.calls = Some(number()?.min(MOST_CALLS)),
            "think" if value.is_empty() => behaviour.think_words = Some(12),
            "think" => behaviour.think_words = Some(number()?.min(MOST_WORDS)),
            "refuse" if value.is_empty() => behaviour.refuse = true,
            "filter" if value.is_empty() => behaviour.filter = true,
            "cache_write_tokens" => behaviour.cache_write_tokens = number()?.into(),
            "error_kind" => {
                trouble = Some(Trouble::Kind(match value {
                    "context_length" => ErrorKind::ContextLength,
                    "content_policy" => ErrorKind::ContentPolicy,
                    "overloaded" => ErrorKind::Overloaded,
                    "quota" => ErrorKind::Quota,
                    _ => return Err(directive.to_owned()),
                }));
            }
            "words" => behaviour.output_words = Some(number()?.min(MOST_WORDS)),
            "cached_tokens" => behaviour.cached_tokens = number()?.into(),
            "retry_after_s" => behaviour.retry_after_s = Some(number()?.into()),
            _ => return Err(directive.to_owned()),
        }
    }
    Ok(trouble)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_even_when_troubles_meet() {
        for seed in [0, 1, 99] {
            let script = Script {
                error_rate: 0.1,
                cut_rate: 0.05,
                stall_rate: 0.01,
                error_statuses: vec![429, 503],
                seed,
                ..Script::default()
            };
            let behaviour = script.effective(None);
            let mut draws = Draws::new(&script);
            let drawn: Vec<Trouble> = (0..2_000).map(|_| draws.next(None, &behaviour)).collect();
            let count = |wanted: &[Trouble]| drawn.iter().filter(|t| wanted.contains(t)).count() as i64;
            assert!((count(&[Trouble::Error(429)]) - 100).abs() <= 1, "seed {seed}");
            assert!((count(&[Trouble::Error(503)]) - 100).abs() <= 1, "seed {seed}");
            assert!((count(&[Trouble::Cut]) - 100).abs() <= 1, "seed {seed}");
            assert!((count(&[Trouble::Stall]) - 20).abs() <= 1, "seed {seed}");
        }
    }

    #[test]
    fn directives_change_one_call_and_unknown_ones_are_said() {
        let mut behaviour = Script::default().effective(None);
        let trouble = directives("please #sim:cut=7 #sim:words=200 thanks", &mut behaviour);
        assert_eq!(trouble, Ok(Some(Trouble::Cut)));
        assert_eq!((behaviour.cut_after_chunks, behaviour.output_words), (7, Some(200)));
        assert_eq!(directives("#sim:statsu=429", &mut behaviour), Err("statsu=429".into()));
        assert_eq!(directives("#sim:status=200", &mut behaviour), Err("status=200".into()));
    }
}
