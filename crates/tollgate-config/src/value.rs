//! Texts as values: sizes, times, names, hashes. Each function's error is a message for the user.

use std::{net::SocketAddr, time::Duration};

use chrono::{DateTime, Utc};
use tollgate_types::{Dialect, Door, Lane, Role, provider::OnUnsupported};

use crate::{
    SecretRef,
    mistake::{quoted, suggestion},
    schema::{LogFormat, Mask, Permission},
};

pub(crate) const KIB: usize = 1024;
pub(crate) const MIB: usize = 1024 * KIB;
pub(crate) const GIB: usize = 1024 * MIB;

const UNITS: [(&str, usize); 7] = [
    ("GiB", GIB),
    ("MiB", MIB),
    ("KiB", KIB),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("kB", 1_000),
];

/// `512KiB`, `32MiB`, `1MB`, `100B` or plain bytes.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    let (digits, unit) = number_and_unit(text);
    let factor = match unit {
        "" | "B" => Some(1),
        _ => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor),
    };
    let number = digits.parse::<usize>().ok();
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| "expected a size such as 512KiB, 32MiB, 1MB or a number of bytes".to_owned())
}

/// The shortest exact form of a size.
pub(crate) fn size_text(size: usize) -> String {
    let unit = UNITS[..3]
        .iter()
        .find(|(_, factor)| size >= *factor && size.is_multiple_of(*factor));
    unit.map_or_else(
        || format!("{size}B"),
        |(name, factor)| format!("{}{name}", size / factor),
    )
}

/// Longest length of time; well below where adding it to a clock could overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// `500ms`, `2s`, `10m`, `1h` or `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = number_and_unit(text);
    let milliseconds: Option<u64> = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let number = digits.parse::<u64>().ok();
    let duration = number
        .zip(milliseconds)
        .ok_or_else(|| "expected a length of time such as 500ms, 2s, 10m, 1h or 7d".to_owned())
        .map(|(number, factor)| Duration::from_millis(number.saturating_mul(factor)))?;
    if duration.is_zero() || duration > LONGEST {
        return Err("out of range, expected a length of time from 1ms to 366d".to_owned());
    }
    Ok(duration)
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    (digits, unit.trim_start_matches(' '))
}

/// A part of a whole.
pub(crate) fn share(text: &str) -> Result<f64, &'static str> {
    let share = text.parse::<f64>().ok();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or("expected a number from 0 to 1")
}

/// An address to listen on.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "expected an IP address and a port, such as 127.0.0.1:8080 or [::]:8080".to_owned())
}

/// The name of a provider, policy or key. A provider's becomes a part of a NATS subject.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err("expected a name of 1 to 64 letters, digits, - and _".to_owned())
}

/// The public name of a model.
pub(crate) fn model_name(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'*' && byte != b'>';
    if (1..=128).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err("expected a model name of 1 to 128 ASCII characters without spaces, * and >".to_owned())
}

/// The name by which a provider knows a model: whatever it likes, within reason.
pub(crate) fn provider_model(text: &str) -> Result<String, String> {
    line(text, 256)
}

/// A text that is not empty and has no control characters; at most `longest` bytes.
pub(crate) fn line(text: &str, longest: usize) -> Result<String, String> {
    if (1..=longest).contains(&text.len()) && !text.trim().is_empty() && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "expected a text of 1 to {longest} bytes without control characters"
    ))
}

/// `sha256:` and 64 hexadecimal digits. The message does not repeat the value: it may be a key pasted by mistake.
pub(crate) fn hash(text: &str) -> Result<[u8; 32], &'static str> {
    const MESSAGE: &str = "expected sha256: and 64 hexadecimal digits, the hash of the key and never the key itself";
    let digits = text
        .strip_prefix("sha256:")
        .filter(|digits| digits.len() == 64)
        .ok_or(MESSAGE)?;
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = hex_digit(pair[0])
            .zip(hex_digit(pair[1]))
            .map(|(high, low)| high << 4 | low)
            .ok_or(MESSAGE)?;
    }
    Ok(hash)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// `env:NAME` or `file:/path`. The message does not repeat the value: it may be a secret pasted by mistake.
