//! What a provider says was used, in its own JSON, made into units of which no token is in two.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::unit::{Tier, Unit};

/// What a call used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Consumption {
    pub quantities: BTreeMap<Unit, u64>,
    /// All tokens of the prompt; they decide which size it has.
    pub prompt_tokens: u64,
    /// The terms on which the provider says it served the call.
    pub tier: Option<Tier>,
    /// What else it says of that, if it is not the usual: a geography, a speed.
    pub served: Vec<String>,
    /// What it says the call costs, in US dollars.
    pub stated_usd: Option<Decimal>,
}

impl Consumption {
    /// Notes what the provider calls the terms of the call. One that nobody gave a price is kept by its name, so that the call
    /// is unpriced rather than priced as usual.
    fn served_as(&mut self, name: &str) {
        match Tier::of_provider(name) {
            Some(tier) => self.tier = Some(tier),
            None => self.note(name),
        }
    }

    /// Keeps a name once, however often the provider says it.
    fn note(&mut self, name: &str) {
        if !self.served.iter().any(|known| known == name) {
            self.served.push(name.to_owned());
        }
    }
}

/// A text that tells of no usage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoUsage {
    #[error("expected a usage as a provider reports it, or an answer that has one")]
    Missing,
    #[error("{0}: expected a count, a whole number from 0")]
    NotACount(String),
    #[error("{0}: expected an amount of US dollars")]
    NotAnAmount(&'static str),
}

/// Reads a provider's usage, or an answer with one: of Chat Completions, Responses, Messages, Gemini or Converse.
pub fn read(json: &Value) -> Result<Consumption, NoUsage> {
    let object = |name: &str| json.get(name).filter(|found| found.is_object());
    // An event of Responses has the answer within.
    if let Some(response) = object("response") {
        return read(response);
    }
    let inner = object("usage").or_else(|| object("usageMetadata")).unwrap_or(json);
    let fields = Fields(inner);
    let mut used = if fields.has("promptTokenCount") || fields.has("candidatesTokenCount") {
        gemini(&fields, json)?
    } else if fields.has("inputTokens") {
        converse(&fields, json)?
    } else if fields.has("prompt_tokens") {
        chat(&fields)?
    } else if fields.has("cache_read_input_tokens") || fields.has("cache_creation_input_tokens") {
        messages(&fields)?
    } else if fields.has("input_tokens") {
        responses(&fields, json)?
    } else {
        return Err(NoUsage::Missing);
    };
    for object in [json, inner] {
        if let Some(name) = object.get("service_tier").and_then(Value::as_str) {
            used.served_as(name);
        }
    }
    used.quantities.retain(|_, quantity| *quantity > 0);
    Ok(used)
}

/// An object of counts.
struct Fields<'a>(&'a Value);

impl Fields<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|found| !found.is_null())
    }

    /// The count at the path, 0 when nothing is there.
    fn count(&self, pointer: &str) -> Result<u64, NoUsage> {
        match self.0.pointer(pointer) {
            None | Some(Value::Null) => Ok(0),
            Some(found) => found
                .as_u64()
                .ok_or_else(|| NoUsage::NotACount(pointer[1..].replace('/', "."))),
        }
    }

    fn amount(&self, name: &'static str) -> Result<Option<Decimal>, NoUsage> {
        let text = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            // Perplexity's, by parts.
            Some(Value::Object(_)) => return Ok(None),
            Some(_) => return Err(NoUsage::NotAnAmount(name)),
        };
        let amount = Decimal::from_str_exact(&text).or_else(|_| Decimal::from_scientific(&text));
        let amount = amount.ok().filter(|amount| !amount.is_sign_negative());
        amount.map(Some).ok_or(NoUsage::NotAnAmount(name))
    }

    /// Tokens of a modality, in Gemini's lists of them.
    fn modality(&self, list: &str, modality: &str) -> Result<u64, NoUsage> {
        let details = self.0.get(list).and_then(Value::as_array).into_iter().flatten();
        let of = details.filter(|detail| detail.get("modality").and_then(Value::as_str) == Some(modality));
        of.map(|detail| Fields(detail).count("/tokenCount"))
            .try_fold(0, |sum: u64, count| Ok(sum.saturating_add(count?)))
    }
}

/// Takes the parts out of the whole: no part is larger than what is left.
fn split(quantities: &mut BTreeMap<Unit, u64>, rest: Unit, whole: u64, parts: &[(Unit, u64)]) {
    let mut left = whole;
    for (unit, part) in parts {
        let taken = (*part).min(left);
        left -= taken;
        quantities.insert(*unit, taken);
    }
    quantities.insert(rest, left);
}

