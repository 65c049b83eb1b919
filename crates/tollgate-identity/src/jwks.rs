//! The keys that an issuer publishes: a JWK set (RFC 7517), found by its discovery document (OpenID Connect Discovery 1.0).

use std::{collections::HashMap, str::FromStr, time::Duration};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, Jwk, PublicKeyUse},
};
use reqwest::{Client, redirect};
use serde_json::Value;
use tollgate_config::{is_key_source, schema::Issuer};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest document that is read, in bytes.
const LONGEST: usize = 1 << 20;
const MOST_KEYS: usize = 1000;

/// Why the keys were not had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    #[error("it does not answer")]
    Http(#[from] reqwest::Error),
    #[error("its answer is too long")]
    TooLong,
    #[error("its answer is not JSON")]
    Json(#[from] serde_json::Error),
    #[error("its discovery document is not of this issuer, or names no safe address of its keys")]
    Discovery,
    #[error("it has no key with which a token could be checked")]
    NoKey,
}

/// Follows no redirect: the addresses are those of the configuration and of the issuer itself.
pub(crate) fn client() -> Result<Client, reqwest::Error> {
    Client::builder()
        .redirect(redirect::Policy::none())
        .timeout(TIMEOUT)
        .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
        .build()
}

struct Key {
    key: DecodingKey,
    /// The only algorithm that it is for.
    algorithm: Option<Algorithm>,
}

/// Keys by their ids.
pub(crate) struct Keys {
    named: HashMap<String, Key>,
    /// One of no id counts only if there is no other.
    single: Option<Key>,
}

impl Keys {
    pub(crate) async fn fetch(client: &Client, issuer: &Issuer) -> Result<Self, Unread> {
        let address = match &issuer.jwks_url {
            Some(address) => address.clone(),
            None => {
                let base = issuer.issuer.trim_end_matches('/');
                let found = get(client, &format!("{base}/.well-known/openid-configuration")).await?;
                let text = |name: &str| found.get(name).and_then(Value::as_str);
                let address = text("jwks_uri").filter(|address| is_key_source(address));
                let own = text("issuer") == Some(issuer.issuer.as_str());
                address.filter(|_| own).ok_or(Unread::Discovery)?.to_owned()
            }
        };
        Self::read(&get(client, &address).await?).ok_or(Unread::NoKey)
    }

    /// Those of a set with which tokens can be checked; what is of another kind is passed over.
    fn read(set: &Value) -> Option<Self> {
        let all = set.get("keys")?.as_array()?;
        let mut keys = Self {
            named: HashMap::new(),
            single: None,
        };
        for value in all.iter().take(MOST_KEYS) {
            let Some((id, key)) = read(value) else { continue };
            match id {
                Some(id) => drop(keys.named.insert(id, key)),
                None => keys.single = Some(key),
            }
        }
        if all.len() > 1 {
            keys.single = None;
        }
        (!keys.named.is_empty() || keys.single.is_some()).then_some(keys)
    }

    /// The key of a token: by its id, or the only one there is.
    pub(crate) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let only = || match self.named.len() {
            0 => self.single.as_ref(),
            1 if self.single.is_none() => self.named.values().next(),
            _ => None,
        };
        let key = match id {
            Some(id) => self.named.get(id).or(self.single.as_ref()),
            None => only(),
        };
        let fits =
            |key: &&Key| key.algorithm.is_none_or(|one| one == algorithm) && key.key.family() == algorithm.family();
        key.filter(fits).map(|key| &key.key)
    }
}

fn read(value: &Value) -> Option<(Option<String>, Key)> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    let for_signatures = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let public = matches!(
        jwk.algorithm,
        AlgorithmParameters::RSA(_) | AlgorithmParameters::EllipticCurve(_) | AlgorithmParameters::OctetKeyPair(_)
    );
    let algorithm = match jwk.common.key_algorithm {
        Some(named) => Some(Algorithm::from_str(&named.to_string()).ok()?),
        None => None,
    };
    let key = DecodingKey::from_jwk(&jwk).ok().filter(|_| for_signatures && public)?;
    Some((jwk.common.key_id, Key { key, algorithm }))
}

async fn get(client: &Client, address: &str) -> Result<Value, Unread> {
    let mut response = client.get(address).send().await?.error_for_status()?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > LONGEST {
            return Err(Unread::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(serde_json::from_slice(&body)?)
}
