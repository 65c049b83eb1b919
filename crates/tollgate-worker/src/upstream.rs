//! The provider's HTTPS API.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use reqwest::{
    Client, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    redirect,
};
use tollgate_config::schema::{Provider, Worker};
use tollgate_dialect::{Framing, ProviderError, anthropic};
use tollgate_types::{AttemptId, Dialect, ErrorCode, Failure};

use crate::{Error, auth::Auth};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An error body is a sentence; more is not read.
const MAX_ERROR_BODY: usize = 64 << 10;
/// A wait of more than a day is a mistake.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(86_400);
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// A provider.
pub(crate) struct Upstream {
    client: Client,
    dialect: Dialect,
    base_url: String,
    /// Azure's version of the API, for deployments that are named in the path.
    api_version: Option<String>,
    auth: Auth,
    first_byte_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) max_answer_bytes: usize,
    pub(crate) max_event_bytes: usize,
}

/// What a provider is sent.
pub(crate) struct Message<'a> {
    /// Goes along, so that the provider's log and the ledger can be matched.
    pub(crate) attempt: AttemptId,
    /// Below the base URL.
    pub(crate) path: &'a str,
    pub(crate) model: &'a str,
    pub(crate) body: Bytes,
    pub(crate) framing: Framing,
    /// The client's own, when it speaks the provider's dialect.
    pub(crate) headers: &'a BTreeMap<String, String>,
}

/// Why there is no answer.
pub(crate) struct Refused {
    pub(crate) failure: Failure,
    /// Whether the provider may have worked on the request, and may bill it.
    pub(crate) may_be_billed: bool,
}

impl Upstream {
    pub(crate) fn new(provider: &Provider, worker: &Worker) -> Result<Self, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let client = Client::builder()
            .default_headers(headers)
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(provider.concurrency)
            .build()?;
        Ok(Self {
            client,
            dialect: provider.dialect,
            base_url: provider.base_url.clone(),
            api_version: provider.api_version.clone(),
            auth: Auth::new(&provider.auth)?,
            first_byte_timeout: provider.first_byte_timeout,
            idle_timeout: provider.idle_timeout,
            max_answer_bytes: worker.max_answer_bytes,
            max_event_bytes: worker.max_event_bytes,
        })
    }

    fn url(&self, path: &str, model: &str) -> String {
        let base = &self.base_url;
        match &self.api_version {
            Some(version) => {
                let deployment = tollgate_dialect::path_segment(model);
                format!("{base}/deployments/{deployment}/{path}?api-version={version}")
            }
            None => format!("{base}/{path}"),
        }
    }

    fn headers(&self, message: &Message<'_>) -> HeaderMap {
        let accept = match message.framing {
            Framing::Whole => "application/json",
            Framing::Sse => "text/event-stream",
            Framing::EventStream => "application/vnd.amazon.eventstream",
        };
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        if self.dialect == Dialect::Anthropic {
            headers.insert(ANTHROPIC_VERSION, HeaderValue::from_static(anthropic::VERSION));
        }
        for (name, value) in message.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
                headers.insert(name, value);
            }
        }
        if let Ok(id) = message.attempt.to_string().parse() {
            headers.insert("x-client-request-id", id);
        }
        headers
    }

    /// Sends the request and waits for the answer to begin.
    pub(crate) async fn call(&self, message: Message<'_>) -> Result<Response, Refused> {
        let url = self.url(message.path, message.model);
        let headers = self.headers(&message);
        let proof = self.auth.headers(&url, &message.body).await.map_err(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a call was not made: no credentials"
            );
            Refused {
                failure: Failure::new(ErrorCode::ProviderAuth, "no credentials for the provider could be had"),
                may_be_billed: false,
            }
        })?;
        let sent = self
            .client
            .post(&url)
            .headers(headers)
            .headers(proof)
            .body(message.body)
            .send();
        let response = match tokio::time::timeout(self.first_byte_timeout, sent).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_connect() => {
                let failure = Failure::new(ErrorCode::ProviderUnreachable, "the provider cannot be reached");
                return Err(Refused {
                    failure,
                    may_be_billed: false,
                });
            }
            Ok(Err(_)) => {
                let failure = Failure::new(ErrorCode::ProviderBroken, "the provider closed the connection");
                return Err(Refused {
                    failure,
                    may_be_billed: true,
                });
            }
            Err(_) => {
                let failure = Failure::new(
                    ErrorCode::ProviderTimeout,
                    "the provider did not begin to answer in time",
                );
                return Err(Refused {
                    failure,
                    may_be_billed: true,
                });
            }
        };
        if response.status().is_success() {
            return Ok(response);
        }
        Err(Refused {
            failure: self.refusal(response).await,
            may_be_billed: false,
        })
    }

    async fn refusal(&self, mut response: Response) -> Failure {
        let status = response.status();
        let retry_after = retry_after(response.headers(), SystemTime::now());
        let mut body = Vec::new();
        let read = async {
            while let Ok(Some(bytes)) = response.chunk().await {
                body.extend_from_slice(&bytes);
                if body.len() > MAX_ERROR_BODY {
                    break;
                }
            }
        };
        // The status says enough; a body that does not come is not waited for.
        let _ = tokio::time::timeout(CONNECT_TIMEOUT, read).await;
        let ProviderError { message, means, .. } = tollgate_dialect::provider_error(self.dialect, &body);
        let code = means.unwrap_or_else(|| classify(status));
        Failure {
            // Our own credentials are none of the client's business.
            message: if code == ErrorCode::ProviderAuth {
                "the provider refused our credentials".to_owned()
            } else {
                message
            },
            retry_after_ms: retry_after.and_then(|wait| u64::try_from(wait.as_millis()).ok()),
            provider_status: Some(status.as_u16()),
            ..Failure::new(code, String::new())
        }
    }
}

