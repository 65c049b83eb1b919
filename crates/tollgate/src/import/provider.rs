//! Which of our providers a deployment of LiteLLM's is.

use serde_json::{Map, Value};

/// Prefixes of models, and our presets. What needs a base URL of its own has none that we know.
const PREFIXES: [(&str, &str); 31] = [
    ("openai", "openai"),
    ("text-completion-openai", "openai"),
    ("azure", "azure"),
    ("azure_ai", "azure"),
    ("anthropic", "anthropic"),
    ("gemini", "gemini"),
    ("vertex_ai", "vertex"),
    ("vertex_ai_beta", "vertex"),
    ("bedrock", "bedrock"),
    ("bedrock_converse", "bedrock"),
    ("mistral", "mistral"),
    ("deepseek", "deepseek"),
    ("xai", "xai"),
    ("groq", "groq"),
    ("together_ai", "together"),
    ("fireworks_ai", "fireworks"),
    ("openrouter", "openrouter"),
    ("cohere", "cohere"),
    ("cohere_chat", "cohere"),
    ("perplexity", "perplexity"),
    ("cerebras", "cerebras"),
    ("nvidia_nim", "nvidia"),
    ("huggingface", "huggingface"),
    ("hosted_vllm", "vllm"),
    ("vllm", "vllm"),
    ("sglang", "sglang"),
    ("ollama", "ollama"),
    ("ollama_chat", "ollama"),
    ("llamafile", "llamacpp"),
    ("lm_studio", "lmstudio"),
    ("litellm_proxy", "openai"),
];

/// Beginnings of bare names.
const FAMILIES: [(&str, &str); 7] = [
    ("gpt-", "openai"),
    ("chatgpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("claude-", "anthropic"),
    ("gemini-", "gemini"),
];

/// A deployment's provider and the name by which it knows the model.
pub(super) struct Upstream<'a> {
    pub(super) preset: &'static str,
    pub(super) model: &'a str,
}

/// Of a `provider/model`; none when the provider is unknown to us.
pub(super) fn upstream(model: &str) -> Option<Upstream<'_>> {
    if let Some((prefix, rest)) = model.split_once('/')
        && let Some((_, preset)) = PREFIXES.iter().find(|(known, _)| *known == prefix)
    {
        // Bedrock's routes say how to call a model; ours are one.
        let model = ["converse/", "invoke/"]
            .into_iter()
            .find_map(|route| rest.strip_prefix(route));
        return Some(Upstream {
            preset,
            model: model.unwrap_or(rest),
        });
    }
    let (_, preset) = FAMILIES.iter().find(|(beginning, _)| model.starts_with(beginning))?;
    Some(Upstream { preset, model })
}

/// The entry of a provider, without its name. Adds what is to be looked at.
pub(super) fn entry(
    preset: &str,
    params: &Map<String, Value>,
    secret: &mut dyn FnMut(&str, &str) -> String,
    notes: &mut Vec<String>,
) -> Map<String, Value> {
    let text = |name: &str| params.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut entry = Map::new();
    let base = text("api_base").or(text("base_url"));
    let versioned =
        preset == "azure" && text("api_version").is_some_and(|version| version != "v1" && version != "preview");
    let preset = if versioned { "azure-deployments" } else { preset };
    entry.insert("preset".to_owned(), preset.into());
    if let Some(base) = base {
        let base = base.trim_end_matches('/');
        let base = match preset {
            "azure" if !base.ends_with("/v1") => format!("{base}/openai/v1"),
            "azure-deployments" if !base.ends_with("/openai") => format!("{base}/openai"),
            "ollama" if !base.ends_with("/v1") => format!("{base}/v1"),
            "anthropic" if !base.ends_with("/v1") => format!("{base}/v1"),
            _ => base.to_owned(),
        };
        if base.starts_with("os.environ/") {
            notes.push(format!("{preset}: the address is in a variable ({base}): write it out"));
        } else {
            entry.insert("base_url".to_owned(), base.into());
        }
    } else if preset.starts_with("azure") {
        notes.push(format!("{preset}: has no api_base: give its resource or base_url"));
        entry.insert("resource".to_owned(), "your-resource".into());
    }
    if versioned {
        entry.extend(text("api_version").map(|version| ("api_version".to_owned(), version.into())));
    }
    let mut keep = |from: &str, to: &str| {
        if let Some(value) = text(from) {
            if value.starts_with("os.environ/") {
                notes.push(format!("{preset}: {from} is in a variable ({value}): write it out"));
            } else {
                entry.insert(to.to_owned(), value.into());
            }
        }
    };
    match preset {
        "bedrock" => keep("aws_region_name", "region"),
        "vertex" => {
            keep("vertex_location", "region");
            keep("vertex_project", "project");
        }
        _ => {}
    }
    let mut put = |from: &str, to: &str| {
        if let Some(value) = text(from) {
            entry.insert(to.to_owned(), secret(from, value).into());
        }
    };
    match preset {
        "bedrock" => {
            put("aws_access_key_id", "access_key_id");
            put("aws_secret_access_key", "secret_access_key");
            put("aws_session_token", "session_token");
        }
        "vertex" => put("vertex_credentials", "api_key"),
        _ => put("api_key", "api_key"),
    }
    if preset == "bedrock" && !entry.contains_key("region") {
        notes.push("bedrock: has no aws_region_name: calls are signed for a region".to_owned());
        entry.insert("region".to_owned(), "us-east-1".into());
    }
    if preset == "vertex" {
        for (name, stand_in) in [("region", "us-central1"), ("project", "your-project")] {
            if !entry.contains_key(name) {
                notes.push(format!("vertex: has no {name}"));
                entry.insert(name.to_owned(), stand_in.into());
            }
        }
    }
    entry
}
