//! What becomes of an accepted batch: its file is read into jobs, its end is awaited, its files are written. A replica
//! takes it, does what is due, and gives it back until there is nothing more to do; another goes on where one was killed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt, future,
    stream::{self, BoxStream},
};
use tokio::io::{AsyncWriteExt, BufReader, DuplexStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tollgate_bus::{
    Error as BusError,
    batches::{Batch, Content, Ending, File, LineMistake, Reading},
    jobs::{JOB_LEASE, Taken, Taker},
};
use tollgate_config::Entry;
use tollgate_types::{ErrorCode, Failure, FileId, JobEnd, Lane, Millis, job::Priority, ledger::RequestState};

use super::{
    BatchDesk, RESULT_PURPOSE,
    line::{Lines, Mistake, Names, RequestLine, ResultLine, Unreadable},
    result_file,
};
use crate::jobs::{Kind, Submission, at_line, away};

/// Batches that one replica sees to at once.
const AT_ONCE: usize = 4;
/// The stream is looked at this often.
const LOOK: Duration = Duration::from_secs(1);
/// A batch whose jobs are under way is looked at after one second, then two, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);
/// Jobs that are submitted, cancelled or looked up at once.
const JOBS_AT_ONCE: usize = 64;
/// Between two looks at whether a batch was cancelled, in lines.
const CHECK_EACH: u64 = 1000;
/// Mistakes that are told; nobody reads more.
const MOST_MISTAKES: usize = 50;
const PIPE: usize = 1 << 20;

type Source = Lines<BufReader<Content>>;

/// Sees to accepted batches.
pub(crate) struct Runner {
    desk: BatchDesk,
    taker: Taker<Batch>,
}

impl Runner {
    pub(crate) async fn new(desk: BatchDesk) -> Result<Self, BusError> {
        let taker = desk.batches.taker().await?;
        Ok(Self { desk, taker })
    }

    /// Works until `stop`; what is not done by then is given back.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let (this, tasks) = (Arc::new(self), TaskTracker::new());
        while !stop.is_cancelled() {
            let taken = match AT_ONCE.saturating_sub(tasks.len()) {
                0 => Vec::new(),
                free => this.taker.take(free).await.unwrap_or_else(|error| {
                    tracing::warn!(error = &error as &dyn std::error::Error, "batches cannot be taken");
                    Vec::new()
                }),
            };
            if taken.is_empty() {
                stop.run_until_cancelled(tokio::time::sleep(LOOK)).await;
            }
            for batch in taken {
                let (this, stop) = (Arc::clone(&this), stop.clone());
                tasks.spawn(async move { this.see_to(batch, &stop).await });
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    async fn see_to(&self, taken: Taken<Batch>, stop: &CancellationToken) {
        let Ok(batch) = &taken.record else {
            tracing::error!("a message that is no batch was set aside");
            let _ = taken.done().await;
            return;
        };
        let renew = async {
            loop {
                tokio::time::sleep(JOB_LEASE / 3).await;
                if let Err(error) = taken.extend().await {
                    tracing::warn!(%error, "a batch's lease was not renewed");
                }
            }
        };
        let visited = tokio::select! {
            visited = Box::pin(self.visit(batch, taken.deliveries)) => visited,
            () = renew => Ok(Some(Duration::ZERO)),
            () = stop.cancelled() => Ok(Some(Duration::ZERO)),
        };
        let told = match visited {
            Ok(None) => taken.done().await,
            Ok(Some(pause)) => taken.again(pause).await,
            Err(failure) => {
                tracing::warn!(batch.id = %batch.id, code = failure.code.as_str(), "a batch waits");
                taken.again(TROUBLE_PAUSE).await
            }
        };
        if let Err(error) = told {
            tracing::warn!(%error, "a batch was not acknowledged");
        }
    }

    /// Does what is due; how long until there may be more to do, or none when there is nothing more.
    async fn visit(&self, batch: &Batch, deliveries: u32) -> Result<Option<Duration>, Failure> {
        let status = self.desk.batches.status(batch.key, batch.id).await.map_err(away)?;
        let status = status.ok_or_else(super::unknown_batch)?;
        if super::is_over(&status) {
            return Ok(None);
        }
        let reading = match status.reading {
            Some(reading) => reading,
            None => {
                let reading = self.read(batch).await?;
                let written = self.desk.batches.write(batch.key, batch.id, &reading).await;
                written.map_err(away)?;
                tracing::info!(
                    batch.id = %batch.id, requests = reading.requests, mistakes = reading.mistakes.len(),
                    "a batch's file was read"
                );
                reading
            }
        };
        if !reading.mistakes.is_empty() {
            return Ok(None);
        }
        let counts = self.desk.jobs.count(batch.key, batch.id.to_string()).await?;
        // Audit may not have heard of all of them.
        if counts.answered + counts.not_answered < reading.requests {
            if self.is_cancelled(batch).await? {
                self.cancel_all(batch, reading.requests).await?;
            }
            return Ok(Some(LOOK.saturating_mul(deliveries).min(LONGEST_PAUSE)));
        }
        let ending = Ending {
            answered: counts.answered,
            failed: counts.not_answered,
            expired: counts.overdue > 0,
            output: self.results(batch, counts.answered, true).await?,
            errors: self.results(batch, counts.not_answered, false).await?,
            at: Millis::now(),
        };
        let written = self.desk.batches.write(batch.key, batch.id, &ending).await;
        written.map_err(away)?;
        tracing::info!(batch.id = %batch.id, answered = ending.answered, failed = ending.failed, "a batch has ended");
        Ok(None)
    }

    async fn is_cancelled(&self, batch: &Batch) -> Result<bool, Failure> {
        let status = self.desk.batches.status(batch.key, batch.id).await.map_err(away)?;
        Ok(status.is_some_and(|status| status.cancellation.is_some()))
    }

    /// The batch's lines.
    async fn lines(&self, batch: &Batch) -> Result<Source, BusError> {
        let content = self.desk.batches.content(batch.key, batch.input).await?;
        Ok(Lines::new(
            BufReader::new(content),
            self.desk.reception().max_body_bytes,
        ))
    }

    /// Checks the whole file, and submits its requests if all of them are in order.
    async fn read(&self, batch: &Batch) -> Result<Reading, Failure> {
        let mistaken = |mistake: Mistake| Reading {
            requests: 0,
            mistakes: vec![mistake.at(None)],
            at: Millis::now(),
        };
        let Some(entry) = self.desk.reception().find(batch.key) else {
            let message = "the API key that made the batch is not valid any more".to_owned();
            return Ok(mistaken(Mistake::new("invalid_api_key", message, None)));
        };
        let kind = match Kind::of(&batch.endpoint) {
            Ok(kind) => kind,
            Err(rejection) => return Ok(mistaken(rejection.into())),
        };
        let lines = match self.lines(batch).await {
            Ok(lines) => lines,
            Err(BusError::PayloadGone) => {
                let message = "the input file is not stored any more".to_owned();
                return Ok(mistaken(Mistake::new("file_not_found", message, Some("input_file_id"))));
            }
            Err(error) => return Err(away(error)),
        };
        let mistakes = self.check(&entry, &kind, batch, lines).await?;
        let requests = if mistakes.is_empty() {
            self.submit(&entry, &kind, batch).await?
        } else {
            0
        };
        Ok(Reading {
            requests,
            mistakes,
            at: Millis::now(),
        })
    }

    async fn check(
        &self,
        entry: &Entry,
        kind: &Kind,
        batch: &Batch,
        mut lines: Source,
    ) -> Result<Vec<LineMistake>, Failure> {
        let (mut names, mut mistakes, mut count) = (Names::default(), Vec::new(), 0);
        let most = self.desk.settings.max_batch;
        while mistakes.len() < MOST_MISTAKES {
            let line = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(Unreadable::TooLong) => {
                    let message = "the line is longer than a request may be".to_owned();
                    mistakes.push(Mistake::new("too_large", message, None).at(Some(lines.number)));
                    break;
                }
                Err(Unreadable::Broken(error)) => return Err(broken(&error)),
            };
            count += 1;
            if count > most {
                let message = format!("a batch has at most {most} requests");
                mistakes.push(Mistake::new("too_many_tasks", message, None).at(Some(lines.number)));
                break;
            }
            let path = kind.path.as_ref().map(|(model, stream)| (model.as_str(), *stream));
            let checked = RequestLine::read(&line, &batch.endpoint).and_then(|read| {
                names.take(&read.custom_id)?;
                let body = read.body.get().as_bytes();
                let view = self
                    .desk
                    .reception()
                    .look(entry, Lane::Jobs, kind.dialect, kind.operation, path, body)?;
                if view.stream {
                    let message = "a batch's answers are fetched whole: leave stream out".to_owned();
                    return Err(Mistake::new("invalid_request", message, Some("stream")));
                }
                Ok(())
            });
            if let Err(mistake) = checked {
                mistakes.push(mistake.at(Some(lines.number)));
            }
        }
        if count == 0 && mistakes.is_empty() {
            mistakes.push(Mistake::new("empty_file", "the file has no requests".to_owned(), None).at(None));
        }
        Ok(mistakes)
    }

    /// Submits the file's requests, unless the batch is cancelled meanwhile; how many.
    async fn submit(&self, entry: &Entry, kind: &Kind, batch: &Batch) -> Result<u64, Failure> {
        let lines = self.lines(batch).await.map_err(away)?;
        // `None` once it is cancelled, looked up now and then.
        let watched = numbered(lines).and_then(|(index, line)| async move {
            let cancelled = index % CHECK_EACH == 0 && self.is_cancelled(batch).await?;
            Ok((!cancelled).then_some((index, line)))
        });
        let watched: BoxStream<'_, Result<_, Failure>> = watched.boxed();
        let submitted = watched
            .try_take_while(|line| future::ready(Ok(line.is_some())))
            .try_filter_map(|line| future::ready(Ok(line)))
            .map_ok(|(index, line)| async move {
                let read = RequestLine::read(&line, &batch.endpoint)
                    .map_err(|_| Failure::new(ErrorCode::Internal, "the file has changed"))?;
                let submission = Submission {
                    body: line.slice_ref(read.body.get().as_bytes()),
                    path: kind.path.clone(),
                    line: Some((batch.id, index)),
                    priority: Priority::Low,
                    deadline: Some(batch.expires_at),
                    batch: Some(batch.id.to_string()),
                    ..Submission::default()
                };
                let submitted = self
                    .desk
                    .jobs
                    .submit(entry, kind.dialect, kind.operation, submission)
                    .await;
                submitted.map_err(|rejection| rejection.failure).map(drop)
            })
            .try_buffer_unordered(JOBS_AT_ONCE);
        submitted.try_fold(0, async |count, ()| Ok(count + 1)).await
    }

    async fn cancel_all(&self, batch: &Batch, requests: u64) -> Result<(), Failure> {
        let cancelled = stream::iter(0..requests).map(|index| async move {
            let id = at_line(batch.key, batch.id, index).to_string();
            match self.desk.jobs.cancel(batch.key, &id).await {
                Ok(_) => Ok(()),
                Err(failure) if failure.code == ErrorCode::JobNotFound => Ok(()),
                Err(failure) => Err(failure),
            }
        });
        cancelled
            .buffer_unordered(JOBS_AT_ONCE)
            .try_for_each(async |()| Ok(()))
            .await
    }

    /// Writes the file of the batch's answers, or of its failures, if it has any.
    async fn results(&self, batch: &Batch, count: u64, answers: bool) -> Result<Option<FileId>, Failure> {
        if count == 0 {
            return Ok(None);
        }
        let kind = if answers { "output" } else { "errors" };
        let file = File {
            id: result_file(batch.id, answers),
            name: format!("{}_{kind}.jsonl", batch.id),
            purpose: RESULT_PURPOSE.to_owned(),
            bytes: 0,
            created_at: Millis::now(),
        };
        let (mut reader, writer) = tokio::io::duplex(PIPE);
        let (stored, written) = tokio::join!(
            self.desk.batches.put(batch.key, &file, &mut reader),
            self.write_results(batch, answers, writer)
        );
        let done = written.and(stored.map_err(away));
        if let Err(failure) = done {
            // A part of a file is no file.
            let _ = self.desk.batches.remove(batch.key, file.id).await;
            return Err(failure);
        }
        Ok(Some(file.id))
    }

    async fn write_results(&self, batch: &Batch, answers: bool, mut writer: DuplexStream) -> Result<(), Failure> {
        let lines = self.lines(batch).await.map_err(away)?;
        let results = numbered(lines)
            .map_ok(|(index, line)| self.result(batch, index, line, answers))
            .try_buffered(JOBS_AT_ONCE);
        let mut results = std::pin::pin!(results);
        while let Some(result) = results.try_next().await? {
            if let Some(result) = result {
                writer.write_all(&result).await.map_err(|error| broken(&error))?;
            }
        }
        writer.shutdown().await.map_err(|error| broken(&error))
    }

    /// The line for a request, if it belongs into the file.
    async fn result(&self, batch: &Batch, index: u64, line: Bytes, answers: bool) -> Result<Option<Vec<u8>>, Failure> {
        let id = at_line(batch.key, batch.id, index);
        // A batch that was cancelled while it was read has fewer jobs than lines.
        let Some(end) = self.desk.jobs.jobs.end_of(id).await.map_err(away)? else {
            return Ok(None);
        };
        let JobEnd { state, answer, .. } = &end;
        if (*state == RequestState::Answered) != answers {
            return Ok(None);
        }
        let answer = match answer {
            Some(answer) => match self.desk.jobs.jobs.fetch(answer).await {
                Err(BusError::PayloadGone) => None,
                fetched => Some(fetched.map_err(away)?),
            },
            None => None,
        };
        let changed = |_| Failure::new(ErrorCode::Internal, "the file has changed");
        let read = RequestLine::read(&line, &batch.endpoint).map_err(changed)?;
        let mut result = serde_json::to_vec(&ResultLine::new(&read.custom_id, &end, answer))
            .map_err(|_| Failure::new(ErrorCode::Internal, "a result cannot be written"))?;
        result.push(b'\n');
        Ok(Some(result))
    }
}

/// The lines of a file that was checked, each with its number from 0.
fn numbered(lines: Source) -> BoxStream<'static, Result<(u64, Bytes), Failure>> {
    stream::try_unfold((lines, 0), |(mut lines, index)| async move {
        let line = lines.next().await.map_err(|unreadable| match unreadable {
            Unreadable::TooLong => Failure::new(ErrorCode::Internal, "the file has changed"),
            Unreadable::Broken(error) => broken(&error),
        })?;
        Ok(line.map(|line| ((index, line), (lines, index + 1))))
    })
    .boxed()
}

fn broken(error: &std::io::Error) -> Failure {
    tracing::warn!(
        error = error as &dyn std::error::Error,
        "a file cannot be read or written"
    );
    Failure::new(ErrorCode::Unavailable, "the file cannot be reached at the moment")
}
