//! Google's generateContent, as the API references of Gemini and Vertex AI describe it.

pub mod client;
pub mod count;
pub mod embed;
pub(crate) mod frames;
pub mod provider;
