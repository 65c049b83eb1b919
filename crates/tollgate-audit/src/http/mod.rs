//! The administration over HTTP, beside gRPC and at the same address: each request of [`ROUTES`] is a call of gRPC with its message
//! in JSON, so that both say and refuse the same.

mod routes;
mod transcode;

use std::{str::FromStr, sync::Arc};

use axum::{
    Router,
    body::Body as HttpBody,
    extract::{RawPathParams, Request, rejection::RawPathParamsRejection},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value, json};
use tollgate_types::{ErrorCode, Failure, Permission};
use tonic::{Code, Status, metadata::MetadataMap, service::Routes};
use tonic_types::StatusExt;
use tower::ServiceExt;
use url::form_urlencoded;

pub use self::routes::{Body, PREFIX, ROUTES, Route};
use self::transcode::{Call, put};
use crate::{Error, grpc::Access};

/// Longest body of a request, in bytes; of prices another.
const LONGEST: usize = 1 << 20;

/// The services of gRPC, and the HTTP interface to them. Prices may be `longest_import` bytes long.
pub(crate) fn with_http(services: Routes, access: &Access, longest_import: usize) -> Result<Routes, Error> {
    let pool = transcode::pool()?;
    let calls = services.clone().into_axum_router();
    let mut router = services.into_axum_router();
    for route in &ROUTES {
        let method = Method::from_bytes(route.method.as_bytes()).ok();
        let method = method.and_then(|method| MethodFilter::try_from(method).ok());
        let (Some(method), Some(call)) = (method, Call::find(&pool, route.call)) else {
            return Err(Error::Route(route.call));
        };
        let bridge = Arc::new(Bridge {
            calls: calls.clone(),
            call,
            fields: fields_of(route.path).collect(),
            body: route.body,
            access: access.clone(),
            permissions: route.permissions,
            longest: if route.call == "Prices/Import" {
                longest_import
            } else {
                LONGEST
            },
        });
        let serve = move |params: Result<RawPathParams, RawPathParamsRejection>, request: Request| async move {
            match bridge.serve(params, request).await {
                Ok(answer) => ([(header::CONTENT_TYPE, "application/json")], answer).into_response(),
                Err(failure) => refusal(&failure),
            }
        };
        router = router.route(&numbered(route.path), on(method, serve));
    }
    let router = router.fallback(unknown).method_not_allowed_fallback(wrong_method);
    Ok(Routes::from(router))
}

/// The fields that a path names, in their order.
fn fields_of(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// The path with numbers in place of fields: where paths begin alike, axum wants the same names.
fn numbered(path: &'static str) -> String {
    let whole = format!("{PREFIX}{path}");
    fields_of(path).enumerate().fold(whole, |path, (index, field)| {
        path.replacen(&format!("{{{field}}}"), &format!("{{{index}}}"), 1)
    })
}

/// From one request of HTTP to a call.
struct Bridge {
    calls: Router,
    call: Call,
    /// Those that the path names, in its order.
    fields: Vec<&'static str>,
    body: Body,
    access: Access,
    permissions: &'static [Permission],
    longest: usize,
}

impl Bridge {
    async fn serve(
        &self,
        params: Result<RawPathParams, RawPathParamsRejection>,
        request: Request,
    ) -> Result<Vec<u8>, Failure> {
        let params = params.map_err(|error| Failure::new(ErrorCode::InvalidRequest, error.body_text()))?;
        let (head, body) = request.into_parts();
        // Before anything is read: what a stranger sends costs nothing. The call itself asks again.
        let metadata = MetadataMap::from_headers(head.headers.clone());
        self.access.any(&metadata, self.permissions).await?;
        let mut fields = self.fields(body).await?;
        for (name, (_, value)) in self.fields.iter().zip(&params) {
            put(&mut fields, name, self.call.value(name, value.to_owned()))?;
        }
        for (name, value) in form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()) {
            put(&mut fields, &name, self.call.value(&name, value.into_owned()))?;
        }
        let mut call = Request::post(self.call.path())
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers");
        for value in head.headers.get_all(header::AUTHORIZATION) {
            call = call.header(header::AUTHORIZATION, value);
        }
        let internal = |_| Failure::new(ErrorCode::Internal, "the call cannot be made");
        let call = call
            .body(HttpBody::from(self.call.request(fields)?))
            .map_err(|error| internal(error.to_string()))?;
        let Ok(answer) = self.calls.clone().oneshot(call).await;
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| internal(error.to_string()))?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let status = Status::from_header_map(&trailers).or_else(|| Status::from_header_map(&head.headers));
        match status {
            Some(status) if status.code() != Code::Ok => Err(failure(&status)),
            _ => {
                let answer = self.call.answer(&body.to_bytes());
                answer.ok_or_else(|| internal(String::new()))
            }
        }
    }

    /// What the body says.
    async fn fields(&self, body: HttpBody) -> Result<Map<String, Value>, Failure> {
        let wrong = |message: String| Failure::new(ErrorCode::InvalidRequest, message);
        let read = Limited::new(body, self.longest).collect().await;
        let bytes = read.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => {
                let message = format!("the body is over the limit of {} bytes", self.longest);
                Failure::new(ErrorCode::TooLarge, message)
            }
            None => wrong("the body broke off".to_owned()),
        })?;
        let bytes = bytes.to_bytes();
        if bytes.is_empty() {
            return Ok(Map::new());
        }
        let read: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|error| {
            let place = format!("line {} column {}", error.line(), error.column());
            wrong(format!("the body is no JSON object: {place}"))
        })?;
        match self.body {
            Body::Message => Ok(read),
            Body::Field(name) => Ok(Map::from_iter([(name.to_owned(), Value::Object(read))])),
            Body::None if read.is_empty() => Ok(read),
            Body::None => Err(wrong("this request has no body".to_owned())),
        }
    }
}

