//! Whole files: what they mean when they are right, and what is said when they are not.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use proptest::prelude::*;
use tollgate_config::{
    Config, DEFAULTS, SecretRef, parse,
    schema::{Auth, Mask, ModelTarget, Permission},
};
use tollgate_types::Dialect;
use tollgate_types::{Door, Lane};

fn read(text: &str) -> Config {
    parse(text, "tollgate.yaml").unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// All messages, without the file's name.
fn mistakes(text: &str) -> Vec<String> {
    let mistakes = parse(text, "tollgate.yaml").expect_err("a mistake");
    let lines: Vec<_> = mistakes.to_string().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), mistakes.0.len(), "one line each");
    lines
        .iter()
        .map(|line| line.strip_prefix("tollgate.yaml:").expect("the file's name").to_owned())
        .collect()
}

fn only_mistake(text: &str) -> String {
    let mistakes = mistakes(text);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    mistakes[0].clone()
}

/// `DEFAULTS` with its examples no longer comments.
fn with_examples() -> String {
    let line = |line: &str| match line.split_once('#') {
        Some((indent, example))
            if indent.trim().is_empty() && example.starts_with(|c: char| c == '-' || c.is_ascii_lowercase()) =>
        {
            format!("{indent}{example}\n")
        }
        _ => format!("{line}\n"),
    };
    DEFAULTS.lines().map(line).collect()
}

const SMALL: &str = "
keys:
- name: alice
  hash: sha256:0000000000000000000000000000000000000000000000000000000000000001
models:
- name: small
  targets: [{provider: local, model: llama}]
providers:
- name: local
  base_url: http://vllm:8000/v1
";

#[test]
fn documented_defaults_are_the_defaults() {
    assert_eq!(format!("{:#?}", read(DEFAULTS)), format!("{:#?}", read("")));
}

#[test]
fn documented_examples_are_valid() {
    let config = read(&with_examples());
    let key = &config.keys[0];
    assert_eq!(key.name, "alice");
    assert_eq!(key.expires_at.unwrap().to_rfc3339(), "2030-01-31T00:00:00+00:00");
    assert_eq!(key.grant.tags["team"], "research");
    assert_eq!(key.grant.policy.as_deref(), Some("strict"));
    assert_eq!(key.grant.models.as_deref(), Some(["gpt-4o-mini".to_owned()].as_slice()));
    assert_eq!(
        key.grant.permissions.clone().unwrap(),
        [Permission::Complete, Permission::Report]
    );
    let tenant = [&key.tenant.organisation, &key.tenant.team].map(|name| name.as_deref().unwrap());
    assert_eq!(tenant, ["acme", "research"]);
    assert!(key.grant.allows_provider("openai", Some("eu-central-1")) && !key.grant.allows_provider("local", None));
    assert!(key.grant.allows_door(Door::Grpc) && !key.grant.allows_door(Door::Gemini));
    assert!(key.grant.allows_lane(Lane::Interactive) && !key.grant.allows_lane(Lane::Jobs));
    assert_eq!(key.grant.requests_per_minute, Some(600));
    let target = ModelTarget {
        provider: "local".to_owned(),
        model: "llama3.2:3b".to_owned(),
    };
    assert_eq!(config.models[0].targets[1], target);
    assert_eq!(
        config.providers[0].auth,
        Auth::Bearer(SecretRef::Env("OPENAI_API_KEY".to_owned()))
    );
    assert_eq!(config.providers[1].auth, Auth::None);
    assert_eq!(config.providers[1].base_url, "http://127.0.0.1:11434/v1");
    let names: Vec<_> = config
        .guardrail
        .policies
        .iter()
        .map(|policy| policy.name.as_str())
        .collect();
    assert_eq!(names, ["strict", "default"]);
    assert_eq!(config.guardrail.policies[0].prompt.mask, [Mask::Email, Mask::Card]);
    assert_eq!(
        config.audit.database_url,
        Some(SecretRef::Env("TOLLGATE_DATABASE_URL".to_owned()))
    );
    assert_eq!(config.telemetry.otlp_endpoint.as_deref(), Some("http://127.0.0.1:4317"));
    assert_eq!(
        config.guardrail.delivery_advertise.as_deref(),
        Some("http://10.0.0.6:8083")
    );
}

