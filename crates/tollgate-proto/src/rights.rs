//! What keys may do, on the wire.

use tollgate_types::Grant;

use crate::{Invalid, v1};

fn names<T: Copy + Into<&'static str>>(list: Option<Vec<T>>) -> Option<v1::Names> {
    list.map(|list| v1::Names {
        names: list.into_iter().map(|one| one.into().to_owned()).collect(),
    })
}

impl From<Grant> for v1::Rights {
    fn from(grant: Grant) -> Self {
        let plain = |names: Option<Vec<String>>| names.map(|names| v1::Names { names });
        Self {
            permissions: names(grant.permissions),
            tags: grant.tags.into_iter().collect(),
            policy: grant.policy,
            models: plain(grant.models),
            providers: plain(grant.providers),
            regions: plain(grant.regions),
            doors: names(grant.doors),
            lanes: names(grant.lanes),
            requests_per_minute: grant.requests_per_minute,
        }
    }
}

fn parsed<T: std::str::FromStr>(field: &'static str, list: Option<v1::Names>) -> Result<Option<Vec<T>>, Invalid> {
    let parse = |name: &String| name.parse().map_err(|_| Invalid::new(field, "has an unknown name"));
    list.map(|list| list.names.iter().map(parse).collect()).transpose()
}

impl TryFrom<v1::Rights> for Grant {
    type Error = Invalid;

    fn try_from(wire: v1::Rights) -> Result<Self, Invalid> {
        Ok(Self {
            permissions: parsed("rights.permissions", wire.permissions)?,
            tags: wire.tags.into_iter().collect(),
            policy: wire.policy,
            models: wire.models.map(|list| list.names),
            providers: wire.providers.map(|list| list.names),
            regions: wire.regions.map(|list| list.names),
            doors: parsed("rights.doors", wire.doors)?,
            lanes: parsed("rights.lanes", wire.lanes)?,
            requests_per_minute: wire.requests_per_minute,
        })
    }
}
