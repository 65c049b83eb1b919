//! `tollgate chaos`: runs a whole Tollgate under load, breaks it on purpose, and compares the books.
//!
//! Real processes, NATS and Postgres; a simulated provider, which keeps a log of its own. What is compared is that log, what
//! the clients were told, and what SQL says. Tollgate's metrics are not asked.

mod faults;
mod load;
mod proxy;
mod reconcile;
mod stack;

use std::{io::Write, process::ExitCode, sync::Arc, time::Duration};

use rand::{SeedableRng, rngs::StdRng};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cli::ChaosArgs;
pub(crate) use faults::Fault;
use faults::Faults;
use load::Load;
use stack::Stack;

impl ChaosArgs {
    /// Nothing happens that may fail a request.
    fn only_restarts(&self) -> bool {
        self.faults.iter().all(|fault| *fault == Fault::Restart) && self.provider_errors == 0.0
    }
}

/// After the faults, everything has this long to come to its end.
const CALM: Duration = Duration::from_secs(180);

pub(crate) async fn run(args: ChaosArgs) -> anyhow::Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(rand::random);
    let time = Duration::from_secs_f64(args.minutes * 60.0);
    eprintln!(
        "tollgate: {} min of chaos, seed {seed}; the same seed breaks the same things in the same order",
        args.minutes
    );
    let stack = Stack::start(&args).await?;
    eprintln!("  logs in {}", stack.logs().display());
    let begun = Instant::now();
    let calm = CancellationToken::new();
    let load = Arc::new(Load::new(&stack, seed, args.jobs_per_second, args.clients)?);
    let driving = tokio::spawn(Arc::clone(&load).drive(calm.clone()));
    let mut faults = Faults::new(stack, args.faults.clone(), StdRng::seed_from_u64(seed));
    let broken = tokio::select! {
        broken = faults.make(begun + time) => broken,
        signal = tokio::signal::ctrl_c() => signal.map_err(Into::into),
    };
    calm.cancel();
    driving.await?;
    broken?;
    let (mut stack, made) = faults.end().await;
    eprintln!("  calm: waiting for everything to end");
    stack.heal().await?;
    let settled = stack.settle(&load, CALM).await;
    let books = reconcile::compare(&stack, &load, &made, args.only_restarts()).await;
    stack.stop().await;
    settled?;
    let books = books?;
    write!(std::io::stdout(), "{books}")?;
    Ok(if books.agree() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
