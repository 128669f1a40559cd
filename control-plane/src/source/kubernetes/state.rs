//! All objects of the cluster that are used, as they were last seen. No I/O here.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipnet::IpNet;
use kube::api::DynamicObject;
use mesh_lite_proto::document::Kind;
use spiffe::TrustDomain;
use tokio::time::Instant;

use super::{
    directory::{self, Objects, PodNetworks},
    kinds::WatchedKind,
    namespaces::{Namespace, Namespaces},
    objects::{self, EndpointSlice, Node, ObjectName, Pod, Service},
    policies::{News, Policies},
    policy_object::{PolicyObject, policy_object},
    watching::{Change, Read, Reason, Seen, Trouble},
};
use crate::workload_index::Facts;

/// An object, as far as it is used.
pub(super) enum Object {
    Pod(Pod),
    Service(Service),
    EndpointSlice(EndpointSlice),
    Node(Node),
    ServiceCidr(Vec<String>),
    Namespace(Namespace, Option<String>),
    Policy(Box<PolicyObject>),
}

/// What is read of the objects of a kind. What can't be read is as if it weren't there: nobody is
/// sent anything on its account.
pub(super) const fn reader(kind: WatchedKind) -> Read<Object> {
    match kind {
        WatchedKind::Pod => |object| {
            let read = objects::pod(object.metadata.clone(), object.data);
            checked("Pod", &object.metadata, read).map(Object::Pod)
        },
        WatchedKind::Service => |object| {
            checked("Service", &object.metadata, objects::service(object.data)).map(Object::Service)
        },
        WatchedKind::EndpointSlice => |object| {
            let read = objects::endpoint_slice(object.metadata.clone(), object.data);
            checked("EndpointSlice", &object.metadata, read).map(Object::EndpointSlice)
        },
        WatchedKind::Node => |object| {
            let read = objects::node(object.data).map(Some);
            checked("Node", &object.metadata, read).map(Object::Node)
        },
        WatchedKind::ServiceCidr => |object| {
            let read = objects::service_cidr(object.data).map(Some);
            checked("ServiceCIDR", &object.metadata, read).map(Object::ServiceCidr)
        },
        WatchedKind::Namespace => |object| {
            let (namespace, problem) = objects::namespace(object.metadata);
            Some(Object::Namespace(namespace, problem))
        },
        WatchedKind::AuthorizationPolicy => |object| policy(Kind::AuthorizationPolicy, object),
        WatchedKind::PeerAuthentication => |object| policy(Kind::PeerAuthentication, object),
        WatchedKind::Eviction => |object| policy(Kind::Eviction, object),
    }
}

fn policy(kind: Kind, object: DynamicObject) -> Option<Object> {
    policy_object(kind, object).map(|policy| Object::Policy(Box::new(policy)))
}

fn checked<T>(
    kind: &str,
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    read: Result<Option<T>, serde_json::Error>,
) -> Option<T> {
    read.unwrap_or_else(|error| {
        tracing::error!(
            namespace = metadata.namespace,
            name = metadata.name,
            %error,
            "a {kind} can't be read, and is passed over"
        );
        None
    })
}

/// What is to be published again.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Changed {
    pub(super) directory: bool,
    pub(super) networks: bool,
    pub(super) namespaces: bool,
    pub(super) policies: bool,
    /// They are among the policies too.
    pub(super) evictions: bool,
    pub(super) verdicts: bool,
}

pub(super) struct State {
    trust_domain: TrustDomain,
    /// Networks that the operator stated; empty: those of the cluster.
    stated: Vec<IpNet>,
    objects: Objects,
    service_cidrs: BTreeMap<ObjectName, Vec<String>>,
    namespaces: BTreeMap<ObjectName, (Namespace, Option<String>)>,
    pub(super) policies: Policies,
    listed: BTreeSet<WatchedKind>,
    troubles: BTreeMap<WatchedKind, Trouble>,
    /// Since it was last published.
    pub(super) changed: Changed,
    /// Of the directory, as it was last made.
    problems: Vec<String>,
}

