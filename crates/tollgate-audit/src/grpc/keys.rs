//! `tollgate.v1.Keys` and `tollgate.v1.AuditLog`: issuing keys, and who changed what.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use secrecy::ExposeSecret;
use tokio::sync::Notify;
use tollgate_config::schema::Permission;
use tollgate_proto::v1;
use tollgate_types::{ErrorCode, Failure, Grant, Millis, Tenant};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{Access, answered, invalid, narrowed, some, unavailable};
use crate::{Actor, AuditEvent, KeyInfo, NewKey, Refusal, Store, TenantInfo};

/// Longest grace of a rotation.
const MOST_GRACE: u64 = 90 * 24 * 3600;

/// Both services.
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) store: Store,
    pub(crate) access: Access,
    /// Told of each change, so that it is published at once.
    pub(crate) changed: Arc<Notify>,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(message) => invalid(message),
            Refusal::Denied(message) => Self::new(ErrorCode::PermissionDenied, message),
            Refusal::NotFound => Self::new(ErrorCode::KeyNotFound, "no key of this name or id is known to you"),
            Refusal::NoLimit => Self::new(ErrorCode::LimitNotFound, "no limit of this name is known to you"),
            Refusal::Taken(message) => Self::new(ErrorCode::NameTaken, message),
            Refusal::Store(error) => unavailable(&error),
        }
    }
}

fn unix_ms(time: DateTime<Utc>) -> u64 {
    Millis::from(time).0
}

/// A moment; none for 0.
fn moment(unix_ms: u64) -> Result<Option<DateTime<Utc>>, Failure> {
    if unix_ms > crate::rows::TIME_LIMIT.0 {
        return Err(invalid("expires_at_unix_ms: is out of range"));
    }
    Ok((unix_ms > 0).then(|| Millis(unix_ms).to_datetime()))
}

fn grant(rights: Option<v1::Rights>) -> Result<Grant, Failure> {
    let grant: Result<Grant, _> = rights.unwrap_or_default().try_into();
    grant.map_err(|error| invalid(error.to_string()))
}

impl From<KeyInfo> for v1::Key {
    fn from(key: KeyInfo) -> Self {
        Self {
            id: key.key_id.to_string(),
            name: key.name,
            organisation: key.tenant.organisation.unwrap_or_default(),
            team: key.tenant.team.unwrap_or_default(),
            rights: Some(key.grant.into()),
            endings: key.endings,
            expires_at_unix_ms: key.expires_at.map(unix_ms).unwrap_or_default(),
            disabled: key.disabled,
            created_at_unix_ms: unix_ms(key.created_at),
            created_by: key.created_by,
        }
    }
}

impl From<TenantInfo> for v1::TenantRights {
    fn from(info: TenantInfo) -> Self {
        Self {
            organisation: info.tenant.organisation.unwrap_or_default(),
            team: info.tenant.team.unwrap_or_default(),
            rights: Some(info.grant.into()),
            keys: info.keys,
        }
    }
}

impl From<AuditEvent> for v1::AuditEvent {
    fn from(event: AuditEvent) -> Self {
        Self {
            sequence: event.sequence,
            at_unix_ms: unix_ms(event.at),
            actor: event.actor,
            actor_id: event.actor_id.to_string(),
            action: event.action,
            subject: event.subject,
            detail_json: event.detail.to_string(),
            previous: event.previous,
            hash: event.hash,
        }
    }
}

fn issued((key, secret): (KeyInfo, Option<secrecy::SecretString>)) -> v1::IssuedKey {
    v1::IssuedKey {
        key: Some(key.into()),
        secret: secret
            .map(|secret| secret.expose_secret().to_owned())
            .unwrap_or_default(),
    }
}

fn sha256(text: &str) -> Result<Option<[u8; 32]>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let hash = tollgate_config::read_hash(text);
    hash.map(Some).ok_or_else(|| invalid("sha256: expected 64 hex digits"))
}

impl Keys {
    /// Who calls, if he may.
    async fn actor(&self, metadata: &MetadataMap, permission: Permission) -> Result<Actor, Failure> {
        let entry = self.access.of(metadata, permission).await?;
        Ok(Actor::of(&entry))
    }

    /// Answers a change, and has it published.
    fn changed<T>(&self, done: Result<T, Failure>) -> Result<Response<T>, Status> {
        if done.is_ok() {
            self.changed.notify_one();
        }
        answered(done)
    }

    async fn make(&self, metadata: &MetadataMap, wire: v1::CreateKeyRequest) -> Result<v1::IssuedKey, Failure> {
        let actor = self.actor(metadata, Permission::Keys).await?;
        let asked = Tenant {
            organisation: some(wire.organisation),
            team: some(wire.team),
        };
        let new = NewKey {
            name: wire.name,
            tenant: narrowed(&actor.tenant, asked)?,
            grant: grant(wire.rights)?,
            expires_at: moment(wire.expires_at_unix_ms)?,
            sha256: sha256(&wire.sha256)?,
        };
        Ok(issued(self.store.create_key(&actor, new).await?))
    }

    async fn replace(&self, metadata: &MetadataMap, wire: v1::UpdateKeyRequest) -> Result<v1::Key, Failure> {
        let actor = self.actor(metadata, Permission::Keys).await?;
        let (grant, end) = (grant(wire.rights)?, moment(wire.expires_at_unix_ms)?);
        Ok(self.store.update_key(&actor, &wire.key, &grant, end).await?.into())
    }