/// Finds the keys that the reader knows by giving each mapping one that it does not.
#[test]
fn every_key_is_documented() {
    let strange = "
'?': 1
bus: {'?': 1}
ingress: {'?': 1}
keys: [{'?': 1}]
models: [{'?': 1, targets: [{'?': 1}]}]
providers: [{'?': 1}]
guardrail: {'?': 1, policies: [{'?': 1, prompt: {'?': 1}}]}
router: {'?': 1}
worker: {'?': 1}
audit: {'?': 1}
telemetry: {'?': 1}
";
    let documented = with_examples();
    let documented: Vec<_> = documented
        .lines()
        .filter_map(|line| line.trim_start_matches([' ', '-']).split_once(':'))
        .map(|(key, _)| key)
        .collect();
    let found = mistakes(strange);
    let known: Vec<_> = found
        .iter()
        .filter_map(|line| line.split_once("expected one of "))
        .collect();
    assert_eq!(known.len(), 14, "{found:#?}");
    for key in known.iter().flat_map(|(_, keys)| keys.split(", ")) {
        assert!(documented.contains(&key), "{key} is not in the defaults");
    }
}

#[test]
fn a_small_file_and_nothing_else() {
    let config = read(SMALL);
    let provider = &config.providers[0];
    assert_eq!((provider.dialect, provider.concurrency), (Dialect::OpenaiChat, 64));
    assert_eq!(provider.first_byte_timeout, Duration::from_secs(300));
    assert_eq!(provider.idle_timeout, Duration::from_secs(120));
    assert_eq!(config.keys[0].grant.policy, None);
    let grant = &config.keys[0].grant;
    assert!(grant.may(Permission::Complete) && !grant.may(Permission::Report));
    assert!(grant.models.is_none() && grant.requests_per_minute.is_none());
}

#[test]
fn nothing_at_all_is_all_defaults() {
    for text in [
        "",
        "\n",
        "# nothing\n",
        "---\n",
        "{}",
        "null",
        "bus:\nkeys:\n",
        "\u{feff}bus: {}\n",
    ] {
        let config = read(text);
        assert_eq!(config.ingress.http_listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.guardrail.policies.len(), 1);
        assert!(config.guardrail.policies[0].name == "default" && config.guardrail.policies[0].prompt.is_empty());
    }
}

#[test]
fn a_default_policy_in_the_file_replaces_the_built_in_one() {
    let config = read("guardrail: {policies: [{name: default, prompt: {mask: [email]}}]}");
    assert_eq!(config.guardrail.policies.len(), 1);
    assert_eq!(config.guardrail.policies[0].prompt.mask, [Mask::Email]);
}

#[test]
fn windows_line_ends_and_quotes_are_fine() {
    let config = read(&SMALL.replace('\n', "\r\n").replace("name: alice", "name: \"alice\""));
    assert_eq!(config.keys[0].name, "alice");
}

const WRONG: &str = r#"bus:
  url: nats://user:hunter2@nats:4222
  inline_limit: 1MiB
  replicas: three
  retention: 1w
ingress:
  http_listen: localhost:8080
  max_bodi: 1MiB
  max_buffered: 1MiB
  max_resends: -1
  max_resends: 2
keys:
- name: alice smith
  hash: tg_hunter2
  expires_at: 2030-01-31
  policy: strct
  models: [smal, small]
  permissions: [complete, admin]
- hash: sha256:0000000000000000000000000000000000000000000000000000000000000001
  tags: [a]
models:
- name: small
  targets:
  - {provider: opnai, model: gpt}
  - model: gpt
- name: small
  targets: []
- name: no targets
providers:
- name: openai
  base_url: http://api.openai.com/v1
  api_key: sk-hunter2
  dialect: open-ai
- name: third
  base_url: https://third/v1?key=hunter2
  concurrency: 0
guardrail:
  policies:
  - name: strict
    prompt: {mask: [emial], deny: [" "]}
router: [1]
worker:
  ledger_timeout: 5
audit:
  database_url: postgres://user:hunter2@db
telemtry: {}
"#;

