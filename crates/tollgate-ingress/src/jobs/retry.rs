//! What becomes of a job whose try failed: a plain function of the failure, the count and the lot.

use std::time::Duration;

use tollgate_config::schema::JobSettings;
use tollgate_types::{ErrorCode, Failure};

/// A provider may ask for a longer wait than we would, up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Past this a pause has long been the longest.
const MOST_DOUBLINGS: u32 = 20;

/// What a failure tells of the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// No call was made, or the provider wants less of us: the job waits for as long as it may.
    NotNow,
    /// A call failed. It may be the request's doing, so that it is tried again only so often.
    Failed,
    /// It would fail again.
    Final,
}

const fn kind(code: ErrorCode) -> Kind {
    match code {
        ErrorCode::Saturated
        | ErrorCode::Unavailable
        | ErrorCode::RateLimited
        | ErrorCode::BudgetExceeded
        | ErrorCode::Unpriced
        | ErrorCode::ProviderBusy
        | ErrorCode::ProviderRateLimited
        | ErrorCode::ProviderUnreachable => Kind::NotNow,
        ErrorCode::ProviderError
        | ErrorCode::ProviderTimeout
        | ErrorCode::ProviderBroken
        | ErrorCode::ProviderAuth
        | ErrorCode::DeadlineExceeded => Kind::Failed,
        ErrorCode::InvalidRequest
        | ErrorCode::Unauthenticated
        | ErrorCode::PermissionDenied
        | ErrorCode::ModelNotFound
        | ErrorCode::KeyNotFound
        | ErrorCode::LimitNotFound
        | ErrorCode::NameTaken
        | ErrorCode::JobNotFound
        | ErrorCode::BatchNotFound
        | ErrorCode::FileNotFound
        | ErrorCode::IdempotencyConflict
        | ErrorCode::TooLarge
        | ErrorCode::PolicyDenied
        | ErrorCode::Cancelled
        | ErrorCode::ProviderRefused
        | ErrorCode::ContextLength
        | ErrorCode::ContentPolicy
        | ErrorCode::Unsupported
        | ErrorCode::Internal => Kind::Final,
    }
}

/// What to do with a job now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Try again after the wait, with this many calls failed.
    Wait(Duration, u32),
    /// Give it up, with this many calls failed.
    End(u32),
}

/// Decides after `failure`. `failed_calls` are those before it, `tries` all deliveries of the job with this one, and `lot`
/// a number from 0 to 1 that spreads the jobs of one outage.
pub(super) fn next(failure: &Failure, failed_calls: u32, tries: u32, settings: &JobSettings, lot: f64) -> Next {
    let failed_calls = match kind(failure.code) {
        Kind::Final => return Next::End(failed_calls),
        Kind::Failed => failed_calls.saturating_add(1),
        Kind::NotNow => failed_calls,
    };
    if failed_calls >= settings.max_failed_calls {
        return Next::End(failed_calls);
    }
    let doublings = tries.saturating_sub(1).min(MOST_DOUBLINGS);
    let pause = settings
        .min_backoff
        .saturating_mul(1 << doublings)
        .min(settings.max_backoff);
    let drawn = pause.mul_f64(0.5 + 0.5 * lot.clamp(0.0, 1.0));
    let asked = Duration::from_millis(failure.retry_after_ms.unwrap_or_default());
    Next::Wait(drawn.max(asked).min(LONGEST_WAIT), failed_calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: JobSettings = JobSettings {
        concurrency: 1,
        deadline: Duration::from_secs(60),
        max_failed_calls: 3,
        min_backoff: Duration::from_secs(1),
        max_backoff: Duration::from_secs(8),
        max_batch: 10,
        max_file_bytes: 1 << 20,
    };

    fn after(code: ErrorCode, failed_calls: u32, tries: u32) -> Next {
        next(&Failure::new(code, ""), failed_calls, tries, &SETTINGS, 1.0)
    }

    #[test]
    fn a_provider_that_is_away_is_waited_for_and_one_that_fails_only_so_often() {
        use ErrorCode::{ProviderError, ProviderRefused, ProviderUnreachable};
        for tries in [1, 100, u32::MAX] {
            assert!(matches!(after(ProviderUnreachable, 2, tries), Next::Wait(_, 2)));
        }
        assert!(matches!(after(ProviderError, 1, 2), Next::Wait(_, 2)));
        assert_eq!(after(ProviderError, 2, 3), Next::End(3));
        assert_eq!(after(ProviderRefused, 0, 1), Next::End(0));
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_half_is_drawn() {
        let pause = |tries, lot| match next(&Failure::new(ErrorCode::Unavailable, ""), 0, tries, &SETTINGS, lot) {
            Next::Wait(pause, _) => pause.as_millis(),
            Next::End(_) => panic!("it waits"),
        };
        assert_eq!(
            [1, 2, 3, 4, 5, 90].map(|tries| pause(tries, 1.0)),
            [1000, 2000, 4000, 8000, 8000, 8000]
        );
        assert_eq!([0.0, 0.5].map(|lot| pause(1, lot)), [500, 750]);
    }

    #[test]
    fn a_provider_that_says_how_long_is_believed_within_reason() {
        let limited = |wait| {
            let failure = Failure::new(ErrorCode::ProviderRateLimited, "").retry_after_ms(wait);
            next(&failure, 0, 1, &SETTINGS, 0.0)
        };
        assert_eq!(limited(90_000), Next::Wait(Duration::from_secs(90), 0));
        assert_eq!(limited(1), Next::Wait(Duration::from_millis(500), 0));
        assert_eq!(limited(u64::MAX), Next::Wait(LONGEST_WAIT, 0));
    }
}
