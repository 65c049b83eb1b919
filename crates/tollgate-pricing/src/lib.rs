//! What a call costs: price sheets, what a provider says was used, and the pure function that makes money of the two.
//!
//! No I/O and no floating point: amounts are exact decimals from the sheet to the sum.

mod book;
mod engine;
mod sheet;
mod unit;
mod usage;

pub use book::{Call, PriceLists, priced};
pub use engine::{Breakdown, Circumstances, Component, Multiplier, Unpriced, cost};
pub use sheet::{Catalogue, Invalid, Rates, Sheet, shipped};
pub use unit::{Tier, Unit};
pub use usage::{Consumption, NoUsage, read};
