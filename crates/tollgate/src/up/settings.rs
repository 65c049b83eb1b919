//! What `up` runs with: a configuration of the user's, or one made from what the environment holds.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use secrecy::ExposeSecret;
use tollgate_config::{Config, SecretRef};
use tollgate_devstack::Paths;

use crate::{cli::UpArgs, keys::hex};

/// A provider that `up` knows by the environment variable that holds its key.
struct Known {
    /// Also the name of its preset.
    name: &'static str,
    key: &'static str,
    models: &'static [&'static str],
}

const GEMINI: &[&str] = &["gemini-2.5-flash", "gemini-2.5-pro", "gemini-embedding-001"];
const KNOWN: [Known; 4] = [
    Known {
        name: "openai",
        key: "OPENAI_API_KEY",
        models: &[
            "gpt-4o-mini",
            "gpt-4o",
            "gpt-4.1",
            "gpt-4.1-mini",
            "gpt-5",
            "gpt-5-mini",
            "text-embedding-3-small",
            "text-embedding-3-large",
        ],
    },
    Known {
        name: "anthropic",
        key: "ANTHROPIC_API_KEY",
        models: &["claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-5"],
    },
    Known {
        name: "gemini",
        key: "GEMINI_API_KEY",
        models: GEMINI,
    },
    Known {
        name: "gemini",
        key: "GOOGLE_API_KEY",
        models: GEMINI,
    },
];

/// The configuration and what goes with it.
pub(super) struct Settings {
    /// The file that every role reads.
    pub(super) file: PathBuf,
    /// The same, read.
    pub(super) config: Config,
    /// A key that the configuration accepts; empty when only the user knows one.
    pub(super) api_key: String,
    /// Where the simulator is to listen, when there is one.
    pub(super) simulator: Option<u16>,
    /// Where the local model is to listen, when there is one.
    pub(super) local_model: Option<u16>,
}

impl Settings {
    /// Takes the user's file, or writes one into the data folder.
    pub(super) fn prepare(args: &UpArgs, paths: &Paths) -> anyhow::Result<Self> {
        let given_key = env::var("TOLLGATE_API_KEY").unwrap_or_default();
        if let Some(file) = &args.config {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            let config = tollgate_config::parse(&text, &file.display().to_string())?;
            let simulator = args.simulate.then(tollgate_devstack::free_port).transpose()?;
            return Ok(Self {
                file: fs::canonicalize(file)?,
                config,
                api_key: given_key,
                simulator,
                // The file says where it is to be found.
                local_model: None,
            });
        }
        let api_key = own_key(&paths.data)?;
        let present = |known: &&Known| env::var(known.key).is_ok_and(|key| !key.trim().is_empty());
        let mut providers: BTreeMap<&str, &Known> = BTreeMap::new();
        if !args.simulate {
            for known in KNOWN.iter().filter(present) {
                providers.entry(known.name).or_insert(known);
            }
        }
        let simulator = ((providers.is_empty() && !args.local_model) || !args.exec.is_empty())
            .then(tollgate_devstack::free_port)
            .transpose()?;
        let local_model = args.local_model.then(tollgate_devstack::free_port).transpose()?;
        let text = generate(&api_key, &providers, simulator, local_model);
        let file = paths.data.join("tollgate.yaml");
        fs::write(&file, &text)?;
        let config = tollgate_config::parse(&text, &file.display().to_string())?;
        Ok(Self {
            file: fs::canonicalize(&file)?,
            config,
            api_key,
            simulator,
            local_model,
        })
    }

    /// One line that says where requests will go.
    pub(super) fn summary(&self) -> String {
        let names: Vec<_> = self
            .config
            .providers
            .iter()
            .map(|provider| provider.name.as_str())
            .collect();
        if names.iter().all(|name| name.starts_with("simulator")) {
            "tollgate: no provider key in the environment, so requests go to the built-in simulator".to_owned()
        } else {
            format!("tollgate: requests go to {}", names.join(", "))
        }
    }

