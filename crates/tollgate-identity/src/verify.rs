//! Reading and checking tokens: `jsonwebtoken`, with the signatures of `ring`.

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, Header, Validation,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    dangerous::insecure_decode_claims,
    errors::{Error, ErrorKind},
    signature,
};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use tollgate_config::schema;

use crate::{Refused, claims::Claims};

/// Signatures that only who has a private key can make. Never HMAC: its secret would be a public key.
const ACCEPTED: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: |algorithm, key| {
        let verifier = Verifier {
            algorithm: *algorithm,
            key: key.clone(),
        };
        if ACCEPTED.contains(algorithm) && algorithm.family() == key.family() {
            Ok(Box::new(verifier))
        } else {
            Err(Error::from(ErrorKind::InvalidAlgorithm))
        }
    },
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes `ring` check the signatures of the whole process.
pub(crate) fn install() {
    // The second time it is installed already.
    let _ = PROVIDER.install_default();
}

struct Verifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl signature::Verifier<Vec<u8>> for Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let rsa = |how: &RsaParameters| match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(how, message, signature)
            }
            DecodingKeyKind::SecretOrDer(_) => Err(ring::error::Unspecified),
        };
        let point = |how: &'static dyn VerificationAlgorithm| {
            let bytes = self.key.try_get_as_bytes().map_err(|_| ring::error::Unspecified)?;
            UnparsedPublicKey::new(how, bytes).verify(message, signature)
        };
        let verified = match self.algorithm {
            Algorithm::RS256 => rsa(&RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => rsa(&RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => rsa(&RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => rsa(&RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => rsa(&RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => rsa(&RSA_PSS_2048_8192_SHA512),
            Algorithm::ES256 => point(&ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => point(&ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => point(&ED25519),
            _ => Err(ring::error::Unspecified),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

/// What a token says of itself, before anything of it is believed.
pub(crate) fn issuer_of(token: &str) -> Result<String, Refused> {
    let claims: Claims = insecure_decode_claims(token).map_err(|_| Refused::Malformed)?;
    let issuer = claims.get("iss").and_then(|value| value.as_str());
    issuer.map(str::to_owned).ok_or(Refused::Claim)
}

/// A token's header, if it is one that is accepted at all.
pub(crate) fn header(token: &str) -> Result<Header, Refused> {
    // An algorithm that the library does not know, such as `none`, is not read either.
    let header = jsonwebtoken::decode_header(token).map_err(|error| match error.kind() {
        ErrorKind::Json(_) | ErrorKind::InvalidAlgorithmName => Refused::Algorithm,
        _ => Refused::Malformed,
    })?;
    let kind = header.typ.as_deref().map(str::to_ascii_lowercase);
    let kind = kind.as_deref().map(|kind| kind.trim_start_matches("application/"));
    // Tokens of other kinds, for logging out or for introspection, say the same of other things.
    if header.crit.is_some() || !matches!(kind, None | Some("jwt" | "at+jwt")) {
        return Err(Refused::Malformed);
    }
    if !ACCEPTED.contains(&header.alg) {
        return Err(Refused::Algorithm);
    }
    Ok(header)
}

/// The claims of a token that this key has signed, for us, for now.
pub(crate) fn claims(
    issuer: &schema::Issuer,
    token: &str,
    algorithm: Algorithm,
    key: &DecodingKey,
) -> Result<Claims, Refused> {
    let mut validation = Validation::new(algorithm);
    validation.leeway = issuer.leeway.as_secs();
    validation.validate_nbf = true;
    validation.set_issuer(&[&issuer.issuer]);
    validation.set_audience(&issuer.audiences);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let read = jsonwebtoken::decode(token, key, &validation);
    read.map(|token| token.claims).map_err(|error| match error.kind() {
        ErrorKind::InvalidSignature => Refused::Signature,
        ErrorKind::ExpiredSignature => Refused::Expired,
        ErrorKind::ImmatureSignature => Refused::Early,
        ErrorKind::InvalidAudience => Refused::Audience,
        ErrorKind::InvalidIssuer => Refused::Issuer,
        ErrorKind::InvalidAlgorithm => Refused::Algorithm,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => Refused::Claim,
        _ => Refused::Malformed,
    })
}
