//! Real client libraries from PyPI, against a running stack.

use std::{path::Path, process::Output};

use tokio::process::Command;
use tollgate_simulator::Script;

use crate::harness::{KEY, Stack};

/// A virtual environment with the clients, made once and kept beside the build.
async fn python() -> std::path::PathBuf {
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

#[tokio::test(flavor = "multi_thread")]
async fn openais_package_and_grpcs_reflection() {
    let python = python().await;
    let stack = Stack::with(Script::default()).await;
    for script in ["openai_client.py", "grpc_client.py"] {
        let output = Command::new(&python)
            .arg(
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("../../tests/clients")
                    .join(script),
            )
            .env("TOLLGATE_HTTP", &stack.http)
            .env("TOLLGATE_GRPC", &stack.grpc)
            .env("TOLLGATE_API_KEY", KEY)
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{script}: {}", text(&output));
    }
    stack.stop().await;
}
