//! Who may give what rights.

use std::time::Duration;

use tollgate_audit::{Actor, NewKey, Refusal};
use tollgate_types::{Grant, KeyId, Permission, Tenant};

use crate::support::Database;

fn names(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

fn new(name: &str, grant: Grant) -> NewKey {
    NewKey {
        name: name.to_owned(),
        tenant: Tenant::default(),
        grant,
        expires_at: None,
        sha256: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_more_than_he_has() {
    let database = Database::fresh().await;
    let store = &database.store;
    let issuing = Grant {
        permissions: Some(vec![Permission::Complete, Permission::Keys]),
        ..Grant::default()
    };
    let root = Actor {
        key_id: KeyId::generate(),
        name: "root".to_owned(),
        tenant: Tenant::default(),
        grant: issuing.clone(),
    };
    let bounds = Grant {
        models: names(&["small", "tiny"]),
        regions: names(&["eu"]),
        policy: Some("strict".to_owned()),
        ..issuing.clone()
    };
    let (own, _) = store.create_key(&root, new("bound", bounds.clone())).await.unwrap();
    store.create_key(&root, new("wide", issuing.clone())).await.unwrap();
    let bound = Actor {
        key_id: own.key_id,
        name: "bound".to_owned(),
        tenant: Tenant::default(),
        grant: bounds.clone(),
    };
    let denied = |refusal: Result<_, Refusal>| matches!(refusal.map(drop), Err(Refusal::Denied(_)));
    for wider in [
        issuing.clone(),
        Grant {
            models: None,
            ..bounds.clone()
        },
        Grant {
            models: names(&["small", "large"]),
            ..bounds.clone()
        },
        Grant {
            regions: names(&["us"]),
            ..bounds.clone()
        },
        Grant {
            policy: None,
            ..bounds.clone()
        },
    ] {
        let made = store.create_key(&bound, new("more", wider.clone())).await;
        assert!(matches!(made, Err(Refusal::Denied(_))), "{wider:?}");
    }
    // No more than by another key, nor by changing what is his own.
    assert!(denied(
        store
            .rotate_key(&bound, "wide", Duration::ZERO)
            .await
            .map(|(key, _)| key)
    ));
    assert!(denied(store.update_key(&bound, "bound", &bounds, None).await));
    assert!(denied(store.update_key(&bound, "wide", &issuing, None).await));
    store.disable_key(&root, "wide", true).await.unwrap();
    assert!(denied(store.disable_key(&bound, "wide", false).await));
    // As much, or less, he may give; his own secret he may change.
    let narrower = Grant {
        models: names(&["tiny"]),
        ..bounds.clone()
    };
    store.create_key(&bound, new("less", narrower.clone())).await.unwrap();
    store.update_key(&bound, "less", &narrower, None).await.unwrap();
    store.rotate_key(&bound, "bound", Duration::ZERO).await.unwrap();
    store.update_key(&root, "bound", &issuing, None).await.unwrap();
}
