//! Images, sounds and documents. Converse takes their bytes, or a place in S3; it fetches nothing from the web.

use std::collections::HashSet;

use tollgate_types::chat::Media;

use super::wire::{Block, Source};
use crate::{Refused, side::Losses};

/// Most characters of a document's name.
const LONGEST_NAME: usize = 200;

/// Formats by media type, and by the end of a name.
type Formats = [(&'static str, &'static [&'static str], &'static [&'static str])];

const IMAGES: &Formats = &[
    ("png", &["image/png"], &["png"]),
    ("jpeg", &["image/jpeg", "image/jpg"], &["jpeg", "jpg"]),
    ("gif", &["image/gif"], &["gif"]),
    ("webp", &["image/webp"], &["webp"]),
];

const SOUNDS: &Formats = &[
    ("mp3", &["audio/mp3", "audio/mpeg"], &["mp3"]),
    (
        "wav",
        &["audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"],
        &["wav"],
    ),
    ("opus", &["audio/opus"], &["opus"]),
    ("aac", &["audio/aac"], &["aac"]),
    ("x-aac", &["audio/x-aac"], &[]),
    ("flac", &["audio/flac", "audio/x-flac"], &["flac"]),
    ("ogg", &["audio/ogg"], &["ogg"]),
    ("m4a", &["audio/m4a", "audio/x-m4a"], &["m4a"]),
    ("mp4", &["audio/mp4"], &["mp4"]),
    ("webm", &["audio/webm"], &["webm"]),
    ("mka", &["audio/x-matroska", "audio/matroska"], &["mka"]),
    ("pcm", &["audio/pcm", "audio/pcm16", "audio/l16"], &["pcm"]),
];

const DOCUMENTS: &Formats = &[
    ("pdf", &["application/pdf"], &["pdf"]),
    ("csv", &["text/csv"], &["csv"]),
    ("doc", &["application/msword"], &["doc"]),
    (
        "docx",
        &["application/vnd.openxmlformats-officedocument.wordprocessingml.document"],
        &["docx"],
    ),
    ("xls", &["application/vnd.ms-excel"], &["xls"]),
    (
        "xlsx",
        &["application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"],
        &["xlsx"],
    ),
    ("html", &["text/html"], &["html", "htm"]),
    ("md", &["text/markdown", "text/x-markdown"], &["md"]),
    (
        "txt",
        &["text/plain", "application/json", "application/xml"],
        &["txt", "json", "xml"],
    ),
];

/// Turns media into blocks, and gives documents their names.
#[derive(Default)]
pub(super) struct Attachments {
    names: HashSet<String>,
}

impl Attachments {
    /// None when it was left out. `at` says where in the request it is.
    pub(super) fn image<'a>(media: &'a Media, at: &str, losses: &mut Losses) -> Result<Option<Block<'a>>, Refused> {
        let found = locate(media, None, IMAGES, at, "an image", losses)?;
        Ok(found.map(|(format, source)| Block::Image { format, source }))
    }

    pub(super) fn audio<'a>(media: &'a Media, at: &str, losses: &mut Losses) -> Result<Option<Block<'a>>, Refused> {
        let found = locate(media, None, SOUNDS, at, "a sound", losses)?;
        Ok(found.map(|(format, source)| Block::Audio { format, source }))
    }

    pub(super) fn document<'a>(
        &mut self,
        media: &'a Media,
        filename: Option<&'a str>,
        at: &str,
        losses: &mut Losses,
    ) -> Result<Option<Block<'a>>, Refused> {
        let found = locate(media, filename, DOCUMENTS, at, "a document", losses)?;
        Ok(found.map(|(format, source)| Block::Document {
            format,
            name: self.name(filename),
            source,
        }))
    }

    /// Names may hold only ASCII letters, digits, single spaces, hyphens, parentheses and brackets, and each only once.
    fn name(&mut self, filename: Option<&str>) -> String {
        let stem = filename.map_or("Document", |name| name.rsplit_once('.').map_or(name, |(stem, _)| stem));
        let plain: String = stem
            .chars()
            .map(|c| match c {
                c if c.is_ascii_alphanumeric() || "-()[]".contains(c) => c,
                c if c.is_whitespace() => ' ',
                _ => '-',
            })
            .take(LONGEST_NAME)
            .collect();
        let plain = plain
            .split(' ')
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        let plain = if plain.is_empty() { "Document".to_owned() } else { plain };
        let mut name = plain.clone();
        let mut number = 2;
        while !self.names.insert(name.clone()) {
            let end = format!(" ({number})");
            let room = plain.len().min(LONGEST_NAME - end.len());
            name = plain[..room].trim_end().to_owned() + &end;
            number += 1;
        }
        name
    }
}

