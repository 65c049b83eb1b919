//! How an answer finds its way back: whoever awaits it is a [`Recipient`], and a granted claim opens a [`Line`] to it.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tollgate_pricing::Consumption;
use tollgate_types::{
    Failure, Hold, RequestId,
    envelope::{Claim, Refusal},
};

/// Pieces that a line holds before its sender has to wait: enough to keep a stream flowing, few enough to bound memory.
pub const LINE_CAPACITY: usize = 32;

/// A part of an answer on its way to the owner.
#[derive(Clone)]
pub enum Piece {
    /// Part of the answer in the client's own dialect: one event of a stream, or the whole body. `seq` counts from 0.
    Frame { seq: u64, payload: Bytes },
    /// The attempt is over; without a failure the answer is complete.
    End { failure: Option<Failure>, used: Used },
    /// The attempt failed before its first frame and the request goes on elsewhere. The owner hangs up once it has noted
    /// it; only then may the request be passed on, or the next claim could come too early.
    Released(Used),
}

/// What an attempt used, as far as that is known.
pub type Used = Option<Box<Consumption>>;

/// An open way to the owner. Dropped without [`Piece::End`] or [`Piece::Released`], it tells the owner that the attempt
/// broke off.
pub struct Line {
    pub pieces: mpsc::Sender<Piece>,
    /// Cancelled when nobody awaits the answer any more.
    pub hung_up: CancellationToken,
    /// What the owner has reserved for the attempt, to be written down with it.
    pub hold: Option<Hold>,
}

/// The owner's end of a [`Line`].
pub struct LineEnd {
    pub pieces: mpsc::Receiver<Piece>,
    pub hung_up: CancellationToken,
}

/// A line with its two ends.
#[must_use]
pub fn line() -> (Line, LineEnd) {
    let (sender, receiver) = mpsc::channel(LINE_CAPACITY);
    let hung_up = CancellationToken::new();
    (
        Line {
            pieces: sender,
            hung_up: hung_up.clone(),
            hold: None,
        },
        LineEnd {
            pieces: receiver,
            hung_up,
        },
    )
}

/// Hanging up is what an owner's end does when it goes.
impl Drop for LineEnd {
    fn drop(&mut self) {
        self.hung_up.cancel();
    }
}

/// A future that can be kept behind a pointer.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Somebody who awaits answers: a desk, or a guardrail on its behalf.
pub trait Recipient: Send + Sync + 'static {
    /// Asks to be the one that answers. Only a granted claim may call a provider.
    fn claim(&self, claim: Claim) -> Boxed<'_, Result<Line, Refusal>>;

    /// Ends a request without a provider's answer. False when it had ended, or a newer generation is under way.
    fn conclude(&self, request_id: RequestId, generation: u32, failure: Failure) -> Boxed<'_, bool>;
}
