//! Annotations of an answer's text.

use serde_json::{Value, json};
use tollgate_types::chat::{Citation, Span, SpanUnit};

/// A document of the prompt has no file id; this stands for it, with its index behind.
const DOCUMENT: &str = "document_";

/// What an annotation says. None for kinds that point to nothing that the model can say.
pub(super) fn read(annotation: &Value) -> Option<Citation> {
    let text = |name: &str| {
        let text = annotation.get(name)?.as_str()?;
        (!text.is_empty()).then(|| text.to_owned())
    };
    let number = |name: &str| annotation.get(name)?.as_u64();
    let span = |start, end| {
        Some(Span {
            unit: SpanUnit::Character,
            start: start?,
            end: end?,
        })
    };
    match annotation.get("type")?.as_str()? {
        "url_citation" => Some(Citation {
            url: text("url"),
            title: text("title"),
            answer: span(number("start_index"), number("end_index")),
            ..Citation::default()
        }),
        "file_citation" => Some(Citation {
            title: text("filename"),
            document: text("file_id").and_then(|id| id.strip_prefix(DOCUMENT)?.parse().ok()),
            answer: span(number("index"), number("index")),
            ..Citation::default()
        }),
        "container_file_citation" => Some(Citation {
            title: text("filename"),
            answer: span(number("start_index"), number("end_index")),
            ..Citation::default()
        }),
        _ => None,
    }
}

/// The annotation for a text of `length` characters so far. It has no place for the source's own words.
pub(super) fn write(citation: &Citation, length: u64) -> Value {
    let (start, end) = match &citation.answer {
        Some(span) if span.unit == SpanUnit::Character => (span.start, span.end),
        _ => (0, length),
    };
    let title = citation.title.as_deref().unwrap_or_default();
    match &citation.url {
        Some(url) => {
            json!({ "type": "url_citation", "url": url, "title": title, "start_index": start, "end_index": end })
        }
        None => {
            let document = citation.document.unwrap_or_default();
            json!({ "type": "file_citation", "file_id": format!("{DOCUMENT}{document}"), "filename": title, "index": end })
        }
    }
}
