//! What a configuration of LiteLLM's, and its keys, are to us.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    Imported, prices,
    provider::{self, upstream},
    yaml,
};

/// Fields of a deployment that we read; what else it has is told of.
const DEPLOYMENT: [&str; 22] = [
    "model",
    "api_key",
    "api_base",
    "base_url",
    "api_version",
    "aws_region_name",
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "vertex_project",
    "vertex_location",
    "vertex_credentials",
    "order",
    "weight",
    "rpm",
    "tpm",
    "timeout",
    "stream_timeout",
    "litellm_credential_name",
    "drop_params",
    "region_name",
    "custom_llm_provider",
];
pub(super) type Object = Map<String, Value>;

/// A target: our provider's name, and its name for the model.
pub(super) type Target = (String, String);

#[derive(Default)]
pub(super) struct Converter {
    providers: BTreeMap<String, Object>,
    /// Targets of each public name, best first.
    pub(super) models: Vec<(String, Vec<Target>)>,
    chains: BTreeMap<&'static str, BTreeMap<String, Vec<String>>>,
    pub(super) keys: Vec<Object>,
    sheets: String,
    credentials: BTreeMap<String, Object>,
    notes: Vec<String>,
}

/// Makes our configuration of theirs.
pub(super) fn convert(theirs: &Value, keys: &[Value]) -> Imported {
    let mut converter = Converter::default();
    let section = |name: &str| theirs.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    let (mut general, mut settings, mut router) = (
        section("general_settings"),
        section("litellm_settings"),
        section("router_settings"),
    );
    converter.credentials(theirs);
    converter.deployments(theirs);
    converter.fallbacks(&mut settings, &mut router);
    converter.aliases(&mut router);
    let (ingress, routing) = converter.limits(&mut general, &mut settings, &mut router);
    converter.master_key(&mut general);
    keys.iter().for_each(|key| converter.key(key));
    converter.rest(
        theirs,
        &[
            ("general_settings", general),
            ("litellm_settings", settings),
            ("router_settings", router),
        ],
    );
    converter.finish(&ingress, &routing)
}

