//! Requests of clients, and the answers they get.

use tollgate_types::{RequestView, chat::ChatRequest};

use crate::{Invalid, side::Writer};

/// Reads what stages need to know. What only the provider can judge is left to the provider.
pub(crate) fn view(body: &[u8]) -> Result<RequestView, Invalid> {
    unimplemented!()
}

/// Reads the whole request.
pub(crate) fn read(body: &[u8]) -> Result<ChatRequest, Invalid> {
    unimplemented!()
}

/// A writer of the answer to `request`, streamed if it asks for that.
pub(crate) fn writer(request: &ChatRequest) -> Box<dyn Writer> {
    unimplemented!()
}
