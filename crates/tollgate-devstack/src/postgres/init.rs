//! The first start: where the data folder goes, whose it is, `initdb`, the password and the `tollgate` database.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use rand::Rng as _;
use tokio::io::AsyncWriteExt as _;

use crate::Progress;
use crate::error::{Context as _, Error, Result};
use crate::fetch::last_lines;
use crate::locate::PostgresPrograms;
use crate::paths::{RunAs, make_dir, own_dir, temporary_fallback};
use crate::postgres::bare_spec;

const INIT_LIMIT: Duration = Duration::from_secs(180);

/// Where Postgres's own folder is and as whom the server runs.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) run_as: Option<RunAs>,
}

impl Place {
    /// The major version that made the folder; `None` before the first start.
    pub(super) fn existing(&self) -> Result<Option<u32>> {
        let path = self.folder.join("PG_VERSION");
        if !self.folder.is_dir() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).doing(|| format!("read {}", path.display()))?;
        let major = text.trim().split('.').next().and_then(|major| major.parse().ok());
        major
            .map(Some)
            .ok_or_else(|| Error::InitDb(format!("{} holds {text:?}", path.display())))
    }
}

/// `home/data`; but when we are root, the server is another user, and a closed folder above would keep it out, then a folder elsewhere, noted in
/// `home/elsewhere` so that the next start finds it and the user can delete it.
pub(super) fn place(home: &Path, progress: &Progress) -> Result<Place> {
    let mut folder = home.join("data");
    let Some(user) = RunAs::unless_ordinary_user() else {
        return Ok(Place { folder, run_as: None });
    };
    let note = home.join("elsewhere");
    // Both are believed only as root's own: another user's note or link must not have root give away a folder.
    let rooted = fs::symlink_metadata(&note).is_ok_and(|meta| meta.is_file() && meta.uid() == 0);
    if let Some(text) = rooted.then(|| fs::read_to_string(&note).ok()).flatten() {
        folder = PathBuf::from(text.trim());
    }
    // A folder that an ordinary user made stays that user's: the server runs as its owner.
    if let Ok(meta) = fs::symlink_metadata(&folder) {
        let owner = RunAs {
            uid: meta.uid(),
            gid: meta.gid(),
        };
        let run_as = if owner.uid == 0 { user } else { owner };
        if owner.uid == 0 {
            if !meta.is_dir() || !folder.join("PG_VERSION").is_file() {
                let folder = folder.display();
                return Err(Error::InitDb(format!("{folder} is not a Postgres data folder")));
            }
            run_as.own(&folder)?;
        }
        return match run_as.stopped_at(&folder) {
            None => Ok(Place {
                folder,
                run_as: Some(run_as),
            }),
            Some(path) => Err(Error::NotReachable { path }),
        };
    }
    let parent = folder.parent().unwrap_or(home).to_owned();
    if parent.is_dir() && user.stopped_at(&parent).is_none() {
        return Ok(Place {
            folder,
            run_as: Some(user),
        });
    }
    let blocked = user.stopped_at(home).unwrap_or(parent);
    for base in [PathBuf::from("/var/lib/tollgate"), temporary_fallback()] {
        let own = base.join(format!("postgres-{:016x}", rand::rng().random::<u64>()));
        if own_dir(&base).and_then(|()| own_dir(&own)).is_ok() && user.stopped_at(&own).is_none() {
            folder = own.join("data");
            fs::write(&note, format!("{}\n", folder.display())).doing(|| format!("write {}", note.display()))?;
            let (own, blocked) = (own.display(), blocked.display());
            progress(&format!(
                "Postgres keeps its data in {own}: root cannot run it, and user nobody cannot pass {blocked}"
            ));
            return Ok(Place {
                folder,
                run_as: Some(user),
            });
        }
    }
    Err(Error::NotReachable { path: blocked })
}

/// The password of the data folder: made once, kept in `home/password`, readable by its owner only.
pub(super) fn password(home: &Path, initialised: bool) -> Result<String> {
    let path = home.join("password");
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        _ if initialised => {
            return Err(Error::InitDb(format!(
                "the password file {} is gone; move the data folder away",
                path.display()
            )));
        }
        _ => {}
    }
    let password = format!("{:032x}", rand::rng().random::<u128>());
    write_secret(&path, &password)?;
    Ok(password)
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    let file = options.create(true).write(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| writeln!(file, "{text}"))
        .doing(|| format!("write {}", path.display()))
}

