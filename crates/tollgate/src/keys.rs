//! `tollgate keys`: makes keys. A secret is shown once and kept nowhere; the configuration, or the database of audit for a
//! key that is issued while the gateway runs, holds its hash.

use std::io::{Read, Write};

use anyhow::ensure;
use secrecy::ExposeSecret;
use serde_json::json;
use tollgate_proto::v1::{
    self, CreateKeyRequest, IssuedKey, Key, KeyRequest, ListKeysRequest, RotateKeyRequest, UpdateKeyRequest,
    keys_client::KeysClient,
};
use tollgate_types::{Grant, Millis};

use crate::{
    chat::{Connected, authorized, connect_audit, refused},
    cli::{Format, KeysCommand, RightsArgs},
};

pub(crate) async fn run(command: KeysCommand) -> anyhow::Result<()> {
    let text = match command {
        KeysCommand::New { name } => {
            let key = tollgate_config::generate_key();
            let hash = hex(&tollgate_config::hash_key(key.expose_secret()));
            let secret = key.expose_secret();
            format!("{secret}\n# in tollgate.yaml:\nkeys:\n  - name: {name}\n    hash: sha256:{hash}")
        }
        KeysCommand::Hash => {
            let mut text = String::new();
            std::io::stdin().take(4096).read_to_string(&mut text)?;
            ensure!(!text.trim().is_empty(), "standard input is empty");
            format!("sha256:{}", hex(&tollgate_config::hash_key(text.trim())))
        }
        issued => administered(issued).await?,
    };
    writeln!(std::io::stdout(), "{}", text.trim_end())?;
    Ok(())
}

/// Commands that audit carries out.
async fn administered(command: KeysCommand) -> anyhow::Result<String> {
    match command {
        // Made without audit.
        KeysCommand::New { .. } | KeysCommand::Hash => Ok(String::new()),
        KeysCommand::Create {
            name,
            tenant,
            rights: given,
            expires,
            sha256,
            endpoint,
        } => {
            let request = CreateKeyRequest {
                name,
                organisation: tenant.organisation.unwrap_or_default(),
                team: tenant.team.unwrap_or_default(),
                rights: Some(rights(*given)),
                expires_at_unix_ms: unix_ms(expires),
                sha256: sha256.unwrap_or_default(),
            };
            let Connected { channel, bearer } = connect_audit(endpoint).await?;
            let made = KeysClient::new(channel).create(authorized(request, &bearer)).await;
            Ok(issued(&made.map_err(|status| refused(&status))?.into_inner()))
        }
        KeysCommand::List {
            tenant,
            format,
            endpoint,
        } => {
            let request = ListKeysRequest {
                organisation: tenant.organisation.unwrap_or_default(),
                team: tenant.team.unwrap_or_default(),
            };
            let Connected { channel, bearer } = connect_audit(endpoint).await?;
            let listed = KeysClient::new(channel).list(authorized(request, &bearer)).await;
            let keys = listed.map_err(|status| refused(&status))?.into_inner().keys;
            Ok(match format {
                Format::Table | Format::Csv => table(&keys),
                Format::Json => serde_json::to_string_pretty(&keys.iter().map(json_of).collect::<Vec<_>>())?,
            })
        }
        KeysCommand::Update {
            key,
            rights: given,
            expires,
            endpoint,
        } => {
            let request = UpdateKeyRequest {
                key,
                rights: Some(rights(*given)),
                expires_at_unix_ms: unix_ms(expires),
            };
            let Connected { channel, bearer } = connect_audit(endpoint).await?;
            let changed = KeysClient::new(channel).update(authorized(request, &bearer)).await;
            Ok(table(&[changed.map_err(|status| refused(&status))?.into_inner()]))
        }
        KeysCommand::Rotate { key, grace, endpoint } => {
            let request = RotateKeyRequest {
                key,
                grace_seconds: grace,
            };
            let Connected { channel, bearer } = connect_audit(endpoint).await?;
            let turned = KeysClient::new(channel).rotate(authorized(request, &bearer)).await;
            Ok(issued(&turned.map_err(|status| refused(&status))?.into_inner()))
        }
        KeysCommand::Disable { key, endpoint } => {
            let Connected { channel, bearer } = connect_audit(endpoint).await?;
            let request = authorized(KeyRequest { key }, &bearer);
            let changed = KeysClient::new(channel).disable(request).await;
            Ok(table(&[changed.map_err(|status| refused(&status))?.into_inner()]))
        }
        KeysCommand::Enable { key, endpoint } => {
            let Connected { channel, bearer } = connect_audit(endpoint).await?;
            let request = authorized(KeyRequest { key }, &bearer);
            let changed = KeysClient::new(channel).enable(request).await;
            Ok(table(&[changed.map_err(|status| refused(&status))?.into_inner()]))
        }
    }
}

fn unix_ms(time: Option<chrono::DateTime<chrono::Utc>>) -> u64 {
    time.map_or(0, |time| Millis::from(time).0)
}

