//! The control plane: attest → issue → distribute.
//!
//! ```text
//! data directory ── key_store ── rotation ──▶ Trust ──┬─▶ certificate_authority ─▶ issuance
//!                                                     ├─▶ trust_bundle_publisher   ▲
//!                                                     └─▶ serving_identity         │
//! --config-dir ── directory_of_files ─┬▶ workload_index ── workload_attestation ───┘
//! --kubernetes ── source/kubernetes ──┴▶ policy_index
//! grpc: wire ↔ domain, from the newest of these facts; admin: metrics and readiness
//! ```
//! Each fact has one writer and is published whole (`watch`); streams look at the newest.

mod admin;
mod caller;
mod certificate_authority;
pub mod clock;
mod cluster;
#[cfg(test)]
mod cluster_fixture;
mod cluster_objects;
mod cluster_trust_bundle;
mod condition;
mod csr_signer;
mod directory_changes;
mod gauges;
mod grpc;
mod issuance;
mod leader;
pub mod lifetime;
mod listening;
mod metrics;
mod namespace_trust_bundles;
mod open_files;
pub mod outbound_rules;
pub mod policy_index;
pub mod policy_review;
mod remote_keys;
pub mod root_commands;
mod serving_identity;
pub mod settings;
mod source;
mod startup;
mod trust_bundle_publisher;
mod workload_attestation;
mod workload_index;

/// A cluster's objects as documents, for tools.
pub mod cluster_documents {
    pub use crate::source::kubernetes::cluster_documents::{
        ClusterDocuments, File, LeftOut, ReadError, Scope, read_cluster,
    };
}

/// Why something failed, by stage.
pub mod error {
    pub use crate::{
        certificate_authority::{
            IssueError, authority_facts::InvalidAuthority, key_store::KeyStoreError,
            random::NoRandomNumbers, root::RootError, root_mode::InvalidRootMode,
            rotation::RotationError, svid_inspection::InspectionError,
            svid_template::TemplateError,
        },
        cluster::ClusterError,
        cluster_objects::ObjectError,
        root_commands::RootCommandError,
        serving_identity::ServingError,
        source::directory_of_files::DirectoryError,
        workload_attestation::join_token::JoinTokenError,
    };
}

pub use startup::{Bound, RunError, run, run_by_clock};
pub use workload_attestation::join_token::JoinToken;
pub use workload_index::{InvalidWorkloadName, WorkloadName};
