//! Batches in files: what clients upload, what is known of a batch, and the files of its answers.
//!
//! What is known of a batch is a few records, each written once: that it was accepted, that its file was read, that it
//! was cancelled, that it ended. Accepted batches are taken from the stream as jobs are, by one replica at a time.

use std::{collections::BTreeMap, pin::Pin};

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, pull},
    context::PublishErrorKind,
    message::PublishMessage,
    object_store::{self, InfoErrorKind, ObjectInfo, ObjectMetadata, ObjectStore},
    stream::{self, DiscardPolicy, RetentionPolicy},
};
use futures::StreamExt;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::AsyncRead;
use tollgate_types::{BatchId, FileId, KeyId, Millis};

use crate::{
    Error,
    connection::Storage,
    jobs::{JOB_LEASE, Taker, last},
    subject,
};

const MAX_BYTES: i64 = 256 << 20;

/// A batch as it was accepted. Never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    pub id: BatchId,
    pub key: KeyId,
    /// Lines of requests.
    pub input: FileId,
    /// The path to which all of them go.
    pub endpoint: String,
    /// As the client gave it.
    pub window: String,
    pub metadata: BTreeMap<String, String>,
    pub created_at: Millis,
    /// When what has no answer fails.
    pub expires_at: Millis,
}

/// That a batch's file was read: its requests are jobs, or it has mistakes and none is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    pub requests: u64,
    pub mistakes: Vec<LineMistake>,
    pub at: Millis,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineMistake {
    /// From 1; none for the file as a whole.
    pub line: Option<u64>,
    pub code: String,
    pub message: String,
    pub param: Option<String>,
}

/// That a batch is to end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancellation {
    pub at: Millis,
}

/// That all of a batch has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    pub answered: u64,
    pub failed: u64,
    /// Whether a request failed because the batch's time was over.
    pub expired: bool,
    /// Lines of answers, if there are any.
    pub output: Option<FileId>,
    /// Lines of failures, if there are any.
    pub errors: Option<FileId>,
    pub at: Millis,
}

/// All that is known of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchStatus {
    pub batch: Batch,
    pub reading: Option<Reading>,
    pub cancellation: Option<Cancellation>,
    pub ending: Option<Ending>,
}

/// A record of a batch.
pub trait Record: Serialize + DeserializeOwned + Send + Sync {
    const PART: &'static str;
}

impl Record for Batch {
    const PART: &'static str = "accepted";
}

impl Record for Reading {
    const PART: &'static str = "read";
}

impl Record for Cancellation {
    const PART: &'static str = "cancelled";
}

impl Record for Ending {
    const PART: &'static str = "ended";
}

/// What is told of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub id: FileId,
    pub name: String,
    pub purpose: String,
    pub bytes: u64,
    pub created_at: Millis,
}

/// What is in a file.
pub type Content = Pin<Box<dyn AsyncRead + Send>>;

/// Creates or updates what batches need.
pub(crate) async fn init(jetstream: &jetstream::Context, storage: &Storage) -> Result<(), Error> {
    let failed = |source: async_nats::Error| Error::SetUp {
        what: "the stream of batches",
        source,
    };
    let config = stream::Config {
        name: subject::BATCH_STREAM.to_owned(),
        description: Some("batches in files".to_owned()),
        subjects: vec![format!("{}.*.*.*", subject::BATCHES)],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        max_age: storage.retention,
        max_bytes: MAX_BYTES,
        num_replicas: storage.replicas,
        ..Default::default()
    };
    let made = jetstream.create_or_update_stream(config).await;
    made.map_err(|error| failed(error.into()))?;
    let config = pull::Config {
        durable_name: Some(subject::BATCH_CONSUMER.to_owned()),
        filter_subject: format!("{}.*.*.{}", subject::BATCHES, Batch::PART),
        ack_policy: AckPolicy::Explicit,
        ack_wait: JOB_LEASE,
        max_ack_pending: 100_000,
        ..Default::default()
    };
    let made = jetstream.create_consumer_on_stream(config, subject::BATCH_STREAM).await;
    made.map_err(|error| failed(error.into()))?;
    if jetstream.get_object_store(subject::FILE_BUCKET).await.is_err() {
        let made = jetstream
            .create_object_store(object_store::Config {
                bucket: subject::FILE_BUCKET.to_owned(),
                description: Some("files of batches".to_owned()),
                max_age: storage.retention,
                max_bytes: storage.bytes,
                num_replicas: storage.replicas,
                ..Default::default()
            })
            .await;
        made.map_err(|error| failed(error.into()))?;
    }
    Ok(())
}

/// Batches and their files. Cheap to clone.
#[derive(Clone)]
pub struct Batches {
    jetstream: jetstream::Context,
    stream: stream::Stream,
    files: ObjectStore,
}

impl Batches {
    pub(crate) async fn open(jetstream: &jetstream::Context) -> Result<Self, Error> {
        let stream = jetstream.get_stream(subject::BATCH_STREAM).await;
        let files = jetstream.get_object_store(subject::FILE_BUCKET).await;
        Ok(Self {
            jetstream: jetstream.clone(),
            stream: stream.map_err(|error| Error::Jobs(error.into()))?,
            files: files.map_err(|error| Error::Files(error.into()))?,
        })
    }

