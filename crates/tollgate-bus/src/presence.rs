//! Whether an attempt is under way, asked of its worker itself.
//!
//! A worker that makes a call for a job answers for it on a subject of its own. When nobody listens there, the server says
//! so at once: the worker has ended, and whoever owns the job now may try it again without paying twice.

use std::time::Duration;

use async_nats::{Client, client::RequestErrorKind};
use bytes::Bytes;
use futures::StreamExt;
use tokio_util::task::AbortOnDropHandle;
use tollgate_types::AttemptId;

use crate::{Error, subject};

const PATIENCE: Duration = Duration::from_secs(2);

/// Answers for an attempt until it is dropped.
pub struct Presence {
    _task: AbortOnDropHandle<()>,
}

/// What is known of an attempt's worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Alive,
    /// Nobody answers for the attempt.
    Gone,
    /// Somebody ought to and does not: stalled, or cut off.
    Silent,
}

/// Begins to answer for an attempt.
pub(crate) async fn answer_for(client: &Client, attempt: AttemptId) -> Result<Presence, Error> {
    let subject = format!("{}.{attempt}", subject::PRESENCE);
    let subscribed = client.subscribe(subject.clone()).await;
    let mut questions = subscribed.map_err(|source| Error::Subscribe {
        subject,
        source: source.into(),
    })?;
    let client = client.clone();
    let task = tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            if let Some(reply) = question.reply {
                let _ = client.publish(reply, Bytes::new()).await;
            }
        }
    });
    Ok(Presence {
        _task: AbortOnDropHandle::new(task),
    })
}

/// Asks after an attempt.
pub(crate) async fn ask_after(client: &Client, attempt: AttemptId) -> Found {
    let subject = format!("{}.{attempt}", subject::PRESENCE);
    match tokio::time::timeout(PATIENCE, client.request(subject, Bytes::new())).await {
        Ok(Ok(_)) => Found::Alive,
        Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Found::Gone,
        Ok(Err(_)) | Err(_) => Found::Silent,
    }
}
