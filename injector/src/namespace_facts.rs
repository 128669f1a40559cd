//! What the injector knows of a pod's namespace.

use std::collections::BTreeMap;

use mesh_lite_proto::kubernetes::{
    CONFIG_ANNOTATION_PREFIX, INJECT_DISABLED, INJECT_ENABLED, INJECT_LABEL,
};

/// Label by which Pod Security refuses pods of a namespace.
pub const POD_SECURITY_LABEL: &str = "pod-security.kubernetes.io/enforce";
/// Label by which Istio captures a namespace's pods without a sidecar.
pub const AMBIENT_LABEL: &str = "istio.io/dataplane-mode";

/// The labels and annotations of one namespace that decide about its pods; others are not kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespaceFacts {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// What the namespace's label says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    Enabled,
    Disabled,
    /// No label, or none that we know.
    Absent,
}

/// What Pod Security enforces in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodSecurity {
    /// Everything is allowed; also without a label.
    Privileged,
    Baseline,
    /// Also any level that we don't know: it may be as strict.
    Restricted,
}

impl NamespaceFacts {
    /// Of any iterators of the labels and annotations of a namespace.
    pub fn new<'a>(
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Self {
            labels: labels
                .into_iter()
                .filter(|(key, _)| [INJECT_LABEL, POD_SECURITY_LABEL, AMBIENT_LABEL].contains(key))
                .map(own)
                .collect(),
            annotations: annotations
                .into_iter()
                .filter(|(key, _)| key.starts_with(CONFIG_ANNOTATION_PREFIX))
                .map(own)
                .collect(),
        }
    }

    #[must_use]
    pub fn switch(&self) -> Switch {
        match self.labels.get(INJECT_LABEL).map(String::as_str) {
            Some(INJECT_ENABLED) => Switch::Enabled,
            Some(INJECT_DISABLED) => Switch::Disabled,
            _ => Switch::Absent,
        }
    }

    #[must_use]
    pub fn pod_security(&self) -> PodSecurity {
        match self.labels.get(POD_SECURITY_LABEL).map(String::as_str) {
            None | Some("privileged") => PodSecurity::Privileged,
            Some("baseline") => PodSecurity::Baseline,
            Some(_) => PodSecurity::Restricted,
        }
    }

    /// Whether Istio captures pods here that do not say otherwise.
    #[must_use]
    pub fn is_ambient(&self) -> bool {
        self.labels
            .get(AMBIENT_LABEL)
            .is_some_and(|mode| mode == "ambient")
    }

    /// Those under our prefix.
    #[must_use]
    pub const fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }
}
