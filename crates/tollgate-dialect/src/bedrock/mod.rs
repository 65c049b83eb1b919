//! Amazon Bedrock's Converse and ConverseStream, as its API reference describes them.

pub mod provider;
