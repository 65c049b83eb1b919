//! What a client says of a request beside its body: labels for the ledger, and who of its own users it is for.

use std::collections::BTreeMap;

use tollgate_types::{Caller, ErrorCode, Failure};

/// `name=value` pairs, separated by commas.
pub(crate) const TAGS: &str = "x-tollgate-tags";
/// An id of the client's own making.
pub(crate) const USER: &str = "x-tollgate-user";

const MOST_TAGS: usize = 16;
/// Longest name and longest value, in bytes.
const LONGEST_NAME: usize = 64;
const LONGEST_VALUE: usize = 256;

/// Of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) user: Option<String>,
}

impl Labels {
    /// Reads them from headers or metadata; `value` finds one by its name.
    pub(crate) fn read<'a>(value: impl Fn(&'static str) -> Option<&'a [u8]>) -> Result<Self, Failure> {
        let mut labels = Self::default();
        if let Some(bytes) = value(USER) {
            labels.user = Some(text(USER, bytes, LONGEST_VALUE)?.to_owned());
        }
        if let Some(bytes) = value(TAGS) {
            let whole = text(TAGS, bytes, MOST_TAGS * (LONGEST_NAME + LONGEST_VALUE))?;
            for pair in whole.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
                let (name, label) = pair
                    .split_once('=')
                    .ok_or_else(|| bad(TAGS, "expected name=value,name=value"))?;
                labels.add(name.trim(), label.trim())?;
            }
        }
        Ok(labels)
    }

    fn add(&mut self, name: &str, label: &str) -> Result<(), Failure> {
        if name.is_empty() || name.len() > LONGEST_NAME || label.len() > LONGEST_VALUE {
            return Err(bad(TAGS, "a name has 1 to 64 bytes and a value up to 256"));
        }
        if self.tags.len() == MOST_TAGS && !self.tags.contains_key(name) {
            return Err(bad(TAGS, "there are more than 16"));
        }
        self.tags.insert(name.to_owned(), label.to_owned());
        Ok(())
    }

    /// The caller with these labels. A label of the key cannot be taken over by one of the request.
    pub(crate) fn apply(self, caller: &Caller) -> Caller {
        let mut caller = caller.clone();
        for (name, value) in self.tags {
            caller.tags.entry(name).or_insert(value);
        }
        caller.user = self.user.or(caller.user);
        caller
    }
}

fn text<'a>(name: &str, bytes: &'a [u8], longest: usize) -> Result<&'a str, Failure> {
    let text = std::str::from_utf8(bytes).map_err(|_| bad(name, "is not UTF-8"))?;
    if text.is_empty() || text.len() > longest {
        return Err(bad(name, "is empty or too long"));
    }
    if text.chars().any(char::is_control) {
        return Err(bad(name, "has control characters"));
    }
    Ok(text)
}

fn bad(name: &str, why: &str) -> Failure {
    Failure::new(ErrorCode::InvalidRequest, format!("{name}: {why}"))
}

#[cfg(test)]
mod tests {
    use tollgate_types::{KeyId, Tenant};

    use super::*;

    fn read(tags: &[u8], user: &[u8]) -> Result<Labels, Failure> {
        Labels::read(|name| Some(if name == TAGS { tags } else { user }).filter(|text| *text != b"-"))
    }

    #[test]
    fn labels_of_a_request_do_not_replace_those_of_its_key() {
        let caller = Caller {
            key_id: KeyId::generate(),
            key_name: "k".to_owned(),
            tenant: Tenant::default(),
            user: None,
            tags: BTreeMap::from([("team".to_owned(), "search".to_owned())]),
            policy: "default".to_owned(),
            providers: None,
        };
        let labelled = read(b"team=other, run = 7,,", b"u-1").unwrap().apply(&caller);
        assert_eq!(
            (labelled.tags["team"].as_str(), labelled.tags["run"].as_str()),
            ("search", "7")
        );
        assert_eq!(labelled.user.as_deref(), Some("u-1"));
        assert_eq!(read(b"-", b"-").unwrap().apply(&caller), caller);
    }

    #[test]
    fn labels_with_mistakes_are_refused() {
        let many = (0..17)
            .map(|number| format!("t{number}=x"))
            .collect::<Vec<_>>()
            .join(",");
        let long = format!("a={}", "x".repeat(257));
        for tags in [
            &b"a"[..],
            b"=b",
            b"\xff=b",
            b"a=\x01",
            b"",
            many.as_bytes(),
            long.as_bytes(),
        ] {
            assert!(read(tags, b"-").is_err(), "{tags:?}");
        }
        for user in [&b""[..], b"\xff", b"a\nb", &[b'x'; 257]] {
            assert!(read(b"-", user).is_err(), "{user:?}");
        }
        assert!(read(b"a=", b"\xc3\xa9").is_ok());
    }
}
