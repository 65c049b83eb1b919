//! The real parts Tollgate stands on, without set-up: finds or fetches `nats-server` and Postgres and runs them as child processes.
//!
//! `tollgate up` and the end-to-end tests use the same code, so the first command a user types is the path that is tested on every run.
//! Nothing here is needed where NATS and Postgres are given by URL; no other crate spawns a process.
//!
//! * [`Nats`] and [`Postgres`] start one server each, with its data under [`Paths::data`], on loopback only.
//! * [`Supervisor`] runs Tollgate's own roles as child processes and restarts one that dies.
//! * A child never outlives its parent by accident: it is stopped on drop, by a watchdog when the parent is killed, and, should both fail, by
//!   the pid file at the next start.

mod error;
mod fetch;
mod locate;
mod nats;
mod paths;
mod port;
mod postgres;
mod probe;
mod process;
mod supervisor;
mod unpack;

use std::sync::Arc;

pub use error::{Error, Result};
pub use nats::{Nats, NatsOptions, SyncInterval};
pub use paths::{FolderLock, Paths, TempPaths};
pub use port::free_port;
pub use postgres::{Postgres, PostgresOptions};
pub use supervisor::{Policy, Role, RoleChange, RoleLog, RoleState, Supervisor};

/// Receives one line of text for each thing worth waiting for: a download, a database being initialised, a stale process being stopped.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// A [`Progress`] that writes to the log.
pub fn log_progress() -> Progress {
    Arc::new(|line| tracing::info!("{line}"))
}

/// Which binaries to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Prefer {
    /// Those on `PATH` or in the usual Debian folders if they are new enough, else the pinned ones, fetched.
    #[default]
    Found,
    /// The pinned ones only, whatever is installed.
    Fetched,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Callers start the servers side by side, on their own tasks.
    #[test]
    fn starting_can_be_moved_to_another_task() {
        fn movable(_: impl Send + 'static) {}
        let paths = Paths::temporary().unwrap();
        movable(Nats::start(NatsOptions::new(paths.clone())));
        movable(Postgres::start(PostgresOptions::new(paths.clone())));
    }
}
