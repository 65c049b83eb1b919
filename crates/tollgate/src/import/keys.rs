//! Keys of LiteLLM's: they are known by the same hash as ours.

use serde_json::{Value, json};

use super::{
    litellm::{Converter, Object, texts, whole},
    yaml,
};

/// Fields of a key that we read, or that say nothing of what it may do.
const KEY: [&str; 24] = [
    "token",
    "key_name",
    "key_alias",
    "models",
    "expires",
    "rpm_limit",
    "team_id",
    "org_id",
    "organization_id",
    "metadata",
    "blocked",
    "spend",
    "user_id",
    "created_at",
    "updated_at",
    "created_by",
    "updated_by",
    "config",
    "aliases",
    "permissions",
    "allowed_cache_controls",
    "last_active",
    "soft_budget_cooldown",
    "user",
];
/// Names that stand for all models, and for none.
const ALL_MODELS: [&str; 3] = ["all-proxy-models", "all-team-models", "*"];
const NO_MODELS: &str = "no-default-models";

impl Converter {
    pub(super) fn master_key(&mut self, general: &mut Object) {
        match general.remove("master_key").as_ref().and_then(Value::as_str) {
            None => {}
            Some(reference) if reference.starts_with("os.environ/") => {
                self.note(
                    "master_key: is in a variable; `tollgate keys hash` makes the entry of an administrator of it",
                );
            }
            Some(secret) => {
                let hash = crate::keys::hex(&tollgate_config::hash_key(secret));
                let entry = json!({ "name": "master", "hash": format!("sha256:{hash}"), "roles": ["admin"] });
                self.keys.extend(entry.as_object().cloned());
                self.note("master_key: was taken over as the key `master`, with the role admin; it was written out and should be replaced");
            }
        }
    }

    pub(super) fn key(&mut self, key: &Value) {
        let text = |name: &str| key.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let named = text("key_alias").or(text("key_name")).unwrap_or("key");
        let token = text("token").unwrap_or_default();
        if tollgate_config::read_hash(token).is_none() {
            return self.note(format!("key {named}: has no hash of 64 hex digits as its token"));
        }
        if key.get("blocked") == Some(&Value::Bool(true)) {
            return self.note(format!("key {named}: is blocked and was left out"));
        }
        let taken = |name: &str| {
            self.keys
                .iter()
                .any(|known| known.get("name").is_some_and(|own| own == name))
        };
        let name = yaml::free(&yaml::plain(named), taken);
        let mut entry = Object::new();
        entry.insert("name".to_owned(), name.into());
        entry.insert("hash".to_owned(), format!("sha256:{}", token.to_lowercase()).into());
        if let Some(moment) = text("expires") {
            let zoned = chrono::DateTime::parse_from_rfc3339(moment).map(|moment| moment.to_utc());
            let plain =
                || chrono::NaiveDateTime::parse_from_str(moment, "%Y-%m-%dT%H:%M:%S%.f").map(|moment| moment.and_utc());
            match zoned.or_else(|_| plain()) {
                Ok(moment) => drop(entry.insert(
                    "expires_at".to_owned(),
                    moment.to_rfc3339_opts(chrono::SecondsFormat::Secs, true).into(),
                )),
                Err(_) => return self.note(format!("key {named}: the end {moment:?} is no time; it was left out")),
            }
        }
        if let Some(team) = text("team_id") {
            let organisation = text("organization_id").or(text("org_id")).unwrap_or("imported");
            entry.insert("organisation".to_owned(), yaml::plain(organisation).into());
            entry.insert("team".to_owned(), yaml::plain(team).into());
        }
        let tags = texts(key.pointer("/metadata/tags"));
        if !tags.is_empty() {
            let tags: Object = tags.into_iter().map(|tag| (yaml::plain(&tag), "true".into())).collect();
            entry.insert("tags".to_owned(), tags.into());
        }
        entry.extend(whole(key.get("rpm_limit")).map(|limit| ("requests_per_minute".to_owned(), limit.into())));
        let wanted = texts(key.get("models"));
        if wanted.iter().any(|model| model == NO_MODELS) {
            return self.note(format!("key {named}: may use no models and was left out"));
        }
        if !wanted.is_empty() && !wanted.iter().any(|model| ALL_MODELS.contains(&model.as_str())) {
            let known = |model: &&String| self.models.iter().any(|(name, _)| name == *model);
            let (models, unknown): (Vec<&String>, Vec<&String>) = wanted.iter().partition(known);
            let unknown: Vec<String> = unknown.into_iter().cloned().collect();
            if models.is_empty() {
                return self.note(format!(
                    "key {named}: none of its models is served here; it was left out"
                ));
            }
            entry.insert("models".to_owned(), json!(models));
            for model in unknown {
                self.note(format!("key {named}: may use {model:?}, which is not served here"));
            }
        }
        let said = |value: &Value| !value.is_null() && *value != json!({}) && *value != json!([]) && *value != false;
        let fields = key.as_object().into_iter().flatten();
        let others = fields.filter(|(field, value)| !KEY.contains(&field.as_str()) && said(value));
        let others: Vec<String> = others.map(|(field, _)| field.clone()).collect();
        if !others.is_empty() {
            self.note(format!("key {named}: not carried over: {}", others.join(", ")));
        }
        self.keys.push(entry);
    }
}
