//! What a submitter may call things.

use super::{Submission, at};
use crate::reception::Rejection;

const MOST_TAGS: usize = 16;
const LONGEST_NAME: usize = 64;
const LONGEST_VALUE: usize = 256;
const LONGEST_KEY: usize = 255;

/// Everything that becomes a name somewhere.
pub(super) fn check(submission: &Submission) -> Result<(), Rejection> {
    let printable = |text: &str, longest: usize| {
        !text.is_empty() && text.len() <= longest && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
    };
    let key = submission.idempotency_key.as_deref();
    if key.is_some_and(|key| !printable(key, LONGEST_KEY)) {
        return Err(at("idempotency_key", "expected 1 to 255 printable ASCII characters"));
    }
    let plain = |name: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        printable(name, LONGEST_NAME) && name.bytes().all(fits)
    };
    if submission.batch.as_deref().is_some_and(|batch| !plain(batch)) {
        return Err(at("batch", "expected 1 to 64 letters, digits, -, _ and dots"));
    }
    let tags = &submission.labels.tags;
    let fine = |(name, value): (&String, &String)| {
        plain(name) && value.len() <= LONGEST_VALUE && !value.contains(char::is_control)
    };
    if tags.len() > MOST_TAGS || !tags.iter().all(fine) {
        let message =
            "expected up to 16, with names of up to 64 letters, digits, -, _ and dots and values of up to 256 bytes";
        return Err(at("tags", message));
    }
    let user = submission.labels.user.as_deref().unwrap_or("-");
    if user.is_empty() || user.len() > LONGEST_VALUE || user.contains(char::is_control) {
        return Err(at("user", "expected 1 to 256 bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::labels::Labels;

    #[test]
    fn names_are_checked_before_anything_is_stored() {
        let with = |change: fn(&mut Submission)| {
            let mut submission = Submission::default();
            change(&mut submission);
            check(&submission).err().and_then(|rejection| rejection.param)
        };
        assert_eq!(with(|_| {}), None);
        let refused = |change| with(change).unwrap();
        assert_eq!(refused(|s| s.idempotency_key = Some(String::new())), "idempotency_key");
        assert_eq!(refused(|s| s.idempotency_key = Some("é".to_owned())), "idempotency_key");
        assert_eq!(
            refused(|s| s.idempotency_key = Some("k".repeat(256))),
            "idempotency_key"
        );
        assert_eq!(refused(|s| s.batch = Some("a b".to_owned())), "batch");
        assert_eq!(refused(|s| s.batch = Some("*".to_owned())), "batch");
        let tag = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert_eq!(with(|_| {}), None);
        assert_eq!(refused(|s| s.labels.user = Some("\n".to_owned())), "user");
        let tags = [tag("a b", "c"), tag("a", "c\0"), tag("a", &"v".repeat(257))];
        for tags in tags {
            let submission = Submission {
                labels: Labels { tags, user: None },
                ..Submission::default()
            };
            assert!(check(&submission).is_err());
        }
    }
}