/// What a status means for the request: refused as such, or worth another try elsewhere.
fn classify(status: StatusCode) -> ErrorCode {
    match status.as_u16() {
        401 | 403 => ErrorCode::ProviderAuth,
        408 => ErrorCode::ProviderTimeout,
        // A model that this provider lacks may be at the next.
        404 | 409 => ErrorCode::ProviderError,
        429 => ErrorCode::ProviderRateLimited,
        400..=499 => ErrorCode::ProviderRefused,
        _ => ErrorCode::ProviderError,
    }
}

/// `retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let seconds = |number: f64| Duration::try_from_secs_f64(number).ok();
    let wait = text("retry-after-ms")
        .and_then(|text| text.parse::<f64>().ok())
        .and_then(|millis| seconds(millis / 1000.0))
        .or_else(|| {
            let text = text(RETRY_AFTER.as_str())?;
            match text.parse::<f64>() {
                Ok(number) => seconds(number),
                Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok(),
            }
        })?;
    (wait <= MAX_RETRY_AFTER).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_in_all_their_forms_and_nonsense_is_not() {
        let read = |name: &'static str, value: &str| {
            let headers = HeaderMap::from_iter([(
                reqwest::header::HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )]);
            retry_after(
                &headers,
                httpdate::parse_http_date("Mon, 23 Nov 2026 10:00:00 GMT").unwrap(),
            )
        };
        assert_eq!(read("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(read("retry-after", "0.5"), Some(Duration::from_millis(500)));
        assert_eq!(read("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(
            read("retry-after", "Mon, 23 Nov 2026 10:00:09 GMT"),
            Some(Duration::from_secs(9))
        );
        for nonsense in ["-1", "NaN", "inf", "1e300", "soon", ""] {
            assert_eq!(read("retry-after", nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn what_is_the_clients_fault_is_not_tried_elsewhere() {
        let elsewhere = |status: u16| classify(StatusCode::from_u16(status).unwrap()).try_another_target();
        assert!(
            [401, 404, 408, 409, 429, 500, 502, 503, 529, 302]
                .into_iter()
                .all(elsewhere)
        );
        assert!(![400, 413, 415, 422].into_iter().any(elsewhere));
    }
}
