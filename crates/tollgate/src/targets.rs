//! `tollgate targets`: how targets are doing, and taking them out of use, over gRPC.

use std::io::Write;

use tollgate_proto::v1::{
    DrainTargetRequest, ListTargetsRequest, ListTargetsResponse, TargetState, TargetStatus,
    targets_client::TargetsClient,
};
use tollgate_types::Millis;
use tonic::{Response, Status};

use crate::{
    chat::{Connected, authorized, connect, refused},
    cli::{Endpoint, TargetName, TargetsCommand},
};

pub(crate) async fn run(command: TargetsCommand) -> anyhow::Result<()> {
    let told = match command {
        TargetsCommand::List { endpoint } => {
            let Connected { channel, bearer } = connect(endpoint).await?;
            let request = authorized(ListTargetsRequest {}, &bearer);
            TargetsClient::new(channel).list(request).await
        }
        TargetsCommand::Drain { target, endpoint } => change(target, endpoint, true).await?,
        TargetsCommand::Restore { target, endpoint } => change(target, endpoint, false).await?,
    };
    let told = told.map_err(|status| refused(&status))?;
    write!(std::io::stdout(), "{}", table(&told.get_ref().targets, Millis::now()))?;
    Ok(())
}

async fn change(
    target: TargetName,
    endpoint: Endpoint,
    drain: bool,
) -> anyhow::Result<Result<Response<ListTargetsResponse>, Status>> {
    let Connected { channel, bearer } = connect(endpoint).await?;
    let request = DrainTargetRequest {
        provider: target.provider,
        model: target.model.unwrap_or_default(),
    };
    let (request, mut client) = (authorized(request, &bearer), TargetsClient::new(channel));
    Ok(if drain {
        client.drain(request).await
    } else {
        client.restore(request).await
    })
}

fn table(targets: &[TargetStatus], now: Millis) -> String {
    let width = |column: fn(&TargetStatus) -> &str, least: usize| {
        targets
            .iter()
            .map(|target| column(target).len())
            .max()
            .unwrap_or(0)
            .max(least)
    };
    let (provider, model) = (width(|t| &t.provider, 8), width(|t| &t.model, 5));
    let mut text = format!("{:provider$}  {:model$}  {:10}  WHY\n", "PROVIDER", "MODEL", "STATE");
    for target in targets {
        let (state, why) = state(target, now);
        text += &format!(
            "{:provider$}  {:model$}  {state:10}  {why}",
            target.provider, target.model
        );
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn state(target: &TargetStatus, now: Millis) -> (&'static str, String) {
    let time = |millis: u64| {
        let moment = Millis(millis).to_datetime();
        moment.format("%Y-%m-%d %H:%M:%S UTC").to_string()
    };
    match target.state() {
        TargetState::Drained => (
            "drained",
            format!("by {} at {}", target.drained_by, time(target.drained_at_unix_ms)),
        ),
        TargetState::Ejected => (
            "ejected",
            format!(
                "{}, {} in a row, for {:.1} s more",
                target.reason,
                target.strikes,
                Millis(target.ejected_until_unix_ms).remaining(now).as_secs_f64()
            ),
        ),
        TargetState::Recovering => ("recovering", target.reason.clone()),
        TargetState::Well => ("well", String::new()),
        TargetState::Unspecified => ("unknown", String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_for_people() {
        let target = |model: &str, state: TargetState| TargetStatus {
            provider: "openai".to_owned(),
            model: model.to_owned(),
            state: state.into(),
            ejected_until_unix_ms: 3_500,
            strikes: 2,
            reason: "provider_error".to_owned(),
            drained_by: "alice".to_owned(),
            drained_at_unix_ms: 1_000,
        };
        let targets = [
            target("gpt-4o-mini", TargetState::Well),
            target("gpt-4o", TargetState::Ejected),
            target("o3", TargetState::Drained),
        ];
        assert_eq!(
            table(&targets, Millis(1_000)),
            "PROVIDER  MODEL        STATE       WHY\n\
             openai    gpt-4o-mini  well\n\
             openai    gpt-4o       ejected     provider_error, 2 in a row, for 2.5 s more\n\
             openai    o3           drained     by alice at 1970-01-01 00:00:01 UTC\n"
        );
    }
}
