//! What several tests need: a recorded progress, questions to `/proc`, one-line clients.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tollgate_devstack::{Postgres, Progress};

#[derive(Clone, Default)]
pub(crate) struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    pub(crate) fn progress(&self) -> Progress {
        let lines = self.0.clone();
        Arc::new(move |line| lines.lock().unwrap().push(line.to_owned()))
    }

    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

/// The program a process runs; `None` for one that is gone or only waits to be collected.
pub(crate) fn program_of(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// Processes whose command line names this text, other than this one.
pub(crate) fn processes_naming(text: &str) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let names = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        *pid != std::process::id() && String::from_utf8_lossy(&line).contains(text)
    };
    pids.filter(names).collect()
}

pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not in 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs SQL with the `psql` beside the running server and gives its bare output.
pub(crate) async fn psql(postgres: &Postgres, url: &str, sql: &str) -> String {
    let server = program_of(postgres.pid().unwrap()).unwrap();
    let mut psql = tokio::process::Command::new(server.with_file_name("psql"));
    let output = psql
        .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, url])
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{sql}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
