//! Where data and fetched binaries live, who may use a folder, and whether another user can reach it.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::{Context as _, Error, Result};

/// The two folders everything is kept in.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Belongs to one running Tollgate (`.tollgate/` by default): server data, logs, pid files.
    pub data: PathBuf,
    /// Shared by all: the fetched binaries. Safe to delete while nothing runs.
    pub cache: PathBuf,
}

impl Paths {
    /// `data`, with the cache in `$TOLLGATE_CACHE`, else `$XDG_CACHE_HOME/tollgate`, else `~/.cache/tollgate`, else a folder of this user in
    /// the temporary folder.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            cache: default_cache(),
        }
    }

    /// A data folder that is removed on drop, for tests. Drop it after the servers that use it.
    ///
    /// Unlike a plain temporary folder it can be passed (not listed) by other users, so that Postgres started as root keeps its data in it.
    pub fn temporary() -> Result<TempPaths> {
        let folder = tempfile::Builder::new()
            .prefix("tollgate-")
            .tempdir()
            .and_then(|folder| fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).map(|()| folder))
            .doing(|| "make a temporary data folder".to_owned())?;
        Ok(TempPaths {
            paths: Self::new(folder.path()),
            _folder: folder,
        })
    }

    /// Claims the data folder for this process until the lock is dropped; [`Error::FolderInUse`] if another process has it.
    pub fn lock(&self) -> Result<FolderLock> {
        make_dir(&self.data, 0o755)?;
        FolderLock::take(&self.data, "lock")
    }
}

/// A temporary [`Paths`], removed on drop.
#[derive(Debug)]
pub struct TempPaths {
    paths: Paths,
    _folder: tempfile::TempDir,
}

impl std::ops::Deref for TempPaths {
    type Target = Paths;
    fn deref(&self) -> &Paths {
        &self.paths
    }
}

fn default_cache() -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set("TOLLGATE_CACHE") {
        return folder;
    }
    if let Some(folder) = set("XDG_CACHE_HOME").filter(|folder| folder.is_absolute()) {
        return folder.join("tollgate");
    }
    match set("HOME").filter(|home| home.is_dir()) {
        Some(home) => home.join(".cache/tollgate"),
        None => temporary_fallback(),
    }
}

/// A folder of this user in the shared temporary folder. Its name can be guessed, so [`own_dir`] must check whose it is.
pub(crate) fn temporary_fallback() -> PathBuf {
    env::temp_dir().join(format!("tollgate-{}", rustix::process::geteuid().as_raw()))
}

/// An exclusive claim on a folder, held by the kernel: it ends with the process, however that ends.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
}

/// Said aloud, because closing the file is not enough: a child that is just being started shares it until it runs its own
/// program.
impl Drop for FolderLock {
    fn drop(&mut self) {
        // The lock ends with the file in any case.
        let _ = self.file.unlock();
    }
}

impl FolderLock {
    /// Locks `folder/name`; the folder must exist.
    pub(crate) fn take(folder: &Path, name: &str) -> Result<Self> {
        let mut file = open_lock(&folder.join(name))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let holder = file
                    .read_to_string(&mut text)
                    .ok()
                    .and_then(|_| text.trim().parse().ok());
                return Err(Error::FolderInUse {
                    folder: folder.to_owned(),
                    holder,
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(Error::Io {
                    what: format!("lock {}", folder.join(name).display()),
                    source,
                });
            }
        }
        // The pid is for the reader of an error message only; the lock itself is the kernel's.
        let noted = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        noted.doing(|| format!("write {}", folder.join(name).display()))?;
        Ok(Self { file })
    }
}

pub(crate) fn open_lock(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
        .open(path)
        .doing(|| format!("open the lock file {}", path.display()))
}

/// Makes a folder and those above it, whatever the umask says about the last one. An existing folder is left as it is.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .doing(|| format!("make the folder {}", path.display()))
}

/// Like [`make_dir`], but refuses a folder that somebody else made or may write to: binaries are run from it.
pub(crate) fn own_dir(path: &Path) -> Result<()> {
    make_dir(path, 0o755)?;
    let meta = fs::symlink_metadata(path).doing(|| format!("look at {}", path.display()))?;
    if meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o022 == 0 {
        return Ok(());
    }
    let source = std::io::Error::other("it belongs to, or can be written by, another user");
    Err(Error::Io {
        what: format!("use the folder {}", path.display()),
        source,
    })
}

/// A user a child is started as, other than our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunAs {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl RunAs {
    /// `nobody` when we are root, because Postgres refuses to run as root. The number is the same on every Linux; the name need not exist for us.
    pub(crate) fn unless_ordinary_user() -> Option<Self> {
        rustix::process::geteuid().is_root().then_some(Self {
            uid: 65_534,
            gid: 65_534,
        })
    }

    fn may_pass(self, meta: &fs::Metadata) -> bool {
        let bit = if meta.uid() == self.uid {
            0o100
        } else if meta.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        meta.mode() & bit != 0
    }

    /// The first folder from the root down to `path` itself that this user cannot pass; `None` if it can reach all of them.
    pub(crate) fn stopped_at(self, path: &Path) -> Option<PathBuf> {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut folders: Vec<&Path> = real.ancestors().collect();
        folders.reverse();
        let blocked = folders
            .into_iter()
            .find(|folder| !fs::metadata(folder).is_ok_and(|meta| self.may_pass(&meta)));
        blocked.map(Path::to_owned)
    }

    /// Gives a folder and all in it to this user. Symbolic links are given themselves, never what they point to.
    pub(crate) fn own(self, path: &Path) -> Result<()> {
        let chown = |path: &Path| std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid));
        chown(path).doing(|| format!("give {} to user {}", path.display(), self.uid))?;
        if !fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
            return Ok(());
        }
        for entry in fs::read_dir(path).doing(|| format!("read {}", path.display()))? {
            let entry = entry.doing(|| format!("read {}", path.display()))?;
            self.own(&entry.path())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once() {
        let paths = Paths::temporary().unwrap();
        let lock = paths.lock().unwrap();
        let text = paths.lock().unwrap_err().to_string();
        assert!(text.contains(&format!("pid {}", std::process::id())), "{text}");
        drop(lock);
        paths.lock().unwrap();
    }

    #[test]
    fn a_closed_folder_stops_another_user() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("open");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        let stranger = RunAs {
            uid: 12_345,
            gid: 12_345,
        };
        assert_eq!(
            stranger.stopped_at(&inner),
            Some(fs::canonicalize(folder.path()).unwrap())
        );
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(&inner, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(stranger.stopped_at(&inner), None);
    }

    #[test]
    fn a_folder_others_may_write_to_is_refused_for_binaries() {
        let folder = tempfile::tempdir().unwrap();
        own_dir(folder.path()).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        own_dir(folder.path()).unwrap_err();
    }
}
