//! OpenAI's Chat Completions, as its API reference describes it; also spoken by most self-hosted servers.

mod answer;
mod encode;
mod request;

pub use answer::{AnswerReader, error_body};
pub(crate) use encode::encode;
pub use request::{readdress, view};
