//! AWS Signature Version 4.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use tollgate_config::schema::AwsCredentials;

use crate::{Error, auth::AuthError};

/// The service's name in its signatures.
const SERVICE: &str = "bedrock";

/// Signs requests to Bedrock.
pub(crate) struct Signer {
    credentials: Credentials,
    region: String,
}

impl Signer {
    /// Reads the credentials.
    pub(crate) fn new(aws: &AwsCredentials) -> Result<Self, Error> {
        let token = aws.session_token.as_ref().map(|token| token.resolve()).transpose()?;
        let credentials = Credentials::new(
            aws.access_key_id.resolve()?.expose_secret(),
            aws.secret_access_key.resolve()?.expose_secret(),
            token.map(|token| token.expose_secret().to_owned()),
            None,
            "tollgate",
        );
        Ok(Self {
            credentials,
            region: aws.region.clone(),
        })
    }

    /// The headers for a POST of `body` to `url`, whose path is percent-encoded once.
    pub(crate) fn headers(&self, url: &str, body: &[u8]) -> Result<HeaderMap, AuthError> {
        self.headers_at(SystemTime::now(), url, body)
    }

    fn headers_at(&self, time: SystemTime, url: &str, body: &[u8]) -> Result<HeaderMap, AuthError> {
        let unsigned = |_| AuthError::Signature;
        let identity = self.credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(SERVICE)
            .time(time)
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| AuthError::Signature)?
            .into();
        let headers = [(CONTENT_TYPE.as_str(), "application/json")];
        let request =
            SignableRequest::new("POST", url, headers.into_iter(), SignableBody::Bytes(body)).map_err(unsigned)?;
        let (instructions, _) = sign(request, &params).map_err(unsigned)?.into_parts();
        instructions
            .headers()
            .map(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| AuthError::Signature)?;
                let mut value = HeaderValue::from_str(value).map_err(|_| AuthError::Signature)?;
                value.set_sensitive(true);
                Ok((name, value))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// By hand from the "Signature Version 4 signing process", with the path encoded twice as all services but S3 want it.
    #[test]
    fn a_signature_is_what_an_independent_calculation_says() {
        let signer = Signer {
            credentials: Credentials::new(
                "AKIDEXAMPLE",
                "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                None,
                None,
                "t",
            ),
            region: "us-east-1".to_owned(),
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_895_600);
        let url = "https://bedrock-runtime.us-east-1.amazonaws.com/model/a%3Ab%2Fc/converse";
        let headers = signer.headers_at(time, url, b"{}").unwrap();
        let expected = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20251123/us-east-1/bedrock/aws4_request, \
                        SignedHeaders=content-type;host;x-amz-date, Signature=56a5d6fc4eec0141f8c1f652a6afa64b983674e7645ccd00502ea1a69b373425";
        assert_eq!(headers["x-amz-date"], "20251123T110000Z");
        assert_eq!(headers["authorization"].to_str().unwrap(), expected);
        assert!(headers["authorization"].is_sensitive());
    }
}
