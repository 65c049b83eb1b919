//! Limits as this replica keeps them: what a request may not pass is taken from slices in hand, and audit is asked for more only when they
//! run out.
//!
//! A request counts against rate limits at the door. What an attempt may cost is reserved at its claim, when it is known whom it will
//! call: at its end what it did cost takes the reservation's place.

mod account;
mod ask;
mod index;
mod price;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Instant,
};

use chrono::Utc;
use opentelemetry::KeyValue;
use rust_decimal::Decimal;
use tokio::sync::{mpsc, oneshot};
use tollgate_bus::PriceList;
use tollgate_config::Config;
use tollgate_pricing::{Consumption, Unit};
use tollgate_telemetry::{Metrics, label};
use tollgate_types::{
    Caller, ErrorCode, Failure, Hold, LeaseId, LimitId, LimitRecord, RequestView, Target,
    limit::{Measure, WhenAway},
};

use account::Account;
pub(crate) use ask::Asker;
use ask::Wish;
use index::Index;
use price::Prices;

/// How often a request asks for what it lacks.
const TRIES: u32 = 3;
/// How long a client should wait when nobody can say what is left.
const AWAY_WAIT_MS: u64 = 1000;
/// Wishes that wait to be asked for.
const MOST_WISHES: usize = 4096;

/// Limits, and what is in hand of them.
pub(crate) struct Limits {
    index: RwLock<Arc<Index>>,
    prices: Prices,
    accounts: Mutex<HashMap<LimitId, Account>>,
    wishes: mpsc::Sender<Wish>,
    refuse_unpriced: bool,
    metrics: Metrics,
}

/// A request that was let in. Dropped, it gives back what is held while a request is under way.
pub(crate) struct Admission {
    limits: Arc<Limits>,
    /// Those that cover the request.
    covering: Vec<Arc<LimitRecord>>,
    view: RequestView,
    taken: Vec<Taken>,
    used: Mutex<Used>,
}

/// What was taken of a limit.
#[derive(Debug, Clone)]
struct Taken {
    limit: LimitId,
    measure: Measure,
    lease: LeaseId,
    amount: Decimal,
}

/// What is reserved for an attempt. Dropped without being settled it stays spent: nobody knows what became of the call.
pub(crate) struct Reservation {
    admission: Arc<Admission>,
    target: Target,
    taken: Vec<Taken>,
    usd: Decimal,
}

/// How a limit on requests or tokens stands, for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remaining {
    pub(crate) measure: Measure,
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    pub(crate) resets_ms: Option<u64>,
}

/// Something that could not be taken from what is in hand.
struct Missing {
    limit: Arc<LimitRecord>,
    amount: Decimal,
    /// Audit said a moment ago that there is no room, or nothing.
    refused: bool,
    away: bool,
}

/// What a request's attempts have used.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    granted: u32,
    settled: u32,
    input: u64,
    output: u64,
}

impl Limits {
    /// Limits that nobody has told of yet, and who asks for slices of them.
    pub(crate) fn new(config: &Config, metrics: Metrics) -> (Arc<Self>, mpsc::Receiver<Wish>) {
        let (wishes, wished) = mpsc::channel(MOST_WISHES);
        let limits = Self {
            index: RwLock::default(),
            prices: Prices::new(config),
            accounts: Mutex::default(),
            wishes,
            refuse_unpriced: config.ingress.limits.refuse_unpriced,
            metrics,
        };
        (Arc::new(limits), wished)
    }

