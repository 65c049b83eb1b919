//! What a job's path says of its body.

use tollgate_types::{Dialect, ErrorCode, Failure, Operation};

use crate::reception::Rejection;

/// What the door at a path takes.
pub(crate) struct Kind {
    pub(crate) dialect: Dialect,
    pub(crate) operation: Operation,
    /// Model, and whether a stream is wanted, where the path says so and not the body.
    pub(crate) path: Option<(String, bool)>,
}

impl Kind {
    /// Of the path of a door.
    pub(crate) fn of(url: &str) -> Result<Self, Rejection> {
        let (dialect, operation, path) = match url {
            "/v1/chat/completions" => (Dialect::OpenaiChat, Operation::Chat, None),
            "/v1/responses" => (Dialect::OpenaiResponses, Operation::Chat, None),
            "/v1/embeddings" => (Dialect::OpenaiChat, Operation::Embed, None),
            "/v1/messages" => (Dialect::Anthropic, Operation::Chat, None),
            gemini => {
                let model = gemini
                    .strip_prefix("/v1beta/models/")
                    .and_then(|call| call.strip_suffix(":generateContent"))
                    .ok_or_else(|| Rejection {
                        failure: Failure::new(
                            ErrorCode::InvalidRequest,
                            "url: expected /v1/chat/completions, /v1/responses, /v1/embeddings, /v1/messages or \
                             /v1beta/models/MODEL:generateContent",
                        ),
                        param: Some("url".to_owned()),
                    })?;
                (Dialect::Gemini, Operation::Chat, Some((model.to_owned(), false)))
            }
        };
        Ok(Self {
            dialect,
            operation,
            path,
        })
    }
}
