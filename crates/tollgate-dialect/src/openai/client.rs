//! Requests of clients, and the answers they get.

use tollgate_types::{RequestView, chat::ChatRequest};

use crate::{Invalid, side::Writer};

/// Reads the whole request.
pub(crate) fn read(body: &[u8]) -> Result<ChatRequest, Invalid> {
    unimplemented!()
}

/// A writer of the answer to `request`.
pub(crate) fn writer(request: &ChatRequest, view: &RequestView) -> Box<dyn Writer> {
    unimplemented!()
}
