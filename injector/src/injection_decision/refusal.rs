//! Why a pod must not be made like this, in the words that `kubectl apply` shows.

use std::fmt;

use mesh_lite_proto::{
    kubernetes::{CONFIG_ANNOTATION_PREFIX, INJECT_DISABLED, INJECT_ENABLED, INJECT_LABEL},
    sidecar::SIDECAR_UID,
};

/// Characters of somebody's value that a message repeats.
const MAX_QUOTED: usize = 80;

/// Where an annotation is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Pod,
    Namespace(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod => f.write_str("of the pod"),
            Self::Namespace(name) => write!(f, "of namespace {}", Quoted(name)),
        }
    }
}

/// Closed: each names what, where, why and what to do, and is counted by its [`Refusal::label`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    #[error("{} is not {}, as in a pod: correct it", shown(.place), expected)]
    Shape {
        /// As in `spec.containers[0].name`.
        place: String,
        expected: &'static str,
    },
    #[error("annotation {CONFIG_ANNOTATION_PREFIX}{} {place}: {}: {why}", shown(.key), Quoted(.value))]
    Annotation {
        place: Place,
        key: String,
        value: String,
        why: String,
    },
    #[error(
        "label {INJECT_LABEL}: {} of the pod is neither {INJECT_ENABLED} nor {INJECT_DISABLED}: write one of them",
        Quoted(.0)
    )]
    InjectLabel(String),
    #[error(
        "annotation {INJECT_LABEL}: {} of the pod decides nothing, only a label of that name does: write \
         {INJECT_LABEL}: {INJECT_DISABLED} under labels to keep the pod out of the mesh, or remove the annotation",
        Quoted(.0)
    )]
    InjectAnnotation(String),
    #[error(
        "label {INJECT_LABEL}: {INJECT_ENABLED} on a pod with hostNetwork: true: capture would change the network \
         of the node; remove hostNetwork, or the label"
    )]
    HostNetwork,
    #[error(
        "annotation kubernetes.io/config.mirror on a pod that no kubelet asks for: remove it, or the pod would be \
         neither run nor in the mesh"
    )]
    SpoofedMirror,
    #[error(
        "{} runs as user {SIDECAR_UID}, which is the sidecar's: its connections would not be captured; give it \
         another runAsUser",
        of_container(.container.as_deref())
    )]
    SidecarUid { container: Option<String> },
    #[error(
        "container {} declares port {port}, which is the sidecar's: let the application listen on another one",
        Quoted(.container)
    )]
    SidecarPort { container: String, port: i64 },
    #[error(
        "the pod is already in {mesh} ({}): two meshes can't capture the same connections; take it out of one of \
         them (label {INJECT_LABEL}: {INJECT_DISABLED} for this one)",
        shown(.sign)
    )]
    OtherMesh { mesh: &'static str, sign: String },
    #[error("{what} {} has a name that is kept for the mesh, and is not the mesh's: rename it", Quoted(.name))]
    ReservedName { what: &'static str, name: String },
    #[error(
        "container {} mounts volume {}, which holds what only the sidecar may read: remove the mount (for key and \
         certificate as files: annotation {CONFIG_ANNOTATION_PREFIX}files)",
        Quoted(.container), Quoted(.volume)
    )]
    ReservedMount { container: String, volume: String },
    #[error(
        "namespace {} enforces Pod Security level {level}, which forbids NET_ADMIN, and capture needs it: label the \
         namespace pod-security.kubernetes.io/enforce=privileged, or annotate it \
         {CONFIG_ANNOTATION_PREFIX}capture=explicit, which needs no capability (pods then name their ports in inbound-ports, and what they dial \
         on local ports in upstreams, both under {CONFIG_ANNOTATION_PREFIX})",
        Quoted(.namespace)
    )]
    PodSecurity {
        namespace: String,
        level: &'static str,
    },
    /// A probe that can't be asked through the sidecar.
    #[error("{}", shown(.0))]
    Probe(String),
    /// A bug of ours: nothing is sent that was not seen to work.
    #[error("the injector could not make its patch ({}): report this; the pod is not made", shown(.0))]
    Patch(String),
}

impl Refusal {
    /// For metrics: one of few.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Shape { .. } => "shape",
            Self::Annotation { .. } => "annotation",
            Self::InjectLabel(_) => "inject-label",
            Self::InjectAnnotation(_) => "inject-annotation",
            Self::HostNetwork => "host-network",
            Self::SpoofedMirror => "spoofed-mirror",
            Self::SidecarUid { .. } => "sidecar-uid",
            Self::SidecarPort { .. } => "sidecar-port",
            Self::OtherMesh { .. } => "other-mesh",
            Self::ReservedName { .. } => "reserved-name",
            Self::ReservedMount { .. } => "reserved-mount",
            Self::PodSecurity { .. } => "pod-security",
            Self::Probe(_) => "probe",
            Self::Patch(_) => "patch",
        }
    }

    /// Every label, so that counters exist before they count.
    pub const LABELS: [&'static str; 14] = [
        "shape",
        "annotation",
        "inject-label",
        "inject-annotation",
        "host-network",
        "spoofed-mirror",
        "sidecar-uid",
        "sidecar-port",
        "other-mesh",
        "reserved-name",
        "reserved-mount",
        "pod-security",
        "probe",
        "patch",
    ];
}

/// Somebody's text in quotes: short, and without control characters.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", shown(self.0))
    }
}

/// Somebody's text: short, and without control characters.
pub(crate) fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let mut short: String = chars.by_ref().take(MAX_QUOTED).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    // quotes within quotes stay readable; everything that moves a cursor does not stay
    short
        .chars()
        .flat_map(|char| match char {
            '\'' => vec!['\''],
            other => other.escape_debug().collect(),
        })
        .collect()
}

fn of_container(container: Option<&str>) -> String {
    container.map_or_else(
        || "the pod (spec.securityContext)".to_owned(),
        |name| format!("container {}", Quoted(name)),
    )
}
