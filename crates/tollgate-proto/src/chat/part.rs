//! Pieces of turns, both ways: an answer's content can be sent back as a turn.

use base64::{Engine, engine::general_purpose::STANDARD};
use tollgate_types::chat::{Cache, Citation, Media, Part, Span, SpanUnit};

use super::all;
use crate::{Invalid, v1};

impl TryFrom<v1::Part> for Part {
    type Error = Invalid;

    fn try_from(wire: v1::Part) -> Result<Self, Invalid> {
        use v1::part::Part as Wire;
        let cache: Option<Cache> = wire.cache.map(Into::into);
        Ok(match wire.part.ok_or(Invalid::missing("messages.content.part"))? {
            Wire::Text(text) => Self::Text {
                text,
                cache,
                citations: all(wire.citations)?,
            },
            Wire::Image(image) => Self::Image {
                media: media("image.media", image.media)?,
                detail: image.detail,
                cache,
            },
            Wire::Audio(audio) => {
                let media = media("audio.media", audio.media)?;
                if matches!(&media, Media::Inline { media_type, .. } if !media_type.starts_with("audio/")) {
                    return Err(Invalid::new("audio.media.media_type", "is none of audio/…"));
                }
                Self::Audio { media, cache }
            }
            Wire::File(file) => Self::File {
                media: media("file.media", file.media)?,
                filename: file.filename,
                cache,
            },
            Wire::Reasoning(reasoning) => Self::Reasoning {
                text: reasoning.text,
                signature: reasoning.signature,
            },
            Wire::RedactedReasoning(data) => Self::RedactedReasoning { data },
            Wire::Refusal(text) => Self::Refusal { text },
            Wire::ToolCall(call) => {
                if call.id.is_empty() {
                    return Err(Invalid::missing("tool_call.id"));
                }
                if call.name.is_empty() {
                    return Err(Invalid::missing("tool_call.name"));
                }
                Self::ToolCall {
                    id: call.id,
                    name: call.name,
                    arguments: call.arguments_json,
                    signature: call.signature,
                    cache,
                }
            }
            Wire::ToolResult(result) => {
                if result.call_id.is_empty() {
                    return Err(Invalid::missing("tool_result.call_id"));
                }
                let content: Vec<Self> = all(result.content)?;
                let plain = |part: &Self| matches!(part, Self::Text { .. } | Self::Image { .. } | Self::File { .. });
                if !content.iter().all(plain) {
                    return Err(Invalid::new(
                        "tool_result.content",
                        "has a part that is no text, image or file",
                    ));
                }
                Self::ToolResult {
                    call_id: result.call_id,
                    content,
                    is_error: result.is_error,
                    cache,
                }
            }
        })
    }
}

