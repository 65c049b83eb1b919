//! Conversions of what travels between Tollgate's own services.

use std::collections::{BTreeMap, HashMap};

use tollgate_types::{
    Caller, Dialect, Envelope, Failure, Hold, Millis, Operation, Payload, RequestView, Screen, Target, Tenant, Usage,
    envelope::{Claim, Refusal},
};

use rust_decimal::Decimal;

use crate::{Invalid, v1};

impl From<Envelope> for v1::Envelope {
    fn from(envelope: Envelope) -> Self {
        Self {
            request_id: envelope.request_id.to_string(),
            generation: envelope.generation,
            owner: envelope.owner,
            deadline_unix_ms: envelope.deadline.0,
            caller: Some(envelope.caller.into()),
            view: Some(envelope.view.into()),
            dialect: dialect_out(envelope.dialect).into(),
            payload: Some(match envelope.payload {
                Payload::Inline(bytes) => v1::envelope::Payload::Inline(bytes),
                Payload::Stored { object, size } => v1::envelope::Payload::Stored(v1::StoredPayload { object, size }),
            }),
            screen: envelope.screen.map(|screen| v1::Screen {
                address: screen.address,
                policy: screen.policy,
            }),
            target: envelope.target.map(Into::into),
            failures: envelope.failures.into_iter().map(Into::into).collect(),
            headers: envelope.headers.into_iter().collect(),
            fence: envelope.fence,
            hedged: envelope.hedged.map(Into::into),
        }
    }
}

impl TryFrom<v1::Envelope> for Envelope {
    type Error = Invalid;

