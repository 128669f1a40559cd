//! Tokens as a cluster's API server makes them for pods, signed by a key of the test's own.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::ApiServer;

pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Of the tokens that the injector mounts.
pub const AUDIENCE: &str = "mesh-lite";

/// A signing key of a cluster.
pub struct TokenIssuer {
    key: EncodingKey,
    jwk: Value,
}

/// What a token says. What a test leaves out is as in a good token of `shop/cart`.
#[derive(Debug, Clone)]
pub struct TokenOf {
    pub namespace: String,
    pub service_account: String,
    /// Name and uid.
    pub pod: Option<(String, String)>,
    pub audience: String,
    pub issuer: String,
    pub begins: SystemTime,
    pub ends: SystemTime,
    /// Of the signing key.
    pub key_id: String,
}

impl TokenOf {
    /// Good from `now` on for an hour.
    pub fn pod(account: (&str, &str), pod: (&str, &str), now: SystemTime) -> Self {
        Self {
            namespace: account.0.to_owned(),
            service_account: account.1.to_owned(),
            pod: Some((pod.0.to_owned(), pod.1.to_owned())),
            audience: AUDIENCE.to_owned(),
            issuer: ISSUER.to_owned(),
            begins: now,
            ends: now + Duration::from_secs(3600),
            key_id: "test".to_owned(),
        }
    }

    fn claims(&self) -> Value {
        let seconds = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            since.as_secs()
        };
        let mut of_kubernetes = json!({
            "namespace": self.namespace,
            "serviceaccount": {"name": self.service_account, "uid": "account-uid"},
        });
        if let Some((name, uid)) = &self.pod {
            of_kubernetes["pod"] = json!({"name": name, "uid": uid});
        }
        json!({
            "aud": [self.audience],
            "exp": seconds(self.ends),
            "iat": seconds(self.begins),
            "nbf": seconds(self.begins),
            "iss": self.issuer,
            "kubernetes.io": of_kubernetes,
            "sub": format!("system:serviceaccount:{}:{}", self.namespace, self.service_account),
        })
    }
}

impl Default for TokenIssuer {
    fn default() -> Self {
        Self::new()
    }
}

impl TokenIssuer {
    pub fn new() -> Self {
        let pair = KeyPair::generate().unwrap();
        let key = EncodingKey::from_ec_der(&pair.serialize_der());
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = json!("test");
        jwk["use"] = json!("sig");
        Self { key, jwk }
    }

    pub fn token(&self, of: &TokenOf) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(of.key_id.clone());
        encode(&header, &of.claims(), &self.key).unwrap()
    }

    /// As at `/openid/v1/jwks`.
    pub fn published(&self) -> Value {
        json!({"keys": [self.jwk]})
    }

    /// The API server publishes the key.
    pub fn publish_at(&self, server: &ApiServer) {
        server.page("/openid/v1/jwks", self.published());
        server.page(
            "/.well-known/openid-configuration",
            json!({"issuer": ISSUER, "jwks_uri": "https://127.0.0.1/openid/v1/jwks"}),
        );
    }

    /// A token that the API server accepts.
    pub fn accepted_at(&self, server: &ApiServer, of: &TokenOf) -> String {
        let token = self.token(of);
        let (pod, uid) = of.pod.as_ref().expect("a token of a pod");
        let account = (of.namespace.as_str(), of.service_account.as_str());
        server.pod_token(&token, account, (pod, uid));
        token
    }
}
