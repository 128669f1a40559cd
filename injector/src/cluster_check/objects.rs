//! What is read of a cluster, by the rights of whoever asks.

use std::collections::BTreeMap;

use kube::Client;
use mesh_lite_proto::kubernetes::{
    API_GROUP, API_VERSION, CONTROL_PLANE_SERVICE, INJECTOR_SERVICE, TRUST_BUNDLE_CONFIG_MAP,
};
use serde_json::Value;

/// Of one answer; the API server's own tools ask for as many.
const PAGE: usize = 500;
/// Of one kind: more would not be a list that a person reads findings of.
const MAX_OBJECTS: usize = 20_000;

/// What a list is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ServerVersion,
    /// Text of the control plane's `/readyz`, through the API server.
    ControlPlaneReadiness,
    CustomResourceDefinitions,
    MutatingWebhooks,
    ValidatingWebhooks,
    ApiServices,
    Namespaces,
    Deployments,
    StatefulSets,
    DaemonSets,
    ReplicaSets,
    Jobs,
    CronJobs,
    EndpointSlices,
    TrustBundles,
    AuthorizationPolicies,
    PeerAuthentications,
    Evictions,
    NetworkPolicies,
    Services,
    Pods,
    /// The injector's Deployment, when a namespace is asked about; `Deployments` are that namespace's.
    Injector,
}

/// What was read, kind by kind.
#[derive(Debug, Clone, Default)]
pub struct Objects(BTreeMap<Kind, Result<Vec<Value>, String>>);

impl Objects {
    /// What there is of a kind; nothing, if it was not read.
    pub fn of(&self, kind: Kind) -> &[Value] {
        match self.0.get(&kind) {
            Some(Ok(objects)) => objects,
            _ => &[],
        }
    }

    /// Whether absence from [`Self::of`] means absence from the cluster.
    pub fn is_known(&self, kind: Kind) -> bool {
        matches!(self.0.get(&kind), Some(Ok(_)))
    }

    pub fn put(&mut self, kind: Kind, found: Result<Vec<Value>, String>) {
        self.0.insert(kind, found);
    }

    /// What could not be read, and why.
    pub fn unreadable(&self) -> impl Iterator<Item = (String, &str)> {
        self.0.iter().filter_map(|(kind, found)| {
            let why = found.as_ref().err()?;
            Some((format!("{kind:?}"), why.as_str()))
        })
    }
}

/// What is asked, and what of a cluster `check` and `status` want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question<'a> {
    /// The whole mesh, whose own objects are in this namespace.
    Mesh(&'a str),
    Namespace {
        name: &'a str,
        mesh: &'a str,
    },
}

type Paths = Vec<(Kind, String)>;

impl Question<'_> {
    fn paths(self) -> Paths {
        match self {
            Self::Mesh(mesh) => paths_of_mesh(mesh),
            Self::Namespace { name, mesh } => paths_of_namespace(name, mesh),
        }
    }
}

const VERSION: &str = "/version";
const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";

fn paths_of_mesh(mesh: &str) -> Paths {
    let ours = format!("/apis/{API_GROUP}/{API_VERSION}");
    [
        (Kind::ServerVersion, VERSION.to_owned()),
        (Kind::Namespaces, "/api/v1/namespaces".to_owned()),
        (
            Kind::MutatingWebhooks,
            format!("{REGISTRATION}/mutatingwebhookconfigurations"),
        ),
        (
            Kind::ControlPlaneReadiness,
            format!(
                "/api/v1/namespaces/{mesh}/services/{CONTROL_PLANE_SERVICE}:metrics/proxy/readyz"
            ),
        ),
        (
            Kind::CustomResourceDefinitions,
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions".to_owned(),
        ),
        (
            Kind::Deployments,
            format!("/apis/apps/v1/namespaces/{mesh}/deployments"),
        ),
        (
            Kind::EndpointSlices,
            format!("/apis/discovery.k8s.io/v1/namespaces/{mesh}/endpointslices"),
        ),
        (
            Kind::TrustBundles,
            format!("/api/v1/configmaps?{}", only(TRUST_BUNDLE_CONFIG_MAP)),
        ),
        (
            Kind::AuthorizationPolicies,
            format!("{ours}/authorizationpolicies"),
        ),
        (
            Kind::PeerAuthentications,
            format!("{ours}/peerauthentications"),
        ),
        (Kind::Evictions, format!("{ours}/evictions")),
        (Kind::Pods, "/api/v1/pods".to_owned()),
    ]
    .into()
}

