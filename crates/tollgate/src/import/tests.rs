use serde_json::{Value, json};

use super::{Imported, litellm::convert};

const CONFIG: &str = r#"
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY, rpm: 500}
  - model_name: gpt-4o
    litellm_params: &azure
      model: azure/my-gpt-4o
      api_base: https://mine.openai.azure.com/
      api_key: os.environ/AZURE_KEY
      api_version: "2024-10-21"
      order: 2
  - model_name: claude
    litellm_params: {model: anthropic/claude-sonnet-4-5, api_key: sk-ant-written-out, timeout: "30"}
    model_info: {input_cost_per_token: 3e-6, output_cost_per_token: "0.000015", cache_read_input_token_cost: 3e-7, input_cost_per_token_batches: 0.0000015, input_cost_per_image: 0.1}
  - model_name: claude-eu
    litellm_params: {model: bedrock/converse/eu.anthropic.claude-sonnet-4-5-20250929-v1:0, aws_region_name: eu-central-1}
  - model_name: local
    litellm_params: {model: ollama_chat/llama3.2:3b, api_base: "http://127.0.0.1:11434", extra_headers: {x: y}}
  - model_name: long
    litellm_params: {model: gemini-3-pro, litellm_credential_name: google}
  - model_name: "openai/*"
    litellm_params: {model: "openai/*"}
  - model_name: odd
    litellm_params: {model: watsonx/granite}
credential_list:
  - {credential_name: google, credential_values: {api_key: os.environ/GEMINI_API_KEY}}
litellm_settings:
  num_retries: 5
  request_timeout: 600
  drop_params: true
  fallbacks: [{claude: [wrong]}]
  context_window_fallbacks: [{gpt-4o: [long]}]
  success_callback: [prometheus]
router_settings:
  fallbacks: [{claude: [claude-eu, nobody]}, {gpt-4o: [claude]}]
  num_retries: 2
  routing_strategy: simple-shuffle
  model_group_alias: {fast: gpt-4o, hidden: {model: local, hidden: true}}
general_settings:
  master_key: sk-1234
  database_url: os.environ/DATABASE_URL
guardrails: []
"#;

fn keys() -> Vec<Value> {
    let hash = |digit: &str| digit.repeat(64);
    vec![
        json!({"token": hash("a"), "key_alias": "shop frontend", "models": ["gpt-4o", "gone"], "rpm_limit": "60",
               "team_id": "8a1c", "expires": "2030-01-31T00:00:00Z", "max_budget": 100, "metadata": {"tags": ["web"]}}),
        json!({"token": hash("B"), "key_alias": "shop frontend", "models": [], "tpm_limit": null, "spend": 3.5}),
        json!({"token": hash("c"), "key_alias": "blocked", "blocked": true}),
        json!({"token": "sk-not-a-hash", "key_alias": "forged"}),
        json!({"token": hash("d"), "key_alias": "nothing", "models": ["gone"]}),
        json!({"token": hash("e"), "key_alias": "over", "expires": "yesterday"}),
    ]
}

fn imported() -> Imported {
    convert(&serde_yaml_ng::from_str(CONFIG).unwrap(), &keys())
}

