//! The injector: AdmissionReview → decision → patch.
//!
//! ```text
//! AdmissionReview ─▶ injection_decision ─▶ Inject ─▶ sidecar_container, probe_rewrite ─▶ pod_patch
//!                                       ├▶ Skip(reason)      stamped, warned, counted
//!                                       └▶ Refuse(reason)    said to whoever made the pod
//! ```

pub mod admission_review;
pub mod annotations;
pub mod clock;
pub mod cluster_check;
mod injection;
pub mod injection_decision;
pub mod installation;
pub mod mesh_settings;
mod metrics;
pub mod namespace_facts;
mod namespaces;
mod pod_patch;
mod pod_shape;
mod pod_volumes;
pub mod probe_rewrite;
mod redirect_container;
mod registration;
mod serving_certificate;
mod sidecar_container;
pub mod webhook;
pub mod workload_files;
