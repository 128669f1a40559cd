//! The kinds that the scripted API server knows.

use serde_json::{Value, json};

/// One row of an API server's discovery documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
    /// Whether status is a subresource: writes of the object leave it alone, and the reverse.
    pub status: bool,
}

impl Kind {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    fn of(row: &Row) -> Self {
        let (group, version, plural, kind, namespaced, status) = *row;
        Self {
            group,
            version,
            plural,
            kind,
            namespaced,
            status,
        }
    }
}

type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    bool,
    bool,
);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("", "v1", "pods", "Pod", true, true),
    ("", "v1", "services", "Service", true, true),
    ("", "v1", "nodes", "Node", false, true),
    ("", "v1", "namespaces", "Namespace", false, true),
    ("", "v1", "configmaps", "ConfigMap", true, false),
    ("", "v1", "secrets", "Secret", true, false),
    ("", "v1", "serviceaccounts", "ServiceAccount", true, false),
    ("", "v1", "events", "Event", true, false),
    ("events.k8s.io", "v1", "events", "Event", true, false),
    ("", "v1", "replicationcontrollers", "ReplicationController", true, true),
    ("apps", "v1", "deployments", "Deployment", true, true),
    ("apps", "v1", "replicasets", "ReplicaSet", true, true),
    ("apps", "v1", "statefulsets", "StatefulSet", true, true),
    ("apps", "v1", "daemonsets", "DaemonSet", true, true),
    ("batch", "v1", "jobs", "Job", true, true),
    ("batch", "v1", "cronjobs", "CronJob", true, true),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true, false),
    ("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", false, true),
    ("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", true, false),
    ("networking.k8s.io", "v1", "ingresses", "Ingress", true, true),
    ("coordination.k8s.io", "v1", "leases", "Lease", true, false),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true, true),
    ("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", false, true),
    ("certificates.k8s.io", "v1beta1", "clustertrustbundles", "ClusterTrustBundle", false, false),
    ("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", false, false),
    ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", false, false),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", false, true),
    ("apiregistration.k8s.io", "v1", "apiservices", "APIService", false, true),
    ("rbac.authorization.k8s.io", "v1", "roles", "Role", true, false),
    ("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", true, false),
    ("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", false, false),
    ("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", false, false),
    ("mesh-lite.io", "v1", "authorizationpolicies", "AuthorizationPolicy", true, true),
    ("mesh-lite.io", "v1", "peerauthentications", "PeerAuthentication", true, true),
    ("mesh-lite.io", "v1", "evictions", "Eviction", true, true),
];

/// Asked, never stored: an answer is made for each request.
#[rustfmt::skip]
const REVIEWS: &[Row] = &[
    ("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", false, false),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", false, false),
];

pub(super) fn all() -> Vec<Kind> {
    ROWS.iter().map(Kind::of).collect()
}

/// The row of an object, by its apiVersion and kind.
pub(super) fn of_object(object: &Value) -> Kind {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or_default();
    all()
        .into_iter()
        .find(|row| row.kind == kind && row.api_version() == api_version)
        .unwrap_or_else(|| panic!("the scripted API server has no {api_version} {kind}"))
}

/// `/api` and `/apis` and what is under them, without kinds whose plural is in `unserved`.
pub(super) fn discovery(path: &[&str], unserved: &[String]) -> Option<Value> {
    let served: Vec<Kind> = ROWS
        .iter()
        .chain(REVIEWS)
        .map(Kind::of)
        .filter(|kind| !unserved.iter().any(|plural| plural == kind.plural))
        .collect();
    let group = |name: &str| {
        let mut versions: Vec<Value> = Vec::new();
        for kind in served.iter().filter(|kind| kind.group == name) {
            let version = json!({"groupVersion": kind.api_version(), "version": kind.version});
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
        let preferred = versions.first()?.clone();
        Some(json!({"kind": "APIGroup", "apiVersion": "v1", "name": name,
            "versions": versions, "preferredVersion": preferred}))
    };
    let resources = |api_version: String| {
        let rows: Vec<Value> = served
            .iter()
            .filter(|kind| kind.api_version() == api_version)
            .flat_map(rows_of)
            .collect();
        (!rows.is_empty()).then(|| {
            json!({"kind": "APIResourceList", "apiVersion": "v1",
                "groupVersion": api_version, "resources": rows})
        })
    };
    match path {
        ["api"] => Some(json!({"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"]})),
        ["api", "v1"] => resources("v1".to_owned()),
        ["apis"] => {
            let mut names: Vec<&str> = served.iter().map(|kind| kind.group).collect();
            names.sort_unstable();
            names.dedup();
            let groups: Vec<Value> = names
                .into_iter()
                .filter(|name| !name.is_empty())
                .filter_map(group)
                .collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] => group(name),
        ["apis", name, version] => resources(format!("{name}/{version}")),
        _ => None,
    }
}

fn rows_of(kind: &Kind) -> Vec<Value> {
    let review = REVIEWS.iter().any(|row| row.2 == kind.plural);
    let verbs = if review {
        json!(["create"])
    } else {
        json!([
            "create", "delete", "get", "list", "patch", "update", "watch"
        ])
    };
    let row = |name: String, verbs: Value| {
        json!({"name": name, "singularName": kind.kind.to_lowercase(),
            "namespaced": kind.namespaced, "kind": kind.kind, "verbs": verbs})
    };
    let mut rows = vec![row(kind.plural.to_owned(), verbs)];
    if kind.status {
        rows.push(row(
            format!("{}/status", kind.plural),
            json!(["get", "patch", "update"]),
        ));
    }
    rows
}
