//! A [`Recipient`] as a gRPC service, for workers in other processes.

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use futures::Stream;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tollgate_proto::v1::{
    self,
    delivery_server::{Delivery, DeliveryServer},
};
use tollgate_types::{Failure, envelope::Claim};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};
use tracing::Instrument;

use crate::{
    Error,
    courier::MAX_MESSAGE,
    delivery::{Line, Piece, Recipient, Used},
};

/// What one line may have on its way unread, in bytes.
const LINE_WINDOW: u32 = 64 << 10;
/// All lines from a worker share a connection. Its window is as large as HTTP/2 has it, so that it never binds: otherwise
/// a few answers that nobody reads would stop all the others.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// The address that others use for `listener`: `configured`, or the listener's own.
pub fn advertised(listener: &TcpListener, configured: Option<&str>) -> std::io::Result<String> {
    match configured {
        Some(address) => Ok(address.trim_end_matches('/').to_owned()),
        None => {
            let mut local = listener.local_addr()?;
            if local.ip().is_unspecified() {
                local = SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), local.port());
            }
            Ok(format!("http://{local}"))
        }
    }
}

/// Serves `recipient` until `stop`.
pub async fn serve_delivery(
    listener: TcpListener,
    recipient: Arc<dyn Recipient>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let tasks = TaskTracker::new();
    let service = DeliveryServer::new(Service {
        recipient,
        tasks: tasks.clone(),
    })
    .max_decoding_message_size(MAX_MESSAGE)
    .max_encoding_message_size(MAX_MESSAGE);
    Server::builder()
        .initial_stream_window_size(LINE_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(10)))
        .add_service(service)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            stop.cancelled_owned(),
        )
        .await?;
    tasks.close();
    tasks.wait().await;
    Ok(())
}

struct Service {
    recipient: Arc<dyn Recipient>,
    tasks: TaskTracker,
}

type Answers = Pin<Box<dyn Stream<Item = Result<v1::DeliverResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Delivery for Service {
    type DeliverStream = Answers;

    async fn deliver(&self, request: Request<Streaming<v1::DeliverRequest>>) -> Result<Response<Answers>, Status> {
        let span = tracing::info_span!("deliver");
        tollgate_telemetry::adopt_grpc(&span, request.metadata());
        let mut inbound = request.into_inner();
        let claim = match inbound.message().await?.and_then(|first| first.message) {
            Some(v1::deliver_request::Message::Claim(claim)) => {
                Claim::try_from(claim).map_err(|invalid| Status::invalid_argument(invalid.to_string()))?
            }
            _ => return Err(Status::invalid_argument("the first message is not a claim")),
        };
        let (answers, outbound) = mpsc::channel(1);
        match self.recipient.claim(claim).instrument(span).await {
            Ok(line) => {
                let hold = line.hold.clone().map(Into::into);
                answer(&answers, v1::deliver_response::Message::Granted(v1::Granted { hold })).await;
                // Dropping `answers` at the end of the pump ends our side of the call.
                self.tasks.spawn(async move {
                    pump(inbound, line).await;
                    drop(answers);
                });
            }
            Err(refusal) => answer(&answers, v1::deliver_response::Message::Refused(refusal.into())).await,
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(outbound))))
    }

    async fn conclude(&self, request: Request<v1::ConcludeRequest>) -> Result<Response<v1::ConcludeResponse>, Status> {
        let wire = request.into_inner();
        let request_id = wire
            .request_id
            .parse()
            .map_err(|_| Status::invalid_argument("request_id"))?;
        let failure = wire
            .failure
            .ok_or_else(|| Status::invalid_argument("failure is missing"))?;
        let failure = Failure::try_from(failure).map_err(|invalid| Status::invalid_argument(invalid.to_string()))?;
        let accepted = self.recipient.conclude(request_id, wire.generation, failure).await;
        Ok(Response::new(v1::ConcludeResponse { accepted }))
    }
}

async fn answer(answers: &mpsc::Sender<Result<v1::DeliverResponse, Status>>, message: v1::deliver_response::Message) {
    // The channel is new and has room; a caller that has gone is noticed by the pump.
    let _ = answers.send(Ok(v1::DeliverResponse { message: Some(message) })).await;
}

/// Moves pieces from the wire to the line until either side is done. What is not a valid piece breaks the line.
async fn pump(mut inbound: Streaming<v1::DeliverRequest>, line: Line) {
    loop {
        let message = tokio::select! {
            () = line.hung_up.cancelled() => return,
            message = inbound.message() => message,
        };
        let Ok(Some(v1::DeliverRequest { message: Some(message) })) = message else {
            return;
        };
        let Some(piece) = from_wire(message) else { return };
        let last = !matches!(piece, Piece::Frame { .. });
        if line.pieces.send(piece).await.is_err() || last {
            return;
        }
    }
}

fn from_wire(message: v1::deliver_request::Message) -> Option<Piece> {
    Some(match message {
        v1::deliver_request::Message::Frame(frame) => Piece::Frame {
            seq: frame.seq,
            payload: frame.payload,
        },
        v1::deliver_request::Message::End(end) => Piece::End {
            failure: end.failure.map(Failure::try_from).transpose().ok()?,
            used: consumption(end.used)?,
        },
        v1::deliver_request::Message::Released(released) => Piece::Released(consumption(released.used)?),
        v1::deliver_request::Message::Claim(_) => return None,
    })
}

/// None when the text is no consumption.
fn consumption(json: Option<Vec<u8>>) -> Option<Used> {
    json.map(|json| serde_json::from_slice(&json)).transpose().ok()
}
