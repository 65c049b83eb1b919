//! The superset embedding model. No `Debug`: it is made of prompts.

use serde::{Deserialize, Serialize};

use crate::Usage;

/// Asks for the vectors of some texts.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbedRequest {
    pub model: String,
    pub input: Vec<EmbedInput>,
    /// Length of each vector; the model's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<u64>,
    /// The caller's own opaque id of its end user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// As [`crate::chat::ChatRequest::beyond`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub beyond: Vec<String>,
}

/// What one vector is for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EmbedInput {
    Text(String),
    /// Token ids of the model's own tokenizer.
    Tokens(Vec<u32>),
}

/// The vectors, in the order of the inputs.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EmbedResponse {
    /// The model that the provider says it used.
    pub model: String,
    pub vectors: Vec<Vec<f32>>,
    /// None when the provider gave none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}