    /// Learns of a limit, or of a change to one.
    pub(crate) fn learn(&self, record: LimitRecord) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(changed) = index.with(record) {
            *index = Arc::new(changed);
        }
    }

    /// Learns what a provider asks.
    pub(crate) fn learn_prices(&self, list: PriceList) {
        self.prices.learn(list);
    }

    fn index(&self) -> Arc<Index> {
        Arc::clone(&self.index.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<LimitId, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a request in, if its limits have room for it.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        caller: &Caller,
        view: &RequestView,
    ) -> Result<Arc<Admission>, Failure> {
        let covering = self.index().of(caller, &view.model);
        let mut admission = Admission {
            limits: Arc::clone(self),
            view: view.clone(),
            taken: Vec::new(),
            used: Mutex::default(),
            covering,
        };
        let here = admission.covering.iter().filter(|limit| limit.scope.provider.is_none());
        let wanted: Vec<_> = here
            .filter_map(|limit| Some((Arc::clone(limit), self.at_the_door(limit.measure, view)?)))
            .collect();
        admission.taken = self.take(wanted).await?;
        Ok(Arc::new(admission))
    }

    /// How much of such a limit a request takes before it is known how much it uses; none where that is known at the claim.
    fn at_the_door(&self, measure: Measure, view: &RequestView) -> Option<Decimal> {
        let (input, output) = self.prices.expected(view);
        Some(match measure {
            Measure::Usd => return None,
            Measure::Requests | Measure::Concurrency => Decimal::ONE,
            Measure::InputTokens => Decimal::from(input),
            Measure::OutputTokens => Decimal::from(output),
            Measure::Tokens => Decimal::from(input.saturating_add(output)),
        })
    }

    /// Takes all of it, or nothing.
    async fn take(&self, mut wanted: Vec<(Arc<LimitRecord>, Decimal)>) -> Result<Vec<Taken>, Failure> {
        let mut tries = 0;
        loop {
            let missing = match self.take_now(&wanted) {
                Ok(taken) => return Ok(taken),
                Err(missing) => missing,
            };
            if let Some(lack) = missing.iter().find(|missing| missing.refused || tries == TRIES) {
                let allowed = lack.away && lack.limit.when_away == WhenAway::Allow;
                self.count(lack, allowed);
                if !allowed {
                    return Err(self.failure(lack));
                }
                wanted.retain(|(limit, _)| limit.limit_id != lack.limit.limit_id);
                continue;
            }
            tries += 1;
            let (heard, answered) = oneshot::channel();
            let missing = missing
                .into_iter()
                .map(|one| (one.limit.limit_id, one.amount))
                .collect();
            if self.wishes.send(Wish { missing, heard }).await.is_err() || answered.await.is_err() {
                let failure = Failure::new(ErrorCode::Unavailable, "this replica is about to stop");
                return Err(failure.retry_after_ms(AWAY_WAIT_MS));
            }
        }
    }

    fn take_now(&self, wanted: &[(Arc<LimitRecord>, Decimal)]) -> Result<Vec<Taken>, Vec<Missing>> {
        let now = Instant::now();
        let mut accounts = self.accounts();
        let (mut taken, mut missing) = (Vec::with_capacity(wanted.len()), Vec::new());
        // What costs nothing needs no room.
        for (limit, amount) in wanted.iter().filter(|(_, amount)| *amount > Decimal::ZERO) {
            let account = accounts
                .entry(limit.limit_id)
                .or_insert_with(|| Account::new(limit.measure, now));
            match account.take(*amount, now) {
                Some(lease) => taken.push(Taken {
                    limit: limit.limit_id,
                    measure: limit.measure,
                    lease,
                    amount: *amount,
                }),
                None => missing.push(Missing {
                    limit: Arc::clone(limit),
                    amount: *amount,
                    refused: account.is_refused(*amount, now),
                    away: account.away,
                }),
            }
        }
        if missing.is_empty() {
            return Ok(taken);
        }
        for one in &taken {
            if let Some(account) = accounts.get_mut(&one.limit) {
                account.untake(one.lease, one.amount);
            }
        }
        Err(missing)
    }

    /// So much of what was taken was used.
    fn settle(&self, taken: &Taken, used: Decimal) {
        if let Some(account) = self.accounts().get_mut(&taken.limit) {
            account.settle(taken.lease, taken.amount, used);
        }
    }

    fn count(&self, lack: &Missing, allowed: bool) {
        let outcome = match (lack.away, allowed) {
            (_, true) => "allowed_away",
            (true, false) => "refused_away",
            (false, false) => "refused",
        };
        let labels = [
            KeyValue::new(label::MEASURE, lack.limit.measure.as_str()),
            KeyValue::new(label::OUTCOME, outcome),
        ];
        self.metrics.limits.add(1, &labels);
    }

    /// What the client is told. Of a limit that is not the caller's alone it learns the name and no amounts.
    fn failure(&self, lack: &Missing) -> Failure {
        let limit = &lack.limit;
        let name = &limit.name;
        if lack.away {
            let message = format!("nobody can say at the moment what is left of the limit {name:?}");
            return Failure::new(ErrorCode::Unavailable, message).retry_after_ms(AWAY_WAIT_MS);
        }
        let standing = self
            .accounts()
            .get(&limit.limit_id)
            .map(|account| account.standing)
            .unwrap_or_default();
        let resets = standing.resets.map(|at| at.saturating_duration_since(Instant::now()));
        let resets = resets.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1));
        let scope = &limit.scope;
        let own = scope.key_id.is_some() || scope.tenant.organisation.is_some();
        let (code, message) = match limit.measure {
            Measure::Usd if own => {
                let (used, amount) = (standing.used.round_dp(4).normalize(), limit.amount.normalize());
                (
                    ErrorCode::BudgetExceeded,
                    format!(
                        "the budget {name:?} has no room for this call: ${used} of ${amount} are spent, calls under way may take the rest"
                    ),
                )
            }
            Measure::Usd => (
                ErrorCode::BudgetExceeded,
                format!("the budget {name:?} has no room for this call"),
            ),
            Measure::Concurrency => (
                ErrorCode::RateLimited,
                format!("the limit {name:?} on requests under way at once is reached"),
            ),
            measure => (
                ErrorCode::RateLimited,
                format!("the limit {name:?} on {measure} is reached"),
            ),
        };
        let failure = Failure::new(code, message);
        match (limit.measure, resets) {
            (_, Some(wait)) => failure.retry_after_ms(wait),
            (Measure::Usd, None) => failure,
            (_, None) => failure.retry_after_ms(AWAY_WAIT_MS),
        }
    }
}

