//! The claim check: a body over the message limit waits in the object store, and the envelope carries its name.

use async_nats::jetstream::{self, object_store::ObjectStore};
use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tollgate_types::{Payload, RequestId};

use crate::{Error, subject};

/// The store of large bodies. Cheap to clone.
#[derive(Clone)]
pub struct Payloads {
    store: ObjectStore,
    inline_limit: usize,
}

impl Payloads {
    pub(crate) async fn open(jetstream: &jetstream::Context, inline_limit: usize) -> Result<Self, Error> {
        let store = jetstream
            .get_object_store(subject::PAYLOAD_BUCKET)
            .await
            .map_err(|error| Error::PayloadStore(error.into()))?;
        Ok(Self { store, inline_limit })
    }

    /// `body` as a payload: as it is when it fits into a message, else stored under a name made of the request and `part`.
    pub async fn check_in(&self, request_id: RequestId, part: &str, body: Bytes) -> Result<Payload, Error> {
        check_in(&self.store, self.inline_limit, format!("{request_id}-{part}"), body).await
    }

    /// The bytes of a payload, wherever they are.
    pub async fn fetch(&self, payload: &Payload) -> Result<Bytes, Error> {
        fetch(&self.store, payload).await
    }

    /// Removes what was stored. What is forgotten to be removed goes with the store's age limit.
    pub async fn forget(&self, payload: &Payload) {
        forget(&self.store, payload).await;
    }
}

pub(crate) async fn forget(store: &ObjectStore, payload: &Payload) {
    if let Payload::Stored { object, .. } = payload
        && let Err(error) = store.delete(object).await
    {
        tracing::debug!(%error, object, "a stored payload was not removed");
    }
}

pub(crate) async fn check_in(
    store: &ObjectStore,
    inline_limit: usize,
    object: String,
    body: Bytes,
) -> Result<Payload, Error> {
    if body.len() <= inline_limit {
        return Ok(Payload::Inline(body));
    }
    let size = body.len() as u64;
    let mut reader = &body[..];
    store
        .put(object.as_str(), &mut reader)
        .await
        .map_err(|error| Error::PayloadStore(error.into()))?;
    Ok(Payload::Stored { object, size })
}

pub(crate) async fn fetch(store: &ObjectStore, payload: &Payload) -> Result<Bytes, Error> {
    let (object, size) = match payload {
        Payload::Inline(bytes) => return Ok(bytes.clone()),
        Payload::Stored { object, size } => (object, *size),
    };
    let mut found = store.get(object.as_str()).await.map_err(|error| match error.kind() {
        async_nats::jetstream::object_store::GetErrorKind::NotFound => Error::PayloadGone,
        _ => Error::PayloadStore(error.into()),
    })?;
    // What the envelope says is a hint for the allocation, not to be trusted with it.
    let mut body = Vec::with_capacity(usize::try_from(size).unwrap_or_default().min(64 << 20));
    found
        .read_to_end(&mut body)
        .await
        .map_err(|error| Error::PayloadStore(error.into()))?;
    Ok(body.into())
}