#[test]
fn all_mistakes_are_reported_with_their_places() {
    let found = mistakes(WRONG);
    let expected = [
        "2:8: bus.url: a password must not be in this file, set NATS_URL instead",
        "3:17: bus.inline_limit: out of range, expected a size from 1KiB to 900KiB",
        "4:13: bus.replicas: expected a whole number from 1 to 5",
        "5:14: bus.retention: expected a length of time such as 500ms, 2s, 10m, 1h or 7d",
        "7:16: ingress.http_listen: expected an IP address and a port, such as 127.0.0.1:8080 or [::]:8080",
        "8:3: ingress.max_bodi: unknown key; did you mean \"max_body\"?",
        "9:17: ingress.max_buffered: max_buffered must not be less than max_body, or no body of that size could be admitted",
        "10:16: ingress.max_resends: expected a whole number from 0 to 100",
        "11:3: ingress.max_resends: given twice, first in line 10",
        "13:9: keys[0].name: expected a name of 1 to 64 letters, digits, - and _",
        "14:9: keys[0].hash: expected sha256: and 64 hexadecimal digits, the hash of the key and never the key itself",
        "15:15: keys[0].expires_at: expected a date and time with time zone, such as 2030-01-31T00:00:00Z",
        "16:11: keys[0].policy: no policy is named \"strct\"; did you mean \"strict\"?",
        "17:12: keys[0].models[0]: no model is named \"smal\"; did you mean \"small\"?",
        "18:27: keys[0].permissions[1]: expected complete or report or operate or prices or keys or audit or approve, found \"admin\"",
        "19:3: keys[1].name: missing",
        "20:9: keys[1].tags: expected a mapping, found a list",
        "24:16: models[0].targets[0].provider: no provider is named \"opnai\"; did you mean \"openai\"?",
        "25:5: models[0].targets[1].provider: missing",
        "26:9: models[1].name: the name \"small\" is taken by the model in line 22",
        "27:12: models[1].targets: the list is empty, a model needs at least one target",
        "28:3: models[2].targets: missing",
        "28:9: models[2].name: expected a model name of 1 to 128 ASCII characters without spaces, * and >",
        "31:13: providers[0].base_url: plain http would send the key readably over the internet, expected https",
        "32:12: providers[0].api_key: expected env:NAME or file:/path, a secret itself must not be in this file",
        "33:12: providers[0].dialect: expected openai or openai_responses or anthropic or gemini or bedrock, found \"open-ai\"; did you mean \"openai\"?",
        "35:13: providers[1].base_url: a URL here must not hold a query (?) or fragment (#)",
        "36:16: providers[1].concurrency: expected a whole number from 1 to 65536",
        "40:21: guardrail.policies[0].prompt.mask[0]: expected email or card, found \"emial\"; did you mean \"email\"?",
        "40:36: guardrail.policies[0].prompt.deny[0]: expected a text of 1 to 1024 bytes without control characters",
        "41:9: router: expected a mapping, found a list",
        "43:19: worker.ledger_timeout: expected a length of time such as 500ms, 2s, 10m, 1h or 7d",
        "45:17: audit.database_url: expected env:NAME or file:/path, a secret itself must not be in this file",
        "46:1: telemtry: unknown key; did you mean \"telemetry\"?",
    ];
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    assert!(
        !found.iter().any(|line| line.contains("hunter2")),
        "a secret is repeated: {found:#?}"
    );
}

#[test]
fn issuers_say_whom_they_let_in() {
    let corp = "{name: corp, issuer: 'https://id.example.com/', audiences: [tollgate], roles: {admins: admin}}";
    let read = read(&format!("issuers: [{corp}]"));
    assert_eq!(read.issuers[0].issuer, "https://id.example.com/");
    let wrong = format!(
        "issuers:\n- {corp}\n- {}\n- {}\n",
        "{name: b, issuer: 'https://id.example.com/', audiences: [], team: red, roles: {x: root}}",
        "{name: c, issuer: plain, audiences: [a], organisation: o, organisation_claim: o, default_role: developer, \
         refresh: 2h, keep: 1h, jwks_uri: 'http://id.example.com'}",
    );
    let expected = [
        "3:3: issuers[1]: a team is one of an organisation: give organisation or organisation_claim",
        "3:3: issuers[1]: no token would be accepted: give roles or default_role",
        "3:21: issuers[1].issuer: the issuer is that of the entry in line 2 already",
        "3:59: issuers[1].audiences: the list is empty, tokens for somebody else would be accepted",
        "3:85: issuers[1].roles.x: expected admin or operator or developer or auditor or approver, found \"root\"",
        "4:3: issuers[2]: organisation and organisation_claim say the same thing: give one of them",
        "4:21: issuers[2].issuer: expected an https URL below which its discovery document is, or jwks_url beside it",
        "4:128: issuers[2].keep: keep must not be less than refresh",
        "4:132: issuers[2].jwks_uri: unknown key; did you mean \"jwks_url\"?",
    ];
    assert_eq!(mistakes(&wrong), expected);
    let open =
        "issuers: [{name: a, issuer: a, audiences: [a], jwks_url: 'http://id.example.com/k', default_role: admin}]";
    let found = mistakes(open);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("plain http for private hosts only"), "{found:#?}");
}

