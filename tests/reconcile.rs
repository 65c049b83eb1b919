//! A provider's own export of usage against the ledger, after everything that can happen to a call.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use tollgate_simulator::Script;

use crate::harness::{Options, Stack, chat, load, streamed};

impl Stack {
    /// The simulator's bill, as OpenAI's usage API gives one out.
    async fn bill(&self) -> Value {
        let address = format!("{}/v1/organization/usage/completions", self.provider);
        let bytes = self.client.get(address).send().await.unwrap().bytes().await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Whether `tollgate report reconcile` finds the bill in order, and what it says.
    async fn reconcile(&self, bill: &Value, more: &[&str]) -> (bool, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bill.to_string()).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["report", "reconcile", "--bill"])
            .arg(file.path())
            .args(more)
            .env("DATABASE_URL", self.database_url())
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.success(), text)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_providers_count_is_the_ledgers() {
    let script: Script = serde_json::from_value(json!({ "error_rate": 0.1 })).unwrap();
    let stack = Stack::start(Options {
        script,
        ..Options::default()
    })
    .await;
    let (client, http) = (stack.client.clone(), stack.http.clone());
    load(300, 16, move |number| {
        let request = client
            .post(format!("{http}/v1/chat/completions"))
            .bearer_auth(crate::harness::KEY);
        let text = format!("request number {number}");
        let body = if number % 2 == 0 {
            chat("sim-mini", &text)
        } else {
            streamed("sim-mini", &text)
        };
        async move {
            let _ = request.body(body.to_string()).send().await.unwrap().bytes().await;
        }
    })
    .await;
    stack.settled(300, Duration::from_secs(30)).await;
    let bill = stack.bill().await;
    let (equal, text) = stack.reconcile(&bill, &["--provider", "simulator"]).await;
    assert!(equal && text.contains(" 0 differ"), "{text}");
    // One token that the ledger does not have.
    let mut wrong = bill.clone();
    let tokens = &mut wrong["data"][0]["results"][0]["input_tokens"];
    *tokens = json!(tokens.as_u64().unwrap() + 1);
    let (equal, text) = stack.reconcile(&wrong, &["--format", "json"]).await;
    let lines: Value = serde_json::from_str(&text).unwrap();
    assert!(!equal, "{text}");
    assert_eq!(
        (&lines[0]["measure"], &lines[0]["difference"]),
        (&json!("input_tokens"), &json!("1"))
    );
    // Nothing of it is of another provider.
    let (equal, text) = stack.reconcile(&bill, &["--provider", "elsewhere"]).await;
    assert!(!equal && text.contains("DIFFERS"), "{text}");
    let (equal, text) = stack.reconcile(&json!({ "data": [] }), &[]).await;
    assert!(!equal && text.contains("the bill is empty"), "{text}");
    let report = async |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command
            .arg("report")
            .args(args)
            .env("DATABASE_URL", stack.database_url());
        let output = command.output().await.unwrap();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let retries: Value = serde_json::from_str(&report(&["retries", "--format", "json"]).await).unwrap();
    // The errors of the provider, whether they were tried again or not.
    let count = |column: &str| retries[0][column].as_u64().unwrap();
    assert!(count("further_calls") + count("never_answered") > 0, "{retries}");
    let prices = report(&["unit-prices", "--format", "csv", "--since", "0"]).await;
    assert!(
        prices.starts_with("day,provider,provider_model,tier,unit,quantity,usd,"),
        "{prices}"
    );
    assert!(
        report(&["focus", "--organisation", "nobody"])
            .await
            .starts_with("BilledCost")
    );
    let chart = report(&["cost", "--format", "chart"]).await;
    assert!(
        chart.starts_with("sim-mini") && chart.contains(&"█".repeat(50)),
        "{chart}"
    );
    stack.stop().await;
}
