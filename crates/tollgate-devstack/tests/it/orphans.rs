//! A parent that is killed with SIGKILL runs no destructor; its servers must go all the same.

use std::process::{Command, Stdio};
use std::time::Duration;

use tollgate_devstack::{Nats, NatsOptions, Paths, Postgres, PostgresOptions};

use crate::support::{Said, processes_naming, program_of, until};

const DATA: &str = "DEVSTACK_TEST_PARENT_DATA";

/// Not a test by itself: the parent process of the tests below, started as `this_binary --ignored --exact orphans::parent`.
#[tokio::test]
#[ignore = "started by the other tests of this file"]
async fn parent() {
    let Some(data) = std::env::var_os(DATA) else { return };
    let paths = Paths::new(data);
    let _nats = Nats::start(NatsOptions::new(paths.clone())).await.unwrap();
    let _postgres = Postgres::start(PostgresOptions::new(paths.clone())).await.unwrap();
    std::fs::write(paths.data.join("up"), "").unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
}

fn recorded_pid(paths: &Paths, file: &str) -> u32 {
    let text = std::fs::read_to_string(paths.data.join(file)).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

async fn killed_parent(paths: &Paths, kill_watchdogs: bool) -> (u32, u32) {
    let mut parent = Command::new(std::env::current_exe().unwrap());
    parent
        .args(["--ignored", "--exact", "orphans::parent"])
        .env(DATA, &paths.data)
        .stdout(Stdio::null());
    let mut parent = parent.spawn().unwrap();
    let up = paths.data.join("up");
    until("the parent has its servers", || up.exists()).await;
    let servers = (
        recorded_pid(paths, "nats/nats.pid"),
        recorded_pid(paths, "postgres/postgres.pid"),
    );
    if kill_watchdogs {
        for server in [servers.0, servers.1] {
            let program = program_of(server).unwrap();
            let watched = format!("tollgate-watchdog\0{server}\0{}", program.display());
            for watchdog in processes_naming(&watched) {
                Command::new("kill")
                    .args(["-9", &watchdog.to_string()])
                    .status()
                    .unwrap();
            }
        }
    }
    parent.kill().unwrap();
    parent.wait().unwrap();
    servers
}

#[tokio::test]
async fn the_watchdog_stops_the_servers_of_a_killed_parent() {
    let paths = Paths::temporary().unwrap();
    let (nats, postgres) = killed_parent(&paths, false).await;
    until("both servers are gone", || {
        program_of(nats).is_none() && program_of(postgres).is_none()
    })
    .await;
}

#[tokio::test]
async fn the_next_start_stops_what_was_left() {
    let paths = Paths::temporary().unwrap();
    let (old_nats, old_postgres) = killed_parent(&paths, true).await;
    assert!(program_of(old_nats).is_some() && program_of(old_postgres).is_some());
    let said = Said::default();
    let mut options = NatsOptions::new(paths.clone());
    options.progress = said.progress();
    let nats = Nats::start(options).await.unwrap();
    let mut options = PostgresOptions::new(paths.clone());
    options.progress = said.progress();
    let postgres = Postgres::start(options).await.unwrap();
    assert!(program_of(old_nats).is_none() && program_of(old_postgres).is_none());
    assert_eq!(
        said.text().matches("left by a Tollgate that was killed").count(),
        2,
        "{}",
        said.text()
    );
    nats.stop().await.unwrap();
    postgres.stop().await.unwrap();
}
