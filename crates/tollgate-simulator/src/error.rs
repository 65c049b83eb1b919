//! Errors in OpenAI's shape, and the texts the real service uses for them.

use serde_json::{Value, json};

use crate::trouble::ErrorKind;

/// An error answer: `{"error":{"message","type","param","code"}}` under a status.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    pub(crate) param: Option<String>,
    pub(crate) code: Option<&'static str>,
    /// The kind, for formats that word it in another way.
    pub(crate) means: Option<ErrorKind>,
}

impl ApiError {
    /// A 400 about the request as a whole or a field of it.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            status: 400,
            kind: "invalid_request_error",
            message: message.into(),
            param: None,
            code: None,
            means: None,
        }
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// The key is missing or refused.
    pub(crate) fn key(message: impl Into<String>) -> Self {
        Self::invalid(message).with_status(401).code("invalid_api_key")
    }

    /// The error the script asks for, as the real service words it.
    pub(crate) fn scripted(status: u16) -> Self {
        let (kind, code, message) = match status {
            401 => (
                "invalid_request_error",
                Some("invalid_api_key"),
                "Incorrect API key provided.",
            ),
            403 => (
                "invalid_request_error",
                Some("unsupported_country_region_territory"),
                "Country, region, or territory not supported",
            ),
            404 => (
                "invalid_request_error",
                Some("model_not_found"),
                "The model does not exist or you do not have access to it.",
            ),
            429 => (
                "requests",
                Some("rate_limit_exceeded"),
                "Rate limit reached for requests. Please try again later.",
            ),
            503 => (
                "server_error",
                None,
                "The engine is currently overloaded, please try again later",
            ),
            400..=499 => (
                "invalid_request_error",
                None,
                "The request was refused by the simulator's script.",
            ),
            _ => (
                "server_error",
                None,
                "The server had an error while processing your request. Sorry about that!",
            ),
        };
        Self {
            status,
            kind,
            message: message.into(),
            param: None,
            code,
            means: None,
        }
    }

    /// An error of a kind, as OpenAI words it.
    pub(crate) fn of_kind(kind: ErrorKind) -> Self {
        let error = match kind {
            ErrorKind::ContextLength => Self::invalid(
                "This model's maximum context length is 128000 tokens. However, your messages resulted in 130000 \
                 tokens. Please reduce the length of the messages.",
            )
            .param("messages")
            .code("context_length_exceeded"),
            ErrorKind::ContentPolicy => Self::invalid("Your request was rejected as a result of our safety system.")
                .code("content_policy_violation"),
            ErrorKind::Overloaded => Self::scripted(503),
            ErrorKind::Quota => Self {
                kind: "insufficient_quota",
                message: "You exceeded your current quota, please check your plan and billing details.".into(),
                ..Self::scripted(429).code("insufficient_quota")
            },
        };
        Self {
            means: Some(kind),
            ..error
        }
    }

    pub(crate) fn body(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }})
    }
}
