//! The engine against a second calculation, written from the rules in `docs/prices.md` alone: whole numbers, no types of
//! the crate, the catalogue read as plain JSON.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use tollgate_pricing::{Circumstances, Tier, cost, read, shipped};

const RECORDS: usize = 1000;
const MODELS: usize = 60;

/// A generator of its own, so that the draw is the same everywhere.
struct Lot(u64);

impl Lot {
    fn below(&mut self, bound: u64) -> u64 {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }

    /// Mostly small, sometimes past the sizes that have rates of their own, sometimes nothing.
    fn tokens(&mut self) -> u64 {
        match self.below(5) {
            0 => 0,
            1 => self.below(600_000),
            _ => self.below(5_000),
        }
    }
}

/// Dollars for a million as a whole number of 10⁻¹⁸ dollars.
fn whole(text: &str) -> i128 {
    let (dollars, part) = text.split_once('.').unwrap_or((text, ""));
    format!("{dollars}{part:0<18}").parse().unwrap()
}

/// The rate for one token, in units of 10⁻²⁵ dollars: six digits more for the million, one for the half of a batch.
fn rate(sheet: &Value, chain: &[&str], above: u64, tier: &str) -> i128 {
    let listed = |name: &str, above: u64, tier: &str| {
        let size = if above > 0 { format!(">{above}") } else { String::new() };
        let tier = if tier == "standard" {
            String::new()
        } else {
            format!("@{tier}")
        };
        let found = sheet["per_million"].get(format!("{name}{size}{tier}"))?;
        Some(whole(found.as_str().unwrap()))
    };
    for name in chain {
        for above in [above, 0] {
            if let Some(found) = listed(name, above, tier) {
                return found * 10;
            }
            if let Some(found) = listed(name, above, "standard") {
                return found * if tier == "batch" { 5 } else { 10 };
            }
        }
    }
    panic!("{chain:?} has no rate in {sheet}");
}

fn size(sheet: &Value, prompt: u64) -> u64 {
    let inclusive = sheet["inclusive"] == true;
    let names = sheet["per_million"].as_object().unwrap().keys();
    let sizes = names.filter_map(|name| name.split('@').next()?.split_once('>')?.1.parse().ok());
    let passed = sizes.filter(|above| if inclusive { prompt >= *above } else { prompt > *above });
    passed.max().unwrap_or(0)
}

/// What was drawn: a provider's usage, and its tokens by where their rate is looked for.
struct Drawn {
    usage: Value,
    prompt: u64,
    parts: Vec<(&'static [&'static str], u64)>,
}

const INPUT: &[&str] = &["input"];
const OUTPUT: &[&str] = &["output"];
const CACHED: &[&str] = &["cached_input", "input"];
const WRITTEN: &[&str] = &["cache_write", "input"];
const WRITTEN_1H: &[&str] = &["cache_write_1h", "cache_write", "input"];
const REASONING: &[&str] = &["reasoning", "output"];
const SOUND: &[&str] = &["audio_input", "input"];

fn chat(lot: &mut Lot) -> Drawn {
    let [text, cached, sound, said, thought] = [(); 5].map(|()| lot.tokens());
    let prompt = text + cached + sound;
    Drawn {
        usage: json!({"prompt_tokens": prompt, "completion_tokens": said + thought,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": sound},
            "completion_tokens_details": {"reasoning_tokens": thought}}),
        prompt,
        parts: vec![
            (INPUT, text),
            (CACHED, cached),
            (SOUND, sound),
            (OUTPUT, said),
            (REASONING, thought),
        ],
    }
}

fn messages(lot: &mut Lot) -> Drawn {
    let [fresh, cached, minutes, hour, said] = [(); 5].map(|()| lot.tokens());
    Drawn {
        usage: json!({"input_tokens": fresh, "cache_read_input_tokens": cached, "output_tokens": said,
            "cache_creation_input_tokens": minutes + hour,
            "cache_creation": {"ephemeral_5m_input_tokens": minutes, "ephemeral_1h_input_tokens": hour}}),
        prompt: fresh + cached + minutes + hour,
        parts: vec![
            (INPUT, fresh),
            (CACHED, cached),
            (WRITTEN, minutes),
            (WRITTEN_1H, hour),
            (OUTPUT, said),
        ],
    }
}

