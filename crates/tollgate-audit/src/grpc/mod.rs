//! What audit serves over gRPC. Every method begins with [`Access::of`].

mod prices;
mod reports;

use std::sync::Arc;

use chrono::Utc;
use tollgate_config::{Entry, Keyring, schema::Permission};
use tollgate_types::{ErrorCode, Failure};
use tonic::metadata::MetadataMap;

pub(crate) use self::{prices::Prices, reports::Reports};
use crate::{Error, consume::chain};

/// Who may do what.
#[derive(Clone)]
pub(crate) struct Access(pub(crate) Arc<Keyring>);

impl Access {
    /// The holder of the call's key, if it has the permission.
    fn of(&self, metadata: &MetadataMap, permission: Permission) -> Result<&Entry, Failure> {
        let secret = metadata
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, secret)| secret.trim())
            .ok_or_else(|| Failure::new(ErrorCode::Unauthenticated, "send authorization: Bearer <key>"))?;
        // Unknown, expired and malformed keys are answered alike.
        let entry = self
            .0
            .authenticate(secret, Utc::now())
            .map_err(|_| Failure::new(ErrorCode::Unauthenticated, "the key is not valid"))?;
        if entry.may(permission) {
            Ok(entry)
        } else {
            let message = format!("this key has not the permission `{permission}`");
            Err(Failure::new(ErrorCode::PermissionDenied, message))
        }
    }
}

/// An error of the database as its client sees it, without the server's own words.
fn unavailable(error: &Error) -> Failure {
    tracing::warn!(error = %chain(error), "the database does not answer");
    Failure::new(ErrorCode::Unavailable, "the ledger does not answer")
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidRequest, message)
}
