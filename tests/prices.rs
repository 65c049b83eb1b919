//! Prices that are entered while the gateway runs, and what the ledger makes of them.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use tollgate_proto::v1::{ImportPricesRequest, ListPricesRequest, PriceCallRequest, prices_client::PricesClient};
use tonic::Code;

use crate::harness::{KEY, Options, Stack, bearer, channel, chat};

impl Stack {
    /// What `tollgate prices` says, on standard output or else on standard error.
    async fn prices(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .arg("prices")
            .args(arguments)
            .env("TOLLGATE_REPORTS", &self.reports)
            .env("TOLLGATE_API_KEY", KEY)
            .output()
            .await
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_that_is_entered_holds_from_then_on() {
    let stack = Stack::start(Options::default()).await;
    let ask = async |body: Value| {
        let response = stack.post(&body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap();
    };
    ask(chat("sim-mini", "at the list price")).await;
    stack.settled(1, Duration::from_secs(20)).await;
    let said = stack
        .prices(&["set", "simulator", "sim-*", "input=1000", "output=0", "input@flex=500"])
        .await;
    assert!(said.unwrap().contains("1 changed"), "the first price of the contract");
    ask(chat("sim-mini", "at our own price")).await;
    let mut flexible = chat("sim-mini", "at our own price");
    flexible["service_tier"] = "flex".into();
    ask(flexible.clone()).await;
    flexible["stream"] = true.into();
    ask(flexible).await;
    stack.settled(4, Duration::from_secs(20)).await;
    // In thousandths of a dollar: tokens of the prompt, the last two half of them.
    let own = "SELECT count(*) FROM ledger WHERE cost_usd = input_tokens * 0.001 AND cost_breakdown ->> 'tier' IS NULL";
    assert_eq!(stack.count(own).await, 1);
    let flex = "SELECT count(*) FROM ledger WHERE cost_usd = input_tokens * 0.0005
                AND cost_breakdown ->> 'tier' = 'flex' AND cost_breakdown -> 'parts' -> 0 ->> 0 = 'input'";
    assert_eq!(stack.count(flex).await, 2);
    let list = "SELECT count(*) FROM ledger l JOIN price_sheets p ON p.id = l.price_id
                WHERE NOT p.custom AND p.model = 'sim-mini'";
    assert_eq!(stack.count(list).await, 1);

    let shown = stack
        .prices(&["show", "--live", "--provider", "simulator", "--model", "sim-mini"])
        .await
        .unwrap();
    assert_eq!(shown.lines().count(), 2, "{shown}");
    // The same in a file changes nothing; tried out, another rate is a change but not made.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sheets.jsonl");
    let path = file.to_str().unwrap();
    let line = |input: &str| {
        json!({"provider": "simulator", "model": "sim-*", "source": "set by hand",
               "per_million": {"input": input, "output": "0", "input@flex": "500"}})
        .to_string()
    };
    std::fs::write(&file, line("1000")).unwrap();
    assert!(
        stack
            .prices(&["import", path])
            .await
            .unwrap()
            .contains("0 changed, 1 as before")
    );
    std::fs::write(&file, line("2000")).unwrap();
    let diff = stack.prices(&["diff", path]).await.unwrap();
    assert!(
        diff.starts_with("- {") && diff.contains("\n+ {") && diff.contains("1 would change"),
        "{diff}"
    );
    assert!(stack.prices(&["diff", path]).await.unwrap().contains("1 would change"));
    assert!(stack.prices(&["import", path]).await.unwrap().contains("1 changed"));
    std::fs::write(&file, "{}\n").unwrap();
    assert!(stack.prices(&["import", path]).await.unwrap_err().contains("line 1"));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_are_asked_over_grpc_by_those_who_may() {
    let stack = Stack::start(Options::default()).await;
    let mut client = PricesClient::new(channel(&stack.reports).await);
    let usage = r#"{"prompt_tokens": 1000, "completion_tokens": 100, "service_tier": "flex", "cost": 0.5}"#;
    let call = |usage: &str| PriceCallRequest {
        provider: "openai".to_owned(),
        model: "o3".to_owned(),
        usage_json: usage.to_owned(),
        ..PriceCallRequest::default()
    };
    let found = client
        .cost(bearer(call(usage), "tg_reader"))
        .await
        .unwrap()
        .into_inner();
    // o3 as flex: 1000 × 1 + 100 × 4 millionths; the provider states something else.
    assert_eq!(
        (
            found.tier.as_str(),
            found.computed_usd.as_deref(),
            found.total_usd.as_str()
        ),
        ("flex", Some("0.0014"), "0.5")
    );
    assert_eq!((found.components.len(), found.components[0].rate.as_str()), (2, "1"));
    let sheet = found.sheet.unwrap();
    assert!(
        sheet.json.contains(r#""model":"o3""#) && sheet.version.len() == 12,
        "{sheet:?}"
    );

    let code = |status: tonic::Status| (status.code(), status.message().to_owned());
    for (usage, expected) in [
        ("{", "usage_json: is not JSON"),
        ("[]", "usage_json: expected a usage"),
        (r#"{"prompt_tokens": -1}"#, "prompt_tokens: expected a count"),
        (r#"{"prompt_tokens": 1, "service_tier": "warp"}"#, "no rate for warp"),
    ] {
        let (code, said) = code(client.cost(bearer(call(usage), "tg_reader")).await.unwrap_err());
        assert!(
            code == Code::InvalidArgument && said.contains(expected),
            "{usage}: {said}"
        );
    }
    let unknown = PriceCallRequest {
        model: "o99".to_owned(),
        ..call(usage.replace(r#", "cost": 0.5"#, "").as_str())
    };
    let (_, said) = code(client.cost(bearer(unknown, "tg_reader")).await.unwrap_err());
    assert!(said.contains("no price for \"o99\""), "{said}");

    let listed = client
        .list(bearer(ListPricesRequest::default(), "tg_reader"))
        .await
        .unwrap();
    assert!(listed.get_ref().sheets.len() > 1900);
    let import = |sheets: &str| ImportPricesRequest {
        sheets: sheets.to_owned(),
        ..ImportPricesRequest::default()
    };
    for key in ["tg_reader", "tg_masked", "tg_expired", "nobody", ""] {
        let refused = client.import(bearer(import(""), key)).await.unwrap_err();
        assert!(
            matches!(refused.code(), Code::PermissionDenied | Code::Unauthenticated),
            "{key}: {refused:?}"
        );
    }
    let twice = r#"{"provider": "p", "model": "m", "per_million": {"input": "1"}}"#;
    let other = twice.replace(r#""1""#, r#""2""#);
    for (sheets, expected) in [
        ("not json".to_owned(), "line 1"),
        (format!("{twice}\n{}", twice.replace('1', "many")), "line 2"),
        (
            format!("{twice}\n{twice}\n{other}\n{other}\n{twice}"),
            "cannot begin before",
        ),
        (twice.replace("\"m\"", "\"m\\u0000\""), "NUL"),
    ] {
        let (code, said) = code(client.import(bearer(import(&sheets), KEY)).await.unwrap_err());
        assert!(
            code == Code::InvalidArgument && said.contains(expected),
            "{sheets}: {said}"
        );
    }
    assert_eq!(
        stack
            .count("SELECT count(*) FROM price_sheets WHERE provider = 'p'")
            .await,
        0
    );
    stack.stop().await;
}
