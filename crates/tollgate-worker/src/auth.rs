//! How a provider is shown who calls. A secret goes into headers that are marked sensitive, and to the provider's host
//! alone.

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use tollgate_config::schema;

use crate::{Error, google::Tokens, sign::Signer};

/// What is done to each request.
pub(crate) enum Auth {
    /// These headers, always the same.
    Fixed(HeaderMap),
    /// A signature over the request.
    Signed(Box<Signer>),
    /// A token that is fetched when the last one has run out.
    Token(Box<Tokens>),
}

/// Why a request cannot be shown to be ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("no token was given")]
    Token(#[source] reqwest::Error),
    #[error("the token cannot be read")]
    BadToken,
    #[error("the request cannot be signed")]
    Signature,
}

impl Auth {
    pub(crate) fn new(settings: &schema::Auth) -> Result<Self, Error> {
        let fixed = |name: HeaderName, value: &str| {
            let mut value = HeaderValue::from_str(value).map_err(|_| Error::KeyForm)?;
            value.set_sensitive(true);
            Ok(Self::Fixed(HeaderMap::from_iter([(name, value)])))
        };
        match settings {
            schema::Auth::None => Ok(Self::Fixed(HeaderMap::new())),
            schema::Auth::Bearer(key) => fixed(AUTHORIZATION, &format!("Bearer {}", key.resolve()?.expose_secret())),
            schema::Auth::Header { name, key } => {
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Error::KeyForm)?;
                fixed(name, key.resolve()?.expose_secret())
            }
            schema::Auth::Aws(aws) => Ok(Self::Signed(Box::new(Signer::new(aws)?))),
            schema::Auth::Google(key) => Ok(Self::Token(Box::new(Tokens::new(key.as_ref())?))),
        }
    }

    /// The headers for a POST of `body` to `url`.
    pub(crate) async fn headers(&self, url: &str, body: &[u8]) -> Result<HeaderMap, AuthError> {
        match self {
            Self::Fixed(headers) => Ok(headers.clone()),
            Self::Signed(signer) => signer.headers(url, body),
            Self::Token(tokens) => {
                let token: SecretString = tokens.current().await?;
                let value = format!("Bearer {}", token.expose_secret());
                let mut value = HeaderValue::from_str(&value).map_err(|_| AuthError::BadToken)?;
                value.set_sensitive(true);
                Ok(HeaderMap::from_iter([(AUTHORIZATION, value)]))
            }
        }
    }
}