#[test]
fn a_realistic_configuration_becomes_one_without_mistakes() {
    let imported = imported();
    let config = tollgate_config::parse(&imported.config, "tollgate.yaml").unwrap();
    let targets = |name: &str| -> Vec<String> {
        let model = config.models.iter().find(|model| model.name == name).unwrap();
        model
            .targets
            .iter()
            .map(|target| format!("{}/{}", target.provider, target.model))
            .collect()
    };
    assert_eq!(
        targets("gpt-4o"),
        ["openai/gpt-4o", "azure/my-gpt-4o", "anthropic/claude-sonnet-4-5"]
    );
    assert_eq!(
        targets("claude"),
        [
            "anthropic/claude-sonnet-4-5",
            "bedrock/eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
        ]
    );
    assert_eq!(targets("fast"), targets("gpt-4o")[..2]);
    assert_eq!(targets("hidden"), ["ollama/llama3.2:3b"]);
    let gpt = config.models.iter().find(|model| model.name == "gpt-4o").unwrap();
    assert_eq!(gpt.context_length_targets[0].provider, "gemini");
    let provider = |name: &str| config.providers.iter().find(|provider| provider.name == name).unwrap();
    assert_eq!(provider("azure").base_url, "https://mine.openai.azure.com/openai");
    assert_eq!(provider("ollama").base_url, "http://127.0.0.1:11434/v1");
    assert_eq!(provider("bedrock").region.as_deref(), Some("eu-central-1"));
    assert_eq!(provider("anthropic").first_byte_timeout.as_secs(), 30);
    assert_eq!(
        (config.router.retries, config.ingress.request_timeout.as_secs()),
        (2, 600)
    );
    let names: Vec<_> = config.keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["master", "shop-frontend", "shop-frontend-2"]);
    assert_eq!(config.keys[0].hash, tollgate_config::hash_key("sk-1234"));
    let shop = &config.keys[1];
    assert_eq!((shop.hash, shop.grant.requests_per_minute), ([0xaa; 32], Some(60)));
    assert_eq!(shop.grant.models.as_deref(), Some(["gpt-4o".to_owned()].as_slice()));
    assert_eq!(shop.tenant.to_string(), "imported/8a1c");
    assert!(!imported.config.contains("sk-"), "a secret was written");
}

#[test]
fn prices_are_sheets() {
    let imported = imported();
    let sheets = tollgate_pricing::Catalogue::read(&imported.sheets, "x").unwrap();
    let sheet = serde_json::to_value(sheets.sheets().next().unwrap()).unwrap();
    let rates = json!({"input": "3", "input@batch": "1.5", "cached_input": "0.3", "output": "15"});
    assert_eq!((&sheet["per_million"], sheets.sheets().count()), (&rates, 1));
}

#[test]
fn what_was_left_out_is_told() {
    let notes = imported().notes.join("\n");
    for expected in [
        "openai/*: stands for many",
        "odd: the provider of \"watsonx/granite\" is not known",
        "anthropic: api_key is written out; put it into the variable ANTHROPIC_API_KEY",
        "litellm_params.extra_headers is not carried over",
        "gpt-4o: rpm: limits of a provider",
        "falls back on \"nobody\"",
        "input_cost_per_image has no rate",
        "router_settings.routing_strategy is not carried over: targets are tried in order",
        "litellm_settings.success_callback is not carried over: metrics",
        "general_settings.database_url is not carried over",
        "guardrails is not carried over",
        "key shop frontend: not carried over: max_budget",
        "key shop frontend: may use \"gone\"",
        "key blocked: is blocked",
        "key forged: has no hash",
        "key nothing: none of its models",
        "key over: the end \"yesterday\" is no time",
        "prices of its own are in prices.jsonl",
    ] {
        assert!(notes.contains(expected), "{expected}\n\n{notes}");
    }
    assert!(
        !notes.contains("sk-ant") && !notes.contains("sk-1234"),
        "a secret was told"
    );
}

#[test]
fn anything_is_read_without_a_panic() {
    for theirs in [
        json!({}),
        json!({"model_list": 7, "general_settings": [], "router_settings": {"fallbacks": {"a": 1}, "model_group_alias": 3}}),
        json!({"model_list": [null, 1, {}, {"model_name": 4, "litellm_params": []}, {"litellm_params": {"model": ""}}]}),
        json!({"model_list": [{"model_name": "a", "litellm_params": {"model": "azure/x", "order": "first", "timeout": -1}}],
               "litellm_settings": {"num_retries": 1e300, "fallbacks": [[], {"a": "b"}, {"a": [1]}]}}),
    ] {
        let keys = [
            json!(null),
            json!({"token": 1}),
            json!({"token": "é".repeat(32), "models": "all"}),
        ];
        convert(&theirs, &keys);
    }
}
