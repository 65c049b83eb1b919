//! A policy's checks, compiled: what is denied and what is masked, in one text at a time.

use std::sync::Arc;

use tollgate_config::schema::Checks;

use crate::deny::{Phrases, Search};
use crate::mask::{Kinds, Masker, Placeholders};

/// Compiled from a policy's [`Checks`] once, shared by all requests.
pub struct Checker {
    rules: Arc<Rules>,
}

pub(crate) struct Rules {
    pub(crate) phrases: Option<Arc<Phrases>>,
    pub(crate) kinds: Kinds,
}

/// One request, or one answer: the same address has the same placeholder in all its texts.
///
/// No `Debug`: it knows what it masked.
pub struct Session {
    pub(crate) rules: Arc<Rules>,
    pub(crate) names: Placeholders,
}

/// What becomes of a text.
#[derive(Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass as it is.
    Allow,
    /// This may pass in its place.
    Change(String),
    /// It must not pass: it has the phrase at this index of the policy's list.
    Deny { rule: usize },
}

impl std::fmt::Debug for Verdict {
    /// Leaves out the text.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Allow => f.write_str("Allow"),
            Self::Change(_) => f.write_str("Change"),
            Self::Deny { rule } => f.debug_struct("Deny").field("rule", rule).finish(),
        }
    }
}

impl Checker {
    #[must_use]
    pub fn new(checks: &Checks) -> Self {
        let phrases = Phrases::new(&checks.deny).map(Arc::new);
        Self {
            rules: Arc::new(Rules {
                phrases,
                kinds: Kinds::new(&checks.mask),
            }),
        }
    }

    /// Whether every text is allowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.phrases.is_none() && self.rules.kinds.is_empty()
    }

    /// Begins with a request or an answer.
    #[must_use]
    pub fn session(&self) -> Session {
        Session {
            rules: Arc::clone(&self.rules),
            names: Placeholders::default(),
        }
    }
}

impl Session {
    /// Checks one whole text.
    pub fn check(&mut self, text: &str) -> Verdict {
        if let Some(phrases) = &self.rules.phrases {
            let mut search = Search::new(Arc::clone(phrases));
            if let Some(rule) = search.push(text).or_else(|| search.finish()) {
                return Verdict::Deny { rule };
            }
        }
        if self.rules.kinds.is_empty() {
            return Verdict::Allow;
        }
        let mut masked = String::with_capacity(text.len());
        let mut masker = Masker::new(self.rules.kinds);
        let changed = masker.push(text, &mut self.names, &mut masked);
        if masker.finish(&mut self.names, &mut masked) || changed {
            Verdict::Change(masked)
        } else {
            Verdict::Allow
        }
    }
}

#[cfg(test)]
mod tests;
