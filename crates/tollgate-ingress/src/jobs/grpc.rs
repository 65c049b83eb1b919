//! `tollgate.v1.Jobs`.

use crate::labels::Labels;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use serde::Serialize;
use tollgate_config::Entry;
use tollgate_proto::{JobRequest, to_status, v1};
use tollgate_types::{Dialect, ErrorCode, Failure, Millis, Operation, chat::ChatRequest, job::JobStatus};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use super::{JobDesk, Listing, Submission, Submitted};

/// The service.
pub(crate) struct Service {
    pub(crate) desk: JobDesk,
}

impl Service {
    async fn authenticate(&self, metadata: &MetadataMap) -> Result<Arc<Entry>, Failure> {
        let mut values = metadata.get_all("authorization").iter();
        let only = values.next().filter(|_| values.next().is_none());
        let authorization = only.map(|value| value.as_bytes());
        self.desk.reception.authenticate(authorization).await
    }

    async fn submit_one(&self, entry: &Entry, wire: v1::SubmitJobRequest) -> Result<Submitted, Failure> {
        let invalid = |problem: String| Failure::new(ErrorCode::InvalidRequest, problem);
        let priority =
            v1::JobPriority::try_from(wire.priority).map_err(|_| invalid("priority: is unknown".to_owned()))?;
        let request = wire.request.ok_or_else(|| invalid("request: is missing".to_owned()))?;
        let read = JobRequest::try_from(request).map_err(|error| invalid(error.to_string()))?;
        let (operation, body) = match read {
            JobRequest::Complete(chat) => {
                let chat = ChatRequest { stream: false, ..*chat };
                (Operation::Chat, json(&chat)?)
            }
            JobRequest::Embed(embed) => (Operation::Embed, json(&embed)?),
        };
        // The stream of a batch has a limit for each message; the buffer for bodies is shared.
        let _buffered = self.desk.reception.reserve(body.len())?;
        let submission = Submission {
            body: body.into(),
            idempotency_key: filled(wire.idempotency_key),
            priority: priority.domain(),
            not_before: (wire.not_before_unix_ms > 0).then_some(Millis(wire.not_before_unix_ms)),
            deadline: (wire.deadline_unix_ms > 0).then_some(Millis(wire.deadline_unix_ms)),
            labels: Labels {
                tags: wire.tags.into_iter().collect(),
                user: filled(wire.user),
            },
            batch: filled(wire.batch),
            webhook: filled(wire.webhook),
            ..Submission::default()
        };
        let submitted = self.desk.submit(entry, Dialect::Native, operation, submission).await;
        submitted.map_err(|rejection| rejection.failure)
    }

    async fn whole(&self, status: JobStatus) -> Result<v1::Job, Failure> {
        whole(&self.desk, status).await
    }
}

/// The job with its answer.
async fn whole(desk: &JobDesk, status: JobStatus) -> Result<v1::Job, Failure> {
    let job = v1::Job::of(&status);
    Ok(match desk.answer(&status).await? {
        Some(body) => job.answered(&status.job, body),
        None => job,
    })
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| Failure::new(ErrorCode::InvalidRequest, error.to_string()))
}

fn filled(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn refused(failure: Failure) -> Status {
    to_status(&failure, None)
}

type Watched = Pin<Box<dyn Stream<Item = Result<v1::Job, Status>> + Send>>;

#[tonic::async_trait]
impl v1::jobs_server::Jobs for Service {
    type WatchStream = Watched;

    async fn submit(&self, request: Request<v1::SubmitJobRequest>) -> Result<Response<v1::Job>, Status> {
        let submit = async {
            let (metadata, _, wire) = request.into_parts();
            let entry = self.authenticate(&metadata).await?;
            let submitted = self.submit_one(&entry, wire).await?;
            self.whole(submitted.status).await
        };
        submit.await.map(Response::new).map_err(refused)
    }

    async fn submit_batch(
        &self,
        request: Request<Streaming<v1::SubmitJobRequest>>,
    ) -> Result<Response<v1::SubmitBatchResponse>, Status> {
        const AT_ONCE: usize = 64;
        let (metadata, _, messages) = request.into_parts();
        let entry = &*self.authenticate(&metadata).await.map_err(refused)?;
        let most = self.desk.settings.max_batch;
        let mut submitted = messages
            .enumerate()
            .map(|(index, message)| async move {
                let message = message?;
                if index >= most {
                    let text = format!("a batch has at most {most} jobs");
                    return Err(refused(Failure::new(ErrorCode::TooLarge, text)));
                }
                self.submit_one(entry, message).await.map_err(|failure| {
                    // Which of them it was; what was stored before it stays.
                    let message = format!("job {index} of the batch: {}", failure.message);
                    refused(Failure { message, ..failure })
                })
            })
            .buffered(AT_ONCE);
        let mut answer = v1::SubmitBatchResponse::default();
        while let Some(one) = submitted.next().await {
            answer.accepted += 1;
            answer.known += u64::from(!one?.new);
        }
        Ok(Response::new(answer))
    }

    async fn get(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::Job>, Status> {
        let get = async {
            let key = self.authenticate(request.metadata()).await?.caller.key_id;
            let status = self.desk.get(key, &request.get_ref().id).await?;
            self.whole(status).await
        };
        get.await.map(Response::new).map_err(refused)
    }

    async fn list(&self, request: Request<v1::ListJobsRequest>) -> Result<Response<v1::ListJobsResponse>, Status> {
        let list = async {
            let key = self.authenticate(request.metadata()).await?.caller.key_id;
            let wire = request.into_inner();
            let state = v1::JobState::try_from(wire.state)
                .map_err(|_| Failure::new(ErrorCode::InvalidRequest, "state: is unknown"))?;
            let listing = Listing {
                batch: wire.batch,
                state,
                limit: wire.limit,
                page_token: wire.page_token,
            };
            self.desk.list(key, listing).await
        };
        list.await.map(Response::new).map_err(refused)
    }

    async fn watch(&self, request: Request<v1::GetJobRequest>) -> Result<Response<Watched>, Status> {
        let opened = async {
            let key = self.authenticate(request.metadata()).await?.caller.key_id;
            self.desk.watch(key, &request.get_ref().id).await
        };
        let changes = opened.await.map_err(refused)?;
        let desk = self.desk.clone();
        let jobs = changes.then(move |change| {
            let desk = desk.clone();
            async move { whole(&desk, change.map_err(refused)?).await.map_err(refused) }
        });
        Ok(Response::new(Box::pin(jobs)))
    }

    async fn cancel(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::Job>, Status> {
        let cancel = async {
            let key = self.authenticate(request.metadata()).await?.caller.key_id;
            let status = self.desk.cancel(key, &request.get_ref().id).await?;
            self.whole(status).await
        };
        cancel.await.map(Response::new).map_err(refused)
    }

    async fn retry(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::Job>, Status> {
        let retry = async {
            let entry = self.authenticate(request.metadata()).await?;
            let status = self.desk.retry(&entry, &request.get_ref().id).await?;
            self.whole(status).await
        };
        retry.await.map(Response::new).map_err(refused)
    }

    async fn drop(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::Job>, Status> {
        let drop = async {
            let key = self.authenticate(request.metadata()).await?.caller.key_id;
            let status = self.desk.drop(key, &request.get_ref().id).await?;
            Ok(v1::Job::of(&status))
        };
        drop.await.map(Response::new).map_err(refused)
    }
}
