//! Requests to a provider, and its answers.

use bytes::Bytes;
use tollgate_types::chat::ChatRequest;

use crate::{
    ProviderError, Refused,
    side::{Losses, Reader, Target},
};

/// Path of a call, below the base URL.
pub(crate) fn path(model: &str, stream: bool) -> String {
    unimplemented!()
}

/// The request in this dialect, and the reader of its answer.
pub(crate) fn write(
    request: &ChatRequest,
    target: &Target<'_>,
    losses: &mut Losses,
) -> Result<(Bytes, Box<dyn Reader>), Refused> {
    unimplemented!()
}

/// What the body of an error says.
pub(crate) fn error(body: &[u8]) -> ProviderError {
    unimplemented!()
}
