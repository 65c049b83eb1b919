//! What is said of providers in configuration and needed where requests are written.

/// How a server of OpenAI's dialect differs from OpenAI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quirks {
    /// Knows `max_tokens` and not `max_completion_tokens`.
    pub max_tokens: bool,
    /// Knows no `developer` role.
    pub no_developer: bool,
    /// Knows no `json_schema` response format.
    pub no_json_schema: bool,
    /// Knows no `stream_options`; its stream brings the usage unasked, or not at all.
    pub no_stream_options: bool,
}

/// What to do when a provider's dialect cannot say something that the request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUnsupported {
    /// Refuse the request, so that another target may be tried.
    #[default]
    Refuse,
    /// Leave it out.
    Drop,
}
