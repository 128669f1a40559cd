//! Rules that name whom no document knows. Only where documents name workloads at all.

use std::collections::BTreeSet;

use mesh_lite_proto::{
    authorization::{FieldName, FieldRef, Pattern, PeerMatch},
    document::nearest_name::nearest,
    identity::WorkloadId,
};
use spiffe::TrustDomain;

use super::{Documents, Findings, Oddity, PolicyDocument, ReviewedWorkload};

pub(super) fn look(
    documents: &Documents,
    policies: &[PolicyDocument<'_>],
    findings: &mut Findings,
) {
    let own = &documents.settings().trust_domain;
    for document in policies {
        unprovable(document, own, findings);
    }
    let Some(workloads) = documents.all_workloads() else {
        return not_checked(documents, findings);
    };
    let known = Known::of(workloads);
    for document in policies {
        let rules = document.policy().map_or(&[][..], |policy| &policy.rules);
        for (rule, of_rule) in rules.iter().enumerate() {
            for (entry, peer) in of_rule.from.iter().enumerate() {
                for (field, value, unknown) in unknown(peer, own, &known) {
                    let field = FieldRef {
                        rule,
                        entry,
                        field,
                        line: peer.line,
                    };
                    let (problem, help) = unknown.in_words(&known, (own, field.field));
                    findings.warn(
                        Oddity::UnknownIdentity,
                        document.of_value(field, value),
                        problem,
                        help,
                    );
                }
            }
        }
    }
}

/// Whoever is named can't come: no certificate of this mesh has such an identity.
fn unprovable(document: &PolicyDocument<'_>, own: &TrustDomain, findings: &mut Findings) {
    let rules = document.policy().map_or(&[][..], |policy| &policy.rules);
    let peers = rules.iter().enumerate().flat_map(|(rule, of_rule)| {
        let peers = of_rule.from.iter().enumerate();
        peers.map(move |(entry, peer)| (rule, entry, peer))
    });
    for (rule, entry, peer) in peers {
        let mut tell = |field, value, (problem, help): (String, String)| {
            let field = FieldRef {
                rule,
                entry,
                field,
                line: peer.line,
            };
            let place = document.of_value(field, value);
            findings.warn(Oddity::UnprovableIdentity, place, problem, help);
        };
        for (field, principals) in [
            (FieldName::Principals, &peer.principals),
            (FieldName::NotPrincipals, &peer.not_principals),
        ] {
            for (value, principal) in principals.iter().enumerate() {
                if let Pattern::Exact(id) = principal
                    && let Some(words) = no_such_principal(id, own)
                {
                    tell(field, value, words);
                }
            }
        }
        for (value, domain) in peer.trust_domains.iter().enumerate() {
            if let Pattern::Exact(name) = domain
                && name != own
            {
                let help = format!("write {own}, the trust domain of this mesh");
                tell(FieldName::TrustDomains, value, (foreign(name), help));
            }
        }
    }
}

fn foreign(domain: &TrustDomain) -> String {
    format!("no caller of another trust domain, as {domain}, can prove itself in this mesh yet")
}

/// What is wrong with it and how it is spelt, unless it is one that mesh-lite issues.
fn no_such_principal(id: &WorkloadId, own: &TrustDomain) -> Option<(String, String)> {
    let principal = id.principal();
    let parts: Vec<&str> = principal.split('/').collect();
    if let [namespace, account] = parts[..] {
        let problem = format!("nobody has the identity {principal}: it is not a whole principal");
        let help = format!("did you mean {own}/ns/{namespace}/sa/{account}?");
        return Some((problem, help));
    }
    if id.trust_domain() != own {
        let rest = principal.split_once('/').map_or("", |(_, rest)| rest);
        let help = format!("if it is of this mesh, write {own}/{rest}");
        return Some((foreign(id.trust_domain()), help));
    }
    if account(id).is_none() {
        let problem =
            format!("nobody has the identity {principal}: mesh-lite issues none of its form");
        let help = format!("write {own}/ns/NAMESPACE/sa/SERVICE-ACCOUNT");
        return Some((problem, help));
    }
    None
}

/// Silence about names would be taken for a check that was passed.
fn not_checked(documents: &Documents, findings: &mut Findings) {
    let Some(place) = documents.unknown_workloads() else {
        return;
    };
    if documents.loaded().next().is_none() {
        return;
    }
    findings.note(
        Oddity::NotChecked,
        place.clone(),
        "whether the identities, namespaces and labels that policies name exist is not checked: \
         because of this error not all workloads are known",
        "correct the document, and lint again",
    );
}

/// Whom the documents know.
struct Known<'a> {
    principals: BTreeSet<&'a str>,
    /// `namespace/service-account`, for names that are spelt alike.
    accounts: BTreeSet<String>,
    namespaces: BTreeSet<&'a str>,
}

