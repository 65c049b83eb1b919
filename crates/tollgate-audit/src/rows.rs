//! Events as the columns of a batch: checked against what Postgres can hold, one value per event and row.
//!
//! The check comes first because a worker passes on what a provider reported, and a single number beyond 2⁶³ or a NUL in
//! a name must cost that one event, not the batch and not the loop.

use std::collections::{BTreeMap, btree_map::Entry};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tollgate_pricing::{Call, Catalogue, Consumption, PriceLists};
use tollgate_types::{
    Caller, Hold, Millis, Usage,
    ledger::{Administration, Attempt, Conclusion, LedgerEvent, Settlement},
};
use uuid::Uuid;

use crate::{
    Error,
    price::{self, Charge},
};

/// The start of the year 10000: a later time is a mistake, and some clients of Postgres cannot read it.
pub(crate) const TIME_LIMIT: Millis = Millis(253_402_300_800_000);

/// A batch with one entry per attempt and request, sorted by id so that writers lock rows in the same order.
#[derive(Default)]
pub(crate) struct Batch<'a> {
    pub(crate) attempts: BTreeMap<Uuid, (&'a Attempt, Option<&'a Settlement>)>,
    pub(crate) abandonments: BTreeMap<Uuid, Millis>,
    pub(crate) requests: BTreeMap<Uuid, &'a Conclusion>,
    pub(crate) administrations: BTreeMap<Uuid, &'a Administration>,
}

impl<'a> Batch<'a> {
    /// Checks the events and merges those of the same attempt. Of several settlements the first counts, as it does over
    /// several batches.
    pub(crate) fn gather(events: &'a [(u64, LedgerEvent)]) -> Result<Self, Error> {
        let mut batch = Self::default();
        for (sequence, event) in events {
            check(event).map_err(|reason| Error::Refused {
                sequence: *sequence,
                reason,
            })?;
            batch.add(event);
        }
        Ok(batch)
    }

    fn add(&mut self, event: &'a LedgerEvent) {
        match event {
            LedgerEvent::Administered(done) => {
                self.administrations.insert(done.request_id.as_uuid(), done);
            }
            LedgerEvent::Started(attempt) => {
                self.attempts
                    .entry(attempt.attempt_id.as_uuid())
                    .or_insert((attempt, None));
            }
            LedgerEvent::Settled { attempt, settlement } => match self.attempts.entry(attempt.attempt_id.as_uuid()) {
                Entry::Vacant(place) => {
                    place.insert((attempt, Some(settlement)));
                }
                Entry::Occupied(mut place) => {
                    place.get_mut().1.get_or_insert(settlement);
                }
            },
            LedgerEvent::Abandoned { attempt_id, at } => {
                let earliest = self.abandonments.entry(attempt_id.as_uuid()).or_insert(*at);
                *earliest = (*earliest).min(*at);
            }
            LedgerEvent::Concluded(conclusion) => {
                self.requests
                    .entry(conclusion.request_id.as_uuid())
                    .or_insert(conclusion);
            }
        }
    }
}

type Check = Result<(), &'static str>;

fn check(event: &LedgerEvent) -> Check {
    match event {
        LedgerEvent::Administered(done) => {
            time(done.at, "at is out of range")?;
            let mut texts = [&done.actor, &done.action, &done.subject].into_iter();
            texts.try_for_each(|one| text(one, "actor, action or subject has a NUL"))
        }
        LedgerEvent::Started(attempt) => check_attempt(attempt),
        LedgerEvent::Settled { attempt, settlement } => {
            check_attempt(attempt)?;
            check_settlement(settlement)
        }
        LedgerEvent::Abandoned { at, .. } => time(*at, "at is out of range"),
        LedgerEvent::Concluded(conclusion) => {
            check_caller(&conclusion.caller)?;
            text(&conclusion.model, "model has a NUL")?;
            time(conclusion.accepted_at, "accepted_at is out of range")?;
            time(conclusion.concluded_at, "concluded_at is out of range")
        }
    }
}

fn check_attempt(attempt: &Attempt) -> Check {
    check_caller(&attempt.caller)?;
    text(&attempt.target.provider, "target.provider has a NUL")?;
    text(&attempt.target.model, "target.model has a NUL")?;
    text(&attempt.model, "model has a NUL")?;
    time(attempt.started_at, "started_at is out of range")?;
    time(attempt.deadline, "deadline is out of range")?;
    let held = attempt.hold.as_ref().map_or(Decimal::ZERO, |hold| hold.usd);
    if !(Decimal::ZERO..Decimal::from(1_000_000_000)).contains(&held) {
        return Err("hold.usd is out of range");
    }
    count(attempt.estimated_input_tokens, "estimated_input_tokens is out of range")?;
    count(
        attempt.max_output_tokens.unwrap_or(0),
        "max_output_tokens is out of range",
    )
}

