use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, extract::State, routing::get};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tollgate_telemetry::Telemetry;
use tollgate_types::{Lane, Permission, Tenant};

use super::*;

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token of three parts that any key may sign.
fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        Self(pair.unwrap())
    }

    fn jwk(&self, id: &str) -> Value {
        let point = self.0.public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id,
                "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]) })
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    fn token(&self, id: &str, claims: &Value) -> String {
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": id });
        token(&header, claims, |message| self.sign(message))
    }
}

#[derive(Clone)]
struct Publisher {
    address: String,
    keys: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
    away: Arc<Mutex<bool>>,
}

impl Publisher {
    async fn start(keys: Vec<Value>) -> Self {
        // The second test of the process finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let publisher = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            keys: Arc::new(Mutex::new(keys)),
            asked: Arc::default(),
            away: Arc::default(),
        };
        let discovery = |State(this): State<Self>| async move {
            let address = &this.address;
            json!({ "issuer": address, "jwks_uri": format!("{address}/keys") }).to_string()
        };
        let set = |State(this): State<Self>| async move {
            this.asked.fetch_add(1, Ordering::SeqCst);
            if *this.away.lock().unwrap() {
                return "out of order".to_owned();
            }
            json!({ "keys": *this.keys.lock().unwrap() }).to_string()
        };
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(set))
            .with_state(publisher.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        publisher
    }

    fn identities(&self, more: &str) -> Identities {
        let text = format!(
            "issuers: [{{name: corp, issuer: '{}', audiences: [tollgate, other], role_claim: realm.roles, \
             roles: {{admins: admin, finance: auditor, devs: developer}}, leeway: 1s{more}}}]",
            self.address
        );
        let config = tollgate_config::parse(&text, "test").unwrap();
        let telemetry = Telemetry::without_logger("test", &config.telemetry).unwrap();
        Identities::new(&config, telemetry.metrics).unwrap()
    }

    fn claims(&self) -> Value {
        let now = Utc::now().timestamp();
        json!({ "iss": self.address, "aud": "tollgate", "sub": "u-1", "iat": now, "exp": now + 600,
                "email": "x@example.com", "realm": { "roles": ["finance", "unknown"] } })
    }

    fn with(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims();
        claims[name] = value;
        claims
    }
}

fn permissions(entry: &Entry) -> Vec<Permission> {
    let all = Permission::ALL.iter().copied();
    all.filter(|one| entry.may(*one)).collect()
}