#[test]
fn names_and_hashes_are_taken_once() {
    let twice = "
keys:
- {name: a, hash: 'sha256:0000000000000000000000000000000000000000000000000000000000000001'}
- {name: a, hash: 'sha256:0000000000000000000000000000000000000000000000000000000000000001'}
providers:
- {name: a, base_url: 'https://a'}
- {name: a, base_url: 'https://a'}
guardrail:
  policies:
  - name: a
  - name: a
";
    assert_eq!(
        mistakes(twice),
        [
            "4:10: keys[1].name: the name \"a\" is taken by the key in line 3",
            "4:19: keys[1].hash: the hash is that of the key in line 3 already",
            "7:10: providers[1].name: the name \"a\" is taken by the provider in line 6",
            "11:11: guardrail.policies[1].name: the name \"a\" is taken by the policy in line 10",
        ]
    );
}

#[test]
fn an_emptied_list_does_not_widen_a_right() {
    for list in [
        "models:",
        "models: []",
        "models: null",
        "permissions:",
        "permissions: []",
    ] {
        let text = SMALL.replace("models:\n- name", &format!("  {list}\nmodels:\n- name"));
        assert!(only_mistake(&text).contains("the list is empty"), "{list}");
    }
}

#[test]
fn a_key_without_a_value_is_a_mistake() {
    assert_eq!(
        only_mistake("bus:\n  url:\n  replicas: 1\n"),
        "2:3: bus.url: has no value"
    );
    let keyless = SMALL.replace("/v1\n", "/v1\n  api_key:\n");
    assert_eq!(only_mistake(&keyless), "11:3: providers[0].api_key: has no value");
}

#[test]
fn values_of_the_wrong_shape() {
    assert_eq!(only_mistake("- bus\n"), "1:1: expected a mapping, found a list");
    assert_eq!(only_mistake("bus\n"), "1:1: expected a mapping, found a single value");
    assert_eq!(
        only_mistake("bus: 1\n"),
        "1:6: bus: expected a mapping, found a single value"
    );
    assert_eq!(
        only_mistake("bus: {url: [a]}\n"),
        "1:12: bus.url: expected a single value, found a list"
    );
    assert_eq!(
        only_mistake("keys: {a: 1}\n"),
        "1:7: keys: expected a list, found a mapping"
    );
    assert_eq!(
        only_mistake("keys: [a]\n"),
        "1:8: keys[0]: expected a mapping, found a single value"
    );
    assert_eq!(
        only_mistake("? [a]\n: 1\n"),
        "1:3: expected a name as key, found a list"
    );
}

#[test]
fn timeouts_that_contradict_each_other() {
    assert_eq!(
        only_mistake("ingress:\n  request_timeout: 500ms\n"),
        "2:20: ingress.request_timeout: claim_timeout must be shorter than request_timeout"
    );
}

#[test]
fn yaml_that_is_not_allowed() {
    let anchor = "anchors and aliases are not supported, write the value out";
    assert_eq!(only_mistake("bus: &a {}\n"), format!("1:6: bus: {anchor}"));
    assert_eq!(
        mistakes("bus: {replicas: &a 1}\nrouter:\n  max_attempts: *a\n"),
        [
            format!("1:17: bus.replicas: {anchor}"),
            format!("3:17: router.max_attempts: {anchor}")
        ]
    );
    assert!(only_mistake("bus: !!map {}\n").contains("tags are not supported"));
    assert!(only_mistake("bus: {}\n---\nbus: {}\n").starts_with("2:1: a second document"));
    assert!(only_mistake("router:\n  <<: {max_attempts: 1}\n").contains("unknown key"));
    assert!(only_mistake("bus:\n  replicas: \"1\n").contains("not valid YAML"));
    assert!(only_mistake("bus:\n\treplicas: 1\n").starts_with("2:"));
    assert!(only_mistake("bus: {}\n\0\n").contains("not valid YAML"));
}

#[test]
fn laughs_and_depths_are_refused_at_once() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert_eq!(mistakes(&laughs).len(), 12);
    let deep = [
        "[", "{", "- ", "? ", "{a: ", "[[[[{", "a: [", "'", "\"", "&a ", "!", "*", "%", "|\n", ": ", "- - a\n",
    ];
    for piece in deep {
        let text = piece.repeat(1_000_000 / piece.len());
        assert!(parse(&text, "tollgate.yaml").is_err(), "{piece:?}");
        assert!(parse(&format!("bus: {text}"), "tollgate.yaml").is_err(), "{piece:?}");
    }
}

