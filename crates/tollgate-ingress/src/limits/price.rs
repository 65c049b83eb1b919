//! What a call may cost, before it is made.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use tollgate_bus::PriceList;
use tollgate_config::Config;
use tollgate_pricing::{Call, Catalogue, Circumstances, Consumption, PriceLists, Unit, cost, priced};
use tollgate_types::{Operation, RequestView, Target};

/// A prompt may have more tokens than a quarter of its characters, by which it is estimated.
const MARGIN: u64 = 2;
/// What wraps a prompt, in tokens.
const FRAME: u64 = 16;

/// The price lists that audit tells of.
pub(super) struct Prices {
    lists: PriceLists,
    assumed_output: u64,
    book: RwLock<Book>,
}

#[derive(Default)]
struct Book {
    told: HashMap<String, PriceList>,
    catalogue: Arc<Catalogue>,
}

impl Prices {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            lists: config.price_lists().collect(),
            assumed_output: config.ingress.limits.assumed_output,
            book: RwLock::default(),
        }
    }

    pub(super) fn learn(&self, list: PriceList) {
        let mut book = self.book.write().unwrap_or_else(PoisonError::into_inner);
        book.told.insert(list.provider.clone(), list);
        let sheets = book.told.values().flat_map(|list| list.sheets.iter().cloned());
        book.catalogue = Arc::new(sheets.collect());
    }

    fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.book.read().unwrap_or_else(PoisonError::into_inner).catalogue)
    }

    /// Tokens of prompt and answer by which a request is counted until it is known better.
    pub(super) fn expected(&self, view: &RequestView) -> (u64, u64) {
        match view.operation {
            Operation::Chat => {
                let output = view.most_output_tokens(Some(self.assumed_output));
                (view.estimated_input_tokens, output.unwrap_or_default())
            }
            Operation::Embed => (view.estimated_input_tokens, 0),
            Operation::CountTokens => (0, 0),
        }
    }

    /// US dollars that a call costs at most: a prompt of twice the tokens that it seems to have, all of them written to a cache where that is
    /// dearer, and the longest answer that is allowed, or assumed where nothing is said. None when there is no price.
    pub(super) fn most(&self, target: &Target, view: &RequestView, at: DateTime<Utc>) -> Option<Decimal> {
        if view.operation == Operation::CountTokens {
            return Some(Decimal::ZERO);
        }
        let (input, output) = self.expected(view);
        let input = input.saturating_mul(MARGIN).saturating_add(FRAME);
        let of = |unit| Consumption {
            quantities: [(unit, input), (Unit::Output, output)]
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .collect(),
            prompt_tokens: input,
            ..Consumption::default()
        };
        let (sheet, plain) = priced(&self.catalogue(), &self.lists, call(target, at), &of(Unit::Input))?;
        let how = Circumstances {
            at,
            ..Circumstances::default()
        };
        let dearer = [Unit::CacheWrite, Unit::CacheWrite1h].into_iter();
        let dearer = dearer.filter_map(|unit| cost(&sheet, &of(unit), &how).ok());
        let all = dearer.chain(plain.ok()).map(|found| found.total_usd);
        all.max()
    }

    /// US dollars that a call has cost; none when there is no price.
    pub(super) fn cost(&self, target: &Target, used: &Consumption, at: DateTime<Utc>) -> Option<Decimal> {
        if used.quantities.is_empty() && used.stated_usd.is_none() {
            return Some(Decimal::ZERO);
        }
        let (_, found) = priced(&self.catalogue(), &self.lists, call(target, at), used)?;
        Some(found.ok()?.total_usd)
    }
}

fn call(target: &Target, at: DateTime<Utc>) -> Call<'_> {
    Call {
        provider: &target.provider,
        served: None,
        asked: &target.model,
        region: None,
        at,
    }
}
