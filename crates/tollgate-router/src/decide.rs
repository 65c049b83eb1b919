//! The decision, as a plain function of the configuration, the envelope and the time.

use std::{collections::HashMap, time::Duration};

use tollgate_config::{Config, schema::ModelTarget};
use tollgate_types::{Caller, Envelope, ErrorCode, Failure, Millis, Target};

use crate::{budget::Budget, health::Health};

/// How long a client should wait when all workers are busy: about as long as a short answer takes.
const BUSY_WAIT_MS: u64 = 1000;
/// The same, when an operator has taken all targets out of use.
const DRAINED_WAIT_MS: u64 = 30_000;

/// Of workers that were busy, or whose call a limit had no room for.
const NO_CALL: [ErrorCode; 4] = [
    ErrorCode::ProviderBusy,
    ErrorCode::BudgetExceeded,
    ErrorCode::RateLimited,
    ErrorCode::Unpriced,
];

/// A provider that wants a longer wait than this is not tried again while a client waits.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// Before a target is tried once more; doubled each time, and half of it drawn by lot.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Public model names and their targets.
pub struct Routes {
    models: HashMap<String, Chains>,
    max_attempts: usize,
    retries: usize,
}

/// The targets of a model, best first.
struct Chains {
    usual: Vec<Target>,
    /// Instead, when a prompt is too long for the usual ones.
    context_length: Vec<Target>,
    /// Instead, when a provider's own rules refuse a prompt.
    content_policy: Vec<Target>,
}

/// Whether the caller may have the target's provider called.
fn may_call(caller: &Caller, target: &Target) -> bool {
    let providers = caller.providers.as_ref();
    providers.is_none_or(|names| names.contains(&target.provider))
}

/// Where a request goes next.
#[derive(Debug, PartialEq)]
pub enum Decision {
    /// To this target, after the wait.
    Try(Target, Duration),
    GiveUp(Failure),
}

/// What a decision rests on beside the request.
pub struct Present<'a> {
    pub health: &'a Health,
    pub budget: &'a Budget,
    pub now: Millis,
    /// From 0 to 1.
    pub lot: f64,
}

impl Routes {
    /// The routes that the configuration names.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let targets = |targets: &[ModelTarget]| -> Vec<Target> {
            let target = |target: &ModelTarget| Target {
                provider: target.provider.clone(),
                model: target.model.clone(),
            };
            targets.iter().map(target).collect()
        };
        let models = config.models.iter().map(|model| {
            let chains = Chains {
                usual: targets(&model.targets),
                context_length: targets(&model.context_length_targets),
                content_policy: targets(&model.content_policy_targets),
            };
            (model.name.clone(), chains)
        });
        Self {
            models: models.collect(),
            max_attempts: config.router.max_attempts,
            retries: config.router.retries,
        }
    }

    /// The best target that may be tried: the first in the configured order that is well and has failed this request
    /// least, if it may be tried so often. The reason to give up when there is none, when the last failure would be the same
    /// anywhere, or when time or attempts are used up.
    #[must_use]
    pub fn decide(&self, envelope: &Envelope, present: &Present<'_>) -> Decision {
        if envelope.deadline <= present.now {
            return Decision::GiveUp(Failure::new(
                ErrorCode::DeadlineExceeded,
                "no provider answered in the time allowed",
            ));
        }
        let Some(chains) = self.models.get(&envelope.view.model) else {
            return Decision::GiveUp(Failure::new(ErrorCode::ModelNotFound, "no such model"));
        };
        let Some(targets) = chains.after(&envelope.failures) else {
            return Decision::GiveUp(summary(&envelope.failures));
        };
        if !targets.iter().any(|target| may_call(&envelope.caller, target)) {
            let message = "the API key may not call a provider of the model";
            return Decision::GiveUp(Failure::new(ErrorCode::PermissionDenied, message));
        }
        let made_a_call = |failure: &&Failure| !NO_CALL.contains(&failure.code);
        let calls = envelope.failures.iter().filter(made_a_call).count();
        if envelope.failures.is_empty() && targets.iter().all(|target| present.health.is_drained(target)) {
            let failure = Failure::new(ErrorCode::Unavailable, "every target of the model is drained");
            return Decision::GiveUp(failure.retry_after_ms(DRAINED_WAIT_MS));
        }
        match self.best(targets, envelope, present) {
            // Nobody waits for a job: it does not disturb targets that are to recover.
            Some(Candidate { admitted: false, .. }) if envelope.fence.is_some() && envelope.failures.is_empty() => {
                let failure = Failure::new(ErrorCode::ProviderUnreachable, "every target of the model is ejected");
                let wait = targets
                    .iter()
                    .filter_map(|target| present.health.pause(target, present.now, present.lot))
                    .min();
                Decision::GiveUp(failure.retry_after_ms(wait.map_or(0, millis)))
            }
            Some(Candidate { target, times, .. }) if calls < self.max_attempts => {
                if times > 0 && !present.budget.spend(&envelope.view.model) {
                    return Decision::GiveUp(summary(&envelope.failures));
                }
                Decision::Try(target.clone(), wait(times, present.lot))
            }
            _ => Decision::GiveUp(summary(&envelope.failures)),
        }
    }

    fn best<'a>(&self, targets: &'a [Target], envelope: &Envelope, present: &Present<'_>) -> Option<Candidate<'a>> {
        let allowed = |target: &&Target| {
            envelope.hedged.as_ref() != Some(*target)
                && !present.health.is_drained(target)
                && may_call(&envelope.caller, target)
        };
        let candidates = targets.iter().filter(allowed).filter_map(|target| {
            let own = || {
                envelope
                    .failures
                    .iter()
                    .filter(|failure| failure.target.as_ref() == Some(target))
            };
            let times = own().count();
            (times == 0 || (times <= self.retries && own().all(may_pass))).then(|| Candidate {
                target,
                times,
                admitted: present.health.admits(target, present.now, present.lot),
            })
        });
        // When none is well, being tried is all that is left.
        candidates.min_by_key(|candidate| (!candidate.admitted, candidate.times))
    }
}

