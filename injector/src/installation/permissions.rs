//! Service accounts and what each may do: no more than the code behind it asks for.

use mesh_lite_proto::{
    kubernetes::{
        API_GROUP, CONTROL_PLANE_LEASE, INJECTOR_SERVICE, INJECTOR_SERVICE_ACCOUNT,
        INJECTOR_SERVING_SECRET, ISSUING_CA_SECRET, ROOT_SECRET, ROOT_SERVICE_ACCOUNT, SIGNER,
        TRUST_BUNDLE_CONFIG_MAP,
    },
    sidecar::CONTROL_PLANE_SERVICE_ACCOUNT,
};
use serde_json::{Value, json};

use super::{
    choice::{Condition, Text, when},
    parts::{Part, labels},
};

/// One entry of a role. Without names: all objects of these kinds.
struct Rule {
    group: &'static str,
    resources: &'static [&'static str],
    names: &'static [&'static str],
    verbs: &'static [&'static str],
}

const fn rule(
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
) -> Rule {
    Rule {
        group,
        resources,
        names: &[],
        verbs,
    }
}

impl Rule {
    const fn named(mut self, names: &'static [&'static str]) -> Self {
        self.names = names;
        self
    }

    fn value(&self) -> Value {
        let mut value = json!({
            "apiGroups": [self.group],
            "resources": self.resources,
            "verbs": self.verbs,
        });
        if let (false, Some(fields)) = (self.names.is_empty(), value.as_object_mut()) {
            fields.insert("resourceNames".to_owned(), json!(self.names));
        }
        value
    }
}

const READ: &[&str] = &["get", "list", "watch"];
const FOLLOW: &[&str] = &["list", "watch"];

/// Everywhere: who is who, where they are, what policy says. It reads no Secret.
const CONTROL_PLANE: &[Rule] = &[
    rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
    rule("", &["namespaces", "nodes", "pods", "services"], FOLLOW),
    rule("discovery.k8s.io", &["endpointslices"], FOLLOW),
    rule("networking.k8s.io", &["servicecidrs"], FOLLOW),
    rule(
        API_GROUP,
        &["authorizationpolicies", "evictions", "peerauthentications"],
        FOLLOW,
    ),
    rule(
        API_GROUP,
        &[
            "authorizationpolicies/status",
            "evictions/status",
            "peerauthentications/status",
        ],
        &["patch"],
    ),
    // the trust bundle of each namespace; server-side apply asks for create by name as well
    rule("", &["configmaps"], &["create", "list", "patch", "watch"])
        .named(&[TRUST_BUNDLE_CONFIG_MAP]),
    rule(
        "certificates.k8s.io",
        &["certificatesigningrequests"],
        FOLLOW,
    ),
    rule(
        "certificates.k8s.io",
        &[
            "certificatesigningrequests/approval",
            "certificatesigningrequests/status",
        ],
        &["patch"],
    ),
    rule(
        "certificates.k8s.io",
        &["signers"],
        &["approve", "sign", "attest"],
    )
    .named(&[SIGNER]),
];

/// In the mesh's namespace.
const CONTROL_PLANE_HERE: &[Rule] = &[
    // whatever is created has no name yet
    rule("coordination.k8s.io", &["leases"], &["create"]),
    rule("coordination.k8s.io", &["leases"], &["get", "update"]).named(&[CONTROL_PLANE_LEASE]),
];

const INJECTOR: &[Rule] = &[
    rule("", &["namespaces"], READ),
    rule(
        "admissionregistration.k8s.io",
        &["mutatingwebhookconfigurations"],
        &["list", "watch", "patch"],
    )
    .named(&[INJECTOR_SERVICE]),
];

const INJECTOR_HERE: &[Rule] = &[
    rule("", &["secrets"], &["create"]),
    rule("", &["secrets"], &["get", "update"]).named(&[INJECTOR_SERVING_SECRET]),
];