/// The format, and where the bytes are.
fn locate<'a>(
    media: &'a Media,
    filename: Option<&str>,
    formats: &Formats,
    at: &str,
    what: &str,
    losses: &mut Losses,
) -> Result<Option<(&'static str, Source<'a>)>, Refused> {
    let (media_type, name, source) = match media {
        Media::Inline { media_type, data } => (Some(media_type.as_str()), filename, Source::Bytes(data)),
        Media::Url { url, media_type } if url.starts_with("s3://") => {
            let name = filename.filter(|name| name.contains('.')).unwrap_or(url);
            (media_type.as_deref(), Some(name), Source::S3Location { uri: url })
        }
        Media::Url { .. } => {
            losses.cannot(format!("{at}: {what} at a web address"))?;
            return Ok(None);
        }
        Media::Uploaded { .. } => {
            losses.cannot(format!("{at}: {what} that was uploaded"))?;
            return Ok(None);
        }
    };
    let Some(format) = format(formats, media_type, name) else {
        losses.cannot(format!("{at}: {what} of this format"))?;
        return Ok(None);
    };
    Ok(Some((format, source)))
}

/// The format that a media type or, without one that is known, a name tells.
fn format(formats: &Formats, media_type: Option<&str>, name: Option<&str>) -> Option<&'static str> {
    let essence = media_type
        .map(|media_type| {
            media_type
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_ascii_lowercase()
        })
        .unwrap_or_default();
    let end = name
        .and_then(|name| name.rsplit_once('.'))
        .map(|(_, end)| end.to_ascii_lowercase())
        .unwrap_or_default();
    let by_type = formats.iter().find(|(_, types, _)| types.contains(&essence.as_str()));
    let by_name = || formats.iter().find(|(_, _, ends)| ends.contains(&end.as_str()));
    let any_text = || {
        formats
            .iter()
            .find(|(format, _, _)| *format == "txt" && essence.starts_with("text/"))
    };
    by_type.or_else(by_name).or_else(any_text).map(|(format, _, _)| *format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_names_are_plain_and_unique() {
        let mut attachments = Attachments::default();
        let long = "x".repeat(300);
        let names = [
            Some("Report: Q1/2.pdf"),
            Some("Report: Q1/2.docx"),
            Some("a  \u{a0}b_é.txt"),
            Some(""),
            None,
            Some("no end [1] (b)"),
            Some(&long),
            Some(&long),
        ]
        .map(|name| attachments.name(name));
        assert_eq!(
            names[..6],
            [
                "Report- Q1-2",
                "Report- Q1-2 (2)",
                "a b--",
                "Document",
                "Document (2)",
                "no end [1] (b)"
            ]
        );
        assert!(names[6..].iter().all(|name| name.len() == LONGEST_NAME) && names[6] != names[7]);
    }

    #[test]
    fn formats_come_from_the_type_then_from_the_name() {
        assert_eq!(format(DOCUMENTS, Some("application/PDF"), Some("x.txt")), Some("pdf"));
        assert_eq!(
            format(DOCUMENTS, Some("application/octet-stream"), Some("x.XLSX")),
            Some("xlsx")
        );
        assert_eq!(format(DOCUMENTS, Some("text/x-python"), None), Some("txt"));
        assert_eq!(format(IMAGES, None, Some("s3://b/k.JPG")), Some("jpeg"));
        assert_eq!(format(IMAGES, Some("image/bmp"), None), None);
    }
}
