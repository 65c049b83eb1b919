//! What this replica has in hand of one limit: slices that audit granted, each for a while.
//!
//! Nothing here waits or asks; time comes in as an argument.

use std::time::{Duration, Instant};

use rust_decimal::Decimal;
use tollgate_types::{LeaseId, limit::Measure};

/// After this a budget's slice is given up for a new one, so that what was reserved and never told comes back.
const ROTATE: Duration = Duration::from_secs(60);
/// A slice that nobody took from for so long is given back.
const IDLE: Duration = Duration::from_millis(500);
/// How often it is tried whether somebody answers again.
const AWAY: Duration = Duration::from_millis(300);
/// For how long a limit that had no room is not asked for again.
const REFUSED: Duration = Duration::from_millis(100);
/// A slice that was never told of is forgotten so long after its end: whatever it held has come back by itself.
const FORGET: Duration = Duration::from_secs(600);
/// For so much time's need a slice is asked for.
const AHEAD: Duration = Duration::from_secs(1);
/// The first slice is for so many takings.
const FIRST: u32 = 8;

/// A slice.
#[derive(Debug)]
struct Slice {
    lease: LeaseId,
    granted: Decimal,
    /// Given back, and told of when audit is asked next.
    returned: Decimal,
    /// Of `returned`, what audit has confirmed.
    confirmed: Decimal,
    /// Used, or reserved.
    spent: Decimal,
    /// Reservations that have not ended.
    pending: u32,
    /// No more is taken from then on.
    until: Instant,
    opened: Instant,
    /// Nothing more is taken, and it is to end.
    retired: bool,
    /// The first answer about it has not come.
    awaited: bool,
}

impl Slice {
    fn left(&self) -> Decimal {
        self.granted - self.returned - self.spent
    }
}

/// How a limit stood when audit was asked last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    pub(super) used: Decimal,
    pub(super) free: Decimal,
    pub(super) resets: Option<Instant>,
}

/// The slices of one limit.
#[derive(Debug)]
pub(super) struct Account {
    measure: Measure,
    slices: Vec<Slice>,
    pub(super) standing: Standing,
    refused: Option<(Decimal, Instant)>,
    /// Nobody answered the last time. It is asked again without a request that waits for it.
    pub(super) away: bool,
    /// What was lacking the last time.
    needed: Decimal,
    /// What was taken since `since`, for the size of the next slice.
    taken: Decimal,
    since: Instant,
    last_taken: Instant,
    lasts: Duration,
    /// Used beyond what was taken, of a window; paid from what is granted next.
    debt: Decimal,
}

/// What is asked of audit for an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) lease: LeaseId,
    pub(super) returned: Decimal,
    pub(super) wanted: Decimal,
    pub(super) needed: Decimal,
    pub(super) last: bool,
}

/// What audit says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) valid: bool,
    pub(super) granted: Decimal,
    pub(super) lasts: Duration,
    pub(super) standing: Standing,
}

impl Account {
    pub(super) fn new(measure: Measure, now: Instant) -> Self {
        Self {
            measure,
            slices: Vec::new(),
            standing: Standing::default(),
            refused: None,
            away: false,
            needed: Decimal::ZERO,
            taken: Decimal::ZERO,
            since: now,
            last_taken: now,
            lasts: AHEAD,
            debt: Decimal::ZERO,
        }
    }

    /// Whether a slice can be asked to grow; those of a window are replaced.
    const fn grows(&self) -> bool {
        matches!(self.measure, Measure::Usd | Measure::Concurrency)
    }

    /// Takes so much from a slice, if one has it.
    pub(super) fn take(&mut self, amount: Decimal, now: Instant) -> Option<LeaseId> {
        let open = |slice: &&mut Slice| !slice.retired && slice.until > now;
        for slice in self.slices.iter_mut().filter(open) {
            let paid = self.debt.min(slice.left());
            slice.spent += paid;
            self.debt -= paid;
        }
        let slice = self
            .slices
            .iter_mut()
            .filter(open)
            .find(|slice| slice.left() >= amount)?;
        slice.spent += amount;
        slice.pending += 1;
        self.taken += amount;
        self.last_taken = now;
        Some(slice.lease)
    }

    /// Undoes a taking as if it had never been.
    pub(super) fn untake(&mut self, lease: LeaseId, amount: Decimal) {
        self.taken = (self.taken - amount).max(Decimal::ZERO);
        self.settle(lease, amount, Decimal::ZERO);
    }

    /// A taking has ended: so much of it was used.
    pub(super) fn settle(&mut self, lease: LeaseId, taken: Decimal, used: Decimal) {
        if let Some(slice) = self.slices.iter_mut().find(|slice| slice.lease == lease) {
            slice.spent += used - taken;
            slice.pending = slice.pending.saturating_sub(1);
            // The next slice of a window knows nothing of this one; a budget's slice goes on as it is.
            if self.measure != Measure::Usd && slice.left() < Decimal::ZERO {
                self.debt -= slice.left();
                slice.spent = slice.granted - slice.returned;
            }
        }
    }