    /// Writes a record of a batch; false when there is one.
    pub async fn write<R: Record>(&self, key: KeyId, id: BatchId, record: &R) -> Result<bool, Error> {
        let subject = format!("{}.{key}.{id}.{}", subject::BATCHES, R::PART);
        let bytes = serde_json::to_vec(record).map_err(|error| Error::Jobs(error.into()))?;
        let failed = |source: async_nats::Error| Error::Publish {
            subject: subject.clone(),
            source,
        };
        let message = PublishMessage::build()
            .expected_last_subject_sequence(0)
            .payload(bytes.into());
        let sent = self.jetstream.send_publish(subject.clone(), message).await;
        match sent.map_err(|error| failed(error.into()))?.await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(false),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// A record of a batch, if it was written.
    pub async fn read<R: Record>(&self, key: KeyId, id: BatchId) -> Result<Option<R>, Error> {
        let subject = format!("{}.{key}.{id}.{}", subject::BATCHES, R::PART);
        last(&self.stream, subject)
            .await?
            .map(|bytes| parse(&bytes))
            .transpose()
    }

    /// What is known of the key's batch of this id.
    pub async fn status(&self, key: KeyId, id: BatchId) -> Result<Option<BatchStatus>, Error> {
        let (batch, reading, cancellation, ending) = tokio::try_join!(
            self.read::<Batch>(key, id),
            self.read::<Reading>(key, id),
            self.read::<Cancellation>(key, id),
            self.read::<Ending>(key, id),
        )?;
        Ok(batch.map(|batch| BatchStatus {
            batch,
            reading,
            cancellation,
            ending,
        }))
    }

    /// The key's batches, newest first.
    pub async fn list(&self, key: KeyId) -> Result<Vec<BatchId>, Error> {
        let filter = format!("{}.{key}.*.{}", subject::BATCHES, Batch::PART);
        let subjects = self.stream.info_with_subjects(filter).await;
        let mut subjects = subjects.map_err(|error| Error::Jobs(error.into()))?;
        let mut ids: Vec<BatchId> = Vec::new();
        while let Some(found) = subjects.next().await {
            let (subject, _) = found.map_err(|error| Error::Jobs(error.into()))?;
            let id = subject.rsplit('.').nth(1).and_then(|id| id.parse::<BatchId>().ok());
            ids.extend(id);
        }
        ids.sort_unstable_by(|one, other| other.cmp(one));
        Ok(ids)
    }

    /// Accepted batches that have not ended.
    pub async fn taker(&self) -> Result<Taker<Batch>, Error> {
        let found = self.stream.get_consumer(subject::BATCH_CONSUMER).await;
        Ok(Taker::new(found.map_err(Error::Jobs)?, parse::<Batch>))
    }

    /// Stores a file; a failure of `content` leaves none. How large it is.
    pub async fn put(
        &self,
        key: KeyId,
        file: &File,
        content: &mut (impl AsyncRead + Unpin + Send),
    ) -> Result<u64, Error> {
        let metadata = ObjectMetadata {
            name: object(key, file.id),
            metadata: [
                ("name", file.name.clone()),
                ("purpose", file.purpose.clone()),
                ("created_at", file.created_at.0.to_string()),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
            ..ObjectMetadata::default()
        };
        let stored = self.files.put(metadata, content).await;
        Ok(stored.map_err(|error| Error::Files(error.into()))?.size as u64)
    }

    /// The key's file of this id.
    pub async fn file(&self, key: KeyId, id: FileId) -> Result<Option<File>, Error> {
        match self.files.info(object(key, id)).await {
            Ok(info) if info.deleted => Ok(None),
            Ok(info) => Ok(file_of(key, &info)),
            Err(error) if error.kind() == InfoErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::Files(error.into())),
        }
    }

    /// What is in the key's file of this id.
    pub async fn content(&self, key: KeyId, id: FileId) -> Result<Content, Error> {
        match self.files.get(object(key, id)).await {
            Ok(content) => Ok(Box::pin(content)),
            Err(error) if error.kind() == object_store::GetErrorKind::NotFound => Err(Error::PayloadGone),
            Err(error) => Err(Error::Files(error.into())),
        }
    }

    /// Removes a file.
    pub async fn remove(&self, key: KeyId, id: FileId) -> Result<(), Error> {
        let gone = self.files.delete(object(key, id)).await;
        gone.map_err(|error| Error::Files(error.into()))
    }

    /// The key's files, newest first.
    pub async fn files(&self, key: KeyId) -> Result<Vec<File>, Error> {
        let listed = self.files.list().await;
        let mut listed = listed.map_err(|error| Error::Files(error.into()))?;
        let mut files = Vec::new();
        while let Some(info) = listed.next().await {
            let info = info.map_err(|error| Error::Files(error.into()))?;
            files.extend(file_of(key, &info));
        }
        files.sort_unstable_by_key(|file| std::cmp::Reverse((file.created_at, file.id)));
        Ok(files)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Unreadable(error.to_string()))
}

/// The name of a file in the bucket: nobody can name another's.
fn object(key: KeyId, id: FileId) -> String {
    format!("{key}.{id}")
}

fn file_of(key: KeyId, info: &ObjectInfo) -> Option<File> {
    let id = info.name.strip_prefix(&format!("{key}."))?.parse().ok()?;
    let told = |name: &str| info.metadata.get(name).cloned().unwrap_or_default();
    Some(File {
        id,
        name: told("name"),
        purpose: told("purpose"),
        bytes: info.size as u64,
        created_at: Millis(told("created_at").parse().unwrap_or_default()),
    })
}
