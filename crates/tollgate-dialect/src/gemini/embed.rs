//! Embeddings.
use crate::{BadAnswer, Refused, side::Losses};
use bytes::Bytes;
use tollgate_types::embed::{EmbedRequest, EmbedResponse};
pub(crate) fn path_embed(_model: &str) -> String {
    unimplemented!()
}
pub(crate) fn write_embed(_r: &EmbedRequest, _m: &str, _l: &mut Losses) -> Result<Bytes, Refused> {
    unimplemented!()
}
pub(crate) fn read_embed(_body: &[u8]) -> Result<EmbedResponse, BadAnswer> {
    unimplemented!()
}