/// A target that may be tried.
struct Candidate<'a> {
    target: &'a Target,
    /// How often it has failed the request.
    times: usize,
    /// Whether it is well, or recovering and this request is of its share.
    admitted: bool,
}

impl Chains {
    /// The targets for a request that has failed so; none when it would fail anywhere.
    fn after(&self, failures: &[Failure]) -> Option<&[Target]> {
        let failed = |code| failures.iter().any(|failure| failure.code == code);
        if failed(ErrorCode::ContentPolicy) {
            return (!self.content_policy.is_empty()).then_some(&self.content_policy);
        }
        if failures.last().is_some_and(|last| !last.code.try_another_target()) {
            return None;
        }
        if failed(ErrorCode::ContextLength) && !self.context_length.is_empty() {
            return Some(&self.context_length);
        }
        Some(&self.usual)
    }
}

/// Whether the same target may succeed a moment later.
fn may_pass(failure: &Failure) -> bool {
    let soon = failure
        .retry_after_ms
        .is_none_or(|wait| Duration::from_millis(wait) <= LONGEST_WAIT);
    let passing = matches!(
        failure.code,
        ErrorCode::ProviderError
            | ErrorCode::ProviderUnreachable
            | ErrorCode::ProviderTimeout
            | ErrorCode::ProviderBroken
            | ErrorCode::ProviderRateLimited
    );
    soon && passing
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

fn wait(times: usize, lot: f64) -> Duration {
    let Some(doublings) = times.checked_sub(1) else {
        return Duration::ZERO;
    };
    let wait = FIRST_WAIT.saturating_mul(1 << doublings.min(8)).min(LONGEST_WAIT);
    wait.mul_f64(0.5 + 0.5 * lot)
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
        None => Failure::new(ErrorCode::Internal, "the model has no target left"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tollgate_types::{Caller, Dialect, KeyId, Payload, RequestId, RequestView, Tenant};

    use super::*;

    fn target(name: &str) -> Target {
        Target {
            provider: name.to_owned(),
            model: "m-1".to_owned(),
        }
    }

    fn routes(retries: usize) -> Routes {
        let chains = Chains {
            usual: vec![target("a"), target("b"), target("c")],
            context_length: vec![target("long")],
            content_policy: Vec::new(),
        };
        Routes {
            models: HashMap::from([("m".to_owned(), chains)]),
            max_attempts: 2 + retries,
            retries,
        }
    }

    fn decide(routes: &Routes, failures: &[(&str, ErrorCode)], now: u64) -> Decision {
        let present = Present {
            health: &Health::new(crate::health::tests::SETTINGS),
            budget: &Budget::new(0.2),
            now: Millis(now),
            lot: 1.0,
        };
        routes.decide(&envelope(failures), &present)
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
                tenant: Tenant::default(),
                user: None,
                providers: None,
            },
            view: RequestView {
                operation: tollgate_types::Operation::Chat,
                model: "m".to_owned(),
                stream: false,
                include_usage: false,
                estimated_input_tokens: 1,
                max_output_tokens: None,
                answers: 1,
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
            hedged: None,
        }
    }

    fn bytes_of(text: &'static str) -> bytes::Bytes {
        bytes::Bytes::from_static(text.as_bytes())
    }

    fn gives_up(failures: &[(&str, ErrorCode)]) -> Failure {
        match decide(&routes(0), failures, 1) {
            Decision::GiveUp(failure) => failure,
            Decision::Try(target, _) => panic!("tries {target:?}"),
        }
    }

    fn tries(failures: &[(&str, ErrorCode)], name: &str) {
        assert_eq!(
            decide(&routes(0), failures, 1),
            Decision::Try(target(name), Duration::ZERO)
        );
    }

    #[test]
    fn targets_are_tried_in_their_order() {
        use ErrorCode::{ProviderBusy, ProviderError};
        tries(&[], "a");
        tries(&[("a", ProviderError)], "b");
        tries(&[("a", ProviderBusy), ("b", ProviderBusy)], "c");
    }

    #[test]
    fn one_that_is_ejected_is_passed_over_unless_all_are() {
        let (routes, health) = (routes(0), Health::new(crate::health::tests::SETTINGS));
        let eject = |name: &str| {
            let ejection = crate::Ejection {
                until: Millis(50),
                strikes: 1,
            };
            health.learn(target(name), ejection);
        };
        let first = |at| {
            let present = Present {
                health: &health,
                budget: &Budget::new(0.2),
                now: Millis(at),
                lot: 0.99,
            };
            match routes.decide(&envelope(&[]), &present) {
                Decision::Try(target, _) => target.provider,
                Decision::GiveUp(failure) => panic!("{failure:?}"),
            }
        };
        eject("a");
        assert_eq!(first(1), "b");
        eject("b");
        eject("c");
        assert_eq!(first(1), "a");
    }

    #[test]
    fn a_job_waits_while_all_are_ejected() {
        let (routes, health) = (routes(0), Health::new(crate::health::tests::SETTINGS));
        for (name, until) in [("a", 50), ("b", 40), ("c", 60)] {
            let until = Millis(until);
            health.learn(target(name), crate::Ejection { until, strikes: 1 });
        }
        let job = Envelope {
            fence: Some(0),
            ..envelope(&[])
        };
        let at = |now| {
            let present = Present {
                health: &health,
                budget: &Budget::new(0.2),
                now: Millis(now),
                lot: 0.0,
            };
            routes.decide(&job, &present)
        };
        let Decision::GiveUp(failure) = at(10) else {
            panic!("it is tried");
        };
        assert_eq!(
            (failure.code, failure.retry_after_ms),
            (ErrorCode::ProviderUnreachable, Some(30))
        );
        assert_eq!(at(40), Decision::Try(target("b"), Duration::ZERO));
    }

    #[test]
    fn what_would_fail_anywhere_is_not_tried_again() {
        assert_eq!(
            gives_up(&[("a", ErrorCode::ProviderRefused)]).code,
            ErrorCode::ProviderRefused
        );
        assert_eq!(
            gives_up(&[("a", ErrorCode::ContentPolicy)]).code,
            ErrorCode::ContentPolicy
        );
    }

    #[test]
    fn a_prompt_that_is_too_long_goes_to_those_that_take_more() {
        tries(&[("a", ErrorCode::ContextLength)], "long");
        let told = gives_up(&[("a", ErrorCode::ContextLength), ("long", ErrorCode::ContextLength)]);
        assert_eq!(told.code, ErrorCode::ContextLength);
    }

    #[test]
    fn a_target_is_tried_again_after_a_pause_when_all_have_failed_and_the_budget_allows() {
        use ErrorCode::{ProviderAuth, ProviderError, ProviderUnreachable};
        let all = [("a", ProviderError), ("b", ProviderAuth), ("c", ProviderUnreachable)];
        let routes = Routes {
            max_attempts: 9,
            ..routes(1)
        };
        assert_eq!(
            decide(&routes, &all[..1], 1),
            Decision::Try(target("b"), Duration::ZERO)
        );
        assert_eq!(
            decide(&routes, &all, 1),
            Decision::Try(target("a"), Duration::from_millis(100))
        );
        let mut more = all.to_vec();
        more.push(("a", ProviderError));
        // Credentials that are refused are refused again.
        assert_eq!(
            decide(&routes, &more, 1),
            Decision::Try(target("c"), Duration::from_millis(100))
        );
        more.push(("c", ProviderUnreachable));
        assert!(matches!(decide(&routes, &more, 1), Decision::GiveUp(_)));
        let (health, spent) = (Health::new(crate::health::tests::SETTINGS), Budget::new(0.2));
        while spent.spend("m") {}
        let present = Present {
            health: &health,
            budget: &spent,
            now: Millis(1),
            lot: 1.0,
        };
        assert!(matches!(routes.decide(&envelope(&all), &present), Decision::GiveUp(_)));
    }

    #[test]
    fn attempts_and_time_are_bounded() {
        use ErrorCode::{DeadlineExceeded, ProviderError, ProviderTimeout};
        assert_eq!(
            gives_up(&[("a", ProviderError), ("b", ProviderTimeout)]).code,
            ProviderTimeout
        );
        let late = decide(&routes(0), &[], 100);
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
