//! The gRPC door: the native dialect, with reflection and health.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tollgate_config::Entry;
use tollgate_proto::{
    DESCRIPTORS, Invalid, to_status,
    v1::{
        CompleteEvent, CompleteRequest, CompleteResponse, CountTokensResponse, EmbedRequest, EmbedResponse,
        ListModelsRequest, ListModelsResponse, Model,
        gateway_server::{Gateway, GatewayServer},
        jobs_server::JobsServer,
        targets_server::TargetsServer,
    },
};
use tollgate_types::{
    Dialect, ErrorCode, Failure, Operation, RequestId,
    chat::{ChatEvent, ChatRequest},
    embed,
};
use tonic::{
    Request, Response, Status,
    metadata::MetadataMap,
    transport::{Server, server::TcpIncoming},
};
use tracing::Instrument;

use crate::{
    Error,
    desk::{Event, Ticket},
    jobs::{self, JobDesk, Submission},
    labels::Labels,
    reception::{Arrival, Reception},
    targets,
};

pub(crate) async fn serve(
    listener: TcpListener,
    reception: Arc<Reception>,
    jobs: JobDesk,
    targets: targets::Service,
    stop: CancellationToken,
) -> Result<(), Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let max_body_bytes = reception.max_body_bytes;
    let door = Door {
        reception,
        jobs: jobs.clone(),
    };
    let gateway = GatewayServer::new(door)
        .max_decoding_message_size(max_body_bytes)
        .max_encoding_message_size(usize::MAX);
    let jobs = JobsServer::new(jobs::grpc::Service { desk: jobs })
        .max_decoding_message_size(max_body_bytes)
        .max_encoding_message_size(usize::MAX);
    health.set_serving::<GatewayServer<Door>>().await;
    health.set_serving::<JobsServer<jobs::grpc::Service>>().await;
    health.set_serving::<TargetsServer<targets::Service>>().await;
    let reflection = |builder: tonic_reflection::server::Builder<'static>| {
        builder
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("tollgate.v1.Gateway")
            .with_service_name("tollgate.v1.Jobs")
            .with_service_name("tollgate.v1.Targets")
            .with_service_name("grpc.health.v1.Health")
    };
    let reflection_v1 = reflection(tonic_reflection::server::Builder::configure()).build_v1()?;
    let reflection_v1alpha = reflection(tonic_reflection::server::Builder::configure()).build_v1alpha()?;
    Server::builder()
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(30)))
        .add_service(health_service)
        .add_service(reflection_v1)
        .add_service(reflection_v1alpha)
        .add_service(gateway)
        .add_service(jobs)
        .add_service(TargetsServer::new(targets))
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            stop.cancelled_owned(),
        )
        .await?;
    Ok(())
}

struct Door {
    reception: Arc<Reception>,
    jobs: JobDesk,
}

/// A request as a message, read.
struct Read {
    key: Option<String>,
    labels: Labels,
    body: Vec<u8>,
}

impl Door {
    async fn authenticate(&self, metadata: &MetadataMap) -> Result<Arc<Entry>, Failure> {
        let mut values = metadata.get_all("authorization").iter();
        let only = values.next().filter(|_| values.next().is_none());
        self.reception.authenticate(only.map(|value| value.as_bytes())).await
    }

    /// The caller, and the native request that `read` makes of the message.
    async fn read<W, T: Serialize>(
        &self,
        request: Request<W>,
        read: impl FnOnce(W) -> Result<T, Invalid>,
    ) -> Result<(Arc<Entry>, Read), Failure> {
        let entry = self.authenticate(request.metadata()).await?;
        self.reception.admit(&entry)?;
        let labels = Labels::read(|name| request.metadata().get(name).map(|value| value.as_bytes()))?;
        let invalid = |problem: String| Failure::new(ErrorCode::InvalidRequest, problem);
        let key = request.metadata().get("idempotency-key");
        let key = key.map(|key| String::from_utf8_lossy(key.as_bytes()).into_owned());
        let native = read(request.into_inner()).map_err(|error| invalid(error.to_string()))?;
        let body = serde_json::to_vec(&native).map_err(|error| invalid(error.to_string()))?;
        Ok((entry, Read { key, labels, body }))
    }

    /// Puts a request on its way.
    async fn open(
        &self,
        request_id: RequestId,
        operation: Operation,
        entry: &Entry,
        labels: Labels,
        body: Vec<u8>,
    ) -> Result<Ticket, Failure> {
        let buffered = self.reception.reserve(body.len())?;
        let arrival = Arrival {
            request_id,
            entry,
            labels,
            dialect: Dialect::Native,
            operation,
            path: None,
            headers: BTreeMap::new(),
            body: body.into(),
            buffered,
        };
        let opened = self.reception.open(arrival).await;
        opened.map_err(|rejection| rejection.failure)
    }

    /// The answer that is kept under a key of the client's.
    async fn once(
        &self,
        operation: Operation,
        entry: &Entry,
        labels: Labels,
        key: String,
        body: &[u8],
    ) -> Result<Bytes, Failure> {
        let invalid = |error: tollgate_dialect::Invalid| Failure::new(ErrorCode::InvalidRequest, error.message);
        let submission = Submission {
            body: tollgate_dialect::unstreamed(Dialect::Native, body).map_err(invalid)?,
            idempotency_key: Some(key),
            labels,
            ..Submission::default()
        };
        let kept = Box::pin(self.jobs.once(entry, Dialect::Native, operation, submission)).await;
        kept.map_err(|rejection| rejection.failure)
    }

