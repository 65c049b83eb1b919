//! The comparison of the books: the provider's log, the clients' and the ledger's.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    time::Duration,
};

use rust_decimal::Decimal;
use tollgate_audit::GroupBy;
use tollgate_simulator::{Call, Outcome};
use tollgate_types::{AttemptId, Millis, RequestId, Tenant};

use super::{faults::Made, load::Load, stack::Stack};

/// A replica gives a slice up after a minute, with what it had reserved and was never told the end of; audit then waits a while for
/// calls that may still start.
const LEASES: Duration = Duration::from_secs(150);

/// What was counted, and what does not agree.
#[derive(Default)]
pub(super) struct Books {
    counts: Vec<(&'static str, u64)>,
    refused: BTreeMap<String, u64>,
    /// Each must be nothing.
    differences: Vec<(&'static str, u64, String)>,
}

impl Books {
    pub(super) fn agree(&self) -> bool {
        self.differences.iter().all(|(_, count, _)| *count == 0)
    }

    fn count(&mut self, what: &'static str, count: usize) {
        self.counts.push((what, count as u64));
    }

    /// With an example, so that the logs can be searched.
    fn differ<T: fmt::Display>(&mut self, what: &'static str, found: impl IntoIterator<Item = T>) {
        let mut found = found.into_iter().peekable();
        let example = found.peek().map(ToString::to_string).unwrap_or_default();
        self.differences.push((what, found.count() as u64, example));
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.counts {
            writeln!(f, "{what:<58} {count:>9}")?;
        }
        for (code, count) in &self.refused {
            writeln!(f, "  refused with {code:<43} {count:>9}")?;
        }
        writeln!(f)?;
        for (what, count, example) in &self.differences {
            writeln!(f, "{what:<58} {count:>9}  {example}")?;
        }
        writeln!(
            f,
            "{}",
            if self.agree() {
                "the books agree"
            } else {
                "the books do NOT agree"
            }
        )
    }
}

pub(super) async fn compare(stack: &Stack, load: &Load, made: &Made, only_restarts: bool) -> anyhow::Result<Books> {
    let mut books = Books::default();
    for (what, count) in made {
        books.counts.push((what, *count));
    }
    let store = stack.store()?;
    let attempts = store.all_attempts().await?;
    let calls = stack.simulator.calls();
    let told = load.told();
    let accepted = load.accepted_jobs();
    let jobs: HashMap<_, _> = store.all_jobs().await?.into_iter().collect();

    books.count("interactive requests answered", told.answered.len());
    books.count(
        "  connections that broke, mostly with their ingress",
        usize::try_from(told.broken.0)?,
    );
    books.count("  with a second provider", usize::try_from(told.spared.0)?);
    books.count("    that failed nevertheless", usize::try_from(told.spared.1)?);
    let failed = told.broken.0 + told.refused.values().sum::<u64>();
    books.refused = told.refused;
    books.count("jobs accepted", accepted.len());
    books.count(
        "jobs answered",
        jobs.values().filter(|state| *state == "answered").count(),
    );
    books.count("calls in the provider's log", calls.len());
    books.count("attempts in the ledger", attempts.len());
    books.count(
        "  of them orphaned",
        attempts.iter().filter(|attempt| attempt.state == "orphaned").count(),
    );

    // Both lanes: the provider's log against the ledger, call by call.
    let rows: HashMap<AttemptId, _> = attempts.iter().map(|attempt| (attempt.attempt_id, attempt)).collect();
    let mut seen: HashMap<AttemptId, &Call> = HashMap::new();
    let (mut twice, mut unknown, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
    for call in &calls {
        let Some(id) = call.id.as_deref().and_then(|id| id.parse::<AttemptId>().ok()) else {
            unknown.push(format!("{:?}", call.id));
            continue;
        };
        if seen.insert(id, call).is_some() {
            twice.push(id);
        }
        match rows.get(&id) {
            None => unknown.push(id.to_string()),
            Some(row) if row.usage_source.as_deref() == Some("provider") && call.outcome == Outcome::Ok => {
                let billed = (call.input_tokens.cast_signed(), call.output_tokens.cast_signed());
                if (row.input_tokens, row.output_tokens) != (Some(billed.0), Some(billed.1)) {
                    tokens.push(id);
                }
            }
            Some(_) => {}
        }
    }
    books.differ("calls without a row in the ledger", unknown);
    books.differ("attempts that reached the provider twice", twice);
    books.differ("answered calls whose tokens differ", tokens);
    books.differ(
        "rows that say answered, of calls that the provider has not answered",
        attempts
            .iter()
            .filter(|row| row.outcome.as_deref() == Some("answered"))
            .filter(|row| seen.get(&row.attempt_id).is_none_or(|call| call.outcome != Outcome::Ok))
            .map(|row| row.attempt_id),
    );
    books.differ(
        "attempts still open",
        attempts
            .iter()
            .filter(|row| row.state == "open")
            .map(|row| row.attempt_id),
    );

    // Money: what the budget was charged is what the ledger says, and nothing of it stays in hand.
    books.differ("sums and leases that are not the ledger's", store.wrong_sums().await?);
    let (spent, leased) = stack.budget(LEASES).await?;
    let cost = store
        .cost(GroupBy::Provider, &Tenant::default(), Millis(0), Millis::now())
        .await?;
    let cost: Decimal = cost.iter().map(|row| row.cost_usd.amount()).sum();
    books.differ(
        "US dollars that the budget was charged beside the ledger",
        Some(spent - cost).filter(|apart| !apart.is_zero()),
    );
    books.differ(
        "US dollars of the budget still in hand",
        Some(leased).filter(|some| !some.is_zero()),
    );

    // Requests: each answered once, and each that a client was answered is in the ledger.
    let mut answered: BTreeMap<RequestId, u32> = BTreeMap::new();
    for row in attempts.iter().filter(|row| row.outcome.as_deref() == Some("answered")) {
        *answered.entry(row.request_id).or_default() += 1;
    }
    let job_requests: BTreeSet<RequestId> = accepted.keys().map(|id| id.request_id()).collect();
    books.differ(
        "jobs that the provider answered, and billed, twice",
        job_requests
            .iter()
            .filter(|id| answered.get(id).is_some_and(|times| *times > 1)),
    );
    books.differ(
        "answers to clients that are not in the ledger",
        told.answered.iter().filter(|id| !answered.contains_key(id)),
    );
    books.differ(
        "answers to another question",
        std::iter::repeat_n("", usize::try_from(told.wrong)?),
    );

    if only_restarts {
        books.differ(
            "requests that failed though roles were only restarted",
            std::iter::repeat_n(&told.broken.1, usize::try_from(failed)?),
        );
    }

    // Jobs: what was accepted has ended, answered, with its own answer.
    books.differ(
        "accepted jobs that are lost",
        accepted.keys().filter(|id| !jobs.contains_key(id)),
    );
    books.differ(
        "accepted jobs that were not answered",
        accepted
            .keys()
            .filter(|id| jobs.get(id).is_some_and(|state| state != "answered")),
    );
    let mut wrong = Vec::new();
    for (id, text) in &accepted {
        if load.answer(*id).await? != format!("You said: {text}") {
            wrong.push(*id);
        }
    }
    books.differ("jobs whose answer cannot be fetched or is another's", wrong);
    Ok(books)
}
