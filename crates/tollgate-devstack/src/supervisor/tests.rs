use std::path::Path;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

fn quick() -> Policy {
    let (first_wait, longest_wait) = (Duration::from_millis(10), Duration::from_millis(40));
    Policy {
        first_wait,
        longest_wait,
        ..Policy::default()
    }
}

fn script(name: &str, folder: &Path, text: &str) -> Role {
    Role {
        name: name.to_owned(),
        command: "/bin/sh".into(),
        args: vec!["-c".to_owned(), text.to_owned()],
        env: vec![("ROLE_NAME".to_owned(), name.to_owned())],
        log: RoleLog::File(folder.join(format!("{name}.log"))),
        ready_url: None,
    }
}

/// Ends on SIGTERM at once and notes it.
const OBEDIENT: &str = r#"trap 'echo "$ROLE_NAME" >> "$OUT"; exit 0' TERM; echo up; while :; do sleep 0.02; done"#;

async fn next(changes: &mut broadcast::Receiver<RoleChange>) -> RoleState {
    timeout(LIMIT, changes.recv()).await.unwrap().unwrap().state
}

#[tokio::test]
async fn a_role_is_restarted_by_its_own_end_and_held_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (supervisor, _changes) = Supervisor::start(vec![script("a", folder.path(), OBEDIENT)], quick());
    assert!(supervisor.all_ready(LIMIT).await);
    let first = supervisor.pid("a").unwrap();
    assert!(supervisor.restart("a", LIMIT).await.unwrap());
    let second = supervisor.pid("a").unwrap();
    assert_ne!(first, second);
    let stopped = || {
        std::fs::read_to_string(format!("/proc/{second}/stat"))
            .unwrap()
            .contains(") T ")
    };
    for hold in [true, false] {
        supervisor.hold("a", hold).await.unwrap();
        timeout(LIMIT, async {
            while stopped() != hold {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
    }
    assert!(matches!(
        supervisor.restart("b", LIMIT).await,
        Err(Error::UnknownRole(_))
    ));
    supervisor.stop(LIMIT).await;
}

#[tokio::test]
async fn a_killed_role_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let (supervisor, mut changes) = Supervisor::start(vec![script("a", folder.path(), "exec sleep 60")], quick());
    assert!(supervisor.all_ready(LIMIT).await);
    let first = supervisor.pid("a").unwrap();
    assert_eq!(next(&mut changes).await, RoleState::Starting { pid: first });
    assert_eq!(next(&mut changes).await, RoleState::Ready { pid: first });
    supervisor.kill("a").await.unwrap();
    let RoleState::Exited {
        status: Some(status),
        restarting_in,
    } = next(&mut changes).await
    else {
        panic!("not ended")
    };
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    assert_eq!(restarting_in, quick().first_wait);
    let RoleState::Starting { pid } = next(&mut changes).await else {
        panic!("not started again")
    };
    assert_ne!(pid, first);
    assert!(matches!(supervisor.kill("b").await, Err(Error::UnknownRole(_))));
    supervisor.stop(LIMIT).await;
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn one_that_keeps_dying_waits_longer_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let (supervisor, mut changes) = Supervisor::start(vec![script("a", folder.path(), "exit 3")], quick());
    let mut waits = Vec::new();
    while waits.len() < 4 {
        if let RoleState::Exited { restarting_in, .. } = next(&mut changes).await {
            waits.push(restarting_in.as_millis());
        }
    }
    assert_eq!(waits, [10, 20, 40, 40]);
    supervisor.stop(LIMIT).await;
}

#[tokio::test]
async fn a_program_that_is_not_there_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let mut role = script("a", folder.path(), "");
    role.command = folder.path().join("missing");
    let (supervisor, mut changes) = Supervisor::start(vec![role], quick());
    assert!(matches!(
        next(&mut changes).await,
        RoleState::Exited { status: None, .. }
    ));
    supervisor.stop(LIMIT).await;
}

#[tokio::test]
async fn roles_are_stopped_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("order");
    let roles = ["one", "two", "three"].map(|name| {
        let mut role = script(name, folder.path(), OBEDIENT);
        role.env.push(("OUT".to_owned(), out.to_string_lossy().into_owned()));
        role
    });
    let (supervisor, _changes) = Supervisor::start(roles.to_vec(), quick());
    for name in ["one", "two", "three"] {
        let log = folder.path().join(format!("{name}.log"));
        while std::fs::read_to_string(&log).unwrap_or_default().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    }
    supervisor.stop(LIMIT).await;
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "one\ntwo\nthree\n");
}

#[tokio::test]
async fn what_ignores_the_request_is_killed_when_the_budget_ends() {
    let folder = tempfile::tempdir().unwrap();
    let role = script(
        "deaf",
        folder.path(),
        "trap '' TERM; echo up; while :; do sleep 0.02; done",
    );
    let (supervisor, _changes) = Supervisor::start(vec![role], quick());
    let log = folder.path().join("deaf.log");
    while std::fs::read_to_string(&log).unwrap_or_default().is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    let pid = supervisor.pid("deaf").unwrap();
    let begun = Instant::now();
    supervisor.stop(Duration::from_millis(300)).await;
    assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(3));
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn a_role_is_ready_when_its_page_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut role = script("a", folder.path(), "exec sleep 60");
    role.ready_url = Some(format!("http://{}/readyz", listener.local_addr().unwrap()));
    let (supervisor, mut changes) = Supervisor::start(vec![role], quick());
    assert!(matches!(next(&mut changes).await, RoleState::Starting { .. }));
    for status in ["503 Service Unavailable", "200 OK"] {
        let (mut stream, _) = timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
        stream
            .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())
            .await
            .unwrap();
    }
    assert!(matches!(next(&mut changes).await, RoleState::Ready { .. }));
    supervisor.stop(LIMIT).await;
}
