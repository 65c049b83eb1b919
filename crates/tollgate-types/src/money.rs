//! Money is decimal, never binary floating point.

use std::{fmt, iter::Sum, ops::Add, str::FromStr};

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// An amount in US dollars, exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Usd(Decimal);

impl Usd {
    /// No money at all.
    pub const ZERO: Self = Self(Decimal::ZERO);

    /// The amount as a decimal number.
    #[must_use]
    pub const fn amount(self) -> Decimal {
        self.0
    }

    /// The price of `tokens` at `self` per million tokens.
    #[must_use]
    pub fn per_million(self, tokens: u64) -> Self {
        Self(self.0 * Decimal::from(tokens) / Decimal::from(1_000_000))
    }

    /// The price of `count` things at `self` each.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self(self.0 * Decimal::from(count))
    }
}

impl From<Decimal> for Usd {
    fn from(amount: Decimal) -> Self {
        Self(amount)
    }
}

impl FromStr for Usd {
    type Err = rust_decimal::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Decimal::from_str_exact(text).map(Self)
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.normalize(), f)
    }
}

impl Add for Usd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sum for Usd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenths_add_up() {
        let tenth: Usd = "0.1".parse().unwrap();
        assert_eq!((0..10).map(|_| tenth).sum::<Usd>(), "1".parse().unwrap());
    }

    #[test]
    fn one_token_at_fifteen_cents_a_million_is_exact() {
        let price: Usd = "0.15".parse().unwrap();
        assert_eq!(price.per_million(1).to_string(), "0.00000015");
        assert_eq!(price.per_million(1_000_000), price);
    }
}
