//! Embeddings.

use tollgate_types::RequestView;

use crate::Invalid;

pub(crate) fn view(body: &[u8]) -> Result<RequestView, Invalid> {
    unimplemented!()
}
