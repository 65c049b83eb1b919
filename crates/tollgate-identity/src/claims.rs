//! From the claims of a token whose signature is right to what its holder may do.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tollgate_config::schema::{Claimed, Issuer};
use tollgate_types::{Grant, KeyId, Permission, Tenant};

use crate::Refused;

pub(crate) type Claims = Map<String, Value>;

/// Longest name that goes into the ledger, in bytes.
const LONGEST_NAME: usize = 256;

/// Who holds a token.
pub(crate) struct Holder {
    /// The same for all tokens of one subject.
    pub(crate) id: KeyId,
    pub(crate) name: String,
    pub(crate) tenant: Tenant,
    /// Whether the token itself says whose its holder is.
    pub(crate) claimed_tenant: bool,
    pub(crate) grant: Grant,
    pub(crate) until: DateTime<Utc>,
}

pub(crate) fn holder(issuer: &Issuer, claims: &Claims) -> Result<Holder, Refused> {
    let subject = text(claims, "sub")?;
    let tenant = Tenant {
        organisation: tenant(issuer.organisation.as_ref(), claims)?,
        team: tenant(issuer.team.as_ref(), claims)?,
    };
    let claimed = |part: &Option<Claimed>| matches!(part, Some(Claimed::Claim(_)));
    let grant = Grant {
        permissions: Some(permissions(issuer, claims, &tenant)?),
        ..Grant::default()
    };
    let end = claims.get("exp").and_then(seconds).ok_or(Refused::Claim)?;
    Ok(Holder {
        id: id(&issuer.issuer, subject),
        name: format!("{}:{}", issuer.name, text(claims, &issuer.name_claim)?),
        claimed_tenant: claimed(&issuer.organisation) || claimed(&issuer.team),
        tenant,
        grant,
        until: DateTime::from_timestamp(end, 0).ok_or(Refused::Claim)?,
    })
}

/// No key of ours contains a zero byte, so that no key has the id of a subject.
fn id(issuer: &str, subject: &str) -> KeyId {
    let mut hash = Sha256::new();
    hash.update(issuer);
    hash.update([0]);
    hash.update(subject);
    KeyId::from_hash(&hash.finalize().into())
}

fn seconds(value: &Value) -> Option<i64> {
    #[allow(clippy::cast_possible_truncation, reason = "the part of a second is dropped")]
    value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
}

/// A claim by its name, which may have dots, or else by the names on the way to it.
fn find<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    find(claims.get(first)?.as_object()?, rest)
}

fn text<'a>(claims: &'a Claims, path: &str) -> Result<&'a str, Refused> {
    let text = find(claims, path).and_then(Value::as_str).unwrap_or_default();
    let fits = (1..=LONGEST_NAME).contains(&text.len()) && !text.contains(char::is_control);
    fits.then_some(text).ok_or(Refused::Claim)
}

fn tenant(part: Option<&Claimed>, claims: &Claims) -> Result<Option<String>, Refused> {
    match part {
        None => Ok(None),
        Some(Claimed::Fixed(name)) => Ok(Some(name.clone())),
        Some(Claimed::Claim(path)) => text(claims, path).map(|name| Some(name.to_owned())),
    }
}

/// Those of all roles that the claim names.
fn permissions(issuer: &Issuer, claims: &Claims, tenant: &Tenant) -> Result<Vec<Permission>, Refused> {
    let names: Vec<&str> = match find(claims, &issuer.role_claim) {
        Some(Value::String(names)) => names.split_whitespace().collect(),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let mut roles: Vec<_> = names.iter().filter_map(|name| issuer.roles.get(*name)).collect();
    if roles.is_empty() {
        roles.push(issuer.default_role.as_ref().ok_or(Refused::Role)?);
    }
    let permissions: BTreeSet<_> = roles
        .into_iter()
        .flat_map(|role| role.permissions())
        // Nobody of a tenant changes what is everybody's.
        .filter(|one| tenant.organisation.is_none() || !one.is_for_the_whole())
        .copied()
        .collect();
    Ok(permissions.into_iter().collect())
}
