//! `tollgate.v1.Reports`: cost reports for keys with the permission `report`.

use chrono::NaiveDate;
use tollgate_config::schema::Permission;
use tollgate_proto::{to_status, v1};
use tollgate_types::{ErrorCode, Failure, Millis, Tenant};
use tonic::{Request, Response, Status};

use super::{Access, invalid, narrowed, some, unavailable};
use crate::{Days, Error, GroupBy, Page, Store, Table};

/// Rows of a table in an answer, unless its request says how many, and at most.
const ROWS: (u32, u32) = (1_000, 5_000);

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
            .map_err(|error| failed(&error))?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    async fn table(&self, of: &Tenant, request: v1::ReadRequest) -> Result<v1::ReadResponse, Failure> {
        let table = v1::Table::try_from(request.table)
            .ok()
            .and_then(Table::from_wire)
            .ok_or_else(|| invalid("table: is not a known report"))?;
        let days = Days {
            since: day("since_day", &request.since_day)?.unwrap_or(Days::ALL.since),
            until: day("until_day", &request.until_day)?.unwrap_or(Days::ALL.until),
        };
        let limit = match request.limit {
            0 => ROWS.0,
            limit if limit <= ROWS.1 => limit,
            _ => return Err(invalid(format!("limit: must not be above {}", ROWS.1))),
        };
        let asked = Tenant {
            organisation: some(request.organisation),
            team: some(request.team),
        };
        let tenant = narrowed(of, asked)?;
        // One more tells whether there are more.
        let page = Page {
            limit: limit + 1,
            offset: request.offset,
        };
        let found = self.store.table(table, &tenant, days, page).await;
        let mut rows = found.map_err(|error| failed(&error))?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        Ok(v1::ReadResponse {
            columns: table.columns().iter().map(|(name, _)| (*name).to_owned()).collect(),
            rows: rows.into_iter().map(|cells| v1::read_response::Row { cells }).collect(),
            more,
        })
    }
}

fn failed(error: &Error) -> Failure {
    if error.took_too_long() {
        Failure::new(
            ErrorCode::DeadlineExceeded,
            "the report takes longer than audit.report_timeout allows",
        )
    } else {
        unavailable(error)
    }
}

/// A day of a request, none when it is empty.
fn day(field: &str, text: &str) -> Result<Option<NaiveDate>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
    day.filter(|day| *day >= Days::ALL.since && *day <= Days::ALL.until)
        .map(Some)
        .ok_or_else(|| invalid(format!("{field}: is no day, such as 2026-01-31")))
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

    async fn read(&self, request: Request<v1::ReadRequest>) -> Result<Response<v1::ReadResponse>, Status> {
        let permitted = self.access.of(request.metadata(), Permission::Report).await;
        let entry = permitted.map_err(|failure| to_status(&failure, None))?;
        let table = self.table(&entry.caller.tenant, request.into_inner()).await;
        Ok(Response::new(table.map_err(|failure| to_status(&failure, None))?))
    }
}
