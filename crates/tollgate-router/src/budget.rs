//! Retries must not make an outage worse: each request earns a part of one, each retry costs a whole one.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// What is kept for a burst, in retries.
const MOST: f64 = 50.0;
/// What a model begins with.
const FIRST: f64 = 10.0;

/// The retries that each model may still make.
pub struct Budget {
    share: f64,
    left: Mutex<HashMap<String, f64>>,
}

impl Budget {
    /// Retries up to this share of the requests.
    #[must_use]
    pub fn new(share: f64) -> Self {
        Self {
            share,
            left: Mutex::default(),
        }
    }

    /// Notes a request.
    pub fn earn(&self, model: &str) {
        self.change(model, |left| {
            *left = (*left + self.share).min(MOST);
            true
        });
    }

    /// Takes a retry, if there is one left.
    #[must_use]
    pub fn spend(&self, model: &str) -> bool {
        self.change(model, |left| {
            let may = *left >= 1.0;
            *left -= f64::from(u8::from(may));
            may
        })
    }

    fn change(&self, model: &str, change: impl FnOnce(&mut f64) -> bool) -> bool {
        let mut all = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(model) {
            Some(left) => change(left),
            None => change(all.entry(model.to_owned()).or_insert(FIRST)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_requests() {
        let budget = Budget::new(0.25);
        let spent = |budget: &Budget, model: &str| (0..1000).filter(|_| budget.spend(model)).count();
        assert_eq!(spent(&budget, "m"), 10);
        (0..100).for_each(|_| budget.earn("m"));
        assert_eq!(spent(&budget, "m"), 25);
        (0..100_000).for_each(|_| budget.earn("m"));
        assert_eq!(spent(&budget, "m"), 50);
        assert_eq!(spent(&budget, "other"), 10);
    }
}