fn check_settlement(settlement: &Settlement) -> Check {
    text(
        settlement.served_model.as_deref().unwrap_or(""),
        "served_model has a NUL",
    )?;
    time(settlement.ended_at, "ended_at is out of range")?;
    count(settlement.first_token_ms.unwrap_or(0), "first_token_ms is out of range")?;
    let usage = &settlement.usage;
    [
        (usage.input_tokens, "usage.input_tokens is out of range"),
        (usage.cached_input_tokens, "usage.cached_input_tokens is out of range"),
        (
            usage.cache_write_input_tokens,
            "usage.cache_write_input_tokens is out of range",
        ),
        (
            usage.cache_write_1h_input_tokens,
            "usage.cache_write_1h_input_tokens is out of range",
        ),
        (usage.audio_input_tokens, "usage.audio_input_tokens is out of range"),
        (usage.output_tokens, "usage.output_tokens is out of range"),
        (usage.reasoning_tokens, "usage.reasoning_tokens is out of range"),
        (usage.audio_output_tokens, "usage.audio_output_tokens is out of range"),
        (usage.web_searches, "usage.web_searches is out of range"),
    ]
    .into_iter()
    .try_for_each(|(value, reason)| count(value, reason))?;
    settlement.consumption.as_deref().map_or(Ok(()), check_consumption)
}

/// Most ways of being served that a call can have at once; each may have a factor.
const MOST_SERVED: usize = 3;
/// Longest name of one, in bytes.
const LONGEST_SERVED: usize = 64;

fn check_consumption(used: &Consumption) -> Check {
    count(used.prompt_tokens, "consumption.prompt_tokens is out of range")?;
    let mut quantities = used.quantities.values();
    quantities.try_for_each(|quantity| count(*quantity, "consumption.quantities is out of range"))?;
    let usual = |name: &String| name.len() <= LONGEST_SERVED && !name.contains('\0');
    if used.served.len() > MOST_SERVED || !used.served.iter().all(usual) {
        return Err("consumption.served is out of range");
    }
    let stated = (Decimal::ZERO..Decimal::from(1_000_000_000)).contains(&used.stated_usd.unwrap_or_default());
    if stated {
        Ok(())
    } else {
        Err("consumption.stated_usd is out of range")
    }
}

fn check_caller(caller: &Caller) -> Check {
    text(&caller.key_name, "caller.key_name has a NUL")?;
    let tenant = &caller.tenant;
    let mut names = tenant.organisation.iter().chain(&tenant.team).chain(&caller.user);
    names.try_for_each(|name| text(name, "the organisation, team or user has a NUL"))?;
    caller.tags.iter().try_for_each(|(name, value)| {
        text(name, "the name of a tag has a NUL")?;
        text(value, "the value of a tag has a NUL")
    })
}

fn text(value: &str, reason: &'static str) -> Check {
    if value.contains('\0') { Err(reason) } else { Ok(()) }
}

fn time(value: Millis, reason: &'static str) -> Check {
    if value < TIME_LIMIT { Ok(()) } else { Err(reason) }
}

fn count(value: u64, reason: &'static str) -> Check {
    i64::try_from(value).map(drop).map_err(|_| reason)
}

