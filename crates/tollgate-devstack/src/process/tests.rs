use std::sync::Arc;

use super::*;

fn silent() -> Progress {
    Arc::new(|_| ())
}

fn sleeper(folder: &Path) -> Spec {
    Spec {
        program: "/bin/sh".into(),
        args: ["-c", "echo up; sleep 60 & wait", &folder.to_string_lossy()]
            .map(str::to_owned)
            .to_vec(),
        environment: Environment::Bare,
        log: Some(folder.join("log")),
        pid_file: Some(folder.join("pid")),
        run_as: None,
        directory: None,
        drop_signal: Signal::KILL,
        orphan_signal: Signal::TERM,
    }
}

#[tokio::test]
async fn a_process_that_is_not_ours_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let mut process = Managed::spawn(&sleeper(folder.path())).unwrap();
    let pid = process.pid().unwrap();
    let shell = fs::read_link(proc(pid, "exe")).unwrap();
    let file = other.path().join("pid");
    // The right program, but of another folder; then the right folder, but another program.
    fs::write(&file, format!("{pid}\n{}\n", shell.display())).unwrap();
    stop_stale(&file, other.path(), Signal::KILL, &silent()).await;
    fs::write(&file, format!("{pid}\n/usr/bin/other\n")).unwrap();
    stop_stale(&file, folder.path(), Signal::KILL, &silent()).await;
    assert!(process.try_wait().unwrap().is_none());
    assert!(!file.exists());
    process.kill().await.unwrap();
}

#[tokio::test]
async fn a_dropped_process_is_gone_with_its_pid_file() {
    let folder = tempfile::tempdir().unwrap();
    let process = Managed::spawn(&sleeper(folder.path())).unwrap();
    let pid = process.pid().unwrap();
    assert!(folder.path().join("pid").exists());
    drop(process);
    assert!(!proc(pid, "exe").exists());
    assert!(!folder.path().join("pid").exists());
}

#[tokio::test]
async fn a_process_that_ends_early_shows_only_its_own_lines() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("log"), "an earlier run\n").unwrap();
    let mut spec = sleeper(folder.path());
    spec.args[1] = "echo cannot bind >&2; exit 3".to_owned();
    let mut process = Managed::spawn(&spec).unwrap();
    let never = || async { Err("nothing".to_owned()) };
    let text = process
        .ready("thing", Duration::from_secs(10), never)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("exit status: 3") && text.contains("cannot bind"),
        "{text}"
    );
    assert!(!text.contains("an earlier run"), "{text}");
}

#[tokio::test]
async fn one_that_will_not_stop_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = sleeper(folder.path());
    spec.args[1] = "trap '' TERM; echo up; while :; do sleep 1; done".to_owned();
    let mut process = Managed::spawn(&spec).unwrap();
    while !process.log_of_this_run().contains("up") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let status = process.stop(Signal::TERM, Duration::from_millis(100)).await.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
}
