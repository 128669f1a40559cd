//! Which rules can match a caller at all, found without looking at the others: the time of a
//! decision must not grow with the number of policies.
//!
//! ```text
//!   rules[7]: from principals [shop/web, shop/api], to ports [80]
//!        filed under whichever of its fields shares its values with the fewest others:
//!        principal shop/web ─▶ 7    principal shop/api ─▶ 7        (or: port 80 ─▶ 7)
//!   caller shop/web, port 80 ─▶ principal, service account, namespace, port ─▶ 7, and the unfiled
//! ```
//! Whoever a rule matches has one of the values under which it is filed, so an index only leaves
//! out what can't match; whether a rule matches is never decided here. A rule that states only
//! patterns, address blocks or exclusions is unfiled, and looked at every time.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    ops::Range,
    sync::Arc,
};

use super::{
    Caller, Facts, OperationMatch, Pattern, PeerMatch, Policy, PolicyAction, Rule,
    ServiceAccountMatch,
};

/// What a match of a policy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Denies,
    Allows,
    /// A dry run or an AUDIT policy: it decides nothing.
    Records,
}

impl Role {
    pub(super) const fn of(policy: &Policy) -> Self {
        match policy.action {
            _ if policy.dry_run => Self::Records,
            PolicyAction::Deny => Self::Denies,
            PolicyAction::Allow => Self::Allows,
            PolicyAction::Audit => Self::Records,
        }
    }
}

/// Where a rule stands: indices of its policy, and of itself in that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) policy: usize,
    pub(super) rule: usize,
}

/// Rules are numbered: first those that deny, then those that allow, then those that record, each
/// in the order of their policies.
#[derive(Debug)]
pub(super) struct RuleIndex {
    /// By number.
    places: Vec<Place>,
    first_to_allow: usize,
    first_to_record: usize,
    /// Index of a policy: one without rules counts too.
    first_that_allows: Option<usize>,
    /// The same, of dry runs.
    first_that_would_allow: Option<usize>,
    /// Numbers, ascending, by the hash of what they are filed under. Two values of one hash only
    /// make a rule looked at in vain.
    filed: HashMap<u64, Vec<usize>>,
    /// Ascending.
    unfiled: Vec<usize>,
    /// Keyed anew in each process, so that nobody can choose names of one hash.
    hasher: RandomState,
}

impl RuleIndex {
    pub(super) fn new(policies: &[Arc<Policy>]) -> Self {
        let mut places = places_of(policies, Role::Denies);
        let first_to_allow = places.len();
        places.extend(places_of(policies, Role::Allows));
        let first_to_record = places.len();
        places.extend(places_of(policies, Role::Records));
        let first = |chosen: fn(&Policy) -> bool| policies.iter().position(|policy| chosen(policy));
        let mut index = Self {
            places,
            first_to_allow,
            first_to_record,
            first_that_allows: first(|policy| Role::of(policy) == Role::Allows),
            first_that_would_allow: first(|policy| {
                policy.dry_run && policy.action == PolicyAction::Allow
            }),
            filed: HashMap::new(),
            unfiled: Vec::new(),
            hasher: RandomState::new(),
        };
        index.file_all(policies);
        index
    }

    pub(super) fn place(&self, number: usize) -> Option<Place> {
        self.places.get(number).copied()
    }

    pub(super) const fn first_that_allows(&self) -> Option<usize> {
        self.first_that_allows
    }

    pub(super) const fn first_that_would_allow(&self) -> Option<usize> {
        self.first_that_would_allow
    }

    /// Of all rules of a role.
    pub(super) const fn numbers(&self, role: Role) -> Range<usize> {
        match role {
            Role::Denies => 0..self.first_to_allow,
            Role::Allows => self.first_to_allow..self.first_to_record,
            Role::Records => self.first_to_record..self.places.len(),
        }
    }

    /// Of the rules of a role that may match, ascending. Does not allocate.
    pub(super) fn candidates(&self, role: Role, facts: &Facts<'_>) -> Candidates<'_> {
        let numbers = self.numbers(role);
        if numbers.is_empty() {
            return Candidates::default();
        }
        let lists = Key::of(facts).map(|key| {
            let filed = key.and_then(|key| self.filed.get(&self.hasher.hash_one(key)));
            within(filed.map_or(&[], Vec::as_slice), &numbers)
        });
        Candidates {
            lists,
            unfiled: within(&self.unfiled, &numbers),
        }
    }

    fn file_all(&mut self, policies: &[Arc<Policy>]) {
        let rules: Vec<&Rule> = self
            .places
            .iter()
            .filter_map(|place| policies.get(place.policy)?.rules.get(place.rule))
            .collect();
        let mut shared = HashMap::new();
        for rule in &rules {
            Keys::of(rule, &self.hasher).count(&mut shared);
        }
        for (number, rule) in rules.into_iter().enumerate() {
            self.file(number, &Keys::of(rule, &self.hasher), &shared);
        }
    }

    /// Files each entry of a rule under the field whose values the fewest entries share.
    fn file(&mut self, number: usize, keys: &Keys, shared: &Shared) {
        let of_ports = most_shared(&keys.ports, shared);
        let mut by_port = false;
        for entry in &keys.entries {
            let of_source = entry
                .iter()
                .filter_map(|values| Some((most_shared(values, shared)?, values)))
                .min_by_key(|(most, _)| *most);
            match of_source {
                Some((most, values)) if of_ports.is_none_or(|ports| most <= ports) => {
                    self.file_under(values, number);
                }
                None if of_ports.is_none() => add(&mut self.unfiled, number),
                // once for all entries: they share the ports
                _ => by_port = true,
            }
        }
        if by_port {
            self.file_under(&keys.ports, number);
        }
    }

    fn file_under(&mut self, values: &[u64], number: usize) {
        for value in values {
            add(self.filed.entry(*value).or_default(), number);
        }
    }
}

/// Numbers come in ascending order, so that one that is there already is the last.
fn add(list: &mut Vec<usize>, number: usize) {
    if list.last() != Some(&number) {
        list.push(number);
    }
}

fn places_of(policies: &[Arc<Policy>], role: Role) -> Vec<Place> {
    policies
        .iter()
        .enumerate()
        .filter(|(_, policy)| Role::of(policy) == role)
        .flat_map(|(policy, of)| (0..of.rules.len()).map(move |rule| Place { policy, rule }))
        .collect()
}

fn within<'a>(list: &'a [usize], numbers: &Range<usize>) -> &'a [usize] {
    let start = list.partition_point(|number| *number < numbers.start);
    let end = list.partition_point(|number| *number < numbers.end);
    list.get(start..end).unwrap_or_default()
}

