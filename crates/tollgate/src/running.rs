//! Where the running `tollgate up` of this folder is, so that other commands find it.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

const FILE: &str = "running.json";
/// The folder that `up` uses unless told otherwise.
pub(crate) const DATA: &str = ".tollgate";

/// The endpoints of a running stack. The file is readable by its owner alone.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) http: String,
    pub(crate) grpc: String,
    pub(crate) api_key: String,
    pub(crate) database_url: String,
    pub(crate) nats_url: String,
    pub(crate) simulator: Option<String>,
    /// HTTP monitoring of a NATS server that `up` started.
    pub(crate) nats_monitor: Option<String>,
    /// gRPC endpoint of the reports.
    pub(crate) reports: String,
}

impl Running {
    /// What the `up` of this folder, or of a folder above, has written.
    pub(crate) fn find() -> Option<Self> {
        let here = std::env::current_dir().ok()?;
        let text = here
            .ancestors()
            .find_map(|folder| fs::read_to_string(folder.join(DATA).join(FILE)).ok())?;
        serde_json::from_str(&text).ok()
    }

    /// Writes the file into `data`; it is removed when the guard goes.
    pub(crate) fn publish(&self, data: &Path) -> anyhow::Result<Published> {
        let path = data.join(FILE);
        let _ = fs::remove_file(&path);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
        Ok(Published(path))
    }
}

pub(crate) struct Published(PathBuf);

impl Drop for Published {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
