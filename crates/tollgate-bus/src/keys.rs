//! What every ingress knows of the keys that were issued, in a key-value bucket: it outlives the one who issues them.

use std::time::Duration;

use async_nats::jetstream::{
    self,
    kv::{self, Operation, Store},
};
use futures::{Stream, StreamExt, stream};
use tollgate_types::KeyRecord;

use crate::{Error, subject};

const MAX_BYTES: i64 = 256 << 20;
const PAUSE: Duration = Duration::from_secs(1);

/// The bucket. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    store: Store,
}

impl Keys {
    pub(crate) async fn open(jetstream: &jetstream::Context, replicas: usize) -> Result<Self, Error> {
        let bucket = subject::KEY_BUCKET;
        if let Ok(store) = jetstream.get_key_value(bucket).await {
            return Ok(Self { store });
        }
        let made = jetstream
            .create_key_value(kv::Config {
                bucket: bucket.to_owned(),
                description: "keys that were issued, without their secrets".to_owned(),
                history: 1,
                max_bytes: MAX_BYTES,
                num_replicas: replicas,
                ..Default::default()
            })
            .await;
        let store = made.map_err(|error| Error::Keys(error.into()))?;
        Ok(Self { store })
    }

    /// Tells every ingress of a key.
    pub async fn put(&self, record: &KeyRecord) -> Result<(), Error> {
        let bytes = serde_json::to_vec(record).map_err(|error| Error::Keys(error.into()))?;
        let put = self.store.put(record.key_id.to_string(), bytes.into()).await;
        put.map(drop).map_err(|error| Error::Keys(error.into()))
    }

    /// All keys at the moment.
    pub async fn all(&self) -> Result<Vec<KeyRecord>, Error> {
        let failed = |error: async_nats::Error| Error::Keys(error);
        let status = self.store.status().await.map_err(|error| failed(error.into()))?;
        let mut all = Vec::new();
        if status.values() == 0 {
            return Ok(all);
        }
        let watch = self.store.watch_with_history(">").await;
        let mut entries = watch.map_err(|error| failed(error.into()))?;
        while let Some(entry) = entries.next().await {
            let entry = entry.map_err(|error| failed(error.into()))?;
            all.extend(read(&entry));
            if entry.delta == 0 {
                break;
            }
        }
        Ok(all)
    }

    /// All keys at the moment, and every change from then on, for ever; what a lost connection hides comes after it.
    pub fn changes(&self) -> impl Stream<Item = KeyRecord> + Send + use<> {
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
            .filter_map(|entry| async move { entry.ok().and_then(|entry| read(&entry)) })
    }
}

fn read(entry: &kv::Entry) -> Option<KeyRecord> {
    if entry.operation != Operation::Put {
        return None;
    }
    let read = serde_json::from_slice(&entry.value);
    read.inspect_err(|error| tracing::warn!(%error, key = entry.key, "a key that was issued cannot be read"))
        .ok()
}
