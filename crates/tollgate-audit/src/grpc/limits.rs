//! `tollgate.v1.Limits`: budgets and rate limits.

use std::sync::Arc;

use rust_decimal::{
    Decimal,
    prelude::{FromPrimitive, ToPrimitive},
};
use tokio::sync::Notify;
use tollgate_config::schema::Permission;
use tollgate_proto::v1;
use tollgate_types::{
    ErrorCode, Failure, Millis, Tenant,
    limit::{Scope, WhenAway},
};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use super::{Access, answered, invalid, narrowed, some, unavailable};
use crate::{Actor, LimitInfo, NewLimit, Refusal, Store};

/// The service.
pub(crate) struct Limits {
    /// Whether webhooks can be signed.
    pub(crate) webhooks: bool,
    pub(crate) store: Store,
    pub(crate) access: Access,
    /// Told of each change, so that it is published at once.
    pub(crate) changed: Arc<Notify>,
}

fn amount(field: &'static str, text: &str) -> Result<Decimal, Failure> {
    tollgate_proto::amount(field, text).map_err(|error| invalid(error.to_string()))
}

fn parsed<T: std::str::FromStr<Err = tollgate_types::grant::UnknownName>>(
    field: &str,
    text: &str,
) -> Result<T, Failure> {
    text.parse().map_err(|error| invalid(format!("{field}: {error}")))
}

impl From<LimitInfo> for v1::LimitState {
    fn from(info: LimitInfo) -> Self {
        let LimitInfo { limit, .. } = info;
        let Scope {
            tenant,
            key_id,
            tag,
            model,
            provider,
        } = limit.scope;
        let scope = v1::LimitScope {
            organisation: tenant.organisation.unwrap_or_default(),
            team: tenant.team.unwrap_or_default(),
            key: key_id.map(|id| id.to_string()).unwrap_or_default(),
            tag: tag.map(|(name, value)| format!("{name}={value}")).unwrap_or_default(),
            model: model.unwrap_or_default(),
            provider: provider.unwrap_or_default(),
        };
        Self {
            id: info.limit_id.to_string(),
            limit: Some(v1::Limit {
                name: limit.name,
                scope: Some(scope),
                measure: limit.measure.as_str().to_owned(),
                amount: limit.amount.normalize().to_string(),
                period: limit
                    .period
                    .map(|period| period.as_str().to_owned())
                    .unwrap_or_default(),
                time_zone: limit.time_zone.unwrap_or_default(),
                window_seconds: limit.window_seconds.unwrap_or_default(),
                when_away: limit.when_away.as_str().to_owned(),
                notify_at: limit.notify_at.iter().filter_map(|share| share.to_f64()).collect(),
                webhook: limit.webhook.unwrap_or_default(),
            }),
            spent: info.spent.normalize().to_string(),
            leased: info.leased.normalize().to_string(),
            resets_at_unix_ms: info.resets_at.map(|at| Millis::from(at).0),
            key_name: info.key_name.unwrap_or_default(),
        }
    }
}

impl Limits {
    async fn actor(&self, metadata: &MetadataMap, permission: Permission) -> Result<Actor, Failure> {
        Ok(Actor::of(&*self.access.of(metadata, permission).await?))
    }

    fn changed<T>(&self, done: Result<T, Failure>) -> Result<Response<T>, Status> {
        if done.is_ok() {
            self.changed.notify_one();
        }
        answered(done)
    }

    async fn scope(&self, actor: &Actor, wire: v1::LimitScope) -> Result<Scope, Failure> {
        let asked = Tenant {
            organisation: some(wire.organisation),
            team: some(wire.team),
        };
        let tenant = narrowed(&actor.tenant, asked)?;
        let key_id = match some(wire.key) {
            Some(key) => Some(self.store.key_of_limit(&tenant, &key).await?),
            None => None,
        };
        let tag = some(wire.tag)
            .map(|tag| {
                let pair = tag.split_once('=').filter(|(name, _)| !name.is_empty());
                let pair = pair.map(|(name, value)| (name.to_owned(), value.to_owned()));
                pair.ok_or_else(|| invalid("limit.scope.tag: expected name=value"))
            })
            .transpose()?;
        Ok(Scope {
            tenant,
            key_id,
            tag,
            model: some(wire.model),
            provider: some(wire.provider),
        })
    }