    async fn turn(&self, metadata: &MetadataMap, wire: v1::RotateKeyRequest) -> Result<v1::IssuedKey, Failure> {
        let actor = self.actor(metadata, Permission::Keys).await?;
        if wire.grace_seconds > MOST_GRACE {
            return Err(invalid("grace_seconds: expected at most 90 days"));
        }
        let grace = Duration::from_secs(wire.grace_seconds);
        Ok(issued(self.store.rotate_key(&actor, &wire.key, grace).await?))
    }

    async fn switch(&self, metadata: &MetadataMap, key: &str, disable: bool) -> Result<v1::Key, Failure> {
        let actor = self.actor(metadata, Permission::Keys).await?;
        Ok(self.store.disable_key(&actor, key, disable).await?.into())
    }

    async fn put(&self, metadata: &MetadataMap, wire: v1::PutTenantRequest) -> Result<v1::TenantRights, Failure> {
        let actor = self.actor(metadata, Permission::Keys).await?;
        let asked = Tenant {
            organisation: some(wire.organisation),
            team: some(wire.team),
        };
        let tenant = narrowed(&actor.tenant, asked)?;
        let put = self.store.put_tenant(&actor, &tenant, &grant(wire.rights)?).await?;
        Ok(put.into())
    }

    async fn listed(&self, metadata: &MetadataMap, wire: v1::ListKeysRequest) -> Result<v1::ListKeysResponse, Failure> {
        let actor = self.actor(metadata, Permission::Keys).await?;
        let asked = Tenant {
            organisation: some(wire.organisation),
            team: some(wire.team),
        };
        let keys = self.store.keys(&narrowed(&actor.tenant, asked)?).await;
        let keys = keys.map_err(|error| unavailable(&error))?;
        Ok(v1::ListKeysResponse {
            keys: keys.into_iter().map(Into::into).collect(),
        })
    }

    async fn tenants(&self, metadata: &MetadataMap) -> Result<v1::ListTenantsResponse, Failure> {
        let actor = self.actor(metadata, Permission::Keys).await?;
        let tenants = self.store.tenants(&actor.tenant).await;
        let tenants = tenants.map_err(|error| unavailable(&error))?;
        Ok(v1::ListTenantsResponse {
            tenants: tenants.into_iter().map(Into::into).collect(),
        })
    }

    async fn events(
        &self,
        metadata: &MetadataMap,
        wire: v1::ListAuditRequest,
    ) -> Result<v1::ListAuditResponse, Failure> {
        let actor = self.actor(metadata, Permission::Audit).await?;
        if actor.tenant != Tenant::default() {
            // The chain is one of all tenants.
            let message = "the audit log is read with a key of no organisation";
            return Err(Failure::new(ErrorCode::PermissionDenied, message));
        }
        let events = self.store.audit_events(wire.after, wire.limit).await;
        let events = events.map_err(|error| unavailable(&error))?;
        Ok(v1::ListAuditResponse {
            events: events.into_iter().map(Into::into).collect(),
        })
    }
}

#[tonic::async_trait]
impl v1::keys_server::Keys for Keys {
    async fn create(&self, request: Request<v1::CreateKeyRequest>) -> Result<Response<v1::IssuedKey>, Status> {
        let (metadata, _, wire) = request.into_parts();
        self.changed(self.make(&metadata, wire).await)
    }

    async fn list(&self, request: Request<v1::ListKeysRequest>) -> Result<Response<v1::ListKeysResponse>, Status> {
        let (metadata, _, wire) = request.into_parts();
        answered(self.listed(&metadata, wire).await)
    }

    async fn update(&self, request: Request<v1::UpdateKeyRequest>) -> Result<Response<v1::Key>, Status> {
        let (metadata, _, wire) = request.into_parts();
        self.changed(self.replace(&metadata, wire).await)
    }

    async fn rotate(&self, request: Request<v1::RotateKeyRequest>) -> Result<Response<v1::IssuedKey>, Status> {
        let (metadata, _, wire) = request.into_parts();
        self.changed(self.turn(&metadata, wire).await)
    }

    async fn disable(&self, request: Request<v1::KeyRequest>) -> Result<Response<v1::Key>, Status> {
        let (metadata, _, wire) = request.into_parts();
        self.changed(self.switch(&metadata, &wire.key, true).await)
    }

    async fn enable(&self, request: Request<v1::KeyRequest>) -> Result<Response<v1::Key>, Status> {
        let (metadata, _, wire) = request.into_parts();
        self.changed(self.switch(&metadata, &wire.key, false).await)
    }

    async fn put_tenant(&self, request: Request<v1::PutTenantRequest>) -> Result<Response<v1::TenantRights>, Status> {
        let (metadata, _, wire) = request.into_parts();
        self.changed(self.put(&metadata, wire).await)
    }

    async fn list_tenants(
        &self,
        request: Request<v1::ListTenantsRequest>,
    ) -> Result<Response<v1::ListTenantsResponse>, Status> {
        answered(self.tenants(request.metadata()).await)
    }
}

#[tonic::async_trait]
impl v1::audit_log_server::AuditLog for Keys {
    async fn list(&self, request: Request<v1::ListAuditRequest>) -> Result<Response<v1::ListAuditResponse>, Status> {
        let (metadata, _, wire) = request.into_parts();
        answered(self.events(&metadata, wire).await)
    }
}
