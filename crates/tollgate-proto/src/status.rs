//! A failure as a gRPC status with the standard error details.

use std::{collections::HashMap, time::Duration};

use tollgate_types::{Failure, RequestId};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The `domain` of every `google.rpc.ErrorInfo` that Tollgate sends.
pub const ERROR_DOMAIN: &str = "tollgate";

/// The status of a failure: its code as the reason, the request id as metadata, the wait as `RetryInfo`.
#[must_use]
pub fn to_status(failure: &Failure, request_id: Option<RequestId>) -> Status {
    let mut facts = HashMap::new();
    if let Some(id) = request_id {
        facts.insert("request_id".to_owned(), id.to_string());
    }
    if let Some(status) = failure.provider_status {
        facts.insert("provider_status".to_owned(), status.to_string());
    }
    let mut details = ErrorDetails::with_error_info(failure.code.as_str(), ERROR_DOMAIN, facts);
    if let Some(wait) = failure.retry_after_ms {
        details.set_retry_info(Some(Duration::from_millis(wait)));
    }
    let code = Code::from_i32(failure.code.grpc_code() as i32);
    let mut status = Status::with_error_details(code, failure.message.clone(), details);
    if let Some(Ok(id)) = request_id.map(|id| id.to_string().parse()) {
        status.metadata_mut().insert("x-request-id", id);
    }
    status
}

#[cfg(test)]
mod tests {
    use tollgate_types::ErrorCode;

    use super::*;

    #[test]
    fn details_carry_code_and_wait() {
        let failure = Failure::new(ErrorCode::Saturated, "too many requests under way").retry_after_ms(1500);
        let id = RequestId::generate();
        let status = to_status(&failure, Some(id));
        assert_eq!(status.code(), Code::Unavailable);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("saturated", "tollgate"));
        assert_eq!(info.metadata["request_id"], id.to_string());
        assert_eq!(
            details.retry_info().unwrap().retry_delay,
            Some(Duration::from_millis(1500))
        );
    }
}
