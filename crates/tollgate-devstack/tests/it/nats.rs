use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tollgate_devstack::{Error, Nats, NatsOptions, Paths, SyncInterval};

use crate::support::{processes_naming, program_of};

/// Sends one JetStream API request, or a stream message, and gives the answer's JSON text.
async fn request(nats: &Nats, subject: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(nats.url().trim_start_matches("nats://"))
        .await
        .unwrap();
    let commands = format!(
        "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\nPUB {subject} answer {}\r\n{body}\r\n",
        body.len()
    );
    stream.write_all(commands.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let answer = async {
        loop {
            let line = lines.next_line().await.unwrap().unwrap();
            if line.starts_with("MSG answer") {
                return lines.next_line().await.unwrap().unwrap();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), answer).await.unwrap()
}

#[tokio::test]
async fn messages_survive_a_kill_and_a_restart_on_the_same_port() {
    let paths = Paths::temporary().unwrap();
    let mut nats = Nats::start(NatsOptions::new(paths.clone())).await.unwrap();
    let (url, first) = (nats.url().to_owned(), nats.pid().unwrap());
    let made = request(
        &nats,
        "$JS.API.STREAM.CREATE.KEPT",
        r#"{"name":"KEPT","subjects":["kept"],"storage":"file"}"#,
    )
    .await;
    assert!(made.contains("\"created\""), "{made}");
    let acked = request(&nats, "kept", "hello").await;
    assert!(acked.contains("\"seq\":1"), "{acked}");

    nats.kill().await.unwrap();
    assert_eq!(nats.pid(), None);
    assert!(program_of(first).is_none());
    nats.restart().await.unwrap();
    assert_eq!(nats.url(), url);
    assert_ne!(nats.pid().unwrap(), first);
    let seen = request(&nats, "$JS.API.STREAM.INFO.KEPT", "").await;
    assert!(seen.contains("\"messages\":1"), "{seen}");

    // A running one is stopped first.
    nats.restart().await.unwrap();
    let config = std::fs::read_to_string(paths.data.join("nats/nats.conf")).unwrap();
    assert!(config.contains("sync_interval: always"), "{config}");
    nats.stop().await.unwrap();
    assert_eq!(processes_naming(paths.data.to_str().unwrap()), Vec::<u32>::new());
}

#[tokio::test]
async fn a_folder_serves_one_server_at_a_time() {
    let paths = Paths::temporary().unwrap();
    let nats = Nats::start(NatsOptions::new(paths.clone())).await.unwrap();
    let Err(error) = Nats::start(NatsOptions::new(paths.clone())).await else {
        panic!("two servers in one folder")
    };
    assert!(matches!(error, Error::FolderInUse { .. }), "{error}");
    drop(nats);
    assert_eq!(processes_naming(paths.data.to_str().unwrap()), Vec::<u32>::new());
    let mut options = NatsOptions::new(paths.clone());
    options.sync = SyncInterval::Every(Duration::from_secs(60));
    Nats::start(options).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_failed_start_shows_the_log() {
    let paths = Paths::temporary().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = NatsOptions::new(paths.clone());
    options.port = Some(taken.local_addr().unwrap().port());
    let Err(error) = Nats::start(options).await else {
        panic!("started on a taken port")
    };
    let text = error.to_string();
    assert!(
        text.contains("address already in use") && text.contains("nats.log"),
        "{text}"
    );
}

#[tokio::test]
async fn the_end_of_the_server_is_seen() {
    let paths = Paths::temporary().unwrap();
    let mut nats = Nats::start(NatsOptions::new(paths.clone())).await.unwrap();
    let pid = nats.pid().unwrap().to_string();
    std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
    let status = tokio::time::timeout(Duration::from_secs(5), nats.exited())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}
