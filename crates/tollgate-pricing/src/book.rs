//! Which sheet a call is priced by.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::{Breakdown, Catalogue, Circumstances, Consumption, Sheet, Unpriced, cost};

/// The list of sheets that stand for every provider: a default for what has no price of its own.
const EVERYBODY: &str = "*";

/// By which price lists providers are billed, and where they serve: by their names in the configuration.
#[derive(Debug, Clone, Default)]
pub struct PriceLists(BTreeMap<String, PriceList>);

#[derive(Debug, Clone)]
struct PriceList {
    name: String,
    region: Option<String>,
}

impl FromIterator<(String, String, Option<String>)> for PriceLists {
    /// Of providers with the names of their lists and their regions.
    fn from_iter<I: IntoIterator<Item = (String, String, Option<String>)>>(providers: I) -> Self {
        let list = |(provider, name, region)| (provider, PriceList { name, region });
        Self(providers.into_iter().map(list).collect())
    }
}

/// The call that is to be priced.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// By its name in the configuration.
    pub provider: &'a str,
    /// The model that the provider says it used.
    pub served: Option<&'a str>,
    /// The model that it was asked for.
    pub asked: &'a str,
    /// Where it was served, if that is not where the provider usually serves.
    pub region: Option<&'a str>,
    pub at: DateTime<Utc>,
}

/// The sheet by which a call is priced and what it costs; none when nobody knows. The sheet is an own one before a list price, of the model that was served before the one that was asked
/// for, of the provider before its list, and a default only when there is no other.
pub fn priced(
    book: &Catalogue,
    lists: &PriceLists,
    call: Call<'_>,
    used: &Consumption,
) -> Option<(Sheet, Result<Breakdown, Unpriced>)> {
    let list = lists.0.get(call.provider);
    let region = call.region.or(list.and_then(|list| list.region.as_deref()));
    let sheet = find(book, list.map(|list| list.name.as_str()), region, call).cloned();
    // A provider that states the cost needs no sheet.
    let unlisted = || Sheet::unlisted(list.map_or(call.provider, |list| &list.name), call.asked);
    let sheet = sheet.or_else(|| used.stated_usd.map(|_| unlisted()))?;
    let how = Circumstances {
        at: call.at,
        tier: None,
        region: region.map(str::to_owned),
    };
    let found = cost(&sheet, used, &how);
    Some((sheet, found))
}

fn find<'a>(book: &'a Catalogue, list: Option<&str>, region: Option<&str>, call: Call<'_>) -> Option<&'a Sheet> {
    let models = || call.served.into_iter().chain([call.asked]);
    let lists = || [call.provider].into_iter().chain(list);
    let of = |list: &str, model: &str| book.find(list, model, region, call.at);
    let known: Vec<&Sheet> = models()
        .flat_map(|model| lists().filter_map(move |list| of(list, model)))
        .collect();
    let own = known.iter().find(|sheet| sheet.custom);
    let nearest = own.or(known.first()).copied();
    nearest.or_else(|| models().find_map(|model| of(EVERYBODY, model)))
}
