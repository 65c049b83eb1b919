//! How targets are doing, as this router sees it, and which of them get requests.
//!
//! A router learns of failures alone: a request that fails comes back to it, one that is answered does not. So a target is
//! judged by the share of its requests that came back within a window, which holds over several routers too, since each
//! gets its share of both. A target that fails too often is ejected for a while, and then gets a growing share of
//! its requests again. One that says for how long it wants none is believed.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tollgate_bus::targets::{self, Change, Drained, Ejected};
use tollgate_config::schema::HealthSettings;
use tollgate_types::{ErrorCode, Failure, Millis, Target};

/// Parts of a window that are forgotten one by one.
const PARTS: u64 = 10;
/// Each ejection in a row lasts twice as long as the one before, so often.
const MOST_DOUBLINGS: u32 = 10;

/// The state of all targets.
pub struct Health {
    settings: HealthSettings,
    targets: Mutex<HashMap<Target, State>>,
    drained: Mutex<HashMap<String, Drained>>,
}

#[derive(Default)]
struct State {
    window: VecDeque<Part>,
    ejected: Option<Ejection>,
}

struct Part {
    begins: Millis,
    tries: u32,
    failures: u32,
}

/// That a target gets no requests, and when it gets some again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    pub until: Millis,
    /// How often in a row.
    pub strikes: u32,
}

impl Health {
    /// All targets are well until they are not.
    #[must_use]
    pub fn new(settings: HealthSettings) -> Self {
        Self {
            settings,
            targets: Mutex::default(),
            drained: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Target, State>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an operator has taken the target out of use: it gets nothing, whatever befalls the others.
    #[must_use]
    pub fn is_drained(&self, target: &Target) -> bool {
        let drained = self.drained.lock().unwrap_or_else(PoisonError::into_inner);
        drained.values().any(|drained| drained.covers(target))
    }

    /// Takes over what was said of targets.
    pub fn hear(&self, change: Change) {
        let mut drained = self.drained.lock().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Drained { key, drained: one } => {
                drained.insert(key, one);
            }
            Change::Ejected { ejected, .. } => {
                let Ejected {
                    target, until, strikes, ..
                } = ejected;
                self.learn(target, Ejection { until, strikes });
            }
            Change::Ended { key } => {
                if drained.remove(&key).is_none() {
                    self.lock().retain(|target, _| targets::ejection_key(target) != key);
                }
            }
        }
    }

    /// Whether a request may go to the target now. `lot`, from 0 to 1, decides for one that is recovering.
    #[must_use]
    pub fn admits(&self, target: &Target, now: Millis, lot: f64) -> bool {
        let mut targets = self.lock();
        let Some(state) = targets.get_mut(target) else {
            return true;
        };
        let Some(Ejection { until, .. }) = state.ejected else {
            return true;
        };
        if now < until {
            return false;
        }
        let recovered = until.after(self.settings.recovery);
        if now >= recovered {
            state.ejected = None;
            return true;
        }
        let share = now.remaining(until).as_secs_f64() / self.settings.recovery.as_secs_f64();
        lot < share.max(0.05)
    }

    /// How long a request should wait that the target does not admit: at a moment of its recovery that `lot`, from 0 to 1,
    /// chooses, so that not all come back at once.
    #[must_use]
    pub fn pause(&self, target: &Target, now: Millis, lot: f64) -> Option<Duration> {
        let Ejection { until, .. } = self.lock().get(target)?.ejected?;
        let begins = until.max(now);
        let recovery = until.after(self.settings.recovery).remaining(begins);
        Some(begins.remaining(now) + recovery.mul_f64(lot))
    }

    /// Notes that a request goes to the target.
    pub fn tried(&self, target: &Target, now: Millis) {
        let mut targets = self.lock();
        self.part(targets.entry(target.clone()).or_default(), now).tries += 1;
    }

    /// Notes that a request came back from the target; the ejection, if this was one failure too many.
    pub fn failed(&self, target: &Target, failure: &Failure, now: Millis) -> Option<Ejection> {
        let wait = Duration::from_millis(failure.retry_after_ms.unwrap_or_default());
        let limited = failure.code == ErrorCode::ProviderRateLimited;
        if !limited && !tells_of_the_target(failure.code) {
            return None;
        }
        let mut targets = self.lock();
        let state = targets.entry(target.clone()).or_default();
        self.part(state, now).failures += 1;
        if state.ejected.is_some_and(|ejection| now < ejection.until) {
            return None;
        }
        let ejection = if limited && !wait.is_zero() {
            // No fault of its own.
            Ejection {
                until: now.after(wait.min(self.settings.max_ejection)),
                strikes: state.ejected.map_or(0, |ejection| ejection.strikes),
            }
        } else {
            let (strikes, enough) = match state.ejected {
                // Less is enough for one that has just come back; never a single failure, which under load is sure to come.
                Some(last) => (last.strikes + 1, self.settings.min_failures.min(2)),
                None => (1, self.settings.min_failures),
            };
            if !self.too_many(state, enough) {
                return None;
            }
            self.eject(strikes, now)
        };
        state.window.clear();
        state.ejected = Some(ejection);
        Some(ejection)
    }

    /// Takes over what another router has found, unless our own is more.
    pub(crate) fn learn(&self, target: Target, ejection: Ejection) {
        let mut targets = self.lock();
        let state = targets.entry(target).or_default();
        if state.ejected.is_none_or(|own| own.until < ejection.until) {
            state.window.clear();
            state.ejected = Some(ejection);
        }
    }

    fn eject(&self, strikes: u32, now: Millis) -> Ejection {
        let time = self
            .settings
            .ejection
            .saturating_mul(1 << strikes.saturating_sub(1).min(MOST_DOUBLINGS));
        Ejection {
            until: now.after(time.min(self.settings.max_ejection)),
            strikes,
        }
    }

    fn too_many(&self, state: &State, enough: u32) -> bool {
        let (tries, failures) = state.window.iter().fold((0, 0), |(tries, failures), part| {
            (tries + part.tries, failures + part.failures)
        });
        // Another router may have sent what comes back to this one.
        let share = f64::from(failures) / f64::from(tries.max(failures).max(1));
        failures >= enough && share >= self.settings.failure_share
    }

    fn part<'a>(&self, state: &'a mut State, now: Millis) -> &'a mut Part {
        let window = u64::try_from(self.settings.window.as_millis()).unwrap_or(u64::MAX);
        let length = (window / PARTS).max(1);
        let begins = Millis(now.0 - now.0 % length);
        while state
            .window
            .front()
            .is_some_and(|part| part.begins.0.saturating_add(window) <= now.0)
        {
            state.window.pop_front();
        }
        if state.window.back().is_none_or(|part| part.begins < begins) {
            state.window.push_back(Part {
                begins,
                tries: 0,
                failures: 0,
            });
        }
        let last = state.window.len() - 1;
        &mut state.window[last]
    }
}