    /// A call that is answered at once.
    async fn whole<W, T: Serialize, A>(
        &self,
        operation: Operation,
        request: Request<W>,
        read: impl FnOnce(W) -> Result<T, Invalid>,
        answer: impl FnOnce(RequestId, &[u8]) -> Option<A>,
    ) -> Result<Response<A>, Status> {
        let request_id = RequestId::generate();
        let span = span(request.metadata(), request_id);
        let whole = async {
            let (entry, Read { key, labels, body }) = self.read(request, read).await?;
            let key = key.filter(|_| operation != Operation::CountTokens);
            let frame = match key {
                Some(key) => self.once(operation, &entry, labels, key, &body).await?,
                None => {
                    self.open(request_id, operation, &entry, labels, body)
                        .await?
                        .whole()
                        .await?
                }
            };
            answer(request_id, &frame).ok_or_else(unreadable)
        };
        match whole.instrument(span).await {
            Ok(answer) => Ok(identified(answer, request_id)),
            Err(failure) => Err(to_status(&failure, Some(request_id))),
        }
    }
}

fn chat(request: CompleteRequest, stream: bool) -> Result<ChatRequest, Invalid> {
    Ok(ChatRequest {
        stream,
        ..request.try_into()?
    })
}

/// A span for a call, in the client's trace.
fn span(metadata: &MetadataMap, request_id: RequestId) -> tracing::Span {
    let span = tracing::info_span!("request", otel.kind = "server", request.id = %request_id);
    tollgate_telemetry::adopt_grpc(&span, metadata);
    span
}

fn identified<T>(message: T, request_id: RequestId) -> Response<T> {
    let mut response = Response::new(message);
    if let Ok(id) = request_id.to_string().parse() {
        response.metadata_mut().insert("x-request-id", id);
    }
    response
}

type Events = Pin<Box<dyn Stream<Item = Result<CompleteEvent, Status>> + Send>>;

#[tonic::async_trait]
impl Gateway for Door {
    type CompleteStream = Events;

    async fn complete(&self, request: Request<CompleteRequest>) -> Result<Response<Events>, Status> {
        let request_id = RequestId::generate();
        let span = span(request.metadata(), request_id);
        let opened = async {
            let (entry, Read { key, labels, body }) = self.read(request, |request| chat(request, true)).await?;
            let Some(key) = key else {
                let ticket = self.open(request_id, Operation::Chat, &entry, labels, body).await?;
                return Ok(Box::pin(events(ticket)) as Events);
            };
            let kept = self.once(Operation::Chat, &entry, labels, key, &body).await?;
            let kept: Vec<ChatEvent> = serde_json::from_slice(&kept).map_err(|_| unreadable())?;
            let kept = kept
                .into_iter()
                .map(move |event| Ok(CompleteEvent::of(request_id, event)));
            Ok(Box::pin(stream::iter(kept)) as Events)
        };
        match opened.instrument(span).await {
            Ok(events) => Ok(identified(events, request_id)),
            Err(failure) => Err(to_status(&failure, Some(request_id))),
        }
    }

    async fn complete_unary(&self, request: Request<CompleteRequest>) -> Result<Response<CompleteResponse>, Status> {
        let read = |request| chat(request, false);
        self.whole(Operation::Chat, request, read, |request_id, frame| {
            let events: Vec<ChatEvent> = serde_json::from_slice(frame).ok()?;
            Some(CompleteResponse::of(request_id, events))
        })
        .await
    }

    async fn embed(&self, request: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        let read = embed::EmbedRequest::try_from;
        self.whole(Operation::Embed, request, read, |request_id, frame| {
            Some(EmbedResponse::of(request_id, serde_json::from_slice(frame).ok()?))
        })
        .await
    }

    async fn count_tokens(&self, request: Request<CompleteRequest>) -> Result<Response<CountTokensResponse>, Status> {
        #[derive(Deserialize)]
        struct Counted {
            input_tokens: u64,
        }
        let read = |request| chat(request, false);
        self.whole(Operation::CountTokens, request, read, |request_id, frame| {
            let Counted { input_tokens } = serde_json::from_slice(frame).ok()?;
            Some(CountTokensResponse {
                request_id: request_id.to_string(),
                input_tokens,
            })
        })
        .await
    }

    async fn list_models(&self, request: Request<ListModelsRequest>) -> Result<Response<ListModelsResponse>, Status> {
        let entry = self
            .authenticate(request.metadata())
            .await
            .map_err(|failure| to_status(&failure, None))?;
        let models = self
            .reception
            .models(&entry)
            .map(|name| Model { name: name.to_owned() })
            .collect();
        Ok(Response::new(ListModelsResponse { models }))
    }
}

/// The events of an answer; a failure is the call's status.
fn events(ticket: Ticket) -> impl Stream<Item = Result<CompleteEvent, Status>> + Send {
    stream::unfold(Some(ticket), |ticket| async move {
        let mut ticket = ticket?;
        let request_id = ticket.request_id();
        match ticket.next().await {
            Event::Frame(frame) => match serde_json::from_slice::<ChatEvent>(&frame) {
                Ok(event) => Some((Ok(CompleteEvent::of(request_id, event)), Some(ticket))),
                Err(_) => Some((Err(to_status(&unreadable(), Some(request_id))), None)),
            },
            Event::End => None,
            Event::Failed(failure) => Some((Err(to_status(&failure, Some(request_id))), None)),
        }
    })
}

fn unreadable() -> Failure {
    Failure::new(ErrorCode::Internal, "the answer cannot be read")
}
