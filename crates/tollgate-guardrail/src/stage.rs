//! Guardrail as a stage: checks a prompt and decides whether it goes on, changed or as it is, or ends here.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use opentelemetry::KeyValue;
use serde_json::Value;
use tollgate_bus::{Hop, Outcome, Payloads, Stage};
use tollgate_config::schema;
use tollgate_dialect::text;
use tollgate_telemetry::{Metrics, label};
use tollgate_types::{Envelope, ErrorCode, Failure, Screen};

use crate::{Checker, Session, Verdict};

/// Above this a body is checked on a thread of its own.
const LARGE: usize = 128 << 10;

/// The compiled checks of a policy.
pub(crate) struct Policy {
    pub(crate) prompt: Checker,
    pub(crate) answer: Checker,
}

/// All policies, by name.
pub(crate) type Policies = Arc<HashMap<String, Policy>>;

pub(crate) fn compile(policies: &[schema::Policy]) -> Policies {
    let compiled = |policy: &schema::Policy| Policy {
        prompt: Checker::new(&policy.prompt),
        answer: Checker::new(&policy.answer),
    };
    Arc::new(
        policies
            .iter()
            .map(|policy| (policy.name.clone(), compiled(policy)))
            .collect(),
    )
}

pub(crate) struct GuardStage {
    pub(crate) policies: Policies,
    pub(crate) payloads: Payloads,
    /// Where answers are delivered that this guardrail screens.
    pub(crate) address: String,
    pub(crate) metrics: Metrics,
}

/// What came of checking a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Checked {
    Allow,
    Change(Bytes),
    Deny,
    /// Not JSON. Ingress lets no such body through.
    Unreadable,
}

impl Checked {
    const fn name(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Change(_) => "change",
            Self::Deny => "deny",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Checks every text of a request or a whole answer.
pub(crate) fn check_body(body: &[u8], session: &mut Session) -> Checked {
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else {
        return Checked::Unreadable;
    };
    let (mut changed, mut denied) = (false, false);
    text::visit(&mut value, &mut |text| match session.check(text) {
        Verdict::Allow => {}
        Verdict::Change(masked) => {
            *text = masked;
            changed = true;
        }
        Verdict::Deny { .. } => denied = true,
    });
    match (denied, changed) {
        (true, _) => Checked::Deny,
        (false, true) => Checked::Change(value.to_string().into()),
        (false, false) => Checked::Allow,
    }
}

pub(crate) fn record(metrics: &Metrics, policy: &str, direction: &'static str, verdict: &'static str) {
    metrics.verdicts.add(
        1,
        &[
            KeyValue::new(label::POLICY, policy.to_owned()),
            KeyValue::new(label::DIRECTION, direction),
            KeyValue::new(label::OUTCOME, verdict),
        ],
    );
}

impl GuardStage {
    async fn check_prompt(&self, envelope: &mut Envelope, policy: &Policy) -> Result<(), Failure> {
        let body = self.payloads.fetch(&envelope.payload).await.map_err(|error| {
            tracing::warn!(%error, "a stored payload was not fetched");
            Failure::new(ErrorCode::Unavailable, "the request body cannot be read at the moment")
        })?;
        let mut session = policy.prompt.session();
        let checked = if body.len() > LARGE {
            let checked = tokio::task::spawn_blocking(move || check_body(&body, &mut session)).await;
            checked.map_err(|_| Failure::new(ErrorCode::Internal, "the request could not be checked"))?
        } else {
            check_body(&body, &mut session)
        };
        record(&self.metrics, &envelope.caller.policy, "prompt", checked.name());
        match checked {
            Checked::Allow => Ok(()),
            Checked::Change(body) => {
                let part = format!("guarded-{}", envelope.generation);
                let stored = self.payloads.check_in(envelope.request_id, &part, body).await;
                envelope.payload = stored.map_err(|error| {
                    tracing::warn!(%error, "a changed request body was not stored");
                    Failure::new(ErrorCode::Unavailable, "the request cannot be stored at the moment")
                })?;
                Ok(())
            }
            Checked::Deny => Err(Failure::new(
                ErrorCode::PolicyDenied,
                "the request was denied by a guardrail policy",
            )),
            Checked::Unreadable => Err(Failure::new(ErrorCode::InvalidRequest, "the request body is not JSON")),
        }
    }
}

impl Stage for GuardStage {
    const NAME: &'static str = "guard";

    async fn handle(&self, mut envelope: Envelope) -> Outcome {
        let policies = Arc::clone(&self.policies);
        let Some(policy) = policies.get(&envelope.caller.policy) else {
            // Two versions of the configuration at once: the request must not go on unchecked.
            let failure = Failure::new(
                ErrorCode::Unavailable,
                "the guardrail does not know the key's policy yet",
            );
            return Outcome::Conclude(Box::new(envelope), failure);
        };
        if !policy.prompt.is_empty()
            && let Err(failure) = self.check_prompt(&mut envelope, policy).await
        {
            return Outcome::Conclude(Box::new(envelope), failure);
        }
        if !policy.answer.is_empty() {
            let policy = envelope.caller.policy.clone();
            envelope.screen = Some(Screen {
                address: self.address.clone(),
                policy,
            });
        }
        Outcome::Forward(Hop::Route, Box::new(envelope))
    }
}
