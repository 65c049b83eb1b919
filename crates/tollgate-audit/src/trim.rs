//! Removes events from the ledger stream once they are in the database and so old that nobody can start their calls again.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tollgate_bus::ledger::LedgerProgress;

use crate::consume::chain;

/// Between two marks: what is removed is kept longer than it must be by this at most.
const LONGEST_INTERVAL: Duration = Duration::from_secs(30);

pub(crate) struct Trim {
    pub(crate) progress: LedgerProgress,
    pub(crate) keep: Duration,
}

impl Trim {
    /// Works until `stop`. Marks are kept in memory alone: whoever starts anew removes nothing for as long as events are
    /// kept.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut marks = Marks::default();
        let interval = LONGEST_INTERVAL.min(self.keep / 4);
        while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
            if let Err(error) = self.trim(&mut marks).await {
                tracing::warn!(error = chain(&error), "the ledger stream was not trimmed");
            }
        }
    }

    async fn trim(&self, marks: &mut Marks) -> Result<(), tollgate_bus::Error> {
        let now = Instant::now();
        marks.add(now, self.progress.acknowledged().await?);
        match marks.take(now, self.keep) {
            Some(up_to) => self.progress.trim(up_to).await,
            None => Ok(()),
        }
    }
}

/// Up to where everything had been written at some moments.
#[derive(Default)]
struct Marks {
    marks: VecDeque<(Instant, u64)>,
}

impl Marks {
    fn add(&mut self, at: Instant, written: u64) {
        // A stream that was made anew counts from one again.
        if self.marks.back().is_some_and(|(_, last)| written < *last) {
            self.marks.clear();
        }
        if written > 0 && self.marks.back().is_none_or(|(_, last)| written > *last) {
            self.marks.push_back((at, written));
        }
    }

    /// Up to where everything had been written at least `keep` ago.
    fn take(&mut self, now: Instant, keep: Duration) -> Option<u64> {
        let mut last = None;
        while let Some((at, written)) = self.marks.front()
            && now.duration_since(*at) >= keep
        {
            last = Some(*written);
            self.marks.pop_front();
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_long_enough_ago_goes() {
        let (begun, keep) = (Instant::now(), Duration::from_secs(100));
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut marks = Marks::default();
        marks.add(at(0), 0);
        marks.add(at(10), 5);
        marks.add(at(20), 5);
        marks.add(at(30), 9);
        assert_eq!(
            [105, 110, 111, 131, 500].map(|now| marks.take(at(now), keep)),
            [None, Some(5), None, Some(9), None]
        );
        marks.add(at(600), 20);
        marks.add(at(610), 3);
        assert_eq!([705, 710].map(|now| marks.take(at(now), keep)), [None, Some(3)]);
    }
}
