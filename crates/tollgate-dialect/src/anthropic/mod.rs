//! Anthropic's Messages, as its API reference describes it.

pub mod client;
pub(crate) mod frames;
pub mod provider;
