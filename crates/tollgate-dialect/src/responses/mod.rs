//! OpenAI's Responses, as its API reference describes it.
//!
//! Tollgate keeps no conversations: a request must bring its whole input, and every answer says `store: false`.

mod answer;
mod citation;
pub mod client;
mod content;
mod fields;
pub(crate) mod frames;
mod input;
mod item;
pub mod provider;
mod reader;
mod request;
mod sealed;
mod settings;
mod take;
mod writer;

#[cfg(test)]
mod tests;
