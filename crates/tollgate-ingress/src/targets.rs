//! `tollgate.v1.Targets`: how targets are doing, and taking them out of use.

use std::{sync::Arc, time::Duration};

use tollgate_bus::{
    ledger::Ledger,
    targets::{Change, Drained, Ejected, Targets},
};
use tollgate_config::{Config, Entry, schema::Permission};
use tollgate_proto::{to_status, v1};
use tollgate_types::{
    Caller, ErrorCode, Failure, Millis, RequestId, Target,
    ledger::{Administration, LedgerEvent},
};
use tonic::{Request, Response, Status};

use crate::reception::Reception;

/// The service.
pub(crate) struct Service {
    bucket: Targets,
    ledger: Ledger,
    reception: Arc<Reception>,
    /// Of the configuration, in its order, each once.
    targets: Vec<Target>,
    recovery: Duration,
}

impl Service {
    pub(crate) fn new(config: &Config, bucket: Targets, ledger: Ledger, reception: Arc<Reception>) -> Self {
        let mut targets: Vec<Target> = Vec::new();
        for model in &config.models {
            let chains = [
                &model.targets,
                &model.context_length_targets,
                &model.content_policy_targets,
            ];
            for target in chains.into_iter().flatten() {
                let target = Target {
                    provider: target.provider.clone(),
                    model: target.model.clone(),
                };
                if !targets.contains(&target) {
                    targets.push(target);
                }
            }
        }
        Self {
            bucket,
            ledger,
            reception,
            targets,
            recovery: config.router.health.recovery,
        }
    }

    async fn operator<T>(&self, request: &Request<T>) -> Result<Arc<Entry>, Failure> {
        let mut values = request.metadata().get_all("authorization").iter();
        let only = values.next().filter(|_| values.next().is_none());
        let authorization = only.map(|value| value.as_bytes());
        self.reception.authorize(authorization, Permission::Operate).await
    }

    /// The targets that are meant, at least one.
    fn meant(&self, request: &v1::DrainTargetRequest) -> Result<Vec<&Target>, Failure> {
        let meant = |target: &&Target| {
            target.provider == request.provider && (request.model.is_empty() || target.model == request.model)
        };
        let targets: Vec<&Target> = self.targets.iter().filter(meant).collect();
        if targets.is_empty() {
            return Err(Failure::new(
                ErrorCode::InvalidRequest,
                "no model of the configuration has such a target",
            ));
        }
        Ok(targets)
    }

    async fn told(&self, targets: impl IntoIterator<Item = &Target>) -> Result<v1::ListTargetsResponse, Failure> {
        let (mut ejected, mut drained) = (Vec::new(), Vec::new());
        for change in self.bucket.all().await.map_err(away)? {
            match change {
                Change::Ejected { ejected: one, .. } => ejected.push(one),
                Change::Drained { drained: one, .. } => drained.push(one),
                Change::Ended { .. } => {}
            }
        }
        let now = Millis::now();
        let told = targets.into_iter().map(|target| {
            let ejected = ejected.iter().find(|ejected| ejected.target == *target);
            let drained = drained.iter().find(|drained| drained.covers(target));
            status(target, ejected, drained, self.recovery, now)
        });
        Ok(v1::ListTargetsResponse {
            targets: told.collect(),
        })
    }

    /// Tells audit who changes what, before it is changed.
    async fn note(&self, by: &Caller, action: &str, request: &v1::DrainTargetRequest) -> Result<(), Failure> {
        let target = [request.provider.as_str(), request.model.as_str()];
        let names: Vec<&str> = target.into_iter().filter(|name| !name.is_empty()).collect();
        let event = LedgerEvent::Administered(Administration {
            request_id: RequestId::generate(),
            at: Millis::now(),
            actor_id: by.key_id,
            actor: by.key_name.clone(),
            action: action.to_owned(),
            subject: names.join("/"),
        });
        self.ledger.publish(&event).await.map_err(away)
    }

    async fn drain(&self, request: &Request<v1::DrainTargetRequest>) -> Result<v1::ListTargetsResponse, Failure> {
        let operator = self.operator(request).await?;
        let request = request.get_ref();
        let meant = self.meant(request)?;
        self.note(&operator.caller, "target.drain", request).await?;
        let by = operator.caller.key_name.clone();
        let drained = Drained {
            provider: request.provider.clone(),
            model: model_of(request).map(str::to_owned),
            at: Millis::now(),
            by,
        };
        self.bucket.drain(&drained).await.map_err(away)?;
        tracing::warn!(
            provider = drained.provider,
            model = drained.model,
            key = drained.by,
            "targets were drained"
        );
        self.told(meant).await
    }

