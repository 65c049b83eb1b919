//! `tollgate up`: the whole of Tollgate on one machine, with nothing installed by hand.

mod exec;
mod plan;
mod settings;
mod stack;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Instant};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tollgate_devstack::{Paths, Progress};

use crate::{
    cli::UpArgs,
    running::{DATA, Running},
};
use settings::Settings;
use stack::Stack;

pub(crate) async fn run(args: UpArgs) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let progress: Progress = Arc::new(|line| eprintln!("  {line}"));
    // With --exec nothing is to be left behind, unless somebody wants to look at it afterwards.
    let (paths, _temporary) = match (&args.data, args.exec.is_empty()) {
        (Some(data), _) => (Paths::new(data.clone()), None),
        (None, true) => (Paths::new(PathBuf::from(DATA)), None),
        (None, false) => {
            let folder = Paths::temporary()?;
            ((*folder).clone(), Some(folder))
        }
    };
    let _lock = paths.lock()?;
    let mut stack = tokio::select! {
        stack = start(&args, paths, &progress) => stack?,
        signal = interrupted() => {
            signal?;
            return Ok(ExitCode::from(130));
        }
    };
    let ended = live(&args, &mut stack, begun).await;
    eprintln!("  stopping …");
    stack.stop().await;
    ended
}

async fn start(args: &UpArgs, paths: Paths, progress: &Progress) -> anyhow::Result<Stack> {
    let settings = Settings::prepare(args, &paths)?;
    eprintln!("{}", settings.summary());
    Stack::start(args, paths, settings, progress).await
}

/// From the first answer to the signal, or to the end of the command.
async fn live(args: &UpArgs, stack: &mut Stack, begun: Instant) -> anyhow::Result<ExitCode> {
    stack.all_ready().await?;
    let endpoints = stack.endpoints();
    // Commands in other terminals look in the usual folder only.
    let _published = args
        .exec
        .is_empty()
        .then(|| endpoints.publish(stack.data()))
        .transpose()?;
    // A command finds an empty ledger and a provider that has counted nothing yet.
    if stack.is_simulated() && args.exec.is_empty() {
        let answer = first_answer(&endpoints).await.context("the first answer failed")?;
        eprintln!("  first answer after {:.1} s: {answer}", begun.elapsed().as_secs_f64());
    }
    if let Some((command, arguments)) = args.exec.split_first() {
        return tokio::select! {
            status = exec::run(command, arguments, &endpoints) => status,
            broken = stack.watch() => Err(broken),
        };
    }
    welcome(&endpoints, stack);
    tokio::select! {
        signal = interrupted() => signal.map(|()| ExitCode::SUCCESS),
        broken = stack.watch() => Err(broken),
    }
}

async fn interrupted() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn first_answer(endpoints: &Running) -> anyhow::Result<String> {
    let client = reqwest::Client::new();
    let bearer = format!("Bearer {}", endpoints.api_key);
    let models = client
        .get(format!("{}/v1/models", endpoints.http))
        .header("authorization", &bearer)
        .send()
        .await?;
    let models: Value = serde_json::from_slice(&models.bytes().await?)?;
    let model = models
        .pointer("/data/0/id")
        .and_then(Value::as_str)
        .context("no model is listed")?;
    let body = json!({ "model": model, "messages": [{ "role": "user", "content": "hello, Tollgate" }] });
    let answer = client
        .post(format!("{}/v1/chat/completions", endpoints.http))
        .header("authorization", &bearer)
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await?;
    let answer: Value = serde_json::from_slice(&answer.bytes().await?)?;
    let text = answer.pointer("/choices/0/message/content").and_then(Value::as_str);
    Ok(text
        .with_context(|| format!("the answer was an error: {}", answer["error"]["message"]))?
        .to_owned())
}

fn welcome(endpoints: &Running, stack: &Stack) {
    eprintln!();
    eprintln!("  HTTP      {}/v1   (OpenAI's dialect)", endpoints.http);
    eprintln!("  gRPC      {}", endpoints.grpc);
    if endpoints.api_key.is_empty() {
        eprintln!("  API key   one of the configuration");
    } else {
        eprintln!("  API key   {}", endpoints.api_key);
    }
    eprintln!("  Postgres  {}", endpoints.database_url);
    eprintln!("  NATS      {}", endpoints.nats_url);
    eprintln!("  logs      {}", stack.logs().display());
    eprintln!();
    eprintln!("  try       tollgate chat \"hello\"    tollgate report cost --by model");
    eprintln!("  stop      Ctrl-C");
}