fn paths_of_namespace(name: &str, mesh: &str) -> Paths {
    let core = format!("/api/v1/namespaces/{name}");
    let apps = format!("/apis/apps/v1/namespaces/{name}");
    let batch = format!("/apis/batch/v1/namespaces/{name}");
    let ours = format!("/apis/{API_GROUP}/{API_VERSION}/namespaces/{name}");
    let injector = only(INJECTOR_SERVICE);
    [
        (Kind::ServerVersion, VERSION.to_owned()),
        (
            Kind::Injector,
            format!("/apis/apps/v1/namespaces/{mesh}/deployments?{injector}"),
        ),
        (
            Kind::MutatingWebhooks,
            format!("{REGISTRATION}/mutatingwebhookconfigurations"),
        ),
        (
            Kind::Namespaces,
            format!("/api/v1/namespaces?{}", only(name)),
        ),
        (
            Kind::ValidatingWebhooks,
            format!("{REGISTRATION}/validatingwebhookconfigurations"),
        ),
        (
            Kind::ApiServices,
            "/apis/apiregistration.k8s.io/v1/apiservices".to_owned(),
        ),
        (
            Kind::NetworkPolicies,
            format!("/apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies"),
        ),
        (Kind::Services, format!("{core}/services")),
        (Kind::Pods, format!("{core}/pods")),
        (
            Kind::AuthorizationPolicies,
            format!("{ours}/authorizationpolicies"),
        ),
        (
            Kind::PeerAuthentications,
            format!("{ours}/peerauthentications"),
        ),
        (Kind::Deployments, format!("{apps}/deployments")),
        (Kind::StatefulSets, format!("{apps}/statefulsets")),
        (Kind::DaemonSets, format!("{apps}/daemonsets")),
        (Kind::ReplicaSets, format!("{apps}/replicasets")),
        (Kind::Jobs, format!("{batch}/jobs")),
        (Kind::CronJobs, format!("{batch}/cronjobs")),
    ]
    .into()
}

/// Of a list, what has this name.
fn only(name: &str) -> String {
    format!("fieldSelector=metadata.name%3D{name}")
}

/// Reads what the question needs.
///
/// # Errors
/// If the API server can't be reached at all, or does not know who asks. What only a single kind
/// lacks is in the answer.
pub async fn read(client: &Client, question: Question<'_>) -> Result<Objects, kube::Error> {
    let mut objects = Objects::default();
    for (kind, path) in question.paths() {
        let found = match kind {
            Kind::ServerVersion => one(client, &path).await.map(|version| vec![version]),
            Kind::ControlPlaneReadiness => plain(client, &path)
                .await
                .map(|text| vec![Value::from(text)]),
            _ => all(client, &path).await,
        };
        match found {
            Ok(found) => objects.put(kind, Ok(found)),
            Err(Unread::Nothing) => objects.put(kind, Ok(Vec::new())),
            Err(Unread::Refused(why)) => objects.put(kind, Err(why)),
            Err(Unread::Unreachable(error)) => return Err(error),
        }
    }
    Ok(objects)
}

enum Unread {
    /// There is no such kind, or no such object.
    Nothing,
    Refused(String),
    Unreachable(kube::Error),
}

impl From<kube::Error> for Unread {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 404 => Self::Nothing,
            kube::Error::Api(status) if status.code == 401 => {
                Self::Unreachable(kube::Error::Api(status))
            }
            kube::Error::Api(status) => Self::Refused(status.message.clone()),
            other => Self::Unreachable(other),
        }
    }
}

fn request(path: &str) -> Result<http::Request<Vec<u8>>, Unread> {
    let request = http::Request::get(path).body(Vec::new());
    request.map_err(|error| Unread::Refused(error.to_string()))
}

async fn one(client: &Client, path: &str) -> Result<Value, Unread> {
    Ok(client.request(request(path)?).await?)
}

async fn plain(client: &Client, path: &str) -> Result<String, Unread> {
    Ok(client.request_text(request(path)?).await?)
}

async fn all(client: &Client, path: &str) -> Result<Vec<Value>, Unread> {
    let sign = if path.contains('?') { '&' } else { '?' };
    let mut objects = Vec::new();
    let mut next = String::new();
    loop {
        let page = one(client, &format!("{path}{sign}limit={PAGE}{next}")).await?;
        let items = page.get("items").and_then(Value::as_array);
        let items = items.ok_or_else(|| Unread::Refused("the answer is no list".to_owned()))?;
        objects.extend(items.iter().cloned().map(without_history));
        if objects.len() > MAX_OBJECTS {
            let why = format!("there are more than {MAX_OBJECTS}");
            return Err(Unread::Refused(why));
        }
        match page.pointer("/metadata/continue").and_then(Value::as_str) {
            Some(token) if !token.is_empty() => {
                let token = token
                    .replace('%', "%25")
                    .replace('+', "%2B")
                    .replace('=', "%3D");
                next = format!("&continue={token}");
            }
            _ => return Ok(objects),
        }
    }
}

fn without_history(mut object: Value) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

/// Names of Deployments that the mesh consists of.
pub const DEPLOYMENTS: [&str; 2] = [CONTROL_PLANE_SERVICE, INJECTOR_SERVICE];
