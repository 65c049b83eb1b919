//! What turns are made of.

use serde::{Deserialize, Serialize};

use super::Citation;

/// A piece of a turn's content.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Part {
    Text {
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cache: Option<Cache>,
        /// In an assistant's turn, what the text rests on.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        citations: Vec<Citation>,
    },
    Image {
        media: Media,
        /// `low`, `high` or `auto`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cache: Option<Cache>,
    },
    /// Its media type is `audio/…`.
    Audio {
        media: Media,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cache: Option<Cache>,
    },
    /// A document: PDF, plain text.
    File {
        media: Media,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filename: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cache: Option<Cache>,
    },
    /// Reasoning that the model showed. Goes back to its provider unchanged or not at all: the signature is over it.
    Reasoning {
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
    },
    /// Reasoning that only its provider can read.
    RedactedReasoning { data: String },
    /// The model's words when it declined.
    Refusal { text: String },
    /// A call that the model made.
    ToolCall {
        id: String,
        name: String,
        /// JSON text, as the model wrote it.
        arguments: String,
        /// Reasoning behind the call that only its provider can read (Gemini's thought signature).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cache: Option<Cache>,
    },
    /// What a tool answered.
    ToolResult {
        call_id: String,
        /// Text, images and files.
        content: Vec<Part>,
        #[serde(default)]
        is_error: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cache: Option<Cache>,
    },
}

impl Part {
    /// A text with nothing to it.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text {
            text: text.into(),
            cache: None,
            citations: Vec::new(),
        }
    }
}

/// Where the bytes of an image, a sound or a file are.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Media {
    /// Here.
    Inline {
        /// Such as `image/png`.
        media_type: String,
        /// Base64, standard alphabet, padded.
        data: String,
    },
    /// At an `https:` address that the provider fetches.
    Url {
        url: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        media_type: Option<String>,
    },
    /// Uploaded to the provider before, under this id.
    Uploaded { id: String },
}

impl Media {
    /// What a URL says: a `data:` URL in base64 is inline, anything else an address.
    #[must_use]
    pub fn from_url(url: &str) -> Self {
        let inline = url
            .strip_prefix("data:")
            .and_then(|rest| rest.split_once(','))
            .and_then(|(head, data)| Some((head.strip_suffix(";base64")?, data)));
        match inline {
            Some((media_type, data)) => Self::Inline {
                media_type: media_type.split(';').next().unwrap_or_default().to_ascii_lowercase(),
                data: data.to_owned(),
            },
            None => Self::Url {
                url: url.to_owned(),
                media_type: None,
            },
        }
    }

    /// The same as a URL. None for what was uploaded.
    #[must_use]
    pub fn to_url(&self) -> Option<String> {
        match self {
            Self::Inline { media_type, data } => Some(format!("data:{media_type};base64,{data}")),
            Self::Url { url, .. } => Some(url.clone()),
            Self::Uploaded { .. } => None,
        }
    }
}

/// Asks the provider to keep what goes up to here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// `5m` or `1h`; the provider's own choice when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_urls_are_inline_and_all_else_is_an_address() {
        let inline = Media::from_url("data:Image/PNG;charset=x;base64,AAAA");
        assert!(inline.to_url().as_deref() == Some("data:image/png;base64,AAAA"));
        for url in ["https://h/i.png", "data:text/plain,plain", "data:", ""] {
            assert!(matches!(Media::from_url(url), Media::Url { .. }), "{url}");
        }
    }
}