    fn try_from(wire: v1::Envelope) -> Result<Self, Invalid> {
        Ok(Self {
            request_id: wire
                .request_id
                .parse()
                .map_err(|_| Invalid::new("request_id", "is no request id"))?,
            generation: wire.generation,
            owner: address("owner", wire.owner)?,
            deadline: Millis(wire.deadline_unix_ms),
            caller: wire.caller.ok_or(Invalid::missing("caller"))?.try_into()?,
            view: wire.view.ok_or(Invalid::missing("view"))?.try_into()?,
            dialect: dialect_in(wire.dialect)?,
            headers: wire.headers.into_iter().collect(),
            payload: match wire.payload.ok_or(Invalid::missing("payload"))? {
                v1::envelope::Payload::Inline(bytes) => Payload::Inline(bytes),
                v1::envelope::Payload::Stored(stored) if is_plain(&stored.object) => Payload::Stored {
                    object: stored.object,
                    size: stored.size,
                },
                v1::envelope::Payload::Stored(_) => return Err(Invalid::new("stored.object", "is no object name")),
            },
            screen: wire
                .screen
                .map(|screen| {
                    Ok(Screen {
                        address: address("screen.address", screen.address)?,
                        policy: screen.policy,
                    })
                })
                .transpose()?,
            target: wire.target.map(TryInto::try_into).transpose()?,
            failures: wire
                .failures
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            fence: wire.fence,
            hedged: wire.hedged.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<Caller> for v1::Caller {
    fn from(caller: Caller) -> Self {
        Self {
            key_id: caller.key_id.to_string(),
            key_name: caller.key_name,
            tags: caller.tags.into_iter().collect::<HashMap<_, _>>(),
            policy: caller.policy,
            organisation: caller.tenant.organisation.unwrap_or_default(),
            team: caller.tenant.team.unwrap_or_default(),
            user: caller.user,
            providers: caller.providers.map(|names| v1::Names { names }),
        }
    }
}

impl TryFrom<v1::Caller> for Caller {
    type Error = Invalid;

    fn try_from(wire: v1::Caller) -> Result<Self, Invalid> {
        Ok(Self {
            key_id: wire
                .key_id
                .parse()
                .map_err(|_| Invalid::new("caller.key_id", "is no key id"))?,
            key_name: wire.key_name,
            tags: wire.tags.into_iter().collect::<BTreeMap<_, _>>(),
            policy: wire.policy,
            tenant: Tenant {
                organisation: Some(wire.organisation).filter(|name| !name.is_empty()),
                team: Some(wire.team).filter(|name| !name.is_empty()),
            },
            user: wire.user,
            providers: wire.providers.map(|providers| providers.names),
        })
    }
}

impl From<RequestView> for v1::RequestView {
    fn from(view: RequestView) -> Self {
        Self {
            model: view.model,
            stream: view.stream,
            include_usage: view.include_usage,
            estimated_input_tokens: view.estimated_input_tokens,
            max_output_tokens: view.max_output_tokens,
            answers: view.answers,
            operation: operation_out(view.operation).into(),
        }
    }
}

impl TryFrom<v1::RequestView> for RequestView {
    type Error = Invalid;

    fn try_from(wire: v1::RequestView) -> Result<Self, Invalid> {
        if wire.model.is_empty() {
            return Err(Invalid::missing("view.model"));
        }
        Ok(Self {
            model: wire.model,
            stream: wire.stream,
            include_usage: wire.include_usage,
            estimated_input_tokens: wire.estimated_input_tokens,
            max_output_tokens: wire.max_output_tokens,
            answers: wire.answers.max(1),
            operation: operation_in(wire.operation)?,
        })
    }
}

impl From<Target> for v1::Target {
    fn from(target: Target) -> Self {
        Self {
            provider: target.provider,
            model: target.model,
        }
    }
}

impl TryFrom<v1::Target> for Target {
    type Error = Invalid;

    fn try_from(wire: v1::Target) -> Result<Self, Invalid> {
        if !is_plain(&wire.provider) {
            return Err(Invalid::new("target.provider", "is no provider name"));
        }
        Ok(Self {
            provider: wire.provider,
            model: wire.model,
        })
    }
}

impl From<Failure> for v1::Failure {
    fn from(failure: Failure) -> Self {
        Self {
            code: failure.code.as_str().to_owned(),
            message: failure.message,
            retry_after_ms: failure.retry_after_ms,
            provider_status: failure.provider_status.map(Into::into),
            target: failure.target.map(Into::into),
        }
    }
}

impl TryFrom<v1::Failure> for Failure {
    type Error = Invalid;

    fn try_from(wire: v1::Failure) -> Result<Self, Invalid> {
        Ok(Self {
            code: wire
                .code
                .parse()
                .map_err(|_| Invalid::new("failure.code", "is no error code"))?,
            message: wire.message,
            retry_after_ms: wire.retry_after_ms,
            provider_status: wire
                .provider_status
                .map(u16::try_from)
                .transpose()
                .map_err(|_| Invalid::new("failure.provider_status", "is no HTTP status"))?,
            target: wire.target.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<Claim> for v1::Claim {
    fn from(claim: Claim) -> Self {
        Self {
            request_id: claim.request_id.to_string(),
            generation: claim.generation,
            attempt_id: claim.attempt_id.to_string(),
            target: Some(claim.target.into()),
            owner: claim.owner,
            policy: claim.policy,
            dialect: dialect_out(claim.dialect).into(),
            stream: claim.stream,
        }
    }
}

impl TryFrom<v1::Claim> for Claim {
    type Error = Invalid;

    fn try_from(wire: v1::Claim) -> Result<Self, Invalid> {
        Ok(Self {
            request_id: wire
                .request_id
                .parse()
                .map_err(|_| Invalid::new("claim.request_id", "is no request id"))?,
            generation: wire.generation,
            attempt_id: wire
                .attempt_id
                .parse()
                .map_err(|_| Invalid::new("claim.attempt_id", "is no attempt id"))?,
            target: wire.target.ok_or(Invalid::missing("claim.target"))?.try_into()?,
            owner: address("claim.owner", wire.owner)?,
            policy: wire.policy,
            dialect: dialect_in(wire.dialect)?,
            stream: wire.stream,
        })
    }
}

impl From<Refusal> for v1::Refused {
    fn from(refusal: Refusal) -> Self {
        let (reason, failure) = match refusal {
            Refusal::Stale => (v1::refused::Reason::Stale, None),
            Refusal::Gone => (v1::refused::Reason::Gone, None),
            Refusal::Unreachable => (v1::refused::Reason::Unreachable, None),
            Refusal::Limited(failure) => (v1::refused::Reason::Limited, Some((*failure).into())),
        };
        Self {
            reason: reason.into(),
            failure,
        }
    }
}

impl From<v1::Refused> for Refusal {
    fn from(wire: v1::Refused) -> Self {
        match wire.reason() {
            v1::refused::Reason::Stale => Self::Stale,
            v1::refused::Reason::Gone => Self::Gone,
            v1::refused::Reason::Unreachable | v1::refused::Reason::Unspecified => Self::Unreachable,
            v1::refused::Reason::Limited => match wire.failure.map(Failure::try_from) {
                Some(Ok(failure)) => Self::Limited(Box::new(failure)),
                _ => Self::Unreachable,
            },
        }
    }
}

impl From<Hold> for v1::Hold {
    fn from(hold: Hold) -> Self {
        Self {
            leases: hold.leases.iter().map(ToString::to_string).collect(),
            usd: hold.usd.to_string(),
        }
    }
}

impl TryFrom<v1::Hold> for Hold {
    type Error = Invalid;

    fn try_from(wire: v1::Hold) -> Result<Self, Invalid> {
        let leases = wire.leases.iter().map(|lease| lease.parse());
        Ok(Self {
            leases: leases
                .collect::<Result<_, _>>()
                .map_err(|_| Invalid::new("hold.leases", "is no lease id"))?,
            usd: amount("hold.usd", &wire.usd)?,
        })
    }
}

/// An exact decimal number.
pub fn amount(field: &'static str, text: &str) -> Result<Decimal, Invalid> {
    Decimal::from_str_exact(text).map_err(|_| Invalid::new(field, "is no exact decimal number"))
}

impl From<Usage> for v1::Usage {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            cached_input_tokens: usage.cached_input_tokens,
            output_tokens: usage.output_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            cache_write_input_tokens: usage.cache_write_input_tokens,
            cache_write_1h_input_tokens: usage.cache_write_1h_input_tokens,
            audio_input_tokens: usage.audio_input_tokens,
            audio_output_tokens: usage.audio_output_tokens,
            web_searches: usage.web_searches,
        }
    }
}

impl From<v1::Usage> for Usage {
    fn from(wire: v1::Usage) -> Self {
        Self {
            input_tokens: wire.input_tokens,
            cached_input_tokens: wire.cached_input_tokens,
            output_tokens: wire.output_tokens,
            reasoning_tokens: wire.reasoning_tokens,
            cache_write_input_tokens: wire.cache_write_input_tokens,
            cache_write_1h_input_tokens: wire.cache_write_1h_input_tokens,
            audio_input_tokens: wire.audio_input_tokens,
            audio_output_tokens: wire.audio_output_tokens,
            web_searches: wire.web_searches,
        }
    }
}

pub(crate) const fn dialect_out(dialect: Dialect) -> v1::Dialect {
    match dialect {
        Dialect::OpenaiChat => v1::Dialect::OpenaiChat,
        Dialect::OpenaiResponses => v1::Dialect::OpenaiResponses,
        Dialect::Anthropic => v1::Dialect::Anthropic,
        Dialect::Gemini => v1::Dialect::Gemini,
        Dialect::Bedrock => v1::Dialect::Bedrock,
        Dialect::Native => v1::Dialect::Native,
    }
}

pub(crate) fn dialect_in(number: i32) -> Result<Dialect, Invalid> {
    match v1::Dialect::try_from(number) {
        Ok(v1::Dialect::OpenaiChat) => Ok(Dialect::OpenaiChat),
        Ok(v1::Dialect::OpenaiResponses) => Ok(Dialect::OpenaiResponses),
        Ok(v1::Dialect::Anthropic) => Ok(Dialect::Anthropic),
        Ok(v1::Dialect::Gemini) => Ok(Dialect::Gemini),
        Ok(v1::Dialect::Bedrock) => Ok(Dialect::Bedrock),
        Ok(v1::Dialect::Native) => Ok(Dialect::Native),
        Ok(v1::Dialect::Unspecified) | Err(_) => Err(Invalid::new("dialect", "is unknown")),
    }
}

const fn operation_out(operation: Operation) -> v1::Operation {
    match operation {
        Operation::Chat => v1::Operation::Chat,
        Operation::Embed => v1::Operation::Embed,
        Operation::CountTokens => v1::Operation::CountTokens,
    }
}

fn operation_in(number: i32) -> Result<Operation, Invalid> {
    match v1::Operation::try_from(number) {
        Ok(v1::Operation::Chat | v1::Operation::Unspecified) => Ok(Operation::Chat),
        Ok(v1::Operation::Embed) => Ok(Operation::Embed),
        Ok(v1::Operation::CountTokens) => Ok(Operation::CountTokens),
        Err(_) => Err(Invalid::new("operation", "is unknown")),
    }
}

/// Names that become subject tokens or object names hold nothing that NATS gives a meaning to.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn address(field: &'static str, text: String) -> Result<String, Invalid> {
    if text.starts_with("http://") && text.len() <= 256 && !text.bytes().any(|b| b.is_ascii_control() || b == b' ') {
        Ok(text)
    } else {
        Err(Invalid::new(field, "is no address of the form http://host:port"))
    }
}
