//! Typed ids with a readable prefix: `req_…`, `att_…`, `key_…`. Time-sortable (UUID v7), written as 32 hex digits, so
//! that one is also a valid NATS subject token, header value and file name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {prefix}_<32 hex digits>")]
pub struct InvalidId {
    prefix: &'static str,
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// A new id; later ids sort after earlier ones.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id that the database stores as `uuid`.
            #[must_use]
            pub const fn of(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The id without its prefix, as the database stores it.
            #[must_use]
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.strip_prefix(concat!($prefix, "_"))
                    .filter(|digits| digits.len() == 32)
                    .and_then(|digits| Uuid::try_parse(digits).ok())
                    .map(Self)
                    .ok_or(InvalidId { prefix: $prefix })
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

typed_id!(
    /// One request of one client, from the first byte to its terminal state.
    RequestId,
    "req"
);
typed_id!(
    /// One call to one provider. The ledger has one row for each.
    AttemptId,
    "att"
);
typed_id!(
    /// One durable request. Its uuid is that of the request by which the ledger knows its calls.
    JobId,
    "job"
);

typed_id!(
    /// Many durable requests in a file.
    BatchId,
    "batch"
);
typed_id!(
    /// A file that a client uploaded, or may fetch.
    FileId,
    "file"
);

typed_id!(
    /// An API key; its secret is never stored.
    KeyId,
    "key"
);

typed_id!(
    /// A limit on what calls may cost, or on how many there may be.
    LimitId,
    "lim"
);
typed_id!(
    /// A slice of a limit in the hands of one ingress replica.
    LeaseId,
    "lease"
);

impl KeyId {
    /// The id of a key known by its hash alone: the first 16 bytes of the SHA-256 of the secret.
    #[must_use]
    pub fn from_hash(hash: &[u8; 32]) -> Self {
        let mut first = [0; 16];
        first.copy_from_slice(&hash[..16]);
        Self(Uuid::from_bytes(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let id = RequestId::generate();
        assert_eq!(id.to_string().parse::<RequestId>().unwrap(), id);
        assert!(id.to_string().starts_with("req_"));
    }

    #[test]
    fn other_kinds_and_lengths_are_refused() {
        let id = AttemptId::generate().to_string();
        assert!(id.parse::<RequestId>().is_err());
        assert!(id[..id.len() - 1].parse::<AttemptId>().is_err());
        assert!("att_{0199ad3e-0000-7000-8000-0000000000}".parse::<AttemptId>().is_err());
    }

    #[test]
    fn later_ids_sort_later() {
        let ids: Vec<_> = (0..64).map(|_| RequestId::generate()).collect();
        assert!(ids.is_sorted());
    }
}