/// The rights that the arguments name.
pub(crate) fn rights(given: RightsArgs) -> v1::Rights {
    let of_roles = given
        .roles
        .map(|roles| roles.into_iter().flat_map(|role| role.permissions().iter().copied()));
    let permissions = match (given.permissions, of_roles) {
        (None, None) => None,
        (named, of_roles) => Some(
            named
                .into_iter()
                .flatten()
                .chain(of_roles.into_iter().flatten())
                .collect(),
        ),
    };
    let grant = Grant {
        permissions,
        tags: given.tags.into_iter().collect(),
        policy: given.policy,
        models: given.models,
        providers: given.providers,
        regions: given.regions,
        doors: given.doors,
        lanes: given.lanes,
        requests_per_minute: given.requests_per_minute,
    };
    grant.into()
}

/// Rights in a line: only what is said.
pub(crate) fn rights_text(rights: Option<&v1::Rights>) -> String {
    let Some(rights) = rights else { return String::new() };
    let lists = [
        ("permissions", &rights.permissions),
        ("models", &rights.models),
        ("providers", &rights.providers),
        ("regions", &rights.regions),
        ("doors", &rights.doors),
        ("lanes", &rights.lanes),
    ];
    let mut parts: Vec<String> = lists
        .into_iter()
        .filter_map(|(name, list)| Some(format!("{name}={}", list.as_ref()?.names.join(","))))
        .collect();
    parts.extend(rights.policy.as_ref().map(|policy| format!("policy={policy}")));
    let mut tags: Vec<_> = rights
        .tags
        .iter()
        .map(|(name, value)| format!("tag:{name}={value}"))
        .collect();
    tags.sort();
    parts.extend(tags);
    parts.extend(
        rights
            .requests_per_minute
            .map(|limit| format!("requests_per_minute={limit}")),
    );
    parts.join(" ")
}

/// The secret alone on the first line, so that a script reads it.
fn issued(made: &IssuedKey) -> String {
    let key = made
        .key
        .as_ref()
        .map(|key| table(std::slice::from_ref(key)))
        .unwrap_or_default();
    if made.secret.is_empty() {
        return key;
    }
    format!("{}\n{key}", made.secret)
}

fn state(key: &Key) -> &'static str {
    match key.expires_at_unix_ms {
        _ if key.disabled => "disabled",
        end if end > 0 && Millis(end) <= Millis::now() => "expired",
        _ => "active",
    }
}

fn json_of(key: &Key) -> serde_json::Value {
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    json!({
        "id": key.id,
        "name": key.name,
        "organisation": some(&key.organisation),
        "team": some(&key.team),
        "state": state(key),
        "endings": key.endings,
        "rights": rights_text(key.rights.as_ref()),
        "expires_at": (key.expires_at_unix_ms > 0).then(|| Millis(key.expires_at_unix_ms).to_datetime()),
        "created_at": Millis(key.created_at_unix_ms).to_datetime(),
        "created_by": key.created_by,
    })
}

fn table(keys: &[Key]) -> String {
    let row = |key: &Key| {
        let tenant = [&key.organisation, &key.team].map(String::as_str).into_iter();
        let tenant: Vec<_> = tenant.filter(|name| !name.is_empty()).collect();
        let endings: Vec<_> = key.endings.iter().map(|ending| format!("…{ending}")).collect();
        [
            key.id.clone(),
            key.name.clone(),
            tenant.join("/"),
            state(key).to_owned(),
            endings.join(" "),
            rights_text(key.rights.as_ref()),
        ]
    };
    columns(
        ["ID", "NAME", "TENANT", "STATE", "SECRET", "RIGHTS"],
        keys.iter().map(row),
    )
}

/// A table with columns as wide as they need.
pub(crate) fn columns<const N: usize>(heads: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(heads.map(str::to_owned)).chain(rows).collect();
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use tollgate_types::{Permission, Role};

    use super::*;

    #[test]
    fn rights_are_those_named_and_those_of_roles() {
        let given = RightsArgs {
            permissions: Some(vec![Permission::Complete]),
            roles: Some(vec![Role::Auditor]),
            models: Some(vec!["a".to_owned()]),
            providers: None,
            regions: None,
            doors: None,
            lanes: None,
            policy: None,
            tags: vec![("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())],
            requests_per_minute: Some(7),
        };
        let text = rights_text(Some(&rights(given)));
        assert_eq!(
            text,
            "permissions=complete,report,audit models=a tag:a=1 tag:b=2 requests_per_minute=7"
        );
    }

    #[test]
    fn columns_are_as_wide_as_they_need() {
        let rows = [["ü".to_owned(), "1".to_owned()], ["long".to_owned(), "2".to_owned()]];
        assert_eq!(columns(["A", "B"], rows.into_iter()), "A     B\nü     1\nlong  2");
    }
}
