//! Who a workload is.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
};

use spiffe::{SpiffeId, TrustDomain};

/// The longest SPIFFE ID, in bytes of the whole URI (SPIFFE-ID §2.3).
pub const MAX_SPIFFE_ID: usize = 2048;

const SCHEME: &str = "spiffe://";

/// The identity of a workload: a SPIFFE ID with a path, whose canonical form is the very text
/// it was read from. Two of them are equal exactly if their texts are.
///
/// A trust domain alone, an upper-case trust domain, an empty segment, a percent sign: none of
/// them is a `WorkloadId`.
///
/// Cheap to clone.
#[derive(Clone)]
pub struct WorkloadId(Arc<Parsed>);

struct Parsed {
    text: Box<str>,
    id: SpiffeId,
}

impl WorkloadId {
    /// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`
    ///
    /// # Errors
    /// If a part holds a character that SPIFFE does not allow, or is empty.
    pub fn new(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, InvalidWorkloadId> {
        for part in [namespace, service_account] {
            if part.is_empty() || part.contains('/') {
                return Err(InvalidWorkloadId::Segment(part.to_owned()));
            }
        }
        format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        self.0.id.trust_domain()
    }

    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.0.id
    }

    /// The whole URI, `spiffe://…`.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The URI without its scheme, as policies write principals.
    pub fn principal(&self) -> &str {
        self.as_str().strip_prefix(SCHEME).unwrap_or_default()
    }

    /// The namespace, if the path has the form that mesh-lite issues.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace_and_service_account()
            .map(|(namespace, _)| namespace)
    }

    /// The service account, if the path has the form that mesh-lite issues.
    pub fn service_account(&self) -> Option<&str> {
        self.namespace_and_service_account()
            .map(|(_, account)| account)
    }

    fn namespace_and_service_account(&self) -> Option<(&str, &str)> {
        let mut segments = self.0.id.path().strip_prefix('/')?.split('/');
        match (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        ) {
            (Some("ns"), Some(namespace), Some("sa"), Some(account), None) => {
                Some((namespace, account))
            }
            _ => None,
        }
    }
}

/// A trust domain as settings state it: exactly its name, so that every place that states it
/// states the same text.
///
/// # Errors
/// If it is no trust domain, or would be read as another text than was written.
pub fn parse_trust_domain(text: &str) -> Result<TrustDomain, InvalidTrustDomain> {
    let domain = TrustDomain::new(text).map_err(|error| InvalidTrustDomain::Malformed {
        text: text.to_owned(),
        reason: error.to_string(),
    })?;
    let name = domain.to_string();
    if name == text {
        Ok(domain)
    } else {
        let text = text.to_owned();
        Err(InvalidTrustDomain::NotCanonical { text, name })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidTrustDomain {
    #[error("{text:?} is not a trust domain: {reason}")]
    Malformed { text: String, reason: String },
    #[error("{text:?} is not the name of a trust domain as it is written: did you mean {name:?}?")]
    NotCanonical { text: String, name: String },
}

impl PartialEq for WorkloadId {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for WorkloadId {}

impl PartialOrd for WorkloadId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for WorkloadId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for WorkloadId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl FromStr for WorkloadId {
    type Err = InvalidWorkloadId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_SPIFFE_ID {
            return Err(InvalidWorkloadId::TooLong(text.len()));
        }
        let id = SpiffeId::new(text).map_err(|error| InvalidWorkloadId::Malformed {
            text: text.to_owned(),
            reason: error.to_string(),
        })?;
        if id.to_string() != text {
            return Err(InvalidWorkloadId::NotCanonical(text.to_owned()));
        }
        if id.path().is_empty() {
            return Err(InvalidWorkloadId::NoPath(text.to_owned()));
        }
        Ok(Self(Arc::new(Parsed {
            text: text.into(),
            id,
        })))
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidWorkloadId {
    #[error("a SPIFFE ID has at most {MAX_SPIFFE_ID} bytes, this one has {0}")]
    TooLong(usize),
    #[error("{text:?} is not a SPIFFE ID: {reason}")]
    Malformed { text: String, reason: String },
    #[error("{0:?} is not in canonical form: scheme and trust domain are lower case")]
    NotCanonical(String),
    #[error("{0:?} names a trust domain, not a workload: a workload's SPIFFE ID has a path")]
    NoPath(String),
    #[error("{0:?} can't be part of a SPIFFE ID: use letters, digits, dots, dashes, underscores")]
    Segment(String),
}

#[cfg(test)]
mod tests;
