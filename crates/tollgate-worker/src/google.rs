//! Tokens of Google's OAuth, for Vertex AI.
//!
//! For a service account by a signed assertion (RFC 7523), as Google's "Using OAuth 2.0 for server to server
//! applications" describes it; for the machine's own account from its metadata server.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Client, Url, redirect};
use ring::{rand::SystemRandom, signature};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tollgate_config::SecretRef;

use crate::{Error, auth::AuthError};

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const METADATA: &str = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token";
/// An assertion is good for an hour at most.
const LIFETIME: Duration = Duration::from_secs(3600);
/// A token is replaced this long before it runs out.
const MARGIN: Duration = Duration::from_secs(120);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where tokens come from, and the one in use.
pub(crate) struct Tokens {
    client: Client,
    account: Option<Account>,
    current: Mutex<Option<(SecretString, Instant)>>,
}

struct Account {
    email: String,
    key: signature::RsaKeyPair,
    token_url: Url,
}

/// The JSON key of a service account, as Google's console gives it out.
#[derive(Deserialize)]
struct KeyFile {
    client_email: String,
    private_key: SecretString,
    token_uri: String,
}

#[derive(Deserialize)]
struct Granted {
    access_token: SecretString,
    expires_in: u64,
}

impl Tokens {
    /// For the service account whose JSON key `key` is; for the machine's own without one.
    pub(crate) fn new(key: Option<&SecretRef>) -> Result<Self, Error> {
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()?;
        let account = key
            .map(|key| Account::read(key.resolve()?.expose_secret()))
            .transpose()?;
        Ok(Self {
            client,
            account,
            current: Mutex::new(None),
        })
    }

    /// A token that is good for a while. Calls that come while one is fetched wait for it.
    pub(crate) async fn current(&self) -> Result<SecretString, AuthError> {
        let mut current = self.current.lock().await;
        if let Some((token, until)) = &*current
            && *until > Instant::now()
        {
            return Ok(token.clone());
        }
        let granted = self.fetch().await?;
        let lifetime = Duration::from_secs(granted.expires_in).saturating_sub(MARGIN);
        *current = Some((granted.access_token.clone(), Instant::now() + lifetime));
        Ok(granted.access_token)
    }

    async fn fetch(&self) -> Result<Granted, AuthError> {
        let request = match &self.account {
            None => self.client.get(METADATA).header("metadata-flavor", "Google"),
            Some(account) => {
                let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
                let form = format!("grant_type={grant}&assertion={}", account.assertion(SystemTime::now())?);
                self.client
                    .post(account.token_url.clone())
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(form)
            }
        };
        let response = request.send().await.and_then(reqwest::Response::error_for_status);
        let body = match response {
            Ok(response) => response.bytes().await.map_err(AuthError::Token)?,
            Err(error) => return Err(AuthError::Token(error)),
        };
        serde_json::from_slice(&body).map_err(|_| AuthError::BadToken)
    }
}

