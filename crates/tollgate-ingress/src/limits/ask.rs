//! Asks audit for slices of limits: one question at a time, for all that wait.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rust_decimal::Decimal;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tollgate_bus::quota::Quota;
use tollgate_proto::{amount, v1};
use tollgate_types::LimitId;

use super::{
    Limits,
    account::{Ask, Standing, Told},
};

/// How often slices are looked after without a wish.
const LOOK: Duration = Duration::from_millis(200);
/// Wishes in one question.
const MOST: usize = 1024;

/// What a request lacks.
pub(crate) struct Wish {
    pub(super) missing: Vec<(LimitId, Decimal)>,
    /// Told when audit has answered, or has not.
    pub(super) heard: oneshot::Sender<()>,
}

/// Asks for all requests of this replica.
pub(crate) struct Asker {
    pub(crate) limits: Arc<Limits>,
    pub(crate) wished: mpsc::Receiver<Wish>,
    pub(crate) quota: Quota,
    /// This replica, for people.
    pub(crate) holder: String,
}

impl Asker {
    /// Works until `stop`, and gives all slices back.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut wishes = Vec::new();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                count = self.wished.recv_many(&mut wishes, MOST) => if count == 0 { break },
                _ = look.tick() => {}
            }
            self.ask(wishes, false).await;
        }
        self.ask(Vec::new(), true).await;
    }

    async fn ask(&self, wishes: Vec<Wish>, last: bool) {
        let asks = self.gather(&wishes, last);
        if !asks.is_empty() {
            let question = v1::QuotaQuestion {
                holder: self.holder.clone(),
                leases: asks.iter().map(|(limit, ask)| wire(*limit, ask)).collect(),
            };
            let asked = Instant::now();
            let answer = self.quota.ask(&question).await;
            self.limits
                .metrics
                .lease_duration
                .record(asked.elapsed().as_secs_f64(), &[]);
            self.hear(&asks, answer, asked);
        }
        for wish in wishes {
            let _ = wish.heard.send(());
        }
    }

    fn gather(&self, wishes: &[Wish], last: bool) -> Vec<(LimitId, Ask)> {
        let now = Instant::now();
        let mut wanted: BTreeMap<LimitId, (Decimal, Decimal)> = BTreeMap::new();
        for (limit, amount) in wishes.iter().flat_map(|wish| &wish.missing) {
            let (least, sum) = wanted.entry(*limit).or_insert((*amount, Decimal::ZERO));
            *least = (*least).min(*amount);
            *sum += *amount;
        }
        let index = self.limits.index();
        let mut accounts = self.limits.accounts();
        accounts.retain(|limit, account| index.get(*limit).is_some() && !account.is_empty(now));
        let mut asks = Vec::new();
        for (limit, account) in accounts.iter_mut() {
            asks.extend(account.keep(now, last).into_iter().map(|ask| (*limit, ask)));
            if let Some(ask) = account.again(now).filter(|_| !last) {
                asks.retain(|(_, kept)| kept.lease != ask.lease);
                asks.push((*limit, ask));
            } else if let Some((least, sum)) = wanted.get(limit) {
                // Others may have been granted what it lacked.
                if !account.is_refused(*least, now) && account.left(now) < *sum {
                    let ask = account.want(*least, *sum, now);
                    asks.retain(|(_, kept)| kept.lease != ask.lease);
                    asks.push((*limit, ask));
                }
            }
        }
        asks
    }

    fn hear(&self, asks: &[(LimitId, Ask)], answer: Option<v1::QuotaAnswer>, asked: Instant) {
        let now = Instant::now();
        let mut accounts = self.limits.accounts();
        let mut told = answer.map(|answer| answer.leases.into_iter());
        for (limit, ask) in asks {
            let told = told
                .as_mut()
                .and_then(Iterator::next)
                .and_then(|granted| read(&granted, asked));
            let Some(account) = accounts.get_mut(limit) else {
                continue;
            };
            match told {
                Some(told) => account.told(ask, told, asked),
                None => account.unheard(ask, now),
            }
        }
    }
}

fn wire(limit: LimitId, ask: &Ask) -> v1::LeaseAsked {
    v1::LeaseAsked {
        limit_id: limit.to_string(),
        lease_id: ask.lease.to_string(),
        returned: ask.returned.to_string(),
        wanted: ask.wanted.max(Decimal::ZERO).to_string(),
        needed: ask.needed.to_string(),
        last: ask.last,
    }
}

fn read(granted: &v1::LeaseGranted, asked: Instant) -> Option<Told> {
    Some(Told {
        valid: granted.valid,
        granted: amount("granted", &granted.granted).ok()?,
        lasts: Duration::from_millis(granted.lasts_ms),
        standing: Standing {
            used: amount("used", &granted.used).ok()?,
            free: amount("free", &granted.free).ok()?,
            resets: granted.resets_in_ms.map(|wait| asked + Duration::from_millis(wait)),
        },
    })
}
