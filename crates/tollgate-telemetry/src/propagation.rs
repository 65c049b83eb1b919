//! W3C trace context in the headers of messages and calls, so that one trace shows a request in every service.

use async_nats::HeaderMap as NatsHeaders;
use axum::http::HeaderMap as HttpHeaders;
use opentelemetry::{
    global,
    propagation::{Extractor, Injector},
};
use tonic::metadata::{MetadataKey, MetadataMap};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

struct NatsCarrier<T>(T);

impl Injector for NatsCarrier<&mut NatsHeaders> {
    fn set(&mut self, key: &str, value: String) {
        self.0.insert(key, value);
    }
}

impl Extractor for NatsCarrier<&NatsHeaders> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(async_nats::HeaderValue::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_ref()).collect()
    }
}

struct GrpcCarrier<T>(T);

impl Injector for GrpcCarrier<&mut MetadataMap> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), value.parse()) {
            self.0.insert(key, value);
        }
    }
}

impl Extractor for GrpcCarrier<&MetadataMap> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

struct HttpCarrier<'a>(&'a HttpHeaders);

impl Extractor for HttpCarrier<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

/// Writes the current span's trace context into the headers of a NATS message.
pub fn carry_nats(headers: &mut NatsHeaders) {
    let context = Span::current().context();
    global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut NatsCarrier(&mut *headers)));
}

/// Writes the current span's trace context into the metadata of a gRPC call.
pub fn carry_grpc(metadata: &mut MetadataMap) {
    let context = Span::current().context();
    global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut GrpcCarrier(&mut *metadata)));
}

/// Makes `span` a child of the span that sent the message.
pub fn adopt_nats(span: &Span, headers: Option<&NatsHeaders>) {
    if let Some(headers) = headers {
        adopt(span, &NatsCarrier(headers));
    }
}

/// Makes `span` a child of the span that made the call.
pub fn adopt_grpc(span: &Span, metadata: &MetadataMap) {
    adopt(span, &GrpcCarrier(metadata));
}

/// Makes `span` a child of the span that sent the HTTP request.
pub fn adopt_http(span: &Span, headers: &HttpHeaders) {
    adopt(span, &HttpCarrier(headers));
}

fn adopt(span: &Span, carrier: &dyn Extractor) {
    let parent = global::get_text_map_propagator(|propagator| propagator.extract(carrier));
    // Without the layer (in tests) or after the span has begun there is nothing to adopt, and nothing to say about it.
    let _ = span.set_parent(parent);
}
