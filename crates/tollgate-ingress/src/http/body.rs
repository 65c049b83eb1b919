//! Reading a request's body within its bounds.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;
use tollgate_types::{ErrorCode, Failure};

use crate::reception::Reception;

/// A client that pauses longer within its body is gone.
const PAUSE: Duration = Duration::from_secs(30);
/// A client that is refused for its size is still heard out for this much, because many do not look at an answer before
/// they have sent everything.
const HEAR_OUT_BYTES: usize = 128 << 20;
const HEAR_OUT_TIME: Duration = Duration::from_secs(20);
/// A stranger gets less of our time.
const STRANGER_BYTES: usize = 1 << 20;
const STRANGER_TIME: Duration = Duration::from_secs(2);

pub(super) async fn read(
    reception: &Reception,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Bytes, OwnedSemaphorePermit), Failure> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok());
    // A body of unknown length might be as large as any.
    let buffered = match reception.reserve(announced.unwrap_or(reception.max_body_bytes)) {
        Ok(buffered) => buffered,
        Err(failure) => {
            hear_out(body).await;
            return Err(failure);
        }
    };
    match collect(body, announced.unwrap_or_default(), reception.max_body_bytes).await {
        Ok(bytes) => Ok((bytes, buffered)),
        Err(Incomplete::TooLarge(rest)) => {
            hear_out(rest).await;
            Err(reception.too_large())
        }
        Err(Incomplete::Broken) => Err(Failure::new(
            ErrorCode::InvalidRequest,
            "the request body is incomplete",
        )),
    }
}

enum Incomplete {
    TooLarge(Body),
    Broken,
}

async fn collect(mut body: Body, announced: usize, limit: usize) -> Result<Bytes, Incomplete> {
    let mut bytes = BytesMut::with_capacity(announced.min(1 << 20));
    loop {
        let frame = tokio::time::timeout(PAUSE, body.frame())
            .await
            .map_err(|_| Incomplete::Broken)?;
        let Some(frame) = frame else { return Ok(bytes.freeze()) };
        let frame = frame.map_err(|_| Incomplete::Broken)?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > limit {
                return Err(Incomplete::TooLarge(body));
            }
            bytes.extend_from_slice(&data);
        }
    }
}

/// Reads what a client sends that is refused without a look at it. A body that is left unread costs the connection, and a
/// client that uses it again at that moment gets no answer at all.
pub(super) async fn dismiss(body: Body) {
    discard(body, STRANGER_BYTES, STRANGER_TIME).await;
}

async fn hear_out(body: Body) {
    discard(body, HEAR_OUT_BYTES, HEAR_OUT_TIME).await;
}

async fn discard(mut body: Body, mut left: usize, time: Duration) {
    let discard = async {
        while let Some(Ok(frame)) = body.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _ = tokio::time::timeout(time, discard).await;
}