impl From<Part> for v1::Part {
    fn from(part: Part) -> Self {
        use v1::part::Part as Wire;
        let (part, cache, citations) = match part {
            Part::Text { text, cache, citations } => (Wire::Text(text), cache, citations),
            Part::Image { media, detail, cache } => {
                let media = Some(media.into());
                (Wire::Image(v1::Image { media, detail }), cache, Vec::new())
            }
            Part::Audio { media, cache } => {
                let media = Some(media.into());
                (Wire::Audio(v1::Audio { media }), cache, Vec::new())
            }
            Part::File { media, filename, cache } => {
                let media = Some(media.into());
                (Wire::File(v1::File { media, filename }), cache, Vec::new())
            }
            Part::Reasoning { text, signature } => (
                Wire::Reasoning(v1::ReasoningBlock { text, signature }),
                None,
                Vec::new(),
            ),
            Part::RedactedReasoning { data } => (Wire::RedactedReasoning(data), None, Vec::new()),
            Part::Refusal { text } => (Wire::Refusal(text), None, Vec::new()),
            Part::ToolCall {
                id,
                name,
                arguments,
                signature,
                cache,
            } => {
                let call = v1::ToolCall {
                    id,
                    name,
                    arguments_json: arguments,
                    signature,
                };
                (Wire::ToolCall(call), cache, Vec::new())
            }
            Part::ToolResult {
                call_id,
                content,
                is_error,
                cache,
            } => {
                let result = v1::ToolResult {
                    call_id,
                    content: content.into_iter().map(Into::into).collect(),
                    is_error,
                };
                (Wire::ToolResult(result), cache, Vec::new())
            }
        };
        Self {
            part: Some(part),
            cache: cache.map(Into::into),
            citations: citations.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::CacheMarker> for Cache {
    fn from(wire: v1::CacheMarker) -> Self {
        Self { ttl: wire.ttl }
    }
}

impl From<Cache> for v1::CacheMarker {
    fn from(cache: Cache) -> Self {
        Self { ttl: cache.ttl }
    }
}

fn media(field: &'static str, wire: Option<v1::Media>) -> Result<Media, Invalid> {
    use v1::media::Source;
    let source = wire.and_then(|media| media.source).ok_or(Invalid::missing(field))?;
    match source {
        Source::Inline(inline) if !is_media_type(&inline.media_type) => Err(Invalid::new(field, "has no media type")),
        Source::Inline(inline) => Ok(Media::Inline {
            media_type: inline.media_type.to_ascii_lowercase(),
            data: STANDARD.encode(inline.data),
        }),
        Source::Url(url) if !url.starts_with("https://") => Err(Invalid::new(field, "is no https: URL")),
        Source::Url(url) => Ok(Media::Url { url, media_type: None }),
        Source::UploadedId(id) if id.is_empty() => Err(Invalid::missing(field)),
        Source::UploadedId(id) => Ok(Media::Uploaded { id }),
    }
}

fn is_media_type(text: &str) -> bool {
    let plain =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-+._".contains(&b));
    text.split_once('/')
        .is_some_and(|(kind, name)| plain(kind) && plain(name))
}

impl From<Media> for v1::Media {
    fn from(media: Media) -> Self {
        use v1::media::Source;
        let source = match media {
            Media::Inline { media_type, data } => Source::Inline(inline(media_type, &data)),
            Media::Url { url, .. } => Source::Url(url),
            Media::Uploaded { id } => Source::UploadedId(id),
        };
        Self { source: Some(source) }
    }
}

/// Bytes that a provider sent in base64; none of them if it was not that.
pub(super) fn inline(media_type: String, data: &str) -> v1::InlineMedia {
    v1::InlineMedia {
        media_type,
        data: STANDARD.decode(data).unwrap_or_default(),
    }
}

impl TryFrom<v1::Citation> for Citation {
    type Error = Invalid;

    fn try_from(wire: v1::Citation) -> Result<Self, Invalid> {
        Ok(Self {
            url: wire.url,
            title: wire.title,
            quote: wire.quote,
            answer: wire.answer.map(TryInto::try_into).transpose()?,
            document: wire.document,
            source: wire.source.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<Citation> for v1::Citation {
    fn from(citation: Citation) -> Self {
        Self {
            url: citation.url,
            title: citation.title,
            quote: citation.quote,
            answer: citation.answer.map(Into::into),
            document: citation.document,
            source: citation.source.map(Into::into),
        }
    }
}

impl TryFrom<v1::Span> for Span {
    type Error = Invalid;

    fn try_from(wire: v1::Span) -> Result<Self, Invalid> {
        let unit = match wire.unit() {
            v1::span::Unit::Character => SpanUnit::Character,
            v1::span::Unit::Page => SpanUnit::Page,
            v1::span::Unit::Block => SpanUnit::Block,
            v1::span::Unit::Unspecified => return Err(Invalid::missing("citations.span.unit")),
        };
        Ok(Self {
            unit,
            start: wire.start,
            end: wire.end,
        })
    }
}

impl From<Span> for v1::Span {
    fn from(span: Span) -> Self {
        let unit = match span.unit {
            SpanUnit::Character => v1::span::Unit::Character,
            SpanUnit::Page => v1::span::Unit::Page,
            SpanUnit::Block => v1::span::Unit::Block,
        };
        Self {
            unit: unit.into(),
            start: span.start,
            end: span.end,
        }
    }
}
