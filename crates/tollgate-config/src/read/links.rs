//! Names that entries give themselves, and names by which they refer to one another.
//!
//! Checked after the walk, since a key may refer to a model further down. Names of entries that are refused for another
//! reason count as well, so that one mistake does not look like two.

use std::{collections::HashMap, fmt};

use crate::{
    cursor::{Cursor, Fields},
    mistake::{quoted, suggestion},
};

/// The policy that is always there.
pub(crate) const DEFAULT_POLICY: &str = "default";

/// What a name is the name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Key,
    Issuer,
    Model,
    Provider,
    Policy,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Issuer => "issuer",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Policy => "policy",
        })
    }
}

/// All names met so far.
#[derive(Debug, Default)]
pub(super) struct Links<'a> {
    /// With the line in which each is declared.
    declared: HashMap<(Kind, &'a str), usize>,
    /// The same in the order of the file, for suggestions.
    names: HashMap<Kind, Vec<&'a str>>,
    uses: Vec<(Kind, &'a str, Cursor<'a>)>,
    hashes: HashMap<[u8; 32], usize>,
    issuers: HashMap<&'a str, usize>,
}

impl<'a> Links<'a> {
    /// Reads the `name` of an entry.
    pub(super) fn name(
        &mut self,
        entry: &mut Fields<'a>,
        kind: Kind,
        check: impl FnOnce(&str) -> Result<String, String>,
    ) -> Option<String> {
        entry.required("name", |at| {
            let text = at.text("a name")?;
            match self.declared.get(&(kind, text)) {
                Some(line) => at.mistake(format!(
                    "the name {} is taken by the {kind} in line {line}",
                    quoted(text)
                )),
                None => {
                    self.declared.insert((kind, text), at.line());
                    self.names.entry(kind).or_default().push(text);
                }
            }
            at.parse(check)
        })
    }

    /// Reads a name that refers to an entry elsewhere.
    pub(super) fn reference(&mut self, at: &Cursor<'a>, kind: Kind) -> Option<String> {
        let text = at.text("a name")?;
        self.uses.push((kind, text, at.clone()));
        Some(text.to_owned())
    }

    /// Notes the hash of a key. Two keys of one hash would be two callers with one secret.
    pub(super) fn hash(&mut self, at: &Cursor<'a>, hash: [u8; 32]) {
        match self.hashes.get(&hash) {
            Some(line) => at.mistake(format!("the hash is that of the key in line {line} already")),
            None => {
                self.hashes.insert(hash, at.line());
            }
        }
    }

    /// Reads the `iss` of an issuer's tokens. Of two entries for one it would be chance which counts.
    pub(super) fn issuer(&mut self, at: &Cursor<'a>) -> Option<&'a str> {
        let text = at.text("the iss of its tokens")?;
        match self.issuers.get(text) {
            Some(line) => at.mistake(format!("the issuer is that of the entry in line {line} already")),
            None => {
                self.issuers.insert(text, at.line());
            }
        }
        Some(text)
    }

    /// Reports the references that lead nowhere.
    pub(super) fn check(&self) {
        for (kind, name, at) in &self.uses {
            let built_in = *kind == Kind::Policy && *name == DEFAULT_POLICY;
            if !built_in && !self.declared.contains_key(&(*kind, *name)) {
                let names = self.names.get(kind).into_iter().flatten().copied();
                at.mistake(format!(
                    "no {kind} is named {}{}",
                    quoted(name),
                    suggestion(name, names)
                ));
            }
        }
    }
}
