//! Whose key a request carries.
//!
//! Keys are looked up by the SHA-256 of the whole key: no prefix, no truncation, and no comparison whose time depends on
//! the secret. The secrets themselves are nowhere in the process.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use rand::{RngCore as _, TryRngCore as _, rngs::OsRng};
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use tollgate_types::{Caller, KeyId};

use crate::schema::{Key, Permission};

/// Longest text that is looked at as a key, in bytes.
const LONGEST: usize = 512;

/// Why a key does not authenticate. Doors answer all three alike; the difference is for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Empty, too long, or not printable ASCII.
    #[error("the key is malformed")]
    Malformed,
    #[error("the key is unknown")]
    Unknown,
    #[error("the key has expired")]
    Expired,
}

/// A key, and the caller that it stands for.
#[derive(Debug, Clone)]
pub struct Entry {
    pub key: Key,
    pub caller: Caller,
}

impl Entry {
    fn new(key: &Key) -> Self {
        let caller = Caller {
            key_id: KeyId::from_hash(&key.hash),
            key_name: key.name.clone(),
            tags: key.tags.clone(),
            policy: key.policy.clone(),
        };
        Self {
            key: key.clone(),
            caller,
        }
    }

    /// Whether the key has the permission.
    #[must_use]
    pub fn may(&self, permission: Permission) -> bool {
        self.key.permissions.contains(&permission)
    }

    /// Whether the key may use the model of this public name.
    #[must_use]
    pub fn may_use(&self, model: &str) -> bool {
        self.key
            .models
            .as_ref()
            .is_none_or(|models| models.iter().any(|name| name == model))
    }
}

/// All keys, by hash.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    entries: HashMap<[u8; 32], Entry>,
}

impl Keyring {
    /// A keyring of the configuration's keys, whose hashes differ.
    #[must_use]
    pub fn new(keys: &[Key]) -> Self {
        Self {
            entries: keys.iter().map(|key| (key.hash, Entry::new(key))).collect(),
        }
    }

    /// The entry of the key of this id, if it is valid at `now`.
    #[must_use]
    pub fn find(&self, id: KeyId, now: DateTime<Utc>) -> Option<&Entry> {
        let mut entries = self.entries.values();
        entries.find(|entry| entry.caller.key_id == id && entry.key.expires_at.is_none_or(|end| now < end))
    }

    /// The entry of a key that is valid at `now`.
    pub fn authenticate(&self, secret: &str, now: DateTime<Utc>) -> Result<&Entry, AuthError> {
        // The length first: nobody makes us hash a megabyte.
        if secret.is_empty() || secret.len() > LONGEST || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(AuthError::Malformed);
        }
        let entry = self.entries.get(&hash_key(secret)).ok_or(AuthError::Unknown)?;
        match entry.key.expires_at {
            Some(end) if end <= now => Err(AuthError::Expired),
            _ => Ok(entry),
        }
    }
}

/// SHA-256 of a whole key: what the configuration has in its place.
#[must_use]
pub fn hash_key(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// A new key: `tg_` and 43 characters of base64url, 256 bits from the operating system.
#[must_use]
pub fn generate_key() -> SecretString {
    let mut bytes = [0; 32];
    // Ends the process if the system has no randomness to give; there is no key to go on with.
    OsRng.unwrap_err().fill_bytes(&mut bytes);
    format!("tg_{}", URL_SAFE_NO_PAD.encode(bytes)).into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::TimeDelta;
    use secrecy::ExposeSecret as _;

    use super::*;

    fn key(name: &str, secret: &str) -> Key {
        Key {
            name: name.to_owned(),
            hash: hash_key(secret),
            expires_at: None,
            tags: BTreeMap::from([("team".to_owned(), name.to_owned())]),
            policy: "default".to_owned(),
            models: None,
            permissions: vec![Permission::Complete],
            requests_per_minute: None,
        }
    }

    #[test]
    fn a_known_key_gives_its_caller() {
        let keyring = Keyring::new(&[key("a", "tg_a"), key("b", "tg_b")]);
        let entry = keyring.authenticate("tg_b", Utc::now()).unwrap();
        assert_eq!(entry.caller.key_name, "b");
        assert_eq!(entry.caller.tags["team"], "b");
        assert_eq!(entry.caller.key_id, KeyId::from_hash(&hash_key("tg_b")));
    }

    #[test]
    fn keys_that_share_a_prefix_are_different_keys() {
        let keyring = Keyring::new(&[key("long", "tg_0123456789"), key("longer", "tg_0123456789a")]);
        let name = |secret| {
            keyring
                .authenticate(secret, Utc::now())
                .map(|entry| entry.key.name.clone())
        };
        assert_eq!(name("tg_0123456789").as_deref(), Ok("long"));
        assert_eq!(name("tg_0123456789a").as_deref(), Ok("longer"));
        for secret in ["tg_012345678", "tg_0123456789ab", "TG_0123456789", "tg_0123456789b"] {
            assert_eq!(name(secret), Err(AuthError::Unknown), "{secret}");
        }
    }

    #[test]
    fn a_key_ends_at_its_very_moment() {
        let end = Utc::now();
        let keyring = Keyring::new(&[Key {
            expires_at: Some(end),
            ..key("a", "tg_a")
        }]);
        assert!(keyring.authenticate("tg_a", end - TimeDelta::milliseconds(1)).is_ok());
        assert_eq!(keyring.authenticate("tg_a", end).unwrap_err(), AuthError::Expired);
    }

    #[test]
    fn malformed_keys_are_told_from_unknown_ones() {
        let keyring = Keyring::new(&[key("empty", ""), key("spaced", "tg_ a")]);
        let error = |secret: &str| keyring.authenticate(secret, Utc::now()).unwrap_err();
        for secret in [
            "",
            "tg_ a",
            "tg_a\n",
            "tg_\0",
            "tg_é",
            &"x".repeat(513),
            &"x".repeat(1024 * 1024),
        ] {
            assert_eq!(error(secret), AuthError::Malformed);
        }
        assert_eq!(error(&"x".repeat(512)), AuthError::Unknown);
        assert_eq!(
            Keyring::default().authenticate("tg_a", Utc::now()).unwrap_err(),
            AuthError::Unknown
        );
    }

    #[test]
    fn rights_are_what_the_key_says() {
        let entry = Entry::new(&Key {
            models: Some(vec!["small".to_owned()]),
            ..key("a", "tg_a")
        });
        assert!(entry.may(Permission::Complete) && !entry.may(Permission::Report));
        assert!(entry.may_use("small") && !entry.may_use("smal") && !entry.may_use("large"));
        assert!(Entry::new(&key("b", "tg_b")).may_use("anything"));
    }

    #[test]
    fn generated_keys_are_long_and_differ() {
        let (one, other) = (generate_key(), generate_key());
        assert_ne!(one.expose_secret(), other.expose_secret());
        assert_eq!(one.expose_secret().len(), 46);
        assert!(one.expose_secret().starts_with("tg_"));
        let keyring = Keyring::new(&[key("new", one.expose_secret())]);
        assert!(keyring.authenticate(one.expose_secret(), Utc::now()).is_ok());
        assert!(keyring.authenticate(other.expose_secret(), Utc::now()).is_err());
    }

    #[test]
    fn the_hash_is_plain_sha256() {
        assert_eq!(hash_key("abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
