//! The wire formats: what a client's bytes say, what a provider is sent, and what its answer says.
//!
//! When client and provider speak the same dialect the bytes go through with only our own fields rewritten, so that a
//! field nobody here has heard of survives. Else they are translated through [`tollgate_types::chat`].

mod count;
mod native;
pub mod openai;
mod scan;
pub mod sse;
pub mod text;

use std::fmt;

use bytes::Bytes;
use tollgate_types::{Dialect, RequestView, Usage};

pub use count::{Tally, prompt_tokens};

/// Why a client's bytes are not a request.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// Safe to show to the client who sent the bytes; may quote them, so never logged.
    pub message: String,
    /// The field that is wrong, as the dialect names it.
    pub param: Option<&'static str>,
}

/// Without the message, which may quote the request.
impl fmt::Debug for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invalid")
            .field("param", &self.param)
            .finish_non_exhaustive()
    }
}

impl Invalid {
    fn new(param: Option<&'static str>, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            param,
        }
    }
}

/// Why a provider's bytes are not an answer. Never quotes them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    #[error("the provider's answer is not valid JSON")]
    NotJson,
    #[error("the provider's answer lacks {0}")]
    Lacks(&'static str),
    #[error("the provider reported an error within its answer")]
    Reported(ProviderError),
    #[error("an event of the provider's stream is over the limit")]
    TooLarge,
    #[error("the provider's stream is not UTF-8")]
    NotUtf8,
}

/// What a provider says went wrong.
#[derive(Clone, PartialEq, Eq)]
pub struct ProviderError {
    /// The provider's own text. For the client, never for logs: it may quote the prompt.
    pub message: String,
    /// The provider's own code or type.
    pub code: Option<String>,
}

impl fmt::Debug for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderError")
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

/// Reads what stages need to know from a client's bytes.
pub fn view(dialect: Dialect, body: &[u8]) -> Result<RequestView, Invalid> {
    match dialect {
        Dialect::OpenaiChat => openai::view(body),
        Dialect::Native => native::view(body),
    }
}

/// The body that a provider of OpenAI's dialect is sent for a client's bytes.
pub fn to_openai(dialect: Dialect, body: &[u8], model: &str) -> Result<Bytes, Invalid> {
    match dialect {
        Dialect::OpenaiChat => openai::readdress(body, model),
        Dialect::Native => native::to_openai(body, model),
    }
}

/// What is known of an answer at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// As the provider reported it.
    pub usage: Option<Usage>,
    /// The model that the provider says it used.
    pub served_model: Option<String>,
    /// Whether the provider said that the answer is complete.
    pub complete: bool,
}
