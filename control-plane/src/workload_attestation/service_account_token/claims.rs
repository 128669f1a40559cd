//! What a token says of itself. Before anybody vouched for it that is good for two things only: to
//! refuse in words what can't be right, and to know when it ends.

use std::time::{Duration, SystemTime};

use jsonwebtoken::dangerous::insecure_decode_claims;
use mesh_lite_proto::kubernetes::TOKEN_AUDIENCE;
use serde::Deserialize;

use super::NotReviewed;
use crate::clock::{from_unix_seconds, readable};

/// A projected token of a pod with long names has about 2,000 bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// What differences between clocks explain: as the API server has it.
const LEEWAY: Duration = Duration::from_secs(60);
/// Of an audience, in a message.
const SHOWN: usize = 100;

/// Of those that Kubernetes puts in, the ones that count here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct TokenClaims {
    #[serde(default)]
    sub: String,
    #[serde(default)]
    aud: Audiences,
    exp: u64,
    #[serde(default)]
    nbf: Option<u64>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: KubernetesClaims,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct KubernetesClaims {
    namespace: String,
    serviceaccount: Object,
    pod: Option<Object>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Object {
    name: String,
    uid: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Several(Vec<String>),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Audiences {
    fn include(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Several(all) => all.iter().any(|one| one == audience),
        }
    }

    fn shown(&self) -> String {
        let all = match self {
            Self::One(one) => one.clone(),
            Self::Several(all) => all.join(", "),
        };
        all.chars().take(SHOWN).collect()
    }
}

/// Whose token it is, once somebody vouched for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodOfToken {
    pub(super) namespace: String,
    pub(super) service_account: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl TokenClaims {
    /// Read without proof of any of it.
    pub(super) fn unproved(token: &str) -> Result<Self, NotReviewed> {
        if token.len() > MAX_TOKEN {
            return Err(NotReviewed::NoToken);
        }
        insecure_decode_claims(token).map_err(|_| NotReviewed::NoToken)
    }

    /// # Errors
    /// If it is for others, of no pod, or over.
    pub(super) fn check(&self, now: SystemTime) -> Result<(), NotReviewed> {
        if !self.aud.include(TOKEN_AUDIENCE) {
            return Err(NotReviewed::Audience(self.aud.shown()));
        }
        if self.kubernetes.pod.is_none() {
            return Err(NotReviewed::NotOfPod);
        }
        if now >= self.ends() {
            return Err(NotReviewed::Expired {
                at: readable(self.ends()),
                now: readable(now),
            });
        }
        Ok(())
    }

    pub(super) fn ends(&self) -> SystemTime {
        from_unix_seconds(self.exp)
    }

    /// For a token whose signature was checked: the API server would say the same, but for what
    /// happened to the pod since.
    pub(super) fn into_pod(self, now: SystemTime) -> Result<PodOfToken, NotReviewed> {
        self.check(now)?;
        let begins = from_unix_seconds(self.nbf.unwrap_or_default());
        if now.checked_add(LEEWAY).is_none_or(|now| now < begins) {
            return Err(NotReviewed::NotYet {
                at: readable(begins),
                now: readable(now),
            });
        }
        let of_kubernetes = self.kubernetes;
        let pod = of_kubernetes.pod.ok_or(NotReviewed::NotOfPod)?;
        let found = PodOfToken {
            namespace: of_kubernetes.namespace,
            service_account: of_kubernetes.serviceaccount.name,
            name: pod.name,
            uid: pod.uid,
        };
        let subject = format!(
            "system:serviceaccount:{}:{}",
            found.namespace, found.service_account
        );
        if self.sub != subject || found.name.is_empty() || found.uid.is_empty() {
            return Err(NotReviewed::NoToken);
        }
        Ok(found)
    }
}
