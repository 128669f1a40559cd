//! Which rules can never match, and which match whatever another one does. Told from their fields
//! alone, and sound: what is said is so for every caller. Not complete: silence says nothing.

use ipnet::IpNet;
use spiffe::TrustDomain;

use super::{
    FieldName, FieldRef, OperationMatch, Pattern, PeerMatch, PolicyAction, Rule, peer_match::Asked,
};
use crate::identity::WorkloadId;

/// An entry of `from` or `to` that matches nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contradiction {
    /// The field that asks for something …
    pub field: FieldRef,
    /// … and the one beside it that never lets it be.
    pub by: FieldName,
}

/// Entries that match nobody: of `from` first, then of `to`. `index` is the rule's.
#[must_use]
pub fn contradictions(
    index: usize,
    rule: &Rule,
    action: PolicyAction,
    own: &TrustDomain,
) -> Vec<Contradiction> {
    let at = |entry, field, line| FieldRef {
        rule: index,
        entry,
        field,
        line,
    };
    let sources = rule.from.iter().enumerate().filter_map(|(entry, peer)| {
        let (field, by) = contradiction_of_source(peer, action, own)?;
        let field = at(entry, field, peer.line);
        Some(Contradiction { field, by })
    });
    let impossible = rule
        .to
        .iter()
        .enumerate()
        .filter(|(_, operation)| is_impossible(operation));
    let operations = impossible.map(|(entry, operation)| Contradiction {
        field: at(entry, FieldName::Ports, operation.line),
        by: FieldName::NotPorts,
    });
    sources.chain(operations).collect()
}

/// Whether the rule matches nobody: every entry of one of its lists contradicts itself.
#[must_use]
pub fn never_matches(rule: &Rule, action: PolicyAction, own: &TrustDomain) -> bool {
    let of_sources = |peer: &PeerMatch| contradiction_of_source(peer, action, own).is_some();
    let no_source = !rule.from.is_empty() && rule.from.iter().all(of_sources);
    no_source || (!rule.to.is_empty() && rule.to.iter().all(is_impossible))
}

/// Whether `wide` matches whatever `narrow` does. Both are of one action, or `narrow` is of
/// ALLOW: there, what is not proved matches less.
#[must_use]
pub fn covers(wide: &Rule, narrow: &Rule, own: &TrustDomain) -> bool {
    let source = |narrow: &PeerMatch| {
        let mut all = wide.from.iter();
        all.any(|wide| covers_source(wide, narrow, own))
    };
    let operation = |narrow: &OperationMatch| {
        let mut all = wide.to.iter();
        all.any(|wide| covers_operation(wide, narrow))
    };
    // an absent list is everybody, whom only an absent list covers
    let sources =
        wide.from.is_empty() || (!narrow.from.is_empty() && narrow.from.iter().all(source));
    let operations =
        wide.to.is_empty() || (!narrow.to.is_empty() && narrow.to.iter().all(operation));
    sources && operations
}

fn contradiction_of_source(
    peer: &PeerMatch,
    action: PolicyAction,
    own: &TrustDomain,
) -> Option<(FieldName, FieldName)> {
    use FieldName as F;
    let excluded = |of: &[IpNet]| !of.is_empty() && inside(of, &peer.not_ip_blocks);
    if excluded(&peer.ip_blocks) {
        return Some((F::IpBlocks, F::NotIpBlocks));
    }
    if let Some((field, ids)) = only_identities(peer, own) {
        let by = ids.iter().map(|id| first_false(peer, id, own));
        // of several callers, each may fail for a reason of its own: the first one's is told
        let by: Option<Vec<FieldName>> = by.collect();
        return by?.first().map(|by| (field, *by));
    }
    let whole = [
        (
            F::Principals,
            of_principals(&peer.principals, &peer.not_principals),
        ),
        (
            F::TrustDomains,
            of_domains(&peer.trust_domains, &peer.not_trust_domains),
        ),
        (
            F::Namespaces,
            of_namespaces(&peer.namespaces, &peer.not_namespaces),
        ),
    ];
    let negative = |field| match field {
        F::Principals => F::NotPrincipals,
        F::TrustDomains => F::NotTrustDomains,
        _ => F::NotNamespaces,
    };
    let same = whole.into_iter().find(|(_, excluded)| *excluded);
    same.map(|(field, _)| (field, negative(field)))
        .or_else(|| nobody_left(peer, action))
}

