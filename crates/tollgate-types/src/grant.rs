//! What the holder of a key may do, and on whose behalf.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{Dialect, KeyId, Millis};

/// A text that is no name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not one of {known}")]
pub struct UnknownName {
    pub(crate) found: String,
    pub(crate) known: String,
}

macro_rules! named {
    ($(#[$doc:meta])* $kind:ident { $($(#[$about:meta])* $name:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "&'static str")]
        pub enum $kind {
            $($(#[$about])* $name,)*
        }

        impl $kind {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in the configuration, in commands and in the database.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }

        impl std::str::FromStr for $kind {
            type Err = $crate::grant::UnknownName;

            fn from_str(text: &str) -> Result<Self, $crate::grant::UnknownName> {
                let mut all = Self::ALL.iter().copied();
                all.find(|one| one.as_str() == text).ok_or_else(|| $crate::grant::UnknownName {
                    found: text.to_owned(),
                    known: [$($text,)*].join(", "),
                })
            }
        }

        impl TryFrom<String> for $kind {
            type Error = $crate::grant::UnknownName;

            fn try_from(text: String) -> Result<Self, $crate::grant::UnknownName> {
                text.parse()
            }
        }

        impl From<$kind> for &'static str {
            fn from(one: $kind) -> Self {
                one.as_str()
            }
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use named;

named! {
    /// A thing that a key may do.
    Permission {
        /// Call models.
        Complete = "complete",
        /// Read cost reports and prices.
        Report = "report",
        /// See and drain targets.
        Operate = "operate",
        /// Enter prices.
        Prices = "prices",
        /// Make, change and end keys, teams and organisations.
        Keys = "keys",
        /// Read who changed what.
        Audit = "audit",
        /// Release what others wait for: more money for a budget.
        Approve = "approve",
    }
}

named! {
    /// A set of permissions that goes with a job.
    Role {
        /// Everything.
        Admin = "admin",
        /// Keeps the gateway running.
        Operator = "operator",
        /// Calls models.
        Developer = "developer",
        /// Sees everything and changes nothing.
        Auditor = "auditor",
        /// Sees what is spent, and allows more.
        Approver = "approver",
    }
}

impl Permission {
    /// Whether it is about the gateway as a whole, so that no key of an organisation can have it.
    #[must_use]
    pub const fn is_for_the_whole(self) -> bool {
        matches!(self, Self::Operate | Self::Prices | Self::Audit)
    }
}

impl Role {
    /// What somebody with this role may do.
    #[must_use]
    pub const fn permissions(self) -> &'static [Permission] {
        use Permission::{Approve, Audit, Complete, Operate, Prices, Report};
        match self {
            Self::Admin => Permission::ALL,
            Self::Operator => &[Report, Operate, Prices],
            Self::Developer => &[Complete],
            Self::Auditor => &[Report, Audit],
            Self::Approver => &[Report, Approve],
        }
    }
}

named! {
    /// The way by which a request comes.
    Door {
        /// Chat Completions and embeddings.
        Openai = "openai",
        Responses = "responses",
        Anthropic = "anthropic",
        Gemini = "gemini",
        Grpc = "grpc",
    }
}

impl Door {
    /// The door whose clients speak the dialect; none for one that only providers speak.
    #[must_use]
    pub const fn of(dialect: Dialect) -> Option<Self> {
        match dialect {
            Dialect::OpenaiChat => Some(Self::Openai),
            Dialect::OpenaiResponses => Some(Self::Responses),
            Dialect::Anthropic => Some(Self::Anthropic),
            Dialect::Gemini => Some(Self::Gemini),
            Dialect::Native => Some(Self::Grpc),
            Dialect::Bedrock => None,
        }
    }
}

named! {
    /// Whether somebody waits for the answer.
    Lane {
        Interactive = "interactive",
        Jobs = "jobs",
    }
}

/// What a key, or all keys of a team or an organisation, may do. A list that is absent allows everything; an empty one
/// nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grant {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<Permission>>,
    /// Labels that each of its ledger rows has.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// The guardrail policy for its prompts and answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// By their public names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// By their names in the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub providers: Option<Vec<String>>,
    /// Of providers; one without a region is in none of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regions: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doors: Option<Vec<Door>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lanes: Option<Vec<Lane>>,
    /// Requests a minute that one ingress replica admits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
}

fn allows<T: PartialEq>(list: Option<&[T]>, one: &T) -> bool {
    list.is_none_or(|list| list.contains(one))
}

/// What both lists allow.
fn both<T: Clone + PartialEq>(inner: Option<&Vec<T>>, outer: Option<&Vec<T>>) -> Option<Vec<T>> {
    match (inner, outer) {
        (Some(inner), Some(outer)) => Some(inner.iter().filter(|one| outer.contains(one)).cloned().collect()),
        (one, other) => one.or(other).cloned(),
    }
}

impl Grant {
    /// Whether it has the permission; one that names none may call models and no more.
    #[must_use]
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions
            .as_deref()
            .unwrap_or(&[Permission::Complete])
            .contains(&permission)
    }

    /// Whether it is for the model of this public name.
    #[must_use]
    pub fn allows_model(&self, model: &str) -> bool {
        self.models
            .as_deref()
            .is_none_or(|models| models.iter().any(|name| name == model))
    }

    /// Whether it is for the door.
    #[must_use]
    pub fn allows_door(&self, door: Door) -> bool {
        allows(self.doors.as_deref(), &door)
    }

    /// Whether it is for the lane.
    #[must_use]
    pub fn allows_lane(&self, lane: Lane) -> bool {
        allows(self.lanes.as_deref(), &lane)
    }

    /// Whether it is for the provider of this name, which serves in this region.
    #[must_use]
    pub fn allows_provider(&self, provider: &str, region: Option<&str>) -> bool {
        let named = self
            .providers
            .as_deref()
            .is_none_or(|all| all.iter().any(|name| name == provider));
        let regions = self.regions.as_deref();
        named && regions.is_none_or(|all| region.is_some_and(|region| all.iter().any(|name| name == region)))
    }

    /// What is left of it within another: no list allows more, and labels and policy of the outer one stand.
    #[must_use]
    pub fn within(&self, outer: &Self) -> Self {
        let mut tags = self.tags.clone();
        tags.extend(outer.tags.clone());
        Self {
            // What a team may do is a limit only where it says so.
            permissions: match &outer.permissions {
                None => self.permissions.clone(),
                Some(allowed) => {
                    let own = self.permissions.clone().unwrap_or_else(|| vec![Permission::Complete]);
                    both(Some(&own), Some(allowed))
                }
            },
            tags,
            policy: outer.policy.clone().or_else(|| self.policy.clone()),
            models: both(self.models.as_ref(), outer.models.as_ref()),
            providers: both(self.providers.as_ref(), outer.providers.as_ref()),
            regions: both(self.regions.as_ref(), outer.regions.as_ref()),
            doors: both(self.doors.as_ref(), outer.doors.as_ref()),
            lanes: both(self.lanes.as_ref(), outer.lanes.as_ref()),
            requests_per_minute: match (self.requests_per_minute, outer.requests_per_minute) {
                (Some(own), Some(most)) => Some(own.min(most)),
                (own, most) => own.or(most),
            },
        }
    }
}

/// Whose a key is. A team is one of an organisation.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Tenant {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
}

impl Tenant {
    /// The tenant and the organisation around it, the inner one first.
    pub fn parts(&self) -> impl Iterator<Item = Self> {
        let around = Self {
            organisation: self.organisation.clone(),
            team: None,
        };
        let team = self.team.is_some().then(|| self.clone());
        team.into_iter().chain(self.organisation.is_some().then_some(around))
    }

    /// Whether `other` is this tenant or a part of it; nobody's contains everybody.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        match (&self.organisation, &self.team) {
            (None, _) => true,
            (own, None) => *own == other.organisation,
            _ => self == other,
        }
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.organisation.iter().chain(&self.team);
        f.write_str(&parts.map(String::as_str).collect::<Vec<_>>().join("/"))
    }
}