/// A count that [`check`] has let through.
pub(crate) fn bigint(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn tags(caller: &Caller) -> Value {
    caller
        .tags
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
        .collect()
}

/// What was known when attempts started, column by column.
#[derive(Default)]
pub(crate) struct Starts {
    pub(crate) attempt_id: Vec<Uuid>,
    pub(crate) request_id: Vec<Uuid>,
    pub(crate) generation: Vec<i64>,
    pub(crate) retry: Vec<i64>,
    pub(crate) hedge: Vec<bool>,
    pub(crate) provider: Vec<String>,
    pub(crate) provider_model: Vec<String>,
    pub(crate) model: Vec<String>,
    pub(crate) key_id: Vec<Uuid>,
    pub(crate) key_name: Vec<String>,
    pub(crate) tags: Vec<Value>,
    pub(crate) dialect: Vec<String>,
    pub(crate) operation: Vec<String>,
    pub(crate) stream: Vec<bool>,
    pub(crate) started_at: Vec<DateTime<Utc>>,
    pub(crate) deadline_at: Vec<DateTime<Utc>>,
    pub(crate) estimated_input_tokens: Vec<i64>,
    pub(crate) max_output_tokens: Vec<Option<i64>>,
    pub(crate) organisation: Vec<Option<String>>,
    pub(crate) team: Vec<Option<String>>,
    pub(crate) end_user: Vec<Option<String>>,
    pub(crate) hold_usd: Vec<Option<Decimal>>,
    /// JSON: the database has no arrays of arrays of different lengths.
    pub(crate) hold_leases: Vec<Option<Value>>,
}

impl Starts {
    pub(crate) fn push(&mut self, attempt: &Attempt) {
        self.attempt_id.push(attempt.attempt_id.as_uuid());
        self.request_id.push(attempt.request_id.as_uuid());
        self.generation.push(attempt.generation.into());
        self.retry.push(attempt.retry.into());
        self.hedge.push(attempt.hedge);
        self.provider.push(attempt.target.provider.clone());
        self.provider_model.push(attempt.target.model.clone());
        self.model.push(attempt.model.clone());
        self.key_id.push(attempt.caller.key_id.as_uuid());
        self.key_name.push(attempt.caller.key_name.clone());
        self.tags.push(tags(&attempt.caller));
        self.dialect.push(attempt.dialect.as_str().to_owned());
        self.operation.push(attempt.operation.as_str().to_owned());
        self.stream.push(attempt.stream);
        self.started_at.push(attempt.started_at.to_datetime());
        self.deadline_at.push(attempt.deadline.to_datetime());
        self.estimated_input_tokens.push(bigint(attempt.estimated_input_tokens));
        self.max_output_tokens.push(attempt.max_output_tokens.map(bigint));
        self.organisation.push(attempt.caller.tenant.organisation.clone());
        self.team.push(attempt.caller.tenant.team.clone());
        self.end_user.push(attempt.caller.user.clone());
        let hold = attempt.hold.as_ref();
        self.hold_usd.push(hold.map(|hold| hold.usd));
        let ids = |hold: &Hold| hold.leases.iter().map(|lease| json!(lease.as_uuid())).collect();
        self.hold_leases.push(hold.map(ids));
    }
}

/// How attempts ended, column by column; all absent for one that is open.
#[derive(Default)]
pub(crate) struct Ends {
    pub(crate) outcome: Vec<Option<String>>,
    pub(crate) error_code: Vec<Option<String>>,
    pub(crate) provider_status: Vec<Option<i32>>,
    pub(crate) served_model: Vec<Option<String>>,
    pub(crate) input_tokens: Vec<Option<i64>>,
    pub(crate) cached_input_tokens: Vec<Option<i64>>,
    pub(crate) cache_write_input_tokens: Vec<Option<i64>>,
    pub(crate) cache_write_1h_input_tokens: Vec<Option<i64>>,
    pub(crate) audio_input_tokens: Vec<Option<i64>>,
    pub(crate) output_tokens: Vec<Option<i64>>,
    pub(crate) reasoning_tokens: Vec<Option<i64>>,
    pub(crate) audio_output_tokens: Vec<Option<i64>>,
    pub(crate) web_searches: Vec<Option<i64>>,
    pub(crate) usage_source: Vec<Option<String>>,
    pub(crate) price_id: Vec<Option<i64>>,
    pub(crate) cost_usd: Vec<Option<Decimal>>,
    pub(crate) cost_breakdown: Vec<Option<Value>>,
    pub(crate) ended_at: Vec<Option<DateTime<Utc>>>,
    pub(crate) first_token_ms: Vec<Option<i64>>,
}

impl Ends {
    pub(crate) fn push(&mut self, end: Option<&(&Settlement, Charge)>) {
        let settlement = end.map(|(settlement, _)| *settlement);
        self.outcome.push(settlement.map(|end| end.outcome.as_str().to_owned()));
        self.error_code.push(
            settlement
                .and_then(|end| end.error)
                .map(|code| code.as_str().to_owned()),
        );
        self.provider_status
            .push(settlement.and_then(|end| end.provider_status).map(Into::into));
        self.served_model
            .push(settlement.and_then(|end| end.served_model.clone()));
        let count = |column: &mut Vec<Option<i64>>, of: fn(&Usage) -> u64| {
            column.push(settlement.map(|end| bigint(of(&end.usage))));
        };
        count(&mut self.input_tokens, |used| used.input_tokens);
        count(&mut self.cached_input_tokens, |used| used.cached_input_tokens);
        count(&mut self.cache_write_input_tokens, |used| used.cache_write_input_tokens);
        count(&mut self.cache_write_1h_input_tokens, |used| {
            used.cache_write_1h_input_tokens
        });
        count(&mut self.audio_input_tokens, |used| used.audio_input_tokens);
        count(&mut self.output_tokens, |used| used.output_tokens);
        count(&mut self.reasoning_tokens, |used| used.reasoning_tokens);
        count(&mut self.audio_output_tokens, |used| used.audio_output_tokens);
        count(&mut self.web_searches, |used| used.web_searches);
        self.usage_source
            .push(settlement.map(|end| end.usage_source.as_str().to_owned()));
        self.price_id.push(end.and_then(|(_, charge)| charge.price_id));
        self.cost_usd
            .push(end.and_then(|(_, charge)| charge.cost).map(|cost| cost.amount()));
        self.cost_breakdown
            .push(end.and_then(|(_, charge)| charge.breakdown.clone()));
        self.ended_at.push(settlement.map(|end| end.ended_at.to_datetime()));
        self.first_token_ms
            .push(settlement.and_then(|end| end.first_token_ms).map(bigint));
    }
}

/// The charge for a settled attempt.
pub(crate) fn charge(book: &Catalogue, lists: &PriceLists, attempt: &Attempt, settlement: &Settlement) -> Charge {
    let call = Call {
        provider: &attempt.target.provider,
        served: settlement.served_model.as_deref(),
        asked: &attempt.target.model,
        region: None,
        at: attempt.started_at.to_datetime(),
    };
    price::charge(book, lists, call, &settlement.used(), settlement.usage_source)
}