/// `*` excludes whoever proves an identity. In an ALLOW rule those who don't never match, nor do
/// they where a field asks for an identity.
fn nobody_left(peer: &PeerMatch, action: PolicyAction) -> Option<(FieldName, FieldName)> {
    let by = if peer.not_principals.contains(&Pattern::Any) {
        FieldName::NotPrincipals
    } else if peer.not_trust_domains.contains(&Pattern::Any) {
        FieldName::NotTrustDomains
    } else {
        return None;
    };
    match first_positive(peer) {
        Some(field) => Some((field, by)),
        None => (action == PolicyAction::Allow).then_some((by, by)),
    }
}

fn first_positive(peer: &PeerMatch) -> Option<FieldName> {
    let stated = [
        (FieldName::Principals, peer.principals.is_empty()),
        (FieldName::ServiceAccounts, peer.service_accounts.is_empty()),
        (FieldName::Namespaces, peer.namespaces.is_empty()),
        (FieldName::TrustDomains, peer.trust_domains.is_empty()),
    ];
    let mut stated = stated.into_iter().filter(|(_, empty)| !empty);
    stated.next().map(|(field, _)| field)
}

/// The only callers that a source can match, and the field that names them: where principals, or
/// service accounts of trust domains, are exact.
fn only_identities(peer: &PeerMatch, own: &TrustDomain) -> Option<(FieldName, Vec<WorkloadId>)> {
    if !peer.principals.is_empty() {
        let exact = peer
            .principals
            .iter()
            .map(exact)
            .collect::<Option<Vec<_>>>()?;
        return Some((FieldName::Principals, exact.into_iter().cloned().collect()));
    }
    if peer.service_accounts.is_empty() {
        return None;
    }
    let domains = match peer.trust_domains.as_slice() {
        [] => vec![own],
        stated => stated.iter().map(exact).collect::<Option<Vec<_>>>()?,
    };
    let of_domain = |domain: &TrustDomain| {
        let accounts = peer.service_accounts.iter();
        let ids =
            accounts.map(|account| WorkloadId::new(domain, &account.namespace, &account.name).ok());
        ids.collect::<Option<Vec<_>>>()
    };
    let ids = domains
        .into_iter()
        .map(of_domain)
        .collect::<Option<Vec<_>>>()?;
    Some((FieldName::ServiceAccounts, ids.concat()))
}

fn exact<T>(pattern: &Pattern<T>) -> Option<&T> {
    match pattern {
        Pattern::Exact(exact) => Some(exact),
        Pattern::Prefix(_) | Pattern::Suffix(_) | Pattern::Any => None,
    }
}

/// The first identity field of the source that does not hold for this caller.
fn first_false(peer: &PeerMatch, id: &WorkloadId, own: &TrustDomain) -> Option<FieldName> {
    let asked = Asked::about_identity(id, own);
    let mut stated = peer
        .stated(&asked)
        .filter(|judged| is_of_identity(judged.field));
    stated
        .find(|judged| !judged.holds)
        .map(|judged| judged.field)
}

const fn is_of_identity(field: FieldName) -> bool {
    !field.of_operation() && !matches!(field, FieldName::IpBlocks | FieldName::NotIpBlocks)
}

fn covers_source(wide: &PeerMatch, narrow: &PeerMatch, own: &TrustDomain) -> bool {
    covers_addresses(wide, narrow) && covers_identities(wide, narrow, own)
}

fn covers_addresses(wide: &PeerMatch, narrow: &PeerMatch) -> bool {
    let positive = wide.ip_blocks.is_empty()
        || (!narrow.ip_blocks.is_empty() && inside(&narrow.ip_blocks, &wide.ip_blocks));
    let apart = |blocks: &[IpNet], others: &[IpNet]| {
        let overlap = |one: &IpNet| {
            others
                .iter()
                .any(|other| one.contains(other) || other.contains(one))
        };
        !blocks.is_empty() && !blocks.iter().any(overlap)
    };
    let negative = inside(&wide.not_ip_blocks, &narrow.not_ip_blocks)
        || apart(&narrow.ip_blocks, &wide.not_ip_blocks);
    positive && negative
}

/// Whether each block lies in one of `others`. True of no block.
fn inside(blocks: &[IpNet], others: &[IpNet]) -> bool {
    let mut blocks = blocks.iter();
    blocks.all(|block| others.iter().any(|other| other.contains(block)))
}

