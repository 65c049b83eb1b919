//! What can be wrong with a request or an answer.

use std::fmt;

use tollgate_types::ErrorCode;

/// Why a client's bytes are not a request.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// Safe to show to the client who sent the bytes; may quote them, so never logged.
    pub message: String,
    /// The field that is wrong, as the dialect names it: `messages[2].content`.
    pub param: Option<String>,
}

/// Without the message, which may quote the request.
impl fmt::Debug for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invalid").finish_non_exhaustive()
    }
}

impl Invalid {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            param: None,
        }
    }

    /// A mistake in a field.
    pub(crate) fn at(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            param: Some(param.into()),
        }
    }
}

/// Why a request cannot be sent to a provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The provider's dialect has no way to say it: `logprobs`, `messages[0]: audio`. Safe to show and to log.
    #[error("this provider cannot be asked for {0}")]
    Unsupported(String),
}

/// Why a provider's bytes are not an answer. Never quotes them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    #[error("the provider's answer is not valid JSON")]
    NotJson,
    #[error("the provider's answer lacks {0}")]
    Lacks(&'static str),
    /// An event that may not come where it came.
    #[error("the provider's answer is out of order: {0}")]
    Misplaced(&'static str),
    #[error("the provider reported an error within its answer")]
    Reported(ProviderError),
    /// The client's dialect has no way to say it.
    #[error("the answer holds {0}, which the client's dialect cannot say")]
    Inexpressible(&'static str),
    #[error("an event of the provider's stream is over the limit")]
    TooLarge,
    #[error("the provider's stream is not UTF-8")]
    NotUtf8,
}

/// What a provider says went wrong.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ProviderError {
    /// The provider's own text. For the client, never for logs: it may quote the prompt.
    pub message: String,
    /// The provider's own code or type.
    pub code: Option<String>,
    /// What it means, where the body says more than the status: a prompt that is too long, content that is refused, an
    /// overload inside a 200.
    pub means: Option<ErrorCode>,
}

impl fmt::Debug for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderError")
            .field("code", &self.code)
            .field("means", &self.means)
            .finish_non_exhaustive()
    }
}

/// Longest text of a provider's error that is passed on, in characters.
const LONGEST_MESSAGE: usize = 2000;

impl ProviderError {
    /// An error with its text cut to a bearable length.
    pub(crate) fn new(message: Option<&str>, code: Option<&str>, means: Option<ErrorCode>) -> Self {
        let message = message.unwrap_or("the provider gave no reason");
        Self {
            message: message.chars().take(LONGEST_MESSAGE).collect(),
            code: code.map(str::to_owned),
            means,
        }
    }

    /// An error body that cannot be read.
    pub(crate) fn unreadable() -> Self {
        Self::new(Some("the provider gave no readable reason"), None, None)
    }
}
