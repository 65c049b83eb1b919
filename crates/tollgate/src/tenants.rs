//! `tollgate tenants`: organisations and teams, and what all their keys may do.

use std::io::Write;

use serde_json::json;
use tollgate_proto::v1::{ListTenantsRequest, PutTenantRequest, TenantRights, keys_client::KeysClient};

use crate::{
    chat::{Connected, authorized, connect_audit, refused},
    cli::{Format, TenantsCommand},
    keys::{columns, rights, rights_text},
};

pub(crate) async fn run(command: TenantsCommand) -> anyhow::Result<()> {
    let text = match command {
        TenantsCommand::Put {
            tenant,
            rights: given,
            endpoint,
        } => {
            let (organisation, team) = tenant.split_once('/').unwrap_or((&tenant, ""));
            let request = PutTenantRequest {
                organisation: organisation.to_owned(),
                team: team.to_owned(),
                rights: Some(rights(*given)),
            };
            let Connected { channel, bearer } = connect_audit(endpoint).await?;
            let put = KeysClient::new(channel).put_tenant(authorized(request, &bearer)).await;
            table(&[put.map_err(|status| refused(&status))?.into_inner()])
        }
        TenantsCommand::List { format, endpoint } => {
            let Connected { channel, bearer } = connect_audit(endpoint).await?;
            let listed = KeysClient::new(channel)
                .list_tenants(authorized(ListTenantsRequest {}, &bearer))
                .await;
            let tenants = listed.map_err(|status| refused(&status))?.into_inner().tenants;
            match format {
                Format::Table | Format::Csv => table(&tenants),
                Format::Json => {
                    let all: Vec<_> = tenants.iter().map(json_of).collect();
                    serde_json::to_string_pretty(&all)?
                }
            }
        }
    };
    writeln!(std::io::stdout(), "{}", text.trim_end())?;
    Ok(())
}

fn json_of(tenant: &TenantRights) -> serde_json::Value {
    json!({
        "organisation": tenant.organisation,
        "team": Some(&tenant.team).filter(|team| !team.is_empty()),
        "keys": tenant.keys,
        "rights": rights_text(tenant.rights.as_ref()),
    })
}

fn table(tenants: &[TenantRights]) -> String {
    let row = |tenant: &TenantRights| {
        [
            tenant.organisation.clone(),
            tenant.team.clone(),
            tenant.keys.to_string(),
            rights_text(tenant.rights.as_ref()),
        ]
    };
    columns(["ORGANISATION", "TEAM", "KEYS", "RIGHTS"], tenants.iter().map(row))
}