fn covers_identities(wide: &PeerMatch, narrow: &PeerMatch, own: &TrustDomain) -> bool {
    if let Some((_, ids)) = only_identities(narrow, own) {
        let mut matching = ids
            .iter()
            .filter(|id| first_false(narrow, id, own).is_none());
        return matching.all(|id| first_false(wide, id, own).is_none());
    }
    let proved = first_positive(narrow).is_some();
    let everybody = |any: bool| any && proved;
    let homes = Homes::of(wide, narrow);
    let positive = (wide.principals.is_empty()
        || everybody(wide.principals.contains(&Pattern::Any))
        || of_principals(&narrow.principals, &wide.principals))
        && (wide.trust_domains.is_empty()
            || everybody(wide.trust_domains.contains(&Pattern::Any))
            || of_domains(&narrow.trust_domains, &wide.trust_domains))
        && (wide.namespaces.is_empty()
            || (homes.narrow_implies_wide && of_namespaces(&narrow.namespaces, &wide.namespaces)))
        && (wide.service_accounts.is_empty()
            || (homes.narrow_implies_wide
                && all_among(&narrow.service_accounts, &wide.service_accounts)));
    let negative = (wide.not_principals.is_empty()
        || of_principals(&wide.not_principals, &narrow.not_principals))
        && (wide.not_trust_domains.is_empty()
            || of_domains(&wide.not_trust_domains, &narrow.not_trust_domains))
        && (wide.not_namespaces.is_empty()
            || (homes.wide_implies_narrow
                && of_namespaces(&wide.not_namespaces, &narrow.not_namespaces)))
        && (wide.not_service_accounts.is_empty()
            || (homes.wide_implies_narrow
                && all_among(&wide.not_service_accounts, &narrow.not_service_accounts)));
    positive && negative
}

/// Whose namespaces and service accounts two sources mean: our own trust domain's, or those of
/// whatever they state.
struct Homes {
    narrow_implies_wide: bool,
    wide_implies_narrow: bool,
}

impl Homes {
    fn of(wide: &PeerMatch, narrow: &PeerMatch) -> Self {
        let (wide_is_own, narrow_is_own) = (
            wide.trust_domains.is_empty(),
            narrow.trust_domains.is_empty(),
        );
        Self {
            narrow_implies_wide: narrow_is_own || !wide_is_own,
            wide_implies_narrow: wide_is_own || !narrow_is_own,
        }
    }
}

/// Each of these has one like itself among the others, and there is one at all.
fn all_among<T: PartialEq>(values: &[T], others: &[T]) -> bool {
    !values.is_empty() && values.iter().all(|value| others.contains(value))
}

fn of_principals(values: &[Pattern<WorkloadId>], others: &[Pattern<WorkloadId>]) -> bool {
    all_covered(values, others, WorkloadId::principal)
}

fn of_domains(values: &[Pattern<TrustDomain>], others: &[Pattern<TrustDomain>]) -> bool {
    all_covered(values, others, TrustDomain::as_str)
}

fn of_namespaces(values: &[Pattern<Box<str>>], others: &[Pattern<Box<str>>]) -> bool {
    all_covered(values, others, |name| name)
}

/// Whether there are values, and whatever one of them matches, one of the others does too.
fn all_covered<T>(
    values: &[Pattern<T>],
    others: &[Pattern<T>],
    text: impl Fn(&T) -> &str + Copy,
) -> bool {
    let mut each = values.iter();
    !values.is_empty() && each.all(|value| others.iter().any(|other| covered(value, other, text)))
}

fn covered<T>(narrow: &Pattern<T>, wide: &Pattern<T>, text: impl Fn(&T) -> &str) -> bool {
    match (wide, narrow) {
        (Pattern::Any, _) => true,
        (Pattern::Exact(wide), Pattern::Exact(narrow)) => text(wide) == text(narrow),
        (Pattern::Prefix(wide), Pattern::Exact(narrow)) => text(narrow).starts_with(&**wide),
        (Pattern::Prefix(wide), Pattern::Prefix(narrow)) => narrow.starts_with(&**wide),
        (Pattern::Suffix(wide), Pattern::Exact(narrow)) => text(narrow).ends_with(&**wide),
        (Pattern::Suffix(wide), Pattern::Suffix(narrow)) => narrow.ends_with(&**wide),
        _ => false,
    }
}

fn is_impossible(operation: &OperationMatch) -> bool {
    all_among(&operation.ports, &operation.not_ports)
}

fn covers_operation(wide: &OperationMatch, narrow: &OperationMatch) -> bool {
    let takes = |port: &u16| {
        (wide.ports.is_empty() || wide.ports.contains(port)) && !wide.not_ports.contains(port)
    };
    if narrow.ports.is_empty() {
        let excluded = |port: &u16| narrow.not_ports.contains(port);
        return wide.ports.is_empty() && wide.not_ports.iter().all(excluded);
    }
    let mut ports = narrow.ports.iter();
    ports.all(|port| narrow.not_ports.contains(port) || takes(port))
}

#[cfg(test)]
mod tests;