/// What Chat Completions and Responses tell alike, by their names for a prompt's and an answer's tokens.
fn openai(fields: &Fields<'_>, prompt: &str, answer: &str) -> Result<Consumption, NoUsage> {
    let input = |name: &str| fields.count(&format!("/{prompt}_details/{name}"));
    let output = |name: &str| fields.count(&format!("/{answer}_details/{name}"));
    let cached_audio = input("cached_tokens_details/audio_tokens")?;
    // DeepSeek names it so.
    let cached = input("cached_tokens")?.max(fields.count("/prompt_cache_hit_tokens")?);
    let prompt = fields.count(&format!("/{prompt}"))?;
    let mut used = Consumption {
        prompt_tokens: prompt,
        stated_usd: fields.amount("cost")?,
        ..Consumption::default()
    };
    let parts = [
        (Unit::CachedAudioInput, cached_audio),
        (Unit::CachedInput, cached.saturating_sub(cached_audio)),
        (Unit::CacheWrite, input("cache_write_tokens")?),
        (Unit::AudioInput, input("audio_tokens")?.saturating_sub(cached_audio)),
        (Unit::ImageInput, input("image_tokens")?),
        (Unit::VideoInput, input("video_tokens")?),
    ];
    split(&mut used.quantities, Unit::Input, prompt, &parts);
    let parts = [
        (Unit::Reasoning, output("reasoning_tokens")?),
        (Unit::AudioOutput, output("audio_tokens")?),
        (Unit::ImageOutput, output("image_tokens")?),
        (Unit::VideoOutput, output("video_tokens")?),
    ];
    let said = fields.count(&format!("/{answer}"))?;
    split(&mut used.quantities, Unit::Output, said, &parts);
    Ok(used)
}

fn chat(fields: &Fields<'_>) -> Result<Consumption, NoUsage> {
    let mut used = openai(fields, "prompt_tokens", "completion_tokens")?;
    // Perplexity's.
    let context = fields.0.get("search_context_size").and_then(Value::as_str);
    let search = match context {
        Some("low") => Unit::WebSearchLow,
        Some("high") => Unit::WebSearchHigh,
        _ => Unit::WebSearch,
    };
    let searches = fields.count("/num_search_queries")?.max(u64::from(context.is_some()));
    used.quantities.insert(search, searches);
    used.quantities
        .insert(Unit::Citation, fields.count("/citation_tokens")?);
    Ok(used)
}

fn responses(fields: &Fields<'_>, answer: &Value) -> Result<Consumption, NoUsage> {
    let mut used = openai(fields, "input_tokens", "output_tokens")?;
    let items = || answer.get("output").and_then(Value::as_array).into_iter().flatten();
    let is = |item: &Value, kind: &str| item.get("type").and_then(Value::as_str) == Some(kind);
    let of = |kind: &str| items().filter(|item| is(item, kind)).count() as u64;
    let searches = Fields(answer).count("/tool_usage/web_search/num_requests")?;
    used.quantities
        .insert(Unit::WebSearch, searches.max(of("web_search_call")));
    used.quantities.insert(Unit::FileSearch, of("file_search_call"));
    let sessions = items().filter_map(|item| item.get("container_id").and_then(Value::as_str));
    let sessions: BTreeSet<&str> = sessions.collect();
    used.quantities.insert(Unit::CodeSession, sessions.len() as u64);
    Ok(used)
}

/// Ways to be served that change nothing.
const USUAL: [&str; 4] = ["global", "not_available", "standard", "default"];

/// What was cached is counted beside the prompt, not within it.
fn messages(fields: &Fields<'_>) -> Result<Consumption, NoUsage> {
    let cached = fields.count("/cache_read_input_tokens")?;
    let hour = fields.count("/cache_creation/ephemeral_1h_input_tokens")?;
    let minutes = fields.count("/cache_creation/ephemeral_5m_input_tokens")?;
    let written = fields
        .count("/cache_creation_input_tokens")?
        .max(hour.saturating_add(minutes));
    let fresh = fields.count("/input_tokens")?;
    let mut used = Consumption {
        prompt_tokens: fresh.saturating_add(cached).saturating_add(written),
        ..Consumption::default()
    };
    used.quantities = [
        (Unit::Input, fresh),
        (Unit::CachedInput, cached),
        (Unit::CacheWrite, written - hour),
        (Unit::CacheWrite1h, hour),
        (Unit::WebSearch, fields.count("/server_tool_use/web_search_requests")?),
    ]
    .into();
    let thought = fields
        .count("/output_tokens_details/thinking_tokens")?
        .max(fields.count("/output_tokens_details/reasoning_tokens")?);
    split(
        &mut used.quantities,
        Unit::Output,
        fields.count("/output_tokens")?,
        &[(Unit::Reasoning, thought)],
    );
    for name in ["inference_geo", "speed"] {
        let said = fields.0.get(name).and_then(Value::as_str);
        if let Some(said) = said.filter(|said| !USUAL.contains(said)) {
            used.note(said);
        }
    }
    Ok(used)
}

