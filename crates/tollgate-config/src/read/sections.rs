//! The sections that hold single values, each with its default. `tollgate.default.yaml` says the same in comments; a test
//! keeps the two alike.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use crate::{
    cursor::{Cursor, Fields},
    schema::{
        Audit, Bus, Guardrail, HealthSettings, Ingress, JobSettings, LimitSettings, LogFormat, Policy, Router,
        Telemetry, WebhookSettings, Worker,
    },
    url,
    value::{self, GIB, KIB, MIB},
};

use super::{
    entries,
    links::{DEFAULT_POLICY, Links},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn address(at: &Cursor<'_>) -> Option<SocketAddr> {
    at.parse(value::address)
}

pub(super) fn bus(mut f: Fields<'_>) -> Bus {
    let bus = Bus {
        url: f.value("url", "nats://127.0.0.1:4222".to_owned(), |at| {
            at.parse(url::nats_in_file)
        }),
        // NATS refuses messages over 1 MiB unless told otherwise; the rest is for headers.
        inline_limit: f.value("inline_limit", 256 * KIB, |at| at.size(KIB..=900 * KIB)),
        // JetStream keeps at most five copies.
        replicas: f.value("replicas", 1, |at| at.count(1..=5)),
        retention: f.value("retention", 7 * DAY, Cursor::duration),
        job_retention: f.value("job_retention", 7 * DAY, Cursor::duration),
        ledger_storage: f.value("ledger_storage", 4 * GIB, |at| at.size(MIB..=1024 * GIB)),
        job_storage: f.value("job_storage", 2 * GIB, |at| at.size(MIB..=1024 * GIB)),
    };
    f.finish();
    bus
}

pub(super) fn ingress(mut f: Fields<'_>) -> Ingress {
    let body = f.peek("max_body");
    let buffered = f.peek("max_buffered").or_else(|| body.clone());
    let claim = f.peek("claim_timeout").or_else(|| f.peek("request_timeout"));
    let ingress = Ingress {
        http_listen: f.value("http_listen", local(8080), address),
        grpc_listen: f.value("grpc_listen", local(8081), address),
        delivery_listen: f.value("delivery_listen", local(8082), address),
        delivery_advertise: f.optional("delivery_advertise", |at| at.parse(url::advertise)),
        max_in_flight: f.value("max_in_flight", 4096, |at| at.count(1..=1_000_000)),
        max_body_bytes: f.value("max_body", 32 * MIB, |at| at.size(KIB..=GIB)),
        max_depth: f.value("max_depth", 100, |at| at.count(1..=127)),
        max_headers: f.value("max_headers", 100, |at| at.count(10..=10_000)),
        max_header_bytes: f.value("max_header_bytes", 64 * KIB, |at| at.size(8 * KIB..=MIB)),
        max_buffered_bytes: f.value("max_buffered", 512 * MIB, |at| at.size(KIB..=1024 * GIB)),
        request_timeout: f.value("request_timeout", 10 * MINUTE, Cursor::duration),
        claim_timeout: f.value("claim_timeout", SECOND, Cursor::duration),
        max_resends: f.value("max_resends", 5, |at| at.count(0..=100)),
        jobs: jobs(f.section("jobs")),
        webhooks: webhooks(f.section("webhooks")),
        limits: limits(f.section("limits")),
    };
    f.finish();
    if let Some(at) = buffered.filter(|_| ingress.max_buffered_bytes < ingress.max_body_bytes) {
        at.mistake("max_buffered must not be less than max_body, or no body of that size could be admitted");
    }
    if let Some(at) = claim.filter(|_| ingress.claim_timeout >= ingress.request_timeout) {
        at.mistake("claim_timeout must be shorter than request_timeout");
    }
    ingress
}

fn jobs(mut f: Fields<'_>) -> JobSettings {
    let longest = f.peek("max_backoff").or_else(|| f.peek("min_backoff"));
    let jobs = JobSettings {
        concurrency: f.value("concurrency", 32, |at| at.count(0..=100_000)),
        deadline: f.value("deadline", DAY, Cursor::duration),
        max_failed_calls: f.value("max_failed_calls", 10, |at| at.count(1..=1000)),
        min_backoff: f.value("min_backoff", SECOND, Cursor::duration),
        max_backoff: f.value("max_backoff", 30 * SECOND, Cursor::duration),
        max_batch: f.value("max_batch", 100_000, |at| at.count(1..=1_000_000)),
        max_file_bytes: f.value("max_file", 200 * MIB, |at| at.size(KIB..=4 * GIB)),
    };
    f.finish();
    if let Some(at) = longest.filter(|_| jobs.max_backoff < jobs.min_backoff) {
        at.mistake("max_backoff must not be less than min_backoff");
    }
    jobs
}

fn limits(mut f: Fields<'_>) -> LimitSettings {
    let limits = LimitSettings {
        assumed_output: f.value("assumed_output", 4096, |at| at.count(1..=10_000_000)),
        refuse_unpriced: f.value("unpriced", false, |at| at.parse(unpriced)),
    };
    f.finish();
    limits
}

fn unpriced(text: &str) -> Result<bool, String> {
    match text {
        "allow" => Ok(false),
        "refuse" => Ok(true),
        _ => Err("expected allow or refuse".to_owned()),
    }
}

fn webhooks(mut f: Fields<'_>) -> WebhookSettings {
    let webhooks = WebhookSettings {
        secret: f.optional("secret", |at| at.parse(value::secret)),
        private_hosts: f.list("private_hosts", |at| at.parse(|text| value::line(text, 253))),
        timeout: f.value("timeout", 10 * SECOND, Cursor::duration),
        give_up: f.value("give_up", DAY, Cursor::duration),
    };
    f.finish();
    webhooks
}

pub(super) fn guardrail<'a>(mut f: Fields<'a>, links: &mut Links<'a>) -> Guardrail {
    let mut guardrail = Guardrail {
        delivery_listen: f.value("delivery_listen", local(8083), address),
        delivery_advertise: f.optional("delivery_advertise", |at| at.parse(url::advertise)),
        concurrency: f.value("concurrency", 64, |at| at.count(1..=65_536)),
        policies: f.list("policies", |at| entries::policy(&at, links)),
    };
    f.finish();
    if guardrail.policies.iter().all(|policy| policy.name != DEFAULT_POLICY) {
        guardrail.policies.push(Policy {
            name: DEFAULT_POLICY.to_owned(),
            ..Policy::default()
        });
    }
    guardrail
}

