//! Which ALLOW rule a denied caller came nearest to. Only denials pay for this.

use std::{cmp::Reverse, fmt};

use super::{
    Caller, FailedField, FieldName, FieldRef, NearestMiss, OperationMatch, Pattern, PeerMatch,
    Rule, decide::at_rule, peer_match::Asked, policies::RuleOf,
};

/// A list of ports or address blocks is shown up to here.
const SHOWN_VALUES: usize = 4;
/// A caller can be denied as often as it likes. In all rules together, so many entries and values of
/// theirs are compared, which takes less than the handshake that came before it; rules and entries
/// beyond are not looked at. The first entry of a rule always is, and to its end: it may be larger,
/// and costs then what it costs to ask it whether it matches.
const COMPARED: usize = 4096;
/// Of the rules, so many, however small they are.
const COMPARED_RULES: usize = 256;
/// Of one field, so many values are searched for the one that looks most like what the caller has.
const COMPARED_VALUES: usize = 256;

/// What may still be compared, in entries and values.
#[derive(Debug)]
struct Budget {
    left: usize,
    /// What was compared.
    spent: usize,
}

impl Budget {
    const fn of(left: usize) -> Self {
        Self { left, spent: 0 }
    }

    /// Takes an entry, whatever it costs.
    const fn take(&mut self, values: usize) {
        let cost = values.saturating_add(1);
        self.spent = self.spent.saturating_add(cost);
        self.left = self.left.saturating_sub(cost);
    }

    /// The entries that are compared: the first one, and those for which there is room.
    fn entries<'a, T>(&mut self, entries: &'a [T], values: impl Fn(&T) -> usize) -> &'a [T] {
        let mut count = 0_usize;
        for entry in entries {
            if count > 0 && self.left == 0 {
                break;
            }
            self.take(values(entry));
            count = count.saturating_add(1);
        }
        entries.get(..count).unwrap_or(entries)
    }
}

/// The rule with the fewest fields that don't hold; among those, the one with a value that looks
/// most like what the caller has; among those, the first. `None` if there is no rule.
pub(super) fn nearest_miss<'a>(
    rules: impl Iterator<Item = RuleOf<'a>>,
    asked: &Asked<'_>,
) -> Option<NearestMiss> {
    nearest_within(&mut Budget::of(COMPARED), rules, asked)
}

