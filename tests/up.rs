//! `tollgate up` as a user runs it, and the operator's commands around it.

use std::{path::Path, process::Output};

use tokio::process::Command;

fn tollgate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    for name in ["NATS_URL", "DATABASE_URL", "TOLLGATE_CONFIG", "TOLLGATE_API_KEY"] {
        command.env_remove(name);
    }
    command
}

/// Runs a shell script inside `up --exec`; `$tollgate` is the binary.
async fn exec(options: &[&str], script: &str) -> Output {
    let mut command = tollgate();
    command
        .args(["up", "--simulate"])
        .args(options)
        .env("tollgate", env!("CARGO_BIN_EXE_tollgate"));
    command.args(["--exec", "sh", "-euc", script]).output().await.unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

const ASK: &str = r#"curl -sS "$TOLLGATE_HTTP/v1/chat/completions" -H "Authorization: Bearer $TOLLGATE_API_KEY" \
    -d '{"model": "sim-mini", "messages": [{"role": "user", "content": "hello"}]}' "#;

/// Messages that NATS itself says it has brought to the stages.
const HOPS: &str = r#"curl -sS "$TOLLGATE_NATS_MONITOR/subsz?subs=1" | python3 -c '
import json, sys
for one in json.load(sys.stdin)["subscriptions_list"]:
    if one["subject"].startswith("tollgate.v1.") and one.get("qgroup"):
        print("hop", one["subject"], one["msgs"])' "#;

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_against_the_stack_and_its_status_is_passed_on() {
    let script = format!(
        "{ASK}; {HOPS}; $tollgate chat 'from the terminal'; \
         until $tollgate report cost --by key --format csv | grep -q '^local,2,'; do sleep 0.1; done; \
         test -n \"$NATS_URL$DATABASE_URL$TOLLGATE_GRPC$TOLLGATE_SIMULATOR\"; exit 7"
    );
    let output = exec(&[], &script).await;
    assert_eq!(output.status.code(), Some(7), "{}", text(&output));
    let said = text(&output);
    for expected in [
        "You said: hello",
        "You said: from the terminal",
        "hop tollgate.v1.guard 1",
        "hop tollgate.v1.route 1",
        "hop tollgate.v1.work.simulator 1",
    ] {
        assert!(said.contains(expected), "{expected} is missing: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_one_process_the_stages_call_one_another_directly() {
    let output = exec(
        &["--all-in-one"],
        &format!("{ASK}; {HOPS}; ps -o args= -A | grep '[t]ollgate all$'"),
    )
    .await;
    let said = text(&output);
    assert!(output.status.success() && said.contains("You said: hello"), "{said}");
    for hop in ["guard", "route", "work.simulator"] {
        assert!(
            said.contains(&format!("hop tollgate.v1.{hop} 0")),
            "{hop} went through the queue: {said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_scaled_one_by_one() {
    let script = format!("{ASK}; ps -o args= -A | grep -c '[t]ollgate worker --provider simulator$'");
    let output = exec(&["--scale", "worker=3", "--scale", "router=2"], &script).await;
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    for role in ["worker-simulator-3", "router-2", "guardrail"] {
        assert!(said.contains(role), "{role} is missing: {said}");
    }
}

#[tokio::test]
async fn a_configuration_is_told_all_its_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tollgate.yaml");
    std::fs::write(
        &file,
        "models:\n  - name: m\n    targets:\n      - {provider: opnai, model: x}\nbuss: {}\n",
    )
    .unwrap();
    let output = check(&file).await;
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("tollgate.yaml:4:") && said.contains("tollgate.yaml:5:1"),
        "{said}"
    );
    std::fs::write(&file, "").unwrap();
    assert!(check(&file).await.status.success());
    let missing = check(&folder.path().join("none.yaml")).await;
    assert_eq!(missing.status.code(), Some(1));
}

async fn check(file: &Path) -> Output {
    tollgate().arg("check").arg(file).output().await.unwrap()
}

#[tokio::test]
async fn wrong_commands_say_what_is_wrong() {
    for (args, expected) in [
        (
            &["worker", "--provider", "x", "--config", "/nowhere.yaml"][..],
            "/nowhere.yaml",
        ),
        (&["up", "--scale", "ingress=2"][..], "can be scaled"),
        (
            &[
                "report",
                "cost",
                "--since",
                "soon",
                "--database-url",
                "postgres://127.0.0.1:9/x",
            ][..],
            "no span of time",
        ),
        (
            &["chat", "hi", "--grpc", "http://127.0.0.1:9", "--api-key", "tg_x"][..],
            "cannot reach",
        ),
    ] {
        let output = tollgate().args(args).output().await.unwrap();
        assert!(!output.status.success());
        assert!(text(&output).contains(expected), "{args:?}: {}", text(&output));
        assert!(!text(&output).contains("panicked"));
    }
}