/// A value that a caller or a connection has exactly one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key<'a> {
    Principal(&'a str),
    ServiceAccount(&'a str, &'a str),
    Namespace(&'a str),
    Port(u16),
}

/// How many kinds of keys there are.
const KEYS: usize = 4;

impl<'a> Key<'a> {
    fn of(facts: &Facts<'a>) -> [Option<Self>; KEYS] {
        let port = Some(Self::Port(facts.port));
        match facts.caller {
            // no field that names somebody holds of nobody
            Caller::Plaintext => [None, None, None, port],
            Caller::Authenticated(id) => {
                let (namespace, account) = (id.namespace(), id.service_account());
                [
                    Some(Self::Principal(id.principal())),
                    namespace
                        .zip(account)
                        .map(|(namespace, name)| Self::ServiceAccount(namespace, name)),
                    namespace.map(Self::Namespace),
                    port,
                ]
            }
        }
    }

    fn of_account(account: &'a ServiceAccountMatch) -> Self {
        Self::ServiceAccount(&account.namespace, &account.name)
    }
}

/// How many entries share each value, by its hash.
type Shared = HashMap<u64, usize>;

/// Of how many entries' values the one is that most share; `None` of a field without values.
fn most_shared(values: &[u64], shared: &Shared) -> Option<usize> {
    values
        .iter()
        .filter_map(|value| shared.get(value))
        .copied()
        .max()
}

/// Hashes of the values of which a caller and a connection must have one. A field that says
/// nothing of the kind has none.
///
/// The ports are those of the rule, whichever of its entries a caller is named by: a rule with
/// 1,000 entries and 1,000 ports has 2,000 keys, and not a million.
struct Keys {
    /// For each `from`, or for anybody, field by field.
    entries: Vec<[Vec<u64>; OF_A_CALLER]>,
    ports: Vec<u64>,
}

/// How many kinds of keys a caller has.
const OF_A_CALLER: usize = KEYS - 1;

impl Keys {
    fn of(rule: &Rule, hasher: &RandomState) -> Self {
        let hash = |keys: Vec<Key<'_>>| keys.iter().map(|key| hasher.hash_one(key)).collect();
        let anybody = rule.from.is_empty().then(Default::default);
        let somebody = rule.from.iter().map(|from| of_source(from).map(hash));
        Self {
            entries: somebody.chain(anybody).collect(),
            ports: hash(ports(&rule.to)),
        }
    }

    /// Each entry counts, also for the ports that all of them share.
    fn count(&self, shared: &mut Shared) {
        let entries = self.entries.len();
        let of_callers = self.entries.iter().flatten().flatten().map(|key| (key, 1));
        for (key, times) in of_callers.chain(self.ports.iter().map(|key| (key, entries))) {
            let count = shared.entry(*key).or_default();
            *count = count.saturating_add(times);
        }
    }
}

fn of_source(from: &PeerMatch) -> [Vec<Key<'_>>; OF_A_CALLER] {
    [
        exact(&from.principals, |id| Key::Principal(id.principal())),
        from.service_accounts.iter().map(Key::of_account).collect(),
        exact(&from.namespaces, |namespace| Key::Namespace(namespace)),
    ]
}

/// None if one of the values is a pattern.
fn exact<'a, T>(values: &'a [Pattern<T>], key: impl Fn(&'a T) -> Key<'a>) -> Vec<Key<'a>> {
    let keys = values.iter().map(|value| match value {
        Pattern::Exact(exact) => Some(key(exact)),
        Pattern::Prefix(_) | Pattern::Suffix(_) | Pattern::Any => None,
    });
    keys.collect::<Option<_>>().unwrap_or_default()
}

/// None if one of the operations takes ports that it does not name.
fn ports(to: &[OperationMatch]) -> Vec<Key<'_>> {
    if to.iter().any(|operation| operation.ports.is_empty()) {
        return Vec::new();
    }
    let ports = to.iter().flat_map(|operation| &operation.ports);
    ports.copied().map(Key::Port).collect()
}

/// Numbers of several ascending lists, merged: each once, ascending.
#[derive(Debug, Default)]
pub(super) struct Candidates<'a> {
    lists: [&'a [usize]; KEYS],
    unfiled: &'a [usize],
}

impl Iterator for Candidates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let lists = || self.lists.iter().chain([&self.unfiled]);
        let next = *lists().filter_map(|list| list.first()).min()?;
        for list in self.lists.iter_mut().chain([&mut self.unfiled]) {
            if let Some((first, rest)) = list.split_first()
                && *first == next
            {
                *list = rest;
            }
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests;