/// What a call's status means.
fn failure(status: &Status) -> Failure {
    let details = status.get_error_details();
    let code = details
        .error_info()
        .and_then(|info| ErrorCode::from_str(&info.reason).ok());
    let code = code.unwrap_or(match status.code() {
        Code::InvalidArgument | Code::OutOfRange => ErrorCode::InvalidRequest,
        Code::ResourceExhausted => ErrorCode::TooLarge,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => ErrorCode::Unavailable,
        _ => ErrorCode::Internal,
    });
    let failure = Failure::new(code, status.message());
    let wait = details.retry_info().and_then(|info| info.retry_delay);
    match wait.and_then(|wait| u64::try_from(wait.as_millis()).ok()) {
        Some(wait) => failure.retry_after_ms(wait),
        None => failure,
    }
}

fn refusal(failure: &Failure) -> Response {
    let status = StatusCode::from_u16(failure.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = json!({ "error": { "code": failure.code.as_str(), "message": failure.message } });
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(wait) = failure.retry_after_ms {
        headers.insert(header::RETRY_AFTER, wait.div_ceil(1000).into());
    }
    (status, headers, body.to_string()).into_response()
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

async fn unknown(request: Request) -> Response {
    if is_grpc(request.headers()) {
        return Status::unimplemented("there is no such service")
            .into_http::<HttpBody>()
            .into_response();
    }
    refused_with(StatusCode::NOT_FOUND, "there is nothing at this address")
}

async fn wrong_method() -> Response {
    refused_with(StatusCode::METHOD_NOT_ALLOWED, "this address does not take that method")
}

fn refused_with(status: StatusCode, message: &str) -> Response {
    let mut response = refusal(&Failure::new(ErrorCode::InvalidRequest, message));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What ingress serves, and what is not for clients.
    const ELSEWHERE: [&str; 4] = ["Delivery", "Gateway", "Jobs", "Targets"];

    #[test]
    fn every_call_of_audit_has_its_place_in_the_table() {
        let pool = transcode::pool().unwrap();
        let services = pool.services().filter(|service| !ELSEWHERE.contains(&service.name()));
        let calls: BTreeSet<_> = services
            .flat_map(|service| {
                service
                    .methods()
                    .map(|one| format!("{}/{}", one.parent_service().name(), one.name()))
                    .collect::<Vec<_>>()
            })
            .collect();
        let routes: BTreeSet<_> = ROUTES.iter().map(|route| route.call.to_owned()).collect();
        assert_eq!(calls, routes);
        let documented = include_str!("../../../../docs/admin.md");
        for route in &ROUTES {
            let permissions: Vec<_> = route.permissions.iter().map(|one| format!("`{one}`")).collect();
            let begin = format!("| `{} {PREFIX}{}", route.method, route.path);
            let end = format!("| {} |", permissions.join(" or "));
            let mut lines = documented.lines();
            let found = lines.any(|line| line.starts_with(&begin) && line.contains(route.call) && line.ends_with(&end));
            assert!(found, "{begin} … {end}");
        }
        let config = tollgate_config::parse("", "test").unwrap();
        let telemetry = tollgate_telemetry::Telemetry::without_logger("test", &config.telemetry).unwrap();
        let identities = tollgate_identity::Identities::new(&config, telemetry.metrics).unwrap();
        with_http(Routes::default(), &Access(Arc::new(identities)), 1).unwrap();
        assert_eq!(numbered("/a/{b.c}/{d}/e"), "/admin/v1/a/{0}/{1}/e");
    }
}