/// Numbers may be texts.
fn number(value: Option<&Value>) -> Option<f64> {
    match value? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

pub(super) fn whole(value: Option<&Value>) -> Option<u64> {
    // Of a limit, a fraction and what is beyond every sense are left out.
    number(value)
        .filter(|number| (1.0..=1e7).contains(number))
        .map(|number| number as u64)
}

fn entries(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

pub(super) fn texts(value: Option<&Value>) -> Vec<String> {
    entries(value)
        .filter_map(|one| one.as_str().map(str::to_owned))
        .collect()
}

impl Converter {
    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn credentials(&mut self, theirs: &Value) {
        for credential in entries(theirs.get("credential_list")) {
            let name = credential.get("credential_name").and_then(Value::as_str);
            let values = credential.get("credential_values").and_then(Value::as_object);
            self.credentials
                .extend(name.zip(values).map(|(name, values)| (name.to_owned(), values.clone())));
        }
    }

    fn deployments(&mut self, theirs: &Value) {
        let mut rows: Vec<&Value> = entries(theirs.get("model_list")).collect();
        let order = |row: &&Value| {
            let params = row.get("litellm_params");
            let of = |name: &str| number(params.and_then(|params| params.get(name)));
            (of("order").unwrap_or(0.0), -of("weight").unwrap_or(0.0))
        };
        rows.sort_by(|one, other| {
            order(one)
                .partial_cmp(&order(other))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        for row in rows {
            self.deployment(row);
        }
    }

    fn deployment(&mut self, row: &Value) {
        let name = row
            .get("model_name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let mut params = row
            .get("litellm_params")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        let credential = params.get("litellm_credential_name").and_then(Value::as_str);
        if let Some(values) = credential.and_then(|credential| self.credentials.get(credential)) {
            for (key, value) in values.clone() {
                params.entry(key).or_insert(value);
            }
        }
        let custom = params.get("custom_llm_provider").and_then(Value::as_str);
        let model = params.get("model").and_then(Value::as_str).unwrap_or_default();
        let model = custom.map_or_else(|| model.to_owned(), |custom| format!("{custom}/{model}"));
        if name.contains('*') || model.contains('*') {
            return self.note(format!(
                "model {name}: stands for many; list each model that is to be served"
            ));
        }
        let Some(upstream) = upstream(&model) else {
            return self.note(format!(
                "model {name}: the provider of {model:?} is not known here; give an entry of providers with a base_url"
            ));
        };
        let provider = self.provider(upstream.preset, &params);
        let info = row
            .get("model_info")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        if let Some((sheet, others)) = prices::sheet(&provider, upstream.model, &[&params, &info]) {
            self.sheets += &format!("{sheet}\n");
            for field in others {
                self.note(format!(
                    "model {name}: the price {field} has no rate of this name in a sheet"
                ));
            }
        }
        for (field, why) in [
            (
                "rpm",
                "limits of a provider are not kept; a provider that is over its limit is left alone for a while",
            ),
            (
                "tpm",
                "limits of a provider are not kept; a provider that is over its limit is left alone for a while",
            ),
            ("weight", "targets are tried in order, the heaviest first"),
        ] {
            if params.contains_key(field) {
                self.note(format!("model {name}: {field}: {why}"));
            }
        }
        let priced = |field: &String| field.contains("cost");
        for field in params
            .keys()
            .filter(|field| !DEPLOYMENT.contains(&field.as_str()) && !priced(field))
            .cloned()
            .collect::<Vec<_>>()
        {
            self.note(format!("model {name}: litellm_params.{field} is not carried over"));
        }
        let target = (provider, upstream.model.to_owned());
        match self.models.iter_mut().find(|(known, _)| *known == name) {
            Some((_, targets)) if targets.contains(&target) => {}
            Some((_, targets)) => targets.push(target),
            None => self.models.push((name, vec![target])),
        }
    }

    /// The name of the provider for these parameters, one that there is already or a new one.
    fn provider(&mut self, preset: &str, params: &Object) -> String {
        let mut notes = Vec::new();
        let mut secret = |field: &str, value: &str| match value.strip_prefix("os.environ/") {
            Some(variable) => format!("env:{variable}"),
            None => {
                let variable = format!("{}_{}", preset.to_uppercase().replace('-', "_"), field.to_uppercase());
                notes.push(format!(
                    "{preset}: {field} is written out; put it into the variable {variable}"
                ));
                format!("env:{variable}")
            }
        };
        let mut told = Vec::new();
        let mut entry = provider::entry(preset, params, &mut secret, &mut told);
        if params
            .get("drop_params")
            .is_some_and(|drop| drop == true || drop == "true")
        {
            entry.insert("unsupported".to_owned(), "drop".into());
        }
        for field in ["timeout", "stream_timeout"] {
            if let Some(seconds) = whole(params.get(field)) {
                entry.insert("first_byte_timeout".to_owned(), format!("{seconds}s").into());
            }
        }
        notes.into_iter().chain(told).for_each(|note| self.note(note));
        if let Some((name, _)) = self.providers.iter().find(|(_, known)| **known == entry) {
            return name.clone();
        }
        let name = yaml::free(preset, |name| self.providers.contains_key(name));
        self.providers.insert(name.clone(), entry);
        name
    }

    /// Lists of `{group: [others]}`; the router's go before the library's.
    fn fallbacks(&mut self, settings: &mut Object, router: &mut Object) {
        for (field, ours) in [
            ("fallbacks", "targets"),
            ("context_window_fallbacks", "context_length_targets"),
            ("content_policy_fallbacks", "content_policy_targets"),
        ] {
            let (own, of_router) = (settings.remove(field), router.remove(field));
            let chain = self.chains.entry(ours).or_default();
            for (group, others) in entries(of_router.or(own).as_ref())
                .filter_map(Value::as_object)
                .flatten()
            {
                chain.insert(group.clone(), texts(Some(others)));
            }
        }
        let default = settings
            .remove("default_fallbacks")
            .or(router.remove("default_fallbacks"));
        let default = texts(default.as_ref());
        if !default.is_empty() {
            let chain = self.chains.entry("targets").or_default();
            for (name, _) in &self.models {
                chain.entry(name.clone()).or_insert_with(|| default.clone());
            }
        }
    }

    fn aliases(&mut self, router: &mut Object) {
        let Some(Value::Object(aliases)) = router.remove("model_group_alias") else {
            return;
        };
        for (alias, of) in aliases {
            let group = of
                .as_str()
                .or_else(|| of.get("model").and_then(Value::as_str))
                .unwrap_or_default();
            let known = self.models.iter().find(|(name, _)| name == group);
            match known.map(|(_, targets)| targets.clone()) {
                Some(targets) => self.models.push((alias, targets)),
                None => self.note(format!("alias {alias}: there is no model {group:?}")),
            }
        }
    }

    /// Settings that are ours by another name: of ingress, and of the router.
    fn limits(&mut self, general: &mut Object, settings: &mut Object, router: &mut Object) -> (Object, Object) {
        let (mut ingress, mut routing) = (Object::new(), Object::new());
        let timeout = router.remove("timeout").or(settings.remove("request_timeout"));
        if let Some(seconds) = whole(timeout.as_ref()) {
            ingress.insert("request_timeout".to_owned(), format!("{seconds}s").into());
        }
        if let Some(megabytes) = whole(general.remove("max_request_size_mb").as_ref()) {
            ingress.insert("max_body".to_owned(), format!("{megabytes}MiB").into());
        }
        let retries = router.remove("num_retries").or(settings.remove("num_retries"));
        if let Some(retries) = number(retries.as_ref()).filter(|retries| (0.0..=10.0).contains(retries)) {
            routing.insert("retries".to_owned(), (retries as u64).into());
        }
        if let Some(drop) = settings.remove("drop_params")
            && (drop == true || drop == "true")
        {
            for entry in self.providers.values_mut() {
                entry.insert("unsupported".to_owned(), "drop".into());
            }
        }
        (ingress, routing)
    }

    /// Everything that nothing was made of.
    fn rest(&mut self, theirs: &Value, sections: &[(&str, Object)]) {
        for (section, left) in sections {
            for field in left.keys() {
                self.note(format!("{section}.{field} is not carried over{}", instead(field)));
            }
        }
        let read = [
            "model_list",
            "credential_list",
            "general_settings",
            "litellm_settings",
            "router_settings",
        ];
        let others = theirs.as_object().into_iter().flatten();
        for (field, _) in others.filter(|(field, _)| !read.contains(&field.as_str())) {
            self.note(format!("{field} is not carried over{}", instead(field)));
        }
    }

    fn chain(&mut self, ours: &'static str, name: &str) -> Vec<Target> {
        let groups = self
            .chains
            .get(ours)
            .and_then(|chain| chain.get(name))
            .cloned()
            .unwrap_or_default();
        let mut targets = Vec::new();
        for group in groups {
            let known = self.models.iter().find(|(known, _)| *known == group);
            match known.map(|(_, targets)| targets.clone()) {
                Some(more) => targets.extend(more),
                None => self.note(format!(
                    "model {name}: falls back on {group:?}, which is not served here"
                )),
            }
        }
        targets
    }

    fn finish(mut self, ingress: &Object, routing: &Object) -> Imported {
        let named = |targets: &[Target]| -> Value {
            let target = |(provider, model): &Target| json!({ "provider": provider, "model": model });
            targets.iter().map(target).collect()
        };
        let mut models = Vec::new();
        for (name, mut targets) in self.models.clone() {
            for more in self.chain("targets", &name) {
                if !targets.contains(&more) {
                    targets.push(more);
                }
            }
            let mut model = Object::new();
            model.insert("name".to_owned(), name.as_str().into());
            model.insert("targets".to_owned(), named(&targets));
            for ours in ["context_length_targets", "content_policy_targets"] {
                let chain = self.chain(ours, &name);
                if !chain.is_empty() {
                    model.insert(ours.to_owned(), named(&chain));
                }
            }
            models.push(model);
        }
        let providers: Vec<Object> = self
            .providers
            .iter()
            .map(|(name, entry)| {
                let named = ("name".to_owned(), Value::from(name.as_str()));
                std::iter::once(named).chain(entry.clone()).collect()
            })
            .collect();
        let mut config = "# Made from a configuration of LiteLLM.\n".to_owned();
        yaml::section(&mut config, "ingress", ingress);
        yaml::section(&mut config, "router", routing);
        yaml::list(&mut config, "keys", &self.keys);
        yaml::list(&mut config, "models", &models);
        yaml::list(&mut config, "providers", &providers);
        if !self.sheets.is_empty() {
            self.note("prices of its own are in prices.jsonl: enter them with `tollgate prices import`");
        }
        Imported {
            config,
            sheets: self.sheets,
            notes: self.notes,
        }
    }
}

/// What we have in place of it.
fn instead(field: &str) -> &'static str {
    match field {
        "database_url" => ": set DATABASE_URL; the ledger has tables of its own",
        "callbacks" | "success_callback" | "failure_callback" | "service_callbacks" => {
            ": metrics are at /metrics, traces go to telemetry.otlp_endpoint"
        }
        "routing_strategy" | "routing_strategy_args" => ": targets are tried in order, those that fail are left out",
        "allowed_fails" | "allowed_fails_policy" | "cooldown_time" | "disable_cooldowns" => ": see router.health",
        "guardrails" => ": see guardrail.policies",
        "retry_after" | "retry_policy" => ": each kind of failure has a rule of its own, see docs/routing.md",
        "alerting" | "alerting_threshold" => ": alert on metrics",
        _ => "",
    }
}