pub(crate) fn secret(text: &str) -> Result<SecretRef, &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if let Some(name) = text.strip_prefix("env:") {
        let valid = !name.is_empty() && name.bytes().all(word) && !name.starts_with(|c: char| c.is_ascii_digit());
        return if valid {
            Ok(SecretRef::Env(name.to_owned()))
        } else {
            Err("env: must be followed by the name of a variable")
        };
    }
    if let Some(path) = text.strip_prefix("file:") {
        let valid = !path.trim().is_empty() && !path.chars().any(char::is_control);
        return if valid {
            Ok(SecretRef::File(path.into()))
        } else {
            Err("file: must be followed by the path of a file")
        };
    }
    Err("expected env:NAME or file:/path, a secret itself must not be in this file")
}

/// A moment in RFC 3339.
pub(crate) fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    DateTime::parse_from_rfc3339(text)
        .map(|moment| moment.to_utc())
        .map_err(|_| "expected a date and time with time zone, such as 2030-01-31T00:00:00Z".to_owned())
}

/// A filter in `tracing`'s syntax, which is left to it to check.
pub(crate) fn log_filter(text: &str) -> Result<String, String> {
    line(text, 4096)
}

fn one_of<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*choice);
    }
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    let near = suggestion(text, names.iter().copied());
    Err(format!("expected {}, found {}{near}", names.join(" or "), quoted(text)))
}

pub(crate) fn log_format(text: &str) -> Result<LogFormat, String> {
    one_of(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
}

pub(crate) fn permission(text: &str) -> Result<Permission, String> {
    named(text, Permission::ALL)
}

pub(crate) fn role(text: &str) -> Result<Role, String> {
    named(text, Role::ALL)
}

pub(crate) fn door(text: &str) -> Result<Door, String> {
    named(text, Door::ALL)
}

pub(crate) fn lane(text: &str) -> Result<Lane, String> {
    named(text, Lane::ALL)
}

fn named<T: Copy + Into<&'static str>>(text: &str, all: &[T]) -> Result<T, String> {
    let choices: Vec<(&str, T)> = all.iter().map(|one| ((*one).into(), *one)).collect();
    one_of(text, &choices)
}

pub(crate) fn mask(text: &str) -> Result<Mask, String> {
    one_of(text, &[("email", Mask::Email), ("card", Mask::Card)])
}

pub(crate) fn dialect(text: &str) -> Result<Dialect, String> {
    one_of(
        text,
        &[
            ("openai", Dialect::OpenaiChat),
            ("openai_responses", Dialect::OpenaiResponses),
            ("anthropic", Dialect::Anthropic),
            ("gemini", Dialect::Gemini),
            ("bedrock", Dialect::Bedrock),
        ],
    )
}

pub(crate) fn unsupported(text: &str) -> Result<OnUnsupported, String> {
    one_of(
        text,
        &[("refuse", OnUnsupported::Refuse), ("drop", OnUnsupported::Drop)],
    )
}

/// A part of a host name: a region, a project, an Azure resource.
pub(crate) fn label(text: &str) -> Result<String, &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if text.is_empty() || text.len() > 63 || !text.bytes().all(plain) {
        return Err("expected letters, digits and - only, at most 63");
    }
    Ok(text.to_owned())
}

/// A version of Azure's API: `2024-10-21`, `preview`.
pub(crate) fn api_version(text: &str) -> Result<String, &'static str> {
    label(text)
}

/// How a key is sent, before it is known whether there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AuthKind {
    Bearer,
    Header(String),
    Aws,
    Google,
}

