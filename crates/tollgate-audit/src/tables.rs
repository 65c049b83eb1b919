//! Reports beside costs by a group: what was paid for a unit, what caches saved, what went wrong, what the month comes to.
//!
//! Each is a view of `docs/sql.md`, of one tenant or of all: the queries behind gRPC's `Reports` and the command `report`.

use chrono::NaiveDate;
use tollgate_proto::v1;
use tollgate_types::Tenant;

use crate::{Error, Store};

/// Which report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// What was paid for each unit.
    UnitPrices,
    /// What tokens cost that providers read from their caches, and how much less that was.
    CacheSavings,
    /// What calls cost that brought no answer.
    Retries,
    /// What calls cost that were made because others were slow.
    Hedges,
    /// Calls without a price.
    Unpriced,
    /// Calls whose end nobody saw.
    Orphaned,
    /// What this month comes to.
    Forecast,
    /// What was billed, with the columns of `FinOps` FOCUS.
    Focus,
}

/// What the cells of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// A whole number.
    Count,
    /// An exact decimal.
    Decimal,
}

/// A column's name, and what is in it.
pub type Column = (&'static str, Kind);

/// Days in UTC, the last one excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days {
    pub since: NaiveDate,
    pub until: NaiveDate,
}

impl Days {
    /// All that there are.
    pub const ALL: Self = Self {
        since: day(1, 1, 1),
        until: day(9999, 12, 31),
    };
}

const fn day(year: i32, month: u32, day: u32) -> NaiveDate {
    match NaiveDate::from_ymd_opt(year, month, day) {
        Some(day) => day,
        None => NaiveDate::MIN,
    }
}

/// Which of a report's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub limit: u32,
    pub offset: u32,
}

use Kind::{Count, Decimal, Text};

const UNIT_PRICES: &[Column] = &[
    ("day", Text),
    ("provider", Text),
    ("provider_model", Text),
    ("tier", Text),
    ("unit", Text),
    ("quantity", Decimal),
    ("usd", Decimal),
    ("lowest_rate_usd", Decimal),
    ("highest_rate_usd", Decimal),
    ("average_rate_usd", Decimal),
];
const CACHE_SAVINGS: &[Column] = &[
    ("day", Text),
    ("provider", Text),
    ("provider_model", Text),
    ("organisation", Text),
    ("team", Text),
    ("key", Text),
    ("cached_tokens", Count),
    ("cost_usd", Decimal),
    ("saved_usd", Decimal),
];
const RETRIES: &[Column] = &[
    ("day", Text),
    ("model", Text),
    ("requests_tried_again", Count),
    ("further_calls", Count),
    ("never_answered", Count),
    ("lost_usd", Decimal),
    ("cost_usd", Decimal),
];
const HEDGES: &[Column] = &[
    ("day", Text),
    ("model", Text),
    ("hedged_requests", Count),
    ("hedges", Count),
    ("answered_by_hedge", Count),
    ("cost_usd", Decimal),
    ("extra_usd", Decimal),
];
const UNPRICED: &[Column] = &[
    ("day", Text),
    ("provider", Text),
    ("provider_model", Text),
    ("served_model", Text),
    ("organisation", Text),
    ("team", Text),
    ("key", Text),
    ("calls", Count),
    ("input_tokens", Count),
    ("output_tokens", Count),
];
const ORPHANED: &[Column] = &[
    ("day", Text),
    ("provider", Text),
    ("model", Text),
    ("organisation", Text),
    ("team", Text),
    ("key", Text),
    ("calls", Count),
    ("input_tokens", Count),
    ("output_tokens", Count),
    ("cost_usd", Decimal),
];
const FORECAST: &[Column] = &[
    ("month", Text),
    ("organisation", Text),
    ("team", Text),
    ("spent_usd", Decimal),
    ("forecast_usd", Decimal),
];
const FOCUS: &[Column] = &[
    ("BilledCost", Decimal),
    ("BillingCurrency", Text),
    ("BillingPeriodStart", Text),
    ("BillingPeriodEnd", Text),
    ("ChargeCategory", Text),
    ("ChargePeriodStart", Text),
    ("ChargePeriodEnd", Text),
    ("ServiceCategory", Text),
    ("ServiceName", Text),
    ("ProviderName", Text),
    ("ResourceId", Text),
    ("SkuId", Text),
    ("ConsumedQuantity", Decimal),
    ("ConsumedUnit", Text),
    ("ContractedUnitPrice", Decimal),
    ("SubAccountId", Text),
    ("Tags", Text),
];

impl Table {
    /// Its columns, in the order of the cells of its rows.
    #[must_use]
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Self::UnitPrices => UNIT_PRICES,
            Self::CacheSavings => CACHE_SAVINGS,
            Self::Retries => RETRIES,
            Self::Hedges => HEDGES,
            Self::Unpriced => UNPRICED,
            Self::Orphaned => ORPHANED,
            Self::Forecast => FORECAST,
            Self::Focus => FOCUS,
        }
    }

    /// What the contract calls it; `None` for a value that the contract does not have.
    #[must_use]
    pub const fn from_wire(table: v1::Table) -> Option<Self> {
        match table {
            v1::Table::Unspecified => None,
            v1::Table::UnitPrices => Some(Self::UnitPrices),
            v1::Table::CacheSavings => Some(Self::CacheSavings),
            v1::Table::Retries => Some(Self::Retries),
            v1::Table::Hedges => Some(Self::Hedges),
            v1::Table::Unpriced => Some(Self::Unpriced),
            v1::Table::Orphaned => Some(Self::Orphaned),
            v1::Table::Forecast => Some(Self::Forecast),
            v1::Table::Focus => Some(Self::Focus),
        }
    }
}

impl Store {
    /// The rows of a report that are of the tenant and of these days; each has a cell for each of [`Table::columns`], empty where
    /// there is nothing.
    pub async fn table(
        &self,
        table: Table,
        tenant: &Tenant,
        days: Days,
        page: Page,
    ) -> Result<Vec<Vec<String>>, Error> {
        macro_rules! rows {
            ($file:literal) => {
                sqlx::query_file_scalar!(
                    $file,
                    days.since,
                    days.until,
                    tenant.organisation,
                    tenant.team,
                    i64::from(page.limit),
                    i64::from(page.offset),
                )
                .fetch_all(&self.pool)
                .await
            };
        }
        Ok(match table {
            Table::UnitPrices => rows!("queries/tables/unit_prices.sql"),
            Table::CacheSavings => rows!("queries/tables/cache_savings.sql"),
            Table::Retries => rows!("queries/tables/retries.sql"),
            Table::Hedges => rows!("queries/tables/hedges.sql"),
            Table::Unpriced => rows!("queries/tables/unpriced.sql"),
            Table::Orphaned => rows!("queries/tables/orphaned.sql"),
            Table::Forecast => rows!("queries/tables/forecast.sql"),
            Table::Focus => rows!("queries/tables/focus.sql"),
        }?)
    }
}
