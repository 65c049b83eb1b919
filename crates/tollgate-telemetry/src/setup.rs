//! Subscribers, exporters and the shutdown that flushes them.

use opentelemetry::{propagation::TextMapCompositePropagator, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
    propagation::TraceContextPropagator,
    trace::SdkTracerProvider,
};
use tollgate_config::schema::{LogFormat, Telemetry as Settings};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::Metrics;

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the log filter is not valid")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("a logger is set already")]
    Subscriber(#[from] tracing_subscriber::util::TryInitError),
    #[error("the exporter of spans or metrics cannot be built")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    #[error("the Prometheus exporter cannot be built")]
    Prometheus(#[from] opentelemetry_sdk::error::OTelSdkError),
}

/// Logs, traces and metrics of this process.
#[derive(Clone)]
pub struct Telemetry {
    pub metrics: Metrics,
    pub(crate) registry: prometheus::Registry,
    meters: SdkMeterProvider,
    tracers: SdkTracerProvider,
}

impl Telemetry {
    /// Sets up logging for the process, and metrics and traces under the service name `tollgate-<role>`.
    pub fn init(role: &str, settings: &Settings) -> Result<Self, Error> {
        let this = Self::without_logger(role, settings)?;
        opentelemetry::global::set_text_map_propagator(TextMapCompositePropagator::new(vec![Box::new(
            TraceContextPropagator::new(),
        )]));
        let filter = EnvFilter::try_new(&settings.log)?;
        let writer = std::io::stderr;
        let lines = match settings.log_format {
            LogFormat::Text => tracing_subscriber::fmt::layer().with_writer(writer).boxed(),
            LogFormat::Json => tracing_subscriber::fmt::layer().json().with_writer(writer).boxed(),
        };
        let spans = tracing_opentelemetry::layer()
            .with_tracer(this.tracers.tracer("tollgate"))
            .with_location(false)
            .with_threads(false);
        tracing_subscriber::registry()
            .with(spans.with_filter(EnvFilter::new("off,tollgate=info")))
            .with(lines.with_filter(filter))
            .try_init()?;
        Ok(this)
    }

    /// Metrics and traces only, for tests that run several roles in one process.
    pub fn without_logger(role: &str, settings: &Settings) -> Result<Self, Error> {
        let resource = Resource::builder()
            .with_service_name(format!("tollgate-{role}"))
            .with_attribute(opentelemetry::KeyValue::new(
                "service.version",
                env!("CARGO_PKG_VERSION"),
            ))
            .build();
        let registry = prometheus::Registry::new();
        let scraped = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()?;
        let mut meters = SdkMeterProvider::builder()
            .with_resource(resource.clone())
            .with_reader(scraped);
        let mut tracers = SdkTracerProvider::builder().with_resource(resource);
        if let Some(endpoint) = &settings.otlp_endpoint {
            let pushed = opentelemetry_otlp::MetricExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .build()?;
            meters = meters.with_reader(PeriodicReader::builder(pushed).build());
            let spans = opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .build()?;
            tracers = tracers.with_batch_exporter(spans);
        }
        let meters = meters.build();
        Ok(Self {
            metrics: Metrics::new(&meters),
            registry,
            meters,
            tracers: tracers.build(),
        })
    }

    /// Sends what is still held back. Blocks for as long as the exporters take, a few seconds at most.
    pub fn shutdown(self) {
        if let Err(error) = self.tracers.shutdown() {
            tracing::debug!(%error, "spans were not flushed");
        }
        if let Err(error) = self.meters.shutdown() {
            tracing::debug!(%error, "metrics were not flushed");
        }
    }
}
