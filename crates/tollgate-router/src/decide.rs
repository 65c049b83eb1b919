//! The decision, as a plain function of the configuration, the envelope and the time.

use std::collections::HashMap;

use tollgate_config::Config;
use tollgate_types::{Envelope, ErrorCode, Failure, Millis, Target};

/// How long a client should wait when all workers are busy: about as long as a short answer takes.
const BUSY_WAIT_MS: u64 = 1000;

/// Public model names and their targets.
pub struct Routes {
    targets: HashMap<String, Vec<Target>>,
    max_attempts: usize,
}

/// Where a request goes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    Try(Target),
    GiveUp(Failure),
}

impl Routes {
    /// The routes that the configuration names.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let target = |target: &tollgate_config::schema::ModelTarget| Target {
            provider: target.provider.clone(),
            model: target.model.clone(),
        };
        let targets = config
            .models
            .iter()
            .map(|model| (model.name.clone(), model.targets.iter().map(target).collect()))
            .collect();
        Self {
            targets,
            max_attempts: config.router.max_attempts,
        }
    }

    /// The first target in the configured order that has not failed this request yet; the reason to give up when there is
    /// none, when the last failure would be the same anywhere, or when time or attempts are used up.
    #[must_use]
    pub fn decide(&self, envelope: &Envelope, now: Millis) -> Decision {
        if envelope.deadline <= now {
            return Decision::GiveUp(Failure::new(
                ErrorCode::DeadlineExceeded,
                "no provider answered in the time allowed",
            ));
        }
        let Some(targets) = self.targets.get(&envelope.view.model) else {
            return Decision::GiveUp(Failure::new(ErrorCode::ModelNotFound, "no such model"));
        };
        if let Some(last) = envelope.failures.last()
            && !last.code.try_another_target()
        {
            return Decision::GiveUp(last.clone());
        }
        // A worker that was busy made no call.
        let calls = envelope
            .failures
            .iter()
            .filter(|failure| failure.code != ErrorCode::ProviderBusy)
            .count();
        let failed = |target: &Target| {
            envelope
                .failures
                .iter()
                .any(|failure| failure.target.as_ref() == Some(target))
        };
        match targets.iter().find(|target| !failed(target)) {
            Some(target) if calls < self.max_attempts => Decision::Try(target.clone()),
            _ => Decision::GiveUp(summary(&envelope.failures)),
        }
    }
}

/// What the client is told when every target failed: the last real failure, or that all were busy.
fn summary(failures: &[Failure]) -> Failure {
    let told = failures
        .iter()
        .rev()
        .find(|failure| failure.code != ErrorCode::ProviderBusy)
        .or(failures.last());
    match told.cloned() {
        Some(failure) if failure.code == ErrorCode::ProviderBusy && failure.retry_after_ms.is_none() => {
            failure.retry_after_ms(BUSY_WAIT_MS)
        }
        Some(failure) => failure,
        None => Failure::new(ErrorCode::Internal, "the model has no target"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tollgate_types::{Caller, Dialect, KeyId, Payload, RequestId, RequestView};

    use super::*;

    fn target(name: &str) -> Target {
        Target {
            provider: name.to_owned(),
            model: "m-1".to_owned(),
        }
    }

    fn routes() -> Routes {
        Routes {
            targets: HashMap::from([("m".to_owned(), vec![target("a"), target("b"), target("c")])]),
            max_attempts: 2,
        }
    }

    fn envelope(failures: &[(&str, ErrorCode)]) -> Envelope {
        Envelope {
            request_id: RequestId::generate(),
            generation: 0,
            owner: "http://127.0.0.1:1".to_owned(),
            deadline: Millis(100),
            caller: Caller {
                key_id: KeyId::generate(),
                key_name: "k".to_owned(),
                tags: BTreeMap::new(),
                policy: "default".to_owned(),
            },
            view: RequestView {
                operation: tollgate_types::Operation::Chat,
                model: "m".to_owned(),
                stream: false,
                include_usage: false,
                estimated_input_tokens: 1,
                max_output_tokens: None,
            },
            dialect: Dialect::OpenaiChat,
            headers: BTreeMap::new(),
            payload: Payload::Inline(bytes_of("{}")),
            screen: None,
            target: None,
            failures: failures
                .iter()
                .map(|(name, code)| Failure {
                    target: Some(target(name)),
                    ..Failure::new(*code, *name)
                })
                .collect(),
            fence: None,
        }
    }

    fn bytes_of(text: &'static str) -> bytes::Bytes {
        bytes::Bytes::from_static(text.as_bytes())
    }

    fn gives_up(failures: &[(&str, ErrorCode)]) -> Failure {
        match routes().decide(&envelope(failures), Millis(1)) {
            Decision::GiveUp(failure) => failure,
            Decision::Try(target) => panic!("tries {target:?}"),
        }
    }

    #[test]
    fn targets_are_tried_in_their_order() {
        use ErrorCode::{ProviderBusy, ProviderError};
        let routes = routes();
        assert_eq!(routes.decide(&envelope(&[]), Millis(1)), Decision::Try(target("a")));
        assert_eq!(
            routes.decide(&envelope(&[("a", ProviderError)]), Millis(1)),
            Decision::Try(target("b"))
        );
        let busy = envelope(&[("a", ProviderBusy), ("b", ProviderBusy)]);
        assert_eq!(routes.decide(&busy, Millis(1)), Decision::Try(target("c")));
    }

    #[test]
    fn what_would_fail_anywhere_is_not_tried_again() {
        assert_eq!(
            gives_up(&[("a", ErrorCode::ProviderRefused)]).code,
            ErrorCode::ProviderRefused
        );
    }

    #[test]
    fn attempts_and_time_are_bounded() {
        use ErrorCode::{DeadlineExceeded, ProviderError, ProviderTimeout};
        assert_eq!(
            gives_up(&[("a", ProviderError), ("b", ProviderTimeout)]).code,
            ProviderTimeout
        );
        let late = routes().decide(&envelope(&[]), Millis(100));
        assert!(matches!(late, Decision::GiveUp(failure) if failure.code == DeadlineExceeded));
    }

    #[test]
    fn a_real_failure_tells_more_than_a_busy_worker() {
        use ErrorCode::{ProviderBusy, ProviderRateLimited};
        let told = gives_up(&[("a", ProviderRateLimited), ("b", ProviderBusy), ("c", ProviderBusy)]);
        assert_eq!(told.code, ProviderRateLimited);
        let busy = gives_up(&[("a", ProviderBusy), ("b", ProviderBusy), ("c", ProviderBusy)]);
        assert_eq!((busy.code, busy.retry_after_ms), (ProviderBusy, Some(BUSY_WAIT_MS)));
    }
}
