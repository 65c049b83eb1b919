//! Whose key a request carries.
//!
//! Keys are looked up by the SHA-256 of the whole key: no prefix, no truncation, and no comparison whose time depends on
//! the secret. The secrets themselves are nowhere in the process.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use rand::{RngCore as _, TryRngCore as _, rngs::OsRng};
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use tollgate_types::{Caller, Grant, KeyId, KeyRecord, Millis, Permission, Tenant};

use crate::{
    read::links::DEFAULT_POLICY,
    schema::{Key, Provider},
};

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
    pub caller: Caller,
    pub grant: Grant,
    expires_at: Option<DateTime<Utc>>,
}

impl Entry {
    fn new(key: &Key) -> Self {
        let Key {
            name, tenant, grant, ..
        } = key;
        Self {
            caller: caller(KeyId::from_hash(&key.hash), name, tenant, grant),
            grant: grant.clone(),
            expires_at: key.expires_at,
        }
    }

    /// Whether the key has the permission.
    #[must_use]
    pub fn may(&self, permission: Permission) -> bool {
        self.grant.may(permission)
    }

    /// Whether the key may use the model of this public name.
    #[must_use]
    pub fn may_use(&self, model: &str) -> bool {
        self.grant.allows_model(model)
    }

    fn is_over(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

fn caller(key_id: KeyId, name: &str, tenant: &Tenant, grant: &Grant) -> Caller {
    Caller {
        key_id,
        key_name: name.to_owned(),
        tenant: tenant.clone(),
        user: None,
        tags: grant.tags.clone(),
        policy: grant.policy.clone().unwrap_or_else(|| DEFAULT_POLICY.to_owned()),
        providers: grant.providers.clone(),
    }
}

type Hash = [u8; 32];

/// Keys that are issued while the gateway runs.
#[derive(Debug, Default)]
struct Issued {
    by_hash: HashMap<Hash, Arc<Entry>>,
    /// The secrets of each key and the revision that they are of.
    keys: HashMap<KeyId, (u64, Vec<Hash>)>,
}

/// All keys, by hash: those of the configuration, which go first, and those that were issued.
#[derive(Debug, Default)]
pub struct Keyring {
    fixed: HashMap<Hash, Arc<Entry>>,
    /// Where each provider serves, for keys that are bound to regions.
    regions: BTreeMap<String, Option<String>>,
    issued: RwLock<Issued>,
}

impl Keyring {
    /// A keyring of the configuration's keys, whose hashes differ.
    #[must_use]
    pub fn new(keys: &[Key], providers: &[Provider]) -> Self {
        let mut ring = Self {
            regions: providers
                .iter()
                .map(|one| (one.name.clone(), one.region.clone()))
                .collect(),
            ..Self::default()
        };
        let entry = |key: &Key| Arc::new(ring.bound(Entry::new(key)));
        ring.fixed = keys.iter().map(|key| (key.hash, entry(key))).collect();
        ring
    }

    /// The entry with the providers that are in its regions.
    fn bound(&self, mut entry: Entry) -> Entry {
        if entry.grant.regions.is_some() {
            let allowed =
                |(name, region): &(&String, &Option<String>)| entry.grant.allows_provider(name, region.as_deref());
            let names = self.regions.iter().filter(allowed).map(|(name, _)| name.clone());
            entry.caller.providers = Some(names.collect());
        }
        entry
    }

    /// The entry of somebody who shows no key but proves otherwise who he is.
    #[must_use]
    pub fn vouch(&self, id: KeyId, name: &str, tenant: &Tenant, grant: Grant, expires_at: DateTime<Utc>) -> Entry {
        self.bound(Entry {
            caller: caller(id, name, tenant, &grant),
            grant,
            expires_at: Some(expires_at),
        })
    }

    /// Learns of a key that was issued or changed; of two records the one of the higher revision counts.
    pub fn learn(&self, record: &KeyRecord) {
        let entry = |until: Option<Millis>| {
            let end = [record.expires_at, until].into_iter().flatten().min();
            Arc::new(self.bound(Entry {
                caller: caller(record.key_id, &record.name, &record.tenant, &record.grant),
                grant: record.grant.clone(),
                expires_at: end.map(Millis::to_datetime),
            }))
        };
        let secrets: Vec<(Hash, Arc<Entry>)> = record
            .secrets
            .iter()
            .filter(|_| !record.disabled)
            .filter_map(|secret| Some((read_hash(&secret.sha256)?, entry(secret.until))))
            .collect();
        let mut issued = self.issued.write().unwrap_or_else(PoisonError::into_inner);
        if issued
            .keys
            .get(&record.key_id)
            .is_some_and(|(known, _)| *known > record.revision)
        {
            return;
        }
        let hashes = secrets.iter().map(|(hash, _)| *hash).collect();
        let before = issued.keys.insert(record.key_id, (record.revision, hashes));
        for hash in before.map(|(_, hashes)| hashes).unwrap_or_default() {
            issued.by_hash.remove(&hash);
        }
        issued.by_hash.extend(secrets);
    }

    /// The entry of the key of this id, if it is valid at `now`.
    #[must_use]
    pub fn find(&self, id: KeyId, now: DateTime<Utc>) -> Option<Arc<Entry>> {
        let valid = |entry: &&Arc<Entry>| !entry.is_over(now);
        let mut fixed = self.fixed.values().filter(|entry| entry.caller.key_id == id);
        if let Some(entry) = fixed.find(valid) {
            return Some(Arc::clone(entry));
        }
        let issued = self.issued.read().unwrap_or_else(PoisonError::into_inner);
        let (_, hashes) = issued.keys.get(&id)?;
        hashes
            .iter()
            .filter_map(|hash| issued.by_hash.get(hash))
            .find(valid)
            .cloned()
    }

    /// The entry of a key that is valid at `now`.
    pub fn authenticate(&self, secret: &str, now: DateTime<Utc>) -> Result<Arc<Entry>, AuthError> {
        // The length first: nobody makes us hash a megabyte.
        if secret.is_empty() || secret.len() > LONGEST || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(AuthError::Malformed);
        }
        let hash = hash_key(secret);
        let found = self.fixed.get(&hash).cloned().or_else(|| {
            let issued = self.issued.read().unwrap_or_else(PoisonError::into_inner);
            issued.by_hash.get(&hash).cloned()
        });
        match found.ok_or(AuthError::Unknown)? {
            entry if entry.is_over(now) => Err(AuthError::Expired),
            entry => Ok(entry),
        }
    }
}

/// A hash as 64 hex digits.
#[must_use]
pub fn read_hash(text: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    let (digits, rest) = text.as_bytes().as_chunks::<2>();
    if digits.len() != hash.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(digits) {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|_| pair.iter().all(u8::is_ascii_hexdigit))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(hash)
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
    use chrono::TimeDelta;
    use secrecy::ExposeSecret as _;

    use tollgate_types::grant::SecretHash;

    use super::*;

    fn key(name: &str, secret: &str) -> Key {
        Key {
            name: name.to_owned(),
            hash: hash_key(secret),
            expires_at: None,
            tenant: Tenant::default(),
            grant: Grant {
                tags: BTreeMap::from([("team".to_owned(), name.to_owned())]),
                ..Grant::default()
            },
        }
    }

    fn ring(keys: &[Key]) -> Keyring {
        Keyring::new(keys, &[])
    }

    #[test]
    fn a_known_key_gives_its_caller() {
        let keyring = ring(&[key("a", "tg_a"), key("b", "tg_b")]);
        let entry = keyring.authenticate("tg_b", Utc::now()).unwrap();
        assert_eq!(entry.caller.key_name, "b");
        assert_eq!(entry.caller.tags["team"], "b");
        assert_eq!(entry.caller.key_id, KeyId::from_hash(&hash_key("tg_b")));
    }

    #[test]
    fn keys_that_share_a_prefix_are_different_keys() {
        let keyring = ring(&[key("long", "tg_0123456789"), key("longer", "tg_0123456789a")]);
        let name = |secret| {
            keyring
                .authenticate(secret, Utc::now())
                .map(|entry| entry.caller.key_name.clone())
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
        let keyring = ring(&[Key {
            expires_at: Some(end),
            ..key("a", "tg_a")
        }]);
        assert!(keyring.authenticate("tg_a", end - TimeDelta::milliseconds(1)).is_ok());
        assert_eq!(keyring.authenticate("tg_a", end).unwrap_err(), AuthError::Expired);
    }

    #[test]
    fn malformed_keys_are_told_from_unknown_ones() {
        let keyring = ring(&[key("empty", ""), key("spaced", "tg_ a")]);
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
            grant: Grant {
                models: Some(vec!["small".to_owned()]),
                ..Grant::default()
            },
            ..key("a", "tg_a")
        });
        assert!(entry.may(Permission::Complete) && !entry.may(Permission::Report));
        assert!(entry.may_use("small") && !entry.may_use("smal") && !entry.may_use("large"));
        assert!(Entry::new(&key("b", "tg_b")).may_use("anything"));
    }

