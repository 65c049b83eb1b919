//! `tollgate jobs`: durable requests from the terminal, over gRPC.

use std::{
    fs::File,
    io::{BufRead, BufReader, IsTerminal, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tollgate_proto::v1::{
    self, GetJobRequest, JobState, ListJobsRequest, SubmitJobRequest, gateway_client::GatewayClient, job,
    jobs_client::JobsClient, submit_job_request,
};
use tollgate_types::Millis;
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

use crate::{
    chat::{Connected, authorized, connect, first_model, prompt, refused, says},
    cli::{DeadCommand, Endpoint, JobKind, JobStateName, JobsCommand, Urgency},
};

/// Lines of a batch on their way at once.
const AHEAD: usize = 256;
/// How often a batch that is waited for is counted.
const COUNT: Duration = Duration::from_secs(1);
const PAGE: u32 = 1000;

pub(crate) async fn run(command: JobsCommand) -> anyhow::Result<ExitCode> {
    match command {
        JobsCommand::Submit {
            prompt: text,
            kind,
            idempotency_key,
            priority,
            webhook,
            wait,
            endpoint,
        } => {
            let text = prompt(text)?;
            let (mut jobs, model) = Jobs::open(endpoint, Some(&kind)).await?;
            let mut request = submission(model, text, idempotency_key.unwrap_or_default(), kind.batch);
            request.set_priority(match priority {
                Urgency::Low => v1::JobPriority::Low,
                Urgency::Normal => v1::JobPriority::Normal,
                Urgency::High => v1::JobPriority::High,
            });
            request.webhook = webhook.unwrap_or_default();
            let accepted = jobs.submit(request).await?;
            if !wait {
                writeln!(std::io::stdout(), "{}", accepted.id)?;
                return Ok(ExitCode::SUCCESS);
            }
            eprintln!("{}", accepted.id);
            print(&jobs.ended(accepted.id).await?)
        }
        JobsCommand::Batch {
            file,
            kind,
            wait,
            endpoint,
        } => batch(&file, kind, wait, endpoint).await,
        JobsCommand::Get { id, wait, endpoint } => {
            let (mut jobs, _) = Jobs::open(endpoint, None).await?;
            let job = if wait {
                jobs.ended(id).await?
            } else {
                jobs.get(id).await?
            };
            print(&job)
        }
        JobsCommand::Cancel { id, endpoint } => {
            let (mut jobs, _) = Jobs::open(endpoint, None).await?;
            let request = authorized(GetJobRequest { id }, &jobs.bearer);
            let job = jobs.client.cancel(request).await.map_err(|status| refused(&status))?;
            writeln!(std::io::stdout(), "{}", state(job.get_ref()))?;
            Ok(ExitCode::SUCCESS)
        }
        JobsCommand::Retry { id, endpoint } => {
            let (mut jobs, _) = Jobs::open(endpoint, None).await?;
            let job = jobs.retry(id).await?;
            writeln!(std::io::stdout(), "{}", job.id)?;
            Ok(ExitCode::SUCCESS)
        }
        JobsCommand::Drop { id, endpoint } => {
            let (mut jobs, _) = Jobs::open(endpoint, None).await?;
            jobs.drop(id).await?;
            Ok(ExitCode::SUCCESS)
        }
        JobsCommand::Dead(command) => dead(command).await,
        JobsCommand::List {
            batch,
            state,
            limit,
            endpoint,
        } => {
            let (mut jobs, _) = Jobs::open(endpoint, None).await?;
            let found = jobs.list(batch.unwrap_or_default(), state, limit).await?;
            table(&found)
        }
    }
}

async fn dead(command: DeadCommand) -> anyhow::Result<ExitCode> {
    const FAILED: Option<JobStateName> = Some(JobStateName::Failed);
    let (which, endpoint, retry) = match command {
        DeadCommand::List { batch, limit, endpoint } => {
            let (mut jobs, _) = Jobs::open(endpoint, None).await?;
            return table(&jobs.list(batch.unwrap_or_default(), FAILED, limit).await?);
        }
        DeadCommand::Retry { which, endpoint } => (which, endpoint, true),
        DeadCommand::Drop { which, endpoint } => (which, endpoint, false),
    };
    let (mut jobs, _) = Jobs::open(endpoint, None).await?;
    let ids = if which.ids.is_empty() {
        let found = jobs.list(which.batch.unwrap_or_default(), FAILED, usize::MAX).await?;
        found.into_iter().map(|job| job.id).collect()
    } else {
        which.ids
    };
    for id in ids {
        if retry {
            writeln!(std::io::stdout(), "{}", jobs.retry(id.clone()).await?.id)?;
        }
        jobs.drop(id).await?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Jobs {
    client: JobsClient<Channel>,
    bearer: MetadataValue<Ascii>,
}

impl Jobs {
    /// Connected, with the model that `kind` means.
    async fn open(endpoint: Endpoint, kind: Option<&JobKind>) -> anyhow::Result<(Self, String)> {
        let Connected { channel, bearer } = connect(endpoint).await?;
        let model = match kind {
            None => String::new(),
            Some(JobKind { model: Some(model), .. }) => model.clone(),
            Some(_) => first_model(&mut GatewayClient::new(channel.clone()), &bearer).await?,
        };
        let client = JobsClient::new(channel).max_decoding_message_size(usize::MAX);
        Ok((Self { client, bearer }, model))
    }

    async fn submit(&mut self, request: SubmitJobRequest) -> anyhow::Result<v1::Job> {
        let accepted = self.client.submit(authorized(request, &self.bearer)).await;
        Ok(accepted.map_err(|status| refused(&status))?.into_inner())
    }

    async fn get(&mut self, id: String) -> anyhow::Result<v1::Job> {
        let request = authorized(GetJobRequest { id }, &self.bearer);
        Ok(self
            .client
            .get(request)
            .await
            .map_err(|status| refused(&status))?
            .into_inner())
    }

    async fn retry(&mut self, id: String) -> anyhow::Result<v1::Job> {
        let request = authorized(GetJobRequest { id }, &self.bearer);
        let job = self.client.retry(request).await.map_err(|status| refused(&status))?;
        Ok(job.into_inner())
    }

    async fn drop(&mut self, id: String) -> anyhow::Result<()> {
        let request = authorized(GetJobRequest { id }, &self.bearer);
        self.client.drop(request).await.map_err(|status| refused(&status))?;
        Ok(())
    }

    async fn ended(&mut self, id: String) -> anyhow::Result<v1::Job> {
        let request = authorized(GetJobRequest { id }, &self.bearer);
        let changes = self.client.watch(request).await.map_err(|status| refused(&status))?;
        let mut changes = changes.into_inner();
        let mut last = None;
        while let Some(job) = changes.message().await.map_err(|status| refused(&status))? {
            last = Some(job);
        }
        last.context("the gateway said nothing of the job")
    }

    async fn list(&mut self, batch: String, state: Option<JobStateName>, limit: usize) -> anyhow::Result<Vec<v1::Job>> {
        let mut request = ListJobsRequest {
            batch,
            limit: PAGE,
            ..ListJobsRequest::default()
        };
        request.set_state(match state {
            None => JobState::Unspecified,
            Some(JobStateName::Waiting) => JobState::Waiting,
            Some(JobStateName::Answered) => JobState::Answered,
            Some(JobStateName::Denied) => JobState::Denied,
            Some(JobStateName::Failed) => JobState::Failed,
            Some(JobStateName::Cancelled) => JobState::Cancelled,
        });
        let mut found = Vec::new();
        while found.len() < limit {
            let asked = self.client.list(authorized(request.clone(), &self.bearer)).await;
            let page = asked.map_err(|status| refused(&status))?.into_inner();
            found.extend(page.jobs);
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        found.truncate(limit);
        Ok(found)
    }
}

fn submission(model: String, prompt: String, idempotency_key: String, batch: Option<String>) -> SubmitJobRequest {
    SubmitJobRequest {
        request: Some(submit_job_request::Request::Complete(says(model, prompt))),
        idempotency_key,
        batch: batch.unwrap_or_default(),
        ..SubmitJobRequest::default()
    }
}

fn state(job: &v1::Job) -> &'static str {
    match job.state() {
        JobState::Unspecified => "unknown",
        JobState::Waiting => "waiting",
        JobState::Running => "running",
        JobState::Answered => "answered",
        JobState::Denied => "denied",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

/// The answer on standard output; what else there is to say, beside it. Fails unless the job was answered.
fn print(job: &v1::Job) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    match &job.answer {
        Some(job::Answer::Complete(answer)) => writeln!(out, "{}", answer.text)?,
        Some(job::Answer::Embed(answer)) => {
            let vectors: Vec<_> = answer.vectors.iter().map(|vector| &vector.values).collect();
            writeln!(out, "{}", json!(vectors))?;
        }
        Some(job::Answer::Body(body)) => {
            out.write_all(body)?;
            writeln!(out)?;
        }
        None => {}
    }
    if job.state() == JobState::Answered {
        return Ok(ExitCode::SUCCESS);
    }
    let reason = job.error.as_ref();
    let reason = reason.map_or(String::new(), |error| format!(": {} ({})", error.message, error.code));
    eprintln!("{}{reason}", state(job));
    Ok(ExitCode::FAILURE)
}

fn table(jobs: &[v1::Job]) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{:<36}  {:<9}  {:<24}  {:<20}  why",
        "job", "state", "submitted", "model"
    )?;
    for job in jobs {
        let submitted = Millis(job.submitted_unix_ms)
            .to_datetime()
            .format("%Y-%m-%dT%H:%M:%S%.3fZ");
        let why = job.error.as_ref().map_or("", |error| &error.code);
        writeln!(
            out,
            "{:<36}  {:<9}  {submitted}  {:<20}  {why}",
            job.id,
            state(job),
            job.model
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A line of a batch.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    prompt: String,
    model: Option<String>,
}

async fn batch(file: &Path, kind: JobKind, wait: bool, endpoint: Endpoint) -> anyhow::Result<ExitCode> {
    let lines = read(file)?;
    let total = lines.len();
    let name = kind.batch.clone().unwrap_or_else(|| {
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        stem.unwrap_or_default()
            .replace(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_', "-")
    });
    let (mut jobs, model) = Jobs::open(endpoint, Some(&kind)).await?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    let feed = {
        let name = name.clone();
        async move {
            for (index, line) in lines.into_iter().enumerate() {
                let model = line.model.unwrap_or_else(|| model.clone());
                let request = submission(model, line.prompt, format!("{name}/{}", line.id), Some(name.clone()));
                if sender.send(request).await.is_err() {
                    return;
                }
                bar("submitted", index + 1, total);
            }
        }
    };
    let messages = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let request = authorized(messages, &jobs.bearer);
    let mut client = jobs.client.clone();
    let (stored, ()) = tokio::join!(client.submit_batch(request), feed);
    let stored = stored.map_err(|status| refused(&status))?.into_inner();
    eprintln!(
        "\nbatch {name}: {} stored, {} of them before",
        stored.accepted, stored.known
    );
    if !wait {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        tokio::time::sleep(COUNT).await;
        let all = jobs.list(name.clone(), None, usize::MAX).await?;
        let done = all.iter().filter(|job| job.ended_unix_ms > 0).count();
        bar("ended", done, total);
        if done >= total {
            eprintln!();
            return results(&mut jobs, &all).await;
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<Line>> {
    let reader = BufReader::new(File::open(file).with_context(|| format!("cannot open {}", file.display()))?);
    let mut lines = Vec::new();
    for (index, line) in reader.lines().enumerate() {
        let line = line.with_context(|| format!("{}:{}: cannot be read", file.display(), index + 1))?;
        if line.trim().is_empty() {
            continue;
        }
        let line: Line = serde_json::from_str(&line)
            .with_context(|| format!("{}:{}: is no {{\"id\": …, \"prompt\": …}}", file.display(), index + 1))?;
        lines.push(line);
    }
    if lines.is_empty() {
        bail!("{} has no lines", file.display());
    }
    Ok(lines)
}

async fn results(jobs: &mut Jobs, all: &[v1::Job]) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let mut code = ExitCode::SUCCESS;
    for job in all {
        let job = jobs.get(job.id.clone()).await?;
        let text = match &job.answer {
            Some(job::Answer::Complete(answer)) => Some(&answer.text),
            _ => None,
        };
        if job.state() != JobState::Answered {
            code = ExitCode::FAILURE;
        }
        let error = job.error.as_ref().map(|error| &error.code);
        writeln!(
            out,
            "{}",
            json!({ "job": job.id, "state": state(&job), "text": text, "error": error })
        )?;
    }
    Ok(code)
}

/// A line that counts, on a terminal alone.
fn bar(what: &str, done: usize, total: usize) {
    const WIDTH: usize = 40;
    let mut error = std::io::stderr();
    if !error.is_terminal() || !(done.is_multiple_of(64) || done == total) {
        return;
    }
    let full = done * WIDTH / total.max(1);
    let _ = write!(
        error,
        "\r[{}{}] {done}/{total} {what}",
        "#".repeat(full),
        ".".repeat(WIDTH - full)
    );
    let _ = error.flush();
}
