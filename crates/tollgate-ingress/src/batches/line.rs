//! Lines of files: requests as clients upload them, and what came of them.

use std::{borrow::Cow, collections::HashSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};
use tollgate_bus::batches::LineMistake;
use tollgate_types::{ErrorCode, Failure, JobEnd};

/// A request of a batch.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestLine<'a> {
    #[serde(borrow)]
    pub(super) custom_id: Cow<'a, str>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    url: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) body: &'a RawValue,
}

/// Longest name of a request, in bytes.
const LONGEST_ID: usize = 512;

impl<'a> RequestLine<'a> {
    /// Reads a line, which must go to `endpoint`.
    pub(super) fn read(line: &'a [u8], endpoint: &str) -> Result<Self, Mistake> {
        let read: Self = serde_json::from_slice(line)
            .map_err(|error| Mistake::new("invalid_json_line", format!("the line is no request: {error}"), None))?;
        if read.custom_id.is_empty() || read.custom_id.len() > LONGEST_ID {
            let message = "expected 1 to 512 bytes".to_owned();
            return Err(Mistake::new("invalid_custom_id", message, Some("custom_id")));
        }
        if read.method != "POST" {
            return Err(Mistake::new(
                "invalid_method",
                "expected POST".to_owned(),
                Some("method"),
            ));
        }
        if read.url != endpoint {
            let message = format!("expected the endpoint of the batch, {endpoint}");
            return Err(Mistake::new("mismatched_endpoint", message, Some("url")));
        }
        Ok(read)
    }
}

/// What is wrong with a line.
#[derive(Debug)]
pub(super) struct Mistake {
    code: String,
    message: String,
    param: Option<String>,
}

impl Mistake {
    pub(super) fn new(code: &str, message: String, param: Option<&str>) -> Self {
        Self {
            code: code.to_owned(),
            message,
            param: param.map(str::to_owned),
        }
    }

    pub(super) fn at(self, line: Option<u64>) -> LineMistake {
        LineMistake {
            line,
            code: self.code,
            message: self.message,
            param: self.param,
        }
    }
}

impl From<crate::reception::Rejection> for Mistake {
    fn from(rejection: crate::reception::Rejection) -> Self {
        let Failure { code, message, .. } = rejection.failure;
        Self {
            code: code.as_str().to_owned(),
            message,
            param: rejection.param,
        }
    }
}

/// Names that a file has had, which are hashed, because a file may have 100,000 long ones.
#[derive(Default)]
pub(super) struct Names {
    seen: HashSet<[u8; 16]>,
}

impl Names {
    pub(super) fn take(&mut self, name: &str) -> Result<(), Mistake> {
        use sha2::{Digest, Sha256};
        let mut short = [0; 16];
        short.copy_from_slice(&Sha256::digest(name)[..16]);
        if self.seen.insert(short) {
            return Ok(());
        }
        let message = "another line of the file has the same".to_owned();
        Err(Mistake::new("duplicate_custom_id", message, Some("custom_id")))
    }
}

/// Reads a file line by line; empty ones are passed over.
pub(super) struct Lines<R> {
    reader: R,
    longest: usize,
    /// Of the last line, from 1.
    pub(super) number: u64,
}

/// Why there is no next line.
#[derive(Debug)]
pub(super) enum Unreadable {
    TooLong,
    Broken(std::io::Error),
}

impl<R: AsyncBufRead + Unpin + Send> Lines<R> {
    pub(super) const fn new(reader: R, longest: usize) -> Self {
        Self {
            reader,
            longest,
            number: 0,
        }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Unreadable> {
        loop {
            let mut line = Vec::new();
            let mut bounded = (&mut self.reader).take(self.longest as u64 + 1);
            let read = bounded.read_until(b'\n', &mut line).await;
            if read.map_err(Unreadable::Broken)? == 0 {
                return Ok(None);
            }
            self.number += 1;
            if line.len() > self.longest {
                return Err(Unreadable::TooLong);
            }
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line.into()));
            }
        }
    }
}

/// What came of a request.
#[derive(Serialize)]
pub(super) struct ResultLine<'a> {
    id: String,
    custom_id: &'a str,
    response: Option<Answered>,
    error: Option<Failed<'a>>,
}

#[derive(Serialize)]
struct Answered {
    status_code: u16,
    request_id: String,
    body: Box<RawValue>,
}

#[derive(Serialize)]
struct Failed<'a> {
    code: &'a str,
    message: &'a str,
}

impl<'a> ResultLine<'a> {
    /// The line of a request that ended so; `answer` is the body of its answer.
    pub(super) fn new(custom_id: &'a str, end: &'a JobEnd, answer: Option<Bytes>) -> Self {
        let body = answer.and_then(|answer| String::from_utf8(answer.into()).ok());
        let response = body
            .and_then(|body| RawValue::from_string(body).ok())
            .map(|body| Answered {
                status_code: 200,
                request_id: end.id.request_id().to_string(),
                body,
            });
        let error = match (&response, &end.failure) {
            (Some(_), _) => None,
            (None, Some(failure)) => Some(Failed {
                // The name that OpenAI's clients know.
                code: match failure.code {
                    ErrorCode::DeadlineExceeded => "batch_expired",
                    ErrorCode::Cancelled => "batch_cancelled",
                    code => code.as_str(),
                },
                message: &failure.message,
            }),
            (None, None) => Some(Failed {
                code: "dropped",
                message: "the answer is not stored any more",
            }),
        };
        Self {
            id: format!("batch_req_{}", end.id.as_uuid().simple()),
            custom_id,
            response,
            error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = "/v1/chat/completions";

    fn refused(line: &str) -> (String, Option<String>) {
        let mistake = RequestLine::read(line.as_bytes(), CHAT).err().unwrap();
        (mistake.code, mistake.param)
    }

    #[test]
    fn a_line_is_a_request_or_says_why_not() {
        let line = r#"{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"n": 1}}"#;
        let read = RequestLine::read(line.as_bytes(), CHAT).unwrap();
        assert_eq!((read.custom_id.as_ref(), read.body.get()), ("a", r#"{"n": 1}"#));
        let param = |name: &str| Some(name.to_owned());
        for bad in ["", "{", "[]", "\u{0}", &line.replace("\"method\"", "\"other\"")] {
            assert_eq!(refused(bad).0, "invalid_json_line", "{bad}");
        }
        assert_eq!(refused(&line.replace("POST", "GET")).1, param("method"));
        assert_eq!(refused(&line.replace("completions", "x")).1, param("url"));
        assert_eq!(refused(&line.replace("\"a\"", "\"\"")).1, param("custom_id"));
        assert!(RequestLine::read(b"\xff", CHAT).is_err());
    }

    #[tokio::test]
    async fn lines_are_bounded_and_counted() {
        let mut lines = Lines::new(&b"one\n\n  \r\ntwo\nfour and more\n"[..], 8);
        assert_eq!(lines.next().await.unwrap().unwrap(), "one\n");
        assert_eq!(lines.next().await.unwrap().unwrap(), "two\n");
        assert_eq!(lines.number, 4);
        assert!(matches!(lines.next().await, Err(Unreadable::TooLong)));
        let mut lines = Lines::new(&b"last"[..], 8);
        assert_eq!(lines.next().await.unwrap().unwrap(), "last");
        assert!(lines.next().await.unwrap().is_none());
    }

    #[test]
    fn a_name_is_used_once() {
        let mut names = Names::default();
        assert!(names.take("a").is_ok() && names.take("b").is_ok() && names.take("a").is_err());
    }
}
