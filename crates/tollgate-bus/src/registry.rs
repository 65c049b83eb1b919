//! What every ingress knows of what operators enter (keys, limits, prices), in key-value buckets: it outlives audit, which puts it
//! there.

use std::{marker::PhantomData, time::Duration};

use async_nats::jetstream::{
    self,
    kv::{self, Operation, Store},
};
use futures::{Stream, StreamExt, stream};
use serde::{Serialize, de::DeserializeOwned};
use tollgate_pricing::Sheet;
use tollgate_types::{KeyRecord, LimitRecord, TenantRecord};

use crate::{Error, subject};

const MAX_BYTES: i64 = 128 << 20;
const PAUSE: Duration = Duration::from_secs(1);

/// Something that is kept in a bucket of its own.
pub trait Record: Serialize + DeserializeOwned + Send + 'static {
    /// The bucket's name.
    const BUCKET: &'static str;
    /// What there is in it.
    const WHAT: &'static str;

    /// The name under which it is kept: letters, digits, `-` and `_`.
    fn id(&self) -> String;
}

impl Record for KeyRecord {
    const BUCKET: &'static str = subject::KEY_BUCKET;
    const WHAT: &'static str = "keys that were issued, without their secrets";

    fn id(&self) -> String {
        self.key_id.to_string()
    }
}

impl Record for TenantRecord {
    const BUCKET: &'static str = subject::TENANT_BUCKET;
    const WHAT: &'static str = "what all of an organisation or a team may do";

    /// No name has a `/`.
    fn id(&self) -> String {
        hexadecimal(&self.tenant.to_string())
    }
}

impl Record for LimitRecord {
    const BUCKET: &'static str = subject::LIMIT_BUCKET;
    const WHAT: &'static str = "budgets and rate limits";

    fn id(&self) -> String {
        self.limit_id.to_string()
    }
}

/// What a provider asks, as far as it is not past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct PriceList {
    /// The provider of all its sheets.
    pub provider: String,
    pub sheets: Vec<Sheet>,
}

impl Record for PriceList {
    const BUCKET: &'static str = subject::PRICE_BUCKET;
    const WHAT: &'static str = "price lists";

    /// In hexadecimal digits: a list may have any name.
    fn id(&self) -> String {
        hexadecimal(&self.provider)
    }
}

fn hexadecimal(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// A bucket. Cheap to clone.
pub struct Registry<T> {
    store: Store,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Registry<T> {
    fn clone(&self) -> Self {
        Self {
            store: self.store.clone(),
            of: PhantomData,
        }
    }
}

impl<T: Record> Registry<T> {
    pub(crate) async fn open(jetstream: &jetstream::Context, replicas: usize) -> Result<Self, Error> {
        let of = PhantomData;
        if let Ok(store) = jetstream.get_key_value(T::BUCKET).await {
            return Ok(Self { store, of });
        }
        let made = jetstream
            .create_key_value(kv::Config {
                bucket: T::BUCKET.to_owned(),
                description: T::WHAT.to_owned(),
                history: 1,
                max_bytes: MAX_BYTES,
                num_replicas: replicas,
                ..Default::default()
            })
            .await;
        let store = made.map_err(failed::<T>)?;
        Ok(Self { store, of })
    }

    /// Tells every ingress of a record, in place of the one before.
    pub async fn put(&self, record: &T) -> Result<(), Error> {
        let bytes = serde_json::to_vec(record).map_err(failed::<T>)?;
        let put = self.store.put(record.id(), bytes.into()).await;
        put.map(drop).map_err(failed::<T>)
    }

    /// All records at the moment.
    pub async fn all(&self) -> Result<Vec<T>, Error> {
        let status = self.store.status().await.map_err(failed::<T>)?;
        let mut all = Vec::new();
        if status.values() == 0 {
            return Ok(all);
        }
        let mut entries = self.store.watch_with_history(">").await.map_err(failed::<T>)?;
        while let Some(entry) = entries.next().await {
            let entry = entry.map_err(failed::<T>)?;
            all.extend(read(&entry));
            if entry.delta == 0 {
                break;
            }
        }
        Ok(all)
    }

    /// All records at the moment, and every change from then on, for ever; what a lost connection hides comes after it.
    pub fn changes(&self) -> impl Stream<Item = T> + Send + use<T> {
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

fn failed<T: Record>(error: impl Into<async_nats::Error>) -> Error {
    Error::Registry {
        what: T::WHAT,
        source: error.into(),
    }
}

fn read<T: Record>(entry: &kv::Entry) -> Option<T> {
    if entry.operation != Operation::Put {
        return None;
    }
    let read = serde_json::from_slice(&entry.value);
    read.inspect_err(|error| tracing::warn!(%error, key = entry.key, bucket = T::BUCKET, "a record cannot be read"))
        .ok()
}
