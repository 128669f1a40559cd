//! Policies that would be for a whole mesh elsewhere, and are for one namespace here.

use mesh_lite_proto::{
    authorization::SourceRef,
    document::{DocumentKey, Kind},
};

use super::PolicyIndex;

/// What is in it is for the whole mesh in Istio, unless that was told otherwise.
const ISTIOS_ROOT: &str = "istio-system";

impl PolicyIndex {
    /// Policies in the root namespace of Istio that are for workloads of that namespace alone: its
    /// documents whose apiVersion was changed, and that were left where they are.
    pub fn not_mesh_wide(&self) -> impl Iterator<Item = (&DocumentKey, &SourceRef)> {
        let is_root = |namespace: &str| {
            namespace == ISTIOS_ROOT || self.mesh_namespaces.iter().any(|one| **one == *namespace)
        };
        let held = self.documents.iter().filter(move |(key, held)| {
            matches!(
                key.kind,
                Kind::AuthorizationPolicy | Kind::PeerAuthentication
            ) && is_root(&key.namespace)
                && !held.scope.is_for_whole_mesh()
        });
        held.map(|(key, held)| (key, &held.source))
    }

    /// What such a policy does, and what its writer may do: two halves of a sentence.
    #[must_use]
    pub fn not_mesh_wide_in_words(&self, namespace: &str) -> (String, String) {
        let mesh = &self.mesh_namespace;
        let problem = format!(
            "this is for workloads of the namespace {namespace} alone: what is for the whole mesh \
             is in {mesh}"
        );
        let help = format!(
            "move it to the namespace {mesh}; or, of files, leave apiVersion as Istio has it, and give \
             --istio-root-namespace {namespace} to the control plane and to tools"
        );
        (problem, help)
    }
}
