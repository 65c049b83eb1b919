//! `tollgate audit log` and `tollgate audit verify`: who changed what.

use std::io::Write;

use anyhow::{Context, anyhow};
use serde_json::json;
use tollgate_audit::{AuditEvent, verify};
use tollgate_proto::v1::{self, ListAuditRequest, audit_log_client::AuditLogClient};
use tollgate_types::Millis;

use crate::{
    chat::{Connected, authorized, connect_audit, refused},
    cli::{AuditCommand, AuditEndpoint},
};

pub(crate) async fn run(command: AuditCommand) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    match command {
        AuditCommand::Log { after, endpoint } => {
            let mut pages = Pages::open(endpoint, after).await?;
            while let Some(events) = pages.next().await? {
                for event in events {
                    let line = json!({
                        "sequence": event.sequence,
                        "at": event.at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
                        "actor": event.actor,
                        "actor_id": event.actor_id,
                        "action": event.action,
                        "subject": event.subject,
                        "detail": event.detail,
                        "hash": crate::keys::hex(&event.hash),
                    });
                    writeln!(out, "{line}")?;
                }
            }
        }
        AuditCommand::Verify { endpoint } => {
            let (mut pages, mut last) = (Pages::open(endpoint, 0).await?, None);
            while let Some(events) = pages.next().await? {
                last = verify(last, &events).map_err(|broken| anyhow!("the audit log does not hold: {broken}"))?;
            }
            let (count, hash) = last.unwrap_or_default();
            writeln!(
                out,
                "{count} events, the chain holds; last hash {}",
                crate::keys::hex(&hash)
            )?;
        }
    }
    Ok(())
}

/// The log, page by page.
struct Pages {
    connected: Connected,
    after: u64,
}

impl Pages {
    async fn open(endpoint: AuditEndpoint, after: u64) -> anyhow::Result<Self> {
        let connected = connect_audit(endpoint).await?;
        Ok(Self { connected, after })
    }

    async fn next(&mut self) -> anyhow::Result<Option<Vec<AuditEvent>>> {
        let request = ListAuditRequest {
            after: self.after,
            limit: 0,
        };
        let mut client = AuditLogClient::new(self.connected.channel.clone());
        let told = client.list(authorized(request, &self.connected.bearer)).await;
        let events = told.map_err(|status| refused(&status))?.into_inner().events;
        let events: Vec<_> = events.into_iter().map(event).collect::<anyhow::Result<_>>()?;
        let Some(last) = events.last() else { return Ok(None) };
        self.after = last.sequence;
        Ok(Some(events))
    }
}

fn event(wire: v1::AuditEvent) -> anyhow::Result<AuditEvent> {
    Ok(AuditEvent {
        sequence: wire.sequence,
        at: Millis(wire.at_unix_ms).to_datetime(),
        actor: wire.actor,
        actor_id: wire.actor_id.parse().context("an event has no id of a key")?,
        action: wire.action,
        subject: wire.subject,
        detail: serde_json::from_str(&wire.detail_json).context("an event's detail is not JSON")?,
        previous: wire.previous,
        hash: wire.hash,
    })
}
