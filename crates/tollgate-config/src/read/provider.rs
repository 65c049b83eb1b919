//! An entry of `providers`: what it says itself, over what its preset says. An entry with a mistake is left out.

use std::time::Duration;

use tollgate_types::{
    Dialect,
    provider::{OnUnsupported, Quirks},
};

use crate::{
    SecretRef,
    cursor::{Cursor, Fields},
    preset::{self, Preset},
    schema::{Auth, AwsCredentials, Provider},
    url,
    value::{self, AuthKind},
};

use super::links::{Kind, Links};

const MINUTE: Duration = Duration::from_secs(60);
/// The environment variables that AWS's own tools read.
const AWS_KEY: &str = "AWS_ACCESS_KEY_ID";
const AWS_SECRET: &str = "AWS_SECRET_ACCESS_KEY";

pub(super) fn provider<'a>(at: &Cursor<'a>, links: &mut Links<'a>) -> Option<Provider> {
    let mut f = at.fields()?;
    let name = links.name(&mut f, Kind::Provider, value::name);
    let preset = f.optional("preset", |at| at.parse(preset::find));
    let default = preset.map_or(Dialect::OpenaiChat, |preset| preset.dialect);
    let dialect = f.value("dialect", default, |at| at.parse(value::dialect));
    let places = Places {
        region: f.optional("region", |at| at.parse(value::label)),
        project: f.optional("project", |at| at.parse(value::label)),
        resource: f.optional("resource", |at| at.parse(value::label)),
    };
    let base_url = match f.peek("base_url") {
        None => preset.and_then(|preset| places.fill(at, preset)),
        Some(_) => None,
    };
    let base_url = match (base_url, preset) {
        (None, Some(_)) => f.optional("base_url", |at| at.parse(url::base_url)),
        (None, None) => f.required("base_url", |at| at.parse(url::base_url)),
        (filled, _) => filled,
    };
    let given = Quirks::default();
    let quirks = match f.peek("quirks") {
        Some(_) => preset::quirks(&mut f),
        None => preset.map_or(given, |preset| preset.quirks),
    };
    let price_list = f.optional("price_list", |at| at.parse(value::name));
    let name = name.unwrap_or_default();
    let known = || preset.map_or_else(|| name.clone(), |preset| preset.price_list.clone());
    let entry = Provider {
        price_list: price_list.unwrap_or_else(known),
        name,
        dialect,
        base_url: base_url.unwrap_or_default(),
        auth: auth(at, &mut f, dialect, preset, places.region.as_deref())?,
        region: places.region,
        quirks,
        unsupported: f.value("unsupported", OnUnsupported::Refuse, |at| at.parse(value::unsupported)),
        api_version: f.optional("api_version", |at| at.parse(value::api_version)),
        concurrency: f.value("concurrency", 64, |at| at.count(1..=65_536)),
        first_byte_timeout: f.value("first_byte_timeout", 5 * MINUTE, Cursor::duration),
        idle_timeout: f.value("idle_timeout", 2 * MINUTE, Cursor::duration),
    };
    f.finish();
    (!entry.name.is_empty() && !entry.base_url.is_empty()).then_some(entry)
}

/// What is filled into a preset's address.
struct Places {
    region: Option<String>,
    project: Option<String>,
    resource: Option<String>,
}

impl Places {
    fn fill(&self, at: &Cursor<'_>, preset: &Preset) -> Option<String> {
        let mut address = preset.base_url.clone();
        let mut whole = true;
        for (key, place) in [
            ("region", &self.region),
            ("project", &self.project),
            ("resource", &self.resource),
        ] {
            let hole = format!("{{{key}}}");
            match place {
                Some(place) => address = address.replace(&hole, place),
                None if address.contains(&hole) => {
                    at.mistake(format!("this preset needs {key}, or a base_url of your own"));
                    whole = false;
                }
                None => {}
            }
        }
        whole.then_some(address)
    }
}

/// None after a mistake.
fn auth(
    at: &Cursor<'_>,
    f: &mut Fields<'_>,
    dialect: Dialect,
    preset: Option<&Preset>,
    region: Option<&str>,
) -> Option<Auth> {
    let key = f.optional("api_key", |at| at.parse(value::secret));
    let access_key_id = f.optional("access_key_id", |at| at.parse(value::secret));
    let secret_access_key = f.optional("secret_access_key", |at| at.parse(value::secret));
    let session_token = f.optional("session_token", |at| at.parse(value::secret));
    let kind = f.optional("auth", |at| at.parse(value::auth));
    let kind = kind.or_else(|| preset.and_then(|preset| preset.auth.clone()));
    let usual = match dialect {
        Dialect::Anthropic => AuthKind::Header("x-api-key".to_owned()),
        Dialect::Gemini => AuthKind::Header("x-goog-api-key".to_owned()),
        // With a key of Bedrock's own nothing is signed.
        Dialect::Bedrock if key.is_none() => AuthKind::Aws,
        _ => AuthKind::Bearer,
    };
    Some(match (kind.unwrap_or(usual), key) {
        (AuthKind::Bearer, Some(key)) => Auth::Bearer(key),
        (AuthKind::Header(name), Some(key)) => Auth::Header { name, key },
        (AuthKind::Bearer | AuthKind::Header(_), None) => Auth::None,
        (AuthKind::Google, key) => Auth::Google(key),
        (AuthKind::Aws, _) => {
            let Some(region) = region else {
                at.mistake("calls to AWS are signed for a region: give region");
                return None;
            };
            Auth::Aws(AwsCredentials {
                region: region.to_owned(),
                access_key_id: access_key_id.unwrap_or(SecretRef::Env(AWS_KEY.to_owned())),
                secret_access_key: secret_access_key.unwrap_or(SecretRef::Env(AWS_SECRET.to_owned())),
                session_token,
            })
        }
    })
}
