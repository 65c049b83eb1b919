//! Requests to a provider, and its answers.

use bytes::Bytes;
use tollgate_types::chat::ChatRequest;

use crate::{
    Invalid, ProviderError, Refused,
    side::{Losses, Reader, Target},
};

/// The request in this dialect, and the reader of its answer.
pub(crate) fn write(
    request: &ChatRequest,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<(Bytes, Box<dyn Reader>), Refused> {
    unimplemented!()
}

/// A client's own bytes for the provider's `model`: both speak this dialect. All else stays byte for byte.
pub(crate) fn readdress(body: &[u8], model: &str) -> Result<Bytes, Invalid> {
    unimplemented!()
}

/// A reader of the answer to a request that went through as it was.
pub(crate) fn reader() -> Box<dyn Reader> {
    unimplemented!()
}

/// What the body of an error says.
pub(crate) fn error(body: &[u8]) -> ProviderError {
    unimplemented!()
}
