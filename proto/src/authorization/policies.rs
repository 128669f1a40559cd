//! The policies of a snapshot: shared, in the order in which they are judged, and never edited.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use super::{
    Facts, Policy, Rule,
    rule_index::{Place, Role, RuleIndex},
};

/// Policies that select one workload. Cheap to clone; two of them are equal if their policies are.
#[derive(Clone, Default)]
pub struct Policies(Arc<Indexed>);

#[derive(Default)]
struct Indexed {
    list: Vec<Arc<Policy>>,
    /// Made at the first decision, or before by [`Policies::prepare`]: whoever only passes
    /// policies on does not pay for it.
    index: OnceLock<RuleIndex>,
}

/// A rule, and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct RuleOf<'a> {
    pub(super) at: Place,
    pub(super) policy: &'a Policy,
    pub(super) rule: &'a Rule,
}

impl Policies {
    /// Makes what decisions look things up in, so that the first of them does not wait for it.
    /// Once is enough, for all clones.
    pub fn prepare(&self) {
        self.index();
    }

    /// Whether decisions find it made.
    #[must_use]
    pub fn is_prepared(&self) -> bool {
        self.0.index.get().is_some()
    }

    /// The rules of this role that may match, in order. What is left out can't.
    pub(super) fn candidates(
        &self,
        role: Role,
        facts: &Facts<'_>,
    ) -> impl Iterator<Item = RuleOf<'_>> {
        let candidates = self.index().candidates(role, facts);
        candidates.filter_map(|number| self.rule(number))
    }

    /// The rules that allow somebody: those that have something in common with the caller, then
    /// all of them.
    pub(super) fn nearest_first(&self, facts: &Facts<'_>) -> impl Iterator<Item = RuleOf<'_>> {
        let in_common = self.candidates(Role::Allows, facts);
        in_common.chain(self.rules(Role::Allows))
    }

    /// All rules of this role, in order.
    pub(super) fn rules(&self, role: Role) -> impl Iterator<Item = RuleOf<'_>> {
        let numbers = self.index().numbers(role);
        numbers.filter_map(|number| self.rule(number))
    }

    /// The first policy that allows somebody, or would if it had rules.
    pub(super) fn first_that_allows(&self) -> Option<&Policy> {
        let policy = self.index().first_that_allows()?;
        self.get(policy).map(Deref::deref)
    }

    /// The same, of dry runs.
    pub(super) fn first_that_would_allow(&self) -> Option<&Policy> {
        let policy = self.index().first_that_would_allow()?;
        self.get(policy).map(Deref::deref)
    }

    fn index(&self) -> &RuleIndex {
        self.0.index.get_or_init(|| RuleIndex::new(&self.0.list))
    }

    /// There is one for every number of the index: both were made of the same list.
    fn rule(&self, number: usize) -> Option<RuleOf<'_>> {
        let at = self.index().place(number)?;
        let policy = self.get(at.policy)?;
        let rule = policy.rules.get(at.rule)?;
        Some(RuleOf { at, policy, rule })
    }
}

impl Deref for Policies {
    type Target = [Arc<Policy>];

    fn deref(&self) -> &Self::Target {
        &self.0.list
    }
}

impl PartialEq for Policies {
    fn eq(&self, other: &Self) -> bool {
        // shared policies are equal at a glance: `Arc` compares addresses first
        self.0.list == other.0.list
    }
}

impl Eq for Policies {}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.list.fmt(f)
    }
}

impl<T: Into<Arc<Policy>>> FromIterator<T> for Policies {
    fn from_iter<I: IntoIterator<Item = T>>(policies: I) -> Self {
        Self(Arc::new(Indexed {
            list: policies.into_iter().map(Into::into).collect(),
            index: OnceLock::new(),
        }))
    }
}

impl From<Vec<Policy>> for Policies {
    fn from(policies: Vec<Policy>) -> Self {
        policies.into_iter().collect()
    }
}

impl From<Vec<Arc<Policy>>> for Policies {
    fn from(policies: Vec<Arc<Policy>>) -> Self {
        policies.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a Policies {
    type Item = &'a Arc<Policy>;
    type IntoIter = std::slice::Iter<'a, Arc<Policy>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