#[tokio::test]
async fn a_token_gives_what_its_claims_are_mapped_to() {
    let signer = Signer::new();
    let publisher = Publisher::start(vec![signer.jwk("a")]).await;
    let identities = publisher.identities(", rights: {lanes: [interactive], permissions: [complete, report, audit]}");
    let show = async |claims: &Value| identities.authenticate(&signer.token("a", claims)).await.unwrap();
    let entry = show(&publisher.claims()).await;
    assert_eq!(entry.caller.key_name, "corp:u-1");
    assert_eq!(permissions(&entry), [Permission::Report, Permission::Audit]);
    assert!(entry.grant.allows_lane(Lane::Interactive) && !entry.grant.allows_lane(Lane::Jobs));
    // The same holder, whatever else his next token says; of two roles the permissions of both, within the issuer's.
    let admin = show(&publisher.with("realm", json!({ "roles": "admins devs" }))).await;
    assert_eq!(admin.caller.key_id, entry.caller.key_id);
    assert_eq!(
        permissions(&admin),
        [Permission::Complete, Permission::Report, Permission::Audit]
    );
    let other = show(&publisher.with("sub", json!("u-2"))).await;
    assert_ne!(other.caller.key_id, entry.caller.key_id);
    // An audience of several, and a time with a fraction.
    show(&publisher.with("aud", json!(["somebody", "other"]))).await;
    let soon = Utc::now().timestamp() as f64 + 60.5;
    show(&publisher.with("exp", json!(soon))).await;
    assert_eq!(publisher.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_is_not_in_order_is_refused_and_said() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let publisher = Publisher::start(vec![signer.jwk("a")]).await;
    let identities = publisher.identities("");
    let refused = async |token: &str| identities.authenticate(token).await.unwrap_err();
    let now = Utc::now().timestamp();
    for (name, value, expected) in [
        ("exp", json!(now - 10), Refused::Expired),
        ("exp", json!("tomorrow"), Refused::Claim),
        ("exp", Value::Null, Refused::Claim),
        ("nbf", json!(now + 60), Refused::Early),
        ("nbf", json!("tomorrow"), Refused::Claim),
        ("aud", json!("tollgate2"), Refused::Audience),
        ("aud", json!([]), Refused::Audience),
        ("aud", Value::Null, Refused::Claim),
        ("aud", json!({ "tollgate": 1 }), Refused::Claim),
        ("iss", json!("https://elsewhere.example.com"), Refused::Issuer),
        ("iss", json!([publisher.address]), Refused::Claim),
        ("sub", json!(7), Refused::Claim),
        ("sub", json!(""), Refused::Claim),
        ("sub", json!("a\nb"), Refused::Claim),
        ("sub", json!("x".repeat(257)), Refused::Claim),
        ("realm", json!({ "roles": ["finance2"] }), Refused::Role),
        ("realm", json!({ "roles": { "finance": true } }), Refused::Role),
        ("realm", json!("finance"), Refused::Role),
    ] {
        let found = refused(&signer.token("a", &publisher.with(name, value.clone()))).await;
        assert_eq!(found, expected, "{name}: {value}");
    }
    let claims = publisher.claims();
    assert_eq!(refused(&stranger.token("a", &claims)).await, Refused::Signature);
    assert_eq!(refused(&stranger.token("b", &claims)).await, Refused::UnknownKey);
    // Claims under a signature of others, a signature that is cut, and none.
    let good = signer.token("a", &claims);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();
    let forged = publisher.with("realm", json!({ "roles": ["admins"] }));
    let swapped = format!("{header}.{}.{signature}", encoded(&forged));
    assert_eq!(refused(&swapped).await, Refused::Signature);
    assert_eq!(
        refused(&format!("{message}.{}", &signature[..40])).await,
        Refused::Signature
    );
    assert_eq!(refused(&format!("{message}.")).await, Refused::Signature);
    assert_eq!(refused(&format!("{message}.{signature}=")).await, Refused::Malformed);
    assert_eq!(refused(&format!("{header}.e30.{signature}")).await, Refused::Claim);
    assert_eq!(
        refused(&format!("eyJ.{}.{signature}", "A".repeat(20_000))).await,
        Refused::Malformed
    );
    for garbage in ["eyJ..", "eyJ.a.b", "eyJhbGciOiJFUzI1NiJ9.W10.AA", "eyJ\u{e9}.e30.AA"] {
        let found = refused(garbage).await;
        assert!(
            matches!(found, Refused::Malformed | Refused::Claim),
            "{garbage}: {found}"
        );
    }
    // Four parts, or two, are no token, and no key either.
    assert_eq!(refused("eyJ.a.b.c").await, Refused::Key(AuthError::Unknown));
}

#[tokio::test]
async fn no_algorithm_is_accepted_that_is_not_the_keys() {
    let signer = Signer::new();
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let edwards = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
    let public = URL_SAFE_NO_PAD.encode(edwards.public_key());
    let secret = json!({ "kty": "oct", "kid": "s", "k": URL_SAFE_NO_PAD.encode("secret") });
    let encryption = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "enc", "use": "enc", "x": public });
    let strange = json!({ "kty": "LATTICE", "kid": "l", "alg": "ML-DSA-65" });
    let set = vec![
        json!("no key"),
        strange,
        secret,
        encryption,
        signer.jwk("a"),
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": public }),
    ];
    let publisher = Publisher::start(set).await;
    let identities = publisher.identities("");
    let claims = publisher.claims();
    let show = async |header: Value, sign: &dyn Fn(&[u8]) -> Vec<u8>| {
        let shown = token(&header, &claims, sign);
        identities.authenticate(&shown).await.map(drop)
    };
    let ed = |message: &[u8]| edwards.sign(message).as_ref().to_vec();
    let es = |message: &[u8]| signer.sign(message);
    // Signed with what is public, as if it were a secret.
    let point = signer.0.public_key().as_ref().to_vec();
    let hs = move |message: &[u8]| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &point);
        hmac::sign(&key, message).as_ref().to_vec()
    };
    let of_secret = |message: &[u8]| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        hmac::sign(&key, message).as_ref().to_vec()
    };
    assert_eq!(show(json!({ "alg": "EdDSA", "kid": "ed" }), &ed).await, Ok(()));
    assert_eq!(
        show(json!({ "alg": "ES256", "kid": "a", "typ": "at+JWT" }), &es).await,
        Ok(())
    );
    for (header, expected) in [
        (json!({ "alg": "none", "kid": "a" }), Refused::Algorithm),
        (json!({ "alg": "nOnE" }), Refused::Algorithm),
        (json!({ "kid": "a" }), Refused::Algorithm),
        (json!({ "alg": "HS256", "kid": "a" }), Refused::Algorithm),
        (json!({ "alg": "HS256", "kid": "s" }), Refused::Algorithm),
        (json!({ "alg": "RS256", "kid": "a" }), Refused::UnknownKey),
        (json!({ "alg": "ES384", "kid": "a" }), Refused::UnknownKey),
        (json!({ "alg": "EdDSA", "kid": "enc" }), Refused::UnknownKey),
        (json!({ "alg": "EdDSA", "kid": "a" }), Refused::UnknownKey),
        // Which of several keys it is must be said.
        (json!({ "alg": "ES256" }), Refused::UnknownKey),
        // A key that comes with the token proves nothing.
        (
            json!({ "alg": "ES256", "jwk": Signer::new().jwk("a") }),
            Refused::UnknownKey,
        ),
        (
            json!({ "alg": "ES256", "kid": "a", "crit": ["exp"] }),
            Refused::Malformed,
        ),
        (
            json!({ "alg": "ES256", "kid": "a", "typ": "logout+jwt" }),
            Refused::Malformed,
        ),
    ] {
        for sign in [&hs as &dyn Fn(&[u8]) -> Vec<u8>, &of_secret, &|_| Vec::new()] {
            assert_eq!(show(header.clone(), sign).await, Err(expected), "{header}");
        }
    }
}

