//! OpenAI's Responses, as its API reference describes it.

pub mod client;
pub(crate) mod frames;
pub mod provider;
