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
