//! `tollgate init`: what Tollgate needs in NATS and Postgres. Idempotent, so that a job can run it at every release.

use anyhow::Context;
use secrecy::ExposeSecret;
use tollgate_bus::Bus;
use tollgate_config::Config;

use crate::cli::RoleArgs;

pub(crate) async fn run(args: &RoleArgs) -> anyhow::Result<()> {
    let config = tollgate_config::load(&args.config)?;
    eprintln!("tollgate: waiting for NATS and Postgres");
    let database = config
        .audit
        .database_url
        .as_ref()
        .context("set DATABASE_URL or audit.database_url")?;
    initialise(&config, database.resolve()?.expose_secret()).await?;
    eprintln!("tollgate: NATS and Postgres are ready");
    Ok(())
}

pub(crate) async fn initialise(config: &Config, database_url: &str) -> anyhow::Result<()> {
    Bus::connect(&config.bus, "tollgate-init").await?.init().await?;
    tollgate_audit::migrate(database_url).await?;
    Ok(())
}
