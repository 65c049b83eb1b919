//! Real client libraries from PyPI, against a running stack.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use tokio::{process::Command, sync::Mutex};
use tollgate_simulator::Script;

use crate::harness::{EMBEDDERS, KEY, MODELS, Options, Stack};

/// A virtual environment with the clients, made once and kept beside the build.
async fn python() -> PathBuf {
    static MADE: Mutex<()> = Mutex::const_new(());
    let _one_at_a_time = MADE.lock().await;
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients");
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).unwrap();
    let done = home.join("installed.txt");
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return home.join("bin/python");
    }
    let _ = std::fs::remove_dir_all(&home);
    let made = Command::new("python3")
        .args(["-m", "venv"])
        .arg(&home)
        .output()
        .await
        .unwrap();
    assert!(made.status.success(), "{}", text(&made));
    let python = home.join("bin/python");
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--only-binary=:all:",
        "-r",
    ];
    let installed = Command::new(&python)
        .args(pip)
        .arg(&requirements)
        .output()
        .await
        .unwrap();
    assert!(installed.status.success(), "{}", text(&installed));
    std::fs::write(done, wanted).unwrap();
    python
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A folder with the packages from npm, made once with the Node that came from PyPI.
async fn node(python: &Path) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/node");
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("node");
    let wanted = std::fs::read_to_string(sources.join("package-lock.json")).unwrap();
    let done = home.join("installed.json");
    if !std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        let _ = std::fs::remove_dir_all(&home);
        std::fs::create_dir_all(&home).unwrap();
        for name in ["package.json", "package-lock.json"] {
            std::fs::copy(sources.join(name), home.join(name)).unwrap();
        }
        let bin = python.parent().unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        let installed = Command::new(bin.join("npm"))
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&home)
            .env("PATH", path)
            .output()
            .await
            .unwrap();
        assert!(installed.status.success(), "{}", text(&installed));
        std::fs::write(done, wanted).unwrap();
    }
    std::fs::copy(sources.join("client.mjs"), home.join("client.mjs")).unwrap();
    home
}

async fn run(stack: &Stack, mut command: Command) {
    let output = command
        .env("TOLLGATE_HTTP", &stack.http)
        .env("TOLLGATE_GRPC", &stack.grpc)
        .env("TOLLGATE_API_KEY", KEY)
        .env("TOLLGATE_MODELS", MODELS.join(","))
        .env("TOLLGATE_EMBEDDERS", EMBEDDERS.join(","))
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{command:?}\n{}\n{}",
        text(&output),
        stack.logs()
    );
}

/// Runs scripts of one language's clients against a stack with a provider of every dialect.
async fn python_clients(scripts: &[&str]) {
    let python = python().await;
    let stack = dialects().await;
    for script in scripts {
        let mut command = Command::new(&python);
        command.arg(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../tests/clients")
                .join(script),
        );
        run(&stack, command).await;
    }
    stack.stop().await;
}

async fn dialects() -> Stack {
    let script = Script {
        models: vec!["sim-mini".into(), "sim-embed".into(), "anthropic.claude-sim-4-5".into()],
        ..Script::default()
    };
    Stack::start(Options {
        script,
        dialects: true,
        ..Options::default()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn openais_package_and_grpcs_reflection() {
    python_clients(&["openai_client.py", "responses_client.py", "grpc_client.py"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropics_package() {
    python_clients(&["anthropic_client.py"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn googles_package() {
    python_clients(&["genai_client.py"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn langchains_packages() {
    python_clients(&["langchain_client.py"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_packages() {
    let python = python().await;
    let home = node(&python).await;
    let stack = dialects().await;
    let mut command = Command::new(python.parent().unwrap().join("node"));
    command.arg("client.mjs").current_dir(home);
    run(&stack, command).await;
    stack.stop().await;
}
