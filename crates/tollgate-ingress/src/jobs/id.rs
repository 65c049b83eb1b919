//! Which job is meant.

use sha2::{Digest, Sha256};
use tollgate_types::{BatchId, Dialect, JobId, KeyId, Operation};

/// What an id is made of when it is not drawn.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meant<'a> {
    /// An idempotency key of the client's, and how often it has failed.
    Key(&'a str, u32),
    RetryOf(JobId),
    /// A place in a batch's file.
    Line(BatchId, u64),
}

/// The job at a place in a batch's file.
pub(crate) fn at_line(owner: KeyId, batch: BatchId, line: u64) -> JobId {
    named(owner, Meant::Line(batch, line))
}

/// The job that the key's owner means.
pub(super) fn named(owner: KeyId, meant: Meant<'_>) -> JobId {
    let mut digest = Sha256::new();
    digest.update(owner.as_uuid().as_bytes());
    match meant {
        Meant::Key(key, 0) => digest.update(key.as_bytes()),
        // A client's key has no control characters.
        Meant::Key(key, failures) => {
            digest.update(b"\0failed");
            digest.update(failures.to_be_bytes());
            digest.update(key.as_bytes());
        }
        Meant::Line(batch, line) => {
            digest.update(b"\0line");
            digest.update(batch.as_uuid().as_bytes());
            digest.update(line.to_be_bytes());
        }
        Meant::RetryOf(job) => {
            digest.update(b"\0retry");
            digest.update(job.as_uuid().as_bytes());
        }
    }
    JobId::derived(&digest.finalize().into())
}

/// By which a repeat of a request is told from another request.
pub(super) fn fingerprint(dialect: Dialect, operation: Operation, body: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for name in [dialect.as_str(), operation.as_str()] {
        digest.update(name.as_bytes());
        digest.update([0]);
    }
    digest.update(body);
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_key_means_one_job_of_one_owner() {
        let (one, two) = (KeyId::generate(), KeyId::generate());
        let job = named(one, Meant::Key("a", 0));
        assert_eq!(named(one, Meant::Key("a", 0)), job);
        let others = [
            named(two, Meant::Key("a", 0)),
            named(one, Meant::Key("b", 0)),
            named(one, Meant::Key("a", 1)),
            named(one, Meant::Key("a", 2)),
            named(one, Meant::RetryOf(job)),
            named(one, Meant::Line(BatchId::of(job.as_uuid()), 0)),
            named(one, Meant::Line(BatchId::of(job.as_uuid()), 1)),
        ];
        assert_eq!(BTreeSet::from(others).len(), others.len());
        assert!(!others.contains(&job));
        assert!(job.to_string().parse::<JobId>().is_ok());
    }
}