    /// The environment variables that hold a provider's secrets.
    pub(super) fn secret_variables(&self, provider: &str) -> Vec<&str> {
        let providers = self.config.providers.iter();
        let known = providers.filter(|known| known.name == provider);
        known
            .flat_map(|known| known.auth.secrets())
            .filter_map(|secret| match secret {
                SecretRef::Env(name) => Some(name.as_str()),
                SecretRef::File(_) => None,
            })
            .collect()
    }
}

/// The key of this data folder, made at the first start.
fn own_key(data: &Path) -> anyhow::Result<String> {
    let path = data.join("api-key");
    if let Ok(key) = fs::read_to_string(&path)
        && !key.trim().is_empty()
    {
        return Ok(key.trim().to_owned());
    }
    let key = tollgate_config::generate_key();
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)?;
    writeln!(file, "{}", key.expose_secret())?;
    Ok(key.expose_secret().to_owned())
}

fn generate(
    api_key: &str,
    providers: &BTreeMap<&str, &Known>,
    simulator: Option<u16>,
    local_model: Option<u16>,
) -> String {
    let hash = hex(&tollgate_config::hash_key(api_key));
    let mut text = format!(
        "# Made by `tollgate up`, anew at each start. Copy it and start with --config to change it.\n\
         keys:\n  - name: local\n    hash: sha256:{hash}\n    roles: [admin]\n    tags: {{env: local}}\nproviders:\n"
    );
    let mut models = String::from("models:\n");
    let mut add = |name: &str, entry: &str, key: &str, served: &[(&str, &[&str])]| {
        let _ = writeln!(text, "  - name: {name}\n    {entry}\n    api_key: env:{key}");
        for (model, targets) in served {
            let _ = writeln!(models, "  - name: {model}\n    targets:");
            for target in *targets {
                let _ = writeln!(models, "      - {{provider: {name}, model: {target}}}");
            }
        }
    };
    for known in providers.values() {
        let elsewhere = env::var("OPENAI_BASE_URL")
            .ok()
            .filter(|url| known.name == "openai" && !url.is_empty());
        let entry = match elsewhere {
            Some(url) => format!("base_url: {url}"),
            None => format!("preset: {}", known.name),
        };
        let served: Vec<(&str, &[&str])> = known
            .models
            .iter()
            .map(|model| (*model, std::slice::from_ref(model)))
            .collect();
        add(known.name, &entry, known.key, &served);
    }
    if let Some(port) = simulator {
        let url = format!("http://127.0.0.1:{port}");
        // Two targets, so that a fallback can be seen when the simulator is told to fail.
        let served: [(&str, &[&str]); 3] = [
            ("sim-mini", &["sim-mini", "sim-large"]),
            ("sim-large", &["sim-large"]),
            ("sim-embed", &["sim-embed"]),
        ];
        add("simulator", &format!("base_url: {url}/v1"), SIMULATOR_KEY, &served);
        let anthropic = format!("dialect: anthropic\n    base_url: {url}/v1");
        add(
            "simulator-anthropic",
            &anthropic,
            SIMULATOR_KEY,
            &[("sim-claude", &["sim-claude"])],
        );
        let gemini = format!("dialect: gemini\n    base_url: {url}/v1beta");
        add(
            "simulator-gemini",
            &gemini,
            SIMULATOR_KEY,
            &[("sim-gemini", &["sim-gemini"])],
        );
    }
    if let Some(port) = local_model {
        let _ = writeln!(
            text,
            "  - name: local\n    preset: llamacpp\n    base_url: http://127.0.0.1:{port}/v1"
        );
        models.push_str("  - name: local\n    targets:\n      - {provider: local, model: local}\n");
    }
    text + &models
}

/// The simulator wants a key like any provider, and takes any.
pub(super) const SIMULATOR_KEY: &str = "TOLLGATE_SIMULATOR_KEY";