/// A field of [`tollgate_types::provider::Quirks`] by its name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Quirk {
    MaxTokens,
    NoDeveloper,
    NoJsonSchema,
    NoStreamOptions,
}

pub(crate) fn quirk(text: &str) -> Result<Quirk, String> {
    one_of(
        text,
        &[
            ("max_tokens", Quirk::MaxTokens),
            ("no_developer", Quirk::NoDeveloper),
            ("no_json_schema", Quirk::NoJsonSchema),
            ("no_stream_options", Quirk::NoStreamOptions),
        ],
    )
}

pub(crate) fn auth(text: &str) -> Result<AuthKind, String> {
    if let Some(name) = text.strip_prefix("header:") {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return Err("expected header: and the header's name in lower case, such as header:x-api-key".to_owned());
        }
        return Ok(AuthKind::Header(name.to_owned()));
    }
    #[derive(Clone, Copy)]
    enum Plain {
        Bearer,
        Aws,
        Google,
    }
    let choices = [
        ("bearer", Plain::Bearer),
        ("aws", Plain::Aws),
        ("google", Plain::Google),
    ];
    Ok(match one_of(text, &choices)? {
        Plain::Bearer => AuthKind::Bearer,
        Plain::Aws => AuthKind::Aws,
        Plain::Google => AuthKind::Google,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17B", 17),
            ("512KiB", 524_288),
            ("1MB", 1_000_000),
            ("2 GiB", 2 * GIB),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "KiB",
            "-1",
            "1.5MiB",
            "1MIB",
            "1 M",
            "99999999999999999999",
            "18446744073709551615KiB",
            "١KiB",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(size_text(900 * KIB), "900KiB");
        assert_eq!(size_text(GIB), "1GiB");
        assert_eq!(size_text(1000), "1000B");
    }

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("500ms", 500),
            ("2s", 2_000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in [
            "",
            "s",
            "5",
            "0s",
            "-1s",
            "1.5s",
            "1w",
            "5S",
            "367d",
            "18446744073709551615d",
            "99999999999999999999s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names() {
        assert!(name("open-AI_2").is_ok());
        assert!(name(&"x".repeat(64)).is_ok());
        for text in ["", "a.b", "a b", "a*", "a>", "é", "a\n", &"x".repeat(65)] {
            assert!(name(text).is_err(), "{text}");
        }
        assert!(model_name("meta/llama-3.1:8b").is_ok());
        for text in ["", "a b", "a*", ">", "é", "a\t", "a\u{7f}", &"x".repeat(129)] {
            assert!(model_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hashes() {
        assert_eq!(
            hash(&format!("sha256:{}", "0fA1".repeat(16))).unwrap()[..2],
            [0x0f, 0xa1]
        );
        for text in [
            "".to_owned(),
            "0".repeat(64),
            format!("sha256:{}", "0".repeat(63)),
            format!("sha256:{}", "+1".repeat(32)),
            format!("sha256:{}", "é".repeat(32)),
        ] {
            assert!(hash(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_are_references_and_never_repeated() {
        assert_eq!(
            secret("env:OPENAI_API_KEY"),
            Ok(SecretRef::Env("OPENAI_API_KEY".into()))
        );
        assert_eq!(
            secret("file:/run/secrets/a b"),
            Ok(SecretRef::File("/run/secrets/a b".into()))
        );
        for text in [
            "sk-proj-123",
            "env:",
            "env:sk-proj-123",
            "env:1A",
            "file:",
            "file: ",
            "ENV:A",
            "",
        ] {
            let message = secret(text).unwrap_err();
            assert!(!message.contains("sk-proj"), "{message}");
        }
    }

    #[test]
    fn moments_have_a_zone() {
        assert_eq!(
            moment("2030-01-31T02:00:00+02:00").unwrap(),
            moment("2030-01-31T00:00:00Z").unwrap()
        );
        assert!(moment("2030-01-31").is_err());
        assert!(moment("2030-01-31T00:00:00").is_err());
    }
}
