//! Batches in files, as OpenAI's clients know them: a file of requests goes in, and files of answers and failures come
//! out. Each request is a job, with an id that follows from its place, so that reading a file again stores nothing twice.

mod line;
mod run;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::io::AsyncRead;
use tollgate_bus::batches::{Batch, BatchStatus, Batches, Cancellation, Content, File};
use tollgate_config::{Entry, schema::JobSettings};
use tollgate_proto::v1;
use tollgate_types::{BatchId, ErrorCode, Failure, FileId, KeyId, Millis};

use crate::{
    jobs::{JobDesk, Kind, away},
    reception::{Reception, Rejection},
};

pub(crate) use run::Runner;

/// The only purpose of a file that a client uploads.
pub(crate) const PURPOSE: &str = "batch";
const RESULT_PURPOSE: &str = "batch_output";
const MOST_METADATA: usize = 16;
const LONGEST_NAME: usize = 64;
const LONGEST_VALUE: usize = 512;
const LONGEST_FILE_NAME: usize = 255;
/// Records read at once.
const AT_ONCE: usize = 32;

/// What clients ask of files and batches. Cheap to clone.
#[derive(Clone)]
pub(crate) struct BatchDesk {
    batches: Batches,
    jobs: JobDesk,
    settings: JobSettings,
}

/// A batch as a client wants it.
pub(crate) struct Wanted {
    pub(crate) input: String,
    pub(crate) endpoint: String,
    pub(crate) window: String,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) idempotency_key: Option<String>,
}

/// A batch as it is.
pub(crate) struct Counted {
    pub(crate) status: BatchStatus,
    /// Of its requests, once there are any.
    pub(crate) counts: v1::CountJobsAnswer,
}

impl BatchDesk {
    pub(crate) const fn new(batches: Batches, jobs: JobDesk, settings: JobSettings) -> Self {
        Self {
            batches,
            jobs,
            settings,
        }
    }

    pub(crate) fn reception(&self) -> &Arc<Reception> {
        &self.jobs.reception
    }

    pub(crate) const fn max_file_bytes(&self) -> usize {
        self.settings.max_file_bytes
    }

    /// Stores a file of requests.
    pub(crate) async fn upload(
        &self,
        key: KeyId,
        name: Option<&str>,
        content: &mut (impl AsyncRead + Unpin + Send),
    ) -> Result<File, Failure> {
        let name: String = name
            .unwrap_or_default()
            .chars()
            .filter(|c| !c.is_control())
            .take(LONGEST_FILE_NAME)
            .collect();
        let mut file = File {
            id: FileId::generate(),
            name: if name.is_empty() {
                "batch.jsonl".to_owned()
            } else {
                name
            },
            purpose: PURPOSE.to_owned(),
            bytes: 0,
            created_at: Millis::now(),
        };
        file.bytes = self.batches.put(key, &file, content).await.map_err(away)?;
        Ok(file)
    }

    /// The key's files, newest first.
    pub(crate) async fn files(&self, key: KeyId) -> Result<Vec<File>, Failure> {
        self.batches.files(key).await.map_err(away)
    }

    /// The key's file of this id.
    pub(crate) async fn file(&self, key: KeyId, id: &str) -> Result<File, Failure> {
        let unknown = || Failure::new(ErrorCode::FileNotFound, "there is no such file");
        let id: FileId = id.parse().map_err(|_| unknown())?;
        self.batches.file(key, id).await.map_err(away)?.ok_or_else(unknown)
    }

    /// The file and what is in it.
    pub(crate) async fn content(&self, key: KeyId, id: &str) -> Result<(File, Content), Failure> {
        let file = self.file(key, id).await?;
        let content = self.batches.content(key, file.id).await.map_err(away)?;
        Ok((file, content))
    }

