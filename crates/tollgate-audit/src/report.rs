//! What calls cost, by a group: the query behind gRPC's `Reports` and the command `report`.
//!
//! An attempt counts once it has completed. One that is under way has no numbers yet and is in no report.

use rust_decimal::Decimal;
use tollgate_proto::v1;
use tollgate_types::{Millis, Tenant, Usd};

use crate::{Error, Store, rows::TIME_LIMIT};

/// What the rows of a report stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupBy {
    /// UTC days, written `2026-01-31`.
    Day,
    /// The public model name.
    Model,
    Provider,
    /// The key's name in the configuration.
    Key,
    /// A label of the key, written `name=value`. A call with two labels is in two rows, one without labels in none.
    Tag,
    /// UTC hours, written `2026-01-31 15:00`.
    Hour,
    /// Here and below, calls of none are in a group without a name.
    Organisation,
    /// Written `organisation/team`.
    Team,
    /// The callers' own users.
    User,
    /// Where the provider served.
    Region,
}

impl GroupBy {
    /// The name used in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Key => "key",
            Self::Tag => "tag",
            Self::Hour => "hour",
            Self::Organisation => "organisation",
            Self::Team => "team",
            Self::User => "user",
            Self::Region => "region",
        }
    }

    /// What the contract calls it; `None` for a value that the contract does not have.
    #[must_use]
    pub const fn from_wire(by: v1::GroupBy) -> Option<Self> {
        match by {
            v1::GroupBy::Unspecified => None,
            v1::GroupBy::Day => Some(Self::Day),
            v1::GroupBy::Model => Some(Self::Model),
            v1::GroupBy::Provider => Some(Self::Provider),
            v1::GroupBy::Key => Some(Self::Key),
            v1::GroupBy::Tag => Some(Self::Tag),
            v1::GroupBy::Hour => Some(Self::Hour),
            v1::GroupBy::Organisation => Some(Self::Organisation),
            v1::GroupBy::Team => Some(Self::Team),
            v1::GroupBy::User => Some(Self::User),
            v1::GroupBy::Region => Some(Self::Region),
        }
    }
}

impl From<GroupBy> for v1::GroupBy {
    fn from(by: GroupBy) -> Self {
        match by {
            GroupBy::Day => Self::Day,
            GroupBy::Model => Self::Model,
            GroupBy::Provider => Self::Provider,
            GroupBy::Key => Self::Key,
            GroupBy::Tag => Self::Tag,
            GroupBy::Hour => Self::Hour,
            GroupBy::Organisation => Self::Organisation,
            GroupBy::Team => Self::Team,
            GroupBy::User => Self::User,
            GroupBy::Region => Self::Region,
        }
    }
}

/// The calls of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostRow {
    pub group: String,
    pub calls: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// Without the unpriced calls.
    pub cost_usd: Usd,
    /// Calls for which no price is known.
    pub unpriced_calls: u64,
    /// Calls whose end nobody saw; they count with their estimates.
    pub orphaned_calls: u64,
}

impl From<CostRow> for v1::CostRow {
    fn from(row: CostRow) -> Self {
        Self {
            group: row.group,
            calls: row.calls,
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            cost_usd: row.cost_usd.to_string(),
            unpriced_calls: row.unpriced_calls,
            orphaned_calls: row.orphaned_calls,
        }
    }
}

/// Fails when the cost is no decimal number.
impl TryFrom<v1::CostRow> for CostRow {
    type Error = rust_decimal::Error;

    fn try_from(row: v1::CostRow) -> Result<Self, Self::Error> {
        Ok(Self {
            group: row.group,
            calls: row.calls,
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            cost_usd: row.cost_usd.parse()?,
            unpriced_calls: row.unpriced_calls,
            orphaned_calls: row.orphaned_calls,
        })
    }
}

struct Row {
    group: String,
    calls: i64,
    input_tokens: i64,
    output_tokens: i64,
    cost_usd: Decimal,
    unpriced_calls: i64,
    orphaned_calls: i64,
}

impl From<Row> for CostRow {
    fn from(row: Row) -> Self {
        Self {
            group: row.group,
            calls: row.calls.unsigned_abs(),
            input_tokens: row.input_tokens.unsigned_abs(),
            output_tokens: row.output_tokens.unsigned_abs(),
            cost_usd: row.cost_usd.into(),
            unpriced_calls: row.unpriced_calls.unsigned_abs(),
            orphaned_calls: row.orphaned_calls.unsigned_abs(),
        }
    }
}

impl Store {
    /// What the calls of the tenant cost that started at or after `since` and before `until`, sorted by group.
    pub async fn cost(
        &self,
        by: GroupBy,
        tenant: &Tenant,
        since: Millis,
        until: Millis,
    ) -> Result<Vec<CostRow>, Error> {
        let rows = sqlx::query_file_as!(
            Row,
            "queries/cost.sql",
            bounded(since).to_datetime(),
            bounded(until).to_datetime(),
            by.as_str(),
            tenant.organisation,
            tenant.team,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }
}

/// A time that Postgres can hold: "until the end of time" is a fair question.
fn bounded(time: Millis) -> Millis {
    time.min(TIME_LIMIT)
}