fn gemini(lot: &mut Lot) -> Drawn {
    let [text, cached, said, thought] = [(); 4].map(|()| lot.tokens());
    Drawn {
        usage: json!({"usageMetadata": {"promptTokenCount": text + cached, "cachedContentTokenCount": cached,
            "candidatesTokenCount": said, "thoughtsTokenCount": thought}}),
        prompt: text + cached,
        parts: vec![(INPUT, text), (CACHED, cached), (OUTPUT, said), (REASONING, thought)],
    }
}

fn converse(lot: &mut Lot) -> Drawn {
    let [fresh, cached, written, said] = [(); 4].map(|()| lot.tokens());
    Drawn {
        usage: json!({"usage": {"inputTokens": fresh, "cacheReadInputTokens": cached,
            "cacheWriteInputTokens": written, "outputTokens": said}}),
        prompt: fresh + cached + written,
        parts: vec![(INPUT, fresh), (CACHED, cached), (WRITTEN, written), (OUTPUT, said)],
    }
}

/// Sixty models, at least every other one with more than the plain rates.
fn models(lot: &mut Lot) -> Vec<Value> {
    let lines = include_str!("../catalogue.jsonl").lines();
    let sheets: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut chosen: Vec<Value> = Vec::new();
    while chosen.len() < MODELS {
        let sheet = lot.one_of(&sheets);
        let rates = &sheet["per_million"];
        let whole = rates["input"].is_string() && rates["output"].is_string() && sheet["off_peak"].is_null();
        let rich = whole && rates.as_object().unwrap().len() > 4;
        if whole && (rich || chosen.len().is_multiple_of(2)) && !chosen.contains(sheet) {
            chosen.push(sheet.clone());
        }
    }
    chosen
}

#[test]
fn a_thousand_calls_cost_the_same_to_the_last_digit() {
    let mut lot = Lot(4711);
    let models = models(&mut lot);
    let (mut sizes, mut tiers) = (0, 0);
    for record in 0..RECORDS {
        let sheet = &models[record % MODELS];
        let provider = sheet["provider"].as_str().unwrap();
        let drawn = match provider {
            "anthropic" => messages(&mut lot),
            "gemini" | "vertex" => gemini(&mut lot),
            "bedrock" => converse(&mut lot),
            _ => chat(&mut lot),
        };
        let tier = *lot.one_of(&["standard", "batch", "flex", "priority"]);
        let how = Circumstances {
            tier: Some(tier.parse::<Tier>().unwrap()),
            region: sheet["region"].as_str().map(str::to_owned),
            ..Circumstances::default()
        };
        let model = sheet["model"].as_str().unwrap().replace('*', "x");
        let found = shipped().find(provider, &model, how.region.as_deref(), how.at).unwrap();
        let engine = cost(found, &read(&drawn.usage).unwrap(), &how).unwrap();
        let above = size(sheet, drawn.prompt);
        sizes += usize::from(above > 0);
        tiers += usize::from(tier != "standard");
        let used = drawn.parts.iter().filter(|(_, count)| *count > 0);
        let second: i128 = used
            .map(|(chain, count)| rate(sheet, chain, above, tier) * i128::from(*count))
            .sum();
        let digits = format!("{second:026}");
        let (dollars, part) = digits.split_at(digits.len() - 25);
        let second = format!("{dollars}.{part}");
        let second = second.trim_end_matches('0').trim_end_matches('.');
        assert_eq!(engine.total_usd.to_string(), second, "{sheet}\n{}\n{tier}", drawn.usage);
    }
    assert!(sizes > 20 && tiers > 500, "{sizes} {tiers}");
}