const ROOT_HERE: &[Rule] = &[
    rule("", &["secrets"], &["create"]),
    rule("", &["secrets"], &["get"]).named(&[ROOT_SECRET]),
    rule("", &["secrets"], &["get", "patch"]).named(&[ISSUING_CA_SECRET]),
    rule("", &["configmaps"], &["create"]),
    rule("", &["configmaps"], &["get", "patch"]).named(&[TRUST_BUNDLE_CONFIG_MAP]),
];

pub(super) fn parts() -> Vec<Part> {
    let control_plane = CONTROL_PLANE_SERVICE_ACCOUNT;
    let injector = INJECTOR_SERVICE_ACCOUNT;
    let mut parts = vec![
        Part::always(
            "control-plane",
            service_account(control_plane, "control-plane"),
        ),
        Part::always(
            "control-plane",
            cluster_role(control_plane, "control-plane", cluster_rules()),
        ),
        Part::always(
            "control-plane",
            binding("ClusterRole", control_plane, "control-plane"),
        ),
        Part::always(
            "control-plane",
            role(control_plane, "control-plane", CONTROL_PLANE_HERE),
        ),
        Part::always(
            "control-plane",
            binding("Role", control_plane, "control-plane"),
        ),
        Part::always("injector", service_account(injector, "injector")),
        Part::always(
            "injector",
            cluster_role(injector, "injector", values(INJECTOR)),
        ),
        Part::always("injector", binding("ClusterRole", injector, "injector")),
        Part::always("injector", role(injector, "injector", INJECTOR_HERE)),
        Part::always("injector", binding("Role", injector, "injector")),
    ];
    let root = ROOT_SERVICE_ACCOUNT;
    let of_root = [
        service_account(root, "root"),
        role(root, "root", ROOT_HERE),
        binding("Role", root, "root"),
    ];
    parts.extend(of_root.map(|object| Part {
        file: "root",
        conditions: &[Condition::OwnRoot],
        object,
    }));
    parts
}

fn values(rules: &[Rule]) -> Vec<Value> {
    rules.iter().map(Rule::value).collect()
}

/// The cluster's own object of the trust bundle has the trust domain in its name.
fn cluster_rules() -> Vec<Value> {
    let mut rules = values(CONTROL_PLANE);
    rules.push(json!({
        "apiGroups": ["certificates.k8s.io"],
        "resources": ["clustertrustbundles"],
        "resourceNames": [format!("{}:{}", SIGNER.replace('/', ":"), Text::TrustDomain)],
        "verbs": ["create", "get", "patch"],
    }));
    // with which tokens are judged while the API server can't be asked to
    rules.push(json!({
        "nonResourceURLs": ["/.well-known/openid-configuration", "/openid/v1/jwks"],
        "verbs": ["get"],
    }));
    rules
}

fn service_account(name: &str, component: &str) -> Value {
    let secret = json!([{"name": Text::ImagePullSecret.placeholder()}]);
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(name, component),
        "imagePullSecrets": when(Condition::ImagePullSecret, secret),
    })
}

fn cluster_role(name: &str, component: &str, rules: Vec<Value>) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name, "labels": labels(component)},
        "rules": rules,
    })
}

fn role(name: &str, component: &str, rules: &[Rule]) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": metadata(name, component),
        "rules": values(rules),
    })
}

fn binding(role_kind: &str, name: &str, component: &str) -> Value {
    let cluster_wide = role_kind == "ClusterRole";
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": if cluster_wide { "ClusterRoleBinding" } else { "RoleBinding" },
        "metadata": if cluster_wide {
            json!({"name": name, "labels": labels(component)})
        } else {
            metadata(name, component)
        },
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": role_kind,
            "name": name,
        },
        "subjects": [{
            "kind": "ServiceAccount",
            "name": name,
            "namespace": Text::MeshNamespace.placeholder(),
        }],
    })
}

/// Of an object in the mesh's namespace.
pub(super) fn metadata(name: &str, component: &str) -> Value {
    json!({
        "name": name,
        "namespace": Text::MeshNamespace.placeholder(),
        "labels": labels(component),
    })
}