    /// What is in hand and can be taken.
    pub(super) fn left(&self, now: Instant) -> Decimal {
        let usable = self.slices.iter().filter(|slice| !slice.retired && slice.until > now);
        usable.map(Slice::left).sum()
    }

    /// Whether there is no use in asking for it now: audit said a moment ago that there is no room for so much, or said nothing.
    pub(super) fn is_refused(&self, amount: Decimal, now: Instant) -> bool {
        self.away
            || self
                .refused
                .is_some_and(|(least, until)| until > now && amount >= least)
    }

    /// What to ask for to learn whether somebody answers again.
    pub(super) fn again(&mut self, now: Instant) -> Option<Ask> {
        let due = self.away && self.refused.is_none_or(|(_, until)| until <= now);
        due.then(|| self.want(self.needed, self.needed, now))
    }

    /// What to ask when `needed` could not be taken, the least of what some want; the whole of it is `all`.
    pub(super) fn want(&mut self, needed: Decimal, all: Decimal, now: Instant) -> Ask {
        self.needed = needed;
        let passed = now.duration_since(self.since).max(Duration::from_millis(50));
        let ahead = if self.grows() { AHEAD } else { self.lasts.min(AHEAD) };
        let share = Decimal::from(u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX))
            / Decimal::from(u64::try_from(passed.as_millis()).unwrap_or(1));
        let usual = if self.taken.is_zero() && self.slices.is_empty() {
            needed * Decimal::from(FIRST)
        } else {
            (self.taken * share).round_dp(6)
        };
        (self.taken, self.since) = (Decimal::ZERO, now);
        let needed = needed + self.debt;
        let wanted = usual.max(all + self.debt);
        let current = self
            .slices
            .iter()
            .find(|slice| !slice.retired && (slice.until > now || slice.awaited));
        if let Some(slice) = current.filter(|_| self.grows()) {
            return Ask {
                lease: slice.lease,
                returned: slice.returned,
                wanted: wanted - slice.left().max(Decimal::ZERO),
                needed: (needed - slice.left()).max(Decimal::ZERO),
                last: false,
            };
        }
        let lease = LeaseId::generate();
        self.slices.push(Slice {
            lease,
            granted: Decimal::ZERO,
            returned: Decimal::ZERO,
            confirmed: Decimal::ZERO,
            spent: Decimal::ZERO,
            pending: 0,
            until: now,
            opened: now,
            retired: false,
            awaited: true,
        });
        Ask {
            lease,
            returned: Decimal::ZERO,
            wanted,
            needed,
            last: false,
        }
    }

    /// What to tell audit without a need: what is given back, and that slices are still held. With `last`, that all are given up.
    pub(super) fn keep(&mut self, now: Instant, last: bool) -> Vec<Ask> {
        let (measure, grows, lasts) = (self.measure, self.grows(), self.lasts);
        let idle = now.duration_since(self.last_taken) > IDLE;
        let mut asks = Vec::new();
        for slice in self.slices.iter_mut().filter(|slice| !slice.awaited) {
            let over = slice.until <= now;
            slice.retired |= match measure {
                Measure::Usd => last || over || now.duration_since(slice.opened) > ROTATE,
                // Held as long as something is under way.
                Measure::Concurrency => last,
                _ => over,
            };
            if slice.left() > Decimal::ZERO && (slice.retired || (grows && idle)) {
                slice.returned += slice.left();
            }
            let ends = grows && slice.retired && !over;
            let renews = grows && !slice.retired && slice.granted > slice.returned && slice.until < now + lasts * 2 / 3;
            if slice.returned > slice.confirmed || renews || ends {
                asks.push(Ask {
                    lease: slice.lease,
                    returned: slice.returned,
                    wanted: Decimal::ZERO,
                    needed: Decimal::ZERO,
                    last: ends,
                });
            }
        }
        self.slices.retain(|slice| {
            let told = slice.returned <= slice.confirmed;
            let owes = measure != Measure::Usd && slice.pending > 0;
            slice.awaited || slice.until > now || ((owes || !told) && slice.until + FORGET > now)
        });
        asks
    }

    /// Audit's answer to what was asked at `asked`.
    pub(super) fn told(&mut self, ask: &Ask, told: Told, asked: Instant) {
        self.away = false;
        let wished = ask.wanted > Decimal::ZERO;
        if told.valid || wished {
            self.standing = told.standing;
        }
        let Some(slice) = self.slices.iter_mut().find(|slice| slice.lease == ask.lease) else {
            return;
        };
        slice.awaited = false;
        slice.confirmed = slice.confirmed.max(ask.returned);
        if !told.valid {
            slice.retired = true;
            slice.until = slice.until.min(asked);
            return;
        }
        let before = slice.granted;
        slice.granted = told.granted;
        self.lasts = told.lasts;
        slice.until = asked + told.lasts;
        if let (Measure::Usd, Some(end)) = (self.measure, told.standing.resets) {
            slice.until = slice.until.min(end);
        }
        if ask.last {
            slice.until = asked;
        }
        if wished {
            let enough = told.granted - before >= ask.needed && told.granted > before;
            self.refused = (!enough).then(|| (self.needed, asked + REFUSED));
        }
    }

    /// Nobody answered. A slice of a window that was asked for may have been granted, and is lost.
    pub(super) fn unheard(&mut self, ask: &Ask, now: Instant) {
        self.away = true;
        self.refused = Some((Decimal::ZERO, now + AWAY));
        let grows = self.grows();
        if let Some(slice) = self
            .slices
            .iter_mut()
            .find(|slice| slice.lease == ask.lease && slice.awaited)
        {
            // What may have been granted without our knowing is learned when the same slice is asked for again.
            slice.awaited = grows;
        }
    }

    /// Whether there is nothing to remember.
    pub(super) fn is_empty(&self, now: Instant) -> bool {
        self.slices.is_empty() && now.duration_since(self.last_taken) > AHEAD * 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usd(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn told(granted: &str) -> Told {
        Told {
            valid: true,
            granted: usd(granted),
            lasts: Duration::from_secs(15),
            standing: Standing::default(),
        }
    }

    #[test]
    fn no_more_is_taken_than_was_granted() {
        let now = Instant::now();
        let mut account = Account::new(Measure::Usd, now);
        assert_eq!(account.take(usd("0.1"), now), None);
        let ask = account.want(usd("0.1"), usd("0.1"), now);
        assert_eq!((ask.wanted, ask.needed), (usd("0.8"), usd("0.1")));
        account.told(&ask, told("0.25"), now);
        let lease = account.take(usd("0.1"), now).unwrap();
        assert!(account.take(usd("0.1"), now).is_some());
        assert_eq!(account.take(usd("0.1"), now), None);
        assert_eq!(account.left(now), usd("0.05"));
        // What was not used comes back.
        account.settle(lease, usd("0.1"), usd("0.04"));
        assert_eq!(account.left(now), usd("0.11"));
        // A slice grows under its own name, by what is missing.
        let more = account.want(usd("0.2"), usd("0.2"), now);
        assert_eq!((more.lease, more.needed), (ask.lease, usd("0.09")));
        account.told(&more, told("0.25"), now);
        let refused = |amount, at| account.is_refused(usd(amount), at);
        assert!(refused("0.2", now) && refused("0.3", now) && !refused("0.2", now + REFUSED));
        // What less is, somebody may have room for.
        assert!(!refused("0.19", now));
        // After its time nothing is taken.
        let later = now + Duration::from_secs(15);
        assert_eq!(
            (account.take(usd("0.01"), later), account.left(later)),
            (None, Decimal::ZERO)
        );
    }

    #[test]
    fn what_lies_idle_is_given_back_once_it_is_told() {
        let now = Instant::now();
        let mut account = Account::new(Measure::Usd, now);
        let ask = account.want(usd("1"), usd("1"), now);
        account.told(&ask, told("8"), now);
        let lease = account.take(usd("1"), now).unwrap();
        assert_eq!(account.keep(now, false), []);
        let idle = now + Duration::from_secs(1);
        let back = account.keep(idle, false);
        assert_eq!((back.len(), back[0].lease, back[0].returned), (1, lease, usd("7")));
        assert_eq!(account.left(idle), Decimal::ZERO);
        // Told again until it was heard.
        assert_eq!(account.keep(idle, false).len(), 1);
        account.told(&back[0], told("8"), idle);
        assert_eq!(account.keep(idle, false), []);
        // It is held as long as something is under way, and then given up.
        let old = now + Duration::from_secs(12);
        assert_eq!(account.keep(old, false).len(), 1);
        let end = account.keep(old, true);
        assert!(end[0].last);
    }

    #[test]
    fn slices_of_a_window_are_for_a_moment_and_what_is_left_of_them_goes_back() {
        let now = Instant::now();
        let mut account = Account::new(Measure::Requests, now);
        let ask = account.want(Decimal::ONE, Decimal::ONE, now);
        let second = Told {
            lasts: Duration::from_secs(1),
            ..told("8")
        };
        account.told(&ask, second, now);
        let first = account.take(Decimal::ONE, now).unwrap();
        account.settle(first, Decimal::ONE, Decimal::ONE);
        let over = now + Duration::from_millis(1001);
        assert_eq!(account.take(Decimal::ONE, over), None);
        let next = account.want(Decimal::ONE, Decimal::ONE, over);
        assert_ne!(next.lease, first);
        let back = account.keep(over, false);
        assert_eq!(
            (back[0].lease, back[0].returned, back[0].last),
            (first, usd("7"), false)
        );
        account.unheard(&next, over);
        assert!(account.away);
    }
}