    async fn restore(&self, request: &Request<v1::DrainTargetRequest>) -> Result<v1::ListTargetsResponse, Failure> {
        let operator = self.operator(request).await?;
        let request = request.get_ref();
        let meant = self.meant(request)?;
        self.note(&operator.caller, "target.restore", request).await?;
        let by = &operator.caller.key_name;
        let provider = request.provider.as_str();
        self.bucket.undrain(provider, model_of(request)).await.map_err(away)?;
        for target in &meant {
            self.bucket.readmit(target).await.map_err(away)?;
            if request.model.is_empty() {
                self.bucket.undrain(provider, Some(&target.model)).await.map_err(away)?;
            }
        }
        tracing::warn!(provider, model = request.model, key = by, "targets were restored");
        self.told(meant).await
    }
}

fn model_of(request: &v1::DrainTargetRequest) -> Option<&str> {
    Some(request.model.as_str()).filter(|model| !model.is_empty())
}

fn status(
    target: &Target,
    ejected: Option<&Ejected>,
    drained: Option<&Drained>,
    recovery: Duration,
    now: Millis,
) -> v1::TargetStatus {
    let ejected = ejected.filter(|ejected| now < ejected.until.after(recovery));
    let state = match (drained, ejected) {
        (Some(_), _) => v1::TargetState::Drained,
        (None, Some(ejected)) if now < ejected.until => v1::TargetState::Ejected,
        (None, Some(_)) => v1::TargetState::Recovering,
        (None, None) => v1::TargetState::Well,
    };
    v1::TargetStatus {
        provider: target.provider.clone(),
        model: target.model.clone(),
        state: state.into(),
        ejected_until_unix_ms: ejected.map_or(0, |ejected| ejected.until.0),
        strikes: ejected.map_or(0, |ejected| ejected.strikes),
        reason: ejected
            .and_then(|ejected| ejected.reason)
            .map_or_else(String::new, |code| code.as_str().to_owned()),
        drained_by: drained.map_or_else(String::new, |drained| drained.by.clone()),
        drained_at_unix_ms: drained.map_or(0, |drained| drained.at.0),
    }
}

fn away(error: tollgate_bus::Error) -> Failure {
    tracing::warn!(
        error = &error as &dyn std::error::Error,
        "the bucket of targets did not answer"
    );
    Failure::new(
        ErrorCode::Unavailable,
        "what is known of targets cannot be read at the moment",
    )
}

type Answer = Result<Response<v1::ListTargetsResponse>, Status>;

fn answer(result: Result<v1::ListTargetsResponse, Failure>) -> Answer {
    result.map(Response::new).map_err(|failure| to_status(&failure, None))
}

#[tonic::async_trait]
impl v1::targets_server::Targets for Service {
    async fn list(&self, request: Request<v1::ListTargetsRequest>) -> Answer {
        let list = async {
            self.operator(&request).await?;
            self.told(&self.targets).await
        };
        answer(list.await)
    }

    async fn drain(&self, request: Request<v1::DrainTargetRequest>) -> Answer {
        answer(Service::drain(self, &request).await)
    }

    async fn restore(&self, request: Request<v1::DrainTargetRequest>) -> Answer {
        answer(Service::restore(self, &request).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_follow_one_another() {
        let target = Target {
            provider: "p".to_owned(),
            model: "m".to_owned(),
        };
        let ejected = Ejected {
            target: target.clone(),
            until: Millis(100),
            strikes: 2,
            reason: Some(ErrorCode::ProviderError),
        };
        let drained = Drained {
            provider: "p".to_owned(),
            model: None,
            at: Millis(5),
            by: "me".to_owned(),
        };
        let recovery = Duration::from_millis(50);
        let at = |drained: Option<&Drained>, now| status(&target, Some(&ejected), drained, recovery, Millis(now));
        assert_eq!(at(None, 99).state(), v1::TargetState::Ejected);
        assert_eq!(
            (at(None, 99).strikes, at(None, 99).reason.as_str()),
            (2, "provider_error")
        );
        assert_eq!(at(None, 100).state(), v1::TargetState::Recovering);
        let well = at(None, 150);
        assert_eq!((well.state(), well.strikes), (v1::TargetState::Well, 0));
        let out = at(Some(&drained), 99);
        assert_eq!((out.state(), out.drained_by.as_str()), (v1::TargetState::Drained, "me"));
    }
}
