//! The entries of lists: keys, models, policies. An entry with a mistake is left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    cursor::{Cursor, Fields},
    schema::{Checks, Grant, Hedge, Key, Model, ModelTarget, Permission, Policy, Tenant},
    value,
};

use super::links::{Kind, Links};

pub(super) fn key<'a>(at: &Cursor<'a>, links: &mut Links<'a>) -> Option<Key> {
    let mut f = at.fields()?;
    let name = links.name(&mut f, Kind::Key, value::name);
    let hash = f.required("hash", |at| {
        let hash = at.parse(value::hash)?;
        links.hash(at, hash);
        Some(hash)
    });
    let expires_at = f.optional("expires_at", |at| at.parse(value::moment));
    let tenant = Tenant {
        organisation: f.optional("organisation", |at| at.parse(value::name)),
        team: f.optional("team", |at| at.parse(value::name)),
    };
    if tenant.team.is_some() && tenant.organisation.is_none() {
        at.mistake("a team is one of an organisation: give organisation");
    }
    let grant = grant(&mut f, links);
    let whole = Permission::ALL
        .iter()
        .filter(|permission| permission.is_for_the_whole());
    if tenant.organisation.is_some() && whole.into_iter().any(|permission| grant.may(*permission)) {
        at.mistake("operate, prices and audit are for keys of no organisation");
    }
    f.finish();
    Some(Key {
        name: name?,
        hash: hash?,
        expires_at,
        tenant,
        grant,
    })
}

pub(super) fn grant<'a>(f: &mut Fields<'a>, links: &mut Links<'a>) -> Grant {
    const ALL: &str = "leave the key out to allow all";
    let tags = f.optional("tags", tags).unwrap_or_default();
    let policy = f.optional("policy", |at| links.reference(at, Kind::Policy));
    let models = f.optional("models", |at| {
        let models = some(at, "leave the key out to allow all models")?;
        let known = models.iter().filter_map(|at| links.reference(at, Kind::Model));
        Some(known.collect())
    });
    let providers = f.optional("providers", |at| {
        let providers = some(at, ALL)?;
        let known = providers.iter().filter_map(|at| links.reference(at, Kind::Provider));
        Some(known.collect())
    });
    let permissions = f.optional("permissions", |at| {
        let permissions = some(at, "leave the key out to allow completions")?;
        Some(
            permissions
                .iter()
                .filter_map(|at| at.parse(value::permission))
                .collect::<Vec<_>>(),
        )
    });
    let roles = f.optional("roles", |at| {
        let roles = some(at, "leave the key out to have none")?;
        let roles = roles.iter().filter_map(|at| at.parse(value::role));
        Some(
            roles
                .flat_map(|role| role.permissions().iter().copied())
                .collect::<Vec<_>>(),
        )
    });
    let permissions = match (permissions, roles) {
        (None, None) => None,
        (named, of_roles) => {
            let all: BTreeSet<Permission> = named.into_iter().chain(of_roles).flatten().collect();
            Some(all.into_iter().collect())
        }
    };
    Grant {
        permissions,
        tags,
        policy,
        models,
        providers,
        regions: f.optional("regions", |at| {
            let regions = some(at, ALL)?;
            Some(regions.iter().filter_map(|at| at.parse(value::label)).collect())
        }),
        doors: f.optional("doors", |at| {
            let doors = some(at, ALL)?;
            Some(doors.iter().filter_map(|at| at.parse(value::door)).collect())
        }),
        lanes: f.optional("lanes", |at| {
            let lanes = some(at, ALL)?;
            Some(lanes.iter().filter_map(|at| at.parse(value::lane)).collect())
        }),
        requests_per_minute: f.optional("requests_per_minute", |at| at.count(1..=10_000_000)),
    }
}

/// A list with at least one entry. One that was emptied must not come to mean the default, which allows more.
pub(super) fn some<'a>(at: &Cursor<'a>, instead: &str) -> Option<Vec<Cursor<'a>>> {
    let items = at.items()?;
    if items.is_empty() {
        at.mistake(format!("the list is empty, {instead}"));
        return None;
    }
    Some(items)
}

/// Labels travel with each request and into each ledger row, so they are kept short.
fn tags(at: &Cursor<'_>) -> Option<BTreeMap<String, String>> {
    if at.is_null() {
        return None;
    }
    let mut tags = BTreeMap::new();
    for (key, name, label) in at.fields()?.rest() {
        let name = key.parse(|_| value::line(name, 64));
        let label = label.parse(|text| value::line(text, 256));
        tags.extend(name.zip(label));
    }
    Some(tags)
}

pub(super) fn model<'a>(at: &Cursor<'a>, links: &mut Links<'a>) -> Option<Model> {
    let mut f = at.fields()?;
    let name = links.name(&mut f, Kind::Model, value::model_name);
    let targets = f.required("targets", |at| {
        let targets = some(at, "a model needs at least one target")?;
        Some(targets.iter().filter_map(|at| target(at, links)).collect())
    });
    let instead = |f: &mut Fields<'a>, links: &mut Links<'a>, name| {
        let targets = f.optional(name, |at| {
            let targets = some(at, "leave the key out to have none")?;
            Some(targets.iter().filter_map(|at| target(at, links)).collect())
        });
        targets.unwrap_or_default()
    };
    let context_length_targets = instead(&mut f, links, "context_length_targets");
    let content_policy_targets = instead(&mut f, links, "content_policy_targets");
    let hedge = f.optional("hedge", hedge);
    f.finish();
    Some(Model {
        name: name?,
        targets: targets?,
        context_length_targets,
        content_policy_targets,
        hedge,
    })
}

fn hedge(at: &Cursor<'_>) -> Option<Hedge> {
    let mut f = at.fields()?;
    let hedge = Hedge {
        percentile: f.value("percentile", 0.95, |at| at.parse(value::share)),
        min_delay: f.value("min_delay", Duration::from_millis(100), Cursor::duration),
        max_share: f.value("max_share", 0.05, |at| at.parse(value::share)),
    };
    f.finish();
    Some(hedge)
}

fn target<'a>(at: &Cursor<'a>, links: &mut Links<'a>) -> Option<ModelTarget> {
    let mut f = at.fields()?;
    let provider = f.required("provider", |at| links.reference(at, Kind::Provider));
    let model = f.required("model", |at| at.parse(value::provider_model));
    f.finish();
    Some(ModelTarget {
        provider: provider?,
        model: model?,
    })
}

pub(super) fn policy<'a>(at: &Cursor<'a>, links: &mut Links<'a>) -> Option<Policy> {
    let mut f = at.fields()?;
    let name = links.name(&mut f, Kind::Policy, value::name);
    let prompt = checks(f.section("prompt"));
    let answer = checks(f.section("answer"));
    f.finish();
    Some(Policy {
        name: name?,
        prompt,
        answer,
    })
}

fn checks(mut f: Fields<'_>) -> Checks {
    let checks = Checks {
        // A blank phrase would be found in every text.
        deny: f.list("deny", |at| at.parse(|text| value::line(text, 1024))),
        mask: f.list("mask", |at| at.parse(value::mask)),
    };
    f.finish();
    checks
}