impl Account {
    fn read(text: &str) -> Result<Self, Error> {
        let file: KeyFile = serde_json::from_str(text).map_err(|_| Error::ServiceAccount)?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(file.private_key.expose_secret().as_bytes())
            .map_err(|_| Error::ServiceAccount)?;
        let key = signature::RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| Error::ServiceAccount)?;
        let token_url = Url::parse(&file.token_uri).map_err(|_| Error::ServiceAccount)?;
        let is_here = token_url.host_str().is_some_and(|host| host == "127.0.0.1");
        if token_url.scheme() != "https" && !is_here {
            return Err(Error::ServiceAccount);
        }
        Ok(Self {
            email: file.client_email,
            key,
            token_url,
        })
    }

    /// A JSON Web Token that says who we are, signed.
    fn assertion(&self, now: SystemTime) -> Result<String, AuthError> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(json!({ "alg": "RS256", "typ": "JWT" }));
        let claims = part(json!({
            "iss": self.email,
            "scope": SCOPE,
            "aud": self.token_url.as_str(),
            "iat": now.as_secs(),
            "exp": (now + LIFETIME).as_secs(),
        }));
        let message = format!("{head}.{claims}");
        let mut signed = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(
                &signature::RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                message.as_bytes(),
                &mut signed,
            )
            .map_err(|_| AuthError::Signature)?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed)))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use axum::{Router, extract::Form, http::StatusCode, routing::post};
    use serde_json::Value;

    use super::*;

    /// Made for this test; no account has it.
    const KEY: &str = include_str!("../testdata/service_account.pem");

    /// A token endpoint that checks the assertion as Google does and counts the tokens it gives out, and its address.
    async fn endpoint(expires_in: u64) -> (String, Arc<AtomicUsize>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let given = Arc::new(AtomicUsize::new(0));
        let (audience, count) = (url.clone(), given.clone());
        let token = async move |Form(form): Form<BTreeMap<String, String>>| match claims(&form) {
            Some(claims) if claims["aud"] == audience.as_str() => {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let body = json!({ "access_token": format!("ya29.{number}"), "expires_in": expires_in });
                (StatusCode::OK, body.to_string())
            }
            _ => (StatusCode::BAD_REQUEST, json!({ "error": "invalid_grant" }).to_string()),
        };
        let app = Router::new().route("/token", post(token));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (url, given)
    }

    /// What the assertion says, if it is signed by the key and good for now.
    fn claims(form: &BTreeMap<String, String>) -> Option<Value> {
        if form["grant_type"] != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
            return None;
        }
        let (message, signed) = form["assertion"].rsplit_once('.')?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(KEY.as_bytes()).ok()?;
        let key = signature::RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok()?;
        let public = signature::UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, key.public());
        public
            .verify(message.as_bytes(), &URL_SAFE_NO_PAD.decode(signed).ok()?)
            .ok()?;
        let (head, claims) = message.split_once('.')?;
        let part = |text: &str| -> Option<Value> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok() };
        let (head, claims) = (part(head)?, part(claims)?);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let issued = claims["iat"].as_u64()?;
        let good = head["alg"] == "RS256"
            && claims["iss"] == "worker@project.example"
            && claims["scope"] == SCOPE
            && issued <= now
            && now - issued < 60
            && claims["exp"].as_u64()? - issued == 3600;
        good.then_some(claims)
    }

    fn tokens(email: &str, url: &str) -> Result<Tokens, Error> {
        let file = json!({ "type": "service_account", "client_email": email, "private_key": KEY, "token_uri": url });
        Ok(Tokens {
            client: Client::new(),
            account: Some(Account::read(&file.to_string())?),
            current: Mutex::default(),
        })
    }

    #[tokio::test]
    async fn a_token_is_fetched_once_and_used_until_it_is_old() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (url, given) = endpoint(3600).await;
        let tokens = tokens("worker@project.example", &url).unwrap();
        let (one, two) = tokio::join!(tokens.current(), tokens.current());
        assert_eq!(
            [one, two].map(|token| token.unwrap().expose_secret().to_owned()),
            ["ya29.0", "ya29.0"]
        );
        assert_eq!(given.load(Ordering::SeqCst), 1);
        // One that has less than two minutes to live is not used again.
        let (url, given) = endpoint(119).await;
        let tokens = super::tests::tokens("worker@project.example", &url).unwrap();
        for _ in 0..3 {
            tokens.current().await.unwrap();
        }
        assert_eq!(given.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn a_refusal_and_a_bad_key_are_errors_without_secrets() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (url, _) = endpoint(3600).await;
        let stranger = tokens("stranger@project.example", &url).unwrap();
        let error = stranger.current().await.unwrap_err();
        assert!(matches!(&error, AuthError::Token(_)), "{error:?}");
        assert!(!format!("{error:?}").contains("assertion"));
        let file = |key: &str, url: &str| {
            json!({ "client_email": "a@b.example", "private_key": key, "token_uri": url }).to_string()
        };
        for bad in [
            "{}".to_owned(),
            "not JSON".to_owned(),
            file("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", &url),
            file(KEY, "no address"),
            // An assertion is worth a token: it does not travel in the clear.
            file(KEY, "http://oauth2.example/token"),
        ] {
            assert!(matches!(Account::read(&bad), Err(Error::ServiceAccount)), "{bad}");
        }
    }
}
