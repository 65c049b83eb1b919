//! Anthropic's Messages, as its API reference describes it.

pub mod client;
pub mod count;
pub(crate) mod frames;
pub mod provider;

/// The version of the API that requests are made for.
pub const VERSION: &str = "2023-06-01";
