//! `up --exec`: runs a command against the stack and passes on its status.

use std::{os::unix::process::ExitStatusExt, process::ExitCode};

use anyhow::Context;
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
};

use crate::running::Running;

pub(super) async fn run(command: &str, arguments: &[String], endpoints: &Running) -> anyhow::Result<ExitCode> {
    // A Ctrl-C reaches the command as well, which ends in its own way.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut child = Command::new(command)
        .args(arguments)
        .env("TOLLGATE_HTTP", &endpoints.http)
        .env("TOLLGATE_GRPC", &endpoints.grpc)
        .env("TOLLGATE_API_KEY", &endpoints.api_key)
        .env("DATABASE_URL", &endpoints.database_url)
        .env("NATS_URL", &endpoints.nats_url)
        .env("TOLLGATE_SIMULATOR", endpoints.simulator.as_deref().unwrap_or_default())
        .env(
            "TOLLGATE_NATS_MONITOR",
            endpoints.nats_monitor.as_deref().unwrap_or_default(),
        )
        .env("TOLLGATE_REPORTS", &endpoints.reports)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {command}"))?;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => child.start_kill()?,
        }
    };
    let code = status
        .code()
        .or_else(|| status.signal().map(|number| 128 + number))
        .unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
