//! Which processes `up` starts, each with the arguments and secrets of its own role and no others.

use std::{collections::BTreeMap, env, path::Path};

use anyhow::Context;
use tollgate_devstack::{Role, RoleLog, free_port};

use super::settings::{SIMULATOR_KEY, Settings};
use crate::{cli::UpArgs, running::Running};

/// Passed on from our environment to every role, where set.
const PASSED_ON: [&str; 7] = [
    "RUST_LOG",
    "RUST_BACKTRACE",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "TOLLGATE_LOG_FORMAT",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HOME",
];

/// Fetches and serves the model.
const LOCAL_MODEL: &str = include_str!("../../../../deploy/local_model.py");

/// Everything the roles need to know of their surroundings.
pub(super) struct Plan<'a> {
    pub(super) args: &'a UpArgs,
    pub(super) settings: &'a Settings,
    pub(super) endpoints: &'a Running,
    pub(super) ports: &'a Ports,
    pub(super) logs: &'a Path,
}

/// The ports of ingress and audit.
pub(super) struct Ports {
    pub(super) http: u16,
    pub(super) grpc: u16,
    pub(super) delivery: u16,
    pub(super) reports: u16,
}

impl Ports {
    /// Free ports with --exec; else the usual ones where they are free.
    pub(super) fn choose(args: &UpArgs) -> anyhow::Result<Self> {
        let usual = |port: u16| -> anyhow::Result<u16> {
            let free = args.exec.is_empty() && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
            Ok(if free { port } else { free_port()? })
        };
        Ok(Self {
            http: usual(8080)?,
            grpc: usual(8081)?,
            delivery: free_port()?,
            reports: usual(8084)?,
        })
    }
}

