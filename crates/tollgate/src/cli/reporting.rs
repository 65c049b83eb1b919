//! Arguments of `tollgate report`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use rust_decimal::Decimal;
use tollgate_audit::Store;

use super::Format;
use crate::running::Running;

#[derive(Subcommand)]
pub(crate) enum ReportCommand {
    /// What was spent
    Cost {
        #[arg(long, value_enum, default_value_t = By::Model)]
        by: By,
        /// How far back: 12h, 7d, or 0 for everything
        #[arg(long, default_value = "7d")]
        since: String,
        #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
        format: ReportFormat,
        #[command(flatten)]
        ledger: LedgerArgs,
    },
    #[command(flatten)]
    Table(TableCommand),
    /// Hold a provider's bill, or its export of usage, against the ledger; ends with 1 where they differ
    Reconcile {
        /// JSON of OpenAI's or Anthropic's usage or cost API, or CSV with named columns; `-` reads standard input
        #[arg(long, value_name = "FILE")]
        bill: PathBuf,
        /// Names of the providers in the configuration whose calls it bills; all unless given
        #[arg(long, value_delimiter = ',')]
        provider: Vec<String>,
        /// US dollars by which a line may differ
        #[arg(long, default_value = "0.005")]
        tolerance: Decimal,
        /// Print lines that are equal too
        #[arg(long)]
        all: bool,
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        #[command(flatten)]
        ledger: LedgerArgs,
    },
}

/// The other reports, each by day.
#[derive(Subcommand)]
pub(crate) enum TableCommand {
    /// What was paid for each unit
    UnitPrices(TableArgs),
    /// What tokens cost that providers read from their caches, and how much less that was
    CacheSavings(TableArgs),
    /// What calls cost that brought no answer
    Retries(TableArgs),
    /// What calls cost that were made because others were slow
    Hedges(TableArgs),
    /// Calls without a price
    Unpriced(TableArgs),
    /// Calls whose end nobody saw
    Orphaned(TableArgs),
    /// What this month comes to
    Forecast(TableArgs),
    /// What was billed, with the columns of FinOps FOCUS
    Focus(TableArgs),
}

#[derive(Args)]
pub(crate) struct TableArgs {
    /// How far back, in whole days of UTC: 12h, 30d, or 0 for everything
    #[arg(long, default_value = "7d")]
    pub(crate) since: String,
    /// Only of this organisation
    #[arg(long)]
    pub(crate) organisation: Option<String>,
    /// Only of this team of the organisation
    #[arg(long, requires = "organisation")]
    pub(crate) team: Option<String>,
    #[arg(long, value_enum, default_value_t = TableFormat::Table)]
    pub(crate) format: TableFormat,
    #[command(flatten)]
    pub(crate) ledger: LedgerArgs,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum TableFormat {
    Table,
    Csv,
    Json,
}

/// The ledger itself.
#[derive(Args)]
pub(crate) struct LedgerArgs {
    /// Postgres; that of the running `tollgate up`, unless given
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
}

impl LedgerArgs {
    pub(crate) fn open(self) -> anyhow::Result<Store> {
        let url = self
            .database_url
            .or_else(|| Running::find().map(|stack| stack.database_url))
            .context("no `tollgate up` is running here; set DATABASE_URL")?;
        Ok(Store::connect(&url, 1)?)
    }
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum By {
    Day,
    Model,
    Provider,
    Key,
    Tag,
    Hour,
    Organisation,
    Team,
    User,
    Region,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum ReportFormat {
    Table,
    Csv,
    Json,
    /// A bar for each group
    Chart,
}
