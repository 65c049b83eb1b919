//! The closed list of what can go wrong, with one table to HTTP and one to gRPC.
//!
//! A client sees a code and a safe text, never internals. Services pass codes, not texts, so that every door can put the
//! error in its own shape.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// gRPC status codes that an [`ErrorCode`] maps to, by their standard numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum GrpcCode {
    Cancelled = 1,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $http:literal, $grpc:ident, retry: $retry:literal;)*) => {
        /// What went wrong. The text form is part of the public interface and never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl ErrorCode {
            /// Every code, for tables and tests.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable text form.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status of an answer that carries this code.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$name => $http,)* }
            }

            /// The gRPC status of an answer that carries this code.
            #[must_use]
            pub const fn grpc_code(self) -> GrpcCode {
                match self { $(Self::$name => GrpcCode::$grpc,)* }
            }

            /// Whether another target may succeed where this one failed with the same request.
            #[must_use]
            pub const fn try_another_target(self) -> bool {
                match self { $(Self::$name => $retry,)* }
            }
        }

        impl FromStr for ErrorCode {
            type Err = UnknownCode;

            fn from_str(text: &str) -> Result<Self, UnknownCode> {
                match text { $($text => Ok(Self::$name),)* _ => Err(UnknownCode) }
            }
        }
    };
}

/// A text that names no error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown error code")]
pub struct UnknownCode;

error_codes! {
    /// The request is not what the door's dialect allows.
    InvalidRequest = "invalid_request", 400, InvalidArgument, retry: false;
    /// No key, or one that is unknown, expired or malformed.
    Unauthenticated = "unauthenticated", 401, Unauthenticated, retry: false;
    /// The key is good and may not do this.
    PermissionDenied = "permission_denied", 403, PermissionDenied, retry: false;
    /// No such model for this key.
    ModelNotFound = "model_not_found", 404, NotFound, retry: false;
    /// No key of this name or id is known to the caller.
    KeyNotFound = "key_not_found", 404, NotFound, retry: false;
    /// Something of this name exists already.
    NameTaken = "name_taken", 409, AlreadyExists, retry: false;
    /// No such job for this key.
    JobNotFound = "job_not_found", 404, NotFound, retry: false;
    /// No batch of this id belongs to the key.
    BatchNotFound = "batch_not_found", 404, NotFound, retry: false;
    /// No file of this id belongs to the key.
    FileNotFound = "file_not_found", 404, NotFound, retry: false;
    /// The idempotency key stands for another request.
    IdempotencyConflict = "idempotency_conflict", 409, AlreadyExists, retry: false;
    /// The body, or a part of it, is over a configured limit.
    TooLarge = "request_too_large", 413, InvalidArgument, retry: false;
    /// A guardrail denied the prompt or the answer.
    PolicyDenied = "policy_denied", 403, PermissionDenied, retry: false;
    /// The caller is over its own limit.
    RateLimited = "rate_limited", 429, ResourceExhausted, retry: true;
    /// A budget is used up.
    BudgetExceeded = "budget_exceeded", 402, ResourceExhausted, retry: true;
    /// The model has no price, and calls without one are not allowed.
    Unpriced = "model_unpriced", 403, FailedPrecondition, retry: true;
    /// No limit of this name or id is known to the caller.
    LimitNotFound = "limit_not_found", 404, NotFound, retry: false;
    /// Tollgate is full; nothing was started.
    Saturated = "saturated", 503, Unavailable, retry: true;
    /// A service of Tollgate, or its queue, did not answer.
    Unavailable = "unavailable", 503, Unavailable, retry: true;
    /// Nobody finished in the time allowed.
    DeadlineExceeded = "deadline_exceeded", 504, DeadlineExceeded, retry: false;
    /// The client went away.
    Cancelled = "cancelled", 499, Cancelled, retry: false;
    /// All permits of the provider's workers are taken.
    ProviderBusy = "provider_busy", 429, ResourceExhausted, retry: true;
    /// The provider says that we, its client, are over a limit.
    ProviderRateLimited = "provider_rate_limited", 429, ResourceExhausted, retry: true;
    /// The provider failed or is overloaded.
    ProviderError = "provider_error", 502, Unavailable, retry: true;
    /// The provider could not be reached.
    ProviderUnreachable = "provider_unreachable", 502, Unavailable, retry: true;
    /// The provider did not answer in time.
    ProviderTimeout = "provider_timeout", 504, DeadlineExceeded, retry: true;
    /// The provider refused our credentials.
    ProviderAuth = "provider_auth", 502, FailedPrecondition, retry: true;
    /// The provider refused the request as such; its text is passed on.
    ProviderRefused = "provider_refused", 400, InvalidArgument, retry: false;
    /// The prompt is longer than the model takes.
    ContextLength = "context_length_exceeded", 400, InvalidArgument, retry: true;
    /// The provider's own rules on content refuse the prompt.
    ContentPolicy = "content_policy", 400, InvalidArgument, retry: false;
    /// The request asks for something that the provider's dialect cannot say.
    Unsupported = "unsupported", 400, InvalidArgument, retry: true;
    /// The answer broke off, or was not what the provider's dialect allows.
    ProviderBroken = "provider_broken", 502, Unavailable, retry: true;
    /// A mistake of ours.
    Internal = "internal", 500, Internal, retry: false;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back_and_has_an_error_status() {
        for code in ErrorCode::ALL {
            assert_eq!(code.as_str().parse(), Ok(*code));
            assert!((400..600).contains(&code.http_status()), "{code}");
        }
    }

    #[test]
    fn what_is_not_a_code_is_refused() {
        assert_eq!("".parse::<ErrorCode>(), Err(UnknownCode));
        assert_eq!("Internal".parse::<ErrorCode>(), Err(UnknownCode));
    }
}