impl Admission {
    /// Reserves what an attempt at this target may cost, and counts it against the limits of its provider.
    pub(crate) async fn reserve(self: &Arc<Self>, target: &Target) -> Result<Reservation, Failure> {
        let provider = |limit: &&Arc<LimitRecord>| {
            limit
                .scope
                .provider
                .as_ref()
                .is_none_or(|name| *name == target.provider)
        };
        let of_provider = |limit: &&Arc<LimitRecord>| limit.scope.provider.is_some();
        let mut wanted: Vec<_> = self
            .covering
            .iter()
            .filter(of_provider)
            .filter(provider)
            .filter_map(|limit| Some((Arc::clone(limit), self.limits.at_the_door(limit.measure, &self.view)?)))
            .collect();
        let budgets: Vec<_> = self
            .covering
            .iter()
            .filter(|limit| limit.measure == Measure::Usd)
            .filter(provider)
            .collect();
        let mut usd = Decimal::ZERO;
        if !budgets.is_empty() || self.limits.refuse_unpriced {
            let most = self.limits.prices.most(target, &self.view, Utc::now());
            usd = most.ok_or_else(|| {
                let (provider, model) = (&target.provider, &target.model);
                let why = if budgets.is_empty() {
                    ""
                } else {
                    ", and a budget applies to it"
                };
                let message = format!("{provider} asks an unknown price for {model}{why}");
                Failure::new(ErrorCode::Unpriced, message)
            })?;
            wanted.extend(budgets.into_iter().map(|limit| (Arc::clone(limit), usd)));
        }
        let taken = self.limits.take(wanted).await?;
        self.used().granted += 1;
        Ok(Reservation {
            admission: Arc::clone(self),
            target: target.clone(),
            taken,
            usd,
        })
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the limits on requests and on tokens stand, the tightest of each measure.
    pub(crate) fn remaining(&self) -> Vec<Remaining> {
        let now = Instant::now();
        let accounts = self.limits.accounts();
        let whole = |amount: Decimal| u64::try_from(amount.trunc().max(Decimal::ZERO)).unwrap_or(u64::MAX);
        let mut tightest: Vec<Remaining> = Vec::new();
        for limit in &self.covering {
            let counted = !matches!(limit.measure, Measure::Usd | Measure::Concurrency);
            let Some(account) = accounts.get(&limit.limit_id).filter(|_| counted) else {
                continue;
            };
            let resets = account.standing.resets.map(|at| at.saturating_duration_since(now));
            let found = Remaining {
                measure: limit.measure,
                limit: whole(limit.amount),
                remaining: whole(account.standing.free + account.left(now)),
                resets_ms: resets.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            };
            match tightest.iter_mut().find(|known| known.measure == found.measure) {
                Some(known) if known.remaining <= found.remaining => {}
                Some(known) => *known = found,
                None => tightest.push(found),
            }
        }
        tightest
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let used = *self.used();
        for taken in &self.taken {
            let told = match taken.measure {
                Measure::Concurrency => Decimal::ZERO,
                Measure::InputTokens => Decimal::from(used.input),
                Measure::OutputTokens => Decimal::from(used.output),
                Measure::Tokens => Decimal::from(used.input.saturating_add(used.output)),
                Measure::Requests | Measure::Usd => taken.amount,
            };
            // Of an attempt that nobody told of, what was expected is the best guess.
            let unknown = used.settled < used.granted && taken.measure != Measure::Concurrency;
            self.limits
                .settle(taken, if unknown { told.max(taken.amount) } else { told });
        }
    }
}

impl Reservation {
    /// What is to be written down with the attempt, where budgets apply.
    pub(crate) fn hold(&self) -> Option<Hold> {
        let budgets = self.taken.iter().filter(|taken| taken.measure == Measure::Usd);
        let leases: Vec<LeaseId> = budgets.map(|taken| taken.lease).collect();
        (!leases.is_empty()).then_some(Hold { leases, usd: self.usd })
    }

