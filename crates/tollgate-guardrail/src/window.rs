//! Checks a text while it arrives, as a stream does: lets out what is decided and holds back what is not.
//!
//! Two stages in a row, each with its own hold: first denied phrases, on the text as it came, then masking. What a
//! denied phrase could begin with never reaches the second stage.

use std::sync::Arc;

use crate::checks::Session;
use crate::deny::Search;
use crate::mask::Masker;

/// A text had a denied phrase. Nothing of the phrase was let out, and nothing after it will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("denied by rule {rule}")]
pub struct Denied {
    /// Index in the policy's list.
    pub rule: usize,
}

/// One text in pieces. All pushed pieces together give what [`Session::check`] gives for the whole text, wherever it was
/// cut.
///
/// No `Debug`: it holds text.
pub struct Window {
    search: Option<Search>,
    /// Text that a denied phrase could begin in, and the offset of its beginning in the whole text.
    unsearched: String,
    offset: usize,
    masker: Option<Masker>,
    denied: Option<Denied>,
}

impl Window {
    /// Begins with a text of `session`.
    #[must_use]
    pub fn new(session: &Session) -> Self {
        let rules = &session.rules;
        Self {
            search: rules.phrases.as_ref().map(|phrases| Search::new(Arc::clone(phrases))),
            unsearched: String::new(),
            offset: 0,
            masker: (!rules.kinds.is_empty()).then(|| Masker::new(rules.kinds)),
            denied: None,
        }
    }

    /// Takes the next piece; what may go out now.
    pub fn push(&mut self, session: &mut Session, piece: &str) -> Result<String, Denied> {
        self.denied.map_or(Ok(()), Err)?;
        let Some(search) = &mut self.search else {
            return Ok(self.mask(session, piece));
        };
        if let Some(rule) = search.push(piece) {
            return Err(self.deny(rule));
        }
        let cleared = search.cleared() - self.offset;
        self.offset += cleared;
        if self.unsearched.is_empty() && cleared == piece.len() {
            return Ok(self.mask(session, piece));
        }
        self.unsearched.push_str(piece);
        let rest = self.unsearched.split_off(cleared);
        let cleared = std::mem::replace(&mut self.unsearched, rest);
        Ok(self.mask(session, &cleared))
    }

    /// The text has ended; the rest of what may go out.
    pub fn finish(&mut self, session: &mut Session) -> Result<String, Denied> {
        self.denied.map_or(Ok(()), Err)?;
        if let Some(rule) = self.search.as_mut().and_then(Search::finish) {
            return Err(self.deny(rule));
        }
        let rest = std::mem::take(&mut self.unsearched);
        let mut out = self.mask(session, &rest);
        if let Some(masker) = &mut self.masker {
            masker.finish(&mut session.names, &mut out);
        }
        Ok(out)
    }

    fn mask(&mut self, session: &mut Session, text: &str) -> String {
        let Some(masker) = &mut self.masker else {
            return text.to_owned();
        };
        let mut out = String::with_capacity(text.len());
        masker.push(text, &mut session.names, &mut out);
        out
    }

    /// Forgets the held text: it will never go out.
    fn deny(&mut self, rule: usize) -> Denied {
        self.unsearched = String::new();
        self.masker = None;
        *self.denied.insert(Denied { rule })
    }
}

#[cfg(test)]
mod tests;