    fn record(revision: u64, secrets: &[(&str, Option<Millis>)]) -> KeyRecord {
        let hex = |secret: &str| hash_key(secret).iter().map(|byte| format!("{byte:02x}")).collect();
        KeyRecord {
            key_id: KeyId::from_hash(&[7; 32]),
            revision,
            name: "issued".to_owned(),
            tenant: Tenant::default(),
            secrets: secrets
                .iter()
                .map(|(secret, until)| SecretHash {
                    sha256: hex(secret),
                    until: *until,
                })
                .collect(),
            disabled: false,
            expires_at: None,
            grant: Grant::default(),
        }
    }

    #[test]
    fn issued_keys_change_and_end() {
        let keyring = ring(&[key("fixed", "tg_fixed")]);
        let now = Utc::now();
        let state = |secret| keyring.authenticate(secret, now).map(|entry| entry.caller.key_id);
        let id = record(1, &[]).key_id;
        keyring.learn(&record(1, &[("tg_one", None)]));
        assert_eq!((state("tg_one"), state("tg_two")), (Ok(id), Err(AuthError::Unknown)));
        // Rotated: the old one is good until its grace is over.
        let grace = Millis::now().after(std::time::Duration::from_secs(60));
        keyring.learn(&record(2, &[("tg_two", None), ("tg_one", Some(grace))]));
        assert_eq!((state("tg_one"), state("tg_two")), (Ok(id), Ok(id)));
        let late = keyring.authenticate("tg_one", now + TimeDelta::seconds(61));
        assert_eq!(late.unwrap_err(), AuthError::Expired);
        // What comes late does not bring back what was.
        keyring.learn(&record(1, &[("tg_one", None)]));
        assert_eq!(state("tg_two"), Ok(id));
        assert!(keyring.find(id, now).is_some());
        let disabled = KeyRecord {
            disabled: true,
            ..record(3, &[("tg_two", None)])
        };
        keyring.learn(&disabled);
        keyring.learn(&record(2, &[("tg_two", None)]));
        assert_eq!(
            (state("tg_one"), state("tg_two")),
            (Err(AuthError::Unknown), Err(AuthError::Unknown))
        );
        assert!(keyring.find(id, now).is_none());
        // Nor can an issued key take the place of one of the configuration, or one be made of no hash.
        let mut forged = record(4, &[("tg_fixed", None)]);
        forged.secrets.push(SecretHash {
            sha256: "zz".to_owned(),
            until: None,
        });
        keyring.learn(&forged);
        let holder = keyring.authenticate("tg_fixed", now).unwrap();
        assert_eq!(holder.caller.key_name, "fixed");
    }

    #[test]
    fn generated_keys_are_long_and_differ() {
        let (one, other) = (generate_key(), generate_key());
        assert_ne!(one.expose_secret(), other.expose_secret());
        assert_eq!(one.expose_secret().len(), 46);
        assert!(one.expose_secret().starts_with("tg_"));
        let keyring = ring(&[key("new", one.expose_secret())]);
        assert!(keyring.authenticate(one.expose_secret(), Utc::now()).is_ok());
        assert!(keyring.authenticate(other.expose_secret(), Utc::now()).is_err());
    }

    #[test]
    fn the_hash_is_plain_sha256() {
        assert_eq!(hash_key("abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
