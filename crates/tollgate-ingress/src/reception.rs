//! What every door does with a caller and a request, whatever its dialect.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tollgate_config::{Config, Entry, schema::Permission};
use tollgate_dialect::Invalid;
use tollgate_identity::Identities;
use tollgate_types::{Dialect, Door, ErrorCode, Failure, KeyId, Operation, RequestId, RequestView};

use crate::{
    desk::{Desk, Lane, Opening, Ticket},
    labels::Labels,
};

/// The buffer for bodies is counted in pages of this many bytes.
const PAGE: usize = 1024;
const FULL_WAIT_MS: u64 = 1000;

pub(crate) struct Reception {
    desk: Arc<Desk>,
    identities: Arc<Identities>,
    models: BTreeSet<String>,
    limiters: Limiters,
    pages: Arc<Semaphore>,
    pub(crate) max_body_bytes: usize,
    max_depth: usize,
}

/// A request as a door has read it.
pub(crate) struct Arrival<'a> {
    pub(crate) request_id: RequestId,
    pub(crate) entry: &'a Entry,
    /// What the client says of the request beside it.
    pub(crate) labels: Labels,
    pub(crate) dialect: Dialect,
    pub(crate) operation: Operation,
    /// Model, and whether a stream is wanted, where the path says so and not the body.
    pub(crate) path: Option<(String, bool)>,
    /// The client's headers that a provider of its dialect is to get.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Bytes,
    pub(crate) buffered: OwnedSemaphorePermit,
}

/// A failure with the field that is wrong, for dialects that say it.
pub(crate) struct Rejection {
    pub(crate) failure: Failure,
    pub(crate) param: Option<String>,
}

impl From<Failure> for Rejection {
    fn from(failure: Failure) -> Self {
        Self { failure, param: None }
    }
}

impl From<Invalid> for Rejection {
    fn from(invalid: Invalid) -> Self {
        Self {
            failure: Failure::new(ErrorCode::InvalidRequest, invalid.message),
            param: invalid.param,
        }
    }
}

/// A limiter for each key that has a limit, by the limit that it was made for.
#[derive(Default)]
struct Limiters(Mutex<HashMap<KeyId, (NonZeroU32, Arc<DefaultDirectRateLimiter>)>>);

impl Limiters {
    fn of(&self, entry: &Entry) -> Option<Arc<DefaultDirectRateLimiter>> {
        let limit = NonZeroU32::new(entry.grant.requests_per_minute?)?;
        let fresh = || (limit, Arc::new(RateLimiter::direct(Quota::per_minute(limit))));
        let mut limiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = limiters.entry(entry.caller.key_id).or_insert_with(fresh);
        if known.0 != limit {
            *known = fresh();
        }
        Some(Arc::clone(&known.1))
    }
}

impl Reception {
    pub(crate) fn new(config: &Config, desk: Arc<Desk>, identities: Arc<Identities>) -> Self {
        Self {
            desk,
            identities,
            models: config.models.iter().map(|model| model.name.clone()).collect(),
            limiters: Limiters::default(),
            pages: Arc::new(Semaphore::new(config.ingress.max_buffered_bytes.div_ceil(PAGE))),
            max_body_bytes: config.ingress.max_body_bytes,
            max_depth: config.ingress.max_depth,
        }
    }

    /// The caller that `authorization`, the value of that header, proves, if it may call models.
    pub(crate) async fn authenticate(&self, authorization: Option<&[u8]>) -> Result<Arc<Entry>, Failure> {
        self.authorize(authorization, Permission::Complete).await
    }