    /// Nothing was called, nor will be.
    pub(crate) fn give_back(mut self) {
        for taken in std::mem::take(&mut self.taken) {
            self.admission.limits.settle(&taken, Decimal::ZERO);
        }
        let mut used = self.admission.used();
        used.granted = used.granted.saturating_sub(1);
    }

    /// The attempt has used this.
    pub(crate) fn settle(mut self, used: &Consumption) {
        let (input, output) = tokens(used);
        let cost = self.admission.limits.prices.cost(&self.target, used, Utc::now());
        for taken in std::mem::take(&mut self.taken) {
            let truth = match taken.measure {
                // Without a price the reservation stands.
                Measure::Usd => cost.unwrap_or(taken.amount),
                Measure::InputTokens => Decimal::from(input),
                Measure::OutputTokens => Decimal::from(output),
                Measure::Tokens => Decimal::from(input.saturating_add(output)),
                Measure::Concurrency => Decimal::ZERO,
                Measure::Requests => taken.amount,
            };
            if taken.measure == Measure::Usd && truth > taken.amount {
                self.admission.limits.metrics.budget_overruns.add(1, &[]);
            }
            self.admission.limits.settle(&taken, truth);
        }
        let mut sum = self.admission.used();
        sum.settled += 1;
        sum.input = sum.input.saturating_add(input);
        sum.output = sum.output.saturating_add(output);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        for taken in &self.taken {
            let held = taken.measure == Measure::Concurrency;
            let used = if held { Decimal::ZERO } else { taken.amount };
            self.admission.limits.settle(taken, used);
        }
    }
}

/// The headers that clients of OpenAI know: how much there is in all, how much of it is left, and when more will be.
pub(crate) fn rate_limit_headers(remaining: &[Remaining]) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    for one in remaining {
        let what = match one.measure {
            Measure::Requests => "requests",
            Measure::Tokens => "tokens",
            Measure::InputTokens => "input-tokens",
            Measure::OutputTokens => "output-tokens",
            Measure::Usd | Measure::Concurrency => continue,
        };
        headers.push((format!("x-ratelimit-limit-{what}"), one.limit.to_string()));
        headers.push((format!("x-ratelimit-remaining-{what}"), one.remaining.to_string()));
        if let Some(wait) = one.resets_ms {
            headers.push((format!("x-ratelimit-reset-{what}"), format!("{wait}ms")));
        }
    }
    headers
}

/// Of prompt and answer.
fn tokens(used: &Consumption) -> (u64, u64) {
    let mut counts = (0u64, 0u64);
    for (unit, quantity) in used.quantities.iter().filter(|(unit, _)| unit.is_token()) {
        let sum = if *unit < Unit::Output {
            &mut counts.0
        } else {
            &mut counts.1
        };
        *sum = sum.saturating_add(*quantity);
    }
    counts
}
