//! When a request is slow enough to be asked of a second target too.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tollgate_config::schema::{Hedge, Model};

/// Waits that are remembered of each model.
const REMEMBERED: usize = 256;
/// With fewer, nothing is slow.
const ENOUGH: usize = 20;
/// Hedges that a quiet time may save up.
const SAVED: f64 = 10.0;

/// The models that are hedged. One that is not in the configuration, or not to be hedged, is not here.
pub(super) struct Hedges {
    models: HashMap<String, Watched>,
}

struct Watched {
    settings: Hedge,
    recent: Mutex<Recent>,
}

#[derive(Default)]
struct Recent {
    /// How long the last requests waited for their first piece: those with a stream, and those without.
    waits: [VecDeque<Duration>; 2],
    /// What `max_share` of each request has added up to.
    allowance: f64,
}

impl Hedges {
    pub(super) fn new(models: &[Model]) -> Self {
        let watched = models.iter().filter_map(|model| {
            let settings = model.hedge.clone()?;
            let recent = Mutex::default();
            Some((model.name.clone(), Watched { settings, recent }))
        });
        Self {
            models: watched.collect(),
        }
    }

    /// A request of the model begins: after how long it is slow, if it may be hedged then.
    pub(super) fn begin(&self, model: &str, stream: bool) -> Option<Duration> {
        let watched = self.models.get(model)?;
        let mut recent = watched.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.allowance = (recent.allowance + watched.settings.max_share).min(SAVED);
        let waits = &recent.waits[usize::from(stream)];
        if waits.len() < ENOUGH {
            return None;
        }
        let mut sorted: Vec<Duration> = waits.iter().copied().collect();
        let place = ((sorted.len() - 1) as f64 * watched.settings.percentile) as usize;
        let (_, slow, _) = sorted.select_nth_unstable(place);
        Some((*slow).max(watched.settings.min_delay))
    }

    /// Takes a hedge of the model, if there is one left.
    pub(super) fn spend(&self, model: &str) -> bool {
        let Some(watched) = self.models.get(model) else {
            return false;
        };
        let mut recent = watched.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let left = recent.allowance >= 1.0;
        if left {
            recent.allowance -= 1.0;
        }
        left
    }

    /// A request of the model has waited so long for its first piece.
    pub(super) fn learn(&self, model: &str, stream: bool, wait: Duration) {
        let Some(watched) = self.models.get(model) else { return };
        let mut recent = watched.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = &mut recent.waits[usize::from(stream)];
        if waits.len() == REMEMBERED {
            waits.pop_front();
        }
        waits.push_back(wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hedges(max_share: f64) -> Hedges {
        let hedge = Hedge {
            percentile: 0.9,
            min_delay: Duration::from_millis(5),
            max_share,
        };
        Hedges::new(&[Model {
            name: "m".to_owned(),
            targets: Vec::new(),
            context_length_targets: Vec::new(),
            content_policy_targets: Vec::new(),
            hedge: Some(hedge),
        }])
    }

    #[test]
    fn slow_is_what_most_are_not() {
        let hedges = hedges(1.0);
        for wait in 1..=19 {
            hedges.learn("m", true, Duration::from_millis(wait * 10));
        }
        assert_eq!(hedges.begin("m", true), None);
        hedges.learn("m", true, Duration::from_millis(200));
        assert_eq!(hedges.begin("m", true), Some(Duration::from_millis(180)));
        assert_eq!(hedges.begin("m", false), None);
        assert_eq!(hedges.begin("another", true), None);
        // The old are forgotten, and a fast model is not hedged for nothing.
        for _ in 0..REMEMBERED {
            hedges.learn("m", true, Duration::from_millis(1));
        }
        assert_eq!(hedges.begin("m", true), Some(Duration::from_millis(5)));
    }

    #[test]
    fn no_more_than_their_share() {
        let hedges = hedges(0.1);
        let mut made = 0;
        for _ in 0..1000 {
            hedges.begin("m", true);
            made += u32::from(hedges.spend("m"));
        }
        assert!((99..=100).contains(&made), "{made}");
        assert!(!hedges.spend("another"));
    }
}
