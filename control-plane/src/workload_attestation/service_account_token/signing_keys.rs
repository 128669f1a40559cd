//! The keys that the API server signs tokens with, as it publishes them: read while it answers,
//! asked only while it does not.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use http::Request;
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk},
};
use kube::Client;
use mesh_lite_proto::kubernetes::TOKEN_AUDIENCE;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    NotReviewed,
    claims::{PodOfToken, TokenClaims},
    token_review::in_words,
};

const KEYS_PATH: &str = "/openid/v1/jwks";
const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";
/// An API server has one or two, more while they are changed.
const MAX_KEYS: usize = 64;

/// Keys of one issuer.
#[derive(Debug, Clone)]
struct Keys {
    issuer: String,
    keys: Vec<Key>,
}

#[derive(Debug, Clone)]
struct Key {
    id: Option<String>,
    /// The key's, never the token's choice.
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Published {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

pub(super) struct SigningKeys {
    client: Client,
    known: Mutex<Option<Arc<Keys>>>,
}

impl SigningKeys {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            known: Mutex::default(),
        }
    }

    /// Asks the API server for them. What was known stays known if that fails.
    pub(super) async fn read(&self) -> Result<(), KeysUnreadable> {
        let discovery: Discovery = self.get(DISCOVERY_PATH).await?;
        let published: Published = self.get(KEYS_PATH).await?;
        let keys = Keys::of(discovery.issuer, published).ok_or(KeysUnreadable::None)?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
        Ok(())
    }

    async fn get<T: DeserializeOwned>(&self, path: &'static str) -> Result<T, KeysUnreadable> {
        let failed = |words| KeysUnreadable::Path { path, words };
        let request = Request::get(path)
            .body(Vec::new())
            .map_err(|error| failed(error.to_string()))?;
        let text = self.client.request_text(request).await;
        let text = text.map_err(|error| failed(in_words(&error)))?;
        serde_json::from_str(&text).map_err(|error| failed(error.to_string()))
    }

    fn known(&self) -> Option<Arc<Keys>> {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// `why` the API server can't be asked itself.
    pub(super) fn pod_of(
        &self,
        token: &str,
        now: SystemTime,
        why: &str,
    ) -> Result<PodOfToken, NotReviewed> {
        let keys = self
            .known()
            .ok_or_else(|| NotReviewed::Unreachable(why.to_owned()))?;
        let claims = keys
            .claims_of(token)
            .ok_or_else(|| NotReviewed::NotSigned {
                why: why.to_owned(),
            })?;
        claims.into_pod(now)
    }

    /// Whether a token may be taken for good while the API server is away. Without keys: perhaps,
    /// once there are some.
    pub(super) fn could_vouch_for(&self, token: &str) -> bool {
        self.known()
            .is_none_or(|keys| keys.claims_of(token).is_some())
    }
}

impl Keys {
    fn of(issuer: String, published: Published) -> Option<Self> {
        let keys: Vec<Key> = published
            .keys
            .into_iter()
            .take(MAX_KEYS)
            .filter_map(Key::of)
            .collect();
        // every token has an issuer that is not empty
        (!keys.is_empty() && !issuer.is_empty()).then_some(Self { issuer, keys })
    }

    /// Of a token that one of the keys signed, for our audience.
    fn claims_of(&self, token: &str) -> Option<TokenClaims> {
        let id = decode_header(token).ok()?.kid;
        self.keys
            .iter()
            .filter(|key| id.is_none() || key.id.is_none() || key.id == id)
            .find_map(|key| {
                let validation = self.validation(key.algorithm);
                Some(decode(token, &key.key, &validation).ok()?.claims)
            })
    }

    /// Times are looked at elsewhere, by the clock that everything else goes by.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_audience(&[TOKEN_AUDIENCE]);
        validation.set_issuer(&[&self.issuer]);
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation
    }
}

impl Key {
    /// `None`: of a kind that API servers don't use, above all one that is not public.
    fn of(published: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(published).ok()?;
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                Algorithm::ES256
            }
            _ => return None,
        };
        Some(Self {
            key: DecodingKey::from_jwk(&jwk).ok()?,
            id: jwk.common.key_id,
            algorithm,
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum KeysUnreadable {
    #[error("{path}: {words}")]
    Path { path: &'static str, words: String },
    #[error("{KEYS_PATH} has no RSA or P-256 key, or {DISCOVERY_PATH} no issuer")]
    None,
}
