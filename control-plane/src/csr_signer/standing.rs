//! CertificateSigningRequests as far as we read them, and whose turn it is.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use k8s_openapi::ByteString;
use kube::core::{Object, ResourceExt};
use mesh_lite_proto::kubernetes::SIGNER;
use serde::Deserialize;
use serde_json::Value;

use crate::clock::from_unix_seconds;

/// Who asks for a certificate waits for it: nobody waits for one this old any more. Kubernetes
/// itself removes them later.
const OLD: Duration = Duration::from_secs(3600);

pub(super) type SigningRequest = Object<Spec, Status>;

/// The API server fills in username and extra, and nobody can change a spec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spec {
    pub(super) request: ByteString,
    pub(super) signer_name: String,
    #[serde(default)]
    pub(super) usages: Vec<String>,
    #[serde(default)]
    pub(super) expiration_seconds: Option<i32>,
    #[serde(default)]
    pub(super) username: String,
    #[serde(default)]
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Status {
    /// As they are, to be sent back with one more.
    #[serde(default)]
    pub(super) conditions: Vec<Value>,
    #[serde(default)]
    pub(super) certificate: Option<ByteString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Another signer's, decided, or too old.
    NotOurs,
    Pending,
    /// By us a moment ago, or by somebody who may.
    Approved,
}

impl Standing {
    pub(super) fn of(request: &SigningRequest, now: SystemTime) -> Self {
        let none = Status::default();
        let status = request.status.as_ref().unwrap_or(&none);
        let has = |kind: &str| {
            status
                .conditions
                .iter()
                .any(|condition| condition.get("type").and_then(Value::as_str) == Some(kind))
        };
        let signed = status
            .certificate
            .as_ref()
            .is_some_and(|certificate| !certificate.0.is_empty());
        if request.spec.signer_name != SIGNER
            || signed
            || has("Denied")
            || has("Failed")
            || is_old(request, now)
        {
            return Self::NotOurs;
        }
        if has("Approved") {
            Self::Approved
        } else {
            Self::Pending
        }
    }
}

/// One without a date is: every API server writes it.
fn is_old(request: &SigningRequest, now: SystemTime) -> bool {
    let Some(made) = request.creation_timestamp() else {
        return true;
    };
    let Ok(made) = u64::try_from(made.0.as_second()) else {
        return true;
    };
    now.duration_since(from_unix_seconds(made))
        .is_ok_and(|age| age > OLD)
}
