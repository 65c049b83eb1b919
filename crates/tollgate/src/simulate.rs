//! `tollgate simulator`: the simulated provider as a process of its own.

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tollgate_simulator::{Script, Simulator};

use crate::cli::SimulatorArgs;

pub(crate) async fn run(args: SimulatorArgs) -> anyhow::Result<()> {
    let script = match &args.script {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{} is not a script", path.display()))?
        }
        None => Script::default(),
    };
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    eprintln!("tollgate: simulated provider at http://{}/v1", listener.local_addr()?);
    let stop = CancellationToken::new();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let serve = tollgate_simulator::run(listener, Simulator::new(script), stop.clone());
    tokio::pin!(serve);
    tokio::select! {
        ended = &mut serve => return Ok(ended?),
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    stop.cancel();
    Ok(serve.await?)
}
