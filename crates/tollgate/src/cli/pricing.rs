//! Arguments of `tollgate prices`, and where audit is.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub(crate) enum PricesCommand {
    /// What a call costs, part by part, as JSON
    Cost {
        /// Preset or name of the provider: openai, anthropic, gemini, bedrock, …
        #[arg(long)]
        provider: String,
        /// As the provider knows it
        #[arg(long)]
        model: String,
        /// A file with the usage in the provider's own JSON, or the answer that has it; `-` reads standard input
        #[arg(long)]
        usage: PathBuf,
        /// The service tier, where the provider does not say which it served
        #[arg(long)]
        tier: Option<String>,
        /// Where the call was served
        #[arg(long)]
        region: Option<String>,
        /// When it started, as 2026-11-23T08:00:00Z; now unless given
        #[arg(long)]
        at: Option<DateTime<Utc>>,
        #[command(flatten)]
        sheets: Sheets,
    },
    /// Price sheets, one a line, as JSON
    Show {
        #[arg(long)]
        provider: Option<String>,
        /// Those of this very model, or that stand for it
        #[arg(long)]
        model: Option<String>,
        /// Those of the ledger, with what was entered there, in place of the shipped ones
        #[arg(long, conflicts_with = "sheets")]
        live: bool,
        /// With --live: also those that hold no more, or not yet
        #[arg(long, requires = "live")]
        all: bool,
        #[command(flatten)]
        sheets: Sheets,
        #[command(flatten)]
        endpoint: AuditEndpoint,
    },
    /// Enter a file of own sheets, one a line, into the ledger
    Import {
        /// `-` reads standard input
        file: PathBuf,
        #[command(flatten)]
        endpoint: AuditEndpoint,
    },
    /// What `import` would change
    Diff {
        /// `-` reads standard input
        file: PathBuf,
        #[command(flatten)]
        endpoint: AuditEndpoint,
    },
    /// Enter the price of one model into the ledger, in US dollars for a million tokens
    Set {
        /// Name of the provider in the configuration; `*` makes a default for all that have no price
        provider: String,
        /// As the provider knows it; one that ends with `*` stands for all that begin so
        model: String,
        /// Rates by what they are for: input=3 output=15 cached_input=0.3 input@batch=1.5 web_search=0.01 …
        #[arg(required = true, value_name = "UNIT=USD")]
        rates: Vec<String>,
        /// A share off the whole, from 0 to 1
        #[arg(long)]
        discount: Option<String>,
        #[arg(long)]
        region: Option<String>,
        /// From this moment, as 2026-11-23T08:00:00Z; now unless given, or from always for a model without a price
        #[arg(long)]
        from: Option<DateTime<Utc>>,
        /// Where the price was read
        #[arg(long, default_value = "set by hand")]
        source: String,
        #[command(flatten)]
        endpoint: AuditEndpoint,
    },
}

/// Where audit serves reports and administration.
#[derive(Args, Clone)]
pub(crate) struct AuditEndpoint {
    /// gRPC endpoint of audit; that of the running `tollgate up`, unless given
    #[arg(long, env = "TOLLGATE_REPORTS")]
    pub(crate) audit: Option<String>,
    #[arg(long, env = "TOLLGATE_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
}

#[derive(Args)]
pub(crate) struct Sheets {
    /// A file of own price sheets, one a line, that go before the shipped ones
    #[arg(long, value_name = "FILE")]
    pub(crate) sheets: Option<PathBuf>,
}
