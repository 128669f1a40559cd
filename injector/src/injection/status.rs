//! What injection wrote on a pod about itself: read again to take it away exactly.

use mesh_lite_proto::kubernetes::STATUS_ANNOTATION;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{injection_decision::SkipReason, pod_shape::annotation};

/// The annotation, JSON. Nobody is believed because of it: what it names is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    pub(crate) version: String,
    /// Why the pod stays out of the mesh. Then nothing else is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) skipped: Option<String>,
    /// `transparent` or `explicit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capture: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) containers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) volumes: Vec<String>,
    /// Kernel settings that are ours.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) sysctls: Vec<String>,
    /// Maps and lists that were not there before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) made: Vec<String>,
    /// Maps and lists that were null before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) filled: Vec<String>,
}

impl Status {
    pub(crate) fn skipped(version: &str, reason: SkipReason) -> Self {
        Self {
            version: version.to_owned(),
            skipped: Some(reason.as_str().to_owned()),
            ..Self::default()
        }
    }

    /// What stands on a pod. `None` also for what can't be read: then nothing is ours.
    pub(crate) fn of(pod: &Value) -> Option<Self> {
        serde_json::from_str(annotation(pod, STATUS_ANNOTATION)?).ok()
    }

    pub(crate) fn into_text(self) -> String {
        serde_json::to_value(self)
            .map(|value| value.to_string())
            .unwrap_or_default()
    }
}
