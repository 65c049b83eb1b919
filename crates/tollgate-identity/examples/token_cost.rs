//! What it costs to know who calls: microseconds of CPU to check an API key, and tokens of an identity provider.
//!
//! `cargo run --release -p tollgate-identity --example token_cost`. One thread that does nothing else, so time is CPU time;
//! medians of 2,000 runs, taken in turns. The issuer's keys have been fetched before.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program to run by hand")]

use std::time::Instant;

use axum::{Router, routing::get};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tollgate_identity::Identities;
use tollgate_telemetry::Telemetry;

const RUNS: usize = 2000;

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn token(algorithm: &str, issuer: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let until = chrono::Utc::now().timestamp() + 3600;
    let claims = json!({ "iss": issuer, "aud": "tollgate", "sub": "somebody", "exp": until, "roles": ["devs"],
        "email": "somebody@example.com", "name": "Some Body" });
    let header = json!({ "alg": algorithm, "typ": "JWT", "kid": algorithm });
    let message = format!("{}.{}", encoded(&header), encoded(&claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let ecdsa = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let ed25519 = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()).unwrap();
    let point = ecdsa.public_key().as_ref();
    let keys = json!({ "keys": [
        { "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "ES256",
          "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..]) },
        { "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "EdDSA",
          "x": URL_SAFE_NO_PAD.encode(ed25519.public_key().as_ref()) },
    ] });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let text = keys.to_string();
    let app = Router::new().route("/keys", get(async move || text));
    tokio::spawn(async move { axum::serve(listener, app).await });

    let key = "a-key-that-is-long-enough-to-be-one";
    let hash: String = tollgate_config::hash_key(key)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let config = tollgate_config::parse(
        &format!(
            "keys: [{{name: shop, hash: 'sha256:{hash}'}}]\n\
             issuers: [{{name: corp, issuer: '{issuer}', jwks_url: '{issuer}/keys', audiences: [tollgate], role_claim: roles, \
             roles: {{devs: developer}}}}]"
        ),
        "token_cost",
    )
    .unwrap();
    let telemetry = Telemetry::without_logger("token_cost", &config.telemetry).unwrap();
    let identities = Identities::new(&config, telemetry.metrics).unwrap();
    let shown = [
        ("API key", key.to_owned()),
        (
            "ES256",
            token("ES256", &issuer, |message| {
                ecdsa.sign(&random, message).unwrap().as_ref().to_vec()
            }),
        ),
        (
            "EdDSA",
            token("EdDSA", &issuer, |message| ed25519.sign(message).as_ref().to_vec()),
        ),
    ];
    let mut times = shown.each_ref().map(|_| Vec::with_capacity(RUNS));
    for _ in 0..RUNS {
        for ((_, shown), times) in shown.iter().zip(&mut times) {
            let begun = Instant::now();
            identities.authenticate(shown).await.unwrap();
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }
    for ((name, _), mut times) in shown.iter().zip(times) {
        times.sort_by(f64::total_cmp);
        println!("{name:<8} {:6.1} µs", times[RUNS / 2]);
    }
}
