//! `tollgate.v1.Reports`: cost reports for keys with the permission `report`.

use tollgate_config::schema::Permission;
use tollgate_proto::{to_status, v1};
use tollgate_types::{Failure, Millis, Tenant};
use tonic::{Request, Response, Status};

use super::{Access, invalid, narrowed, some, unavailable};
use crate::{GroupBy, Store};

/// The service.
pub(crate) struct Reports {
    pub(crate) store: Store,
    pub(crate) access: Access,
}

impl Reports {
    async fn rows(&self, of: &Tenant, request: v1::CostRequest) -> Result<Vec<v1::CostRow>, Failure> {
        let by = v1::GroupBy::try_from(request.by)
            .ok()
            .and_then(GroupBy::from_wire)
            .ok_or_else(|| invalid("by: is not a known group"))?;
        let until = if request.until_unix_ms == 0 {
            Millis::now()
        } else {
            Millis(request.until_unix_ms)
        };
        let asked = Tenant {
            organisation: some(request.organisation),
            team: some(request.team),
        };
        let tenant = narrowed(of, asked)?;
        let rows = self
            .store
            .cost(by, &tenant, Millis(request.since_unix_ms), until)
            .await
            .map_err(|error| unavailable(&error))?;
        Ok(rows.into_iter().map(Into::into).collect())
    }
}

#[tonic::async_trait]
impl v1::reports_server::Reports for Reports {
    async fn cost(&self, request: Request<v1::CostRequest>) -> Result<Response<v1::CostResponse>, Status> {
        let permitted = self.access.of(request.metadata(), Permission::Report).await;
        let entry = permitted.map_err(|failure| to_status(&failure, None))?;
        let rows = self
            .rows(&entry.caller.tenant, request.into_inner())
            .await
            .map_err(|failure| to_status(&failure, None))?;
        Ok(Response::new(v1::CostResponse { rows }))
    }
}
