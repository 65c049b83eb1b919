//! Embeddings.

use tollgate_types::{
    RequestId,
    embed::{EmbedInput, EmbedRequest, EmbedResponse},
};

use super::all;
use crate::{Invalid, v1};

impl TryFrom<v1::EmbedRequest> for EmbedRequest {
    type Error = Invalid;

    fn try_from(wire: v1::EmbedRequest) -> Result<Self, Invalid> {
        if wire.model.is_empty() {
            return Err(Invalid::missing("model"));
        }
        if wire.input.is_empty() {
            return Err(Invalid::missing("input"));
        }
        if wire.dimensions == Some(0) {
            return Err(Invalid::new("dimensions", "must be at least 1"));
        }
        Ok(Self {
            model: wire.model,
            input: all(wire.input)?,
            dimensions: wire.dimensions,
            user: wire.user,
            beyond: Vec::new(),
        })
    }
}

impl TryFrom<v1::EmbedInput> for EmbedInput {
    type Error = Invalid;

    fn try_from(wire: v1::EmbedInput) -> Result<Self, Invalid> {
        match wire.input.ok_or(Invalid::missing("input.input"))? {
            v1::embed_input::Input::Text(text) => Ok(Self::Text(text)),
            v1::embed_input::Input::Tokens(tokens) if tokens.ids.is_empty() => {
                Err(Invalid::missing("input.tokens.ids"))
            }
            v1::embed_input::Input::Tokens(tokens) => Ok(Self::Tokens(tokens.ids)),
        }
    }
}

impl v1::EmbedResponse {
    /// The answer to `request_id`.
    #[must_use]
    pub fn of(request_id: RequestId, answer: EmbedResponse) -> Self {
        let vectors = answer.vectors.into_iter().map(|values| v1::Vector { values });
        Self {
            request_id: request_id.to_string(),
            model: answer.model,
            vectors: vectors.collect(),
            usage: answer.usage.map(Into::into),
        }
    }
}
