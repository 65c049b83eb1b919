use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use tollgate_devstack::{Error, Paths, Postgres, PostgresOptions, Prefer, Result, TempPaths};

use crate::support::{Said, processes_naming, program_of, psql};

async fn start(paths: &Paths, prefer: Prefer, said: &Said) -> Result<Postgres> {
    let mut options = PostgresOptions::new(paths.clone());
    options.prefer = prefer;
    options.durable = false;
    options.progress = said.progress();
    Postgres::start(options).await
}

/// Rows survive a kill, a restart and a stop; nothing is left running.
async fn whole_life(paths: &TempPaths, prefer: Prefer) -> u32 {
    let said = Said::default();
    let mut postgres = start(paths, prefer, &said).await.unwrap();
    assert!(said.text().contains("initialising"), "{}", said.text());
    let url = postgres.url().to_owned();
    psql(
        &postgres,
        &url,
        "CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)",
    )
    .await;
    let about = psql(&postgres, &url, "SELECT current_user, pg_encoding_to_char(encoding), current_setting('fsync') FROM pg_database WHERE datname = current_database()").await;
    assert_eq!(about, "tollgate|UTF8|off");
    psql(&postgres, &postgres.admin_url(), "CREATE DATABASE another").await;
    assert_eq!(
        psql(&postgres, &postgres.database_url("another"), "SELECT 1").await,
        "1"
    );

    let first = postgres.pid().unwrap();
    postgres.kill().await.unwrap();
    assert!(program_of(first).is_none());
    postgres.restart().await.unwrap();
    assert_eq!(postgres.url(), url);
    assert_eq!(psql(&postgres, &url, "SELECT id FROM kept").await, "7");
    let version = psql(&postgres, &url, "SHOW server_version_num").await;
    postgres.stop().await.unwrap();
    assert_eq!(processes_naming(paths.data.to_str().unwrap()), Vec::<u32>::new());

    let postgres = start(paths, prefer, &said).await.unwrap();
    assert_eq!(said.text().matches("initialising").count(), 1, "{}", said.text());
    assert_eq!(psql(&postgres, postgres.url(), "SELECT id FROM kept").await, "7");
    let secret = std::fs::metadata(paths.data.join("postgres/password")).unwrap();
    assert_eq!(secret.permissions().mode() & 0o777, 0o600);
    drop(postgres);
    assert_eq!(processes_naming(paths.data.to_str().unwrap()), Vec::<u32>::new());
    version.parse::<u32>().unwrap() / 10_000
}

#[tokio::test]
async fn the_installed_one_lives_a_whole_life() {
    let paths = Paths::temporary().unwrap();
    let major = whole_life(&paths, Prefer::Found).await;
    assert!(major >= 14);
}

#[tokio::test]
async fn the_fetched_one_lives_a_whole_life() {
    let paths = Paths::temporary().unwrap();
    assert_eq!(whole_life(&paths, Prefer::Fetched).await, 18);
}

#[tokio::test]
async fn data_of_another_major_version_is_refused() {
    let paths = Paths::temporary().unwrap();
    let said = Said::default();
    start(&paths, Prefer::Fetched, &said)
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    std::fs::write(paths.data.join("postgres/data/PG_VERSION"), "9\n").unwrap();
    let Err(error) = start(&paths, Prefer::Found, &said).await else {
        panic!("read the data of version 9")
    };
    assert!(
        matches!(&error, Error::MajorMismatch { found: 9, offered, .. } if offered.contains("18")),
        "{error}"
    );
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let paths = Paths::temporary().unwrap();
    let postgres = start(&paths, Prefer::Found, &Said::default()).await.unwrap();
    let server = program_of(postgres.pid().unwrap()).unwrap();
    let wrong = postgres.url().replacen("tollgate:", "tollgate:x", 1);
    let output = std::process::Command::new(server.with_file_name("psql"))
        .args(["-c", "SELECT 1", &wrong])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("password authentication failed"));
}

/// As root, a data folder under a closed one cannot be used by the server's user: it goes elsewhere, is found again, and its owner is not root.
#[tokio::test]
async fn under_a_closed_folder_the_data_goes_elsewhere() {
    let closed = tempfile::tempdir().unwrap();
    std::fs::set_permissions(closed.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    if std::fs::metadata(closed.path()).unwrap().uid() != 0 {
        return;
    }
    let paths = Paths::new(closed.path().join("data"));
    let said = Said::default();
    let postgres = start(&paths, Prefer::Found, &said).await.unwrap();
    let note = std::fs::read_to_string(paths.data.join("postgres/elsewhere")).unwrap();
    let elsewhere = std::path::Path::new(note.trim());
    assert!(
        said.text().contains(elsewhere.parent().unwrap().to_str().unwrap()),
        "{}",
        said.text()
    );
    psql(&postgres, postgres.url(), "CREATE TABLE kept (id int)").await;
    postgres.stop().await.unwrap();
    let postgres = start(&paths, Prefer::Found, &said).await.unwrap();
    assert_eq!(psql(&postgres, postgres.url(), "SELECT count(*) FROM kept").await, "0");
    assert_ne!(std::fs::metadata(elsewhere).unwrap().uid(), 0);
    postgres.stop().await.unwrap();
    std::fs::remove_dir_all(elsewhere.parent().unwrap()).unwrap();
}