    /// Removes a file, unless a batch needs it.
    pub(crate) async fn remove(&self, key: KeyId, id: &str) -> Result<File, Failure> {
        let file = self.file(key, id).await?;
        for batch in self.all(key).await? {
            let status = self.batches.status(key, batch.id).await.map_err(away)?;
            if batch.input == file.id && status.is_some_and(|status| !is_over(&status)) {
                let message = "a batch that has not ended reads the file";
                return Err(Failure::new(ErrorCode::InvalidRequest, message));
            }
        }
        self.batches.remove(key, file.id).await.map_err(away)?;
        Ok(file)
    }

    /// Accepts a batch. It is read later, by whichever replica takes it.
    pub(crate) async fn create(&self, entry: &Entry, wanted: Wanted) -> Result<Counted, Rejection> {
        let key = entry.caller.key_id;
        Kind::of(&wanted.endpoint).map_err(|rejection| at("endpoint", rejection.failure.message))?;
        let window = parse_window(&wanted.window)
            .filter(|window| *window <= self.settings.deadline)
            .ok_or_else(|| {
                at(
                    "completion_window",
                    format!("expected a time such as 24h, {:?} at most", self.settings.deadline),
                )
            })?;
        let fits = |(name, value): (&String, &String)| {
            (1..=LONGEST_NAME).contains(&name.len()) && value.len() <= LONGEST_VALUE
        };
        if wanted.metadata.len() > MOST_METADATA || !wanted.metadata.iter().all(fits) {
            let message = "expected up to 16 pairs, names of up to 64 and values of up to 512 bytes";
            return Err(at("metadata", message.to_owned()));
        }
        let input = self.file(key, &wanted.input).await.map_err(|failure| Rejection {
            failure,
            param: Some("input_file_id".to_owned()),
        })?;
        let now = Millis::now();
        let batch = Batch {
            id: wanted
                .idempotency_key
                .map_or_else(BatchId::generate, |name| named(key, &name)),
            key,
            input: input.id,
            endpoint: wanted.endpoint,
            window: wanted.window,
            metadata: wanted.metadata,
            created_at: now,
            expires_at: now.after(window),
        };
        if !self.batches.write(key, batch.id, &batch).await.map_err(away)? {
            let known = self.counted(key, batch.id).await?;
            let Batch { input, endpoint, .. } = &known.status.batch;
            if (*input, endpoint) != (batch.input, &batch.endpoint) {
                let message = "this idempotency key stands for another batch";
                return Err(Failure::new(ErrorCode::IdempotencyConflict, message).into());
            }
            return Ok(known);
        }
        tracing::debug!(batch.id = %batch.id, key = entry.caller.key_name, "batch accepted");
        Ok(Counted {
            status: BatchStatus {
                batch,
                reading: None,
                cancellation: None,
                ending: None,
            },
            counts: v1::CountJobsAnswer::default(),
        })
    }

    /// The key's batch of this id.
    pub(crate) async fn get(&self, key: KeyId, id: &str) -> Result<Counted, Failure> {
        let id = id.parse().map_err(|_| unknown_batch())?;
        self.counted(key, id).await
    }

    async fn counted(&self, key: KeyId, id: BatchId) -> Result<Counted, Failure> {
        let status = self.batches.status(key, id).await.map_err(away)?;
        let status = status.ok_or_else(unknown_batch)?;
        let counts = match (&status.reading, &status.ending) {
            (Some(reading), None) if reading.mistakes.is_empty() => self.jobs.count(key, id.to_string()).await?,
            (_, Some(ending)) => v1::CountJobsAnswer {
                answered: ending.answered,
                not_answered: ending.failed,
                ..v1::CountJobsAnswer::default()
            },
            _ => v1::CountJobsAnswer::default(),
        };
        Ok(Counted { status, counts })
    }

    /// The key's batches, newest first.
    async fn all(&self, key: KeyId) -> Result<Vec<Batch>, Failure> {
        let ids = self.batches.list(key).await.map_err(away)?;
        let found = stream::iter(ids)
            .map(|id| self.batches.read::<Batch>(key, id))
            .buffered(AT_ONCE);
        let found: Vec<Option<Batch>> = found.try_collect().await.map_err(away)?;
        let mut all: Vec<Batch> = found.into_iter().flatten().collect();
        all.sort_unstable_by_key(|batch| std::cmp::Reverse((batch.created_at, batch.id)));
        Ok(all)
    }

