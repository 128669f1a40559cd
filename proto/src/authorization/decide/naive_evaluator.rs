//! The decision from the text of the design alone: over strings, by none of the code it checks.

use crate::authorization::{
    Caller, DefaultAction, Facts, MutualTlsMode as Mode, PeerMatch, Policy, PolicyAction as Action,
    PolicySnapshot, Rule, Step, Verdict, Verdict::Allow, Verdict::Deny,
};

type At<'a> = (&'a str, Option<usize>);
/// Verdict, step, the rule that decided; all that is recorded.
pub(super) type Naive<'a> = (Verdict, Step, Option<At<'a>>, Vec<At<'a>>);

pub(super) fn judge<'a>(all: &'a PolicySnapshot, facts: &Facts<'_>) -> Naive<'a> {
    let (tls, plaintext) = (&all.mutual_tls, facts.caller == Caller::Plaintext);
    let mode = *tls.ports.get(&facts.port).unwrap_or(&tls.mode);
    let role = |p: &Policy| (!p.dry_run && p.action != Action::Audit).then_some(p.action);
    let of = |action| all.policies.iter().filter(move |p| role(p) == action);
    let matched = |p: &'a Policy| Some((&*p.source.document, Some(first_rule(p, all, facts)?)));
    let first = |action| of(Some(action)).find_map(|p| matched(p));
    let (denies, allows) = (first(Action::Deny), first(Action::Allow));
    let (verdict, step, rule) = match (&all.default_action, mode) {
        _ if plaintext && mode == Mode::Strict => (Deny, Step::StrictPort, None),
        _ if !all.broken.is_empty() => (Deny, Step::BrokenDocument, None),
        _ if denies.is_some() => (Deny, Step::DenyRule, denies),
        _ if allows.is_some() => (Allow, Step::AllowRule, allows),
        _ if of(Some(Action::Allow)).count() > 0 => (Deny, Step::NoAllowRule, None),
        (Some((DefaultAction::Deny, _)), _) => (Deny, Step::DefaultAction, None),
        (Some((DefaultAction::Allow, _)), _) => (Allow, Step::DefaultAction, None),
        (None, Mode::Strict) => (Deny, Step::MutualTlsMode, None),
        (None, Mode::Permissive) => (Allow, Step::MutualTlsMode, None),
    };
    let recorded = |p: &'a Policy| matched(p).filter(|_| step != Step::StrictPort);
    let dry = || of(None).filter(|p| p.action == Action::Allow);
    let cut = verdict == Allow && rule.is_none() && dry().all(|p| matched(p).is_none());
    let by_none = dry().take(cut.into()).map(|p| (&*p.source.document, None));
    let recorded = by_none.chain(of(None).filter_map(|p| recorded(p)));
    (verdict, step, rule, recorded.collect())
}

fn first_rule(policy: &Policy, all: &PolicySnapshot, facts: &Facts<'_>) -> Option<usize> {
    let port = |value: &str| Some(value == facts.port.to_string());
    let from = |r: &Rule| r.from.iter().any(|p| holds(p, policy.action, all, facts));
    let to = |r: &Rule| (r.to.iter()).any(|o| field(&o.ports, &o.not_ports, true, port));
    let matches = |r: &Rule| (r.from.is_empty() || from(r)) && (r.to.is_empty() || to(r));
    policy.rules.iter().position(matches)
}

fn holds(p: &PeerMatch, action: Action, all: &PolicySnapshot, facts: &Facts<'_>) -> bool {
    let id = match facts.caller {
        Caller::Authenticated(id) => id.as_str().strip_prefix("spiffe://"),
        Caller::Plaintext => None,
    };
    let parts: Vec<&str> = id.unwrap_or_default().split('/').collect();
    let home = !p.trust_domains.is_empty() || parts[0] == all.trust_domain.as_str();
    let ours = home && matches!(parts[1..], ["ns", _, "sa", _]);
    let named = |ns: &str, sa: &str| ours && glob(ns, parts[2]) && glob(sa, parts[4]);
    let (address, no) = (facts.source.to_canonical(), action != Action::Allow);
    let principal = |v: &str| id.map(|id| glob(v.trim_start_matches("spiffe://"), id));
    let account = |v: &str| id.map(|_| v.split_once('/').is_some_and(|(n, a)| named(n, a)));
    let namespace = |v: &str| id.map(|_| named(v, "*"));
    let domain = |v: &str| id.map(|_| glob(v, parts[0]));
    let block = |v: &str| Some(v.parse::<ipnet::IpNet>().unwrap().contains(&address));
    field(&p.principals, &p.not_principals, no, principal)
        && field(&p.service_accounts, &p.not_service_accounts, no, account)
        && field(&p.namespaces, &p.not_namespaces, no, namespace)
        && field(&p.trust_domains, &p.not_trust_domains, no, domain)
        && field(&p.ip_blocks, &p.not_ip_blocks, no, block)
}

/// Any of the values and none of the `not…` ones, which of a caller without an identity are `no`.
fn field<T: ToString>(yes: &[T], not: &[T], no: bool, is: impl Fn(&str) -> Option<bool>) -> bool {
    let named = yes.is_empty() || yes.iter().any(|v| is(&v.to_string()) == Some(true));
    named && not.iter().all(|v| is(&v.to_string()).map_or(no, |is| !is))
}

fn glob(pattern: &str, text: &str) -> bool {
    let (a, z) = pattern.split_once('*').unwrap_or((pattern, pattern));
    (pattern.contains('*') || pattern == text) && text.starts_with(a) && text.ends_with(z)
}