/// Whether a failure says something of the target, and not of the request or of us.
const fn tells_of_the_target(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::ProviderError
            | ErrorCode::ProviderUnreachable
            | ErrorCode::ProviderTimeout
            | ErrorCode::ProviderBroken
            | ErrorCode::ProviderAuth
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const SETTINGS: HealthSettings = HealthSettings {
        window: Duration::from_secs(10),
        min_failures: 5,
        failure_share: 0.5,
        ejection: Duration::from_secs(5),
        max_ejection: Duration::from_secs(60),
        recovery: Duration::from_secs(10),
    };

    fn target() -> Target {
        Target {
            provider: "p".to_owned(),
            model: "m".to_owned(),
        }
    }

    fn failure(code: ErrorCode) -> Failure {
        Failure::new(code, "")
    }

    /// So many tries and failures at a moment; the ejection that came of it.
    fn history(health: &Health, tries: u32, failures: u32, at: u64) -> Option<Ejection> {
        (0..tries).for_each(|_| health.tried(&target(), Millis(at)));
        (0..failures)
            .filter_map(|_| health.failed(&target(), &failure(ErrorCode::ProviderError), Millis(at)))
            .next()
    }

    #[test]
    fn a_target_is_ejected_for_the_share_of_its_failures_and_not_for_a_few() {
        assert_eq!(history(&Health::new(SETTINGS), 4, 4, 1000), None);
        assert_eq!(history(&Health::new(SETTINGS), 20, 9, 1000), None);
        let health = Health::new(SETTINGS);
        let ejection = history(&health, 8, 5, 1000).unwrap();
        assert_eq!((ejection.until, ejection.strikes), (Millis(6000), 1));
        assert!(!health.admits(&target(), Millis(5999), 0.0));
    }

    #[test]
    fn what_is_long_past_counts_no_more() {
        let health = Health::new(SETTINGS);
        assert_eq!(history(&health, 4, 4, 1000), None);
        assert_eq!(history(&health, 4, 4, 12_000), None);
        assert!(history(&health, 1, 1, 12_100).is_some());
    }

    #[test]
    fn a_target_comes_back_gradually_and_goes_for_longer_if_it_fails_again() {
        let health = Health::new(SETTINGS);
        history(&health, 8, 5, 1000).unwrap();
        // Ejected until 6000, whole again at 16000.
        let share = |at| {
            (0..100)
                .filter(|lot| health.admits(&target(), Millis(at), f64::from(*lot) / 100.0))
                .count()
        };
        assert_eq!([5999, 6000, 8500, 11_000, 15_999].map(share), [0, 5, 25, 50, 100]);
        // One failure says little, a few among many say nothing, half of a few are enough.
        assert_eq!(history(&health, 1, 1, 7000), None);
        assert_eq!(history(&health, 20, 3, 7000), None);
        assert_eq!(history(&health, 0, 6, 7000), None);
        let again = history(&health, 0, 1, 7000).unwrap();
        assert_eq!((again.until, again.strikes), (Millis(17_000), 2));
        assert_eq!(share(27_000), 100);
        // Well since: it begins anew.
        assert_eq!(history(&health, 8, 5, 28_000).unwrap().strikes, 1);
    }

    #[test]
    fn who_waits_comes_back_spread_over_the_recovery() {
        let health = Health::new(SETTINGS);
        history(&health, 8, 5, 1000).unwrap();
        let pause = |at, lot| health.pause(&target(), Millis(at), lot).unwrap().as_millis();
        // Ejected until 6000, whole again at 16000.
        assert_eq!([0.0, 0.5, 1.0].map(|lot| pause(2000, lot)), [4000, 9000, 14_000]);
        assert_eq!([0.0, 0.5, 1.0].map(|lot| pause(8000, lot)), [0, 4000, 8000]);
        assert_eq!(pause(20_000, 1.0), 0);
    }

    #[test]
    fn a_target_that_says_how_long_is_believed_within_reason_and_not_blamed() {
        let health = Health::new(SETTINGS);
        let limited = |wait| failure(ErrorCode::ProviderRateLimited).retry_after_ms(wait);
        let ejection = health.failed(&target(), &limited(3000), Millis(1000)).unwrap();
        assert_eq!((ejection.until, ejection.strikes), (Millis(4000), 0));
        let health = Health::new(SETTINGS);
        assert_eq!(
            health.failed(&target(), &limited(u64::MAX), Millis(0)).unwrap().until,
            Millis(60_000)
        );
    }

    #[test]
    fn the_requests_own_faults_are_not_the_targets() {
        let health = Health::new(SETTINGS);
        for code in [
            ErrorCode::ProviderRefused,
            ErrorCode::ContextLength,
            ErrorCode::ProviderBusy,
            ErrorCode::Unsupported,
        ] {
            for _ in 0..50 {
                assert_eq!(health.failed(&target(), &failure(code), Millis(1000)), None);
            }
        }
    }

    #[test]
    fn what_is_drained_is_so_until_it_is_restored() {
        let health = Health::new(SETTINGS);
        let drained = |model: Option<&str>| Drained {
            provider: target().provider,
            model: model.map(str::to_owned),
            at: Millis(0),
            by: "me".to_owned(),
        };
        let hear = |key: &str, model| {
            health.hear(Change::Drained {
                key: key.to_owned(),
                drained: drained(model),
            });
        };
        hear("one", Some("another"));
        assert!(!health.is_drained(&target()));
        hear("two", None);
        assert!(health.is_drained(&target()));
        health.hear(Change::Ended { key: "one".to_owned() });
        assert!(health.is_drained(&target()));
        health.hear(Change::Ended { key: "two".to_owned() });
        assert!(!health.is_drained(&target()));
    }

    #[test]
    fn an_ejection_ends_when_it_is_taken_back() {
        let health = Health::new(SETTINGS);
        let ejected = Ejected {
            target: target(),
            until: Millis(5_000),
            strikes: 1,
            reason: None,
        };
        let key = targets::ejection_key(&target());
        health.hear(Change::Ejected {
            key: key.clone(),
            ejected,
        });
        assert!(!health.admits(&target(), Millis(1), 1.0));
        health.hear(Change::Ended { key });
        assert!(health.admits(&target(), Millis(1), 1.0));
    }

    #[test]
    fn what_another_router_found_holds_here() {
        let health = Health::new(SETTINGS);
        health.learn(
            target(),
            Ejection {
                until: Millis(9000),
                strikes: 3,
            },
        );
        assert!(!health.admits(&target(), Millis(8999), 0.0));
        health.learn(
            target(),
            Ejection {
                until: Millis(5000),
                strikes: 1,
            },
        );
        assert!(!health.admits(&target(), Millis(8999), 0.0));
    }
}