    /// Up to `limit` of the key's batches that come after `after`, and whether there are more.
    pub(crate) async fn list(
        &self,
        key: KeyId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Counted>, bool), Failure> {
        let all = self.all(key).await?;
        let first = match after {
            None => 0,
            Some(after) => {
                let found = all.iter().position(|batch| batch.id.to_string() == after);
                1 + found.ok_or_else(unknown_batch)?
            }
        };
        let page = &all[first..all.len().min(first + limit)];
        let page: Vec<BatchId> = page.iter().map(|batch| batch.id).collect();
        let page: Vec<Counted> = stream::iter(page)
            .map(|id| self.counted(key, id))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        Ok((page, all.len() > first + limit))
    }

    /// Ends a batch early: what has no answer yet gets none.
    pub(crate) async fn cancel(&self, key: KeyId, id: &str) -> Result<Counted, Failure> {
        let found = self.get(key, id).await?;
        if is_over(&found.status) {
            let message = "the batch has ended";
            return Err(Failure::new(ErrorCode::InvalidRequest, message));
        }
        let cancellation = Cancellation { at: Millis::now() };
        let written = self.batches.write(key, found.status.batch.id, &cancellation).await;
        written.map_err(away)?;
        self.get(key, id).await
    }
}

fn unknown_batch() -> Failure {
    Failure::new(ErrorCode::BatchNotFound, "there is no such batch")
}

/// Whether nothing more happens to it.
fn is_over(status: &BatchStatus) -> bool {
    status.ending.is_some()
        || status
            .reading
            .as_ref()
            .is_some_and(|reading| !reading.mistakes.is_empty())
}

/// The batch that a key's idempotency key stands for.
fn named(owner: KeyId, key: &str) -> BatchId {
    let mut digest = Sha256::new();
    digest.update(owner.as_uuid().as_bytes());
    digest.update(b"\0batch");
    digest.update(key.as_bytes());
    BatchId::of(tollgate_types::JobId::derived(&digest.finalize().into()).as_uuid())
}

/// The file of a batch's answers, or of its failures; the same whoever writes it.
fn result_file(batch: BatchId, answers: bool) -> FileId {
    let mut digest = Sha256::new();
    digest.update(if answers { b"answers." } else { b"failure." });
    digest.update(batch.as_uuid().as_bytes());
    FileId::of(tollgate_types::JobId::derived(&digest.finalize().into()).as_uuid())
}

fn parse_window(text: &str) -> Option<Duration> {
    let unit = match text.chars().last()? {
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let count: u64 = text[..text.len() - 1].parse().ok()?;
    Some(Duration::from_secs(count.checked_mul(unit)?)).filter(|window| !window.is_zero())
}

fn at(param: &str, message: String) -> Rejection {
    Rejection {
        failure: Failure::new(ErrorCode::InvalidRequest, format!("{param}: {message}")),
        param: Some(param.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_a_number_and_a_unit() {
        assert_eq!(parse_window("24h"), Some(Duration::from_secs(86_400)));
        assert_eq!(parse_window("90m"), Some(Duration::from_secs(5400)));
        for bad in [
            "",
            "h",
            "24",
            "0h",
            "-1h",
            "1.5h",
            "24 h",
            "99999999999999999999d",
            "18446744073709551615d",
            "24é",
        ] {
            assert_eq!(parse_window(bad), None, "{bad}");
        }
    }

    #[test]
    fn ids_follow_from_their_names() {
        let (one, two) = (KeyId::generate(), KeyId::generate());
        assert_eq!(named(one, "a"), named(one, "a"));
        assert!(named(one, "a") != named(two, "a") && named(one, "a") != named(one, "b"));
        let batch = BatchId::generate();
        assert_eq!(result_file(batch, true), result_file(batch, true));
        assert_ne!(result_file(batch, true), result_file(batch, false));
    }
}