    async fn put(&self, metadata: &MetadataMap, wire: v1::PutLimitRequest) -> Result<v1::LimitState, Failure> {
        let actor = self.actor(metadata, Permission::Keys).await?;
        let wire = wire.limit.ok_or_else(|| invalid("limit: is missing"))?;
        let share = |share: f64| {
            let share = Decimal::from_f64(share).map(|share| share.round_dp(6));
            share.ok_or_else(|| invalid("limit.notify_at: expected shares, above 0 and up to 1"))
        };
        let new = NewLimit {
            measure: parsed("limit.measure", &wire.measure)?,
            amount: amount("limit.amount", &wire.amount)?,
            period: some(wire.period)
                .map(|text| parsed("limit.period", &text))
                .transpose()?,
            time_zone: some(wire.time_zone),
            window_seconds: Some(wire.window_seconds).filter(|seconds| *seconds > 0),
            when_away: match some(wire.when_away) {
                Some(text) => parsed("limit.when_away", &text)?,
                None => WhenAway::Refuse,
            },
            notify_at: wire.notify_at.into_iter().map(share).collect::<Result<_, _>>()?,
            webhook: some(wire.webhook),
            scope: self.scope(&actor, wire.scope.unwrap_or_default()).await?,
            name: wire.name,
        };
        if new.webhook.is_some() && !self.webhooks {
            return Err(invalid(
                "limit.webhook: the configuration has no ingress.webhooks.secret to sign with",
            ));
        }
        Ok(self.store.put_limit(&actor, &new).await?.into())
    }

    async fn listed(
        &self,
        metadata: &MetadataMap,
        wire: v1::ListLimitsRequest,
    ) -> Result<v1::ListLimitsResponse, Failure> {
        let actor = self.actor(metadata, Permission::Report).await?;
        let asked = Tenant {
            organisation: some(wire.organisation),
            team: some(wire.team),
        };
        let limits = self.store.limits(&narrowed(&actor.tenant, asked)?).await;
        let limits = limits.map_err(|error| unavailable(&error))?;
        Ok(v1::ListLimitsResponse {
            limits: limits.into_iter().map(Into::into).collect(),
        })
    }

    async fn add(&self, metadata: &MetadataMap, wire: v1::TopUpRequest) -> Result<v1::LimitState, Failure> {
        let permissions = [Permission::Keys, Permission::Approve];
        let actor = Actor::of(&*self.access.any(metadata, &permissions).await?);
        let usd = amount("usd", &wire.usd)?;
        if usd.is_sign_negative() && !actor.grant.may(Permission::Keys) {
            let message = "who approves can allow more, and takes nothing back";
            return Err(Failure::new(ErrorCode::PermissionDenied, message));
        }
        Ok(self.store.top_up(&actor, &wire.limit, usd).await?.into())
    }

    async fn end(
        &self,
        metadata: &MetadataMap,
        wire: v1::RemoveLimitRequest,
    ) -> Result<v1::RemoveLimitResponse, Failure> {
        let actor = self.actor(metadata, Permission::Keys).await?;
        let removed: Result<(), Refusal> = self.store.remove_limit(&actor, &wire.limit).await;
        removed?;
        Ok(v1::RemoveLimitResponse {})
    }
}

#[tonic::async_trait]
impl v1::limits_server::Limits for Limits {
    async fn put(&self, request: Request<v1::PutLimitRequest>) -> Result<Response<v1::LimitState>, Status> {
        let (metadata, _, wire) = request.into_parts();
        self.changed(Limits::put(self, &metadata, wire).await)
    }

    async fn list(&self, request: Request<v1::ListLimitsRequest>) -> Result<Response<v1::ListLimitsResponse>, Status> {
        let (metadata, _, wire) = request.into_parts();
        answered(self.listed(&metadata, wire).await)
    }

    async fn top_up(&self, request: Request<v1::TopUpRequest>) -> Result<Response<v1::LimitState>, Status> {
        let (metadata, _, wire) = request.into_parts();
        self.changed(self.add(&metadata, wire).await)
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveLimitRequest>,
    ) -> Result<Response<v1::RemoveLimitResponse>, Status> {
        let (metadata, _, wire) = request.into_parts();
        self.changed(self.end(&metadata, wire).await)
    }
}
