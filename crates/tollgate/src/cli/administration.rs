//! Arguments of `tollgate keys`, `tenants` and `audit`.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use tollgate_types::{Door, Lane, Permission, Role};

use super::{AuditEndpoint, Format};

#[derive(Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key and print it, once, with the entry for the configuration
    New {
        #[arg(long)]
        name: String,
    },
    /// Print the hash of a key that is read from standard input
    Hash,
    /// Issue a key while the gateway runs; its secret is printed once
    Create {
        name: String,
        #[command(flatten)]
        tenant: TenantArgs,
        #[command(flatten)]
        rights: Box<RightsArgs>,
        /// Until this moment, as 2027-01-01T00:00:00Z
        #[arg(long)]
        expires: Option<DateTime<Utc>>,
        /// Enter a secret that exists already by its SHA-256, 64 hex digits
        #[arg(long, value_name = "HEX")]
        sha256: Option<String>,
        #[command(flatten)]
        endpoint: AuditEndpoint,
    },
    /// Keys that were issued
    List {
        #[command(flatten)]
        tenant: TenantArgs,
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        #[command(flatten)]
        endpoint: AuditEndpoint,
    },
    /// Replace what a key may do, and until when
    Update {
        /// Its name or its id
        key: String,
        #[command(flatten)]
        rights: Box<RightsArgs>,
        #[arg(long)]
        expires: Option<DateTime<Utc>>,
        #[command(flatten)]
        endpoint: AuditEndpoint,
    },
    /// Give a key a new secret
    Rotate {
        /// Its name or its id
        key: String,
        /// How long the secret before is still accepted, in seconds
        #[arg(long, default_value_t = 3600)]
        grace: u64,
        #[command(flatten)]
        endpoint: AuditEndpoint,
    },
    /// Take a key out of use, everywhere within a second
    Disable {
        /// Its name or its id
        key: String,
        #[command(flatten)]
        endpoint: AuditEndpoint,
    },
    /// Take a key into use again
    Enable {
        /// Its name or its id
        key: String,
        #[command(flatten)]
        endpoint: AuditEndpoint,
    },
}

#[derive(Subcommand)]
pub(crate) enum TenantsCommand {
    /// Make an organisation or a team, or replace what all its keys may do
    Put {
        #[arg(value_name = "ORGANISATION[/TEAM]")]
        tenant: String,
        #[command(flatten)]
        rights: Box<RightsArgs>,
        #[command(flatten)]
        endpoint: AuditEndpoint,
    },
    /// Organisations and teams
    List {
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        #[command(flatten)]
        endpoint: AuditEndpoint,
    },
}

#[derive(Subcommand)]
pub(crate) enum AuditCommand {
    /// Who changed what, one event a line, as JSON
    Log {
        /// Those after the event of this number
        #[arg(long, default_value_t = 0)]
        after: u64,
        #[command(flatten)]
        endpoint: AuditEndpoint,
    },
    /// Check that no event was changed, left out or put in
    Verify {
        #[command(flatten)]
        endpoint: AuditEndpoint,
    },
}

#[derive(Subcommand)]
pub(crate) enum LimitsCommand {
    /// Make a limit, or replace what the one of this name allows
    Put(Box<PutLimitArgs>),
    /// Limits, and how they stand
    List {
        #[command(flatten)]
        tenant: TenantArgs,
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        #[command(flatten)]
        endpoint: AuditEndpoint,
    },
    /// Add to the amount of a budget
    TopUp {
        limit: String,
        /// US dollars; below zero takes some back
        #[arg(allow_negative_numbers = true)]
        usd: String,
        #[command(flatten)]
        endpoint: AuditEndpoint,
    },
    /// End a limit
    Remove {
        limit: String,
        #[command(flatten)]
        endpoint: AuditEndpoint,
    },
}