/// What all of a tenant may do, as every ingress knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRecord {
    #[serde(flatten)]
    pub tenant: Tenant,
    /// Grows with every change.
    pub revision: u64,
    pub grant: Grant,
}

/// A secret of a key, by its SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretHash {
    /// 64 hex digits, of the whole secret.
    pub sha256: String,
    /// Until when it is accepted, after another took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Millis>,
}

/// A key as every ingress knows it. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    pub key_id: KeyId,
    /// Grows with every change.
    pub revision: u64,
    pub name: String,
    #[serde(flatten)]
    pub tenant: Tenant,
    pub secrets: Vec<SecretHash>,
    #[serde(default)]
    pub disabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Millis>,
    /// Its own within those of its team and its organisation.
    pub grant: Grant,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn nothing_within_another_allows_more() {
        let outer = Grant {
            models: names(&["a", "b"]),
            providers: names(&["x"]),
            lanes: Some(vec![Lane::Interactive]),
            requests_per_minute: Some(10),
            policy: Some("strict".to_owned()),
            tags: [("team".to_owned(), "red".to_owned())].into(),
            permissions: Some(vec![Permission::Complete, Permission::Report]),
            ..Grant::default()
        };
        let inner = Grant {
            models: names(&["b", "c"]),
            doors: Some(vec![Door::Grpc]),
            requests_per_minute: Some(100),
            policy: Some("lax".to_owned()),
            tags: [("team", "blue"), ("run", "7")]
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .into(),
            permissions: Some(vec![Permission::Report, Permission::Keys]),
            ..Grant::default()
        };
        let found = inner.within(&outer);
        assert_eq!(found.models, names(&["b"]));
        assert_eq!(found.providers, names(&["x"]));
        assert_eq!((found.tags["team"].as_str(), found.tags["run"].as_str()), ("red", "7"));
        assert_eq!(
            (found.policy.as_deref(), found.requests_per_minute),
            (Some("strict"), Some(10))
        );
        assert!(found.may(Permission::Report) && !found.may(Permission::Keys) && !found.may(Permission::Complete));
        assert!(found.allows_door(Door::Grpc) && !found.allows_door(Door::Openai) && !found.allows_lane(Lane::Jobs));
        // A list in which nothing is left allows nothing.
        let none = Grant {
            models: names(&["c"]),
            ..Grant::default()
        }
        .within(&outer);
        assert!(!none.allows_model("a") && !none.allows_model("c"));
        assert_eq!(Grant::default().within(&Grant::default()), Grant::default());
    }

    #[test]
    fn regions_are_those_of_providers() {
        let eu = Grant {
            regions: names(&["eu"]),
            ..Grant::default()
        };
        assert!(eu.allows_provider("any", Some("eu")));
        assert!(!eu.allows_provider("any", Some("us")) && !eu.allows_provider("any", None));
        assert!(Grant::default().allows_provider("any", None));
    }

    #[test]
    fn tenants_contain_their_parts_and_no_others() {
        let tenant = |organisation: Option<&str>, team: Option<&str>| Tenant {
            organisation: organisation.map(str::to_owned),
            team: team.map(str::to_owned),
        };
        let (all, a, red, blue) = (
            tenant(None, None),
            tenant(Some("a"), None),
            tenant(Some("a"), Some("red")),
            tenant(Some("a"), Some("blue")),
        );
        let foreign = tenant(Some("b"), Some("red"));
        assert!([&a, &red, &foreign].iter().all(|one| all.contains(one)));
        assert!(a.contains(&red) && a.contains(&a) && !a.contains(&foreign) && !a.contains(&all));
        assert!(red.contains(&red) && !red.contains(&blue) && !red.contains(&foreign) && !red.contains(&a));
    }
}
