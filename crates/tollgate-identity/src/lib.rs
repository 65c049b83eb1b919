//! Who calls: the holder of a key, or of a token that an identity provider has signed (OpenID Connect, RFC 7519).
//!
//! [`Identities`] answers for both. A token is checked against the keys that its issuer publishes; what its holder may do follows
//! from its claims, as the configuration maps them, within what the issuer's entry and the holder's tenant allow.

mod claims;
mod issuer;
mod jwks;
mod verify;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use chrono::Utc;
use opentelemetry::KeyValue;
use tollgate_config::{AuthError, Config, Entry, Keyring};
use tollgate_telemetry::{Metrics, label};
use tollgate_types::{ErrorCode, Failure, Grant, KeyId, KeyRecord, Tenant, TenantRecord};

use crate::issuer::Issuer;

/// Longest token that is looked at, in bytes.
const LONGEST: usize = 16 << 10;
const AWAY_PAUSE_MS: u64 = 2_000;

/// The client that fetches issuers' keys cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("the client that fetches the keys of issuers cannot be built")]
pub struct Error(#[from] reqwest::Error);

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Key(#[from] AuthError),
    #[error("the token cannot be read")]
    Malformed,
    #[error("the token's issuer is not known here")]
    Issuer,
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    #[error("the token is signed with a key that its issuer does not publish")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    Early,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token lacks a claim that is needed, or has one of the wrong kind")]
    Claim,
    #[error("the token gives its holder no role here")]
    Role,
    #[error("the token is of an organisation or a team that is not known here")]
    Tenant,
    #[error("the keys of the token's issuer cannot be had at the moment")]
    Away,
}

impl Refused {
    const fn reason(self) -> &'static str {
        match self {
            Self::Key(_) => "key",
            Self::Malformed => "malformed",
            Self::Issuer => "issuer",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Early => "early",
            Self::Audience => "audience",
            Self::Claim => "claim",
            Self::Role => "role",
            Self::Tenant => "tenant",
            Self::Away => "away",
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            // Whether a key exists is not told; that it has ended, only to who knows it.
            Refused::Key(AuthError::Malformed | AuthError::Unknown) => {
                Self::new(ErrorCode::Unauthenticated, "the API key is not valid")
            }
            Refused::Key(AuthError::Expired) => Self::new(ErrorCode::Unauthenticated, "the API key has expired"),
            Refused::Role | Refused::Tenant => Self::new(ErrorCode::PermissionDenied, refused.to_string()),
            Refused::Away => Self::new(ErrorCode::Unavailable, refused.to_string()).retry_after_ms(AWAY_PAUSE_MS),
            _ => Self::new(ErrorCode::Unauthenticated, refused.to_string()),
        }
    }
}

/// Everybody who may be let in: holders of keys, and of tokens.
pub struct Identities {
    ring: Keyring,
    issuers: Vec<Arc<Issuer>>,
    /// What all of a tenant may do, and of which revision that is.
    tenants: RwLock<HashMap<Tenant, (u64, Grant)>>,
    metrics: Metrics,
}

impl Identities {
    /// Those of the configuration. Keys that are issued, and tenants, are learned later.
    pub fn new(config: &Config, metrics: Metrics) -> Result<Self, Error> {
        let issuers = if config.issuers.is_empty() {
            Vec::new()
        } else {
            verify::install();
            let client = jwks::client()?;
            let issuer = |one| Arc::new(Issuer::new(one, client.clone(), metrics.clone()));
            config.issuers.iter().map(issuer).collect()
        };
        Ok(Self {
            ring: Keyring::new(&config.keys, &config.providers),
            issuers,
            tenants: RwLock::default(),
            metrics,
        })
    }

    /// Learns of a key that was issued or changed.
    pub fn learn(&self, record: &KeyRecord) {
        self.ring.learn(record);
    }

    /// Learns what all of a tenant may do; of two records the one of the higher revision counts.
    pub fn learn_tenant(&self, record: TenantRecord) {
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        if tenants
            .get(&record.tenant)
            .is_none_or(|(known, _)| *known <= record.revision)
        {
            tenants.insert(record.tenant, (record.revision, record.grant));
        }
    }

    /// The holder of the key of this id, if it is still valid; none for who showed a token.
    #[must_use]
    pub fn find(&self, key: KeyId) -> Option<Arc<Entry>> {
        self.ring.find(key, Utc::now())
    }

    /// Who shows this key or token.
    ///
    /// Waits for an issuer that has a key of which is not known yet; else answers at once.
    pub async fn authenticate(&self, shown: &str) -> Result<Arc<Entry>, Refused> {
        // No key of ours has dots, and one of another gateway hardly begins as a JSON object in base64.
        if self.issuers.is_empty() || !shown.starts_with("eyJ") || shown.split('.').count() != 3 {
            return Ok(self.ring.authenticate(shown, Utc::now())?);
        }
        let (issuer, found) = self.token(shown).await;
        let outcome = found.as_ref().err().map_or("accepted", |refused| refused.reason());
        if let Err(refused) = &found {
            tracing::debug!(issuer, %refused, "a token was refused");
        }
        let labels = [
            KeyValue::new(label::ISSUER, issuer.to_owned()),
            KeyValue::new(label::OUTCOME, outcome),
        ];
        self.metrics.tokens_shown.add(1, &labels);
        found.map(Arc::new)
    }

    /// The issuer that a token names, if it is known, and its holder.
    async fn token(&self, token: &str) -> (&str, Result<Entry, Refused>) {
        let issuer = if token.len() > LONGEST {
            Err(Refused::Malformed)
        } else {
            verify::issuer_of(token).and_then(|text| {
                let mut all = self.issuers.iter();
                all.find(|one| one.settings.issuer == text).ok_or(Refused::Issuer)
            })
        };
        match issuer {
            Ok(issuer) => (&issuer.settings.name, self.holder(issuer, token).await),
            Err(refused) => ("", Err(refused)),
        }
    }

    async fn holder(&self, issuer: &Arc<Issuer>, token: &str) -> Result<Entry, Refused> {
        let claims = issuer.verify(token).await?;
        let holder = claims::holder(&issuer.settings, &claims)?;
        let mut grant = holder.grant.within(&issuer.settings.grant);
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        for part in holder.tenant.parts() {
            match tenants.get(&part) {
                Some((_, of_all)) => grant = grant.within(of_all),
                None if holder.claimed_tenant => return Err(Refused::Tenant),
                None => {}
            }
        }
        Ok(self
            .ring
            .vouch(holder.id, &holder.name, &holder.tenant, grant, holder.until))
    }
}

#[cfg(test)]
mod tests;