#[test]
fn many_mistakes_take_no_longer_than_they_must() {
    let many: String = (0..15_000)
        .map(|n| format!("- {{name: n{n}, targets: [{{provider: m{n}, x: y}}]}}\n"))
        .collect();
    assert_eq!(mistakes(&format!("models:\n{many}")).len(), 45_000);
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in any::<String>()) {
        let _ = parse(&text, "tollgate.yaml");
    }

    /// Text that gets further than noise does.
    #[test]
    fn any_yaml_like_text_is_read_without_a_panic(text in r#"([ \t\n\-:?,\[\]{}#&*!|>'"%@`~<a-c0-9\\]|: |\n  |\n- |keys|bus|---|\.\.\.|é|\r){0,80}"#) {
        let _ = parse(&text, "tollgate.yaml");
    }

    /// A valid file with a piece of it replaced: mistakes are found at places inside the file.
    #[test]
    fn any_damage_is_placed_inside_the_file(start in 0..5000_usize, length in 0..40_usize, piece in "[ \\n:a0\\[{*&\"'-]{0,6}") {
        let mut text: Vec<char> = with_examples().chars().collect();
        let start = start.min(text.len());
        let end = (start + length).min(text.len());
        text.splice(start..end, piece.chars());
        let text: String = text.into_iter().collect();
        if let Err(mistakes) = parse(&text, "tollgate.yaml") {
            prop_assert!(!mistakes.0.is_empty());
            for mistake in &mistakes.0 {
                prop_assert!((1..=text.lines().count() + 1).contains(&mistake.line), "{}", mistake);
                prop_assert!(mistake.column >= 1, "{}", mistake);
            }
        }
    }
}

fn provider(entry: &str) -> Result<tollgate_config::schema::Provider, String> {
    let text = format!("providers:\n  - {{name: p, {entry}}}\n");
    match tollgate_config::parse(&text, "t.yaml") {
        Ok(mut config) => Ok(config.providers.remove(0)),
        Err(mistakes) => Err(mistakes.to_string()),
    }
}

#[test]
fn a_preset_stands_for_what_it_says_and_is_overridden() {
    let mistral = provider("preset: mistral, api_key: env:K").unwrap();
    assert_eq!(mistral.base_url, "https://api.mistral.ai/v1");
    assert!(mistral.quirks.max_tokens && mistral.quirks.no_stream_options);
    let own = provider("preset: mistral, base_url: 'https://h/v1', quirks: [no_developer]").unwrap();
    assert_eq!(own.base_url, "https://h/v1");
    assert!(!own.quirks.max_tokens && own.quirks.no_developer);
    let vertex = provider("preset: vertex, region: europe-west4, project: p-1, api_key: 'file:/k.json'").unwrap();
    assert_eq!(
        vertex.base_url,
        "https://europe-west4-aiplatform.googleapis.com/v1/projects/p-1/locations/europe-west4/publishers/google"
    );
    assert_eq!(vertex.dialect, Dialect::Gemini);
    assert!(matches!(vertex.auth, Auth::Google(Some(_))));
}

#[test]
fn each_dialect_has_its_usual_way_to_send_a_key() {
    let auth = |entry: &str| provider(&format!("{entry}, api_key: env:K")).unwrap().auth;
    let header = |name: &str| Auth::Header {
        name: name.to_owned(),
        key: SecretRef::Env("K".to_owned()),
    };
    assert_eq!(auth("preset: anthropic"), header("x-api-key"));
    assert_eq!(auth("preset: gemini"), header("x-goog-api-key"));
    assert_eq!(auth("preset: azure, resource: r"), header("api-key"));
    assert_eq!(
        auth("preset: bedrock, region: us-east-1"),
        Auth::Bearer(SecretRef::Env("K".to_owned()))
    );
    let signed = provider("preset: bedrock, region: us-east-1").unwrap();
    assert!(matches!(signed.auth, Auth::Aws(aws) if aws.region == "us-east-1"));
}

#[test]
fn what_a_preset_lacks_is_said() {
    let told = |entry: &str, expected: &str| {
        let said = provider(entry).unwrap_err();
        assert!(said.contains(expected), "{entry}: {said}");
    };
    told("preset: vertex, region: x", "this preset needs project");
    told("preset: azure", "this preset needs resource");
    told("preset: bedrock", "this preset needs region");
    told(
        "dialect: bedrock, base_url: 'https://h'",
        "calls to AWS are signed for a region",
    );
    told("preset: nobody", "no preset has this name");
    told("preset: azure, resource: 'a/../b'", "letters, digits and -");
    told(
        "base_url: 'https://h/v1', auth: 'header:X Y'",
        "the header's name in lower case",
    );
    told("base_url: 'https://h/v1', quirks: [no_such]", "expected max_tokens or");
}
