//! OpenAI's Chat Completions, as its API reference describes it; also spoken by most self-hosted servers.

pub mod client;
pub mod embed;
pub(crate) mod frames;
pub mod provider;
mod request;

use bytes::Bytes;

use crate::BadAnswer;
pub(crate) use request::{readdress, view};

pub(crate) fn pass(_data: &[u8]) -> Result<Option<Bytes>, BadAnswer> {
    unimplemented!()
}
pub(crate) fn pass_without_usage(_data: &[u8]) -> Result<Option<Bytes>, BadAnswer> {
    unimplemented!()
}