    /// The caller that `authorization` proves, if it has the permission.
    pub(crate) async fn authorize(
        &self,
        authorization: Option<&[u8]>,
        permission: Permission,
    ) -> Result<Arc<Entry>, Failure> {
        let refused = |message: &str| Failure::new(ErrorCode::Unauthenticated, message);
        let value = authorization.ok_or_else(|| refused("no API key was given: send `Authorization: Bearer <key>`"))?;
        let secret = std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, secret)| secret.trim())
            .ok_or_else(|| refused("the Authorization header is not of the form `Bearer <key>`"))?;
        self.holder(secret, permission).await
    }

    /// The caller whose key or token this is, if it may call models.
    pub(crate) async fn authenticate_secret(&self, secret: &str) -> Result<Arc<Entry>, Failure> {
        self.holder(secret, Permission::Complete).await
    }

    async fn holder(&self, secret: &str, permission: Permission) -> Result<Arc<Entry>, Failure> {
        let entry = self.identities.authenticate(secret).await?;
        if entry.may(permission) {
            return Ok(entry);
        }
        let message = match permission {
            Permission::Complete => "the API key may not call models".to_owned(),
            other => format!("the API key has not the permission `{other}`"),
        };
        Err(Failure::new(ErrorCode::PermissionDenied, message))
    }

    /// The caller of this key, if the key is still valid.
    pub(crate) fn find(&self, key: KeyId) -> Option<Arc<Entry>> {
        self.identities.find(key)
    }

    /// Counts a request against the caller's own limit.
    pub(crate) fn admit(&self, entry: &Entry) -> Result<(), Failure> {
        let Some(limiter) = self.limiters.of(entry) else {
            return Ok(());
        };
        limiter.check().map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            Failure::new(ErrorCode::RateLimited, "the API key is over its requests per minute").retry_after_ms(wait)
        })
    }

    /// Reserves room for a body of `size` bytes.
    pub(crate) fn reserve(&self, size: usize) -> Result<OwnedSemaphorePermit, Failure> {
        if size > self.max_body_bytes {
            return Err(self.too_large());
        }
        let pages = u32::try_from(size.div_ceil(PAGE).max(1)).unwrap_or(u32::MAX);
        Arc::clone(&self.pages).try_acquire_many_owned(pages).map_err(|_| {
            Failure::new(ErrorCode::Saturated, "too many large requests are under way").retry_after_ms(FULL_WAIT_MS)
        })
    }

    pub(crate) fn too_large(&self) -> Failure {
        let limit = self.max_body_bytes;
        Failure::new(
            ErrorCode::TooLarge,
            format!("the request body is over the limit of {limit} bytes"),
        )
    }

    /// Public model names that the caller may use.
    pub(crate) fn models<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = &'a str> {
        self.models
            .iter()
            .map(String::as_str)
            .filter(|model| entry.may_use(model))
    }

    /// Reads what stages need to know of a request, and whether the caller may ask for it.
    pub(crate) fn look(
        &self,
        entry: &Entry,
        lane: tollgate_types::Lane,
        dialect: Dialect,
        operation: Operation,
        path: Option<(&str, bool)>,
        body: &[u8],
    ) -> Result<RequestView, Rejection> {
        if tollgate_dialect::is_deeper(body, self.max_depth) {
            let message = format!("the request body is nested deeper than {}", self.max_depth);
            return Err(Failure::new(ErrorCode::InvalidRequest, message).into());
        }
        permitted(entry, lane, dialect)?;
        let view = tollgate_dialect::view(dialect, operation, path, body)?;
        self.may_use(entry, &view.model).map_err(|failure| Rejection {
            failure,
            param: Some("model".to_owned()),
        })?;
        Ok(view)
    }

    fn may_use(&self, entry: &Entry, model: &str) -> Result<(), Failure> {
        if self.models.contains(model) && entry.may_use(model) {
            return Ok(());
        }
        let message = "the model does not exist or you do not have access to it";
        Err(Failure::new(ErrorCode::ModelNotFound, message))
    }

    /// Whether the key may still send what it has sent before.
    pub(crate) fn look_again(
        &self,
        entry: &Entry,
        lane: tollgate_types::Lane,
        dialect: Dialect,
        model: &str,
    ) -> Result<(), Failure> {
        permitted(entry, lane, dialect)?;
        self.may_use(entry, model)
    }

    /// Reads the request and puts it on its way.
    pub(crate) async fn open(&self, arrival: Arrival<'_>) -> Result<Ticket, Rejection> {
        let Arrival {
            entry, dialect, body, ..
        } = arrival;
        let path = arrival.path.as_ref().map(|(model, stream)| (model.as_str(), *stream));
        let interactive = tollgate_types::Lane::Interactive;
        let view = self.look(entry, interactive, dialect, arrival.operation, path, &body)?;
        let caller = arrival.labels.apply(&entry.caller);
        tracing::debug!(
            model = view.model,
            operation = view.operation.as_str(),
            stream = view.stream,
            key = caller.key_name,
            "request accepted"
        );
        let opening = Opening {
            request_id: arrival.request_id,
            caller,
            view,
            dialect,
            headers: arrival.headers,
            body,
            buffered: arrival.buffered,
            lane: Lane::Interactive,
        };
        Ok(self.desk.open(opening).await?)
    }
}

/// Whether the key may use the door and the lane.
fn permitted(entry: &Entry, lane: tollgate_types::Lane, dialect: Dialect) -> Result<(), Failure> {
    if Door::of(dialect).is_some_and(|door| !entry.grant.allows_door(door)) {
        let message = "the API key may not use this door";
        return Err(Failure::new(ErrorCode::PermissionDenied, message));
    }
    if !entry.grant.allows_lane(lane) {
        let message = format!("the API key may not use the lane `{lane}`");
        return Err(Failure::new(ErrorCode::PermissionDenied, message));
    }
    Ok(())
}
