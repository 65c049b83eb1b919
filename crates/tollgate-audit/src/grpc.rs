//! `tollgate.v1.Reports`: cost reports for keys with the permission `report`.

use std::sync::Arc;

use chrono::Utc;
use tollgate_config::{Keyring, schema::Permission};
use tollgate_proto::{to_status, v1};
use tollgate_types::{ErrorCode, Failure, Millis};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{GroupBy, Store, consume::chain};

/// The service. Every method begins with [`Reports::authorise`].
pub(crate) struct Reports {
    pub(crate) store: Store,
    pub(crate) keys: Arc<Keyring>,
}

impl Reports {
    /// Lets a caller pass whose key may read reports.
    fn authorise(&self, metadata: &MetadataMap) -> Result<(), Failure> {
        let secret = metadata
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, secret)| secret.trim())
            .ok_or_else(|| Failure::new(ErrorCode::Unauthenticated, "send authorization: Bearer <key>"))?;
        // Unknown, expired and malformed keys are answered alike.
        let entry = self
            .keys
            .authenticate(secret, Utc::now())
            .map_err(|_| Failure::new(ErrorCode::Unauthenticated, "the key is not valid"))?;
        if entry.may(Permission::Report) {
            Ok(())
        } else {
            Err(Failure::new(
                ErrorCode::PermissionDenied,
                "this key may not read reports",
            ))
        }
    }

    async fn rows(&self, request: v1::CostRequest) -> Result<Vec<v1::CostRow>, Failure> {
        let by = v1::GroupBy::try_from(request.by)
            .ok()
            .and_then(GroupBy::from_wire)
            .ok_or_else(|| Failure::new(ErrorCode::InvalidRequest, "by: is not a known group"))?;
        let until = if request.until_unix_ms == 0 {
            Millis::now()
        } else {
            Millis(request.until_unix_ms)
        };
        let rows = self
            .store
            .cost(by, Millis(request.since_unix_ms), until)
            .await
            .map_err(|error| {
                tracing::warn!(error = %chain(&error), "a report failed");
                Failure::new(ErrorCode::Unavailable, "the ledger does not answer")
            })?;
        Ok(rows.into_iter().map(Into::into).collect())
    }
}

#[tonic::async_trait]
impl v1::reports_server::Reports for Reports {
    async fn cost(&self, request: Request<v1::CostRequest>) -> Result<Response<v1::CostResponse>, Status> {
        self.authorise(request.metadata())
            .map_err(|failure| to_status(&failure, None))?;
        let rows = self
            .rows(request.into_inner())
            .await
            .map_err(|failure| to_status(&failure, None))?;
        Ok(Response::new(v1::CostResponse { rows }))
    }
}