/// A limit: how much of what, in which time, for whom. It is for everybody unless something is named.
#[derive(Args)]
pub(crate) struct PutLimitArgs {
    pub(crate) name: String,
    /// US dollars
    #[arg(long, value_name = "AMOUNT")]
    pub(crate) usd: Option<String>,
    #[arg(long, value_name = "COUNT")]
    pub(crate) requests: Option<u64>,
    /// Tokens of prompts
    #[arg(long, value_name = "COUNT")]
    pub(crate) input_tokens: Option<u64>,
    /// Tokens of answers
    #[arg(long, value_name = "COUNT")]
    pub(crate) output_tokens: Option<u64>,
    /// Tokens of both
    #[arg(long, value_name = "COUNT")]
    pub(crate) tokens: Option<u64>,
    /// Requests under way at once
    #[arg(long, value_name = "COUNT")]
    pub(crate) concurrency: Option<u64>,
    /// Of --usd: total, day, week or month, total unless given; else a time, as 60s, 1m or 1h
    #[arg(long)]
    pub(crate) per: Option<String>,
    /// Of days, weeks and months: an IANA name, as Europe/Berlin; UTC unless given
    #[arg(long)]
    pub(crate) time_zone: Option<String>,
    #[command(flatten)]
    pub(crate) tenant: TenantArgs,
    /// Name or id of a key
    #[arg(long)]
    pub(crate) key: Option<String>,
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) tag: Option<String>,
    #[arg(long)]
    pub(crate) model: Option<String>,
    #[arg(long)]
    pub(crate) provider: Option<String>,
    /// When audit cannot be asked: refuse, unless given, or allow
    #[arg(long)]
    pub(crate) when_away: Option<String>,
    /// Shares of a budget at which the webhook is called, as 0.5,0.8
    #[arg(long, value_delimiter = ',')]
    pub(crate) notify_at: Vec<f64>,
    /// An https address
    #[arg(long)]
    pub(crate) webhook: Option<String>,
    #[command(flatten)]
    pub(crate) endpoint: AuditEndpoint,
}

/// Whose a key is.
#[derive(Args)]
pub(crate) struct TenantArgs {
    #[arg(long)]
    pub(crate) organisation: Option<String>,
    #[arg(long)]
    pub(crate) team: Option<String>,
}

/// What keys may do. A list that is not given allows everything.
#[derive(Args)]
pub(crate) struct RightsArgs {
    /// complete, report, operate, prices, keys, audit; `complete` unless given
    #[arg(long, value_delimiter = ',')]
    pub(crate) permissions: Option<Vec<Permission>>,
    /// admin, operator, developer, auditor: their permissions
    #[arg(long, value_delimiter = ',')]
    pub(crate) roles: Option<Vec<Role>>,
    #[arg(long, value_delimiter = ',')]
    pub(crate) models: Option<Vec<String>>,
    #[arg(long, value_delimiter = ',')]
    pub(crate) providers: Option<Vec<String>>,
    #[arg(long, value_delimiter = ',')]
    pub(crate) regions: Option<Vec<String>>,
    /// openai, responses, anthropic, gemini, grpc
    #[arg(long, value_delimiter = ',')]
    pub(crate) doors: Option<Vec<Door>>,
    /// interactive, jobs
    #[arg(long, value_delimiter = ',')]
    pub(crate) lanes: Option<Vec<Lane>>,
    /// Guardrail policy
    #[arg(long)]
    pub(crate) policy: Option<String>,
    /// A label for each ledger row, name=value; may be given several times
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = parse_tag)]
    pub(crate) tags: Vec<(String, String)>,
    #[arg(long)]
    pub(crate) requests_per_minute: Option<u32>,
}

fn parse_tag(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[derive(Subcommand)]
pub(crate) enum ImportCommand {
    /// From LiteLLM's config.yaml, and its keys; prints what could not be carried over
    Litellm {
        config: PathBuf,
        /// Keys in JSON, as `/key/list` gives them or as rows of their table
        #[arg(long, value_name = "FILE")]
        keys: Option<PathBuf>,
        /// Where to write tollgate.yaml and prices.jsonl; nothing is written over
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        out: PathBuf,
    },
}
