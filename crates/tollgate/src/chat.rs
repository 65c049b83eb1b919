//! `tollgate chat`: asks from the terminal and streams the answer, over gRPC.

use std::io::{Read, Write};

use anyhow::{Context, anyhow, bail};
use tollgate_proto::v1::{
    self, CompleteRequest, ListModelsRequest, Message, Part, Role, complete_event::Event,
    gateway_client::GatewayClient, part,
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use crate::{
    cli::{self, ChatArgs},
    running::Running,
};

pub(crate) async fn run(args: ChatArgs) -> anyhow::Result<()> {
    let Connected { channel, bearer } = connect(args.endpoint).await?;
    let mut client = GatewayClient::new(channel);
    let model = match args.model {
        Some(model) => model,
        None => first_model(&mut client, &bearer).await?,
    };
    let prompt = prompt(args.prompt)?;
    stream(&mut client, &bearer, model, prompt).await
}

/// A connection and who speaks on it.
pub(crate) struct Connected {
    pub(crate) channel: Channel,
    pub(crate) bearer: MetadataValue<Ascii>,
}

/// Connects to the endpoint that is named, or to the running `tollgate up`.
pub(crate) async fn connect(endpoint: cli::Endpoint) -> anyhow::Result<Connected> {
    let missing = "no `tollgate up` is running here; give --grpc and TOLLGATE_API_KEY";
    connect_to(endpoint.grpc, endpoint.api_key, |stack| &stack.grpc, missing).await
}

/// Connects to audit where it is named, or to that of the running `tollgate up`.
pub(crate) async fn connect_audit(endpoint: cli::AuditEndpoint) -> anyhow::Result<Connected> {
    let missing = "no `tollgate up` is running here; give --audit and TOLLGATE_API_KEY";
    connect_to(endpoint.audit, endpoint.api_key, |stack| &stack.reports, missing).await
}

async fn connect_to(
    address: Option<String>,
    key: Option<String>,
    running_at: fn(&Running) -> &String,
    missing: &'static str,
) -> anyhow::Result<Connected> {
    let running = Running::find();
    let grpc = address
        .or_else(|| running.as_ref().map(|stack| running_at(stack).clone()))
        .context(missing)?;
    let key = key.or_else(|| running.map(|stack| stack.api_key)).context(missing)?;
    let bearer = format!("Bearer {key}").parse().context("the key cannot be sent")?;
    let channel = Endpoint::from_shared(grpc.clone())?
        .tcp_nodelay(true)
        .connect()
        .await
        .with_context(|| format!("cannot reach {grpc}"))?;
    Ok(Connected { channel, bearer })
}

pub(crate) fn authorized<T>(message: T, bearer: &MetadataValue<Ascii>) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", bearer.clone());
    request
}

/// The text itself, or what comes on standard input.
pub(crate) fn prompt(text: String) -> anyhow::Result<String> {
    if text != "-" {
        return Ok(text);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

/// A request that says `prompt` and no more.
pub(crate) fn says(model: String, prompt: String) -> CompleteRequest {
    let mut message = Message {
        content: vec![Part {
            part: Some(part::Part::Text(prompt)),
            ..Part::default()
        }],
        ..Message::default()
    };
    message.set_role(Role::User);
    CompleteRequest {
        model,
        messages: vec![message],
        ..CompleteRequest::default()
    }
}

/// The status as a person reads it.
pub(crate) fn refused(status: &Status) -> anyhow::Error {
    anyhow!("{} ({:?})", status.message(), status.code())
}

pub(crate) async fn first_model(
    client: &mut GatewayClient<Channel>,
    bearer: &MetadataValue<Ascii>,
) -> anyhow::Result<String> {
    let models = client
        .list_models(authorized(ListModelsRequest {}, bearer))
        .await
        .map_err(|status| refused(&status))?;
    let first = models.into_inner().models.into_iter().next();
    Ok(first.context("this key may use no model")?.name)
}

async fn stream(
    client: &mut GatewayClient<Channel>,
    bearer: &MetadataValue<Ascii>,
    model: String,
    prompt: String,
) -> anyhow::Result<()> {
    let request = says(model, prompt);
    let answer = client
        .complete(authorized(request, bearer))
        .await
        .map_err(|status| refused(&status))?;
    let mut events = answer.into_inner();
    let mut out = std::io::stdout();
    let mut usage: Option<v1::Usage> = None;
    loop {
        match events.message().await {
            Ok(Some(event)) => match event.event {
                Some(Event::Text(text) | Event::Refusal(text)) => {
                    out.write_all(text.as_bytes())?;
                    out.flush()?;
                }
                Some(Event::Usage(said)) => usage = Some(said),
                _ => {}
            },
            Ok(None) => break,
            Err(status) => {
                out.write_all(b"\n")?;
                bail!(refused(&status));
            }
        }
    }
    out.write_all(b"\n")?;
    if let Some(usage) = usage {
        eprintln!("({} tokens in, {} out)", usage.input_tokens, usage.output_tokens);
    }
    Ok(())
}
