//! What a `source` and an `operation` of a rule match.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use spiffe::TrustDomain;

use super::{Caller, Facts, Pattern, PolicyAction, ServiceAccountMatch};
use crate::identity::WorkloadId;

/// A field of a rule, by its name in documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FieldName {
    Principals,
    NotPrincipals,
    ServiceAccounts,
    NotServiceAccounts,
    Namespaces,
    NotNamespaces,
    TrustDomains,
    NotTrustDomains,
    IpBlocks,
    NotIpBlocks,
    Ports,
    NotPorts,
}

impl FieldName {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Principals => "principals",
            Self::NotPrincipals => "notPrincipals",
            Self::ServiceAccounts => "serviceAccounts",
            Self::NotServiceAccounts => "notServiceAccounts",
            Self::Namespaces => "namespaces",
            Self::NotNamespaces => "notNamespaces",
            Self::TrustDomains => "trustDomains",
            Self::NotTrustDomains => "notTrustDomains",
            Self::IpBlocks => "ipBlocks",
            Self::NotIpBlocks => "notIpBlocks",
            Self::Ports => "ports",
            Self::NotPorts => "notPorts",
        }
    }

    /// Whether the field lies in `to[].operation`, not in `from[].source`.
    #[must_use]
    pub const fn of_operation(self) -> bool {
        matches!(self, Self::Ports | Self::NotPorts)
    }

    /// Whether the field excludes what it names.
    #[must_use]
    pub const fn negative(self) -> bool {
        matches!(
            self,
            Self::NotPrincipals
                | Self::NotServiceAccounts
                | Self::NotNamespaces
                | Self::NotTrustDomains
                | Self::NotIpBlocks
                | Self::NotPorts
        )
    }
}

/// What the fields of one policy are compared with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) caller: Caller<'a>,
    pub(super) source: IpAddr,
    pub(super) port: u16,
    own_trust_domain: &'a TrustDomain,
    /// What a negative identity field is for a caller without an identity.
    negative_of_nobody: bool,
}

impl<'a> Asked<'a> {
    pub(super) fn new(
        facts: &Facts<'a>,
        own_trust_domain: &'a TrustDomain,
        action: PolicyAction,
    ) -> Self {
        Self {
            caller: facts.caller,
            // a listener on both families shows IPv4 callers as ::ffff:a.b.c.d
            source: facts.source.to_canonical(),
            port: facts.port,
            own_trust_domain,
            // nobody was proved: a rule that allows must not match for lack of proof, one that
            // denies or records must not be escaped by it
            negative_of_nobody: action != PolicyAction::Allow,
        }
    }

    /// For identity fields alone: a caller who proved this identity, from nowhere.
    pub(super) fn about_identity(id: &'a WorkloadId, own_trust_domain: &'a TrustDomain) -> Self {
        let facts = Facts {
            caller: Caller::Authenticated(id),
            source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 0,
        };
        Self::new(&facts, own_trust_domain, PolicyAction::Deny)
    }

    fn identity<T>(
        &self,
        field: FieldName,
        values: &[T],
        matches: impl Fn(&T, &WorkloadId) -> bool,
    ) -> Option<bool> {
        if values.is_empty() {
            return None;
        }
        Some(match self.caller {
            Caller::Authenticated(id) => {
                values.iter().any(|value| matches(value, id)) != field.negative()
            }
            Caller::Plaintext => field.negative() && self.negative_of_nobody,
        })
    }

    fn address(&self, field: FieldName, blocks: &[IpNet]) -> Option<bool> {
        let inside = || blocks.iter().any(|block| block.contains(&self.source));
        (!blocks.is_empty()).then(|| inside() != field.negative())
    }

    fn port(&self, field: FieldName, ports: &[u16]) -> Option<bool> {
        (!ports.is_empty()).then(|| ports.contains(&self.port) != field.negative())
    }
}

/// A field that a rule states, judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) field: FieldName,
    pub(super) holds: bool,
}

/// A `source`. Every stated (that is, not empty) field must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerMatch {
    pub line: u32,
    pub principals: Vec<Pattern<WorkloadId>>,
    pub not_principals: Vec<Pattern<WorkloadId>>,
    pub service_accounts: Vec<ServiceAccountMatch>,
    pub not_service_accounts: Vec<ServiceAccountMatch>,
    pub namespaces: Vec<Pattern<Box<str>>>,
    pub not_namespaces: Vec<Pattern<Box<str>>>,
    pub trust_domains: Vec<Pattern<TrustDomain>>,
    pub not_trust_domains: Vec<Pattern<TrustDomain>>,
    pub ip_blocks: Vec<IpNet>,
    pub not_ip_blocks: Vec<IpNet>,
}