fn nearest_within<'a>(
    budget: &mut Budget,
    rules: impl Iterator<Item = RuleOf<'a>>,
    asked: &Asked<'_>,
) -> Option<NearestMiss> {
    let mut nearest: Option<(RuleOf<'a>, Vec<Miss>)> = None;
    for of in rules.take(COMPARED_RULES) {
        if nearest.is_some() && budget.left == 0 {
            break;
        }
        let misses = misses_of_rule(of.at.rule, of.rule, asked, budget);
        let nearer = nearest
            .as_ref()
            .is_none_or(|(before, than)| (rank(&misses), of.at) < (rank(than), before.at));
        if nearer {
            nearest = Some((of, misses));
        }
    }
    let (nearest, misses) = nearest?;
    Some(NearestMiss {
        policy: at_rule(nearest.policy, nearest.rule),
        rule: nearest.at.rule,
        failed: misses
            .into_iter()
            .filter_map(|miss| miss.describe(nearest.rule, asked))
            .collect(),
    })
}

/// The fields that keep a rule from matching: those of the source and of the operation that come
/// nearest. Empty if it matches.
pub(super) fn failed_fields(index: usize, rule: &Rule, asked: &Asked<'_>) -> Vec<FailedField> {
    // one rule, of which somebody asks: it is compared to its end
    misses_of_rule(index, rule, asked, &mut Budget::of(usize::MAX))
        .into_iter()
        .filter_map(|miss| miss.describe(rule, asked))
        .collect()
}

/// A field that does not hold.
struct Miss {
    field: FieldRef,
    /// Index of the value to show.
    value: usize,
    /// How much that value looks like what the caller has.
    likeness: usize,
}

fn rank(misses: &[Miss]) -> (usize, Reverse<usize>) {
    let likeness = misses
        .iter()
        .fold(0_usize, |sum, miss| sum.saturating_add(miss.likeness));
    (misses.len(), Reverse(likeness))
}

fn misses_of_rule(index: usize, rule: &Rule, asked: &Asked<'_>, budget: &mut Budget) -> Vec<Miss> {
    let from = budget
        .entries(&rule.from, PeerMatch::values)
        .iter()
        .enumerate()
        .map(|(entry, peer)| misses_of_source(index, entry, peer, asked))
        .min_by_key(|misses| rank(misses));
    let to = budget
        .entries(&rule.to, OperationMatch::values)
        .iter()
        .enumerate()
        .map(|(entry, operation)| misses_of_operation(index, entry, operation, asked))
        .min_by_key(|misses| rank(misses));
    from.into_iter().chain(to).flatten().collect()
}

fn misses_of_source(rule: usize, entry: usize, peer: &PeerMatch, asked: &Asked<'_>) -> Vec<Miss> {
    peer.stated(asked)
        .filter(|judged| !judged.holds)
        .map(|judged| {
            let field = FieldRef {
                rule,
                entry,
                field: judged.field,
                line: peer.line,
            };
            let (value, likeness) = most_alike(peer, judged.field, asked);
            Miss {
                field,
                value,
                likeness,
            }
        })
        .collect()
}

fn misses_of_operation(
    rule: usize,
    entry: usize,
    operation: &OperationMatch,
    asked: &Asked<'_>,
) -> Vec<Miss> {
    operation
        .stated(asked)
        .filter(|judged| !judged.holds)
        .map(|judged| Miss {
            field: FieldRef {
                rule,
                entry,
                field: judged.field,
                line: operation.line,
            },
            value: 0,
            likeness: 0,
        })
        .collect()
}

/// Index of the value to show and how much it looks like the caller's: bytes shared at both ends.
/// Linear in the rule's size, whatever a caller calls itself. Of a field that excludes, it is the
/// value that does.
fn most_alike(peer: &PeerMatch, field: FieldName, asked: &Asked<'_>) -> (usize, usize) {
    let Caller::Authenticated(id) = asked.caller else {
        return (0, 0);
    };
    let best = |got: &str, values: &mut dyn Iterator<Item = (&str, bool)>| {
        best_of(values, got, field.negative())
    };
    match field {
        FieldName::Principals | FieldName::NotPrincipals => best(
            id.principal(),
            &mut of(field, &peer.principals, &peer.not_principals)
                .iter()
                .map(|pattern| {
                    (
                        fixed(pattern, |exact| exact.principal()),
                        pattern.matches(id, id.principal()),
                    )
                }),
        ),
        FieldName::ServiceAccounts | FieldName::NotServiceAccounts => best(
            id.service_account().unwrap_or_default(),
            &mut of(field, &peer.service_accounts, &peer.not_service_accounts)
                .iter()
                .map(|account| (&*account.name, account.matches(id))),
        ),
        FieldName::Namespaces | FieldName::NotNamespaces => {
            let namespace = id.namespace().unwrap_or_default();
            best(
                namespace,
                &mut of(field, &peer.namespaces, &peer.not_namespaces)
                    .iter()
                    .map(|pattern| {
                        (
                            fixed(pattern, |exact| exact),
                            pattern.matches(namespace, namespace),
                        )
                    }),
            )
        }
        FieldName::TrustDomains | FieldName::NotTrustDomains => {
            let domain = id.trust_domain();
            best(
                domain.as_str(),
                &mut of(field, &peer.trust_domains, &peer.not_trust_domains)
                    .iter()
                    .map(|pattern| {
                        let text = fixed(pattern, |exact| exact.as_str());
                        (text, pattern.matches(domain, domain.as_str()))
                    }),
            )
        }
        FieldName::IpBlocks | FieldName::NotIpBlocks | FieldName::Ports | FieldName::NotPorts => {
            (0, 0)
        }
    }
}

/// The values are texts, and whether they match the caller.
fn best_of(
    values: &mut dyn Iterator<Item = (&str, bool)>,
    got: &str,
    negative: bool,
) -> (usize, usize) {
    let likeness = |value, matches| {
        if negative {
            usize::from(matches)
        } else {
            shared_ends(got, value)
        }
    };
    values
        .take(if negative {
            usize::MAX
        } else {
            COMPARED_VALUES
        })
        .enumerate()
        .map(|(index, (value, matches))| (index, likeness(value, matches)))
        .max_by_key(|(index, likeness)| (*likeness, Reverse(*index)))
        .unwrap_or_default()
}

const fn of<'a, T>(field: FieldName, positive: &'a [T], negative: &'a [T]) -> &'a [T] {
    if field.negative() { negative } else { positive }
}

fn fixed<T>(pattern: &Pattern<T>, exact: impl Fn(&T) -> &str) -> &str {
    match pattern {
        Pattern::Exact(value) => exact(value),
        Pattern::Prefix(text) | Pattern::Suffix(text) => text,
        Pattern::Any => "",
    }
}

fn shared_ends(a: &str, b: &str) -> usize {
    let ahead = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    let behind = a
        .bytes()
        .rev()
        .zip(b.bytes().rev())
        .take_while(|(x, y)| x == y)
        .count();
    ahead.saturating_add(behind).min(a.len()).min(b.len())
}

impl Miss {
    fn describe(self, rule: &Rule, asked: &Asked<'_>) -> Option<FailedField> {
        let field = self.field;
        let value = if field.field.of_operation() {
            let operation = rule.to.get(field.entry)?;
            some_of(of(field.field, &operation.ports, &operation.not_ports))
        } else {
            value_of_source(rule.from.get(field.entry)?, field.field, self.value)
        };
        Some(FailedField {
            field,
            value,
            others: rule
                .from
                .get(field.entry)
                .map_or(0, |peer| others(peer, field.field)),
            got: got(field.field, asked),
        })
    }
}

/// Values that would do as well as the one that is shown. Of blocks and ports several are shown,
/// and of a field that excludes it is the one that does.
fn others(peer: &PeerMatch, field: FieldName) -> usize {
    let values = match field {
        FieldName::Principals => peer.principals.len(),
        FieldName::ServiceAccounts => peer.service_accounts.len(),
        FieldName::Namespaces => peer.namespaces.len(),
        FieldName::TrustDomains => peer.trust_domains.len(),
        _ => 0,
    };
    values.saturating_sub(1)
}

fn value_of_source(peer: &PeerMatch, field: FieldName, index: usize) -> String {
    fn at<T: fmt::Display>(values: &[T], index: usize) -> String {
        values
            .get(index)
            .map(ToString::to_string)
            .unwrap_or_default()
    }
    match field {
        FieldName::Principals | FieldName::NotPrincipals => {
            // as operators write principals, and as logs show callers
            let text = at(of(field, &peer.principals, &peer.not_principals), index);
            text.strip_prefix("spiffe://")
                .map(ToOwned::to_owned)
                .unwrap_or(text)
        }
        FieldName::ServiceAccounts | FieldName::NotServiceAccounts => at(
            of(field, &peer.service_accounts, &peer.not_service_accounts),
            index,
        ),
        FieldName::Namespaces | FieldName::NotNamespaces => {
            at(of(field, &peer.namespaces, &peer.not_namespaces), index)
        }
        FieldName::TrustDomains | FieldName::NotTrustDomains => at(
            of(field, &peer.trust_domains, &peer.not_trust_domains),
            index,
        ),
        FieldName::IpBlocks | FieldName::NotIpBlocks => {
            some_of(of(field, &peer.ip_blocks, &peer.not_ip_blocks))
        }
        FieldName::Ports | FieldName::NotPorts => String::new(),
    }
}

fn some_of<T: fmt::Display>(values: &[T]) -> String {
    let mut shown: Vec<String> = values
        .iter()
        .take(SHOWN_VALUES)
        .map(ToString::to_string)
        .collect();
    if values.len() > SHOWN_VALUES {
        shown.push("…".to_owned());
    }
    shown.join(", ")
}

fn got(field: FieldName, asked: &Asked<'_>) -> String {
    if field.of_operation() {
        return asked.port.to_string();
    }
    if matches!(field, FieldName::IpBlocks | FieldName::NotIpBlocks) {
        return asked.source.to_string();
    }
    match asked.caller {
        Caller::Plaintext => "no identity (plaintext)".to_owned(),
        // the whole principal also where a part of it is asked for: its trust domain counts too
        Caller::Authenticated(id) => id.principal().to_owned(),
    }
}

#[cfg(test)]
mod tests;