impl State {
    pub(super) fn new(trust_domain: TrustDomain, stated: Vec<IpNet>) -> Self {
        Self {
            trust_domain,
            stated,
            objects: Objects::default(),
            service_cidrs: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            policies: Policies::default(),
            listed: BTreeSet::new(),
            troubles: BTreeMap::new(),
            changed: Changed::default(),
            problems: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, kind: WatchedKind, seen: Seen<Object>) {
        match seen {
            Seen::Change(change) => self.take_change(kind, change),
            Seen::Trouble(Some(trouble)) => {
                self.troubles.insert(kind, trouble);
            }
            Seen::Trouble(None) => {
                self.troubles.remove(&kind);
            }
        }
    }

    fn take_change(&mut self, kind: WatchedKind, change: Change<Object>) {
        if matches!(change, Change::All(_)) && self.listed.insert(kind) {
            // the last one makes it whole, and everything is published then
            self.changed = EVERYTHING;
        }
        let changed = &mut self.changed;
        match kind {
            WatchedKind::Pod => {
                let pods = &mut self.objects.pods;
                changed.directory |= apply(pods, change, |object| match object {
                    Object::Pod(pod) => Some(pod),
                    _ => None,
                });
            }
            WatchedKind::Service => {
                let services = &mut self.objects.services;
                changed.directory |= apply(services, change, |object| match object {
                    Object::Service(service) => Some(service),
                    _ => None,
                });
            }
            WatchedKind::EndpointSlice => {
                let slices = &mut self.objects.slices;
                changed.directory |= apply(slices, change, |object| match object {
                    Object::EndpointSlice(slice) => Some(slice),
                    _ => None,
                });
            }
            WatchedKind::Node => {
                let nodes = &mut self.objects.nodes;
                let different = apply(nodes, change, |object| match object {
                    Object::Node(node) => Some(node),
                    _ => None,
                });
                changed.directory |= different;
                changed.networks |= different;
            }
            WatchedKind::ServiceCidr => {
                let different = apply(&mut self.service_cidrs, change, |object| match object {
                    Object::ServiceCidr(cidrs) => Some(cidrs),
                    _ => None,
                });
                changed.directory |= different;
                changed.networks |= different;
            }
            WatchedKind::Namespace => {
                changed.namespaces |= apply(&mut self.namespaces, change, |object| match object {
                    Object::Namespace(namespace, problem) => Some((namespace, problem)),
                    _ => None,
                });
            }
            WatchedKind::AuthorizationPolicy
            | WatchedKind::PeerAuthentication
            | WatchedKind::Eviction => self.take_policies(kind, change),
        }
    }

    fn take_policies(&mut self, kind: WatchedKind, change: Change<Object>) {
        match change {
            Change::All(all) => {
                let known = self.policies.names_of(kind);
                let gone: Vec<ObjectName> = known
                    .filter(|name| !all.contains_key(name))
                    .cloned()
                    .collect();
                for name in gone {
                    self.remove_policy(kind, name);
                }
                for (name, object) in all {
                    self.put_policy(kind, name, object);
                }
            }
            Change::Put(name, object) => self.put_policy(kind, name, object),
            Change::Gone(name) => self.remove_policy(kind, name),
        }
    }

    fn put_policy(&mut self, kind: WatchedKind, name: ObjectName, object: Object) {
        let Object::Policy(policy) = object else {
            return;
        };
        match self.policies.put(kind, name, *policy) {
            News::Nothing => {}
            News::Status => self.changed.verdicts = true,
            News::Document => self.policy_changed(kind),
        }
    }

    fn remove_policy(&mut self, kind: WatchedKind, name: ObjectName) {
        if self.policies.remove(kind, name) {
            self.policy_changed(kind);
        }
    }

    fn policy_changed(&mut self, kind: WatchedKind) {
        self.changed.policies = true;
        self.changed.evictions |= kind == WatchedKind::Eviction;
    }

    /// Whether every kind was read once.
    pub(super) fn is_whole(&self) -> bool {
        self.listed.len() == WatchedKind::ALL.len()
    }

    pub(super) fn networks(&self) -> PodNetworks {
        if self.stated.is_empty() {
            return PodNetworks::of(&self.objects.nodes, &self.service_cidrs);
        }
        PodNetworks {
            known: self.stated.clone(),
            complete: true,
        }
    }

    pub(super) fn facts(&mut self) -> Facts {
        let networks = self.networks();
        let (facts, problems) = directory::facts(&self.objects, &self.trust_domain, &networks);
        self.problems = problems;
        facts
    }

    pub(super) fn namespaces(&self) -> Namespaces {
        let namespaces = self.namespaces.iter();
        Namespaces(
            namespaces
                .map(|(name, (namespace, _))| (name.name.clone(), *namespace))
                .collect(),
        )
    }

    /// What is wrong with objects, policies apart.
    pub(super) fn problems(&self) -> Vec<String> {
        let namespaces = self.namespaces.values();
        let of_namespaces = namespaces.filter_map(|(_, problem)| problem.clone());
        self.problems.iter().cloned().chain(of_namespaces).collect()
    }

    /// Why not everything is followed, in words.
    pub(super) fn troubles(&self) -> Vec<String> {
        let mut texts = Vec::new();
        let mut away = Vec::new();
        for (kind, trouble) in &self.troubles {
            match &trouble.reason {
                Reason::Away(error) => away.push((kind.plural(), error)),
                Reason::Forbidden => texts.push(forbidden(*kind)),
                Reason::NoSuchKind => texts.push(format!(
                    "the API server has no {} of {:?}: apply what `mesh-lite install` prints",
                    kind.plural(),
                    kind.group_and_version()
                )),
            }
        }
        if let Some((_, error)) = away.first() {
            let kinds: Vec<&str> = away.iter().map(|(kind, _)| *kind).collect();
            let served = if self.is_whole() {
                "what is known is served; what is new is not known"
            } else {
                "nothing is served before they are known"
            };
            // what an error says may differ at each attempt, and would be logged anew
            tracing::debug!(error, "the API server is away");
            texts.push(format!(
                "the API server does not answer for {}: {served}",
                kinds.join(", ")
            ));
        }
        texts
    }

    /// For how long objects of the kind have not been followed.
    pub(super) fn stale_for(&self, kind: WatchedKind, now: Instant) -> Duration {
        self.troubles.get(&kind).map_or(Duration::ZERO, |trouble| {
            now.saturating_duration_since(trouble.since)
        })
    }

    pub(super) fn counts(&self) -> String {
        format!(
            "{} pods, {} services, {} endpoint slices, {} nodes, {} namespaces, {} policies",
            self.objects.pods.len(),
            self.objects.services.len(),
            self.objects.slices.len(),
            self.objects.nodes.len(),
            self.namespaces.len(),
            self.policies.len()
        )
    }
}

const EVERYTHING: Changed = Changed {
    directory: true,
    networks: true,
    namespaces: true,
    policies: true,
    evictions: true,
    verdicts: true,
};

/// Answers whether anything is different now.
fn apply<T: PartialEq>(
    known: &mut BTreeMap<ObjectName, T>,
    change: Change<Object>,
    of_kind: impl Fn(Object) -> Option<T>,
) -> bool {
    match change {
        Change::All(all) => {
            let all = all.into_iter();
            let all = all.filter_map(|(name, object)| Some((name, of_kind(object)?)));
            let all: BTreeMap<ObjectName, T> = all.collect();
            let different = *known != all;
            *known = all;
            different
        }
        Change::Put(name, object) => of_kind(object).is_some_and(|object| {
            let different = known.get(&name) != Some(&object);
            known.insert(name, object);
            different
        }),
        Change::Gone(name) => known.remove(&name).is_some(),
    }
}

fn forbidden(kind: WatchedKind) -> String {
    let (group, plural) = (kind.group_and_version().0, kind.plural());
    let group = if group.is_empty() {
        "\"\"".to_owned()
    } else {
        group.to_owned()
    };
    format!(
        "the API server does not let the control plane list and watch {plural}: its ClusterRole needs the rule \
         apiGroups [{group}], resources [{plural}], verbs [list, watch]; apply what `mesh-lite install` prints"
    )
}