/// Makes the data folder with its `tollgate` user and database, under another name until it is whole.
pub(super) async fn initialise(place: &Place, programs: &PostgresPrograms, password: &str) -> Result<()> {
    let scratch = place.folder.with_extension("init");
    let secret = place.folder.with_extension("secret");
    let made = fill(place, programs, password, &scratch, &secret).await;
    // The file is only for initdb to read; the folder only there if something failed.
    let _ = fs::remove_file(&secret);
    if made.is_err() {
        let _ = fs::remove_dir_all(&scratch);
    }
    made
}

async fn fill(place: &Place, programs: &PostgresPrograms, password: &str, scratch: &Path, secret: &Path) -> Result<()> {
    write_secret(secret, password)?;
    if let Some(user) = place.run_as {
        user.own(secret)?;
    }
    init_db(place, programs, scratch, secret).await?;
    create_database(place, programs, scratch).await?;
    fs::rename(scratch, &place.folder).doing(|| format!("move the new data folder to {}", place.folder.display()))
}

/// UTF-8 with byte-wise order that no system library can change under an index; plain `C` where the machine lacks even that locale.
async fn init_db(place: &Place, programs: &PostgresPrograms, scratch: &Path, secret: &Path) -> Result<()> {
    let builtin: &[&str] = &["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"];
    let wanted = if programs.major >= 17 {
        builtin
    } else {
        &["--locale=C.UTF-8"]
    };
    let mut reason = String::new();
    for locale in [wanted, &["--locale=C"]] {
        if scratch.exists() {
            fs::remove_dir_all(scratch).doing(|| format!("remove {}", scratch.display()))?;
        }
        make_dir(scratch, 0o700)?;
        if let Some(user) = place.run_as {
            user.own(scratch)?;
        }
        let mut args = vec![
            "-D".to_owned(),
            scratch.to_string_lossy().into_owned(),
            "--username=tollgate".to_owned(),
        ];
        args.push(format!("--pwfile={}", secret.display()));
        args.extend(
            [
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--no-sync",
                "--no-instructions",
            ]
            .map(str::to_owned),
        );
        args.extend(locale.iter().map(|&option| option.to_owned()));
        let output = run(place, &programs.folder.join("initdb"), args, None).await?;
        if output.status.success() {
            return Ok(());
        }
        reason = last_lines(&String::from_utf8_lossy(&output.stderr), 6);
    }
    Err(Error::InitDb(reason))
}

/// In single-user mode, which needs neither a port nor a client. It ends with success even if the statement failed, so what it says is read.
async fn create_database(place: &Place, programs: &PostgresPrograms, scratch: &Path) -> Result<()> {
    let folder = scratch.to_string_lossy().into_owned();
    let args = ["--single", "-D", &folder, "-c", "fsync=off", "postgres"]
        .map(str::to_owned)
        .to_vec();
    let output = run(
        place,
        &programs.folder.join("postgres"),
        args,
        Some("CREATE DATABASE tollgate\n"),
    )
    .await?;
    let said = String::from_utf8_lossy(&output.stderr);
    let failed = ["ERROR:", "FATAL:", "PANIC:"].iter().any(|sign| said.contains(sign));
    if output.status.success() && !failed {
        return Ok(());
    }
    Err(Error::InitDb(format!(
        "creating the database tollgate: {}",
        last_lines(&said, 6)
    )))
}

async fn run(place: &Place, program: &Path, args: Vec<String>, input: Option<&str>) -> Result<Output> {
    let mut command = bare_spec(program, args, place.run_as).command();
    command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let work = async {
        let mut child = command.spawn()?;
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(text.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    match tokio::time::timeout(INIT_LIMIT, work).await {
        Ok(output) => output.doing(|| format!("run {}", program.display())),
        Err(_) => Err(Error::InitDb(format!(
            "{} did not end within {} s",
            program.display(),
            INIT_LIMIT.as_secs()
        ))),
    }
}