impl Plan<'_> {
    /// The processes, in the order in which they are to be stopped.
    pub(super) fn roles(&self) -> anyhow::Result<Vec<Role>> {
        let mut roles = if self.args.all_in_one {
            vec![self.all()?]
        } else {
            self.one_each()?
        };
        if let Some(port) = self.settings.simulator {
            roles.push(Role {
                ready_url: Some(format!("http://127.0.0.1:{port}/stats")),
                ..self.process(
                    "simulator",
                    &["simulator", "--listen", &format!("127.0.0.1:{port}")],
                    BTreeMap::new(),
                )?
            });
        }
        roles.extend(
            self.settings
                .local_model
                .map(|port| self.local_model(port))
                .transpose()?,
        );
        Ok(roles)
    }

    /// Somebody else's server of an open model. It is ready when the model is loaded.
    fn local_model(&self, port: u16) -> anyhow::Result<Role> {
        let script = self.logs.join("local_model.py");
        std::fs::write(&script, LOCAL_MODEL)?;
        let folder = self.logs.join("local-model");
        let mut role = self.process("local-model", &[], BTreeMap::new())?;
        role.command = "python3".into();
        role.args = vec![
            script.display().to_string(),
            folder.display().to_string(),
            port.to_string(),
        ];
        for variable in ["PATH", "LOCAL_MODEL_GGUF"] {
            role.env
                .extend(env::var(variable).ok().map(|value| (variable.to_owned(), value)));
        }
        role.ready_url = Some(format!("http://127.0.0.1:{port}/health"));
        Ok(role)
    }

    fn all(&self) -> anyhow::Result<Role> {
        let mut env = self.ingress_env();
        env.extend(self.audit_env());
        for provider in &self.settings.config.providers {
            env.extend(self.key_env(&provider.name));
        }
        env.insert(
            "TOLLGATE_SCREEN_LISTEN".to_owned(),
            format!("127.0.0.1:{}", free_port()?),
        );
        self.served("tollgate", &["all"], env)
    }

    fn one_each(&self) -> anyhow::Result<Vec<Role>> {
        let mut roles = vec![self.served("ingress", &["ingress"], self.ingress_env())?];
        for name in self.replicas("guardrail", "guardrail") {
            let listen = format!("127.0.0.1:{}", free_port()?);
            let env = BTreeMap::from([("TOLLGATE_SCREEN_LISTEN".to_owned(), listen)]);
            roles.push(self.served(&name, &["guardrail"], env)?);
        }
        for name in self.replicas("router", "router") {
            roles.push(self.served(&name, &["router"], BTreeMap::new())?);
        }
        for provider in &self.settings.config.providers {
            for name in self.replicas("worker", &format!("worker-{}", provider.name)) {
                let env = self.key_env(&provider.name);
                roles.push(self.served(&name, &["worker", "--provider", &provider.name], env)?);
            }
        }
        for (index, name) in self.replicas("audit", "audit").into_iter().enumerate() {
            let mut env = self.audit_env();
            if index > 0 {
                env.insert(
                    "TOLLGATE_AUDIT_LISTEN".to_owned(),
                    format!("127.0.0.1:{}", free_port()?),
                );
            }
            roles.push(self.served(&name, &["audit"], env)?);
        }
        Ok(roles)
    }

    /// One name for each replica: `router`, or `router-1`, `router-2` …
    fn replicas(&self, role: &str, name: &str) -> Vec<String> {
        let count = self
            .args
            .scale
            .iter()
            .rev()
            .find(|(scaled, _)| scaled == role)
            .map_or(1, |(_, count)| *count);
        if count == 1 {
            vec![name.to_owned()]
        } else {
            (1..=count).map(|number| format!("{name}-{number}")).collect()
        }
    }

    fn ingress_env(&self) -> BTreeMap<String, String> {
        let listen = |port: u16| format!("127.0.0.1:{port}");
        BTreeMap::from([
            ("TOLLGATE_HTTP_LISTEN".to_owned(), listen(self.ports.http)),
            ("TOLLGATE_GRPC_LISTEN".to_owned(), listen(self.ports.grpc)),
            ("TOLLGATE_DELIVERY_LISTEN".to_owned(), listen(self.ports.delivery)),
        ])
    }

    fn audit_env(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("DATABASE_URL".to_owned(), self.endpoints.database_url.clone()),
            (
                "TOLLGATE_AUDIT_LISTEN".to_owned(),
                format!("127.0.0.1:{}", self.ports.reports),
            ),
        ])
    }

    /// The provider's secrets, for its worker alone.
    fn key_env(&self, provider: &str) -> BTreeMap<String, String> {
        let secret = |variable: &str| match variable {
            SIMULATOR_KEY => Some("sk-simulated".to_owned()),
            variable => env::var(variable).ok(),
        };
        let variables = self.settings.secret_variables(provider).into_iter();
        variables
            .filter_map(|variable| Some((variable.to_owned(), secret(variable)?)))
            .collect()
    }

    /// A role that reads the configuration and has an admin listener.
    fn served(&self, name: &str, args: &[&str], mut env: BTreeMap<String, String>) -> anyhow::Result<Role> {
        let admin = format!("127.0.0.1:{}", free_port()?);
        env.insert("NATS_URL".to_owned(), self.endpoints.nats_url.clone());
        env.insert("TOLLGATE_CONFIG".to_owned(), self.settings.file.display().to_string());
        env.insert("TOLLGATE_ADMIN_LISTEN".to_owned(), admin.clone());
        Ok(Role {
            ready_url: Some(format!("http://{admin}/readyz")),
            ..self.process(name, args, env)?
        })
    }

    fn process(&self, name: &str, args: &[&str], mut env: BTreeMap<String, String>) -> anyhow::Result<Role> {
        for variable in PASSED_ON {
            if let Ok(value) = env::var(variable) {
                env.entry(variable.to_owned()).or_insert(value);
            }
        }
        Ok(Role {
            name: name.to_owned(),
            command: env::current_exe().context("cannot find our own binary")?,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: env.into_iter().collect(),
            log: RoleLog::File(self.logs.join(format!("{name}.log"))),
            ready_url: None,
        })
    }
}
