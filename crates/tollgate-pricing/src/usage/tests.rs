use serde_json::json;

use super::*;

fn of(usage: &Value) -> Vec<(&'static str, u64)> {
    let used = read(usage).unwrap();
    used.quantities
        .into_iter()
        .map(|(unit, count)| (unit.as_str(), count))
        .collect()
}

#[test]
fn chat_completions() {
    let usage = json!({"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500,
        "prompt_tokens_details": {"cached_tokens": 400, "audio_tokens": 100, "image_tokens": 50},
        "completion_tokens_details": {"reasoning_tokens": 300, "audio_tokens": 20}});
    let expected = vec![
        ("input", 450),
        ("cached_input", 400),
        ("audio_input", 100),
        ("image_input", 50),
        ("output", 180),
        ("reasoning", 300),
        ("audio_output", 20),
    ];
    assert_eq!(of(&usage), expected);
    let answer = json!({"id": "x", "service_tier": "flex", "usage": usage});
    assert_eq!(of(&answer), expected);
    assert_eq!(read(&answer).unwrap().tier, Some(Tier::Flex));
    // More parts than there are tokens: nothing is below zero, and no token counts twice.
    let odd = json!({"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 8}});
    assert_eq!(of(&odd), [("cached_input", 8), ("audio_input", 2)]);
}

#[test]
fn responses_and_their_tools() {
    let answer = json!({"service_tier": "priority", "output": [
        {"type": "web_search_call"}, {"type": "web_search_call"}, {"type": "file_search_call"},
        {"type": "code_interpreter_call", "container_id": "c"}, {"type": "code_interpreter_call", "container_id": "c"},
        {"type": "message"}],
        "usage": {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 40}, "output_tokens": 50,
                  "output_tokens_details": {"reasoning_tokens": 30}}});
    let expected = [
        ("input", 60),
        ("cached_input", 40),
        ("output", 20),
        ("reasoning", 30),
        ("web_search", 2),
        ("file_search", 1),
        ("code_session", 1),
    ];
    assert_eq!(of(&answer), expected);
    assert_eq!(of(&json!({"type": "response.completed", "response": answer})), expected);
}

#[test]
fn messages_count_the_cache_beside_the_prompt() {
    let usage = json!({"input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 60,
        "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 40}, "output_tokens": 5,
        "server_tool_use": {"web_search_requests": 3}, "service_tier": "standard", "inference_geo": "us"});
    let used = read(&usage).unwrap();
    assert_eq!(
        (used.prompt_tokens, used.served.as_slice()),
        (170, ["us".to_owned()].as_slice())
    );
    let expected = [
        ("input", 10),
        ("cached_input", 100),
        ("cache_write", 20),
        ("cache_write_1h", 40),
        ("output", 5),
        ("web_search", 3),
    ];
    assert_eq!(of(&usage), expected);
}

#[test]
fn gemini_counts_thoughts_beside_the_answer() {
    let answer = json!({"modelVersion": "gemini-3-pro", "usageMetadata": {"promptTokenCount": 1000,
        "cachedContentTokenCount": 300, "candidatesTokenCount": 70, "thoughtsTokenCount": 30,
        "toolUsePromptTokenCount": 5, "trafficType": "ON_DEMAND_PRIORITY",
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 800}, {"modality": "AUDIO", "tokenCount": 200}],
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 50}, {"modality": "TEXT", "tokenCount": 250}]},
        "candidates": [{"groundingMetadata": {"webSearchQueries": ["a", "b"]}}]});
    let expected = [
        ("input", 555),
        ("cached_input", 250),
        ("audio_input", 150),
        ("cached_audio_input", 50),
        ("output", 70),
        ("reasoning", 30),
        ("web_search", 2),
    ];
    assert_eq!(of(&answer), expected);
    assert_eq!(read(&answer).unwrap().tier, Some(Tier::Priority));
}

#[test]
fn converse_has_lifetimes_apart() {
    let answer = json!({"serviceTier": {"type": "flex"}, "usage": {"inputTokens": 10, "outputTokens": 5,
        "cacheReadInputTokens": 100, "cacheWriteInputTokens": 60, "totalTokens": 175,
        "cacheDetails": [{"ttl": "1h", "inputTokens": 40}, {"ttl": "5m", "inputTokens": 20}]}});
    let expected = [
        ("input", 10),
        ("cached_input", 100),
        ("cache_write", 20),
        ("cache_write_1h", 40),
        ("output", 5),
    ];
    assert_eq!(of(&answer), expected);
    assert_eq!(read(&answer).unwrap().tier, Some(Tier::Flex));
}

#[test]
fn what_is_no_usage_is_refused() {
    for none in [
        json!(null),
        json!({}),
        json!([]),
        json!("x"),
        json!({"usage": null}),
        json!({"tokens": 3}),
    ] {
        assert_eq!(read(&none), Err(NoUsage::Missing), "{none}");
    }
    for bad in [
        json!({"prompt_tokens": -1}),
        json!({"prompt_tokens": 1.5}),
        json!({"prompt_tokens": "1"}),
        json!({"prompt_tokens": 1, "completion_tokens_details": {"reasoning_tokens": true}}),
        json!({"promptTokenCount": 1, "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": -1}]}),
    ] {
        assert!(matches!(read(&bad), Err(NoUsage::NotACount(_))), "{bad}");
    }
    let tier = read(&json!({"prompt_tokens": 1, "service_tier": "express"})).unwrap();
    assert_eq!((tier.tier, tier.served), (None, vec!["express".to_owned()]));
    assert!(matches!(
        read(&json!({"prompt_tokens": 1, "cost": -1})),
        Err(NoUsage::NotAnAmount(_))
    ));
}

#[test]
fn perplexity_searches_by_the_size_of_its_context() {
    let usage = json!({"prompt_tokens": 5, "completion_tokens": 1, "search_context_size": "low", "citation_tokens": 7,
        "cost": {"total_cost": 0.005}});
    assert_eq!(
        of(&usage),
        [("input", 5), ("output", 1), ("citation", 7), ("web_search_low", 1)]
    );
    assert_eq!(read(&usage).unwrap().stated_usd, None);
}

#[test]
fn a_stated_cost_is_exact() {
    for (said, expected) in [
        (json!(0.000_123), "0.000123"),
        (json!(1e-7), "0.0000001"),
        (json!("0.10"), "0.10"),
    ] {
        let used = read(&json!({"prompt_tokens": 1, "cost": said})).unwrap();
        assert_eq!(used.stated_usd.unwrap(), expected.parse().unwrap());
    }
}
