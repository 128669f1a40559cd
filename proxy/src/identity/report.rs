//! What the sidecar says of its certificate: the admin page `/identity`, which
//! `mesh-lite identity` reads. Times are seconds since 1970, by the sidecar's clock.

use std::time::{Duration, SystemTime};

use mesh_lite_proto::trust_bundle::{TrustBundle, hex};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension, prelude::FromDer};

use super::{
    Identity,
    issued_chain::{end_of, issuer_key_id},
    renewal_state::RenewalState,
};
use crate::clock::unix;

/// A renewal begins within half a minute of its point and takes ten seconds at most.
const OVERDUE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityReport {
    pub now: u64,
    pub verdict: Verdict,
    pub certificate: Option<CertificateReport>,
    pub renewal: RenewalReport,
    /// Our clock minus the control plane's, when it last answered.
    pub clock_skew_seconds: Option<i64>,
}

/// All of it in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// Valid, and renewed in time so far.
    Valid,
    /// None has come yet.
    NoCertificate,
    /// The last one has ended, and none has come since.
    Expired,
    /// Valid, but its renewal should have happened.
    Overdue,
    /// Valid, but the last attempt to renew it failed.
    Failing,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateReport {
    pub spiffe_id: String,
    pub serial: String,
    /// Name of the pod or Workload document.
    pub workload: Option<String>,
    pub not_before: u64,
    pub not_after: u64,
    /// Who signed it.
    pub issuer: AuthorityReport,
    /// The root of our trust bundle that it is proved by.
    pub root: Option<AuthorityReport>,
    /// Digest of the trust bundle.
    pub trust_bundle: String,
    pub roots: usize,
    /// Grows with each change of certificate or trust bundle.
    pub revision: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AuthorityReport {
    /// Lower-case hex of its subject key identifier.
    pub key_id: Option<String>,
    pub not_after: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RenewalReport {
    pub due: Option<u64>,
    /// Not there if the certificate came from the state file.
    pub issued: Option<u64>,
    /// When the last certificate ended, if none has come since.
    pub ended: Option<u64>,
    pub failure: Option<FailureReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureReport {
    pub error: String,
    pub advice: String,
    pub since: u64,
    pub attempts: u32,
    pub next_attempt: u64,
}

impl IdentityReport {
    pub fn new(identity: Option<&Identity>, renewal: &RenewalState, now: SystemTime) -> Self {
        Self {
            now: unix(now),
            verdict: verdict(identity.map(|it| it.leaf.not_after), renewal, now),
            certificate: identity.map(CertificateReport::of),
            renewal: RenewalReport::of(renewal),
            clock_skew_seconds: renewal.clock_skew.map(|skew| skew.seconds),
        }
    }
}

fn verdict(not_after: Option<SystemTime>, renewal: &RenewalState, now: SystemTime) -> Verdict {
    match not_after {
        Some(end) if end <= now => Verdict::Expired,
        Some(_) if renewal.failure.is_some() => Verdict::Failing,
        Some(_) if renewal.due.is_some_and(|due| due + OVERDUE < now) => Verdict::Overdue,
        Some(_) => Verdict::Valid,
        None if renewal.ended.is_some() => Verdict::Expired,
        None => Verdict::NoCertificate,
    }
}

impl CertificateReport {
    fn of(identity: &Identity) -> Self {
        let issuing = identity.chain.get(1).map(AuthorityReport::of);
        let issuer = AuthorityReport {
            key_id: identity.chain.first().and_then(issuer_key_id),
            not_after: issuing.and_then(|issuing| issuing.not_after),
        };
        Self {
            spiffe_id: identity.leaf.id.as_str().to_owned(),
            serial: identity.leaf.serial.to_string(),
            workload: identity.leaf.common_name.clone(),
            not_before: unix(identity.leaf.not_before),
            not_after: unix(identity.leaf.not_after),
            issuer,
            root: root_of(&identity.chain, &identity.trust_bundle).map(AuthorityReport::of),
            trust_bundle: identity.trust_bundle.digest(),
            roots: identity.trust_bundle.authorities().len(),
            revision: identity.revision,
        }
    }
}

impl AuthorityReport {
    fn of(der: &CertificateDer<'_>) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Self::default();
        };
        Self {
            key_id: own_key_id(&certificate).map(hex),
            not_after: end_of(der).map(unix),
        }
    }
}

impl RenewalReport {
    fn of(state: &RenewalState) -> Self {
        Self {
            due: state.due.map(unix),
            issued: state.issued.map(unix),
            ended: state.ended.map(unix),
            failure: state.failure.as_ref().map(|failure| FailureReport {
                error: failure.error.clone(),
                advice: failure.advice.clone(),
                since: unix(failure.since),
                attempts: failure.attempts,
                next_attempt: unix(failure.next_attempt),
            }),
        }
    }
}

/// The authority of the bundle whose key signed the last certificate of the chain. (That the
/// signature holds was proved when the chain was taken.)
fn root_of<'a>(
    chain: &[CertificateDer<'_>],
    bundle: &'a TrustBundle,
) -> Option<&'a CertificateDer<'static>> {
    let (_, last) = X509Certificate::from_der(chain.last()?).ok()?;
    bundle.authorities().iter().find(|authority| {
        X509Certificate::from_der(authority).is_ok_and(|(_, root)| {
            root.subject().as_raw() == last.issuer().as_raw()
                && last.verify_signature(Some(root.public_key())).is_ok()
        })
    })
}

fn own_key_id<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        })
}

#[cfg(test)]
mod tests;
