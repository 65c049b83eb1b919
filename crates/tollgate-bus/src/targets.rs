//! What all routers know of targets: which are ejected, and which an operator has drained. In a key-value bucket, so that a
//! router that starts knows it too.

use std::time::Duration;

use async_nats::jetstream::{
    self,
    kv::{self, Operation, Store},
};
use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use tollgate_types::{ErrorCode, Millis, Target};

use crate::{Error, subject};

const EJECTED: &str = "ejected";
const DRAINED: &str = "drained";
const MAX_BYTES: i64 = 16 << 20;
const PAUSE: Duration = Duration::from_secs(1);

/// That a target gets no requests for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejected {
    pub target: Target,
    pub until: Millis,
    /// How often in a row.
    pub strikes: u32,
    /// The last failure.
    pub reason: Option<ErrorCode>,
}

/// That a target, or all of a provider, gets no requests until somebody says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    pub provider: String,
    /// All of the provider without one.
    pub model: Option<String>,
    pub at: Millis,
    /// Name of the key.
    pub by: String,
}

impl Drained {
    /// Whether the target is one of them.
    #[must_use]
    pub fn covers(&self, target: &Target) -> bool {
        self.provider == target.provider && self.model.as_ref().is_none_or(|model| *model == target.model)
    }
}

/// Something that was said of targets. `key` is the same for what takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Ejected {
        key: String,
        ejected: Ejected,
    },
    Drained {
        key: String,
        drained: Drained,
    },
    /// What was said under this key holds no more.
    Ended {
        key: String,
    },
}

/// The bucket. Cheap to clone.
#[derive(Clone)]
pub struct Targets {
    store: Store,
}

impl Targets {
    pub(crate) async fn open(jetstream: &jetstream::Context, replicas: usize) -> Result<Self, Error> {
        let bucket = subject::TARGET_BUCKET;
        if let Ok(store) = jetstream.get_key_value(bucket).await {
            return Ok(Self { store });
        }
        let made = jetstream
            .create_key_value(kv::Config {
                bucket: bucket.to_owned(),
                description: "targets that are ejected or drained".to_owned(),
                history: 1,
                max_bytes: MAX_BYTES,
                num_replicas: replicas,
                ..Default::default()
            })
            .await;
        let store = made.map_err(|error| Error::Targets(error.into()))?;
        Ok(Self { store })
    }

    /// Tells all routers of an ejection.
    pub async fn eject(&self, ejected: &Ejected) -> Result<(), Error> {
        self.put(&ejection_key(&ejected.target), ejected).await
    }

    /// Takes targets out of use.
    pub async fn drain(&self, drained: &Drained) -> Result<(), Error> {
        self.put(&key(DRAINED, &drained.provider, drained.model.as_deref()), drained)
            .await
    }

    /// Ends the drain of this very name, if there is one.
    pub async fn undrain(&self, provider: &str, model: Option<&str>) -> Result<(), Error> {
        self.forget(&key(DRAINED, provider, model)).await
    }

    /// Ends an ejection, if there is one.
    pub async fn readmit(&self, target: &Target) -> Result<(), Error> {
        self.forget(&ejection_key(target)).await
    }

    async fn put(&self, key: &str, value: &impl Serialize) -> Result<(), Error> {
        let bytes = serde_json::to_vec(value).map_err(|error| Error::Targets(error.into()))?;
        let put = self.store.put(key, bytes.into()).await;
        put.map(drop).map_err(|error| Error::Targets(error.into()))
    }

    async fn forget(&self, key: &str) -> Result<(), Error> {
        let found = self
            .store
            .get(key)
            .await
            .map_err(|error| Error::Targets(error.into()))?;
        if found.is_none() {
            return Ok(());
        }
        let gone = self.store.delete(key).await;
        gone.map_err(|error| Error::Targets(error.into()))
    }

    /// All that holds at the moment.
    pub async fn all(&self) -> Result<Vec<Change>, Error> {
        let failed = |error: async_nats::Error| Error::Targets(error);
        let mut keys = self.store.keys().await.map_err(|error| failed(error.into()))?;
        let mut all = Vec::new();
        while let Some(key) = keys.next().await {
            let key = key.map_err(|error| failed(error.into()))?;
            let entry = self.store.entry(key).await.map_err(|error| failed(error.into()))?;
            all.extend(entry.and_then(read));
        }
        Ok(all)
    }

    /// What holds at the moment, and every change from then on, for ever; what a lost connection hides comes after it.
    pub fn changes(&self) -> impl Stream<Item = Change> + Send + use<> {
        let store = self.store.clone();
        let watches = stream::unfold((store, false), |(store, again)| async move {
            if again {
                tokio::time::sleep(PAUSE).await;
            }
            let watch = store.watch_with_history(">").await;
            Some((stream::iter(watch.ok()).flatten(), (store, true)))
        });
        watches
            .flatten()
            .filter_map(|entry| async move { entry.ok().and_then(read) })
    }
}

/// The key under which an ejection of the target is told.
#[must_use]
pub fn ejection_key(target: &Target) -> String {
    key(EJECTED, &target.provider, Some(&target.model))
}

fn key(kind: &str, provider: &str, model: Option<&str>) -> String {
    use std::fmt::Write as _;
    let mut key = format!("{kind}.{provider}");
    if let Some(model) = model {
        // A model's name may hold what a key must not.
        key.push('.');
        for byte in &Sha256::digest(model)[..16] {
            let _ = write!(key, "{byte:02x}");
        }
    }
    key
}

/// What an entry says; none for one that says nothing to us.
fn read(entry: kv::Entry) -> Option<Change> {
    fn parsed<T: DeserializeOwned>(entry: &kv::Entry) -> Option<T> {
        let read = serde_json::from_slice(&entry.value);
        read.inspect_err(|error| tracing::warn!(%error, key = entry.key, "an entry of the targets cannot be read"))
            .ok()
    }
    if entry.operation != Operation::Put {
        return Some(Change::Ended { key: entry.key });
    }
    match entry.key.split('.').next()? {
        EJECTED => parsed(&entry).map(|ejected| Change::Ejected {
            key: entry.key,
            ejected,
        }),
        DRAINED => parsed(&entry).map(|drained| Change::Drained {
            key: entry.key,
            drained,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_plain_whatever_models_are_called() {
        let keys = ["a", "a.b", "llama3.2:3b", "*", ">", "é x"].map(|model| key(DRAINED, "p", Some(model)));
        for one in &keys {
            assert!(
                one.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.'),
                "{one}"
            );
            assert_eq!(keys.iter().filter(|other| *other == one).count(), 1);
        }
        assert_eq!(key(DRAINED, "p", None), "drained.p");
    }

    #[test]
    fn a_drain_covers_a_target_or_a_provider() {
        let target = Target {
            provider: "a".to_owned(),
            model: "m".to_owned(),
        };
        let drained = |provider: &str, model: Option<&str>| Drained {
            provider: provider.to_owned(),
            model: model.map(str::to_owned),
            at: Millis(1),
            by: "me".to_owned(),
        };
        assert!(drained("a", None).covers(&target) && drained("a", Some("m")).covers(&target));
        assert!(!drained("b", None).covers(&target) && !drained("a", Some("n")).covers(&target));
    }
}