impl<'a> Known<'a> {
    fn of(workloads: &'a [ReviewedWorkload]) -> Self {
        let meshed = || workloads.iter().filter(|workload| workload.meshed);
        Self {
            principals: meshed().map(|workload| workload.id.principal()).collect(),
            accounts: meshed()
                .filter_map(|workload| account(&workload.id))
                .collect(),
            namespaces: meshed().map(|workload| &*workload.name.namespace).collect(),
        }
    }
}

fn account(id: &WorkloadId) -> Option<String> {
    Some(format!("{}/{}", id.namespace()?, id.service_account()?))
}

enum Unknown {
    Principal(WorkloadId),
    Namespace(Box<str>),
}

impl Unknown {
    /// What is meant is spelt as the field has it: people paste it.
    fn in_words(
        &self,
        known: &Known<'_>,
        (own, field): (&TrustDomain, FieldName),
    ) -> (String, String) {
        let (problem, meant) = match self {
            Self::Principal(id) => {
                let problem = format!("no Workload document has the identity {}", id.principal());
                let names: Vec<&str> = known.accounts.iter().map(String::as_str).collect();
                let written = account(id).unwrap_or_default();
                let meant = nearest(&written, &names);
                let spelt = |account: &str| match account.split_once('/') {
                    Some((namespace, name)) if field == FieldName::Principals => {
                        format!("{own}/ns/{namespace}/sa/{name}")
                    }
                    _ => account.to_owned(),
                };
                (problem, meant.map(spelt))
            }
            Self::Namespace(name) => {
                let problem = format!("no Workload document is in the namespace {name}");
                let names: Vec<&str> = known.namespaces.iter().copied().collect();
                (problem, nearest(name, &names).map(str::to_owned))
            }
        };
        let help = match meant {
            Some(name) => format!("did you mean {name}?"),
            None => "correct the name, or add the workload".to_owned(),
        };
        (problem, help)
    }
}

/// What is stated of our own trust domain and not known there, with the index of the value.
fn unknown(
    peer: &PeerMatch,
    own: &TrustDomain,
    known: &Known<'_>,
) -> Vec<(FieldName, usize, Unknown)> {
    let mut found = Vec::new();
    let is_known =
        |id: &WorkloadId| id.trust_domain() != own || known.principals.contains(id.principal());
    for (index, principal) in peer.principals.iter().enumerate() {
        if let Pattern::Exact(id) = principal
            && account(id).is_some()
            && !is_known(id)
        {
            found.push((FieldName::Principals, index, Unknown::Principal(id.clone())));
        }
    }
    // of other trust domains, or of several: nobody here knows
    if !peer.trust_domains.is_empty() {
        return found;
    }
    for (index, account) in peer.service_accounts.iter().enumerate() {
        if let Ok(id) = WorkloadId::new(own, &account.namespace, &account.name)
            && !is_known(&id)
        {
            found.push((FieldName::ServiceAccounts, index, Unknown::Principal(id)));
        }
    }
    for (index, namespace) in peer.namespaces.iter().enumerate() {
        if let Pattern::Exact(name) = namespace
            && !known.namespaces.contains(&**name)
        {
            found.push((
                FieldName::Namespaces,
                index,
                Unknown::Namespace(name.clone()),
            ));
        }
    }
    found
}
