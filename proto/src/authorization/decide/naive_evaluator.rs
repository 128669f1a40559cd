//! The verdict, written from the text of the design and from nothing else: over strings, without
//! any of the code that it checks.

use std::fmt::Display;

use ipnet::IpNet;

use crate::authorization::{
    Caller, DefaultAction, Facts, MutualTlsMode, PeerMatch, PolicyAction, PolicySnapshot, Verdict,
};

pub(super) fn verdict(snapshot: &PolicySnapshot, facts: &Facts<'_>) -> Verdict {
    let ports = &snapshot.mutual_tls.ports;
    let mode = ports.get(&facts.port).unwrap_or(&snapshot.mutual_tls.mode);
    let refused = *mode == MutualTlsMode::Strict && facts.caller == Caller::Plaintext;
    let of = |action| {
        snapshot
            .policies
            .iter()
            .filter(move |p| p.action == action && !p.dry_run)
    };
    let port = |value: &str| value == facts.port.to_string();
    let matches = |action| {
        of(action).flat_map(|policy| &policy.rules).any(|rule| {
            let mut from = rule
                .from
                .iter()
                .map(|source| holds(source, snapshot, facts, action));
            let mut to = rule
                .to
                .iter()
                .map(|to| stated(&to.ports, &to.not_ports, &port));
            (rule.from.is_empty() || from.any(|is| is)) && (rule.to.is_empty() || to.any(|is| is))
        })
    };
    match (&snapshot.default_action, mode) {
        _ if refused || !snapshot.broken.is_empty() => Verdict::Deny,
        _ if matches(PolicyAction::Deny) => Verdict::Deny,
        _ if matches(PolicyAction::Allow) => Verdict::Allow,
        _ if of(PolicyAction::Allow).count() > 0 => Verdict::Deny,
        (Some((DefaultAction::Deny, _)), _) | (None, MutualTlsMode::Strict) => Verdict::Deny,
        (Some((DefaultAction::Allow, _)), _) | (None, MutualTlsMode::Permissive) => Verdict::Allow,
    }
}

fn holds(s: &PeerMatch, all: &PolicySnapshot, facts: &Facts<'_>, action: PolicyAction) -> bool {
    let from = facts.source.to_canonical();
    let block = |value: &str| value.parse::<IpNet>().unwrap().contains(&from);
    let Caller::Authenticated(id) = facts.caller else {
        let positive = s.principals.len() + s.service_accounts.len() + s.namespaces.len();
        let negative = s.not_principals.len() + s.not_service_accounts.len();
        let negative = negative + s.not_namespaces.len() + s.not_trust_domains.len();
        return positive + s.trust_domains.len() == 0
            && (negative == 0 || action == PolicyAction::Deny)
            && stated(&s.ip_blocks, &s.not_ip_blocks, &block);
    };
    let parts: Vec<&str> = id.as_str().split('/').skip(2).collect();
    let (namespace, account) = match parts[..] {
        [_, "ns", namespace, "sa", account] => (Some(namespace), Some(account)),
        _ => (None, None),
    };
    let home = !s.trust_domains.is_empty() || parts[0] == all.trust_domain.as_str();
    let principal = |value: &str| glob(value.trim_start_matches("spiffe://"), &parts.join("/"));
    let service_account = |value: &str| {
        home && namespace
            .zip(account)
            .is_some_and(|(n, a)| value == format!("{n}/{a}"))
    };
    let in_namespace = |value: &str| home && namespace.is_some_and(|n| glob(value, n));
    let trust_domain = |value: &str| glob(value, parts[0]);
    stated(&s.principals, &s.not_principals, &principal)
        && stated(
            &s.service_accounts,
            &s.not_service_accounts,
            &service_account,
        )
        && stated(&s.namespaces, &s.not_namespaces, &in_namespace)
        && stated(&s.trust_domains, &s.not_trust_domains, &trust_domain)
        && stated(&s.ip_blocks, &s.not_ip_blocks, &block)
}

fn stated<T: Display>(yes: &[T], no: &[T], is: &dyn Fn(&str) -> bool) -> bool {
    let is = |value: &T| is(&value.to_string());
    (yes.is_empty() || yes.iter().any(is)) && !no.iter().any(is)
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.starts_with(before) && text.ends_with(after),
    }
}
