//! The only binary: Tollgate's roles, `up`, and the operator's commands. It parses arguments and hands over.

mod audit_log;
mod chaos;
mod chat;
mod check;
mod cli;
mod import;
mod init;
mod jobs;
mod keys;
mod limits;
mod prices;
mod reconcile;
mod report;
mod role;
mod running;
mod simulate;
mod targets;
mod tenants;
mod up;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;

fn main() -> ExitCode {
    // Both the HTTP and the NATS client take what is installed first; two of them in one process could not choose.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return fail("a TLS provider is installed already");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    match runtime.block_on(Cli::parse().run()) {
        Ok(code) => code,
        Err(error) => fail(&format!("{error:#}")),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("tollgate: {message}");
    ExitCode::FAILURE
}
