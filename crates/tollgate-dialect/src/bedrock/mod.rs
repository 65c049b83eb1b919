//! Amazon Bedrock's Converse and ConverseStream, as its API reference describes them.

mod event_stream;
pub mod provider;

pub use event_stream::EventStream;
