//! Environment variables that override the file, for what differs from one machine or container to the next.

use std::fmt;

use crate::{Config, Mistake, Mistakes, SecretRef, url, value};

/// The variables, as `get` gives them, and what is wrong with them.
struct Environment<G> {
    get: G,
    mistakes: Vec<Mistake>,
}

impl<G: Fn(&str) -> Option<String>> Environment<G> {
    /// A variable's value; one that is empty is as good as unset, which is how compose files and shells clear one.
    fn get(&self, variable: &str) -> Option<String> {
        (self.get)(variable)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    }

    fn read<T, M: fmt::Display>(&mut self, variable: &str, read: impl FnOnce(&str) -> Result<T, M>) -> Option<T> {
        match read(&self.get(variable)?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.mistakes.push(Mistake {
                    source: "environment".to_owned(),
                    line: 0,
                    column: 0,
                    path: variable.to_owned(),
                    message: message.to_string(),
                });
                None
            }
        }
    }

    fn set<T, M: fmt::Display>(&mut self, variable: &str, field: &mut T, read: impl FnOnce(&str) -> Result<T, M>) {
        if let Some(value) = self.read(variable, read) {
            *field = value;
        }
    }
}

impl Config {
    /// Applies the overrides, with `get` looking a variable up. After an error the configuration is not to be used.
    pub fn apply_environment(&mut self, get: impl Fn(&str) -> Option<String>) -> Result<(), Mistakes> {
        let mut env = Environment {
            get,
            mistakes: Vec::new(),
        };
        env.set("NATS_URL", &mut self.bus.url, url::nats);
        if env.get("DATABASE_URL").is_some() {
            self.audit.database_url = Some(SecretRef::Env("DATABASE_URL".to_owned()));
        }
        env.set("RUST_LOG", &mut self.telemetry.log, value::log_filter);
        if let Some(endpoint) = env.read("OTEL_EXPORTER_OTLP_ENDPOINT", url::collector) {
            self.telemetry.otlp_endpoint = Some(endpoint);
        }
        env.set("TOLLGATE_HTTP_LISTEN", &mut self.ingress.http_listen, value::address);
        env.set("TOLLGATE_GRPC_LISTEN", &mut self.ingress.grpc_listen, value::address);
        env.set(
            "TOLLGATE_DELIVERY_LISTEN",
            &mut self.ingress.delivery_listen,
            value::address,
        );
        env.set(
            "TOLLGATE_SCREEN_LISTEN",
            &mut self.guardrail.delivery_listen,
            value::address,
        );
        if let Some(address) = env.read("TOLLGATE_DELIVERY_ADVERTISE", url::advertise) {
            self.ingress.delivery_advertise = Some(address);
        }
        if let Some(address) = env.read("TOLLGATE_SCREEN_ADVERTISE", url::advertise) {
            self.guardrail.delivery_advertise = Some(address);
        }
        env.set(
            "TOLLGATE_ADMIN_LISTEN",
            &mut self.telemetry.admin_listen,
            value::address,
        );
        env.set("TOLLGATE_AUDIT_LISTEN", &mut self.audit.grpc_listen, value::address);
        env.set("TOLLGATE_LOG_FORMAT", &mut self.telemetry.log_format, value::log_format);
        if env.mistakes.is_empty() {
            Ok(())
        } else {
            Err(Mistakes(env.mistakes))
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{parse, schema::LogFormat};

    use super::*;

    fn applied(variables: &[(&str, &str)]) -> Result<Config, Mistakes> {
        let mut config = parse("", "tollgate.yaml").unwrap();
        let get = |name: &str| {
            let (_, value) = variables.iter().find(|(variable, _)| *variable == name)?;
            Some((*value).to_owned())
        };
        config.apply_environment(get).map(|()| config)
    }

    #[test]
    fn each_variable_overrides_its_field() {
        let config = applied(&[
            ("NATS_URL", "nats://user:pass@nats:4222"),
            ("DATABASE_URL", "postgres://user:pass@db/tollgate"),
            ("RUST_LOG", "debug"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"),
            ("TOLLGATE_HTTP_LISTEN", "0.0.0.0:1"),
            ("TOLLGATE_GRPC_LISTEN", "0.0.0.0:2"),
            ("TOLLGATE_DELIVERY_LISTEN", "0.0.0.0:3"),
            ("TOLLGATE_DELIVERY_ADVERTISE", "http://pod-0:3"),
            ("TOLLGATE_SCREEN_LISTEN", "0.0.0.0:6"),
            ("TOLLGATE_SCREEN_ADVERTISE", "http://pod-1:6"),
            ("TOLLGATE_ADMIN_LISTEN", "[::]:4"),
            ("TOLLGATE_AUDIT_LISTEN", "0.0.0.0:5"),
            ("TOLLGATE_LOG_FORMAT", "json"),
        ])
        .unwrap();
        assert_eq!(config.bus.url, "nats://user:pass@nats:4222");
        assert_eq!(
            config.audit.database_url,
            Some(SecretRef::Env("DATABASE_URL".to_owned()))
        );
        assert_eq!(config.telemetry.log, "debug");
        assert_eq!(config.telemetry.otlp_endpoint.as_deref(), Some("http://collector:4317"));
        assert_eq!(config.ingress.http_listen.to_string(), "0.0.0.0:1");
        assert_eq!(config.ingress.grpc_listen.to_string(), "0.0.0.0:2");
        assert_eq!(config.ingress.delivery_listen.to_string(), "0.0.0.0:3");
        assert_eq!(config.guardrail.delivery_listen.to_string(), "0.0.0.0:6");
        assert_eq!(config.ingress.delivery_advertise.as_deref(), Some("http://pod-0:3"));
        assert_eq!(config.guardrail.delivery_advertise.as_deref(), Some("http://pod-1:6"));
        assert_eq!(config.telemetry.admin_listen.to_string(), "[::]:4");
        assert_eq!(config.audit.grpc_listen.to_string(), "0.0.0.0:5");
        assert_eq!(config.telemetry.log_format, LogFormat::Json);
    }

    #[test]
    fn unset_and_empty_change_nothing() {
        let unset = applied(&[]).unwrap();
        let empty = applied(&[("NATS_URL", ""), ("DATABASE_URL", " "), ("TOLLGATE_HTTP_LISTEN", "")]).unwrap();
        assert_eq!(format!("{unset:?}"), format!("{empty:?}"));
        assert_eq!(unset.audit.database_url, None);
    }

    #[test]
    fn all_bad_variables_are_named_and_no_value_is_repeated() {
        let mistakes = applied(&[
            ("NATS_URL", "http://user:hunter2@nats"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hunter2@collector"),
            ("TOLLGATE_HTTP_LISTEN", "localhost:8080"),
            ("TOLLGATE_LOG_FORMAT", "jsn"),
        ])
        .unwrap_err();
        let text = mistakes.to_string();
        let places: Vec<_> = mistakes.0.iter().map(|mistake| mistake.path.as_str()).collect();
        assert_eq!(
            places,
            [
                "NATS_URL",
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "TOLLGATE_HTTP_LISTEN",
                "TOLLGATE_LOG_FORMAT"
            ]
        );
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.ends_with(
            "environment: TOLLGATE_LOG_FORMAT: expected text or json, found \"jsn\"; did you mean \"json\"?"
        ));
    }
}
