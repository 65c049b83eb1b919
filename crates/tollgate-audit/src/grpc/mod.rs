//! What audit serves over gRPC. Every method begins with [`Access::of`].

mod keys;
mod limits;
mod prices;
mod reports;

use std::sync::Arc;

use tollgate_config::{Entry, schema::Permission};
use tollgate_identity::Identities;
use tollgate_proto::to_status;
use tollgate_types::{ErrorCode, Failure, Tenant};
use tonic::{Response, Status, metadata::MetadataMap};

pub(crate) use self::{keys::Keys, limits::Limits, prices::Prices, reports::Reports};
use crate::{Error, consume::chain};

/// Who may do what.
#[derive(Clone)]
pub(crate) struct Access(pub(crate) Arc<Identities>);

impl Access {
    /// The holder of the call's key or token, if it has the permission.
    async fn of(&self, metadata: &MetadataMap, permission: Permission) -> Result<Arc<Entry>, Failure> {
        self.any(metadata, &[permission]).await
    }

    /// The same, if it has one of the permissions.
    pub(crate) async fn any(&self, metadata: &MetadataMap, permissions: &[Permission]) -> Result<Arc<Entry>, Failure> {
        let mut values = metadata.get_all("authorization").iter();
        let secret = values
            .next()
            // Which of two counts must not depend on who reads them.
            .filter(|_| values.next().is_none())
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, secret)| secret.trim())
            .ok_or_else(|| Failure::new(ErrorCode::Unauthenticated, "send one authorization: Bearer <key>"))?;
        let entry = self.0.authenticate(secret).await?;
        if permissions.iter().any(|one| entry.may(*one)) {
            return Ok(entry);
        }
        let names: Vec<_> = permissions.iter().map(|one| format!("`{one}`")).collect();
        let message = format!("this key has not the permission {}", names.join(" or "));
        Err(Failure::new(ErrorCode::PermissionDenied, message))
    }
}

/// An error of the database as its client sees it, without the server's own words.
fn unavailable(error: &Error) -> Failure {
    tracing::warn!(error = %chain(error), "the database does not answer");
    Failure::new(ErrorCode::Unavailable, "the ledger does not answer")
}

fn answered<T>(done: Result<T, Failure>) -> Result<Response<T>, Status> {
    done.map(Response::new).map_err(|failure| to_status(&failure, None))
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidRequest, message)
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// The tenant that is asked for, if it is the caller's or a part of it; the caller's own when none is asked for.
fn narrowed(own: &Tenant, asked: Tenant) -> Result<Tenant, Failure> {
    if asked.team.is_some() && asked.organisation.is_none() && own.organisation.is_none() {
        return Err(invalid("team: give its organisation too"));
    }
    let asked = Tenant {
        organisation: asked.organisation.or_else(|| own.organisation.clone()),
        team: asked.team.or_else(|| own.team.clone()),
    };
    if own.contains(&asked) {
        return Ok(asked);
    }
    // Whether there is such a tenant is not told.
    let message = "this key has no rights in that organisation or team";
    Err(Failure::new(ErrorCode::PermissionDenied, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_sees_its_tenant_and_nothing_beside() {
        let tenant = |organisation: &str, team: &str| Tenant {
            organisation: some(organisation.to_owned()),
            team: some(team.to_owned()),
        };
        let (all, a, red) = (tenant("", ""), tenant("a", ""), tenant("a", "red"));
        let ok = |own: &Tenant, asked: Tenant| narrowed(own, asked).ok();
        assert_eq!(ok(&all, all.clone()), Some(all.clone()));
        assert_eq!(ok(&all, red.clone()), Some(red.clone()));
        assert_eq!(ok(&a, all.clone()), Some(a.clone()));
        assert_eq!(ok(&a, tenant("", "red")), Some(red.clone()));
        assert_eq!(ok(&red, all.clone()), Some(red.clone()));
        assert_eq!(ok(&red, a.clone()), Some(red.clone()));
        assert_eq!(ok(&red, tenant("a", "blue")), None);
        assert_eq!(ok(&a, tenant("b", "")), None);
        assert_eq!(ok(&red, tenant("b", "red")), None);
        assert_eq!(ok(&all, tenant("", "red")), None);
    }
}
