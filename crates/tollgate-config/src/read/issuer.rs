//! Entries of `issuers`.

use std::{collections::BTreeMap, time::Duration};

use tollgate_types::Role;

use crate::{
    cursor::{Cursor, Fields},
    schema::{Claimed, Issuer},
    url, value,
};

use super::{
    entries::{grant, some},
    links::{Kind, Links},
};

const LONGEST: usize = 512;

pub(super) fn issuer<'a>(at: &Cursor<'a>, links: &mut Links<'a>) -> Option<Issuer> {
    let mut f = at.fields()?;
    let name = links.name(&mut f, Kind::Issuer, value::name);
    let discovered = f.peek("jwks_url").is_none();
    let jwks_url = f.optional("jwks_url", |at| at.parse(url::key_source));
    let issuer = f.required("issuer", |at| {
        let text = links.issuer(at)?;
        if discovered && url::base_url(text).is_err() {
            at.mistake("expected an https URL below which its discovery document is, or jwks_url beside it");
        }
        at.parse(|text| value::line(text, LONGEST))
    });
    let audiences = f.required("audiences", |at| {
        let audiences = some(at, "tokens for somebody else would be accepted")?;
        Some(audiences.iter().filter_map(claim).collect())
    });
    let organisation = claimed(at, &mut f, "organisation", "organisation_claim");
    let team = claimed(at, &mut f, "team", "team_claim");
    if team.is_some() && organisation.is_none() {
        at.mistake("a team is one of an organisation: give organisation or organisation_claim");
    }
    let roles = f.optional("roles", roles).unwrap_or_default();
    let default_role = f.optional("default_role", |at| at.parse(value::role));
    if roles.is_empty() && default_role.is_none() {
        at.mistake("no token would be accepted: give roles or default_role");
    }
    let mut rights = f.section("rights");
    let grant = grant(&mut rights, links);
    rights.finish();
    let longest = f.peek("keep").or_else(|| f.peek("refresh"));
    let read = Issuer {
        name: name.unwrap_or_default(),
        issuer: issuer.unwrap_or_default(),
        audiences: audiences.unwrap_or_default(),
        jwks_url,
        name_claim: f.value("name_claim", "sub".to_owned(), claim),
        organisation,
        team,
        role_claim: f.value("role_claim", "roles".to_owned(), claim),
        roles,
        default_role,
        grant,
        leeway: f.value("leeway", Duration::from_secs(30), Cursor::duration),
        refresh: f.value("refresh", Duration::from_secs(600), Cursor::duration),
        keep: f.value("keep", Duration::from_secs(24 * 3600), Cursor::duration),
    };
    f.finish();
    if let Some(at) = longest.filter(|_| read.keep < read.refresh) {
        at.mistake("keep must not be less than refresh");
    }
    Some(read)
}

fn claim(at: &Cursor<'_>) -> Option<String> {
    at.parse(|text| value::line(text, LONGEST))
}

fn claimed<'a>(at: &Cursor<'a>, f: &mut Fields<'a>, fixed: &'static str, by_claim: &'static str) -> Option<Claimed> {
    let name = f.optional(fixed, |at| at.parse(value::name)).map(Claimed::Fixed);
    let claim = f.optional(by_claim, claim).map(Claimed::Claim);
    if name.is_some() && claim.is_some() {
        at.mistake(format!("{fixed} and {by_claim} say the same thing: give one of them"));
    }
    name.or(claim)
}

fn roles(at: &Cursor<'_>) -> Option<BTreeMap<String, Role>> {
    if at.is_null() {
        return None;
    }
    let mut roles = BTreeMap::new();
    for (key, name, role) in at.fields()?.rest() {
        let name = key.parse(|_| value::line(name, LONGEST));
        roles.extend(name.zip(role.parse(value::role)));
    }
    Some(roles)
}
