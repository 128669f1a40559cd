//! The values of matching fields: how they are written, and what they stand for.

use std::{borrow::Borrow, fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use spiffe::TrustDomain;

use crate::identity::{InvalidWorkloadId, WorkloadId};

const SCHEME: &str = "spiffe://";

/// A value of a matching field: `exact`, `prefix*`, `*suffix` or `*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Pattern<T> {
    Exact(T),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Any,
}

impl<T> Pattern<T> {
    /// `value` and `text` are the same thing, typed and written.
    pub(super) fn matches<Q>(&self, value: &Q, text: &str) -> bool
    where
        T: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        match self {
            Self::Exact(exact) => exact.borrow() == value,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Suffix(suffix) => text.ends_with(&**suffix),
            Self::Any => true,
        }
    }

    /// A star anywhere but at one end would look like a pattern and match nothing.
    fn parse(
        text: &str,
        allowed: fn(char) -> bool,
        exact: impl FnOnce(&str) -> Result<T, InvalidMatch>,
    ) -> Result<Self, InvalidMatch> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (start, end) = (text.strip_prefix('*'), text.strip_suffix('*'));
        let fixed = start.or(end).unwrap_or(text);
        if fixed.contains('*') {
            return Err(InvalidMatch::Star(text.to_owned()));
        }
        if fixed.is_empty() {
            return Err(InvalidMatch::Empty);
        }
        if let Some(wrong) = fixed.chars().find(|c| !allowed(*c)) {
            return Err(InvalidMatch::Character {
                text: text.to_owned(),
                wrong,
            });
        }
        match (start, end) {
            (None, None) => exact(text).map(Self::Exact),
            (None, Some(prefix)) => Ok(Self::Prefix(prefix.into())),
            (Some(suffix), _) => Ok(Self::Suffix(suffix.into())),
        }
    }
}

/// Written as it is read.
impl<T: fmt::Display> fmt::Display for Pattern<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => exact.fmt(f),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Principals may be written with their scheme or, as Istio does, without.
impl FromStr for Pattern<WorkloadId> {
    type Err = InvalidMatch;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let principal = text.strip_prefix(SCHEME).unwrap_or(text);
        // `spiffe:*` looks like "everybody" and would match nobody
        if principal.contains(':') {
            return Err(InvalidMatch::Scheme(text.to_owned()));
        }
        Self::parse(
            principal,
            |c| is_segment_character(c) || c == '/',
            |principal| Ok(format!("{SCHEME}{principal}").parse::<WorkloadId>()?),
        )
    }
}

impl FromStr for Pattern<TrustDomain> {
    type Err = InvalidMatch;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, is_trust_domain_character, |name| {
            TrustDomain::new(name).map_err(|error| InvalidMatch::TrustDomain {
                text: name.to_owned(),
                reason: error.to_string(),
            })
        })
    }
}

/// A namespace.
impl FromStr for Pattern<Box<str>> {
    type Err = InvalidMatch;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text, is_segment_character, |name| Ok(name.into()))
    }
}

fn is_segment_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

fn is_trust_domain_character(c: char) -> bool {
    is_segment_character(c) && !c.is_ascii_uppercase()
}

/// One service account, written `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceAccountMatch {
    pub namespace: Box<str>,
    pub name: Box<str>,
}

impl ServiceAccountMatch {
    /// A bare name is one of the policy's own namespace.
    ///
    /// # Errors
    /// If it is not `name` or `namespace/name`, or has a star in it.
    pub fn parse(text: &str, own_namespace: &str) -> Result<Self, InvalidMatch> {
        if text.contains('*') {
            return Err(InvalidMatch::ServiceAccountPattern(text.to_owned()));
        }
        let (namespace, name) = text.split_once('/').unwrap_or((own_namespace, text));
        for part in [namespace, name] {
            if part.is_empty() {
                return Err(InvalidMatch::Empty);
            }
            if let Some(wrong) = part.chars().find(|c| !is_segment_character(*c)) {
                return Err(InvalidMatch::Character {
                    text: text.to_owned(),
                    wrong,
                });
            }
        }
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    pub(super) fn matches(&self, id: &WorkloadId) -> bool {
        id.namespace() == Some(&*self.namespace) && id.service_account() == Some(&*self.name)
    }
}

impl fmt::Display for ServiceAccountMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Reads an address block; a bare address is a block of one.
///
/// # Errors
/// If it is neither, or its length begins with a zero, which some take for a number to the base
/// of 8; or an IPv4-mapped IPv6 block: callers over IPv4 are judged by their IPv4 address, so that
/// such a block would match nobody.
pub fn parse_ip_block(text: &str) -> Result<IpNet, InvalidMatch> {
    let invalid = || InvalidMatch::IpBlock(text.to_owned());
    let length = text.split_once('/').map_or("", |(_, length)| length);
    if length.len() > 1 && length.starts_with('0') {
        return Err(invalid());
    }
    let block = match text.parse::<IpNet>() {
        Ok(block) => block,
        Err(_) => IpNet::from(text.parse::<IpAddr>().map_err(|_| invalid())?),
    };
    match block {
        IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() => Err(invalid()),
        block => Ok(block.trunc()),
    }
}

/// Reads a port of a workload.
///
/// # Errors
/// If it is not a number from 1 to 65535.
pub fn parse_port(text: &str) -> Result<u16, InvalidMatch> {
    crate::document::fields::parse_port(text).ok_or_else(|| InvalidMatch::Port(text.to_owned()))
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMatch {
    #[error("an empty value matches nobody")]
    Empty,
    #[error("{0:?} has a star where it can't stand: a value is exact, prefix*, *suffix or *")]
    Star(String),
    #[error("{text:?} can't match anything: {wrong:?} never stands there")]
    Character { text: String, wrong: char },
    #[error("{0:?} is no principal: write <trust domain>/ns/<namespace>/sa/<service account>")]
    Scheme(String),
    #[error(transparent)]
    Principal(#[from] InvalidWorkloadId),
    #[error("{text:?} is no trust domain: {reason}")]
    TrustDomain { text: String, reason: String },
    #[error("{0:?} has a star: service accounts are exact; use principals for patterns")]
    ServiceAccountPattern(String),
    #[error("{0:?} is no address block: write 10.0.0.0/8, fd00::/8 or an address")]
    IpBlock(String),
    #[error("{0:?} is no port: write a number from 1 to 65535")]
    Port(String),
}
