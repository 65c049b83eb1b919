//! Secrets are never in the file: it says where they are, and the role that needs one reads it there.

use std::{fmt, path::PathBuf};

use secrecy::SecretString;

/// Where a secret is: `env:NAME` or `file:/path`.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// An environment variable.
    Env(String),
    /// A file whose content, less surrounding white space, is the secret.
    File(PathBuf),
}

/// Why a secret could not be read. Never carries the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("environment variable {0} is not set")]
    Unset(String),
    #[error("environment variable {0} is empty or not UTF-8")]
    Unusable(String),
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{0} is empty")]
    EmptyFile(PathBuf),
}

impl SecretRef {
    /// Reads the secret from where it is.
    pub fn resolve(&self) -> Result<SecretString, SecretError> {
        match self {
            Self::Env(name) => match std::env::var(name) {
                Ok(value) if !value.trim().is_empty() => Ok(value.trim().to_owned().into()),
                Err(std::env::VarError::NotPresent) => Err(SecretError::Unset(name.clone())),
                _ => Err(SecretError::Unusable(name.clone())),
            },
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| SecretError::Read {
                    path: path.clone(),
                    source,
                })?;
                match text.trim() {
                    "" => Err(SecretError::EmptyFile(path.clone())),
                    secret => Ok(secret.to_owned().into()),
                }
            }
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
