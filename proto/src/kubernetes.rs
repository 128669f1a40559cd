//! Names that the roles share inside a Kubernetes cluster: labels, annotations, objects, and what
//! the injector puts where in a pod.

/// On a namespace or a pod: [`INJECT_ENABLED`] or [`INJECT_DISABLED`]. The pod's wins.
pub const INJECT_LABEL: &str = "mesh-lite.io/inject";
pub const INJECT_ENABLED: &str = "enabled";
pub const INJECT_DISABLED: &str = "disabled";
/// `"true"` on every injected pod, for selectors of NetworkPolicies and of people.
pub const MESHED_LABEL: &str = "mesh-lite.io/meshed";
/// What the injector did, JSON.
pub const STATUS_ANNOTATION: &str = "mesh-lite.io/status";
/// The version that injected the pod.
pub const VERSION_ANNOTATION: &str = "mesh-lite.io/version";
/// Settings of one pod, or of all pods of a namespace.
pub const CONFIG_ANNOTATION_PREFIX: &str = "config.mesh-lite.io/";
/// On a Namespace only, `refuse` or `allow`: plaintext from its meshed pods to workloads inside the
/// mesh's networks that have no sidecar.
pub const OUTBOUND_UNMESHED_ANNOTATION: &str = "config.mesh-lite.io/outbound-unmeshed";

/// A pod whose spec has it is meshed.
pub const PROXY_CONTAINER: &str = "mesh-lite-proxy";
pub const REDIRECT_CONTAINER: &str = "mesh-lite-redirect";

pub const STATE_VOLUME: &str = "mesh-lite-state";
pub const TOKEN_VOLUME: &str = "mesh-lite-token";
pub const TRUST_BUNDLE_VOLUME: &str = "mesh-lite-trust-bundle";
/// Mounted where the application's API token would be.
pub const NO_API_TOKEN_VOLUME: &str = "mesh-lite-no-api-token";
/// Key, certificate and trust bundle as files, for the containers that ask for them.
pub const FILES_VOLUME: &str = "mesh-lite-files";

pub const STATE_DIR: &str = "/var/run/mesh-lite/state";
pub const TOKEN_DIR: &str = "/var/run/mesh-lite/token";
/// In [`TOKEN_DIR`].
pub const TOKEN_FILE: &str = "token";
pub const TRUST_BUNDLE_DIR: &str = "/var/run/mesh-lite/trust-bundle";
/// Where the kubelet mounts the application's API token.
pub const API_TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
pub const FILES_DIR: &str = "/var/run/secrets/mesh-lite.io/files";

/// Of the projected service-account token that attests a pod.
pub const TOKEN_AUDIENCE: &str = "mesh-lite";
/// Seconds. The kubelet renews it at 80 %; the API server takes no less than 600.
pub const TOKEN_LIFETIME: u32 = 3600;

/// ConfigMap in the mesh's namespace and in every labelled one.
pub const TRUST_BUNDLE_CONFIG_MAP: &str = "mesh-lite-trust-bundle";
/// Its key, and the file in [`TRUST_BUNDLE_DIR`].
pub const TRUST_BUNDLE_KEY: &str = "trust-bundle.pem";
/// Secret that only [`ROOT_SERVICE_ACCOUNT`] may read.
pub const ROOT_SECRET: &str = "mesh-lite-root";
pub const ISSUING_CA_SECRET: &str = "mesh-lite-issuing-ca";
/// Key and certificates of the webhook, shared by the injector's replicas.
pub const INJECTOR_SERVING_SECRET: &str = "mesh-lite-injector-serving";

pub const ROOT_SERVICE_ACCOUNT: &str = "mesh-lite-root";
pub const INJECTOR_SERVICE_ACCOUNT: &str = "mesh-lite-injector";
/// Service of the control plane, and its Deployment.
pub const CONTROL_PLANE_SERVICE: &str = "mesh-lite-control-plane";
/// Service of the injector, its Deployment, and the MutatingWebhookConfiguration.
pub const INJECTOR_SERVICE: &str = "mesh-lite-injector";
/// Of the webhook that namespaces switch on by their label; at least three parts (Kubernetes).
pub const NAMESPACE_WEBHOOK: &str = "namespaces.inject.mesh-lite.io";
/// Of the webhook that pods in unlabelled namespaces switch on by theirs.
pub const POD_WEBHOOK: &str = "pods.inject.mesh-lite.io";
/// Held by the replica of the control plane that does what only one should.
pub const CONTROL_PLANE_LEASE: &str = "mesh-lite-control-plane";

/// Group of our custom resources; their version is [`API_VERSION`].
pub const API_GROUP: &str = "mesh-lite.io";
pub const API_VERSION: &str = "v1";
/// Of CertificateSigningRequests and ClusterTrustBundles.
pub const SIGNER: &str = "mesh-lite.io/spiffe";