/// Thoughts are counted beside the answer, what tools brought beside the prompt.
fn gemini(fields: &Fields<'_>, answer: &Value) -> Result<Consumption, NoUsage> {
    let prompt = fields.count("/promptTokenCount")?;
    let prompt = prompt.saturating_add(fields.count("/toolUsePromptTokenCount")?);
    let cached_audio = fields.modality("cacheTokensDetails", "AUDIO")?;
    let cached = fields.count("/cachedContentTokenCount")?;
    let of = |modality| -> Result<u64, NoUsage> {
        let all = fields.modality("promptTokensDetails", modality)?;
        Ok(all.saturating_sub(fields.modality("cacheTokensDetails", modality)?))
    };
    let mut used = Consumption {
        prompt_tokens: prompt,
        ..Consumption::default()
    };
    let parts = [
        (Unit::CachedAudioInput, cached_audio.min(cached)),
        (Unit::CachedInput, cached.saturating_sub(cached_audio)),
        (Unit::AudioInput, of("AUDIO")?),
        (Unit::ImageInput, of("IMAGE")?),
        (Unit::VideoInput, of("VIDEO")?),
    ];
    split(&mut used.quantities, Unit::Input, prompt, &parts);
    let output = |modality| fields.modality("candidatesTokensDetails", modality);
    let parts = [
        (Unit::AudioOutput, output("AUDIO")?),
        (Unit::ImageOutput, output("IMAGE")?),
        (Unit::VideoOutput, output("VIDEO")?),
    ];
    split(
        &mut used.quantities,
        Unit::Output,
        fields.count("/candidatesTokenCount")?,
        &parts,
    );
    used.quantities
        .insert(Unit::Reasoning, fields.count("/thoughtsTokenCount")?);
    if let Some(traffic) = fields.0.get("trafficType").and_then(Value::as_str) {
        used.served_as(traffic);
    }
    used.quantities.insert(Unit::WebSearch, searches(answer));
    Ok(used)
}

/// Billed for each query from Gemini 3 on, for each prompt that searched before.
fn searches(answer: &Value) -> u64 {
    let candidates = answer.get("candidates").and_then(Value::as_array).into_iter().flatten();
    let queries = candidates.filter_map(|one| one.pointer("/groundingMetadata/webSearchQueries")?.as_array());
    let count: usize = queries.map(Vec::len).sum();
    let model = answer.get("modelVersion").and_then(Value::as_str).unwrap_or_default();
    let by_prompt = model.starts_with("gemini-1") || model.starts_with("gemini-2");
    (if by_prompt { count.min(1) } else { count }) as u64
}

/// What was cached is counted beside the prompt, not within it.
fn converse(fields: &Fields<'_>, answer: &Value) -> Result<Consumption, NoUsage> {
    let cached = fields.count("/cacheReadInputTokens")?;
    let written = fields.count("/cacheWriteInputTokens")?;
    let fresh = fields.count("/inputTokens")?;
    let details = fields
        .0
        .get("cacheDetails")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let hours = details.filter(|detail| detail.get("ttl").and_then(Value::as_str) == Some("1h"));
    let hour = hours
        .map(|detail| Fields(detail).count("/inputTokens"))
        .try_fold(0, |sum: u64, count| Ok::<_, NoUsage>(sum.saturating_add(count?)))?
        .min(written);
    let mut used = Consumption {
        prompt_tokens: fresh.saturating_add(cached).saturating_add(written),
        ..Consumption::default()
    };
    used.quantities = [
        (Unit::Input, fresh),
        (Unit::CachedInput, cached),
        (Unit::CacheWrite, written - hour),
        (Unit::CacheWrite1h, hour),
        (Unit::Output, fields.count("/outputTokens")?),
    ]
    .into();
    if let Some(name) = answer.pointer("/serviceTier/type").and_then(Value::as_str) {
        used.served_as(name);
    }
    Ok(used)
}

#[cfg(test)]
mod tests;