pub(super) fn router(mut f: Fields<'_>) -> Router {
    let router = Router {
        concurrency: f.value("concurrency", 256, |at| at.count(1..=65_536)),
        max_attempts: f.value("max_attempts", 4, |at| at.count(1..=100)),
        retries: f.value("retries", 0, |at| at.count(0..=10)),
        retry_share: f.value("retry_share", 0.2, |at| at.parse(value::share)),
        health: health(f.section("health")),
    };
    f.finish();
    router
}

fn health(mut f: Fields<'_>) -> HealthSettings {
    let health = HealthSettings {
        window: f.value("window", 10 * SECOND, Cursor::duration),
        min_failures: f.value("min_failures", 5, |at| at.count(1..=1_000_000)),
        failure_share: f.value("failure_share", 0.5, |at| at.parse(value::share)),
        ejection: f.value("ejection", 5 * SECOND, Cursor::duration),
        max_ejection: f.value("max_ejection", MINUTE, Cursor::duration),
        recovery: f.value("recovery", 10 * SECOND, Cursor::duration),
    };
    f.finish();
    health
}

pub(super) fn worker(mut f: Fields<'_>) -> Worker {
    let worker = Worker {
        max_answer_bytes: f.value("max_answer", 64 * MIB, |at| at.size(KIB..=GIB)),
        max_event_bytes: f.value("max_event", 4 * MIB, |at| at.size(KIB..=GIB)),
        ledger_timeout: f.value("ledger_timeout", 5 * SECOND, Cursor::duration),
    };
    f.finish();
    worker
}

pub(super) fn audit(mut f: Fields<'_>) -> Audit {
    let audit = Audit {
        database_url: f.optional("database_url", |at| at.parse(value::secret)),
        grpc_listen: f.value("grpc_listen", local(8084), address),
        batch: f.value("batch", 500, |at| at.count(1..=10_000)),
        keep_events: f.value("keep_events", 30 * MINUTE, Cursor::duration),
        keep_months: f.optional("keep_months", |at| at.count(1..=1200)),
        orphan_grace: f.value("orphan_grace", 5 * SECOND, Cursor::duration),
        orphan_interval: f.value("orphan_interval", SECOND, Cursor::duration),
        max_connections: f.value("max_connections", 8, |at| at.count(1..=1_000)),
        report_connections: f.value("report_connections", 2, |at| at.count(1..=100)),
        report_timeout: f.value("report_timeout", 30 * SECOND, Cursor::duration),
    };
    f.finish();
    audit
}

pub(super) fn telemetry(mut f: Fields<'_>) -> Telemetry {
    let telemetry = Telemetry {
        log: f.value("log", "warn,tollgate=info".to_owned(), |at| at.parse(value::log_filter)),
        log_format: f.value("log_format", LogFormat::Text, |at| at.parse(value::log_format)),
        otlp_endpoint: f.optional("otlp_endpoint", |at| at.parse(url::collector)),
        admin_listen: f.value("admin_listen", local(9090), address),
    };
    f.finish();
    telemetry
}
