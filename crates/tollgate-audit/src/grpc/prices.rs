//! `tollgate.v1.Prices`: price sheets, and what calls cost by them.

use chrono::{DateTime, Utc};
use tollgate_config::schema::Permission;
use tollgate_pricing::{Breakdown, Catalogue, Sheet, Tier, read};
use tollgate_proto::{to_status, v1};
use tollgate_types::{Failure, Millis};
use tonic::{Request, Response, Status};

use super::{Access, invalid, some, unavailable};
use crate::{Actor, Error, Listed, PriceChange, Store};

/// The service.
pub(crate) struct Prices {
    pub(crate) store: Store,
    pub(crate) access: Access,
}

/// A time, or now for none.
fn moment(unix_ms: u64) -> DateTime<Utc> {
    if unix_ms == 0 {
        Utc::now()
    } else {
        Millis(unix_ms).to_datetime()
    }
}

fn json(sheet: &Sheet) -> String {
    serde_json::to_string(sheet).unwrap_or_default()
}

impl From<Listed> for v1::PriceSheet {
    fn from(listed: Listed) -> Self {
        Self {
            id: listed.sheet.id.unwrap_or_default(),
            json: json(&listed.sheet),
            version: listed.version,
            entered_at_unix_ms: listed.entered_at.timestamp_millis().unsigned_abs(),
        }
    }
}

impl From<PriceChange> for v1::PriceChange {
    fn from(change: PriceChange) -> Self {
        Self {
            before_json: change.before.as_ref().map(json).unwrap_or_default(),
            after_json: json(&change.after),
        }
    }
}

fn response(found: Breakdown, sheet: Option<Listed>) -> v1::PriceCallResponse {
    let components = found.components.into_iter().map(|part| v1::PriceComponent {
        unit: part.unit.to_string(),
        quantity: part.quantity,
        rate: part.rate.to_string(),
        per: part.per,
        usd: part.usd.to_string(),
    });
    let multipliers = found.multipliers.into_iter();
    v1::PriceCallResponse {
        total_usd: found.total_usd.to_string(),
        components: components.collect(),
        tier: found.tier.to_string(),
        above_input_tokens: found.above_input_tokens,
        off_peak: found.off_peak,
        multipliers: multipliers.map(|one| (one.name, one.factor.to_string())).collect(),
        computed_usd: found.computed_usd.map(|usd| usd.to_string()),
        stated_usd: found.stated_usd.map(|usd| usd.to_string()),
        discount_usd: found.discount_usd.map(|usd| usd.to_string()),
        sheet: sheet.map(Into::into),
    }
}

impl Prices {
    async fn priced(&self, request: v1::PriceCallRequest) -> Result<v1::PriceCallResponse, Failure> {
        let json = serde_json::from_str(&request.usage_json).map_err(|_| invalid("usage_json: is not JSON"))?;
        let mut used = read(&json).map_err(|none| invalid(format!("usage_json: {none}")))?;
        if used.tier.is_none() && !request.tier.is_empty() {
            let known = Tier::of_provider(&request.tier);
            used.tier = Some(known.ok_or_else(|| invalid("tier: no tier of this name has a price"))?);
        }
        let (region, at) = (some(request.region), moment(request.at_unix_ms));
        let priced = self
            .store
            .price(&request.provider, &request.model, region.as_deref(), at, &used)
            .await
            .map_err(|error| unavailable(&error))?;
        let Some((sheet, cost)) = priced else {
            return Err(invalid(format!(
                "there is no price for {:?} of {:?}",
                request.model, request.provider
            )));
        };
        let found = cost.map_err(|unpriced| invalid(unpriced.to_string()))?;
        Ok(response(found, sheet))
    }

    async fn listed(&self, request: v1::ListPricesRequest) -> Result<v1::ListPricesResponse, Failure> {
        let (provider, model) = (some(request.provider), some(request.model));
        let at = (!request.all).then(|| moment(request.at_unix_ms));
        let listed = self.store.prices(provider.as_deref(), model.as_deref(), at).await;
        let listed = listed.map_err(|error| unavailable(&error))?;
        Ok(v1::ListPricesResponse {
            sheets: listed.into_iter().map(Into::into).collect(),
        })
    }

    async fn enter(
        &self,
        actor: &Actor,
        request: v1::ImportPricesRequest,
    ) -> Result<v1::ImportPricesResponse, Failure> {
        let source = some(request.source).unwrap_or_else(|| "import".to_owned());
        let read = Catalogue::read(&request.sheets, &source);
        let sheets = read.map_err(|mistake| invalid(format!("sheets: {mistake}")))?;
        // Whoever enters a price means it to hold before the list price.
        let sheets: Vec<Sheet> = sheets
            .sheets()
            .map(|sheet| Sheet {
                custom: true,
                ..sheet.clone()
            })
            .collect();
        let by = Some(actor).filter(|_| !request.dry_run);
        let changes = match self.store.import_prices(&sheets, Utc::now(), by).await {
            Ok(changes) => changes,
            Err(Error::Prices(reason)) => return Err(invalid(format!("sheets: {reason}"))),
            Err(error) => return Err(unavailable(&error)),
        };
        Ok(v1::ImportPricesResponse {
            unchanged: (sheets.len() - changes.len()) as u64,
            changes: changes.into_iter().map(Into::into).collect(),
        })
    }
}

#[tonic::async_trait]
impl v1::prices_server::Prices for Prices {
    async fn cost(&self, request: Request<v1::PriceCallRequest>) -> Result<Response<v1::PriceCallResponse>, Status> {
        let permitted = self.access.of(request.metadata(), Permission::Report).await;
        permitted.map_err(|failure| to_status(&failure, None))?;
        let priced = self.priced(request.into_inner()).await;
        priced.map(Response::new).map_err(|failure| to_status(&failure, None))
    }

    async fn list(&self, request: Request<v1::ListPricesRequest>) -> Result<Response<v1::ListPricesResponse>, Status> {
        let permitted = self.access.of(request.metadata(), Permission::Report).await;
        permitted.map_err(|failure| to_status(&failure, None))?;
        let listed = self.listed(request.into_inner()).await;
        listed.map(Response::new).map_err(|failure| to_status(&failure, None))
    }

    async fn import(
        &self,
        request: Request<v1::ImportPricesRequest>,
    ) -> Result<Response<v1::ImportPricesResponse>, Status> {
        let permitted = self.access.of(request.metadata(), Permission::Prices).await;
        let entry = permitted.map_err(|failure| to_status(&failure, None))?;
        let done = self.enter(&Actor::of(&entry), request.into_inner()).await;
        done.map(Response::new).map_err(|failure| to_status(&failure, None))
    }
}
