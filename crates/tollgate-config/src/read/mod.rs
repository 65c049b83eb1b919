//! From the tree to the typed configuration: a function for each section, with its keys and defaults.

mod entries;
mod issuer;
pub(crate) mod links;
mod provider;
mod sections;

use crate::{
    Config,
    cursor::{Cursor, Fields, Sink},
    yaml::{Node, Place},
};

use links::Links;

/// Reads the whole file. What it returns is of use only when nothing was reported.
pub(crate) fn config(root: Option<&Node>, sink: &Sink) -> Config {
    let mut file = root
        .map(|node| Cursor::root(node, sink))
        .filter(|at| !at.is_null())
        .and_then(|at| at.fields());
    let file = file.get_or_insert_with(Fields::absent);
    let mut links = Links::default();
    let config = Config {
        bus: sections::bus(file.section("bus")),
        ingress: sections::ingress(file.section("ingress")),
        keys: file.list("keys", |at| entries::key(&at, &mut links)),
        issuers: file.list("issuers", |at| issuer::issuer(&at, &mut links)),
        models: file.list("models", |at| entries::model(&at, &mut links)),
        providers: file.list("providers", |at| provider::provider(&at, &mut links)),
        guardrail: sections::guardrail(file.section("guardrail"), &mut links),
        router: sections::router(file.section("router")),
        worker: sections::worker(file.section("worker")),
        audit: sections::audit(file.section("audit")),
        telemetry: sections::telemetry(file.section("telemetry")),
    };
    if config.ingress.jobs.deadline >= config.bus.job_retention {
        let message = "must be longer than ingress.jobs.deadline, or a job is forgotten before it ends";
        sink.add(Place { line: 1, column: 1 }, "bus.job_retention", message);
    }
    if config.audit.keep_events <= config.ingress.request_timeout {
        let message = "must be longer than ingress.request_timeout, or a call under way loses its claim";
        sink.add(Place { line: 1, column: 1 }, "audit.keep_events", message);
    }
    std::mem::replace(file, Fields::absent()).finish();
    links.check();
    config
}
