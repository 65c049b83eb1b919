//! What is wrong with a configuration, and where.
//!
//! A message says what is expected. It repeats a value only where the value cannot be a secret.

use std::fmt;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Name of the file, or `environment`.
    pub source: String,
    /// From 1; 0 in the environment, which has no lines.
    pub line: usize,
    /// In characters, from 1; 0 in the environment.
    pub column: usize,
    /// Such as `models[1].targets[0].provider`, or the variable's name. Empty for the file as a whole.
    pub path: String,
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All that is wrong, in the order of the file. Displayed one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Candidates looked at for one suggestion; keeps a file of many mistakes and many names from taking for ever.
const CANDIDATES: usize = 256;

/// Longest text, in bytes, for which a suggestion is sought, and longest that a message repeats.
const LONGEST: usize = 64;

/// `; did you mean "openai"?`, or nothing when no candidate is near.
pub(crate) fn suggestion<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    if text.len() > LONGEST {
        return String::new();
    }
    let text = text.to_lowercase();
    candidates
        .into_iter()
        .take(CANDIDATES)
        .filter_map(|candidate| Some((distance(&text, &candidate.to_lowercase())?, candidate)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| format!("; did you mean {}?", quoted(candidate)))
        .unwrap_or_default()
}

/// How far apart two names are, if they are near: a third of the letters differ, or one begins with the other.
fn distance(text: &str, candidate: &str) -> Option<usize> {
    let letters = text.chars().count().max(candidate.chars().count());
    let edits = strsim::damerau_levenshtein(text, candidate);
    let extended = text.len().min(candidate.len()) >= 3 && (text.starts_with(candidate) || candidate.starts_with(text));
    (edits <= (letters / 3).max(1) && edits < letters || extended).then_some(edits)
}

/// A text in quotes, cut when long and with control characters escaped.
pub(crate) fn quoted(text: &str) -> String {
    if text.len() <= LONGEST {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(LONGEST / 2).collect();
    format!("{start:?}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested() {
        let names = ["openai", "local", "concurrency", "max_body"];
        assert_eq!(suggestion("opnai", names), "; did you mean \"openai\"?");
        assert_eq!(suggestion("OpenAI", names), "; did you mean \"openai\"?");
        assert_eq!(suggestion("max_body_bytes", names), "; did you mean \"max_body\"?");
        assert_eq!(suggestion("mistral", names), "");
        assert_eq!(suggestion("", names), "");
        assert_eq!(suggestion(&"x".repeat(100_000), names), "");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        assert!(quoted(&"é".repeat(1000)).len() < 100);
    }
}