impl PeerMatch {
    const FIELDS: [FieldName; 10] = [
        FieldName::Principals,
        FieldName::NotPrincipals,
        FieldName::ServiceAccounts,
        FieldName::NotServiceAccounts,
        FieldName::Namespaces,
        FieldName::NotNamespaces,
        FieldName::TrustDomains,
        FieldName::NotTrustDomains,
        FieldName::IpBlocks,
        FieldName::NotIpBlocks,
    ];

    /// Whether no field is stated: that would match everybody, and is refused where it is read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self
            == Self {
                line: self.line,
                ..Self::default()
            }
    }

    /// How many values all its fields have.
    pub(super) fn values(&self) -> usize {
        let of_identity = [
            self.principals.len(),
            self.not_principals.len(),
            self.service_accounts.len(),
            self.not_service_accounts.len(),
            self.namespaces.len(),
            self.not_namespaces.len(),
            self.trust_domains.len(),
            self.not_trust_domains.len(),
        ];
        let of_address = [self.ip_blocks.len(), self.not_ip_blocks.len()];
        let all = of_identity.into_iter().chain(of_address);
        all.fold(0, usize::saturating_add)
    }

    pub(super) fn matches(&self, asked: &Asked<'_>) -> bool {
        self.stated(asked).all(|judged| judged.holds)
    }

    /// The stated fields, in the order of documents.
    pub(super) fn stated(&self, asked: &Asked<'_>) -> impl Iterator<Item = Judged> {
        Self::FIELDS.into_iter().filter_map(move |field| {
            self.judge(field, asked)
                .map(|holds| Judged { field, holds })
        })
    }

    /// Whether a field holds; `None` if it is not stated or not one of a source.
    fn judge(&self, field: FieldName, asked: &Asked<'_>) -> Option<bool> {
        use FieldName as F;
        let principal = |p: &Pattern<WorkloadId>, id: &WorkloadId| p.matches(id, id.principal());
        let account =
            |a: &ServiceAccountMatch, id: &WorkloadId| self.is_at_home(id, asked) && a.matches(id);
        let namespace = |n: &Pattern<Box<str>>, id: &WorkloadId| {
            self.is_at_home(id, asked)
                && id.namespace().is_some_and(|of_id| n.matches(of_id, of_id))
        };
        let domain = |d: &Pattern<TrustDomain>, id: &WorkloadId| {
            d.matches(id.trust_domain(), id.trust_domain().as_str())
        };
        match field {
            F::Principals => asked.identity(field, &self.principals, principal),
            F::NotPrincipals => asked.identity(field, &self.not_principals, principal),
            F::ServiceAccounts => asked.identity(field, &self.service_accounts, account),
            F::NotServiceAccounts => asked.identity(field, &self.not_service_accounts, account),
            F::Namespaces => asked.identity(field, &self.namespaces, namespace),
            F::NotNamespaces => asked.identity(field, &self.not_namespaces, namespace),
            F::TrustDomains => asked.identity(field, &self.trust_domains, domain),
            F::NotTrustDomains => asked.identity(field, &self.not_trust_domains, domain),
            F::IpBlocks => asked.address(field, &self.ip_blocks),
            F::NotIpBlocks => asked.address(field, &self.not_ip_blocks),
            F::Ports | F::NotPorts => None,
        }
    }

    /// Namespaces and service accounts are those of our own trust domain, unless the source
    /// says whose they are.
    fn is_at_home(&self, id: &WorkloadId, asked: &Asked<'_>) -> bool {
        !self.trust_domains.is_empty() || id.trust_domain() == asked.own_trust_domain
    }
}

/// An `operation`. Every stated field must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OperationMatch {
    pub line: u32,
    pub ports: Vec<u16>,
    pub not_ports: Vec<u16>,
}

impl OperationMatch {
    const FIELDS: [FieldName; 2] = [FieldName::Ports, FieldName::NotPorts];

    /// Whether no field is stated: that would match every port, and is refused where it is read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.not_ports.is_empty()
    }

    /// How many values its fields have.
    pub(super) const fn values(&self) -> usize {
        self.ports.len().saturating_add(self.not_ports.len())
    }

    pub(super) fn matches(&self, asked: &Asked<'_>) -> bool {
        self.stated(asked).all(|judged| judged.holds)
    }

    /// The stated fields, in the order of documents.
    pub(super) fn stated(&self, asked: &Asked<'_>) -> impl Iterator<Item = Judged> {
        Self::FIELDS.into_iter().filter_map(move |field| {
            self.judge(field, asked)
                .map(|holds| Judged { field, holds })
        })
    }

    /// Whether a field holds; `None` if it is not stated or not one of an operation.
    fn judge(&self, field: FieldName, asked: &Asked<'_>) -> Option<bool> {
        match field {
            FieldName::Ports => asked.port(field, &self.ports),
            FieldName::NotPorts => asked.port(field, &self.not_ports),
            _ => None,
        }
    }
}
