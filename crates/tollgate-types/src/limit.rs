//! Limits: what calls may cost, how many there may be in a time, and how many at once.
//!
//! Audit grants slices of a limit to ingress replicas as leases. What an attempt may cost is reserved from them before the call, and
//! the attempt carries which: see [`Hold`].

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::{Caller, KeyId, LeaseId, LimitId, Tenant, grant::named};

named! {
    /// What is counted.
    Measure {
        /// US dollars in a calendar period, or ever.
        Usd = "usd",
        /// Requests in a time.
        Requests = "requests",
        /// Tokens of prompts in a time.
        InputTokens = "input_tokens",
        /// Tokens of answers in a time.
        OutputTokens = "output_tokens",
        /// Tokens of both in a time.
        Tokens = "tokens",
        /// Requests under way at once.
        Concurrency = "concurrency",
    }
}

named! {
    /// The time for which a budget is.
    Period {
        /// From when the budget was made, for ever.
        Total = "total",
        Day = "day",
        /// From Monday.
        Week = "week",
        Month = "month",
    }
}

named! {
    /// What becomes of requests when nobody can say how much of a limit is left.
    WhenAway {
        Refuse = "refuse",
        Allow = "allow",
    }
}

/// Which requests count against a limit: those for which all that is given here is so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scope {
    #[serde(flatten)]
    pub tenant: Tenant,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<KeyId>,
    /// A label, by name and value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<(String, String)>,
    /// By its public name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// By its name in the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
}

impl Scope {
    /// Whether requests of this caller for this model count; whatever provider serves them.
    #[must_use]
    pub fn covers(&self, caller: &Caller, model: &str) -> bool {
        self.tenant.contains(&caller.tenant)
            && self.key_id.is_none_or(|key| key == caller.key_id)
            && self
                .tag
                .as_ref()
                .is_none_or(|(name, value)| caller.tags.get(name) == Some(value))
            && self.model.as_ref().is_none_or(|name| name == model)
    }
}

/// A limit as every ingress knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitRecord {
    pub limit_id: LimitId,
    /// Grows with every change.
    pub revision: u64,
    /// For people: errors name it.
    pub name: String,
    pub scope: Scope,
    pub measure: Measure,
    /// US dollars, or a count.
    pub amount: Decimal,
    /// Of a limit on US dollars.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Period>,
    /// Of a limit on requests or tokens: at no moment were there more in the time before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_seconds: Option<u32>,
    pub when_away: WhenAway,
    #[serde(default)]
    pub removed: bool,
}

/// What is reserved for an attempt, and of which budgets' leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub leases: Vec<LeaseId>,
    pub usd: Decimal,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_scope_covers_what_is_as_it_says() {
        let caller = Caller {
            key_id: KeyId::generate(),
            key_name: "k".to_owned(),
            tenant: Tenant {
                organisation: Some("acme".to_owned()),
                team: Some("red".to_owned()),
            },
            user: None,
            tags: BTreeMap::from([("run".to_owned(), "7".to_owned())]),
            policy: "default".to_owned(),
            providers: None,
        };
        let tenant = |organisation: &str, team: Option<&str>| Scope {
            tenant: Tenant {
                organisation: Some(organisation.to_owned()),
                team: team.map(str::to_owned),
            },
            ..Scope::default()
        };
        let tag = |value: &str| Scope {
            tag: Some(("run".to_owned(), value.to_owned())),
            ..Scope::default()
        };
        let key = |key_id| Scope {
            key_id: Some(key_id),
            ..Scope::default()
        };
        let model = |name: &str| Scope {
            model: Some(name.to_owned()),
            ..tenant("acme", None)
        };
        let covered = [
            Scope::default(),
            tenant("acme", None),
            tenant("acme", Some("red")),
            tag("7"),
            key(caller.key_id),
            model("m"),
        ];
        assert!(covered.iter().all(|scope| scope.covers(&caller, "m")));
        let others = [
            tenant("acme", Some("blue")),
            tenant("other", None),
            tag("8"),
            key(KeyId::generate()),
            model("n"),
        ];
        assert!(!others.iter().any(|scope| scope.covers(&caller, "m")));
    }
}
