//! Counting.
use crate::{
    BadAnswer, Invalid, Refused,
    side::{Losses, Target},
};
use bytes::Bytes;
use tollgate_types::{RequestView, chat::ChatRequest};
pub(crate) fn view_count(_body: &[u8]) -> Result<RequestView, Invalid> {
    unimplemented!()
}
pub(crate) fn count_body(_body: &[u8], _model: &str) -> Result<Bytes, Invalid> {
    unimplemented!()
}
pub(crate) fn write_count(_r: &ChatRequest, _t: &Target<'_>, _l: &mut Losses) -> Result<Bytes, Refused> {
    unimplemented!()
}
pub(crate) fn read_count(_body: &[u8]) -> Result<u64, BadAnswer> {
    unimplemented!()
}
pub(crate) fn count_answer(_tokens: u64) -> Bytes {
    unimplemented!()
}
