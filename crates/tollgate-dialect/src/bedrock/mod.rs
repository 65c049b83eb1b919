//! Amazon Bedrock's Converse and ConverseStream, as its API reference and the service model of `botocore` describe them.
//!
//! Converse is one dialect for models of many makers, who differ in what they take. `model` tells what is known of them
//! from their ids; what nobody can know from an id is left for Bedrock to judge.
//!
//! # Signing
//!
//! `provider::path` percent-encodes the model's id once, and the request must be sent with that path as it is. A signer
//! for version 4 encodes each segment of it *again* in the canonical request, as every service but S3 wants it: `:` is `%3A`
//! on the wire and `%253A` in the canonical request. A Bedrock API key goes in `Authorization: Bearer` instead and needs no
//! signature.

mod error;
mod event_stream;
mod measured;
mod media;
pub(crate) mod model;
pub mod provider;
mod read;
pub(crate) mod reasoning;
pub(crate) mod schema;
mod stream;
#[cfg(test)]
mod tests;
mod tools;
mod turns;
mod wire;

pub use event_stream::EventStream;
