//! Which limits a request counts against.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tollgate_types::{Caller, KeyId, LimitId, LimitRecord};

/// All limits, found by the narrowest thing that they are for.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    all: BTreeMap<LimitId, Arc<LimitRecord>>,
    by_handle: HashMap<Handle, Vec<Arc<LimitRecord>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Handle {
    Key(KeyId),
    Team(String, String),
    Organisation(String),
    Tag(String, String),
    Everybody,
}

impl Index {
    /// The same with this limit, or without it if it was removed; none when that is known already.
    pub(super) fn with(&self, record: LimitRecord) -> Option<Self> {
        let known = self.all.get(&record.limit_id);
        if known.is_some_and(|known| known.revision >= record.revision) {
            return None;
        }
        let mut all = self.all.clone();
        all.insert(record.limit_id, Arc::new(record));
        let mut by_handle: HashMap<Handle, Vec<Arc<LimitRecord>>> = HashMap::new();
        for limit in all.values().filter(|limit| !limit.removed) {
            by_handle.entry(handle(limit)).or_default().push(Arc::clone(limit));
        }
        Some(Self { all, by_handle })
    }

    /// The limit of this id, if it was not removed.
    pub(super) fn get(&self, id: LimitId) -> Option<&Arc<LimitRecord>> {
        self.all.get(&id).filter(|limit| !limit.removed)
    }

    /// Those that cover the caller's requests for the model, whoever serves them.
    pub(super) fn of(&self, caller: &Caller, model: &str) -> Vec<Arc<LimitRecord>> {
        if self.by_handle.is_empty() {
            return Vec::new();
        }
        let mut handles = vec![Handle::Everybody, Handle::Key(caller.key_id)];
        if let Some(organisation) = &caller.tenant.organisation {
            handles.push(Handle::Organisation(organisation.clone()));
            handles.extend(
                caller
                    .tenant
                    .team
                    .iter()
                    .map(|team| Handle::Team(organisation.clone(), team.clone())),
            );
        }
        let tags = caller.tags.iter();
        handles.extend(tags.map(|(name, value)| Handle::Tag(name.clone(), value.clone())));
        let found = handles.iter().filter_map(|handle| self.by_handle.get(handle)).flatten();
        found
            .filter(|limit| limit.scope.covers(caller, model))
            .cloned()
            .collect()
    }
}

fn handle(limit: &LimitRecord) -> Handle {
    let scope = &limit.scope;
    match (scope.key_id, &scope.tag, &scope.tenant.organisation, &scope.tenant.team) {
        (Some(key), ..) => Handle::Key(key),
        (None, Some((name, value)), ..) => Handle::Tag(name.clone(), value.clone()),
        (None, None, Some(organisation), Some(team)) => Handle::Team(organisation.clone(), team.clone()),
        (None, None, Some(organisation), None) => Handle::Organisation(organisation.clone()),
        (None, None, None, _) => Handle::Everybody,
    }
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;
    use tollgate_types::{
        Tenant,
        limit::{Measure, Scope, WhenAway},
    };

    use super::*;

    fn record(scope: Scope, revision: u64) -> LimitRecord {
        LimitRecord {
            limit_id: LimitId::generate(),
            revision,
            name: "l".to_owned(),
            scope,
            measure: Measure::Requests,
            amount: Decimal::TEN,
            period: None,
            window_seconds: Some(60),
            when_away: WhenAway::Refuse,
            removed: false,
        }
    }

    #[test]
    fn limits_are_found_by_whatever_they_are_for() {
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
        let organisation = Scope {
            tenant: Tenant {
                organisation: Some("acme".to_owned()),
                team: None,
            },
            ..Scope::default()
        };
        let scopes = [
            Scope::default(),
            organisation.clone(),
            Scope {
                tenant: caller.tenant.clone(),
                ..Scope::default()
            },
            Scope {
                key_id: Some(caller.key_id),
                ..organisation.clone()
            },
            Scope {
                tag: Some(("run".to_owned(), "7".to_owned())),
                ..Scope::default()
            },
            Scope {
                model: Some("m".to_owned()),
                ..organisation
            },
        ];
        let records: Vec<_> = scopes.into_iter().map(|scope| record(scope, 1)).collect();
        let mut index = Index::default();
        for record in &records {
            index = index.with(record.clone()).unwrap();
        }
        assert_eq!(index.of(&caller, "m").len(), 6);
        assert_eq!(index.of(&caller, "n").len(), 5);
        let stranger = Caller {
            key_id: KeyId::generate(),
            tenant: Tenant::default(),
            tags: BTreeMap::new(),
            ..caller.clone()
        };
        assert_eq!(index.of(&stranger, "m").len(), 1);
        // What is older than what is known says nothing.
        assert!(index.with(records[0].clone()).is_none());
        let removed = LimitRecord {
            removed: true,
            revision: 2,
            ..records[0].clone()
        };
        index = index.with(removed).unwrap();
        assert_eq!(index.of(&caller, "m").len(), 5);
        assert!(index.get(records[0].limit_id).is_none());
    }
}
