//! Which versions of documents are taken: mesh-lite's own, and Istio's if that was asked for.

use std::sync::Arc;

use super::{API_VERSION, Documents, RefusalClass, split_as};

const ISTIO_GROUP: &str = "security.istio.io";
const ISTIO_VERSIONS: [&str; 2] = ["security.istio.io/v1", "security.istio.io/v1beta1"];

/// The versions of documents that are taken. A value that is handed down to wherever documents are
/// read; by default Istio's are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dialect {
    /// `None`: Istio's documents are not taken.
    istio_root_namespace: Option<Arc<str>>,
}

/// Who defines a document's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ApiGroup {
    Ours,
    Istio,
    Other,
}

/// Why a version is not taken.
pub(super) struct RefusedVersion {
    pub(super) class: RefusalClass,
    pub(super) problem: String,
    pub(super) remedy: String,
}

impl Dialect {
    /// Documents of mesh-lite, and of Istio as they are. Istio's documents in its root namespace are
    /// for the whole mesh, as they are there.
    #[must_use]
    pub fn with_istio(root_namespace: &str) -> Self {
        Self {
            istio_root_namespace: Some(root_namespace.into()),
        }
    }

    /// Istio's own, or of mesh-lite alone.
    #[must_use]
    pub fn of_setting(istio_root_namespace: Option<&str>) -> Self {
        istio_root_namespace.map_or_else(Self::default, Self::with_istio)
    }

    /// Splits a file into its documents. `file` is its name as messages shall show it.
    #[must_use]
    pub fn split(&self, file: &str, bytes: &[u8]) -> Documents {
        split_as(file, bytes, self)
    }

    pub(super) fn is_istios_root(&self, namespace: &str) -> bool {
        self.istio_root_namespace.as_deref() == Some(namespace)
    }

    pub(super) fn takes(&self, version: &str) -> Result<(), RefusedVersion> {
        let istios = ISTIO_VERSIONS.contains(&version);
        if version == API_VERSION || (istios && self.istio_root_namespace.is_some()) {
            return Ok(());
        }
        let ours = format!("write apiVersion: {API_VERSION}");
        Err(if istios {
            RefusedVersion {
                class: RefusalClass::IstioApiVersion,
                problem: format!("apiVersion {version:?} is Istio's"),
                remedy: format!(
                    "{ours}, or have Istio's documents taken as they are: \
                     --istio-root-namespace istio-system"
                ),
            }
        } else {
            let problem = format!("apiVersion {version:?} is not one of mesh-lite's");
            RefusedVersion {
                class: RefusalClass::UnknownApiVersion,
                problem,
                remedy: ours,
            }
        })
    }
}

impl ApiGroup {
    pub(super) fn of(version: &str) -> Self {
        let group = |version: &str| version.split('/').next().map(str::to_owned);
        match group(version) {
            Some(own) if group(API_VERSION).is_some_and(|ours| ours == own) => Self::Ours,
            Some(istio) if istio == ISTIO_GROUP => Self::Istio,
            _ => Self::Other,
        }
    }
}
