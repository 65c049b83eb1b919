//! The caller's key, wherever its client puts it.

use axum::http::{HeaderMap, Uri, header};
use tollgate_types::{ErrorCode, Failure};

/// Headers that hold a key alone: Anthropic's, Google's and Azure's clients send them.
const KEY_HEADERS: [&str; 3] = ["x-api-key", "x-goog-api-key", "api-key"];

/// The one key that a request carries. Two different ones are none: which one counts must not depend on who reads them.
pub(super) fn credential(headers: &HeaderMap, uri: &Uri) -> Result<String, Failure> {
    let refused = |message: &str| Failure::new(ErrorCode::Unauthenticated, message);
    let mut found: Option<String> = None;
    let mut take = |key: String| match &found {
        Some(known) if *known != key => Err(refused("the request carries several credentials")),
        _ => {
            found = Some(key);
            Ok(())
        }
    };
    for value in headers.get_all(header::AUTHORIZATION) {
        let key = value
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .ok_or_else(|| refused("the Authorization header is not of the form `Bearer <key>`"))?;
        take(key.1.trim().to_owned())?;
    }
    for name in KEY_HEADERS {
        for value in headers.get_all(name) {
            let key = value.to_str().map_err(|_| refused("the API key is not valid"))?;
            take(key.trim().to_owned())?;
        }
    }
    // Google's clients of old; a key of ours has no character that would be escaped.
    for pair in uri.query().unwrap_or_default().split('&') {
        if let Some(key) = pair.strip_prefix("key=") {
            take(key.to_owned())?;
        }
    }
    found.ok_or_else(|| refused("no API key was given: send `Authorization: Bearer <key>`"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn read(headers: &[(&'static str, &'static str)], uri: &str) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        credential(&map, &uri.parse().unwrap()).ok()
    }

    #[test]
    fn a_key_is_found_wherever_clients_put_it() {
        for headers in [
            ("authorization", "bearer k"),
            ("x-api-key", "k"),
            ("x-goog-api-key", " k "),
        ] {
            assert_eq!(read(&[headers], "/").as_deref(), Some("k"));
        }
        assert_eq!(read(&[], "/v1beta/models?alt=sse&key=k").as_deref(), Some("k"));
        assert_eq!(read(&[], "/?monkey=k"), None);
        assert_eq!(read(&[("authorization", "Basic k")], "/"), None);
    }

    #[test]
    fn two_credentials_are_none_unless_they_are_the_same() {
        assert_eq!(
            read(&[("authorization", "Bearer a"), ("authorization", "Bearer b")], "/"),
            None
        );
        assert_eq!(read(&[("authorization", "Bearer a"), ("x-api-key", "b")], "/"), None);
        assert_eq!(read(&[("x-api-key", "a")], "/?key=b"), None);
        assert_eq!(
            read(&[("authorization", "Bearer a"), ("x-api-key", "a")], "/").as_deref(),
            Some("a")
        );
    }
}
