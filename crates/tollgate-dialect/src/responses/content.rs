//! Parts of a client's turns.

use serde_json::{Value, json};
use tollgate_types::chat::{Cache, Media, Part};

use super::{
    citation,
    take::{Object, plain},
};
use crate::Invalid;

/// Fields of parts that change no answer. An output's `logprobs` are of an earlier answer.
const HINTS: [&str; 1] = ["logprobs"];

/// Reads a string or an array of parts.
pub(super) fn read(value: Option<Value>, at: &str, beyond: &mut Vec<String>) -> Result<Vec<Part>, Invalid> {
    let parts = match value {
        Some(Value::String(text)) => return Ok(vec![Part::text(text)]),
        Some(Value::Array(parts)) => parts,
        _ => {
            let message = format!("`{at}` must be a string or an array of parts");
            return Err(Invalid::at(at, message));
        }
    };
    let mut content = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        content.extend(read_part(Object::new(part, format!("{at}[{index}]"))?, beyond)?);
    }
    Ok(content)
}

/// None for kinds of parts that only this dialect has; they are named in `beyond`.
fn read_part(mut part: Object, beyond: &mut Vec<String>) -> Result<Option<Part>, Invalid> {
    let kind = part.required_text("type")?;
    let read = match kind.as_str() {
        "input_text" | "output_text" | "text" => Part::Text {
            text: part.required_text("text")?,
            cache: cache(&mut part, beyond)?,
            citations: part.array("annotations")?.iter().filter_map(citation::read).collect(),
        },
        "refusal" => Part::Refusal {
            text: part.required_text("refusal")?,
        },
        "input_image" => image(&mut part, beyond)?,
        "input_file" => file(&mut part, beyond)?,
        "input_audio" => audio(&mut part, beyond)?,
        kind => {
            beyond.push(format!("{}: type {}", part.at(), plain(kind)));
            return Ok(None);
        }
    };
    part.rest(&HINTS, beyond);
    Ok(Some(read))
}

fn image(part: &mut Object, beyond: &mut Vec<String>) -> Result<Part, Invalid> {
    let media = match (part.text("file_id")?, part.text("image_url")?) {
        (Some(id), None) => Media::Uploaded { id },
        (None, Some(url)) => inline_or_address(part, "image_url", &url)?,
        _ => return Err(Invalid::at(part.at(), "an image needs either `image_url` or `file_id`")),
    };
    let detail = part.text("detail")?.filter(|detail| {
        let known = ["low", "high", "auto"].contains(&detail.as_str());
        if !known {
            beyond.push(format!("{}: {}", part.path("detail"), plain(detail)));
        }
        known
    });
    Ok(Part::Image {
        media,
        detail,
        cache: cache(part, beyond)?,
    })
}

fn file(part: &mut Object, beyond: &mut Vec<String>) -> Result<Part, Invalid> {
    let filename = part.text("filename")?;
    let media = match (part.text("file_id")?, part.text("file_url")?, part.text("file_data")?) {
        (Some(id), None, None) => Media::Uploaded { id },
        (None, Some(url), None) => inline_or_address(part, "file_url", &url)?,
        (None, None, Some(data)) if data.starts_with("data:") => inline_or_address(part, "file_data", &data)?,
        (None, None, Some(data)) => Media::Inline {
            media_type: media_type_of(filename.as_deref().unwrap_or_default()).to_owned(),
            data,
        },
        _ => {
            let message = "a file needs either `file_data`, `file_url` or `file_id`";
            return Err(Invalid::at(part.at(), message));
        }
    };
    part.take_default("detail", &json!("auto"));
    Ok(Part::File {
        media,
        filename,
        cache: cache(part, beyond)?,
    })
}

fn audio(part: &mut Object, beyond: &mut Vec<String>) -> Result<Part, Invalid> {
    let Some(mut sound) = part.object("input_audio")? else {
        return Err(part.wrong("input_audio", "an object"));
    };
    let format = sound.required_text("format")?;
    let media = Media::Inline {
        media_type: format!("audio/{}", if format == "mp3" { "mpeg" } else { &format }),
        data: sound.required_text("data")?,
    };
    sound.rest(&[], beyond);
    Ok(Part::Audio {
        media,
        cache: cache(part, beyond)?,
    })
}

fn inline_or_address(part: &Object, name: &str, url: &str) -> Result<Media, Invalid> {
    match Media::from_url(url) {
        Media::Url { url, .. } if url.starts_with("data:") => Err(part.wrong(name, "a URL; data in it must be base64")),
        media => Ok(media),
    }
}

/// What a file is that comes as bare base64.
fn media_type_of(filename: &str) -> &'static str {
    let end = filename.rsplit_once('.').map_or("", |(_, end)| end);
    match end.to_ascii_lowercase().as_str() {
        "txt" => "text/plain",
        "md" => "text/markdown",
        "csv" => "text/csv",
        "html" | "htm" => "text/html",
        "json" => "application/json",
        _ => "application/pdf",
    }
}

/// A breakpoint of the prompt cache. Its shortest time, 30 minutes, is what providers choose themselves; half a day comes
/// nearest to the longest that others know.
fn cache(part: &mut Object, beyond: &mut Vec<String>) -> Result<Option<Cache>, Invalid> {
    let Some(mut breakpoint) = part.object("prompt_cache_breakpoint")? else {
        return Ok(None);
    };
    let ttl = breakpoint.text("ttl")?;
    breakpoint.rest(&["mode"], beyond);
    Ok(Some(Cache {
        ttl: (ttl.as_deref() == Some("12h")).then(|| "1h".to_owned()),
    }))
}