#[tokio::test]
async fn an_issuers_keys_change_and_outlast_it() {
    let (old, new) = (Signer::new(), Signer::new());
    let publisher = Publisher::start(vec![old.jwk("old")]).await;
    *publisher.away.lock().unwrap() = true;
    let identities = publisher.identities("");
    let claims = publisher.claims();
    let show = async |signer: &Signer, id: &str| identities.authenticate(&signer.token(id, &claims)).await.map(drop);
    assert_eq!(show(&old, "old").await, Err(Refused::Away));
    let failure = Failure::from(Refused::Away);
    assert_eq!(
        (failure.code, failure.retry_after_ms),
        (ErrorCode::Unavailable, Some(AWAY_PAUSE_MS))
    );
    // Not asked again at once, so that nobody makes us ask it as often as he likes.
    *publisher.away.lock().unwrap() = false;
    assert_eq!(show(&old, "old").await, Err(Refused::Away));
    assert_eq!(publisher.asked.load(Ordering::SeqCst), 1);
    let identities = publisher.identities("");
    let show = async |signer: &Signer, id: &str| identities.authenticate(&signer.token(id, &claims)).await.map(drop);
    assert_eq!(show(&old, "old").await, Ok(()));
    *publisher.away.lock().unwrap() = true;
    assert_eq!(show(&old, "old").await, Ok(()));
    // A new key is asked for when a token first names it.
    *publisher.away.lock().unwrap() = false;
    *publisher.keys.lock().unwrap() = vec![new.jwk("new")];
    identities.issuers[0].forget_when_asked().await;
    assert_eq!(show(&new, "new").await, Ok(()));
    assert_eq!(show(&old, "old").await, Err(Refused::UnknownKey));
}

#[tokio::test]
async fn a_discovery_document_of_another_issuer_is_none() {
    let publisher = Publisher::start(vec![Signer::new().jwk("a")]).await;
    let behind = format!("{}/", publisher.address);
    let text = format!("issuers: [{{name: corp, issuer: '{behind}', audiences: [tollgate], default_role: developer}}]");
    let config = tollgate_config::parse(&text, "test").unwrap();
    let telemetry = Telemetry::without_logger("test", &config.telemetry).unwrap();
    let identities = Identities::new(&config, telemetry.metrics).unwrap();
    let claims = publisher.with("iss", json!(behind));
    let found = identities.authenticate(&Signer::new().token("a", &claims)).await;
    assert_eq!(found.unwrap_err(), Refused::Away);
    assert_eq!(publisher.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_tenant_binds_who_shows_a_token() {
    let signer = Signer::new();
    let publisher = Publisher::start(vec![signer.jwk("a")]).await;
    let identities = publisher.identities(", organisation_claim: org, team_claim: team");
    let mut claims = publisher.with("realm", json!({ "roles": ["admins"] }));
    let show = async |claims: &Value| identities.authenticate(&signer.token("a", claims)).await;
    assert_eq!(show(&claims).await.unwrap_err(), Refused::Claim);
    (claims["org"], claims["team"]) = (json!("acme"), json!("red"));
    assert_eq!(show(&claims).await.unwrap_err(), Refused::Tenant);
    let record = |team: Option<&str>, revision, model: &str| TenantRecord {
        tenant: Tenant {
            organisation: Some("acme".to_owned()),
            team: team.map(str::to_owned),
        },
        revision,
        grant: Grant {
            models: Some(vec!["both".to_owned(), model.to_owned()]),
            ..Grant::default()
        },
    };
    identities.learn_tenant(record(None, 2, "of-all"));
    assert_eq!(show(&claims).await.unwrap_err(), Refused::Tenant);
    identities.learn_tenant(record(Some("red"), 1, "of-red"));
    identities.learn_tenant(record(None, 1, "of-red"));
    let entry = show(&claims).await.unwrap();
    assert!(entry.may_use("both") && !entry.may_use("of-red") && !entry.may_use("of-all"));
    // What is everybody's is not a tenant's to change.
    let whole: Vec<_> = permissions(&entry)
        .into_iter()
        .filter(|one| one.is_for_the_whole())
        .collect();
    assert_eq!(whole, []);
    assert!(entry.may(Permission::Keys) && entry.caller.tenant.to_string() == "acme/red");
    claims["team"] = json!("blue");
    assert_eq!(show(&claims).await.unwrap_err(), Refused::Tenant);
}
