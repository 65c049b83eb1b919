//! Opens lines to owners: in memory when the owner is in this process, else over gRPC.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tollgate_proto::v1::{self, delivery_client::DeliveryClient};
use tollgate_types::{
    Failure, Hold, RequestId,
    envelope::{Claim, Refusal},
};
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

use crate::delivery::{Line, LineEnd, Piece, Recipient, Used, line};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an owner may take to grant or refuse.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Owners come and go with every rollout; past this many connections the set starts anew.
const MOST_CHANNELS: usize = 1024;
/// Largest frame, with room for the message around it.
pub(crate) const MAX_MESSAGE: usize = 128 << 20;

/// Finds owners by address. Cheap to clone.
#[derive(Clone, Default)]
pub struct Courier {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    local: Mutex<HashMap<String, Arc<dyn Recipient>>>,
    channels: Mutex<HashMap<String, Channel>>,
    tasks: TaskTracker,
}

impl Courier {
    /// Makes `recipient` reachable in this process without the network.
    pub fn register(&self, address: &str, recipient: Arc<dyn Recipient>) {
        lock(&self.inner.local).insert(address.to_owned(), recipient);
    }

    /// Asks the owner at `address` for the claim.
    pub async fn claim(&self, address: &str, claim: Claim) -> Result<Line, Refusal> {
        let local = lock(&self.inner.local).get(address).cloned();
        match local {
            Some(recipient) => recipient.claim(claim).await,
            None => self.claim_remote(address, claim).await,
        }
    }

    /// Tells the owner at `address` that the request has ended. False when it had ended already or cannot be reached; the
    /// owner then finds out by itself.
    pub async fn conclude(&self, address: &str, request_id: RequestId, generation: u32, failure: Failure) -> bool {
        let local = lock(&self.inner.local).get(address).cloned();
        if let Some(recipient) = local {
            return recipient.conclude(request_id, generation, failure).await;
        }
        let Some(channel) = self.channel(address) else {
            return false;
        };
        let mut request = Request::new(v1::ConcludeRequest {
            request_id: request_id.to_string(),
            generation,
            failure: Some(failure.into()),
        });
        tollgate_telemetry::carry_grpc(request.metadata_mut());
        request.set_timeout(ANSWER_TIMEOUT);
        match DeliveryClient::new(channel).conclude(request).await {
            Ok(answer) => answer.into_inner().accepted,
            Err(status) => {
                tracing::debug!(code = ?status.code(), address, "an owner could not be told");
                false
            }
        }
    }

    async fn claim_remote(&self, address: &str, claim: Claim) -> Result<Line, Refusal> {
        let channel = self.channel(address).ok_or(Refusal::Unreachable)?;
        let (mut line, end) = line();
        let mut client = DeliveryClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let hung_up = end.hung_up.clone();
        let mut request = Request::new(outbound(claim, end));
        tollgate_telemetry::carry_grpc(request.metadata_mut());
        let opened = tokio::time::timeout(ANSWER_TIMEOUT, async {
            let mut answers = client.deliver(request).await?.into_inner();
            let first = answers.message().await?;
            Ok::<_, tonic::Status>((first, answers))
        });
        let (first, mut answers) = match opened.await {
            Ok(Ok(opened)) => opened,
            Ok(Err(status)) => {
                tracing::debug!(code = ?status.code(), address, "an owner could not be reached");
                return Err(Refusal::Unreachable);
            }
            Err(_) => return Err(Refusal::Unreachable),
        };
        match first.and_then(|answer| answer.message) {
            Some(v1::deliver_response::Message::Granted(granted)) => {
                let hold = granted.hold.map(Hold::try_from).transpose();
                line.hold = hold.map_err(|_| Refusal::Unreachable)?;
            }
            Some(v1::deliver_response::Message::Refused(refused)) => return Err(refused.into()),
            None => return Err(Refusal::Unreachable),
        }
        // The owner ends its side to hang up; so does its death.
        self.inner.tasks.spawn(async move {
            while let Ok(Some(_)) = answers.message().await {}
            hung_up.cancel();
        });
        Ok(line)
    }

    fn channel(&self, address: &str) -> Option<Channel> {
        let mut channels = lock(&self.inner.channels);
        if let Some(channel) = channels.get(address) {
            return Some(channel.clone());
        }
        let endpoint = Endpoint::from_shared(address.to_owned())
            .ok()?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .tcp_nodelay(true);
        let channel = endpoint.connect_lazy();
        if channels.len() >= MOST_CHANNELS {
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Some(channel)
    }
}

/// The claim, then whatever is put on the line. The stream owns the receiving end: when the connection goes, so does it,
/// and the line is hung up.
fn outbound(claim: Claim, mut end: LineEnd) -> impl futures::Stream<Item = v1::DeliverRequest> + Send + 'static {
    let (_, closed) = tokio::sync::mpsc::channel(1);
    let pieces = ReceiverStream::new(std::mem::replace(&mut end.pieces, closed));
    let claim = v1::DeliverRequest {
        message: Some(v1::deliver_request::Message::Claim(claim.into())),
    };
    futures::stream::once(async { claim }).chain(pieces.map(move |piece| {
        let _keeps_the_end = &end;
        v1::DeliverRequest {
            message: Some(to_wire(piece)),
        }
    }))
}

fn to_wire(piece: Piece) -> v1::deliver_request::Message {
    match piece {
        Piece::Frame { seq, payload } => v1::deliver_request::Message::Frame(v1::Frame { seq, payload }),
        Piece::End { failure, used } => v1::deliver_request::Message::End(v1::End {
            failure: failure.map(Into::into),
            used: json(used),
        }),
        Piece::Released(used) => v1::deliver_request::Message::Released(v1::Released { used: json(used) }),
    }
}

fn json(used: Used) -> Option<Vec<u8>> {
    used.and_then(|used| serde_json::to_vec(&used).ok())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
