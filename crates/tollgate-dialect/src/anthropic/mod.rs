//! Anthropic's Messages, as its API reference describes it.

pub mod client;
pub mod count;
pub(crate) mod frames;
pub mod provider;
mod reader;
mod turns;
mod write;
mod writer;

use serde_json::Value;
use tollgate_types::chat::{Citation, Span, SpanUnit};

/// The version of the API that requests are made for.
pub const VERSION: &str = "2023-06-01";

/// What a citation of an answer says. None for what has no place in the superset: search results of the client's own.
fn citation(value: &Value) -> Option<Citation> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let number = |name: &str| value.get(name).and_then(Value::as_u64);
    let span = |unit, start: &str, end: &str| {
        let (start, end) = number(start).zip(number(end))?;
        Some(Span { unit, start, end })
    };
    let source = match value.get("type").and_then(Value::as_str)? {
        "char_location" => span(SpanUnit::Character, "start_char_index", "end_char_index"),
        "page_location" => span(SpanUnit::Page, "start_page_number", "end_page_number"),
        "content_block_location" => span(SpanUnit::Block, "start_block_index", "end_block_index"),
        "web_search_result_location" => None,
        _ => return None,
    };
    Some(Citation {
        url: text("url"),
        title: text("document_title").or_else(|| text("title")),
        quote: text("cited_text"),
        answer: None,
        document: number("document_index"),
        source,
    })
}

/// The same for a client.
fn citation_object(citation: &Citation) -> Value {
    let quote = citation.quote.as_deref().unwrap_or_default();
    if let Some(url) = &citation.url {
        return serde_json::json!({
            "type": "web_search_result_location",
            "cited_text": quote,
            "url": url,
            "title": citation.title,
            "encrypted_index": "",
        });
    }
    let source = citation.source.unwrap_or(Span {
        unit: SpanUnit::Character,
        start: 0,
        end: 0,
    });
    let (kind, start, end) = match source.unit {
        SpanUnit::Character => ("char_location", "start_char_index", "end_char_index"),
        SpanUnit::Page => ("page_location", "start_page_number", "end_page_number"),
        SpanUnit::Block => ("content_block_location", "start_block_index", "end_block_index"),
    };
    let mut object = serde_json::json!({
        "type": kind,
        "cited_text": quote,
        "document_index": citation.document.unwrap_or_default(),
        "document_title": citation.title,
    });
    object[start] = source.start.into();
    object[end] = source.end.into();
    object
}
