//! Real client libraries from PyPI and npm, against a running stack.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use tokio::{process::Command, sync::Mutex};

use crate::harness::{EMBEDDERS, KEY, MODELS, Options, Stack, WEBHOOK_SECRET};

const PYTHON: [&str; 8] = [
    "openai_client.py",
    "responses_client.py",
    "anthropic_client.py",
    "genai_client.py",
    "langchain_client.py",
    "grpc_client.py",
    "webhook_client.py",
    "batch_client.py",
];

/// A virtual environment with the clients, made once and kept beside the build.
pub(crate) async fn python() -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    let _held = ONE_AT_A_TIME.lock().await;
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
        .env("TOLLGATE_WEBHOOK_SECRET", WEBHOOK_SECRET)
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

#[tokio::test(flavor = "multi_thread")]
async fn official_clients_at_every_door_with_every_provider_behind_it() {
    let python = python().await;
    let home = node(&python).await;
    let stack = Stack::start(Options::with_dialects()).await;
    for script in PYTHON {
        let mut command = Command::new(&python);
        command.arg(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../tests/clients")
                .join(script),
        );
        run(&stack, command).await;
    }
    let mut command = Command::new(python.parent().unwrap().join("node"));
    command.arg("client.mjs").current_dir(home);
    run(&stack, command).await;
    stack.stop().await;
}
